// SPDX-License-Identifier: Apache-2.0
/* offers.c - the owner's side: what is offered, and the answers to readers.
 *
 *     HASHING ──▶ OFFERED ──DONE, RELEASE, deadline, retract──▶ ENDING ──▶ ended()
 *
 *     HASHING  checksums are made, a slice in every round of the loop; GETs wait for the last one
 *     OFFERED  GET is answered, with the manifest and then the blocks; GET and RENEW renew the
 * lease ENDING   nothing new is sent; the blocks stay until those on their way into a socket have
 *              left, and a reader that does not take them within LIMIT_KV_DRAIN_MS is cut off
 *
 * Only after ended() may the engine write to the blocks again. */
#include "internal.h"

#include <stdlib.h>

#define SLICE MIB             /* hashed in one round of the loop */
#define SEND_AHEAD MIB        /* bytes given to a socket that has not taken what came before */
#define SENDINGS_MOST 16      /* blocks of one connection on their way */
#define UNSENT_MOST (2 * LIMIT_KV_MESSAGE) /* answers that a reader may leave waiting */

typedef struct Waiting { /* a GET that came while the offer was hashed */
    Conn *conn;
    uint64_t pull;
    uint32_t first;
} Waiting;

struct Offer {
    Offer *next;
    KvLease lease;
    char *request;
    WireSealed *sealed;      /* [block_count] */
    size_t block_count, hashed;
    uint32_t tokens, cached_tokens;
    KvFirstToken first;
    int64_t deadline_us;
    int64_t latest_us;       /* beyond which no renewal moves the deadline */
    Waiting *waiting;
    size_t waiting_count, waiting_room;
    size_t sending_count;
    bool ending;
    KvEnd end;
    int64_t drain_us;        /* ending: when the last readers are cut off */
};

struct Reading { /* blocks first..end-1 are still to be sent */
    Reading *next;
    Offer *offer;
    uint64_t pull;
    uint32_t first, end;
};

struct Sending {
    Sending *next;
    Conn *conn;
    Offer *offer;
    uint8_t head[WIRE_HEAD + WIRE_BLOCK_FIXED];
};

Offer *offer_new(const KvPool *pool, const KvOffer *from) {
    assert(from->tokens > 0 && from->tokens <= LIMIT_KV_PROMPT &&
           from->block_count == kv_blocks_for(from->tokens) &&
           strlen(from->request) <= LIMIT_KV_NAME && from->first.top_count <= KV_FIRST_TOP_MAX);
    Offer *offer = mem_new(sizeof *offer);
    offer->lease = from->lease;
    offer->request = mem_dup_str(from->request);
    offer->block_count = from->block_count;
    offer->tokens = (uint32_t)from->tokens;
    offer->cached_tokens = from->cached_tokens;
    offer->first = from->first;
    offer->deadline_us = from->deadline_us;
    offer->sealed = mem_new(from->block_count * sizeof *offer->sealed);
    for (size_t i = 0; i < from->block_count; i++)
        offer->sealed[i] = (WireSealed){.chain = from->chain[i],
                                        .block = from->blocks[i],
                                        .generation = kv_block_generation(pool, from->blocks[i])};
    return offer;
}

void offer_free(Offer *offer) {
    if (!offer) return;
    free(offer->request);
    free(offer->sealed);
    free(offer->waiting);
    free(offer);
}

/* ---- answers ---- */

static void answer_gone(Conn *conn, uint64_t pull, KvLease lease, WireReason reason,
                        int64_t ago_us) {
    auto_buf Buf message = {0};
    wire_put_gone(&message, pull,
                  (WireGone){.lease = lease, .reason = reason, .ago_us = ago_us});
    conn_send(conn, &message);
}

static WireReason reason_of(KvEnd end) {
    return end == KV_END_RELEASED  ? WIRE_RELEASED
           : end == KV_END_EXPIRED ? WIRE_EXPIRED
                                   : WIRE_RETRACTED;
}

/* ---- the end of an offer ---- */

static uint64_t request_hash(const char *request) {
    return hash64(request, strlen(request), 0) | 1; /* never 0 */
}

static void offer_finish(KvAgent *agent, Offer *offer) {
    assert(offer->ending && offer->sending_count == 0);
    Offer **at = &agent->offers;
    while (*at != offer) at = &(*at)->next;
    *at = offer->next;
    if (offer->end == KV_END_EXPIRED) counter_add(&agent->stats.offers_expired, 1);
    if (offer->end == KV_END_RELEASED) counter_add(&agent->stats.offers_released, 1);
    agent->conf.offer_ended(offer->lease, offer->end, agent->conf.user);
    offer_free(offer);
}

static void reading_drop(Reading **at) {
    Reading *reading = *at;
    *at = reading->next;
    free(reading);
}

/* Whoever still waits for something of this offer is told now. */
static void offer_end(KvAgent *agent, Offer *offer, KvEnd end) {
    if (offer->ending) return;
    int64_t now = clock_mono_us();
    offer->ending = true;
    offer->end = end;
    offer->drain_us = now + LIMIT_KV_DRAIN_MS * 1000;
    agent->ended[agent->ended_next] = (Ended){request_hash(offer->request), offer->lease, end, now};
    agent->ended_next = (agent->ended_next + 1) % LIMIT_KV_ENDED;
    for (size_t i = 0; i < offer->waiting_count; i++)
        answer_gone(offer->waiting[i].conn, offer->waiting[i].pull, 0, reason_of(end), 0);
    offer->waiting_count = 0;
    for (Conn *conn = agent->conns; conn; conn = conn->next)
        for (Reading **at = &conn->readings; *at;) {
            if ((*at)->offer != offer) {
                at = &(*at)->next;
                continue;
            }
            answer_gone(conn, (*at)->pull, offer->lease, reason_of(end), 0);
            reading_drop(at);
        }
    if (offer->sending_count == 0) offer_finish(agent, offer);
    else agent_wake_at(agent, offer->drain_us);
}

/* Any sign of a reader that is at work. */
static void offer_renew(KvAgent *agent, Offer *offer) {
    int64_t until = clock_mono_us() + agent->conf.lease_us;
    if (until > offer->latest_us) until = offer->latest_us;
    if (until <= offer->deadline_us) return;
    offer->deadline_us = until;
    agent->conf.offer_renewed(offer->lease, until, agent->conf.user);
}

static Offer *offer_by_lease(const KvAgent *agent, KvLease lease) {
    Offer *offer = agent->offers;
    while (offer && (offer->lease != lease || offer->ending)) offer = offer->next;
    return offer;
}

static Offer *offer_by_request(const KvAgent *agent, const char *request) {
    Offer *offer = agent->offers;
    while (offer && (offer->ending || strcmp(offer->request, request) != 0)) offer = offer->next;
    return offer;
}

/* The last offer of that request or lease that has ended; NULL: none is remembered. */
static const Ended *ended_find(const KvAgent *agent, uint64_t request, KvLease lease) {
    for (size_t i = 1; i <= LIMIT_KV_ENDED; i++) {
        const Ended *ended =
            &agent->ended[(agent->ended_next + LIMIT_KV_ENDED - i) % LIMIT_KV_ENDED];
        if (!ended->request) return NULL;
        if (lease ? ended->lease == lease : ended->request == request) return ended;
    }
    return NULL;
}

static void answer_ended(Conn *conn, uint64_t pull, KvLease lease, const Ended *ended) {
    if (ended)
        answer_gone(conn, pull, lease, reason_of(ended->end), clock_mono_us() - ended->at_us);
    else answer_gone(conn, pull, lease, WIRE_UNKNOWN, clock_mono_us() - conn->agent->started_us);
}

/* ---- blocks on their way ---- */

static void sending_end(Sending *sending) {
    Offer *offer = sending->offer;
    KvAgent *agent = sending->conn->agent;
    Sending **at = &sending->conn->sendings;
    while (*at != sending) at = &(*at)->next;
    *at = sending->next;
    sending->conn->sending_count--;
    offer->sending_count--;
    free(sending);
    if (offer->ending && offer->sending_count == 0) offer_finish(agent, offer);
}

/* The next blocks go in the next round of the loop: a reader as fast as we are would otherwise keep
 * us here until it has them all. */
static void on_sent(void *user) {
    Sending *sending = user;
    Conn *conn = sending->conn;
    counter_add(&conn->agent->stats.bytes_out, conn->agent->block_bytes);
    sending_end(sending);
    conn->pump_due = conn->readings != NULL;
    if (conn->pump_due) agent_work(conn->agent);
}

static void send_block(Conn *conn, Reading *reading) {
    KvAgent *agent = conn->agent;
    Offer *offer = reading->offer;
    const WireSealed *sealed = &offer->sealed[reading->first];
    Sending *sending = mem_new(sizeof *sending);
    sending->conn = conn;
    sending->offer = offer;
    sending->next = conn->sendings;
    conn->sendings = sending;
    conn->sending_count++;
    offer->sending_count++;
    WireBlock block = {reading->first++, sealed->generation};
    wire_block_head(sending->head, reading->pull, &block, agent->block_bytes);
    Str parts[] = {{(const char *)sending->head, sizeof sending->head},
                   {(const char *)agent_block(agent, sealed->block), agent->block_bytes}};
    stream_write_views(conn->stream, parts, COUNT_OF(parts), on_sent, sending);
}

/* Gives the socket blocks until it has enough: one of each reader in turn. */
static void conn_pump(Conn *conn) {
    while (conn->readings && conn->sending_count < SENDINGS_MOST &&
           stream_unsent(conn->stream) < SEND_AHEAD) {
        Reading *reading = conn->readings, **end = &conn->readings;
        send_block(conn, reading);
        conn->readings = reading->next;
        if (reading->first == reading->end) {
            free(reading);
            continue;
        }
        while (*end) end = &(*end)->next;
        reading->next = NULL;
        *end = reading;
    }
}

void offers_conn_closed(Conn *conn) {
    while (conn->readings) reading_drop(&conn->readings);
    while (conn->sendings) sending_end(conn->sendings);
    for (Offer *offer = conn->agent->offers; offer; offer = offer->next)
        for (size_t i = 0; i < offer->waiting_count;)
            if (offer->waiting[i].conn == conn)
                offer->waiting[i] = offer->waiting[--offer->waiting_count];
            else i++;
}

/* ---- messages from readers ---- */

/* The manifest, and then the blocks from `first` on. */
static void answer_offer(Conn *conn, uint64_t pull, Offer *offer, uint32_t first) {
    auto_buf Buf message = {0};
    WireManifest manifest = {.lease = offer->lease,
                             .epoch = conn->agent->hello.epoch,
                             .lease_us = conn->agent->conf.lease_us,
                             .tokens = offer->tokens,
                             .block_count = (uint32_t)offer->block_count,
                             .cached_tokens = offer->cached_tokens,
                             .first = offer->first};
    wire_put_manifest(&message, pull, &manifest, offer->sealed);
    conn_send(conn, &message);
    if (first == WIRE_NO_BLOCKS) return;
    Reading *reading = mem_new(sizeof *reading), **end = &conn->readings;
    *reading = (Reading){.offer = offer,
                         .pull = pull,
                         .first = first,
                         .end = (uint32_t)offer->block_count};
    while (*end) end = &(*end)->next;
    *end = reading;
    conn_pump(conn);
}

/* The first block to send.  The chain of the last one proves all of them: a reader that expects
 * another prompt gets the manifest, which shows where they differ, but no blocks. */
static uint32_t first_wanted(const Offer *offer, const WireGet *get) {
    const WireSealed *last = &offer->sealed[offer->block_count - 1];
    bool fits = get->first < offer->block_count && kv_hash_same(get->last, last->chain);
    return fits ? get->first : WIRE_NO_BLOCKS;
}

/* `sure`: every offer that was made before the GET came has been seen. */
static void answer_get(Conn *conn, uint64_t pull, const WireGet *get, bool sure) {
    KvAgent *agent = conn->agent;
    Offer *offer = offer_by_request(agent, get->request);
    if (get->epoch && get->epoch != agent->hello.epoch) {
        answer_gone(conn, pull, 0, WIRE_OTHER_EPOCH, 0);
    } else if (!offer && !sure) {
        agent_get_again(agent, conn, pull, get);
    } else if (!offer) {
        answer_ended(conn, pull, 0, ended_find(agent, request_hash(get->request), 0));
    } else if (offer->hashed < offer->block_count) {
        mem_reserve(offer->waiting, offer->waiting_room, offer->waiting_count + 1);
        offer->waiting[offer->waiting_count++] = (Waiting){conn, pull, first_wanted(offer, get)};
    } else {
        offer_renew(agent, offer);
        answer_offer(conn, pull, offer, first_wanted(offer, get));
    }
}

/* A reader that is told by the engine's answer over HTTP may be here before the offer, which waits
 * in the mailbox. */
void offers_get_again(KvAgent *agent, uint64_t conn_number, uint64_t pull, const WireGet *get) {
    for (Conn *conn = agent->conns; conn; conn = conn->next)
        if (conn->number == conn_number) {
            answer_get(conn, pull, get, true);
            return;
        }
}

static void on_done(Conn *conn, uint64_t pull, WireDone done) {
    KvAgent *agent = conn->agent;
    Offer *offer = offer_by_lease(agent, done.lease);
    if (!offer) {
        const Ended *ended = ended_find(agent, 0, done.lease);
        if (ended && ended->end == KV_END_EXPIRED) counter_add(&agent->stats.late_releases, 1);
        answer_ended(conn, pull, done.lease, ended);
        return;
    }
    if (conn->rail->id == KV_RAIL_SHM && done.bytes <= offer->block_count * agent->block_bytes)
        counter_add(&agent->stats.bytes_out, done.bytes); /* nothing else tells us of them */
    auto_buf Buf message = {0};
    wire_put_lease(&message, WIRE_CONFIRMED, pull, done.lease);
    conn_send(conn, &message);
    offer_end(agent, offer, KV_END_RELEASED);
}

static void on_renew(Conn *conn, uint64_t pull, KvLease lease) {
    Offer *offer = offer_by_lease(conn->agent, lease);
    if (offer) offer_renew(conn->agent, offer);
    else answer_ended(conn, pull, lease, ended_find(conn->agent, 0, lease));
}

static void on_release(Conn *conn, const WireRelease *release) {
    Offer *offer = release->lease ? offer_by_lease(conn->agent, release->lease)
                                  : offer_by_request(conn->agent, release->request);
    if (offer) offer_end(conn->agent, offer, KV_END_RELEASED);
}

/* A reader that asks and does not listen would make answers pile up here. */
static bool reader_listens(const Conn *conn, Err *err) {
    size_t blocks = conn->sending_count * (conn->agent->block_bytes + sizeof(Sending)),
           unsent = stream_unsent(conn->stream), count = 0;
    for (const Reading *reading = conn->readings; reading; reading = reading->next) count++;
    if (unsent <= UNSENT_MOST + blocks && count < LIMIT_KV_READS) return true;
    return err_set(err, ERR_DAMAGED,
                   "%zu bytes of answers and the blocks of %zu pulls were not read",
                   unsent > blocks ? unsent - blocks : 0, count);
}

void offers_message(Conn *conn, const WireHead *head, Str body) {
    Err err = {0};
    WireGet get;
    WireDone done;
    WireRelease release;
    KvLease lease;
    bool ok = reader_listens(conn, &err);
    if (!ok) {
    } else if (head->type == WIRE_GET) {
        if ((ok = wire_get(body, &get, &err))) answer_get(conn, head->pull, &get, false);
    } else if (head->type == WIRE_DONE) {
        if ((ok = wire_done(body, &done, &err))) on_done(conn, head->pull, done);
    } else if (head->type == WIRE_RENEW) {
        if ((ok = wire_lease(WIRE_RENEW, body, &lease, &err))) on_renew(conn, head->pull, lease);
    } else {
        if ((ok = wire_release(body, &release, &err))) on_release(conn, &release);
    }
    if (!ok) conn_refuse(conn, WIRE_REFUSE_DAMAGED, err.message);
}

/* ---- hashing ---- */

static void offer_hash_block(KvAgent *agent, Offer *offer) {
    WireSealed *sealed = &offer->sealed[offer->hashed];
    bool full = (offer->hashed + 1) * KV_BLOCK_TOKENS <= offer->tokens;
    KnownSum *known = &agent->known_sums[sealed->block];
    offer->hashed++;
    if (known->known && known->generation == sealed->generation &&
        kv_hash_same(known->chain, sealed->chain)) {
        sealed->checksum = known->checksum;
        return;
    }
    sealed->checksum = kv_block_checksum(agent_block(agent, sealed->block), agent->block_bytes);
    *known = (KnownSum){sealed->generation, full, sealed->chain, sealed->checksum};
}

static void offer_hashed(KvAgent *agent, Offer *offer) {
    Err err = {0};
    while (offer->waiting_count) {
        Waiting waiting = offer->waiting[--offer->waiting_count];
        offer_renew(agent, offer);
        if (reader_listens(waiting.conn, &err))
            answer_offer(waiting.conn, waiting.pull, offer, waiting.first);
        else conn_refuse(waiting.conn, WIRE_REFUSE_DAMAGED, err.message);
    }
}

void offers_send(KvAgent *agent) {
    for (Conn *conn = agent->conns; conn; conn = conn->next) {
        if (!conn->pump_due) continue;
        conn->pump_due = false;
        conn_pump(conn);
    }
}

bool offers_work(KvAgent *agent) {
    Offer *first = NULL; /* the oldest goes first */
    for (Offer *offer = agent->offers; offer; offer = offer->next)
        if (!offer->ending && offer->hashed < offer->block_count) first = offer;
    if (!first) return false;
    for (size_t bytes = 0; bytes < SLICE && first->hashed < first->block_count;
         bytes += agent->block_bytes)
        offer_hash_block(agent, first);
    if (first->hashed == first->block_count) offer_hashed(agent, first);
    return true;
}

/* ---- from the engine, and from the clock ---- */

void offer_add(KvAgent *agent, Offer *offer) {
    counter_add(&agent->stats.offers, 1);
    if (agent->closing) {
        agent->conf.offer_ended(offer->lease, KV_END_RETRACTED, agent->conf.user);
        offer_free(offer);
        return;
    }
    offer->latest_us = offer->deadline_us + LIMIT_KV_RENEWALS * agent->conf.lease_us;
    offer->next = agent->offers;
    agent->offers = offer;
    agent_wake_at(agent, offer->deadline_us);
    agent_work(agent);
}

void offer_retract(KvAgent *agent, KvLease lease) {
    Offer *offer = offer_by_lease(agent, lease);
    if (offer) offer_end(agent, offer, KV_END_RETRACTED);
}

static void cut_readers_off(KvAgent *agent, const Offer *offer) {
    for (Conn *conn = agent->conns; conn; conn = conn->next)
        for (const Sending *sending = conn->sendings; sending; sending = sending->next)
            if (sending->offer == offer) {
                conn_close(conn);
                return;
            }
}

int64_t offers_tick(KvAgent *agent, int64_t now_us) {
    int64_t next_us = INT64_MAX;
    for (Offer *offer = agent->offers, *next; offer; offer = next) {
        next = offer->next;
        int64_t due = offer->ending ? offer->drain_us : offer->deadline_us;
        if (due > now_us) {
            if (due < next_us) next_us = due;
            continue;
        }
        if (offer->ending) cut_readers_off(agent, offer);
        else offer_end(agent, offer, KV_END_EXPIRED);
        return now_us; /* the list may be another one now: look again */
    }
    return next_us;
}

void offers_end_all(KvAgent *agent) {
    assert(!agent->conns); /* so nothing is on its way, and each ends at once */
    while (agent->offers) offer_end(agent, agent->offers, KV_END_RETRACTED);
}
