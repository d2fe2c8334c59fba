// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "loop_test.h"
#include <cmocka.h>

#define SELF "/proc/self/exe"

typedef struct Test {
    Loop *loop;
    int64_t status;
    int signal, exits;
    Child *child;
    int greetings, farewells, pid;
    char input[64];
} Test;

static void exited(void *user, int64_t status, int signal) {
    Test *t = user;
    t->status = status;
    t->signal = signal;
    t->exits++;
    loop_stop(t->loop);
}

static Child *spawn(Test *t, const char *const *argv, const char *const *env, const char *log) {
    Err err = {0};
    ChildConf conf = {.argv = argv, .env_add = env, .log_path = log, .exited = exited, .user = t};
    Child *child = child_spawn(t->loop, &conf, &err);
    assert_string_equal(err.message, "");
    assert_non_null(child);
    return child;
}

static void a_child_tells_its_exit_code(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    for (int code = 0; code < 3; code++) {
        char command[32];
        snprintf(command, sizeof command, "exit %d", code);
        Child *child = spawn(&t, (const char *[]){"/bin/sh", "-c", command, NULL}, NULL, NULL);
        loop_run_until_stopped(t.loop);
        assert_int_equal(t.status, code);
        assert_int_equal(t.signal, 0);
        child_kill(child, SIGKILL); /* has exited: nothing, and nobody else is hit */
        child_close(child);
    }
    assert_int_equal(t.exits, 3);
    loop_free(t.loop);
}

static void a_child_that_is_killed_tells_the_signal(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Child *child = spawn(&t, (const char *[]){"/bin/sleep", "100", NULL}, NULL, NULL);
    assert_true(child_pid(child) > 0);
    child_kill(child, SIGKILL);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.signal, SIGKILL);
    child_close(child);
    loop_free(t.loop);
}

static void a_program_that_is_not_there_is_named(void **state) {
    (void)state;
    Loop *loop = loop_new();
    Err err = {0};
    ChildConf conf = {.argv = (const char *[]){"/no/such/program", NULL}};
    assert_null(child_spawn(loop, &conf, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.message,
                        "could not start '/no/such/program': no such file or directory");
    conf = (ChildConf){.argv = (const char *[]){"/bin/true", NULL}, .log_path = "/no/such/log"};
    assert_null(child_spawn(loop, &conf, &err));
    assert_string_equal(err.message,
                        "could not open the log '/no/such/log': no such file or directory");
    loop_free(loop);
}

static void its_log_and_environment_are_what_was_asked_for(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    char log[] = "/tmp/baton-child-XXXXXX", want[64];
    close(mkstemp(log));
    setenv("CHILD_TEST", "old", 1);
    const char *env[] = {"CHILD_TEST=new", "CHILD_TEST_2=two", NULL};
    const char *command = "read line; echo $CHILD_TEST $CHILD_TEST_2 $BATON_PARENT; echo x >&2";
    for (int i = 0; i < 2; i++) {
        Child *child = spawn(&t, (const char *[]){"/bin/sh", "-c", command, NULL}, env, log);
        loop_run_until_stopped(t.loop);
        child_close(child);
    }
    Err err = {0};
    size_t length;
    auto_free char *text = file_read(log, 1000, &length, &err);
    char once[32];
    snprintf(once, sizeof once, "new two %d\nx\n", (int)getpid());
    snprintf(want, sizeof want, "%s%s", once, once); /* appended */
    assert_string_equal(text, want);
    unlink(log);
    loop_free(t.loop);
}

static void poll_for_end(void *user) {
    Test *t = user;
    if (kill(t->pid, 0) != 0) loop_stop(t->loop);
}

static void a_forgotten_child_runs_on_and_leaves_no_zombie(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Child *child = spawn(&t, (const char *[]){"/bin/sleep", "0.05", NULL}, NULL, NULL);
    t.pid = child_pid(child);
    child_close(child);
    assert_int_equal(kill(t.pid, 0), 0);
    timer_start(t.loop, 5, 5, poll_for_end, &t); /* a zombie would still have its number */
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.exits, 0);
    loop_free(t.loop);
}

/* ---- a parent that is killed: test -> parent -> child, which holds a connection to the test ----
 */

static void *room(void *user, size_t *length) {
    Test *t = user;
    *length = sizeof t->input;
    return t->input;
}

static void got(void *user, size_t length) {
    Test *t = user;
    (void)length;
    t->greetings++;
    kill(t->pid, SIGKILL);
}

static void gone(void *user, const Err *why) {
    Test *t = user;
    (void)why;
    t->farewells++;
    loop_stop(t->loop);
}

static void accept_child(Stream *stream, void *user) {
    static const StreamCalls calls = {.room = room, .got = got, .gone = gone};
    stream_set_calls(stream, &calls, user);
    stream_read(stream, true);
}

static void a_child_ends_when_its_parent_is_killed(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    Err err = {0};
    char name[64];
    snprintf(name, sizeof name, "@baton-child-test-%d", (int)getpid());
    Listener *listener = listen_unix(t.loop, name, accept_child, &t, &err);
    assert_non_null(listener);
    Child *parent = spawn(&t, (const char *[]){SELF, "parent", name, NULL}, NULL, NULL);
    t.pid = child_pid(parent);
    while (!t.farewells || !t.exits) loop_run_until_stopped(t.loop);
    assert_int_equal(t.greetings, 1);
    assert_int_equal(t.signal, SIGKILL);
    loop_free(t.loop);
}

static void a_child_whose_parent_is_dead_already_ends(void **state) {
    (void)state;
    Test t = {.loop = loop_new()};
    const char *env[] = {"BATON_PARENT=1", NULL}; /* not our number: as if adopted since */
    Child *child = spawn(&t, (const char *[]){SELF, "follow", NULL}, env, NULL);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.signal, SIGTERM);
    child_close(child);
    child = spawn(&t, (const char *[]){SELF, "follow", NULL}, NULL, NULL);
    loop_run_until_stopped(t.loop);
    assert_int_equal(t.signal, 0);
    assert_int_equal(t.status, 7);
    child_close(child);
    loop_free(t.loop);
}

/* ---- what the test program does as a child ---- */

static void greet(void *user, const Err *failure) {
    if (failure) exit(3);
    stream_write(*(Stream **)user, "hello", 5);
}

static void act_as_child(const char *name) {
    child_follow_parent();
    static const StreamCalls calls = {.connected = greet};
    static Stream *stream;
    Loop *loop = loop_new();
    stream = stream_connect_unix(loop, name, 0, &calls, &stream);
    loop_run(loop); /* until SIGTERM */
}

static void act_as_parent(const char *name) {
    Loop *loop = loop_new();
    Err err = {0};
    ChildConf conf = {.argv = (const char *[]){SELF, "child", name, NULL}};
    if (!child_spawn(loop, &conf, &err)) exit(4);
    loop_run(loop); /* until SIGKILL */
}

static int act_as_follower(void) {
    child_follow_parent();
    return getenv("BATON_PARENT") ? 8 : 7;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "parent")) act_as_parent(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "child")) act_as_child(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "follow")) return act_as_follower();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_tells_its_exit_code),
        cmocka_unit_test(a_child_that_is_killed_tells_the_signal),
        cmocka_unit_test(a_program_that_is_not_there_is_named),
        cmocka_unit_test(its_log_and_environment_are_what_was_asked_for),
        cmocka_unit_test(a_forgotten_child_runs_on_and_leaves_no_zombie),
        cmocka_unit_test(a_child_ends_when_its_parent_is_killed),
        cmocka_unit_test(a_child_whose_parent_is_dead_already_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
