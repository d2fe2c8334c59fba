// SPDX-License-Identifier: Apache-2.0
/* What can stand behind `is`. */
#include "jinja_ast.h"

static Value t_defined(Call *c) { return v_bool(c->self.kind != K_UNDEFINED); }

static Value t_undefined(Call *c) { return v_bool(c->self.kind == K_UNDEFINED); }

static Value t_none(Call *c) { return v_bool(c->self.kind == K_NONE); }

static Value t_boolean(Call *c) { return v_bool(c->self.kind == K_BOOL); }

static Value t_true(Call *c) { return v_bool(c->self.kind == K_BOOL && c->self.yes); }

static Value t_false(Call *c) { return v_bool(c->self.kind == K_BOOL && !c->self.yes); }

static Value t_integer(Call *c) { return v_bool(c->self.kind == K_INT); }

static Value t_float(Call *c) { return v_bool(c->self.kind == K_FLOAT); }

static Value t_number(Call *c) {
    return v_bool(c->self.kind == K_INT || c->self.kind == K_FLOAT || c->self.kind == K_BOOL);
}

static Value t_string(Call *c) { return v_bool(c->self.kind == K_STR); }

static Value t_mapping(Call *c) { return v_bool(c->self.kind == K_DICT); }

/* Whatever has a length and subscripts; so does an undefined value, and a dict. */
static Value t_sequence(Call *c) {
    return v_bool(c->self.kind == K_STR || c->self.kind == K_LIST || c->self.kind == K_TUPLE ||
                  c->self.kind == K_DICT || c->self.kind == K_RANGE || c->self.kind == K_UNDEFINED);
}

static Value t_iterable(Call *c) { return v_bool(is_iterable(c->self) || c->self.kind == K_LOOP); }

static Value t_callable(Call *c) {
    return v_bool(c->self.kind == K_FUNCTION || c->self.kind == K_METHOD ||
                  c->self.kind == K_MACRO || c->self.kind == K_JOINER || c->self.kind == K_LOOP ||
                  c->self.kind == K_UNDEFINED);
}

static Value t_escaped(Call *c) { return v_bool(c->self.kind == K_STR && c->self.markup); }

static bool remainder_is(Run *run, Value self, Value divisor, int64_t wanted) {
    return v_equal(run, v_binary(run, T_MOD, self, divisor), v_int(wanted));
}

static Value t_odd(Call *c) { return v_bool(remainder_is(c->run, c->self, v_int(2), 1)); }

static Value t_even(Call *c) { return v_bool(remainder_is(c->run, c->self, v_int(2), 0)); }

static Value t_divisibleby(Call *c) { return v_bool(remainder_is(c->run, c->self, c->args[0], 0)); }

static Value t_lower(Call *c) { return v_bool(str_is_case(v_to_str(c->run, c->self).text, false)); }

static Value t_upper(Call *c) { return v_bool(str_is_case(v_to_str(c->run, c->self).text, true)); }

static Value t_eq(Call *c) { return v_bool(v_compare(c->run, T_EQ, c->self, c->args[0])); }

static Value t_ne(Call *c) { return v_bool(v_compare(c->run, T_NE, c->self, c->args[0])); }

static Value t_lt(Call *c) { return v_bool(v_compare(c->run, T_LT, c->self, c->args[0])); }

static Value t_le(Call *c) { return v_bool(v_compare(c->run, T_LE, c->self, c->args[0])); }

static Value t_gt(Call *c) { return v_bool(v_compare(c->run, T_GT, c->self, c->args[0])); }

static Value t_ge(Call *c) { return v_bool(v_compare(c->run, T_GE, c->self, c->args[0])); }

static Value t_in(Call *c) { return v_bool(v_contains(c->run, c->args[0], c->self)); }

static Value t_sameas(Call *c) { return v_bool(v_same(c->self, c->args[0])); }

static Value t_filter(Call *c) {
    return v_bool(c->self.kind == K_STR && filter_named(c->self.text));
}

static Value t_test(Call *c) { return v_bool(c->self.kind == K_STR && test_named(c->self.text)); }

const TestDef *test_named(Str name) {
    static const TestDef tests[] = {
        {"defined", "", t_defined},     {"undefined", "", t_undefined},
        {"none", "", t_none},           {"boolean", "", t_boolean},
        {"true", "", t_true},           {"false", "", t_false},
        {"integer", "", t_integer},     {"float", "", t_float},
        {"number", "", t_number},       {"string", "", t_string},
        {"mapping", "", t_mapping},     {"sequence", "", t_sequence},
        {"iterable", "", t_iterable},   {"callable", "", t_callable},
        {"escaped", "", t_escaped},     {"odd", "", t_odd},
        {"even", "", t_even},           {"divisibleby", "num", t_divisibleby},
        {"lower", "", t_lower},         {"upper", "", t_upper},
        {"in", "seq", t_in},            {"sameas", "other", t_sameas},
        {"filter", "", t_filter},       {"test", "", t_test},
        {"eq", "b", t_eq},              {"==", "b", t_eq},
        {"equalto", "b", t_eq},         {"ne", "b", t_ne},
        {"!=", "b", t_ne},              {"lt", "b", t_lt},
        {"<", "b", t_lt},               {"lessthan", "b", t_lt},
        {"le", "b", t_le},              {"<=", "b", t_le},
        {"gt", "b", t_gt},              {">", "b", t_gt},
        {"greaterthan", "b", t_gt},     {"ge", "b", t_ge},
        {">=", "b", t_ge},
    };
    for (size_t i = 0; i < COUNT_OF(tests); i++)
        if (str_eq(name, tests[i].name)) return &tests[i];
    return NULL;
}

bool call_test(Run *run, const TestDef *test, Value operand, Args args) {
    Call call = {.run = run, .self = operand, .all = args};
    if (!run_step(run, 0) || !args_bind(run, test->name, test->params, args, call.args))
        return false;
    return v_true(run, test->call(&call));
}
