// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <http_parser.h>
#include <strings.h>

/* RFC 9110, 5.6.2, as one bit for each of the 128 characters. */
static const uint32_t token_bits[4] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};

static bool is_token_char(unsigned char c) { return c < 128 && (token_bits[c / 32] >> c % 32 & 1); }

bool is_token(Str text) {
    for (size_t i = 0; i < text.length; i++)
        if (!is_token_char((unsigned char)text.at[i])) return false;
    return text.length > 0;
}

bool text_same(Str a, const char *lower) {
    return a.length == strlen(lower) && !strncasecmp(a.at, lower, a.length);
}

Str http_header(HttpHeaders headers, const char *name) {
    size_t length = strlen(name);
    for (size_t i = 0; i < headers.count; i++)
        if (headers.at[i].name.length == length &&
            !strncasecmp(headers.at[i].name.at, name, length))
            return headers.at[i].value;
    return (Str){NULL, 0};
}

const char *http_status_text(int status) {
    const char *text = http_status_str((enum http_status)status);
    return text[0] == '<' ? "Unknown" : text;
}

/* A line end in a value would begin a header of its own, or a reply. */
static void put_value(Buf *out, Str value) {
    size_t begin = out->length;
    buf_append(out, value.at, value.length);
    for (size_t i = begin; i < out->length; i++) {
        unsigned char c = (unsigned char)out->at[i];
        if ((c < ' ' && c != '\t') || c == 127) out->at[i] = ' ';
    }
    buf_append(out, "\r\n", 2);
}

void header_put(Buf *out, const char *name, Str value) {
    buf_str(out, name);
    buf_append(out, ": ", 2);
    put_value(out, value);
}

void header_put_number(Buf *out, const char *name, uint64_t value) {
    char digits[20], *at = digits + sizeof digits;
    do *--at = (char)('0' + value % 10);
    while (value /= 10);
    header_put(out, name, (Str){at, (size_t)(digits + sizeof digits - at)});
}

static const struct {
    Str name;
    bool in_request, in_reply; /* left out there */
} ours[] = {
    {STR("connection"), true, true},
    {STR("content-length"), true, true},
    {STR("date"), false, true},
    {STR("expect"), true, false},
    {STR("host"), true, false},
    {STR("keep-alive"), true, true},
    {STR("proxy-authenticate"), true, true},
    {STR("proxy-authorization"), true, true},
    {STR("proxy-connection"), true, true},
    {STR("server"), false, true},
    {STR("te"), true, true},
    {STR("trailer"), true, true},
    {STR("transfer-encoding"), true, true},
    {STR("upgrade"), true, true},
};

static bool is_ours(HeadersOf what, Str name) {
    for (size_t i = 0; i < COUNT_OF(ours); i++)
        if (ours[i].name.length == name.length &&
            !strncasecmp(ours[i].name.at, name.at, name.length))
            return what == OF_REQUEST ? ours[i].in_request : ours[i].in_reply;
    return false;
}

/* "connection: close, x-hop" names further fields that end here. */
static bool is_named(Str connection, Str name) {
    Str word;
    while (str_cut(&connection, ',', &word)) {
        word = str_trim(word);
        if (word.length == name.length && !strncasecmp(word.at, name.at, name.length)) return true;
    }
    return false;
}

void headers_put(Buf *out, HeadersOf what, HttpHeaders headers, bool has_content_type) {
    Str connection = http_header(headers, "connection");
    for (size_t i = 0; i < headers.count; i++) {
        Str name = headers.at[i].name;
        if (is_ours(what, name) || !is_token(name) || is_named(connection, name)) continue;
        if (has_content_type && text_same(name, "content-type")) continue;
        buf_append(out, name.at, name.length);
        buf_append(out, ": ", 2);
        put_value(out, headers.at[i].value);
    }
}
