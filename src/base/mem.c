// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define ARENA_PAGE 8192

static void out_of_memory(size_t size) {
    fprintf(stderr, "baton: out of memory: %zu bytes\n", size);
    abort();
}

void *mem_new(size_t size) {
    void *p = calloc(1, size ? size : 1);
    if (!p) out_of_memory(size);
    return p;
}

void *mem_grow(void *old, size_t size) {
    void *p = realloc(old, size ? size : 1);
    if (!p) out_of_memory(size);
    return p;
}

char *mem_dup_bytes(const char *bytes, size_t length) {
    char *p = mem_new(length + 1);
    if (length) memcpy(p, bytes, length);
    return p;
}

char *mem_dup_str(const char *text) { return text ? mem_dup_bytes(text, strlen(text)) : NULL; }

void mem_free_at(void *pointer_to_pointer) { free(*(void **)pointer_to_pointer); }

void *mem_try(size_t count, size_t size, const char *what, Err *err) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > mem_available() ||
        fault_hit("mem.try")) {
        err_set(err, ERR_EXHAUSTED,
                "could not get %.1f MiB of memory for %s: %.1f MiB are available",
                (double)count * (double)size / 1048576, what, (double)mem_available() / 1048576);
        return NULL;
    }
    void *p =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        err_set(err, ERR_EXHAUSTED, "could not get %.1f MiB of memory for %s: %s",
                (double)bytes / 1048576, what, strerror(errno));
        return NULL;
    }
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE); /* fewer TLB misses; a wish, not a need */
    return p;
}

void mem_give(void *big, size_t count, size_t size) {
    size_t bytes = count * size;
    if (big) munmap(big, bytes > 0 ? bytes : 1);
}

struct ArenaPage {
    struct ArenaPage *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *arena_new(Arena *arena, size_t size) {
    size = (size + 15) & ~(size_t)15;
    struct ArenaPage *page = arena->pages;
    if (!page || page->size - page->used < size) {
        size_t room = size > ARENA_PAGE ? size : ARENA_PAGE;
        struct ArenaPage *fresh = mem_new(sizeof *fresh + room);
        fresh->size = room;
        if (page && size > ARENA_PAGE / 4 &&
            page->used < page->size) { /* keep filling the started page */
            fresh->next = page->next;
            page->next = fresh;
        } else {
            fresh->next = page;
            arena->pages = fresh;
        }
        page = fresh;
    }
    void *p = page->bytes + page->used;
    page->used += size;
    arena->used += size;
    return p;
}

char *arena_dup(Arena *arena, const char *bytes, size_t length) {
    char *p = arena_new(arena, length + 1);
    if (length) memcpy(p, bytes, length);
    return p;
}

void arena_done(Arena *arena) {
    while (arena->pages) {
        struct ArenaPage *next = arena->pages->next;
        free(arena->pages);
        arena->pages = next;
    }
    arena->used = 0;
}

/* The number that follows `key` in a small file of the kernel's, or SIZE_MAX. */
static size_t number_in(const char *path, const char *key) {
    FILE *file = fopen(path, "re");
    if (!file) return SIZE_MAX;
    char line[256];
    size_t value = SIZE_MAX, key_length = strlen(key);
    while (value == SIZE_MAX && fgets(line, sizeof line, file))
        if (!strncmp(line, key, key_length) &&
            line[key_length + strspn(line + key_length, " \t")] != 'm')
            value = strtoull(line + key_length, NULL, 10);
    fclose(file);
    return value;
}

size_t mem_available(void) {
    size_t machine = number_in("/proc/meminfo", "MemAvailable:");
    if (machine != SIZE_MAX) machine *= 1024;
    size_t limit = number_in("/sys/fs/cgroup/memory.max", ""),
           used = number_in("/sys/fs/cgroup/memory.current", "");
    if (limit == SIZE_MAX || used == SIZE_MAX) return machine;
    size_t left = limit > used ? limit - used : 0;
    return left < machine ? left : machine;
}

size_t mem_resident(void) {
    size_t kib = number_in("/proc/self/status", "VmRSS:");
    return kib == SIZE_MAX ? 0 : kib * 1024;
}
