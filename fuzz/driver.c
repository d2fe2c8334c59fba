// SPDX-License-Identifier: Apache-2.0
/* driver.c - runs a fuzz target under plain gcc: its corpus first, then mutations of it.
 *
 *     NAME_fuzz [--seconds N] [--runs N] [--seed N] [--max-length N] FILE|FOLDER...
 *
 * The same seed tries the same inputs in the same order.  The input at which a target dies, or
 * stays for ten seconds, is left beside the program as crash-NAME.  Objects compiled with
 * -fsanitize-coverage=trace-pc make it a search: an input that reaches something new joins the
 * corpus in memory, and with --keep FOLDER on disk.  Without, it is a plain random walk, good
 * enough for every commit. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

typedef struct Input {
    uint8_t *bytes;
    size_t length;
} Input;

typedef struct Fuzz {
    const char *name;
    Input *corpus;
    size_t count, room;
    uint64_t random;
    size_t max_length, runs;
    const char *keep; /* the folder for new inputs, or NULL */
    uint8_t *scratch;
} Fuzz;

/* Signal handlers and the sanitizers' callback see these two alone. */
static Input at_hand;
static char crash_path[256];

#define SECONDS_PER_INPUT 10
#define MAP_SIZE 65536
static uint8_t touched[MAP_SIZE], seen[MAP_SIZE];
static uintptr_t previous_place;
static bool watched; /* somebody calls the function below */

#define NOT_WATCHED __attribute__((no_sanitize("address", "undefined"), no_sanitize_coverage))

/* Called at every branch of instrumented code; the pair of two places is an edge. */
NOT_WATCHED void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uintptr_t mixed = (place ^ place >> 15) * 0x9e3779b1u;
    uint8_t *hits = &touched[(mixed ^ previous_place) % MAP_SIZE];
    if (*hits < 255) ++*hits;
    previous_place = mixed >> 1;
    watched = true;
}

/* How often an edge was taken counts in powers of two. */
NOT_WATCHED static bool reached_something_new(void) {
    bool fresh = false;
    for (size_t i = 0; i < MAP_SIZE; i++) {
        if (!touched[i]) continue;
        uint8_t bucket = (uint8_t)(1u << (31 - __builtin_clz(touched[i])));
        if (bucket & ~seen[i]) fresh = true;
        seen[i] |= bucket;
    }
    return fresh;
}

static void save(const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file) return;
    if (at_hand.length) fwrite(at_hand.bytes, 1, at_hand.length, file);
    fclose(file);
}

static void on_death(void) {
    save(crash_path);
    fprintf(stderr, "input of %zu bytes left in %s\n", at_hand.length, crash_path);
}

static void on_signal(int number) {
    if (number == SIGALRM) fprintf(stderr, "no end after %d s\n", SECONDS_PER_INPUT);
    on_death();
    signal(number, SIG_DFL);
    raise(number);
}

static uint64_t pick(Fuzz *f, uint64_t below) {
    f->random ^= f->random << 13;
    f->random ^= f->random >> 7;
    f->random ^= f->random << 17;
    return below ? (f->random >> 11) % below : 0;
}

static bool run_one(Fuzz *f, const uint8_t *bytes, size_t length) {
    /* A copy of exactly this size, so that a read behind it is seen. */
    at_hand = (Input){malloc(length ? length : 1), length};
    if (length) memcpy(at_hand.bytes, bytes, length);
    if (watched) memset(touched, 0, sizeof touched);
    previous_place = 0;
    f->runs++;
    alarm(SECONDS_PER_INPUT);
    LLVMFuzzerTestOneInput(at_hand.bytes, length);
    free(at_hand.bytes);
    at_hand = (Input){0};
    return watched && reached_something_new();
}

static void add(Fuzz *f, const void *bytes, size_t length) {
    mem_reserve(f->corpus, f->room, f->count + 1);
    f->corpus[f->count++] = (Input){(uint8_t *)mem_dup_bytes(bytes, length), length};
}

static bool load(Fuzz *f, const char *path) {
    struct stat info;
    if (stat(path, &info)) {
        fprintf(stderr, "%s: could not open '%s': %s\n", f->name, path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(info.st_mode)) {
        Err err = {0};
        size_t length = 0;
        auto_free char *bytes = file_read(path, 16 * MIB, &length, &err);
        if (!bytes) {
            fprintf(stderr, "%s: %s\n", f->name, err.message);
            return false;
        }
        add(f, bytes, length);
        return true;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort); /* one order on every machine */
    bool ok = count >= 0;
    for (int i = 0; i < count; i++) {
        char inside[4096];
        snprintf(inside, sizeof inside, "%s/%s", path, entries[i]->d_name);
        if (ok && entries[i]->d_name[0] != '.') ok = load(f, inside);
        free(entries[i]);
    }
    free(entries);
    return ok;
}

/* Replaces `cut` bytes at `at` by `length` others. */
static size_t splice(Fuzz *f, size_t size, size_t at, size_t cut, const uint8_t *bytes,
                     size_t length) {
    if (size - cut + length > f->max_length) return size;
    memmove(f->scratch + at + length, f->scratch + at + cut, size - at - cut);
    if (length) memcpy(f->scratch + at, bytes, length);
    return size - cut + length;
}

static size_t mutate_once(Fuzz *f, size_t size) {
    static const char signs[] = "{}[]()<>\"'\\,:;.|%#-+*/=~!&?_ \n\r\t\0\x80\xff\x7f"
                                "0123456789aeinrtuxAZ";
    size_t at = pick(f, size + 1), some = pick(f, size - at + 1);
    if (some > 16 && pick(f, 4)) some = pick(f, 16);
    uint8_t byte = (uint8_t)(pick(f, 4) ? signs[pick(f, sizeof signs - 1)] : (int)pick(f, 256));
    switch (pick(f, 6)) {
    case 0: /* another byte, or one bit of it */
        if (at == size) return size;
        f->scratch[at] = pick(f, 2) ? byte : (uint8_t)(f->scratch[at] ^ 1u << pick(f, 8));
        return size;
    case 1: return splice(f, size, at, 0, &byte, 1);
    case 2: return splice(f, size, at, some, NULL, 0);
    case 3: { /* a piece of this input again, somewhere else */
        uint8_t piece[256];
        some = some > sizeof piece ? sizeof piece : some;
        memcpy(piece, f->scratch + at, some);
        return splice(f, size, pick(f, size + 1), 0, piece, some);
    }
    default: { /* a piece of another input */
        const Input *other = &f->corpus[pick(f, f->count)];
        size_t from = pick(f, other->length + 1), length = pick(f, other->length - from + 1);
        if (length > 32 && pick(f, 3)) length = pick(f, 32);
        return splice(f, size, at, pick(f, 2) ? some : 0, other->bytes + from, length);
    }
    }
}

static void mutate_and_run(Fuzz *f) {
    /* The newest inputs are the least explored. */
    size_t back = pick(f, 3) ? pick(f, f->count) : pick(f, pick(f, f->count) + 1);
    const Input *base = &f->corpus[f->count - 1 - back];
    size_t size = base->length < f->max_length ? base->length : f->max_length;
    if (size) memcpy(f->scratch, base->bytes, size);
    for (uint64_t n = 1 + pick(f, pick(f, 2) ? 2 : 12); n > 0; n--) size = mutate_once(f, size);
    if (!run_one(f, f->scratch, size)) return;
    add(f, f->scratch, size);
    if (!f->keep) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/%016llx", f->keep,
             (unsigned long long)hash64(f->scratch, size, 0));
    at_hand = f->corpus[f->count - 1];
    save(path);
}

int main(int argc, char **argv) {
    Fuzz f = {.random = 88172645463325252u, .max_length = 4096};
    const char *slash = strrchr(argv[0], '/');
    f.name = slash ? slash + 1 : argv[0];
    Str name = str_of(f.name);
    if (name.length > 5 && str_eq((Str){name.at + name.length - 5, 5}, "_fuzz")) name.length -= 5;
    snprintf(crash_path, sizeof crash_path, "%.*scrash-" STR_FMT, (int)(f.name - argv[0]), argv[0],
             STR_ARG(name));
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(on_death);
    signal(SIGALRM, on_signal);
    signal(SIGABRT, on_signal);
    int64_t seconds = 0, runs = 0;
    bool ok = true;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strncmp(word, "--", 2)) {
            ok = load(&f, word) && ok;
            continue;
        }
        i++;
        if (!strcmp(word, "--seconds")) seconds = strtoll(value, NULL, 10);
        if (!strcmp(word, "--runs")) runs = strtoll(value, NULL, 10);
        if (!strcmp(word, "--seed")) f.random ^= strtoull(value, NULL, 10) * 0x9e3779b97f4a7c15u;
        if (!strcmp(word, "--max-length")) f.max_length = strtoull(value, NULL, 10);
        if (!strcmp(word, "--keep")) f.keep = value;
    }
    if (!ok) return 2;
    f.scratch = mem_new(f.max_length + 1);
    if (!f.count) add(&f, "", 0);
    for (size_t i = 0, given = f.count; i < given; i++)
        run_one(&f, f.corpus[i].bytes, f.corpus[i].length);
    int64_t end_us = clock_mono_us() + seconds * 1000000;
    while ((runs && f.runs < (size_t)runs) || (seconds && clock_mono_us() < end_us))
        for (int i = 0; i < 16; i++) mutate_and_run(&f);
    alarm(0);
    printf(STR_FMT ": %zu runs ok\n", STR_ARG(name), f.runs);
    for (size_t i = 0; i < f.count; i++) free(f.corpus[i].bytes);
    free(f.corpus);
    free(f.scratch);
    return 0;
}
