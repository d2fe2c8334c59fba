// SPDX-License-Identifier: Apache-2.0
/* One step: a forward pass over the planned rows, then a token for every sequence whose last row
 * was among them. */
#include <stdlib.h>

#include "internal.h"

/* The log-probabilities of the prompt tokens that follow the rows of this piece. */
static void note_prompt_row(Engine *e, EngineTask *t, size_t token, const float *logits) {
    EngineRequest *r = t->request;
    if (r->sampling.prompt_logprobs < 0 || token + 1 >= r->prompt_count) return;
    if (!r->prompt_logprobs)
        r->prompt_logprobs = mem_new(r->prompt_count * sizeof *r->prompt_logprobs);
    describe_token(logits, e->sampler.vocab, r->prompt[token + 1], r->sampling.prompt_logprobs,
                   &r->prompt_logprobs[token + 1]);
}

typedef struct Wanted {
    size_t planned, token;
} Wanted; /* which task, which of its tokens: a hidden row */

static void finish_rows(Engine *e, const Wanted *wanted, size_t count, const float *hidden) {
    size_t vocab = e->sampler.vocab, width = model_shape(e->model)->width;
    for (size_t at = 0; at < count; at += LOGIT_ROWS) {
        size_t rows = count - at < LOGIT_ROWS ? count - at : LOGIT_ROWS;
        model_logits(e->model, hidden + at * width, rows, e->logits);
        for (size_t i = 0; i < rows; i++) {
            EngineTask *t = e->planned[wanted[at + i].planned];
            size_t token = wanted[at + i].token;
            const float *logits = e->logits + i * vocab;
            note_prompt_row(e, t, token, logits);
            if (token + 1 != t->token_count) continue;
            TokenLogprobs chosen;
            sample_token(&e->sampler, e->model, t, logits, &chosen);
            if (!task_take_token(e, t, &chosen)) e->planned[wanted[at + i].planned] = NULL;
        }
    }
}

void run_step(Engine *e) {
    model_forward(e->model, e->pieces, e->planned_count, e->hidden);
    size_t count = 0, rows = 0;
    for (size_t i = 0; i < e->planned_count; i++) count += e->pieces[i].wanted;
    Wanted *wanted = mem_new(count * sizeof *wanted);
    count = 0;
    for (size_t i = 0; i < e->planned_count; i++) {
        EngineTask *t = e->planned[i];
        rows += t->step_rows;
        for (size_t r = t->step_rows - e->pieces[i].wanted; r < t->step_rows; r++)
            wanted[count++] = (Wanted){i, t->computed + r};
        t->computed += t->step_rows;
        task_seal(e, t);
    }
    counter_add(&e->stats.steps, 1);
    histogram_observe(&e->stats.step_tokens, (double)rows);
    finish_rows(e, wanted, count, e->hidden);
    free(wanted);
}
