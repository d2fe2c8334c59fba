// SPDX-License-Identifier: Apache-2.0
/* serve.h - puts the face of `vllm serve` on the engine: flags, OpenAI endpoints, metrics.
 *
 * Two threads: the loop that owns sockets, tokenising and detokenising (this layer), and the
 * engine's worker.  Every reply of a model says in the header Baton-Stages where its prompt tokens
 * were computed and what that took,
 *     computed=<n>; cached=<n>; pulled=<n>; bytes=<n>; rail=<shm|tcp|none>; queue_us=<n>;
 *     prefill_us=<n>; transfer_us=<n>; first_token_us=<n>
 * (of all answers to a request together), and in Baton-Degraded what was done in a worse way than
 * was asked for, and why. */
#ifndef BATON_SERVE_H
#define BATON_SERVE_H

#include "engine/engine.h"

/* `baton engine serve MODEL ...`: runs until SIGTERM or SIGINT, or returns at once with --help or a
 * wrong flag.  Prints errors itself.  The exit status: 0, 1 for a failure, 2 for wrong use. */
int serve_command(int argc, char **argv);

/* The models that have a name here: for `serve`, and for who fetches them. */
typedef struct ServeModel { const char *name, *file, *about, *fetch; } ServeModel;
extern const ServeModel serve_models[];          /* ends with a name of NULL */
const ServeModel *serve_model(const char *name); /* NULL: not in the catalogue */
void serve_model_path(const ServeModel *model, char path[4096]); /* where its file belongs */

/* What stands for MODEL on a command line, as a file: a path, a folder that holds one .gguf file,
 * or a name of the catalogue.  The error says what to type. */
bool serve_find_model(const char *name, char path[4096], Err *err) MUST_CHECK;

#endif
