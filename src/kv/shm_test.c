// SPDX-License-Identifier: Apache-2.0
/* A real reader against owners whose memory is not what they say, over the shm rail. */
#include <fcntl.h>

#include "peer_test.h"

typedef struct Memory { /* that a peer shows: what is wrong with it */
    bool no_descriptor, unsealed;
    size_t missing;    /* bytes at the end */
    bool writes;       /* over all that it shows, for ever */
    int fd;
    size_t size;
    uint8_t *at;
} Memory;

static void peer_listen_local(Peer *peer) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int length = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "baton-kv-%s", peer->id);
    close(peer->listener);
    peer->listener = socket_or_fail(AF_UNIX);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(peer->listener, 8), 0);
}

static void memory_make(Memory *memory, const Peer *peer) {
    memory->size = peer->count * (peer->bytes + sizeof(uint32_t));
    memory->fd = memfd_create("test-peer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(memory->fd, (off_t)memory->size), 0);
    memory->at = mmap(NULL, memory->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    assert_ptr_not_equal(memory->at, MAP_FAILED);
    for (size_t i = 0; i < peer->count; i++) {
        KvBlock block = peer->sealed[i].block;
        prompt_fill(memory->at + block * peer->bytes, peer->bytes, peer->prompt, i);
        memcpy(memory->at + peer->count * peer->bytes + block * sizeof(uint32_t),
               &peer->sealed[i].generation, sizeof(uint32_t));
    }
    if (memory->missing)
        assert_int_equal(ftruncate(memory->fd, (off_t)(memory->size - memory->missing)), 0);
    if (!memory->unsealed)
        assert_int_equal(fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
}

static void send_descriptor(Peer *peer, int fd) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                                   .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    if (sendmsg(peer->fd, &message, MSG_NOSIGNAL) != 1) peer->cut = true;
}

static void overwrite(const Peer *peer, const Memory *memory) {
    struct pollfd reader[] = {{.fd = peer->fd, .events = POLLIN}};
    _Atomic uint32_t *generations =
        (_Atomic uint32_t *)(void *)(memory->at + peer->count * peer->bytes);
    for (size_t i = peer->count; i-- > 0 && poll(reader, 1, 0) == 0;) {
        atomic_fetch_add(&generations[peer->sealed[i].block], 1);
        memset(memory->at + peer->sealed[i].block * peer->bytes, 0x11, peer->bytes);
    }
}

static void serves_memory(Peer *peer) {
    const Memory *memory = peer->arg;
    if (!peer_accept(peer)) return;
    send_descriptor(peer, memory->no_descriptor ? -1 : memory->fd);
    peer_hello(peer);
    if (!peer_expect(peer, WIRE_GET)) return;
    peer_manifest(peer);
    if (memory->writes) overwrite(peer, memory);
    if (peer_expect(peer, WIRE_DONE)) peer_confirm(peer);
    peer_silent(peer);
}

static void closes_after_the_descriptor(Peer *peer) {
    const Memory *memory = peer->arg;
    peer_accept(peer);
    send_descriptor(peer, memory->fd);
    peer_expect(peer, WIRE_HELLO);
}

static void is_gone_at_the_confirmation(Peer *peer) {
    const Memory *memory = peer->arg;
    peer_accept(peer);
    send_descriptor(peer, memory->fd);
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_manifest(peer);
    if (peer_expect(peer, WIRE_DONE)) peer_gone(peer, PEER_LEASE, WIRE_EXPIRED);
    peer_silent(peer);
}

static void sends_a_block(Peer *peer) {
    const Memory *memory = peer->arg;
    peer_accept(peer);
    send_descriptor(peer, memory->fd);
    peer_hello(peer);
    if (peer_expect(peer, WIRE_GET)) peer_blocks(peer, 0, 1);
    peer_silent(peer);
}

typedef enum Flaw {
    NONE, NO_DESCRIPTOR, UNSEALED, TOO_SMALL, TABLE_INSIDE, TABLE_ODD, TOO_MANY, OVERFLOW,
    OTHER_PORT, OTHER_GENERATION, OTHER_BYTES
} Flaw;

static void add_flaw(Peer *peer, Memory *memory, Flaw flaw) {
    WireHello *hello = &peer->hello;
    if (flaw == NO_DESCRIPTOR) memory->no_descriptor = true;
    if (flaw == UNSEALED) memory->unsealed = true;
    if (flaw == TOO_SMALL) memory->missing = 4;
    if (flaw == TABLE_INSIDE) hello->generations_at -= 4;
    if (flaw == TABLE_ODD) hello->generations_at += 1;
    if (flaw == TOO_MANY) hello->capacity++;
    if (flaw == OVERFLOW) hello->generations_at = UINT64_MAX - 3;
    if (flaw == OTHER_PORT) hello->port = 1;
}

static void memory_that_is_not_as_promised_is_never_used(void **state) {
    (void)state;
    static const char unfit[] =
        "*: its memory is not sealed, or does not hold its blocks";
    static const struct {
        void (*script)(Peer *peer);
        Flaw flaw;
        ErrCode code;
        const char *message;
    } cases[] = {
        {serves_memory, NONE, ERR_NONE, ""},
        {serves_memory, NO_DESCRIPTOR, ERR_DAMAGED, "*: no descriptor of its memory came"},
        {serves_memory, UNSEALED, ERR_DAMAGED, unfit},
        {serves_memory, TOO_SMALL, ERR_DAMAGED, unfit},
        {serves_memory, TABLE_INSIDE, ERR_DAMAGED, unfit},
        {serves_memory, TABLE_ODD, ERR_DAMAGED, unfit},
        {serves_memory, TOO_MANY, ERR_DAMAGED, unfit},
        {serves_memory, OVERFLOW, ERR_DAMAGED, unfit},
        {serves_memory, OTHER_PORT, ERR_UNAVAILABLE,
         "*: the engine of that id on this host has port 1"},
        {serves_memory, OTHER_GENERATION, ERR_UNAVAILABLE,
         "*: block 2 of 4 was overwritten while it was read"},
        {serves_memory, OTHER_BYTES, ERR_DAMAGED, "*: block 3 of 4 has checksum *, expected *"},
        {closes_after_the_descriptor, NONE, ERR_UNAVAILABLE,
         "*: the connection was closed instead of a hello"},
        {is_gone_at_the_confirmation, NONE, ERR_UNAVAILABLE,
         "*: all blocks had come, but they may have been overwritten meanwhile: its offer expired "
         "1234 ms ago"},
        {sends_a_block, NONE, ERR_DAMAGED, "*: a BLOCK came that was not asked for"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        Engine decode;
        Peer peer;
        Plan plan;
        Memory memory = {0};
        print_message("case %zu\n", i);
        engine_open(&decode, (EngineConf){.rail = KV_RAIL_SHM});
        peer_init(&peer, cases[i].script);
        peer_listen_local(&peer);
        peer.arg = &memory;
        add_flaw(&peer, &memory, cases[i].flaw);
        memory_make(&memory, &peer);
        if (cases[i].flaw == OTHER_GENERATION) peer.sealed[1].generation++;
        if (cases[i].flaw == OTHER_BYTES) memory.at[peer.sealed[2].block * peer.bytes] ^= 1;
        peer_start(&peer);
        plan_from_peer(&plan, &decode, &peer, 5000);
        KvPullResult result = engine_pull(&plan);
        assert_int_equal(result.ok, cases[i].code == ERR_NONE);
        if (result.ok) assert_true(plan_arrived(&plan));
        else assert_like(result.err.message, cases[i].message);
        assert_int_equal(result.err.code, cases[i].code);
        plan_done(&plan);
        engine_close(&decode);
        peer_done(&peer);
        munmap(memory.at, memory.size);
        close(memory.fd);
    }
}

/* The owner breaks its promise and writes while the reader copies: the generations tell it. */
static void blocks_that_are_overwritten_under_the_reader_are_noticed(void **state) {
    (void)state;
    unsigned noticed = 0;
    for (int round = 0; round < 40; round++) {
        Engine decode;
        Peer peer;
        Plan plan;
        Memory memory = {.writes = true};
        engine_open(&decode, (EngineConf){.rail = KV_RAIL_SHM, .blocks = 2000});
        peer_init(&peer, serves_memory);
        free(peer.chain);
        free(peer.sealed);
        peer_offer(&peer, 3, 2000 * KV_BLOCK_TOKENS);
        peer.hello.capacity = (uint32_t)peer.count;
        peer.hello.generations_at = peer.count * peer.bytes;
        peer_listen_local(&peer);
        peer.arg = &memory;
        memory_make(&memory, &peer);
        peer_start(&peer);
        plan_from_peer(&plan, &decode, &peer, 5000);
        KvPullResult result = engine_pull(&plan);
        if (result.ok) assert_true(plan_arrived(&plan));
        else
            assert_like(result.err.message, "*: block * of 2000 was overwritten while it was read");
        noticed += !result.ok;
        plan_done(&plan);
        engine_close(&decode);
        peer_done(&peer);
        munmap(memory.at, memory.size);
        close(memory.fd);
    }
    print_message("noticed in %u of 40 rounds\n", noticed);
    assert_true(noticed > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_not_as_promised_is_never_used),
        cmocka_unit_test(blocks_that_are_overwritten_under_the_reader_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
