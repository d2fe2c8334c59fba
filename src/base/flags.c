// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_BYTES 63

bool flag_size(const char *text, double *out) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || !isfinite(value)) return false;
    static const struct { char suffix; double factor;
    } units[] = {{'k', 1e3},  {'m', 1e6},    {'g', 1e9},    {'t', 1e12},
                 {'K', 1024}, {'M', 0x1p20}, {'G', 0x1p30}, {'T', 0x1p40}};
    for (size_t i = 0; *end && i < COUNT_OF(units); i++)
        if (*end == units[i].suffix) {
            value *= units[i].factor;
            end++;
            break;
        }
    *out = value;
    return !*end && value == floor(value);
}

static bool bad_value(const Flag *flag, const char *text, const char *expected, Err *err) {
    err_set(err, ERR_INVALID, "--%s cannot be '%s': expected %s", flag->name, text, expected);
    err_param(err, flag->name);
    return err_hint(err, "--%s takes %s; see --help.", flag->name,
                    flag->help ? flag->help : expected);
}

static bool set_number(const Flag *flag, void *field, const char *text, Err *err) {
    double value;
    char *end, expected[96];
    bool ok = flag->kind == FLAG_SIZE ? flag_size(text, &value)
                                      : (value = strtod(text, &end), end != text && !*end);
    bool whole = flag->kind != FLAG_NUMBER;
    bool bounded = flag->least != 0 || flag->most != 0;
    if (ok) ok = isfinite(value) && (!whole || (value == floor(value) && fabs(value) < 0x1p53));
    if (ok && (!bounded || (value >= flag->least && value <= flag->most))) {
        if (whole) *(int64_t *)field = (int64_t)value;
        else *(double *)field = value;
        return true;
    }
    int n = snprintf(expected, sizeof expected, "a%s number", whole ? " whole" : "");
    if (bounded)
        snprintf(expected + n, sizeof expected - (size_t)n, " from %.15g to %.15g", flag->least,
                 flag->most);
    return bad_value(flag, text, expected, err);
}

static bool set_bool(const Flag *flag, bool *field, const char *text, Err *err) {
    static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no",
                                                                                "off"};
    for (size_t i = 0; i < COUNT_OF(yes); i++) {
        if (!strcmp(text, yes[i])) return *field = true;
        if (!strcmp(text, no[i])) return *field = false, true;
    }
    return bad_value(flag, text, "true or false", err);
}

static bool set(const Flag *flag, void *conf, const char *text, Err *err) {
    void *field = (char *)conf + flag->offset;
    switch (flag->kind) {
    case FLAG_STR: *(const char **)field = text; return true;
    case FLAG_INT:
    case FLAG_SIZE:
    case FLAG_NUMBER: return set_number(flag, field, text, err);
    case FLAG_BOOL: return set_bool(flag, field, text, err);
    case FLAG_LIST:
    case FLAG_PIECES: {
        FlagList *list = field;
        if (list->count == COUNT_OF(list->at))
            return err_set(err, ERR_TOO_LARGE, "--%s has more than %zu values", flag->name,
                           COUNT_OF(list->at));
        list->at[list->count++] = text;
        return true;
    }
    case FLAG_NO_EFFECT:
    case FLAG_NO_EFFECT_BOOL: return true;
    }
    return true;
}

static bool is_bool(const Flag *flag) {
    return flag->kind == FLAG_BOOL || flag->kind == FLAG_NO_EFFECT_BOOL;
}

static const Flag *find(const Flag *flags, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(flags[i].name, name)) return &flags[i];
    return NULL;
}

/* --no-x, --disable-x for --enable-x, --no-enable-x */
static const Flag *find_negated(const Flag *flags, size_t count, const char *name) {
    char whole[NAME_MAX_BYTES + 16];
    const Flag *flag = !strncmp(name, "no-", 3) ? find(flags, count, name + 3) : NULL;
    if (!flag && !strncmp(name, "disable-", 8)) {
        snprintf(whole, sizeof whole, "enable-%.*s", NAME_MAX_BYTES, name + 8);
        flag = find(flags, count, whole);
    }
    return flag && is_bool(flag) ? flag : NULL;
}

static bool unknown(const Flag *flags, size_t count, const char *name, Err *err) {
    err_set(err, ERR_INVALID, "unknown flag --%s", name);
    const char *names[512];
    size_t n = 0;
    for (size_t i = 0; i < count && n < COUNT_OF(names); i++) names[n++] = flags[i].name;
    const char *nearest = str_nearest(name, names, n);
    return nearest ? err_hint(err, "Did you mean --%s?  --help lists all flags.", nearest)
                   : err_hint(err, "--help lists all flags.");
}

typedef struct Given { /* one flag as typed, taken apart */
    char name[NAME_MAX_BYTES + 1], path[NAME_MAX_BYTES + 1]; /* --name.path */
    const char *value;                                       /* behind '=', or NULL */
} Given;

static bool take_apart(const char *argument, Given *given, Err *err) {
    const char *text = argument + (argument[1] == '-' ? 2 : 1), *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text), at = 0;
    if (length > NAME_MAX_BYTES) return err_set(err, ERR_INVALID, "unknown flag '%.80s'", argument);
    *given = (Given){.value = equals ? equals + 1 : NULL};
    for (; at < length && text[at] != '.'; at++) given->name[at] = text[at] == '_' ? '-' : text[at];
    if (at < length) memcpy(given->path, text + at + 1, length - at - 1);
    return true;
}

static const Flag *find_letter(const Flag *flags, size_t count, const char *letter) {
    for (size_t i = 0; i < count; i++)
        if (flags[i].letter && !strcmp(flags[i].letter, letter)) return &flags[i];
    return NULL;
}

/* -O3: a one-letter flag with its value behind it. */
static const Flag *find_attached(const Flag *flags, size_t count, const char *argument,
                                 Given *given) {
    char letter[2] = {argument[1], 0};
    if (given->value || !argument[1] || !argument[2]) return NULL;
    const Flag *flag = find_letter(flags, count, letter);
    if (!flag || is_bool(flag)) return NULL;
    given->value = argument + 2;
    *given->path = 0;
    return flag;
}

static void note_no_effect(FlagsResult *result, const Flag *flag) {
    for (size_t i = 0; i < result->no_effect.count; i++)
        if (result->no_effect.at[i] == flag->name) return;
    if (result->no_effect.count < COUNT_OF(result->no_effect.at))
        result->no_effect.at[result->no_effect.count++] = flag->name;
}

/* A value may begin with '-' if it is a number. */
static bool looks_like_flag(const char *text) {
    return text[0] == '-' && text[1] && !(text[1] >= '0' && text[1] <= '9') && text[1] != '.';
}

static bool set_given(const Flag *flag, void *conf, const Given *given, const char *value,
                      Arena *arena, Err *err) {
    if (flag->kind == FLAG_PIECES) {
        size_t length = strlen(given->path) + strlen(value) + 2;
        char *piece = arena_new(arena, length);
        snprintf(piece, length, "%s=%s", given->path, value);
        value = piece;
    }
    return set(flag, conf, value, err);
}

/* One flag at argv[*at], and its values. */
static bool parse_one(const Flag *flags, size_t count, void *conf, int argc, char *const *argv,
                      int *at, FlagsResult *result, Arena *arena, Err *err) {
    Given given;
    if (!take_apart(argv[*at], &given, err)) return false;
    bool whole = argv[*at][1] == '-';
    const Flag *flag = whole ? find(flags, count, given.name)
                             : find_letter(flags, count, given.name);
    if (!flag && !whole) flag = find_attached(flags, count, argv[*at], &given);
    bool negated = !flag && whole && (flag = find_negated(flags, count, given.name));
    if (!flag || (*given.path && flag->kind != FLAG_PIECES && flag->kind != FLAG_NO_EFFECT))
        return unknown(flags, count, given.name, err);
    if (flag->kind == FLAG_NO_EFFECT || flag->kind == FLAG_NO_EFFECT_BOOL)
        note_no_effect(result, flag);
    ++*at;
    if (is_bool(flag)) {
        if (negated && given.value)
            return err_set(err, ERR_INVALID, "--%s takes no value", given.name);
        return set(flag, conf, negated ? "false" : given.value ? given.value : "true", err);
    }
    if (!given.value) {
        if (*at == argc || (looks_like_flag(argv[*at]) && flag->kind != FLAG_PIECES)) {
            if (flag->kind == FLAG_NO_EFFECT) return true;
            err_set(err, ERR_INVALID, "--%s needs a value", flag->name);
            return err_hint(err, "--%s takes %s.", flag->name, flag->help ? flag->help : "a value");
        }
        given.value = argv[(*at)++];
    }
    if (!set_given(flag, conf, &given, given.value, arena, err)) return false;
    while (flag->kind == FLAG_LIST && *at < argc && !looks_like_flag(argv[*at]))
        if (!set(flag, conf, argv[(*at)++], err)) return false;
    return true;
}

bool flags_parse(const Flag *flags, size_t count, void *conf, int argc, char *const *argv,
                 FlagsResult *result, Arena *arena, Err *err) {
    *result = (FlagsResult){0};
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strncmp(argv[i], "--help=", 7) ||
            !strcmp(argv[i], "-h")) {
            result->help = true;
            return true;
        }
    for (size_t i = 0; i < count; i++) {
        if (flags[i].kind == FLAG_STR)
            *(const char **)((char *)conf + flags[i].offset) = flags[i].fallback;
        else if (flags[i].fallback && !set(&flags[i], conf, flags[i].fallback, err)) return false;
    }
    for (int at = 0; at < argc;) {
        if (looks_like_flag(argv[at])) {
            if (!parse_one(flags, count, conf, argc, argv, &at, result, arena, err)) return false;
        } else if (result->positional.count < COUNT_OF(result->positional.at)) {
            result->positional.at[result->positional.count++] = argv[at++];
        } else {
            return err_set(err, ERR_INVALID, "too many arguments");
        }
    }
    return true;
}

void flags_help(const Flag *flags, size_t count, Buf *out) {
    for (size_t i = 0; i < count; i++) {
        const Flag *f = &flags[i];
        if (!f->help) continue;
        char left[96];
        snprintf(left, sizeof left, "  --%s%s%s", f->name, f->value ? " " : "",
                 f->value ? f->value : "");
        if (strlen(left) > 34) buf_printf(out, "%s\n%-34s %s", left, "", f->help);
        else buf_printf(out, "%-34s %s", left, f->help);
        if (f->fallback && *f->fallback) buf_printf(out, " (default %s)", f->fallback);
        buf_char(out, '\n');
    }
}
