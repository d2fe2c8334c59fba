// SPDX-License-Identifier: Apache-2.0
#include "pump.h"

void route_pump_init(RoutePump *pump, bool hide_usage) {
    buf_clear(&pump->held);
    buf_clear(&pump->out);
    *pump = (RoutePump){.held = pump->held, .out = pump->out, .hide_usage = hide_usage,
                        .usage = {-1, -1}};
    pump->held.limit = LIMIT_ROUTE_EVENT;
}

void route_pump_done(RoutePump *pump) {
    buf_done(&pump->held);
    buf_done(&pump->out);
}

/* Behind the blank line that ends an event; NULL if it has not come.  Lines end with \n or \r\n. */
static const char *event_end(const char *at, const char *end) {
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        size_t left = (size_t)(end - at);
        if (left >= 2 && at[1] == '\n') return at + 2;
        if (left >= 3 && at[1] == '\r' && at[2] == '\n') return at + 3;
        at++;
    }
    return NULL;
}

/* The event's data, if it stands on one line. */
static bool event_data(Str event, Str *data) {
    Str rest = event, line;
    bool found = false;
    while (str_cut(&rest, '\n', &line)) {
        if (!str_starts(line, "data:")) continue;
        if (found) return false;
        found = true;
        *data = str_trim((Str){line.at + 5, line.length - 5});
    }
    return found;
}

static bool holds(Str text, const char *word) {
    return memmem(text.at, text.length, word, strlen(word)) != NULL;
}

static bool no_choices(const Body *chunk) {
    Str choices, item;
    size_t at = 0;
    return route_body_get(chunk, BODY_CHOICES, &choices) != '[' ||
           !route_array_next(choices, &at, &item);
}

/* A chunk that says more than text does. */
static void put_chunk(RoutePump *pump, Str event, Str data) {
    Body chunk;
    BodyParts parts;
    Err unused;
    Str usage, error;
    if (!route_body_scan(&chunk, data, &unused)) {
        buf_append(&pump->out, event.at, event.length);
        return;
    }
    char error_kind = route_body_get(&chunk, BODY_ERROR, &error);
    if (error_kind && error_kind != 'n') pump->failed = true;
    route_reply_usage(&chunk, &pump->usage);
    bool is_usage = route_body_get(&chunk, BODY_USAGE, &usage) == '{';
    if (pump->hide_usage && is_usage && no_choices(&chunk)) return;
    if (!route_reply_clean(&chunk, &parts)) {
        buf_append(&pump->out, event.at, event.length);
        return;
    }
    buf_append(&pump->out, event.at, (size_t)(data.at - event.at));
    route_parts_join(&parts, &pump->out);
    const char *rest = data.at + data.length;
    buf_append(&pump->out, rest, (size_t)(event.at + event.length - rest));
}

static void put_event(RoutePump *pump, Str event) {
    Str data;
    if (!event_data(event, &data)) {
        buf_append(&pump->out, event.at, event.length);
        return;
    }
    if (str_eq(data, "[DONE]")) {
        if (pump->before_done && !pump->ended) pump->before_done(&pump->out, pump->user);
        pump->ended = true;
    } else if (holds(data, "\"usage\"") || holds(data, "_transfer_params\"") ||
               holds(data, "\"error\"")) {
        put_chunk(pump, event, data);
        return;
    }
    buf_append(&pump->out, event.at, event.length);
}

bool route_pump_feed(RoutePump *pump, Str bytes) {
    const char *at = bytes.at, *end = at + bytes.length;
    if (pump->held.length) {
        size_t before =
            pump->held.length < 2 ? 0 : pump->held.length - 2; /* the end may begin there */
        size_t had = pump->held.length;
        buf_append(&pump->held, bytes.at, bytes.length);
        if (pump->held.overflow) return false;
        const char *held = pump->held.at,
                   *stop = event_end(held + before, held + pump->held.length);
        if (!stop) return true;
        put_event(pump, (Str){held, (size_t)(stop - held)});
        at += (size_t)(stop - held) - had;
        buf_clear(&pump->held);
    }
    for (const char *stop; at < end && (stop = event_end(at, end)); at = stop)
        put_event(pump, (Str){at, (size_t)(stop - at)});
    buf_append(&pump->held, at, (size_t)(end - at));
    return !pump->held.overflow;
}

void route_pump_finish(RoutePump *pump) {
    buf_append(&pump->out, pump->held.at, pump->held.length);
    buf_clear(&pump->held);
}

void route_pump_fail(RoutePump *pump, Str error) {
    buf_clear(&pump->held);
    buf_str(&pump->out, "data: ");
    buf_append(&pump->out, error.at, error.length);
    buf_str(&pump->out, "\n\ndata: [DONE]\n\n");
    pump->failed = true;
}
