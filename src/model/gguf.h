// SPDX-License-Identifier: Apache-2.0
/* gguf.h - a GGUF model file: metadata by key, tensors by name, checked whole at opening.
 *
 *     "GGUF" version counts | key type value ... | name dims type offset ... | 0 0 0 | tensor data
 *                             \_ metadata _____/   \_ tensors ____________/           aligned
 *
 * Invariants, once gguf_open() has returned a Gguf
 *   1. every string, array and tensor lies inside the file
 *   2. keys and tensor names are unique, UTF-8, without a 0
 *   3. tensors are aligned, share no byte, and are of a type that weight_info() knows
 * Owner: the Gguf owns the mapping; every Str, array and tensor is a view, valid until
 * gguf_close(). Thread: nothing changes after opening, so any thread may read. */
#ifndef BATON_MODEL_GGUF_H
#define BATON_MODEL_GGUF_H

#include "tensor/tensor.h"

typedef struct Gguf Gguf;

typedef struct GgufTensor {
    Str name;
    WeightType type;
    uint32_t dim_count; /* 1 to 4 */
    uint64_t dims[4];   /* dims[0] is the length of a row; unused ones are 1 */
    uint64_t elements;
    const uint8_t *bytes; /* aligned as general.alignment says, 32 as a rule */
    size_t size;
} GgufTensor;

typedef enum GgufType { /* of a metadata value; the numbers in the file */
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
    GGUF_TYPES
} GgufType;

Gguf *gguf_open(const char *path, Err *err) MUST_CHECK;
Gguf *gguf_view(const uint8_t *bytes, size_t size,
                Err *err) MUST_CHECK; /* the bytes stay yours and must outlive it */
void gguf_close(Gguf *gguf);
const FileMap *gguf_file(const Gguf *gguf);

/* Metadata.  Each getter fails with an error that names the key: when it is missing, of another
 * type, or out of range.  The _or forms take `fallback` for a missing key, and only then. */
size_t gguf_key_count(const Gguf *gguf);
Str gguf_key(const Gguf *gguf, size_t index); /* in the file's order */
bool gguf_has(const Gguf *gguf, const char *key);
bool gguf_is_array(const Gguf *gguf, const char *key);

bool gguf_u32(const Gguf *gguf, const char *key, uint32_t least, uint32_t most, uint32_t *out,
              Err *err) MUST_CHECK; /* any integer type will do */
bool gguf_u32_or(const Gguf *gguf, const char *key, uint32_t fallback, uint32_t least,
                 uint32_t most, uint32_t *out, Err *err) MUST_CHECK;
bool gguf_f32(const Gguf *gguf, const char *key, float *out, Err *err) MUST_CHECK; /* finite */
bool gguf_f32_or(const Gguf *gguf, const char *key, float fallback, float *out,
                 Err *err) MUST_CHECK;
bool gguf_bool_or(const Gguf *gguf, const char *key, bool fallback, bool *out,
                  Err *err) MUST_CHECK;
bool gguf_str(const Gguf *gguf, const char *key, Str *out, Err *err) MUST_CHECK; /* UTF-8 */
bool gguf_str_or(const Gguf *gguf, const char *key, const char *fallback, Str *out,
                 Err *err) MUST_CHECK;

typedef struct GgufArray {
    GgufType type; /* of the elements */
    size_t count;
    const uint8_t *at; /* not aligned: read it with the functions below */
    size_t size;       /* bytes */
} GgufArray;

bool gguf_strings(const Gguf *gguf, const char *key, GgufArray *out, Err *err) MUST_CHECK;
bool gguf_ints(const Gguf *gguf, const char *key, GgufArray *out, Err *err) MUST_CHECK;
bool gguf_floats(const Gguf *gguf, const char *key, GgufArray *out, Err *err) MUST_CHECK;
bool gguf_next_str(GgufArray *rest, Str *out); /* takes the first string off; false at the end */
int64_t gguf_int_at(const GgufArray *array, size_t index); /* a u64 above INT64_MAX reads as that */
double gguf_float_at(const GgufArray *array, size_t index);

/* Tensors. */
size_t gguf_tensor_count(const Gguf *gguf);
const GgufTensor *gguf_tensor_at(const Gguf *gguf, size_t index); /* in the file's order */
const GgufTensor *gguf_tensor_find(const Gguf *gguf, const char *name); /* NULL if there is none */

/* The tensor `name`, which must have these dimensions (further ones of 1 are fine); NULL with an
 * error otherwise. */
const GgufTensor *gguf_tensor(const Gguf *gguf, const char *name, uint32_t dim_count,
                              const uint64_t *dims, Err *err) MUST_CHECK;
void gguf_forget(const Gguf *gguf, const GgufTensor *tensor); /* its pages leave this process's
                                                                 memory until read again */

#endif
