// SPDX-License-Identifier: Apache-2.0
#include "sse.h"

void sse_init(SseReader *reader, size_t limit) {
    *reader = (SseReader){
        .line = {.limit = limit}, .data = {.limit = limit}, .event = {.limit = limit}};
}

void sse_done(SseReader *reader) {
    buf_done(&reader->line);
    buf_done(&reader->data);
    buf_done(&reader->event);
}

static Str view(const Buf *buf) { return (Str){buf->at ? buf->at : "", buf->length}; }

static void dispatch(SseReader *r) {
    if (r->has_data) r->on_event(view(&r->event), view(&r->data), r->user);
    r->has_data = false;
    buf_clear(&r->data);
    buf_clear(&r->event);
}

static void take_field(SseReader *r, Str name, Str value) {
    if (str_eq(name, "data")) {
        if (r->has_data) buf_char(&r->data, '\n');
        r->has_data = true;
        buf_append(&r->data, value.at, value.length);
    } else if (str_eq(name, "event")) {
        buf_clear(&r->event);
        buf_append(&r->event, value.at, value.length);
    }
}

static void take_line(SseReader *r, Str line) {
    if (!r->started && str_starts(line, "\xef\xbb\xbf")) /* a byte order mark */
        line = (Str){line.at + 3, line.length - 3};
    r->started = true;
    if (!line.length) {
        dispatch(r);
        return;
    }
    Str value = line, name;
    str_cut(&value, ':', &name);
    if (!value.at) value = (Str){"", 0}; /* no colon: a field with an empty value */
    if (!name.length) {
        if (r->on_comment) r->on_comment(value, r->user);
        return;
    }
    if (value.length && value.at[0] == ' ') value = (Str){value.at + 1, value.length - 1};
    take_field(r, name, value);
}

static const char *line_end(const char *at, const char *end) {
    const char *lf = memchr(at, '\n', (size_t)(end - at));
    const char *cr = memchr(at, '\r', (size_t)((lf ? lf : end) - at));
    return cr ? cr : lf;
}

bool sse_feed(SseReader *r, Str bytes) {
    const char *at = bytes.at, *end = bytes.at + bytes.length;
    while (at < end && !r->line.overflow && !r->data.overflow && !r->event.overflow) {
        if (r->after_cr && *at == '\n') at++;
        r->after_cr = false;
        if (at == end) break;
        const char *stop = line_end(at, end);
        Str part = {at, (size_t)((stop ? stop : end) - at)};
        if (!stop || r->line.length || part.length > r->line.limit) {
            buf_append(&r->line, part.at, part.length);
            part = view(&r->line);
        }
        if (!stop || r->line.overflow) break;
        take_line(r, part); /* most lines come whole and are not copied */
        buf_clear(&r->line);
        r->after_cr = *stop == '\r';
        at = stop + 1;
    }
    return !r->line.overflow && !r->data.overflow && !r->event.overflow;
}
