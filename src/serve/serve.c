// SPDX-License-Identifier: Apache-2.0
/* The command: from flags to a server, and to its end.
 *
 *     flags ─▶ port taken ─▶ model loaded ─▶ listening ──SIGTERM──▶ draining ──idle──▶ exit 0
 *     (no connection is accepted before the model is there)           \──again──▶ exit 1 */
#include "job.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- one server ---- */

static void note_free(void *message) {
    Note *note = message;
    free(note->json);
    free(note);
}

static void on_note(void *message, void *user) {
    Serve *serve = user;
    Note *note = message;
    if (note->request) serve_reply_ledger(serve, note);
    else if (serve->http) http_server_drain(serve->http, serve->drained, serve->loop);
    note_free(note);
}

void serve_open(Serve *serve, const ServeConf *conf, Loop *loop) {
    *serve = (Serve){.conf = conf, .loop = loop, .started_us = clock_wall_us()};
    serve_stats_init(&serve->stats);
    serve->events = mailbox_on(loop, job_on_event, serve);
    serve->notes = mailbox_on(loop, on_note, serve);
}

void serve_deliver(EngineEvent *event, void *user) {
    Serve *serve = user;
    mailbox_send(serve->events, event);
}

void serve_attach(Serve *serve, Engine *engine) {
    const Model *model = engine_model(engine);
    uint64_t print = model_fingerprint(model);
    serve->engine = engine;
    serve->tokenizer = model_tokenizer(model);
    serve->context = model_context(model);
    serve->vocab = tokenizer_vocab_size(serve->tokenizer);
    chat_set_tokens(&serve->chat, model_gguf(model), serve->tokenizer);
    snprintf(serve->fingerprint, sizeof serve->fingerprint, "baton-%s-%08x", BATON_VERSION,
             (unsigned)(print ^ print >> 32));
}

static void on_idle(void *user) { /* on the worker */
    Serve *serve = user;
    mailbox_send(serve->notes, mem_new(sizeof(Note)));
}

void serve_drain(Serve *serve, void (*drained)(void *user)) {
    serve->draining = true;
    serve->drained = drained;
    engine_drain(serve->engine, on_idle, serve);
}

void serve_done(Serve *serve) {
    mailbox_close(serve->events, free);
    mailbox_close(serve->notes, note_free);
    chat_done(&serve->chat);
}

/* ---- starting ---- */

typedef struct Run { /* of the command */
    ServeConf conf;
    Serve serve;
    Signal *terminate, *interrupt;
    Timer *limit;
    int status;
} Run;

static void complain(const Err *err) {
    fprintf(stderr, "baton engine serve: %s\n", err->message);
    if (err->hint[0]) fprintf(stderr, "hint: %s\n", err->hint);
}

/* What the model file tells before its weights are loaded: seconds later would be too late. */
static bool look_at_model(Run *run, Err *err) {
    ServeConf *conf = &run->conf;
    ModelShape shape;
    if (!serve_find_model(conf->model, conf->model_path, err)) return false;
    Gguf *gguf = gguf_open(conf->model_path, err);
    bool ok = gguf && shape_read(gguf, &shape, err);
    if (ok && conf->context > shape.context) {
        ok = err_set(err, ERR_INVALID,
                     "--max-model-len %zu is more than the %u tokens that the model "
                     "was made for",
                     conf->context, shape.context);
        err_hint(err, "Use --max-model-len %u, or leave it out.", shape.context);
        run->status = 2;
    }
    ok = ok && chat_parse(&run->serve.chat, conf, gguf, err);
    gguf_close(gguf);
    return ok;
}

static bool take_port(Run *run, Err *err) {
    const ServeConf *conf = &run->conf;
    HttpServerConf http = {
        .host = conf->host, .port = (int)conf->port, .name = "baton", .max_body = conf->max_body,
        .idle_ms = conf->idle_ms, .handle = serve_handle, .error_body = serve_error_body,
        .user = &run->serve,
    };
    run->serve.http = http_server_open(run->serve.loop, &http, err);
    return run->serve.http != NULL;
}

static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool load(Run *run, Err *err) {
    const ServeConf *conf = &run->conf;
    EngineConf engine = {
        .model = {.path = conf->model_path, .threads = (unsigned)conf->threads,
                  .context = conf->context},
        .name = serve_name(&run->serve),
        .pool_bytes = (size_t)conf->kv_bytes,
        .max_sequences = (size_t)conf->max_sequences,
        .max_batched_tokens = (size_t)conf->max_batched_tokens,
        .max_queued = (size_t)conf->max_queued,
        .block_tokens = (size_t)conf->block_tokens,
        .prefix_caching = conf->prefix_caching,
        .strict = conf->strict,
        .seed = (uint64_t)conf->seed,
        .role = conf->role,
        .engine_id = conf->engine_id[0] ? conf->engine_id : NULL,
        .kv_host = conf->kv_host,
        .kv_port = (int)conf->kv_port,
        .rail = conf->rail,
        .lease_us = conf->lease_us,
        .pull_us = conf->pull_us,
        .deliver = serve_deliver,
        .user = &run->serve,
    };
    if (!kernels_init(getenv("BATON_KERNELS"), err)) return false;
    Engine *opened = engine_open(&engine, err);
    if (opened) serve_attach(&run->serve, opened);
    return opened != NULL;
}

static void log_list(const char *what, const FlagList *list, const char *dashes) {
    auto_buf Buf names = {0};
    for (size_t i = 0; i < list->count; i++)
        buf_printf(&names, "%s%s%s", i ? ", " : "", dashes, list->at[i]);
    if (list->count) log_warn("serve: %s: %s", what, names.at);
}

static void log_configuration(const Run *run) {
    static const char *const roles[] = {"none", "kv_producer", "kv_consumer", "kv_both"};
    const ServeConf *conf = &run->conf;
    const Engine *engine = run->serve.engine;
    const EngineConf *in_effect = engine_conf(engine);
    const Model *model = engine_model(engine);
    const ModelShape *s = model_shape(model);
    auto_buf Buf flags = {0};
    serve_flags_effective(conf, &flags);
    log_info(
        "serve: model %s as '%s': %s, %u layers, width %u, %u heads, %u KV heads, vocabulary %u, "
        "context %zu of %u tokens",
        conf->model_path, serve_name(&run->serve), s->family->name, s->layers, s->width, s->heads,
        s->kv_heads, s->vocab, run->serve.context, s->context);
    log_info("serve: kernels %s, %u threads, %.1f MiB of weights", kernels->name,
             model_threads(model), (double)model_weight_bytes(model) / MIB);
    log_info("serve: KV cache of %.1f MiB, %lld blocks of %d tokens, prefix caching %s",
             (double)in_effect->pool_bytes / MIB,
             (long long)gauge_get(&engine_stats(engine)->blocks_total), KV_BLOCK_TOKENS,
             conf->prefix_caching ? "on" : "off");
    if (conf->connector)
        log_info("serve: %s as %s: engine %s, KV at %s:%d, rail %s, lease %.1f s, pull %.1f s",
                 conf->connector, roles[conf->role], engine_id(engine), conf->kv_host,
                 engine_kv_port(engine), kv_rail_name(conf->rail), (double)conf->lease_us / 1e6,
                 (double)conf->pull_us / 1e6);
    log_info("serve: in effect: %s", flags.at);
    log_list("without effect here", &conf->flags.no_effect, "--");
    log_list("without effect in --kv-transfer-config", &conf->kv_no_effect, "");
    if (conf->kv_note[0]) log_warn("serve: %s", conf->kv_note);
    if (!run->serve.chat.template)
        log_warn(
            "serve: the model has no chat template: /v1/chat/completions needs --chat-template");
}

/* ---- the end ---- */

static void on_drained(void *user) { loop_stop(user); }

static void on_limit(void *user) {
    Run *run = user;
    log_warn("serve: %zu requests are cut off after %lld s", run->serve.jobs,
             (long long)run->conf.shutdown_s);
    loop_stop(run->serve.loop);
}

static void on_signal(void *user) {
    Run *run = user;
    if (run->serve.draining) {
        log_error("serve: a second signal: ending at once with %zu requests", run->serve.jobs);
        _exit(1);
    }
    log_info("serve: no new requests are taken, %zu are running", run->serve.jobs);
    serve_drain(&run->serve, on_drained);
    if (run->conf.shutdown_s >= 0)
        run->limit =
            timer_start(run->serve.loop, (uint64_t)run->conf.shutdown_s * 1000, 0, on_limit, run);
}

static void serve_until_signal(Run *run) {
    Loop *loop = run->serve.loop;
    run->terminate = signal_watch(loop, SIGTERM, on_signal, run);
    run->interrupt = signal_watch(loop, SIGINT, on_signal, run);
    http_server_listen(run->serve.http);
    log_info("serve: listening on http://%s:%d",
             serve_wildcard(run->conf.host) ? "0.0.0.0" : run->conf.host,
             http_server_port(run->serve.http));
    log_info("serve: Application startup complete.");
    loop_run(loop);
    log_info("serve: the end");
}

/* The engine first: it may still send. */
static void run_done(Run *run) {
    http_server_close(run->serve.http);
    engine_close(run->serve.engine);
    signal_close(run->terminate);
    signal_close(run->interrupt);
    timer_close(run->limit);
    serve_done(&run->serve);
    loop_free(run->serve.loop);
    serve_conf_done(&run->conf);
}

int serve_command(int argc, char **argv) {
    Run run = {.status = 1};
    Err err = {0};
    child_follow_parent();
    if (!serve_conf_read(&run.conf, argc, argv, &err)) {
        complain(&err);
        serve_conf_done(&run.conf);
        return 2;
    }
    if (run.conf.flags.help) {
        auto_buf Buf help = {0};
        serve_flags_help(&help);
        fputs(help.at, stdout);
        serve_conf_done(&run.conf);
        return 0;
    }
    log_set_level(run.conf.level);
    serve_open(&run.serve, &run.conf, loop_new());
    raise_file_limit();
    bool ok = look_at_model(&run, &err) && take_port(&run, &err) && load(&run, &err);
    if (ok) {
        run.status = 0;
        log_configuration(&run);
        serve_until_signal(&run);
    } else {
        complain(&err);
    }
    run_done(&run);
    return run.status;
}
