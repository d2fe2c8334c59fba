// SPDX-License-Identifier: Apache-2.0
/* body.h - JSON objects that are read and changed where they lie: requests, replies, chunks.
 *
 *     {"model":"a","stream":true,"messages":[ ... 30 KiB ... ]}
 *     '----------' ^^^^^^^^^^^^^^'--------------------------'
 *      part 1       cut out       part 2, then ,"max_tokens":1}
 *
 * Only the members named below are looked at; all other bytes stay as they came, and no tree is
 * made.  Views point into the text, which outlives the Body and what is made of it. */
#ifndef BATON_ROUTE_BODY_H
#define BATON_ROUTE_BODY_H

#include "text/text.h"

typedef enum BodyField {
    BODY_MODEL, BODY_STREAM, BODY_STREAM_OPTIONS, BODY_MAX_TOKENS, BODY_MAX_COMPLETION_TOKENS,
    BODY_MIN_TOKENS, BODY_MIN_COMPLETION_TOKENS, BODY_N, BODY_BEST_OF, BODY_PROMPT, BODY_MESSAGES,
    BODY_KV_PARAMS, BODY_EC_PARAMS, BODY_USAGE, BODY_CHOICES, BODY_ERROR, BODY_INCLUDE_USAGE,
    BODY_CONTINUOUS_USAGE, BODY_PROMPT_TOKENS, BODY_COMPLETION_TOKENS, BODY_ROLE, BODY_CONTENT,
    BODY_TYPE, BODY_TEXT, BODY_CODE, BODY_FIELDS
} BodyField;

#define BODY_FOUND 32 /* members of those names, repeated ones included */
#define BODY_PARTS (2 * BODY_FOUND + 16)

typedef struct BodyMember { BodyField field; JsonMember at; } BodyMember;
typedef struct Body {
    Str object;
    size_t count;
    BodyMember found[BODY_FOUND];  /* in the order of the text */
    uint8_t last[BODY_FIELDS];     /* found[last - 1] counts for that field; 0: there is none */
} Body;

bool route_body_scan(Body *body, Str text, Err *err) MUST_CHECK; /* checks all of it */
bool route_body_look(Body *body, Str object); /* what is part of a text that was checked */
/* The member's value, and its kind as in JsonMember; kind 0 if there is none. */
char route_body_get(const Body *body, BodyField field, Str *value);
bool route_body_is(const Body *body, BodyField field,
                   const char *word); /* "true": that very text */
int64_t route_body_int(const Body *body, BodyField field, int64_t fallback);

typedef enum BodyAction {
    EDIT_KEEP,
    EDIT_DROP,
    EDIT_REPLACE, /* the value, if the member is there */
    EDIT_SET      /* the value; the member is added if it is not there */
} BodyAction;
typedef struct BodyEdit { BodyAction action; Str value; } BodyEdit;
typedef struct BodyParts { Str at[BODY_PARTS]; size_t count; } BodyParts;

void route_body_edit(const Body *body, const BodyEdit edits[BODY_FIELDS], BodyParts *out);
void route_parts_join(const BodyParts *parts, Buf *out);

/* The items of an array in a text that was checked, one after the other; *at is 0 at first. */
bool route_array_next(Str array, size_t *at, Str *item);

#endif
