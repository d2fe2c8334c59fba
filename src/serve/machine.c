// SPDX-License-Identifier: Apache-2.0
#include "conf.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

unsigned serve_cpus_of_quota(const char *cpu_max, unsigned cpus) {
    char *end;
    double quota = strtod(cpu_max, &end), period = strtod(end, NULL);
    if (end == cpu_max || quota <= 0 || period <= 0) return cpus; /* "max 100000" */
    unsigned whole = (unsigned)(quota / period);
    if (whole * period < quota) whole++;
    return whole < cpus ? whole : cpus;
}

static unsigned by_affinity(void) {
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    if (count <= 0) count = (int)sysconf(_SC_NPROCESSORS_ONLN); /* over 1024 of them */
    return count > 0 ? (unsigned)count : 1;
}

static unsigned by_file(const char *path, unsigned cpus) {
    Err err = {0};
    size_t length;
    auto_free char *text = file_read(path, 4 * KIB, &length, &err);
    return text ? serve_cpus_of_quota(text, cpus) : cpus;
}

/* The group of this process and all those around it may have a quota. */
unsigned serve_cpus(void) {
    unsigned cpus = by_affinity();
    Err err = {0};
    size_t length;
    auto_free char *groups = file_read("/proc/self/cgroup", 64 * KIB, &length, &err);
    Str rest = {groups, groups ? length : 0}, line;
    cpus = by_file("/sys/fs/cgroup/cpu.max", cpus);
    while (groups && str_cut(&rest, '\n', &line)) {
        if (!str_starts(line, "0::/")) continue;
        for (size_t end = line.length; end > 4; end--) {
            if (end < line.length && line.at[end] != '/') continue;
            auto_buf Buf path = {0};
            buf_printf(&path, "/sys/fs/cgroup%.*s/cpu.max", (int)end - 3, line.at + 3);
            cpus = by_file(path.at, cpus);
        }
    }
    return cpus;
}

bool serve_wildcard(const char *host) {
    return !host || !*host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::") ||
           !strcmp(host, "[::]") || !strcmp(host, "*");
}

/* Connecting a UDP socket sends nothing, but the kernel picks the route. */
bool serve_own_address(char out[64]) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)}, own = {0};
    socklen_t length = sizeof own;
    auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, "192.0.2.1", &to.sin_addr) != 1 ||
        connect(fd, (const struct sockaddr *)&to, sizeof to) != 0 ||
        getsockname(fd, (struct sockaddr *)&own, &length) != 0)
        return false;
    return inet_ntop(AF_INET, &own.sin_addr, out, 64) != NULL;
}
