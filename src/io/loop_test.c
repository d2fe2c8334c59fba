// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "loop_test.h"
#include <cmocka.h>

typedef struct Test {
    Loop *loop;
    Timer *timers[3];
    int fired[3];
    int count;
    int fd;
    void *thing;
} Test;

static void stop(void *user) { loop_stop(((Test *)user)->loop); }
static void count(void *user) { ((Test *)user)->count++; }

static void timers_fire_in_the_order_of_their_times(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Timer *late = timer_start(t.loop, 30, 0, stop, &t),
          *soon = timer_start(t.loop, 5, 0, count, &t);
    Timer *often = timer_start(t.loop, 3, 3, count, &t);
    Timer *never = timer_start(t.loop, TIMER_NEVER, 0, loop_give_up, NULL);
    int64_t began = clock_mono_us();
    loop_run_until_stopped(t.loop);
    assert_in_range(clock_mono_us() - began, 29000, 5000000);
    assert_in_range(t.count, 2, 11); /* on a busy machine `often` is less often */
    timer_close(late);
    timer_close(soon);
    timer_close(often);
    timer_close(never);
    loop_free(t.loop);
}

static void a_timer_may_be_set_anew_or_silenced(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Timer *silent = timer_start(t.loop, 1, 0, loop_give_up, NULL), *end;
    timer_again(silent, TIMER_NEVER);
    end = timer_start(t.loop, TIMER_NEVER, 0, stop, &t);
    timer_again(end, 2);
    loop_run_until_stopped(t.loop);
    timer_again(end, 1); /* once more */
    loop_run_until_stopped(t.loop);
    loop_free(t.loop); /* closes both */
}

static void close_all_three(void *user) {
    Test *t = user;
    for (int i = 0; i < 3; i++) timer_close(t->timers[i]);
    t->count++;
}

static void a_callback_may_close_its_own_timer_and_others(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    for (int i = 0; i < 3; i++) t.timers[i] = timer_start(t.loop, 1, 1, close_all_three, &t);
    timer_start(t.loop, 20, 0, stop, &t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.count, 1); /* the other two were due in the same round */
    loop_free(t.loop);
}

static void stopping_before_the_run_ends_it_at_once(void **state) {
    (void)state;
    Loop *loop = loop_new();
    loop_stop(loop);
    loop_run_until_stopped(loop);
    loop_free(loop);
}

static void *stop_from_thread(void *user) {
    stop(user);
    return NULL;
}

static void another_thread_may_stop_the_loop(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    pthread_t thread;
    pthread_create(&thread, NULL, stop_from_thread, &t);
    loop_run_until_stopped(t.loop);
    pthread_join(thread, NULL);
    loop_free(t.loop);
}

static void raise_it(void *user) {
    (void)user;
    raise(SIGUSR1);
}

static void a_signal_is_caught_on_the_loop(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Signal *signal = signal_watch(t.loop, SIGUSR1, stop, &t);
    timer_start(t.loop, 0, 0, raise_it, NULL);
    loop_run_until_stopped(t.loop);
    signal_close(signal);
    loop_free(t.loop);
}

static void read_one(void *user) {
    Test *t = user;
    char c;
    ssize_t n = read(t->fd, &c, 1);
    if (n == 1) t->count++;
    if (n == 0) loop_stop(t->loop);
}

static void a_descriptor_is_waited_for_until_its_end(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    t.fd = ends[0];
    Poll *poll = poll_open(t.loop, t.fd, read_one, &t);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    close(ends[1]);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.count, 3);
    poll_close(poll);
    close(ends[0]); /* ours still */
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_null(poll_open(t.loop, file, read_one, &t)); /* files are always ready */
    close(file);
    loop_free(t.loop);
}

static void touch_in(void *user) {
    Test *t = user;
    char path[64];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%d", (const char *)t->thing, i);
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
}

static void changed(void *user) {
    count(user);
    stop(user);
}

static void a_folder_that_changes_is_told_once_for_many_changes(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    char folder[] = "/tmp/baton-watch-XXXXXX", path[64];
    t.thing = mkdtemp(folder);
    Err err = {0};
    Watch *watch = watch_open(t.loop, folder, changed, &t, &err);
    assert_non_null(watch);
    timer_start(t.loop, 0, 0, touch_in, &t);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.count, 1);
    watch_close(watch);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%d", folder, i);
        unlink(path);
    }
    rmdir(folder);
    assert_null(watch_open(t.loop, folder, changed, &t, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "could not watch '/tmp/baton-watch-"));
    assert_non_null(strstr(err.message, ": no such file or directory"));
    loop_free(t.loop);
}

static void freeing_the_loop_closes_what_is_open(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Err err = {0};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    timer_start(t.loop, 1, 1, count, &t);
    signal_watch(t.loop, SIGUSR1, count, &t);
    poll_open(t.loop, ends[0], count, &t);
    assert_non_null(watch_open(t.loop, "/tmp", count, &t, &err));
    mailbox_on(t.loop, NULL, NULL);
    assert_non_null(listen_tcp(t.loop, "127.0.0.1", 0, NULL, NULL, &err));
    static const StreamCalls silent = {0};
    stream_connect_tcp(t.loop, "127.0.0.1", 1, 1000, &silent, NULL);
    stream_connect_tcp(t.loop, "localhost", 1, 1000, &silent, NULL);
    stream_connect_unix(t.loop, "@nobody", 1000, &silent, NULL);
    loop_free(t.loop);
    assert_int_equal(t.count, 0);
    close(ends[0]);
    close(ends[1]);
    loop_free(NULL);
    timer_close(NULL);
    signal_close(NULL);
    poll_close(NULL);
    watch_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_the_order_of_their_times),
        cmocka_unit_test(a_timer_may_be_set_anew_or_silenced),
        cmocka_unit_test(a_callback_may_close_its_own_timer_and_others),
        cmocka_unit_test(stopping_before_the_run_ends_it_at_once),
        cmocka_unit_test(another_thread_may_stop_the_loop),
        cmocka_unit_test(a_signal_is_caught_on_the_loop),
        cmocka_unit_test(a_descriptor_is_waited_for_until_its_end),
        cmocka_unit_test(a_folder_that_changes_is_told_once_for_many_changes),
        cmocka_unit_test(freeing_the_loop_closes_what_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
