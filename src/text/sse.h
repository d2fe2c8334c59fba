// SPDX-License-Identifier: Apache-2.0
/* sse.h - server-sent events, read in whatever pieces the network gives.
 * Source: WHATWG HTML, section 9.2.6 (the fields data, event, and comments; id and retry are read
 * over).  An event that the end of the stream cuts off is not delivered. */
#ifndef BATON_TEXT_SSE_H
#define BATON_TEXT_SSE_H

#include "text.h"

typedef struct SseReader { /* sse_init(), then the callbacks */
    Buf line, data, event;
    bool after_cr;                                     /* a \n that follows belongs to that \r */
    bool has_data;                                     /* the event has a data field */
    bool started;                                      /* the first line is over */
    void (*on_event)(Str event, Str data, void *user); /* event "" if unnamed; data joined by \n */
    void (*on_comment)(Str text, void *user);          /* may be NULL */
    void *user;
} SseReader;

void sse_init(SseReader *reader, size_t limit); /* bytes of one event's data, and of one line */
bool sse_feed(SseReader *reader, Str bytes); /* false: an event is over the limit, for good */
void sse_done(SseReader *reader);

#endif
