// SPDX-License-Identifier: Apache-2.0
/* Two engines in two processes, of which one is killed or stopped at any moment of a transfer. */
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "engine_test.h"

extern char **environ;

#define TOKENS (16 * 4000) /* 8 MiB: some milliseconds */
#define BLOCKS 4100
static const KvRail rails[] = {KV_RAIL_SHM, KV_RAIL_TCP};

static int64_t in_ms(int64_t ms) { return clock_mono_us() + ms * 1000; }

/* Waits without a signal or an event to wait for: the moment is the point here. */
static void let_pass(int64_t us) {
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static uint64_t random_state = 1;
static int64_t random_below(int64_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(random_state >> 33) % below;
}

/* ---- the other process ---- */

typedef struct Child {
    pid_t pid;
    FILE *to, *from;
} Child;

/* owner ID: offers prompt 3 as "req" and "req-2", prints "PORT EPOCH", lives until stdin ends. */
static int owner_main(const char *id) {
    Engine engine;
    engine_open(&engine, (EngineConf){.id = id, .blocks = 2 * BLOCKS});
    engine_offer(&engine, "req", 3, TOKENS, in_ms(60000));
    engine_offer(&engine, "req-2", 3, TOKENS, in_ms(60000));
    printf("%d %llu\n", kv_agent_port(engine.agent),
           (unsigned long long)kv_agent_epoch(engine.agent));
    fflush(stdout);
    while (getchar() != EOF) {}
    _exit(0);
}

/* reader ID RAIL PORT: reads a line, then pulls "req" from there. */
static int reader_main(const char *id, const char *rail, const char *port) {
    Engine engine, owner = {.shape = engine_shape};
    Plan plan;
    KvRail way;
    snprintf(owner.id, sizeof owner.id, "%s", id);
    if (!kv_rail_from(rail, &way)) return 2;
    engine_open(&engine, (EngineConf){.rail = way, .blocks = BLOCKS});
    plan_init(&plan, &engine, &owner, "req", 3, TOKENS, 0);
    plan.pull.peer_port = (int)strtol(port, NULL, 10);
    printf("ready\n");
    fflush(stdout);
    getchar();
    KvPullResult result = engine_pull(&plan);
    _exit(result.ok && plan_arrived(&plan) ? 0 : 3);
}

static void child_start(Child *child, const char *const *argv) {
    int in[2], out[2];
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    for (int i = 0; i < 2; i++) {
        posix_spawn_file_actions_addclose(&actions, in[i]);
        posix_spawn_file_actions_addclose(&actions, out[i]);
    }
    assert_int_equal(
        posix_spawn(&child->pid, argv[0], &actions, NULL, (char *const *)argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    child->to = fdopen(in[1], "w");
    child->from = fdopen(out[0], "r");
}

static int child_end(Child *child, int with_signal) {
    int status;
    if (with_signal) kill(child->pid, with_signal);
    fclose(child->to);
    fclose(child->from);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    return status;
}

static void owner_start(Child *child, const char *id, int *port, uint64_t *epoch) {
    unsigned long long number;
    child_start(child, (const char *const[]){"/proc/self/exe", "owner", id, NULL});
    assert_int_equal(fscanf(child->from, "%d %llu", port, &number), 2);
    *epoch = number;
}

/* Mappings of a pool in this process. */
static unsigned pools_mapped(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned count = 0;
    while (fgets(line, sizeof line, maps)) count += strstr(line, "memfd:baton-kv") != NULL;
    fclose(maps);
    return count;
}

/* ---- the owner dies ---- */

static void pull_from_child(Plan *plan, Engine *decode, Engine *owner, int port, uint64_t epoch,
                            const char *request, int64_t within_ms) {
    plan_init(plan, decode, owner, request, 3, TOKENS, 0);
    plan->pull.peer_port = port;
    plan->pull.peer_epoch = epoch;
    plan->pull.deadline_us = in_ms(within_ms);
}

static void assert_ended_well(const Plan *plan, const KvPullResult *result) {
    if (result->ok) assert_true(plan_arrived(plan));
    else assert_true(result->err.message[0] && result->err.hint[0]);
    assert_true(clock_mono_us() < plan->pull.deadline_us + 2000000);
}

static void an_owner_killed_at_any_moment_is_an_error_and_its_successor_serves(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine decode, owner = {.shape = engine_shape, .id = "kill-test-owner"};
        unsigned failed = 0;
        engine_open(&decode, (EngineConf){.rail = rails[r], .blocks = BLOCKS});
        for (int round = 0; round < 12; round++) {
            Child child;
            Plan plan;
            int port;
            uint64_t epoch;
            owner_start(&child, owner.id, &port, &epoch);
            if (round % 2) { /* over a connection that is there already */
                pull_from_child(&plan, &decode, &owner, port, epoch, "req-2", 10000);
                KvPullResult first = engine_pull(&plan);
                if (!first.ok) fail_msg("round %d: %s", round, first.err.message);
                assert_true(plan_arrived(&plan));
                plan_done(&plan);
            }
            pull_from_child(&plan, &decode, &owner, port, epoch, "req", 5000);
            kv_agent_pull(decode.agent, &plan.pull);
            let_pass(random_below(round < 2 ? 1 : 6000));
            child_end(&child, SIGKILL);
            KvPullResult result = engine_result(&decode);
            assert_ended_well(&plan, &result);
            failed += !result.ok;
            plan_done(&plan);
        }
        print_message("%s: %u of 12 pulls failed\n", kv_rail_name(rails[r]), failed);
        assert_true(failed > 0);
        for (int i = 0; i < 200 && pools_mapped() > 1; i++) let_pass(10000);
        assert_int_equal(pools_mapped(), 1); /* ours: nothing of the dead is held */
        engine_close(&decode);
    }
}

static void an_owner_that_is_stopped_costs_no_more_than_the_deadline(void **state) {
    (void)state;
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Engine decode, owner = {.shape = engine_shape, .id = "stop-test-owner"};
        engine_open(&decode, (EngineConf){.rail = rails[r], .blocks = BLOCKS});
        for (int round = 0; round < 8; round++) {
            Child child;
            Plan plan;
            int port;
            uint64_t epoch;
            owner_start(&child, owner.id, &port, &epoch);
            pull_from_child(&plan, &decode, &owner, port, epoch, "req", 200);
            if (round == 0) kill(child.pid, SIGSTOP);
            kv_agent_pull(decode.agent, &plan.pull);
            let_pass(random_below(5000));
            kill(child.pid, SIGSTOP);
            if (round % 2) { /* and it wakes up again, too late or in time */
                let_pass(random_below(400000));
                kill(child.pid, SIGCONT);
            }
            KvPullResult result = engine_result(&decode);
            assert_ended_well(&plan, &result);
            if (round == 0) {
                assert_false(result.ok);
                assert_int_equal(result.err.code, ERR_DEADLINE);
                assert_like(result.err.message, "*: waited for a hello over * until the deadline*");
            }
            plan_done(&plan);
            child_end(&child, SIGKILL);
        }
        engine_close(&decode);
    }
}

/* ---- the reader dies ---- */

static void a_reader_killed_or_stopped_at_any_moment_gives_the_blocks_back(void **state) {
    (void)state;
    Engine owner;
    engine_open(&owner, (EngineConf){.blocks = BLOCKS, .lease_us = 100000});
    for (int round = 0; round < 12; round++) {
        Child child;
        char port[16];
        snprintf(port, sizeof port, "%d", kv_agent_port(owner.agent));
        child_start(&child,
                    (const char *const[]){"/proc/self/exe", "reader", owner.id,
                                          kv_rail_name(rails[round % 2]), port, NULL});
        assert_int_equal(fgetc(child.from), 'r');
        KvLease lease = engine_offer(&owner, "req", 3, TOKENS, in_ms(200));
        fputc('\n', child.to);
        fflush(child.to);
        let_pass(random_below(12000));
        kill(child.pid, round % 4 < 2 ? SIGKILL : SIGSTOP);
        int64_t begin = clock_mono_us();
        Event event = engine_wait(&owner);
        assert_int_equal(event.kind, EVENT_ENDED);
        assert_int_equal(event.lease, lease);
        assert_true(clock_mono_us() - begin < (LIMIT_KV_DRAIN_MS + 2000) * 1000);
        child_end(&child, SIGKILL);
    }
    engine_close(&owner);
}

static void a_reader_that_is_left_alone_gets_it_all(void **state) {
    (void)state;
    Engine owner;
    engine_open(&owner, (EngineConf){.blocks = BLOCKS, .lease_us = 100000});
    for (size_t r = 0; r < COUNT_OF(rails); r++) {
        Child child;
        char port[16];
        snprintf(port, sizeof port, "%d", kv_agent_port(owner.agent));
        child_start(&child, (const char *const[]){"/proc/self/exe", "reader", owner.id,
                                                  kv_rail_name(rails[r]), port, NULL});
        assert_int_equal(fgetc(child.from), 'r');
        KvLease lease = engine_offer(&owner, "req", 3, TOKENS, in_ms(10000));
        fputc('\n', child.to);
        fflush(child.to);
        assert_ended(&owner, lease, KV_END_RELEASED);
        int status = child_end(&child, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    engine_close(&owner);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "owner")) return owner_main(argv[2]);
    if (argc == 5 && !strcmp(argv[1], "reader")) return reader_main(argv[2], argv[3], argv[4]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_that_is_left_alone_gets_it_all),
        cmocka_unit_test(an_owner_killed_at_any_moment_is_an_error_and_its_successor_serves),
        cmocka_unit_test(an_owner_that_is_stopped_costs_no_more_than_the_deadline),
        cmocka_unit_test(a_reader_killed_or_stopped_at_any_moment_gives_the_blocks_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
