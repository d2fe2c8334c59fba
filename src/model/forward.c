// SPDX-License-Identifier: Apache-2.0
/* The forward pass: phase after phase, each shared out among the team.  A phase's tasks are some
 * rows (norms, rotations, quantising), some tiles of a product, or some rows of one KV head
 * (attention). */
#include <math.h>
#include <stdlib.h>

#include "internal.h"

typedef struct Part { /* of a piece, within a slice */
    const Piece *piece;
    size_t skip, rows; /* rows skip..skip+rows-1 of the piece */
    size_t row;        /* the first one's place in the slice */
} Part;

typedef struct Product { const Matrix *w; float *y; } Product;

typedef struct Pass {
    Model *m;
    const Part *parts;
    size_t part_count, rows;
    float *hidden; /* of the slice's wanted rows */
    /* of the phase */
    size_t layer;
    const float *norm;
    bool residual; /* `normed` holds what the block before has computed, to be added to x first */
    Activations a;
    Product products[3];    /* that take the same activations */
    size_t product_count, tiles, tiles_per_task;
} Pass;

#define ROWS_PER_TASK 8
#define ATTEND_TASK_ROWS 16

/* ---- scratch ---- */

static size_t widest(const ModelShape *s) {
    size_t most = s->feed_forward, wide = (size_t)s->heads * s->head_dim;
    if (s->width > most) most = s->width;
    return wide > most ? wide : most;
}

bool scratch_init(Model *m, Err *err) {
    const ModelShape *s = &m->shape;
    size_t wide = (size_t)s->heads * s->head_dim, narrow = (size_t)s->kv_heads * s->head_dim,
           half = s->head_dim / 2;
    size_t attend = (attend_scratch(m->context, s->head_dim) + 15) / 16 * 16,
           members = team_size(m->team);
    Scratch *t = &m->scratch;
    float **const arrays[] = {&t->x, &t->normed, &t->q,  &t->attended, &t->k,
                              &t->v, &t->gate,   &t->up, &t->cosine,   &t->sine};
    const size_t widths[] = {s->width,        s->width,        wide, wide, narrow, narrow,
                             s->feed_forward, s->feed_forward, half, half};
    size_t floats = members * attend;
    for (size_t i = 0; i < COUNT_OF(arrays); i++) floats += SLICE_ROWS * widths[i];
    size_t quantised = (activations_bytes(SLICE_ROWS, widest(s)) + 63) / 64 * 64;
    t->bytes = floats * sizeof(float) + quantised;
    if (!(t->memory = mem_try(t->bytes, 1, "activations", err)))
        return err_hint(err, "Lower --max-model-len or --threads, or free memory.");
    float *at = t->memory;
    for (size_t i = 0; i < COUNT_OF(arrays); i++, at += SLICE_ROWS * widths[i - 1]) *arrays[i] = at;
    t->attend = mem_new(members * sizeof *t->attend);
    for (size_t i = 0; i < members; i++, at += attend) t->attend[i] = at;
    t->quantised = at;
    return true;
}

void scratch_done(Model *m) {
    mem_give(m->scratch.memory, m->scratch.bytes, 1);
    free(m->scratch.attend);
    m->scratch = (Scratch){0};
}

/* ---- phases ---- */

typedef struct Range { size_t begin, end; } Range;

static Range rows_of(const Pass *p, size_t task) {
    size_t begin = task * ROWS_PER_TASK, end = begin + ROWS_PER_TASK;
    return (Range){begin, end < p->rows ? end : p->rows};
}

static void run_rows(Pass *p, TeamWork *work) {
    team_run(p->m->team, work, p, (p->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK);
}

static void multiply_task(void *user, unsigned me, size_t task) {
    (void)me;
    const Pass *p = user;
    size_t from = task * p->tiles_per_task, to = from + p->tiles_per_task,
           first = 0; /* among all tiles */
    for (size_t i = 0; i < p->product_count; first += p->products[i++].w->tiles) {
        const Matrix *w = p->products[i].w;
        size_t begin = from > first ? from - first : 0, end = to > first ? to - first : 0;
        if (end > w->tiles) end = w->tiles;
        if (begin < end) kernels->multiply(w, &p->a, begin, end, p->products[i].y, w->outputs);
    }
}

static void multiply(Pass *p, size_t count, const Product *products) {
    p->product_count = count;
    p->tiles = 0;
    for (size_t i = 0; i < count; i++) {
        p->products[i] = products[i];
        p->tiles += products[i].w->tiles;
    }
    p->tiles_per_task =
        p->tiles / (team_size(p->m->team) * 6) + 1; /* six tasks a member: nobody waits long */
    team_run(p->m->team, multiply_task, p, (p->tiles + p->tiles_per_task - 1) / p->tiles_per_task);
}

static void take_activations(Pass *p, const float *x, size_t inputs) {
    activations_init(&p->a, p->rows, inputs, x, p->m->scratch.quantised);
}

static void embed(void *user, unsigned me, size_t task) {
    (void)me;
    const Pass *p = user;
    const Model *m = p->m;
    Range rows = rows_of(p, task);
    size_t half = m->shape.head_dim / 2,
           row_bytes = weight_row_bytes(m->embedding_type, m->shape.width);
    for (size_t i = 0; i < p->part_count; i++) {
        const Part *part = &p->parts[i];
        for (size_t r = 0; r < part->rows; r++) {
            size_t row = part->row + r;
            if (row < rows.begin || row >= rows.end) continue;
            size_t token = (size_t)part->piece->tokens[part->skip + r];
            assert(token < m->shape.vocab);
            weight_row(m->embedding_type, m->embedding->bytes + token * row_bytes, m->shape.width,
                       m->scratch.x + row * m->shape.width);
            double place = (double)(part->piece->first_token + part->skip + r), sine, cosine;
            for (size_t d = 0; d < half; d++) {
                exact_sin_cos(place * m->rotary_step[d], &sine, &cosine);
                m->scratch.sine[row * half + d] = (float)sine;
                m->scratch.cosine[row * half + d] = (float)cosine;
            }
        }
    }
}

static void norm_and_quantize(void *user, unsigned me, size_t task) {
    (void)me;
    Pass *p = user;
    const ModelShape *s = &p->m->shape;
    Range rows = rows_of(p, task);
    for (size_t r = rows.begin; r < rows.end; r++) {
        float *x = p->m->scratch.x + r * s->width, *normed = p->m->scratch.normed + r * s->width;
        if (p->residual) kernels->add(x, normed, s->width);
        kernels->rms_norm(normed, x, p->norm, s->width, s->norm_epsilon);
    }
    kernels->quantize(&p->a, rows.begin, rows.end);
}

static void quantize(void *user, unsigned me, size_t task) {
    (void)me;
    Pass *p = user;
    Range rows = rows_of(p, task);
    kernels->quantize(&p->a, rows.begin, rows.end);
}

static void activate_and_quantize(void *user, unsigned me, size_t task) {
    (void)me;
    Pass *p = user;
    size_t n = p->m->shape.feed_forward;
    Range rows = rows_of(p, task);
    for (size_t r = rows.begin; r < rows.end; r++)
        kernels->silu_multiply(p->m->scratch.gate + r * n, p->m->scratch.up + r * n, n);
    kernels->quantize(&p->a, rows.begin, rows.end);
}

static size_t head_at(const ModelShape *s, size_t layer, size_t kv,
                      size_t head) { /* bytes into a page */
    return ((layer * 2 + kv) * s->kv_heads + head) * s->head_dim * PAGE_TOKENS * sizeof(uint16_t);
}

static void rotate_and_store(void *user, unsigned me, size_t task) {
    (void)me;
    const Pass *p = user;
    size_t layer = p->layer;
    Range rows = rows_of(p, task);
    const ModelShape *s = &p->m->shape;
    const Scratch *t = &p->m->scratch;
    size_t dim = s->head_dim;
    for (size_t i = 0; i < p->part_count; i++) {
        const Part *part = &p->parts[i];
        for (size_t r = 0; r < part->rows; r++) {
            size_t row = part->row + r, token = part->piece->first_token + part->skip + r;
            if (row < rows.begin || row >= rows.end) continue;
            const float *cosine = t->cosine + row * dim / 2, *sine = t->sine + row * dim / 2;
            float *k = t->k + row * s->kv_heads * dim, *v = t->v + row * s->kv_heads * dim;
            kernels->rotate(t->q + row * s->heads * dim, s->heads, dim, cosine, sine);
            kernels->rotate(k, s->kv_heads, dim, cosine, sine);
            uint8_t *page = part->piece->pages[token / PAGE_TOKENS];
            for (size_t h = 0; h < s->kv_heads; h++)
                kernels->store_kv(page + head_at(s, layer, 0, h), page + head_at(s, layer, 1, h),
                                  token % PAGE_TOKENS, k + h * dim, v + h * dim, dim);
        }
    }
}

static size_t attend_tasks(const Part *part) {
    return (part->rows + ATTEND_TASK_ROWS - 1) / ATTEND_TASK_ROWS;
}

static size_t attend_total(const Pass *p) {
    size_t total = 0;
    for (size_t i = 0; i < p->part_count; i++)
        total += attend_tasks(&p->parts[i]) * p->m->shape.kv_heads;
    return total;
}

/* One KV head and up to 16 rows of a part.  The last rows come first, for they see the most tokens.
 */
static void attend(void *user, unsigned me, size_t task) {
    const Pass *p = user;
    const ModelShape *s = &p->m->shape;
    const Scratch *t = &p->m->scratch;
    size_t stride = (size_t)s->heads * s->head_dim, group = s->heads / s->kv_heads;
    size_t index = attend_total(p) - 1 - task;
    const Part *part = p->parts;
    while (index >= attend_tasks(part) * s->kv_heads) index -= attend_tasks(part++) * s->kv_heads;
    size_t begin = index / s->kv_heads * ATTEND_TASK_ROWS, head = index % s->kv_heads;
    size_t rows = part->rows - begin < ATTEND_TASK_ROWS ? part->rows - begin : ATTEND_TASK_ROWS;
    size_t at = (part->row + begin) * stride + head * group * s->head_dim;
    kernels->attend(&(AttendJob){.pages = (const uint8_t *const *)part->piece->pages,
                                 .k_at = head_at(s, p->layer, 0, head),
                                 .v_at = head_at(s, p->layer, 1, head),
                                 .dim = s->head_dim,
                                 .heads = group,
                                 .rows = rows,
                                 .first_token = part->piece->first_token + part->skip + begin,
                                 .q = t->q + at,
                                 .out = t->attended + at,
                                 .stride = stride,
                                 .scale = 1.0f / sqrtf((float)s->head_dim),
                                 .scratch = t->attend[me]});
}

static void give_hidden(void *user, unsigned me, size_t task) {
    (void)me;
    const Pass *p = user;
    Range rows = rows_of(p, task);
    const ModelShape *s = &p->m->shape;
    const Scratch *t = &p->m->scratch;
    float *out = p->hidden;
    for (size_t i = 0; i < p->part_count; i++) {
        const Part *part = &p->parts[i];
        size_t first = part->piece->rows - part->piece->wanted; /* of the piece */
        for (size_t r = part->skip > first ? part->skip : first; r < part->skip + part->rows;
             r++, out += s->width) {
            size_t row = part->row + r - part->skip;
            if (row < rows.begin || row >= rows.end) continue;
            float *x = t->x + row * s->width;
            kernels->add(x, t->normed + row * s->width,
                         s->width); /* the last layer's feed-forward */
            kernels->rms_norm(out, x, p->m->output_norm, s->width, s->norm_epsilon);
        }
    }
}

static void run_norm(Pass *p, const float *norm, bool residual) {
    p->norm = norm;
    p->residual = residual;
    take_activations(p, p->m->scratch.normed, p->m->shape.width);
    run_rows(p, norm_and_quantize);
}

static void forward_slice(Pass *p) {
    const ModelShape *s = &p->m->shape;
    Scratch *t = &p->m->scratch;
    run_rows(p, embed);
    for (p->layer = 0; p->layer < s->layers; p->layer++) {
        const Layer *layer = &p->m->layers[p->layer];
        run_norm(p, layer->attention_norm, p->layer > 0);
        multiply(p, 3, (Product[]){{&layer->q, t->q}, {&layer->k, t->k}, {&layer->v, t->v}});
        run_rows(p, rotate_and_store);
        team_run(p->m->team, attend, p, attend_total(p));
        take_activations(p, t->attended, (size_t)s->heads * s->head_dim);
        run_rows(p, quantize);
        multiply(p, 1, (Product[]){{&layer->o, t->normed}});
        run_norm(p, layer->feed_forward_norm, true);
        multiply(p, 2, (Product[]){{&layer->gate, t->gate}, {&layer->up, t->up}});
        take_activations(p, t->gate, s->feed_forward);
        run_rows(p, activate_and_quantize);
        multiply(p, 1, (Product[]){{&layer->down, t->normed}});
    }
    run_rows(p, give_hidden);
}

/* ---- the public pass ---- */

/* Takes up to SLICE_ROWS rows off the pieces, from (*piece, *skip) on; returns the parts. */
static size_t cut_slice(const Piece *pieces, size_t count, size_t *piece, size_t *skip, Part *parts,
                        size_t *rows) {
    size_t n = 0;
    *rows = 0;
    while (*piece < count && *rows < SLICE_ROWS) {
        size_t left = pieces[*piece].rows - *skip, room = SLICE_ROWS - *rows,
               take = left < room ? left : room;
        parts[n++] = (Part){&pieces[*piece], *skip, take, *rows};
        *rows += take;
        *skip += take;
        if (*skip == pieces[*piece].rows) {
            *skip = 0;
            ++*piece;
        }
    }
    return n;
}

void model_forward(Model *m, const Piece *pieces, size_t count, float *hidden) {
    Part parts[SLICE_ROWS];
    for (size_t piece = 0, skip = 0; piece < count;) {
        Pass pass = {.m = m, .parts = parts, .hidden = hidden};
        pass.part_count = cut_slice(pieces, count, &piece, &skip, parts, &pass.rows);
        forward_slice(&pass);
        for (size_t i = 0; i < pass.part_count; i++) {
            const Part *part = &parts[i];
            size_t first = part->piece->rows - part->piece->wanted, end = part->skip + part->rows;
            if (end > first)
                hidden += (end - (part->skip > first ? part->skip : first)) * m->shape.width;
        }
    }
}

void model_logits(Model *m, const float *hidden, size_t rows, float *logits) {
    for (size_t at = 0; at < rows; at += SLICE_ROWS) {
        Pass pass = {.m = m, .rows = rows - at < SLICE_ROWS ? rows - at : SLICE_ROWS};
        take_activations(&pass, hidden + at * m->shape.width, m->shape.width);
        run_rows(&pass, quantize);
        multiply(&pass, 1, (Product[]){{&m->head, logits + at * m->shape.vocab}});
    }
}

size_t model_page_bytes(const Model *m) { return head_at(&m->shape, m->shape.layers, 0, 0); }
