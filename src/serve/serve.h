// SPDX-License-Identifier: Apache-2.0
/* serve.h - puts the face of `vllm serve` on the engine: flags, OpenAI endpoints, metrics.
 *
 * Two threads: the loop that owns sockets, tokenising and detokenising (this layer), and the engine's worker.
 * Every reply says in the header Baton-Stages where its prompt tokens were computed and what that took,
 *     computed=<n>; cached=<n>; pulled=<n>; bytes=<n>; rail=<shm|tcp|none>; queue_us=<n>; prefill_us=<n>;
 *     transfer_us=<n>; first_token_us=<n>
 * and, when a prompt was computed here although a prefill engine had it, in Baton-Degraded why. */
#ifndef BATON_SERVE_H
#define BATON_SERVE_H

#include "engine/engine.h"

/* `baton engine serve MODEL ...`: runs until SIGTERM or SIGINT, or returns at once with --help or a wrong flag.
 * Prints errors itself.  Returns the exit status: 0, 1 for a failure, 2 for wrong use. */
int serve_command(int argc, char **argv);

#endif
