// SPDX-License-Identifier: Apache-2.0
/* match.h - whether a request fits a rule: its headers, its path, the model its body names.
 *
 * A StringMatch holds one of exact, prefix, regex; the first that is set counts, none matches
 * everything.  Regular expressions match anywhere in the text (^ and $ bind them) and give up, as
 * no match, rather than search for long: patterns and texts come from different people. */
#ifndef BATON_ROUTE_MATCH_H
#define BATON_ROUTE_MATCH_H

#include "http/http.h"

typedef struct RouteRegex RouteRegex;
RouteRegex *route_regex_new(const char *pattern, Err *err) MUST_CHECK;
void route_regex_free(RouteRegex *regex);
bool route_regex_match(const RouteRegex *regex, Str text);

typedef struct RouteMatch { const char *exact, *prefix; RouteRegex *regex; } RouteMatch;
bool route_match(const RouteMatch *match, Str text);

typedef struct RouteHeaderMatch { const char *name; RouteMatch match; } RouteHeaderMatch;
typedef struct RouteRule {
    const char *model; /* of the body; NULL: any */
    const RouteMatch *path;              /* NULL: any */
    const RouteHeaderMatch *headers;     /* all must match; a missing one is "" */
    size_t header_count;
    struct RouteTarget *targets;
    size_t target_count;
} RouteRule;
bool route_rule_matches(const RouteRule *rule, Str model, Str path, HttpHeaders headers);

#endif
