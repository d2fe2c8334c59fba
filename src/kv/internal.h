// SPDX-License-Identifier: Apache-2.0
/* internal.h - the agent's inside.  Everything here runs on the agent's thread.
 *
 *     agent.c   thread, mailbox, the one timer, the public calls
 *     offers.c  owner's side:  offers, and the answers to GET, DONE, RENEW, RELEASE
 *     pulls.c   reader's side: pulls from stage to stage, how they fail, and over which rail they
 * go conn.c    one connection: hello, messages in and out, bytes of blocks to where they belong
 *     rail.h    how the blocks of a proven pull are moved: shm.c, tcp.c
 *     wire.h    messages as bytes
 *
 * A Conn is incoming (a reader's, served by offers.c) or outgoing (ours, used by pulls.c). */
#ifndef BATON_KV_INTERNAL_H
#define BATON_KV_INTERNAL_H

#include <pthread.h>

#include "io/io.h"

#include "rail.h"
#include "wire.h"

typedef struct Conn Conn;
typedef struct Offer Offer;
typedef struct Pull Pull;

/* ---- sums: XXH3-64 in pieces ---- */

typedef struct Sum Sum;
Sum *sum_new(void);
void sum_free(Sum *sum);
void sum_begin(Sum *sum);
void sum_add(Sum *sum, const void *bytes, size_t length);
uint64_t sum_end(const Sum *sum);

/* ---- the agent ---- */

typedef struct KnownSum { /* of a full block that was offered before; it cannot change while it
                             keeps its generation */
    uint32_t generation;
    bool known;
    KvHash chain;
    uint64_t checksum;
} KnownSum;

typedef struct Ended { /* an offer that was, to say why it is gone */
    uint64_t request; /* a hash of it; 0: the place is empty */
    KvLease lease;
    KvEnd end;
    int64_t at_us;
} Ended;

struct KvAgent {
    KvAgentConf conf;
    WireHello hello; /* ours: engine id, epoch, shape, port */
    int64_t started_us; /* who asks for an offer of an earlier life is told when this one began */
    size_t block_bytes;
    int memory_fd;   /* the pool's memfd, opened anew for reading only; -1: not over shm */

    Loop *loop;
    pthread_t thread;
    Mailbox *inbox;
    Listener *tcp, *local;
    Timer *wake;     /* the next deadline of anything */
    int64_t wake_us;
    Timer *work;     /* fires in every round of the loop while there are blocks to hash or copy */
    bool working, closing;

    Conn *conns;
    size_t conn_count;
    uint64_t last_conn;
    Offer *offers;   /* newest first */
    Ended ended[LIMIT_KV_ENDED];
    size_t ended_next;
    KnownSum *known_sums; /* [capacity] */
    Pull *pulls;
    uint64_t last_pull;
    Sum *sum;             /* of what is copied, within one call */
    uint8_t *scratch;     /* [SCRATCH] where payload goes that nobody wants any more */
    KvAgentStats stats;
};

#define SCRATCH (64 * KIB)
void agent_wake_at(KvAgent *agent, int64_t at_us);
void agent_work(KvAgent *agent);
/* Brings the GET back, by offers_get_again(), behind all offers that were made up to now. */
void agent_get_again(KvAgent *agent, const Conn *conn, uint64_t pull, const WireGet *get);
uint8_t *agent_block(const KvAgent *agent, KvBlock block);

/* ---- connections ---- */

typedef enum Failure {
    FAIL_RAIL, /* this rail does not reach the peer: the next one may */
    FAIL_LOST, /* there was a connection, and it broke: worth one more attempt */
    FAIL_PEER  /* the peer is not what it should be, or does not keep to the protocol */
} Failure;

typedef struct Reading Reading; /* offers.c: blocks that a reader has asked for */
typedef struct Sending Sending; /* offers.c: a block on its way into the socket */

struct Conn {
    Conn *next;
    KvAgent *agent;
    Stream *stream;
    const Rail *rail;
    bool outgoing, open; /* open: hellos were exchanged, `peer` may be trusted to be what it says */
    bool closed;
    uint64_t number;     /* unlike any other connection's of this agent, before or after */
    int busy;            /* callbacks of this connection on the stack: freed after the last */
    int64_t since_us;    /* connecting or accepted */
    int64_t heard_us;    /* the last byte */
    int64_t used_us;     /* outgoing: when it last had a pull */
    WireHello peer;

    char *engine, *host; /* outgoing: who should be there */
    int port;

    Buf in;              /* bytes of messages that are not whole yet */
    size_t blocks_due;   /* outgoing, tcp: pulls that wait for blocks on it */
    size_t payload_left; /* of the BLOCK that is arriving */
    Pull *payload_pull;  /* that it belongs to; NULL: it is read and forgotten */
    Sum *sum;            /* of the payload so far */

    bool fd_due;         /* outgoing, shm: the first byte brings the descriptor */
    int memory_fd;       /* until it is mapped; -1: none */
    const uint8_t *memory; /* the peer's pool, mapped for reading; NULL: not mapped */
    size_t memory_bytes;

    Reading *readings;   /* incoming: served in turn */
    Sending *sendings;
    size_t sending_count;
    bool pump_due;       /* some have left: more may follow in the loop's next round */
};

Conn *conn_accept(KvAgent *agent, Stream *stream, const Rail *rail);
Conn *conn_open(KvAgent *agent, const Rail *rail, const char *engine, const char *host, int port);
void conn_send(Conn *conn, const Buf *message);
void conn_refuse(Conn *conn, WireRefusal reason, const char *text); /* incoming: tells and closes */
void conn_fail(Conn *conn, Failure failure, const Err *why);        /* outgoing: its pulls go on */
void conn_close(Conn *conn);
int64_t conns_tick(KvAgent *agent, int64_t now_us); /* INT64_MAX, or when to come again */

/* ---- the owner's side ---- */

Offer *offer_new(const KvPool *pool, const KvOffer *from); /* any thread: the pool's owner */
void offer_free(Offer *offer);
void offer_add(KvAgent *agent, Offer *offer);
void offer_retract(KvAgent *agent, KvLease lease);
void offers_message(Conn *conn, const WireHead *head, Str body);
void offers_get_again(KvAgent *agent, uint64_t conn_number, uint64_t pull, const WireGet *get);
void offers_conn_closed(Conn *conn);
bool offers_work(KvAgent *agent); /* one slice of hashing; true: there is more */
void offers_send(KvAgent *agent); /* blocks to sockets that have taken others */
int64_t offers_tick(KvAgent *agent, int64_t now_us);
void offers_end_all(KvAgent *agent);

/* ---- the reader's side ---- */

typedef enum PullStage {
    PULL_CONNECTING, PULL_PROVING, PULL_COPYING, PULL_CONFIRMING, PULL_STAGES
} PullStage;

struct Pull {
    Pull *next;
    KvAgent *agent;
    uint64_t id;
    void *user;
    bool release_only; /* nobody waits for it: only tells the peer to release the offer */
    bool retried;      /* after a connection was lost */

    char *engine, *host, *request;
    int port;
    uint64_t epoch;
    size_t block_count, tokens, skip;
    KvHash *chain;
    KvBlock *blocks;   /* [block_count - skip] */
    int64_t deadline_us, started_us, opened_us;

    PullStage stage;
    int64_t stage_us;  /* since when */
    const Rail *rail;  /* being tried, or in use */
    Conn *conn;        /* NULL: none yet */
    char rail_reason[160];

    /* From PULL_COPYING on: what the manifest said. */
    KvLease lease;
    int64_t lease_us, renew_us;
    uint32_t cached_tokens;
    KvFirstToken first;
    WireSealed *sealed; /* [block_count] */
    size_t at;          /* blocks before it are here and proven */
    uint64_t bytes;
};

Pull *pull_new(const KvPull *from); /* any thread */
void pull_free(Pull *pull);
void pull_start(KvAgent *agent, Pull *pull);
void pull_cancel(KvAgent *agent, const void *user);
Pull *pull_find(KvAgent *agent, const Conn *conn, uint64_t id);
uint8_t *pull_target(const Pull *pull, size_t index); /* where block `index` is to lie */
void pull_fail(Pull *pull, const Err *cause);         /* ends it */
void pull_moved(Pull *pull);                          /* all blocks are here and proven */
bool pull_prove(Pull *pull, uint64_t checksum, Err *err) MUST_CHECK; /* block `at`; at++ */
void pulls_conn_open(Conn *conn);
void pulls_conn_failed(Conn *conn, Failure failure, const Err *why);
void pulls_message(Conn *conn, const WireHead *head, Str body);
size_t pulls_on(const Conn *conn);
bool pulls_work(KvAgent *agent);
int64_t pulls_tick(KvAgent *agent, int64_t now_us);
void pulls_end_all(KvAgent *agent);

/* ---- blocks over tcp ---- */

bool tcp_block(Conn *conn, const WireHead *head, const WireBlock *block, Err *err) MUST_CHECK;
void *tcp_room(Conn *conn, size_t *length);
void tcp_got(Conn *conn, size_t length);

#endif
