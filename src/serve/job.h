// SPDX-License-Identifier: Apache-2.0
/* job.h - one generating request on its way through the engine, and what has come of it so far.
 *
 *     job_start() ──submitted──▶ ANSWERING ──last choice done──▶ replied ──last event──▶ freed
 *          \                         └──client gone, a choice failed: all choices aborted──┘
 *           \──refused by the engine: replied at once, freed with the last event
 *
 * A choice is one answer to one prompt: one EngineRequest.  It is `done` for the client when its
 * text is complete, also by a stop string that the engine knows nothing of; the engine then still
 * owns its request until the last event: `ended`.
 *
 * Owner: a Job belongs to the loop.  It is freed when it has replied and every choice has ended. */
#ifndef BATON_SERVE_JOB_H
#define BATON_SERVE_JOB_H

#include "internal.h"

typedef struct ChoiceText { /* what of the generated text may leave already */
    Detok detok;
    const Stops *stops;
    Buf text; /* the tail of what has left, as far as a stop string may reach, then the rest */
    size_t sent;         /* bytes of it that have left */
    size_t searched;     /* stop strings are looked for behind this place */
} ChoiceText;

void choice_text_init(ChoiceText *text, const Tokenizer *tokenizer, bool skip_special,
                      const Stops *stops);
void choice_text_done(ChoiceText *text);
/* Adds a token; `search`: stop strings count already.  The stop string that it completed, if any:
 * then the text is cut and complete. */
const Str *choice_text_add(ChoiceText *text, int32_t token, bool search);
void choice_text_end(ChoiceText *text);               /* no token follows */
Str choice_text_take(ChoiceText *text,
                     bool complete); /* what may leave now; valid until the next call */

/* logprobs.c */
typedef struct LogprobLists {
    Buf offsets, values, tokens, tops;
    size_t offset, count;
} LogprobLists;
void logprob_chat_write(const Tokenizer *tokenizer, const TokenLogprobs *at, int32_t top,
                        bool as_ids, Buf *out); /* one element of content */
void logprob_lists_add(LogprobLists *lists, const Tokenizer *tokenizer, const TokenLogprobs *at,
                       int32_t top, bool as_ids);
void logprob_lists_add_prompt(LogprobLists *lists, const Tokenizer *tokenizer,
                              const EngineRequest *request, int32_t top, bool as_ids);
void logprob_lists_write(const LogprobLists *lists, Buf *out);
void logprob_lists_clear(LogprobLists *lists);
void logprob_lists_done(LogprobLists *lists);
void logprob_prompt_write(const Tokenizer *tokenizer, const EngineRequest *request, int32_t top,
                          Buf *out); /* [null, {"id": {...}}, ...] */
size_t utf8_count(Str text);

typedef struct Job Job;

typedef struct Choice {
    Job *job;
    uint32_t index;
    const Prompt *prompt;
    EngineRequest request;
    bool ended;                  /* its last event has come: the request is ours */
    bool done;                   /* nothing more is told of it */
    bool began;                  /* a token has come */
    ChoiceText text;
    size_t tokens;               /* counted as completion */
    Buf ids;                     /* "1,2,3" */
    Buf chat_logprobs;
    LogprobLists lists;
    Finish finish;
    const Str *stop;             /* the stop string that ended it */
    int32_t stop_token;          /* -1: none */
} Choice;

struct Job {
    Serve *serve;
    HttpRequest *http;           /* NULL: replied, or the client has gone */
    Ask ask;
    Prompts prompts;
    Choosing choosing;
    KvAsk kv;
    Arena arena;
    char id[140];                /* "chatcmpl-..." */
    int64_t created_s;
    bool stream, began;          /* the stream's head has left */
    bool usage, continuous;      /* in a stream */
    bool as_ids;
    Choice *choices;
    size_t count, done, ended;
    Buf head;                    /* what every chunk begins with */
    Buf out;                     /* chunks on their way */
    size_t bytes;                /* of the reply */
};

/* Takes what was read; replies in any case. */
void job_start(Serve *serve, HttpRequest *http, Ask *ask, Prompts *prompts,
               const Choosing *choosing, const KvAsk *kv, Arena *arena);
void job_on_event(void *message, void *user); /* EngineEvent; user: Serve */
/* A request was refused that brought the KV of a prefill engine: that one need not keep it. */
void job_release_offer(Serve *serve, const KvAsk *kv);

/* write.c */
void write_head(Job *job);                       /* job->head */
void write_reply(const Job *job, Buf *out);      /* the whole object */
void write_roles(Job *job);                      /* these append events to job->out */
void write_chunk(Choice *choice, Str text, const EngineEvent *event, bool first);
void write_stream_end(Job *job);
void write_stream_error(Job *job, const Problem *problem);
void write_stages(const Job *job, Buf *out);     /* the header Baton-Stages */
const char *job_degraded(const Job *job);        /* the header Baton-Degraded; "" */

#endif
