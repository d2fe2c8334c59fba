// SPDX-License-Identifier: Apache-2.0
/* jinja_value.h - the values of a rendering, and what Python can do with them.
 *
 * A Run is one rendering.  Its memory is one arena: values are never freed one by one, and what a
 * template builds stays within LIMIT_TEMPLATE_MEMORY.  Values do not change once they are made,
 * but for namespaces, cyclers, joiners, loops and iterators.
 *
 * Errors stick: the first run_fail() is kept, what fails returns undefined, and loops ask run_ok()
 * before they go on.  So expressions read as expressions. */
#ifndef BATON_TEXT_JINJA_VALUE_H
#define BATON_TEXT_JINJA_VALUE_H

#include "text.h"

typedef enum Kind {
    K_MISSING, /* no value at all: a variable never set, an argument not given */
    K_UNDEFINED, K_NONE, K_BOOL, K_INT, K_FLOAT, K_STR, K_LIST, K_TUPLE, K_DICT,
    K_RANGE, K_VIEW, K_ITER, K_NAMESPACE, K_CYCLER, K_JOINER, K_LOOP, K_MACRO, K_FUNCTION, K_METHOD,
} Kind;

typedef enum UndefinedWhy { /* sub of K_UNDEFINED: how text is to be read */
    UNDEF_NAME,    /* the name of a variable */
    UNDEF_HINT,    /* the whole message */
    UNDEF_ATTR,    /* the name of what an object of kind `of` does not have */
    UNDEF_ELEMENT, /* the repr of what an object of kind `of` does not have */
    UNDEF_UNSAFE,  /* the name of what an object of kind `of` has, but not for templates */
} UndefinedWhy;

typedef enum ViewOf { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } ViewOf; /* sub of K_VIEW */

typedef struct Value {
    uint8_t kind, sub, of;
    bool markup : 1;   /* K_STR: escaped HTML, which escapes what is added to it */
    bool growable : 1; /* K_STR: starts behind a StrHead */
    bool group : 1;    /* K_TUPLE: of groupby, with the names grouper and list */
    union {
        bool yes;
        int64_t number;
        double real;
        Str text; /* K_STR, K_UNDEFINED */
        struct List *list;
        struct Dict *dict; /* K_DICT, K_VIEW, K_NAMESPACE */
        struct Range *range;
        struct Iter *iter;
        struct Cycler *cycler;
        struct Joiner *joiner;
        struct LoopState *loop;
        struct Macro *macro;
        const struct FunctionDef *function;
        struct Method *method;
    };
} Value;

typedef struct List { Value *items; size_t count, room; } List;
typedef struct Dict {
    Value *keys, *values;
    size_t count, room;
    uint32_t *index; /* hash table of positions + 1; NULL while the dict is small */
    size_t index_size;
} Dict;
typedef struct Range { int64_t start, stop, step, count; } Range;
typedef struct Cycler { List items; size_t at; } Cycler;
typedef struct Joiner { Value separator; bool used; } Joiner;

typedef struct Run Run;
typedef struct Args { Value *given; size_t count; Dict *named; } Args; /* named may be NULL */

typedef struct FunctionDef { const char *name; Value (*call)(Run *, Args); } FunctionDef;

/* A method, filter or test gets its arguments bound to its parameters: `params` names them, those
 * behind "|" may be missing, "*" means that it takes the Args as they are. */
#define PARAMS_MAX 5
typedef struct Call {
    Run *run;
    Value self;
    Value args[PARAMS_MAX]; /* bound; K_MISSING where an optional one is not given */
    Args all;               /* as they stand in the template */
} Call;
typedef struct CallDef { const char *name; const char *params; Value (*call)(Call *); } CallDef;
typedef CallDef MethodDef;
typedef CallDef FilterDef;
typedef CallDef TestDef;
typedef struct Method { const MethodDef *def; Value self; } Method;

/* Iteration. next() gives items until it returns false: at the end, or after run_fail(). */
typedef struct Iter Iter;
struct Iter {
    bool (*next)(Run *, Iter *, Value *item);
    Value source;
    size_t at, end;
    Iter *inner;
    void *state;
};

struct Run {
    const Template *template;
    const json_t *vars;
    int64_t now;
    Err *err;
    Arena arena;
    Buf *out;            /* where statements print */
    struct Frame *frame; /* the variables of the function that runs */
    Value *context;      /* by name: render variables and globals, once asked for */
    uint32_t line;
    size_t steps;
    unsigned calls;  /* macros and recursive loops under way */
    unsigned deep;   /* nodes under way */
    unsigned nested; /* values within values under way */
    bool breaks, continues; /* a loop is on its way out of its body */
};

/* --- jinja_value.c --- */
static inline Value v_undefined(void) { return (Value){.kind = K_UNDEFINED, .sub = UNDEF_HINT}; }
static inline Value v_none(void) { return (Value){.kind = K_NONE}; }
static inline Value v_bool(bool yes) { return (Value){.kind = K_BOOL, .yes = yes}; }
static inline Value v_int(int64_t number) { return (Value){.kind = K_INT, .number = number}; }
static inline Value v_real(double real) { return (Value){.kind = K_FLOAT, .real = real}; }
static inline Value v_str(Str text) { return (Value){.kind = K_STR, .text = text}; }
static inline Value v_list(List *list) { return (Value){.kind = K_LIST, .list = list}; }
static inline Value v_tuple(List *list) { return (Value){.kind = K_TUPLE, .list = list}; }
static inline Value v_dict(Dict *dict) { return (Value){.kind = K_DICT, .dict = dict}; }
static inline Value v_iter(Iter *iter) { return (Value){.kind = K_ITER, .iter = iter}; }

Value run_fail(Run *run, ErrCode code, const char *format, ...) PRINTF(3, 4);
static inline bool run_ok(const Run *run) { return run->err->code == ERR_NONE; }
bool run_out_of_steps(Run *run);
/* One step, and what looking at so many bytes costs.  False: give up. */
static inline bool run_step(Run *run, size_t bytes) {
    run->steps += 1 + bytes / 256;
    return run->steps <= LIMIT_TEMPLATE_STEPS ? run_ok(run) : run_out_of_steps(run);
}
void *run_new(Run *run, size_t size);      /* zeroed; small, or run_room() said that it fits */
bool run_room(Run *run, size_t size);      /* false: over the memory limit, and failed */
Value run_take(Run *run, Buf *buf);        /* its text as a value; the Buf is empty again */

Value undefined_hint(const char *message);
Value undefined_of(Run *run, Value object, Value name); /* object has no attribute or element */
Value run_fail_undefined(Run *run, Value undefined);    /* its use is an error */
const char *kind_name(Value value);                     /* as Python says it: str, NoneType */
bool is_str(Value value, const char *text);
bool is_int(Value value, int64_t *number);   /* also a bool */
bool is_number(Value value, double *number); /* also a bool */

List *list_new(Run *run, size_t room);
void list_add(Run *run, List *list, Value item);
List *list_of(Run *run, Value iterable);
Value tuple_of2(Run *run, Value a, Value b);
Dict *dict_new(Run *run);
bool dict_set(Run *run, Dict *dict, Value key, Value value); /* false: the key cannot be hashed */
Value *dict_get(Run *run, const Dict *dict, Value key);      /* NULL: not there; may fail */
Value *dict_find(Run *run, const Dict *dict, const char *key);
Value value_of_json(Run *run, const json_t *tree);

bool v_true(Run *run, Value value);
bool v_equal(Run *run, Value a, Value b);
#define UNORDERED 2
int v_order(Run *run, Value a, Value b, const char *sign); /* -1, 0, 1; UNORDERED: not a number, or
                                                              failed with `sign` in the message */
bool v_contains(Run *run, Value container, Value item);
int64_t v_length(Run *run, Value value, bool *has_one); /* without one: has_one false, no failure */
bool v_same(Value a, Value b);

/* --- jinja_iter.c --- */
Iter *iter_of(Run *run, Value value);    /* NULL: failed, cannot be iterated */
Iter *iter_reversed(Run *run, Value value, bool *possible); /* NULL and not possible: no failure */
bool iter_next(Run *run, Iter *iter, Value *item);
Iter *iter_new(Run *run, bool (*next)(Run *, Iter *, Value *), Value source);
bool is_iterable(Value value);
int64_t range_at(const Range *range, int64_t index);

/* --- jinja_text.c: values as text --- */
void append_str(Run *run, Buf *out, Value value);  /* as str() */
void append_repr(Run *run, Buf *out, Value value); /* as repr() */
Value v_to_str(Run *run, Value value);             /* a string stays what it is, also Markup */
Value v_escape(Run *run, Value value);             /* HTML, as markupsafe */
typedef struct JsonStyle {
    bool ascii, sort_keys;
    const char *indent; /* NULL: one line */
    Str comma, colon;
} JsonStyle;
void append_json(Run *run, Buf *out, Value value, const JsonStyle *style, unsigned level);
Value run_printf(Run *run, Value format, Value args);      /* format % args */
Value run_format(Run *run, Value format, Args args);       /* format.format(...) */

/* --- jinja_ops.c: operators and subscripts --- */
Value v_add(Run *run, Value a, Value b);
Value v_binary(Run *run, int op, Value a, Value b); /* T_ADD ... T_POW */
bool v_compare(Run *run, int op, Value a, Value b); /* T_EQ ... T_NOT_IN */
Value v_negative(Run *run, Value value);
Value v_positive(Run *run, Value value);
Value v_joined(Run *run, Value a, Value b); /* two strings; reuses the room behind the first */
Value v_attr(Run *run, Value object, Str name); /* object.name */
Value v_attr_alone(Run *run, Value object, Str name); /* K_MISSING if it is no attribute */
Value v_item(Run *run, Value object, Value key); /* object[key] */
Value v_slice(Run *run, Value object, Value start, Value stop, Value step);
Value v_path(Run *run, Value object, Value path); /* "a.b.0" as filters take it */

/* --- jinja_str.c, jinja_case.c, jinja_filters.c, ...: what can be called --- */
extern const MethodDef str_methods[];
const MethodDef *method_of(Value object, Str name); /* NULL: it has none of that name */
const FilterDef *filter_named(Str name);
const TestDef *test_named(Str name);
const FunctionDef *global_named(Str name);
bool args_bind(Run *run, const char *what, const char *params, Args args, Value *bound);
Value run_call(Run *run, Value callee, Args args);
Value call_filter(Run *run, const FilterDef *filter, Value operand, Args args);
bool call_test(Run *run, const TestDef *test, Value operand, Args args);
Value call_method(Run *run, const MethodDef *method, Value self, Args args);

typedef enum CaseTo { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP } CaseTo;
bool str_is_case(Str text, bool upper); /* Python's isupper() and islower() */
Value str_cased(Run *run, Value text, CaseTo to);
bool is_space_char(uint32_t codepoint);
bool is_line_end(uint32_t codepoint);
bool is_letter_char(uint32_t codepoint);
bool is_decimal_char(uint32_t codepoint);
bool is_numeric_char(uint32_t codepoint);
bool is_word_char(uint32_t codepoint); /* letter, number or _ */
bool is_upper_char(uint32_t codepoint);
bool is_lower_char(uint32_t codepoint);
bool is_printable_char(uint32_t codepoint);
Str str_strip(Str text, const Str *chars, bool left, bool right); /* chars NULL: white space */
size_t str_count_chars(Str text);
size_t str_offset(Str text, size_t index); /* bytes before the character `index` */
Value str_replaced(Run *run, Str text, Str old, Str with, int64_t count); /* count < 0: all */
Value str_split(Run *run, Value text, Value separator, int64_t most, bool from_right);
Value str_lines(Run *run, Value text, bool keep_ends);
Value str_padded(Run *run, Value text, int64_t width, Str fill, char align); /* < > ^ */

#endif
