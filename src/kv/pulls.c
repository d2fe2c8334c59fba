// SPDX-License-Identifier: Apache-2.0
/* pulls.c - the reader's side: every pull from its start to its one end.
 *
 *     CONNECTING ──hello──▶ PROVING ──manifest──▶ COPYING ──all blocks──▶ CONFIRMING ──▶ ok
 *         │ ▲                  │                     │                        │
 *         │ └─ rail fails, next rail;                │                        │
 *         │    connection lost, once ───────────────┘                        │
 *         └──────── error: deadline, cancel, refusal, damage, GONE ───────────┘
 *
 *     CONNECTING  nothing is known of the peer yet
 *     PROVING     conn->peer is known: GET was sent
 *     COPYING     lease, sealed, first and cached_tokens may be trusted; it is renewed from now on
 *     CONFIRMING  all blocks are here and have their checksums; DONE was sent.  A connection lost
 *                 here is an error: nobody can tell whether the lease still stood */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define RENEWAL_LEAST_US 5000

static const Rail *const rails_auto[] = {&rail_shm, &rail_tcp, NULL}; /* best first */

Pull *pull_new(const KvPull *from) {
    assert(from->skip <= from->block_count);
    Pull *pull = mem_new(sizeof *pull);
    size_t copied = from->block_count - from->skip;
    pull->user = from->user;
    pull->engine = mem_dup_str(from->peer_engine ? from->peer_engine : "");
    pull->host = mem_dup_str(from->peer_host ? from->peer_host : "");
    pull->request = mem_dup_str(from->peer_request ? from->peer_request : "");
    pull->port = from->peer_port;
    pull->epoch = from->peer_epoch;
    pull->block_count = from->block_count;
    pull->tokens = from->tokens;
    pull->skip = from->skip;
    pull->chain = mem_new(from->block_count * sizeof *pull->chain);
    pull->blocks = mem_new(copied * sizeof *pull->blocks);
    if (from->block_count)
        memcpy(pull->chain, from->chain, from->block_count * sizeof *from->chain);
    if (copied) memcpy(pull->blocks, from->blocks, copied * sizeof *from->blocks);
    pull->deadline_us = from->deadline_us;
    pull->started_us = clock_mono_us();
    return pull;
}

void pull_free(Pull *pull) {
    if (!pull) return;
    free(pull->engine);
    free(pull->host);
    free(pull->request);
    free(pull->chain);
    free(pull->blocks);
    free(pull->sealed);
    free(pull);
}

uint8_t *pull_target(const Pull *pull, size_t index) {
    return agent_block(pull->agent, pull->blocks[index - pull->skip]);
}

Pull *pull_find(KvAgent *agent, const Conn *conn, uint64_t id) {
    Pull *pull = agent->pulls;
    while (pull && (pull->id != id || pull->conn != conn)) pull = pull->next;
    return pull;
}

size_t pulls_on(const Conn *conn) {
    size_t count = 0;
    for (const Pull *pull = conn->agent->pulls; pull; pull = pull->next)
        count += pull->conn == conn;
    return count;
}

static void enter(Pull *pull, PullStage stage) {
    pull->stage = stage;
    pull->stage_us = clock_mono_us();
}

/* ---- the end ---- */

/* Off its connection: nothing that still comes for it is taken. */
static void detach(Pull *pull) {
    Conn *conn = pull->conn;
    if (!conn) return;
    pull->conn = NULL;
    conn->used_us = clock_mono_us();
    agent_wake_at(pull->agent, conn->used_us + LIMIT_KV_IDLE_MS * 1000);
    if (conn->payload_pull == pull) conn->payload_pull = NULL;
    if (pull->stage == PULL_COPYING && !pull->rail->work) conn->blocks_due--;
}

static void unlink_pull(Pull *pull) {
    Pull **at = &pull->agent->pulls;
    while (*at != pull) at = &(*at)->next;
    *at = pull->next;
}

static void count(KvAgent *agent, const Pull *pull, const KvPullResult *result) {
    KvAgentStats *stats = &agent->stats;
    if (!result->ok) {
        counter_add(&stats->pulls_failed, 1);
        counter_add(&stats->failed_by_code[result->err.code], 1);
        return;
    }
    counter_add(&stats->pulls_ok, 1);
    counter_add(&stats->rail_used[result->rail], 1);
    if (result->rail_reason[0] && agent->conf.rail == KV_RAIL_AUTO)
        counter_add(&stats->rail_downgraded, 1);
    histogram_observe(&stats->pull_seconds, (double)result->total_us / 1e6);
    histogram_observe(&stats->pull_bytes, (double)result->bytes);
    histogram_observe(&stats->pull_blocks, (double)(pull->block_count - pull->skip));
}

/* Tells the caller: once, whatever becomes of the pull then. */
static void tell(Pull *pull, const Err *failure) {
    KvAgent *agent = pull->agent;
    int64_t now = clock_mono_us();
    KvPullResult result = {.user = pull->user,
                           .ok = !failure,
                           .rail = pull->opened_us ? pull->rail->id : KV_RAIL_AUTO,
                           .bytes = pull->bytes,
                           .connect_us = pull->opened_us ? pull->opened_us - pull->started_us : 0,
                           .total_us = now - pull->started_us};
    if (failure) {
        result.err = *failure;
        err_wrap(&result.err,
                 "could not pull KV of request '%.100s' from engine '%.96s' at %.40s:%d",
                 pull->request, pull->engine, pull->host, pull->port);
    } else {
        result.cached_tokens = pull->cached_tokens;
        result.first = pull->first;
    }
    memcpy(result.rail_reason, pull->rail_reason, sizeof result.rail_reason);
    count(agent, pull, &result);
    agent->conf.pull_done(&result, agent->conf.user);
}

static void pull_end(Pull *pull, const Err *failure) {
    detach(pull);
    unlink_pull(pull);
    if (!pull->release_only) tell(pull, failure);
    pull_free(pull);
}

static void send_release(Pull *pull) {
    auto_buf Buf message = {0};
    wire_put_release(&message, pull->id, pull->lease, pull->lease ? "" : pull->request);
    conn_send(pull->conn, &message);
}

/* An offer that has been proven ours is given back: nobody else waits for it. */
void pull_fail(Pull *pull, const Err *cause) {
    Err own = *cause; /* it may lie in what is freed now */
    if (pull->conn && pull->stage >= PULL_COPYING) send_release(pull);
    pull_end(pull, &own);
}

/* ---- connecting ---- */

static void note_rail(Pull *pull, const Err *why) {
    snprintf(pull->rail_reason, sizeof pull->rail_reason, "%s: %.140s",
             kv_rail_name(pull->rail->id), why->message);
}

static void hint_unreachable(const Pull *pull, Err *err) {
    if (err->hint[0]) return;
    err_hint(err, "Check that the prefill engine runs and that this host reaches %.80s:%d.",
             pull->host, pull->port);
}

static void get_or_release(Pull *pull) {
    auto_buf Buf message = {0};
    if (!pull->opened_us) pull->opened_us = clock_mono_us();
    if (pull->release_only) {
        send_release(pull);
        pull_end(pull, NULL);
        return;
    }
    enter(pull, PULL_PROVING);
    bool sent = !pull->rail->work && pull->skip < pull->block_count;
    WireGet get = {.epoch = pull->epoch,
                   .first = sent ? (uint32_t)pull->skip : WIRE_NO_BLOCKS,
                   .last = pull->chain[pull->block_count - 1]};
    memcpy(get.request, pull->request, strlen(pull->request) + 1);
    wire_put_get(&message, pull->id, &get);
    conn_send(pull->conn, &message);
}

static void use_rail(Pull *pull, const Rail *rail) {
    KvAgent *agent = pull->agent;
    pull->rail = rail;
    enter(pull, PULL_CONNECTING);
    Conn *conn = conn_open(agent, rail, pull->engine, pull->host, pull->port);
    if (!conn) {
        Err err = {0};
        err_set(&err, ERR_EXHAUSTED, "this engine has %d connections, which is the limit",
                LIMIT_KV_PEERS);
        pull_fail(pull, &err);
        return;
    }
    pull->conn = conn;
    if (conn->open) get_or_release(pull);
}

static void begin(Pull *pull) {
    bool only_tcp = pull->agent->conf.rail == KV_RAIL_TCP;
    snprintf(pull->rail_reason, sizeof pull->rail_reason, "%s",
             only_tcp ? "shm: not tried, this engine's rail is set to tcp" : "");
    use_rail(pull, only_tcp ? &rail_tcp : rails_auto[0]);
}

static void use_next_rail(Pull *pull, const Err *why) {
    Err err = *why;
    size_t i = 0;
    while (rails_auto[i] != pull->rail) i++;
    if (pull->agent->conf.rail == KV_RAIL_AUTO && rails_auto[i + 1]) {
        note_rail(pull, why);
        use_rail(pull, rails_auto[i + 1]);
        return;
    }
    if (pull->agent->conf.rail == KV_RAIL_SHM) {
        err_wrap(&err, "the shm rail cannot be used, and no other may be");
        if (!err.hint[0])
            err_hint(&err, "Run both engines on one host as one user, or leave the rail to auto.");
    }
    hint_unreachable(pull, &err);
    pull_fail(pull, &err);
}

void pulls_conn_open(Conn *conn) {
    for (Pull *pull = conn->agent->pulls, *next; pull; pull = next) {
        next = pull->next;
        if (pull->conn == conn) get_or_release(pull);
    }
}

/* The connection is closed already. */
static void pull_lost(Pull *pull, Failure failure, const Err *why) {
    Err err = *why;
    if (failure == FAIL_RAIL) {
        use_next_rail(pull, why);
    } else if (failure == FAIL_LOST && pull->stage != PULL_CONFIRMING && !pull->retried) {
        pull->retried = true;
        pull->lease = 0;
        begin(pull);
    } else {
        if (failure == FAIL_LOST) hint_unreachable(pull, &err);
        if (pull->stage == PULL_CONFIRMING) err_wrap(&err, "before the confirmation");
        pull_fail(pull, &err);
    }
}

void pulls_conn_failed(Conn *conn, Failure failure, const Err *why) {
    for (Pull *pull = conn->agent->pulls, *next; pull; pull = next) {
        next = pull->next;
        if (pull->conn != conn) continue;
        detach(pull);
        pull_lost(pull, failure, why);
    }
}

/* ---- from agent.c ---- */

static bool pull_valid(const Pull *pull, Err *err) {
    size_t engine = strlen(pull->engine), request = strlen(pull->request);
    if (!engine || engine > KV_ENGINE_ID_MAX)
        return err_set(err, ERR_INVALID, "remote_engine_id has %zu bytes, 1 to %d are possible",
                       engine, KV_ENGINE_ID_MAX);
    if (!request || request > LIMIT_KV_NAME)
        return err_set(err, ERR_INVALID, "remote_request_id has %zu bytes, 1 to %d are possible",
                       request, LIMIT_KV_NAME);
    bool whole = pull->tokens && pull->block_count == kv_blocks_for(pull->tokens);
    if (!whole && !pull->release_only)
        return err_set(err, ERR_INVALID, "a prompt of %zu tokens has no %zu blocks", pull->tokens,
                       pull->block_count);
    if (!pull->host[0] || pull->port < 1 || pull->port > 65535)
        return err_set(err, ERR_INVALID, "remote_host and remote_port name no address");
    return true;
}

void pull_start(KvAgent *agent, Pull *pull) {
    Err err = {0};
    pull->agent = agent;
    pull->id = ++agent->last_pull;
    pull->next = agent->pulls;
    agent->pulls = pull;
    if (agent->closing) {
        err_set(&err, ERR_UNAVAILABLE, "this engine is shutting down");
        pull_fail(pull, &err);
    } else if (!pull_valid(pull, &err)) {
        err_hint(&err, "Pass kv_transfer_params on as the prefill engine returned them.");
        pull_fail(pull, &err);
    } else {
        agent_wake_at(agent, pull->deadline_us);
        begin(pull);
    }
}

/* The caller is told at once.  The peer is told as soon as there is a connection to it. */
void pull_cancel(KvAgent *agent, const void *user) {
    for (Pull *pull = agent->pulls, *next; pull; pull = next) {
        next = pull->next;
        if (pull->user != user || pull->release_only) continue;
        Err err = {0};
        err_set(&err, ERR_UNAVAILABLE, "it was cancelled");
        if (pull->stage != PULL_CONNECTING) {
            send_release(pull);
            pull_end(pull, &err);
        } else {
            tell(pull, &err);
            pull->release_only = true;
        }
    }
}

void pulls_end_all(KvAgent *agent) {
    Err err = {0};
    err_set(&err, ERR_UNAVAILABLE, "this engine is shutting down");
    while (agent->pulls) pull_fail(agent->pulls, &err);
}

/* ---- the clock ---- */

static void pull_late(Pull *pull, int64_t now_us) {
    char awaited[64];
    Err err = {0};
    static const char *const names[] = {"a hello", "its manifest", "", "the confirmation"};
    snprintf(awaited, sizeof awaited, "%s", names[pull->stage]);
    if (pull->stage == PULL_COPYING)
        snprintf(awaited, sizeof awaited, "block %zu of %zu", pull->at + 1, pull->block_count);
    err_set(&err, ERR_DEADLINE, "waited for %s over %s until the deadline, %lld ms after the start",
            awaited, kv_rail_name(pull->rail->id),
            (long long)((now_us - pull->started_us + 500) / 1000));
    hint_unreachable(pull, &err);
    Conn *conn = pull->conn;
    bool silent = conn && conn->heard_us < pull->stage_us;
    pull_fail(pull, &err);
    if (!silent) return;
    /* Not a sound since we asked: whoever else waits on this connection tries a fresh one. */
    err_set(&err, ERR_UNAVAILABLE, "the peer has been silent");
    conn_fail(conn, conn->open ? FAIL_LOST : FAIL_RAIL, &err);
}

/* A peer may call a lease what it likes: it does not make us do nothing else. */
static int64_t renewal_us(const Pull *pull) {
    return pull->lease_us / 3 > RENEWAL_LEAST_US ? pull->lease_us / 3 : RENEWAL_LEAST_US;
}

static void pull_renew(Pull *pull, int64_t now_us) {
    auto_buf Buf message = {0};
    wire_put_lease(&message, WIRE_RENEW, pull->id, pull->lease);
    conn_send(pull->conn, &message);
    pull->renew_us = now_us + renewal_us(pull);
}

int64_t pulls_tick(KvAgent *agent, int64_t now_us) {
    int64_t next_us = INT64_MAX;
    for (Pull *pull = agent->pulls; pull; pull = pull->next) {
        if (pull->deadline_us <= now_us) {
            pull_late(pull, now_us);
            return now_us; /* the list may be another one now: look again */
        }
        bool leased = pull->stage >= PULL_COPYING;
        if (leased && pull->renew_us <= now_us) pull_renew(pull, now_us);
        if (leased && pull->renew_us < next_us) next_us = pull->renew_us;
        if (pull->deadline_us < next_us) next_us = pull->deadline_us;
    }
    return next_us;
}

/* ---- the proof ---- */

static bool chain_fits(const Pull *pull, const WireManifest *manifest, Err *err) {
    if (manifest->tokens != pull->tokens) {
        err_set(err, ERR_CONFLICT, "it offers %u tokens, the prompt has %zu", manifest->tokens,
                pull->tokens);
        return err_hint(err, "Send the same prompt to both engines, with the same chat template.");
    }
    for (size_t i = 0; i < pull->block_count; i++) {
        WireSealed sealed = wire_sealed(manifest, i);
        if (kv_hash_same(sealed.chain, pull->chain[i])) continue;
        err_set(err, ERR_CONFLICT,
                "it offers blocks of another prompt: block %zu of %zu has chain %016llx%016llx, "
                "expected %016llx%016llx",
                i + 1, pull->block_count, (unsigned long long)sealed.chain.high,
                (unsigned long long)sealed.chain.low, (unsigned long long)pull->chain[i].high,
                (unsigned long long)pull->chain[i].low);
        return err_hint(err, "Send the same prompt to both engines, with the same chat template.");
    }
    return true;
}

static bool manifest_fits(const Pull *pull, const WireManifest *manifest, Err *err) {
    if (manifest->epoch != pull->conn->peer.epoch)
        return err_set(
            err, ERR_DAMAGED, "its manifest is of boot epoch %016llx, its hello of %016llx",
            (unsigned long long)manifest->epoch, (unsigned long long)pull->conn->peer.epoch);
    if (!chain_fits(pull, manifest, err)) return false;
    for (size_t i = pull->skip; i < pull->block_count; i++)
        if (wire_sealed(manifest, i).block >= pull->conn->peer.capacity)
            return err_set(err, ERR_DAMAGED, "its manifest puts block %zu at %u, of %u", i + 1,
                           wire_sealed(manifest, i).block, pull->conn->peer.capacity);
    return true;
}

static bool on_manifest(Pull *pull, Str body, Err *err) {
    WireManifest manifest;
    if (pull->stage != PULL_PROVING)
        return err_set(err, ERR_DAMAGED, "a MANIFEST came twice");
    if (!wire_manifest(body, &manifest, err)) return false;
    if (!manifest_fits(pull, &manifest, err)) return false;
    free(pull->sealed);
    pull->sealed = mem_new(pull->block_count * sizeof *pull->sealed);
    for (size_t i = 0; i < pull->block_count; i++) pull->sealed[i] = wire_sealed(&manifest, i);
    pull->lease = manifest.lease;
    pull->lease_us = manifest.lease_us;
    pull->cached_tokens = manifest.cached_tokens;
    pull->first = manifest.first;
    pull->at = pull->skip;
    pull->bytes = 0;
    enter(pull, PULL_COPYING);
    pull->renew_us = pull->stage_us + renewal_us(pull);
    agent_wake_at(pull->agent, pull->renew_us);
    KvAgent *agent = pull->agent;
    if (!pull->rail->work) pull->conn->blocks_due++;
    if (pull->at == pull->block_count) pull_moved(pull);
    else if (pull->rail->work && pull->rail->work(pull)) agent_work(agent);
    return true;
}

/* ---- copying and confirming ---- */

bool pull_prove(Pull *pull, uint64_t checksum, Err *err) {
    uint64_t expected = pull->sealed[pull->at].checksum;
    if (checksum != expected)
        return err_set(err, ERR_DAMAGED, "block %zu of %zu has checksum %016llx, expected %016llx",
                       pull->at + 1, pull->block_count, (unsigned long long)checksum,
                       (unsigned long long)expected);
    pull->at++;
    pull->bytes += pull->agent->block_bytes;
    counter_add(&pull->agent->stats.bytes_in, pull->agent->block_bytes);
    return true;
}

void pull_moved(Pull *pull) {
    auto_buf Buf message = {0};
    if (!pull->rail->work) pull->conn->blocks_due--;
    enter(pull, PULL_CONFIRMING);
    wire_put_done(&message, pull->id, (WireDone){pull->lease, pull->bytes});
    conn_send(pull->conn, &message);
}

static bool on_confirmed(Pull *pull, Str body, Err *err) {
    KvLease lease;
    if (!wire_lease(WIRE_CONFIRMED, body, &lease, err)) return false;
    if (pull->stage != PULL_CONFIRMING || lease != pull->lease)
        return err_set(err, ERR_DAMAGED, "a CONFIRMED came that nothing was to confirm");
    pull_end(pull, NULL);
    return true;
}

/* No such offer (any more): a proper answer, the connection is well. */
static bool on_gone(Pull *pull, Str body, Err *err) {
    static const struct { ErrCode code; const char *text; } reasons[] = {
        [WIRE_UNKNOWN]     = {ERR_NOT_FOUND, "it knows no offer of that request"},
        [WIRE_EXPIRED]     = {ERR_UNAVAILABLE, "its offer expired"},
        [WIRE_RELEASED]    = {ERR_UNAVAILABLE, "its offer was already taken or released"},
        [WIRE_RETRACTED]   = {ERR_UNAVAILABLE, "it has retracted its offer"},
        [WIRE_OTHER_EPOCH] = {ERR_UNAVAILABLE, ""},
    };
    WireGone gone;
    Err why = {0};
    if (!wire_gone(body, &gone, err)) return false;
    if (gone.reason == WIRE_OTHER_EPOCH)
        err_set(&why, ERR_UNAVAILABLE,
                "the engine has restarted (boot epoch %016llx is not %016llx): its offers are gone",
                (unsigned long long)pull->conn->peer.epoch, (unsigned long long)pull->epoch);
    else if (gone.reason >= 1 && gone.reason < COUNT_OF(reasons))
        err_set(&why, reasons[gone.reason].code, "%s", reasons[gone.reason].text);
    else err_set(&why, ERR_UNAVAILABLE, "its offer is gone, reason %u", gone.reason);
    if (gone.ago_us > 0) {
        size_t length = strlen(why.message);
        snprintf(why.message + length, sizeof why.message - length, "%s %lld ms ago",
                 gone.reason == WIRE_UNKNOWN ? ": it started" : "",
                 (long long)(gone.ago_us / 1000));
    }
    if (pull->stage == PULL_CONFIRMING)
        err_wrap(&why, "all blocks had come, but they may have been overwritten meanwhile");
    err_hint(&why, gone.reason == WIRE_EXPIRED ? "Raise kv_lease_duration on the prefill engine."
                                               : "Send the request again.");
    pull_end(pull, &why);
    return true;
}

/* What comes for a pull that has ended, or went on over another connection, is of no interest. */
void pulls_message(Conn *conn, const WireHead *head, Str body) {
    Err err = {0};
    Pull *pull = pull_find(conn->agent, conn, head->pull);
    if (!pull) return;
    bool ok = head->type == WIRE_MANIFEST    ? on_manifest(pull, body, &err)
              : head->type == WIRE_CONFIRMED ? on_confirmed(pull, body, &err)
                                             : on_gone(pull, body, &err);
    if (ok) return;
    /* Another prompt's manifest is this pull's trouble alone; anything else is the connection's. */
    if (err.code == ERR_CONFLICT) pull_fail(pull, &err);
    else conn_fail(conn, FAIL_PEER, &err);
}

bool pulls_work(KvAgent *agent) {
    /* The one that was served longest ago: the list is turned by one. */
    Pull *pull = agent->pulls, *last = NULL;
    for (; pull; pull = pull->next)
        if (pull->stage == PULL_COPYING && pull->rail->work) last = pull;
    if (!last) return false;
    if (last->rail->work(last) && last != agent->pulls) {
        unlink_pull(last);
        last->next = agent->pulls;
        agent->pulls = last;
    }
    return true;
}
