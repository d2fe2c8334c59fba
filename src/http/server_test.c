// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "http.h"
#include "io/loop_test.h"

/* ---- a server whose handler does what the path says ---- */

typedef struct Test {
    Loop *loop;
    HttpServer *server;
    int handled, gones, drains, idles;
    HttpRequest *held;
    bool in_call; /* while the handler's code runs a call of ours */
    size_t sent;
    Buf log;
} Test;

static Test *test; /* the one that runs: handlers get no other pointer than this */

static void on_gone(HttpRequest *request, void *user) {
    Test *t = user;
    assert_false(t->in_call);
    assert_ptr_equal(request, t->held);
    t->held = NULL;
    t->gones++;
}

static void on_drained(HttpRequest *request, void *user) {
    Test *t = user;
    assert_ptr_equal(request, t->held);
    t->drains++;
}

static void reply_text(HttpRequest *request, int status, Str text) {
    http_reply(request, status, "text/plain", text, (HttpHeaders){0});
}

static void echo(HttpRequest *request) {
    auto_buf Buf out = {0};
    buf_printf(&out, STR_FMT " " STR_FMT " ?" STR_FMT " " STR_FMT, STR_ARG(request->method),
               STR_ARG(request->path), STR_ARG(request->query), STR_ARG(request->body));
    reply_text(request, 200, (Str){out.at, out.length});
}

static void stream(HttpRequest *request) {
    http_begin(request, 200, "text/event-stream", (HttpHeaders){0});
    assert_true(http_send(request, STR("data: 1\n\n")));
    assert_true(http_send(request, STR("")));
    assert_true(http_send(request, STR("data: seventeen b\n\n")));
    http_end(request);
}

static void big(HttpRequest *request) {
    size_t size = strtoul(request->query.at, NULL, 10);
    auto_free char *bytes = mem_new(size);
    memset(bytes, 'b', size);
    reply_text(request, 200, (Str){bytes, size});
}

static void with_extra(HttpRequest *request) {
    const HttpHeader extra[] = {
        {STR("X-Value"), STR("a\r\nset-cookie: stolen\x01")}, {STR("bad name"), STR("x")},
        {STR("bad\r\nname"), STR("x")},  {STR("Transfer-Encoding"), STR("chunked")},
        {STR("content-length"), STR("9")}, {STR("Connection"), STR("x-hop, close")},
        {STR("X-Hop"), STR("x")}, {STR("Server"), STR("upstream")}, {STR("Set-Cookie"), STR("a=b")},
        {STR("Set-Cookie"), STR("c=d")}, {STR("Content-Type"), STR("left/out")},
    };
    http_reply(request, 200, "text/plain", STR("x"), (HttpHeaders){extra, COUNT_OF(extra)});
}

static void handle(HttpRequest *request, void *user) {
    Test *t = user;
    t->handled++;
    assert_int_not_equal(request->began_us, 0);
    assert_true(str_starts(str_of(request->peer), "127.0.0.1:"));
    t->in_call = true;
    if (str_eq(request->path, "/stream")) stream(request);
    else if (str_eq(request->path, "/big")) big(request);
    else if (str_eq(request->path, "/extra")) with_extra(request);
    else if (str_eq(request->path, "/none"))
        http_reply(request, 204, NULL, STR(""), (HttpHeaders){0});
    else if (str_eq(request->path, "/abort")) http_abort(request);
    else if (str_eq(request->path, "/close")) http_server_close(t->server);
    else if (str_starts(request->path, "/hold")) {
        t->held = request;
        if (str_eq(request->path, "/hold")) http_on_gone(request, on_gone, t);
        http_on_drained(request, on_drained, t);
    } else echo(request);
    t->in_call = false;
}

static const char *error_body(int status, const char *message, Buf *body) {
    buf_printf(body, "{\"error\": \"%s\", \"code\": %d}", message, status);
    return "application/json";
}

static void open_with(Test *t, HttpServerConf conf) {
    Err err = {0};
    *t = (Test){.loop = loop_new()};
    conf.host = "127.0.0.1";
    conf.name = "baton";
    conf.handle = handle;
    conf.user = t;
    t->server = http_server_open(t->loop, &conf, &err);
    assert_non_null(t->server);
    http_server_listen(t->server);
    test = t;
}

static void open_test(Test *t) { open_with(t, (HttpServerConf){.error_body = error_body}); }

static void close_test(Test *t) {
    http_server_close(t->server);
    loop_free(t->loop);
    buf_done(&t->log);
}

#define WAIT_FOR(condition) LOOP_WAIT_FOR(test->loop, condition)

/* ---- a client that sends bytes and keeps what comes ---- */

typedef struct Raw {
    Stream *stream;
    Buf in;
    bool is_gone;
    Err why;
    size_t first; /* bytes of the first read */
    char room[65536];
} Raw;

static void *raw_room(void *user, size_t *length) {
    Raw *raw = user;
    *length = sizeof raw->room;
    return raw->room;
}

static void raw_got(void *user, size_t length) {
    Raw *raw = user;
    if (!raw->first) raw->first = length;
    buf_append(&raw->in, raw->room, length);
}

static void raw_gone(void *user, const Err *why) {
    Raw *raw = user;
    raw->is_gone = true;
    raw->why = *why;
}

static void raw_send(Raw *raw, const char *bytes) {
    stream_write(raw->stream, bytes, strlen(bytes));
}

static Raw *raw_open(const char *bytes) {
    static const StreamCalls calls = {.room = raw_room, .got = raw_got, .gone = raw_gone};
    Raw *raw = mem_new(sizeof *raw);
    raw->stream = stream_connect_tcp(test->loop, "127.0.0.1", http_server_port(test->server), 0,
                                     &calls, raw);
    stream_read(raw->stream, true);
    raw_send(raw, bytes);
    return raw;
}

static void raw_close(Raw *raw) {
    stream_close(raw->stream);
    buf_done(&raw->in);
    free(raw);
}

static bool raw_has(const Raw *raw, const char *text) {
    return raw->in.at && strstr(raw->in.at, text);
}

static int raw_count(const Raw *raw, const char *text) {
    int count = 0;
    for (const char *at = raw->in.at; at && (at = strstr(at, text)); at++) count++;
    return count;
}

static void reset(Raw *raw) {
    struct linger now = {.l_onoff = 1};
    setsockopt(stream_fd(raw->stream), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    stream_close(raw->stream);
    raw->stream = NULL;
}

/* All that comes back for `bytes` until the server ends the connection, without the date. */
static char *talk(const char *bytes) {
    Raw *raw = raw_open(bytes);
    WAIT_FOR(raw->is_gone);
    assert_int_equal(raw->why.code, ERR_NONE);
    char *date = raw->in.at ? strstr(raw->in.at, "date: ") : NULL;
    if (date) {
        assert_memory_equal(date + 31, " GMT\r\n", 6); /* date: Wed, 25 Nov 2026 02:28:00 GMT */
        memmove(date, date + 37, strlen(date + 37) + 1);
    }
    char *all = mem_dup_str(raw->in.at ? raw->in.at : "");
    raw_close(raw);
    return all;
}

#define H "Host: h\r\n"
#define CLOSE H "Connection: close\r\n"

/* ---- replies ---- */

static void replies_are_what_http_asks_for(void **state) {
    (void)state;
    static const struct {
        const char *request, *want;
    } cases[] = {
        {"GET /a%20b?c=d HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 16\r\n"
         "content-type: text/plain\r\n\r\nGET /a%20b ?c=d "},
        {"GET /a HTTP/1.0\r\n\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 9\r\n"
         "content-type: text/plain\r\n\r\nGET /a ? "},
        {"HEAD /a HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 10\r\n"
         "content-type: text/plain\r\n\r\n"},
        {"BREW /pot HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 12\r\n"
         "content-type: text/plain\r\n\r\nBREW /pot ? "},
        {"DELETE /none HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 204 No Content\r\nserver: baton\r\nconnection: close\r\n\r\n"},
        {"POST /a HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\n\r\n"
         "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 15\r\n"
         "content-type: text/plain\r\n\r\nPOST /a ? abcde"},
        {"GET /stream HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
         "content-type: text/event-stream\r\n\r\n"
         "9\r\ndata: 1\n\n\r\n13\r\ndata: seventeen b\n\n\r\n0\r\n\r\n"},
        {"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\n"
         "content-type: text/event-stream\r\n\r\ndata: 1\n\ndata: seventeen b\n\n"},
        {"HEAD /stream HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
         "content-type: text/event-stream\r\n\r\n"},
        {"GET /extra HTTP/1.1\r\n" CLOSE "\r\n",
         "HTTP/1.1 200 OK\r\nserver: baton\r\nconnection: close\r\ncontent-length: 1\r\n"
         "content-type: text/plain\r\nX-Value: a  set-cookie: stolen \r\nSet-Cookie: a=b\r\n"
         "Set-Cookie: c=d\r\n\r\nx"},
    };
    for (int slow = 0; slow < 2; slow++) {
        Test t;
        open_test(&t);
        if (slow) fault_arm("io.short", 1, true); /* a byte at a time, there and back */
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            auto_free char *got = talk(cases[i].request);
            assert_string_equal(got, cases[i].want);
        }
        fault_disarm_all();
        close_test(&t);
    }
}

static void targets_are_cut_into_path_and_query(void **state) {
    (void)state;
    static const struct {
        const char *target, *want;
    } cases[] = {
        {"/", "GET / ? "},           {"/a?b?c", "GET /a ?b?c "},   {"/a?", "GET /a ? "},
        {"/a?b#c", "GET /a ?b "},    {"/a#b?c", "GET /a ? "},      {"http://h:1/a?b", "GET /a ?b "},
        {"http://h", "GET / ? "},    {"*", "GET * ? "},            {"/a://b", "GET /a://b ? "},
    };
    Test t;
    open_test(&t);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char request[128];
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" CLOSE "\r\n", cases[i].target);
        auto_free char *got = talk(request);
        assert_string_equal(strstr(got, "\r\n\r\n") + 4, cases[i].want);
    }
    close_test(&t);
}

static void a_connection_is_kept_for_further_requests(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /1 HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(raw_has(raw, "GET /1"));
    assert_false(raw_has(raw, "connection:"));
    raw_send(raw, "GET /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    WAIT_FOR(raw_has(raw, "GET /2"));
    assert_true(raw_has(raw, "connection: keep-alive\r\n"));
    assert_false(raw->is_gone);
    raw_send(raw, "GET /3 HTTP/1.1\r\n" CLOSE "\r\n");
    WAIT_FOR(raw->is_gone);
    assert_true(raw_has(raw, "GET /3"));
    raw_close(raw);
    close_test(&t);
}

static void pipelined_requests_are_answered_in_order(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /1 HTTP/1.1\r\n" H "\r\nPOST /hold HTTP/1.1\r\n" H
                        "Content-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\n" H
                        "\r\nGET /hold HTTP/1.1\r\n" H "\r\nGET /5 HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    loop_run_for(t.loop, 5);
    assert_int_equal(t.handled, 2);
    assert_true(str_eq(t.held->body, "abc"));
    assert_int_equal(http_server_open_requests(t.server), 1);
    for (int i = 0; i < 2; i++) {
        HttpRequest *held = t.held;
        t.held = NULL;
        reply_text(held, 200, i ? STR("fourth") : STR("second"));
        assert_int_equal(t.handled, i ? 4 : 2); /* not from inside http_reply() */
        if (!i) WAIT_FOR(t.held);
    }
    WAIT_FOR(raw_has(raw, "GET /5"));
    const char *in = raw->in.at, *second = strstr(in, "second"), *third = strstr(in, "GET /3"),
               *fourth = strstr(in, "fourth");
    assert_true(strstr(in, "GET /1") < second && second < third && third < fourth &&
                fourth < strstr(in, "GET /5"));
    assert_int_equal(http_server_open_requests(t.server), 0);
    raw_close(raw);
    close_test(&t);
}

static void a_client_that_reads_no_replies_is_not_served_without_end(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    auto_buf Buf many = {0};
    const int count = 500;
    for (int i = 0; i < count; i++) buf_str(&many, "GET /big?100000 HTTP/1.1\r\n" H "\r\n");
    Raw *raw = raw_open("");
    stream_read(raw->stream, false);
    stream_write(raw->stream, many.at, many.length);
    loop_run_for(t.loop, 100);
    assert_in_range(t.handled, 1, 250); /* the kernel's buffers and LIMIT_HTTP_UNSENT / 2 */
    stream_read(raw->stream, true);
    WAIT_FOR(raw->in.length > (size_t)count * 100000);
    assert_int_equal(t.handled, count);
    raw_close(raw);
    close_test(&t);
}

static void requests_that_wait_are_not_read_without_end(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    auto_buf Buf many = {0};
    while (many.length < 40 * MIB) buf_str(&many, "GET /big?100000 HTTP/1.1\r\n" H "\r\n");
    for (int held = 0; held < 2; held++) { /* behind replies that do not leave, or a handler */
        Raw *raw = raw_open(held ? "GET /hold HTTP/1.1\r\n" H "\r\n" : "");
        stream_read(raw->stream, false);
        stream_write(raw->stream, many.at, many.length);
        loop_run_for(t.loop, 100);
        assert_true(stream_unsent(raw->stream) > 10 * MIB);
        raw_close(raw);
        loop_run_for(t.loop, 10);
    }
    close_test(&t);
}

static void a_request_that_fills_the_buffer_still_leaves_room_to_notice_the_end(void **state) {
    (void)state;
    static const char head[] = "POST /hold HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n";
    const size_t head_length = sizeof head - 1 + 2; /* five digits for %zu */
    for (int more = -3; more <= 3; more++) { /* around the 16 KiB of a buffer */
        Test t;
        open_test(&t);
        Raw *raw = raw_open("");
        char bytes[17000] = {0};
        size_t size = 16384 - head_length + (size_t)(more + 3) - 3;
        snprintf(bytes, sizeof bytes, head, size);
        stream_write(raw->stream, bytes, head_length + size);
        WAIT_FOR(t.held);
        assert_int_equal(t.held->body.length, size);
        raw_close(raw);
        WAIT_FOR(t.gones == 1);
        close_test(&t);
    }
}

static void a_client_that_expects_100_continue_gets_it(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw =
        raw_open("POST /a HTTP/1.1\r\n" CLOSE "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    WAIT_FOR(raw_has(raw, "HTTP/1.1 100 Continue\r\n\r\n"));
    assert_int_equal(t.handled, 0);
    stream_write(raw->stream, "abc", 3);
    WAIT_FOR(raw->is_gone);
    assert_true(raw_has(raw, "POST /a ? abc"));
    raw_close(raw);
    raw = raw_open("POST /a HTTP/1.1\r\n" CLOSE
                   "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"); /* does not wait */
    WAIT_FOR(raw->is_gone);
    assert_false(raw_has(raw, "100 Continue"));
    raw_close(raw);
    close_test(&t);
}

/* ---- what is refused ---- */

static void what_cannot_be_read_is_answered_and_the_connection_ends(void **state) {
    (void)state;
    static const struct {
        const char *request, *status, *body;
    } cases[] = {
        {"hello\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n",
         "{\"error\": \"the request line does not begin with a method\", \"code\": 400}"},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n",
         "{\"error\": \"host is missing\", \"code\": 400}"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
         "HTTP/1.1 400 Bad Request\r\n", NULL},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 33554433\r\n\r\n",
         "HTTP/1.1 413 Payload Too Large\r\n",
         "{\"error\": \"the body is too large\", \"code\": 413}"},
        {"POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 33554433\r\n\r\n",
         "HTTP/1.1 413 Payload Too Large\r\n", NULL},
        {"POST / HTTP/1.1\r\n" H "Expect: miracles\r\n\r\n", "HTTP/1.1 417 Expectation Failed\r\n",
         NULL},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n",
         "HTTP/1.1 501 Not Implemented\r\n", NULL},
        {"GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n", NULL},
    };
    Test t;
    open_test(&t);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_free char *got = talk(cases[i].request);
        assert_true(str_starts(str_of(got), cases[i].status));
        assert_non_null(strstr(got, "\r\nconnection: close\r\n"));
        assert_non_null(strstr(got, "\r\ncontent-type: application/json\r\n"));
        if (cases[i].body) assert_string_equal(strstr(got, "\r\n\r\n") + 4, cases[i].body);
    }
    auto_buf Buf long_head = {0};
    buf_str(&long_head, "GET / HTTP/1.1\r\n" H "X: ");
    for (size_t i = 0; i < LIMIT_HTTP_HEADER; i++) buf_char(&long_head, 'x');
    auto_free char *got = talk(long_head.at);
    assert_true(str_starts(str_of(got), "HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    assert_int_equal(t.handled, 0);
    close_test(&t);
    open_with(&t, (HttpServerConf){0}); /* no error_body */
    auto_free char *plain = talk("hello\r\n\r\n");
    assert_non_null(strstr(plain, "\r\n\r\nthe request line does not begin with a method\n"));
    close_test(&t);
}

static void a_refusal_reaches_a_client_that_is_still_sending(void **state) {
    (void)state;
    Test t;
    open_with(&t, (HttpServerConf){.max_body = 100000});
    for (int chunked = 0; chunked < 2; chunked++) {
        Raw *raw = raw_open(chunked ? "POST / HTTP/1.1\r\n" H
                                      "Transfer-Encoding: chunked\r\n\r\nA00000\r\n"
                                    : "POST / HTTP/1.1\r\n" H "Content-Length: 10485760\r\n\r\n");
        auto_free char *body = mem_new(10485760);
        stream_write(raw->stream, body, 10485760);
        WAIT_FOR(raw->is_gone);
        assert_true(raw_has(raw, "HTTP/1.1 413 Payload Too Large\r\n"));
        assert_int_equal(t.handled, 0);
        raw_close(raw);
    }
    close_test(&t);
}

static void over_the_limit_connections_are_refused(void **state) {
    (void)state;
    Test t;
    open_with(&t, (HttpServerConf){.max_connections = 2, .error_body = error_body});
    Raw *first = raw_open("GET /1 HTTP/1.1\r\n" H "\r\n"), *second = raw_open("");
    WAIT_FOR(raw_has(first, "GET /1"));
    loop_run_for(t.loop, 5);
    Raw *third = raw_open("GET /3 HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(third->is_gone);
    assert_true(raw_has(third, "HTTP/1.1 503 Service Unavailable\r\n"));
    assert_true(raw_has(third, "{\"error\": \"too many connections\", \"code\": 503}"));
    raw_close(second);
    loop_run_for(t.loop, 5);
    Raw *fourth = raw_open("GET /4 HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(raw_has(fourth, "GET /4"));
    raw_close(first);
    raw_close(third);
    raw_close(fourth);
    close_test(&t);
}

static void slow_and_idle_connections_end(void **state) {
    (void)state;
    Test t;
    open_with(&t, (HttpServerConf){.idle_ms = 200, .read_ms = 150});
    auto_free char *late = talk("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nabc");
    assert_true(str_starts(str_of(late), "HTTP/1.1 408 Request Timeout\r\n"));
    auto_free char *idle = talk("");
    assert_string_equal(idle, "");
    auto_free char *after = talk("GET /1 HTTP/1.1\r\n" H "\r\n");
    assert_non_null(strstr(after, "GET /1"));
    assert_null(strstr(after, "408"));
    Raw *raw = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n"); /* a handler may take its time */
    WAIT_FOR(t.held);
    loop_run_for(t.loop, 500);
    assert_false(raw->is_gone);
    HttpRequest *held = t.held;
    reply_text(held, 200, STR("at last"));
    WAIT_FOR(raw_has(raw, "at last"));
    raw_close(raw);
    close_test(&t);
}

static void a_reader_that_stands_still_is_given_up(void **state) {
    (void)state;
    Test t;
    open_with(&t, (HttpServerConf){.idle_ms = 100});
    Raw *raw = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    stream_read(raw->stream, false);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    auto_free char *bytes = mem_new(MIB);
    while (http_send(t.held, (Str){bytes, MIB})) {}
    WAIT_FOR(t.gones == 1);
    raw_close(raw);
    raw = raw_open("GET /big?30000000 HTTP/1.1\r\n" H "\r\n"); /* answered, and does not leave */
    stream_read(raw->stream, false);
    WAIT_FOR(t.handled == 2);
    loop_run_for(t.loop, 400);
    stream_read(raw->stream, true);
    WAIT_FOR(raw->is_gone);
    assert_true(raw->in.length < 30000000);
    raw_close(raw);
    close_test(&t);
}

/* ---- clients that leave ---- */

static void a_client_that_leaves_is_noticed_at_once(void **state) {
    (void)state;
    for (int how = 0; how < 3; how++)
        for (int streaming = 0; streaming < 2; streaming++) {
            Test t;
            open_test(&t);
            Raw *raw = raw_open("POST /hold HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc");
            WAIT_FOR(t.held);
            if (streaming) {
                http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
                http_send(t.held, STR("hello"));
                WAIT_FOR(raw_has(raw, "hello"));
            }
            int64_t began = clock_mono_us();
            if (how == 0) stream_close(raw->stream);
            if (how == 1) reset(raw);
            if (how == 2) shutdown(stream_fd(raw->stream), SHUT_WR);
            if (how < 2) raw->stream = NULL;
            WAIT_FOR(t.gones == 1);
            assert_in_range(clock_mono_us() - began, 0, 500000);
            assert_int_equal(http_server_open_requests(t.server), 0);
            raw_close(raw);
            close_test(&t);
        }
}

static void a_client_may_leave_at_every_byte_of_a_request(void **state) {
    (void)state;
    static const char request[] = "POST /hold HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
                                  "\r\n3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n";
    Test t;
    open_test(&t);
    int whole = 0;
    for (size_t n = 0; n < sizeof request; n++)
        for (int how = 0; how < 2; how++) {
            Raw *raw = raw_open("");
            stream_write(raw->stream, request, n);
            int handled = t.handled;
            loop_run_for(t.loop, 1);
            if (how) reset(raw);
            raw_close(raw);
            WAIT_FOR(!t.held);
            if (t.handled > handled) whole++;
        }
    WAIT_FOR(http_server_open_requests(t.server) == 0);
    assert_true(whole > 0);
    assert_int_equal(t.gones, t.handled);
    close_test(&t);
}

static void a_handler_that_does_not_ask_answers_to_nobody(void **state) {
    (void)state;
    for (int streaming = 0; streaming < 4; streaming++) {
        Test t;
        open_test(&t);
        Raw *raw = raw_open("GET /hold-on HTTP/1.1\r\n" H "\r\n");
        WAIT_FOR(t.held);
        if (streaming) http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
        raw_close(raw);
        loop_run_for(t.loop, 5);
        assert_int_equal(http_server_open_requests(t.server), 1);
        if (streaming) {
            assert_true(http_send(t.held, STR("x"))); /* not "wait": nobody would call back */
            if (streaming == 1) http_end(t.held);
            if (streaming == 2) http_abort(t.held);
            if (streaming == 3) { /* asks late: is told late, and not from inside the call */
                http_on_gone(t.held, on_gone, &t);
                assert_int_equal(t.gones, 0);
                WAIT_FOR(t.gones == 1);
            }
        } else {
            reply_text(t.held, 200, STR("x"));
        }
        assert_int_equal(http_server_open_requests(t.server), 0);
        loop_run_for(t.loop, 1);
        close_test(&t);
    }
}

static void end_in_gone(HttpRequest *request, void *user) {
    Test *t = user;
    http_send(request, STR("x"));
    http_end(request);
    t->gones++;
}

static void a_request_may_be_ended_in_gone(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /hold-on HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    http_on_gone(t.held, end_in_gone, &t);
    raw_close(raw);
    WAIT_FOR(t.gones == 1);
    assert_int_equal(http_server_open_requests(t.server), 0);
    close_test(&t);
}

/* ---- streams ---- */

static void the_head_leaves_with_the_first_bytes_or_alone(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    http_send(t.held, STR("first"));
    WAIT_FOR(raw_has(raw, "first"));
    assert_int_equal(raw->first, raw->in.length); /* one read, one packet, one system call */
    http_end(t.held);
    WAIT_FOR(raw_has(raw, "0\r\n\r\n"));
    t.held = NULL;
    buf_clear(&raw->in);
    raw_send(raw, "GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    WAIT_FOR(raw_has(raw, "transfer-encoding: chunked"));
    assert_true(raw_has(raw, "\r\n\r\n"));
    http_end(t.held);
    WAIT_FOR(raw_has(raw, "0\r\n\r\n"));
    raw_close(raw);
    close_test(&t);
}

static void a_slow_reader_is_waited_for(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    stream_read(raw->stream, false);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    auto_free char *bytes = mem_new(100000);
    size_t sent = 1;
    while (http_send(t.held, (Str){bytes, 100000})) sent++;
    loop_run_for(t.loop, 10);
    assert_int_equal(t.drains, 0);
    stream_read(raw->stream, true);
    WAIT_FOR(t.drains == 1);
    assert_true(http_send(t.held, STR("the end")));
    http_end(t.held);
    WAIT_FOR(raw_has(raw, "the end") || raw->in.length > sent * 100000 + 100);
    assert_int_equal(t.gones, 0);
    raw_close(raw);
    close_test(&t);
}

static void a_reader_that_leaves_too_much_waiting_is_dropped(void **state) {
    (void)state;
    for (int asks = 0; asks < 2; asks++) {
        Test t;
        open_test(&t);
        Raw *raw = raw_open(asks ? "GET /hold HTTP/1.1\r\n" H "\r\n"
                                 : "GET /hold-on HTTP/1.1\r\n" H "\r\n");
        WAIT_FOR(t.held);
        HttpRequest *held = t.held;
        stream_read(raw->stream, false);
        http_begin(held, 200, "text/plain", (HttpHeaders){0});
        auto_free char *bytes = mem_new(MIB);
        t.in_call = true; /* `gone` must not come from inside http_send() */
        for (int i = 0; i < 40; i++) http_send(held, (Str){bytes, MIB});
        t.in_call = false;
        if (asks) {
            WAIT_FOR(t.gones == 1);
        } else {
            WAIT_FOR(t.drains == 1); /* goes on, to nobody */
            assert_true(http_send(held, STR("x")));
            http_end(held);
        }
        assert_int_equal(http_server_open_requests(t.server), 0);
        stream_read(raw->stream, true);
        WAIT_FOR(raw->is_gone);
        assert_false(raw_has(raw, "0\r\n\r\n"));
        raw_close(raw);
        close_test(&t);
    }
}

static void an_aborted_stream_has_no_last_chunk(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *raw = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held);
    http_begin(t.held, 200, "text/plain", (HttpHeaders){0});
    http_send(t.held, STR("half"));
    http_abort(t.held);
    WAIT_FOR(raw->is_gone);
    assert_true(raw_has(raw, "half"));
    assert_false(raw_has(raw, "0\r\n\r\n"));
    assert_int_equal(t.gones, 0);
    raw_close(raw);
    auto_free char *nothing = talk("GET /abort HTTP/1.1\r\n" H "\r\n");
    assert_string_equal(nothing, "");
    close_test(&t);
}

/* ---- many, and faults ---- */

static void a_thousand_connections_are_answered(void **state) {
    (void)state;
    enum { MANY = 1000 };
    static Raw *raws[MANY];
    Test t;
    open_test(&t);
    for (int i = 0; i < MANY; i++)
        raws[i] = raw_open("GET /stream HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < MANY; i++) {
        WAIT_FOR(raw_has(raws[i], "GET /2"));
        raw_close(raws[i]);
    }
    assert_int_equal(t.handled, 2 * MANY);
    close_test(&t);
}

static void every_read_and_write_may_fail(void **state) {
    (void)state;
    static const char *const points[] = {"io.read", "io.write", "io.accept"};
    for (size_t p = 0; p < COUNT_OF(points); p++)
        for (unsigned n = 1; n < 12; n++) {
            Test t;
            open_test(&t);
            fault_arm(points[p], n, false);
            Raw *raws[3];
            for (int i = 0; i < 3; i++)
                raws[i] =
                    raw_open("GET /1 HTTP/1.1\r\n" H "\r\nPOST /2 HTTP/1.1\r\n" H
                             "Content-Length: 3\r\n\r\nabcGET /stream HTTP/1.1\r\n" CLOSE "\r\n");
            for (int i = 0; i < 3; i++) WAIT_FOR(raws[i]->is_gone);
            fault_disarm_all();
            int whole = 0;
            for (int i = 0; i < 3; i++) {
                whole +=
                    raw_count(raws[i], "HTTP/1.1 200 OK") == 3 && raw_has(raws[i], "0\r\n\r\n");
                raw_close(raws[i]);
            }
            assert_true(whole >= 2); /* the fault hit one connection at most */
            WAIT_FOR(http_server_open_requests(t.server) == 0);
            close_test(&t);
        }
}

/* ---- the server's own end ---- */

static void on_idle(void *user) { ((Test *)user)->idles++; }

static void draining_lets_open_requests_end(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Raw *idle = raw_open("GET /1 HTTP/1.1\r\n" H "\r\n"),
        *half = raw_open("GET /half HTTP/1.1\r\n");
    Raw *held = raw_open("GET /hold HTTP/1.1\r\n" H "\r\n");
    WAIT_FOR(t.held && raw_has(idle, "GET /1"));
    loop_run_for(t.loop, 5);
    http_server_drain(t.server, on_idle, &t);
    WAIT_FOR(idle->is_gone);
    Raw *late = raw_open("GET /late HTTP/1.1\r\n" H "\r\n");
    raw_send(half, H "\r\n");
    WAIT_FOR(half->is_gone);
    assert_true(raw_has(half, "GET /half"));
    assert_true(raw_has(half, "connection: close\r\n"));
    assert_int_equal(t.idles, 0);
    auto_free char *bytes = mem_new(20 * MIB);
    stream_read(held->stream, false);
    reply_text(t.held, 200, (Str){bytes, 20 * MIB});
    loop_run_for(t.loop, 5);
    assert_int_equal(t.idles, 0); /* the reply has not left */
    assert_int_equal(http_server_open_requests(t.server), 0);
    stream_read(held->stream, true);
    WAIT_FOR(t.idles == 1);
    WAIT_FOR(held->is_gone);
    assert_true(held->in.length > 20 * MIB);
    assert_false(raw_has(late, "HTTP"));
    Raw *all[] = {idle, half, held, late};
    for (size_t i = 0; i < COUNT_OF(all); i++) raw_close(all[i]);
    close_test(&t);
    open_test(&t);
    http_server_drain(t.server, on_idle, &t); /* nothing open at all */
    assert_int_equal(t.idles, 0);
    WAIT_FOR(t.idles == 1);
    close_test(&t);
}

static void a_server_may_be_closed_with_all_open(void **state) {
    (void)state;
    for (int in_handler = 0; in_handler < 2; in_handler++) {
        Test t;
        open_test(&t);
        Raw *raws[] = {raw_open("GET /hold HTTP/1.1\r\n" H "\r\n"), raw_open("GET / HT"),
                       raw_open("")};
        WAIT_FOR(t.held);
        loop_run_for(t.loop, 5);
        if (in_handler) raw_send(raws[2], "GET /close HTTP/1.1\r\n" H "\r\n");
        else http_server_close(t.server);
        for (int i = 0; i < 3; i++) {
            WAIT_FOR(raws[i]->is_gone);
            raw_close(raws[i]);
        }
        assert_int_equal(t.gones, 0);
        loop_free(t.loop);
    }
    http_server_close(NULL);
}

static void a_second_server_fails_at_opening(void **state) {
    (void)state;
    Test t;
    open_test(&t);
    Err err = {0};
    HttpServerConf conf = {.host = "127.0.0.1", .port = http_server_port(t.server),
                           .handle = handle, .user = &t};
    assert_null(http_server_open(t.loop, &conf, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_non_null(strstr(err.message, ": address already in use"));
    assert_non_null(strstr(err.hint, "Choose another --port"));
    http_server_close(t.server); /* now two that do not listen yet */
    t.server = http_server_open(t.loop, &conf, &err);
    assert_non_null(t.server);
    assert_null(http_server_open(t.loop, &conf, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    Raw *early = raw_open("GET /1 HTTP/1.1\r\n" H "\r\n");
    loop_run_for(t.loop, 5);
    assert_false(raw_has(early, "HTTP"));
    http_server_listen(t.server);
    raw_close(early);
    Raw *raw = raw_open("GET /1 HTTP/1.1\r\n" H "\r\n");
    loop_run_for(t.loop, 5);
    raw_close(raw);
    close_test(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_what_http_asks_for),
        cmocka_unit_test(targets_are_cut_into_path_and_query),
        cmocka_unit_test(a_connection_is_kept_for_further_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(a_client_that_reads_no_replies_is_not_served_without_end),
        cmocka_unit_test(requests_that_wait_are_not_read_without_end),
        cmocka_unit_test(a_request_that_fills_the_buffer_still_leaves_room_to_notice_the_end),
        cmocka_unit_test(a_client_that_expects_100_continue_gets_it),
        cmocka_unit_test(what_cannot_be_read_is_answered_and_the_connection_ends),
        cmocka_unit_test(a_refusal_reaches_a_client_that_is_still_sending),
        cmocka_unit_test(over_the_limit_connections_are_refused),
        cmocka_unit_test(slow_and_idle_connections_end),
        cmocka_unit_test(a_reader_that_stands_still_is_given_up),
        cmocka_unit_test(a_client_that_leaves_is_noticed_at_once),
        cmocka_unit_test(a_client_may_leave_at_every_byte_of_a_request),
        cmocka_unit_test(a_handler_that_does_not_ask_answers_to_nobody),
        cmocka_unit_test(a_request_may_be_ended_in_gone),
        cmocka_unit_test(the_head_leaves_with_the_first_bytes_or_alone),
        cmocka_unit_test(a_slow_reader_is_waited_for),
        cmocka_unit_test(a_reader_that_leaves_too_much_waiting_is_dropped),
        cmocka_unit_test(an_aborted_stream_has_no_last_chunk),
        cmocka_unit_test(a_thousand_connections_are_answered),
        cmocka_unit_test(every_read_and_write_may_fail),
        cmocka_unit_test(draining_lets_open_requests_end),
        cmocka_unit_test(a_server_may_be_closed_with_all_open),
        cmocka_unit_test(a_second_server_fails_at_opening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
