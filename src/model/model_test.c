// SPDX-License-Identifier: Apache-2.0
/* The forward pass: the same bits for every weight type, kernel set, number of threads, cut and
 * company; and what a file must not ask for. */
#include <math.h>
#include <setjmp.h>
#include <unistd.h>
#include "model.h"
#include "tokenizer_test.h"
#include <cmocka.h>

enum { WIDTH = 256, FORWARD = 512, HEADS = 4, KV_HEADS = 2, DIM = 64, LAYERS = 2, TOKENS = 520 };

static uint32_t next(uint64_t *seed) {
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static void put_weights(GgufWriter *w, const char *name, WeightType type, uint64_t inputs,
                        uint64_t outputs, uint64_t seed) {
    const WeightInfo *info = weight_info(type);
    size_t bytes = weight_row_bytes(info, inputs) * outputs;
    uint8_t *data = mem_new(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)next(&seed);
    for (size_t at = 0; at < bytes; at += info->bytes) {
        float scale =
                  ((float)(next(&seed) % 1000) / 1000 - 0.5f) * (info->bits == 8 ? 0.002f : 0.02f),
              minimum = -6 * scale;
        uint16_t d = float_to_half(info->two_scales     ? scale / 32
                                   : info->float_scales ? scale / 16
                                                        : scale);
        uint16_t m = float_to_half(info->float_scales ? -minimum / 32 : minimum);
        scale *= 8;
        if (type == WEIGHT_F32) memcpy(data + at, &scale, 4);
        else if (type == WEIGHT_BF16) memcpy(data + at, (uint8_t *)&scale + 2, 2);
        else memcpy(data + at + (type == WEIGHT_Q6_K ? 208 : 0), &d, 2);
        if (info->minimum) memcpy(data + at + 2, &m, 2);
    }
    put_tensor(w, name, 2, (uint64_t[]){inputs, outputs}, type, data, bytes);
    free(data);
}

static void put_norm(GgufWriter *w, const char *name, uint64_t seed) {
    float norm[WIDTH];
    for (int i = 0; i < WIDTH; i++) norm[i] = 0.5f + (float)(next(&seed) % 1000) / 1000;
    put_tensor(w, name, 1, (uint64_t[]){WIDTH}, WEIGHT_F32, norm, sizeof norm);
}

static void put_keys(GgufWriter *w) {
    put_key_str(w, "general.architecture", "llama");
    put_key_u32(w, "llama.block_count", LAYERS);
    put_key_u32(w, "llama.embedding_length", WIDTH);
    put_key_u32(w, "llama.feed_forward_length", FORWARD);
    put_key_u32(w, "llama.attention.head_count", HEADS);
    put_key_u32(w, "llama.attention.head_count_kv", KV_HEADS);
    put_key_u32(w, "llama.context_length", 1024);
    put_key_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_tiny_vocab(w, "gpt-2");
}

static void put_layers(GgufWriter *w, WeightType type) {
    static const struct { const char *name; uint64_t inputs, outputs;
    } parts[] = {{"attn_q", WIDTH, HEADS * DIM},    {"attn_k", WIDTH, KV_HEADS * DIM},
                 {"attn_v", WIDTH, KV_HEADS * DIM}, {"attn_output", WIDTH, WIDTH},
                 {"ffn_gate", WIDTH, FORWARD},      {"ffn_up", WIDTH, FORWARD},
                 {"ffn_down", FORWARD, WIDTH}};
    char name[64];
    for (size_t layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < COUNT_OF(parts); i++) {
            snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, parts[i].name);
            put_weights(w, name, type, parts[i].inputs, parts[i].outputs, layer * 100 + i);
        }
        snprintf(name, sizeof name, "blk.%zu.attn_norm.weight", layer);
        put_norm(w, name, layer + 50);
        snprintf(name, sizeof name, "blk.%zu.ffn_norm.weight", layer);
        put_norm(w, name, layer + 60);
    }
    put_norm(w, "output_norm.weight", 70);
}

static void write_file(const char *path, GgufWriter *w) {
    Buf bytes = put_end(w);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.at, 1, bytes.length, file), bytes.length);
    fclose(file);
    buf_done(&bytes);
}

static const char *write_model(char path[64], WeightType type, bool own_head) {
    GgufWriter w = {0};
    put_keys(&w);
    put_layers(&w, type);
    put_weights(&w, "token_embd.weight", type, WIDTH, TINY_SIZE, 7);
    if (own_head) put_weights(&w, "output.weight", type, WIDTH, TINY_SIZE, 8);
    snprintf(path, 64, "/tmp/baton-model-test-%d.gguf", (int)getpid());
    write_file(path, &w);
    return path;
}

typedef struct Side { /* a model, and the KV of three sequences */
    Model *model;
    uint8_t *pages[3][(TOKENS + 15) / 16];
    float *hidden, *logits;
} Side;

static int32_t token_at(size_t sequence, size_t place) {
    return (int32_t)((place * 31 + sequence * 77 + place / 7) % TINY_SIZE);
}

static void side_open(Side *side, const char *path, unsigned threads) {
    Err err = {0};
    side->model = model_open(&(ModelConf){.path = path, .threads = threads}, &err);
    if (!side->model) fail_msg("%s (%s)", err.message, err.hint);
    for (int s = 0; s < 3; s++)
        for (size_t p = 0; p < COUNT_OF(side->pages[0]); p++)
            side->pages[s][p] = mem_new(model_page_bytes(side->model));
    side->hidden = mem_new(3 * TOKENS * WIDTH * sizeof(float));
    side->logits = mem_new(3 * TOKENS * TINY_SIZE * sizeof(float));
}

static void side_close(Side *side) {
    for (int s = 0; s < 3; s++)
        for (size_t p = 0; p < COUNT_OF(side->pages[0]); p++) free(side->pages[s][p]);
    free(side->hidden);
    free(side->logits);
    model_close(side->model);
}

/* All tokens of `count` sequences, `chunk` of each at a time, each sequence starting when the one
 * before is half done. Returns a hash of all logits of sequence 0, in order, and of its KV. */
static uint64_t run(Side *side, size_t tokens, size_t count, size_t chunk) {
    int32_t ids[3][TOKENS];
    size_t done[3] = {0};
    uint64_t hash = 1;
    for (size_t s = 0; s < count; s++)
        for (size_t t = 0; t < tokens; t++) ids[s][t] = token_at(s, t);
    for (int s = 0; s < 3; s++)
        for (size_t p = 0; p < COUNT_OF(side->pages[0]); p++)
            memset(side->pages[s][p], 0, model_page_bytes(side->model));
    while (done[0] < tokens) {
        Piece pieces[3];
        size_t n = 0, rows = 0;
        for (size_t s = 0; s < count; s++) {
            if (done[s] == tokens || (s && done[s - 1] < tokens / 2)) continue;
            size_t take = chunk < tokens - done[s] ? chunk : tokens - done[s];
            pieces[n++] = (Piece){ids[s] + done[s], take, done[s], side->pages[s], take};
            rows += take;
            done[s] += take;
        }
        model_forward(side->model, pieces, n, side->hidden);
        model_logits(side->model, side->hidden, rows, side->logits);
        for (size_t r = 0; r < pieces[0].rows; r++)
            hash = hash64(side->logits + r * TINY_SIZE, TINY_SIZE * sizeof(float), hash);
        for (size_t i = 0; i < rows * TINY_SIZE; i++) assert_true(isfinite(side->logits[i]));
    }
    for (size_t p = 0; p < (tokens + 15) / 16; p++)
        hash = hash64(side->pages[0][p], model_page_bytes(side->model), hash);
    return hash;
}

static const WeightType types[] = {WEIGHT_F32,  WEIGHT_F16,  WEIGHT_BF16, WEIGHT_Q4_0,
                                   WEIGHT_Q4_1, WEIGHT_Q5_0, WEIGHT_Q5_1, WEIGHT_Q8_0,
                                   WEIGHT_Q4_K, WEIGHT_Q5_K, WEIGHT_Q6_K};

static void logits_and_kv_have_the_same_bits_whatever_runs_how(void **state) {
    (void)state;
    static const struct { unsigned threads; size_t count, chunk; } ways[] = {
        {1, 1, 1}, {2, 3, 1}, {3, 2, 7}, {4, 3, 16}, {2, 1, 40}, {4, 1, 13}};
    char path[64];
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        write_model(path, types[i], i % 2);
        uint64_t want = 0;
        for (size_t v = 0; kernels_all[v]; v++) {
            if (!kernels_all[v]->runs_here()) continue;
            kernels = kernels_all[v];
            for (size_t w = 0; w < COUNT_OF(ways); w++) {
                if (v == 2 && w > 2)
                    break; /* the scalar set takes its time; it was asked the main question */
                Side side;
                side_open(&side, path, ways[w].threads);
                uint64_t got = run(&side, 40, ways[w].count, ways[w].chunk);
                if (!want) want = got;
                if (got != want)
                    fail_msg("%s differs: %s, %u threads, %zu sequences, chunks of %zu",
                             weight_info(types[i])->name, kernels->name, ways[w].threads,
                             ways[w].count, ways[w].chunk);
                side_close(&side);
            }
        }
        unlink(path);
    }
}

/* Longer than a slice, so that pieces are cut inside, too. */
static void chunks_from_1_to_512_give_the_same_bits(void **state) {
    (void)state;
    static const size_t chunks[] = {512, 1, 2, 15, 16, 17, 100, 255, 256, 257, 511};
    char path[64];
    write_model(path, WEIGHT_Q4_1, false);
    kernels = kernels_all[0]->runs_here()   ? kernels_all[0]
              : kernels_all[1]->runs_here() ? kernels_all[1]
                                            : &kernels_scalar;
    uint64_t want = 0;
    for (size_t c = 0; c < COUNT_OF(chunks); c++) {
        Side side;
        side_open(&side, path, 2);
        uint64_t got = run(&side, TOKENS, c % 2 ? 1 : 3, chunks[c]);
        if (!want) want = got;
        if (got != want) fail_msg("chunks of %zu differ", chunks[c]);
        side_close(&side);
    }
    unlink(path);
}

static void only_the_wanted_rows_give_hidden_states(void **state) {
    (void)state;
    char path[64];
    Side side;
    side_open(&side, write_model(path, WEIGHT_Q8_0, false), 2);
    int32_t ids[2][300];
    for (size_t t = 0; t < 300; t++) ids[0][t] = token_at(0, t), ids[1][t] = token_at(1, t);
    Piece all[] = {{ids[0], 300, 0, side.pages[0], 300}, {ids[1], 5, 0, side.pages[1], 5}};
    float *every = mem_new(305 * WIDTH * sizeof *every);
    model_forward(side.model, all, 2, every);
    Piece some[] = {{ids[0], 300, 0, side.pages[0], 60},
                    {ids[1], 5, 0, side.pages[1], 0},
                    {ids[1], 5, 0, side.pages[2], 1}};
    model_forward(side.model, some, 3, side.hidden);
    assert_memory_equal(side.hidden, every + 240 * WIDTH, 60 * WIDTH * sizeof(float));
    assert_memory_equal(side.hidden + 60 * WIDTH, every + 304 * WIDTH, WIDTH * sizeof(float));
    free(every);
    side_close(&side);
    unlink(path);
}

static void what_a_model_must_not_ask_for_is_refused_by_name(void **state) {
    (void)state;
    static const struct { const char *key, *text; float number; const char *message;
    } cases[] = {
        {"general.architecture", "mamba", 0, "model family 'mamba' is not supported"},
        {"llama.rope.scaling.type", "yarn", 0, "metadata key 'llama.rope.scaling.type' is 'yarn'"},
        {"llama.expert_count", NULL, 8,
         "metadata key 'llama.expert_count' asks for what is not supported"},
        {"llama.attention.key_length", NULL, 48,
         "heads of 48 are not supported: multiples of 32 up to 256 are"},
        {"llama.rope.dimension_count", NULL, 32, "llama.rope.dimension_count"},
        {"llama.attention.head_count_kv", NULL, 3, "4 heads cannot share 3 KV heads evenly"},
    };
    for (size_t i = 0; i <= COUNT_OF(cases); i++) {
        GgufWriter w = {0};
        bool extra = i == COUNT_OF(cases);
        const char *key = extra ? "" : cases[i].key;
        if (strcmp(key, "general.architecture") != 0)
            put_key_str(&w, "general.architecture", "llama");
        put_key_u32(&w, "llama.block_count", LAYERS);
        put_key_u32(&w, "llama.embedding_length", WIDTH);
        put_key_u32(&w, "llama.feed_forward_length", FORWARD);
        put_key_u32(&w, "llama.attention.head_count", HEADS);
        if (strcmp(key, "llama.attention.head_count_kv") != 0)
            put_key_u32(&w, "llama.attention.head_count_kv", KV_HEADS);
        put_key_u32(&w, "llama.context_length", 1024);
        put_key_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
        put_tiny_vocab(&w, "gpt-2");
        if (!extra && cases[i].text) put_key_str(&w, key, cases[i].text);
        else if (!extra) put_key_u32(&w, key, (uint32_t)cases[i].number);
        put_layers(&w, WEIGHT_F16);
        put_weights(&w, "token_embd.weight", WEIGHT_F16, WIDTH, TINY_SIZE, 7);
        if (extra) put_norm(&w, "blk.0.attn_q.bias", 1);
        char path[64];
        snprintf(path, sizeof path, "/tmp/baton-model-test-%d.gguf", (int)getpid());
        write_file(path, &w);
        Err err = {0};
        Model *model = model_open(&(ModelConf){.path = path, .threads = 1}, &err);
        const char *want =
            extra ? "tensor 'blk.0.attn_q.bias' has no place in a model of family llama"
                  : cases[i].message;
        if (model || !strstr(err.message, want))
            fail_msg("'%s' does not say '%s'", err.message, want);
        assert_string_not_equal(err.hint, "");
        unlink(path);
    }
}

static void a_missing_tensor_or_memory_is_an_error(void **state) {
    (void)state;
    GgufWriter w = {0};
    put_keys(&w);
    put_layers(&w, WEIGHT_F16);
    char path[64];
    snprintf(path, sizeof path, "/tmp/baton-model-test-%d.gguf", (int)getpid());
    write_file(path, &w);
    Err err = {0};
    assert_null(model_open(&(ModelConf){.path = path, .threads = 1}, &err));
    assert_non_null(strstr(err.message, "token_embd.weight"));
    write_model(path, WEIGHT_F16, false);
    bool weights = false, activations = false;
    for (unsigned nth = 1;; nth++) { /* every allocation in turn */
        fault_arm("mem.try", nth, false);
        Model *model = model_open(&(ModelConf){.path = path, .threads = 1}, &err);
        fault_disarm_all();
        model_close(model);
        if (model) break;
        assert_int_equal(err.code, ERR_EXHAUSTED);
        weights |= strstr(err.message, "the weights") != NULL;
        activations |= strstr(err.message, "activations") != NULL;
    }
    assert_true(weights && activations);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_kv_have_the_same_bits_whatever_runs_how),
        cmocka_unit_test(chunks_from_1_to_512_give_the_same_bits),
        cmocka_unit_test(only_the_wanted_rows_give_hidden_states),
        cmocka_unit_test(what_a_model_must_not_ask_for_is_refused_by_name),
        cmocka_unit_test(a_missing_tensor_or_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
