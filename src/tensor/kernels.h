// SPDX-License-Identifier: Apache-2.0
/* kernels.h - the table of kernels: scalar defines the answer, AVX2 and AVX-512 give the same bits
 * faster.
 *
 * Reductions over a row (norm, softmax) run in 16 lanes, lane i taking elements i, i+16, ..., and
 * end in one tree: 16 lanes to 8, 4, 2, 1.  Lengths are multiples of 16 unless a kernel says
 * otherwise. Thread: any; a kernel writes only what its arguments name. */
#ifndef BATON_TENSOR_KERNELS_H
#define BATON_TENSOR_KERNELS_H

#include "matrix.h"

#define PAGE_TOKENS 16 /* of a KV page: K [dim][16] and V [16][dim], halves */

typedef struct AttendJob {    /* one KV head of one sequence, some of its query rows */
    const uint8_t *const *pages; /* page t/16 holds token t; K of this head at +k_at, V at +v_at */
    size_t k_at, v_at;
    size_t dim;               /* of a head: a multiple of 16, at most ATTEND_DIM_MAX */
    size_t heads;             /* query heads that share this KV head */
    size_t rows, first_token; /* query row r stands at token first_token + r and sees tokens
                                 0..first_token + r */
    const float *q;           /* [rows][q_stride], this KV head's query heads side by side */
    float *out;               /* the same shape */
    size_t stride;
    float scale;              /* of the scores: 1/sqrt(dim) */
    float *scratch;           /* attend_scratch() floats */
} AttendJob;
#define ATTEND_DIM_MAX 256
#define ATTEND_ROWS 6 /* (row, head) pairs that go through the keys together */

typedef struct Kernels {
    const char *name;
    bool (*runs_here)(void);
    /* y[r][n] for r in all rows of x and the outputs n of tiles begin..end-1; y has `stride` floats
     * a row */
    void (*multiply)(const Matrix *w, const Activations *x, size_t begin, size_t end, float *y,
                     size_t stride);
    void (*quantize)(Activations *x, size_t row_begin, size_t row_end);
    void (*rms_norm)(float *out, const float *x, const float *weight, size_t n, float epsilon);
    void (*add)(float *x, const float *y, size_t n);                     /* x += y */
    void (*silu_multiply)(float *gate, const float *up,
                          size_t n); /* gate = gate / (1 + exp(-gate)) * up */
    void (*rotate)(float *x, size_t heads, size_t dim, const float *cos,
                   const float *sin); /* dims i and i+dim/2 */
    void (*store_kv)(uint8_t *k, uint8_t *v, size_t slot, const float *k_row, const float *v_row,
                     size_t dim);
    void (*attend)(const AttendJob *job);
    float (*max)(const float *x, size_t n);                              /* any n >= 1 */
    float (*exp_sum)(const float *x, size_t n, float minus, float times,
                     float *out); /* sum of exp((x-minus)*times); out may be NULL; any n */
} Kernels;

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512;
extern const Kernels *const kernels_all[]; /* best first, ends with NULL */
extern const Kernels *kernels;             /* the chosen set */

/* Takes the best that runs here, or the one that `name` (BATON_KERNELS) forces; NULL or "": choose.
 */
bool kernels_init(const char *name, Err *err) MUST_CHECK;

size_t attend_scratch(size_t tokens, size_t dim); /* floats, for contexts of up to `tokens` */

#endif
