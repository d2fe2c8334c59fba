// SPDX-License-Identifier: Apache-2.0
#include "record.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Baton-Stages ---- */

static uint64_t number_of(Str text) {
    uint64_t value = 0;
    for (size_t i = 0; i < text.length && text.at[i] >= '0' && text.at[i] <= '9'; i++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.at[i] - '0'), &value))
            return 0;
    return value;
}

static void stage_set(RouteStages *out, Str name, Str value) {
    const struct {
        const char *name;
        uint64_t *count;
        int64_t *us;
    } fields[] = {
        {"computed", &out->computed, NULL}, {"cached", &out->cached, NULL},
        {"pulled", &out->pulled, NULL},     {"bytes", &out->bytes, NULL},
        {"queue_us", NULL, &out->queue_us}, {"prefill_us", NULL, &out->prefill_us},
        {"transfer_us", NULL, &out->transfer_us}, {"first_token_us", NULL, &out->first_token_us},
    };
    if (str_eq(name, "rail")) {
        for (size_t i = 0; i < 3; i++) {
            static const char *const rails[] = {"shm", "tcp", "none"};
            if (str_eq(value, rails[i])) snprintf(out->rail, sizeof out->rail, "%s", rails[i]);
        }
        return;
    }
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (!str_eq(name, fields[i].name)) continue;
        uint64_t number = number_of(value);
        if (fields[i].count) *fields[i].count = number;
        else *fields[i].us = number < INT64_MAX / 2 ? (int64_t)number : 0;
    }
}

void route_stages_read(Str header, RouteStages *out) {
    *out = (RouteStages){.rail = "none", .told = header.length > 0};
    Str part, name;
    while (header.length && str_cut(&header, ';', &part)) {
        part = str_trim(part);
        str_cut(&part, '=', &name);
        stage_set(out, str_trim(name), part.at ? str_trim(part) : STR(""));
    }
}

/* ---- Baton-Trace ---- */

int64_t route_span_us(int64_t from, int64_t to) { return from && to > from ? to - from : 0; }

int64_t route_first_token_us(const RouteRecord *r) {
    bool whole = !r->stream && r->stages.told && r->stages.first_token_us && r->decode_began_us;
    return whole ? route_span_us(r->began_us, r->decode_began_us) + r->stages.first_token_us
                 : route_span_us(r->began_us, r->first_us);
}

static void put_count(Buf *out, const char *name, int64_t value) {
    char digits[24];
    size_t at = sizeof digits;
    uint64_t left = value < 0 ? 0 : (uint64_t)value;
    do digits[--at] = (char)('0' + left % 10);
    while (left /= 10);
    buf_str(out, name);
    buf_append(out, digits + at, sizeof digits - at);
}

void route_trace_put(const RouteRecord *r, bool whole, Buf *out) {
    buf_str(out, "id=");
    buf_str(out, r->id);
    buf_str(out, "; prefill=");
    buf_str(out, r->prefill ? r->prefill : "none");
    put_count(out, "/", (int64_t)r->prefill_tokens);
    buf_str(out, "; decode=");
    buf_str(out, r->decode ? r->decode : "none");
    put_count(out, "; computed=", (int64_t)r->stages.computed);
    put_count(out, "; cached=", (int64_t)r->stages.cached);
    put_count(out, "; pulled=", (int64_t)r->stages.pulled);
    put_count(out, "; bytes=", (int64_t)r->stages.bytes);
    buf_str(out, "; rail=");
    buf_str(out, *r->stages.rail ? r->stages.rail : "none");
    put_count(out, "; route_us=", route_span_us(r->began_us, r->called_us));
    put_count(out, "; prefill_us=", route_span_us(r->prefill_began_us, r->prefill_ended_us));
    put_count(out, "; transfer_us=", r->stages.transfer_us);
    put_count(out, "; first_token_us=", route_first_token_us(r));
    if (!whole) return;
    put_count(out, "; decode_us=", route_span_us(r->first_us, r->decode_ended_us));
    put_count(out, "; tokens=", r->usage.completion);
}

/* ---- the access log ---- */

typedef struct Durations { int64_t total, request, upstream, response; } Durations; /* ms */

/* A checkpoint that was not reached falls together with the next one. */
static Durations durations(const RouteRecord *r) {
    int64_t called = r->called_us ? r->called_us : r->ended_us;
    int64_t answered = r->decode_ended_us ? r->decode_ended_us : r->ended_us;
    return (Durations){
        .total = route_span_us(r->began_us, r->ended_us) / 1000,
        .request = route_span_us(r->began_us, called) / 1000,
        .upstream = route_span_us(called, answered) / 1000,
        .response = route_span_us(answered, r->ended_us) / 1000,
    };
}

typedef struct LogField { /* text, or else a number; left out when empty or 0, unless `always` */
    const char *key;
    const char *text;
    Str view;
    int64_t number;
    bool always;
} LogField;

#define LOG_FIELDS 40

static size_t fields_of(const RouteRecord *r, const char *time, LogField *f) {
    Durations ms = durations(r);
    const LogField all[] = {
        {"timestamp", time, .always = true},
        {"method", .view = r->method, .always = true},
        {"path", .view = r->path, .always = true},
        {"protocol", "HTTP/1.1", .always = true},
        {"status_code", .number = r->status, .always = true},
        {"error"}, /* its place: an object, written by hand */
        {"model_name", .view = r->model, .always = true},
        {"model_route", r->route},
        {"model_server", r->server},
        {"selected_pod", r->decode},
        {"request_id", r->id},
        {"backend_type", r->server ? "model_server" : NULL},
        {"backend_name", r->server},
        {"upstream_model", r->upstream_model},
        {"upstream_status_code", .number = r->upstream_status},
        {"upstream_attempts", .number = r->attempts},
        {"input_tokens", .number = r->usage.prompt > 0 ? r->usage.prompt : 0},
        {"output_tokens", .number = r->usage.completion > 0 ? r->usage.completion : 0},
        {"duration_total", .number = ms.total, .always = true},
        {"duration_request_processing", .number = ms.request, .always = true},
        {"duration_upstream_processing", .number = ms.upstream, .always = true},
        {"duration_response_processing", .number = ms.response, .always = true},
        {"client", .view = r->client},
        {"prefill_pod", r->prefill},
        {"prefill_tokens", .number = (int64_t)r->prefill_tokens},
        {"decode_pod", r->decode},
        {"computed_tokens", .number = (int64_t)r->stages.computed},
        {"cached_tokens", .number = (int64_t)r->stages.cached},
        {"pulled_tokens", .number = (int64_t)r->stages.pulled},
        {"transfer_bytes", .number = (int64_t)r->stages.bytes},
        {"rail", r->stages.told ? r->stages.rail : NULL},
        {"degraded", r->degraded},
        {"failed_stage", r->stage},
        {"route_us", .number = route_span_us(r->began_us, r->called_us)},
        {"prefill_us", .number = route_span_us(r->prefill_began_us, r->prefill_ended_us)},
        {"transfer_us", .number = r->stages.transfer_us},
        {"first_token_us", .number = route_first_token_us(r)},
        {"decode_us", .number = route_span_us(r->first_us, r->decode_ended_us)},
    };
    _Static_assert(COUNT_OF(all) <= LOG_FIELDS, "raise LOG_FIELDS");
    memcpy(f, all, sizeof all);
    return COUNT_OF(all);
}

static Str text_of(const LogField *field) {
    return field->text ? str_of(field->text) : field->view;
}
static bool is_number(const LogField *field) { return !field->text && !field->view.at; }
static bool is_shown(const LogField *field) {
    return field->always || field->number || text_of(field).length;
}

static void put_json(const RouteRecord *r, const LogField *fields, size_t count, Buf *out) {
    for (size_t i = 0; i < count; i++) {
        const LogField *field = &fields[i];
        if (!strcmp(field->key, "error") && r->error_type) {
            buf_printf(out, ",\"error\":{\"type\":\"%s\",\"message\":", r->error_type);
            buf_json_str(out, str_of(r->error));
            buf_char(out, '}');
        }
        if (!is_shown(field)) continue;
        buf_str(out, i ? ",\"" : "{\"");
        buf_str(out, field->key);
        buf_str(out, "\":");
        if (is_number(field)) buf_json_int(out, field->number);
        else buf_json_str(out, text_of(field));
    }
    buf_str(out, "}\n");
}

/* Values come from clients: no line end, and no blank that would let one pass for another field. */
static void put_plain(Buf *out, Str text, bool blanks) {
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        bool bad = c < ' ' || c == 127 || (c == ' ' && !blanks);
        buf_char(out, bad ? '_' : (char)c);
    }
}

static void put_text(const RouteRecord *r, const LogField *fields, size_t count, Buf *out) {
    Durations ms = durations(r);
    buf_printf(out, "[%s] \"", fields[0].text);
    put_plain(out, r->method, false);
    buf_char(out, ' ');
    put_plain(out, r->path, false);
    buf_printf(out, " HTTP/1.1\" %d", r->status);
    if (r->error_type) {
        buf_printf(out, " error=%s:", r->error_type);
        put_plain(out, str_of(r->error), true);
    }
    for (size_t i = 6; i < count; i++) {
        const LogField *field = &fields[i];
        if (!strcmp(field->key, "input_tokens")) {
            if (r->usage.prompt > 0 || r->usage.completion > 0)
                buf_printf(out, " tokens=%lld/%lld", (long long)field[0].number,
                           (long long)field[1].number);
            buf_printf(out, " timings=%lldms(%lld+%lld+%lld)", (long long)ms.total,
                       (long long)ms.request, (long long)ms.upstream, (long long)ms.response);
            i += 5; /* the durations stand there */
            continue;
        }
        if ((!field->number && !text_of(field).length)) continue;
        buf_printf(out, " %s=", field->key);
        if (is_number(field)) buf_json_int(out, field->number);
        else put_plain(out, text_of(field), false);
    }
    buf_char(out, '\n');
}

void route_log_put(const RouteRecord *record, RouteLogFormat format, Buf *out) {
    LogField fields[LOG_FIELDS];
    char time[32];
    if (format == ROUTE_LOG_OFF) return;
    clock_format(record->wall_us, time);
    size_t count = fields_of(record, time, fields);
    if (format == ROUTE_LOG_JSON) put_json(record, fields, count, out);
    else put_text(record, fields, count, out);
}
