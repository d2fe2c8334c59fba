// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BACKLOG 4096      /* the kernel cuts it to net.core.somaxconn */
#define ACCEPT_AT_ONCE 64 /* then others have their turn */
#define BACKOFF_MS 100    /* no descriptors left: clients wait in the kernel's queue meanwhile */

struct Listener {
    Item item;
    uv_poll_t poll;
    Loop *loop;
    int fd;
    bool closed;
    Timer *retry;
    char *unix_path; /* to be removed at the end; NULL: TCP or abstract */
    char *peer;      /* what the other side of a Unix stream is called; NULL: TCP */
    int port;
    void (*accept)(Stream *stream, void *user);
    void *user;
};

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void listener_again(void *user) {
    Listener *listener = user;
    timer_close(listener->retry);
    listener->retry = NULL;
    uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
}

static void back_off(Listener *listener, int error) {
    char text[64];
    log_debug("io: port %d: could not accept a connection: %s, next try in %d ms", listener->port,
              error_text(error, text), BACKOFF_MS);
    uv_poll_stop(&listener->poll);
    listener->retry = timer_start(listener->loop, BACKOFF_MS, 0, listener_again, listener);
}

static int accept_one(const Listener *listener, Address *peer) {
    if (fault_hit("io.accept")) {
        errno = EMFILE;
        return -1;
    }
    peer->length = sizeof peer->at;
    return accept4(listener->fd, (struct sockaddr *)&peer->at, &peer->length,
                   SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void on_acceptable(uv_poll_t *poll, int status, int events) {
    (void)status, (void)events;
    Listener *listener = poll->data;
    for (int i = 0; i < ACCEPT_AT_ONCE && !listener->closed; i++) {
        Address from;
        char text[64];
        int fd = accept_one(listener, &from);
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            back_off(listener, errno);
            return;
        }
        if (fd < 0) continue; /* that client has gone already */
        if (!listener->peer) address_text(&from, text);
        Stream *stream = stream_accepted(listener->loop, fd, listener->peer != NULL,
                                         listener->peer ? listener->peer : text);
        if (stream) listener->accept(stream, listener->user);
    }
}

static void listener_close_item(Item *item) { listener_close((Listener *)item); }

static void on_listener_closed(uv_handle_t *handle) {
    Listener *listener = handle->data;
    free(listener->unix_path);
    free(listener->peer);
    free(listener);
}

static Listener *listener_make(Loop *loop, int fd, void (*accept)(Stream *stream, void *user),
                               void *user) {
    Listener *listener = mem_new(sizeof *listener);
    if (uv_poll_init(&loop->uv, &listener->poll, fd) != 0) {
        free(listener);
        return NULL;
    }
    loop_own(loop, &listener->item, listener_close_item);
    listener->poll.data = listener;
    listener->loop = loop;
    listener->fd = fd;
    listener->accept = accept;
    listener->user = user;
    return listener;
}

void listener_close(Listener *listener) {
    if (!listener) return;
    listener->closed = true;
    item_leave(&listener->item);
    timer_close(listener->retry);
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
    close(listener->fd);
    if (listener->unix_path) unlink(listener->unix_path);
}

int listener_port(const Listener *listener) { return listener->port; }

/* ---- TCP ---- */

static bool listen_failed(const Address *at, int port, int error, Err *err) {
    char where[64], text[64];
    address_text(at, where);
    err_set(err, error == EADDRINUSE ? ERR_CONFLICT : ERR_IO, "could not listen on %s: %s", where,
            error_text(error, text));
    if (error == EADDRINUSE)
        err_hint(err,
                 "Choose another --port, or stop the process that has it: ss -ltnp 'sport = :%d'.",
                 port);
    if (error == EADDRNOTAVAIL)
        err_hint(err, "Choose a --host that is an address of this machine.");
    if (error == EACCES) err_hint(err, "Choose a --port above 1023, or run with the right to it.");
    return false;
}

/* Blocks while a name is looked up: that happens once, before anything is served. */
static bool listen_address(Loop *loop, const char *host, int port, Address *out, Err *err) {
    if (port < 0 || port > 65535) {
        err_set(err, ERR_INVALID, "cannot listen on port %d", port);
        return err_hint(err, "Choose a --port from 0 to 65535.");
    }
    if (!host) host = "0.0.0.0";
    if (address_numeric(host, port, out)) return true;
    char service[16], text[64];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
    uv_getaddrinfo_t lookup;
    int failed = uv_getaddrinfo(&loop->uv, &lookup, NULL, host, service, &hints);
    if (failed) {
        err_set(err, ERR_INVALID, "could not listen on %s:%d: %s", host, port,
                error_text(failed, text));
        return err_hint(err, "Choose a --host that is an address of this machine.");
    }
    *out = (Address){.length = lookup.addrinfo->ai_addrlen};
    memcpy(&out->at, lookup.addrinfo->ai_addr, out->length);
    uv_freeaddrinfo(lookup.addrinfo);
    return true;
}

static void set_reuse(int fd, int on) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

/* Takes the port for good without listening.  bind() alone does not: two sockets with SO_REUSEADDR
 * may both bind and the second listen() fails, much later; and without SO_REUSEADDR a port cannot
 * be had while old connections to it time out.  So: bind with it, listen for a moment, which meets
 * every conflict, and switch it off while waiting, which makes later binds fail.  A port that the
 * kernel chose (0) is not offered to others. */
static bool take_port(int fd, const Address *at, int port) {
    if (port) set_reuse(fd, 1);
    if (bind(fd, (const struct sockaddr *)&at->at, at->length) != 0) return false;
    if (!port) return true;
    if (listen(fd, 1) != 0 || shutdown(fd, SHUT_RD) != 0) return false;
    set_reuse(fd, 0);
    return true;
}

static int port_of(int fd) {
    struct sockaddr_storage at = {0};
    socklen_t length = sizeof at;
    getsockname(fd, (struct sockaddr *)&at, &length);
    struct sockaddr_in v4; /* the port of an IPv6 address lies in the same place */
    memcpy(&v4, &at, sizeof v4);
    return ntohs(v4.sin_port);
}

Listener *reserve_tcp(Loop *loop, const char *host, int port,
                      void (*accept)(Stream *stream, void *user), void *user, Err *err) {
    Address at;
    if (!listen_address(loop, host, port, &at, err)) return NULL;
    int fd = socket_open(at.at.ss_family);
    Listener *listener = NULL;
    if (fd >= 0 && take_port(fd, &at, port)) listener = listener_make(loop, fd, accept, user);
    if (!listener) {
        listen_failed(&at, port, errno, err);
        if (fd >= 0) close(fd);
        return NULL;
    }
    listener->port = port_of(fd);
    return listener;
}

static void start_again(void *user) {
    Listener *listener = user;
    timer_close(listener->retry);
    listener->retry = NULL;
    listener_start(listener);
}

void listener_start(Listener *listener) {
    loop_check(listener->loop);
    set_reuse(listener->fd, 1); /* old connections to the port do not count */
    /* The port is ours already, so this can only lack memory, which may pass. */
    if (listen(listener->fd, BACKLOG) != 0)
        listener->retry = timer_start(listener->loop, BACKOFF_MS, 0, start_again, listener);
    else
        uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
}

Listener *listen_tcp(Loop *loop, const char *host, int port,
                     void (*accept)(Stream *stream, void *user), void *user, Err *err) {
    Listener *listener = reserve_tcp(loop, host, port, accept, user, err);
    if (listener) listener_start(listener);
    return listener;
}

/* ---- Unix ---- */

/* The file of a process that died stays behind: nobody answers there, and it may be replaced. */
static bool is_left_behind(const Address *at) {
    int fd = socket_open(AF_UNIX);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)&at->at, at->length) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0) close(fd);
    return refused;
}

Listener *listen_unix(Loop *loop, const char *path, void (*accept)(Stream *stream, void *user),
                      void *user, Err *err) {
    Address at;
    if (!address_unix(path, &at, err)) return NULL;
    const struct sockaddr *where = (const struct sockaddr *)&at.at;
    int fd = socket_open(AF_UNIX);
    bool bound = fd >= 0 && bind(fd, where, at.length) == 0;
    if (fd >= 0 && !bound && errno == EADDRINUSE) {
        if (path[0] != '@' && is_left_behind(&at) && unlink(path) == 0)
            bound = bind(fd, where, at.length) == 0;
        else errno = EADDRINUSE;
    }
    Listener *listener = NULL;
    if (bound && listen(fd, BACKLOG) == 0) listener = listener_make(loop, fd, accept, user);
    if (!listener) {
        int error = errno;
        char text[64];
        err_set(err, error == EADDRINUSE ? ERR_CONFLICT : ERR_IO, "could not listen on unix:%s: %s",
                path, error_text(error, text));
        if (fd >= 0) close(fd);
        return NULL;
    }
    char peer[320];
    snprintf(peer, sizeof peer, "unix:%s", path);
    listener->peer = mem_dup_str(peer);
    if (path[0] != '@') listener->unix_path = mem_dup_str(path);
    uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
    return listener;
}
