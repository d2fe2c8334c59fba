// SPDX-License-Identifier: Apache-2.0
/* server.h - the inside of the server: server.c reads requests, reply.c writes replies.
 *
 * One request at a time has a connection; what the client sends meanwhile waits in its buffer.
 *
 *     READING --whole: conf.handle()--> HANDLING --http_begin()--> STREAMING
 *        ^                                 | http_reply()             | http_end()
 *        +------- kept alive --------------+--------------------------+
 *                                          | not kept: conn_leave()
 *     READING --cannot be read: conn_refuse()--> LEAVING --all has left--> closed
 *
 *     state      request    stream                                 the client ends
 *     READING    not valid  open, read                             closed
 *     HANDLING   valid      open, read until the buffer is full;   conn_lost(): `gone`
 *     STREAMING  valid        NULL once the client has gone        conn_lost(): `gone`
 *     LEAVING    not valid  open, not read                         sends the rest if it can
 *
 * Memory: a Conn ends with conn_end().  Inside conn_advance(), which still needs it, it is only
 * marked `dead` and freed there. */
#ifndef BATON_HTTP_SERVER_H
#define BATON_HTTP_SERVER_H

#include "message.h"

typedef struct Conn Conn;

struct HttpServer {
    Loop *loop;
    HttpServerConf conf;
    Listener *listener; /* NULL: draining */
    int port;
    Conn *conns;
    size_t conn_count, open_requests;
    Timer *sweep;
    bool draining;
    Timer *idle_timer;
    void (*idle)(void *user);
    void *idle_user;
    Buf scratch;        /* the head of the reply being written */
    int64_t date_s;     /* the second that `date` tells */
    char date[32];
};

typedef enum ConnState { CONN_READING, CONN_HANDLING, CONN_STREAMING, CONN_LEAVING } ConnState;

struct Conn {
    HttpRequest request; /* first: a request is its connection */
    HttpServer *server;
    Conn *next, *prev;
    Stream *stream;
    Message in;
    ConnState state;
    bool busy, dead;
    bool keep;      /* the connection stays for another request */
    bool chunked;   /* of the reply being streamed */
    bool bodyless;  /* it has no body: HEAD, 204, 304 */
    bool slow;      /* http_send() was false */
    bool lost;      /* `gone` is due */
    bool waits;     /* the next request, until earlier replies have left */
    Timer *timer;   /* for what must not happen inside a call of the handler; made when needed */
    Buf head;       /* of a streamed reply, until it leaves with the first bytes */
    void (*gone)(HttpRequest *request, void *user);
    void *gone_user;
    void (*drained)(HttpRequest *request, void *user);
    void *drained_user;
    int64_t mark_us;  /* since when nothing has happened */
    size_t mark_unsent;
    char peer[64];
};

void conn_soon(Conn *conn);          /* on_soon() in the loop's next round */
void conn_request_over(Conn *conn);  /* the reply is written: the next request, or the end */
void reply_refusal(HttpServer *server, Stream *stream, bool bodyless, int status,
                   const char *problem); /* whole, with connection: close */
void conn_flush_head(Conn *conn);

#endif
