// SPDX-License-Identifier: Apache-2.0
/* tcp.c - the tcp rail: the blocks follow the manifest, each in a BLOCK message, in order.  The
 * payload is read straight into the destination, and hashed while it is in the processor's cache.
 */
#include "internal.h"

static Stream *tcp_connect(Conn *conn, const StreamCalls *calls) {
    return stream_connect_tcp(conn->agent->loop, conn->host, conn->port, LIMIT_KV_HELLO_MS, calls,
                              conn);
}

/* Whose payload follows?  A pull that has ended meanwhile wants it no more: it is read all the
 * same, to get to the next message. */
bool tcp_block(Conn *conn, const WireHead *head, const WireBlock *block, Err *err) {
    Pull *pull = pull_find(conn->agent, conn, head->pull);
    conn->payload_pull = NULL;
    if (!pull) return true;
    size_t payload = head->length - WIRE_BLOCK_FIXED;
    if (pull->stage != PULL_COPYING || pull->rail->id != KV_RAIL_TCP)
        return err_set(err, ERR_DAMAGED, "a BLOCK came that was not asked for");
    if (block->index != pull->at)
        return err_set(err, ERR_DAMAGED, "block %u came, block %zu of %zu was due",
                       block->index + 1, pull->at + 1, pull->block_count);
    if (payload != conn->agent->block_bytes ||
        block->generation != pull->sealed[pull->at].generation)
        return err_set(err, ERR_DAMAGED,
                       "block %zu of %zu came with %zu bytes of generation %u, expected %zu of %u",
                       pull->at + 1, pull->block_count, payload, block->generation,
                       conn->agent->block_bytes, pull->sealed[pull->at].generation);
    if (!conn->sum) conn->sum = sum_new();
    sum_begin(conn->sum);
    conn->payload_pull = pull;
    return true;
}

void *tcp_room(Conn *conn, size_t *length) {
    const Pull *pull = conn->payload_pull;
    *length = conn->payload_left;
    if (pull)
        return pull_target(pull, pull->at) + conn->agent->block_bytes - conn->payload_left;
    if (*length > SCRATCH) *length = SCRATCH;
    return conn->agent->scratch;
}

void tcp_got(Conn *conn, size_t length) {
    Pull *pull = conn->payload_pull;
    Err err = {0};
    if (pull) {
        const uint8_t *at =
            pull_target(pull, pull->at) + conn->agent->block_bytes - conn->payload_left;
        sum_add(conn->sum, at, length);
    }
    conn->payload_left -= length;
    if (!pull || conn->payload_left) return;
    conn->payload_pull = NULL;
    if (!pull_prove(pull, sum_end(conn->sum), &err)) pull_fail(pull, &err);
    else if (pull->at == pull->block_count) pull_moved(pull);
}

const Rail rail_tcp = {.id = KV_RAIL_TCP, .connect = tcp_connect};
