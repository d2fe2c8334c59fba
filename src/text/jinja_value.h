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
bool run_enter(Run *run); /* one node deeper, until run->deep-- */
bool run_room(Run *run, size_t size);      /* false: over the memory limit, and failed */
#define OUTPUT_TOO_LONG "a text is over %zu MiB", LIMIT_TEMPLATE_OUTPUT / MIB /* for run_fail() */
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

#endif
