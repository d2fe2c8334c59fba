// SPDX-License-Identifier: Apache-2.0
/* matrix.h - a weight matrix repacked for the kernels, and activations to multiply it with.
 *
 * y[row][n] = sum over k of x[row][k] * w[n][k]; n is an output, k an input.  A tile holds 16
 * outputs, and an output is a lane, so nothing is ever summed across lanes:
 *
 *   quantised  [group of 32 k][quants 256 (4 bits) or 512 (8 bits) bytes] [group][16 scales]
 * [group][16 minima] 4 bits   64 bytes = 16 lanes x 2 words; word p of a lane holds q[8i+2t+p] in
 * nibble t   (i: which 64 bytes) 8 bits   64 bytes = 16 lanes x 2 words; word p of a lane holds
 * q[4i+2t+p] in byte t floats     [k][16] of F32, F16 or BF16
 *
 * Activations are 16-bit integers with a scale for every 32 of a row: x = scale * q, |q| <= 32767.
 * The product of a group is then an exact 32-bit sum s, and a lane goes through the groups in order
 * of k: acc = fma(d * scale, s, acc);  acc = fma(m, scale * sum(q), acc) Float matrices take the
 * activations as floats: acc = fma(w, x, acc) in order of k. */
#ifndef BATON_TENSOR_MATRIX_H
#define BATON_TENSOR_MATRIX_H

#include "weight.h"

#define TILE 16 /* outputs of a tile: lanes */

typedef struct Matrix {
    const WeightInfo *weight;
    size_t outputs, inputs;      /* as in the file */
    size_t tiles, tile_bytes;
    size_t scales_at, minima_at; /* offsets within a tile */
    uint8_t *data;               /* tiles * tile_bytes, aligned to 64 */
} Matrix;

size_t matrix_bytes(const WeightInfo *weight, size_t outputs,
                    size_t inputs); /* that matrix_init() needs */
void matrix_init(Matrix *matrix, const WeightInfo *weight, size_t outputs, size_t inputs,
                 uint8_t *memory);
/* Packs one tile from the file's rows; row_of[i] is the file row of output i (NULL: i).  Tiles are
 * independent. */
void matrix_pack_tile(Matrix *matrix, size_t tile, const uint8_t *rows, const uint32_t *row_of);

typedef struct Activations { /* rows of inputs, quantised group by group so that a group's rows lie
                                together */
    size_t rows, inputs;
    int16_t *q;              /* [inputs/32][rows][32] */
    float *scale;            /* [inputs/32][rows] */
    float *sum;              /* [inputs/32][rows], scale * sum(q) */
    const float *x;          /* [rows][inputs], the floats themselves */
} Activations;

size_t activations_bytes(size_t rows, size_t inputs); /* without x */
void activations_init(Activations *activations, size_t rows, size_t inputs, const float *x,
                      void *memory);

#endif
