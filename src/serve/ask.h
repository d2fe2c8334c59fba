// SPDX-License-Identifier: Apache-2.0
/* ask.h - a request as it was understood: one table of parameters, read from JSON, checked.
 *
 *     body --ask_read()--> Ask --prompt.c--> tokens
 *                           \---sampling.c--> Sampling, stop strings
 *
 * Whatever is wrong becomes a Problem: the status and the error object of the reply.
 * Owner: an Ask owns its JSON tree; all else in it points there. */
#ifndef BATON_SERVE_ASK_H
#define BATON_SERVE_ASK_H

#include "conf.h"

/* Problem - why a request cannot be answered, as the reply will say it. */
typedef struct Problem {
    int status;       /* 0: none */
    const char *type; /* of the error object: "BadRequestError" */
    char param[128];  /* "": null */
    Buf message;
} Problem;

/* All return false.  The first is a 400 whose text is as given; the second adds "(parameter=param,
 * value=value)", without the value if that is NULL. */
bool problem_set(Problem *problem, const char *param, const char *format, ...) PRINTF(3, 4);
bool problem_value(Problem *problem, const char *param, const char *value, const char *format, ...)
    PRINTF(4, 5);
bool problem_from_err(Problem *problem, const Err *err); /* message and hint; status by its code */
void problem_body(const Problem *problem, Buf *out);     /* {"error":{...}} */
void problem_done(Problem *problem);

/* Issues - what does not have the right type, all of it, each with its place. */
typedef struct Issues {
    Buf lines;
    size_t count;
    char first[128]; /* the place of the first one: "body.max_tokens" */
} Issues;
void issue_add(Issues *issues, const char *type, const char *place, const char *text,
               const json_t *input, const char *context);
bool issues_to_problem(Issues *issues, Problem *problem); /* true if there were none */
void python_repr(Buf *out, Str text); /* as Python quotes a string */

typedef enum AskKind {
    ASK_CHAT = 1,
    ASK_COMPLETION = 2,
    ASK_TOKENIZE = 4,
    ASK_DETOKENIZE = 8
} AskKind;

typedef struct AskInt { bool given; int64_t value; } AskInt;
typedef struct AskNumber { bool given; double value; } AskNumber;

typedef struct Ask {
    AskKind kind;
    json_t *body;
    Str model, request_id, cache_salt, chat_template, truncation_side, reasoning_effort;
    const json_t *messages, *prompt, *tokens, *tools, *tool_choice, *documents, *template_kwargs;
    const json_t *kv_params, *logit_bias, *stop, *stop_token_ids, *response_format;
    AskInt max_tokens, max_completion_tokens, n, seed, top_k, min_tokens, priority, truncate;
    AskInt logprobs, top_logprobs, prompt_logprobs; /* logprobs: of completions */
    AskNumber temperature, top_p, min_p;
    AskNumber presence_penalty, frequency_penalty, repetition_penalty;
    AskInt stream, chat_logprobs, echo, include_usage, continuous_usage; /* booleans */
    AskInt return_token_ids, ignore_eos, include_stop, skip_special, add_generation_prompt;
    AskInt continue_final, add_special, tokens_as_ids, return_prompt_text, return_token_strs;
} Ask;

static inline bool ask_is(AskInt field, bool fallback) {
    return field.given ? field.value : fallback;
}

/* On false the problem is set; ask_done() in any case. */
bool ask_read(Ask *ask, AskKind kind, Str body, Problem *problem) MUST_CHECK;
void ask_done(Ask *ask);
bool ask_check(const Ask *ask, Problem *problem) MUST_CHECK; /* what no single field tells */
bool ask_is_list(const Ask *ask);         /* of a completion: its prompt is a list of prompts */
size_t ask_prompt_count(const Ask *ask); /* before they are read */

/* messages.c */
void messages_check(const json_t *messages, Issues *issues);
/* For a template: text parts joined by line ends, or kept (`parts`), arguments of tool calls as
 * trees. `model` is for the message about images. */
json_t *messages_for_template(const json_t *messages, bool parts, const char *model,
                              Problem *problem) MUST_CHECK;

#endif
