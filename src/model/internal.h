// SPDX-License-Identifier: Apache-2.0
/* internal.h - a loaded model: what load.c fills and forward.c runs. */
#ifndef BATON_MODEL_INTERNAL_H
#define BATON_MODEL_INTERNAL_H

#include "model.h"

typedef struct Layer {
    Matrix q, k, v, o, gate, up, down;
    const float *attention_norm, *feed_forward_norm; /* [width] */
} Layer;

#define SLICE_ROWS                                                                                 \
    256 /* rows that go through the layers together: their activations stay in L2 and L3 */

typedef struct Scratch {      /* of one pass over a slice */
    float *x, *normed;        /* [rows][width]; normed also holds what is to be added to x next */
    float *q, *attended;      /* [rows][heads * head_dim] */
    float *k, *v;             /* [rows][kv_heads * head_dim] */
    float *gate, *up;         /* [rows][feed_forward] */
    float *cosine, *sine;     /* [rows][head_dim / 2] */
    void *quantised;          /* activations_bytes() of the widest */
    float **attend;           /* per member: attend_scratch() */
    void *memory;
    size_t bytes;
} Scratch;

struct Model {
    ModelShape shape;
    size_t context;
    Gguf *gguf;
    Tokenizer *tokenizer;
    uint64_t fingerprint;
    Team *team;
    Layer *layers;
    Matrix head;
    const float *output_norm;
    const GgufTensor *embedding;
    const WeightInfo *embedding_type;
    double *rotary_step;      /* [head_dim / 2]: radians per token */
    uint8_t *weights;
    size_t weight_bytes;
    Scratch scratch;
};

bool scratch_init(Model *model, Err *err) MUST_CHECK;
void scratch_done(Model *model);

#endif
