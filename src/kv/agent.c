// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Command - what another thread asks for; built there, so that the agent owns all of it. */
typedef enum CommandKind {
    COMMAND_OFFER, COMMAND_RETRACT, COMMAND_PULL, COMMAND_CANCEL, COMMAND_GET, COMMAND_CLOSE
} CommandKind;

typedef struct Command {
    CommandKind kind;
    Offer *offer;
    Pull *pull;
    KvLease lease;
    const void *user;
    WireGet *get; /* with the pull's and the connection's number */
    uint64_t pull_id, conn_number;
} Command;

static const char *const rail_names[KV_RAILS] = {"auto", "shm", "tcp"};

const char *kv_rail_name(KvRail rail) { return rail_names[rail]; }

bool kv_rail_from(const char *name, KvRail *out) {
    for (int rail = 0; rail < KV_RAILS; rail++)
        if (!strcmp(name, rail_names[rail])) {
            *out = (KvRail)rail;
            return true;
        }
    return false;
}

uint8_t *agent_block(const KvAgent *agent, KvBlock block) {
    return kv_pool_base(agent->conf.pool) + (size_t)block * agent->block_bytes;
}

/* ---- deadlines: one timer, set to the next of all ---- */

static void set_wake(KvAgent *agent, int64_t at_us) {
    agent->wake_us = at_us;
    int64_t wait_us = at_us == INT64_MAX ? 0 : at_us - clock_mono_us();
    uint64_t wait_ms = wait_us > 0 ? (uint64_t)(wait_us + 999) / 1000 : 0;
    timer_again(agent->wake, at_us == INT64_MAX ? TIMER_NEVER : wait_ms);
}

void agent_wake_at(KvAgent *agent, int64_t at_us) {
    if (at_us < agent->wake_us) set_wake(agent, at_us);
}

static void on_wake(void *user) {
    KvAgent *agent = user;
    int64_t next_us, now_us;
    agent->wake_us = INT64_MAX;
    do {
        now_us = clock_mono_us();
        int64_t due[] = {offers_tick(agent, now_us), pulls_tick(agent, now_us),
                         conns_tick(agent, now_us)};
        next_us = due[0] < due[1] ? due[0] : due[1];
        if (due[2] < next_us) next_us = due[2];
    } while (next_us <= now_us);
    if (next_us < agent->wake_us) set_wake(agent, next_us);
}

/* ---- work: in every round of the loop some sending, a slice of hashing and one of copying ---- */

void agent_work(KvAgent *agent) {
    if (agent->working) return;
    agent->working = true;
    timer_again(agent->work, 0);
}

static void on_work(void *user) {
    KvAgent *agent = user;
    agent->working = false; /* whoever finds more to do says so */
    offers_send(agent);
    bool hashing = offers_work(agent), copying = pulls_work(agent);
    if (hashing || copying) agent_work(agent);
}

/* ---- commands ---- */

static void end_all(KvAgent *agent) {
    agent->closing = true;
    pulls_end_all(agent);
    while (agent->conns) conn_close(agent->conns); /* no block is on its way any more */
    offers_end_all(agent);
    loop_stop(agent->loop);
}

static void on_command(void *message, void *user) {
    KvAgent *agent = user;
    Command *command = message;
    switch (command->kind) {
    case COMMAND_OFFER: offer_add(agent, command->offer); break;
    case COMMAND_RETRACT: offer_retract(agent, command->lease); break;
    case COMMAND_PULL: pull_start(agent, command->pull); break;
    case COMMAND_CANCEL: pull_cancel(agent, command->user); break;
    case COMMAND_GET:
        offers_get_again(agent, command->conn_number, command->pull_id, command->get);
        break;
    case COMMAND_CLOSE: end_all(agent); break;
    }
    free(command->get);
    free(command);
}

static void send_command(KvAgent *agent, Command from) {
    Command *command = mem_new(sizeof *command);
    *command = from;
    mailbox_send(agent->inbox, command);
}

static void drop_command(void *message) {
    Command *command = message;
    offer_free(command->offer);
    pull_free(command->pull);
    free(command->get);
    free(command);
}

void agent_get_again(KvAgent *agent, const Conn *conn, uint64_t pull, const WireGet *get) {
    WireGet *copy = mem_new(sizeof *copy);
    *copy = *get;
    send_command(agent, (Command){.kind = COMMAND_GET,
                                  .get = copy,
                                  .pull_id = pull,
                                  .conn_number = conn->number});
}

void kv_agent_offer(KvAgent *agent, const KvOffer *offer) {
    send_command(agent, (Command){.kind = COMMAND_OFFER,
                                  .offer = offer_new(agent->conf.pool, offer)});
}

void kv_agent_retract(KvAgent *agent, KvLease lease) {
    send_command(agent, (Command){.kind = COMMAND_RETRACT, .lease = lease});
}

void kv_agent_pull(KvAgent *agent, const KvPull *pull) {
    send_command(agent, (Command){.kind = COMMAND_PULL, .pull = pull_new(pull)});
}

void kv_agent_cancel(KvAgent *agent, void *pull_user) {
    send_command(agent, (Command){.kind = COMMAND_CANCEL, .user = pull_user});
}

void kv_agent_release(KvAgent *agent, const KvPull *pull) {
    Pull *release = pull_new(pull);
    int64_t least = release->started_us + LIMIT_KV_HELLO_MS * 1000;
    release->release_only = true;
    if (release->deadline_us < least) release->deadline_us = least;
    send_command(agent, (Command){.kind = COMMAND_PULL, .pull = release});
}

int kv_agent_port(const KvAgent *agent) { return agent->hello.port; }
uint64_t kv_agent_epoch(const KvAgent *agent) { return agent->hello.epoch; }
const KvAgentStats *kv_agent_stats(const KvAgent *agent) { return &agent->stats; }

/* ---- opening and closing ---- */

static void accept_tcp(Stream *stream, void *user) { conn_accept(user, stream, &rail_tcp); }
static void accept_local(Stream *stream, void *user) { conn_accept(user, stream, &rail_shm); }

static void stats_init(KvAgentStats *stats) {
    static const double seconds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                     0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5, 5, 10};
    static const double bytes[] = {0,    1e5,  2.5e5, 5e5,   1e6, 2.5e6, 5e6, 1e7,
                                   2.5e7, 5e7, 1e8,   2.5e8, 5e8, 1e9,   1e10};
    static const double blocks[] = {0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384};
    histogram_init(&stats->pull_seconds, seconds, COUNT_OF(seconds));
    histogram_init(&stats->pull_bytes, bytes, COUNT_OF(bytes));
    histogram_init(&stats->pull_blocks, blocks, COUNT_OF(blocks));
}

static void hello_init(KvAgent *agent) {
    const KvPool *pool = agent->conf.pool;
    WireHello *hello = &agent->hello;
    *hello = (WireHello){.version_min = WIRE_VERSION,
                         .version_max = WIRE_VERSION,
                         .dtype = WIRE_DTYPE_HALF,
                         .layout = WIRE_LAYOUT,
                         .block_tokens = KV_BLOCK_TOKENS,
                         .shape = *kv_pool_shape(pool),
                         .block_bytes = agent->block_bytes,
                         .generations_at = kv_pool_generations_at(pool),
                         .capacity = kv_pool_capacity(pool)};
    snprintf(hello->engine, sizeof hello->engine, "%s", agent->conf.engine_id);
    agent->started_us = clock_mono_us();
    while (hello->epoch == 0) random_bytes(&hello->epoch, sizeof hello->epoch);
}

/* The pool's memfd once more, for reading only: what a peer gets. */
static bool open_memory(KvAgent *agent, Err *err) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", kv_pool_fd(agent->conf.pool));
    agent->memory_fd = fault_hit("kv.reopen") ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (agent->memory_fd >= 0) return true;
    err_set(err, ERR_IO, "could not open the KV cache for reading at %s: %s", path,
            strerror(errno));
    return err_hint(err, "Mount /proc, or set the KV rail to tcp.");
}

static bool agent_listen(KvAgent *agent, Err *err) {
    const KvAgentConf *conf = &agent->conf;
    agent->tcp = listen_tcp(agent->loop, conf->host, conf->port, accept_tcp, agent, err);
    if (!agent->tcp) {
        if (!err->hint[0]) err_hint(err, "Set another kv_port, or 0 to take any.");
        return err_wrap(err, "the KV port of engine '%s'", conf->engine_id);
    }
    agent->hello.port = (uint16_t)listener_port(agent->tcp);
    if (conf->rail == KV_RAIL_TCP) return true;
    char name[KV_ENGINE_ID_MAX + 16];
    snprintf(name, sizeof name, "@baton-kv-%s", conf->engine_id);
    if (!open_memory(agent, err)) return false;
    agent->local = listen_unix(agent->loop, name, accept_local, agent, err);
    if (agent->local) return true;
    err_wrap(err, "the KV socket of engine '%s'", conf->engine_id);
    return err_hint(err, "Give every engine of this host its own engine_id, or none at all.");
}

static void agent_free(KvAgent *agent) {
    listener_close(agent->tcp);
    listener_close(agent->local);
    timer_close(agent->wake);
    timer_close(agent->work);
    mailbox_close(agent->inbox, drop_command);
    loop_free(agent->loop);
    if (agent->memory_fd >= 0) close(agent->memory_fd);
    if (agent->known_sums)
        mem_give(agent->known_sums, kv_pool_capacity(agent->conf.pool), sizeof *agent->known_sums);
    sum_free(agent->sum);
    free(agent->scratch);
    free(agent);
}

static bool agent_init(KvAgent *agent, Err *err) {
    size_t id = strlen(agent->conf.engine_id);
    if (id == 0 || id > KV_ENGINE_ID_MAX) {
        err_set(err, ERR_INVALID, "engine id '%.128s' has %zu bytes, 1 to %d are possible",
                agent->conf.engine_id, id, KV_ENGINE_ID_MAX);
        return err_hint(err, "Shorten engine_id in --kv-transfer-config, or leave it out.");
    }
    if (agent->conf.lease_us <= 0) {
        err_set(err, ERR_INVALID, "a lease of %lld us is no lease",
                (long long)agent->conf.lease_us);
        return err_hint(err, "Raise kv_lease_duration in --kv-transfer-config.");
    }
    agent->block_bytes = kv_block_bytes(kv_pool_shape(agent->conf.pool));
    agent->sum = sum_new();
    agent->scratch = mem_new(SCRATCH);
    agent->known_sums = mem_try(kv_pool_capacity(agent->conf.pool), sizeof *agent->known_sums,
                                "the checksums of KV blocks", err);
    if (!agent->known_sums) return false;
    hello_init(agent);
    stats_init(&agent->stats);
    agent->loop = loop_new();
    agent->inbox = mailbox_on(agent->loop, on_command, agent);
    agent->wake_us = INT64_MAX;
    agent->wake = timer_start(agent->loop, TIMER_NEVER, 0, on_wake, agent);
    agent->work = timer_start(agent->loop, TIMER_NEVER, 0, on_work, agent);
    return agent_listen(agent, err);
}

static void *agent_run(void *user) {
    KvAgent *agent = user;
    loop_run(agent->loop);
    return NULL;
}

KvAgent *kv_agent_open(const KvAgentConf *conf, Err *err) {
    KvAgent *agent = mem_new(sizeof *agent);
    agent->conf = *conf;
    agent->memory_fd = -1;
    if (!agent_init(agent, err)) {
        agent_free(agent);
        return NULL;
    }
    agent->conf.engine_id = agent->hello.engine; /* what conf points to may go now */
    agent->conf.host = NULL;
    int failed = fault_hit("kv.thread") ? EAGAIN
                                        : pthread_create(&agent->thread, NULL, agent_run, agent);
    if (failed) {
        err_set(err, ERR_EXHAUSTED, "could not start the KV agent's thread: %s", strerror(failed));
        agent_free(agent);
        return NULL;
    }
    return agent;
}

void kv_agent_close(KvAgent *agent) {
    if (!agent) return;
    send_command(agent, (Command){.kind = COMMAND_CLOSE});
    pthread_join(agent->thread, NULL);
    agent_free(agent);
}
