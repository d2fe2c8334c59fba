// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Attempt - one connect() under way, at one address. */
typedef struct Attempt {
    uv_poll_t poll;
    Connect *connect;
    int fd;
} Attempt;

/* Connect - a name looked up, its addresses tried one after the other. */
struct Connect {
    Stream *stream; /* NULL: closed, the lookup alone keeps this */
    uv_getaddrinfo_t lookup;
    bool looking;
    struct addrinfo *found, *next;
    Attempt *attempt;
};

static void on_attempt_closed(uv_handle_t *handle) { free(handle->data); }

static void attempt_end(Attempt *attempt) {
    attempt->connect->attempt = NULL;
    uv_close((uv_handle_t *)&attempt->poll, on_attempt_closed);
}

void connect_forget(Connect *connect) {
    if (!connect) return;
    if (connect->attempt) {
        int fd = connect->attempt->fd;
        attempt_end(connect->attempt);
        close(fd);
    }
    if (connect->found) uv_freeaddrinfo(connect->found);
    connect->found = NULL;
    connect->stream = NULL;
    if (connect->looking) uv_cancel((uv_req_t *)&connect->lookup); /* on_found() frees */
    else free(connect);
}

/* ---- how it ends ---- */

void connect_tell(Stream *stream) {
    stream->connect_over = false;
    timer_close(stream->timer);
    stream->timer = NULL;
    stream->told = stream->failure != NULL;
    if (stream->calls.connected) stream->calls.connected(stream->user, stream->failure);
}

static void connect_end(Stream *stream) {
    connect_forget(stream->connect);
    stream->connect = NULL;
    stream->connect_over = true;
    stream_soon(stream);
}

static void connect_fail(Stream *stream, int error) {
    char text[64];
    stream->failure = mem_new(sizeof *stream->failure);
    err_set(stream->failure, ERR_UNAVAILABLE, "could not connect to %s: %s", stream->peer,
            error_text(error, text));
    connect_end(stream);
}

static void on_late(void *user) {
    Stream *stream = user;
    if (stream->connect_over) return;
    stream->failure = mem_new(sizeof *stream->failure);
    err_set(stream->failure, ERR_DEADLINE, "could not connect to %s within %llu ms", stream->peer,
            (unsigned long long)stream->timeout_ms);
    connect_end(stream);
}

/* A port that nobody listens on can meet itself: the kernel may pick it as our own port, and both
 * ends of the connection are then this socket. */
static bool meets_itself(int fd) {
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_length = sizeof own, peer_length = sizeof peer;
    return getsockname(fd, (struct sockaddr *)&own, &own_length) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_length) == 0 &&
           own.ss_family != AF_UNIX && own_length == peer_length &&
           memcmp(&own, &peer, own_length) == 0;
}

/* Takes fd.  0, or the errno. */
static int connect_made(Stream *stream, int fd) {
    if (meets_itself(fd)) {
        close(fd);
        return ECONNREFUSED;
    }
    if (!stream_adopt(stream, fd)) return errno;
    connect_end(stream);
    stream_wait(stream); /* what was written while connecting */
    return 0;
}

/* ---- one address after the other ---- */

static void try_next(Connect *connect, int error);

static void on_settled(uv_poll_t *poll, int status, int events) {
    (void)status, (void)events;
    Attempt *attempt = poll->data;
    Connect *connect = attempt->connect;
    int fd = attempt->fd, error = 0;
    socklen_t length = sizeof error;
    attempt_end(attempt);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error) close(fd);
    else error = connect_made(connect->stream, fd);
    if (error) try_next(connect, error);
}

static int await_attempt(Connect *connect, int fd) {
    Attempt *attempt = mem_new(sizeof *attempt);
    int failed = uv_poll_init(&connect->stream->loop->uv, &attempt->poll, fd);
    if (failed) {
        free(attempt);
        close(fd);
        return failed;
    }
    attempt->poll.data = attempt;
    attempt->connect = connect;
    attempt->fd = fd;
    connect->attempt = attempt;
    uv_poll_start(&attempt->poll, UV_WRITABLE, on_settled);
    return 0;
}

static int try_address(Connect *made, const struct sockaddr *at, socklen_t length) {
    if (fault_hit("io.connect")) return ECONNREFUSED;
    int fd = socket_open(at->sa_family);
    if (fd < 0) return errno;
    if (connect(fd, at, length) == 0) return connect_made(made->stream, fd);
    if (errno == EINPROGRESS) return await_attempt(made, fd);
    int error = errno;
    close(fd);
    return error;
}

static void try_next(Connect *connect, int error) {
    while (connect->next) {
        struct addrinfo *at = connect->next;
        connect->next = at->ai_next;
        error = try_address(connect, at->ai_addr, at->ai_addrlen);
        if (!error) return;
    }
    connect_fail(connect->stream, error);
}

static void on_found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found) {
    Connect *connect = lookup->data;
    connect->looking = false;
    if (!connect->stream) {
        if (found) uv_freeaddrinfo(found);
        free(connect);
        return;
    }
    connect->found = connect->next = found;
    try_next(connect, status);
}

/* ---- io.h ---- */

static Stream *begin(Loop *loop, bool is_unix, const char *peer, uint64_t timeout_ms,
                     const StreamCalls *calls, void *user) {
    Stream *stream = stream_new(loop, is_unix, peer);
    stream_set_calls(stream, calls, user);
    stream->connect = mem_new(sizeof *stream->connect);
    stream->connect->stream = stream;
    stream->timeout_ms = timeout_ms;
    if (timeout_ms) stream->timer = timer_start(loop, timeout_ms, 0, on_late, stream);
    return stream;
}

Stream *stream_connect_tcp(Loop *loop, const char *host, int port, uint64_t timeout_ms,
                           const StreamCalls *calls, void *user) {
    char peer[320], service[16];
    snprintf(peer, sizeof peer, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    Stream *stream = begin(loop, false, peer, timeout_ms, calls, user);
    Connect *connect = stream->connect;
    Address address;
    int error;
    if (address_numeric(host, port, &address)) {
        error = try_address(connect, (struct sockaddr *)&address.at, address.length);
    } else {
        snprintf(service, sizeof service, "%d", port);
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        connect->lookup.data = connect;
        error = uv_getaddrinfo(&loop->uv, &connect->lookup, on_found, host, service, &hints);
        connect->looking = !error;
    }
    if (error) connect_fail(stream, error);
    return stream;
}

Stream *stream_connect_unix(Loop *loop, const char *path, uint64_t timeout_ms,
                            const StreamCalls *calls, void *user) {
    char peer[320];
    snprintf(peer, sizeof peer, "unix:%s", path);
    Stream *stream = begin(loop, true, peer, timeout_ms, calls, user);
    Address address;
    Err failure = {0};
    if (!address_unix(path, &address, &failure)) {
        stream->failure = mem_new(sizeof failure);
        *stream->failure = failure;
        connect_end(stream);
        return stream;
    }
    int error = try_address(stream->connect, (struct sockaddr *)&address.at, address.length);
    if (error) connect_fail(stream, error);
    return stream;
}
