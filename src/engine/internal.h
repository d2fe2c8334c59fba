// SPDX-License-Identifier: Apache-2.0
/* internal.h - the worker's view of its requests, and what the parts of the engine call of each
 * other.
 *
 *   engine.c    the public calls, the worker thread, its messages
 *   task.c      a request's blocks and tokens; how it ends
 *   plan.c      which tokens the next step computes
 *   step.c      one forward pass; its tokens sampled and delivered
 *   sample.c    from logits to a token and its log-probabilities
 *   handover.c  offers to decode engines, pulls from prefill engines
 *   report.c    the ledger as JSON, gauges */
#ifndef BATON_ENGINE_INTERNAL_H
#define BATON_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine.h"

typedef enum TaskState { TASK_WAITING, TASK_LOADING, TASK_RUNNING, TASK_STATES } TaskState;

typedef struct EngineTask {
    struct EngineTask *before, *behind; /* in the list of its state */
    TaskState state;
    EngineRequest *request;
    struct EngineTask *blocked_on;      /* a sibling whose prompt is not computed yet */
    HandOver hand_over;                 /* HAND_PULL until the pull has ended or is given up */
    bool aborted; /* LOADING only: ends when the agent lets go of the blocks */

    int32_t *tokens;                    /* prompt, then what was generated */
    size_t token_count, token_capacity, generated;
    size_t computed;                    /* leading tokens whose KV lies in `blocks` */
    KvBlock *blocks;                    /* each with a reference */
    uint8_t **pages;                    /* their memory */
    size_t block_count, block_capacity, page_capacity;
    KvHash *chain; /* of the first `sealed` blocks, all full and in the prefix index */
    size_t sealed, chain_capacity;
    KvHash root;
    uint64_t random;                    /* the seed in effect */
    uint64_t sampling_hash;

    size_t step_rows;                   /* that the step being planned computes */
    TokenLogprobs first;                /* of the first generated token, for an offer */
    int64_t last_token_us;
} EngineTask;

typedef struct TaskList { EngineTask *first, *last; size_t count; } TaskList;

#define LOGIT_ROWS                                                                                 \
    24 /* that are turned into logits together: they bound the memory that logits take */

typedef struct Sampler {
    size_t vocab;
    float *adjusted;    /* [vocab]: logits after penalties and bias */
    float *weights;     /* [vocab]: exp() of them */
    int32_t *order;     /* [vocab]: candidates */
    uint16_t *counts;   /* [vocab]: zero between calls */
} Sampler;

struct Engine {
    EngineConf conf;
    char id[KV_ENGINE_ID_MAX + 1], kv_host[256], name[256];
    Model *model;
    KvPool *pool;
    KvAgent *agent;     /* NULL without a role */
    Mailbox *inbox;
    pthread_t worker;
    bool worker_runs;
    EngineStats stats;
    _Atomic size_t queued;     /* submitted and not admitted yet */
    _Atomic bool draining;
    /* the worker's */
    TaskList lists[TASK_STATES];
    bool stopping;
    void (*idle)(void *user);
    void *idle_user;
    Piece *pieces;             /* of the step */
    EngineTask **planned;
    size_t planned_count;
    float *hidden, *logits;
    Sampler sampler;
};

/* task.c */
void tasks_add(TaskList *list, EngineTask *task);       /* at the end */
void tasks_add_first(TaskList *list, EngineTask *task);
void tasks_remove(TaskList *list, EngineTask *task);
void task_move(Engine *e, EngineTask *task, TaskState state, bool first);
EngineTask *task_find(Engine *e,
                      const EngineRequest *request); /* by address: the request may be gone */
EngineTask *task_new(Engine *e, EngineRequest *request);
bool task_reserve(Engine *e, EngineTask *task,
                  size_t tokens); /* blocks for so many; false: none left */
size_t task_find_prefix(Engine *e, EngineTask *task,
                        size_t tokens); /* takes cached blocks; returns their tokens */
void task_admitted(Engine *e, EngineTask *task);       /* its queue time ends, the first time */
void task_seal(Engine *e, EngineTask *task);           /* the full blocks that were computed */
void task_drop_blocks(Engine *e, EngineTask *task);
void task_add_token(EngineTask *task, int32_t token);
void task_prompt_done(Engine *e, EngineTask *task);    /* siblings may start */
void task_end(Engine *e, EngineTask *task, Finish finish, int32_t stop_token,
              const Err *err); /* without a token */
/* A token was chosen: delivers it, and ends the task if it is the last one.  True: the task lives
 * on. */
bool task_take_token(Engine *e, EngineTask *task, const TokenLogprobs *chosen);

/* plan.c */
size_t plan_step(Engine *e); /* rows */

/* step.c */
void run_step(Engine *e);

/* sample.c */
void sampler_init(Sampler *sampler, size_t vocab);
void sampler_done(Sampler *sampler);
uint64_t sampling_hash(const Sampling *sampling);
void sample_token(Sampler *sampler, const Model *model, const EngineTask *task, const float *logits,
                  TokenLogprobs *out);
void describe_token(const float *logits, size_t vocab, int32_t token, int32_t top,
                    TokenLogprobs *out);

/* handover.c */
bool handover_open(Engine *e, Err *err) MUST_CHECK;
void handover_offer(Engine *e,
                    EngineTask *task); /* leases the prompt's blocks and makes them known */
bool handover_pull(Engine *e,
                   EngineTask *task); /* WAITING to LOADING; false: no blocks for it yet */
void handover_pulled(Engine *e, const KvPullResult *result);
void handover_offer_ended(Engine *e, KvLease lease, KvEnd end);
void handover_give_up(Engine *e, EngineTask *task,
                      const Err *why);              /* compute it here, or fail when strict */
void handover_release(Engine *e, EngineTask *task); /* tells the peer that nobody will come */

/* report.c */
char *report_ledger(Engine *e);
void report_gauges(Engine *e);
void report_init(EngineStats *stats);

/* Messages to the worker; each is free()d by it. */
typedef enum MessageKind {
    MESSAGE_SUBMIT,
    MESSAGE_ABORT,
    MESSAGE_LEDGER,
    MESSAGE_DRAIN,
    MESSAGE_STOP,
    MESSAGE_PULLED,
    MESSAGE_OFFER_ENDED,
    MESSAGE_OFFER_RENEWED,
} MessageKind;

typedef struct Message {
    MessageKind kind;
    EngineRequest *request;
    void (*answer)(char *json, void *user);
    void (*idle)(void *user);
    void *user;
    KvLease lease;
    KvEnd end;
    int64_t deadline_us;
    KvPullResult pulled;
} Message;

void engine_send(Engine *e, const Message *message);

#endif
