// SPDX-License-Identifier: Apache-2.0
/* sse.h - server-sent events, read in whatever pieces the network gives.
 * Source: WHATWG HTML, section 9.2.6 (the fields data, event, id, and comments). */
#ifndef BATON_TEXT_SSE_H
#define BATON_TEXT_SSE_H

#include "text.h"

typedef struct SseReader { /* {.limit...} by sse_init() */
    Buf line, data, event;
    bool after_cr;
    void (*on_event)(Str event, Str data, void *user); /* event "" if unnamed; data joined by \n */
    void (*on_comment)(Str text, void *user);          /* may be NULL */
    void *user;
} SseReader;

void sse_init(SseReader *reader, size_t limit);
bool sse_feed(SseReader *reader, Str bytes); /* false: an event is over the limit */
void sse_done(SseReader *reader);

#endif
