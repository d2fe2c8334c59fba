// SPDX-License-Identifier: Apache-2.0
/* gguf_internal.h - the parsed file, shared by gguf.c (reads it) and gguf_meta.c (answers). */
#ifndef BATON_MODEL_GGUF_INTERNAL_H
#define BATON_MODEL_GGUF_INTERNAL_H

#include "gguf.h"

typedef struct GgufEntry { /* one metadata key */
    Str key;
    uint32_t type;        /* GgufType */
    uint32_t element;     /* of an array */
    uint64_t count;       /* of an array; 1 otherwise */
    const uint8_t *value; /* a string's bytes, an array's first element */
    size_t size;          /* bytes of all that */
} GgufEntry;

typedef struct NameIndex { /* name -> place in an array; open addressing, slots hold place + 1 */
    uint32_t *slots;
    size_t mask;
} NameIndex;

struct Gguf {
    FileMap file;
    bool mapped; /* by gguf_open(), not lent by gguf_view()'s caller */
    GgufEntry *entries;
    size_t entry_count;
    NameIndex entry_index;
    GgufTensor *tensors;
    size_t tensor_count;
    NameIndex tensor_index;
    uint32_t alignment;
};

const GgufEntry *gguf_entry(const Gguf *gguf, const char *key); /* NULL if it is missing */

#endif
