// SPDX-License-Identifier: Apache-2.0
/* clock.h - time in microseconds: monotonic for durations and deadlines, wall clock for people. */
#ifndef BATON_BASE_CLOCK_H
#define BATON_BASE_CLOCK_H

int64_t clock_mono_us(void);
int64_t clock_wall_us(void);                            /* since 1970, UTC */
void clock_format(int64_t wall_us, char out[32]);       /* 2026-11-25T02:28:00.123456Z */
int64_t clock_cpu_us(void);                             /* of this process, all threads */

#endif
