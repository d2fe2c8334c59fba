// SPDX-License-Identifier: Apache-2.0
/* The forward pass.  All members of the team walk through the layers together; between two phases
 * they meet. A phase either divides the rows (norms, rotations, quantising) or deals out tasks
 * (products, attention). */
#include <math.h>
#include <stdlib.h>

#include "internal.h"

typedef struct Part { /* of a piece, within a slice */
    const Piece *piece;
    size_t skip, rows; /* rows skip..skip+rows-1 of the piece */
    size_t row;        /* the first one's place in the slice */
} Part;

typedef struct Pass {
    Model *m;
    const Part *parts;
    size_t part_count, rows;
    float *hidden; /* of the slice's wanted rows */
} Pass;

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

static Range my_rows(const Pass *p, unsigned me) {
    unsigned members = team_size(p->m->team);
    return (Range){p->rows * me / members, p->rows * (me + 1) / members};
}

typedef struct Product { const Matrix *w; float *y; } Product;

/* Deals out the tiles of up to three matrices that take the same activations. */
static void multiply(const Pass *p, const Activations *x, const Product *products, size_t count) {
    size_t tiles = 0, step, task;
    for (size_t i = 0; i < count; i++) tiles += products[i].w->tiles;
    step = tiles / (team_size(p->m->team) * 6) +
           1; /* six tasks a member: none waits long for the last */
    while ((task = team_next(p->m->team)) * step < tiles) {
        size_t first = 0; /* tile of the matrix, among all */
        for (size_t i = 0; i < count; first += products[i++].w->tiles) {
            const Matrix *w = products[i].w;
            size_t begin = task * step > first ? task * step - first : 0;
            size_t end = (task + 1) * step > first ? (task + 1) * step - first : 0;
            if (end > w->tiles) end = w->tiles;
            if (begin < end) kernels->multiply(w, x, begin, end, products[i].y, w->outputs);
        }
    }
    team_meet(p->m->team);
}

static Activations activations(const Pass *p, const float *x, size_t inputs) {
    Activations a;
    activations_init(&a, p->rows, inputs, x, p->m->scratch.quantised);
    return a;
}

static void embed(const Pass *p, Range rows) {
    const Model *m = p->m;
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

/* residual: `normed` holds what the block before has computed, to be added to x first. */
static void norm_and_quantize(const Pass *p, Range rows, const float *weight, bool residual,
                              Activations *a) {
    const ModelShape *s = &p->m->shape;
    for (size_t r = rows.begin; r < rows.end; r++) {
        float *x = p->m->scratch.x + r * s->width, *normed = p->m->scratch.normed + r * s->width;
        if (residual) kernels->add(x, normed, s->width);
        kernels->rms_norm(normed, x, weight, s->width, s->norm_epsilon);
    }
    kernels->quantize(a, rows.begin, rows.end);
}

static size_t head_at(const ModelShape *s, size_t layer, size_t kv,
                      size_t head) { /* bytes into a page */
    return ((layer * 2 + kv) * s->kv_heads + head) * s->head_dim * PAGE_TOKENS * sizeof(uint16_t);
}

static void rotate_and_store(const Pass *p, Range rows, size_t layer) {
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

/* One task: one KV head and up to 16 rows of a part.  The last come first, for they see the most
 * tokens. */
static void attend(const Pass *p, unsigned me, size_t layer) {
    const ModelShape *s = &p->m->shape;
    const Scratch *t = &p->m->scratch;
    size_t total = 0, stride = (size_t)s->heads * s->head_dim, group = s->heads / s->kv_heads;
    for (size_t i = 0; i < p->part_count; i++) total += attend_tasks(&p->parts[i]) * s->kv_heads;
    for (size_t task; (task = team_next(p->m->team)) < total;) {
        size_t index = total - 1 - task;
        const Part *part = p->parts;
        while (index >= attend_tasks(part) * s->kv_heads)
            index -= attend_tasks(part++) * s->kv_heads;
        size_t begin = index / s->kv_heads * ATTEND_TASK_ROWS, head = index % s->kv_heads;
        size_t rows = part->rows - begin < ATTEND_TASK_ROWS ? part->rows - begin : ATTEND_TASK_ROWS;
        size_t at = (part->row + begin) * stride + head * group * s->head_dim;
        kernels->attend(&(AttendJob){.pages = (const uint8_t *const *)part->piece->pages,
                                     .k_at = head_at(s, layer, 0, head),
                                     .v_at = head_at(s, layer, 1, head),
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
    team_meet(p->m->team);
}

static void give_hidden(const Pass *p, Range rows) {
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

static void forward_slice(void *user, unsigned me) {
    const Pass *p = user;
    Model *m = p->m;
    const ModelShape *s = &m->shape;
    Scratch *t = &m->scratch;
    Range rows = my_rows(p, me);
    embed(p, rows);
    for (size_t i = 0; i < s->layers; i++) {
        const Layer *layer = &m->layers[i];
        Activations a = activations(p, t->normed, s->width);
        norm_and_quantize(p, rows, layer->attention_norm, i > 0, &a);
        team_meet(m->team);
        multiply(p, &a, (Product[]){{&layer->q, t->q}, {&layer->k, t->k}, {&layer->v, t->v}}, 3);
        rotate_and_store(p, rows, i);
        team_meet(m->team);
        attend(p, me, i);
        a = activations(p, t->attended, (size_t)s->heads * s->head_dim);
        kernels->quantize(&a, rows.begin, rows.end);
        team_meet(m->team);
        multiply(p, &a, (Product[]){{&layer->o, t->normed}}, 1);
        a = activations(p, t->normed, s->width);
        norm_and_quantize(p, rows, layer->feed_forward_norm, true, &a);
        team_meet(m->team);
        multiply(p, &a, (Product[]){{&layer->gate, t->gate}, {&layer->up, t->up}}, 2);
        for (size_t r = rows.begin; r < rows.end; r++)
            kernels->silu_multiply(t->gate + r * s->feed_forward, t->up + r * s->feed_forward,
                                   s->feed_forward);
        a = activations(p, t->gate, s->feed_forward);
        kernels->quantize(&a, rows.begin, rows.end);
        team_meet(m->team);
        multiply(p, &a, (Product[]){{&layer->down, t->normed}}, 1);
    }
    give_hidden(p, rows);
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
        team_run(m->team, forward_slice, &pass);
        for (size_t i = 0; i < pass.part_count; i++) {
            const Part *part = &parts[i];
            size_t first = part->piece->rows - part->piece->wanted, end = part->skip + part->rows;
            if (end > first)
                hidden += (end - (part->skip > first ? part->skip : first)) * m->shape.width;
        }
    }
}

typedef struct Logits { Pass pass; const float *hidden; float *out; } Logits;

static void logits_slice(void *user, unsigned me) {
    const Logits *l = user;
    Activations a = activations(&l->pass, l->hidden, l->pass.m->shape.width);
    Range rows = my_rows(&l->pass, me);
    kernels->quantize(&a, rows.begin, rows.end);
    team_meet(l->pass.m->team);
    multiply(&l->pass, &a, (Product[]){{&l->pass.m->head, l->out}}, 1);
}

void model_logits(Model *m, const float *hidden, size_t rows, float *logits) {
    for (size_t at = 0; at < rows; at += SLICE_ROWS) {
        size_t n = rows - at < SLICE_ROWS ? rows - at : SLICE_ROWS;
        Logits l = {
            {.m = m, .rows = n}, hidden + at * m->shape.width, logits + at * m->shape.vocab};
        team_run(m->team, logits_slice, &l);
    }
}

size_t model_page_bytes(const Model *m) { return head_at(&m->shape, m->shape.layers, 0, 0); }
