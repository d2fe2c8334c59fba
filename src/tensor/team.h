// SPDX-License-Identifier: Apache-2.0
/* team.h - a team of threads that share out the tasks of one phase after another.
 *
 * team_run() calls work(user, me, task) once for every task 0..tasks-1, the caller being member 0,
 * and returns when all are done.  The caller never waits for a member, only for tasks that a member
 * has begun: one that the system does not let run (another process has its core) leaves its share
 * to the others instead of holding everybody up. Waiting spins for some microseconds (a phase is
 * short) and then sleeps in the kernel. Thread: one caller at a time. */
#ifndef BATON_TENSOR_TEAM_H
#define BATON_TENSOR_TEAM_H

#include "base/base.h"

typedef struct Team Team;
typedef void TeamWork(void *user, unsigned me, size_t task);

Team *team_new(unsigned size, Err *err) MUST_CHECK; /* 1..64 */
void team_free(Team *team);
unsigned team_size(const Team *team);
void team_run(Team *team, TeamWork *work, void *user, size_t tasks); /* fewer than 2^20 */

#endif
