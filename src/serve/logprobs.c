// SPDX-License-Identifier: Apache-2.0
/* Log-probabilities as JSON, in the three shapes that the API has for them. */
#include "job.h"

#include <stdio.h>

#define LEAST_LOGPROB (-9999.0) /* stands for minus infinity */

size_t utf8_count(Str text) {
    size_t count = 0;
    uint32_t codepoint;
    for (const char *at = text.at, *end = at + text.length; at < end; count++)
        (void)utf8_next(&at, end, &codepoint);
    return count;
}

/* In whole characters: half a character reads as U+FFFD. */
static void token_text(const Tokenizer *tokenizer, int32_t token, bool as_id, Buf *out) {
    if (as_id) {
        buf_printf(out, "token_id:%d", token);
        return;
    }
    Detok detok;
    detok_init(&detok, tokenizer, false);
    detok_add(&detok, token, out);
    detok_flush(&detok, out);
}

static void put_text(Buf *out, const Buf *text) {
    buf_json_str(out, (Str){text->at ? text->at : "", text->length});
}

static void put_token(const Tokenizer *tokenizer, int32_t token, bool as_id, Buf *out) {
    auto_buf Buf text = {0};
    token_text(tokenizer, token, as_id, &text);
    put_text(out, &text);
}

static void put_logprob(Buf *out, float logprob) {
    buf_json_double(out, logprob >= LEAST_LOGPROB ? (double)logprob : LEAST_LOGPROB);
}

static void put_bytes(const Tokenizer *tokenizer, int32_t token, Buf *out) {
    Str piece = tokenizer_piece(tokenizer, token);
    buf_char(out, '[');
    for (size_t i = 0; i < piece.length; i++) {
        if (i) buf_char(out, ',');
        buf_json_int(out, (unsigned char)piece.at[i]);
    }
    buf_char(out, ']');
}

/* The place's tokens as they are listed: the chosen one first, then the likely ones. */
typedef struct Listed { int32_t token; float logprob; uint32_t rank; } Listed;

static size_t list_tokens(const TokenLogprobs *at, Listed out[LIMIT_LOGPROBS + 1]) {
    size_t count = 1;
    out[0] = (Listed){at->token, at->logprob, at->rank};
    for (uint32_t i = 0; i < at->top_count; i++)
        if (at->top_tokens[i] != at->token)
            out[count++] = (Listed){at->top_tokens[i], at->top_logprobs[i], i + 1};
    return count;
}

static void put_chat_token(const Tokenizer *tokenizer, int32_t token, float logprob, bool as_ids,
                           Buf *out) {
    buf_str(out, "{\"token\":");
    put_token(tokenizer, token, as_ids, out);
    buf_str(out, ",\"logprob\":");
    put_logprob(out, logprob);
    buf_str(out, ",\"bytes\":");
    put_bytes(tokenizer, token, out);
}

void logprob_chat_write(const Tokenizer *tokenizer, const TokenLogprobs *at, int32_t top,
                        bool as_ids, Buf *out) {
    Listed listed[LIMIT_LOGPROBS + 1];
    size_t count = list_tokens(at, listed);
    put_chat_token(tokenizer, at->token, at->logprob, as_ids, out);
    buf_str(out, ",\"top_logprobs\":[");
    for (size_t i = 0; i < count && i < (size_t)top; i++) {
        if (i) buf_char(out, ',');
        put_chat_token(tokenizer, listed[i].token, listed[i].logprob, as_ids, out);
        buf_char(out, '}');
    }
    buf_str(out, "]}");
}

/* ---- four lists side by side ---- */

static void add_place(LogprobLists *lists, const Tokenizer *tokenizer, int32_t token, bool as_ids) {
    auto_buf Buf text = {0};
    token_text(tokenizer, token, as_ids, &text);
    if (lists->count++) {
        buf_char(&lists->offsets, ',');
        buf_char(&lists->values, ',');
        buf_char(&lists->tokens, ',');
        buf_char(&lists->tops, ',');
    }
    buf_json_int(&lists->offsets, (int64_t)lists->offset);
    put_text(&lists->tokens, &text);
    lists->offset += utf8_count((Str){text.at ? text.at : "", text.length});
}

/* Two tokens may read alike; an object has each name once. */
static bool read_before(const Tokenizer *tokenizer, const Listed *listed, size_t index,
                        bool as_ids) {
    auto_buf Buf text = {0}, other = {0};
    if (as_ids) return false;
    token_text(tokenizer, listed[index].token, false, &text);
    for (size_t i = 0; i < index; i++) {
        buf_clear(&other);
        token_text(tokenizer, listed[i].token, false, &other);
        if (text.length == other.length &&
            (!text.length || !memcmp(text.at, other.at, text.length)))
            return true;
    }
    return false;
}

void logprob_lists_add(LogprobLists *lists, const Tokenizer *tokenizer, const TokenLogprobs *at,
                       int32_t top, bool as_ids) {
    Listed listed[LIMIT_LOGPROBS + 1];
    size_t count = list_tokens(at, listed);
    add_place(lists, tokenizer, at->token, as_ids);
    put_logprob(&lists->values, at->logprob);
    buf_char(&lists->tops, '{');
    for (size_t i = 0; i < count && i <= (size_t)top; i++) {
        if (i && read_before(tokenizer, listed, i, as_ids)) continue;
        if (i) buf_char(&lists->tops, ',');
        put_token(tokenizer, listed[i].token, as_ids, &lists->tops);
        buf_char(&lists->tops, ':');
        put_logprob(&lists->tops, listed[i].logprob);
    }
    buf_char(&lists->tops, '}');
}

void logprob_lists_add_prompt(LogprobLists *lists, const Tokenizer *tokenizer,
                              const EngineRequest *request, int32_t top, bool as_ids) {
    add_place(lists, tokenizer, request->prompt[0], as_ids);
    buf_str(&lists->values, "null"); /* nothing comes before the first token */
    buf_str(&lists->tops, "null");
    for (size_t i = 1; i < request->prompt_count && request->prompt_logprobs; i++)
        logprob_lists_add(lists, tokenizer, &request->prompt_logprobs[i], top, as_ids);
}

static void put_list(Buf *out, const char *opening, const Buf *list) {
    buf_str(out, opening);
    if (list->length) buf_append(out, list->at, list->length);
    buf_char(out, ']');
}

void logprob_lists_write(const LogprobLists *lists, Buf *out) {
    buf_char(out, '{');
    put_list(out, "\"text_offset\":[", &lists->offsets);
    put_list(out, ",\"token_logprobs\":[", &lists->values);
    put_list(out, ",\"tokens\":[", &lists->tokens);
    put_list(out, ",\"top_logprobs\":[", &lists->tops);
    buf_char(out, '}');
}

void logprob_lists_clear(LogprobLists *lists) {
    buf_clear(&lists->offsets);
    buf_clear(&lists->values);
    buf_clear(&lists->tokens);
    buf_clear(&lists->tops);
    lists->count = 0;
}

void logprob_lists_done(LogprobLists *lists) {
    buf_done(&lists->offsets);
    buf_done(&lists->values);
    buf_done(&lists->tokens);
    buf_done(&lists->tops);
}

/* ---- of a prompt ---- */

void logprob_prompt_write(const Tokenizer *tokenizer, const EngineRequest *request, int32_t top,
                          Buf *out) {
    buf_str(out, "[null");
    for (size_t p = 1; p < request->prompt_count; p++) {
        Listed listed[LIMIT_LOGPROBS + 1];
        size_t count = list_tokens(&request->prompt_logprobs[p], listed);
        buf_str(out, ",{");
        for (size_t i = 0; i < count && i <= (size_t)top; i++) {
            buf_printf(out, "%s\"%d\":{\"logprob\":", i ? "," : "", listed[i].token);
            put_logprob(out, listed[i].logprob);
            buf_printf(out, ",\"rank\":%u,\"decoded_token\":", listed[i].rank);
            put_token(tokenizer, listed[i].token, false, out);
            buf_char(out, '}');
        }
        buf_char(out, '}');
    }
    buf_char(out, ']');
}
