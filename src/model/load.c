// SPDX-License-Identifier: Apache-2.0
/* Loading: every matrix is repacked once into tiles; norms and embeddings stay in the mapped file.
 */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* Changes whenever we compute something with other roundings: blocks of KV made before then prove
 * otherwise. */
#define NUMERICS_VERSION 1

typedef struct Packing { /* one matrix to be packed */
    Matrix *matrix;
    const GgufTensor *tensor;
    const uint32_t *row_of;
    size_t first_task;
} Packing;

typedef struct Loader {
    Model *model;
    Packing *packings;
    size_t count, capacity, tasks;
    const GgufTensor **used;
    size_t used_count, used_capacity;
    uint32_t *q_rows, *k_rows; /* the order of rows that makes rotary pairs halves */
} Loader;

#define TILES_PER_TASK 16

static const GgufTensor *find(Loader *l, const char *name, uint32_t dims, uint64_t inputs,
                              uint64_t outputs, Err *err) {
    const GgufTensor *tensor =
        gguf_tensor(l->model->gguf, name, dims, (uint64_t[]){inputs, outputs}, err);
    if (tensor) {
        mem_reserve(l->used, l->used_capacity, l->used_count + 1);
        l->used[l->used_count++] = tensor;
    }
    return tensor;
}

static const float *load_norm(Loader *l, const char *name, Err *err) {
    const GgufTensor *tensor = find(l, name, 1, l->model->shape.width, 1, err);
    if (!tensor) return NULL;
    if (tensor->type != WEIGHT_F32) {
        err_set(err, ERR_UNSUPPORTED, "tensor '%s' has type %s, expected F32", name,
                weight_info(tensor->type)->name);
        return NULL;
    }
    return (const float *)(const void *)tensor->bytes;
}

static void plan_matrix(Loader *l, Matrix *matrix, const GgufTensor *tensor,
                        const uint32_t *row_of) {
    const WeightInfo *info = weight_info(tensor->type);
    matrix_init(matrix, info, tensor->dims[1], tensor->dims[0], NULL);
    mem_reserve(l->packings, l->capacity, l->count + 1);
    l->packings[l->count++] = (Packing){matrix, tensor, row_of, l->tasks};
    l->tasks += (matrix->tiles + TILES_PER_TASK - 1) / TILES_PER_TASK;
    l->model->weight_bytes += matrix->tiles * matrix->tile_bytes;
}

static bool plan_layer(Loader *l, Layer *layer, size_t index, Err *err) {
    const ModelShape *s = &l->model->shape;
    uint64_t wide = (uint64_t)s->heads * s->head_dim, narrow = (uint64_t)s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        Matrix *matrix;
        uint64_t inputs, outputs;
        const uint32_t *row_of;
    } parts[] = {
        {"attn_q", &layer->q, s->width, wide, l->q_rows},
        {"attn_k", &layer->k, s->width, narrow, l->k_rows},
        {"attn_v", &layer->v, s->width, narrow, NULL},
        {"attn_output", &layer->o, wide, s->width, NULL},
        {"ffn_gate", &layer->gate, s->width, s->feed_forward, NULL},
        {"ffn_up", &layer->up, s->width, s->feed_forward, NULL},
        {"ffn_down", &layer->down, s->feed_forward, s->width, NULL},
    };
    char name[64];
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        snprintf(name, sizeof name, "blk.%zu.%s.weight", index, parts[i].name);
        const GgufTensor *tensor = find(l, name, 2, parts[i].inputs, parts[i].outputs, err);
        if (!tensor) return false;
        plan_matrix(l, parts[i].matrix, tensor, parts[i].row_of);
    }
    snprintf(name, sizeof name, "blk.%zu.attn_norm.weight", index);
    if (!(layer->attention_norm = load_norm(l, name, err))) return false;
    snprintf(name, sizeof name, "blk.%zu.ffn_norm.weight", index);
    return (layer->feed_forward_norm = load_norm(l, name, err)) != NULL;
}

/* Rotating halves (dims i and i + half) with permuted rows equals rotating pairs (2i, 2i + 1): the
 * order of a head's dims does not matter to scores, and halves need no shuffles. */
static uint32_t *halves_of_pairs(size_t heads, size_t dim) {
    uint32_t *row_of = mem_new(heads * dim * sizeof *row_of);
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < dim; i++)
            row_of[h * dim + i] =
                (uint32_t)(h * dim + (i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1));
    return row_of;
}

/* A tensor that is left out changes the answer. */
static bool check_all_used(const Loader *l, Err *err) {
    for (size_t i = 0; i < gguf_tensor_count(l->model->gguf); i++) {
        const GgufTensor *tensor = gguf_tensor_at(l->model->gguf, i);
        bool used = false;
        for (size_t k = 0; k < l->used_count; k++) used |= l->used[k] == tensor;
        if (!used)
            return err_set(err, ERR_UNSUPPORTED,
                           "tensor '" STR_FMT "' has no place in a model of family %s",
                           STR_ARG(tensor->name), l->model->shape.family->name);
    }
    return true;
}

static bool plan(Loader *l, Err *err) {
    Model *m = l->model;
    const ModelShape *s = &m->shape;
    if (s->family->rotary_pairs) {
        l->q_rows = halves_of_pairs(s->heads, s->head_dim);
        l->k_rows = halves_of_pairs(s->kv_heads, s->head_dim);
    }
    m->layers = mem_new(s->layers * sizeof *m->layers);
    for (size_t i = 0; i < s->layers; i++)
        if (!plan_layer(l, &m->layers[i], i, err)) return false;
    if (!(m->output_norm = load_norm(l, "output_norm.weight", err))) return false;
    m->embedding = find(l, "token_embd.weight", 2, s->width, s->vocab, err);
    if (!m->embedding) return false;
    m->embedding_type = weight_info(m->embedding->type);
    const GgufTensor *head = m->embedding; /* tied, unless the file has one of its own */
    if (gguf_tensor_find(m->gguf, "output.weight"))
        head = find(l, "output.weight", 2, s->width, s->vocab, err);
    if (!head) return false;
    plan_matrix(l, &m->head, head, NULL);
    return check_all_used(l, err);
}

static void pack(void *user, unsigned me, size_t task) {
    (void)me;
    const Loader *l = user;
    size_t low = 0, high = l->count; /* the last packing that begins at or before the task */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        *(l->packings[middle].first_task <= task ? &low : &high) = middle;
    }
    const Packing *p = &l->packings[low];
    size_t tile = (task - p->first_task) * TILES_PER_TASK, end = tile + TILES_PER_TASK;
    for (; tile < end && tile < p->matrix->tiles; tile++)
        matrix_pack_tile(p->matrix, tile, p->tensor->bytes, p->row_of);
}

static bool load_weights(Model *m, Err *err) {
    Loader l = {.model = m};
    bool ok = plan(&l, err);
    if (ok) ok = (m->weights = mem_try(m->weight_bytes, 1, "the weights", err)) != NULL;
    if (ok) {
        uint8_t *at = m->weights;
        for (size_t i = 0; i < l.count; i++) {
            Matrix *matrix = l.packings[i].matrix;
            matrix->data = at;
            at += matrix->tiles * matrix->tile_bytes;
        }
        team_run(m->team, pack, &l, l.tasks);
        const FileMap *file = gguf_file(m->gguf);
        m->fingerprint = hash64(file->bytes, file->size, NUMERICS_VERSION);
        for (size_t i = 0; i < l.count; i++) gguf_forget(m->gguf, l.packings[i].tensor);
    }
    free(l.packings);
    free(l.used);
    free(l.q_rows);
    free(l.k_rows);
    return ok;
}

/* Radians per token of each pair of dims: base^(-2i/dim), from one root so that no library decides
 * a bit. */
static void load_rotary(Model *m) {
    size_t half = m->shape.head_dim / 2;
    m->rotary_step = mem_new(half * sizeof *m->rotary_step);
    double root = exact_root(m->shape.rotary_base, (unsigned)half), below = 1;
    for (size_t i = 0; i < half; i++, below *= root) m->rotary_step[i] = 1 / below;
}

Model *model_open(const ModelConf *conf, Err *err) {
    Model *m = mem_new(sizeof *m);
    bool ok = (m->gguf = gguf_open(conf->path, err)) && shape_read(m->gguf, &m->shape, err) &&
              (m->tokenizer = tokenizer_new(m->gguf, err)) &&
              (m->team = team_new(conf->threads, err));
    if (ok) {
        m->context = conf->context ? conf->context : m->shape.context;
        load_rotary(m);
        ok = load_weights(m, err) && scratch_init(m, err);
    }
    if (!ok) {
        if (!*err->hint) err_hint(err, "Use another GGUF file, for example SmolLM2-135M-Instruct.");
        err_wrap(err, "model '%s'", conf->path);
        model_close(m);
        return NULL;
    }
    return m;
}

void model_close(Model *m) {
    if (!m) return;
    scratch_done(m);
    team_free(m->team);
    tokenizer_free(m->tokenizer);
    gguf_close(m->gguf);
    mem_give(m->weights, m->weight_bytes, 1);
    free(m->layers);
    free(m->rotary_step);
    free(m);
}

const ModelShape *model_shape(const Model *model) { return &model->shape; }
const Gguf *model_gguf(const Model *model) { return model->gguf; }
const Tokenizer *model_tokenizer(const Model *model) { return model->tokenizer; }
uint64_t model_fingerprint(const Model *model) { return model->fingerprint; }
size_t model_context(const Model *model) { return model->context; }
size_t model_weight_bytes(const Model *model) { return model->weight_bytes; }
unsigned model_threads(const Model *model) { return team_size(model->team); }
