// SPDX-License-Identifier: Apache-2.0
/* The plain C set: it defines the answer, and runs on every processor. */
#include "kernels.h"

#include <math.h>

typedef struct F { float v[16]; } F;

#define LANES for (int i = 0; i < 16; i++)
static inline F f_load(const float *p) { F r; LANES r.v[i] = p[i]; return r; }
static inline void f_store(float *p, F a) { LANES p[i] = a.v[i]; }
static inline F f_set1(float x) { F r; LANES r.v[i] = x; return r; }
static inline F f_add(F a, F b) { LANES a.v[i] += b.v[i]; return a; }
static inline F f_sub(F a, F b) { LANES a.v[i] -= b.v[i]; return a; }
static inline F f_mul(F a, F b) { LANES a.v[i] *= b.v[i]; return a; }
static inline F f_div(F a, F b) { LANES a.v[i] /= b.v[i]; return a; }
static inline F f_fma(F a, F b, F c) { LANES c.v[i] = fmaf(a.v[i], b.v[i], c.v[i]); return c; }
static inline F f_max(F a, F b) { LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
static inline F f_min(F a, F b) { LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
static inline F f_abs(F a) { LANES a.v[i] = fabsf(a.v[i]); return a; }
static inline F f_keep(F a, size_t n, float other) {
    LANES if ((size_t)i >= n) a.v[i] = other;
    return a;
}
static inline F f_from_half(const uint16_t *p) {
    F r;
    LANES r.v[i] = half_to_float(p[i]);
    return r;
}
static inline void f_to_half(uint16_t *p, F a) { LANES p[i] = float_to_half(a.v[i]); }
static inline F f_power2(F n) {
    LANES {
        uint32_t bits = (uint32_t)((int32_t)n.v[i] + 127) << 23;
        memcpy(&n.v[i], &bits, 4);
    }
    return n;
}
static inline int32_t f_to_words(int16_t *p, F a) {
    int32_t sum = 0;
    LANES sum += p[i] = (int16_t)lrintf(a.v[i]);
    return sum;
}
static inline float f_reduce_max(F a) {
    float most = a.v[0];
    LANES most = most > a.v[i] ? most : a.v[i];
    return most;
}

#define SCORE_PAGES 1
#define VALUE_LANES 1
#include "body_float.h"

/* The integers of one group of a tile, [lane][k]; the picture is in matrix.h. */
static void unpack(const Matrix *m, const uint8_t *tile, size_t g, int16_t w[TILE][WEIGHT_GROUP]) {
    bool four = m->weight->bits == 4;
    for (size_t lane = 0; lane < TILE; lane++) {
        const uint8_t *bytes = tile + g * (four ? 256 : 512) + lane * 4;
        for (size_t k = 0; k < WEIGHT_GROUP; k++) {
            size_t p = k & 1, t = k / 2;
            if (four) {
                uint8_t byte = bytes[t / 4 * 64 + 2 * p + t % 4 / 2];
                w[lane][k] = (int16_t)((t & 1 ? byte >> 4 : byte & 15) - m->weight->bias);
            } else {
                w[lane][k] = (int8_t)bytes[t / 2 * 64 + 2 * p + t % 2];
            }
        }
    }
}

static float scale_at(const Matrix *m, const uint8_t *at, size_t index) {
    float value;
    if (!m->weight->float_scales) return half_to_float(((const uint16_t *)(const void *)at)[index]);
    memcpy(&value, at + index * sizeof value, sizeof value);
    return value;
}

static void multiply_tile(const Matrix *m, const uint8_t *tile, const Activations *x, float *y,
                          size_t stride, size_t lanes) {
    int16_t w[TILE][WEIGHT_GROUP];
    size_t scales = m->weight->two_scales ? 2 : 1;
    for (size_t r = 0; r < x->rows; r++)
        for (size_t lane = 0; lane < lanes; lane++) y[r * stride + lane] = 0;
    for (size_t g = 0; g < x->inputs / WEIGHT_GROUP; g++) {
        unpack(m, tile, g, w);
        for (size_t r = 0; r < x->rows; r++) {
            const int16_t *q = x->q + (g * x->rows + r) * WEIGHT_GROUP;
            float scale = x->scale[g * x->rows + r], total = x->sum[g * x->rows + r];
            for (size_t lane = 0; lane < lanes; lane++) {
                float acc = y[r * stride + lane];
                size_t part = WEIGHT_GROUP / scales;
                for (size_t s = 0; s < scales; s++) {
                    int32_t sum = 0;
                    for (size_t k = s * part; k < (s + 1) * part; k++) sum += w[lane][k] * q[k];
                    float d = scale_at(m, tile + m->scales_at, (g * scales + s) * TILE + lane);
                    acc = fmaf(d * scale, (float)sum, acc);
                }
                if (m->weight->minimum)
                    acc = fmaf(scale_at(m, tile + m->minima_at, g * TILE + lane), total, acc);
                y[r * stride + lane] = acc;
            }
        }
    }
}

static void multiply_floats(const Matrix *m, const uint8_t *tile, const Activations *x, float *y,
                            size_t stride, size_t lanes) {
    for (size_t r = 0; r < x->rows; r++)
        for (size_t lane = 0; lane < lanes; lane++) {
            float acc = 0;
            for (size_t k = 0; k < x->inputs; k++) {
                float w;
                weight_row(m->weight, tile + (k * TILE + lane) * m->weight->bytes, 1, &w);
                acc = fmaf(w, x->x[r * x->inputs + k], acc);
            }
            y[r * stride + lane] = acc;
        }
}

static void multiply(const Matrix *m, const Activations *x, size_t begin, size_t end, float *y,
                     size_t stride) {
    for (size_t t = begin; t < end; t++) {
        size_t lanes = m->outputs - t * TILE < TILE ? m->outputs - t * TILE : TILE;
        (m->weight->bits ? multiply_tile : multiply_floats)(m, m->data + t * m->tile_bytes, x,
                                                            y + t * TILE, stride, lanes);
    }
}

static bool runs_here(void) { return true; }

const Kernels kernels_scalar = {
    .name = "scalar", .runs_here = runs_here, .multiply = multiply, FLOAT_KERNELS};
