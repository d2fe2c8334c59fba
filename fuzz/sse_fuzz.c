// SPDX-License-Identifier: Apache-2.0
/* sse_fuzz.c - the events do not depend on the pieces in which the bytes come.  The first byte of
 * the input is the size of the pieces, the second the limit. */
#include <stdlib.h>

#include "text/text.h"

static void note_event(Str event, Str data, void *user) {
    buf_append(user, event.at, event.length);
    buf_char(user, '|');
    buf_append(user, data.at, data.length);
    buf_char(user, '\0');
}

static void note_comment(Str text, void *user) {
    buf_char(user, '#');
    buf_append(user, text.at, text.length);
}

static bool read_in_pieces(Str bytes, size_t piece, size_t limit, Buf *notes) {
    SseReader reader;
    sse_init(&reader, limit);
    reader.on_event = note_event;
    reader.on_comment = note_comment;
    reader.user = notes;
    bool ok = true;
    for (size_t at = 0; ok && at < bytes.length; at += piece) {
        size_t left = bytes.length - at;
        ok = sse_feed(&reader, (Str){bytes.at + at, left < piece ? left : piece});
    }
    sse_done(&reader);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    Str bytes = {(const char *)data + 2, size - 2};
    auto_buf Buf whole = {0}, pieces = {0};
    size_t limit = data[1] ? data[1] * 4u : 0;
    bool whole_ok = read_in_pieces(bytes, size, limit, &whole);
    bool pieces_ok = read_in_pieces(bytes, 1 + data[0] % 64u, limit, &pieces);
    if (whole_ok != pieces_ok || whole.length != pieces.length) abort();
    if (whole.length && memcmp(whole.at, pieces.at, whole.length)) abort();
    return 0;
}
