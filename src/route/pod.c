// SPDX-License-Identifier: Apache-2.0
#include "pod.h"

#include <stdlib.h>

RoutePod *route_pod_new(const char *full, const char *host, const char *identity) {
    RoutePod *pod = mem_new(sizeof *pod);
    pod->refs = 1;
    pod->full = mem_dup_str(full);
    const char *slash = strchr(pod->full, '/');
    pod->name = slash ? slash + 1 : pod->full;
    pod->host = mem_dup_str(host);
    pod->identity = mem_dup_str(identity);
    pod->prefixes.limit = LIMIT_PREFIXES;
    return pod;
}

RoutePod *route_pod_ref(RoutePod *pod) {
    pod->refs++;
    return pod;
}

void route_pod_unref(RoutePod *pod) {
    if (!pod || --pod->refs > 0) return;
    assert(pod->in_flight == 0 && pod->expected == 0);
    route_prefix_done(&pod->prefixes);
    free(pod->full);
    free(pod->host);
    free(pod->identity);
    free(pod);
}

bool route_pod_rests(const RoutePod *pod, int64_t now_us) {
    return pod->failures > 0 && (now_us < pod->rests_until_us || pod->trying);
}

void route_pod_begin(RoutePod *pod) {
    pod->in_flight++;
    if (pod->failures > 0) pod->trying = true;
}

static int64_t rest_us(uint32_t failures) {
    int64_t us = POD_REST_US;
    while (--failures > 0 && us < POD_REST_MOST_US) us *= 2;
    return us < POD_REST_MOST_US ? us : POD_REST_MOST_US;
}

void route_pod_end(RoutePod *pod, RoutePodEnd end, const char *why, int64_t now_us) {
    assert(pod->in_flight > 0);
    pod->in_flight--;
    pod->trying = false;
    if (end == POD_FAILED) {
        pod->failed++;
        pod->failures++;
        int64_t us = rest_us(pod->failures);
        pod->rests_until_us = now_us + us;
        log_warn("route: pod %s failed and rests for %lld ms (%u in a row): %s", pod->full,
                 (long long)us / 1000, pod->failures, why);
    } else if (end == POD_ANSWERED) {
        if (pod->failures > 0) log_info("route: pod %s answers again", pod->full);
        pod->answered++;
        pod->failures = 0;
    }
}
