// SPDX-License-Identifier: Apache-2.0
#include "route.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "router.h"

typedef struct Command {
    RouterConf router;
    const char *access_log, *log_level, *tls_cert, *tls_key;
} Command;

#define FIELD(name) offsetof(Command, name)
#define MOST_MS 86400000.0

static const Flag flags[] = {
    {"host", FLAG_STR, FIELD(router.host), "127.0.0.1", "HOST", "the address to listen on"},
    {"port", FLAG_INT, FIELD(router.port), "8080", "PORT", "the TCP port to listen on, 0 for any",
     0, 65535},
    {"objects", FLAG_STR, FIELD(router.objects), NULL, "DIR",
     "a folder of ModelRoutes, ModelServers and Pods, read again when it changes"},
    {"model", FLAG_STR, FIELD(router.hand.model), NULL, "NAME",
     "the model that the engines named by the next flags serve"},
    {"prefill", FLAG_LIST, FIELD(router.hand.prefill), NULL, "URL",
     "a prefill engine; may be repeated"},
    {"decode", FLAG_LIST, FIELD(router.hand.decode), NULL, "URL",
     "a decode engine; may be repeated"},
    {"engine", FLAG_LIST, FIELD(router.hand.engine), NULL, "URL",
     "an engine that does both; may be repeated"},
    {"connector", FLAG_STR, FIELD(router.hand.connector), "nixl", "NAME",
     "how KV gets from prefill to decode: nixl, mooncake, lmcache or http"},
    {"strict", FLAG_BOOL, FIELD(router.strict), "false", NULL,
     "whether a degraded answer is an error instead"},
    {"access-log", FLAG_STR, FIELD(access_log), "text", "FORMAT",
     "one line a request on stdout: json, text or off"},
    {"log-level", FLAG_STR, FIELD(log_level), "info", "LEVEL",
     "debug, info, warning, error or critical"},
    {"connect-timeout-ms", FLAG_INT, FIELD(router.connect_ms), "5000", "MS",
     "how long connecting to an engine may take, 0 for any time", 0, MOST_MS},
    {"prefill-timeout-ms", FLAG_INT, FIELD(router.prefill_ms), "300000", "MS",
     "how long a prefill engine may take to answer, 0 for any time", 0, MOST_MS},
    {"decode-first-byte-timeout-ms", FLAG_INT, FIELD(router.first_byte_ms), "600000", "MS",
     "how long a decode engine may take to begin its answer, 0 for any time", 0, MOST_MS},
    {"idle-timeout-ms", FLAG_INT, FIELD(router.idle_ms), "120000", "MS",
     "how long an engine may be silent in the middle of its answer, 0 for any time", 0, MOST_MS},
    {"tls-cert", FLAG_STR, FIELD(tls_cert)},
    {"tls-key", FLAG_STR, FIELD(tls_key)},
    {"enable-webhook", FLAG_NO_EFFECT_BOOL},
    {"webhook-port", FLAG_NO_EFFECT},
    {"webhook-tls-cert-file", FLAG_NO_EFFECT},
    {"webhook-tls-private-key-file", FLAG_NO_EFFECT},
    {"cert-secret-name", FLAG_NO_EFFECT},
    {"webhook-service-name", FLAG_NO_EFFECT},
    {"enable-gateway-api", FLAG_NO_EFFECT_BOOL},
    {"enable-gateway-api-inference-extension", FLAG_NO_EFFECT_BOOL},
    {"debug-port", FLAG_NO_EFFECT},
    {"metrics-port", FLAG_NO_EFFECT},
    {"expose-metrics-on-router-port", FLAG_NO_EFFECT_BOOL},
    {"kube-api-qps", FLAG_NO_EFFECT},
    {"kube-api-burst", FLAG_NO_EFFECT},
    {"v", FLAG_NO_EFFECT, .letter = "v"},
};

static const char usage[] =
    "Usage: baton router --objects DIR | --model NAME --prefill URL --decode URL [flags]\n"
    "\n"
    "Routes OpenAI requests to pairs of prefill and decode engines.\n"
    "\n";

static int complain(const Err *err, int status) {
    fprintf(stderr, "baton router: %s\n", err->message);
    if (*err->hint) fprintf(stderr, "hint: %s\n", err->hint);
    return status;
}

static bool log_format(const char *name, RouteLogFormat *format, Err *err) {
    static const char *const names[] = {
        [ROUTE_LOG_TEXT] = "text", [ROUTE_LOG_JSON] = "json", [ROUTE_LOG_OFF] = "off"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(name, names[i])) return *format = (RouteLogFormat)i, true;
    err_set(err, ERR_INVALID, "--access-log cannot be '%s'", name);
    return err_hint(err, "--access-log takes json, text or off.");
}

/* What the table of flags cannot check. */
static bool check(Command *command, const FlagsResult *result, Err *err) {
    LogLevel level;
    if (result->positional.count) {
        err_set(err, ERR_INVALID, "'%s' is no flag", result->positional.at[0]);
        return err_hint(err, "baton router takes flags only; --help lists them.");
    }
    if (!log_level_from(command->log_level, &level)) {
        err_set(err, ERR_INVALID, "--log-level cannot be '%s'", command->log_level);
        return err_hint(err, "--log-level takes debug, info, warning, error or critical.");
    }
    if (command->tls_cert || command->tls_key) {
        err_set(err, ERR_UNSUPPORTED, "--tls-cert and --tls-key are not supported yet");
        return err_hint(err, "Leave them out, and end TLS in front of the router.");
    }
    if (!command->router.objects && !route_hand_given(&command->router.hand)) {
        err_set(err, ERR_INVALID, "there is nothing to route to");
        return err_hint(err, "Give --objects DIR, or --model NAME --prefill URL --decode URL.");
    }
    log_set_level(level);
    return log_format(command->access_log, &command->router.access_log, err);
}

static void tell_no_effect(const FlagList *flags_given) {
    auto_buf Buf names = {0};
    for (size_t i = 0; i < flags_given->count; i++)
        buf_printf(&names, "%s--%s", i ? ", " : "", flags_given->at[i]);
    if (names.length) log_warn("route: without effect here: %s", names.at);
}

typedef struct Run { Loop *loop; Router *router; int signals, status; } Run;

static void on_drained(void *user) {
    Run *run = user;
    loop_stop(run->loop);
}

static void on_signal(void *user) {
    Run *run = user;
    if (run->signals++ > 0) {
        log_warn("route: a second signal: %zu requests are cut off", run->router->exchange_count);
        run->status = 1;
        loop_stop(run->loop);
        return;
    }
    log_info("route: shutting down, %zu requests are under way", run->router->exchange_count);
    router_drain(run->router, on_drained, run);
}

/* Wrong use if the flags name what cannot be routed to, a failure if the world does not let us. */
static int open_status(const Err *err) {
    return err->code == ERR_INVALID || err->code == ERR_UNSUPPORTED ? 2 : 1;
}

static int run_router(const RouterConf *conf) {
    Err err = {0};
    Run run = {.loop = loop_new()};
    run.router = router_open(run.loop, conf, &err);
    if (!run.router) {
        loop_free(run.loop);
        return complain(&err, conf->objects ? 1 : open_status(&err));
    }
    Signal *term = signal_watch(run.loop, SIGTERM, on_signal, &run);
    Signal *interrupt = signal_watch(run.loop, SIGINT, on_signal, &run);
    log_info("route: listening on http://%s:%d%s", conf->host, router_port(run.router),
             conf->strict ? ", strict" : "");
    loop_run(run.loop);
    signal_close(term);
    signal_close(interrupt);
    router_close(run.router);
    loop_free(run.loop);
    return run.status;
}

int router_command(int argc, char **argv) {
    Command command = {.router.log_fd = STDOUT_FILENO};
    FlagsResult result;
    Arena arena = {0};
    Err err = {0};
    int status = 2;
    child_follow_parent();
    if (!flags_parse(flags, COUNT_OF(flags), &command, argc, argv, &result, &arena, &err)) {
        complain(&err, 2);
    } else if (result.help) {
        auto_buf Buf help = {0};
        flags_help(flags, COUNT_OF(flags), &help);
        printf("%s%s", usage, help.at);
        status = 0;
    } else if (!check(&command, &result, &err)) {
        complain(&err, 2);
    } else {
        tell_no_effect(&result.no_effect);
        status = run_router(&command.router);
    }
    arena_done(&arena);
    return status;
}
