// SPDX-License-Identifier: Apache-2.0
/* AVX-512 with VNNI: a tile's 16 outputs are one register. */
#include "kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#include <immintrin.h>

typedef __m512 F;

static inline F f_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void f_store(float *p, F a) { _mm512_storeu_ps(p, a); }
static inline F f_set1(float x) { return _mm512_set1_ps(x); }
static inline F f_add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F f_sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F f_mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F f_div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F f_fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F f_max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F f_min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F f_abs(F a) { return _mm512_abs_ps(a); }
static inline F f_keep(F a, size_t n, float other) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), (__mmask16)((1u << n) - 1), a);
}
static inline F f_from_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void f_to_half(uint16_t *p, F a) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline F f_power2(F n) {
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
static inline int32_t f_to_words(int16_t *p, F a) {
    __m512i words = _mm512_cvtps_epi32(a);
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtsepi32_epi16(words));
    return _mm512_reduce_add_epi32(words);
}
static inline float f_reduce_max(F a) { return _mm512_reduce_max_ps(a); }

#define SCORE_PAGES 4
#define VALUE_LANES 4
#include "body_float.h"

static inline F f_from_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* 24 rows of 18 groups are 27 KiB.  Measured on Zen 5: 8 rows at once 189 G multiply-accumulates/s,
 * 4 rows 181; blocks that leave L1 lose a tenth. */
#define ROWS 8
#define BLOCK_ROWS 24
#define PANEL 18
#define FLOAT_ROWS 8

/* A group's weights as 16 registers of word pairs: lane = output, w[j] = k 2j and 2j+1. */
typedef struct Words { __m512i w[16]; } Words;

INLINE void words_unpack(Words *words, const uint8_t *at, unsigned bits, int bias) {
    const __m512i mask = _mm512_set1_epi16(15), minus = _mm512_set1_epi16((short)bias);
    __m512i *w = words->w;
    if (bits == 4) {
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i n = _mm512_load_si512(at + 64 * i);
            w[4 * i] = _mm512_and_si512(n, mask);
            w[4 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(n, 4), mask);
            w[4 * i + 2] = _mm512_and_si512(_mm512_srli_epi16(n, 8), mask);
            w[4 * i + 3] = _mm512_srli_epi16(n, 12);
        }
        if (bias) UNROLL for (int j = 0; j < 16; j++) w[j] = _mm512_sub_epi16(w[j], minus);
    } else {
        UNROLL for (int i = 0; i < 8; i++) {
            __m512i n = _mm512_load_si512(at + 64 * i);
            w[2 * i] = _mm512_srai_epi16(_mm512_slli_epi16(n, 8), 8);
            w[2 * i + 1] = _mm512_srai_epi16(n, 8);
        }
    }
}

/* Two words of activations, read as one: the processor broadcasts it on the way from memory. */
typedef int32_t __attribute__((may_alias)) Pair;

/* Two chains where there are few rows: the latency of one would leave the multipliers idle. */
typedef struct Sums { __m512i even, odd; } Sums;

INLINE Sums sums_zero(void) { return (Sums){_mm512_setzero_si512(), _mm512_setzero_si512()}; }
INLINE F sums_to_floats(Sums s) { return _mm512_cvtepi32_ps(_mm512_add_epi32(s.even, s.odd)); }

INLINE void words_dot(const size_t rows, const Words *words, int begin, int end, const int16_t *q,
                      Sums *sums) {
    UNROLL for (int j = begin; j < end; j++) UNROLL for (size_t r = 0; r < rows; r++) {
        const Pair *x = (const Pair *)(const void *)(q + r * WEIGHT_GROUP);
        __m512i *sum = rows < 8 && j & 1 ? &sums[r].odd : &sums[r].even;
        *sum = _mm512_dpwssd_epi32(*sum, words->w[j], _mm512_set1_epi32(x[j]));
    }
}

#include "body_multiply.h"

static bool runs_here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

const Kernels kernels_avx512 = {
    .name = "avx512", .runs_here = runs_here, .multiply = multiply, FLOAT_KERNELS};
