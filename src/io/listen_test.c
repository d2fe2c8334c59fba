// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "loop_test.h"
#include <cmocka.h>

#define MANY 1000

typedef struct Test {
    Loop *loop;
    Listener *listener;
    Stream *streams[MANY];
    int accepted, connected, failed, echoed, stop_at;
    bool close_in_accept;
    char input[MANY][8];
} Test;

static void stop(void *loop) { loop_stop(loop); }

static void accepted(Stream *stream, void *user) {
    Test *t = user;
    t->accepted++;
    stream_close(stream);
    if (t->close_in_accept) listener_close(t->listener);
    if (t->accepted >= t->stop_at) loop_stop(t->loop);
}

static void connected(void *user, const Err *failure) {
    Test *t = user;
    if (failure) t->failed++;
    else t->connected++;
    if (failure) loop_stop(t->loop);
}

static const StreamCalls silent = {.connected = connected};

static void open_one(Test *t) {
    Err err = {0};
    t->loop = loop_new();
    t->listener = listen_tcp(t->loop, "127.0.0.1", 0, accepted, t, &err);
    assert_non_null(t->listener);
    t->stop_at = 1;
}

static void connect_one(Test *t) {
    stream_connect_tcp(t->loop, "127.0.0.1", listener_port(t->listener), 5000, &silent, t);
}

static void a_taken_port_is_told_at_once_with_a_way_out(void **state) {
    (void)state;
    Test t = {0};
    open_one(&t);
    Err err = {0};
    int port = listener_port(t.listener);
    char message[128], hint[128];
    snprintf(message, sizeof message,
             "could not listen on 127.0.0.1:%d: address already in use", port);
    snprintf(hint, sizeof hint,
             "Choose another --port, or stop the process that has it: ss -ltnp 'sport = :%d'.",
             port);
    assert_null(listen_tcp(t.loop, "127.0.0.1", port, accepted, &t, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_string_equal(err.message, message);
    assert_string_equal(err.hint, hint);
    err = (Err){0};
    assert_null(reserve_tcp(t.loop, "127.0.0.1", port, accepted, &t, &err));
    assert_string_equal(err.message, message);
    assert_null(reserve_tcp(t.loop, NULL, port, accepted, &t, &err)); /* all addresses: also ours */
    assert_int_equal(err.code, ERR_CONFLICT);
    loop_free(t.loop);
}

static void a_reserved_port_is_taken_but_refuses_until_it_starts(void **state) {
    (void)state;
    Test t = {0};
    open_one(&t); /* finds a free port, with old connections to it once it is closed */
    connect_one(&t);
    loop_run_until_stopped(t.loop);
    int port = listener_port(t.listener);
    listener_close(t.listener);
    Err err = {0};
    t.listener = reserve_tcp(t.loop, "127.0.0.1", port, accepted, &t, &err);
    assert_string_equal(err.message, "");
    assert_non_null(t.listener);
    assert_null(reserve_tcp(t.loop, "127.0.0.1", port, accepted, &t, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_null(listen_tcp(t.loop, "127.0.0.1", port, accepted, &t, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    connect_one(&t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.failed, 1);
    listener_start(t.listener);
    t.stop_at = 2;
    connect_one(&t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.accepted, 2);
    loop_free(t.loop);
}

static void an_address_that_is_not_ours_is_refused_with_a_hint(void **state) {
    (void)state;
    static const struct {
        const char *host;
        int port;
        ErrCode code;
        const char *message, *hint;
    } cases[] = {
        {"192.0.2.1", 8000, ERR_IO, "could not listen on 192.0.2.1:8000: address not available",
         "Choose a --host that is an address of this machine."},
        {"127.0.0.1", 65536, ERR_INVALID, "cannot listen on port 65536",
         "Choose a --port from 0 to 65535."},
        {"127.0.0.1", -1, ERR_INVALID, "cannot listen on port -1",
         "Choose a --port from 0 to 65535."},
    };
    Loop *loop = loop_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        assert_null(listen_tcp(loop, cases[i].host, cases[i].port, accepted, NULL, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.hint, cases[i].hint);
    }
    Err err = {0};
    assert_null(listen_tcp(loop, "no-such-host.invalid", 8000, accepted, NULL, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_true(str_starts(str_of(err.message), "could not listen on no-such-host.invalid:8000: "));
    loop_free(loop);
}

static void a_listener_may_be_closed_while_it_accepts(void **state) {
    (void)state;
    Test t = {.close_in_accept = true};
    open_one(&t);
    for (int i = 0; i < 3; i++) connect_one(&t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.accepted, 1);
    loop_free(t.loop);
}

static void accepting_backs_off_when_descriptors_run_out(void **state) {
    (void)state;
    Test t = {0};
    open_one(&t);
    connect_one(&t);
    fault_arm("io.accept", 1, false);
    int64_t began = clock_mono_us();
    loop_run_until_stopped(t.loop);
    fault_disarm_all();
    assert_in_range(clock_mono_us() - began, 90000, 5000000);
    assert_int_equal(t.accepted, 1);

    struct rlimit was, none;
    getrlimit(RLIMIT_NOFILE, &was);
    none = was;
    for (int i = 0; i < 20; i++) connect_one(&t);
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none); /* the real thing: no descriptor at all is left */
    t.stop_at = 1000;
    Timer *end = timer_start(t.loop, 150, 0, stop, t.loop);
    loop_run(t.loop);
    assert_int_equal(t.accepted, 1);
    setrlimit(RLIMIT_NOFILE, &was);
    t.stop_at = 21;
    timer_close(end);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.accepted, 21);
    loop_free(t.loop);
}

static void accepted_streams_do_not_wait_to_fill_packets(void **state) {
    (void)state;
    Loop *loop = loop_new();
    Test t = {.loop = loop, .stop_at = 10};
    Err err = {0};
    Listener *listener = listen_tcp(loop, NULL, 0, accepted, &t, &err);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)listener_port(listener))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 0;
    socklen_t length = sizeof on;
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    Stream *stream =
        stream_connect_tcp(loop, "127.0.0.1", listener_port(listener), 0, &silent, &t);
    Timer *end = timer_start(loop, 5, 0, stop, loop);
    loop_run(loop);
    timer_close(end);
    assert_int_equal(getsockopt(stream_fd(stream), IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    assert_int_equal(on, 1);
    close(fd);
    loop_free(loop);
}

/* ---- many at once ---- */

typedef struct One { /* a thousandth of the test */
    Test *test;
    Stream *stream;
    char input[8];
    size_t length;
} One;

static One ones[2 * MANY];
static size_t one_count;

static One *one_new(Test *t, Stream *stream) {
    ones[one_count] = (One){.test = t, .stream = stream};
    return &ones[one_count++];
}

static void *one_room(void *user, size_t *length) {
    One *one = user;
    *length = sizeof one->input - one->length;
    return one->input + one->length;
}

static void echo(void *user, size_t length) {
    One *one = user;
    stream_write(one->stream, one->input + one->length, length);
    one->length += length;
}

static void back(void *user, size_t length) {
    One *one = user;
    one->length += length;
    if (one->length < 4) return;
    assert_memory_equal(one->input, "ping", 4);
    if (++one->test->echoed == MANY) loop_stop(one->test->loop);
}

static void ping(void *user, const Err *failure) {
    One *one = user;
    assert_null(failure);
    stream_read(one->stream, true);
    stream_write(one->stream, "ping", 4);
}

static void serve_echo(Stream *stream, void *user) {
    static const StreamCalls calls = {.room = one_room, .got = echo};
    stream_set_calls(stream, &calls, one_new(user, stream));
    stream_read(stream, true);
}

static void a_thousand_connections_are_served_at_once(void **state) {
    (void)state;
    static const StreamCalls calls = {.connected = ping, .room = one_room, .got = back};
    Test t = {.loop = loop_new()};
    Err err = {0};
    t.listener = listen_tcp(t.loop, "127.0.0.1", 0, serve_echo, &t, &err);
    assert_non_null(t.listener);
    for (int i = 0; i < MANY; i++) {
        One *one = one_new(&t, NULL);
        one->stream = stream_connect_tcp(t.loop, "127.0.0.1", listener_port(t.listener), 10000,
                                         &calls, one);
    }
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.echoed, MANY);
    loop_free(t.loop);
}

/* ---- Unix ---- */

static void a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not(void **state) {
    (void)state;
    Test t = {.loop = loop_new(), .stop_at = 1};
    Err err = {0};
    char folder[] = "/tmp/baton-listen-XXXXXX", path[64], want[128];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/s", folder);
    Listener *first = listen_unix(t.loop, path, accepted, &t, &err);
    assert_non_null(first);
    assert_null(listen_unix(t.loop, path, accepted, &t, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    snprintf(want, sizeof want, "could not listen on unix:%s: address already in use", path);
    assert_string_equal(err.message, want);
    char moved[80];
    snprintf(moved, sizeof moved, "%s.moved", path);
    assert_int_equal(rename(path, moved), 0);
    listener_close(first); /* now as if its process had died: the file is there, nobody answers */
    assert_int_equal(rename(moved, path), 0);
    Listener *second = listen_unix(t.loop, path, accepted, &t, &err);
    assert_non_null(second);
    stream_connect_unix(t.loop, path, 1000, &silent, &t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.accepted, 1);
    listener_close(second);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_null(listen_unix(t.loop, "", accepted, &t, &err));
    assert_string_equal(err.message,
                        "'' cannot name a Unix socket: it has 0 bytes, 1 to 107 do");
    loop_free(t.loop);
    listener_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_port_is_told_at_once_with_a_way_out),
        cmocka_unit_test(a_reserved_port_is_taken_but_refuses_until_it_starts),
        cmocka_unit_test(an_address_that_is_not_ours_is_refused_with_a_hint),
        cmocka_unit_test(a_listener_may_be_closed_while_it_accepts),
        cmocka_unit_test(accepting_backs_off_when_descriptors_run_out),
        cmocka_unit_test(accepted_streams_do_not_wait_to_fill_packets),
        cmocka_unit_test(a_thousand_connections_are_served_at_once),
        cmocka_unit_test(a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
