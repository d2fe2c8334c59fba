// SPDX-License-Identifier: Apache-2.0
/* http.h - HTTP/1.1 as server and client, on one Loop.
 *
 * Server: a handler is called once per request, when its body is whole.  It answers now or later,
 * in one piece (http_reply) or as a stream (http_begin, http_send ..., http_end).  Requests of one
 * connection are answered in order.  When the client leaves first, `gone` is called (once) and the
 * request must not be touched after it returns; a handler that did not ask for it answers as usual,
 * to nobody.
 *
 * Client: connections are kept and reused per address.  A kept connection that ends before the
 * first byte of the reply is replaced by a fresh one, once; nothing else is repeated.  A call ends
 * with exactly one `done`; http_call_cancel() instead ends it without one and closes its connection
 * at once, so that the peer notices.
 *
 * Callbacks come from the loop, never from inside a call of this header, except that conf.handle
 * and the callbacks of a call may use everything here.  Servers and clients are closed before their
 * loop is freed.  Header names that we write are lower case.  Of headers passed in, those that
 * belong to one connection (RFC 9110, 7.6.1) or that we write ourselves are left out, so a proxy
 * may pass on what it got; control characters in values become blanks.
 * Thread: the loop's. */
#ifndef BATON_HTTP_H
#define BATON_HTTP_H

#include "io/io.h"

typedef struct HttpHeader { Str name, value; } HttpHeader;
typedef struct HttpHeaders { const HttpHeader *at; size_t count; } HttpHeaders;
Str http_header(HttpHeaders headers,
                const char *name); /* the first of that name, any case; {NULL,0} if absent */

/* ---- server ---- */
typedef struct HttpServer HttpServer;
typedef struct HttpRequest { /* borrowed: valid until the reply has ended */
    Str method, path, query, body;  /* path without the query, not decoded */
    HttpHeaders headers;
    const char *peer;               /* "127.0.0.1:51234" */
    int64_t began_us;               /* monotonic, first byte */
    void *handler_data;             /* the handler's own */
} HttpRequest;
typedef struct HttpServerConf {
    const char *host; /* NULL: all IPv4 addresses */
    int port;         /* 0: any */
    const char *name; /* Server: header */
    size_t max_body;  /* 0: LIMIT_HTTP_BODY */
    void (*handle)(HttpRequest *request, void *user);
    /* What a request that cannot be parsed is answered with: writes the body, returns its content
     * type.  NULL: the message as plain text. */
    const char *(*error_body)(int status, const char *message, Buf *body);
    void *user;
    size_t max_connections;     /* 0: LIMIT_HTTP_CONNECTIONS; over it: 503 */
    uint64_t idle_ms, read_ms;  /* 0: LIMIT_HTTP_IDLE_MS, LIMIT_HTTP_READ_MS */
} HttpServerConf;
HttpServer *http_server_open(Loop *loop, const HttpServerConf *conf,
                             Err *err) MUST_CHECK; /* bound, not listening */
void http_server_listen(HttpServer *server); /* from now on connections are accepted */
int http_server_port(const HttpServer *server);
size_t http_server_open_requests(const HttpServer *server); /* in the hands of a handler */
void http_server_drain(HttpServer *server, void (*idle)(void *user),
                       void *user); /* no new connections; idle: the last reply has left */
void http_server_close(HttpServer *server); /* open requests end without `gone` */

void http_on_gone(HttpRequest *request, void (*gone)(HttpRequest *request, void *user), void *user);
void http_reply(HttpRequest *request, int status, const char *content_type, Str body,
                HttpHeaders extra); /* content_type NULL: none, or the one in extra */
void http_begin(HttpRequest *request, int status, const char *content_type,
                HttpHeaders extra); /* chunked */
/* False: the reader is slow, wait for http_on_drained.  Over LIMIT_HTTP_UNSENT bytes in waiting the
 * connection is dropped, and `gone` is called a moment later. */
bool http_send(HttpRequest *request, Str bytes);
void http_on_drained(HttpRequest *request, void (*drained)(HttpRequest *request, void *user),
                     void *user); /* after http_send() was false: all has left */
void http_end(HttpRequest *request);
void http_abort(HttpRequest *request); /* closes the connection in the middle of a stream */
const char *http_status_text(int status);

/* ---- client ---- */
typedef struct HttpClient HttpClient;
typedef struct HttpCall HttpCall;
typedef struct HttpCallConf {
    const char *host; int port;
    Str method, target;      /* target: path and query */
    HttpHeaders
        headers; /* without Host, Content-Length, Connection, Transfer-Encoding: those are ours */
    const Str *body; size_t body_parts;  /* sent one after another; the bytes stay until `done` */
    uint64_t connect_ms, first_byte_ms, idle_ms; /* 0: no limit */
    size_t max_body; /* of the buffered reply when `data` is NULL; 0: LIMIT_HTTP_REPLY */
    void (*head)(HttpCall *call, int status, HttpHeaders headers, void *user);  /* may be NULL */
    void (*data)(HttpCall *call, Str bytes, void *user); /* NULL: buffered for done */
    void (*done)(HttpCall *call, int status, Str body, const Err *failure,
                 void *user); /* failure NULL: whole reply; status 0: none came */
    void *user;
} HttpCallConf;
HttpClient *http_client_new(Loop *loop);
HttpCall *http_call(HttpClient *client, const HttpCallConf *conf); /* conf is copied */
void http_call_pause(HttpCall *call,
                     bool paused); /* back-pressure: no head, data, done meanwhile */
void http_call_cancel(HttpCall *call);
HttpHeaders
http_call_headers(const HttpCall *call); /* of the reply, from `head` until `done` returns */
void http_client_free(HttpClient *client); /* cancels what is open */

#endif
