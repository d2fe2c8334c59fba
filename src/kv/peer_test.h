// SPDX-License-Identifier: Apache-2.0
/* peer_test.h - for tests of the agent: a peer that does what a script says, over real sockets.
 *
 * The script runs on a thread of its own with blocking calls; what it does wrong is up to it. */
#ifndef BATON_KV_PEER_TEST_H
#define BATON_KV_PEER_TEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "engine_test.h"

#define PEER_LEASE 0x1ea5e
#define PEER_EPOCH 0xe90c4

typedef struct Peer {
    int listener, fd;   /* fd: the connection in use */
    int port;
    char id[64];
    WireHello hello;
    uint32_t prompt;    /* that it offers */
    size_t tokens, count, bytes;
    KvHash *chain;
    WireSealed *sealed;
    WireManifest manifest;
    uint64_t pull;      /* of the last message that came */
    unsigned accepted, renewals;
    bool cut;           /* the other side has closed, or the test is over */
    bool released;      /* a RELEASE came */
    Buf out;
    int stop[2];        /* a pipe: readable when the test is over */
    pthread_t thread;
    void (*script)(struct Peer *peer);
    uint64_t seed;
    const void *arg;
} Peer;

/* ---- bytes ---- */

static int socket_or_fail(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

UNUSED static int connect_to_port(int port) {
    int fd = socket_or_fail(AF_INET), small = 64 * KIB;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small); /* else it grows to megabytes */
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* Waits for bytes; false: the test is over, or nothing came for a long time. */
static bool peer_readable(const Peer *peer, int fd) {
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = peer->stop[0], .events = POLLIN}};
    return poll(fds, 2, PATIENCE_US / 1000) > 0 && !fds[1].revents;
}

static bool peer_read(Peer *peer, void *to, size_t length) {
    for (size_t done = 0; done < length && !peer->cut;) {
        ssize_t n = peer_readable(peer, peer->fd) ? read(peer->fd, (char *)to + done, length - done)
                                                  : 0;
        if (n <= 0) peer->cut = true;
        else done += (size_t)n;
    }
    return !peer->cut;
}

UNUSED static void peer_bytes(Peer *peer, const void *from, size_t length) {
    for (size_t done = 0; done < length && !peer->cut;) {
        ssize_t n = send(peer->fd, (const char *)from + done, length - done, MSG_NOSIGNAL);
        if (n <= 0) peer->cut = true;
        else done += (size_t)n;
    }
}

UNUSED static void peer_send(Peer *peer) {
    peer_bytes(peer, peer->out.at, peer->out.length);
    buf_clear(&peer->out);
}

/* The next message; counts and passes over RENEWs, notes RELEASEs.  false: there is none. */
static bool peer_next(Peer *peer, WireHead *head, uint8_t body[static 4096]) {
    uint8_t bytes[WIRE_HEAD];
    Err err = {0};
    while (peer_read(peer, bytes, sizeof bytes) && wire_head(bytes, head, &err) &&
           head->length <= 4096 && peer_read(peer, body, head->length)) {
        if (head->type == WIRE_RELEASE) peer->released = true;
        if (head->type != WIRE_RENEW) return true;
        peer->renewals++;
    }
    peer->cut = true;
    return false;
}

UNUSED static bool peer_expect(Peer *peer, WireType type) {
    WireHead head;
    uint8_t body[4096];
    while (peer_next(peer, &head, body))
        if (head.type == type) {
            peer->pull = head.pull;
            return true;
        }
    return false;
}

/* ---- steps of a good owner ---- */

static bool peer_accept(Peer *peer) {
    if (peer->fd >= 0) close(peer->fd);
    peer->fd = peer_readable(peer, peer->listener) ? accept(peer->listener, NULL, NULL) : -1;
    peer->cut = peer->fd < 0;
    peer->accepted += peer->fd >= 0;
    return !peer->cut;
}

UNUSED static void peer_hello(Peer *peer) {
    if (!peer_expect(peer, WIRE_HELLO)) return;
    wire_put_hello(&peer->out, &peer->hello);
    peer_send(peer);
}

UNUSED static void peer_manifest(Peer *peer) {
    wire_put_manifest(&peer->out, peer->pull, &peer->manifest, peer->sealed);
    peer_send(peer);
}

UNUSED static void peer_put_block(Peer *peer, size_t index, size_t payload) {
    uint8_t head[WIRE_HEAD + WIRE_BLOCK_FIXED];
    auto_free uint8_t *bytes = mem_new(payload + peer->bytes);
    prompt_fill(bytes, peer->bytes, peer->prompt, index);
    WireBlock block = {(uint32_t)index, peer->sealed[index].generation};
    wire_block_head(head, peer->pull, &block, payload);
    buf_append(&peer->out, head, sizeof head);
    buf_append(&peer->out, bytes, payload);
}

UNUSED static void peer_blocks(Peer *peer, size_t from, size_t end) {
    for (size_t i = from; i < end; i++) peer_put_block(peer, i, peer->bytes);
    peer_send(peer);
}

UNUSED static void peer_confirm(Peer *peer) {
    wire_put_lease(&peer->out, WIRE_CONFIRMED, peer->pull, peer->manifest.lease);
    peer_send(peer);
}

UNUSED static void peer_gone(Peer *peer, KvLease lease, uint32_t reason) {
    wire_put_gone(&peer->out, peer->pull, (WireGone){lease, reason, 1234567});
    peer_send(peer);
}

/* Up to the manifest, and no further. */
UNUSED static void peer_until_manifest(Peer *peer) {
    if (!peer_accept(peer)) return;
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_manifest(peer);
}

UNUSED static void peer_until_done(Peer *peer) {
    peer_until_manifest(peer);
    if (!peer->cut) peer_blocks(peer, 0, peer->count);
    peer_expect(peer, WIRE_DONE);
}

UNUSED static void peer_serve(Peer *peer) {
    peer_until_done(peer);
    if (!peer->cut) peer_confirm(peer);
}

/* Until the other side closes: what it still says is noted. */
UNUSED static void peer_silent(Peer *peer) {
    WireHead head;
    uint8_t body[4096];
    while (!peer->cut) peer_next(peer, &head, body);
}

/* ---- its life ---- */

static void *peer_run(void *user) {
    Peer *peer = user;
    peer->script(peer);
    if (peer->fd >= 0) close(peer->fd);
    peer->fd = -1;
    return NULL;
}

static void peer_offer(Peer *peer, uint32_t prompt, size_t tokens) {
    peer->prompt = prompt;
    peer->tokens = tokens;
    peer->count = kv_blocks_for(tokens);
    peer->bytes = kv_block_bytes(&engine_shape);
    peer->chain = mem_new(peer->count * sizeof *peer->chain);
    peer->sealed = mem_new(peer->count * sizeof *peer->sealed);
    prompt_chain(&engine_shape, prompt, tokens, peer->chain);
    auto_free uint8_t *block = mem_new(peer->bytes);
    for (size_t i = 0; i < peer->count; i++) {
        prompt_fill(block, peer->bytes, prompt, i);
        peer->sealed[i] = (WireSealed){.chain = peer->chain[i],
                                       .checksum = kv_block_checksum(block, peer->bytes),
                                       .block = (KvBlock)(peer->count - 1 - i),
                                       .generation = (uint32_t)i + 1};
    }
    peer->manifest = (WireManifest){.lease = PEER_LEASE,
                                    .epoch = PEER_EPOCH,
                                    .lease_us = 10000000,
                                    .tokens = (uint32_t)tokens,
                                    .block_count = (uint32_t)peer->count,
                                    .cached_tokens = 32,
                                    .first = {.token = 41}};
}

/* Listens; peer_start() lets the script begin. */
UNUSED static void peer_init(Peer *peer, void (*script)(Peer *peer)) {
    uint64_t unique;
    random_bytes(&unique, sizeof unique);
    *peer = (Peer){.fd = -1, .script = script};
    snprintf(peer->id, sizeof peer->id, "peer-%016llx", (unsigned long long)unique);
    assert_int_equal(pipe(peer->stop), 0);
    peer_offer(peer, 3, 64);
    peer->listener = socket_or_fail(AF_INET);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(peer->listener, 8), 0);
    assert_int_equal(getsockname(peer->listener, (struct sockaddr *)&at, &length), 0);
    peer->port = ntohs(at.sin_port);
    peer->hello = (WireHello){.version_min = WIRE_VERSION,
                              .version_max = WIRE_VERSION,
                              .dtype = WIRE_DTYPE_HALF,
                              .layout = WIRE_LAYOUT,
                              .block_tokens = KV_BLOCK_TOKENS,
                              .shape = engine_shape,
                              .epoch = PEER_EPOCH,
                              .block_bytes = peer->bytes,
                              .generations_at = peer->count * peer->bytes,
                              .capacity = (uint32_t)peer->count,
                              .port = (uint16_t)peer->port};
    snprintf(peer->hello.engine, sizeof peer->hello.engine, "%s", peer->id);
}

UNUSED static void peer_start(Peer *peer) {
    assert_int_equal(pthread_create(&peer->thread, NULL, peer_run, peer), 0);
}

UNUSED static void peer_done(Peer *peer) {
    close(peer->stop[1]); /* the script's waiting ends */
    pthread_join(peer->thread, NULL);
    close(peer->stop[0]);
    close(peer->listener);
    free(peer->chain);
    free(peer->sealed);
    buf_done(&peer->out);
}

/* A plan to pull from it. */
UNUSED static void plan_from_peer(Plan *plan, Engine *engine, const Peer *peer, int64_t within_ms) {
    Engine as_engine = {.shape = engine_shape};
    plan_init(plan, engine, &as_engine, "req", peer->prompt, peer->tokens, 0);
    plan->pull.peer_engine = peer->id;
    plan->pull.peer_port = peer->port;
    plan->pull.deadline_us = clock_mono_us() + within_ms * 1000;
}

#endif
