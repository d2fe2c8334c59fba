// SPDX-License-Identifier: Apache-2.0
/* The command table.  A command is one row here and one file beside; help is printed from the rows.
 */
#include <signal.h>
#include <stdio.h>

#include "commands.h"

static const Command commands[] = {
    {"run", NULL, run_command, "start prefill, decode and router for a model, and talk to it"},
    {"engine", "serve", serve_command, "serve a model over HTTP, with the flags of vllm serve"},
    {"router", NULL, router_command, "route requests over pairs of prefill and decode engines"},
    {"version", NULL, version_command, "print the version"},
};

static void print_help(FILE *to) {
    fputs("Baton serves language models with prefill and decode separated.\n\nUsage: baton COMMAND "
          "[ARGUMENTS]\n\n",
          to);
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        char name[32];
        snprintf(name, sizeof name, "%s%s%s", commands[i].name, commands[i].part ? " " : "",
                 commands[i].part ? commands[i].part : "");
        fprintf(to, "  %-14s %s\n", name, commands[i].summary);
    }
    fputs("\n`baton COMMAND --help` lists a command's flags.\n", to);
}

int version_command(int argc, char **argv) {
    (void)argc;
    (void)argv;
    puts("baton " BATON_VERSION);
    return 0;
}

static int unknown_command(const char *name) {
    const char *names[COUNT_OF(commands)];
    for (size_t i = 0; i < COUNT_OF(commands); i++) names[i] = commands[i].name;
    const char *nearest = str_nearest(name, names, COUNT_OF(commands));
    fprintf(stderr, "baton: unknown command '%s'\n", name);
    fprintf(stderr, "hint: %s%s%sType: baton help, for all commands.\n",
            nearest ? "Did you mean `baton " : "", nearest ? nearest : "", nearest ? "`?  " : "");
    return 2;
}

static bool is_help(const char *word) {
    return !strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h");
}

static int no_such_part(const Command *command, const char *part) {
    if (part && is_help(part)) {
        print_help(stdout);
        return 0;
    }
    if (part) fprintf(stderr, "baton: unknown command '%s %s'\n", command->name, part);
    else fprintf(stderr, "baton: '%s' is only half a command\n", command->name);
    fprintf(stderr, "hint: Type: baton %s %s, or baton help for all commands.\n", command->name,
            command->part);
    return 2;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* a peer that leaves is an error of that connection alone */
    if (!fault_arm_from_env()) {
        fputs("baton: BATON_FAULT cannot be understood: use NAME=N[,NAME=N+]\n", stderr);
        return 2;
    }
    const char *called = strrchr(argv[0], '/');
    called = called ? called + 1 : argv[0];
    if (!strcmp(called, "vllm") && argc > 1 && !strcmp(argv[1], "serve"))
        return serve_command(argc - 2, argv + 2);
    if (argc < 2 || is_help(argv[1])) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (!strcmp(argv[1], "--version")) return version_command(0, NULL);
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        const Command *c = &commands[i];
        if (strcmp(argv[1], c->name) != 0) continue;
        if (!c->part) return c->run(argc - 2, argv + 2);
        if (argc > 2 && !strcmp(argv[2], c->part)) return c->run(argc - 3, argv + 3);
        return no_such_part(c, argc > 2 ? argv[2] : NULL);
    }
    return unknown_command(argv[1]);
}
