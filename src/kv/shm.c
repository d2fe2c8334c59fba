// SPDX-License-Identifier: Apache-2.0
/* shm.c - the shm rail: the peer's pool is mapped for reading, and blocks are copied out of it.
 *
 * The owner sends a descriptor that is open for reading only, of a memfd that nobody can shrink or
 * map for writing anew; and only to a process of its own user, since it shows every block.  The
 * mapping lives as long as the connection: an owner that dies or restarts takes it with it, so its
 * memory is never held by us.
 *
 * A block proves itself twice: its generation is what the manifest said before and after the copy,
 * and the copy has the checksum. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLICE MIB         /* copied in one round of the loop */
#define PIECE (16 * KIB)  /* copied, then hashed while the first-level cache still holds it */

static Stream *shm_connect(Conn *conn, const StreamCalls *calls) {
    char name[KV_ENGINE_ID_MAX + 16];
    snprintf(name, sizeof name, "@baton-kv-%s", conn->engine);
    conn->fd_due = true;
    return stream_connect_unix(conn->agent->loop, name, LIMIT_KV_HELLO_MS, calls, conn);
}

/* Both ends check: anyone in this network namespace may connect to, or take, an abstract name. */
static bool same_user(const Conn *conn) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(stream_fd(conn->stream), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           peer.uid == geteuid() && !fault_hit("kv.user");
}

static bool shm_accepted(Conn *conn) {
    Err err = {0};
    if (!same_user(conn)) {
        stream_write(conn->stream, "", 1); /* the byte without its descriptor */
        conn_refuse(conn, WIRE_REFUSE_USER, "the engines run as different users");
        return false;
    }
    if (stream_send_fd(conn->stream, conn->agent->memory_fd, &err)) return true;
    conn_close(conn);
    return false;
}

/* Does the memory hold all that the hello says?  Then no block of it lies outside. */
static bool memory_fits(const Conn *conn, size_t size) {
    const WireHello *peer = &conn->peer;
    uint64_t blocks, table;
    return !__builtin_mul_overflow(peer->block_bytes, peer->capacity, &blocks) &&
           blocks <= size && peer->generations_at >= blocks &&
           peer->generations_at % sizeof(uint32_t) == 0 &&
           !__builtin_add_overflow(peer->generations_at, peer->capacity * sizeof(uint32_t),
                                   &table) &&
           table <= size;
}

static bool shm_attach(Conn *conn, Err *err) {
    struct stat info;
    if (!same_user(conn))
        return err_set(err, ERR_UNAUTHORIZED, "the engines run as different users");
    if (conn->memory_fd < 0)
        return err_set(err, ERR_DAMAGED, "no descriptor of its memory came");
    int seals = fcntl(conn->memory_fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(conn->memory_fd, &info) < 0 ||
        !memory_fits(conn, (size_t)info.st_size))
        return err_set(err, ERR_DAMAGED, "its memory is not sealed, or does not hold its blocks");
    size_t size = (size_t)info.st_size;
    void *memory = fault_hit("kv.map_peer")
                       ? MAP_FAILED
                       : mmap(NULL, size, PROT_READ, MAP_SHARED, conn->memory_fd, 0);
    if (memory == MAP_FAILED)
        return err_set(err, ERR_EXHAUSTED, "could not map its %.1f MiB: %s",
                       (double)size / 1048576, strerror(errno));
    close(conn->memory_fd);
    conn->memory_fd = -1;
    conn->memory = memory;
    conn->memory_bytes = size;
    return true;
}

static void shm_detach(Conn *conn) {
    if (conn->memory_fd >= 0) close(conn->memory_fd);
    conn->memory_fd = -1;
    if (conn->memory) munmap((void *)conn->memory, conn->memory_bytes);
    conn->memory = NULL;
}

static bool generation_holds(const Pull *pull, const WireSealed *sealed) {
    const Conn *conn = pull->conn;
    const _Atomic uint32_t *generations =
        (const _Atomic uint32_t *)(const void *)(conn->memory + conn->peer.generations_at);
    return atomic_load_explicit(&generations[sealed->block], memory_order_acquire) ==
           sealed->generation;
}

static bool copy_block(Pull *pull, Err *err) {
    const WireSealed *sealed = &pull->sealed[pull->at];
    const uint8_t *from = pull->conn->memory + sealed->block * pull->conn->peer.block_bytes;
    uint8_t *to = pull_target(pull, pull->at);
    Sum *sum = pull->agent->sum;
    bool held = generation_holds(pull, sealed);
    sum_begin(sum);
    for (size_t done = 0, bytes = pull->agent->block_bytes; held && done < bytes;) {
        size_t piece = bytes - done < PIECE ? bytes - done : PIECE;
        memcpy(to + done, from + done, piece);
        sum_add(sum, to + done, piece);
        done += piece;
    }
    /* The bytes first, then the count again: x86-64 keeps the order of loads, as of stores. */
    atomic_signal_fence(memory_order_seq_cst);
    if (!held || !generation_holds(pull, sealed))
        return err_set(err, ERR_UNAVAILABLE, "block %zu of %zu was overwritten while it was read",
                       pull->at + 1, pull->block_count);
    return pull_prove(pull, sum_end(sum), err);
}

static bool shm_work(Pull *pull) {
    Err err = {0};
    for (size_t bytes = 0; bytes < SLICE && pull->at < pull->block_count;
         bytes += pull->agent->block_bytes)
        if (!copy_block(pull, &err)) {
            pull_fail(pull, &err);
            return false;
        }
    if (pull->at < pull->block_count) return true;
    pull_moved(pull);
    return false;
}

const Rail rail_shm = {.id = KV_RAIL_SHM,
                       .connect = shm_connect,
                       .accepted = shm_accepted,
                       .attach = shm_attach,
                       .detach = shm_detach,
                       .work = shm_work};
