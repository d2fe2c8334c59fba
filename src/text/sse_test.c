// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdlib.h>
#include "text.h"
#include <cmocka.h>

static void note_event(Str event, Str data, void *user) {
    buf_printf(user, "<" STR_FMT "|" STR_FMT ">", STR_ARG(event), STR_ARG(data));
}

static void note_comment(Str text, void *user) { buf_printf(user, "#" STR_FMT "#", STR_ARG(text)); }

static void start(SseReader *reader, size_t limit, Buf *notes) {
    sse_init(reader, limit);
    reader->on_event = note_event;
    reader->on_comment = note_comment;
    reader->user = notes;
}

static void events_are_the_same_in_whatever_pieces_they_come(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"data: {\"a\": 1}\n\ndata: [DONE]\n\n", "<|{\"a\": 1}><|[DONE]>"},
        {"event: error\r\ndata: x\r\n\r\n", "<error|x>"},
        {"data: a\rdata: b\r\r", "<|a\nb>"},
        {"data: a\r\n\r\n\r\ndata:  b\n\n", "<|a><| b>"}, /* one blank belongs to the colon */
        {": keep-alive\n\n:\n\ndata:x\n\n", "# keep-alive###<|x>"},
        {"data\n\n", "<|>"},
        {"data:\ndata\n\n", "<|\n>"},
        {"event: lost\n\ndata: x\n\n", "<|x>"}, /* no data: no event, and its name is forgotten */
        {"id: 7\nretry: 10\nother: y\ndata: x\n\n", "<|x>"},
        {"\xef\xbb\xbf"
         "data: x\n\n",
         "<|x>"},
        {"data: not ended\n", ""},
        {"data: not ended", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t length = strlen(cases[i][0]);
        for (size_t piece = 1; piece <= length; piece++) {
            auto_buf Buf notes = {0};
            SseReader reader;
            start(&reader, 100, &notes);
            for (size_t at = 0; at < length; at += piece) {
                size_t left = length - at;
                assert_true(
                    sse_feed(&reader, (Str){cases[i][0] + at, left < piece ? left : piece}));
            }
            assert_string_equal(notes.at ? notes.at : "", cases[i][1]);
            sse_done(&reader);
        }
    }
}

static void an_event_over_the_limit_ends_the_reading(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t line_limit, data_limit;
    } cases[] = {
        {"data: 0123456789\n", 15, 100},
        {"no end of a line", 15, 100},
        {"data: 01234\ndata: 6789a\n", 100, 10}, /* each line fits, both together do not */
        {"data: 0123456789a\n", 100, 10},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        auto_buf Buf notes = {0};
        SseReader reader;
        start(&reader, cases[i].data_limit, &notes);
        reader.line.limit = cases[i].line_limit;
        assert_false(sse_feed(&reader, str_of(cases[i].text)));
        assert_false(sse_feed(&reader, STR("\n\ndata: x\n\n")));
        assert_int_equal(notes.length, 0);
        sse_done(&reader);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_the_same_in_whatever_pieces_they_come),
        cmocka_unit_test(an_event_over_the_limit_ends_the_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
