// SPDX-License-Identifier: Apache-2.0
/* kv_bench.c - how fast blocks get from one engine's pool into another's, beside plain copies.
 *
 *     this process: reader  ──── pull over shm, over tcp ────▶  child: owner, offers what is asked
 *
 * Method: two processes on this machine, blocks of 64 KiB.  All ways take turns, so that whatever
 * else the machine does meets all of them.  For each size the first round is shown apart ("cold":
 * it connects and touches memory for the first time), then ROUNDS are measured: the middle one, and
 * the best.  A pull is timed from kv_agent_pull() to its callback: proof, copy, checksum of every
 * block, confirmation.  memcpy copies as many bytes between two shared mappings of this process,
 * touched before; plain tcp is one blocking socket to the child, a request of 8 bytes and a read of
 * them all. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/kv.h"

#include "io/io.h"

#define ROUNDS 21
#define PATIENCE_US 60000000
extern char **environ;

static const KvShape shape = {.layers = 16, .kv_heads = 4, .head_dim = 16, .fingerprint = 1};
static const size_t sizes[] = {64 * KIB, MIB, 16 * MIB, 256 * MIB};
#define LARGEST (256 * MIB)

static void die(const char *what, const char *why) {
    fprintf(stderr, "kv_bench: %s: %s\n", what, why);
    exit(1);
}

typedef struct Side {
    KvPool *pool;
    KvAgent *agent;
    Mailbox *results;
} Side;

static void on_done(const KvPullResult *result, void *user) {
    Side *side = user;
    KvPullResult *copy = mem_new(sizeof *copy);
    *copy = *result;
    mailbox_send(side->results, copy);
}
static void on_ended(KvLease lease, KvEnd end, void *user) { (void)lease, (void)end, (void)user; }
static void on_renewed(KvLease lease, int64_t at, void *user) { (void)lease, (void)at, (void)user; }

static void side_open(Side *side, const char *id, KvRail rail) {
    Err err = {0};
    KvAgentConf conf = {.engine_id = id,
                        .host = "127.0.0.1",
                        .rail = rail,
                        .lease_us = 10000000,
                        .offer_ended = on_ended,
                        .offer_renewed = on_renewed,
                        .pull_done = on_done,
                        .user = side};
    conf.pool = side->pool;
    side->results = mailbox_new();
    side->agent = kv_agent_open(&conf, &err);
    if (!side->agent) die("agent", err.message);
}

static void side_close(Side *side) {
    kv_agent_close(side->agent);
    mailbox_close(side->results, free);
}

/* A chain that follows from the number of blocks: the blocks' bytes are of no interest here. */
static void chain_of(size_t blocks, KvHash *chain) {
    int32_t tokens[KV_BLOCK_TOKENS] = {0};
    KvHash before = kv_chain_root(&shape, STR(""));
    for (size_t i = 0; i < blocks; i++) before = chain[i] = kv_chain_next(before, tokens, 16);
}

/* ---- the child ---- */

static void *serve_plain(void *user) {
    int listener = *(int *)user, fd = accept(listener, NULL, NULL), yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    char *bytes = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(bytes, 7, LARGEST);
    for (uint64_t size; read(fd, &size, sizeof size) == sizeof size;)
        for (size_t done = 0; done < size;) {
            ssize_t n = write(fd, bytes + done, size - done);
            if (n <= 0) return NULL;
            done += (size_t)n;
        }
    return NULL;
}

static int listen_plain(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &length) < 0)
        die("listen", strerror(errno));
    *port = ntohs(at.sin_port);
    return fd;
}

/* Reads "BYTES NAME" lines and offers the first BYTES of the pool under that name. */
static int owner(const char *id) {
    Err err = {0};
    Side side = {.pool = kv_pool_new(&shape, LARGEST, &err)};
    if (!side.pool) die("pool", err.message);
    int plain_port, plain = listen_plain(&plain_port);
    pthread_t thread;
    char line[128];
    side_open(&side, id, KV_RAIL_AUTO);
    size_t count = kv_pool_capacity(side.pool), bytes = kv_block_bytes(&shape);
    KvBlock *blocks = mem_new(count * sizeof *blocks);
    KvHash *chain = mem_new(count * sizeof *chain);
    chain_of(count, chain);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = kv_block_take(side.pool);
        memset(kv_block_data(side.pool, blocks[i]), (int)i, bytes);
    }
    pthread_create(&thread, NULL, serve_plain, &plain);
    printf("%d %d\n", kv_agent_port(side.agent), plain_port);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        size_t size;
        char name[64];
        if (sscanf(line, "%zu %63s", &size, name) != 2) break;
        KvOffer offer = {.lease = hash64(name, strlen(name), 1) | 1,
                         .request = name,
                         .blocks = blocks,
                         .chain = chain,
                         .block_count = size / bytes,
                         .tokens = size / bytes * KV_BLOCK_TOKENS,
                         .first = {.token = -1},
                         .deadline_us = clock_mono_us() + PATIENCE_US};
        kv_agent_offer(side.agent, &offer);
        printf("ok\n");
        fflush(stdout);
    }
    side_close(&side);
    return 0;
}

/* ---- this process ---- */

typedef struct Child {
    pid_t pid;
    FILE *to, *from;
    char id[64];
    int port, plain_port;
} Child;

static void child_start(Child *child, const char *program) {
    int in[2], out[2];
    posix_spawn_file_actions_t actions;
    snprintf(child->id, sizeof child->id, "kv-bench-%d", getpid());
    const char *const argv[] = {program, "owner", child->id, NULL};
    if (pipe(in) < 0 || pipe(out) < 0) die("pipe", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, in[1]);
    if (posix_spawn(&child->pid, program, &actions, NULL, (char *const *)argv, environ) != 0)
        die("posix_spawn", strerror(errno));
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    child->to = fdopen(in[1], "w");
    child->from = fdopen(out[0], "r");
    if (fscanf(child->from, "%d %d", &child->port, &child->plain_port) != 2)
        die("owner", "did not start");
}

static void child_offer(Child *child, size_t size, const char *name) {
    char answer[8];
    fprintf(child->to, "%zu %s\n", size, name);
    fflush(child->to);
    if (fscanf(child->from, "%7s", answer) != 1) die("owner", "is gone");
}

static double now_us(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

/* ---- the ways ---- */

typedef struct Bench {
    Child child;
    Side shm, tcp;
    KvBlock *blocks;
    KvHash *chain;
    uint8_t *from, *to;
    int plain;
    int pulls;
} Bench;

static double pull_us(Bench *bench, Side *side, size_t size) {
    size_t count = size / kv_block_bytes(&shape);
    char name[32];
    snprintf(name, sizeof name, "pull-%d", bench->pulls++);
    child_offer(&bench->child, size, name);
    KvPull pull = {.peer_engine = bench->child.id,
                   .peer_host = "127.0.0.1",
                   .peer_port = bench->child.port,
                   .peer_request = name,
                   .chain = bench->chain,
                   .block_count = count,
                   .tokens = count * KV_BLOCK_TOKENS,
                   .blocks = bench->blocks,
                   .deadline_us = clock_mono_us() + PATIENCE_US};
    kv_agent_pull(side->agent, &pull);
    KvPullResult *result = mailbox_take(side->results, PATIENCE_US);
    if (!result) die("pull", "never ended");
    if (!result->ok) die("pull", result->err.message);
    double us = (double)result->total_us;
    free(result);
    return us;
}

static double shm_us(Bench *bench, size_t size) { return pull_us(bench, &bench->shm, size); }
static double tcp_us(Bench *bench, size_t size) { return pull_us(bench, &bench->tcp, size); }

static double memcpy_us(Bench *bench, size_t size) {
    double begin = now_us();
    memcpy(bench->to, bench->from, size);
    __asm__ volatile("" ::"r"(bench->to) : "memory");
    return now_us() - begin;
}

static double plain_us(Bench *bench, size_t size) {
    uint64_t request = size;
    double begin = now_us();
    if (write(bench->plain, &request, sizeof request) != sizeof request)
        die("plain tcp", strerror(errno));
    for (size_t done = 0; done < size;) {
        ssize_t n = read(bench->plain, bench->to + done, size - done);
        if (n <= 0) die("plain tcp", "ended");
        done += (size_t)n;
    }
    return now_us() - begin;
}

static const struct {
    const char *name;
    double (*us)(Bench *bench, size_t size);
} ways[] = {
    {"shm rail", shm_us}, {"memcpy", memcpy_us}, {"tcp rail", tcp_us}, {"plain tcp", plain_us}};

static int connect_plain(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) die("connect", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static void *shared(void) {
    void *bytes = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) die("mmap", strerror(errno));
    memset(bytes, 1, LARGEST);
    return bytes;
}

static void bench_open(Bench *bench) {
    Err err = {0};
    size_t count = LARGEST / kv_block_bytes(&shape);
    KvPool *pool = kv_pool_new(&shape, LARGEST, &err);
    if (!pool) die("pool", err.message);
    child_start(&bench->child, "/proc/self/exe");
    bench->shm.pool = bench->tcp.pool = pool;
    side_open(&bench->shm, "kv-bench-reader-shm", KV_RAIL_SHM);
    side_open(&bench->tcp, "kv-bench-reader-tcp", KV_RAIL_TCP);
    bench->blocks = mem_new(count * sizeof *bench->blocks);
    bench->chain = mem_new(count * sizeof *bench->chain);
    for (size_t i = 0; i < count; i++) bench->blocks[i] = kv_block_take(pool);
    chain_of(count, bench->chain);
    bench->from = shared();
    bench->to = shared();
    bench->plain = connect_plain(bench->child.plain_port);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(Bench *bench, size_t size) {
    double us[COUNT_OF(ways)][ROUNDS + 1];
    for (int round = 0; round <= ROUNDS; round++)
        for (size_t w = 0; w < COUNT_OF(ways); w++) us[w][round] = ways[w].us(bench, size);
    printf("%-10zu", size);
    for (size_t w = 0; w < COUNT_OF(ways); w++) {
        qsort(us[w] + 1, ROUNDS, sizeof us[w][0], by_value);
        double middle = us[w][1 + ROUNDS / 2];
        printf(" | %6.2f %7.0f %7.0f %8.0f", (double)size / middle / 1e3, middle, us[w][1],
               us[w][0]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "owner")) return owner(argv[2]);
    Bench bench = {0};
    bench_open(&bench);
    printf(
        "two processes, blocks of 64 KiB, %d rounds in turns: middle and best; cold: the first "
        "round\n"
        "a pull is proof, copy, checksum of every block and confirmation, from call to callback\n",
        ROUNDS);
    printf("%-10s", "");
    for (size_t w = 0; w < COUNT_OF(ways); w++) printf(" | %-31s", ways[w].name);
    printf("\n%-10s", "bytes");
    for (size_t w = 0; w < COUNT_OF(ways); w++)
        printf(" | %6s %7s %7s %8s", "GB/s", "us", "best us", "cold us");
    printf("\n");
    for (size_t s = 0; s < COUNT_OF(sizes); s++) measure(&bench, sizes[s]);
    side_close(&bench.shm);
    side_close(&bench.tcp);
    kv_pool_free(bench.shm.pool);
    fclose(bench.child.to);
    waitpid(bench.child.pid, NULL, 0);
    return 0;
}
