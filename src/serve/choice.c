// SPDX-License-Identifier: Apache-2.0
/* From tokens to text that may leave: whole characters, and nothing that may turn out to be the
 * beginning of a stop string. */
#include "job.h"

#define KEPT_SENT 4096 /* text that has left is dropped in pieces of this size */

void choice_text_init(ChoiceText *text, const Tokenizer *tokenizer, bool skip_special,
                      const Stops *stops) {
    *text = (ChoiceText){.stops = stops};
    detok_init(&text->detok, tokenizer, skip_special);
}

void choice_text_done(ChoiceText *text) { buf_done(&text->text); }

/* The stop string that is complete first, and where the text ends with it. */
static const Str *find_stop(const ChoiceText *text, size_t old_length, size_t *cut) {
    const Stops *stops = text->stops;
    const Str *found = NULL;
    size_t found_end = SIZE_MAX;
    for (size_t i = 0; i < stops->count; i++) {
        const Str *stop = &stops->at[i];
        size_t from = old_length >= stop->length - 1 ? old_length - (stop->length - 1) : 0;
        if (from < text->searched) from = text->searched;
        const char *at =
            memmem(text->text.at + from, text->text.length - from, stop->at, stop->length);
        size_t end = at ? (size_t)(at - text->text.at) + stop->length : SIZE_MAX;
        if (end >= found_end) continue;
        found = stop;
        found_end = end;
        *cut = stops->included ? end : end - stop->length;
    }
    return found;
}

const Str *choice_text_add(ChoiceText *text, int32_t token, bool search) {
    size_t old_length = text->text.length, cut;
    detok_add(&text->detok, token, &text->text);
    if (!search) text->searched = text->text.length;
    if (!search || !text->stops->count || text->text.length == old_length) return NULL;
    const Str *stop = find_stop(text, old_length, &cut);
    if (!stop) return NULL;
    text->text.length = cut;
    text->detok.held_count = 0;
    return stop;
}

void choice_text_end(ChoiceText *text) { detok_flush(&text->detok, &text->text); }

Str choice_text_take(ChoiceText *text, bool complete) {
    size_t longest = text->stops->longest, end = text->text.length;
    if (text->sent > KEPT_SENT + longest) {
        size_t drop = text->sent - longest;
        buf_drop_front(&text->text, drop);
        text->sent -= drop;
        text->searched -= text->searched < drop ? text->searched : drop;
        end -= drop;
    }
    if (!complete && longest > 1 && !text->stops->included) {
        end = end > longest - 1 ? end - (longest - 1) : 0;
        while (end > text->sent && ((unsigned char)text->text.at[end] & 0xc0) == 0x80) end--;
    }
    if (end <= text->sent) return (Str){"", 0};
    Str taken = {text->text.at + text->sent, end - text->sent};
    text->sent = end;
    return taken;
}
