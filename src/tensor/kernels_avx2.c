// SPDX-License-Identifier: Apache-2.0
/* AVX2 with FMA and F16C: a tile's 16 outputs are two registers. */
#include "kernels.h"

#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

typedef struct F { __m256 a, b; } F;

#define EACH(op, x, y) ((F){op((x).a, (y).a), op((x).b, (y).b)})
static inline F f_load(const float *p) { return (F){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void f_store(float *p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
static inline F f_set1(float x) { return (F){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F f_add(F x, F y) { return EACH(_mm256_add_ps, x, y); }
static inline F f_sub(F x, F y) { return EACH(_mm256_sub_ps, x, y); }
static inline F f_mul(F x, F y) { return EACH(_mm256_mul_ps, x, y); }
static inline F f_div(F x, F y) { return EACH(_mm256_div_ps, x, y); }
static inline F f_max(F x, F y) { return EACH(_mm256_max_ps, x, y); }
static inline F f_min(F x, F y) { return EACH(_mm256_min_ps, x, y); }
static inline F f_fma(F x, F y, F z) {
    return (F){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline F f_abs(F x) {
    F sign = f_set1(-0.0f);
    return (F){_mm256_andnot_ps(sign.a, x.a), _mm256_andnot_ps(sign.b, x.b)};
}
static inline F f_keep(F x, size_t n, float other) {
    _Alignas(32) float v[16];
    f_store(v, x);
    for (size_t i = n; i < 16; i++) v[i] = other;
    return f_load(v);
}
static inline F f_from_half(const uint16_t *p) {
    const __m128i *h = (const __m128i *)(const void *)p;
    return (F){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
static inline void f_to_half(uint16_t *p, F x) {
    __m128i *h = (__m128i *)(void *)p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline __m256 power2(__m256 n) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
static inline F f_power2(F n) { return (F){power2(n.a), power2(n.b)}; }
static inline int32_t f_to_words(int16_t *p, F x) {
    __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
    __m256i words = _mm256_packs_epi32(a, b), sums = _mm256_add_epi32(a, b);
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(words, 0xd8));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}
static inline float f_reduce_max(F x) {
    __m256 both = _mm256_max_ps(x.a, x.b);
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_shuffle_ps(most, most, 1)));
}

#define SCORE_PAGES 1
#define VALUE_LANES 1
#include "body_float.h"

static inline F f_from_bf16(const uint16_t *p) {
    const __m128i *h = (const __m128i *)(const void *)p;
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)),
            b = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (F){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
               _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}

#define ROWS 4
#define BLOCK_ROWS 24
#define PANEL 18
#define FLOAT_ROWS 4

/* A group's weights as word pairs, w[j] = k 2j and 2j+1, of each half of the lanes.  They lie in L1
 * while all rows pass: 16 registers would not hold them. */
typedef struct Words { __m256i w[16][2]; } Words;

INLINE void words_unpack(Words *words, const uint8_t *at, unsigned bits, int bias) {
    const __m256i mask = _mm256_set1_epi16(15), minus = _mm256_set1_epi16((short)bias);
    __m256i(*w)[2] = words->w;
    UNROLL for (int half = 0; half < 2; half++) {
        const __m256i *from = (const __m256i *)(const void *)at + half;
        if (bits == 4) {
            UNROLL for (int i = 0; i < 4; i++) {
                __m256i n = _mm256_load_si256(from + 2 * i);
                __m256i q[4] = {
                    _mm256_and_si256(n, mask), _mm256_and_si256(_mm256_srli_epi16(n, 4), mask),
                    _mm256_and_si256(_mm256_srli_epi16(n, 8), mask), _mm256_srli_epi16(n, 12)};
                UNROLL for (int t = 0; t < 4; t++)
                    w[4 * i + t][half] = bias ? _mm256_sub_epi16(q[t], minus) : q[t];
            }
        } else {
            UNROLL for (int i = 0; i < 8; i++) {
                __m256i n = _mm256_load_si256(from + 2 * i);
                w[2 * i][half] = _mm256_srai_epi16(_mm256_slli_epi16(n, 8), 8);
                w[2 * i + 1][half] = _mm256_srai_epi16(n, 8);
            }
        }
    }
}

typedef struct Sums { __m256i a, b; } Sums;

INLINE Sums sums_zero(void) { return (Sums){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE F sums_to_floats(Sums s) { return (F){_mm256_cvtepi32_ps(s.a), _mm256_cvtepi32_ps(s.b)}; }

INLINE void words_dot(const size_t rows, const Words *words, int begin, int end, const int16_t *q,
                      Sums *sums) {
    /* Four pairs at a time: given all 16, GCC computes every product before the first sum and
     * spills them. */
    _Pragma("GCC unroll 4") for (int j = begin; j < end; j++)
        UNROLL for (size_t r = 0; r < rows; r++) {
        int32_t pair;
        memcpy(&pair, q + r * WEIGHT_GROUP + 2 * j, sizeof pair);
        __m256i x = _mm256_set1_epi32(pair);
        sums[r].a = _mm256_add_epi32(sums[r].a, _mm256_madd_epi16(words->w[j][0], x));
        sums[r].b = _mm256_add_epi32(sums[r].b, _mm256_madd_epi16(words->w[j][1], x));
    }
}

#include "body_multiply.h"

static bool runs_here(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

const Kernels kernels_avx2 = {
    .name = "avx2", .runs_here = runs_here, .multiply = multiply, FLOAT_KERNELS};
