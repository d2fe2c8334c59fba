// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <stdio.h>
#include <strings.h>
#include <unistd.h>

static _Atomic int threshold = LOG_INFO;

static const struct {
    const char *name;
    LogLevel level;
} names[] = {{"trace", LOG_DEBUG},    {"debug", LOG_DEBUG},  {"info", LOG_INFO},
             {"warn", LOG_WARN},      {"warning", LOG_WARN}, {"error", LOG_ERROR},
             {"critical", LOG_ERROR}, {"off", LOG_OFF}};

void log_set_level(LogLevel level) { atomic_store(&threshold, (int)level); }
bool log_enabled(LogLevel level) {
    return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

bool log_level_from(const char *name, LogLevel *out) {
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcasecmp(name, names[i].name)) {
            *out = names[i].level;
            return true;
        }
    return false;
}

void log_write(LogLevel level, const char *format, ...) {
    static const char *const words[] = {"debug", "info", "warning", "error"};
    char line[2048], when[32];
    clock_format(clock_wall_us(), when);
    int n = snprintf(line, sizeof line, "%s %s ", when, words[level]);
    va_list args;
    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    size_t length = (size_t)n < sizeof line - 1 ? (size_t)n : sizeof line - 2;
    for (size_t i = 0; i < length; i++) /* what a client sent must not forge a second line */
        if ((unsigned char)line[i] < ' ') line[i] = ' ';
    line[length++] = '\n';
    ssize_t written =
        write(STDERR_FILENO, line, length); /* one call, so lines of threads do not mix */
    (void)written;
}
