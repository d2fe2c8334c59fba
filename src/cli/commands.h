// SPDX-License-Identifier: Apache-2.0
/* commands.h - every command: its name, what it does in a line, and where it is.
 *
 * A command gets what stands behind its name, prints its own errors (message, then `hint:`) to
 * stderr, and returns the exit status: 0, 1 for a failure, 2 for wrong use. */
#ifndef BATON_CLI_COMMANDS_H
#define BATON_CLI_COMMANDS_H

#include "route/route.h"
#include "serve/serve.h"

typedef struct Command {
    const char *name, *part; /* part: the second word, or NULL */
    int (*run)(int argc, char **argv);
    const char *summary;
} Command;

int run_command(int argc, char **argv);
int version_command(int argc, char **argv);

#endif
