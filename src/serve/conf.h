// SPDX-License-Identifier: Apache-2.0
/* conf.h - what the command line of `baton engine serve` comes to.
 *
 *     argv --flags.c--> ServeConf, its first part --conf.c, conf_kv.c--> the rest, checked
 *
 * Owner: a ServeConf owns its arena and trees; its strings point there, into argv or into the
 * environment.  Read-only once serve_conf_read() is through. */
#ifndef BATON_SERVE_CONF_H
#define BATON_SERVE_CONF_H

#include "engine/engine.h"
#include "text/text.h"

#define SERVE_REFUSED_MAX 64

typedef struct ServeConf {
    /* as given: one field for each row of the table in flags.c */
    const char *model, *host, *config;
    int64_t port;
    FlagList served_names, api_keys, kv_pieces, template_kwargs_pieces;
    const char *max_model_len, *log_level, *silent_paths, *root_path;
    int64_t max_sequences, max_batched_tokens, max_queued, kv_bytes, block_tokens;
    bool prefix_caching;
    int64_t seed, max_logprobs, shutdown_s;
    bool request_id_headers, no_access_log, log_requests;
    bool force_usage, prompt_details, tokens_as_ids, trust_templates;
    const char *chat_template, *content_format, *response_role;
    int64_t threads, kv_port;
    const char *rail_name;
    bool strict;
    const char *refused[SERVE_REFUSED_MAX]; /* by row of the table of refusals */
    bool refused_on[SERVE_REFUSED_MAX];

    /* what follows from it */
    char model_path[4096];
    size_t context;               /* 0: the model's own */
    json_t *template_kwargs;      /* NULL: none */
    Str template_text;            /* of --chat-template; empty: the model's own */
    LogLevel level;
    EngineRole role;
    const char *connector;        /* NULL: none */
    char engine_id[KV_ENGINE_ID_MAX + 1]; /* "": random */
    char kv_host[256];
    KvRail rail;
    int64_t lease_us, pull_us;
    bool any_model_name;          /* VLLM_SKIP_MODEL_NAME_VALIDATION */
    uint64_t idle_ms;             /* of kept connections; 0: our own limit */
    size_t max_body;              /* 0: our own limit */

    FlagsResult flags;
    FlagList kv_no_effect;        /* keys of --kv-transfer-config */
    char kv_note[256];            /* what was made of an address that cannot be told to a peer */
    Arena arena;
} ServeConf;

/* True: `conf` is whole, or conf->flags.help is set.  False: wrong use. */
bool serve_conf_read(ServeConf *conf, int argc, char *const *argv, Err *err) MUST_CHECK;
void serve_conf_done(ServeConf *conf);

/* flags.c: the one table.  Both go through serve_conf_read(), but for tests. */
bool serve_flags_parse(ServeConf *conf, int argc, char *const *argv, Err *err) MUST_CHECK;
bool serve_flags_refuse(const ServeConf *conf, Err *err) MUST_CHECK; /* what would change answers */
void serve_flags_help(Buf *out);
void serve_flags_effective(const ServeConf *conf,
                           Buf *out); /* "--port 8000 ..."; keys are masked */

/* conf_kv.c: --kv-transfer-config, the address that peers are told. */
bool serve_conf_kv(ServeConf *conf, Err *err) MUST_CHECK;
/* Merges pieces of "=JSON" and "a.b=VALUE" into one object; `flag` is for messages. */
json_t *serve_merge_pieces(const char *flag, const FlagList *pieces, Err *err) MUST_CHECK;

/* machine.c: what this process may use of its machine. */
unsigned serve_cpus(void);                  /* by affinity and by the cgroup's quota */
unsigned serve_cpus_of_quota(const char *cpu_max, unsigned cpus); /* "200000 100000": 2 */
bool serve_wildcard(const char *host);      /* NULL, "", 0.0.0.0, :: */
bool serve_own_address(char out[64]);       /* that packets to the world leave from */

#endif
