// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "http.h"
#include "io/loop_test.h"

/* ---- a server that keeps what it gets and answers with bytes of the test's choice ---- */

#define PEERS 64

typedef struct Peer { /* one connection, seen from the server */
    struct Test *test;
    Stream *stream;
    Buf in;
    bool is_gone;
    char room[4096];
} Peer;

typedef struct Test {
    Loop *loop;
    Listener *listener;
    HttpClient *client;
    Peer peers[PEERS];
    int accepted;
    const char *answer;   /* sent for each request that ends, in whole */
    size_t answer_piece;  /* 0: at once; else that many bytes at a time */
    bool close_after;     /* the answer */
} Test;

static Test t;

#define WAIT_FOR(condition) LOOP_WAIT_FOR(t.loop, condition)

static void *peer_room(void *user, size_t *length) {
    Peer *peer = user;
    *length = sizeof peer->room;
    return peer->room;
}

static void peer_answer(Peer *peer) {
    size_t length = strlen(t.answer), piece = t.answer_piece ? t.answer_piece : length;
    for (size_t at = 0; at < length; at += piece)
        stream_write(peer->stream, t.answer + at, length - at < piece ? length - at : piece);
    if (!t.close_after) return;
    stream_close_when_sent(peer->stream);
    peer->stream = NULL;
}

static void peer_got(void *user, size_t length) {
    Peer *peer = user;
    buf_append(&peer->in, peer->room, length);
    bool first = peer->in.length == length || peer->in.length < sizeof peer->room;
    if (t.answer && first && strstr(peer->in.at, "\r\n\r\n")) peer_answer(peer);
}

static void peer_gone(void *user, const Err *why) {
    (void)why;
    Peer *peer = user;
    peer->is_gone = true;
    stream_close(peer->stream);
    peer->stream = NULL;
}

static void on_accept(Stream *stream, void *user) {
    (void)user;
    static const StreamCalls calls = {.room = peer_room, .got = peer_got, .gone = peer_gone};
    assert_in_range(t.accepted, 0, PEERS - 1);
    Peer *peer = &t.peers[t.accepted++];
    peer->stream = stream;
    stream_set_calls(stream, &calls, peer);
    stream_read(stream, true);
}

static void open_test(const char *answer) {
    Err err = {0};
    t = (Test){.loop = loop_new(), .answer = answer};
    t.listener = listen_tcp(t.loop, "127.0.0.1", 0, on_accept, NULL, &err);
    assert_non_null(t.listener);
    t.client = http_client_new(t.loop);
}

static void close_test(void) {
    http_client_free(t.client);
    loop_free(t.loop);
    for (int i = 0; i < PEERS; i++) buf_done(&t.peers[i].in);
}

static void reset(Peer *peer) {
    struct linger now = {.l_onoff = 1};
    setsockopt(stream_fd(peer->stream), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    stream_close(peer->stream);
    peer->stream = NULL;
}

/* ---- calls that keep what they are told ---- */

typedef struct Seen {
    HttpCall *call;
    int heads, pieces, dones, status;
    Buf text; /* status, headers, then the body */
    Err failure;
    bool failed, pause_in_head, pause_in_data, cancel_in_head, cancel_in_data, cancel_in_done;
    struct Seen *next; /* called in done() */
} Seen;

static void begin(Seen *seen, HttpCallConf conf);

static void cancel(Seen *seen, bool wanted) {
    if (!wanted) return;
    http_call_cancel(seen->call);
    seen->call = NULL;
}

static void on_head(HttpCall *call, int status, HttpHeaders headers, void *user) {
    Seen *seen = user;
    assert_ptr_equal(call, seen->call);
    seen->heads++;
    buf_printf(&seen->text, "%d", status);
    for (size_t i = 0; i < headers.count; i++)
        buf_printf(&seen->text, " " STR_FMT "=" STR_FMT, STR_ARG(headers.at[i].name),
                   STR_ARG(headers.at[i].value));
    buf_str(&seen->text, " ");
    if (seen->pause_in_head) http_call_pause(call, true);
    cancel(seen, seen->cancel_in_head);
}

static void on_data(HttpCall *call, Str bytes, void *user) {
    Seen *seen = user;
    assert_int_equal(seen->heads, 1);
    assert_true(bytes.length > 0);
    seen->pieces++;
    buf_append(&seen->text, bytes.at, bytes.length);
    if (seen->pause_in_data) http_call_pause(call, true);
    cancel(seen, seen->cancel_in_data);
}

static void on_done(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    Seen *seen = user;
    assert_ptr_equal(call, seen->call);
    seen->dones++;
    seen->status = status;
    seen->failed = failure != NULL;
    if (failure) seen->failure = *failure;
    buf_append(&seen->text, body.at, body.length);
    if (!failure) assert_int_equal(http_call_headers(call).count > 0, seen->heads);
    cancel(seen, seen->cancel_in_done);
    seen->call = NULL;
    if (seen->next) begin(seen->next, (HttpCallConf){.data = NULL});
}

static void begin(Seen *seen, HttpCallConf conf) {
    if (!conf.host) conf.host = "127.0.0.1";
    if (!conf.port) conf.port = listener_port(t.listener);
    if (!conf.method.at) conf.method = STR("GET");
    if (!conf.target.at) conf.target = STR("/");
    conf.head = on_head;
    conf.done = on_done;
    conf.user = seen;
    seen->call = http_call(t.client, &conf);
    assert_int_equal(seen->dones, 0);
}

static void seen_done(Seen *seen) { buf_done(&seen->text); }

static void expect_failure(Seen *seen, ErrCode code, const char *format) {
    char want[256];
    snprintf(want, sizeof want, format, listener_port(t.listener));
    WAIT_FOR(seen->dones);
    assert_true(seen->failed);
    assert_string_equal(seen->failure.message, want);
    assert_int_equal(seen->failure.code, code);
    loop_run_for(t.loop, 2);
    assert_int_equal(seen->dones, 1);
    seen_done(seen);
}

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

/* ---- requests ---- */

static void the_request_is_what_was_asked_for(void **state) {
    (void)state;
    open_test(OK);
    const HttpHeader headers[] = {
        {STR("Authorization"), STR("Bearer x")}, {STR("Host"), STR("elsewhere")},
        {STR("Expect"), STR("100-continue")},    {STR("X"), STR("a\r\nY: b")},
        {STR("Content-Length"), STR("99")},      {STR("Connection"), STR("close")},
    };
    char want[512];
    const char *host = "127.0.0.1";
    int port = listener_port(t.listener);
    for (int i = 0; i < 3; i++) {
        Seen seen = {0};
        Str body[] = {STR("one,"), STR(""), STR("two")};
        begin(&seen, (HttpCallConf){.method = i == 2 ? STR("GET") : STR("POST"),
                                    .target = STR("/a?b"),
                                    .headers = {headers, COUNT_OF(headers)},
                                    .body = body,
                                    .body_parts = i == 0 ? 3 : 0});
        memset(body, 0, sizeof body); /* the bytes stay, the array need not */
        WAIT_FOR(seen.dones);
        assert_false(seen.failed);
        static const char *const length[] = {"content-length: 7\r\n", "content-length: 0\r\n", ""};
        snprintf(
            want, sizeof want,
            "%s /a?b HTTP/1.1\r\nhost: %s:%d\r\n%sAuthorization: Bearer x\r\nX: a  Y: b\r\n\r\n%s",
            i == 2 ? "GET" : "POST", host, port, length[i], i == 0 ? "one,two" : "");
        assert_string_equal(t.peers[0].in.at, want);
        buf_clear(&t.peers[0].in);
        seen_done(&seen);
    }
    assert_int_equal(t.accepted, 1); /* one connection for all three */
    close_test();
}

static void what_would_split_a_request_is_refused(void **state) {
    (void)state;
    open_test(OK);
    static const struct {
        Str method, target;
        const char *message;
    } cases[] = {
        {STR("GET"), STR("/a b"), "'/a b' cannot be an HTTP target"},
        {STR("GET"), STR("/a\r\nX: y"), "'/a\r\nX: y' cannot be an HTTP target"},
        {STR("GET"), STR(""), "'' cannot be an HTTP target"},
        {STR("G T"), STR("/"), "'G T' cannot be an HTTP method"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Seen seen = {0};
        begin(&seen, (HttpCallConf){.method = cases[i].method, .target = cases[i].target});
        expect_failure(&seen, ERR_INVALID, cases[i].message);
    }
    assert_int_equal(t.accepted, 0);
    close_test();
}

static void large_bodies_are_sent_from_where_they_lie(void **state) {
    (void)state;
    open_test(NULL);
    const size_t size = 30 * MIB;
    auto_free char *bytes = mem_new(size);
    memset(bytes, 'x', size);
    Str body[20];
    for (int i = 0; i < 20; i++) body[i] = (Str){bytes + (size_t)i * (size / 20), size / 20};
    Seen seen = {0};
    begin(&seen, (HttpCallConf){.method = STR("POST"), .body = body, .body_parts = 20});
    WAIT_FOR(t.accepted && t.peers[0].in.length > 1000);
    bytes[size / 20 * 20 - 1] = 'z'; /* would not arrive if it had been copied */
    WAIT_FOR(t.peers[0].in.length > size / 20 * 20);
    assert_int_equal(t.peers[0].in.at[t.peers[0].in.length - 1], 'z');
    stream_write(t.peers[0].stream, OK, strlen(OK));
    WAIT_FOR(seen.dones);
    assert_false(seen.failed);
    seen_done(&seen);
    close_test();
}

/* ---- replies ---- */

static void replies_come_whole_or_in_pieces(void **state) {
    (void)state;
    static const struct {
        const char *answer, *want;
        bool closes, is_head;
    } cases[] = {
        {OK, "200 Content-Length=5 hello", false, false},
        {CHUNKED "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
         "200 Transfer-Encoding=chunked hello world", false, false},
        {"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end", "200 X=y until the end", true, false},
        {"HTTP/1.0 404 Not Found\r\nX: y\r\n\r\n", "404 X=y ", true, false},
        {"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", "204 X=y ", false, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "200 Content-Length=500 ", false, true},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK,
         "200 Content-Length=5 hello", false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (int streamed = 0; streamed < 2; streamed++)
            for (int slow = 0; slow < 2; slow++) {
                open_test(cases[i].answer);
                t.close_after = cases[i].closes;
                if (slow) fault_arm("io.short", 1, true);
                Seen seen = {0};
                begin(&seen, (HttpCallConf){.method = cases[i].is_head ? STR("HEAD") : STR("GET"),
                                            .data = streamed ? on_data : NULL});
                WAIT_FOR(seen.dones);
                fault_disarm_all();
                assert_false(seen.failed);
                assert_string_equal(seen.text.at, cases[i].want);
                assert_int_equal(seen.heads, 1);
                loop_run_for(t.loop, 1);
                assert_int_equal(t.peers[0].stream != NULL, !cases[i].closes); /* kept, or not */
                seen_done(&seen);
                close_test();
            }
}

static void what_is_no_reply_is_told_with_its_cause(void **state) {
    (void)state;
    static const struct {
        const char *answer, *want;
        ErrCode code;
    } cases[] = {
        {"SSH-2.0-OpenSSH\r\n", "the reply of 127.0.0.1:%d cannot be read: invalid constant string",
         ERR_DAMAGED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "the reply of 127.0.0.1:%d cannot be read: content-length is given twice, or with a "
         "transfer-encoding", ERR_DAMAGED},
        {CHUNKED "x\r\n", "the reply of 127.0.0.1:%d cannot be read: the chunks of the body are "
         "malformed", ERR_DAMAGED},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
         "the reply of 127.0.0.1:%d cannot be read: 101 Switching Protocols was not asked for",
         ERR_DAMAGED},
        {"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
         "the reply of 127.0.0.1:%d is larger than 100 bytes", ERR_TOO_LARGE},
        {CHUNKED "65\r\n"
         "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
         "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
         "the reply of 127.0.0.1:%d is larger than 100 bytes", ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        open_test(cases[i].answer);
        Seen seen = {0};
        begin(&seen, (HttpCallConf){.max_body = 100});
        expect_failure(&seen, cases[i].code, cases[i].want);
        WAIT_FOR(t.peers[0].is_gone); /* such a connection is not kept */
        close_test();
    }
}

/* ---- connections ---- */

static void connections_are_kept_and_reused(void **state) {
    (void)state;
    open_test(OK);
    for (int i = 0; i < 10; i++) {
        Seen first = {0}, second = {0};
        first.next = &second; /* made in done(): the connection is free already */
        begin(&first, (HttpCallConf){.data = NULL});
        WAIT_FOR(second.dones);
        assert_false(first.failed || second.failed);
        seen_done(&first);
        seen_done(&second);
    }
    assert_int_equal(t.accepted, 1);
    Seen both[2] = {0};
    for (int i = 0; i < 2; i++) begin(&both[i], (HttpCallConf){.data = NULL});
    for (int i = 0; i < 2; i++) {
        WAIT_FOR(both[i].dones);
        seen_done(&both[i]);
    }
    assert_int_equal(t.accepted, 2); /* two at a time need two */
    t.answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    for (int i = 0; i < 2; i++) {
        Seen seen = {0};
        begin(&seen, (HttpCallConf){.data = NULL});
        WAIT_FOR(seen.dones);
        seen_done(&seen);
    }
    t.answer = OK;
    Seen seen = {0};
    begin(&seen, (HttpCallConf){.data = NULL});
    WAIT_FOR(seen.dones);
    assert_int_equal(t.accepted, 3); /* the other two were told to close */
    stream_write(t.peers[2].stream, "surprise", 8); /* answers nothing: not to be trusted */
    WAIT_FOR(t.peers[2].is_gone);
    seen_done(&seen);
    close_test();
}

static void a_connection_whose_state_is_not_sure_is_not_kept(void **state) {
    (void)state;
    for (int how = 0; how < 2; how++) {
        open_test(how ? OK : OK "HTTP/1.1 200 OK\r\n"); /* more than was asked for */
        const size_t size = how ? 30 * MIB : 3;          /* or a reply before all was sent */
        auto_free char *bytes = mem_new(size);
        Seen first = {0};
        begin(&first,
              (HttpCallConf){.method = STR("POST"), .body = &(Str){bytes, size}, .body_parts = 1});
        WAIT_FOR(first.dones);
        assert_false(first.failed);
        assert_string_equal(first.text.at, "200 Content-Length=5 hello");
        WAIT_FOR(t.peers[0].is_gone);
        seen_done(&first);
        close_test();
    }
}

static void a_kept_connection_that_ended_is_replaced_once(void **state) {
    (void)state;
    for (int how = 0; how < 3; how++) {
        open_test(OK);
        Seen first = {0}, second = {0};
        begin(&first, (HttpCallConf){.data = NULL});
        WAIT_FOR(first.dones);
        seen_done(&first);
        if (how == 0) { /* the server's end and our next request cross each other */
            stream_close(t.peers[0].stream);
            t.peers[0].stream = NULL;
        } else if (how == 1) {
            t.answer = NULL; /* it takes the request, and ends without a byte */
        } else {
            fault_arm("io.write", 1, false);
        }
        begin(&second, (HttpCallConf){.method = STR("POST"), .body = &STR("abc"), .body_parts = 1});
        fault_disarm_all();
        if (how == 1) {
            buf_clear(&t.peers[0].in);
            WAIT_FOR(t.peers[0].in.length);
            reset(&t.peers[0]);
            t.answer = OK;
        }
        WAIT_FOR(second.dones);
        assert_false(second.failed);
        assert_int_equal(t.accepted, 2);
        assert_non_null(strstr(t.peers[1].in.at, "\r\n\r\nabc"));
        seen_done(&second);
        close_test();
    }
}

static void a_fresh_connection_that_ends_is_not_replaced(void **state) {
    (void)state;
    for (int how = 0; how < 2; how++) {
        open_test(NULL);
        Seen seen = {0};
        begin(&seen, (HttpCallConf){.data = NULL});
        WAIT_FOR(t.accepted && t.peers[0].in.length);
        if (how) {
            reset(&t.peers[0]);
        } else {
            stream_close(t.peers[0].stream);
            t.peers[0].stream = NULL;
        }
        expect_failure(&seen, ERR_UNAVAILABLE,
                       how ? "127.0.0.1:%d closed the connection before it replied: "
                             "connection reset by peer"
                           : "127.0.0.1:%d closed the connection before it replied");
        assert_int_equal(seen.status, 0);
        assert_int_equal(t.accepted, 1);
        close_test();
    }
}

static void a_kept_connection_is_not_replaced_after_the_first_byte(void **state) {
    (void)state;
    open_test(OK);
    Seen first = {0}, second = {0};
    begin(&first, (HttpCallConf){.data = NULL});
    WAIT_FOR(first.dones);
    seen_done(&first);
    t.answer = "H";
    t.close_after = true;
    begin(&second, (HttpCallConf){.data = NULL});
    expect_failure(&second, ERR_UNAVAILABLE,
                   "127.0.0.1:%d closed the connection in the middle of the reply");
    assert_int_equal(t.accepted, 1);
    close_test();
}

static void a_reply_cut_off_anywhere_is_a_failure(void **state) {
    (void)state;
    static const char *const whole[] = {OK, CHUNKED "5\r\nhello\r\n0\r\n\r\n"};
    for (size_t w = 0; w < COUNT_OF(whole); w++)
        for (size_t n = 1; n < strlen(whole[w]); n++) {
            auto_free char *part = mem_dup_bytes(whole[w], n);
            open_test(part);
            t.close_after = true;
            Seen seen = {0};
            begin(&seen, (HttpCallConf){.data = n % 2 ? on_data : NULL});
            expect_failure(&seen, ERR_UNAVAILABLE,
                           "127.0.0.1:%d closed the connection in the middle of the reply");
            assert_int_equal(seen.status, seen.heads ? 200 : 0);
            close_test();
        }
}

static void an_early_reply_is_heard_though_the_request_was_not_sent_whole(void **state) {
    (void)state;
    open_test("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\n\r\nstop");
    t.close_after = true;
    const size_t size = 30 * MIB;
    auto_free char *bytes = mem_new(size);
    Seen seen = {0};
    begin(&seen,
          (HttpCallConf){.method = STR("POST"), .body = &(Str){bytes, size}, .body_parts = 1});
    WAIT_FOR(seen.dones);
    if (!seen.failed) /* the kernel may drop the reply with the reset; if it came, it is told */
        assert_string_equal(seen.text.at, "413 Content-Length=4 stop");
    seen_done(&seen);
    close_test();
}

/* ---- time ---- */

static void each_stage_has_its_own_limit(void **state) {
    (void)state;
    open_test(NULL);
    Seen seen = {0};
    begin(&seen, (HttpCallConf){.first_byte_ms = 40, .idle_ms = 10, .connect_ms = 5000});
    int64_t began = clock_mono_us();
    expect_failure(&seen, ERR_DEADLINE, "no reply from 127.0.0.1:%d within 40 ms");
    assert_in_range(clock_mono_us() - began, 39000, 5000000);
    WAIT_FOR(t.peers[0].is_gone);
    seen = (Seen){0};
    t.answer = CHUNKED "5\r\nhello\r\n";
    begin(&seen, (HttpCallConf){.first_byte_ms = 5000, .idle_ms = 30, .data = on_data});
    expect_failure(&seen, ERR_DEADLINE,
                   "127.0.0.1:%d sent nothing for 30 ms in the middle of the reply");
    seen = (Seen){0};
    begin(&seen, (HttpCallConf){.idle_ms = 300, .data = on_data});
    WAIT_FOR(seen.pieces == 1);
    for (int i = 0; i < 5; i++) { /* 500 ms in all, and never 300 without a byte */
        loop_run_for(t.loop, 100);
        stream_write(t.peers[2].stream, "1\r\nx\r\n", 6);
    }
    stream_write(t.peers[2].stream, "0\r\n\r\n", 5);
    WAIT_FOR(seen.dones);
    assert_false(seen.failed);
    seen_done(&seen);
    close_test();
}

static void connecting_fails_with_the_address(void **state) {
    (void)state;
    open_test(NULL);
    Seen seen = {0};
    begin(&seen, (HttpCallConf){.port = 1, .connect_ms = 1000});
    expect_failure(&seen, ERR_UNAVAILABLE, "could not connect to 127.0.0.1:1: connection refused");
    seen = (Seen){0};
    begin(&seen, (HttpCallConf){.host = "localhost", .port = 1});
    expect_failure(&seen, ERR_UNAVAILABLE, "could not connect to localhost:1: connection refused");
    close_test();
}

/* ---- back-pressure and cancelling ---- */

static void a_paused_call_tells_nothing_until_it_goes_on(void **state) {
    (void)state;
    open_test(CHUNKED "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n");
    Seen seen = {.pause_in_head = true, .pause_in_data = true};
    begin(&seen, (HttpCallConf){.data = on_data, .idle_ms = 20});
    WAIT_FOR(seen.heads == 1);
    for (int i = 0; i < 3; i++) {
        loop_run_for(t.loop, 50); /* longer than idle_ms: waiting for us does not count */
        assert_int_equal(seen.pieces, i);
        assert_int_equal(seen.dones, 0);
        http_call_pause(seen.call, false);
        assert_int_equal(seen.pieces, i); /* not from inside the call */
        if (i < 2) WAIT_FOR(seen.pieces == i + 1);
    }
    WAIT_FOR(seen.dones);
    assert_false(seen.failed);
    assert_string_equal(seen.text.at, "200 Transfer-Encoding=chunked helloworld");
    seen_done(&seen);
    close_test();
}

static void a_paused_call_holds_its_peer_back(void **state) {
    (void)state;
    open_test(CHUNKED);
    Seen seen = {.pause_in_head = true};
    begin(&seen, (HttpCallConf){.data = on_data});
    WAIT_FOR(seen.heads == 1);
    auto_free char *zeros = mem_new(20 * MIB);
    stream_write(t.peers[0].stream, "1400000\r\n", 9);
    stream_write(t.peers[0].stream, zeros, 20 * MIB);
    stream_write(t.peers[0].stream, "\r\n0\r\n\r\n", 7);
    loop_run_for(t.loop, 20);
    assert_true(stream_unsent(t.peers[0].stream) > 5 * MIB);
    http_call_pause(seen.call, false);
    WAIT_FOR(seen.dones);
    assert_true(seen.text.length > 20 * MIB);
    seen_done(&seen);
    close_test();
}

static void cancelling_ends_the_call_and_its_connection(void **state) {
    (void)state;
    for (int when = 0; when < 7; when++) {
        open_test(when == 1 ? NULL : CHUNKED "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n");
        Seen seen = {.cancel_in_head = when == 2, .cancel_in_data = when == 3,
                     .cancel_in_done = when == 4};
        begin(&seen, (HttpCallConf){.data = on_data, .target = when == 5 ? STR("a b") : STR("/")});
        if (when == 1) WAIT_FOR(t.accepted && t.peers[0].in.length);
        if (when < 2 || when == 5) cancel(&seen, true); /* 0: still connecting; 5: refused */
        if (when == 6) { /* all of them, by freeing the client */
            http_client_free(t.client);
            t.client = NULL;
        }
        loop_run_for(t.loop, 10);
        if (when > 0 && when < 4) WAIT_FOR(t.peers[0].is_gone);
        assert_int_equal(seen.dones, when == 4);
        assert_int_equal(seen.pieces, when == 3 ? 1 : when == 4 ? 2 : 0);
        seen_done(&seen);
        close_test();
    }
    http_client_free(NULL);
}

static void free_client(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    (void)call, (void)status, (void)body, (void)failure;
    (*(int *)user)++;
    http_client_free(t.client);
    t.client = NULL;
}

static void a_client_may_be_freed_in_done(void **state) {
    (void)state;
    open_test(OK);
    Seen other = {0};
    int dones = 0;
    HttpCallConf conf = {.host = "127.0.0.1",
                         .port = listener_port(t.listener),
                         .method = STR("GET"),
                         .target = STR("/"),
                         .done = free_client,
                         .user = &dones};
    http_call(t.client, &conf);
    begin(&other, (HttpCallConf){.data = NULL});
    WAIT_FOR(dones == 1);
    loop_run_for(t.loop, 5);
    assert_int_equal(other.dones + dones <= 2, 1);
    seen_done(&other);
    close_test();
}

/* ---- faults, and many at once ---- */

static void every_step_may_fail_and_is_told_once(void **state) {
    (void)state;
    static const char *const points[] = {"io.connect", "io.read", "io.write", "io.accept"};
    for (size_t p = 0; p < COUNT_OF(points); p++)
        for (unsigned n = 1; n < 8; n++) {
            open_test(OK);
            fault_arm(points[p], n, false);
            Seen seen[3] = {0};
            int failed = 0;
            for (int i = 0; i < 3; i++) {
                begin(&seen[i], (HttpCallConf){.method = STR("POST"), .body = &STR("abc"),
                                               .body_parts = 1, .data = i == 1 ? on_data : NULL});
                WAIT_FOR(seen[i].dones);
                failed += seen[i].failed;
            }
            fault_disarm_all();
            loop_run_for(t.loop, 1);
            for (int i = 0; i < 3; i++) {
                assert_int_equal(seen[i].dones, 1);
                seen_done(&seen[i]);
            }
            assert_in_range(failed, 0, 1);
            close_test();
        }
}

static void answer_path(HttpRequest *request, void *user) {
    (void)user;
    http_reply(request, 200, "text/plain", request->path, (HttpHeaders){0});
}

static void a_thousand_calls_at_once_get_each_its_own_reply(void **state) {
    (void)state;
    enum { MANY = 1000 };
    static Seen seen[MANY];
    memset(seen, 0, sizeof seen);
    open_test(NULL);
    Err err = {0};
    HttpServerConf conf = {.host = "127.0.0.1", .handle = answer_path};
    HttpServer *server = http_server_open(t.loop, &conf, &err);
    assert_non_null(server);
    http_server_listen(server);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++) {
            char path[16];
            snprintf(path, sizeof path, "/%d", i);
            seen[i].dones = seen[i].heads = 0;
            buf_clear(&seen[i].text);
            begin(&seen[i],
                  (HttpCallConf){.port = http_server_port(server), .target = str_of(path)});
        }
        for (int i = 0; i < MANY; i++) {
            char path[16];
            snprintf(path, sizeof path, " /%d", i);
            WAIT_FOR(seen[i].dones);
            assert_false(seen[i].failed);
            assert_non_null(strstr(seen[i].text.at, path));
        }
    }
    for (int i = 0; i < MANY; i++) seen_done(&seen[i]);
    http_server_close(server);
    close_test();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_request_is_what_was_asked_for),
        cmocka_unit_test(what_would_split_a_request_is_refused),
        cmocka_unit_test(large_bodies_are_sent_from_where_they_lie),
        cmocka_unit_test(replies_come_whole_or_in_pieces),
        cmocka_unit_test(what_is_no_reply_is_told_with_its_cause),
        cmocka_unit_test(connections_are_kept_and_reused),
        cmocka_unit_test(a_connection_whose_state_is_not_sure_is_not_kept),
        cmocka_unit_test(a_kept_connection_that_ended_is_replaced_once),
        cmocka_unit_test(a_fresh_connection_that_ends_is_not_replaced),
        cmocka_unit_test(a_kept_connection_is_not_replaced_after_the_first_byte),
        cmocka_unit_test(a_reply_cut_off_anywhere_is_a_failure),
        cmocka_unit_test(an_early_reply_is_heard_though_the_request_was_not_sent_whole),
        cmocka_unit_test(each_stage_has_its_own_limit),
        cmocka_unit_test(connecting_fails_with_the_address),
        cmocka_unit_test(a_paused_call_tells_nothing_until_it_goes_on),
        cmocka_unit_test(a_paused_call_holds_its_peer_back),
        cmocka_unit_test(cancelling_ends_the_call_and_its_connection),
        cmocka_unit_test(a_client_may_be_freed_in_done),
        cmocka_unit_test(every_step_may_fail_and_is_told_once),
        cmocka_unit_test(a_thousand_calls_at_once_get_each_its_own_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
