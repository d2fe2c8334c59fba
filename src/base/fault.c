// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <stdio.h>
#include <stdlib.h>

#define FAULTS 8

/* Written by fault_arm() before the threads under test start; only `passes` changes afterwards. */
static struct {
    char name[32];
    unsigned nth;
    bool and_later;
    _Atomic unsigned passes;
} faults[FAULTS];
_Atomic int fault_armed_count;

bool fault_hit_slow(const char *name) {
    for (int i = 0; i < atomic_load(&fault_armed_count); i++) {
        if (strcmp(faults[i].name, name) != 0) continue;
        unsigned pass = atomic_fetch_add(&faults[i].passes, 1) + 1;
        return pass == faults[i].nth || (faults[i].and_later && pass > faults[i].nth);
    }
    return false;
}

void fault_arm(const char *name, unsigned nth, bool and_later) {
    int i = atomic_load(&fault_armed_count);
    assert(i < FAULTS && strlen(name) < sizeof faults[0].name);
    snprintf(faults[i].name, sizeof faults[i].name, "%s", name);
    faults[i].nth = nth;
    faults[i].and_later = and_later;
    atomic_store(&faults[i].passes, 0);
    atomic_store(&fault_armed_count, i + 1);
}

void fault_disarm_all(void) { atomic_store(&fault_armed_count, 0); }

bool fault_arm_from_env(void) {
    const char *at = getenv("BATON_FAULT");
    while (at && *at) {
        char name[32], plus = 0;
        unsigned nth;
        int used = 0;
        if (sscanf(at, "%31[^=]=%u%n", name, &nth, &used) != 2 || !used) return false;
        at += used;
        if (*at == '+') plus = *at++;
        if (*at == ',') at++;
        else if (*at) return false;
        if (atomic_load(&fault_armed_count) == FAULTS) return false;
        fault_arm(name, nth, plus == '+');
    }
    return true;
}
