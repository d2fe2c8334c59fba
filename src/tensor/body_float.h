// SPDX-License-Identifier: Apache-2.0
/* body_float.h - the float kernels, written once over F, 16 float lanes.
 *
 * Each kernel file defines F and its operations (one IEEE operation a lane, see lanes below),
 * SCORE_PAGES and VALUE_LANES (how much of attention fits its registers; no result depends on
 * them), and then includes this.
 *
 *   f_load f_store f_set1 f_add f_sub f_mul f_div f_min f_max f_abs   what they are called
 *   f_fma(a, b, c)            a * b + c, rounded once
 *   f_keep(x, n, other)       lanes from n on become `other`
 *   f_power2(n)               2^n, n whole
 *   f_from_half, f_to_half    16 halves; to the nearest, ties to even
 *   f_to_words(out, x)        16 int16, to the nearest, ties to even; returns their sum
 *   f_reduce_max(x)           the greatest lane: a maximum has no order to keep */

#include <math.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

/* 16 lanes to one, by halves: 8, 4, 2, 1. */
INLINE float lanes_sum(F x) {
    _Alignas(64) float v[16];
    f_store(v, x);
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) v[i] += v[i + w];
    return v[0];
}

/* The first n (1..16) of 16 lanes; the others are `other`. */
INLINE F load_some(const float *x, size_t n, float other) {
    if (n >= 16) return f_load(x);
    _Alignas(64) float v[16];
    for (size_t i = 0; i < 16; i++) v[i] = i < n ? x[i] : other;
    return f_load(v);
}

INLINE void store_some(float *x, size_t n, F value) {
    if (n >= 16) {
        f_store(x, value);
        return;
    }
    _Alignas(64) float v[16];
    f_store(v, value);
    memcpy(x, v, n * sizeof *x);
}

/* Cephes' expf: 2^n * e^r with |r| <= ln(2)/2, error below 1e-7.  exact_exp() is the same for one
 * value. */
INLINE F f_exp(F x) {
    x = f_max(x, f_set1(-87.33654f));
    x = f_min(x, f_set1(88.0f));
    F magic = f_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    F n = f_sub(f_add(f_mul(x, f_set1(1.44269504f)), magic), magic);
    F r = f_fma(n, f_set1(-0.693359375f), x);
    r = f_fma(n, f_set1(2.12194440e-4f), r);
    F p = f_set1(1.9875691500e-4f);
    p = f_fma(p, r, f_set1(1.3981999507e-3f));
    p = f_fma(p, r, f_set1(8.3334519073e-3f));
    p = f_fma(p, r, f_set1(4.1665795894e-2f));
    p = f_fma(p, r, f_set1(1.6666665459e-1f));
    p = f_fma(p, r, f_set1(5.0000001201e-1f));
    p = f_add(f_fma(p, f_mul(r, r), r), f_set1(1.0f));
    return f_mul(p, f_power2(n));
}

static float row_max(const float *x, size_t n) {
    F most = load_some(x, n, x[0]);
    for (size_t i = 16; i < n; i += 16) most = f_max(most, load_some(x + i, n - i, x[0]));
    return f_reduce_max(most);
}

static float exp_sum(const float *x, size_t n, float minus, float times, float *out) {
    F sum = f_set1(0), m = f_set1(minus), t = f_set1(times);
    for (size_t i = 0; i < n; i += 16) {
        F e = f_exp(f_mul(f_sub(load_some(x + i, n - i, minus), m), t));
        if (n - i < 16) e = f_keep(e, n - i, 0);
        sum = f_add(sum, e);
        if (out) store_some(out + i, n - i, e);
    }
    return lanes_sum(sum);
}

static void rms_norm(float *out, const float *x, const float *weight, size_t n, float epsilon) {
    F squares = f_set1(0);
    for (size_t i = 0; i < n; i += 16) {
        F v = f_load(x + i);
        squares = f_fma(v, v, squares);
    }
    float root = sqrtf(lanes_sum(squares) / (float)n + epsilon);
    F scale = f_set1(1.0f / root);
    for (size_t i = 0; i < n; i += 16)
        f_store(out + i, f_mul(f_mul(f_load(x + i), scale), f_load(weight + i)));
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += 16) f_store(x + i, f_add(f_load(x + i), f_load(y + i)));
}

static void silu_multiply(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        F g = f_load(gate + i), below = f_add(f_set1(1), f_exp(f_sub(f_set1(0), g)));
        f_store(gate + i, f_mul(f_div(g, below), f_load(up + i)));
    }
}

static void rotate(float *x, size_t heads, size_t dim, const float *cosine, const float *sine) {
    size_t half = dim / 2;
    for (float *head = x; heads--; head += dim)
        for (size_t i = 0; i < half; i += 16) {
            F a = f_load(head + i), b = f_load(head + half + i), c = f_load(cosine + i),
              s = f_load(sine + i);
            f_store(head + i, f_sub(f_mul(a, c), f_mul(b, s)));
            f_store(head + half + i, f_add(f_mul(b, c), f_mul(a, s)));
        }
}

static void store_kv(uint8_t *k, uint8_t *v, size_t slot, const float *k_row, const float *v_row,
                     size_t dim) {
    uint16_t *k_page = (uint16_t *)(void *)k, *v_page = (uint16_t *)(void *)v + slot * dim;
    uint16_t halves[16];
    for (size_t d = 0; d < dim; d += 16) {
        f_to_half(halves, f_load(k_row + d));
        for (size_t i = 0; i < 16; i++) k_page[(d + i) * PAGE_TOKENS + slot] = halves[i];
        f_to_half(v_page + d, f_load(v_row + d));
    }
}

static void quantize(Activations *a, size_t row_begin, size_t row_end) {
    for (size_t row = row_begin; row < row_end; row++)
        for (size_t g = 0; g < a->inputs / WEIGHT_GROUP; g++) {
            const float *x = a->x + row * a->inputs + g * WEIGHT_GROUP;
            F low = f_load(x), high = f_load(x + 16);
            float most = f_reduce_max(f_max(f_abs(low), f_abs(high)));
            bool some = most > 1e-30f; /* below, 32767 / most would overflow */
            F per = f_set1(some ? 32767.0f / most : 0);
            int16_t *q = a->q + (g * a->rows + row) * WEIGHT_GROUP;
            int32_t sum = f_to_words(q, f_mul(low, per)) + f_to_words(q + 16, f_mul(high, per));
            float scale = some ? most / 32767.0f : 0;
            a->scale[g * a->rows + row] = scale;
            a->sum[g * a->rows + row] = scale * (float)sum;
        }
}

/* ---- attention: for up to ATTEND_ROWS (row, head) pairs at once, all keys, softmax, all values
 * ---- */

/* scores of `rows` queries with the tokens of `count` pages: lanes are tokens, dims in order */
INLINE void score_pages(size_t rows, size_t count, const AttendJob *job,
                        const uint8_t *const *pages, const float *q, float *scores, size_t stride) {
    F sum[ATTEND_ROWS][SCORE_PAGES], key[SCORE_PAGES];
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t p = 0; p < count; p++) sum[r][p] =
        f_set1(0);
    for (size_t d = 0; d < job->dim; d++) {
        UNROLL for (size_t p = 0; p < count; p++) key[p] =
            f_from_half((const uint16_t *)(const void *)(pages[p] + job->k_at) + d * PAGE_TOKENS);
        UNROLL for (size_t r = 0; r < rows; r++) {
            F query = f_set1(q[r * job->dim + d]);
            UNROLL for (size_t p = 0; p < count; p++) sum[r][p] = f_fma(query, key[p], sum[r][p]);
        }
    }
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t p = 0; p < count; p++)
        f_store(scores + r * stride + p * PAGE_TOKENS, sum[r][p]);
}

INLINE void score_all(size_t rows, const AttendJob *job, size_t tokens, const float *q,
                      float *scores, size_t stride) {
    size_t pages = (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS, p = 0;
    for (; p + SCORE_PAGES <= pages; p += SCORE_PAGES)
        score_pages(rows, SCORE_PAGES, job, job->pages + p, q, scores + p * PAGE_TOKENS, stride);
    for (; p < pages; p++)
        score_pages(rows, 1, job, job->pages + p, q, scores + p * PAGE_TOKENS, stride);
}

/* out[r][0..16*lanes) += weights[r][t] * value[t], t = begin..end-1 in order */
INLINE void mix_lanes(size_t rows, size_t lanes, const AttendJob *job, size_t begin, size_t end,
                      size_t at, const float *weights, size_t stride, float *const *out) {
    F sum[ATTEND_ROWS][VALUE_LANES], value[VALUE_LANES];
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t c = 0; c < lanes; c++)
        sum[r][c] = f_load(out[r] + at + c * 16);
    for (size_t t = begin; t < end;) {
        const uint16_t *v =
            (const uint16_t *)(const void *)(job->pages[t / PAGE_TOKENS] + job->v_at) + at;
        size_t stop = (t / PAGE_TOKENS + 1) * PAGE_TOKENS;
        if (stop > end) stop = end;
        for (v += t % PAGE_TOKENS * job->dim; t < stop; t++, v += job->dim) {
            UNROLL for (size_t c = 0; c < lanes; c++) value[c] = f_from_half(v + c * 16);
            UNROLL for (size_t r = 0; r < rows; r++) {
                F weight = f_set1(weights[r * stride + t]);
                UNROLL for (size_t c = 0; c < lanes; c++) sum[r][c] =
                    f_fma(weight, value[c], sum[r][c]);
            }
        }
    }
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t c = 0; c < lanes; c++)
        f_store(out[r] + at + c * 16, sum[r][c]);
}

INLINE void mix(size_t rows, const AttendJob *job, size_t begin, size_t end, const float *weights,
                size_t stride, float *const *out) {
    size_t at = 0;
    for (; at + VALUE_LANES * 16 <= job->dim; at += VALUE_LANES * 16)
        mix_lanes(rows, VALUE_LANES, job, begin, end, at, weights, stride, out);
    for (; at < job->dim; at += 16) mix_lanes(rows, 1, job, begin, end, at, weights, stride, out);
}

/* Pairs first..first+count-1; pair i is query row i / heads, head i % heads. */
INLINE void attend_pairs(const size_t count, const AttendJob *job, size_t first) {
    float *q = job->scratch, *scores = q + ATTEND_ROWS * job->dim, *out[ATTEND_ROWS];
    size_t tokens[ATTEND_ROWS]; /* that the pair sees */
    for (size_t i = 0; i < count; i++) {
        size_t row = (first + i) / job->heads,
               at = row * job->stride + (first + i) % job->heads * job->dim;
        tokens[i] = job->first_token + row + 1;
        out[i] = job->out + at;
        for (size_t d = 0; d < job->dim; d++) {
            q[i * job->dim + d] = job->q[at + d] * job->scale;
            out[i][d] = 0;
        }
    }
    size_t stride = (tokens[count - 1] + PAGE_TOKENS - 1) / PAGE_TOKENS * PAGE_TOKENS;
    score_all(count, job, tokens[count - 1], q, scores, stride);
    float total[ATTEND_ROWS];
    for (size_t i = 0; i < count; i++) {
        float *s = scores + i * stride;
        total[i] = exp_sum(s, tokens[i], row_max(s, tokens[i]), 1, s);
    }
    mix(count, job, 0, tokens[0], scores, stride, out);
    for (size_t i = 0; i < count; i++) { /* what later rows see more */
        if (tokens[i] > tokens[0])
            mix(1, job, tokens[0], tokens[i], scores + i * stride, stride, out + i);
        F per = f_set1(1.0f / total[i]);
        for (size_t d = 0; d < job->dim; d += 16)
            f_store(out[i] + d, f_mul(f_load(out[i] + d), per));
    }
}

static void attend(const AttendJob *job) {
    size_t pairs = job->rows * job->heads, i = 0;
    for (; i + ATTEND_ROWS <= pairs; i += ATTEND_ROWS) attend_pairs(ATTEND_ROWS, job, i);
    switch (pairs - i) {
    case 1: attend_pairs(1, job, i); break;
    case 2: attend_pairs(2, job, i); break;
    case 3: attend_pairs(3, job, i); break;
    case 4: attend_pairs(4, job, i); break;
    case 5: attend_pairs(5, job, i); break;
    }
}

#define FLOAT_KERNELS                                                                              \
    .quantize = quantize, .rms_norm = rms_norm, .add = add, .silu_multiply = silu_multiply,        \
    .rotate = rotate, .store_kv = store_kv, .attend = attend, .max = row_max, .exp_sum = exp_sum
