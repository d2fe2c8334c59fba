// SPDX-License-Identifier: Apache-2.0
/* What Python knows about characters: classes, white space, upper and lower case. */
#include "jinja_lib.h"

#include <utf8proc.h>

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

bool is_space_char(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_line_end(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool is_letter_char(uint32_t c) {
    if (c < 0x80) return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal_char(uint32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool is_numeric_char(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool is_word_char(uint32_t c) { return c == '_' || is_letter_char(c) || is_numeric_char(c); }

bool is_printable_char(uint32_t c) {
    if (c < 0x7f) return c >= ' ';
    utf8proc_category_t k = category(c);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

/* Letters and signs that count as upper or lower case although their category does not say so
 * (PropList.txt of Unicode: Other_Lowercase, Other_Uppercase). */
typedef struct CharRange { uint32_t from, to; } CharRange;
static const CharRange more_lower[] = {
    {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},
    {0x2e0, 0x2e4},     {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},
    {0x1d78, 0x1d78},   {0x1d9b, 0x1dbf},   {0x2071, 0x2071},   {0x207f, 0x207f},
    {0x2090, 0x209c},   {0x2170, 0x217f},   {0x24d0, 0x24e9},   {0x2c7c, 0x2c7d},
    {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},   {0xab5c, 0xab5f},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
};
static const CharRange more_upper[] = {
    {0x2160, 0x216f},   {0x24b6, 0x24cf},   {0x1f130, 0x1f149},
    {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
};

static const CharRange more_digits[] = {
    /* raised, lowered, circled and the like (Numeric_Type=Digit) */
    {0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
    {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
    {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
};

static bool is_among(uint32_t c, const CharRange *ranges, size_t count) {
    size_t i = 0;
    while (i < count && c > ranges[i].to) i++;
    return i < count && c >= ranges[i].from;
}

bool is_upper_char(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z';
    return category(c) == UTF8PROC_CATEGORY_LU || is_among(c, more_upper, COUNT_OF(more_upper));
}

bool is_lower_char(uint32_t c) {
    if (c < 0x80) return c >= 'a' && c <= 'z';
    return category(c) == UTF8PROC_CATEGORY_LL || is_among(c, more_lower, COUNT_OF(more_lower));
}

bool is_digit_char(uint32_t c) {
    return is_decimal_char(c) || is_among(c, more_digits, COUNT_OF(more_digits));
}

bool is_title_char(uint32_t c) { return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT; }

static bool is_cased(uint32_t c) {
    return is_upper_char(c) || is_lower_char(c) || is_title_char(c);
}

/* Does it not count when we look for the letters around a character? */
static bool is_case_ignorable(uint32_t c) {
    if (c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xb7 || c == 0x2019)
        return true;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

/* Characters that become several (SpecialCasing.txt of Unicode); title NULL: as utf8proc says. */
static const struct {
    uint32_t from;
    const char *upper, *title;
} special[] = {
    {0xdf, "SS", "Ss"}, {0x149, "\u02bcN", "\u02bcN"}, {0x1f0, "J\u030c", "J\u030c"},
    {0x390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x3b0, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"}, {0x587, "\u0535\u0552", "\u0535\u0582"},
    {0x1e96, "H\u0331", "H\u0331"}, {0x1e97, "T\u0308", "T\u0308"},
    {0x1e98, "W\u030a", "W\u030a"}, {0x1e99, "Y\u030a", "Y\u030a"},
    {0x1e9a, "A\u02be", "A\u02be"}, {0x1f50, "\u03a5\u0313", "\u03a5\u0313"},
    {0x1f52, "\u03a5\u0313\u0300", "\u03a5\u0313\u0300"},
    {0x1f54, "\u03a5\u0313\u0301", "\u03a5\u0313\u0301"},
    {0x1f56, "\u03a5\u0313\u0342", "\u03a5\u0313\u0342"},
    {0x1fb2, "\u1fba\u0399", "\u1fba\u0345"}, {0x1fb3, "\u0391\u0399", NULL},
    {0x1fb4, "\u0386\u0399", "\u0386\u0345"}, {0x1fb6, "\u0391\u0342", "\u0391\u0342"},
    {0x1fb7, "\u0391\u0342\u0399", "\u0391\u0342\u0345"}, {0x1fbc, "\u0391\u0399", NULL},
    {0x1fc2, "\u1fca\u0399", "\u1fca\u0345"}, {0x1fc3, "\u0397\u0399", NULL},
    {0x1fc4, "\u0389\u0399", "\u0389\u0345"}, {0x1fc6, "\u0397\u0342", "\u0397\u0342"},
    {0x1fc7, "\u0397\u0342\u0399", "\u0397\u0342\u0345"}, {0x1fcc, "\u0397\u0399", NULL},
    {0x1fd2, "\u0399\u0308\u0300", "\u0399\u0308\u0300"},
    {0x1fd3, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x1fd6, "\u0399\u0342", "\u0399\u0342"},
    {0x1fd7, "\u0399\u0308\u0342", "\u0399\u0308\u0342"},
    {0x1fe2, "\u03a5\u0308\u0300", "\u03a5\u0308\u0300"},
    {0x1fe3, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
    {0x1fe4, "\u03a1\u0313", "\u03a1\u0313"}, {0x1fe6, "\u03a5\u0342", "\u03a5\u0342"},
    {0x1fe7, "\u03a5\u0308\u0342", "\u03a5\u0308\u0342"},
    {0x1ff2, "\u1ffa\u0399", "\u1ffa\u0345"}, {0x1ff3, "\u03a9\u0399", NULL},
    {0x1ff4, "\u038f\u0399", "\u038f\u0345"}, {0x1ff6, "\u03a9\u0342", "\u03a9\u0342"},
    {0x1ff7, "\u03a9\u0342\u0399", "\u03a9\u0342\u0345"}, {0x1ffc, "\u03a9\u0399", NULL},
    {0xfb00, "FF", "Ff"}, {0xfb01, "FI", "Fi"}, {0xfb02, "FL", "Fl"}, {0xfb03, "FFI", "Ffi"},
    {0xfb04, "FFL", "Ffl"}, {0xfb05, "ST", "St"}, {0xfb06, "ST", "St"},
    {0xfb13, "\u0544\u0546", "\u0544\u0576"}, {0xfb14, "\u0544\u0535", "\u0544\u0565"},
    {0xfb15, "\u0544\u053b", "\u0544\u056b"}, {0xfb16, "\u054e\u0546", "\u054e\u0576"},
    {0xfb17, "\u0544\u053d", "\u0544\u056d"},
};

static const char *special_case(uint32_t c, bool title) {
    for (size_t i = 0; i < COUNT_OF(special) && special[i].from <= c; i++)
        if (special[i].from == c) return title ? special[i].title : special[i].upper;
    return NULL;
}

static void append_upper(Buf *out, uint32_t c) {
    static const uint32_t rows[] = {0x1f08, 0x1f28, 0x1f68};
    const char *several = c < 0x80 ? NULL : special_case(c, false);
    if (c < 0x80) {
        buf_char(out, (char)(c >= 'a' && c <= 'z' ? c - 32 : c));
    } else if (several) {
        buf_str(out, several);
    } else if (c >= 0x1f80 && c <= 0x1faf) { /* a vowel with a small iota below it */
        buf_utf8(out, rows[(c - 0x1f80) >> 4] + (c & 7));
        buf_utf8(out, 0x399);
    } else {
        buf_utf8(out, (uint32_t)utf8proc_toupper((utf8proc_int32_t)c));
    }
}

static void append_title(Buf *out, uint32_t c) {
    const char *several = c < 0x80 ? NULL : special_case(c, true);
    if (c < 0x80) {
        append_upper(out, c);
    } else if (several) {
        buf_str(out, several);
    } else {
        buf_utf8(out, (uint32_t)utf8proc_totitle((utf8proc_int32_t)c));
    }
}

/* The nearest character that counts before `at`, or from `at` on, is a letter with case. */
static bool cased_before(Str text, const char *at) {
    while (at > text.at) {
        const char *end = at--;
        while (at > text.at && (*at & 0xc0) == 0x80) at--;
        const char *start = at;
        uint32_t c;
        utf8_next(&start, end, &c);
        if (!is_case_ignorable(c)) return is_cased(c);
    }
    return false;
}

static bool cased_after(Str text, const char *at) {
    while (at < text.at + text.length) {
        uint32_t c;
        utf8_next(&at, text.at + text.length, &c);
        if (!is_case_ignorable(c)) return is_cased(c);
    }
    return false;
}

/* `at` is behind the character c of the text: a Greek word ends with another sigma. */
static void append_lower(Buf *out, uint32_t c, Str text, const char *at) {
    if (c < 0x80) {
        buf_char(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
    } else if (c == 0x3a3) {
        buf_utf8(out, cased_before(text, at - 2) && !cased_after(text, at) ? 0x3c2 : 0x3c3);
    } else if (c == 0x130) {
        buf_str(out, "i\u0307");
    } else {
        buf_utf8(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    }
}

Value str_cased(Run *run, Value text, CaseTo to) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    const char *at = text.text.at, *end = at + text.text.length;
    bool first = true, after_cased = false;
    run_step(run, text.text.length);
    while (at < end) {
        uint32_t c;
        utf8_next(&at, end, &c);
        bool title = (to == CASE_TITLE && !after_cased) || (to == CASE_CAPITALIZE && first);
        bool upper = to == CASE_UPPER || (to == CASE_SWAP && is_lower_char(c));
        bool kept = to == CASE_SWAP && !is_upper_char(c);
        if (title) {
            append_title(&out, c);
        } else if (upper) {
            append_upper(&out, c);
        } else if (kept) {
            buf_utf8(&out, c);
        } else {
            append_lower(&out, c, text.text, at);
        }
        after_cased = is_cased(c);
        first = false;
    }
    Value made = run_take(run, &out);
    made.markup = text.markup;
    return made;
}

/* --- white space and places in a text --- */

static bool is_one_of(uint32_t c, const Str *chars) {
    if (!chars) return is_space_char(c);
    for (const char *at = chars->at, *end = at + chars->length; at < end;) {
        uint32_t each;
        utf8_next(&at, end, &each);
        if (each == c) return true;
    }
    return false;
}

Str str_strip(Str text, const Str *chars, bool left, bool right) {
    const char *at = text.at, *end = text.at + text.length;
    while (left && at < end) {
        const char *next = at;
        uint32_t c;
        utf8_next(&next, end, &c);
        if (!is_one_of(c, chars)) break;
        at = next;
    }
    while (right && at < end) {
        const char *last = end - 1;
        while (last > at && (*last & 0xc0) == 0x80) last--;
        const char *next = last;
        uint32_t c;
        utf8_next(&next, end, &c);
        if (!is_one_of(c, chars)) break;
        end = last;
    }
    return (Str){at, (size_t)(end - at)};
}

size_t str_count_chars(Str text) {
    size_t count = 0;
    for (size_t i = 0; i < text.length; i++) count += (text.at[i] & 0xc0) != 0x80;
    return count;
}

size_t str_offset(Str text, size_t index) {
    size_t at = 0;
    for (; at < text.length; at++)
        if ((text.at[at] & 0xc0) != 0x80 && index-- == 0) break;
    return at;
}
