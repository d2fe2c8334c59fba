// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "loop_test.h"
#include <cmocka.h>

typedef struct Test Test;

typedef struct End { /* one end of a connection */
    Test *test;
    Stream *stream;
    char *in; /* where bytes go; grows */
    size_t length, capacity, room_least;
    int connected, drained, done;
    bool failed, is_gone;
    Err why;
    size_t stop_at;                      /* the loop ends when that many bytes came */
    enum { NOWHERE, IN_CONNECTED, IN_ROOM, IN_GOT, IN_GONE, IN_DRAINED, IN_DONE } close_in;
} End;

struct Test {
    Loop *loop;
    Listener *listener;
    End a, b; /* a connects, b is accepted */
    bool stop_on_gone;
};

static bool closes(End *end, int where) {
    if ((int)end->close_in != where) return false;
    stream_close(end->stream);
    end->stream = NULL;
    loop_stop(end->test->loop);
    return true;
}

static void connected(void *user, const Err *failure) {
    End *end = user;
    end->connected++;
    if (failure) {
        end->failed = true;
        end->why = *failure;
        loop_stop(end->test->loop);
        return;
    }
    closes(end, IN_CONNECTED);
}

static void *room(void *user, size_t *length) {
    End *end = user;
    if (closes(end, IN_ROOM)) return NULL;
    size_t need = end->length + (end->room_least ? end->room_least : 1000);
    if (need > end->capacity) {
        end->capacity = need * 2;
        end->in = mem_grow(end->in, end->capacity);
    }
    *length = end->capacity - end->length;
    return end->in + end->length;
}

static void got(void *user, size_t length) {
    End *end = user;
    end->length += length;
    if (closes(end, IN_GOT)) return;
    if (end->stop_at && end->length >= end->stop_at) loop_stop(end->test->loop);
}

static void gone(void *user, const Err *why) {
    End *end = user;
    assert_false(end->is_gone);
    end->is_gone = true;
    end->why = *why;
    closes(end, IN_GONE);
    if (end->test->stop_on_gone) loop_stop(end->test->loop);
}

static void drained(void *user) {
    End *end = user;
    end->drained++;
    closes(end, IN_DRAINED);
}

static void done(void *user) {
    End *end = user;
    end->done++;
    closes(end, IN_DONE);
}

static const StreamCalls calls = {connected, room, got, gone, drained};

static void accepted(Stream *stream, void *user) {
    Test *t = user;
    t->b.test = t;
    t->b.stream = stream;
    stream_set_calls(stream, &calls, &t->b);
    if (t->a.connected) loop_stop(t->loop);
}

static const char *test_name(void) {
    static char name[64];
    snprintf(name, sizeof name, "@baton-stream-test-%d", (int)getpid());
    return name;
}

static void open_test(Test *t, bool is_unix) {
    Err err = {0};
    *t = (Test){.loop = loop_new(), .stop_on_gone = true};
    t->a.test = t->b.test = t;
    t->listener = is_unix ? listen_unix(t->loop, test_name(), accepted, t, &err)
                          : listen_tcp(t->loop, "127.0.0.1", 0, accepted, t, &err);
    assert_non_null(t->listener);
    t->a.stream = is_unix ? stream_connect_unix(t->loop, test_name(), 5000, &calls, &t->a)
                          : stream_connect_tcp(t->loop, "127.0.0.1", listener_port(t->listener),
                                               5000, &calls, &t->a);
    assert_int_equal(t->a.connected, 0); /* never from inside the call */
}

static void open_pair(Test *t, bool is_unix) {
    open_test(t, is_unix);
    while (!t->b.stream || !t->a.connected) loop_run_for(t->loop, 1);
    assert_false(t->a.failed);
    stream_read(t->a.stream, true);
    stream_read(t->b.stream, true);
}

static void close_test(Test *t) {
    stream_close(t->a.stream);
    loop_free(t->loop); /* closes the other */
    free(t->a.in);
    free(t->b.in);
}

static char *pattern(size_t length) {
    char *bytes = mem_new(length);
    for (size_t i = 0; i < length; i++) bytes[i] = (char)(i * 31 + i / 251);
    return bytes;
}

/* ---- moving bytes ---- */

static void bytes_arrive_in_order_however_they_were_written(void **state) {
    (void)state;
    const size_t size = 24 * MIB; /* more than the kernel takes at once */
    for (int kind = 0; kind < 2; kind++) {
        Test t;
        open_pair(&t, kind == 1);
        char *bytes = pattern(size);
        size_t at = 0;
        for (int i = 0; at < size; i++) {
            size_t n = (size_t)(i * i % 70001) + 1, half = n / 2;
            if (n > size - at) half = n = size - at;
            if (i % 3 == 0) stream_write(t.a.stream, bytes + at, n);
            else if (i % 3 == 1)
                stream_write_parts(t.a.stream,
                                   (Str[]){{bytes + at, half}, {NULL, 0},
                                           {bytes + at + half, n - half}}, 3);
            else stream_write_view(t.a.stream, bytes + at, n, done, &t.a);
            at += n;
        }
        assert_int_equal(t.a.done, 0);
        t.b.stop_at = size;
        loop_run_until_stopped(t.loop);
        loop_run_for(t.loop, 1);
        assert_int_equal(t.b.length, size);
        assert_memory_equal(t.b.in, bytes, size);
        assert_true(t.a.done > 10);
        assert_int_equal(t.a.drained, 1);
        assert_int_equal(stream_unsent(t.a.stream), 0);
        close_test(&t);
        free(bytes);
    }
}

static void one_byte_at_a_time_is_enough(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        Test t;
        open_pair(&t, kind == 1);
        fault_arm("io.short", 1, true);
        auto_free char *bytes = pattern(3000);
        stream_write(t.a.stream, bytes, 1000);
        stream_write_views(t.a.stream, (Str[]){{bytes + 1000, 1000}, {bytes + 2000, 1000}}, 2, done,
                           &t.a);
        t.b.stop_at = 3000;
        loop_run_until_stopped(t.loop);
        fault_disarm_all();
        loop_run_for(t.loop, 1);
        assert_memory_equal(t.b.in, bytes, 3000);
        assert_int_equal(t.a.done, 1);
        close_test(&t);
    }
}

static void a_view_is_sent_from_where_it_lies(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    const size_t size = 64 * MIB;
    auto_free char *bytes = mem_new(size);
    stream_write_view(t.a.stream, bytes, size, done, &t.a);
    assert_true(stream_unsent(t.a.stream) > 0);
    bytes[size - 1] = 'x'; /* would not arrive if it had been copied */
    t.b.room_least = size;
    t.b.stop_at = size;
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.b.in[size - 1], 'x');
    loop_run_for(t.loop, 1);
    assert_int_equal(t.a.done, 1);
    close_test(&t);
}

static void an_empty_view_is_done_after_what_was_written_before(void **state) {
    (void)state;
    Test t;
    open_test(&t, false); /* still connecting */
    stream_write(t.a.stream, "abc", 3);
    stream_write_view(t.a.stream, NULL, 0, done, &t.a);
    while (!t.a.connected || !t.b.stream) loop_run_for(t.loop, 1);
    t.b.stop_at = 3;
    stream_read(t.b.stream, true);
    loop_run_until_stopped(t.loop);
    loop_run_for(t.loop, 1);
    assert_int_equal(t.a.done, 1);
    stream_write_view(t.a.stream, NULL, 0, done, &t.a); /* and alone */
    assert_int_equal(t.a.done, 1);
    loop_run_for(t.loop, 1);
    assert_int_equal(t.a.done, 2);
    stream_write_view(t.a.stream, "abc", 3, done, &t.a);
    stream_close(t.a.stream); /* before it could be told */
    t.a.stream = NULL;
    loop_run_for(t.loop, 1);
    assert_int_equal(t.a.done, 2);
    close_test(&t);
}

static void reading_is_off_until_it_is_asked_for(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    stream_read(t.b.stream, false);
    stream_write(t.a.stream, "abc", 3);
    int64_t cpu_us = clock_cpu_us();
    loop_run_for(t.loop, 100);
    assert_in_range(clock_cpu_us() - cpu_us, 0, 50000); /* the loop sleeps meanwhile */
    assert_int_equal(t.b.length, 0);
    stream_read(t.b.stream, true);
    t.b.stop_at = 3;
    loop_run_until_stopped(t.loop);
    assert_memory_equal(t.b.in, "abc", 3);
    close_test(&t);
}

static void what_a_slow_reader_leaves_is_counted(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    stream_read(t.b.stream, false);
    auto_free char *bytes = pattern(1 * MIB);
    size_t written = 0;
    for (; stream_unsent(t.a.stream) < 4 * MIB; written += MIB)
        stream_write(t.a.stream, bytes, 1 * MIB);
    loop_run_for(t.loop, 10);
    assert_int_equal(t.a.drained, 0);
    stream_read(t.b.stream, true);
    t.b.stop_at = written;
    loop_run_until_stopped(t.loop);
    loop_run_for(t.loop, 1);
    assert_int_equal(t.a.drained, 1);
    close_test(&t);
}

/* ---- ends ---- */

static void the_peers_end_is_orderly(void **state) {
    (void)state;
    for (int half = 0; half < 2; half++) {
        Test t;
        open_pair(&t, false);
        stream_write(t.a.stream, "last words", 10);
        if (half) {
            shutdown(stream_fd(t.a.stream), SHUT_WR);
        } else {
            stream_close(t.a.stream);
            t.a.stream = NULL;
        }
        loop_run_until_stopped(t.loop);
        assert_true(t.b.is_gone);
        assert_int_equal(t.b.why.code, ERR_NONE);
        assert_memory_equal(t.b.in, "last words", 10);
        stream_read(t.b.stream, true); /* nothing more comes, and the loop sleeps */
        int64_t cpu_us = clock_cpu_us();
        loop_run_for(t.loop, 100);
        assert_in_range(clock_cpu_us() - cpu_us, 0, 50000);
        if (half) { /* we may still answer */
            t.a.stop_at = 3;
            stream_write(t.b.stream, "bye", 3);
            loop_run_until_stopped(t.loop);
            assert_memory_equal(t.a.in, "bye", 3);
        }
        close_test(&t);
    }
}

static void reset(Stream *stream) {
    struct linger now = {.l_onoff = 1};
    setsockopt(stream_fd(stream), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    stream_close(stream);
}

static void a_reset_is_told_with_the_peers_name(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    char want[128];
    snprintf(want, sizeof want, "lost the connection to %s: connection reset by peer",
             stream_peer(t.b.stream));
    reset(t.a.stream);
    t.a.stream = NULL;
    loop_run_until_stopped(t.loop);
    assert_string_equal(t.b.why.message, want);
    assert_int_equal(t.b.why.code, ERR_UNAVAILABLE);
    close_test(&t);
}

static void a_refusal_is_read_though_writing_has_failed(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    stream_read(t.a.stream, false);
    stream_read(t.b.stream, false);
    auto_free char *bytes = pattern(1 * MIB);
    stream_write(t.b.stream, "413 too large", 13);
    loop_run_for(t.loop, 2);
    stream_read(t.a.stream, true);
    fault_arm("io.write", 1, true);
    stream_write(t.a.stream, bytes, 1 * MIB);
    loop_run_until_stopped(t.loop);
    fault_disarm_all();
    assert_memory_equal(t.a.in, "413 too large", 13);
    assert_true(t.a.is_gone);
    assert_non_null(strstr(t.a.why.message, ": broken pipe"));
    close_test(&t);
}

static void failing_reads_and_writes_are_told_once(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        Test t;
        open_pair(&t, n % 2 == 1);
        fault_arm(n < 2 ? "io.read" : "io.write", 1, false);
        stream_write(t.a.stream, "abc", 3);
        assert_false(t.a.is_gone); /* never from inside the call */
        stream_write_view(t.a.stream, "abc", 3, done, &t.a);
        loop_run_until_stopped(t.loop);
        fault_disarm_all();
        End *hit = n < 2 ? &t.b : &t.a;
        assert_true(hit->is_gone);
        assert_int_equal(hit->why.code, ERR_UNAVAILABLE);
        stream_write(hit->stream, "more", 4); /* nothing happens any more */
        assert_int_equal(stream_unsent(hit->stream), 0);
        t.stop_on_gone = false;
        loop_run_for(t.loop, 5);
        close_test(&t);
    }
}

static void a_stream_may_be_closed_in_any_of_its_calls(void **state) {
    (void)state;
    const int a_side[] = {IN_CONNECTED, IN_GOT, IN_ROOM, IN_GONE, IN_DRAINED, IN_DONE};
    for (size_t i = 0; i < COUNT_OF(a_side); i++) {
        Test t;
        auto_free char *bytes = pattern(4 * MIB);
        if (a_side[i] == IN_CONNECTED) {
            open_test(&t, false);
            t.a.close_in = IN_CONNECTED;
            loop_run_until_stopped(t.loop);
        } else {
            open_pair(&t, false);
            t.a.close_in = a_side[i];
            t.b.room_least = 8 * MIB;
            if (a_side[i] == IN_DRAINED) stream_write(t.a.stream, bytes, 4 * MIB);
            else stream_write_view(t.a.stream, bytes, 4 * MIB, done, &t.a);
            stream_write(t.b.stream, "abc", 3);
            if (a_side[i] == IN_GONE) reset(t.b.stream);
            loop_run_until_stopped(t.loop);
        }
        assert_null(t.a.stream);
        size_t length = t.a.length;
        int told = t.a.connected + t.a.drained + t.a.done + t.a.is_gone;
        t.stop_on_gone = false;
        loop_run_for(t.loop, 5);
        assert_int_equal(told, t.a.connected + t.a.drained + t.a.done + t.a.is_gone);
        assert_int_equal(length, t.a.length);
        close_test(&t);
    }
}

static void close_other(void *user, size_t length) {
    Test *t = user;
    (void)length;
    stream_close(t->b.stream);
    stream_close(t->a.stream);
    t->a.stream = t->b.stream = NULL;
    loop_stop(t->loop);
}

static void *room_in_a(void *user, size_t *length) { return room(&((Test *)user)->a, length); }

static void a_call_of_one_stream_may_close_others(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    static const StreamCalls closing = {.room = room_in_a, .got = close_other};
    stream_set_calls(t.a.stream, &closing, &t);
    stream_set_calls(t.b.stream, &closing, &t);
    stream_write(t.a.stream, "abc", 3);
    stream_write(t.b.stream, "abc", 3); /* both are ready in the same round */
    loop_run_until_stopped(t.loop);
    assert_null(t.a.stream);
    loop_run_for(t.loop, 2);
    close_test(&t);
}

static void what_is_written_before_closing_arrives_whole(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        Test t;
        open_pair(&t, kind == 1);
        const size_t size = 20 * MIB;
        char *bytes = pattern(size);
        stream_write(t.a.stream, "unread",
                     6); /* would reset the connection if it were just closed */
        stream_read(t.b.stream, false);
        stream_write(t.b.stream, bytes, 500);
        stream_write_view(t.b.stream, bytes + 500, 500, done, &t.b); /* has left: told too late */
        stream_write_view(t.b.stream, bytes + 1000, size - 1000, done, &t.b);
        stream_close_when_sent(t.b.stream);
        memset(bytes, 0, size); /* the loan has ended */
        free(bytes);
        loop_run_until_stopped(t.loop);
        assert_true(t.a.is_gone);
        assert_int_equal(t.a.why.code, ERR_NONE);
        assert_int_equal(t.a.length, size);
        bytes = pattern(size);
        assert_memory_equal(t.a.in, bytes, size);
        free(bytes);
        assert_int_equal(t.b.done + t.b.drained + t.b.is_gone, 0);
        close_test(&t);
    }
}

static void the_last_words_reach_a_peer_that_is_still_sending(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    auto_free char *bytes = pattern(20 * MIB);
    stream_read(t.b.stream, false);
    stream_write(t.a.stream, bytes, 20 * MIB);
    loop_run_for(t.loop, 2);
    stream_write(t.b.stream, "413", 3);
    stream_close_when_sent(t.b.stream); /* closing alone would reset the connection */
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.a.why.code, ERR_NONE);
    assert_memory_equal(t.a.in, "413", 3);
    close_test(&t);
}

static void closing_when_sent_ends_with_a_peer_that_has_gone(void **state) {
    (void)state;
    for (int how = 0; how < 3; how++) {
        Test t;
        open_pair(&t, false);
        if (how == 0) shutdown(stream_fd(t.a.stream), SHUT_WR); /* reads on */
        if (how == 1) reset(t.a.stream);
        if (how == 2) stream_close(t.a.stream);
        if (how) t.a.stream = NULL;
        loop_run_until_stopped(t.loop);
        assert_true(t.b.is_gone);
        stream_write(t.b.stream, "abc", 3);
        t.b.is_gone = false;
        stream_close_when_sent(t.b.stream);
        if (how == 0) loop_run_until_stopped(t.loop);
        if (how == 0) assert_memory_equal(t.a.in, "abc", 3);
        t.stop_on_gone = false;
        loop_run_for(t.loop, 2);
        close_test(&t);
    }
    stream_close_when_sent(NULL);
    stream_close(NULL);
}

static void closing_when_sent_does_not_wait_for_ever(void **state) {
    (void)state;
    Test t;
    open_pair(&t, false);
    stream_read(t.a.stream, false); /* neither reads nor ends */
    auto_free char *bytes = pattern(20 * MIB);
    stream_write(t.b.stream, bytes, 20 * MIB);
    int64_t began = clock_mono_us();
    stream_close_when_sent(t.b.stream);
    while (send(stream_fd(t.a.stream), "x", 1, MSG_NOSIGNAL) == 1) loop_run_for(t.loop, 50);
    assert_in_range(clock_mono_us() - began, 4900000, 15000000);
    close_test(&t);
}

/* ---- connecting ---- */

static void expect_failure(Test *t, ErrCode code, const char *message) {
    while (!t->a.failed) loop_run_until_stopped(t->loop);
    assert_int_equal(t->a.connected, 1);
    assert_string_equal(t->a.why.message, message);
    assert_int_equal(t->a.why.code, code);
    stream_write(t->a.stream, "abc", 3); /* nothing */
    close_test(t);
}

static void a_refused_connection_names_address_and_reason(void **state) {
    (void)state;
    static const struct {
        const char *host, *message;
    } cases[] = {
        {"127.0.0.1", "could not connect to 127.0.0.1:1: connection refused"},
        {"localhost", "could not connect to localhost:1: connection refused"},
        {"::1", "could not connect to [::1]:1: connection refused"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Test t = {.loop = loop_new()};
        t.a.test = &t;
        t.a.stream = stream_connect_tcp(t.loop, cases[i].host, 1, 5000, &calls, &t.a);
        expect_failure(&t, ERR_UNAVAILABLE, cases[i].message);
    }
    Test t = {.loop = loop_new()};
    t.a.test = &t;
    t.a.stream = stream_connect_unix(t.loop, "/no/such/socket", 0, &calls, &t.a);
    expect_failure(&t, ERR_UNAVAILABLE,
                   "could not connect to unix:/no/such/socket: no such file or directory");
    char path[200], want[400];
    memset(path, 'p', 199);
    path[199] = 0;
    t = (Test){.loop = loop_new(), .a.test = &t};
    t.a.stream = stream_connect_unix(t.loop, path, 0, &calls, &t.a);
    snprintf(want, sizeof want,
             "'%s' cannot name a Unix socket: it has 199 bytes, 1 to 107 do", path);
    expect_failure(&t, ERR_INVALID, want);
    t = (Test){.loop = loop_new(), .a.test = &t};
    fault_arm("io.connect", 1, false);
    t.a.stream = stream_connect_tcp(t.loop, "127.0.0.1", 9, 0, &calls, &t.a);
    fault_disarm_all();
    expect_failure(&t, ERR_UNAVAILABLE, "could not connect to 127.0.0.1:9: connection refused");
}

static void a_name_leads_to_whichever_address_answers(void **state) {
    (void)state;
    Err err = {0};
    Test t = {.loop = loop_new(), .stop_on_gone = true};
    t.a.test = &t;
    t.listener = listen_tcp(t.loop, "localhost", 0, accepted, &t, &err);
    assert_non_null(t.listener);
    t.a.stream = stream_connect_tcp(t.loop, "localhost", listener_port(t.listener), 5000, &calls,
                                    &t.a);
    while (!t.b.stream || !t.a.connected) loop_run_for(t.loop, 1);
    assert_false(t.a.failed);
    assert_true(str_starts(str_of(stream_peer(t.a.stream)), "localhost:"));
    close_test(&t);
}

static void block(void *user) {
    (void)user;
    struct timespec time = {.tv_nsec = 300000000};
    nanosleep(&time, NULL);
}

static void blocking_accepted(Stream *stream, void *user) {
    accepted(stream, user);
    block(NULL);
}

static void a_connection_made_in_time_is_not_late_for_a_busy_loop(void **state) {
    (void)state;
    Err err = {0};
    Test t = {.loop = loop_new()};
    t.a.test = &t;
    t.listener = listen_tcp(t.loop, "127.0.0.1", 0, blocking_accepted, &t, &err);
    assert_non_null(t.listener);
    t.a.stream = stream_connect_tcp(t.loop, "127.0.0.1", listener_port(t.listener), 250, &calls,
                                    &t.a);
    while (!t.b.stream || !t.a.connected) loop_run_for(t.loop, 1);
    assert_false(t.a.failed);
    close_test(&t);
}

static void a_name_that_is_not_known_is_told(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    t.a.test = &t;
    t.a.stream = stream_connect_tcp(t.loop, "no-such-host.invalid", 80, 15000, &calls, &t.a);
    while (!t.a.failed) loop_run_until_stopped(t.loop);
    assert_true(str_starts(str_of(t.a.why.message),
                           "could not connect to no-such-host.invalid:80: "));
    close_test(&t);
}

/* A listener whose queue is full lets further connections hang, as an unplugged machine would. */
static void connecting_takes_no_longer_than_it_may(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Err err = {0};
    Listener *full = reserve_tcp(t.loop, "127.0.0.1", 0, accepted, &t, &err);
    assert_non_null(full);
    struct sockaddr_storage at;
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), filling[4];
    char want[128];
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &length), 0);
    for (int i = 0; i < 4; i++) {
        filling[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        connect(filling[i], (struct sockaddr *)&at, length);
    }
    unsigned char port[2];
    memcpy(port, (char *)&at + 2, 2);
    int number = port[0] << 8 | port[1];
    t.a.test = &t;
    int64_t began = clock_mono_us();
    t.a.stream = stream_connect_tcp(t.loop, "127.0.0.1", number, 50, &calls, &t.a);
    snprintf(want, sizeof want, "could not connect to 127.0.0.1:%d within 50 ms", number);
    expect_failure(&t, ERR_DEADLINE, want);
    assert_in_range(clock_mono_us() - began, 49000, 5000000);
    for (int i = 0; i < 4; i++) close(filling[i]);
    close(fd);
}

/* ---- descriptors ---- */

static void a_descriptor_travels_with_its_byte(void **state) {
    (void)state;
    Test t;
    Err err = {0};
    open_pair(&t, true);
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const size_t before = 2 * MIB;
    auto_free char *bytes = pattern(before);
    stream_write(t.a.stream, bytes, before); /* waits: the descriptor must not overtake it */
    assert_true(stream_send_fd(t.a.stream, ends[1], &err));
    close(ends[1]); /* a duplicate is on its way */
    stream_write(t.a.stream, "after", 5);
    t.b.stop_at = before + 6;
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.b.in[before], 0);
    assert_memory_equal(t.b.in + before + 1, "after", 5);
    int fd = stream_take_fd(t.b.stream);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(stream_take_fd(t.b.stream), -1);
    assert_int_equal(write(fd, "x", 1), 1);
    char c = 0;
    assert_int_equal(read(ends[0], &c, 1), 1);
    assert_int_equal(c, 'x');
    close(fd);
    for (int i = 0; i < 20; i++) assert_true(stream_send_fd(t.a.stream, ends[0], &err));
    t.b.stop_at += 20;
    loop_run_until_stopped(t.loop); /* more than anyone takes: closed with the stream, or at once */
    close(ends[0]);
    close_test(&t);
    open_pair(&t, false);
    assert_false(stream_send_fd(t.a.stream, 0, &err));
    assert_non_null(strstr(err.message, "cannot send a descriptor to 127.0.0.1:"));
    close_test(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_in_order_however_they_were_written),
        cmocka_unit_test(one_byte_at_a_time_is_enough),
        cmocka_unit_test(a_view_is_sent_from_where_it_lies),
        cmocka_unit_test(an_empty_view_is_done_after_what_was_written_before),
        cmocka_unit_test(reading_is_off_until_it_is_asked_for),
        cmocka_unit_test(what_a_slow_reader_leaves_is_counted),
        cmocka_unit_test(the_peers_end_is_orderly),
        cmocka_unit_test(a_reset_is_told_with_the_peers_name),
        cmocka_unit_test(a_refusal_is_read_though_writing_has_failed),
        cmocka_unit_test(failing_reads_and_writes_are_told_once),
        cmocka_unit_test(a_stream_may_be_closed_in_any_of_its_calls),
        cmocka_unit_test(a_call_of_one_stream_may_close_others),
        cmocka_unit_test(what_is_written_before_closing_arrives_whole),
        cmocka_unit_test(the_last_words_reach_a_peer_that_is_still_sending),
        cmocka_unit_test(closing_when_sent_ends_with_a_peer_that_has_gone),
        cmocka_unit_test(closing_when_sent_does_not_wait_for_ever),
        cmocka_unit_test(a_refused_connection_names_address_and_reason),
        cmocka_unit_test(a_name_leads_to_whichever_address_answers),
        cmocka_unit_test(a_connection_made_in_time_is_not_late_for_a_busy_loop),
        cmocka_unit_test(a_name_that_is_not_known_is_told),
        cmocka_unit_test(connecting_takes_no_longer_than_it_may),
        cmocka_unit_test(a_descriptor_travels_with_its_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
