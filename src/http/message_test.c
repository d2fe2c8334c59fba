// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdlib.h>
#include "message.h"
#include <cmocka.h>

/* Reads all of `bytes`, `piece` bytes at a time, and notes what came out as text. */
static void read_in_pieces(Message *m, Str bytes, size_t piece, bool eof, Buf *notes) {
    size_t at = 0;
    for (;;) {
        Part part = message_next(m);
        if (part == PART_HEAD) {
            if (m->is_request)
                buf_printf(notes, STR_FMT " " STR_FMT, STR_ARG(m->method), STR_ARG(m->target));
            else buf_printf(notes, "%d", m->status);
            if (m->http_10) buf_str(notes, " 1.0");
            if (!m->keep_alive) buf_str(notes, " close");
            for (size_t i = 0; i < m->header_count; i++)
                if (!text_same(m->headers[i].name, "host"))
                    buf_printf(notes, " [" STR_FMT "=" STR_FMT "]", STR_ARG(m->headers[i].name),
                               STR_ARG(m->headers[i].value));
        } else if (part == PART_BODY) {
            buf_append(notes, m->piece.at, m->piece.length);
        } else if (part == PART_END) {
            if (m->collect) buf_append(notes, message_body(m).at, message_body(m).length);
            buf_str(notes, ";");
            message_start(m);
        } else if (part == PART_BAD) {
            buf_printf(notes, "!%d %s", m->bad_status, m->problem);
            return;
        } else {
            size_t room, n = bytes.length - at < piece ? bytes.length - at : piece;
            if (n == 0) break;
            char *to = message_room(m, &room);
            if (n > room) n = room;
            memcpy(to, bytes.at + at, n);
            message_got(m, n);
            at += n;
        }
    }
    if (!eof) return;
    Part end = message_eof(m);
    if (end == PART_END) buf_str(notes, ";eof");
    if (end == PART_BAD) buf_printf(notes, "!%d %s", m->bad_status, m->problem);
}

typedef struct Case {
    const char *bytes, *want;
} Case;

static void check_cases(const Case *cases, size_t count, bool is_request, bool eof) {
    static const size_t pieces[] = {1, 2, 3, 7, 64, 100000};
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < COUNT_OF(pieces); p++)
            for (int collect = 0; collect < 2; collect++) {
                auto_buf Buf notes = {0};
                Message m;
                message_init(&m, is_request);
                m.collect = collect;
                m.max_body = 20;
                read_in_pieces(&m, str_of(cases[i].bytes), pieces[p], eof, &notes);
                if (strcmp(notes.at ? notes.at : "", cases[i].want) != 0)
                    fail_msg("%s\nin pieces of %zu, collect %d\ngot  %s\nwant %s", cases[i].bytes,
                             pieces[p], collect, notes.at, cases[i].want);
                message_done(&m);
            }
}

#define H "Host: h\r\n"

static void requests_are_read_however_they_are_cut(void **state) {
    (void)state;
    static const Case cases[] = {
        {"GET /a?b=c HTTP/1.1\r\n" H "\r\n", "GET /a?b=c;"},
        {"GET / HTTP/1.0\r\n\r\n", "GET / 1.0 close;"},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / 1.0 [Connection=keep-alive];"},
        {"GET / HTTP/1.1\r\n" H "Connection: x, Close\r\n\r\n",
         "GET / close [Connection=x, Close];"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
         "POST / [Content-Length=5]hello;"},
        {"POST / HTTP/1.1\r\n" H "Content-Length:0\r\n\r\n", "POST / [Content-Length=0];"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
         "3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
         "POST / [Transfer-Encoding=Chunked]abc0123456789;"},
        {"\r\n\r\nGET /1 HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H
         "\r\n\r\nPOST /3 HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nxGET /4 HTTP/1.1\r\n" H "\r\n",
         "GET /1;GET /2;POST /3 [Content-Length=1]x;GET /4;"},
        {"BREW /pot HTTP/1.1\r\n" H "\r\n", "BREW /pot;"},
        {"M-SEARCH * HTTP/1.1\r\n" H "\r\n", "M-SEARCH *;"},
        {"GET http://h/x HTTP/1.1\r\n" H "\r\n", "GET http://h/x;"},
        {"GET / HTTP/1.1\r\n" H "Empty:\r\nBlanks: \t a b \t \r\nX-\x41~!: \xc3\xa9\r\n\r\n",
         "GET / [Empty=] [Blanks=a b] [X-A~!=\xc3\xa9];"},
        {"GET / HTTP/1.1\r\n" H "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nGET /2 HTTP/1.1\r\n" H
         "\r\n",
         "GET / [Upgrade=h2c] [Connection=Upgrade];GET /2;"},
        {"GET /half HTTP/1.1\r\nHos", ""},
    };
    check_cases(cases, COUNT_OF(cases), true, false);
}

#define TWICE "!400 content-length is given twice, or with a transfer-encoding"
#define CHUNKS "!400 the chunks of the body are malformed"
#define TE "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
#define TE_READ "POST / [Transfer-Encoding=chunked]"

static void what_could_pass_for_two_different_messages_is_refused(void **state) {
    (void)state;
    static const Case cases[] = {
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", TWICE},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", TWICE},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", TWICE},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", TWICE},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         "!400 transfer-encoding is given twice"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n",
         "!501 the transfer-encoding is not chunked"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n",
         "!501 the transfer-encoding is not chunked"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n",
         "!501 the transfer-encoding is not chunked"},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
         "!400 transfer-encoding came with HTTP/1.0"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n",
         "!400 the name of a header field has a character that it cannot have"},
        {"POST / HTTP/1.1\r\n" H "X: a\r\n Content-Length: 5\r\n\r\n",
         "!400 a header field is folded over two lines"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n",
         "!400 invalid character in content-length header"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n",
         "!400 invalid character in content-length header"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n",
         "!400 invalid character in content-length header"},
        {"GET / HTTP/1.1\nHost: h\r\n\r\n", "!400 a line of the head does not end in CR LF"},
        {"GET / HTTP/1.1\r\nHost: h\n\r\n", "!400 a line of the head does not end in CR LF"},
        {"GET / HTTP/1.1\r\nHost: h\r\n\n", "!400 a line of the head does not end in CR LF"},
        {"GET / HTTP/1.1\r\nHost: h\r\n\rX", "!400 a line of the head does not end in CR LF"},
        {"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", "!400 LF character expected"},
        {TE "5\nhello", TE_READ CHUNKS},
        {TE "5 \r\nhello", TE_READ CHUNKS},
        {TE "0x5\r\nhello", TE_READ CHUNKS},
        {TE "-5\r\nhello", TE_READ CHUNKS},
        {TE "\r\n", TE_READ CHUNKS},
        {TE "5;a\nb\r\nhello", TE_READ CHUNKS},
        {TE "10000000000000000\r\nhello", TE_READ CHUNKS},
        {TE "0\r\nX: y\n\r\n", TE_READ CHUNKS},
        {TE "0\r\n\rX", TE_READ CHUNKS},
    };
    check_cases(cases, COUNT_OF(cases), true, false);
    static const Case ends[] = {{TE "1\r\naXX", "POST / [Transfer-Encoding=chunked]"}};
    for (int piece = 1; piece < 100; piece += 98) { /* what came before may have been handed out */
        auto_buf Buf notes = {0};
        Message m;
        message_init(&m, true);
        read_in_pieces(&m, str_of(ends[0].bytes), (size_t)piece, false, &notes);
        assert_string_equal(notes.at, TE_READ "a" CHUNKS);
        message_done(&m);
    }
}

static void what_is_no_request_is_refused(void **state) {
    (void)state;
    static const Case cases[] = {
        {"hello\r\n\r\n", "!400 the request line does not begin with a method"},
        {" GET / HTTP/1.1\r\n\r\n", "!400 the request line does not begin with a method"},
        {"GET( / HTTP/1.1\r\n\r\n", "!400 the request line does not begin with a method"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n\r\n",
         "!400 the request line does not begin with a method"},
        {"\x16\x03\x01\x02", "!400 this port speaks plain HTTP, not TLS: use http://"},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505 this is not HTTP/1.1 or HTTP/1.0"},
        {"GET / HTTP/3.0\r\n\r\n", "!505 this is not HTTP/1.1 or HTTP/1.0"},
        {"GET /\r\n\r\n", "!400 the first line does not name HTTP"},
        {"GET / HTTX/1.1\r\n\r\n", "!400 the first line does not name HTTP"},
        {"GET /  HTTP/1.1\r\n\r\n", "!400 the first line does not name HTTP"},
        {"CONNECT h:443 HTTP/1.1\r\n" H "\r\n", "!400 invalid URL"},
        {"GET / HTTP/1.1\r\n\r\n", "!400 host is missing"},
        {"GET / HTTP/1.1\r\n" H H "\r\n", "!400 host is given twice"},
        {"GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", "!400 invalid character in header"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n",
         "POST / [Content-Length=3]!400 the connection ended in the middle of it"},
        {TE, TE_READ "!400 the connection ended in the middle of it"},
        {"GET / HTTP/1.1\r\n", "!400 the connection ended in the middle of it"},
        {"", ""},
        {"\r\n", ""},
    };
    check_cases(cases, COUNT_OF(cases), true, true);
}

static void replies_are_read_however_they_are_cut(void **state) {
    (void)state;
    static const Case cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 [Content-Length=5]hello;"},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 [Content-Length=0];"},
        {"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
         "204;304 [Content-Length=9];"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
         "2\r\nhi\r\n0\r\n\r\n", "100;200 [Transfer-Encoding=chunked]hi;"},
        {"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end", "200 close [X=y]until the end;eof"},
        {"HTTP/1.0 200 OK\r\n\r\n", "200 1.0 close;eof"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123",
         "200 [Content-Length=9]123!400 the connection ended in the middle of it"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", TWICE},
        {"SSH-2.0-x\r\n\r\n", "!400 invalid constant string"},
        {"HTTX/1.1 200 OK\r\n\r\n", "!400 the first line does not name HTTP"},
    };
    static const size_t pieces[] = {1, 5, 100000};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t p = 0; p < COUNT_OF(pieces); p++) {
            auto_buf Buf notes = {0};
            Message m;
            message_init(&m, false);
            read_in_pieces(&m, str_of(cases[i].bytes), pieces[p], true, &notes);
            assert_string_equal(notes.at, cases[i].want);
            message_done(&m);
        }
}

static void heads_have_limits(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (size_t piece = 1; piece < 1000000; piece *= 997) {
            auto_buf Buf bytes = {0}, notes = {0};
            buf_str(&bytes, kind == 0 ? "GET /" : "GET / HTTP/1.1\r\n" H);
            for (size_t i = 0; i < LIMIT_HTTP_HEADERS && kind == 2;
                 i++) /* one too many with host */
                buf_str(&bytes, "A: b\r\n");
            for (size_t i = 0; i < LIMIT_HTTP_HEADERS - 1 && kind == 3; i++)
                buf_str(&bytes, "A: b\r\n");
            for (size_t i = 0; i < 70000 && kind < 2; i++) buf_str(&bytes, kind ? "A: b\r\n" : "a");
            buf_str(&bytes, kind ? "\r\n" : " HTTP/1.1\r\n" H "\r\n");
            Message m;
            message_init(&m, true);
            read_in_pieces(&m, (Str){bytes.at, bytes.length}, piece, false, &notes);
            static const char *const want[] = {"!431 the head is too long",
                                               "!431 too many header fields",
                                               "!431 too many header fields"};
            if (kind < 3) assert_string_equal(notes.at, want[kind]);
            else assert_true(str_starts((Str){notes.at, notes.length}, "GET / [A=b]"));
            message_done(&m);
        }
}

static void a_collected_body_has_a_limit_and_announcing_costs_nothing(void **state) {
    (void)state;
    static const Case cases[] = {
        {"POST / HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", "!413 the body is too large"},
        {TE "3E8\r\n", TE_READ},
        {TE "3E9\r\n", TE_READ},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf notes = {0}, bytes = {0};
        buf_str(&bytes, cases[i].bytes);
        for (int n = 0; n < 1001; n++) buf_char(&bytes, 'x');
        Message m;
        message_init(&m, true);
        m.collect = true;
        m.max_body = 1000;
        read_in_pieces(&m, (Str){bytes.at, bytes.length}, 10, false, &notes);
        if (i == 0) assert_string_equal(notes.at, cases[i].want);
        if (i == 1) assert_string_equal(notes.at, TE_READ CHUNKS); /* 1000 do, the next is no CR */
        if (i == 2) assert_string_equal(notes.at, TE_READ "!413 the body is too large");
        message_done(&m);
    }
    auto_buf Buf notes = {0};
    Message m;
    message_init(&m, true);
    m.collect = true;
    m.max_body = GIB;
    read_in_pieces(&m, STR("POST / HTTP/1.1\r\n" H "Content-Length: 1000000000\r\n\r\nx"), 100,
                   false, &notes);
    assert_true(m.head_capacity + m.body_capacity < 100000);
    message_done(&m);
}

static void bodies_of_all_sizes_arrive_whole(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 16000, 16384, 20000, 70000, 3000000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (int chunked = 0; chunked < 2; chunked++) {
            size_t size = sizes[i];
            auto_buf Buf bytes = {0};
            auto_free char *body = mem_new(size);
            for (size_t k = 0; k < size; k++) body[k] = (char)(k * 7 + k / 256);
            if (!chunked) {
                buf_printf(&bytes, "POST /first HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
                           size);
                buf_append(&bytes, body, size);
            } else {
                buf_str(&bytes, TE);
                for (size_t at = 0, n; at < size; at += n) {
                    n = size - at < 5000 ? size - at : 5000;
                    buf_printf(&bytes, "%zx\r\n", n);
                    buf_append(&bytes, body + at, n);
                    buf_str(&bytes, "\r\n");
                }
                buf_str(&bytes, "0\r\n\r\n");
            }
            buf_str(&bytes, "GET /next HTTP/1.1\r\n" H "\r\n"); /* right behind it */
            Message m;
            message_init(&m, true);
            m.collect = true;
            m.max_body = size;
            size_t at = 0;
            for (Part part; (part = message_next(&m)) != PART_END;) {
                assert_int_not_equal(part, PART_BAD);
                if (part != PART_MORE) continue;
                size_t room;
                char *to = message_room(&m, &room);
                assert_true(room > 0);
                if (room > bytes.length - at) room = bytes.length - at;
                memcpy(to, bytes.at + at, room);
                at += room;
                message_got(&m, room);
            }
            message_keep_room(&m);
            assert_int_equal(message_body(&m).length, size);
            assert_memory_equal(message_body(&m).at, body, size);
            assert_true(str_eq(m.method, "POST"));
            message_start(&m);
            auto_buf Buf notes = {0};
            read_in_pieces(&m, (Str){bytes.at + at, bytes.length - at}, 1000, false, &notes);
            assert_string_equal(notes.at, "GET /next;");
            message_done(&m);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_read_however_they_are_cut),
        cmocka_unit_test(what_could_pass_for_two_different_messages_is_refused),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(replies_are_read_however_they_are_cut),
        cmocka_unit_test(heads_have_limits),
        cmocka_unit_test(a_collected_body_has_a_limit_and_announcing_costs_nothing),
        cmocka_unit_test(bodies_of_all_sizes_arrive_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
