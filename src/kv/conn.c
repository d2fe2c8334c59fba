// SPDX-License-Identifier: Apache-2.0
/* conn.c - one connection between two agents.
 *
 *     outgoing   connect ──▶ hello sent ──▶ hello came, attached ──▶ open ──▶ closed
 *     incoming   accepted ─▶ hello came, answered ─────────────────▶ open ──▶ closed
 *
 * All pulls from one peer share one connection per rail: their messages carry the pull's number,
 * and the owner serves their blocks in turn.  One is enough: a copy through the kernel is bound by
 * the processors, and a second connection would only make them change places more often. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define IN_LEAST (16 * KIB)

static void conn_free(Conn *conn) {
    buf_done(&conn->in);
    sum_free(conn->sum);
    free(conn->engine);
    free(conn->host);
    free(conn);
}

void conn_close(Conn *conn) {
    if (conn->closed) return;
    conn->closed = true;
    stream_close(conn->stream);
    if (!conn->outgoing) offers_conn_closed(conn);
    if (conn->rail->detach) conn->rail->detach(conn);
    Conn **at = &conn->agent->conns;
    while (*at != conn) at = &(*at)->next;
    *at = conn->next;
    conn->agent->conn_count--;
    if (!conn->busy) conn_free(conn);
}

static void conn_leave(Conn *conn) {
    if (--conn->busy == 0 && conn->closed) conn_free(conn);
}

void conn_send(Conn *conn, const Buf *message) {
    stream_write(conn->stream, message->at, message->length);
}

void conn_refuse(Conn *conn, WireRefusal reason, const char *text) {
    auto_buf Buf message = {0};
    wire_put_refuse(&message, reason, text);
    conn_send(conn, &message);
    stream_close_when_sent(conn->stream);
    conn->stream = NULL;
    conn_close(conn);
}

void conn_fail(Conn *conn, Failure failure, const Err *why) {
    conn->busy++;
    Err own = *why; /* it may lie in what is closed now */
    conn_close(conn);
    pulls_conn_failed(conn, failure, &own);
    conn_leave(conn);
}

static void conn_damaged(Conn *conn, const Err *why) {
    if (conn->outgoing) conn_fail(conn, FAIL_PEER, why);
    else conn_refuse(conn, WIRE_REFUSE_DAMAGED, why->message);
}

/* ---- hello ---- */

static void send_hello(Conn *conn) {
    auto_buf Buf message = {0};
    wire_put_hello(&message, &conn->agent->hello);
    conn_send(conn, &message);
}

static void hello_from_reader(Conn *conn, const WireHello *hello) {
    if (hello->version_min > WIRE_VERSION || hello->version_max < WIRE_VERSION) {
        char text[128];
        snprintf(text, sizeof text, "protocol versions %u to %u are spoken there, %u here",
                 hello->version_min, hello->version_max, WIRE_VERSION);
        conn_refuse(conn, WIRE_REFUSE_VERSION, text);
        return;
    }
    conn->peer = *hello;
    conn->open = true;
    send_hello(conn);
}

/* Is this the engine that was asked for, and are its blocks like ours? */
static bool hello_fits(const Conn *conn, const WireHello *hello, Failure *failure, Err *err) {
    const WireHello *own = &conn->agent->hello;
    *failure = FAIL_PEER;
    if (hello->version_min > WIRE_VERSION || hello->version_max < WIRE_VERSION) {
        err_set(err, ERR_UNSUPPORTED, "it speaks protocol versions %u to %u, this engine %u",
                hello->version_min, hello->version_max, WIRE_VERSION);
        return err_hint(err, "Update the older of the two engines.");
    }
    if (strcmp(hello->engine, conn->engine) != 0) {
        *failure = conn->rail->id == KV_RAIL_TCP ? FAIL_PEER : FAIL_RAIL;
        err_set(err, ERR_UNAVAILABLE, "engine '%.96s' answers there", hello->engine);
        return err_hint(err, "The prefill engine was replaced: send the request again.");
    }
    if (conn->rail->id != KV_RAIL_TCP && hello->port != conn->port) {
        *failure = FAIL_RAIL;
        return err_set(err, ERR_UNAVAILABLE, "the engine of that id on this host has port %u",
                       hello->port);
    }
    if (!kv_shape_same(&hello->shape, &own->shape)) {
        err_set(
            err, ERR_CONFLICT,
            "its blocks have %u layers, %u heads, %u dimensions and model %016llx, ours %u, %u, "
            "%u and %016llx",
            hello->shape.layers, hello->shape.kv_heads, hello->shape.head_dim,
            (unsigned long long)hello->shape.fingerprint, own->shape.layers, own->shape.kv_heads,
            own->shape.head_dim, (unsigned long long)own->shape.fingerprint);
        return err_hint(err, "Start both engines with the same model file.");
    }
    if (hello->dtype != own->dtype || hello->layout != own->layout ||
        hello->block_tokens != own->block_tokens || hello->block_bytes != own->block_bytes) {
        err_set(err, ERR_CONFLICT,
                "its blocks have type %u, layout %u, %u tokens and %llu bytes, ours %u, %u, %u and "
                "%llu",
                hello->dtype, hello->layout, hello->block_tokens,
                (unsigned long long)hello->block_bytes, own->dtype, own->layout, own->block_tokens,
                (unsigned long long)own->block_bytes);
        return err_hint(err, "Update the older of the two engines.");
    }
    return true;
}

static void hello_from_owner(Conn *conn, const WireHello *hello) {
    Err err = {0};
    Failure failure = FAIL_RAIL;
    bool ok = hello_fits(conn, hello, &failure, &err);
    if (ok) {
        conn->peer = *hello;
        failure = FAIL_RAIL;
        ok = !conn->rail->attach || conn->rail->attach(conn, &err);
    }
    if (!ok) {
        conn_fail(conn, failure, &err);
        return;
    }
    conn->open = true;
    pulls_conn_open(conn);
}

static void on_refuse(Conn *conn, const WireRefuse *refuse) {
    static const struct { Failure failure; ErrCode code; } reasons[] = {
        [WIRE_REFUSE_VERSION] = {FAIL_PEER, ERR_UNSUPPORTED},
        [WIRE_REFUSE_BUSY]    = {FAIL_PEER, ERR_EXHAUSTED},
        [WIRE_REFUSE_USER]    = {FAIL_RAIL, ERR_UNAUTHORIZED},
        [WIRE_REFUSE_DAMAGED] = {FAIL_PEER, ERR_DAMAGED},
    };
    Err err = {0};
    bool known = refuse->reason >= 1 && refuse->reason < COUNT_OF(reasons);
    err_set(&err, known ? reasons[refuse->reason].code : ERR_UNAVAILABLE, "it refuses: %s",
            refuse->text);
    conn_fail(conn, known ? reasons[refuse->reason].failure : FAIL_PEER, &err);
}

/* ---- messages in ---- */

/* Told from the head alone, so that nobody makes us wait for a long body that is of no use. */
static bool may_come(const Conn *conn, WireType type, Err *err) {
    bool refusal = type == WIRE_REFUSE && conn->outgoing;
    if (conn->open ? type == WIRE_HELLO : type != WIRE_HELLO && !refusal)
        return err_set(err, ERR_DAMAGED, "%s came %s hello", wire_name(type),
                       conn->open ? "after the" : "instead of a");
    if (type != WIRE_HELLO && wire_from_owner(type) != conn->outgoing)
        return err_set(err, ERR_DAMAGED, "%s came from the wrong side", wire_name(type));
    return true;
}

static void conn_message(Conn *conn, const WireHead *head, Str body) {
    Err err = {0};
    WireHello hello;
    WireRefuse refuse;
    if (head->type == WIRE_HELLO) {
        if (!wire_hello(body, &hello, &err)) conn_damaged(conn, &err);
        else if (conn->outgoing) hello_from_owner(conn, &hello);
        else hello_from_reader(conn, &hello);
    } else if (head->type == WIRE_REFUSE) {
        if (!wire_refuse(body, &refuse, &err)) conn_damaged(conn, &err);
        else on_refuse(conn, &refuse);
    } else if (conn->outgoing) {
        pulls_message(conn, head, body);
    } else {
        offers_message(conn, head, body);
    }
}

/* A BLOCK begins: what of its payload was read already goes where the rest will be read to. */
static bool conn_block(Conn *conn, const WireHead *head, const char *at, size_t *have, Err *err) {
    WireBlock block;
    if (!wire_block((Str){at, WIRE_BLOCK_FIXED}, &block, err)) return false;
    conn->payload_left = head->length - WIRE_BLOCK_FIXED;
    if (!tcp_block(conn, head, &block, err)) return false;
    at += WIRE_BLOCK_FIXED;
    size_t there = *have - WIRE_BLOCK_FIXED, used = 0;
    while (conn->payload_left && used < there && !conn->closed) {
        size_t room, part = there - used;
        uint8_t *to = tcp_room(conn, &room);
        if (part > room) part = room;
        memcpy(to, at + used, part);
        used += part;
        tcp_got(conn, part);
    }
    *have = WIRE_BLOCK_FIXED + used;
    return true;
}

static void conn_parse(Conn *conn) {
    size_t at = 0;
    Err err = {0};
    if (conn->fd_due) {
        conn->fd_due = false;
        conn->memory_fd = stream_take_fd(conn->stream);
        at = 1;
    }
    while (!conn->closed && conn->in.length - at >= WIRE_HEAD) {
        WireHead head;
        const char *body = conn->in.at + at + WIRE_HEAD;
        size_t have = conn->in.length - at - WIRE_HEAD;
        if (!wire_head((const uint8_t *)conn->in.at + at, &head, &err) ||
            !may_come(conn, head.type, &err)) {
            conn_damaged(conn, &err);
            return;
        }
        bool is_block = head.type == WIRE_BLOCK;
        if (have < (is_block ? WIRE_BLOCK_FIXED : head.length)) break;
        if (!is_block) {
            have = head.length;
            conn_message(conn, &head, (Str){body, head.length});
        } else if (!conn_block(conn, &head, body, &have, &err)) {
            conn_damaged(conn, &err);
            return;
        }
        at += WIRE_HEAD + have;
    }
    if (!conn->closed) buf_drop_front(&conn->in, at);
}

/* ---- the stream's calls ---- */

/* Bytes of a block are read straight to where they belong.  While blocks are due, no more than a
 * BLOCK's head is read ahead of one, so that none of its bytes take the way over `in`. */
static void *on_room(void *user, size_t *length) {
    Conn *conn = user;
    if (conn->payload_left) return tcp_room(conn, length);
    Buf *in = &conn->in;
    size_t end = in->length + IN_LEAST;
    if (conn->blocks_due && in->length < WIRE_HEAD + WIRE_BLOCK_FIXED)
        end = WIRE_HEAD + WIRE_BLOCK_FIXED;
    mem_reserve(in->at, in->capacity, end + 1);
    *length = end - in->length;
    return in->at + in->length;
}

static void on_got(void *user, size_t length) {
    Conn *conn = user;
    conn->busy++;
    conn->heard_us = clock_mono_us();
    if (conn->payload_left) {
        tcp_got(conn, length);
    } else {
        conn->in.length += length;
        conn_parse(conn);
    }
    conn_leave(conn);
}

static void on_gone(void *user, const Err *why) {
    Conn *conn = user;
    if (!conn->outgoing) {
        conn_close(conn);
        return;
    }
    Err err = *why;
    if (err.code == ERR_NONE)
        err_set(&err, ERR_UNAVAILABLE, "the connection was closed%s",
                conn->open ? "" : " instead of a hello");
    conn_fail(conn, conn->open ? FAIL_LOST : FAIL_RAIL, &err);
}

/* The cause alone: whoever wraps it names the peer. */
static void on_connected(void *user, const Err *failure) {
    Conn *conn = user;
    if (!failure) {
        stream_read(conn->stream, true);
        return;
    }
    Err err = *failure;
    char prefix[sizeof err.message];
    int length = snprintf(prefix, sizeof prefix, "could not connect to %s: ",
                          stream_peer(conn->stream));
    if (!strncmp(err.message, prefix, (size_t)length))
        memmove(err.message, err.message + length, strlen(err.message) + 1 - (size_t)length);
    if (conn->rail->id == KV_RAIL_SHM) {
        size_t used = strlen(err.message);
        snprintf(err.message + used, sizeof err.message - used,
                 ": no engine of that id in this network namespace");
    }
    conn_fail(conn, FAIL_RAIL, &err);
}

static const StreamCalls calls = {
    .connected = on_connected, .room = on_room, .got = on_got, .gone = on_gone};

static Conn *conn_new(KvAgent *agent, const Rail *rail) {
    Conn *conn = mem_new(sizeof *conn);
    conn->agent = agent;
    conn->rail = rail;
    conn->number = ++agent->last_conn;
    conn->memory_fd = -1;
    conn->since_us = conn->heard_us = conn->used_us = clock_mono_us();
    conn->next = agent->conns;
    agent->conns = conn;
    agent->conn_count++;
    agent_wake_at(agent, conn->since_us + LIMIT_KV_HELLO_MS * 1000);
    return conn;
}

Conn *conn_accept(KvAgent *agent, Stream *stream, const Rail *rail) {
    Conn *conn = conn_new(agent, rail);
    conn->stream = stream;
    stream_set_calls(stream, &calls, conn);
    if (agent->conn_count > LIMIT_KV_PEERS) {
        conn_refuse(conn, WIRE_REFUSE_BUSY, "too many connections");
        return NULL;
    }
    if (rail->accepted && !rail->accepted(conn)) return NULL;
    stream_read(stream, true);
    return conn;
}

/* The idle connection that was used longest ago, to make room. */
static Conn *idle_conn(KvAgent *agent) {
    Conn *oldest = NULL;
    for (Conn *conn = agent->conns; conn; conn = conn->next)
        if (conn->outgoing && !pulls_on(conn) && (!oldest || conn->used_us < oldest->used_us))
            oldest = conn;
    return oldest;
}

/* One to this peer that there is already, or a new one; NULL: there are too many. */
Conn *conn_open(KvAgent *agent, const Rail *rail, const char *engine, const char *host, int port) {
    for (Conn *conn = agent->conns; conn; conn = conn->next)
        if (conn->outgoing && conn->rail == rail && conn->port == port &&
            !strcmp(conn->engine, engine) && !strcmp(conn->host, host))
            return conn;
    if (agent->conn_count >= LIMIT_KV_PEERS) {
        Conn *idle = idle_conn(agent);
        if (!idle) return NULL;
        conn_close(idle);
    }
    Conn *conn = conn_new(agent, rail);
    conn->outgoing = true;
    conn->engine = mem_dup_str(engine);
    conn->host = mem_dup_str(host);
    conn->port = port;
    conn->stream = rail->connect(conn, &calls);
    send_hello(conn); /* leaves as soon as there is a connection */
    return conn;
}

/* ---- deadlines ---- */

/* When this connection is to be closed for being useless. */
static int64_t conn_deadline(const Conn *conn) {
    if (!conn->open) return conn->since_us + LIMIT_KV_HELLO_MS * 1000;
    if (!conn->outgoing)
        return conn->sending_count ? INT64_MAX : conn->heard_us + 2 * LIMIT_KV_IDLE_MS * 1000;
    return pulls_on(conn) ? INT64_MAX : conn->used_us + LIMIT_KV_IDLE_MS * 1000;
}

int64_t conns_tick(KvAgent *agent, int64_t now_us) {
    int64_t next_us = INT64_MAX;
    for (Conn *conn = agent->conns, *next; conn; conn = next) {
        next = conn->next;
        int64_t deadline = conn_deadline(conn);
        if (deadline > now_us) {
            if (deadline < next_us) next_us = deadline;
        } else if (conn->outgoing && !conn->open) {
            Err err = {0};
            err_set(&err, ERR_DEADLINE, "no hello came within %d ms", LIMIT_KV_HELLO_MS);
            conn_fail(conn, FAIL_RAIL, &err);
            return now_us; /* the list may be another one now */
        } else {
            conn_close(conn);
        }
    }
    return next_us;
}
