// SPDX-License-Identifier: Apache-2.0
/* `baton run MODEL`: a prefill engine, a decode engine and a router on this machine, and a talk
 * with the model.
 *
 *     STARTING ──all ready──▶ ASKING ◀──▶ LISTENING (a terminal: the next question)
 *         └──a process ends──▶ STOPPING ◀──┘ end of input, Ctrl-C */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "commands.h"
#include "screen.h"

#include "text/text.h"

#define QUESTION "What is the capital of France?" /* that the smallest model answers well */
#define LINE_MAX_BYTES (64 * KIB)
#define READY_WITHIN_MS 120000
/* A short lease: whoever ends us does not leave a prefill engine waiting for a decode engine that
 * is gone. */
#define TRANSFER(role)                                                                            \
    "{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"" role                                   \
    "\",\"kv_connector_extra_config\":{\"kv_lease_duration\":5}}"

typedef struct RunConf {
    const char *prompt, *system;
    bool single, help;
    int64_t port, threads, max_tokens;
    double temperature;
} RunConf;

static const Flag run_flags[] = {
    {"prompt", FLAG_STR, offsetof(RunConf, prompt), NULL, "TEXT",
     "ask this, print the answer and exit", 0, 0, NULL},
    {"single", FLAG_BOOL, offsetof(RunConf, single), NULL, NULL,
     "one engine for prompt and answer, to compare", 0, 0, NULL},
    {"system", FLAG_STR, offsetof(RunConf, system), NULL, "TEXT",
     "what the model is told before the first question", 0, 0, NULL},
    {"port", FLAG_INT, offsetof(RunConf, port), "0", "PORT",
     "the router's port; 0 takes a free one", 0, 65535, NULL},
    {"threads", FLAG_INT, offsetof(RunConf, threads), "0", "N",
     "threads of each engine; 0: one a core", 0, 64, NULL},
    {"max-tokens", FLAG_INT, offsetof(RunConf, max_tokens), "512", "N", "the longest answer", 1,
     1e6, NULL},
    {"temperature", FLAG_NUMBER, offsetof(RunConf, temperature), "0", "X",
     "0 answers the same every time", 0, 2, NULL},
};

typedef struct Run {
    RunConf conf;
    const char *model;
    char model_path[4096];
    Loop *loop;
    HttpClient *client;
    Fleet fleet;
    FleetMember *router;
    Screen screen;
    Timer *spinner, *patience;
    Poll *input;
    Signal *signals[2];
    bool interactive, asked, stopping, streaming;
    int status;
    char threads[24], port[8][24];
    json_t *messages;
    Buf line;                 /* typed and not asked yet */
    Buf answer, body, refusal; /* of the request under way */
    SseReader events;
    HttpCall *call;
    Trace trace;
    bool traced;
    char degraded[512];
    int64_t asked_us, first_us, last_us;
    uint64_t tokens;
    Err failure;              /* of the answer under way */
} Run;

static void stop(Run *r, int status) {
    if (r->stopping) return;
    r->stopping = true;
    r->status = status;
    poll_close(r->input);
    r->input = NULL;
    timer_close(r->spinner);
    r->spinner = NULL;
    if (r->call) http_call_cancel(r->call);
    r->call = NULL;
    fleet_stop(&r->fleet);
}

static void complain(const Err *err) {
    fprintf(stderr, "baton run: %s\n", err->message);
    if (*err->hint) fprintf(stderr, "hint: %s\n", err->hint);
}

/* ---- one question and its answer ---- */

static void listen_for_line(void) {
    fputs(">>> ", stdout);
    fflush(stdout);
}

static void on_answer_end(Run *r) {
    if (r->failure.code) {
        putchar('\n');
        complain(&r->failure);
        json_array_remove(r->messages,
                          json_array_size(r->messages) - 1); /* the question stays unanswered */
    } else {
        putchar('\n');
        json_array_append_new(r->messages,
                              json_pack("{s:s,s:s%}", "role", "assistant", "content",
                                        r->answer.at ? r->answer.at : "", r->answer.length));
        if (r->traced)
            screen_report(&r->screen, &r->trace, r->first_us - r->asked_us,
                          r->last_us - r->asked_us, r->tokens);
        if (*r->degraded) screen_note(&r->screen, "degraded", r->degraded);
    }
    if (!r->interactive) stop(r, r->failure.code ? 1 : 0);
    else listen_for_line();
}

static void on_event(Str event, Str data, void *user) {
    (void)event;
    Run *r = user;
    Err err = {0};
    if (str_eq(data, "[DONE]")) return;
    auto_json json_t *chunk = json_parse(data, &err);
    const json_t *error = json_object_get(chunk, "error");
    if (!chunk || error) {
        const char *message = json_string_value(json_object_get(error, "message"));
        err_set(&r->failure, ERR_UNAVAILABLE, "%s", message ? message : err.message);
        return;
    }
    const json_t *usage = json_object_get(chunk, "usage");
    if (json_is_object(usage))
        r->tokens = (uint64_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    const json_t *delta =
        json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta");
    const json_t *content = json_object_get(delta, "content");
    size_t length = json_string_length(content);
    if (!length) return;
    r->last_us = clock_mono_us();
    if (!r->first_us) r->first_us = r->last_us;
    buf_append(&r->answer, json_string_value(content), length);
    fwrite(json_string_value(content), 1, length, stdout);
    fflush(stdout);
}

static void on_comment(Str text, void *user) {
    Run *r = user;
    Str trimmed = str_trim(text), name;
    if (str_starts(trimmed, "Baton-Trace:") && str_cut(&trimmed, ':', &name))
        r->traced |= trace_parse(trimmed, &r->trace);
}

static void on_head(HttpCall *call, int status, HttpHeaders headers, void *user) {
    (void)call;
    Run *r = user;
    r->streaming = status == 200;
    Str trace = http_header(headers, "Baton-Trace"),
        degraded = http_header(headers, "Baton-Degraded");
    if (trace.at) r->traced = trace_parse(trace, &r->trace);
    if (degraded.at) snprintf(r->degraded, sizeof r->degraded, STR_FMT, STR_ARG(degraded));
}

static void on_data(HttpCall *call, Str bytes, void *user) {
    (void)call;
    Run *r = user;
    if (!r->streaming) buf_append(&r->refusal, bytes.at, bytes.length);
    else if (!sse_feed(&r->events, bytes))
        err_set(&r->failure, ERR_TOO_LARGE, "an event is too long");
}

static void on_done(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    (void)call;
    (void)body;
    Run *r = user;
    r->call = NULL;
    if (failure) {
        r->failure = *failure;
    } else if (!r->streaming) {
        Err err;
        auto_json json_t *reply = json_parse((Str){r->refusal.at, r->refusal.length}, &err);
        const char *message =
            json_string_value(json_object_get(json_object_get(reply, "error"), "message"));
        err_set(&r->failure, ERR_UNAVAILABLE, "the router answered %d: %s", status,
                message ? message : "no reason given");
    }
    sse_done(&r->events);
    on_answer_end(r);
}

static void ask_model(Run *r, const char *question) {
    buf_clear(&r->answer);
    buf_clear(&r->refusal);
    r->failure = (Err){0};
    r->degraded[0] = 0;
    r->traced = false;
    r->first_us = r->tokens = 0;
    sse_init(&r->events, MIB);
    r->events.on_event = on_event;
    r->events.on_comment = on_comment;
    r->events.user = r;
    json_array_append_new(r->messages, json_pack("{s:s,s:s}", "role", "user", "content", question));
    auto_json json_t *body =
        json_pack("{s:s,s:O,s:b,s:{s:b},s:i,s:f}", "model", r->model, "messages", r->messages,
                  "stream", 1, "stream_options", "include_usage", 1, "max_tokens",
                  (int)r->conf.max_tokens, "temperature", r->conf.temperature);
    buf_clear(&r->body);
    buf_json_tree(&r->body, body);
    const HttpHeader headers[] = {{STR("Content-Type"), STR("application/json")},
                                  {STR("Baton-Trace"), STR("full")}};
    Str bytes = {r->body.at, r->body.length};
    r->asked_us = clock_mono_us();
    r->call = http_call(r->client, &(HttpCallConf){.host = "127.0.0.1",
                                                   .port = r->router->port,
                                                   .method = STR("POST"),
                                                   .target = STR("/v1/chat/completions"),
                                                   .headers = {headers, COUNT_OF(headers)},
                                                   .body = &bytes,
                                                   .body_parts = 1,
                                                   .head = on_head,
                                                   .data = on_data,
                                                   .done = on_done,
                                                   .user = r});
}

/* ---- the person ---- */

static void on_input(void *user) {
    Run *r = user;
    char chunk[4096];
    ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
        putchar('\n');
        stop(r, 0);
        return;
    }
    buf_append(&r->line, chunk, (size_t)n);
    if (r->call || r->line.overflow) return; /* typed ahead: looked at when the answer has ended */
    char *end = memchr(r->line.at, '\n', r->line.length);
    if (!end) return;
    *end = 0;
    char *question = mem_dup_str(r->line.at);
    buf_drop_front(&r->line, (size_t)(end - r->line.at) + 1);
    Str text = str_trim(str_of(question));
    if (str_eq(text, "/bye") || str_eq(text, "/exit") || str_eq(text, "/quit")) stop(r, 0);
    else if (text.length) ask_model(r, question);
    else listen_for_line();
    free(question);
}

static void on_signal(void *user) {
    Run *r = user;
    if (r->screen.terminal) putchar('\n');
    stop(r, 130);
}

/* ---- the processes ---- */

static void on_ended(Fleet *fleet, void *user) {
    (void)fleet;
    loop_stop(((Run *)user)->loop);
}

static void on_changed(Fleet *fleet, FleetMember *member, void *user) {
    Run *r = user;
    screen_progress(&r->screen, fleet, member);
    if (member->state == MEMBER_ENDED) {
        char *log = fleet_log_end(member);
        fprintf(stderr, "baton run: the %s process has ended; the last lines it wrote:\n%s",
                member->name, log);
        free(log);
        stop(r, 1);
    } else if (fleet_ready(fleet) && !r->asked) {
        r->asked = true;
        timer_close(r->spinner);
        timer_close(r->patience);
        r->spinner = r->patience = NULL;
        screen_ready(&r->screen, fleet, r->router->url, r->model);
        const char *question = r->conf.prompt ? r->conf.prompt : QUESTION;
        screen_question(&r->screen, question);
        if (r->interactive) r->input = poll_open(r->loop, STDIN_FILENO, on_input, r);
        ask_model(r, question);
    }
}

static void on_spin(void *user) {
    Run *r = user;
    if (r->screen.terminal) screen_progress(&r->screen, &r->fleet, NULL);
}

static void on_too_slow(void *user) {
    Run *r = user;
    fprintf(stderr, "baton run: not all processes were ready within %d s\n",
            READY_WITHIN_MS / 1000);
    for (size_t i = 0; i < r->fleet.count; i++) {
        if (r->fleet.members[i].state != MEMBER_STARTING) continue;
        char *log = fleet_log_end(&r->fleet.members[i]);
        fprintf(stderr, "the last lines of %s:\n%s", r->fleet.members[i].name, log);
        free(log);
    }
    stop(r, 1);
}

static FleetMember *add_engine(Run *r, const char *name, const char *transfer, Err *err) {
    FleetMember *m = fleet_add(&r->fleet, name, "/health", 0, err);
    if (!m) return NULL;
    char *port = r->port[r->fleet.count - 1];
    snprintf(port, sizeof r->port[0], "%d", m->port);
    fleet_argue(m, (const char *const[]){"engine", "serve", r->model_path, "--served-model-name",
                                         r->model, "--host", "127.0.0.1", "--port", port, NULL});
    if (transfer) fleet_argue(m, (const char *const[]){"--kv-transfer-config", transfer, NULL});
    if (r->conf.threads) fleet_argue(m, (const char *const[]){"--threads", r->threads, NULL});
    return m;
}

static bool add_all(Run *r, Err *err) {
    FleetMember *first, *second = NULL;
    if (r->conf.single) {
        if (!(first = add_engine(r, "engine", NULL, err))) return false;
    } else {
        if (!(first = add_engine(r, "prefill", TRANSFER("kv_producer"), err)) ||
            !(second = add_engine(r, "decode", TRANSFER("kv_consumer"), err)))
            return false;
    }
    if (!(r->router = fleet_add(&r->fleet, "router", "/readyz", (int)r->conf.port, err)))
        return false;
    char *port = r->port[r->fleet.count - 1];
    snprintf(port, sizeof r->port[0], "%d", r->router->port);
    fleet_argue(r->router, (const char *const[]){"router", "--host", "127.0.0.1", "--port", port,
                                                 "--model", r->model, NULL});
    if (second)
        fleet_argue(r->router, (const char *const[]){"--prefill", first->url, "--decode",
                                                     second->url, "--connector", "nixl", NULL});
    else
        fleet_argue(r->router, (const char *const[]){"--engine", first->url, NULL});
    return true;
}

static bool run_all(Run *r, Err *err) {
    if (!fleet_init(&r->fleet, r->loop, r->client, err)) return false;
    r->fleet.changed = on_changed;
    r->fleet.ended = on_ended;
    r->fleet.user = r;
    if (!add_all(r, err)) return false;
    screen_init(&r->screen);
    r->interactive = !r->conf.prompt && isatty(STDIN_FILENO) && r->screen.terminal;
    r->signals[0] = signal_watch(r->loop, SIGINT, on_signal, r);
    r->signals[1] = signal_watch(r->loop, SIGTERM, on_signal, r);
    r->spinner = timer_start(r->loop, 0, 80, on_spin, r);
    r->patience = timer_start(r->loop, READY_WITHIN_MS, 0, on_too_slow, r);
    bool ok = fleet_start(&r->fleet, err);
    if (!ok) stop(r, 1);
    loop_run(r->loop);
    return ok;
}

static void print_help(void) {
    auto_buf Buf out = {0};
    buf_str(&out, "Usage: baton run MODEL [flags]\n\n"
                  "Starts a prefill engine, a decode engine and a router on this machine, asks a "
                  "question, streams the\n"
                  "answer, and shows where each prompt token was computed and what moved.  On a "
                  "terminal it goes on as a\n"
                  "chat; /bye, Ctrl-D or Ctrl-C ends it and all processes.\n\n"
                  "MODEL is a .gguf file or a name: smollm2\n\n");
    flags_help(run_flags, COUNT_OF(run_flags), &out);
    fputs(out.at, stdout);
}

int run_command(int argc, char **argv) {
    Run run = {.line = {.limit = LINE_MAX_BYTES},
               .answer = {.limit = 16 * MIB},
               .refusal = {.limit = MIB}};
    FlagsResult given;
    Arena arena = {0};
    Err err = {0};
    bool ok =
        flags_parse(run_flags, COUNT_OF(run_flags), &run.conf, argc, argv, &given, &arena, &err);
    if (ok && given.help) {
        print_help();
        return 0;
    }
    if (ok && given.positional.count != 1) {
        ok = err_set(&err, ERR_INVALID,
                     given.positional.count ? "one MODEL at a time" : "no MODEL was named");
        err_hint(&err, "Type: baton run smollm2");
    }
    if (!ok) {
        complain(&err);
        return 2;
    }
    run.model = given.positional.at[0];
    if (!serve_find_model(run.model, run.model_path, &err)) {
        complain(&err);
        return 1;
    }
    snprintf(run.threads, sizeof run.threads, "%lld", (long long)run.conf.threads);
    run.messages = json_array();
    if (run.conf.system)
        json_array_append_new(run.messages,
                              json_pack("{s:s,s:s}", "role", "system", "content", run.conf.system));
    run.loop = loop_new();
    run.client = http_client_new(run.loop);
    if (!run_all(&run, &err)) {
        complain(&err);
        run.status = 1;
    }
    fleet_done(&run.fleet);
    for (size_t i = 0; i < COUNT_OF(run.signals); i++) signal_close(run.signals[i]);
    timer_close(run.patience);
    http_client_free(run.client);
    loop_free(run.loop);
    json_decref(run.messages);
    buf_done(&run.line);
    buf_done(&run.answer);
    buf_done(&run.body);
    buf_done(&run.refusal);
    arena_done(&arena);
    return run.status;
}
