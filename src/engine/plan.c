// SPDX-License-Identifier: Apache-2.0
/* Which tokens the next step computes: one for every sequence that decodes, then prompts in chunks,
 * the oldest first, then new ones, all within max_batched_tokens.
 *
 * When blocks run out, the youngest running request gives its own back and computes again later.  A
 * step that took blocks away admits nobody: the room is for those that run. */
#include "internal.h"

/* Gives the youngest running task's blocks back; it waits first in line. */
static void preempt(Engine *e, EngineTask *t) {
    task_drop_blocks(e, t);
    t->step_rows = 0;
    t->request->report.preemptions++;
    counter_add(&e->stats.preemptions, 1);
    task_move(e, t, TASK_WAITING, true);
}

/* Blocks for `tokens` tokens of a running task, if need be from younger ones; false: it was
 * preempted itself. */
static bool reserve_running(Engine *e, EngineTask *t, size_t tokens, size_t *rows,
                            bool *preempted) {
    while (!task_reserve(e, t, tokens)) {
        EngineTask *youngest = e->lists[TASK_RUNNING].last;
        *rows -= youngest->step_rows;
        *preempted = true;
        preempt(e, youngest);
        if (youngest == t) return false;
    }
    return true;
}

/* Rows for the running tasks that decode, or for those that still have more than one token to
 * compute. */
static void plan_running(Engine *e, bool decoding, size_t *rows, bool *preempted) {
    for (EngineTask *t = e->lists[TASK_RUNNING].first, *next; t; t = next) {
        size_t need = t->token_count - t->computed, room = e->conf.max_batched_tokens - *rows;
        size_t take = need < room ? need : room;
        bool planned = (need == 1) == decoding && take &&
                       reserve_running(e, t, t->computed + take, rows, preempted);
        if (planned) {
            t->step_rows = take;
            *rows += take;
        }
        next = t->state == TASK_RUNNING
                   ? t->behind
                   : NULL; /* read now: reserving may have taken tasks off the end */
    }
}

/* First contact with the pool: cached blocks, or a pull.  False: its blocks are not to be had now.
 */
static bool admit(Engine *e, EngineTask *t) {
    RequestReport *report = &t->request->report;
    if (t->hand_over == HAND_PULL) return handover_pull(e, t);
    t->computed =
        task_find_prefix(e, t, t->token_count - 1); /* the last one is computed, for its logits */
    if (!task_reserve(e, t, t->token_count)) {
        task_drop_blocks(e, t);
        return false;
    }
    task_admitted(e, t);
    if (!t->generated) { /* after a preemption: reported as it was at first */
        report->cached = (uint32_t)t->computed;
        report->computed = (uint32_t)(t->request->prompt_count - t->computed);
    }
    task_seal(e, t);
    task_move(e, t, TASK_RUNNING, false);
    return true;
}

static void plan_waiting(Engine *e, size_t *rows) {
    for (EngineTask *t = e->lists[TASK_WAITING].first, *next; t; t = next) {
        next = t->behind;
        size_t active = e->lists[TASK_RUNNING].count + e->lists[TASK_LOADING].count;
        if (*rows >= e->conf.max_batched_tokens || active >= e->conf.max_sequences) return;
        if (t->blocked_on) continue;
        if (!admit(e, t)) return; /* first come, first served */
        if (t->state != TASK_RUNNING) continue;
        size_t need = t->token_count - t->computed, room = e->conf.max_batched_tokens - *rows;
        t->step_rows = need < room ? need : room;
        *rows += t->step_rows;
    }
}

size_t plan_step(Engine *e) {
    size_t rows = 0;
    for (EngineTask *t = e->lists[TASK_RUNNING].first; t; t = t->behind) t->step_rows = 0;
    bool preempted = false;
    plan_running(e, true, &rows, &preempted);
    plan_running(e, false, &rows, &preempted);
    if (!preempted) plan_waiting(e, &rows);
    e->planned_count = 0;
    for (EngineTask *t = e->lists[TASK_RUNNING].first; t; t = t->behind) {
        if (!t->step_rows) continue;
        bool all =
            t->request->sampling.prompt_logprobs >= 0 && t->computed < t->request->prompt_count;
        e->planned[e->planned_count] = t;
        e->pieces[e->planned_count++] = (Piece){
            .tokens = t->tokens + t->computed,
            .rows = t->step_rows,
            .first_token = t->computed,
            .pages = t->pages,
            .wanted = all ? t->step_rows : t->computed + t->step_rows == t->token_count,
        };
    }
    return rows;
}
