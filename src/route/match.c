// SPDX-License-Identifier: Apache-2.0
#include "match.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_STEPS 100000 /* a few milliseconds */

struct RouteRegex {
    pcre2_code *code;
    pcre2_match_data *found;
    pcre2_match_context *limits;
};

void route_regex_free(RouteRegex *regex) {
    if (!regex) return;
    pcre2_match_context_free(regex->limits);
    pcre2_match_data_free(regex->found);
    pcre2_code_free(regex->code);
    free(regex);
}

RouteRegex *route_regex_new(const char *pattern, Err *err) {
    int problem;
    PCRE2_SIZE at;
    /* Not by UTF-8 rules: a header may hold any bytes. */
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_NEVER_BACKSLASH_C, &problem, &at, NULL);
    if (!code) {
        char why[128];
        pcre2_get_error_message(problem, (PCRE2_UCHAR *)why, sizeof why);
        err_set(err, ERR_INVALID, "'%s' cannot be a regular expression: %s at byte %zu", pattern,
                why, at);
        return NULL;
    }
    RouteRegex *regex = mem_new(sizeof *regex);
    regex->code = code;
    regex->found = pcre2_match_data_create(1, NULL);
    regex->limits = pcre2_match_context_create(NULL);
    if (!regex->found || !regex->limits) {
        route_regex_free(regex);
        err_set(err, ERR_EXHAUSTED, "could not get memory for a regular expression");
        return NULL;
    }
    pcre2_set_match_limit(regex->limits, MATCH_STEPS);
    pcre2_set_depth_limit(regex->limits, MATCH_STEPS);
    return regex;
}

bool route_regex_match(const RouteRegex *regex, Str text) {
    int found = pcre2_match(regex->code, (PCRE2_SPTR)(text.at ? text.at : ""), text.length, 0, 0,
                            regex->found, regex->limits);
    return found >= 0;
}

bool route_match(const RouteMatch *match, Str text) {
    if (match->exact) return str_eq(text, match->exact);
    if (match->prefix) return str_starts(text, match->prefix);
    return !match->regex || route_regex_match(match->regex, text);
}

bool route_rule_matches(const RouteRule *rule, Str model, Str path, HttpHeaders headers) {
    if (rule->model && !str_eq(model, rule->model)) return false;
    if (rule->path && !route_match(rule->path, path)) return false;
    for (size_t i = 0; i < rule->header_count; i++) {
        Str value = http_header(headers, rule->headers[i].name);
        if (!route_match(&rule->headers[i].match, value.at ? value : STR(""))) return false;
    }
    return true;
}
