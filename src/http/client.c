// SPDX-License-Identifier: Apache-2.0
/* The client: calls, the connections they borrow, and the peers that connections lead to.
 *
 *     Peer 127.0.0.1:8001 -- idle: [Link] -> [Link]      a Link has a Stream
 *        ^                                  |            a Call has the buffers, while it lasts
 *        +-------------- Call ---- Link ----+
 *
 * A call: connecting -> waiting for the first byte -> reading -> done.  Its memory stays until the
 * callback that ended it has returned (busy), then it serves for another call (spare). */
#include <stdio.h>
#include <stdlib.h>

#include "message.h"

#define SWEEP_MS 5000
#define SPARE_CALLS 64

typedef struct Link Link;
typedef struct Peer Peer;

struct Peer {
    Peer *next;
    char *host;
    int port;
    size_t users; /* links and calls: freed with the last */
    Link *idle;   /* the one used last first: the others may grow old */
    size_t idle_count;
    char name[128]; /* "127.0.0.1:8001" */
};

struct Link {
    Link *next, *prev; /* among the idle ones */
    Peer *peer;
    HttpClient *client;
    Stream *stream;
    HttpCall *call; /* NULL: idle */
    bool reused;
    int64_t idle_since_us;
    char unasked; /* where bytes go that come while idle */
};

struct HttpCall {
    HttpCall *next, *prev;
    HttpClient *client;
    HttpCallConf conf;
    Peer *peer;
    Link *link;
    Buf head;   /* of the request */
    Str *parts; /* head and body */
    size_t part_count, part_capacity;
    Message in;
    Timer *timer;
    int64_t deadline_us, armed_us; /* the timer fires at armed_us, which may be early */
    uint64_t limit_ms;             /* what deadline_us was made of, for the message */
    int status;
    bool waiting; /* the request is on its way, and no byte of a reply has come */
    bool paused, resumed, busy, over, repeated;
    Err *refused; /* the call cannot be made at all: told in the next round */
};

struct HttpClient {
    Loop *loop;
    Peer *peers;
    HttpCall *calls, *spare;
    size_t spare_count;
    size_t call_count; /* open, or over and in the middle of a callback */
    bool closed;       /* freed with the last of those */
    Timer *sweep;
};

/* ---- peers and links ---- */

static Peer *peer_get(HttpClient *client, const char *host, int port) {
    for (Peer *peer = client->peers; peer; peer = peer->next)
        if (peer->port == port && !strcmp(peer->host, host)) return peer;
    Peer *peer = mem_new(sizeof *peer);
    peer->host = mem_dup_str(host);
    peer->port = port;
    snprintf(peer->name, sizeof peer->name, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    peer->next = client->peers;
    client->peers = peer;
    return peer;
}

static void peer_leave(HttpClient *client, Peer *peer) {
    if (--peer->users > 0) return;
    Peer **at = &client->peers;
    while (*at != peer) at = &(*at)->next;
    *at = peer->next;
    free(peer->host);
    free(peer);
}

static void link_take(Link *link) { /* out of the idle ones */
    if (link->next) link->next->prev = link->prev;
    if (link->prev) link->prev->next = link->next;
    else link->peer->idle = link->next;
    link->next = link->prev = NULL;
    link->peer->idle_count--;
}

static void link_close(Link *link) {
    if (link->call) link->call->link = NULL;
    else link_take(link);
    stream_close(link->stream);
    peer_leave(link->client, link->peer);
    free(link);
}

static void link_keep(Link *link) {
    Peer *peer = link->peer;
    link->call->link = NULL;
    link->call = NULL;
    link->reused = true;
    link->idle_since_us = clock_mono_us();
    link->next = peer->idle;
    if (link->next) link->next->prev = link;
    peer->idle = link;
    peer->idle_count++;
    stream_read(link->stream, true); /* to notice its end */
    if (peer->idle_count > LIMIT_HTTP_IDLE_LINKS) link_close(link);
}

static void on_sweep(void *user) {
    HttpClient *client = user;
    int64_t oldest_us = clock_mono_us() - (int64_t)LIMIT_HTTP_IDLE_MS * 1000;
    for (Peer *peer = client->peers, *next; peer; peer = next) {
        next = peer->next;
        for (Link *link = peer->idle, *after; link; link = after) {
            after = link->next;
            if (link->idle_since_us < oldest_us) link_close(link);
        }
    }
}

/* ---- the end of a call ---- */

static void call_free(HttpCall *call) {
    timer_close(call->timer);
    message_done(&call->in);
    buf_done(&call->head);
    free(call->parts);
    free(call);
}

static void call_put_away(HttpCall *call) {
    HttpClient *client = call->client;
    client->call_count--;
    if (client->closed) {
        call_free(call);
        if (client->call_count == 0) free(client);
        return;
    }
    if (client->spare_count == SPARE_CALLS) {
        call_free(call);
        return;
    }
    timer_again(call->timer, TIMER_NEVER);
    message_start(&call->in);
    call->next = client->spare;
    client->spare = call;
    client->spare_count++;
}

/* No callback runs any more. */
static void call_over(HttpCall *call) {
    HttpClient *client = call->client;
    if (call->link) link_close(call->link);
    if (call->next) call->next->prev = call->prev;
    if (call->prev) call->prev->next = call->next;
    else client->calls = call->next;
    peer_leave(client, call->peer);
    free(call->refused);
    call->refused = NULL;
    call->over = true;
    if (!call->busy) call_put_away(call);
}

static void call_tell(HttpCall *call, Str body, const Err *failure) {
    bool was_busy = call->busy;
    call->busy = true;
    if (call->conf.done) call->conf.done(call, call->status, body, failure, call->conf.user);
    call->busy = was_busy;
    if (!call->over) call_over(call);
    else if (!was_busy) call_put_away(call);
}

static void call_fail(HttpCall *call, const Err *failure) {
    Err own = *failure; /* the stream's, which ends here */
    if (call->link) link_close(call->link);
    call_tell(call, (Str){NULL, 0}, &own);
}

static void call_done(HttpCall *call) {
    const Message *in = &call->in;
    Link *link = call->link;
    bool whole = message_unread(in) == 0 && stream_unsent(link->stream) == 0;
    if (in->keep_alive && whole) link_keep(link); /* free for a call made in done() */
    else link_close(link);
    call_tell(call, call->conf.data ? (Str){NULL, 0} : message_body(in), NULL);
}

/* ---- time ---- */

static void call_expect(HttpCall *call, uint64_t limit_ms) {
    call->limit_ms = limit_ms;
    if (!limit_ms) {
        call->deadline_us = INT64_MAX;
        return;
    }
    call->deadline_us = clock_mono_us() + (int64_t)limit_ms * 1000;
    if (call->armed_us <= call->deadline_us) return; /* on_time() sets it anew then */
    call->armed_us = call->deadline_us;
    timer_again(call->timer, limit_ms);
}

static void call_late(HttpCall *call) {
    Err err = {0};
    const char *peer = call->peer->name;
    unsigned long long ms = call->limit_ms;
    if (call->waiting) err_set(&err, ERR_DEADLINE, "no reply from %s within %llu ms", peer, ms);
    else
        err_set(&err, ERR_DEADLINE, "%s sent nothing for %llu ms in the middle of the reply", peer,
                ms);
    call_fail(call, &err);
}

static void call_advance(HttpCall *call);

static void on_time(void *user) {
    HttpCall *call = user;
    call->armed_us = INT64_MAX;
    if (call->refused) {
        call_fail(call, call->refused);
        return;
    }
    if (call->deadline_us != INT64_MAX) {
        int64_t left_us = call->deadline_us - clock_mono_us();
        if (left_us <= 0) {
            call_late(call);
            return;
        }
        call->armed_us = call->deadline_us;
        timer_again(call->timer, (uint64_t)(left_us + 999) / 1000);
    }
    if (call->resumed) call_advance(call);
}

static void call_soon(HttpCall *call) {
    call->armed_us = 0;
    timer_again(call->timer, 0);
}

/* ---- the reply ---- */

static void call_damaged(HttpCall *call) {
    Err err = {0};
    if (call->in.bad_status == 413)
        err_set(&err, ERR_TOO_LARGE, "the reply of %s is larger than %zu bytes", call->peer->name,
                call->in.max_body);
    else
        err_set(&err, ERR_DAMAGED, "the reply of %s cannot be read: %s", call->peer->name,
                call->in.problem);
    call_fail(call, &err);
}

/* Interim replies (100 Continue, 103) are read over; the real one follows. */
static void on_head(HttpCall *call) {
    if (call->in.status < 200) return;
    call->status = call->in.status;
    if (call->conf.head)
        call->conf.head(call, call->status, message_headers(&call->in), call->conf.user);
}

static void on_end(HttpCall *call) {
    if (call->in.status == 101) { /* we never ask for another protocol */
        call->in.problem = "101 Switching Protocols was not asked for";
        call_damaged(call);
    } else if (call->in.status < 200) {
        message_start(&call->in);
    } else {
        call_done(call);
    }
}

static void call_advance(HttpCall *call) {
    call->busy = true;
    call->resumed = false;
    while (!call->over && !call->paused) {
        Part part = message_next(&call->in);
        if (part == PART_MORE) break;
        if (part == PART_HEAD) on_head(call);
        else if (part == PART_BODY) call->conf.data(call, call->in.piece, call->conf.user);
        else if (part == PART_END) on_end(call);
        else call_damaged(call);
    }
    call->busy = false;
    if (call->over) {
        call_put_away(call);
        return;
    }
    if (!call->waiting) call_expect(call, call->paused ? 0 : call->conf.idle_ms);
    stream_read(call->link->stream, !call->paused);
}

/* ---- the connection's calls ---- */

static void *on_room(void *user, size_t *length) {
    Link *link = user;
    if (link->call) return message_room(&link->call->in, length);
    *length = 1;
    return &link->unasked;
}

static void on_got(void *user, size_t length) {
    Link *link = user;
    if (!link->call) {
        link_close(link); /* bytes that answer nothing */
        return;
    }
    link->call->waiting = false;
    message_got(&link->call->in, length);
    call_advance(link->call);
}

static void call_begin(HttpCall *call, bool fresh);

static void on_gone(void *user, const Err *why) {
    Link *link = user;
    HttpCall *call = link->call;
    if (!call) {
        link_close(link);
        return;
    }
    if (link->reused && call->waiting && !call->repeated) {
        call->repeated = true; /* it had ended before it got the request */
        link_close(link);
        call_begin(call, true);
        return;
    }
    if (why->code == ERR_NONE && message_eof(&call->in) == PART_END) {
        call_advance(call);
        return;
    }
    Err err = {0};
    const char *cause = why->code == ERR_NONE ? NULL : strstr(why->message, ": ");
    err_set(&err, ERR_UNAVAILABLE, "%s closed the connection %s%s", call->peer->name,
            call->waiting ? "before it replied" : "in the middle of the reply",
            cause ? cause : "");
    call_fail(call, &err);
}

/* One system call for head and body, from where they lie. */
static void call_send(HttpCall *call) {
    stream_write_views(call->link->stream, call->parts, call->part_count, NULL, NULL);
    call_expect(call, call->conf.first_byte_ms);
}

static void on_connected(void *user, const Err *failure) {
    Link *link = user;
    if (failure) {
        call_fail(link->call, failure);
        return;
    }
    stream_read(link->stream, true);
    call_send(link->call);
}

static void call_begin(HttpCall *call, bool fresh) {
    static const StreamCalls calls = {
        .connected = on_connected, .room = on_room, .got = on_got, .gone = on_gone};
    Peer *peer = call->peer;
    call->waiting = true;
    Link *link = fresh ? NULL : peer->idle;
    if (link) {
        link_take(link);
        link->call = call;
        call->link = link;
        call_send(call);
        return;
    }
    link = mem_new(sizeof *link);
    link->client = call->client;
    link->peer = peer;
    peer->users++;
    link->call = call;
    call->link = link;
    link->stream = stream_connect_tcp(call->client->loop, peer->host, peer->port,
                                      call->conf.connect_ms, &calls, link);
}

/* ---- the request ---- */

static bool wants_length(Str method) {
    return str_eq(method, "POST") || str_eq(method, "PUT") || str_eq(method, "PATCH");
}

static void put_parts(HttpCall *call) {
    const HttpCallConf *conf = &call->conf;
    Buf *head = &call->head;
    size_t length = 0;
    for (size_t i = 0; i < conf->body_parts; i++) length += conf->body[i].length;
    buf_clear(head);
    buf_append(head, conf->method.at, conf->method.length);
    buf_char(head, ' ');
    buf_append(head, conf->target.at, conf->target.length);
    buf_append(head, " HTTP/1.1\r\n", 11);
    header_put(head, "host", str_of(call->peer->name));
    if (length || wants_length(conf->method)) header_put_number(head, "content-length", length);
    headers_put(head, OF_REQUEST, conf->headers, false);
    buf_append(head, "\r\n", 2);
    call->part_count = 1 + conf->body_parts;
    mem_reserve(call->parts, call->part_capacity, call->part_count);
    call->parts[0] = (Str){head->at, head->length};
    if (conf->body_parts) memcpy(call->parts + 1, conf->body, conf->body_parts * sizeof(Str));
}

/* A blank or a line end in there would let the rest pass for something else. */
static bool check_request(const HttpCallConf *conf, Err *err) {
    bool ok = conf->target.length > 0;
    for (size_t i = 0; i < conf->target.length; i++) {
        unsigned char c = (unsigned char)conf->target.at[i];
        ok = ok && c > ' ' && c != 127;
    }
    if (!is_token(conf->method))
        return err_set(err, ERR_INVALID, "'" STR_FMT "' cannot be an HTTP method",
                       STR_ARG(conf->method));
    return ok || err_set(err, ERR_INVALID, "'" STR_FMT "' cannot be an HTTP target",
                         STR_ARG(conf->target));
}

static HttpCall *call_new(HttpClient *client) {
    HttpCall *call = client->spare;
    if (call) {
        client->spare = call->next;
        client->spare_count--;
    } else {
        call = mem_new(sizeof *call);
        call->client = client;
        call->timer = timer_start(client->loop, TIMER_NEVER, 0, on_time, call);
        message_init(&call->in, false);
    }
    call->status = 0;
    call->paused = call->resumed = call->over = call->repeated = false;
    call->armed_us = call->deadline_us = INT64_MAX;
    client->call_count++;
    call->prev = NULL;
    call->next = client->calls;
    if (call->next) call->next->prev = call;
    client->calls = call;
    return call;
}

/* ---- http.h ---- */

HttpCall *http_call(HttpClient *client, const HttpCallConf *conf) {
    HttpCall *call = call_new(client);
    call->conf = *conf;
    call->peer = peer_get(client, conf->host, conf->port);
    call->peer->users++;
    call->in.collect = !conf->data;
    call->in.max_body = conf->max_body ? conf->max_body : LIMIT_HTTP_REPLY;
    call->in.no_body = str_eq(conf->method, "HEAD");
    Err err = {0};
    if (check_request(conf, &err)) {
        put_parts(call);
        call_begin(call, false);
    } else {
        call->refused = mem_new(sizeof err);
        *call->refused = err;
        call_soon(call);
    }
    return call;
}

void http_call_pause(HttpCall *call, bool paused) {
    if (call->paused == paused) return;
    call->paused = paused;
    call->resumed = !paused;
    if (call->busy) return; /* call_advance() sees it */
    if (paused) call_expect(call, call->waiting ? call->conf.first_byte_ms : 0);
    else call_soon(call);
    if (paused && call->link) stream_read(call->link->stream, false);
}

void http_call_cancel(HttpCall *call) {
    if (!call->over) call_over(call);
}

HttpHeaders http_call_headers(const HttpCall *call) { return message_headers(&call->in); }

HttpClient *http_client_new(Loop *loop) {
    HttpClient *client = mem_new(sizeof *client);
    client->loop = loop;
    client->sweep = timer_start(loop, SWEEP_MS, SWEEP_MS, on_sweep, client);
    return client;
}

void http_client_free(HttpClient *client) {
    if (!client) return;
    client->call_count++; /* so that the last call does not free it under our hands */
    client->closed = true;
    while (client->calls) call_over(client->calls);
    while (client->peers) link_close(client->peers->idle);
    while (client->spare) {
        HttpCall *call = client->spare;
        client->spare = call->next;
        call_free(call);
    }
    timer_close(client->sweep);
    if (--client->call_count == 0) free(client);
}
