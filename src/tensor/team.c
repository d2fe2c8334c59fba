// SPDX-License-Identifier: Apache-2.0
#include "team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 20 us: longer than the caller's own work between two phases, shorter than a time slice. */
#define SPINS 2000
#define MEMBERS_MAX 64

/* The phase is one word, so that a member that slept through several of them cannot mix two up:
 *
 *     phase number : 24 | tasks : 20 | next task : 20
 *
 * Taking a task is adding 1.  What was there before says whether it was one: next < tasks.  Then
 * the phase cannot end before the task is done, and `work` and `user` are its own. */
#define FIELD 20
#define FIELD_MASK (((uint64_t)1 << FIELD) - 1)

struct Team {
    unsigned size;
    _Atomic bool ending;
    pthread_t threads[MEMBERS_MAX];
    TeamWork *work; /* of the phase */
    void *user;
    /* Each on its own cache line: they are what the members contend for. */
    _Alignas(64) _Atomic uint64_t phase;
    _Alignas(64) _Atomic uint32_t done;   /* tasks of the phase */
    _Alignas(64) _Atomic uint32_t rounds; /* what idle members sleep on: changes with every phase */
    _Alignas(64) _Atomic uint32_t idle;   /* how many of them sleep */
    _Atomic uint32_t caller_sleeps;       /* on `done` */
};

typedef struct Member { Team *team; unsigned me; } Member;

static bool has_task(uint64_t phase) {
    return (phase & FIELD_MASK) < (phase >> FIELD & FIELD_MASK);
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Does tasks until there are none left to take. */
static void help(Team *team, unsigned me) {
    while (has_task(atomic_load_explicit(&team->phase, memory_order_relaxed))) {
        uint64_t phase = atomic_fetch_add(&team->phase, 1);
        if (!has_task(phase)) return;
        team->work(team->user, me, phase & FIELD_MASK);
        atomic_fetch_add(&team->done, 1);
        if (me && atomic_load(&team->caller_sleeps)) wake_all(&team->done);
    }
}

static void wait_for_phase(Team *team) {
    for (int i = 0; i < SPINS; i++) {
        if (has_task(atomic_load_explicit(&team->phase, memory_order_relaxed))) return;
        __builtin_ia32_pause();
    }
    uint32_t rounds = atomic_load(&team->rounds);
    if (has_task(atomic_load(&team->phase)) || team->ending) return;
    atomic_fetch_add(&team->idle, 1);
    sleep_while(&team->rounds, rounds);
    atomic_fetch_sub(&team->idle, 1);
}

static void *member(void *argument) {
    Member m = *(Member *)argument;
    free(argument);
    for (;;) {
        wait_for_phase(m.team);
        if (m.team->ending) return NULL;
        help(m.team, m.me);
    }
}

static void call_members(Team *team) {
    atomic_fetch_add(&team->rounds, 1);
    if (atomic_load(&team->idle)) wake_all(&team->rounds);
}

Team *team_new(unsigned size, Err *err) {
    assert(size >= 1 && size <= MEMBERS_MAX);
    Team *team = aligned_alloc(64, (sizeof *team + 63) & ~(size_t)63);
    if (!team) abort();
    memset(team, 0, sizeof *team);
    team->size = 1;
    for (unsigned i = 1; i < size; i++, team->size++) {
        Member *m = mem_new(sizeof *m);
        *m = (Member){team, i};
        int failure =
            fault_hit("team.thread") ? EAGAIN : pthread_create(&team->threads[i], NULL, member, m);
        if (failure) {
            free(m);
            team_free(team);
            err_set(err, ERR_EXHAUSTED, "could not start thread %u of %u: %s", i + 1, size,
                    strerror(failure));
            err_hint(err, "Lower --threads, or raise the limit: ulimit -u.");
            return NULL;
        }
    }
    return team;
}

void team_free(Team *team) {
    if (!team) return;
    team->ending = true;
    call_members(team);
    for (unsigned i = 1; i < team->size; i++) pthread_join(team->threads[i], NULL);
    free(team);
}

unsigned team_size(const Team *team) { return team->size; }

static void wait_for_done(Team *team, uint32_t tasks) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&team->done) == tasks) return;
        __builtin_ia32_pause();
    }
    atomic_store(&team->caller_sleeps, 1);
    for (uint32_t done; (done = atomic_load(&team->done)) != tasks;) sleep_while(&team->done, done);
    atomic_store(&team->caller_sleeps, 0);
}

void team_run(Team *team, TeamWork *work, void *user, size_t tasks) {
    assert(tasks < FIELD_MASK - MEMBERS_MAX);
    if (team->size == 1 || tasks < 2) { /* nobody to share with, or nothing to share */
        for (size_t task = 0; task < tasks; task++) work(user, 0, task);
        return;
    }
    team->work = work;
    team->user = user;
    atomic_store(&team->done, 0);
    uint64_t number = (atomic_load(&team->phase) >> 2 * FIELD) + 1;
    atomic_store(&team->phase, number << 2 * FIELD | (uint64_t)tasks << FIELD);
    call_members(team);
    help(team, 0);
    wait_for_done(team, (uint32_t)tasks);
}
