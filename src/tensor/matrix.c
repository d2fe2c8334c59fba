// SPDX-License-Identifier: Apache-2.0
#include "matrix.h"

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Fills in the sizes; the memory comes later. */
static void lay_out(Matrix *m, const WeightInfo *w, size_t outputs, size_t inputs) {
    *m = (Matrix){
        .weight = w, .outputs = outputs, .inputs = inputs, .tiles = (outputs + TILE - 1) / TILE};
    if (!w->bits) {
        m->tile_bytes = round_up(inputs * TILE * w->bytes, 64);
        return;
    }
    assert(inputs % WEIGHT_GROUP == 0);
    size_t groups = inputs / WEIGHT_GROUP,
           scale = w->float_scales ? sizeof(float) : sizeof(uint16_t);
    m->scales_at = groups * TILE * WEIGHT_GROUP * w->bits / 8;
    m->minima_at = m->scales_at + groups * TILE * scale * (w->two_scales ? 2 : 1);
    m->tile_bytes = round_up(m->minima_at + (w->minimum ? groups * TILE * scale : 0), 64);
}

size_t matrix_bytes(const WeightInfo *weight, size_t outputs, size_t inputs) {
    Matrix m;
    lay_out(&m, weight, outputs, inputs);
    return m.tiles * m.tile_bytes;
}

void matrix_init(Matrix *matrix, const WeightInfo *weight, size_t outputs, size_t inputs,
                 uint8_t *memory) {
    lay_out(matrix, weight, outputs, inputs);
    assert(((uintptr_t)memory & 63) == 0);
    matrix->data = memory;
}

static void put_scale(uint8_t *at, bool as_float, float value, uint16_t half) {
    if (as_float) memcpy(at, &value, sizeof value);
    else memcpy(at, &half, sizeof half);
}

/* One group of one lane into the tile, see the picture in matrix.h. */
static void put_group(const Matrix *m, uint8_t *tile, size_t g, size_t lane,
                      const WeightGroup *group) {
    const WeightInfo *w = m->weight;
    size_t scale = w->float_scales ? sizeof(float) : sizeof(uint16_t),
           scales = w->two_scales ? 2 : 1;
    if (w->bits == 4) {
        uint8_t *quants = tile + g * 256 + lane * 4;
        for (size_t i = 0; i < 4; i++, quants += 64)
            for (size_t p = 0; p < 2; p++) {
                const int8_t *q = group->q + 8 * i + p;
                quants[2 * p] = (uint8_t)((q[0] + w->bias) | (q[2] + w->bias) << 4);
                quants[2 * p + 1] = (uint8_t)((q[4] + w->bias) | (q[6] + w->bias) << 4);
            }
    } else {
        uint8_t *quants = tile + g * 512 + lane * 4;
        for (size_t i = 0; i < 8; i++, quants += 64) {
            const int8_t *q = group->q + 4 * i;
            quants[0] = (uint8_t)q[0];
            quants[1] = (uint8_t)q[2];
            quants[2] = (uint8_t)q[1];
            quants[3] = (uint8_t)q[3];
        }
    }
    for (size_t s = 0; s < scales; s++)
        put_scale(tile + m->scales_at + ((g * scales + s) * TILE + lane) * scale, w->float_scales,
                  group->d[s], group->half_d);
    if (w->minimum)
        put_scale(tile + m->minima_at + (g * TILE + lane) * scale, w->float_scales, group->m,
                  group->half_m);
}

void matrix_pack_tile(Matrix *matrix, size_t tile, const uint8_t *rows, const uint32_t *row_of) {
    const WeightInfo *w = matrix->weight;
    uint8_t *to = matrix->data + tile * matrix->tile_bytes;
    size_t row_bytes = weight_row_bytes(w, matrix->inputs);
    for (size_t lane = 0; lane < TILE; lane++) {
        size_t output = tile * TILE + lane;
        if (output >= matrix->outputs) break; /* the memory came zeroed: such lanes compute zeros */
        const uint8_t *row = rows + (row_of ? row_of[output] : output) * row_bytes;
        if (!w->bits) {
            for (size_t k = 0; k < matrix->inputs; k++)
                memcpy(to + (k * TILE + lane) * w->bytes, row + k * w->bytes, w->bytes);
            continue;
        }
        WeightGroup group;
        for (size_t g = 0; g < matrix->inputs / WEIGHT_GROUP; g++) {
            size_t k = g * WEIGHT_GROUP;
            w->group(row + k / w->block * w->bytes, k % w->block / WEIGHT_GROUP, &group);
            put_group(matrix, to, g, lane, &group);
        }
    }
}

size_t activations_bytes(size_t rows, size_t inputs) {
    return rows * inputs * sizeof(int16_t) + 2 * rows * (inputs / WEIGHT_GROUP) * sizeof(float) +
           64;
}

void activations_init(Activations *activations, size_t rows, size_t inputs, const float *x,
                      void *memory) {
    size_t groups = inputs / WEIGHT_GROUP;
    *activations = (Activations){.rows = rows, .inputs = inputs, .q = memory, .x = x};
    activations->scale = (float *)(activations->q + rows * inputs);
    activations->sum = activations->scale + rows * groups;
}
