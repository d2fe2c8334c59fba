// SPDX-License-Identifier: Apache-2.0
/* buf.h - Str, a borrowed view of bytes; Buf, bytes that grow up to a limit they are born with. */
#ifndef BATON_BASE_BUF_H
#define BATON_BASE_BUF_H

typedef struct Str { /* not 0-terminated; valid as long as what it points into */
    const char *at;
    size_t length;
} Str;

#define STR(literal) ((Str){(literal), sizeof(literal) - 1})
#define STR_FMT "%.*s"
#define STR_ARG(str) (int)(str).length, (str).at

Str str_of(const char *text); /* NULL gives an empty view */
bool str_eq(Str a, const char *b);
bool str_same(Str a, Str b);
bool str_starts(Str a, const char *prefix);
Str str_trim(Str a);                      /* without blanks, tabs and line ends around it */
bool str_cut(Str *rest, char at,
             Str *head); /* head = up to `at`, rest = behind it; false when rest is used up */
const char *str_nearest(const char *word, const char *const *known,
                        size_t count); /* NULL if nothing is near */

typedef struct Buf {
    char *at; /* always 0-terminated once anything was appended */
    size_t length, capacity;
    size_t limit;  /* bytes; 0 = none */
    bool overflow; /* an append was refused: the content is cut there and nothing more is taken */
} Buf;

void buf_append(Buf *buf, const void *bytes, size_t length); /* {.limit = n} is an empty Buf */
void buf_str(Buf *buf, const char *text);
void buf_char(Buf *buf, char c);
void buf_printf(Buf *buf, const char *format, ...) PRINTF(2, 3);
void buf_utf8(Buf *buf, uint32_t codepoint);
void buf_drop_front(Buf *buf, size_t length);
char *buf_take(Buf *buf); /* the bytes, yours to free(); the Buf is empty again */
void buf_clear(Buf *buf); /* keeps the memory */
void buf_done(Buf *buf);
#define auto_buf __attribute__((cleanup(buf_done)))

size_t utf8_whole(
    const char *bytes,
    size_t length); /* how many bytes hold whole characters (an invalid byte counts as whole) */
bool utf8_valid(const char *bytes, size_t length);
bool utf8_next(const char **at, const char *end,
               uint32_t *codepoint); /* false on an invalid byte: *at moves one, U+FFFD */

uint64_t hash64(const void *bytes, size_t length,
                uint64_t seed); /* XXH3-64 with seed, as published by xxHash 0.8 */
void random_bytes(void *to, size_t length);                       /* from the kernel */

#endif
