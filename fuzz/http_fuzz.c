// SPDX-License-Identifier: Apache-2.0
/* http_fuzz.c - requests and replies do not depend on the pieces in which their bytes come.  The
 * first byte of the input says which of the two is read and how, the second the size of the pieces.
 *
 * What was read is written down and compared, so that all of it is touched. */
#include <stdlib.h>

#include "http/message.h"

enum { IS_REPLY = 1, COLLECT = 2, TO_HEAD = 4, ENDS = 8 };

static void note_text(Buf *notes, Str text) {
    buf_append(notes, text.at, text.length);
    buf_char(notes, '|');
}

static void note_head(const Message *m, Buf *notes) {
    buf_printf(notes, "H%d%d%d%d%d%d ", m->status, m->http_10, m->keep_alive, m->expects_continue,
               m->expects_unknown, (int)m->framing);
    note_text(notes, m->method);
    note_text(notes, m->target);
    for (size_t i = 0; i < m->header_count; i++) {
        note_text(notes, m->headers[i].name);
        note_text(notes, m->headers[i].value);
    }
}

/* False: nothing more can be read. */
static bool note_parts(Message *m, Buf *notes) {
    for (;;) {
        switch (message_next(m)) {
        case PART_MORE:
            return true;
        case PART_HEAD:
            note_head(m, notes);
            break;
        case PART_BODY:
            if (!m->piece.length) abort();
            buf_append(notes, m->piece.at, m->piece.length);
            break;
        case PART_END:
            message_keep_room(m);
            if (m->collect) buf_append(notes, message_body(m).at, message_body(m).length);
            buf_str(notes, ";");
            message_start(m);
            break;
        case PART_BAD:
            /* Of two reasons the parser may find either first: only that there is one counts. */
            if (m->bad_status < 400 || !m->problem[0]) abort();
            buf_char(notes, '!');
            return false;
        }
    }
}

static void read_in_pieces(Str bytes, size_t piece, int how, Buf *notes) {
    Message m;
    message_init(&m, !(how & IS_REPLY));
    m.collect = how & COLLECT;
    m.no_body = (how & IS_REPLY) && (how & TO_HEAD);
    m.max_body = 1000;
    bool goes_on = true;
    for (size_t at = 0, n; at < bytes.length && goes_on; at += n) {
        size_t room;
        char *to = message_room(&m, &room);
        if (!room) abort();
        n = bytes.length - at < piece ? bytes.length - at : piece;
        if (n > room) n = room;
        memcpy(to, bytes.at + at, n);
        message_got(&m, n);
        goes_on = note_parts(&m, notes);
    }
    if (goes_on && (how & ENDS)) {
        Part end = message_eof(&m);
        if (end == PART_END && (how & COLLECT)) note_text(notes, message_body(&m));
        buf_printf(notes, "E%d", (int)end);
    }
    message_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    auto_free char *copy = mem_dup_bytes((const char *)data + 2, size - 2);
    Str bytes = {copy, size - 2};
    auto_buf Buf whole = {0}, pieces = {0};
    read_in_pieces(bytes, size, data[0], &whole);
    read_in_pieces(bytes, 1 + data[1] % 64u, data[0], &pieces);
    if (whole.length != pieces.length) abort();
    if (whole.length && memcmp(whole.at, pieces.at, whole.length)) abort();
    return 0;
}
