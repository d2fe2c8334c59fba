// SPDX-License-Identifier: Apache-2.0
/* loop_test.h - for tests: runs a loop until it is stopped, for a while, or until something holds.
 *
 * A test that takes longer than 20 s has failed. */
#ifndef BATON_IO_LOOP_TEST_H
#define BATON_IO_LOOP_TEST_H

#include <setjmp.h>

#include "io.h"
#include <cmocka.h>

#define LOOP_PATIENCE_MS 20000

static inline void loop_give_up(void *user) {
    (void)user;
    fail_msg("the loop did not stop within %d ms", LOOP_PATIENCE_MS);
}

static inline void loop_run_until_stopped(Loop *loop) {
    Timer *limit = timer_start(loop, LOOP_PATIENCE_MS, 0, loop_give_up, NULL);
    loop_run(loop);
    timer_close(limit);
}

static inline void loop_stop_late(void *loop) { loop_stop(loop); }
static inline void loop_run_for(Loop *loop, uint64_t ms) {
    Timer *end = timer_start(loop, ms, 0, loop_stop_late, loop);
    loop_run(loop);
    timer_close(end);
}

#define LOOP_WAIT_FOR(loop, condition)                                            \
    do {                                                                          \
        int64_t limit_ = clock_mono_us() + LOOP_PATIENCE_MS * 1000LL;             \
        while (!(condition)) {                                                    \
            if (clock_mono_us() > limit_) fail_msg("never came: %s", #condition); \
            loop_run_for(loop, 1);                                                \
        }                                                                         \
    } while (0)

#endif
