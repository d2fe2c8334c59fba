// SPDX-License-Identifier: Apache-2.0
/* stream.h - the inside of a Stream: stream.c moves its bytes, connect.c makes its connection.
 *
 *     user -> first [segment] -> [segment] -> last -> kernel -> sent [views] -> done()
 *
 * Memory: `holds` counts who may still come back to it (the user, libuv's handle, a queued Later);
 * it is freed with the last.  Invariants
 *   1. closed: no callback runs any more, and the descriptor is gone
 *   2. unsent is the sum of `left` over the queue; nothing is queued once the stream has failed
 *   3. events is what the kernel is asked to wait for; 0: nothing, or the handle is not open */
#ifndef BATON_IO_STREAM_H
#define BATON_IO_STREAM_H

#include "internal.h"

#define STREAM_FDS 8 /* descriptors that came and were not taken */

typedef struct Segment { /* bytes that the kernel has not taken yet */
    struct Segment *next;
    const char *at;
    size_t left;
    size_t spare; /* bytes free behind it, if it is our own */
    bool own;     /* at points into copy */
    int fd;       /* goes with the first byte and is closed then; -1: none */
    void (*done)(void *user); /* a view's, on its last part */
    void *done_user;
    char copy[];
} Segment;

typedef struct Connect Connect; /* connect.c: a connection on its way */

struct Stream {
    Item item;
    Later later;
    Loop *loop;
    uv_poll_t poll;
    int fd;
    int events;
    int holds;
    bool is_unix, reading;
    bool connected;    /* there is a descriptor, and libuv knows it */
    bool connect_over; /* `connected` is to be called: failure says with what */
    bool ended;        /* the peer has ended its side */
    bool told;         /* `gone`, or `connected` with a failure, was called */
    bool finishing;    /* stream_close_when_sent() */
    bool closed;
    int write_error; /* errno; told as soon as what came before it has been read */
    StreamCalls calls;
    void *user;
    Segment *first, **last, *sent;
    size_t unsent;
    int fds[STREAM_FDS], fd_count;
    Timer *timer; /* limits connecting, later finishing */
    uint64_t timeout_ms;
    Connect *connect; /* NULL once it is made */
    Err *failure; /* of connecting */
    char *peer;
};

Stream *stream_new(Loop *loop, bool is_unix, const char *peer);
bool stream_adopt(Stream *stream, int fd); /* now connected; takes fd also when it fails: errno */
void stream_soon(Stream *stream);          /* what waits to be told is told in the next round */
void stream_wait(Stream *stream);          /* brings the events waited for up to date */
void connect_forget(Connect *connect);     /* its stream is closed; NULL is fine */
void connect_tell(Stream *stream);         /* calls `connected` */

#endif
