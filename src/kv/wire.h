// SPDX-License-Identifier: Apache-2.0
/* wire.h - the messages between two agents as bytes, and back: doc/kv-wire-format.md in C.
 *
 *     reader                                   owner
 *       │── HELLO ─────────────────────────────▶│
 *       │◀───────────────────────────── HELLO ──│   (REFUSE, and the connection ends)
 *       │── GET request, first block ──────────▶│
 *       │◀────────────── MANIFEST lease, proofs │   (GONE and why)
 *       │◀───────────────────── BLOCK, payload ─│   tcp only: each in order; over shm the reader
 *       │                                       │   copies by itself
 *       │   RENEW, every third of a lease ─────▶│   no answer, unless GONE
 *       │── DONE lease ────────────────────────▶│
 *       │◀────────────────────────── CONFIRMED ─│   (GONE: what was copied must not be used)
 *
 * A head is the same for all messages: the body's length, the type, and the reader's own number of
 * the pull, which every answer carries.  Reading never trusts: every length is checked, an Err says
 * what is wrong.
 * Thread: any; nothing here has state. */
#ifndef BATON_KV_WIRE_H
#define BATON_KV_WIRE_H

#include "agent.h"

#define WIRE_VERSION 1 /* the only one so far: lowest and highest */
#define WIRE_DTYPE_HALF 1
#define WIRE_LAYOUT 1  /* [layer][k|v][head], K as [dim][token], V as [token][dim] */

typedef enum WireType {
    WIRE_HELLO = 1, WIRE_REFUSE, WIRE_GET, WIRE_MANIFEST, WIRE_BLOCK, WIRE_DONE,
    WIRE_CONFIRMED, WIRE_GONE, WIRE_RENEW, WIRE_RELEASE, WIRE_TYPES
} WireType;
const char *wire_name(WireType type); /* "a MANIFEST", for messages */
bool wire_from_owner(WireType type);  /* false: it comes from a reader, or it is a HELLO */

#define WIRE_HEAD 16
typedef struct WireHead {
    uint32_t length; /* of the body, a block's payload included */
    WireType type;
    uint64_t pull;
} WireHead;

typedef struct WireHello {
    uint16_t version_min, version_max;
    uint8_t dtype, layout;
    uint16_t block_tokens;
    KvShape shape;
    uint64_t epoch, block_bytes, generations_at;
    uint32_t capacity;
    uint16_t port; /* of the sender's TCP listener */
    char engine[LIMIT_KV_NAME + 1];
} WireHello;

typedef enum WireRefusal { WIRE_REFUSE_VERSION = 1, WIRE_REFUSE_BUSY, WIRE_REFUSE_USER,
                           WIRE_REFUSE_DAMAGED } WireRefusal;
typedef struct WireRefuse {
    uint32_t reason; /* a WireRefusal, or one of a later version */
    char text[256];
} WireRefuse;

#define WIRE_NO_BLOCKS UINT32_MAX
typedef struct WireGet {
    uint64_t epoch; /* of the engine that made the offer; 0: not known */
    uint32_t first; /* block from which on all are to be sent; WIRE_NO_BLOCKS: none */
    KvHash last;    /* the expected chain of the last block: if it is another, none are sent */
    char request[LIMIT_KV_NAME + 1];
} WireGet;

#define WIRE_MANIFEST_FIXED 232 /* begins with a checksum of all that follows in the body */
#define WIRE_SEALED 32
typedef struct WireSealed { /* one block of an offer */
    KvHash chain;
    uint64_t checksum;
    KvBlock block; /* its place in the owner's pool */
    uint32_t generation;
} WireSealed;

typedef struct WireManifest {
    KvLease lease;
    uint64_t epoch;
    int64_t lease_us; /* what a renewal adds */
    uint32_t tokens, block_count, cached_tokens;
    KvFirstToken first;
    const uint8_t *sealed; /* block_count x WIRE_SEALED bytes, inside the body */
} WireManifest;

#define WIRE_BLOCK_FIXED 8
typedef struct WireBlock {
    uint32_t index, generation; /* index: in the offer, not in the pool */
} WireBlock;

typedef struct WireDone {
    KvLease lease;
    uint64_t bytes; /* that the reader has moved */
} WireDone;

typedef enum WireReason { /* why there is no such offer */
    WIRE_UNKNOWN = 1, WIRE_EXPIRED, WIRE_RELEASED, WIRE_RETRACTED, WIRE_OTHER_EPOCH
} WireReason;
typedef struct WireGone {
    KvLease lease; /* 0: in answer to a GET */
    uint32_t reason;
    int64_t ago_us;
} WireGone;

typedef struct WireRelease {
    KvLease lease; /* 0: by its request */
    char request[LIMIT_KV_NAME + 1];
} WireRelease;

/* Each appends a whole message. */
void wire_put_hello(Buf *to, const WireHello *hello);
void wire_put_refuse(Buf *to, WireRefusal reason, const char *text);
void wire_put_get(Buf *to, uint64_t pull, const WireGet *get);
void wire_put_manifest(Buf *to, uint64_t pull, const WireManifest *manifest,
                       const WireSealed *sealed);
void wire_put_done(Buf *to, uint64_t pull, WireDone done);
void wire_put_gone(Buf *to, uint64_t pull, WireGone gone);
void wire_put_release(Buf *to, uint64_t pull, KvLease lease, const char *request);
void wire_put_lease(Buf *to, WireType type, uint64_t pull,
                    KvLease lease); /* CONFIRMED or RENEW: nothing but the lease */

/* A BLOCK without its payload, which follows straight from the pool. */
void wire_block_head(uint8_t to[WIRE_HEAD + WIRE_BLOCK_FIXED], uint64_t pull,
                     const WireBlock *block, size_t payload);

/* Fails if no message can begin like this: an unknown type, a body over what its type may have. */
bool wire_head(const uint8_t from[WIRE_HEAD], WireHead *out, Err *err) MUST_CHECK;
bool wire_hello(Str body, WireHello *out, Err *err) MUST_CHECK;
bool wire_refuse(Str body, WireRefuse *out, Err *err) MUST_CHECK;
bool wire_get(Str body, WireGet *out, Err *err) MUST_CHECK;
bool wire_manifest(Str body, WireManifest *out, Err *err) MUST_CHECK;
WireSealed wire_sealed(const WireManifest *manifest, size_t index);
bool wire_block(Str body, WireBlock *out, Err *err) MUST_CHECK; /* its fixed part */
bool wire_done(Str body, WireDone *out, Err *err) MUST_CHECK;
bool wire_gone(Str body, WireGone *out, Err *err) MUST_CHECK;
bool wire_release(Str body, WireRelease *out, Err *err) MUST_CHECK;
bool wire_lease(WireType type, Str body, KvLease *out, Err *err) MUST_CHECK;

#endif
