// SPDX-License-Identifier: Apache-2.0
/* request_fuzz.c - request bodies through all that reads them: parameters, messages, templates,
 * tokens, sampling.  The first byte of the input says for which endpoint it is.
 *
 * Whatever comes, there is either a request whose numbers the engine can take, or one error object
 * that is JSON. */
#include <math.h>
#include <stdlib.h>

#include "model/tokenizer_test.h"
#include "serve/internal.h"

static const AskKind kinds[] = {ASK_CHAT, ASK_COMPLETION, ASK_TOKENIZE, ASK_DETOKENIZE};

static Serve *server(void) {
    static ServeConf conf = {.served_names = {.at = {"m"}, .count = 1}, .max_logprobs = 20,
                             .trust_templates = true, .connector = "NixlConnector",
                             .role = ROLE_BOTH};
    static Serve serve = {.conf = &conf, .context = 256, .vocab = TINY_SIZE};
    if (serve.tokenizer) return &serve;
    Err err = {0};
    GgufWriter writer = {0};
    put_tiny_vocab(&writer, "gpt-2");
    static Buf file; /* this and the rest live as long as the process */
    static Gguf *volatile gguf; /* kept where the leak checker sees it */
    file = put_end(&writer);
    gguf = gguf_view((const uint8_t *)file.at, file.length, &err);
    serve.tokenizer = gguf ? tokenizer_new(gguf, &err) : NULL;
    if (!serve.tokenizer) abort();
    serve.chat.template = template_parse(
        STR("{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.tool_calls }}\n{% endfor %}"
            "{{ tools }}{{ documents }}{% if add_generation_prompt %}a:{% endif %}"),
        &err);
    if (!serve.chat.template) abort();
    return &serve;
}

static void check_problem(const Problem *problem) {
    Err err = {0};
    auto_buf Buf body = {0};
    if (problem->status < 400 || problem->status > 599 || !problem->type) abort();
    problem_body(problem, &body);
    auto_json json_t *tree = json_parse((Str){body.at, body.length}, &err);
    if (!json_is_string(json_object_get(json_object_get(tree, "error"), "message"))) abort();
}

static void check_prompts(const Serve *serve, const Prompts *prompts) {
    for (size_t p = 0; p < prompts->count; p++) {
        const Prompt *prompt = &prompts->at[p];
        if (!prompt->count || prompt->count >= serve->context) abort();
        for (size_t i = 0; i < prompt->count; i++)
            if (prompt->ids[i] < 0 || (size_t)prompt->ids[i] >= serve->vocab) abort();
        if (!choosing_fit(serve, UINT32_MAX, prompt->count)) abort();
    }
}

static void check_choosing(const Choosing *choosing) {
    const Sampling *s = &choosing->sampling;
    if (!choosing->n || choosing->n > LIMIT_CHOICES || !s->max_tokens) abort();
    if (!(s->temperature >= 0 && s->temperature <= 2) || !(s->top_p > 0 && s->top_p <= 1)) abort();
    if (!(s->min_p >= 0 && s->min_p <= 1) || s->top_k < 0 || !(s->repetition_penalty > 0)) abort();
    if (!isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty)) abort();
    if (s->logprobs < -1 || s->logprobs > LIMIT_LOGPROBS) abort();
    if (s->prompt_logprobs < -1 || s->prompt_logprobs > LIMIT_LOGPROBS) abort();
    for (size_t i = 0; i < choosing->stops.count; i++)
        if (!choosing->stops.at[i].length || choosing->stops.at[i].length > choosing->stops.longest)
            abort();
    for (size_t i = 0; i < s->bias_count; i++)
        if (!(s->bias[i].bias >= -100 && s->bias[i].bias <= 100)) abort();
}

static bool generate(Serve *serve, const Ask *ask, Arena *arena, Problem *problem) {
    Prompts prompts = {0};
    Choosing choosing;
    KvAsk kv;
    bool ok = ask_check(ask, problem) && kv_ask_read(serve, ask, &kv, problem) &&
              prompts_read(serve, ask, &prompts, problem);
    if (ok) check_prompts(serve, &prompts);
    ok = ok && choosing_read(serve, ask, arena, &choosing, problem);
    if (ok) check_choosing(&choosing);
    prompts_done(&prompts);
    return ok;
}

static bool convert(const Serve *serve, const Ask *ask, Problem *problem) {
    auto_tokens Tokens tokens = {0};
    auto_buf Buf text = {.limit = LIMIT_TEMPLATE_OUTPUT};
    if (ask->kind == ASK_DETOKENIZE) return prompt_ids(serve, ask->tokens, &tokens, problem);
    if (ask->messages) return chat_render(serve, ask, &text, problem);
    Str prompt = {json_string_value(ask->prompt), json_string_length(ask->prompt)};
    return prompt_encode(serve, ask, prompt, 0, &tokens, problem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    Serve *serve = server();
    AskKind kind = kinds[data[0] % COUNT_OF(kinds)];
    Ask ask;
    Arena arena = {0};
    Problem problem = {0};
    bool ok = ask_read(&ask, kind, (Str){(const char *)data + 1, size - 1}, &problem);
    if (ok && (kind == ASK_CHAT || kind == ASK_COMPLETION))
        ok = generate(serve, &ask, &arena, &problem);
    else if (ok) ok = convert(serve, &ask, &problem);
    if (!ok) check_problem(&problem);
    problem_done(&problem);
    arena_done(&arena);
    ask_done(&ask);
    return 0;
}
