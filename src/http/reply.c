// SPDX-License-Identifier: Apache-2.0
#include "server.h"

#include <time.h>

/* ---- heads ---- */

static Str date_now(HttpServer *server) {
    int64_t now_s = clock_wall_us() / 1000000;
    if (now_s != server->date_s) {
        time_t seconds = (time_t)now_s;
        struct tm tm;
        gmtime_r(&seconds, &tm);
        strftime(server->date, sizeof server->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        server->date_s = now_s;
    }
    return str_of(server->date);
}

static void put_status(HttpServer *server, Buf *out, int status) {
    char line[] = "HTTP/1.1 000 ";
    assert(status >= 200 && status <= 999); /* interim replies are ours */
    for (int i = 11, rest = status; i > 8; i--, rest /= 10) line[i] = (char)('0' + rest % 10);
    buf_append(out, line, sizeof line - 1);
    buf_str(out, http_status_text(status));
    buf_append(out, "\r\n", 2);
    header_put(out, "date", date_now(server));
    if (server->conf.name) header_put(out, "server", str_of(server->conf.name));
}

static bool has_no_body(int status) { return status == 204 || status == 304; }

static void put_connection(Conn *conn, Buf *out) {
    if (conn->server->draining) conn->keep = false;
    if (!conn->keep) header_put(out, "connection", STR("close"));
    else if (conn->in.http_10) header_put(out, "connection", STR("keep-alive"));
}

static void put_rest(Buf *out, const char *content_type, HttpHeaders extra) {
    if (content_type) header_put(out, "content-type", str_of(content_type));
    headers_put(out, OF_REPLY, extra, content_type != NULL);
    buf_append(out, "\r\n", 2);
}

static Conn *conn_of(HttpRequest *request) {
    Conn *conn = (Conn *)request;
    assert(conn->state == CONN_HANDLING || conn->state == CONN_STREAMING);
    return conn;
}

/* ---- in one piece ---- */

void http_reply(HttpRequest *request, int status, const char *content_type, Str body,
                HttpHeaders extra) {
    Conn *conn = conn_of(request);
    assert(conn->state == CONN_HANDLING);
    if (conn->stream) {
        Buf *head = &conn->server->scratch;
        buf_clear(head);
        put_status(conn->server, head, status);
        put_connection(conn, head);
        if (!has_no_body(status)) header_put_number(head, "content-length", body.length);
        put_rest(head, content_type, extra);
        bool bodyless = conn->bodyless || has_no_body(status);
        stream_write_parts(conn->stream, (Str[]){{head->at, head->length}, body}, bodyless ? 1 : 2);
    }
    conn_request_over(conn);
}

void reply_refusal(HttpServer *server, Stream *stream, bool bodyless, int status,
                   const char *problem) {
    auto_buf Buf body = {0};
    const char *type = "text/plain; charset=utf-8";
    if (server->conf.error_body) type = server->conf.error_body(status, problem, &body);
    else buf_printf(&body, "%s\n", problem);
    Buf *head = &server->scratch;
    buf_clear(head);
    put_status(server, head, status);
    header_put(head, "connection", STR("close"));
    header_put_number(head, "content-length", body.length);
    put_rest(head, type, (HttpHeaders){0});
    stream_write_parts(stream, (Str[]){{head->at, head->length}, {body.at, body.length}},
                       bodyless ? 1 : 2);
}

/* ---- as a stream ---- */

void http_begin(HttpRequest *request, int status, const char *content_type, HttpHeaders extra) {
    Conn *conn = conn_of(request);
    assert(conn->state == CONN_HANDLING);
    conn->state = CONN_STREAMING;
    if (!conn->stream) return;
    conn->bodyless = conn->bodyless || has_no_body(status);
    conn->chunked = !conn->in.http_10;
    if (conn->in.http_10 && !conn->bodyless) conn->keep = false; /* its end is the body's end */
    buf_clear(&conn->head);
    put_status(conn->server, &conn->head, status);
    put_connection(conn, &conn->head);
    if (conn->chunked && !has_no_body(status))
        header_put(&conn->head, "transfer-encoding", STR("chunked"));
    put_rest(&conn->head, content_type, extra);
    conn_soon(conn); /* with the first bytes if they come at once, else alone */
}

void conn_flush_head(Conn *conn) {
    stream_write(conn->stream, conn->head.at, conn->head.length);
    buf_clear(&conn->head);
}

static size_t size_line(size_t size, char out[20]) {
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    int shift = 60;
    while (shift > 0 && !(size >> shift)) shift -= 4;
    for (; shift >= 0; shift -= 4) out[at++] = digits[size >> shift & 15];
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}

static bool send_chunk(Conn *conn, Str bytes, Str after) {
    char size[20];
    Str parts[] = {{conn->head.at, conn->head.length}, {size, 0}, bytes, after};
    if (conn->chunked && bytes.length) parts[1].length = size_line(bytes.length, size);
    stream_write_parts(conn->stream, parts, COUNT_OF(parts));
    buf_clear(&conn->head);
    size_t unsent = stream_unsent(conn->stream);
    if (unsent <= LIMIT_HTTP_UNSENT / 2) return true;
    conn->slow = true;
    if (unsent > LIMIT_HTTP_UNSENT) {
        conn->lost = true;
        stream_close(conn->stream);
        conn->stream = NULL;
        conn_soon(conn);
    }
    return false;
}

bool http_send(HttpRequest *request, Str bytes) {
    Conn *conn = conn_of(request);
    assert(conn->state == CONN_STREAMING);
    if (!conn->stream) return !conn->gone; /* that will be called; else there is no reader at all */
    if (conn->bodyless || !bytes.length) return !conn->slow;
    return send_chunk(conn, bytes, conn->chunked ? STR("\r\n") : (Str){NULL, 0});
}

void http_end(HttpRequest *request) {
    Conn *conn = conn_of(request);
    assert(conn->state == CONN_STREAMING);
    if (conn->stream && conn->chunked && !conn->bodyless)
        send_chunk(conn, (Str){NULL, 0}, STR("0\r\n\r\n"));
    else if (conn->stream && conn->head.length) conn_flush_head(conn);
    conn_request_over(conn);
}

void http_abort(HttpRequest *request) {
    Conn *conn = conn_of(request);
    stream_close(conn->stream);
    conn->stream = NULL;
    conn_request_over(conn);
}

/* ---- what the handler wants to know ---- */

void http_on_gone(HttpRequest *request, void (*gone)(HttpRequest *request, void *user),
                  void *user) {
    Conn *conn = conn_of(request);
    conn->gone = gone;
    conn->gone_user = user;
    if (conn->stream || !gone) return;
    conn->lost = true; /* already: told a moment later */
    conn_soon(conn);
}

void http_on_drained(HttpRequest *request, void (*drained)(HttpRequest *request, void *user),
                     void *user) {
    Conn *conn = conn_of(request);
    conn->drained = drained;
    conn->drained_user = user;
}
