// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "gguf.h"
#include "gguf_test.h"
#include <cmocka.h>

static const uint64_t shape_2x3[] = {2, 3}, shape_64[] = {64}, shape_4[] = {4};

/* A small right file with a value of every kind. */
static Buf small_file(void) {
    GgufWriter w = {0};
    put_key_str(&w, "general.architecture", "llama");
    put_key_u32(&w, "llama.block_count", 30);
    put_key(&w, "llama.negative", GGUF_I32);
    put_u32(&w.keys, (uint32_t)-5);
    put_key(&w, "llama.long", GGUF_U64);
    put_u64(&w.keys, UINT64_MAX);
    put_key_f32(&w, "llama.epsilon", 0.5f);
    put_key_f32(&w, "llama.nan", NAN);
    put_key_bool(&w, "llama.flag", true);
    put_key_str(&w, "llama.latin1", "caf\xe9");
    put_key_array(&w, "tokens", GGUF_STRING, 3);
    put_str(&w.keys, STR("a"));
    put_str(&w.keys, STR(""));
    put_str(&w.keys, STR("ccc"));
    put_key_array(&w, "heads", GGUF_U32, 2);
    put_u32(&w.keys, 9);
    put_u32(&w.keys, 3);
    put_key_array(&w, "factors", GGUF_F32, 1);
    put_u32(&w.keys, 0x3f800000);
    float f32[6] = {1, 2, 3, 4, 5, 6};
    uint8_t q4_1[40] = {7};
    put_tensor(&w, "norm", 2, shape_2x3, WEIGHT_F32, f32, sizeof f32);
    put_tensor(&w, "blk.0.ffn", 1, shape_64, WEIGHT_Q4_1, q4_1, sizeof q4_1);
    return put_end(&w);
}

/* Parses a copy with nothing behind it, so that the sanitizer sees a step past the end. */
static Gguf *view_copy(const Buf *file, size_t size, uint8_t **copy, Err *err) {
    *copy = malloc(size ? size : 1);
    memcpy(*copy, file->at, size);
    Gguf *gguf = gguf_view(*copy, size, err);
    if (!gguf) {
        free(*copy);
        *copy = NULL;
    }
    return gguf;
}

static void fails_with(Buf *file, ErrCode code, const char *message) {
    Err err = {0};
    uint8_t *copy;
    assert_null(view_copy(file, file->length, &copy, &err));
    assert_string_equal(err.message, message);
    assert_int_equal(err.code, code);
    buf_done(file);
}

static void a_small_file_gives_its_values(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    assert_non_null(g);
    uint32_t u32;
    float f32;
    bool flag;
    Str text;
    assert_true(gguf_str(g, "general.architecture", &text, &err) && str_eq(text, "llama"));
    assert_true(gguf_u32(g, "llama.block_count", 1, 100, &u32, &err) && u32 == 30);
    assert_true(gguf_u32_or(g, "llama.missing", 7, 1, 100, &u32, &err) && u32 == 7);
    assert_true(gguf_f32(g, "llama.epsilon", &f32, &err) && f32 == 0.5f);
    assert_true(gguf_f32_or(g, "llama.missing", 2.5f, &f32, &err) && f32 == 2.5f);
    assert_true(gguf_bool_or(g, "llama.flag", false, &flag, &err) && flag);
    assert_true(gguf_bool_or(g, "llama.missing", false, &flag, &err) && !flag);
    assert_true(gguf_str_or(g, "llama.missing", "x", &text, &err) && str_eq(text, "x"));
    assert_int_equal(gguf_key_count(g), 11);
    assert_true(str_eq(gguf_key(g, 1), "llama.block_count"));
    assert_true(gguf_has(g, "heads") && !gguf_has(g, "head"));
    assert_true(gguf_is_array(g, "heads") && !gguf_is_array(g, "llama.flag"));
    gguf_close(g);
}

static void arrays_are_read_where_they_lie(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    GgufArray array;
    Str text;
    assert_true(gguf_strings(g, "tokens", &array, &err));
    assert_int_equal(array.count, 3);
    const char *want[] = {"a", "", "ccc"};
    for (int i = 0; i < 3; i++) {
        assert_true(gguf_next_str(&array, &text));
        assert_true(str_eq(text, want[i]));
    }
    assert_false(gguf_next_str(&array, &text));
    assert_true(gguf_ints(g, "heads", &array, &err));
    assert_int_equal(gguf_int_at(&array, 0), 9);
    assert_int_equal(gguf_int_at(&array, 1), 3);
    assert_true(gguf_floats(g, "factors", &array, &err));
    assert_true(gguf_float_at(&array, 0) == 1.0);
    gguf_close(g);
}

static void integers_of_every_width_are_read(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        const char *bytes;
        size_t size;
        int64_t value;
    } cases[] = {
        {GGUF_U8, "\xfe", 1, 254},          {GGUF_I8, "\xfe", 1, -2},
        {GGUF_U16, "\xfe\xff", 2, 65534},   {GGUF_I16, "\xfe\xff", 2, -2},
        {GGUF_U32, "\xfe\xff\xff\xff", 4, 4294967294},
        {GGUF_I32, "\xfe\xff\xff\xff", 4, -2},
        {GGUF_U64, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8, INT64_MAX},
        {GGUF_I64, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8, -2},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        GgufWriter w = {0};
        put_key_array(&w, "a", cases[i].type, 2);
        for (int twice = 0; twice < 2; twice++) buf_append(&w.keys, cases[i].bytes, cases[i].size);
        auto_buf Buf file = put_end(&w);
        Err err = {0};
        Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
        GgufArray array;
        assert_true(gguf_ints(g, "a", &array, &err));
        assert_true(gguf_int_at(&array, 1) == cases[i].value);
        gguf_close(g);
    }
}

static void a_wrong_value_is_an_error_that_names_the_key(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    uint32_t u32 = 77;
    float f32;
    bool flag;
    Str text;
    GgufArray array;
    assert_false(gguf_u32(g, "general.architecture", 0, 9, &u32, &err));
    assert_string_equal(err.message, "metadata key 'general.architecture' is a string, "
                                     "expected an unsigned integer");
    assert_false(gguf_u32(g, "llama.gone", 0, 9, &u32, &err));
    assert_string_equal(err.message, "metadata key 'llama.gone' is missing");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_false(gguf_u32(g, "llama.block_count", 1, 29, &u32, &err));
    assert_string_equal(err.message, "metadata key 'llama.block_count' is 30, expected 1 to 29");
    assert_false(gguf_u32_or(g, "llama.negative", 1, 0, UINT32_MAX, &u32, &err));
    assert_string_equal(err.message,
                        "metadata key 'llama.negative' is -5, expected 0 to 4294967295");
    assert_false(gguf_u32(g, "llama.long", 0, UINT32_MAX, &u32, &err));
    assert_false(gguf_f32(g, "llama.block_count", &f32, &err));
    assert_string_equal(err.message,
                        "metadata key 'llama.block_count' is a 32-bit unsigned integer, "
                        "expected a float");
    assert_false(gguf_f32_or(g, "llama.nan", 1, &f32, &err));
    assert_string_equal(err.message, "metadata key 'llama.nan' is nan, expected a finite number");
    assert_false(gguf_bool_or(g, "llama.epsilon", true, &flag, &err));
    assert_string_equal(err.message,
                        "metadata key 'llama.epsilon' is a 32-bit float, expected a bool");
    assert_false(gguf_str(g, "tokens", &text, &err));
    assert_string_equal(err.message, "metadata key 'tokens' is an array, expected a string");
    assert_false(gguf_str_or(g, "llama.latin1", "", &text, &err));
    assert_string_equal(err.message, "metadata key 'llama.latin1' is a string that is not UTF-8");
    assert_false(gguf_ints(g, "llama.flag", &array, &err));
    assert_string_equal(err.message,
                        "metadata key 'llama.flag' is a bool, expected an array of integers");
    assert_false(gguf_strings(g, "heads", &array, &err));
    assert_string_equal(err.message, "metadata key 'heads' is an array whose elements are each a "
                                     "32-bit unsigned integer, expected an array of strings");
    assert_false(gguf_floats(g, "heads", &array, &err));
    assert_int_equal(u32, 77); /* results are written on success only */
    gguf_close(g);
}

static void tensors_are_found_with_their_shape(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    assert_int_equal(gguf_tensor_count(g), 2);
    const GgufTensor *t = gguf_tensor_find(g, "norm");
    assert_ptr_equal(t, gguf_tensor_at(g, 0));
    assert_int_equal(t->type, WEIGHT_F32);
    assert_int_equal(t->elements, 6);
    assert_int_equal(t->size, 24);
    assert_int_equal(((const uint8_t *)file.at - t->bytes) % 32, 0);
    float last;
    memcpy(&last, t->bytes + 20, 4);
    assert_true(last == 6);
    t = gguf_tensor(g, "blk.0.ffn", 1, shape_64, &err);
    assert_non_null(t);
    assert_int_equal(t->size, 40);
    assert_int_equal(t->bytes[0], 7);
    assert_non_null(gguf_tensor(g, "blk.0.ffn", 2, (uint64_t[]){64, 1}, &err));
    gguf_forget(g, t); /* nothing to forget: the bytes are ours */
    assert_int_equal(t->bytes[0], 7);
    assert_null(gguf_tensor(g, "norm", 2, (uint64_t[]){2, 4}, &err));
    assert_string_equal(err.message, "tensor 'norm' is 2 x 3, expected 2 x 4");
    assert_null(gguf_tensor(g, "norm", 1, shape_64, &err));
    assert_null(gguf_tensor(g, "blk.1.ffn", 1, shape_64, &err));
    assert_string_equal(err.message, "tensor 'blk.1.ffn' is missing");
    assert_null(gguf_tensor_find(g, "blk"));
    gguf_close(g);
}

static void every_type_has_its_block(void **state) {
    (void)state;
    static const struct {
        uint32_t type, elements, bytes;
        const char *name;
    } cases[] = {{0, 1, 4, "F32"},       {1, 1, 2, "F16"},       {2, 32, 18, "Q4_0"},
                 {3, 32, 20, "Q4_1"},    {6, 32, 22, "Q5_0"},    {7, 32, 24, "Q5_1"},
                 {8, 32, 34, "Q8_0"},    {12, 256, 144, "Q4_K"}, {13, 256, 176, "Q5_K"},
                 {14, 256, 210, "Q6_K"}, {30, 1, 2, "BF16"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const WeightInfo *info = weight_info(cases[i].type);
        assert_string_equal(info->name, cases[i].name);
        assert_int_equal(info->block, cases[i].elements);
        assert_int_equal(info->bytes, cases[i].bytes);
    }
    assert_null(weight_info(10));
    assert_null(weight_info(1000));
}

static void a_file_cut_anywhere_is_an_error_with_a_byte(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    for (size_t size = 0; size < file.length; size++) {
        Err err = {0};
        uint8_t *copy;
        assert_null(view_copy(&file, size, &copy, &err));
        if (size < 4) {
            assert_int_equal(err.code, ERR_INVALID);
            continue;
        }
        assert_int_equal(err.code, ERR_DAMAGED);
        assert_non_null(strstr(err.message, "byte "));
        assert_non_null(strstr(err.hint, "Download it again"));
    }
}

static void a_flipped_bit_never_leads_outside_the_file(void **state) {
    (void)state;
    auto_buf Buf file = small_file();
    size_t refused = 0;
    for (size_t bit = 0; bit < 8 * file.length; bit++) {
        Err err = {0};
        uint8_t *copy;
        file.at[bit / 8] ^= (char)(1 << bit % 8);
        Gguf *g = view_copy(&file, file.length, &copy, &err);
        file.at[bit / 8] ^= (char)(1 << bit % 8);
        if (!g) {
            assert_true(err.code != ERR_NONE && err.message[0]);
            refused++;
            continue;
        }
        uint64_t sum = 0;
        GgufArray array;
        Str text;
        for (size_t i = 0; i < gguf_tensor_count(g); i++)
            for (size_t k = 0; k < gguf_tensor_at(g, i)->size; k++)
                sum += gguf_tensor_at(g, i)->bytes[k];
        if (gguf_strings(g, "tokens", &array, &err))
            while (gguf_next_str(&array, &text)) sum += text.length ? (uint8_t)text.at[0] : 0;
        if (gguf_ints(g, "heads", &array, &err))
            for (size_t i = 0; i < array.count; i++) sum += (uint64_t)gguf_int_at(&array, i);
        assert_true(sum < UINT64_MAX);
        gguf_close(g);
        free(copy);
    }
    assert_true(refused > file.length); /* most of the header's bits matter */
}

static void what_is_no_gguf_file_is_named(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *message, *hint;
    } cases[] = {
        {"GGML\3\0\0\0", 8, "this is not a GGUF file: it does not begin with 'GGUF'",
         "Check --model: it takes a .gguf file."},
        {"version https://git-lfs.github.com/spec/v1\n", 43,
         "this is not a GGUF file: it does not begin with 'GGUF'",
         "This is a pointer of Git LFS. Run: git lfs pull"},
        {"GGUF\0\0\0\3", 8, "the file is a big-endian GGUF file, version 3",
         "Take the little-endian file of the same model."},
        {"GGUF\1\0\0\0", 8, "the file has GGUF version 1, supported are 2 and 3",
         "Convert the model again with a current converter."},
        {"GGUF\4\0\0\0", 8, "the file has GGUF version 4, supported are 2 and 3",
         "Convert the model again with a current converter."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Err err = {0};
        assert_null(gguf_view((const uint8_t *)cases[i].bytes, cases[i].size, &err));
        assert_string_equal(err.message, cases[i].message);
        assert_string_equal(err.hint, cases[i].hint);
    }
}

static void version_2_is_read_like_version_3(void **state) {
    (void)state;
    GgufWriter w = {.version = 2};
    put_key_u32(&w, "a", 1);
    auto_buf Buf file = put_end(&w);
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    uint32_t value;
    assert_true(gguf_u32(g, "a", 0, 9, &value, &err) && value == 1);
    assert_null(gguf_tensor_find(g, "x"));
    gguf_close(g);
}

static void huge_counts_are_refused_before_anything_is_allocated(void **state) {
    (void)state;
    static const struct {
        uint64_t tensors, keys;
        ErrCode code;
        const char *message;
    } cases[] = {
        {UINT64_MAX, 0, ERR_TOO_LARGE,
         "the file has 18446744073709551615 tensors, the limit is 65536"},
        {0, 65537, ERR_TOO_LARGE, "the file has 65537 metadata keys, the limit is 65536"},
        {60000, 0, ERR_DAMAGED,
         "the header at byte 8 counts 60000 tensors, the file has only 24 bytes"},
        {0, 60000, ERR_DAMAGED,
         "the header at byte 8 counts 60000 metadata keys, the file has only 24 bytes"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        GgufWriter w = {.key_count = cases[i].keys, .tensor_count = cases[i].tensors};
        Buf file = put_end(&w);
        file.length = 24;
        fails_with(&file, cases[i].code, cases[i].message);
    }
}

static void wrong_metadata_is_an_error_with_the_key_and_the_byte(void **state) {
    (void)state;
    GgufWriter w = {0};
    put_key_u32(&w, "a", 1);
    put_key_u32(&w, "b", 1);
    put_key_u32(&w, "a", 2);
    Buf file = put_end(&w);
    fails_with(&file, ERR_DAMAGED,
               "metadata key 'a' stands twice in the file, again at byte 66");

    static const struct {
        const char *key;
        size_t key_length;
        uint32_t type;
        const char *value;
        size_t size;
        ErrCode code;
        const char *message;
    } cases[] = {
        {"", 0, GGUF_U32, "\1\0\0\0", 4, ERR_DAMAGED,
         "metadata key 1 of 1: its name at byte 24 is empty"},
        {"a\0b", 3, GGUF_U32, "\1\0\0\0", 4, ERR_DAMAGED,
         "metadata key 1 of 1: its name at byte 24 has a 0 in it"},
        {"a\xff", 2, GGUF_U32, "\1\0\0\0", 4, ERR_DAMAGED,
         "metadata key 1 of 1: its name at byte 24 is not UTF-8"},
        {"a", 1, 13, "\1\0\0\0", 4, ERR_DAMAGED,
         "metadata key 'a': its type at byte 33 is 13, which is no type"},
        {"a", 1, GGUF_BOOL, "\2", 1, ERR_DAMAGED,
         "metadata key 'a': the bool at byte 37 is 2, expected 0 or 1"},
        {"a", 1, GGUF_U64, "\1\0\0\0", 4, ERR_DAMAGED,
         "metadata key 'a': its value at byte 37 needs 8 bytes, the file has 4 left"},
        {"a", 1, GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, ERR_DAMAGED,
         "metadata key 'a': its string at byte 45 needs 18446744073709551615 bytes, the file has 0 "
         "left"},
        {"a", 1, GGUF_ARRAY, "\6\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", 12, ERR_DAMAGED,
         "metadata key 'a': its array at byte 37 has 9223372036854775807 elements, the file has 0 "
         "bytes left"},
        {"a", 1, GGUF_ARRAY, "\x0d\0\0\0\1\0\0\0\0\0\0\0", 12, ERR_DAMAGED,
         "metadata key 'a': its array at byte 37 has elements of type 13"},
        {"a", 1, GGUF_ARRAY, "\x09\0\0\0\1\0\0\0\0\0\0\0", 12, ERR_UNSUPPORTED,
         "metadata key 'a': an array of arrays at byte 37 is not supported"},
        {"a", 1, GGUF_ARRAY, "\x08\0\0\0\1\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0xyz", 23, ERR_DAMAGED,
         "metadata key 'a': its string at byte 57 needs 9 bytes, the file has 3 left"},
        {"general.alignment", 17, GGUF_U32, "\x18\0\0\0", 4, ERR_DAMAGED,
         "metadata key 'general.alignment' is 24, expected a power of 2"},
        {"general.alignment", 17, GGUF_U32, "\0\0\0\0", 4, ERR_INVALID,
         "metadata key 'general.alignment' is 0, expected 1 to 65536"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        w.key_count = 1;
        put_str(&w.keys, (Str){cases[i].key, cases[i].key_length});
        put_u32(&w.keys, cases[i].type);
        buf_append(&w.keys, cases[i].value, cases[i].size);
        file = put_end(&w);
        fails_with(&file, cases[i].code, cases[i].message);
    }
}

static void a_long_name_is_cut_in_messages_and_refused_over_the_limit(void **state) {
    (void)state;
    char name[2001];
    memset(name, 'n', 2000);
    name[2000] = 0;
    GgufWriter w = {0};
    put_key_u32(&w, name, 1);
    Buf file = put_end(&w);
    fails_with(&file, ERR_TOO_LARGE,
               "metadata key 1 of 1: its name at byte 24 has 2000 bytes, the limit is 1024");
    name[100] = 0;
    put_key(&w, name, 99);
    put_u32(&w.keys, 0);
    file = put_end(&w);
    fails_with(
        &file, ERR_DAMAGED,
        "metadata key 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...': "
        "its type at byte 132 is 99, which is no type");
}

static void wrong_tensors_are_errors_with_the_name_and_the_byte(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t dim_count;
        uint64_t dims[5];
        uint32_t type;
        uint64_t offset;
        ErrCode code;
        const char *message;
    } cases[] = {
        {"t",
         0,
         {0},
         0,
         0,
         ERR_DAMAGED,
         "tensor 't': it has 0 dimensions at byte 33, expected 1 to 4"},
        {"t",
         5,
         {1, 1, 1, 1, 1},
         0,
         0,
         ERR_DAMAGED,
         "tensor 't': it has 5 dimensions at byte 33, expected 1 to 4"},
        {"t", 2, {4, 0}, 0, 0, ERR_DAMAGED, "tensor 't': its dimension 1 at byte 33 is 0"},
        {"t",
         2,
         {1ull << 40, 1ull << 40},
         0,
         0,
         ERR_DAMAGED,
         "tensor 't': its dimensions at byte 33 multiply to over 2^64"},
        {"t",
         2,
         {1ull << 31, 1ull << 32},
         0,
         0,
         ERR_DAMAGED,
         "tensor 't': its dimensions at byte 33 give over 2^64 bytes"},
        {"t",
         2,
         {33, 32},
         WEIGHT_Q4_0,
         0,
         ERR_DAMAGED,
         "tensor 't': its rows of 33 elements are no whole number of Q4_0's blocks of 32"},
        {"t", 1, {4}, 10, 0, ERR_UNSUPPORTED, "tensor 't' has type Q2_K, which is not supported"},
        {"t",
         1,
         {4},
         31,
         0,
         ERR_DAMAGED,
         "tensor 't': its type at byte 45 is 31, which is no type"},
        {"t",
         1,
         {4},
         4000000000,
         0,
         ERR_DAMAGED,
         "tensor 't': its type at byte 45 is 4000000000, which is no type"},
        {"t", 1, {4}, 0, 4, ERR_DAMAGED, "tensor 't': its offset 4 is not a multiple of 32"},
        {"t",
         1,
         {4},
         0,
         32,
         ERR_DAMAGED,
         "tensor 't': its 16 bytes at offset 32 behind byte 64 end past the file's 96 bytes"},
        {"t",
         1,
         {4},
         0,
         UINT64_MAX - 31,
         ERR_DAMAGED,
         "tensor 't': its 16 bytes at offset 18446744073709551584 behind byte 64 end past the "
         "file's "
         "96 bytes"},
        {"", 1, {4}, 0, 0, ERR_DAMAGED, "tensor 1 of 1: its name at byte 24 is empty"},
        {"\xc3", 1, {4}, 0, 0, ERR_DAMAGED, "tensor 1 of 1: its name at byte 24 is not UTF-8"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        GgufWriter w = {0};
        put_tensor_at(&w, str_of(cases[i].name), cases[i].dim_count, cases[i].dims, cases[i].type,
                      cases[i].offset);
        for (int k = 0; k < 32; k++) buf_char(&w.data, 1);
        Buf file = put_end(&w);
        fails_with(&file, cases[i].code, cases[i].message);
    }
    GgufWriter w = {0};
    put_tensor_at(&w, (Str){"a\0", 2}, 1, shape_4, 0, 0);
    Buf file = put_end(&w);
    fails_with(&file, ERR_DAMAGED, "tensor 1 of 1: its name at byte 24 has a 0 in it");
}

static void tensors_may_neither_overlap_nor_share_a_name(void **state) {
    (void)state;
    GgufWriter w = {0};
    put_tensor_at(&w, STR("b"), 1, shape_4, 0, 32);
    put_tensor_at(&w, STR("a"), 1, shape_64, 0, 0); /* 256 bytes, over b's */
    for (int k = 0; k < 256; k++) buf_char(&w.data, 1);
    Buf file = put_end(&w);
    fails_with(&file, ERR_DAMAGED, "tensors 'a' and 'b' overlap at byte 128");
    put_tensor_at(&w, STR("a"), 1, shape_4, 0, 0);
    put_tensor_at(&w, STR("a"), 1, shape_4, 0, 32);
    for (int k = 0; k < 64; k++) buf_char(&w.data, 1);
    file = put_end(&w);
    fails_with(&file, ERR_DAMAGED, "tensor 'a' stands twice in the file, again at byte 65");
}

static void another_alignment_is_followed(void **state) {
    (void)state;
    GgufWriter w = {.alignment = 256};
    put_key_u32(&w, "general.alignment", 256);
    put_tensor(&w, "a", 1, shape_4, WEIGHT_F32, "abcdefghijklmnop", 16);
    put_tensor(&w, "b", 1, shape_4, WEIGHT_F32, "qrstuvwxyzabcdef", 16);
    auto_buf Buf file = put_end(&w);
    Err err = {0};
    Gguf *g = gguf_view((uint8_t *)file.at, file.length, &err);
    assert_int_equal(gguf_tensor_find(g, "b")->bytes - (uint8_t *)file.at, 512);
    assert_memory_equal(gguf_tensor_find(g, "b")->bytes, "qrst", 4);
    gguf_close(g);
}

static void a_file_that_cannot_be_opened_names_its_path(void **state) {
    (void)state;
    Err err = {0};
    assert_null(gguf_open("/nowhere/x.gguf", &err));
    assert_string_equal(err.message,
                        "could not open '/nowhere/x.gguf': No such file or directory");
    assert_string_equal(err.hint, "Check --model: it takes a .gguf file.");
    char path[] = "/tmp/gguf_test.XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "GGUF\3\0\0\0", 8), 8);
    close(fd);
    assert_null(gguf_open(path, &err));
    unlink(path);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "header: its tensor count at byte 8 needs 8 bytes"));
}

static void the_real_model_is_read(void **state) {
    (void)state;
    Err err = {0};
    char path[512];
    Gguf *g = gguf_open(test_model_path(path), &err);
    if (!g) fail_msg("%s. %s", err.message, TEST_MODEL_HINT);
    uint32_t blocks;
    assert_true(gguf_u32(g, "llama.block_count", 1, 1000, &blocks, &err) && blocks == 30);
    assert_int_equal(gguf_tensor_count(g), 272);
    const GgufTensor *t = gguf_tensor(g, "token_embd.weight", 2, (uint64_t[]){576, 49152}, &err);
    assert_non_null(t);
    assert_int_equal(t->type, WEIGHT_Q8_0);
    assert_int_equal(t->size, 30081024);
    uint64_t before = hash64(t->bytes, t->size, 0);
    gguf_forget(g, t);
    assert_true(hash64(t->bytes, t->size, 0) == before);
    gguf_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_file_gives_its_values),
        cmocka_unit_test(arrays_are_read_where_they_lie),
        cmocka_unit_test(integers_of_every_width_are_read),
        cmocka_unit_test(a_wrong_value_is_an_error_that_names_the_key),
        cmocka_unit_test(tensors_are_found_with_their_shape),
        cmocka_unit_test(every_type_has_its_block),
        cmocka_unit_test(a_file_cut_anywhere_is_an_error_with_a_byte),
        cmocka_unit_test(a_flipped_bit_never_leads_outside_the_file),
        cmocka_unit_test(what_is_no_gguf_file_is_named),
        cmocka_unit_test(version_2_is_read_like_version_3),
        cmocka_unit_test(huge_counts_are_refused_before_anything_is_allocated),
        cmocka_unit_test(wrong_metadata_is_an_error_with_the_key_and_the_byte),
        cmocka_unit_test(a_long_name_is_cut_in_messages_and_refused_over_the_limit),
        cmocka_unit_test(wrong_tensors_are_errors_with_the_name_and_the_byte),
        cmocka_unit_test(tensors_may_neither_overlap_nor_share_a_name),
        cmocka_unit_test(another_alignment_is_followed),
        cmocka_unit_test(a_file_that_cannot_be_opened_names_its_path),
        cmocka_unit_test(the_real_model_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
