// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_internal.h"

/* What may follow, in well-formed UTF-8 (table 3-7 of the Unicode standard): the length of the
 * character that begins with this byte, and the range of its second byte. */
typedef struct Lead {
    uint8_t length, least, most;
} Lead;

static Lead lead_of(uint8_t c) {
    if (c < 0x80) return (Lead){1, 0, 0};
    if (c < 0xc2 || c > 0xf4) return (Lead){0, 0, 0};
    if (c < 0xe0) return (Lead){2, 0x80, 0xbf};
    if (c < 0xf0) return (Lead){3, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf};
    return (Lead){4, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf};
}

void detok_init(Detok *detok, const Tokenizer *tokenizer, bool skip_special) {
    *detok = (Detok){.tokenizer = tokenizer, .skip_special = skip_special};
}

void detok_flush(Detok *detok, Buf *out) {
    if (detok->held_count) buf_utf8(out, 0xfffd);
    detok->held_count = 0;
}

static void add_byte(Detok *detok, uint8_t c, Buf *out) {
    if (detok->held_count) {
        Lead lead = lead_of((uint8_t)detok->held[0]);
        bool second = detok->held_count == 1;
        if (c >= (second ? lead.least : 0x80) && c <= (second ? lead.most : 0xbf)) {
            detok->held[detok->held_count++] = (char)c;
            if (detok->held_count < lead.length) return;
            buf_append(out, detok->held, lead.length);
            detok->held_count = 0;
            return;
        }
        detok_flush(detok, out);
    }
    Lead lead = lead_of(c);
    if (lead.length == 1) {
        buf_char(out, (char)c);
    } else if (lead.length == 0) {
        buf_utf8(out, 0xfffd);
    } else {
        detok->held[0] = (char)c;
        detok->held_count = 1;
    }
}

void detok_add(Detok *detok, int32_t id, Buf *out) {
    if (detok->skip_special && tokenizer_is_special(detok->tokenizer, id)) return;
    Str piece = tokenizer_piece(detok->tokenizer, id);
    if (!detok->held_count && utf8_valid(piece.at, piece.length)) {
        buf_append(out, piece.at, piece.length);
        return;
    }
    for (size_t i = 0; i < piece.length; i++) add_byte(detok, (uint8_t)piece.at[i], out);
}
