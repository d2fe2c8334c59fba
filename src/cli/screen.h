// SPDX-License-Identifier: Apache-2.0
/* screen.h - what a person sees of `baton run`: progress in place on a terminal, plain lines
 * elsewhere. */
#ifndef BATON_CLI_SCREEN_H
#define BATON_CLI_SCREEN_H

#include "fleet.h"

typedef struct Trace { /* the router's Baton-Trace, see route/route.h; numbers that are missing are
                          0 */
    char prefill[64], decode[64], rail[16];
    uint64_t prefill_tokens, computed, cached, pulled, bytes;
    uint64_t route_us, prefill_us, transfer_us, first_token_us;
} Trace;

typedef struct Screen {
    bool terminal;
    int64_t began_us;
    size_t lines;         /* of the progress view, drawn and to be drawn over */
    unsigned turn;        /* of the spinner */
} Screen;

void screen_init(Screen *screen);
void screen_progress(Screen *screen, const Fleet *fleet,
                     const FleetMember *changed); /* changed NULL: another turn */
void screen_ready(Screen *screen, const Fleet *fleet, const char *url, const char *model);
void screen_question(const Screen *screen, const char *text);
void screen_report(const Screen *screen, const Trace *trace, int64_t seen_first_us,
                   int64_t seen_last_us, uint64_t tokens);
void screen_note(const Screen *screen, const char *what, const char *text); /* "degraded", why */
bool trace_parse(Str text, Trace *out);

#endif
