// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>
#include "route.h"
#include <cmocka.h>

/* What router_command() prints on stdout and stderr, and its status; free() the text.  The line is
 * split at blanks. */
static char *output_of(const char *line, int *status) {
    char *argv[16];
    int argc = 0;
    auto_free char *words = mem_dup_str(line);
    for (char *at = words, *word; (word = strsep(&at, " "));)
        if (*word) argv[argc++] = word;
    int file = memfd_create("output", MFD_CLOEXEC), out = dup(STDOUT_FILENO),
        err = dup(STDERR_FILENO);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    *status = router_command(argc, argv);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    off_t length = lseek(file, 0, SEEK_END);
    char *text = mem_new((size_t)length + 1);
    assert_int_equal(pread(file, text, (size_t)length, 0), length);
    close(file);
    close(out);
    close(err);
    return text;
}

static void wrong_use_is_refused_with_a_hint(void **state) {
    (void)state;
    const struct { const char *line; int status; const char *want;
    } cases[] = {
        {"", 2,
         "baton router: there is nothing to route to\n"
         "hint: Give --objects DIR, or --model NAME --prefill URL --decode URL.\n"},
        {"--objcts x", 2,
         "baton router: unknown flag --objcts\n"
         "hint: Did you mean --objects?  --help lists all flags.\n"},
        {"examples", 2,
         "baton router: 'examples' is no flag\n"
         "hint: baton router takes flags only; --help lists them.\n"},
        {"--model m --engine a:1 --access-log xml", 2,
         "baton router: --access-log cannot be 'xml'\nhint: --access-log takes json, text or "
         "off.\n"},
        {"--model m --engine a:1 --log-level loud", 2,
         "baton router: --log-level cannot be 'loud'\n"
         "hint: --log-level takes debug, info, warning, error or critical.\n"},
        {"--model m --engine a:1 --port 70000", 2,
         "baton router: --port cannot be '70000': expected a whole number from 0 to 65535\n"},
        {"--model m --engine a:1 --tls-cert x", 2,
         "baton router: --tls-cert and --tls-key are not supported yet\n"
         "hint: Leave them out, and end TLS in front of the router.\n"},
        {"--engine a:1", 2,
         "baton router: --model is missing\n"
         "hint: Name the model that the given engines serve: --model smollm2.\n"},
        {"--model m --prefill a:1 --decode a:2 --connector=sglang", 2,
         "baton router: ModelServer default/m: the kv connector sglang is not supported yet\n"
         "hint: Set spec.kvConnector.type to nixl, mooncake, lmcache or http.\n"},
        {"--objects /nowhere", 1,
         "baton router: could not watch '/nowhere': no such file or directory\n"
         "hint: --objects takes a folder of manifests.\n"},
        {"--model m --engine a:1 --host 203.0.113.9", 1, "baton router: "},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int status;
        auto_free char *text = output_of(cases[i].line, &status);
        if (!strstr(text, cases[i].want)) fail_msg("'%s' is not in '%s'", cases[i].want, text);
        assert_int_equal(status, cases[i].status);
    }
}

static void help_lists_every_flag_that_has_an_effect(void **state) {
    (void)state;
    int status;
    auto_free char *text = output_of("--help", &status);
    static const char *const flags[] = {"--host HOST",
                                        "--port PORT",
                                        "--objects DIR",
                                        "--model NAME",
                                        "--prefill URL",
                                        "--decode URL",
                                        "--engine URL",
                                        "--connector NAME",
                                        "--strict",
                                        "--access-log FORMAT",
                                        "--log-level LEVEL",
                                        "--connect-timeout-ms MS",
                                        "--prefill-timeout-ms MS",
                                        "--decode-first-byte-timeout-ms MS",
                                        "--idle-timeout-ms MS"};
    assert_int_equal(status, 0);
    for (size_t i = 0; i < COUNT_OF(flags); i++)
        if (!strstr(text, flags[i])) fail_msg("no %s in\n%s", flags[i], text);
    assert_null(strstr(text, "--webhook-port"));
}

static void send_term(int number) {
    (void)number;
    kill(getpid(), SIGTERM);
}

/* Signals that come before the router listens for them are ignored; one of the next ends it. */
static void a_signal_ends_it_in_order(void **state) {
    (void)state;
    int status;
    const struct itimerval often = {{0, 200000}, {0, 200000}}, never = {{0, 0}, {0, 0}};
    signal(SIGTERM, SIG_IGN);
    signal(SIGALRM, send_term);
    setitimer(ITIMER_REAL, &often, NULL);
    auto_free char *text =
        output_of("--model m --engine 127.0.0.1:1 --port 0 --metrics-port 9090 -v 4", &status);
    setitimer(ITIMER_REAL, &never, NULL);
    static const char *const lines[] = {
        "route: without effect here: --metrics-port, --v\n",
        "route: table of 1 models: 1 ModelRoutes, 1 ModelServers, 1 Pods\n",
        "route: listening on http://127.0.0.1:",
        "route: shutting down, 0 requests are under way\n",
    };
    assert_int_equal(status, 0);
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        if (!strstr(text, lines[i])) fail_msg("no '%s' in\n%s", lines[i], text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_use_is_refused_with_a_hint),
        cmocka_unit_test(help_lists_every_flag_that_has_an_effect),
        cmocka_unit_test(a_signal_ends_it_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
