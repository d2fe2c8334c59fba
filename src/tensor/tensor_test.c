// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "tensor.h"
#include <cmocka.h>

static uint64_t seed = 1;

static uint32_t next(void) { /* splitmix64 */
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static float uniform(void) { return (float)(int32_t)next() * 0x1p-31f; } /* -1..1 */

static float *floats(size_t n) {
    float *x = mem_new(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = uniform() * (next() % 97 == 0 ? 40 : 1); /* some outliers, as in life */
    return x;
}

static const WeightType types[] = {WEIGHT_F32,  WEIGHT_F16,  WEIGHT_BF16, WEIGHT_Q4_0,
                                   WEIGHT_Q4_1, WEIGHT_Q5_0, WEIGHT_Q5_1, WEIGHT_Q8_0,
                                   WEIGHT_Q4_K, WEIGHT_Q5_K, WEIGHT_Q6_K};

/* Random bytes with scales of a sane size. */
static uint8_t *random_rows(const WeightInfo *w, size_t rows, size_t columns) {
    size_t bytes = rows * weight_row_bytes(w, columns);
    uint8_t *data = mem_new(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)next();
    for (size_t at = 0; at < bytes; at += w->bytes) {
        float scale = 0.01f + 0.005f * uniform(), minimum = -0.05f * (1 + uniform());
        uint16_t d = float_to_half(scale), m = float_to_half(w->float_scales ? -minimum : minimum);
        if (w->type == WEIGHT_F32) memcpy(data + at, &scale, 4);
        else if (w->type == WEIGHT_BF16) memcpy(data + at, (uint8_t *)&scale + 2, 2);
        else memcpy(data + at + (w->type == WEIGHT_Q6_K ? 208 : 0), &d, 2);
        if (w->minimum) memcpy(data + at + 2, &m, 2);
    }
    return data;
}

typedef struct Product {
    Matrix w;
    Activations x;
    uint8_t *rows, *memory, *space;
    float *input;
} Product;

static void product_init(Product *p, const WeightInfo *w, size_t outputs, size_t inputs,
                         size_t rows) {
    Err err;
    p->rows = random_rows(w, outputs, inputs);
    p->memory = mem_try(matrix_bytes(w, outputs, inputs), 1, "the test", &err);
    matrix_init(&p->w, w, outputs, inputs, p->memory);
    for (size_t t = 0; t < p->w.tiles; t++) matrix_pack_tile(&p->w, t, p->rows, NULL);
    p->input = floats(rows * inputs);
    p->space = mem_new(activations_bytes(rows, inputs));
    activations_init(&p->x, rows, inputs, p->input, p->space);
}

static void product_done(Product *p) {
    mem_give(p->memory, matrix_bytes(p->w.weight, p->w.outputs, p->w.inputs), 1);
    free(p->rows);
    free(p->input);
    free(p->space);
}

static void the_scalar_product_is_the_product_of_the_dequantised_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        Product p;
        product_init(&p, weight_info(types[i]), 40, 512, 3);
        float y[3 * 40], row[512];
        kernels_scalar.quantize(&p.x, 0, 3);
        kernels_scalar.multiply(&p.w, &p.x, 0, p.w.tiles, y, 40);
        for (size_t n = 0; n < 40; n++) {
            weight_row(p.w.weight, p.rows + n * weight_row_bytes(p.w.weight, 512), 512, row);
            for (size_t r = 0; r < 3; r++) {
                double sum = 0, size = 0;
                for (size_t k = 0; k < 512; k++) {
                    sum += (double)row[k] * p.input[r * 512 + k];
                    size += fabs((double)row[k] * p.input[r * 512 + k]);
                }
                if (fabs(sum - y[r * 40 + n]) > 1e-4 * size)
                    fail_msg("%s: %g is not %g", p.w.weight->name, y[r * 40 + n], sum);
            }
        }
        product_done(&p);
    }
}

static void every_kernel_set_gives_the_bits_of_the_scalar_product(void **state) {
    (void)state;
    static const size_t rows[] = {1, 2, 3, 7, 8, 13, 24, 25, 61}, inputs[] = {256, 768, 1536};
    for (size_t i = 0; i < COUNT_OF(types); i++)
        for (size_t s = 0; s < COUNT_OF(rows); s++) {
            Product p;
            size_t outputs = s % 2 ? 48 : 37,
                   bytes = rows[s] * outputs * sizeof(float); /* 37: a partial tile */
            product_init(&p, weight_info(types[i]), outputs, inputs[s % 3], rows[s]);
            float *want = mem_new(bytes), *got = mem_new(bytes);
            kernels_scalar.quantize(&p.x, 0, rows[s]);
            kernels_scalar.multiply(&p.w, &p.x, 0, p.w.tiles, want, outputs);
            for (size_t v = 0; kernels_all[v]; v++) {
                if (!kernels_all[v]->runs_here()) continue;
                memset(p.space, 0xee, activations_bytes(rows[s], p.x.inputs));
                kernels_all[v]->quantize(&p.x, 0, rows[s]);
                memset(got, 0xff, bytes);
                kernels_all[v]->multiply(&p.w, &p.x, 0, 1, got,
                                         outputs); /* in parts, as threads do */
                kernels_all[v]->multiply(&p.w, &p.x, 1, p.w.tiles, got, outputs);
                if (memcmp(want, got, bytes) != 0)
                    fail_msg("%s differs for %s, %zu rows", kernels_all[v]->name, p.w.weight->name,
                             rows[s]);
            }
            free(want);
            free(got);
            product_done(&p);
        }
}

static void a_row_does_not_depend_on_its_company(void **state) {
    (void)state;
    for (size_t v = 0; kernels_all[v]; v++) {
        if (!kernels_all[v]->runs_here()) continue;
        Product p;
        product_init(&p, weight_info(WEIGHT_Q4_1), 32, 576, 40);
        float all[40 * 32], one[32];
        kernels_all[v]->quantize(&p.x, 0, 40);
        kernels_all[v]->multiply(&p.w, &p.x, 0, 2, all, 32);
        for (size_t r = 0; r < 40; r++) {
            Activations alone;
            activations_init(&alone, 1, 576, p.input + r * 576, p.space);
            kernels_all[v]->quantize(&alone, 0, 1);
            kernels_all[v]->multiply(&p.w, &alone, 0, 2, one, 32);
            assert_memory_equal(one, all + r * 32, sizeof one);
        }
        product_done(&p);
    }
}

/* Runs every float kernel of a set on the same random input; the result is a hash of all outputs.
 */
static uint64_t float_kernels_result(const Kernels *k) {
    seed = 42;
    size_t n = 320;
    float *x = floats(n), *y = floats(n), *w = floats(n), out[320], c[64], s[64];
    uint8_t page_k[16 * 128 * 2] = {0}, page_v[16 * 128 * 2] = {0};
    for (size_t i = 0; i < n; i++) x[i] *= i % 3 == 0 ? 60 : 1; /* exp() at both of its ends */
    k->rms_norm(out, x, w, n, 1e-5f);
    uint64_t h = hash64(out, sizeof out, 1);
    k->add(x, y, n);
    k->silu_multiply(x, y, n);
    h = hash64(x, n * sizeof *x, h);
    for (size_t i = 0; i < 64; i++) {
        double sine, cosine;
        exact_sin_cos((double)i * 7.7, &sine, &cosine);
        c[i] = (float)cosine;
        s[i] = (float)sine;
    }
    k->rotate(y, 2, 128, c, s);
    h = hash64(y, n * sizeof *y, h);
    for (size_t slot = 0; slot < 16; slot++)
        k->store_kv(page_k, page_v, slot, x + slot, y + 2 * slot, 128);
    h = hash64(page_k, sizeof page_k, h);
    h = hash64(page_v, sizeof page_v, h);
    for (size_t length = 1; length < 70; length++) {
        float most = k->max(y, length), sum = k->exp_sum(y, length, most, 1.25f, out);
        h = hash64(&most, sizeof most, h);
        h = hash64(&sum, sizeof sum, h);
        h = hash64(out, length * sizeof *out, h);
    }
    free(x);
    free(y);
    free(w);
    return h;
}

static void every_kernel_set_gives_the_bits_of_the_scalar_float_kernels(void **state) {
    (void)state;
    uint64_t want = float_kernels_result(&kernels_scalar);
    for (size_t v = 0; kernels_all[v]; v++)
        if (kernels_all[v]->runs_here()) assert_true(float_kernels_result(kernels_all[v]) == want);
}

typedef struct Context { uint8_t **pages; size_t tokens, dim; float *k, *v; } Context;

static void context_init(Context *c, size_t tokens, size_t dim) {
    size_t pages = (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
    *c = (Context){.pages = mem_new(pages * sizeof(uint8_t *)), .tokens = tokens, .dim = dim};
    c->k = floats(tokens * dim);
    c->v = floats(tokens * dim);
    for (size_t p = 0; p < pages; p++) {
        c->pages[p] = mem_new(4 * PAGE_TOKENS * dim);
        memset(c->pages[p], 0xff,
               4 * PAGE_TOKENS * dim); /* NaN where nothing was stored: it must not leak */
    }
    for (size_t t = 0; t < tokens; t++) {
        uint8_t *page = c->pages[t / PAGE_TOKENS];
        kernels_scalar.store_kv(page, page + 2 * PAGE_TOKENS * dim, t % PAGE_TOKENS, c->k + t * dim,
                                c->v + t * dim, dim);
    }
}

static void context_done(Context *c) {
    for (size_t p = 0; p < (c->tokens + PAGE_TOKENS - 1) / PAGE_TOKENS; p++) free(c->pages[p]);
    free(c->pages);
    free(c->k);
    free(c->v);
}

static void attend_rows(const Kernels *set, const Context *c, size_t heads, size_t first,
                        size_t rows, const float *q, float *out) {
    float *scratch = mem_new(attend_scratch(c->tokens, c->dim) * sizeof *scratch);
    set->attend(&(AttendJob){.pages = (const uint8_t *const *)c->pages,
                             .k_at = 0,
                             .v_at = 2 * PAGE_TOKENS * c->dim,
                             .dim = c->dim,
                             .heads = heads,
                             .rows = rows,
                             .first_token = first,
                             .q = q,
                             .out = out,
                             .stride = heads * c->dim,
                             .scale = 0.125f,
                             .scratch = scratch});
    free(scratch);
}

static void attention_is_softmax_of_scores_times_values(void **state) {
    (void)state;
    Context c;
    context_init(&c, 50, 64);
    float *q = floats(3 * 64), out[3 * 64];
    attend_rows(&kernels_scalar, &c, 3, 49, 1, q, out);
    for (size_t h = 0; h < 3; h++) {
        double score[50], most = -1e30, total = 0;
        for (size_t t = 0; t < 50; t++) {
            score[t] = 0;
            for (size_t d = 0; d < 64; d++)
                score[t] += 0.125 * q[h * 64 + d] * half_to_float(float_to_half(c.k[t * 64 + d]));
            most = fmax(most, score[t]);
        }
        for (size_t t = 0; t < 50; t++) total += score[t] = exp(score[t] - most);
        for (size_t d = 0; d < 64; d++) {
            double want = 0;
            for (size_t t = 0; t < 50; t++)
                want += score[t] / total * half_to_float(float_to_half(c.v[t * 64 + d]));
            assert_true(fabs(want - out[h * 64 + d]) < 1e-4);
        }
    }
    free(q);
    context_done(&c);
}

static void attention_has_the_same_bits_in_every_set_and_for_every_cut(void **state) {
    (void)state;
    static const struct {
        size_t tokens, dim, heads;
    } shapes[] = {{1, 32, 1}, {37, 64, 3}, {150, 96, 4}, {83, 128, 7}};
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        Context c;
        size_t tokens = shapes[i].tokens, width = shapes[i].heads * shapes[i].dim,
               n = tokens * width;
        context_init(&c, tokens, shapes[i].dim);
        float *q = floats(n), *want = mem_new(n * sizeof *want), *got = mem_new(n * sizeof *got);
        attend_rows(&kernels_scalar, &c, shapes[i].heads, 0, tokens, q, want);
        for (size_t v = 0; kernels_all[v]; v++) {
            if (!kernels_all[v]->runs_here()) continue;
            for (size_t cut = 1; cut <= tokens; cut = cut * 2 + 1) {
                memset(got, 0, n * sizeof *got);
                for (size_t at = 0; at < tokens; at += cut)
                    attend_rows(kernels_all[v], &c, shapes[i].heads, at,
                                cut < tokens - at ? cut : tokens - at, q + at * width,
                                got + at * width);
                if (memcmp(want, got, n * sizeof *got) != 0)
                    fail_msg("%s differs, %zu tokens cut by %zu", kernels_all[v]->name, tokens,
                             cut);
            }
        }
        free(q);
        free(want);
        free(got);
        context_done(&c);
    }
}

static void halves_round_like_the_processor_and_come_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = half_to_float((uint16_t)h);
        if (f == f) assert_int_equal(float_to_half(f), h);
    }
    static const struct { float in; uint16_t out;
    } cases[] = {{65504, 0x7bff},        {65519.99f, 0x7bff},      {65520, 0x7c00},
                 {1e30f, 0x7c00},        {-1e30f, 0xfc00},         {0x1p-24f, 1},
                 {0x1p-25f, 0},          {0x1.8p-25f, 1},          {-0x1p-26f, 0x8000},
                 {1 + 0x1p-11f, 0x3c00}, {1 + 0x1.8p-10f, 0x3c02}, {0, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(float_to_half(cases[i].in), cases[i].out);
    if (!kernels_avx2.runs_here()) return;
    for (int i = 0; i < 20000; i++) { /* against VCVTPS2PH, through store_kv */
        float x[32], y[32] = {0};
        uint16_t k[32 * 16], v[32 * 16];
        for (size_t j = 0; j < 32; j++) {
            uint32_t bits = next();
            memcpy(&x[j], &bits, 4);
            if (x[j] != x[j]) x[j] = 0;
        }
        kernels_avx2.store_kv((uint8_t *)k, (uint8_t *)v, 0, y, x, 32);
        for (size_t j = 0; j < 32; j++) assert_int_equal(float_to_half(x[j]), v[j]);
    }
}

static void exact_functions_are_close_to_the_library(void **state) {
    (void)state;
    for (double x = 1e-3; x < 1e6; x *= 1.37)
        assert_true(fabs(exact_log(x) - log(x)) <= 2e-15 * (1 + fabs(log(x))));
    for (double x = -9000; x < 140000; x += 7.31) {
        double s, c;
        exact_sin_cos(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 1e-13 && fabs(c - cos(x)) < 1e-13);
    }
    assert_true(fabs(exact_root(100000, 32) - pow(100000, 1.0 / 32)) < 1e-14);
    for (float x = -87; x < 88; x += 0.37f) {
        assert_true(fabs(exact_exp(x) / exp(x) - 1) < 2e-7);
        for (size_t v = 0; kernels_all[v]; v++) {
            float out[1];
            if (kernels_all[v]->runs_here())
                kernels_all[v]->exp_sum(&x, 1, 0, 1, out), assert_true(out[0] == exact_exp(x));
        }
    }
}

static void kernels_are_chosen_by_name_or_by_processor(void **state) {
    (void)state;
    Err err;
    assert_true(kernels_init(NULL, &err));
    assert_ptr_equal(kernels, kernels_avx512.runs_here() ? &kernels_avx512
                              : kernels_avx2.runs_here() ? &kernels_avx2
                                                         : &kernels_scalar);
    assert_true(kernels_init("scalar", &err));
    assert_ptr_equal(kernels, &kernels_scalar);
    assert_false(kernels_init("neon", &err));
    assert_string_equal(err.message, "BATON_KERNELS=neon is not a set of kernels");
    assert_non_null(strstr(err.hint, "scalar, avx2 or avx512"));
}

typedef struct Count {
    _Atomic uint32_t times[300];
    _Atomic uint32_t by_member[8];
    uint64_t input;
} Count;

static void count_task(void *user, unsigned me, size_t task) {
    Count *count = user;
    atomic_fetch_add(&count->times[task], 1);
    atomic_fetch_add(&count->by_member[me], 1);
    for (volatile int i = 0; i < 2000; i++) {} /* long enough for others to come in */
}

static void a_team_does_every_task_of_every_phase_once(void **state) {
    (void)state;
    for (unsigned size = 1; size <= 4; size++) {
        Err err;
        Team *team = team_new(size, &err);
        Count count = {0};
        for (uint32_t phase = 1; phase <= 500; phase++) {
            size_t tasks = phase % 7 ? phase % 300 : 1;
            memset(count.times, 0, sizeof count.times);
            team_run(team, count_task, &count, tasks);
            for (size_t t = 0; t < 300; t++) assert_int_equal(count.times[t], t < tasks);
        }
        if (size > 1) assert_true(count.by_member[1] > 0); /* two threads use two cores */
        team_free(team);
    }
}

static void a_thread_that_cannot_start_is_an_error(void **state) {
    (void)state;
    Err err;
    fault_arm("team.thread", 2, false);
    assert_null(team_new(4, &err));
    fault_disarm_all();
    assert_non_null(strstr(err.message, "could not start thread 3 of 4"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_scalar_product_is_the_product_of_the_dequantised_rows),
        cmocka_unit_test(every_kernel_set_gives_the_bits_of_the_scalar_product),
        cmocka_unit_test(a_row_does_not_depend_on_its_company),
        cmocka_unit_test(every_kernel_set_gives_the_bits_of_the_scalar_float_kernels),
        cmocka_unit_test(attention_is_softmax_of_scores_times_values),
        cmocka_unit_test(attention_has_the_same_bits_in_every_set_and_for_every_cut),
        cmocka_unit_test(halves_round_like_the_processor_and_come_back),
        cmocka_unit_test(exact_functions_are_close_to_the_library),
        cmocka_unit_test(kernels_are_chosen_by_name_or_by_processor),
        cmocka_unit_test(a_team_does_every_task_of_every_phase_once),
        cmocka_unit_test(a_thread_that_cannot_start_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
