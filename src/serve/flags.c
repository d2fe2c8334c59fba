// SPDX-License-Identifier: Apache-2.0
/* The one table of flags: what has an effect, what is accepted without one, what is refused because
 * ignoring it would change answers in silence. */
#include "conf.h"

#include <stdlib.h>

#define AT(field) offsetof(ServeConf, field)

static const Flag effective[] = {
    {"model", FLAG_STR, AT(model), NULL, "MODEL", "the model, as the argument MODEL", 0, 0, NULL},
    {"host", FLAG_STR, AT(host), NULL, "HOST", "the address to listen on (default: all of IPv4)", 0,
     0, NULL},
    {"port", FLAG_INT, AT(port), "8000", "PORT", "the port to listen on, 0 for any", 0, 65535,
     NULL},
    {"served-model-name", FLAG_LIST, AT(served_names), NULL, "NAME",
     "names the model is asked for by; the first is told", 0, 0, NULL},
    {"max-model-len", FLAG_STR, AT(max_model_len), "auto", "N",
     "tokens of a prompt with its answer at most; auto is the model's own", 0, 0, NULL},
    {"max-num-seqs", FLAG_INT, AT(max_sequences), "256", "N", "requests that run at once", 1, 65536,
     NULL},
    {"max-num-batched-tokens", FLAG_SIZE, AT(max_batched_tokens), "0", "N",
     "tokens of one step; 0 is 512, or --max-num-seqs if that is more", 0, 1048576, NULL},
    {"max-num-queued-reqs", FLAG_INT, AT(max_queued), "1024", "N",
     "requests that wait at most; more are answered with 503", 1, 1048576, NULL},
    {"kv-cache-memory-bytes", FLAG_SIZE, AT(kv_bytes), "0", "BYTES",
     "memory of the KV cache; 0 is four full contexts, within 40 % of what is free", 0, 1e15, NULL},
    {"block-size", FLAG_INT, AT(block_tokens), "16", "N",
     "prefix hits are multiples of so many tokens: 16, 32 ... 256", 16, 256, NULL},
    {"enable-prefix-caching", FLAG_BOOL, AT(prefix_caching), "true", NULL,
     "reuse the KV of prompts that begin alike", 0, 0, NULL},
    {"seed", FLAG_INT, AT(seed), "0", "N", "for choices of tokens without a seed of their own",
     -0x1p53, 0x1p53, NULL},
    {"max-logprobs", FLAG_INT, AT(max_logprobs), "20", "N", "log-probabilities a token at most", 0,
     LIMIT_LOGPROBS, NULL},
    {"api-key", FLAG_LIST, AT(api_keys), NULL, "KEY",
     "keys that paths under /v1 want; also VLLM_API_KEY", 0, 0, NULL},
    {"kv-transfer-config", FLAG_PIECES, AT(kv_pieces), NULL, "JSON",
     "the role in prefill-decode disaggregation: {\"kv_connector\":..., \"kv_role\":...}", 0, 0,
     NULL},
    {"chat-template", FLAG_STR, AT(chat_template), NULL, "FILE",
     "a file with the chat template, or its one line; else the model's own", 0, 0, NULL},
    {"chat-template-content-format", FLAG_STR, AT(content_format), "auto", "FORMAT",
     "what the template gets as content: auto, string or openai", 0, 0, NULL},
    {"default-chat-template-kwargs", FLAG_PIECES, AT(template_kwargs_pieces), NULL, "JSON",
     "variables for the chat template; a request's own win", 0, 0, NULL},
    {"trust-request-chat-template", FLAG_BOOL, AT(trust_templates), NULL, NULL,
     "requests may bring their own chat template", 0, 0, NULL},
    {"response-role", FLAG_STR, AT(response_role), "assistant", "ROLE",
     "the role that replies have", 0, 0, NULL},
    {"return-tokens-as-token-ids", FLAG_BOOL, AT(tokens_as_ids), NULL, NULL,
     "log-probabilities name tokens as token_id:N", 0, 0, NULL},
    {"enable-force-include-usage", FLAG_BOOL, AT(force_usage), NULL, NULL,
     "usage in every chunk of every stream", 0, 0, NULL},
    {"enable-prompt-tokens-details", FLAG_BOOL, AT(prompt_details), NULL, NULL,
     "usage says how many tokens of the prompt were cached", 0, 0, NULL},
    {"enable-request-id-headers", FLAG_BOOL, AT(request_id_headers), NULL, NULL,
     "replies carry X-Request-Id", 0, 0, NULL},
    {"enable-log-requests", FLAG_BOOL, AT(log_requests), NULL, NULL,
     "a log line when a request has come in", 0, 0, NULL},
    {"disable-uvicorn-access-log", FLAG_BOOL, AT(no_access_log), NULL, NULL,
     "no log line for each reply", 0, 0, NULL},
    {"disable-access-log-for-endpoints", FLAG_STR, AT(silent_paths), NULL, "PATH,PATH",
     "no log line for replies of these paths", 0, 0, NULL},
    {"uvicorn-log-level", FLAG_STR, AT(log_level), NULL, "LEVEL",
     "debug, info, warning, error or critical; also VLLM_LOGGING_LEVEL", 0, 0, NULL},
    {"root-path", FLAG_STR, AT(root_path), NULL, "PATH",
     "what a proxy puts in front of every path", 0, 0, NULL},
    {"shutdown-timeout", FLAG_INT, AT(shutdown_s), "-1", "SECONDS",
     "how long SIGTERM waits for running requests; -1 is until they are done", -1, 1e6, NULL},
    {"config", FLAG_STR, AT(config), NULL, "FILE",
     "a YAML file of flags; those of the command line win", 0, 0, NULL},
    {"threads", FLAG_INT, AT(threads), "0", "N",
     "threads that compute; 0 is one for each core this process may use", 0, 1024, NULL},
    {"kv-rail", FLAG_STR, AT(rail_name), "auto", "RAIL",
     "how KV moves: shm, tcp, or auto for the best there is", 0, 0, NULL},
    {"kv-port", FLAG_INT, AT(kv_port), "-1", "PORT",
     "the port for KV, 0 for any; else kv_port of --kv-transfer-config", -1, 65535, NULL},
    {"strict", FLAG_BOOL, AT(strict), NULL, NULL,
     "what would be done in a worse way is an error instead", 0, 0, NULL},
};

typedef struct Name { const char *name, *letter; } Name;

/* Each takes one value. */
static const Name ignored[] = {
    {"tensor-parallel-size", "tp"},
    {"pipeline-parallel-size", "pp"},
    {"data-parallel-size-local", "dpl"},
    {"data-parallel-rank", "dpn"},
    {"data-parallel-start-rank", "dpr"},
    {"data-parallel-address", "dpa"},
    {"data-parallel-rpc-port", "dpp"},
    {"data-parallel-backend", "dpb"},
    {"decode-context-parallel-size", "dcp"},
    {"prefill-context-parallel-size", "pcp"},
    {"node-rank", "r"},
    {"api-server-count", "asc"},
    {"optimization-level", "O"},
    {"speculative-config", "sc"},
    {"compilation-config", "cc"},
    {"additional-config", "ac"},
    {"all2all-backend", NULL},
    {"allowed-headers", NULL},
    {"allowed-local-media-path", NULL},
    {"allowed-media-domains", NULL},
    {"allowed-methods", NULL},
    {"allowed-origins", NULL},
    {"attention-backend", NULL},
    {"attention-config", NULL},
    {"code-revision", NULL},
    {"collect-detailed-traces", NULL},
    {"config-format", NULL},
    {"cpu-offload-gb", NULL},
    {"custom-histogram-buckets", NULL},
    {"dcp-kv-cache-interleave-size", NULL},
    {"device", NULL},
    {"distributed-executor-backend", NULL},
    {"distributed-timeout-seconds", NULL},
    {"download-dir", NULL},
    {"dtype", NULL},
    {"eplb-config", NULL},
    {"expert-placement-strategy", NULL},
    {"fingerprint-mode", NULL},
    {"gpu-memory-utilization", NULL},
    {"grpc-port", NULL},
    {"guided-decoding-backend", NULL},
    {"h11-max-header-count", NULL},
    {"h11-max-incomplete-event-size", NULL},
    {"hf-token", NULL},
    {"io-processor-plugin", NULL},
    {"kv-cache-dtype", NULL},
    {"kv-events-config", NULL},
    {"kv-offloading-backend", NULL},
    {"kv-offloading-size", NULL},
    {"limit-mm-per-prompt", NULL},
    {"load-format", NULL},
    {"log-config-file", NULL},
    {"long-prefill-token-threshold", NULL},
    {"lora-dtype", NULL},
    {"lora-extra-vocab-size", NULL},
    {"mamba-cache-dtype", NULL},
    {"mamba-ssm-cache-dtype", NULL},
    {"master-addr", NULL},
    {"master-port", NULL},
    {"max-cpu-loras", NULL},
    {"max-log-len", NULL},
    {"max-long-partial-prefills", NULL},
    {"max-lora-rank", NULL},
    {"max-loras", NULL},
    {"max-num-partial-prefills", NULL},
    {"max-num-queued-tokens", NULL},
    {"max-num-scheduled-tokens", NULL},
    {"max-parallel-loading-workers", NULL},
    {"max-seq-len-to-capture", NULL},
    {"media-io-kwargs", NULL},
    {"mm-encoder-tp-mode", NULL},
    {"mm-processor-cache-gb", NULL},
    {"mm-processor-cache-type", NULL},
    {"mm-processor-kwargs", NULL},
    {"model-impl", NULL},
    {"model-loader-extra-config", NULL},
    {"num-gpu-blocks-override", NULL},
    {"num-lookahead-slots", NULL},
    {"num-scheduler-steps", NULL},
    {"otlp-traces-endpoint", NULL},
    {"preemption-mode", NULL},
    {"prefix-caching-hash-algo", NULL},
    {"profiler-config", NULL},
    {"pt-load-map-location", NULL},
    {"ray-workers-use-nsight", NULL},
    {"revision", NULL},
    {"safetensors-load-strategy", NULL},
    {"scheduler-delay-factor", NULL},
    {"sse-keep-alive-interval", NULL},
    {"ssl-cert-reqs", NULL},
    {"ssl-ciphers", NULL},
    {"stream-interval", NULL},
    {"structured-outputs-config", NULL},
    {"swap-space", NULL},
    {"tokenizer-mode", NULL},
    {"tokenizer-revision", NULL},
    {"video-pruning-rate", NULL},
    {"watermark", NULL},
};

/* These take none. */
static const Name ignored_bools[] = {
    {"enable-expert-parallel", "ep"},
    {"data-parallel-external-lb", "dpe"},
    {"data-parallel-hybrid-lb", "dph"},
    {"data-parallel-multi-port-external-lb", "dpm"},
    {"allow-credentials", NULL},
    {"async-scheduling", NULL},
    {"calculate-kv-scales", NULL},
    {"disable-cascade-attn", NULL},
    {"disable-chunked-mm-input", NULL},
    {"disable-custom-all-reduce", NULL},
    {"disable-fastapi-docs", NULL},
    {"disable-frontend-multiprocessing", NULL},
    {"disable-hybrid-kv-cache-manager", NULL},
    {"disable-log-requests", NULL},
    {"disable-log-stats", NULL},
    {"disable-nccl-for-dp-synchronization", NULL},
    {"enable-chunked-prefill", NULL},
    {"enable-dbo", NULL},
    {"enable-eplb", NULL},
    {"enable-log-deltas", NULL},
    {"enable-log-outputs", NULL},
    {"enable-mfu-metrics", NULL},
    {"enable-multimodal-encoder-data-parallel", NULL},
    {"enable-prompt-embeds", NULL},
    {"enable-server-load-tracking", NULL},
    {"enable-sleep-mode", NULL},
    {"enable-ssl-refresh", NULL},
    {"enable-tokenizer-info-endpoint", NULL},
    {"enforce-eager", NULL},
    {"fail-on-environ-validation", NULL},
    {"fully-sharded-loras", NULL},
    {"interleave-mm-strings", NULL},
    {"kv-cache-metrics", NULL},
    {"kv-sharing-fast-prefill", NULL},
    {"language-model-only", NULL},
    {"scheduler-reserve-full-isl", NULL},
    {"skip-mm-profiling", NULL},
    {"trust-remote-code", NULL},
    {"use-tqdm-on-load", NULL},
    {"use-v2-block-manager", NULL},
};

typedef struct Refusal {
    const char *name, *letter;
    bool is_bool;
    const char *fine; /* values that ask for nothing, divided by '|' */
    const char *hint;
} Refusal;

static const Refusal refusals[] = {
    {"quantization", "q", false, "none|None|null",
     "The model file says how its weights are stored: leave the flag out."},
    {"tokenizer", NULL, false, NULL, "The model file brings its tokenizer: leave the flag out."},
    {"skip-tokenizer-init", NULL, true, NULL, "Leave the flag out: text is always understood."},
    {"generation-config", NULL, false, "auto|vllm",
     "Put the sampling parameters into the requests."},
    {"override-generation-config", NULL, false, "{}",
     "Put the sampling parameters into the requests."},
    {"hf-overrides", NULL, false, "{}", "The model file holds the model's shape."},
    {"logprobs-mode", NULL, false, "raw_logprobs", "Log-probabilities are those of raw_logprobs."},
    {"logits-processors", NULL, false, NULL, "logit_bias in a request may do."},
    {"data-parallel-size", "dp", false, "1", "Start that many engines, each on its own port."},
    {"nnodes", "n", false, "1", "Start one engine on each machine."},
    {"headless", NULL, true, NULL, "Every engine serves HTTP itself."},
    {"scheduling-policy", NULL, false, "fcfs",
     "Requests are served in the order of their arrival."},
    {"scheduler-cls", NULL, false, NULL, "Leave the flag out."},
    {"enable-lora", NULL, true, NULL, "Adapters are not served: merge them into the model."},
    {"lora-modules", NULL, false, NULL, "Adapters are not served: merge them into the model."},
    {"enable-auto-tool-choice", NULL, true, NULL,
     "Tool calls are not read out of answers; tools reach the template with tool_choice none."},
    {"tool-call-parser", NULL, false, NULL,
     "Tool calls are not read out of answers; tools reach the template with tool_choice none."},
    {"tool-parser-plugin", NULL, false, "", "Python code is not run: leave the flag out."},
    {"reasoning-parser", NULL, false, "",
     "Reasoning stays in the content of answers: leave the flag out."},
    {"reasoning-parser-plugin", NULL, false, "", "Python code is not run: leave the flag out."},
    {"ec-transfer-config", NULL, false, NULL, "Models here read text alone: leave the flag out."},
    {"middleware", NULL, false, NULL, "Put a proxy in front instead."},
    {"ssl-keyfile", NULL, false, NULL, "Put a proxy that speaks TLS in front."},
    {"ssl-certfile", NULL, false, NULL, "Put a proxy that speaks TLS in front."},
    {"ssl-ca-certs", NULL, false, NULL, "Put a proxy that speaks TLS in front."},
    {"uds", NULL, false, NULL, "Listen on TCP: --host 127.0.0.1 --port 8000."},
    {"grpc", NULL, true, NULL, "Use the HTTP API."},
    {"tokens-only", NULL, true, NULL, "Use /v1/completions with token ids as the prompt."},
    {"enable-scale-out", NULL, true, NULL, "Use /v1/completions with token ids as the prompt."},
    {"runner", NULL, false, "auto|generate", "Models here generate text."},
    {"task", NULL, false, "auto|generate", "Models here generate text."},
    {"convert", NULL, false, "auto|none", "Models here generate text."},
};

#define FLAGS_MAX                                                                                  \
    (COUNT_OF(effective) + COUNT_OF(ignored) + COUNT_OF(ignored_bools) + COUNT_OF(refusals))

static size_t all_flags(Flag *out) {
    static_assert(COUNT_OF(refusals) <= SERVE_REFUSED_MAX, "a field for each refusal");
    size_t n = COUNT_OF(effective);
    memcpy(out, effective, sizeof effective);
    for (size_t i = 0; i < COUNT_OF(ignored); i++)
        out[n++] = (Flag){ignored[i].name, FLAG_NO_EFFECT, .letter = ignored[i].letter};
    for (size_t i = 0; i < COUNT_OF(ignored_bools); i++)
        out[n++] = (Flag){ignored_bools[i].name, FLAG_NO_EFFECT_BOOL,
                          .letter = ignored_bools[i].letter};
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        const Refusal *r = &refusals[i];
        out[n++] = (Flag){r->name, r->is_bool ? FLAG_BOOL : FLAG_STR,
                          r->is_bool ? AT(refused_on) + i * sizeof(bool)
                                     : AT(refused) + i * sizeof(char *),
                          .letter = r->letter};
    }
    return n;
}

bool serve_flags_parse(ServeConf *conf, int argc, char *const *argv, Err *err) {
    Flag all[FLAGS_MAX];
    size_t count = all_flags(all);
    return flags_parse(all, count, conf, argc, argv, &conf->flags, &conf->arena, err);
}

static bool is_fine(const Refusal *refusal, const char *value) {
    if (!refusal->fine) return false;
    Str rest = str_of(refusal->fine), one;
    if (!rest.length) return !*value;
    while (str_cut(&rest, '|', &one))
        if (str_eq(one, value)) return true;
    return false;
}

bool serve_flags_refuse(const ServeConf *conf, Err *err) {
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        const Refusal *r = &refusals[i];
        const char *value = conf->refused[i];
        if (r->is_bool ? !conf->refused_on[i] : !value || is_fine(r, value)) continue;
        err_set(err, ERR_UNSUPPORTED,
                "--%s%s%s has no equal here, and ignoring it would change answers", r->name,
                value ? " " : "", value ? value : "");
        err_param(err, r->name);
        return err_hint(err, "%s", r->hint);
    }
    return true;
}

static void list_names(Buf *out, const char *title, const Name *names, size_t count) {
    if (title) buf_str(out, title);
    for (size_t i = 0, column = title ? 0 : 4; i < count; i++) {
        size_t length = strlen(names[i].name) + 3;
        if (column == 0 || column + length > 96) {
            buf_str(out, "\n   ");
            column = 3;
        }
        buf_printf(out, " --%s", names[i].name);
        column += length;
    }
}

void serve_flags_help(Buf *out) {
    buf_str(out, "usage: baton engine serve MODEL [flags]\n\n"
                 "Serves a language model over HTTP as `vllm serve` does, with the same flags.\n"
                 "MODEL is a .gguf file, a folder that holds one, or a name: smollm2\n\n");
    flags_help(effective, COUNT_OF(effective), out);
    list_names(out, "\nAccepted without effect here:", ignored, COUNT_OF(ignored));
    list_names(out, "", ignored_bools, COUNT_OF(ignored_bools));
    buf_str(out, "\n\nRefused unless they ask for nothing:");
    Name names[COUNT_OF(refusals)];
    for (size_t i = 0; i < COUNT_OF(refusals); i++) names[i] = (Name){refusals[i].name, NULL};
    list_names(out, "", names, COUNT_OF(refusals));
    buf_str(out, "\n");
}

static void put_list(Buf *out, const char *name, const FlagList *list) {
    for (size_t i = 0; i < list->count; i++) {
        const char *value = list->at[i], *text = *value == '=' ? value + 1 : value;
        if (!strcmp(name, "api-key")) text = "***";
        buf_printf(out, "%s%s", i ? " " : "", text);
    }
}

void serve_flags_effective(const ServeConf *conf, Buf *out) {
    for (size_t i = 0; i < COUNT_OF(effective); i++) {
        const Flag *flag = &effective[i];
        const void *field = (const char *)conf + flag->offset;
        const char *text = flag->kind == FLAG_STR ? *(const char *const *)field : NULL;
        const FlagList *list = field;
        bool is_list = flag->kind == FLAG_LIST || flag->kind == FLAG_PIECES;
        if ((flag->kind == FLAG_STR && !text) || (is_list && !list->count)) continue;
        buf_printf(out, "%s--%s ", out->length ? " " : "", flag->name);
        if (text) buf_str(out, text);
        else if (is_list) put_list(out, flag->name, list);
        else if (flag->kind == FLAG_BOOL) buf_str(out, *(const bool *)field ? "true" : "false");
        else buf_printf(out, "%lld", (long long)*(const int64_t *)field);
    }
}
