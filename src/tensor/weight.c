// SPDX-License-Identifier: Apache-2.0
#include "weight.h"

float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31,
             fraction = half & 1023;
    uint32_t bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0); /* quiet NaN */
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float value = (float)fraction * 0x1p-24f; /* exact */
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) /* infinity or NaN */
        return (uint16_t)(sign | 0x7c00 |
                          (magnitude > 0x7f800000 ? 0x200 | (magnitude >> 13 & 0x3ff) : 0));
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    uint32_t drop = 13, base;
    if (magnitude >= 0x38800000) { /* normal as half */
        base = magnitude - (112u << 23);
    } else {
        uint32_t exponent = magnitude >> 23;
        if (exponent < 102) return (uint16_t)sign; /* below half of the least subnormal */
        base = (magnitude & 0x7fffff) | 0x800000;
        drop = 126 - exponent;
    }
    uint32_t kept = base >> drop, rest = base & ((1u << drop) - 1), tie = 1u << (drop - 1);
    kept += rest > tie || (rest == tie && (kept & 1)); /* a carry into the exponent is right */
    return (uint16_t)(sign | kept);
}

static uint16_t half_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void scales_of_halves(WeightGroup *out, const uint8_t *d, const uint8_t *m) {
    out->half_d = half_at(d);
    out->d[0] = out->d[1] = half_to_float(out->half_d);
    out->half_m = m ? half_at(m) : 0;
    out->m = m ? half_to_float(out->half_m) : 0;
}

static void nibbles(const uint8_t *qs, int8_t q[WEIGHT_GROUP], int minus) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((qs[i] & 15) - minus);
        q[i + 16] = (int8_t)((qs[i] >> 4) - minus);
    }
}

static void group_q4_0(const uint8_t *b, size_t index, WeightGroup *out) {
    (void)index;
    scales_of_halves(out, b, NULL);
    nibbles(b + 2, out->q, 8);
}

static void group_q4_1(const uint8_t *b, size_t index, WeightGroup *out) {
    (void)index;
    scales_of_halves(out, b, b + 2);
    nibbles(b + 4, out->q, 0);
}

static void fifth_bits(const uint8_t *qh, int8_t q[WEIGHT_GROUP]) {
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + ((qh[i / 8] >> i % 8 & 1) << 4));
}

static void group_q5_0(const uint8_t *b, size_t index, WeightGroup *out) {
    (void)index;
    scales_of_halves(out, b, NULL);
    nibbles(b + 6, out->q, 16);
    fifth_bits(b + 2, out->q);
}

static void group_q5_1(const uint8_t *b, size_t index, WeightGroup *out) {
    (void)index;
    scales_of_halves(out, b, b + 2);
    nibbles(b + 8, out->q, 0);
    fifth_bits(b + 4, out->q);
}

static void group_q8_0(const uint8_t *b, size_t index, WeightGroup *out) {
    (void)index;
    scales_of_halves(out, b, NULL);
    memcpy(out->q, b + 2, WEIGHT_GROUP);
}

/* The 6-bit scale and minimum of group j, of the 12 bytes that hold eight of each. */
static void scales_of_k(WeightGroup *out, const uint8_t *b, size_t j) {
    const uint8_t *s = b + 4;
    unsigned scale = j < 4 ? s[j] & 63u : (s[j + 4] & 15u) | (s[j - 4] >> 6) << 4;
    unsigned minimum = j < 4 ? s[j + 4] & 63u : (unsigned)(s[j + 4] >> 4) | (s[j] >> 6) << 4;
    out->d[0] = out->d[1] = half_to_float(half_at(b)) * (float)scale; /* 11 x 6 bits: exact */
    out->m = -(half_to_float(half_at(b + 2)) * (float)minimum);
    out->half_d = out->half_m = 0;
}

static void group_q4_k(const uint8_t *b, size_t index, WeightGroup *out) {
    scales_of_k(out, b, index);
    const uint8_t *qs = b + 16 + index / 2 * 32;
    for (int i = 0; i < 32; i++) out->q[i] = (int8_t)(index & 1 ? qs[i] >> 4 : qs[i] & 15);
}

static void group_q5_k(const uint8_t *b, size_t index, WeightGroup *out) {
    scales_of_k(out, b, index);
    const uint8_t *qs = b + 48 + index / 2 * 32, *qh = b + 16;
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)((index & 1 ? qs[i] >> 4 : qs[i] & 15) + ((qh[i] >> index & 1) << 4));
}

static void group_q6_k(const uint8_t *b, size_t index, WeightGroup *out) {
    size_t half = index / 4,
           part = index % 4; /* 128 elements share 64 + 32 bytes, in four parts of 32 */
    const uint8_t *ql = b + half * 64 + (part & 1) * 32, *qh = b + 128 + half * 32;
    const int8_t *scales = (const int8_t *)b + 192 + half * 8 + part * 2;
    float d = half_to_float(half_at(b + 208));
    for (int i = 0; i < 32; i++) {
        unsigned low = part < 2 ? ql[i] & 15u : ql[i] >> 4u, high = qh[i] >> 2 * part & 3u;
        out->q[i] = (int8_t)((int)(low | high << 4) - 32);
    }
    out->d[0] = d * (float)scales[0];
    out->d[1] = d * (float)scales[1];
    out->m = 0;
    out->half_d = out->half_m = 0;
}

static const WeightInfo infos[] = {
    {.type = WEIGHT_F32, .name = "F32", .block = 1, .bytes = 4},
    {.type = WEIGHT_F16, .name = "F16", .block = 1, .bytes = 2},
    {.type = WEIGHT_BF16, .name = "BF16", .block = 1, .bytes = 2},
    {.type = WEIGHT_Q4_0,
     .name = "Q4_0",
     .block = 32,
     .bytes = 18,
     .bits = 4,
     .bias = 8,
     .group = group_q4_0},
    {.type = WEIGHT_Q4_1,
     .name = "Q4_1",
     .block = 32,
     .bytes = 20,
     .bits = 4,
     .minimum = true,
     .group = group_q4_1},
    {.type = WEIGHT_Q5_0, .name = "Q5_0", .block = 32, .bytes = 22, .bits = 8, .group = group_q5_0},
    {.type = WEIGHT_Q5_1,
     .name = "Q5_1",
     .block = 32,
     .bytes = 24,
     .bits = 8,
     .minimum = true,
     .group = group_q5_1},
    {.type = WEIGHT_Q8_0, .name = "Q8_0", .block = 32, .bytes = 34, .bits = 8, .group = group_q8_0},
    {.type = WEIGHT_Q4_K,
     .name = "Q4_K",
     .block = 256,
     .bytes = 144,
     .bits = 4,
     .minimum = true,
     .float_scales = true,
     .group = group_q4_k},
    {.type = WEIGHT_Q5_K,
     .name = "Q5_K",
     .block = 256,
     .bytes = 176,
     .bits = 8,
     .minimum = true,
     .float_scales = true,
     .group = group_q5_k},
    {.type = WEIGHT_Q6_K,
     .name = "Q6_K",
     .block = 256,
     .bytes = 210,
     .bits = 8,
     .float_scales = true,
     .two_scales = true,
     .group = group_q6_k},
};

const WeightInfo *weight_info(uint32_t type) {
    for (size_t i = 0; i < COUNT_OF(infos); i++)
        if ((uint32_t)infos[i].type == type) return &infos[i];
    return NULL;
}

size_t weight_row_bytes(const WeightInfo *info, size_t columns) {
    assert(columns % info->block == 0);
    return columns / info->block * info->bytes;
}

static float float_at(const WeightInfo *info, const uint8_t *at) {
    uint32_t bits;
    float value;
    if (info->type == WEIGHT_F16) return half_to_float(half_at(at));
    if (info->type == WEIGHT_BF16) bits = (uint32_t)half_at(at) << 16;
    else memcpy(&bits, at, 4);
    memcpy(&value, &bits, 4);
    return value;
}

void weight_row(const WeightInfo *info, const uint8_t *row, size_t columns, float *out) {
    if (!info->bits) {
        for (size_t i = 0; i < columns; i++) out[i] = float_at(info, row + i * info->bytes);
        return;
    }
    WeightGroup group;
    for (size_t i = 0; i < columns; i += WEIGHT_GROUP) {
        info->group(row + i / info->block * info->bytes, i % info->block / WEIGHT_GROUP, &group);
        for (size_t k = 0; k < WEIGHT_GROUP; k++)
            out[i + k] = group.d[k / 16] * (float)group.q[k] + group.m;
    }
}
