// SPDX-License-Identifier: Apache-2.0
/* fault.h - named places where a test makes the world fail: the n-th allocation, read, connect.
 *
 * Armed by BATON_FAULT="name=n[,name=n]" (fail the n-th pass, counted from 1; "name=n+" every one
 * from the n-th on) or by fault_arm() in a test.  Unarmed, a pass costs one relaxed load. */
#ifndef BATON_BASE_FAULT_H
#define BATON_BASE_FAULT_H

extern _Atomic int fault_armed_count;
bool fault_hit_slow(const char *name);

static inline bool fault_hit(const char *name) {
    return atomic_load_explicit(&fault_armed_count, memory_order_relaxed) != 0 &&
           fault_hit_slow(name);
}

void fault_arm(const char *name, unsigned nth, bool and_later);
void fault_disarm_all(void);
bool fault_arm_from_env(void); /* reads BATON_FAULT; false if it cannot be understood */

#endif
