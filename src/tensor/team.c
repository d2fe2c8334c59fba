// SPDX-License-Identifier: Apache-2.0
#include "team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 20 us: longer than any phase's end is uneven, shorter than a scheduler's time slice. */
#define SPINS 2000
#define MEMBERS_MAX 64

struct Team {
    unsigned size;
    void (*work)(void *user, unsigned me);
    void *user;
    bool ending;
    pthread_t threads[MEMBERS_MAX];
    /* Each on its own cache line: they are what the members contend for. */
    _Alignas(64) _Atomic uint32_t round; /* a change starts team_run()'s work */
    _Alignas(64) _Atomic uint32_t arrived;
    _Alignas(64) _Atomic uint32_t meetings; /* a change ends a meeting */
    _Alignas(64) _Atomic size_t task;
    _Alignas(64) _Atomic uint32_t sleepers;
};

typedef struct Member { Team *team; unsigned me; } Member;

/* Waits until *word is no longer `old`: spins, then sleeps. */
static void wait_change(Team *team, _Atomic uint32_t *word, uint32_t old) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(word) == old)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&team->sleepers, 1);
}

static void change(Team *team, _Atomic uint32_t *word) {
    atomic_fetch_add(word, 1);
    if (atomic_load(&team->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void team_meet(Team *team) {
    uint32_t meeting = atomic_load(&team->meetings);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->size) {
        atomic_store(&team->arrived, 0);
        atomic_store(&team->task, 0);
        change(team, &team->meetings);
    } else {
        wait_change(team, &team->meetings, meeting);
    }
}

size_t team_next(Team *team) {
    return atomic_fetch_add_explicit(&team->task, 1, memory_order_relaxed);
}

static void *member(void *argument) {
    Member m = *(Member *)argument;
    free(argument);
    uint32_t seen = 0;
    for (;;) {
        wait_change(m.team, &m.team->round, seen);
        seen = atomic_load(&m.team->round);
        if (m.team->ending) return NULL;
        m.team->work(m.team->user, m.me);
        team_meet(m.team);
    }
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
    change(team, &team->round);
    for (unsigned i = 1; i < team->size; i++) pthread_join(team->threads[i], NULL);
    free(team);
}

unsigned team_size(const Team *team) { return team->size; }

void team_run(Team *team, void (*work)(void *user, unsigned me), void *user) {
    team->work = work;
    team->user = user;
    atomic_store(&team->task, 0);
    if (team->size > 1) change(team, &team->round);
    work(user, 0);
    if (team->size > 1) team_meet(team);
}
