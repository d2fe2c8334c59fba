// SPDX-License-Identifier: Apache-2.0
#include "message.h"

#include <stdlib.h>

#define HEAD_FIRST (16 * KIB) /* of a connection's buffer: most requests, and reads of streams */
#define ROOM_LEAST (4 * KIB)  /* behind a head, for the pieces of a body */
#define ROOM_IDLE 256         /* behind a whole request */
#define METHOD_LONGEST 32
#define EXTENSIONS (4 * KIB) /* of one chunk */

/* ---- buffers ---- */

static char *region(const Message *m) { return m->spilled ? m->body : m->head; }
static size_t capacity(const Message *m) {
    return m->spilled ? m->body_capacity : m->head_capacity;
}
static size_t body_start(const Message *m) { return m->spilled ? 0 : m->head_length; }

static void rebase(Str *view, const char *from, char *to) {
    if (view->at) view->at = to + (view->at - from);
}

static void head_grow(Message *m, size_t size) {
    char *fresh = mem_grow(NULL, size);
    if (m->head) memcpy(fresh, m->head, m->spilled ? m->head_length : m->length);
    rebase(&m->method, m->head, fresh);
    rebase(&m->target, m->head, fresh);
    for (size_t i = 0; i < m->header_count; i++) {
        rebase(&m->headers[i].name, m->head, fresh);
        rebase(&m->headers[i].value, m->head, fresh);
    }
    free(m->head);
    m->head = fresh;
    m->head_capacity = size;
}

/* Room for twice as much, or for all that was announced: never for more than a sender has made
 * probable, since announcing costs nothing. */
static size_t body_size(const Message *m) {
    size_t size = 2 * (m->body_length + (m->length - m->parsed)) + HEAD_FIRST;
    size_t whole = m->body_length + (size_t)m->left + ROOM_IDLE;
    return m->framing == BODY_LENGTH && whole < size && whole > m->length ? whole : size;
}

static void body_grow(Message *m) {
    size_t size = body_size(m);
    if (!m->spilled) {
        size_t kept = m->length - m->head_length;
        m->body = mem_grow(NULL, size);
        memcpy(m->body, m->head + m->head_length, kept);
        m->parsed -= m->head_length;
        m->length = kept;
        m->spilled = true;
    } else {
        m->body = mem_grow(m->body, size);
    }
    m->body_capacity = size;
}

char *message_room(Message *m, size_t *length) {
    if (m->head_read && m->parsed == m->length && m->stage != STAGE_END)
        m->parsed = m->length = body_start(m) + (m->collect ? m->body_length : 0);
    if (m->length == capacity(m) && m->stage != STAGE_END) {
        if (!m->head_read) head_grow(m, m->head_capacity ? 2 * m->head_capacity : HEAD_FIRST);
        else if (m->collect) body_grow(m);
    }
    *length = capacity(m) - m->length;
    return region(m) + m->length;
}

void message_got(Message *m, size_t length) {
    m->length += length;
    assert(m->length <= capacity(m));
}

void message_keep_room(Message *m) {
    if (capacity(m) - m->length >= ROOM_IDLE) return;
    if (!m->spilled) {
        head_grow(m, m->length + ROOM_IDLE);
        return;
    }
    m->body_capacity = m->length + ROOM_IDLE;
    m->body = mem_grow(m->body, m->body_capacity);
}

size_t message_unread(const Message *m) { return m->length - m->parsed; }

bool message_begun(const Message *m) {
    if (m->stage != STAGE_HEAD) return m->stage == STAGE_BODY;
    return m->is_request ? m->has_method || m->parsed < m->length : m->length > 0;
}

Str message_body(const Message *m) { return (Str){region(m) + body_start(m), m->body_length}; }

/* ---- the head ---- */

static Part bad(Message *m, int status, const char *problem) {
    m->stage = STAGE_BAD;
    if (!m->problem) {
        m->bad_status = status;
        m->problem = problem;
    }
    return PART_BAD;
}

/* http-parser calls these with pieces that lie one behind the other in `head`. */
static void extend(Str *view, const char *at, size_t length) {
    if (!view->at) view->at = at;
    view->length += length;
}

static int on_target(http_parser *parser, const char *at, size_t length) {
    Message *m = parser->data;
    extend(&m->target, at, length);
    return 0;
}

static int on_name(http_parser *parser, const char *at, size_t length) {
    Message *m = parser->data;
    if (m->header_count == 0 || m->in_value) {
        if (m->header_count == LIMIT_HTTP_HEADERS) {
            bad(m, 431, "too many header fields");
            return 1;
        }
        mem_reserve(m->headers, m->header_capacity, m->header_count + 1);
        m->headers[m->header_count++] = (HttpHeader){{NULL, 0}, {NULL, 0}};
        m->in_value = false;
    }
    extend(&m->headers[m->header_count - 1].name, at, length);
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length) {
    Message *m = parser->data;
    Str *value = &m->headers[m->header_count - 1].value;
    m->in_value = true;
    if (value->at && value->at + value->length != at) {
        bad(m, 400, "a header field is folded over two lines");
        return 1;
    }
    extend(value, at, length);
    return 0;
}

static int on_head_read(http_parser *parser) {
    ((Message *)parser->data)->head_read = true;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings calls = {
    .on_url = on_target,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_head_read,
};

/* http-parser knows a list of methods; we let the handler decide, and tell it GET. */
static Part read_method(Message *m) {
    while (m->parsed < m->length && (m->head[m->parsed] == '\r' || m->head[m->parsed] == '\n'))
        m->parsed++; /* blank lines before a request are to be ignored: RFC 9112, 2.2 */
    Str all = {m->head + m->parsed, m->length - m->parsed}, method = all;
    const char *blank = all.length ? memchr(all.at, ' ', all.length) : NULL;
    if (blank) method.length = (size_t)(blank - all.at);
    if (all.length && all.at[0] == 0x16) /* a TLS handshake begins so */
        return bad(m, 400, "this port speaks plain HTTP, not TLS: use http://");
    if ((method.length && !is_token(method)) || method.length > METHOD_LONGEST ||
        (blank && !method.length))
        return bad(m, 400, "the request line does not begin with a method");
    if (!blank) return PART_MORE;
    m->method = method;
    m->has_method = true;
    m->parsed += method.length + 1;
    http_parser_execute(&m->parser, &calls, "GET ", 4);
    return PART_MORE;
}

/* Anything but CR LF ends lines for some readers and not for others. */
static bool lines_end_in_crlf(const Message *m) {
    const char *at = m->head, *end = m->head + m->head_length, *lf;
    while (at < end && (*at == '\r' || *at == '\n')) at++; /* blank lines before it */
    for (; (lf = memchr(at, '\n', (size_t)(end - at))); at = lf + 1) {
        if (lf == at || lf[-1] != '\r') return false;
        if (lf - 1 > at && memchr(at, '\r', (size_t)(lf - 1 - at))) return false;
    }
    return at == end;
}

/* http-parser, as distributions build it, takes any four letters for HTTP. */
static bool says_http(const Message *m) {
    const char *at = m->head, *end = m->head + m->head_length;
    while (at < end && (*at == '\r' || *at == '\n')) at++;
    if (m->is_request) at = m->target.at + m->target.length;
    Str rest = {at, (size_t)(end - at)};
    return str_starts(rest, m->is_request ? " HTTP/" : "HTTP/");
}

/* The field, if it is there once at most. */
static bool single(const Message *m, const char *name, Str *value) {
    size_t count = 0;
    *value = (Str){NULL, 0};
    for (size_t i = 0; i < m->header_count; i++)
        if (text_same(m->headers[i].name, name)) {
            *value = m->headers[i].value;
            count++;
        }
    return count <= 1;
}

static Part check_framing(Message *m) {
    Str coding, length;
    if (!single(m, "transfer-encoding", &coding))
        return bad(m, 400, "transfer-encoding is given twice");
    if (!single(m, "content-length", &length) || (coding.at && length.at))
        return bad(m, 400, "content-length is given twice, or with a transfer-encoding");
    if (coding.at && m->http_10) return bad(m, 400, "transfer-encoding came with HTTP/1.0");
    if (coding.at && !text_same(coding, "chunked"))
        return bad(m, 501, "the transfer-encoding is not chunked");
    m->framing = BODY_NONE;
    if (m->no_body || (m->status && (m->status < 200 || m->status == 204 || m->status == 304)))
        return PART_HEAD;
    if (coding.at) m->framing = BODY_CHUNKED;
    else if (length.at) m->framing = BODY_LENGTH;
    else if (!m->is_request) m->framing = BODY_UNTIL_CLOSE;
    m->left = m->framing == BODY_LENGTH ? m->parser.content_length : 0;
    if (m->collect && m->left > m->max_body) return bad(m, 413, "the body is too large");
    if (m->framing == BODY_LENGTH && m->left == 0) m->framing = BODY_NONE;
    return PART_HEAD;
}

static Part check_request(Message *m) {
    Str host, expect = http_header(message_headers(m), "expect");
    if (!single(m, "host", &host)) return bad(m, 400, "host is given twice");
    if (!host.at && !m->http_10) return bad(m, 400, "host is missing");
    if (expect.at && !m->http_10) {
        m->expects_continue = text_same(expect, "100-continue");
        m->expects_unknown = !m->expects_continue;
    }
    return PART_HEAD;
}

static Part check_head(Message *m) {
    if (!lines_end_in_crlf(m)) return bad(m, 400, "a line of the head does not end in CR LF");
    if (!says_http(m)) return bad(m, 400, "the first line does not name HTTP");
    if (m->parser.http_major != 1) return bad(m, 505, "this is not HTTP/1.1 or HTTP/1.0");
    for (size_t i = 0; i < m->header_count; i++) {
        if (!is_token(m->headers[i].name))
            return bad(m, 400, "the name of a header field has a character that it cannot have");
        m->headers[i].value = str_trim(m->headers[i].value);
    }
    m->http_10 = m->parser.http_minor == 0;
    m->keep_alive = m->http_10 ? (m->parser.flags & F_CONNECTION_KEEP_ALIVE) != 0
                               : (m->parser.flags & F_CONNECTION_CLOSE) == 0;
    m->status = m->is_request ? 0 : m->parser.status_code;
    if (m->is_request && check_request(m) == PART_BAD) return PART_BAD;
    if (check_framing(m) == PART_BAD) return PART_BAD;
    if (m->framing == BODY_UNTIL_CLOSE) m->keep_alive = false;
    m->stage = m->framing == BODY_NONE ? STAGE_END : STAGE_BODY;
    return PART_HEAD;
}

static Part parser_refused(Message *m) {
    enum http_errno number = HTTP_PARSER_ERRNO(&m->parser);
    if (number == HPE_HEADER_OVERFLOW) return bad(m, 431, "the head is too long");
    if (number == HPE_UNEXPECTED_CONTENT_LENGTH)
        return bad(m, 400, "content-length is given twice, or with a transfer-encoding");
    return bad(m, 400, http_errno_description(number));
}

static Part read_head(Message *m) {
    if (m->is_request && !m->has_method && read_method(m) == PART_BAD) return PART_BAD;
    size_t end = m->length < LIMIT_HTTP_HEADER ? m->length : LIMIT_HTTP_HEADER;
    if (m->parsed < end && (m->has_method || !m->is_request)) {
        m->parsed +=
            http_parser_execute(&m->parser, &calls, m->head + m->parsed, end - m->parsed);
        if (m->stage == STAGE_BAD) return PART_BAD; /* told by one of the calls */
        if (m->head_read) {
            m->head_length = ++m->parsed; /* the parser stopped in front of the last LF */
            if (check_head(m) == PART_BAD) return PART_BAD;
            if (!m->collect && m->head_capacity - m->head_length < ROOM_LEAST)
                head_grow(m, m->length + ROOM_LEAST);
            return PART_HEAD;
        }
        if (HTTP_PARSER_ERRNO(&m->parser) != HPE_OK) return parser_refused(m);
    }
    if (m->length >= LIMIT_HTTP_HEADER) return bad(m, 431, "the head is too long");
    return PART_MORE;
}

/* ---- the body ---- */

/* n bytes at `parsed` belong to the body. */
static Part take_body(Message *m, size_t n) {
    char *from = region(m) + m->parsed;
    m->parsed += n;
    if (!m->collect) {
        m->piece = (Str){from, n};
        return PART_BODY;
    }
    if (n > m->max_body - m->body_length) return bad(m, 413, "the body is too large");
    char *to = region(m) + body_start(m) + m->body_length;
    if (to != from) memmove(to, from, n); /* over the framing of chunks */
    m->body_length += n;
    return PART_MORE;
}

static Part read_length(Message *m) {
    size_t n = message_unread(m);
    if (m->framing == BODY_LENGTH && n > m->left) n = (size_t)m->left;
    if (n == 0) return PART_MORE;
    if (m->framing == BODY_LENGTH && (m->left -= n) == 0) m->stage = STAGE_END;
    return take_body(m, n);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One byte of what stands around the data. */
static Part chunk_byte(Message *m, char c) {
    static const struct { /* bytes that lead on by themselves; 0: see below */
        char must_be;
        Chunk next;
    } steps[] = {
        [CHUNK_DATA_CR] = {'\r', CHUNK_DATA_LF},
        [CHUNK_DATA_LF] = {'\n', CHUNK_SIZE_FIRST},
        [CHUNK_TRAILER_LF] = {'\n', CHUNK_TRAILER_FIRST},
        [CHUNK_END_LF] = {'\n', CHUNK_END_LF},
    };
    int digit = hex_digit(c);
    bool wrong = false;
    switch (m->chunk) {
    case CHUNK_SIZE_FIRST:
        wrong = digit < 0;
        m->left = (uint64_t)digit;
        m->line = 0;
        m->chunk = CHUNK_SIZE;
        break;
    case CHUNK_SIZE:
        if (digit >= 0) {
            wrong = m->left >> 59 != 0;
            m->left = m->left << 4 | (uint64_t)digit;
        } else {
            wrong = c != '\r' && c != ';';
            m->chunk = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
        }
        break;
    case CHUNK_EXTENSION:
        wrong = c == '\n' || ++m->line > EXTENSIONS;
        if (c == '\r') m->chunk = CHUNK_SIZE_LF;
        break;
    case CHUNK_SIZE_LF:
        wrong = c != '\n';
        m->line = 0;
        m->chunk = m->left ? CHUNK_DATA : CHUNK_TRAILER_FIRST;
        break;
    case CHUNK_TRAILER_FIRST:
    case CHUNK_TRAILER: /* trailers are read over */
        wrong = c == '\n' || ++m->line > LIMIT_HTTP_HEADER;
        if (c != '\r') m->chunk = CHUNK_TRAILER;
        else m->chunk = m->chunk == CHUNK_TRAILER ? CHUNK_TRAILER_LF : CHUNK_END_LF;
        break;
    default:
        wrong = c != steps[m->chunk].must_be;
        if (m->chunk == CHUNK_END_LF) m->stage = STAGE_END;
        m->chunk = steps[m->chunk].next;
    }
    return wrong ? bad(m, 400, "the chunks of the body are malformed") : PART_MORE;
}

static Part read_chunks(Message *m) {
    while (m->parsed < m->length && m->stage == STAGE_BODY) {
        if (m->chunk != CHUNK_DATA) {
            if (chunk_byte(m, region(m)[m->parsed++]) == PART_BAD) return PART_BAD;
            continue;
        }
        size_t n = message_unread(m);
        if (n > m->left) n = (size_t)m->left;
        if ((m->left -= n) == 0) m->chunk = CHUNK_DATA_CR;
        Part part = take_body(m, n);
        if (part != PART_MORE) return part;
    }
    return PART_MORE;
}

Part message_next(Message *m) {
    if (m->stage == STAGE_HEAD) return m->length > m->parsed ? read_head(m) : PART_MORE;
    if (m->stage == STAGE_BODY) {
        Part part = m->framing == BODY_CHUNKED ? read_chunks(m) : read_length(m);
        if (part != PART_MORE) return part;
    }
    if (m->stage == STAGE_END) return PART_END;
    return m->stage == STAGE_BAD ? PART_BAD : PART_MORE;
}

Part message_eof(Message *m) {
    if (m->stage == STAGE_BODY && m->framing == BODY_UNTIL_CLOSE) m->stage = STAGE_END;
    if (m->stage == STAGE_END) return PART_END;
    if (!message_begun(m)) return PART_MORE;
    return bad(m, 400, "the connection ended in the middle of it");
}

/* ---- from one to the next ---- */

void message_start(Message *m) {
    size_t rest = message_unread(m);
    const char *from = region(m) + m->parsed;
    if (m->spilled) {
        if (rest > m->head_capacity) {
            free(m->head);
            m->head = mem_grow(NULL, m->head_capacity = rest);
        }
        memcpy(m->head, from, rest);
    } else if (rest) {
        memmove(m->head, from, rest);
    }
    if (m->head_capacity > LIMIT_HTTP_HEADER && rest <= HEAD_FIRST)
        m->head = mem_grow(m->head, m->head_capacity = HEAD_FIRST); /* once was large */
    free(m->body);
    m->body = NULL;
    m->body_capacity = m->body_length = m->head_length = m->parsed = 0;
    m->length = rest;
    m->spilled = m->has_method = m->in_value = m->head_read = false;
    m->expects_continue = m->expects_unknown = m->http_10 = m->keep_alive = false;
    m->method = m->target = m->piece = (Str){NULL, 0};
    m->status = m->bad_status = 0;
    m->problem = NULL;
    m->header_count = m->line = 0;
    m->left = 0;
    m->stage = STAGE_HEAD;
    m->chunk = CHUNK_SIZE_FIRST;
    http_parser_init(&m->parser, m->is_request ? HTTP_REQUEST : HTTP_RESPONSE);
    m->parser.data = m;
}

void message_init(Message *m, bool is_request) {
    *m = (Message){.is_request = is_request};
    message_start(m);
}

void message_done(Message *m) {
    free(m->headers);
    free(m->head);
    free(m->body);
    *m = (Message){0};
}
