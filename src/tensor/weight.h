// SPDX-License-Identifier: Apache-2.0
/* weight.h - the weight types of GGUF files: sizes, and what the bytes of a block mean.
 *
 * Source of the formats: ggml's quantisation as stored in GGUF v2 and v3 (little endian).
 * With q the stored integer of an element, a block means
 *     Q8_0, Q5_0, Q4_0, Q6_K    w = d * q             (q signed; Q6_K: one d for every 16 elements)
 *     Q5_1, Q4_1, Q5_K, Q4_K    w = d * q + m         (q >= 0; K types: m = -dmin * min)
 * d and m of the K types are products that half precision cannot hold: they are kept as floats. */
#ifndef BATON_TENSOR_WEIGHT_H
#define BATON_TENSOR_WEIGHT_H

#include "base/base.h"

typedef enum WeightType { /* GGUF's numbers */
                          WEIGHT_F32 = 0,
                          WEIGHT_F16 = 1,
                          WEIGHT_Q4_0 = 2,
                          WEIGHT_Q4_1 = 3,
                          WEIGHT_Q5_0 = 6,
                          WEIGHT_Q5_1 = 7,
                          WEIGHT_Q8_0 = 8,
                          WEIGHT_Q4_K = 12,
                          WEIGHT_Q5_K = 13,
                          WEIGHT_Q6_K = 14,
                          WEIGHT_BF16 = 30,
} WeightType;

#define WEIGHT_GROUP 32 /* elements that are unpacked and multiplied together */

typedef struct WeightGroup { /* 32 elements of one row, unpacked; of quantised types only */
    int8_t q[WEIGHT_GROUP];
    float d[2];             /* of elements 0..15 and 16..31; equal except for Q6_K */
    float m;                /* 0 for types without a minimum */
    uint16_t half_d, half_m; /* d and m as stored, for the types that store halves */
} WeightGroup;

typedef struct WeightInfo {
    WeightType type;
    const char *name;
    uint32_t block, bytes; /* elements and bytes of one block */
    uint32_t bits;         /* that a tile keeps of q: 4 or 8; 0: a float type */
    int8_t bias;           /* a tile of 4 bits keeps q + bias */
    bool minimum;          /* has m */
    bool float_scales;     /* d and m are products: floats, not halves */
    bool two_scales;       /* one d for every 16 elements */
    void (*group)(const uint8_t *block, size_t index,
                  WeightGroup *out); /* the index-th 32 of the block */
} WeightInfo;

const WeightInfo *weight_info(uint32_t type); /* NULL: a type we do not know */
size_t weight_row_bytes(const WeightInfo *info,
                        size_t columns); /* columns: a multiple of info->block */
void weight_row(const WeightInfo *info, const uint8_t *row, size_t columns,
                float *out); /* as floats */

float half_to_float(uint16_t half);
uint16_t float_to_half(float value); /* round to nearest, ties to even, as VCVTPS2PH does */

#endif
