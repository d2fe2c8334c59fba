// SPDX-License-Identifier: Apache-2.0
/* kv_fuzz.c - the messages between two engines: a stream of them, as it comes from a peer.
 *
 * Whatever is read must be written as the same bytes again, where one way of writing exists. */
#include <stdlib.h>

#include "kv/wire.h"

/* What `again` holds behind its head must be the body that was read. */
static void must_be(Buf *again, Str body) {
    if (again->length != WIRE_HEAD + body.length ||
        (body.length && memcmp(again->at + WIRE_HEAD, body.at, body.length) != 0))
        abort();
    buf_done(again);
}

static void hello(Str body) {
    WireHello hello, once_more;
    Err err = {0};
    Buf again = {0};
    if (!wire_hello(body, &hello, &err)) return;
    wire_put_hello(&again, &hello); /* reserved bytes and what later versions add are lost */
    if (!wire_hello((Str){again.at + WIRE_HEAD, again.length - WIRE_HEAD}, &once_more, &err) ||
        once_more.epoch != hello.epoch || strcmp(once_more.engine, hello.engine) != 0 ||
        !kv_shape_same(&once_more.shape, &hello.shape))
        abort();
    buf_done(&again);
    kv_block_bytes(&hello.shape);
}

static void manifest(Str body) {
    WireManifest manifest;
    Err err = {0};
    if (!wire_manifest(body, &manifest, &err)) return;
    WireSealed *sealed = mem_new(manifest.block_count * sizeof *sealed);
    for (size_t i = 0; i < manifest.block_count; i++) sealed[i] = wire_sealed(&manifest, i);
    Buf again = {0};
    wire_put_manifest(&again, 0, &manifest, sealed);
    if (again.length != WIRE_HEAD + body.length ||
        memcmp(again.at + WIRE_HEAD + WIRE_MANIFEST_FIXED, body.at + WIRE_MANIFEST_FIXED,
               body.length - WIRE_MANIFEST_FIXED) != 0)
        abort();
    buf_done(&again);
    free(sealed);
}

static void from_owner(WireType type, Str body) {
    WireRefuse refuse;
    WireBlock block;
    WireGone gone;
    KvLease lease;
    Err err = {0};
    Buf again = {0};
    if (type == WIRE_MANIFEST) manifest(body);
    if (type == WIRE_REFUSE && wire_refuse(body, &refuse, &err) &&
        strlen(refuse.text) + 8 != body.length)
        abort();
    if (type == WIRE_BLOCK && wire_block((Str){body.at, WIRE_BLOCK_FIXED}, &block, &err)) {
        uint8_t head[WIRE_HEAD + WIRE_BLOCK_FIXED];
        wire_block_head(head, 0, &block, body.length - WIRE_BLOCK_FIXED);
        if (memcmp(head + WIRE_HEAD, body.at, WIRE_BLOCK_FIXED) != 0) abort();
    }
    if (type == WIRE_GONE && wire_gone(body, &gone, &err)) {
        wire_put_gone(&again, 0, gone);
        buf_done(&again);
    }
    if (type == WIRE_CONFIRMED && wire_lease(type, body, &lease, &err)) {
        wire_put_lease(&again, type, 0, lease);
        must_be(&again, body);
    }
}

static void from_reader(WireType type, Str body) {
    WireGet get;
    WireDone done;
    WireRelease release;
    KvLease lease;
    Err err = {0};
    Buf again = {0};
    if (type == WIRE_GET && wire_get(body, &get, &err)) {
        wire_put_get(&again, 0, &get);
        if (again.length != WIRE_HEAD + body.length) abort();
        buf_done(&again);
    }
    if (type == WIRE_DONE && wire_done(body, &done, &err)) {
        wire_put_done(&again, 0, done);
        must_be(&again, body);
    }
    if (type == WIRE_RENEW && wire_lease(type, body, &lease, &err)) {
        wire_put_lease(&again, type, 0, lease);
        must_be(&again, body);
    }
    if (type == WIRE_RELEASE && wire_release(body, &release, &err)) {
        wire_put_release(&again, 0, release.lease, release.request);
        must_be(&again, body);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err err = {0};
    WireHead head;
    while (size >= WIRE_HEAD && wire_head(data, &head, &err)) {
        data += WIRE_HEAD;
        size -= WIRE_HEAD;
        /* The last one may be cut: its reader must notice by itself. */
        Str body = {(const char *)data, head.length < size ? head.length : size};
        if (head.type == WIRE_BLOCK && body.length < WIRE_BLOCK_FIXED) break;
        char *watched = mem_dup_bytes(body.at, body.length); /* its end is an allocation's end */
        Str copy = {watched, body.length};
        if (head.type == WIRE_MANIFEST && body.length >= 8) { /* chance finds no checksum */
            uint64_t checksum = hash64(watched + 8, body.length - 8, 0);
            memcpy(watched, &checksum, sizeof checksum);
        }
        if (head.type == WIRE_HELLO) hello(copy);
        else if (wire_from_owner(head.type)) from_owner(head.type, copy);
        else from_reader(head.type, copy);
        free(watched);
        data += body.length;
        size -= body.length;
    }
    return 0;
}
