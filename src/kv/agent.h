// SPDX-License-Identifier: Apache-2.0
/* agent.h - the engine's end of the KV transport: offers blocks to peers and pulls theirs.
 *
 * The agent is a thread with its own loop.  A prefill engine gives it an offer (sealed blocks under
 * a lease, and the first token); a decode engine gives it a pull (where the offer lies, what it
 * must prove to be, and the blocks to fill).  Both end with exactly one callback, on the agent's
 * thread: forward it by mailbox.
 *
 *            offer ──▶ OFFERED ──release / expiry / retract──▶ ended(reason)
 *            pull  ──▶ CONNECTING ──▶ PROVING ──▶ COPYING ──▶ CONFIRMING ──▶ done(ok | error)
 *
 * A pull succeeds only if: the peer is the engine and boot epoch that the offer was made by; the
 * manifest's shape, token count and chain equal the expected ones; every block's checksum holds
 * after the copy; and the peer confirms that the lease still stood when the copy had ended.
 * Anything else is an error that names peer, stage and cause, within the pull's deadline.  Nothing
 * of a failed pull may be used.  A pull that fails after its proof, or is cancelled, also tells the
 * peer that the offer is not needed any more.
 *
 * While a pull is under way its lease is renewed.  An offer ends with the first reader that is
 * done; whoever reads it at the same time is told that it has gone. */
#ifndef BATON_KV_AGENT_H
#define BATON_KV_AGENT_H

#include "pool.h"

typedef enum KvRail { KV_RAIL_AUTO, KV_RAIL_SHM, KV_RAIL_TCP, KV_RAILS } KvRail;
const char *
kv_rail_name(KvRail rail); /* "auto", "shm", "tcp"; a pull over none is "none" to callers */
bool kv_rail_from(const char *name, KvRail *out);

/* What travels beside the blocks: the token sampled from the last prompt position.  Flat, so that
 * it can be sent. */
#define KV_FIRST_TOP_MAX 20
typedef struct KvFirstToken {
    int32_t token;          /* -1: none was sampled */
    uint32_t top_count;     /* log-probabilities that were asked for, best first */
    uint64_t sampling_hash; /* of every parameter that the choice depended on: must equal the
                               reader's own */
    float logprob;
    uint32_t rank;          /* 1 = the most likely */
    int32_t top_tokens[KV_FIRST_TOP_MAX];
    float top_logprobs[KV_FIRST_TOP_MAX];
} KvFirstToken;

typedef struct KvOffer {    /* copied by kv_agent_offer() */
    KvLease lease;
    const char *request;    /* remote_request_id: what the reader asks for; <= LIMIT_KV_NAME */
    const KvBlock *blocks;  /* leased: they stay as they are until `ended` was called */
    const KvHash *chain;    /* of each block */
    size_t block_count, tokens; /* 1 to LIMIT_KV_PROMPT tokens */
    uint32_t cached_tokens; /* of `tokens`, how many came from the prefix index */
    KvFirstToken first;
    int64_t deadline_us;
} KvOffer;

typedef enum KvEnd { KV_END_RELEASED, KV_END_EXPIRED, KV_END_RETRACTED } KvEnd;

typedef struct KvPull {     /* copied by kv_agent_pull() */
    const char *peer_engine;/* remote_engine_id */
    const char *peer_host;
    int peer_port;
    const char *peer_request; /* remote_request_id */
    uint64_t peer_epoch;    /* kv_agent_epoch() of the engine that made the offer; 0: not known */
    const KvHash *chain;    /* expected, of each block of the whole prompt */
    size_t block_count, tokens;
    size_t skip;            /* leading blocks that are here already and are not copied */
    const KvBlock
        *blocks; /* destinations of blocks skip..block_count-1, held by the caller until done */
    int64_t deadline_us;
    void *user;             /* handed back */
} KvPull;

typedef struct KvPullResult {
    void *user;
    bool ok;
    Err err;                /* when !ok */
    KvRail rail;            /* that carried the bytes; KV_RAIL_AUTO: there was no connection */
    char rail_reason[160];  /* why not a better rail; "" if it was the best */
    uint64_t bytes;         /* of blocks moved */
    int64_t connect_us, total_us;
    uint32_t cached_tokens; /* of the offer */
    KvFirstToken first;
} KvPullResult;

typedef struct KvAgentStats {
    Counter pulls_ok, pulls_failed, failed_by_code[ERR_CODES], rail_used[KV_RAILS], rail_downgraded;
    Counter offers, offers_released, offers_expired,
        late_releases; /* late: after expiry, the reader was told */
    Counter bytes_in, bytes_out;
    Histogram pull_seconds, pull_bytes, pull_blocks;
} KvAgentStats;

typedef struct KvAgentConf {
    KvPool *pool;            /* for its memfd, base and shape; the ledger stays with the engine */
    const char *engine_id;   /* 1 to KV_ENGINE_ID_MAX bytes */
    const char *host;        /* the TCP port's address; NULL: every IPv4 address */
    int port;                /* 0: any */
    KvRail rail;             /* forced, or auto */
    int64_t lease_us;        /* for renewals */
    void (*offer_ended)(KvLease lease, KvEnd end, void *user);
    void (*offer_renewed)(KvLease lease, int64_t deadline_us, void *user);
    void (*pull_done)(const KvPullResult *result, void *user);
    void *user;
} KvAgentConf;

#define KV_ENGINE_ID_MAX 96  /* it must fit into the name of a Unix socket */
typedef struct KvAgent KvAgent;
KvAgent *kv_agent_open(const KvAgentConf *conf,
                       Err *err) MUST_CHECK; /* listens on TCP and on "@baton-kv-<engine id>" */
int kv_agent_port(const KvAgent *agent);
uint64_t kv_agent_epoch(const KvAgent *agent); /* random per start, never 0 */
void kv_agent_offer(KvAgent *agent,
                    const KvOffer *offer); /* by the pool's owner: it notes the generations */
void kv_agent_retract(KvAgent *agent,
                      KvLease lease); /* the prefill request was aborted, or the engine drains */
void kv_agent_pull(KvAgent *agent, const KvPull *pull);
void kv_agent_cancel(
    KvAgent *agent,
    void *pull_user); /* ends it early: done is still called, with ERR_UNAVAILABLE */
void kv_agent_release(KvAgent *agent,
                      const KvPull *pull); /* only tells the peer that its offer is not needed */
const KvAgentStats *kv_agent_stats(const KvAgent *agent);
void kv_agent_close(
    KvAgent *agent); /* ends every offer and pull with its callback, then the thread */

#endif
