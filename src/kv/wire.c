// SPDX-License-Identifier: Apache-2.0
#include "wire.h"

#include <endian.h>

#define MAGIC "BATON-KV"
#define HELLO_FIXED 72
#define GET_FIXED 32
#define FIRST_TOP_AT 72

/* The least and the most bytes of each body. */
static const struct {
    const char *name;
    size_t least, most;
} types[WIRE_TYPES] = {
    [WIRE_HELLO]     = {"a HELLO", HELLO_FIXED, 1024}, /* longer ones come from later versions */
    [WIRE_REFUSE]    = {"a REFUSE", 8, 8 + 255},
    [WIRE_GET]       = {"a GET", GET_FIXED, GET_FIXED + LIMIT_KV_NAME},
    [WIRE_MANIFEST]  = {"a MANIFEST", WIRE_MANIFEST_FIXED, LIMIT_KV_MESSAGE},
    [WIRE_BLOCK]     = {"a BLOCK", WIRE_BLOCK_FIXED, WIRE_BLOCK_FIXED + LIMIT_KV_BLOCK},
    [WIRE_DONE]      = {"a DONE", 16, 16},
    [WIRE_CONFIRMED] = {"a CONFIRMED", 8, 8},
    [WIRE_GONE]      = {"a GONE", 24, 24},
    [WIRE_RENEW]     = {"a RENEW", 8, 8},
    [WIRE_RELEASE]   = {"a RELEASE", 8, 8 + LIMIT_KV_NAME},
};

const char *wire_name(WireType type) { return types[type].name; }

bool wire_from_owner(WireType type) {
    return type == WIRE_REFUSE || type == WIRE_MANIFEST || type == WIRE_BLOCK ||
           type == WIRE_CONFIRMED || type == WIRE_GONE;
}

/* ---- writing ---- */

static void put_16(uint8_t *to, uint16_t value) {
    value = htole16(value);
    memcpy(to, &value, sizeof value);
}
static void put_32(uint8_t *to, uint32_t value) {
    value = htole32(value);
    memcpy(to, &value, sizeof value);
}
static void put_64(uint8_t *to, uint64_t value) {
    value = htole64(value);
    memcpy(to, &value, sizeof value);
}
static void put_float(uint8_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_32(to, bits);
}

static void put_head(uint8_t to[WIRE_HEAD], WireType type, uint64_t pull, size_t length) {
    memset(to, 0, WIRE_HEAD);
    put_32(to, (uint32_t)length);
    to[4] = (uint8_t)type;
    put_64(to + 8, pull);
}

/* A head, a body's fixed part and a tail of any length. */
static void put_message(Buf *to, WireType type, uint64_t pull, const uint8_t *body, size_t length,
                        const void *tail, size_t tail_length) {
    uint8_t head[WIRE_HEAD];
    assert(length + tail_length >= types[type].least && length + tail_length <= types[type].most);
    put_head(head, type, pull, length + tail_length);
    buf_append(to, head, sizeof head);
    buf_append(to, body, length);
    buf_append(to, tail, tail_length);
}

void wire_put_hello(Buf *to, const WireHello *hello) {
    uint8_t body[HELLO_FIXED] = {0};
    size_t name = strlen(hello->engine);
    memcpy(body, MAGIC, 8);
    put_16(body + 8, hello->version_min);
    put_16(body + 10, hello->version_max);
    body[12] = hello->dtype;
    body[13] = hello->layout;
    put_16(body + 14, hello->block_tokens);
    put_32(body + 16, hello->shape.layers);
    put_32(body + 20, hello->shape.kv_heads);
    put_32(body + 24, hello->shape.head_dim);
    put_32(body + 28, hello->capacity);
    put_64(body + 32, hello->shape.fingerprint);
    put_64(body + 40, hello->epoch);
    put_64(body + 48, hello->block_bytes);
    put_64(body + 56, hello->generations_at);
    put_16(body + 64, hello->port);
    body[66] = (uint8_t)name;
    put_message(to, WIRE_HELLO, 0, body, sizeof body, hello->engine, name);
}

void wire_put_refuse(Buf *to, WireRefusal reason, const char *text) {
    uint8_t body[8] = {0};
    size_t length = strlen(text), most = types[WIRE_REFUSE].most - sizeof body;
    put_32(body, reason);
    put_message(to, WIRE_REFUSE, 0, body, sizeof body, text, length < most ? length : most);
}

void wire_put_get(Buf *to, uint64_t pull, const WireGet *get) {
    uint8_t body[GET_FIXED] = {0};
    put_64(body, get->epoch);
    put_32(body + 8, get->first);
    put_64(body + 16, get->last.low);
    put_64(body + 24, get->last.high);
    put_message(to, WIRE_GET, pull, body, sizeof body, get->request, strlen(get->request));
}

static void put_first(uint8_t *to, const KvFirstToken *first) {
    put_32(to + 44, (uint32_t)first->token);
    put_64(to + 48, first->sampling_hash);
    put_float(to + 56, first->logprob);
    put_32(to + 60, first->rank);
    put_32(to + 64, first->top_count);
    for (size_t i = 0; i < first->top_count; i++) {
        put_32(to + FIRST_TOP_AT + i * 8, (uint32_t)first->top_tokens[i]);
        put_float(to + FIRST_TOP_AT + i * 8 + 4, first->top_logprobs[i]);
    }
}

void wire_put_manifest(Buf *to, uint64_t pull, const WireManifest *manifest,
                       const WireSealed *sealed) {
    uint8_t body[WIRE_MANIFEST_FIXED] = {0};
    put_64(body + 8, manifest->lease);
    put_64(body + 16, manifest->epoch);
    put_64(body + 24, (uint64_t)manifest->lease_us);
    put_32(body + 32, manifest->tokens);
    put_32(body + 36, manifest->block_count);
    put_32(body + 40, manifest->cached_tokens);
    put_first(body, &manifest->first);
    size_t length = manifest->block_count * WIRE_SEALED;
    auto_free uint8_t *tail = mem_new(length);
    for (size_t i = 0; i < manifest->block_count; i++) {
        uint8_t *at = tail + i * WIRE_SEALED;
        put_64(at, sealed[i].chain.low);
        put_64(at + 8, sealed[i].chain.high);
        put_64(at + 16, sealed[i].checksum);
        put_32(at + 24, sealed[i].block);
        put_32(at + 28, sealed[i].generation);
    }
    size_t at = to->length + WIRE_HEAD;
    put_message(to, WIRE_MANIFEST, pull, body, sizeof body, tail, length);
    put_64((uint8_t *)to->at + at, hash64(to->at + at + 8, to->length - at - 8, 0));
}

void wire_put_done(Buf *to, uint64_t pull, WireDone done) {
    uint8_t body[16];
    put_64(body, done.lease);
    put_64(body + 8, done.bytes);
    put_message(to, WIRE_DONE, pull, body, sizeof body, NULL, 0);
}

void wire_put_gone(Buf *to, uint64_t pull, WireGone gone) {
    uint8_t body[24] = {0};
    put_64(body, gone.lease);
    put_32(body + 8, gone.reason);
    put_64(body + 16, (uint64_t)gone.ago_us);
    put_message(to, WIRE_GONE, pull, body, sizeof body, NULL, 0);
}

void wire_put_release(Buf *to, uint64_t pull, KvLease lease, const char *request) {
    uint8_t body[8];
    put_64(body, lease);
    put_message(to, WIRE_RELEASE, pull, body, sizeof body, request, strlen(request));
}

void wire_put_lease(Buf *to, WireType type, uint64_t pull, KvLease lease) {
    uint8_t body[8];
    put_64(body, lease);
    put_message(to, type, pull, body, sizeof body, NULL, 0);
}

void wire_block_head(uint8_t to[WIRE_HEAD + WIRE_BLOCK_FIXED], uint64_t pull,
                     const WireBlock *block, size_t payload) {
    put_head(to, WIRE_BLOCK, pull, WIRE_BLOCK_FIXED + payload);
    put_32(to + WIRE_HEAD, block->index);
    put_32(to + WIRE_HEAD + 4, block->generation);
}

/* ---- reading ---- */

static uint16_t get_16(const uint8_t *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return le16toh(value);
}
static uint32_t get_32(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}
static uint64_t get_64(const uint8_t *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}
static float get_float(const uint8_t *from) {
    uint32_t bits = get_32(from);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool wire_head(const uint8_t from[WIRE_HEAD], WireHead *out, Err *err) {
    uint32_t length = get_32(from), type = from[4];
    if (type == 0 || type >= WIRE_TYPES || from[5] || from[6] || from[7])
        return err_set(err, ERR_DAMAGED, "no message begins with %02x %02x %02x %02x %02x %02x",
                       from[0], from[1], from[2], from[3], from[4], from[5]);
    if (length < types[type].least || length > types[type].most)
        return err_set(err, ERR_DAMAGED, "%s has %u bytes, %zu to %zu are possible",
                       types[type].name, length, types[type].least, types[type].most);
    *out = (WireHead){length, (WireType)type, get_64(from + 8)};
    return true;
}

/* The fixed part of a body, or NULL: heads were checked, but not every caller has one. */
static const uint8_t *fixed(WireType type, Str body, Err *err) {
    if (body.length >= types[type].least && body.length <= types[type].most)
        return (const uint8_t *)body.at;
    err_set(err, ERR_DAMAGED, "%s has %zu bytes, %zu to %zu are possible", types[type].name,
            body.length, types[type].least, types[type].most);
    return NULL;
}

/* A name or text that ends the body; a 0 inside would hide what follows it. */
static bool text_at(WireType type, Str body, size_t from, size_t length, char *out, size_t room,
                    Err *err) {
    if (length > body.length - from || length >= room || memchr(body.at + from, 0, length))
        return err_set(err, ERR_DAMAGED, "%s has a text of %zu bytes that cannot be read",
                       types[type].name, length);
    memcpy(out, body.at + from, length);
    out[length] = 0;
    return true;
}

bool wire_hello(Str body, WireHello *out, Err *err) {
    const uint8_t *at = fixed(WIRE_HELLO, body, err);
    if (!at) return false;
    if (memcmp(at, MAGIC, 8) != 0)
        return err_set(err, ERR_DAMAGED, "a HELLO does not begin with " MAGIC);
    WireHello hello = {
        .version_min = get_16(at + 8),
        .version_max = get_16(at + 10),
        .dtype = at[12],
        .layout = at[13],
        .block_tokens = get_16(at + 14),
        .shape = {get_32(at + 16), get_32(at + 20), get_32(at + 24), get_64(at + 32)},
        .capacity = get_32(at + 28),
        .epoch = get_64(at + 40),
        .block_bytes = get_64(at + 48),
        .generations_at = get_64(at + 56),
        .port = get_16(at + 64)};
    if (!text_at(WIRE_HELLO, body, HELLO_FIXED, at[66], hello.engine, sizeof hello.engine, err))
        return false;
    *out = hello;
    return true;
}

bool wire_refuse(Str body, WireRefuse *out, Err *err) {
    const uint8_t *at = fixed(WIRE_REFUSE, body, err);
    if (!at) return false;
    out->reason = get_32(at);
    return text_at(WIRE_REFUSE, body, 8, body.length - 8, out->text, sizeof out->text, err);
}

bool wire_get(Str body, WireGet *out, Err *err) {
    const uint8_t *at = fixed(WIRE_GET, body, err);
    if (!at) return false;
    out->epoch = get_64(at);
    out->first = get_32(at + 8);
    out->last = (KvHash){get_64(at + 16), get_64(at + 24)};
    return text_at(WIRE_GET, body, GET_FIXED, body.length - GET_FIXED, out->request,
                   sizeof out->request, err);
}

bool wire_manifest(Str body, WireManifest *out, Err *err) {
    const uint8_t *at = fixed(WIRE_MANIFEST, body, err);
    if (!at) return false;
    WireManifest manifest = {.lease = get_64(at + 8),
                             .epoch = get_64(at + 16),
                             .lease_us = (int64_t)get_64(at + 24),
                             .tokens = get_32(at + 32),
                             .block_count = get_32(at + 36),
                             .cached_tokens = get_32(at + 40),
                             .first = {.token = (int32_t)get_32(at + 44),
                                       .sampling_hash = get_64(at + 48),
                                       .logprob = get_float(at + 56),
                                       .rank = get_32(at + 60),
                                       .top_count = get_32(at + 64)},
                             .sealed = at + WIRE_MANIFEST_FIXED};
    if (get_64(at) != hash64(at + 8, body.length - 8, 0))
        return err_set(err, ERR_DAMAGED, "a MANIFEST does not have its checksum");
    size_t sealed = body.length - WIRE_MANIFEST_FIXED;
    if (manifest.block_count != kv_blocks_for(manifest.tokens) || manifest.tokens == 0 ||
        sealed % WIRE_SEALED || sealed / WIRE_SEALED != manifest.block_count)
        return err_set(err, ERR_DAMAGED, "a MANIFEST of %zu bytes says %u blocks and %u tokens",
                       body.length, manifest.block_count, manifest.tokens);
    if (manifest.lease == 0 || manifest.lease_us <= 0 ||
        manifest.cached_tokens > manifest.tokens || manifest.first.top_count > KV_FIRST_TOP_MAX)
        return err_set(err, ERR_DAMAGED,
                       "a MANIFEST has lease %llx of %lld us, %u cached tokens of %u and %u first "
                       "log-probabilities",
                       (unsigned long long)manifest.lease, (long long)manifest.lease_us,
                       manifest.cached_tokens, manifest.tokens, manifest.first.top_count);
    for (size_t i = 0; i < manifest.first.top_count; i++) {
        manifest.first.top_tokens[i] = (int32_t)get_32(at + FIRST_TOP_AT + i * 8);
        manifest.first.top_logprobs[i] = get_float(at + FIRST_TOP_AT + i * 8 + 4);
    }
    *out = manifest;
    return true;
}

WireSealed wire_sealed(const WireManifest *manifest, size_t index) {
    assert(index < manifest->block_count);
    const uint8_t *at = manifest->sealed + index * WIRE_SEALED;
    return (WireSealed){.chain = {get_64(at), get_64(at + 8)},
                        .checksum = get_64(at + 16),
                        .block = get_32(at + 24),
                        .generation = get_32(at + 28)};
}

bool wire_block(Str body, WireBlock *out, Err *err) {
    const uint8_t *at = fixed(WIRE_BLOCK, body, err);
    if (!at) return false;
    *out = (WireBlock){get_32(at), get_32(at + 4)};
    return true;
}

bool wire_done(Str body, WireDone *out, Err *err) {
    const uint8_t *at = fixed(WIRE_DONE, body, err);
    if (!at) return false;
    *out = (WireDone){get_64(at), get_64(at + 8)};
    return true;
}

bool wire_gone(Str body, WireGone *out, Err *err) {
    const uint8_t *at = fixed(WIRE_GONE, body, err);
    if (!at) return false;
    *out = (WireGone){get_64(at), get_32(at + 8), (int64_t)get_64(at + 16)};
    return true;
}

bool wire_release(Str body, WireRelease *out, Err *err) {
    const uint8_t *at = fixed(WIRE_RELEASE, body, err);
    if (!at) return false;
    out->lease = get_64(at);
    return text_at(WIRE_RELEASE, body, 8, body.length - 8, out->request, sizeof out->request, err);
}

bool wire_lease(WireType type, Str body, KvLease *out, Err *err) {
    const uint8_t *at = fixed(type, body, err);
    if (!at) return false;
    *out = get_64(at);
    return true;
}
