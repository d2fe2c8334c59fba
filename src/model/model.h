// SPDX-License-Identifier: Apache-2.0
/* model.h - loads GGUF files, tokenises, and runs one forward pass over a batch.
 *
 *   gguf.h       the file: metadata and tensors, checked
 *   tokenizer.h  text to tokens and back
 *   family.h     what a family of models is: a row of a table
 *   model.h      the weights in the kernels' layout, and the pass
 *
 * A batch is a list of pieces: some consecutive tokens of one sequence each, with the KV pages of
 * all its tokens so far.  A row's result depends on its own sequence alone, bit for bit: not on the
 * other pieces, the place where a prompt was cut, the number of threads, or the kernel set. Thread:
 * one caller at a time (the engine worker); the accessors may be used from any thread. */
#ifndef BATON_MODEL_H
#define BATON_MODEL_H

#include "tensor/tensor.h"

#include "family.h"
#include "gguf.h"
#include "tokenizer.h"

typedef struct Model Model;
typedef struct ModelConf {
    const char *path;
    unsigned threads;
    size_t context; /* the most tokens of a sequence; 0: as the file says */
} ModelConf;

Model *model_open(const ModelConf *conf, Err *err) MUST_CHECK;
void model_close(Model *model);
const ModelShape *model_shape(const Model *model);
const Gguf *model_gguf(const Model *model);
const Tokenizer *model_tokenizer(const Model *model);
uint64_t model_fingerprint(const Model *model); /* of the file and of how we compute with it */
size_t model_context(const Model *model);
size_t model_weight_bytes(const Model *model);  /* of the repacked matrices */
unsigned model_threads(const Model *model);

/* KV pages hold PAGE_TOKENS tokens of all layers: [layer][k|v][kv_head], see tensor/kernels.h. */
size_t model_page_bytes(const Model *model);

typedef struct Piece {
    const int32_t *tokens;
    size_t rows;
    size_t first_token;    /* the place of tokens[0] in its sequence */
    uint8_t *const
        *pages; /* of tokens 0 .. first_token + rows - 1; those of this piece are written */
    size_t wanted;         /* how many of its last rows give a hidden state */
} Piece;

/* hidden: [all wanted rows, piece after piece][width].  Any number of rows. */
void model_forward(Model *model, const Piece *pieces, size_t count, float *hidden);
/* logits: [rows][vocab] */
void model_logits(Model *model, const float *hidden, size_t rows, float *logits);

#endif
