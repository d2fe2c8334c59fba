// SPDX-License-Identifier: Apache-2.0
#include "gguf.h"

#include "gguf_internal.h"

#include <inttypes.h>
#include <math.h>

static const char *const type_names[GGUF_TYPES] = {
    [GGUF_U8] = "an 8-bit unsigned integer",   [GGUF_I8] = "an 8-bit integer",
    [GGUF_U16] = "a 16-bit unsigned integer",  [GGUF_I16] = "a 16-bit integer",
    [GGUF_U32] = "a 32-bit unsigned integer",  [GGUF_I32] = "a 32-bit integer",
    [GGUF_U64] = "a 64-bit unsigned integer",  [GGUF_I64] = "a 64-bit integer",
    [GGUF_F32] = "a 32-bit float",             [GGUF_F64] = "a 64-bit float",
    [GGUF_BOOL] = "a bool",                    [GGUF_STRING] = "a string",
    [GGUF_ARRAY] = "an array",
};

size_t gguf_key_count(const Gguf *gguf) { return gguf->entry_count; }

Str gguf_key(const Gguf *gguf, size_t index) {
    assert(index < gguf->entry_count);
    return gguf->entries[index].key;
}

bool gguf_has(const Gguf *gguf, const char *key) { return gguf_entry(gguf, key) != NULL; }

bool gguf_is_array(const Gguf *gguf, const char *key) {
    const GgufEntry *entry = gguf_entry(gguf, key);
    return entry && entry->type == GGUF_ARRAY;
}

static const GgufEntry *required(const Gguf *gguf, const char *key, Err *err) {
    const GgufEntry *entry = gguf_entry(gguf, key);
    if (!entry) err_set(err, ERR_NOT_FOUND, "metadata key '%s' is missing", key);
    return entry;
}

static bool wrong_type(const GgufEntry *entry, const char *key, const char *expected, Err *err) {
    return err_set(err, ERR_INVALID, "metadata key '%s' is %s, expected %s", key,
                   type_names[entry->type], expected);
}

static bool is_int(uint32_t type) {
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static int64_t load_int(uint32_t type, const uint8_t *at) {
    uint64_t u64;
    int64_t i64;
    uint32_t u32;
    int32_t i32;
    uint16_t u16;
    int16_t i16;
    switch (type) {
    case GGUF_U8: return *at;
    case GGUF_I8: return (int8_t)*at;
    case GGUF_U16: return memcpy(&u16, at, 2), u16;
    case GGUF_I16: return memcpy(&i16, at, 2), i16;
    case GGUF_U32: return memcpy(&u32, at, 4), u32;
    case GGUF_I32: return memcpy(&i32, at, 4), i32;
    case GGUF_U64: return memcpy(&u64, at, 8), u64 > INT64_MAX ? INT64_MAX : (int64_t)u64;
    default: return memcpy(&i64, at, 8), i64;
    }
}

static double load_float(uint32_t type, const uint8_t *at) {
    float f32;
    double f64;
    return type == GGUF_F32 ? (memcpy(&f32, at, 4), (double)f32) : (memcpy(&f64, at, 8), f64);
}

bool gguf_u32(const Gguf *gguf, const char *key, uint32_t least, uint32_t most, uint32_t *out,
              Err *err) {
    const GgufEntry *entry = required(gguf, key, err);
    if (!entry) return false;
    if (!is_int(entry->type)) return wrong_type(entry, key, "an unsigned integer", err);
    int64_t value = load_int(entry->type, entry->value);
    if (value < least || value > most)
        return err_set(err, ERR_INVALID, "metadata key '%s' is %" PRId64 ", expected %u to %u", key,
                       value, least, most);
    *out = (uint32_t)value;
    return true;
}

bool gguf_u32_or(const Gguf *gguf, const char *key, uint32_t fallback, uint32_t least,
                 uint32_t most, uint32_t *out, Err *err) {
    if (gguf_has(gguf, key)) return gguf_u32(gguf, key, least, most, out, err);
    *out = fallback;
    return true;
}

bool gguf_f32(const Gguf *gguf, const char *key, float *out, Err *err) {
    const GgufEntry *entry = required(gguf, key, err);
    if (!entry) return false;
    if (entry->type != GGUF_F32 && entry->type != GGUF_F64)
        return wrong_type(entry, key, "a float", err);
    float value = (float)load_float(entry->type, entry->value);
    if (!isfinite(value))
        return err_set(err, ERR_INVALID, "metadata key '%s' is %g, expected a finite number", key,
                       (double)value);
    *out = value;
    return true;
}

bool gguf_f32_or(const Gguf *gguf, const char *key, float fallback, float *out, Err *err) {
    if (gguf_has(gguf, key)) return gguf_f32(gguf, key, out, err);
    *out = fallback;
    return true;
}

bool gguf_bool_or(const Gguf *gguf, const char *key, bool fallback, bool *out, Err *err) {
    const GgufEntry *entry = gguf_entry(gguf, key);
    if (entry && entry->type != GGUF_BOOL) return wrong_type(entry, key, "a bool", err);
    *out = entry ? *entry->value : fallback;
    return true;
}

bool gguf_str(const Gguf *gguf, const char *key, Str *out, Err *err) {
    const GgufEntry *entry = required(gguf, key, err);
    if (!entry) return false;
    if (entry->type != GGUF_STRING) return wrong_type(entry, key, "a string", err);
    if (!utf8_valid((const char *)entry->value, entry->size))
        return err_set(err, ERR_INVALID, "metadata key '%s' is a string that is not UTF-8", key);
    *out = (Str){(const char *)entry->value, entry->size};
    return true;
}

bool gguf_str_or(const Gguf *gguf, const char *key, const char *fallback, Str *out, Err *err) {
    if (gguf_has(gguf, key)) return gguf_str(gguf, key, out, err);
    *out = str_of(fallback);
    return true;
}

static bool array_of(const Gguf *gguf, const char *key, const char *expected,
                     bool (*fits)(uint32_t), GgufArray *out, Err *err) {
    const GgufEntry *entry = required(gguf, key, err);
    if (!entry) return false;
    if (entry->type != GGUF_ARRAY) return wrong_type(entry, key, expected, err);
    if (!fits(entry->element))
        return err_set(err, ERR_INVALID,
                       "metadata key '%s' is an array whose elements are each %s, expected %s", key,
                       type_names[entry->element], expected);
    *out = (GgufArray){(GgufType)entry->element, entry->count, entry->value, entry->size};
    return true;
}

static bool is_string(uint32_t type) { return type == GGUF_STRING; }
static bool is_float(uint32_t type) { return type == GGUF_F32 || type == GGUF_F64; }

bool gguf_strings(const Gguf *gguf, const char *key, GgufArray *out, Err *err) {
    return array_of(gguf, key, "an array of strings", is_string, out, err);
}

bool gguf_ints(const Gguf *gguf, const char *key, GgufArray *out, Err *err) {
    return array_of(gguf, key, "an array of integers", is_int, out, err);
}

bool gguf_floats(const Gguf *gguf, const char *key, GgufArray *out, Err *err) {
    return array_of(gguf, key, "an array of floats", is_float, out, err);
}

bool gguf_next_str(GgufArray *rest, Str *out) {
    if (!rest->count) return false;
    uint64_t length; /* checked when the file was opened */
    memcpy(&length, rest->at, sizeof length);
    *out = (Str){(const char *)rest->at + sizeof length, length};
    rest->at += sizeof length + length;
    rest->size -= sizeof length + length;
    rest->count--;
    return true;
}

int64_t gguf_int_at(const GgufArray *array, size_t index) {
    assert(index < array->count);
    return load_int(array->type, array->at + index * (array->size / array->count));
}

double gguf_float_at(const GgufArray *array, size_t index) {
    assert(index < array->count);
    return load_float(array->type, array->at + index * (array->size / array->count));
}
