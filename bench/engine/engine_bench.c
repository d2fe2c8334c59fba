// SPDX-License-Identifier: Apache-2.0
/* engine_bench MODEL.gguf THREADS KIND SIZE - one figure, as a line of JSON, for bench/engine/run
 * to set beside others.
 *
 *   prefill N   a prompt of N tokens, up to the logits of its last one
 *   decode N    N sequences with 128 tokens of context, 32 steps, a greedy token each
 *   weights 1   the bytes of the repacked matrices, a bare number
 * The best of several runs: on a shared machine the others measure the neighbours. */
#include <stdio.h>
#include <stdlib.h>

#include "model/model.h"

#define CONTEXT 2304
#define STEPS 32

typedef struct Bench {
    Model *m;
    uint8_t *memory, **pages;
    size_t page_count;
    int32_t tokens[2048];
    float *hidden, *logits;
} Bench;

static double prefill(Bench *b, size_t size) {
    int64_t begin = clock_mono_us();
    Piece piece = {.tokens = b->tokens, .rows = size, .pages = b->pages, .wanted = 1};
    model_forward(b->m, &piece, 1, b->hidden);
    model_logits(b->m, b->hidden, 1, b->logits);
    return (double)(clock_mono_us() - begin) / 1e6;
}

static double decode(Bench *b, size_t size) {
    Piece pieces[64];
    size_t vocab = model_shape(b->m)->vocab, own = (128 + STEPS) / PAGE_TOKENS;
    for (size_t i = 0; i < size; i++) {
        Piece prompt = {
            .tokens = b->tokens + i, .rows = 128, .pages = b->pages + i * own, .wanted = 1};
        model_forward(b->m, &prompt, 1, b->hidden);
        pieces[i] =
            (Piece){.tokens = b->tokens + i, .rows = 1, .pages = b->pages + i * own, .wanted = 1};
    }
    int64_t begin = clock_mono_us();
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < size; i++) pieces[i].first_token = 128 + step;
        model_forward(b->m, pieces, size, b->hidden);
        model_logits(b->m, b->hidden, size, b->logits);
        for (size_t i = 0; i < size; i++) kernels->max(b->logits + i * vocab, vocab);
    }
    return (double)(clock_mono_us() - begin) / 1e6;
}

int main(int argc, char **argv) {
    Err err = {0};
    Bench b = {0};
    long threads = argc == 5 ? strtol(argv[2], NULL, 10) : 0,
         size = argc == 5 ? strtol(argv[4], NULL, 10) : 0;
    bool filling = argc == 5 && !strcmp(argv[3], "prefill");
    if (threads < 1 || threads > 64 || size < 1 || size > (filling ? 2048 : 64)) {
        fputs("usage: engine_bench MODEL.gguf THREADS prefill|decode|weights SIZE\n", stderr);
        return 2;
    }
    if (!kernels_init(getenv("BATON_KERNELS"), &err) ||
        !(b.m = model_open(&(ModelConf){argv[1], (unsigned)threads, CONTEXT}, &err))) {
        fprintf(stderr, "engine_bench: %s\nhint: %s\n", err.message, err.hint);
        return 1;
    }
    if (!strcmp(argv[3], "weights")) {
        printf("%zu\n", model_weight_bytes(b.m));
        model_close(b.m);
        return 0;
    }
    const ModelShape *shape = model_shape(b.m);
    b.page_count = (size_t)(filling ? CONTEXT / PAGE_TOKENS : size * (128 + STEPS) / PAGE_TOKENS);
    b.memory = mem_try(b.page_count, model_page_bytes(b.m), "KV", &err);
    b.pages = mem_new(b.page_count * sizeof *b.pages);
    for (size_t i = 0; i < b.page_count; i++) b.pages[i] = b.memory + i * model_page_bytes(b.m);
    for (size_t i = 0; i < COUNT_OF(b.tokens); i++)
        b.tokens[i] = (int32_t)(1000 + i * 7919 % 20000);
    b.hidden = mem_new(64 * shape->width * sizeof(float));
    b.logits = mem_new(64 * (size_t)shape->vocab * sizeof(float));
    double best = 1e9;
    for (int run = 0; run < 3; run++) {
        double seconds = filling ? prefill(&b, (size_t)size) : decode(&b, (size_t)size);
        if (seconds < best) best = seconds;
    }
    double tokens = filling ? (double)size : (double)size * STEPS;
    printf(
        "{\"kernels\":\"%s\",\"threads\":%ld,\"kind\":\"%s\",\"size\":%ld,\"tokens_per_s\":%.1f}\n",
        kernels->name, threads, argv[3], size, tokens / best);
    model_close(b.m);
    return 0;
}
