// SPDX-License-Identifier: Apache-2.0
/* body_multiply.h - the matrix product, written once for the sets with wide registers.
 *
 * A kernel file defines, beyond what body_float.h needs: ROWS (of activations whose sums stay in
 * registers), BLOCK_ROWS and PANEL (rows and groups of activations that stay in L1 while all tiles
 * pass); Words, the unpacked weights of one group; Sums, 16 int32 sums; words_unpack(); words_dot()
 * for the word pairs begin..end-1 of 16; sums_zero(), sums_to_floats(); f_from_bf16(). */

typedef struct Group { Words w; F d0, d1, m; } Group;
typedef struct Block { size_t row, rows, group, group_end; } Block; /* of activations */

INLINE F scales(const uint8_t *at, bool as_float, size_t index) {
    return as_float ? f_load((const float *)(const void *)at + index * TILE)
                    : f_from_half((const uint16_t *)(const void *)at + index * TILE);
}

/* acc[r] of `rows` rows through one group */
INLINE void multiply_rows(const size_t rows, const WeightInfo kind, const Group *group,
                          const int16_t *q, const float *scale, const float *sum, F *acc) {
    Sums sums[ROWS];
    UNROLL for (size_t r = 0; r < rows; r++) sums[r] = sums_zero();
    if (kind.two_scales) {
        words_dot(rows, &group->w, 0, 8, q, sums);
        UNROLL for (size_t r = 0; r < rows; r++) {
            acc[r] = f_fma(f_mul(group->d0, f_set1(scale[r])), sums_to_floats(sums[r]), acc[r]);
            sums[r] = sums_zero();
        }
        words_dot(rows, &group->w, 8, 16, q, sums);
    } else {
        words_dot(rows, &group->w, 0, 16, q, sums);
    }
    UNROLL for (size_t r = 0; r < rows; r++) {
        F a = f_fma(f_mul(group->d1, f_set1(scale[r])), sums_to_floats(sums[r]), acc[r]);
        if (kind.minimum) a = f_fma(group->m, f_set1(sum[r]), a);
        acc[r] = a;
    }
}

/* What one row needs per second is more than the hardware fetches ahead on its own: 8 GB/s without,
 * 20 with (Zen 5).  The scales of the next tile are fetched beside those of this one. */
#define PREFETCH_BYTES 4096

INLINE void prefetch_group(const WeightInfo kind, const Matrix *m, const uint8_t *tile, size_t g) {
    const uint8_t *quants = tile + g * kind.bits * 64 + PREFETCH_BYTES;
    UNROLL for (size_t i = 0; i < kind.bits; i++) __builtin_prefetch(quants + i * 64);
    const size_t scale_bytes = TILE * (kind.float_scales ? sizeof(float) : sizeof(uint16_t));
    __builtin_prefetch(tile + m->tile_bytes + m->scales_at +
                       g * scale_bytes * (kind.two_scales ? 2 : 1));
    if (kind.minimum) __builtin_prefetch(tile + m->tile_bytes + m->minima_at + g * scale_bytes);
}

/* `kind` is a constant of each caller: everything it decides is decided at compile time. */
INLINE void multiply_groups(const WeightInfo kind, const Matrix *m, const uint8_t *tile,
                            const Activations *x, const Block *block, F *acc) {
    for (size_t g = block->group; g < block->group_end; g++) {
        Group group;
        prefetch_group(kind, m, tile, g);
        words_unpack(&group.w, tile + g * kind.bits * 64, kind.bits, kind.bias);
        size_t per = kind.two_scales ? 2 : 1;
        group.d0 = scales(tile + m->scales_at, kind.float_scales, per * g);
        group.d1 =
            kind.two_scales ? scales(tile + m->scales_at, kind.float_scales, 2 * g + 1) : group.d0;
        group.m = kind.minimum ? scales(tile + m->minima_at, kind.float_scales, g) : f_set1(0);
        size_t at = g * x->rows + block->row;
#define STEP(n)                                                                                    \
    multiply_rows(n, kind, &group, x->q + (at + r) * WEIGHT_GROUP, x->scale + at + r,              \
                  x->sum + at + r, acc + r),                                                       \
        r += n
        size_t r = 0;
        while (r + ROWS <= block->rows) STEP(ROWS);
        if (ROWS > 4 && r + 4 <= block->rows) STEP(4);
        if (r + 2 <= block->rows) STEP(2);
        if (r < block->rows) STEP(1);
#undef STEP
    }
}

INLINE F float_weights(WeightType type, const uint8_t *tile, size_t k) {
    if (type == WEIGHT_F32) return f_load((const float *)(const void *)tile + k * TILE);
    const uint16_t *shorts = (const uint16_t *)(const void *)tile + k * TILE;
    return type == WEIGHT_F16 ? f_from_half(shorts) : f_from_bf16(shorts);
}

INLINE void multiply_floats(WeightType type, const uint8_t *tile, const Activations *x,
                            const Block *block, F *acc) {
    for (size_t begin = 0; begin < block->rows; begin += FLOAT_ROWS) {
        size_t n = block->rows - begin < FLOAT_ROWS ? block->rows - begin : FLOAT_ROWS;
        const float *from[FLOAT_ROWS];
        F sum[FLOAT_ROWS];
        UNROLL for (size_t r = 0; r < FLOAT_ROWS;
                    r++) { /* rows that are not there repeat the last */
            size_t row = begin + (r < n ? r : n - 1);
            from[r] = x->x + (block->row + row) * x->inputs;
            sum[r] = acc[row];
        }
        for (size_t k = block->group * WEIGHT_GROUP; k < block->group_end * WEIGHT_GROUP; k++) {
            F w = float_weights(type, tile, k);
            UNROLL for (size_t r = 0; r < FLOAT_ROWS; r++) sum[r] =
                f_fma(w, f_set1(from[r][k]), sum[r]);
        }
        for (size_t r = 0; r < n; r++) acc[begin + r] = sum[r];
    }
}

#define QUANTISED(b, minus, has_minimum, floats, two)                                              \
    multiply_groups((WeightInfo){.bits = b,                                                        \
                                 .bias = minus,                                                    \
                                 .minimum = has_minimum,                                           \
                                 .float_scales = floats,                                           \
                                 .two_scales = two},                                               \
                    m, tile, x, block, acc)

static void multiply_block(const Matrix *m, const uint8_t *tile, const Activations *x,
                           const Block *block, F *acc) {
    switch (m->weight->type) {
    case WEIGHT_F32: multiply_floats(WEIGHT_F32, tile, x, block, acc); break;
    case WEIGHT_F16: multiply_floats(WEIGHT_F16, tile, x, block, acc); break;
    case WEIGHT_BF16: multiply_floats(WEIGHT_BF16, tile, x, block, acc); break;
    case WEIGHT_Q4_0: QUANTISED(4, 8, false, false, false); break;
    case WEIGHT_Q4_1: QUANTISED(4, 0, true, false, false); break;
    case WEIGHT_Q4_K: QUANTISED(4, 0, true, true, false); break;
    case WEIGHT_Q5_0:
    case WEIGHT_Q8_0: QUANTISED(8, 0, false, false, false); break;
    case WEIGHT_Q5_1: QUANTISED(8, 0, true, false, false); break;
    case WEIGHT_Q5_K: QUANTISED(8, 0, true, true, false); break;
    case WEIGHT_Q6_K: QUANTISED(8, 0, false, true, true); break;
    }
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* y carries the sums from one panel to the next: a lane still goes through all groups in order. */
static void multiply(const Matrix *m, const Activations *x, size_t begin, size_t end, float *y,
                     size_t stride) {
    size_t groups = x->inputs / WEIGHT_GROUP;
    F acc[BLOCK_ROWS];
    Block b;
    for (b.row = 0; b.row < x->rows; b.row += BLOCK_ROWS) {
        b.rows = least(BLOCK_ROWS, x->rows - b.row);
        for (b.group = 0; b.group < groups; b.group += PANEL) {
            b.group_end = least(b.group + PANEL, groups);
            for (size_t t = begin; t < end; t++) {
                size_t lanes = least(m->outputs - t * TILE, TILE);
                float *to = y + b.row * stride + t * TILE;
                for (size_t r = 0; r < b.rows; r++)
                    acc[r] = b.group ? load_some(to + r * stride, lanes, 0) : f_set1(0);
                multiply_block(m, m->data + t * m->tile_bytes, x, &b, acc);
                for (size_t r = 0; r < b.rows; r++) store_some(to + r * stride, lanes, acc[r]);
            }
        }
    }
}
