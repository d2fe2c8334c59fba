// SPDX-License-Identifier: Apache-2.0
/* flags.h - command lines by table: one row a flag, from which parsing, defaults and help text
 * come.
 *
 *     static const Flag flags[] = {
 *         {"port", FLAG_INT, offsetof(Conf, port), "8000", "PORT", "the TCP port", 0, 65535, NULL},
 *     };
 *
 * Spelled as argparse and pflag users expect: --name VALUE, --name=VALUE, '_' for '-', -s for a
 * short name, -s3 for a one-letter name with its value.  A bool takes --name, --no-name, and
 * --enable-x also --disable-x; --name=false as well.  A repeated flag: the last one counts, lists
 * append.  Numbers of FLAG_SIZE may end in k, m, g (powers of 1000) or K, M, G (of 1024).  A wrong
 * flag or value is ERR_INVALID, names flag and value, and hints at the nearest known name. */
#ifndef BATON_BASE_FLAGS_H
#define BATON_BASE_FLAGS_H

typedef enum FlagKind {
    FLAG_STR,       /* const char * into argv; fallback NULL: NULL */
    FLAG_INT,       /* int64_t within least..most */
    FLAG_SIZE,      /* int64_t within least..most, human */
    FLAG_NUMBER,    /* double within least..most */
    FLAG_BOOL,      /* bool */
    FLAG_LIST,      /* FlagList; values up to the next flag, as argparse's nargs='+' */
    FLAG_PIECES,    /* FlagList of "path=value": --name JSON gives "=JSON", --name.a.b VALUE gives
                       "a.b=VALUE" */
    FLAG_NO_EFFECT, /* accepted with at most one value, counted in FlagsResult */
    FLAG_NO_EFFECT_BOOL,
} FlagKind;

typedef struct FlagList { const char *at[64]; size_t count; } FlagList;

typedef struct Flag {
    const char *name;     /* without dashes; "max-num-seqs" */
    FlagKind kind;
    size_t offset;        /* of the field in the conf */
    const char *fallback; /* as it would be typed; printed in the help */
    const char *value;    /* "PORT", for the help */
    const char *help;     /* one sentence, no full stop; NULL: not in the help */
    double least, most;   /* both 0: no bounds beyond the type's */
    const char *letter;   /* "tp" for -tp; NULL: none */
} Flag;

typedef struct FlagsResult {
    FlagList positional;
    FlagList no_effect;   /* names of FLAG_NO_EFFECT flags that were given, each once */
    bool help;            /* --help, --help=WORD or -h was given: nothing else was checked */
} FlagsResult;

/* Fills in the fallbacks, then the arguments (argv[0] is the first one, not the program).  `arena`
 * keeps values that had to be rewritten and lives as long as the conf. */
bool flags_parse(const Flag *flags, size_t count, void *conf, int argc, char *const *argv,
                 FlagsResult *result, Arena *arena, Err *err) MUST_CHECK;
void flags_help(const Flag *flags, size_t count,
                Buf *out); /* "  --port PORT    TCP port ... (default 8000)" */
bool flag_size(const char *text, double *out);              /* "1k", "4G", "25.6k" */

#endif
