// SPDX-License-Identifier: Apache-2.0
/* family.h - what a family of models is: a row of a table; what one model of it is: a shape.
 *
 * All families so far are decoders with RMS norm, rotary positions, grouped heads and a gated SiLU
 * network: x += O attend(rotate(Q n), rotate(K n), V n), n = norm(x);  x += D (silu(G m) * U m), m
 * = norm(x) */
#ifndef BATON_MODEL_FAMILY_H
#define BATON_MODEL_FAMILY_H

#include "gguf.h"

typedef struct Family {
    const char *name; /* general.architecture, and the prefix of its keys */
    bool rotary_pairs; /* the file's Q and K rows are ordered for rotating dims 2i and 2i+1 */
} Family;

typedef struct ModelShape {
    const Family *family;
    uint32_t layers, width, feed_forward, heads, kv_heads, head_dim, vocab, context;
    float norm_epsilon, rotary_base;
} ModelShape;

const Family *family_find(Str architecture); /* NULL: unknown */
bool shape_read(const Gguf *gguf, ModelShape *out,
                Err *err) MUST_CHECK; /* checked: sizes that the kernels can take */

#endif
