// SPDX-License-Identifier: Apache-2.0
/* internal.h - what the files of io share: the loop's inside, streams before they are open. */
#ifndef BATON_IO_INTERNAL_H
#define BATON_IO_INTERNAL_H

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <uv.h>

#include "io.h"

/* Item - first member of all that is open on a loop, so that loop_free() can close it. */
typedef struct Item {
    struct Item *next, *prev;
    void (*close)(struct Item *item);
} Item;

/* Later - a call in the loop's next round, before it waits: how a function tells a result without
 * calling back from inside itself. */
typedef struct Later {
    struct Later *next;
    void (*run)(struct Later *later);
    bool queued;
} Later;

struct Loop {
    uv_loop_t uv;
    uv_async_t wake; /* loop_stop() from any thread; also keeps uv_run() from ending by itself */
    uv_idle_t idle;  /* active while `first` has something: polling does not wait then */
    Item items;      /* ring; this one is its anchor */
    Later *first, **last;
    _Atomic bool stop;
    _Atomic bool running;
    pthread_t thread; /* that runs it; valid while running */
};

#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

void loop_own(Loop *loop, Item *item, void (*close)(Item *item));
void item_leave(Item *item);
void loop_later(Loop *loop, Later *later); /* once, however often it is asked for */
static inline void loop_check(const Loop *loop) {
    assert(!atomic_load(&loop->running) || pthread_equal(loop->thread, pthread_self()));
    (void)loop;
}

/* Errors of the kernel and of libuv: "connection refused". */
const char *error_text(int error, char out[64]); /* error: an errno, or a code of libuv */

/* Address - where to connect or listen. */
typedef struct Address {
    struct sockaddr_storage at;
    socklen_t length;
} Address;

bool address_numeric(const char *host, int port, Address *out); /* false: host is a name */
bool address_unix(const char *path, Address *out, Err *err);
void address_text(const Address *address, char out[64]); /* "127.0.0.1:80", "[::1]:80" */

/* A socket that neither blocks nor is inherited by children; -1 and errno.  TCP does not wait to
 * fill packets, and notices after two minutes that the peer's machine is dead.  What a listener
 * accepts inherits both. */
int socket_open(int family);
Stream *stream_accepted(Loop *loop, int fd, bool is_unix, const char *peer);

#endif
