// SPDX-License-Identifier: Apache-2.0
/* team.h - a team of threads that run one function together.
 *
 * team_run() calls work(user, me) on every member, the caller being member 0, and returns when all
 * have returned.  Inside, team_meet() is a barrier, and team_next() deals out tasks of a phase, one
 * after another. Waiting spins for a few microseconds (a phase is short) and then sleeps in the
 * kernel, so that a team does not crawl when another process has taken one of its cores. Thread:
 * one caller at a time. */
#ifndef BATON_TENSOR_TEAM_H
#define BATON_TENSOR_TEAM_H

#include "base/base.h"

typedef struct Team Team;
Team *team_new(unsigned size, Err *err) MUST_CHECK; /* 1..64 */
void team_free(Team *team);
unsigned team_size(const Team *team);
void team_run(Team *team, void (*work)(void *user, unsigned me), void *user);
void team_meet(
    Team *team); /* all members; what they wrote before is seen after; starts a new deal of tasks */
size_t team_next(Team *team); /* 0, 1, 2, ... each to one member; again from 0 after team_meet() */

#endif
