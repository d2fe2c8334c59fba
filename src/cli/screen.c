// SPDX-License-Identifier: Apache-2.0
#include "screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BOLD "\033[1m"
#define DIM "\033[2m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define PLAIN "\033[0m"

static const char *style(const Screen *s, const char *code) { return s->terminal ? code : ""; }

void screen_init(Screen *s) {
    const char *term = getenv("TERM");
    *s = (Screen){.terminal = isatty(STDOUT_FILENO) && (!term || strcmp(term, "dumb") != 0),
                  .began_us = clock_mono_us()};
    setvbuf(stdout, NULL, s->terminal ? _IOFBF : _IOLBF, 1 << 14);
}

static double seconds(int64_t us) { return (double)us / 1e6; }

static const char *what_it_does(const FleetMember *m) {
    if (!strcmp(m->name, "prefill")) return "computes prompts, hands their KV over";
    if (!strcmp(m->name, "decode")) return "takes the KV, writes the answers";
    if (!strcmp(m->name, "router")) return "sends each request to a pair of them";
    return "computes prompts and answers";
}

static void draw_member(const Screen *s, const FleetMember *m) {
    static const char *const turns[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧"};
    printf("  ");
    if (m->state == MEMBER_READY) printf("%s✓%s", GREEN, PLAIN);
    else if (m->state == MEMBER_STARTING)
        printf("%s%s%s", YELLOW, turns[s->turn % COUNT_OF(turns)], PLAIN);
    else printf("✗");
    printf(" %s%-8s%s %s%-24s%s ", BOLD, m->name, PLAIN, DIM, m->url, PLAIN);
    if (m->state == MEMBER_READY)
        printf("ready after %.2f s", seconds(m->ready_us - m->started_us));
    else if (m->state == MEMBER_STARTING)
        printf("starting   %.1f s", seconds(clock_mono_us() - m->started_us));
    else printf("ended");
    printf("  %s%s%s\033[K\n", DIM, what_it_does(m), PLAIN);
}

void screen_progress(Screen *s, const Fleet *fleet, const FleetMember *changed) {
    if (s->terminal) {
        if (s->lines) printf("\033[%zuA", s->lines);
        for (size_t i = 0; i < fleet->count; i++) draw_member(s, &fleet->members[i]);
        s->lines = fleet->count;
        s->turn++;
    } else if (changed && changed->state == MEMBER_READY) {
        printf("%-8s ready after %.2f s at %s (%s)\n", changed->name,
               seconds(changed->ready_us - changed->started_us), changed->url,
               what_it_does(changed));
    }
    fflush(stdout);
}

void screen_ready(Screen *s, const Fleet *fleet, const char *url, const char *model) {
    s->lines = 0;
    bool apart = fleet->count > 2;
    if (s->terminal)
        printf(apart ? "\n  you ──▶ router ──▶ prefill ══KV══▶ decode ──▶ you\n"
                     : "\n  you ──▶ router ──▶ engine ──▶ you\n");
    const char *indent = s->terminal ? "  " : "";
    printf("%sall ready after %.2f s; others can ask too:\n", indent,
           seconds(clock_mono_us() - s->began_us));
    printf(
        "%s%scurl -s %s/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        "%s  -d '{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'%s\n\n",
        indent, style(s, DIM), url, indent, model, style(s, PLAIN));
    fflush(stdout);
}

void screen_question(const Screen *s, const char *text) {
    printf("%s>>> %s%s\n", style(s, BOLD), text, style(s, PLAIN));
    fflush(stdout);
}

void screen_note(const Screen *s, const char *what, const char *text) {
    printf("%s%-12s%s %s\n", style(s, YELLOW), what, style(s, PLAIN), text);
    fflush(stdout);
}

static void row(const Screen *s, const char *name) {
    printf("%s%-12s%s ", style(s, DIM), name, style(s, PLAIN));
}

static void print_prompt(const Screen *s, const Trace *t) {
    uint64_t total = t->computed + t->cached + t->pulled;
    row(s, "prompt");
    printf("%llu tokens: ", (unsigned long long)total);
    if (t->pulled) {
        uint64_t kept = total > t->prefill_tokens ? total - t->prefill_tokens : 0;
        printf("%llu computed by %s", (unsigned long long)t->prefill_tokens, t->prefill);
        if (kept) printf(" (%llu cached there)", (unsigned long long)kept);
        printf(", %llu handed over to %s", (unsigned long long)t->pulled, t->decode);
        if (t->cached) printf(" (%llu cached there)", (unsigned long long)t->cached);
        if (t->computed) printf(", %llu computed there", (unsigned long long)t->computed);
    } else {
        printf("%llu computed by %s", (unsigned long long)t->computed, t->decode);
        if (t->cached) printf(" (%llu cached there)", (unsigned long long)t->cached);
    }
    putchar('\n');
}

void screen_report(const Screen *s, const Trace *t, int64_t first_us, int64_t last_us,
                   uint64_t tokens) {
    putchar('\n');
    print_prompt(s, t);
    if (t->pulled) {
        row(s, "hand-over");
        printf("%llu bytes of KV over %s in %llu us\n", (unsigned long long)t->bytes, t->rail,
               (unsigned long long)t->transfer_us);
    }
    row(s, "first token");
    printf("after %.1f ms", (double)first_us / 1e3);
    if (t->pulled)
        printf(" (route %.1f, prefill %.1f, hand-over %.1f)", (double)t->route_us / 1e3,
               (double)t->prefill_us / 1e3, (double)t->transfer_us / 1e3);
    putchar('\n');
    row(s, "answer");
    printf("%llu tokens", (unsigned long long)tokens);
    if (tokens > 1 && last_us > first_us)
        printf(", %.0f a second after the first",
               (double)(tokens - 1) * 1e6 / (double)(last_us - first_us));
    printf("\n\n");
    fflush(stdout);
}

bool trace_parse(Str text, Trace *out) {
    *out = (Trace){0};
    const struct { const char *key; uint64_t *number;
    } numbers[] = {{"computed", &out->computed},       {"cached", &out->cached},
                   {"pulled", &out->pulled},           {"bytes", &out->bytes},
                   {"route_us", &out->route_us},       {"prefill_us", &out->prefill_us},
                   {"transfer_us", &out->transfer_us}, {"first_token_us", &out->first_token_us}};
    Str field;
    while (str_cut(&text, ';', &field)) {
        Str key, value = str_trim(field);
        if (!str_cut(&value, '=', &key) || !value.at) continue;
        char copy[64];
        snprintf(copy, sizeof copy, STR_FMT, STR_ARG(value));
        for (size_t i = 0; i < COUNT_OF(numbers); i++)
            if (str_eq(key, numbers[i].key)) *numbers[i].number = strtoull(copy, NULL, 10);
        if (str_eq(key, "rail")) snprintf(out->rail, sizeof out->rail, "%.15s", copy);
        if (str_eq(key, "decode")) snprintf(out->decode, sizeof out->decode, "%s", copy);
        if (str_eq(key, "prefill")) {
            char *slash = strchr(copy, '/');
            if (slash) {
                out->prefill_tokens = strtoull(slash + 1, NULL, 10);
                *slash = 0;
            }
            snprintf(out->prefill, sizeof out->prefill, "%s", copy);
        }
    }
    return out->decode[0] != 0;
}
