// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

Str str_of(const char *text) { return text ? (Str){text, strlen(text)} : (Str){"", 0}; }
bool str_same(Str a, Str b) {
    return a.length == b.length && (!a.length || !memcmp(a.at, b.at, a.length));
}
bool str_eq(Str a, const char *b) { return str_same(a, str_of(b)); }

bool str_starts(Str a, const char *prefix) {
    size_t n = strlen(prefix);
    return a.length >= n && !memcmp(a.at, prefix, n);
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

Str str_trim(Str a) {
    while (a.length && is_blank(a.at[0])) a.at++, a.length--;
    while (a.length && is_blank(a.at[a.length - 1])) a.length--;
    return a;
}

bool str_cut(Str *rest, char at, Str *head) {
    if (!rest->at) return false;
    const char *found = rest->length ? memchr(rest->at, at, rest->length) : NULL;
    if (!found) {
        *head = *rest;
        *rest = (Str){NULL, 0};
        return true;
    }
    *head = (Str){rest->at, (size_t)(found - rest->at)};
    rest->length -= head->length + 1;
    rest->at = found + 1;
    return true;
}

/* Levenshtein's distance, for words of at most 63 bytes. */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b), row[64];
    if (n > 63 || m > 63) return 64;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t left_up = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = left_up + (a[i - 1] != b[j - 1]);
            left_up = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *str_nearest(const char *word, const char *const *known, size_t count) {
    const char *best = NULL;
    size_t least = strlen(word) / 3 + 2; /* further away than that is a guess, not a typing error */
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, known[i]);
        if (d < least) {
            least = d;
            best = known[i];
        }
    }
    return best;
}

void buf_append(Buf *buf, const void *bytes, size_t length) {
    if (buf->overflow) return;
    if (buf->limit && length > buf->limit - buf->length) {
        buf->overflow = true;
        return;
    }
    mem_reserve(buf->at, buf->capacity, buf->length + length + 1);
    if (length) memcpy(buf->at + buf->length, bytes, length);
    buf->length += length;
    buf->at[buf->length] = 0;
}

void buf_str(Buf *buf, const char *text) { buf_append(buf, text, strlen(text)); }
void buf_char(Buf *buf, char c) { buf_append(buf, &c, 1); }

void buf_printf(Buf *buf, const char *format, ...) {
    char small[256];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof small) {
        buf_append(buf, small, (size_t)n);
    } else if (n >= 0) {
        auto_free char *large = mem_new((size_t)n + 1);
        vsnprintf(large, (size_t)n + 1, format, again);
        buf_append(buf, large, (size_t)n);
    }
    va_end(again);
}

void buf_utf8(Buf *buf, uint32_t c) {
    char b[4];
    size_t n;
    if (c < 0x80) {
        b[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        b[0] = (char)(0xc0 | c >> 6);
        n = 2;
    } else if (c < 0x10000) {
        b[0] = (char)(0xe0 | c >> 12);
        n = 3;
    } else {
        b[0] = (char)(0xf0 | (c >> 18 & 7));
        n = 4;
    }
    for (size_t i = 1; i < n; i++) b[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
    buf_append(buf, b, n);
}

void buf_drop_front(Buf *buf, size_t length) {
    assert(length <= buf->length);
    if (!length) return;
    buf->length -= length;
    memmove(buf->at, buf->at + length, buf->length + 1);
}

char *buf_take(Buf *buf) {
    char *bytes = buf->at ? buf->at : mem_new(1);
    *buf = (Buf){.limit = buf->limit};
    return bytes;
}

void buf_clear(Buf *buf) {
    buf->length = 0;
    buf->overflow = false;
    if (buf->at) buf->at[0] = 0;
}

void buf_done(Buf *buf) {
    free(buf->at);
    *buf = (Buf){.limit = buf->limit};
}

bool utf8_next(const char **at, const char *end, uint32_t *codepoint) {
    const unsigned char *s = (const unsigned char *)*at;
    size_t left = (size_t)(end - *at), n = s[0] < 0x80   ? 1
                                           : s[0] < 0xc2 ? 0
                                           : s[0] < 0xe0 ? 2
                                           : s[0] < 0xf0 ? 3
                                           : s[0] < 0xf5 ? 4
                                                         : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = n < 2 ? s[0] : s[0] & (0xffu >> (n + 1));
    bool ok = n && n <= left;
    for (size_t i = 1; ok && i < n; i++) {
        ok = (s[i] & 0xc0) == 0x80;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (!ok || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        *codepoint = 0xfffd;
        *at += 1;
        return false;
    }
    *codepoint = c;
    *at += n;
    return true;
}

bool utf8_valid(const char *bytes, size_t length) {
    uint32_t c;
    for (const char *at = bytes, *end = bytes + length; at < end;)
        if (!utf8_next(&at, end, &c)) return false;
    return true;
}

size_t utf8_whole(const char *bytes, size_t length) {
    /* Only the last 3 bytes can begin a character that is not whole yet. */
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char c = (unsigned char)bytes[length - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t n = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
        return n > back ? length - back : length;
    }
    return length;
}

uint64_t hash64(const void *bytes, size_t length, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, length, seed);
}

void random_bytes(void *to, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t n = getrandom((char *)to + done, length - done, 0);
        if (n > 0) done += (size_t)n;
    }
}
