// SPDX-License-Identifier: Apache-2.0
/* What strings can do: the methods of Python's str. */
#include "jinja_lib.h"

static Value same_markup(Value self, Value made) {
    made.markup = self.markup;
    return made;
}

static Value text_of(Value self, Str text) {
    return (Value){.kind = K_STR, .markup = self.markup, .text = text};
}

/* An argument that has to be a string; fails and gives "" otherwise. */
static Str want_str(Run *run, Value v) {
    if (v.kind == K_STR) return v.text;
    if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
    run_fail(run, ERR_INVALID, "a string is wanted, not %s", kind_name(v));
    return (Str){"", 0};
}

static int64_t want_int(Run *run, Value v, int64_t otherwise) {
    int64_t number = otherwise;
    if (v.kind == K_MISSING || v.kind == K_NONE || is_int(v, &number)) return number;
    if (v.kind == K_UNDEFINED) run_fail_undefined(run, v);
    run_fail(run, ERR_INVALID, "'%s' object cannot be interpreted as an integer", kind_name(v));
    return otherwise;
}

/* The part of a text that start and end (characters) leave; false if start is behind its end. */
static bool window(Run *run, Str *text, Value start, Value end, int64_t *first) {
    int64_t length = (int64_t)str_count_chars(*text);
    int64_t from = want_int(run, start, 0), to = want_int(run, end, length);
    if (from < 0) from = from < -length ? 0 : from + length;
    if (to < 0) to = to < -length ? 0 : to + length;
    if (to > length) to = length;
    *first = from;
    if (from > length || from > to) return false;
    size_t at = str_offset(*text, (size_t)from), stop = str_offset(*text, (size_t)to);
    *text = (Str){text->at + at, stop - at};
    return true;
}

static const char *find(Str text, Str part) {
    if (!part.length) return text.at;
    return text.length ? memmem(text.at, text.length, part.at, part.length) : NULL;
}

static const char *find_last(Str text, Str part) {
    if (part.length > text.length) return NULL;
    for (const char *at = text.at + text.length - part.length; at >= text.at; at--)
        if (!part.length || !memcmp(at, part.at, part.length)) return at;
    return NULL;
}

static int64_t position(Run *run, Value self, const Value *args, bool last) {
    Str text = self.text, part = want_str(run, args[0]);
    int64_t first;
    run_step(run, text.length * (last ? 8 : 1));
    if (!window(run, &text, args[1], args[2], &first)) return -1;
    const char *at = last ? find_last(text, part) : find(text, part);
    return at ? first + (int64_t)str_count_chars((Str){text.at, (size_t)(at - text.at)}) : -1;
}

static Value m_find(Call *c) { return v_int(position(c->run, c->self, c->args, false)); }

static Value m_rfind(Call *c) { return v_int(position(c->run, c->self, c->args, true)); }

static Value found_or_fail(Run *run, int64_t at) {
    return at < 0 ? run_fail(run, ERR_INVALID, "substring not found") : v_int(at);
}

static Value m_index(Call *c) {
    return found_or_fail(c->run, position(c->run, c->self, c->args, false));
}

static Value m_rindex(Call *c) {
    return found_or_fail(c->run, position(c->run, c->self, c->args, true));
}

static Value m_count(Call *c) {
    Str text = c->self.text, part = want_str(c->run, c->args[0]);
    int64_t first, count = 0;
    if (!window(c->run, &text, c->args[1], c->args[2], &first)) return v_int(0);
    if (!part.length) return v_int((int64_t)str_count_chars(text) + 1);
    run_step(c->run, text.length);
    for (const char *at; (at = find(text, part)); count++) {
        size_t behind = (size_t)(at - text.at) + part.length;
        text = (Str){text.at + behind, text.length - behind};
    }
    return v_int(count);
}

static bool has_end(Str text, Str part, bool at_end) {
    if (part.length > text.length) return false;
    const char *at = at_end ? text.at + text.length - part.length : text.at;
    return !part.length || !memcmp(at, part.at, part.length);
}

static Value starts_or_ends(Run *run, Value self, const Value *args, bool at_end) {
    Str text = self.text;
    int64_t first;
    if (!window(run, &text, args[1], args[2], &first)) return v_bool(false);
    if (args[0].kind != K_TUPLE) return v_bool(has_end(text, want_str(run, args[0]), at_end));
    const List *parts = args[0].list;
    for (size_t i = 0; i < parts->count && run_step(run, 0); i++)
        if (has_end(text, want_str(run, parts->items[i]), at_end)) return v_bool(run_ok(run));
    return v_bool(false);
}

static Value m_startswith(Call *c) { return starts_or_ends(c->run, c->self, c->args, false); }

static Value m_endswith(Call *c) { return starts_or_ends(c->run, c->self, c->args, true); }

static Value stripped(Run *run, Value self, Value chars, bool left, bool right) {
    Str set = chars.kind == K_MISSING || chars.kind == K_NONE ? STR("") : want_str(run, chars);
    bool any = chars.kind == K_STR;
    run_step(run, set.length * 8);
    return text_of(self, str_strip(self.text, any ? &set : NULL, left, right));
}

static Value m_strip(Call *c) { return stripped(c->run, c->self, c->args[0], true, true); }

static Value m_lstrip(Call *c) { return stripped(c->run, c->self, c->args[0], true, false); }

static Value m_rstrip(Call *c) { return stripped(c->run, c->self, c->args[0], false, true); }

static Value m_removeprefix(Call *c) {
    Str part = want_str(c->run, c->args[0]), text = c->self.text;
    if (has_end(text, part, false)) text = (Str){text.at + part.length, text.length - part.length};
    return text_of(c->self, text);
}

static Value m_removesuffix(Call *c) {
    Str part = want_str(c->run, c->args[0]), text = c->self.text;
    if (has_end(text, part, true)) text.length -= part.length;
    return text_of(c->self, text);
}

static Value m_upper(Call *c) { return str_cased(c->run, c->self, CASE_UPPER); }

static Value m_lower(Call *c) { return str_cased(c->run, c->self, CASE_LOWER); }

static Value m_title(Call *c) { return str_cased(c->run, c->self, CASE_TITLE); }

static Value m_capitalize(Call *c) { return str_cased(c->run, c->self, CASE_CAPITALIZE); }

static Value m_swapcase(Call *c) { return str_cased(c->run, c->self, CASE_SWAP); }

Value str_replaced(Run *run, Str text, Str old, Str with, int64_t count) {
    if (!count || !run_step(run, text.length)) return v_str(text);
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    const char *at = text.at, *end = text.at + text.length;
    bool changed = false;
    while (count-- != 0 && run_step(run, 0)) {
        const char *found = find((Str){at, (size_t)(end - at)}, old);
        if (!found) break;
        if (!old.length) { /* before every character and at the end */
            buf_append(&out, with.at, with.length);
            changed = true;
            if (at >= end) break;
            found = at + str_offset((Str){at, (size_t)(end - at)}, 1);
            buf_append(&out, at, (size_t)(found - at));
            at = found;
            continue;
        }
        buf_append(&out, at, (size_t)(found - at));
        buf_append(&out, with.at, with.length);
        at = found + old.length;
        changed = true;
    }
    if (!changed) {
        buf_done(&out);
        return v_str(text);
    }
    buf_append(&out, at, (size_t)(end - at));
    return run_take(run, &out);
}

static Value m_replace(Call *c) {
    Value old = c->args[0], with = c->args[1];
    if (c->self.markup && old.kind == K_STR) old = v_escape(c->run, old);
    if (c->self.markup && with.kind == K_STR) with = v_escape(c->run, with);
    Str from = want_str(c->run, old), to = want_str(c->run, with);
    int64_t count = want_int(c->run, c->args[2], -1);
    return same_markup(c->self, str_replaced(c->run, c->self.text, from, to, count));
}

/* --- into pieces --- */

static void add_part(Run *run, List *parts, Value text, const char *from, const char *to) {
    list_add(run, parts, text_of(text, (Str){from, (size_t)(to - from)}));
}

/* Words: white space of any length between them, none around them. */
static List *split_words(Run *run, Value text, int64_t most) {
    List *parts = list_new(run, 0);
    Str rest = str_strip(text.text, NULL, true, false);
    const char *end = rest.at + rest.length, *at = rest.at;
    while (at < end && run_step(run, 0)) {
        const char *from = at, *next = at;
        uint32_t c = 0;
        if (most-- == 0) { /* the rest, as it is */
            add_part(run, parts, text, from, end);
            return parts;
        }
        for (; at < end; at = next) {
            utf8_next(&next, end, &c);
            if (is_space_char(c)) break;
        }
        add_part(run, parts, text, from, at);
        at = str_strip((Str){at, (size_t)(end - at)}, NULL, true, false).at;
    }
    return parts;
}

static void turn_around(List *list) {
    for (size_t i = 0; i < list->count / 2; i++) {
        Value swap = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = swap;
    }
}

static List *split_words_from_right(Run *run, Value text, int64_t most) {
    List *parts = list_new(run, 0);
    Str rest = str_strip(text.text, NULL, false, true);
    while (rest.length && run_step(run, 0)) {
        size_t from = rest.length;
        if (most-- == 0) {
            add_part(run, parts, text, rest.at, rest.at + rest.length);
            break;
        }
        while (from > 0) {
            size_t before = from - 1;
            while (before > 0 && (rest.at[before] & 0xc0) == 0x80) before--;
            const char *at = rest.at + before;
            uint32_t c;
            utf8_next(&at, rest.at + rest.length, &c);
            if (is_space_char(c)) break;
            from = before;
        }
        add_part(run, parts, text, rest.at + from, rest.at + rest.length);
        rest = str_strip((Str){rest.at, from}, NULL, false, true);
    }
    turn_around(parts);
    return parts;
}

static List *split_at(Run *run, Value text, Str separator, int64_t most) {
    List *parts = list_new(run, 0);
    const char *at = text.text.at, *end = at + text.text.length, *found;
    while (most-- != 0 && run_step(run, 0) &&
           (found = find((Str){at, (size_t)(end - at)}, separator))) {
        add_part(run, parts, text, at, found);
        at = found + separator.length;
    }
    add_part(run, parts, text, at, end);
    return parts;
}

static List *split_at_from_right(Run *run, Value text, Str separator, int64_t most) {
    List *parts = list_new(run, 0);
    Str rest = text.text;
    const char *found;
    run_step(run, rest.length * 8);
    while (most-- != 0 && run_step(run, 0) && (found = find_last(rest, separator))) {
        add_part(run, parts, text, found + separator.length, rest.at + rest.length);
        rest.length = (size_t)(found - rest.at);
    }
    add_part(run, parts, text, rest.at, rest.at + rest.length);
    turn_around(parts);
    return parts;
}

Value str_split(Run *run, Value text, Value separator, int64_t most, bool from_right) {
    run_step(run, text.text.length);
    if (separator.kind == K_MISSING || separator.kind == K_NONE)
        return v_list(from_right ? split_words_from_right(run, text, most)
                                 : split_words(run, text, most));
    Str by = want_str(run, separator);
    if (!by.length) return run_fail(run, ERR_INVALID, "empty separator");
    return v_list(from_right ? split_at_from_right(run, text, by, most)
                             : split_at(run, text, by, most));
}

static Value m_split(Call *c) {
    return str_split(c->run, c->self, c->args[0], want_int(c->run, c->args[1], -1), false);
}

static Value m_rsplit(Call *c) {
    return str_split(c->run, c->self, c->args[0], want_int(c->run, c->args[1], -1), true);
}

Value str_lines(Run *run, Value text, bool keep_ends) {
    List *lines = list_new(run, 0);
    const char *at = text.text.at, *end = at + text.text.length, *from = at;
    run_step(run, text.text.length);
    while (at < end) {
        const char *stop = at;
        uint32_t c;
        utf8_next(&at, end, &c);
        if (!is_line_end(c)) continue;
        if (c == '\r' && at < end && *at == '\n') at++;
        add_part(run, lines, text, from, keep_ends ? at : stop);
        from = at;
        if (!run_step(run, 0)) break;
    }
    if (from < end) add_part(run, lines, text, from, end);
    return v_list(lines);
}

static Value m_splitlines(Call *c) {
    return str_lines(c->run, c->self, v_true(c->run, c->args[0]));
}

static Value parted(Run *run, Value self, Value separator, bool from_right) {
    Str by = want_str(run, separator), text = self.text;
    if (!by.length && run_ok(run)) return run_fail(run, ERR_INVALID, "empty separator");
    const char *found = from_right ? find_last(text, by) : find(text, by);
    List *parts = list_new(run, 3);
    const char *end = text.at + text.length;
    if (found) {
        add_part(run, parts, self, text.at, found);
        add_part(run, parts, self, found, found + by.length);
        add_part(run, parts, self, found + by.length, end);
    } else {
        add_part(run, parts, self, text.at, from_right ? text.at : end);
        add_part(run, parts, self, end, end);
        add_part(run, parts, self, from_right ? text.at : end, end);
    }
    return v_tuple(parts);
}

static Value m_partition(Call *c) { return parted(c->run, c->self, c->args[0], false); }

static Value m_rpartition(Call *c) { return parted(c->run, c->self, c->args[0], true); }

/* --- together, and padded --- */

static Value m_join(Call *c) {
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    Iter *iter = iter_of(c->run, c->args[0]);
    Value item;
    for (size_t i = 0; iter && iter_next(c->run, iter, &item); i++) {
        if (i) buf_append(&out, c->self.text.at, c->self.text.length);
        if (item.kind != K_STR && !c->self.markup)
            run_fail(c->run, ERR_INVALID, "sequence item %zu: expected str instance, %s found", i,
                     kind_name(item));
        append_str(c->run, &out, c->self.markup ? v_escape(c->run, item) : item);
    }
    return same_markup(c->self, run_take(c->run, &out));
}

Value str_padded(Run *run, Value text, int64_t width, Str fill, char align) {
    int64_t length = (int64_t)str_count_chars(text.text), pad = width - length;
    if (pad <= 0) return text;
    if (!run_room(run, (size_t)pad)) return text;
    /* As CPython centers: an odd blank goes left if the width is odd. */
    int64_t left = align == '<' ? 0 : align == '>' ? pad : pad / 2 + (pad & width & 1);
    Buf out = {.limit = LIMIT_TEMPLATE_OUTPUT};
    for (int64_t i = 0; i < left && run_step(run, 0); i++) buf_append(&out, fill.at, fill.length);
    buf_append(&out, text.text.at, text.text.length);
    for (int64_t i = left; i < pad && run_step(run, 0); i++) buf_append(&out, fill.at, fill.length);
    return same_markup(text, run_take(run, &out));
}

static Value justified(Run *run, Value self, const Value *args, char align) {
    Str fill = args[1].kind == K_MISSING ? STR(" ") : want_str(run, args[1]);
    if (str_count_chars(fill) != 1)
        return run_fail(run, ERR_INVALID, "the fill character must be exactly one character long");
    return str_padded(run, self, want_int(run, args[0], 0), fill, align);
}

static Value m_center(Call *c) { return justified(c->run, c->self, c->args, '^'); }

static Value m_ljust(Call *c) { return justified(c->run, c->self, c->args, '<'); }

static Value m_rjust(Call *c) { return justified(c->run, c->self, c->args, '>'); }

static Value m_zfill(Call *c) {
    bool sign = c->self.text.length && strchr("+-", c->self.text.at[0]);
    Value digits = text_of(c->self, (Str){c->self.text.at + sign, c->self.text.length - sign});
    int64_t width = want_int(c->run, c->args[0], 0);
    if (width > INT64_MIN) width -= sign;
    digits = str_padded(c->run, digits, width, STR("0"), '>');
    return sign ? same_markup(c->self,
                              v_joined(c->run, text_of(c->self, (Str){c->self.text.at, 1}), digits))
                : digits;
}

static Value m_format(Call *c) { return run_format(c->run, c->self, c->all); }

/* --- questions --- */

static bool all_are(Str text, bool (*is)(uint32_t)) {
    for (const char *at = text.at, *end = at + text.length; at < end;) {
        uint32_t c;
        utf8_next(&at, end, &c);
        if (!is(c)) return false;
    }
    return text.length != 0;
}

static bool is_alnum(uint32_t c) { return is_letter_char(c) || is_numeric_char(c); }

static bool is_ascii(uint32_t c) { return c < 0x80; }

static Value m_isalpha(Call *c) { return v_bool(all_are(c->self.text, is_letter_char)); }

static Value m_isalnum(Call *c) { return v_bool(all_are(c->self.text, is_alnum)); }

static Value m_isdigit(Call *c) { return v_bool(all_are(c->self.text, is_digit_char)); }

static Value m_isdecimal(Call *c) { return v_bool(all_are(c->self.text, is_decimal_char)); }

static Value m_isnumeric(Call *c) { return v_bool(all_are(c->self.text, is_numeric_char)); }

static Value m_isspace(Call *c) { return v_bool(all_are(c->self.text, is_space_char)); }

static Value m_isascii(Call *c) {
    return v_bool(!c->self.text.length || all_are(c->self.text, is_ascii));
}

static Value m_isprintable(Call *c) {
    return v_bool(!c->self.text.length || all_are(c->self.text, is_printable_char));
}

bool str_is_case(Str text, bool upper) {
    bool any = false;
    for (const char *at = text.at, *end = at + text.length; at < end;) {
        uint32_t c;
        utf8_next(&at, end, &c);
        if ((upper ? is_lower_char(c) : is_upper_char(c)) || is_title_char(c)) return false;
        any = any || (upper ? is_upper_char(c) : is_lower_char(c));
    }
    return any;
}

static Value m_isupper(Call *c) { return v_bool(str_is_case(c->self.text, true)); }

static Value m_islower(Call *c) { return v_bool(str_is_case(c->self.text, false)); }

static Value m_istitle(Call *c) {
    bool any = false, after_cased = false;
    Str text = c->self.text;
    for (const char *at = text.at, *end = at + text.length; at < end;) {
        uint32_t each;
        utf8_next(&at, end, &each);
        bool starts = is_upper_char(each) || is_title_char(each), goes_on = is_lower_char(each);
        if (starts ? after_cased : goes_on && !after_cased) return v_bool(false);
        after_cased = starts || goes_on;
        any = any || after_cased;
    }
    return v_bool(any);
}

const MethodDef str_methods[] = {
    {"strip", "|chars", m_strip},
    {"lstrip", "|chars", m_lstrip},
    {"rstrip", "|chars", m_rstrip},
    {"split", "|sep maxsplit", m_split},
    {"rsplit", "|sep maxsplit", m_rsplit},
    {"splitlines", "|keepends", m_splitlines},
    {"startswith", "prefix|start end", m_startswith},
    {"endswith", "suffix|start end", m_endswith},
    {"replace", "old new|count", m_replace},
    {"join", "iterable", m_join},
    {"upper", "", m_upper},
    {"lower", "", m_lower},
    {"title", "", m_title},
    {"capitalize", "", m_capitalize},
    {"swapcase", "", m_swapcase},
    {"find", "sub|start end", m_find},
    {"rfind", "sub|start end", m_rfind},
    {"index", "sub|start end", m_index},
    {"rindex", "sub|start end", m_rindex},
    {"count", "sub|start end", m_count},
    {"partition", "sep", m_partition},
    {"rpartition", "sep", m_rpartition},
    {"removeprefix", "prefix", m_removeprefix},
    {"removesuffix", "suffix", m_removesuffix},
    {"center", "width|fillchar", m_center},
    {"ljust", "width|fillchar", m_ljust},
    {"rjust", "width|fillchar", m_rjust},
    {"zfill", "width", m_zfill},
    {"format", "*", m_format},
    {"isalpha", "", m_isalpha},
    {"isalnum", "", m_isalnum},
    {"isdigit", "", m_isdigit},
    {"isdecimal", "", m_isdecimal},
    {"isnumeric", "", m_isnumeric},
    {"isspace", "", m_isspace},
    {"isascii", "", m_isascii},
    {"isprintable", "", m_isprintable},
    {"isupper", "", m_isupper},
    {"islower", "", m_islower},
    {"istitle", "", m_istitle},
    /* there in Python, but not here: an error where they are called */
    {"casefold", "*", NULL},
    {"encode", "*", NULL},
    {"expandtabs", "*", NULL},
    {"format_map", "*", NULL},
    {"isidentifier", "*", NULL},
    {"maketrans", "*", NULL},
    {"translate", "*", NULL},
    {0},
};
