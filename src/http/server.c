// SPDX-License-Identifier: Apache-2.0
#include "server.h"

#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MS 1000

/* ---- ends ---- */

static void on_idle(void *user) {
    HttpServer *server = user;
    void (*idle)(void *) = server->idle;
    server->idle = NULL;
    if (idle) idle(server->idle_user);
}

static void tell_idle_soon(HttpServer *server) {
    if (server->draining && !server->conns && server->idle) timer_again(server->idle_timer, 0);
}

static void conn_free(Conn *conn) {
    message_done(&conn->in);
    buf_done(&conn->head);
    free(conn);
}

/* Without any word to the server. */
static void conn_drop(Conn *conn) {
    stream_close(conn->stream);
    conn->stream = NULL;
    timer_close(conn->timer);
    conn->timer = NULL;
    conn->dead = true;
    if (!conn->busy) conn_free(conn);
}

static void conn_end(Conn *conn) {
    HttpServer *server = conn->server;
    if (conn->next) conn->next->prev = conn->prev;
    if (conn->prev) conn->prev->next = conn->next;
    else server->conns = conn->next;
    server->conn_count--;
    conn_drop(conn);
    tell_idle_soon(server);
}

/* After the last reply.  The rest of it counts as ours until the kernel has it: drain waits. */
static void conn_leave(Conn *conn) {
    conn->state = CONN_LEAVING;
    conn->mark_us = clock_mono_us();
    stream_read(conn->stream, false);
    if (stream_unsent(conn->stream) > 0) return;
    stream_close_when_sent(conn->stream);
    conn->stream = NULL;
    conn_end(conn);
}

static void conn_refuse(Conn *conn, int status, const char *problem) {
    reply_refusal(conn->server, conn->stream, conn->bodyless, status, problem);
    conn_leave(conn);
}

void conn_request_over(Conn *conn) {
    conn->server->open_requests--;
    if (!conn->stream) {
        conn_end(conn);
    } else if (!conn->keep || conn->server->draining) {
        conn_leave(conn);
    } else {
        message_start(&conn->in);
        conn->state = CONN_READING;
        conn->request.began_us = 0;
        conn->mark_us = clock_mono_us();
        stream_read(conn->stream, true); /* was off if the buffer was full */
        if (message_unread(&conn->in) && !conn->busy) conn_soon(conn);
    }
}

/* Without `gone` the handler answers to nobody, and ends it so: it must not wait for a reader. */
static void conn_lost(Conn *conn) {
    stream_close(conn->stream);
    conn->stream = NULL;
    if (!conn->gone) {
        if (conn->slow && conn->drained) conn->drained(&conn->request, conn->drained_user);
        return;
    }
    conn->busy = true;
    conn->gone(&conn->request, conn->gone_user);
    conn->busy = false;
    if (conn->dead) conn_free(conn); /* ended in there, by http_end() or http_server_close() */
    else conn_request_over(conn);
}

/* ---- requests ---- */

static void set_target(HttpRequest *request, Str target) {
    Str rest = target, head;
    if (str_cut(&rest, '#', &head)) target = head;
    const char *scheme =
        target.length && target.at[0] != '/' ? memchr(target.at, ':', target.length) : NULL;
    size_t left = scheme ? target.length - (size_t)(scheme - target.at) : 0;
    if (left >= 3 && !memcmp(scheme, "://", 3)) { /* http://host/path, as to a proxy */
        const char *host = scheme + 3, *end = target.at + target.length;
        const char *path = memchr(host, '/', (size_t)(end - host));
        target = path ? (Str){path, (size_t)(end - path)} : STR("/");
    }
    request->query = target;
    str_cut(&request->query, '?', &request->path);
    if (!request->query.at) request->query = (Str){"", 0};
}

static void dispatch(Conn *conn) {
    HttpServer *server = conn->server;
    Message *in = &conn->in;
    message_keep_room(in);
    HttpRequest *request = &conn->request;
    request->method = in->method;
    set_target(request, in->target);
    request->body = message_body(in);
    request->headers = message_headers(in);
    request->peer = conn->peer;
    request->handler_data = NULL;
    conn->keep = in->keep_alive;
    conn->bodyless = str_eq(in->method, "HEAD");
    conn->chunked = conn->slow = conn->lost = false;
    conn->gone = conn->drained = NULL;
    conn->state = CONN_HANDLING;
    server->open_requests++;
    server->conf.handle(request, server->conf.user);
}

static void on_head(Conn *conn) {
    Message *in = &conn->in;
    conn->bodyless = str_eq(in->method, "HEAD");
    if (in->expects_unknown) conn_refuse(conn, 417, "only 100-continue may be expected");
    else if (in->expects_continue && in->framing != BODY_NONE && message_unread(in) == 0)
        stream_write(conn->stream, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

static void conn_advance(Conn *conn) {
    conn->busy = true;
    while (!conn->dead && conn->state == CONN_READING) {
        if (!conn->request.began_us && message_begun(&conn->in))
            conn->request.began_us = clock_mono_us();
        /* A client that sends requests and reads no replies. */
        conn->waits = stream_unsent(conn->stream) > LIMIT_HTTP_UNSENT / 2;
        if (conn->waits) stream_read(conn->stream, false);
        Part part = conn->waits ? PART_MORE : message_next(&conn->in);
        if (part == PART_MORE && !message_begun(&conn->in)) conn->request.began_us = 0;
        if (part == PART_MORE) break;
        if (part == PART_HEAD) on_head(conn);
        else if (part == PART_END) dispatch(conn);
        else conn_refuse(conn, conn->in.bad_status, conn->in.problem);
    }
    conn->busy = false;
    if (conn->dead) conn_free(conn);
}

/* What a call of the handler's must not do itself: call the handler. */
static void on_soon(void *user) {
    Conn *conn = user;
    if (conn->lost) {
        conn->lost = false;
        conn_lost(conn);
    } else if (!conn->stream) {
        return;
    } else if (conn->state == CONN_STREAMING) {
        if (conn->head.length) conn_flush_head(conn);
    } else if (conn->state == CONN_READING) {
        conn_advance(conn);
    }
}

void conn_soon(Conn *conn) {
    if (!conn->timer) conn->timer = timer_start(conn->server->loop, 0, 0, on_soon, conn);
    else timer_again(conn->timer, 0);
}

/* ---- the stream's calls ---- */

static void *on_room(void *user, size_t *length) {
    Conn *conn = user;
    char *room = message_room(&conn->in, length);
    assert(*length > 0); /* reading is off when the buffer is full */
    return room;
}

static void on_got(void *user, size_t length) {
    Conn *conn = user;
    message_got(&conn->in, length);
    size_t room = 1;
    if (conn->state == CONN_READING) conn_advance(conn);
    else message_room(&conn->in, &room);
    if (room == 0) stream_read(conn->stream, false);
}

static void on_gone(void *user, const Err *why) {
    Conn *conn = user;
    if (conn->state == CONN_HANDLING || conn->state == CONN_STREAMING) {
        conn_lost(conn);
        return;
    }
    /* A client that only ended its own side still gets the rest. */
    if (why->code == ERR_NONE && stream_unsent(conn->stream) > 0) {
        stream_close_when_sent(conn->stream);
        conn->stream = NULL;
    }
    conn_end(conn);
}

static void on_drained(void *user) {
    Conn *conn = user;
    if (conn->state == CONN_LEAVING) {
        conn_leave(conn);
    } else if (conn->state == CONN_READING && conn->waits) {
        stream_read(conn->stream, true);
        conn_advance(conn);
    } else if (conn->state == CONN_STREAMING && conn->slow) {
        conn->slow = false;
        if (conn->drained) conn->drained(&conn->request, conn->drained_user);
    }
}

static void on_accept(Stream *stream, void *user) {
    static const StreamCalls calls = {
        .room = on_room, .got = on_got, .gone = on_gone, .drained = on_drained};
    HttpServer *server = user;
    if (server->conn_count >= server->conf.max_connections) {
        reply_refusal(server, stream, false, 503, "too many connections");
        stream_close_when_sent(stream);
        return;
    }
    Conn *conn = mem_new(sizeof *conn);
    conn->server = server;
    conn->stream = stream;
    conn->next = server->conns;
    if (conn->next) conn->next->prev = conn;
    server->conns = conn;
    server->conn_count++;
    message_init(&conn->in, true);
    conn->in.collect = true;
    conn->in.max_body = server->conf.max_body;
    conn->mark_us = clock_mono_us();
    snprintf(conn->peer, sizeof conn->peer, "%s", stream_peer(stream));
    stream_set_calls(stream, &calls, conn);
    stream_read(stream, true);
}

/* ---- time ---- */

/* The connection is at fault for the time it takes; handlers keep their own. */
static void sweep_conn(Conn *conn, int64_t now_us) {
    const HttpServerConf *conf = &conn->server->conf;
    int64_t idle_us = (int64_t)conf->idle_ms * 1000, read_us = (int64_t)conf->read_ms * 1000;
    size_t unsent = conn->stream ? stream_unsent(conn->stream) : 0;
    if (unsent != conn->mark_unsent) {
        conn->mark_unsent = unsent;
        conn->mark_us = now_us;
    }
    bool reading = conn->state == CONN_READING;
    if (reading && !conn->waits && conn->request.began_us &&
        now_us - conn->request.began_us > read_us) {
        conn_refuse(conn, 408, "the request did not arrive in time");
        return;
    }
    if (now_us - conn->mark_us <= idle_us) return;
    if (unsent > 0 && (conn->state == CONN_HANDLING || conn->state == CONN_STREAMING)) {
        conn->lost = true;
        conn_soon(conn);
    } else if (unsent > 0 || (reading && !conn->request.began_us)) {
        conn_end(conn);
    }
}

static void on_sweep(void *user) {
    HttpServer *server = user;
    int64_t now_us = clock_mono_us();
    for (Conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        sweep_conn(conn, now_us);
    }
}

/* ---- http.h ---- */

HttpServer *http_server_open(Loop *loop, const HttpServerConf *conf, Err *err) {
    HttpServer *server = mem_new(sizeof *server);
    server->listener = reserve_tcp(loop, conf->host, conf->port, on_accept, server, err);
    if (!server->listener) {
        free(server);
        return NULL;
    }
    server->loop = loop;
    server->port = listener_port(server->listener);
    server->conf = *conf;
    if (!server->conf.max_body) server->conf.max_body = LIMIT_HTTP_BODY;
    if (!server->conf.max_connections) server->conf.max_connections = LIMIT_HTTP_CONNECTIONS;
    if (!server->conf.idle_ms) server->conf.idle_ms = LIMIT_HTTP_IDLE_MS;
    if (!server->conf.read_ms) server->conf.read_ms = LIMIT_HTTP_READ_MS;
    uint64_t least = server->conf.idle_ms < server->conf.read_ms ? server->conf.idle_ms
                                                                 : server->conf.read_ms;
    uint64_t every = least / 4 < SWEEP_MS ? least / 4 + 1 : SWEEP_MS;
    server->sweep = timer_start(loop, every, every, on_sweep, server);
    server->idle_timer = timer_start(loop, TIMER_NEVER, 0, on_idle, server);
    return server;
}

void http_server_listen(HttpServer *server) { listener_start(server->listener); }
int http_server_port(const HttpServer *server) { return server->port; }
size_t http_server_open_requests(const HttpServer *server) { return server->open_requests; }

void http_server_drain(HttpServer *server, void (*idle)(void *user), void *user) {
    server->draining = true;
    server->idle = idle;
    server->idle_user = user;
    listener_close(server->listener);
    server->listener = NULL;
    for (Conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        if (conn->state == CONN_READING && !conn->request.began_us) conn_leave(conn);
    }
    tell_idle_soon(server);
}

void http_server_close(HttpServer *server) {
    if (!server) return;
    listener_close(server->listener);
    timer_close(server->sweep);
    timer_close(server->idle_timer);
    while (server->conns) {
        Conn *conn = server->conns;
        server->conns = conn->next;
        conn_drop(conn);
    }
    buf_done(&server->scratch);
    free(server);
}
