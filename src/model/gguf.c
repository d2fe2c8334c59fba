// SPDX-License-Identifier: Apache-2.0
#include "gguf.h"

#include "gguf_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HINT_AGAIN                                                                                \
    "The file is damaged or incomplete. Download it again and compare the output of sha256sum "   \
    "with what the source of the file gives."

/* Types that files carry and that are refused here, by name. */
static const char *const other_types[] = {
    [4] = "Q4_2",     [5] = "Q4_3",     [9] = "Q8_1",     [10] = "Q2_K",   [11] = "Q3_K",
    [15] = "Q8_K",    [16] = "IQ2_XXS", [17] = "IQ2_XS",  [18] = "IQ3_XXS", [19] = "IQ1_S",
    [20] = "IQ4_NL",  [21] = "IQ3_S",   [22] = "IQ2_S",   [23] = "IQ4_XS", [24] = "I8",
    [25] = "I16",     [26] = "I32",     [27] = "I64",     [28] = "F64",    [29] = "IQ1_M",
    [34] = "TQ1_0",   [35] = "TQ2_0",   [39] = "MXFP4",   [40] = "NVFP4",
};

static const uint8_t value_sizes[GGUF_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,  [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_BOOL] = 1, [GGUF_F64] = 8,
};

/* Walks the file.  Any step past the end is an error that names the subject and the byte. */
typedef struct Reader {
    const uint8_t *bytes;
    size_t size, at;
    char subject[96]; /* "metadata key 'general.name'" */
    Err *err;
} Reader;

static size_t left(const Reader *r) { return r->size - r->at; }

static bool take(Reader *r, size_t size, const char *what, const uint8_t **out) {
    if (size > left(r)) {
        err_set(r->err, ERR_DAMAGED,
                "%s: its %s at byte %zu needs %zu bytes, the file has %zu left", r->subject, what,
                r->at, size, left(r));
        err_hint(r->err, HINT_AGAIN);
        return false; /* spelled out: GCC then knows that *out is set otherwise */
    }
    *out = r->bytes + r->at;
    r->at += size;
    return true;
}

static bool take_u32(Reader *r, const char *what, uint32_t *out) {
    const uint8_t *p;
    return take(r, sizeof *out, what, &p) && memcpy(out, p, sizeof *out);
}

static bool take_u64(Reader *r, const char *what, uint64_t *out) {
    const uint8_t *p;
    return take(r, sizeof *out, what, &p) && memcpy(out, p, sizeof *out);
}

static bool take_str(Reader *r, const char *what, size_t limit, Str *out) {
    size_t begin = r->at;
    uint64_t length;
    const uint8_t *p;
    if (!take_u64(r, what, &length)) return false;
    if (length > limit && length <= left(r))
        return err_set(r->err, ERR_TOO_LARGE,
                       "%s: its %s at byte %zu has %" PRIu64 " bytes, the limit is %zu", r->subject,
                       what, begin, length, limit);
    if (!take(r, length, what, &p)) return false;
    *out = (Str){(const char *)p, length};
    return true;
}

static void set_subject(Reader *r, const char *kind, Str name) {
    /* A name is trusted to be UTF-8 by now; a long one is cut where a character ends. */
    size_t shown = name.length > 64 ? utf8_whole(name.at, 64) : name.length;
    snprintf(r->subject, sizeof r->subject, "%s '%.*s%s'", kind, (int)shown, name.at,
             shown < name.length ? "..." : "");
}

static bool take_name(Reader *r, const char *kind, Str *out) {
    size_t begin = r->at;
    if (!take_str(r, "name", LIMIT_GGUF_NAME, out)) return false;
    const char *fault = !out->length                        ? "is empty"
                        : memchr(out->at, 0, out->length)    ? "has a 0 in it"
                        : !utf8_valid(out->at, out->length) ? "is not UTF-8"
                                                             : NULL;
    if (fault) {
        err_set(r->err, ERR_DAMAGED, "%s: its name at byte %zu %s", r->subject, begin, fault);
        return err_hint(r->err, HINT_AGAIN);
    }
    set_subject(r, kind, *out);
    return true;
}

static void index_init(NameIndex *index, size_t count) {
    size_t size = 16;
    while (size < 2 * count) size *= 2;
    index->slots = mem_new(size * sizeof *index->slots);
    index->mask = size - 1;
}

/* Where `name` is, or the empty slot where it belongs.  names: the first Str of an array of structs
 * that are `stride` bytes apart. */
static uint32_t *index_slot(const NameIndex *index, const void *names, size_t stride, Str name) {
    /* Seeded with an address, so that no file can be made to fill one chain of slots. */
    for (size_t i = hash64(name.at, name.length, (uintptr_t)index->slots);; i++) {
        uint32_t *slot = &index->slots[i & index->mask];
        if (!*slot) return slot;
        Str there;
        memcpy(&there, (const char *)names + (*slot - 1) * stride, sizeof there);
        if (str_same(there, name)) return slot;
    }
}

static bool index_add(Reader *r, NameIndex *index, const void *names, size_t stride, size_t place) {
    Str name;
    memcpy(&name, (const char *)names + place * stride, sizeof name);
    uint32_t *slot = index_slot(index, names, stride, name);
    if (*slot) {
        err_set(r->err, ERR_DAMAGED, "%s stands twice in the file, again at byte %zu", r->subject,
                (size_t)((const uint8_t *)name.at - r->bytes));
        return err_hint(r->err, HINT_AGAIN);
    }
    *slot = (uint32_t)place + 1;
    return true;
}

static bool read_array(Reader *r, GgufEntry *entry) {
    size_t begin = r->at, bytes;
    if (!take_u32(r, "array's type", &entry->element) ||
        !take_u64(r, "array's length", &entry->count))
        return false;
    if (entry->element >= GGUF_TYPES)
        return err_set(r->err, ERR_DAMAGED, "%s: its array at byte %zu has elements of type %u",
                       r->subject, begin, entry->element);
    if (entry->element == GGUF_ARRAY)
        return err_set(r->err, ERR_UNSUPPORTED,
                       "%s: an array of arrays at byte %zu is not supported", r->subject, begin);
    size_t first = r->at, least = entry->element == GGUF_STRING ? 8 : value_sizes[entry->element];
    if (__builtin_mul_overflow(entry->count, least, &bytes) || bytes > left(r)) {
        err_set(r->err, ERR_DAMAGED,
                "%s: its array at byte %zu has %" PRIu64 " elements, the file has %zu bytes left",
                r->subject, begin, entry->count, left(r));
        return err_hint(r->err, HINT_AGAIN);
    }
    entry->value = r->bytes + first;
    if (entry->element == GGUF_STRING) {
        Str ignored;
        for (uint64_t i = 0; i < entry->count; i++)
            if (!take_str(r, "string", LIMIT_GGUF_STRING, &ignored)) return false;
    } else {
        r->at += bytes;
    }
    entry->size = r->at - first;
    return true;
}

static bool read_entry(Reader *r, GgufEntry *entry) {
    if (!take_name(r, "metadata key", &entry->key)) return false;
    size_t begin = r->at;
    if (!take_u32(r, "type", &entry->type)) return false;
    if (entry->type >= GGUF_TYPES) {
        err_set(r->err, ERR_DAMAGED, "%s: its type at byte %zu is %u, which is no type", r->subject,
                begin, entry->type);
        return err_hint(r->err, HINT_AGAIN);
    }
    if (entry->type == GGUF_ARRAY) return read_array(r, entry);
    entry->count = 1;
    if (entry->type == GGUF_STRING) {
        Str text;
        if (!take_str(r, "string", LIMIT_GGUF_STRING, &text)) return false;
        entry->value = (const uint8_t *)text.at;
        entry->size = text.length;
        return true;
    }
    entry->size = value_sizes[entry->type];
    if (!take(r, entry->size, "value", &entry->value)) return false;
    if (entry->type == GGUF_BOOL && *entry->value > 1)
        return err_set(r->err, ERR_DAMAGED, "%s: the bool at byte %zu is %u, expected 0 or 1",
                       r->subject, r->at - 1, *entry->value);
    return true;
}

static bool read_entries(Gguf *gguf, Reader *r, size_t count) {
    gguf->entries = mem_new(count * sizeof *gguf->entries);
    index_init(&gguf->entry_index, count);
    for (size_t i = 0; i < count; i++) {
        snprintf(r->subject, sizeof r->subject, "metadata key %zu of %zu", i + 1, count);
        if (!read_entry(r, &gguf->entries[i]) ||
            !index_add(r, &gguf->entry_index, gguf->entries, sizeof *gguf->entries, i))
            return false;
        gguf->entry_count = i + 1;
    }
    return true;
}

/* Elements and bytes from type and dims. */
static bool measure_tensor(Reader *r, GgufTensor *tensor, size_t begin) {
    tensor->elements = 1;
    for (uint32_t i = 0; i < tensor->dim_count; i++) {
        if (tensor->dims[i] == 0)
            return err_set(r->err, ERR_DAMAGED, "%s: its dimension %u at byte %zu is 0", r->subject,
                           i, begin);
        if (__builtin_mul_overflow(tensor->elements, tensor->dims[i], &tensor->elements))
            return err_set(r->err, ERR_DAMAGED,
                           "%s: its dimensions at byte %zu multiply to over 2^64", r->subject,
                           begin);
    }
    const WeightInfo *info = weight_info(tensor->type);
    if (tensor->dims[0] % info->block)
        return err_set(r->err, ERR_DAMAGED,
                       "%s: its rows of %" PRIu64
                       " elements are no whole number of %s's blocks of %u",
                       r->subject, tensor->dims[0], info->name, info->block);
    if (__builtin_mul_overflow(tensor->elements / info->block, info->bytes,
                               &tensor->size))
        return err_set(r->err, ERR_DAMAGED, "%s: its dimensions at byte %zu give over 2^64 bytes",
                       r->subject, begin);
    return true;
}

static bool read_tensor(Reader *r, GgufTensor *tensor, uint64_t *offset) {
    if (!take_name(r, "tensor", &tensor->name)) return false;
    size_t begin = r->at;
    if (!take_u32(r, "number of dimensions", &tensor->dim_count)) return false;
    if (tensor->dim_count < 1 || tensor->dim_count > 4)
        return err_set(r->err, ERR_DAMAGED, "%s: it has %u dimensions at byte %zu, expected 1 to 4",
                       r->subject, tensor->dim_count, begin);
    for (uint32_t i = 0; i < 4; i++) tensor->dims[i] = 1;
    for (uint32_t i = 0; i < tensor->dim_count; i++)
        if (!take_u64(r, "dimensions", &tensor->dims[i])) return false;
    uint32_t type;
    if (!take_u32(r, "type", &type)) return false;
    if (!weight_info(type)) {
        if (type >= COUNT_OF(other_types) || !other_types[type])
            return err_set(r->err, ERR_DAMAGED, "%s: its type at byte %zu is %u, which is no type",
                           r->subject, r->at - 4, type);
        err_set(r->err, ERR_UNSUPPORTED, "%s has type %s, which is not supported", r->subject,
                other_types[type]);
        return err_hint(r->err,
                        "Take a file of the same model in Q4_0, Q4_1, Q8_0, Q4_K_M, Q5_K_M, "
                        "Q6_K, F16 or BF16.");
    }
    tensor->type = (WeightType)type;
    return take_u64(r, "offset", offset) && measure_tensor(r, tensor, begin);
}

static int by_address(const void *a, const void *b) {
    const GgufTensor *const *left_tensor = a, *const *right_tensor = b;
    const uint8_t *x = (*left_tensor)->bytes, *y = (*right_tensor)->bytes;
    return x < y ? -1 : x > y;
}

static bool check_overlap(Gguf *gguf, Reader *r) {
    const GgufTensor **sorted = mem_new(gguf->tensor_count * sizeof *sorted);
    for (size_t i = 0; i < gguf->tensor_count; i++) sorted[i] = &gguf->tensors[i];
    qsort(sorted, gguf->tensor_count, sizeof *sorted, by_address);
    bool ok = true;
    for (size_t i = 1; ok && i < gguf->tensor_count; i++) {
        const GgufTensor *before = sorted[i - 1], *tensor = sorted[i];
        if (before->bytes + before->size <= tensor->bytes) continue;
        ok = err_set(r->err, ERR_DAMAGED,
                     "tensors '" STR_FMT "' and '" STR_FMT "' overlap at byte %zu",
                     STR_ARG(before->name), STR_ARG(tensor->name),
                     (size_t)(tensor->bytes - gguf->file.bytes));
        err_hint(r->err, HINT_AGAIN);
    }
    free(sorted);
    return ok;
}

/* Turns offsets into addresses: they count from the first aligned byte behind the header. */
static bool place_tensor(const Gguf *gguf, Reader *r, GgufTensor *tensor, size_t data,
                         uint64_t offset) {
    size_t begin, end;
    set_subject(r, "tensor", tensor->name);
    if (offset % gguf->alignment)
        return err_set(r->err, ERR_DAMAGED, "%s: its offset %" PRIu64 " is not a multiple of %u",
                       r->subject, offset, gguf->alignment);
    if (__builtin_add_overflow(data, offset, &begin) ||
        __builtin_add_overflow(begin, tensor->size, &end) || end > r->size) {
        err_set(r->err, ERR_DAMAGED,
                "%s: its %zu bytes at offset %" PRIu64
                " behind byte %zu end past the file's %zu bytes",
                r->subject, tensor->size, offset, data, r->size);
        return err_hint(r->err, HINT_AGAIN);
    }
    tensor->bytes = r->bytes + begin;
    return true;
}

static bool read_tensors(Gguf *gguf, Reader *r, size_t count) {
    auto_free uint64_t *offsets = mem_new(count * sizeof *offsets);
    gguf->tensors = mem_new(count * sizeof *gguf->tensors);
    index_init(&gguf->tensor_index, count);
    for (size_t i = 0; i < count; i++) {
        snprintf(r->subject, sizeof r->subject, "tensor %zu of %zu", i + 1, count);
        if (!read_tensor(r, &gguf->tensors[i], &offsets[i]) ||
            !index_add(r, &gguf->tensor_index, gguf->tensors, sizeof *gguf->tensors, i))
            return false;
        gguf->tensor_count = i + 1;
    }
    size_t data = (r->at + gguf->alignment - 1) / gguf->alignment * gguf->alignment;
    for (size_t i = 0; i < count; i++)
        if (!place_tensor(gguf, r, &gguf->tensors[i], data, offsets[i])) return false;
    return check_overlap(gguf, r);
}

/* Magic and version: here is told what the file is instead of a GGUF file. */
static bool read_magic(Reader *r) {
    if (r->size < 4 || memcmp(r->bytes, "GGUF", 4)) {
        err_set(r->err, ERR_INVALID, "this is not a GGUF file: it does not begin with 'GGUF'");
        Str head = {(const char *)r->bytes, r->size};
        if (str_starts(head, "version https://git-lfs"))
            return err_hint(r->err, "This is a pointer of Git LFS. Run: git lfs pull");
        return err_hint(r->err, "Check --model: it takes a .gguf file.");
    }
    r->at = 4;
    uint32_t version;
    if (!take_u32(r, "version", &version)) return false;
    if (version && !(version & 0xffff)) {
        err_set(r->err, ERR_UNSUPPORTED, "the file is a big-endian GGUF file, version %u",
                __builtin_bswap32(version));
        return err_hint(r->err, "Take the little-endian file of the same model.");
    }
    if (version == 2 || version == 3) return true;
    err_set(r->err, ERR_UNSUPPORTED, "the file has GGUF version %u, supported are 2 and 3",
            version);
    return err_hint(r->err, "Convert the model again with a current converter.");
}

static bool check_count(Reader *r, const char *what, uint64_t count, size_t limit, size_t least) {
    if (count > limit)
        return err_set(r->err, ERR_TOO_LARGE, "the file has %" PRIu64 " %s, the limit is %zu",
                       count, what, limit);
    if (count * least > left(r)) {
        err_set(r->err, ERR_DAMAGED,
                "the header at byte 8 counts %" PRIu64 " %s, the file has only %zu bytes", count,
                what, r->size);
        return err_hint(r->err, HINT_AGAIN);
    }
    return true;
}

static bool parse(Gguf *gguf, Err *err) {
    enum { KEY_LEAST = 8 + 1 + 4 + 1, TENSOR_LEAST = 8 + 1 + 4 + 8 + 4 + 8 }; /* bytes of one */
    Reader r = {gguf->file.bytes, gguf->file.size, .subject = "header", .err = err};
    uint64_t tensors, keys;
    if (!read_magic(&r) || !take_u64(&r, "tensor count", &tensors) ||
        !take_u64(&r, "key count", &keys) ||
        !check_count(&r, "tensors", tensors, LIMIT_GGUF_TENSORS, TENSOR_LEAST) ||
        !check_count(&r, "metadata keys", keys, LIMIT_GGUF_KEYS, KEY_LEAST) ||
        !read_entries(gguf, &r, keys) ||
        !gguf_u32_or(gguf, "general.alignment", 32, 1, 1 << 16, &gguf->alignment, err))
        return false;
    if (gguf->alignment & (gguf->alignment - 1))
        return err_set(err, ERR_DAMAGED,
                       "metadata key 'general.alignment' is %u, expected a power of 2",
                       gguf->alignment);
    return read_tensors(gguf, &r, tensors);
}

Gguf *gguf_view(const uint8_t *bytes, size_t size, Err *err) {
    Gguf *gguf = mem_new(sizeof *gguf);
    gguf->file = (FileMap){bytes, size};
    if (parse(gguf, err)) return gguf;
    gguf_close(gguf);
    return NULL;
}

Gguf *gguf_open(const char *path, Err *err) {
    FileMap file;
    if (!file_map(path, &file, err)) {
        if (err->code == ERR_NOT_FOUND) err_hint(err, "Check --model: it takes a .gguf file.");
        return NULL;
    }
    Gguf *gguf = gguf_view(file.bytes, file.size, err);
    if (gguf) {
        gguf->mapped = true;
    } else {
        err_wrap(err, "'%s'", path);
        file_unmap(&file);
    }
    return gguf;
}

void gguf_close(Gguf *gguf) {
    if (!gguf) return;
    free(gguf->entries);
    free(gguf->entry_index.slots);
    free(gguf->tensors);
    free(gguf->tensor_index.slots);
    if (gguf->mapped) file_unmap(&gguf->file);
    free(gguf);
}

const FileMap *gguf_file(const Gguf *gguf) { return &gguf->file; }

const GgufEntry *gguf_entry(const Gguf *gguf, const char *key) {
    if (!gguf->entries) return NULL;
    uint32_t place =
        *index_slot(&gguf->entry_index, gguf->entries, sizeof *gguf->entries, str_of(key));
    return place ? &gguf->entries[place - 1] : NULL;
}

size_t gguf_tensor_count(const Gguf *gguf) { return gguf->tensor_count; }

const GgufTensor *gguf_tensor_at(const Gguf *gguf, size_t index) {
    assert(index < gguf->tensor_count);
    return &gguf->tensors[index];
}

const GgufTensor *gguf_tensor_find(const Gguf *gguf, const char *name) {
    uint32_t place =
        *index_slot(&gguf->tensor_index, gguf->tensors, sizeof *gguf->tensors, str_of(name));
    return place ? &gguf->tensors[place - 1] : NULL;
}

/* "576 x 1536" */
static const char *shape(uint32_t count, const uint64_t *dims, char text[96]) {
    int at = 0;
    for (uint32_t i = 0; i < count; i++)
        at += snprintf(text + at, 96 - (size_t)at, "%s%" PRIu64, i ? " x " : "", dims[i]);
    return text;
}

const GgufTensor *gguf_tensor(const Gguf *gguf, const char *name, uint32_t dim_count,
                              const uint64_t *dims, Err *err) {
    const GgufTensor *tensor = gguf_tensor_find(gguf, name);
    if (!tensor) {
        err_set(err, ERR_NOT_FOUND, "tensor '%s' is missing", name);
        return NULL;
    }
    bool same = true;
    for (uint32_t i = 0; i < 4; i++)
        same = same && tensor->dims[i] == (i < dim_count ? dims[i] : 1);
    if (same) return tensor;
    char is[96], expected[96];
    err_set(err, ERR_INVALID, "tensor '%s' is %s, expected %s", name,
            shape(tensor->dim_count, tensor->dims, is), shape(dim_count, dims, expected));
    return NULL;
}

void gguf_forget(const Gguf *gguf, const GgufTensor *tensor) {
    if (gguf->mapped) file_forget(&gguf->file, tensor->bytes, tensor->size);
}
