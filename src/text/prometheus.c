// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <math.h>

static void append_escaped(Buf *out, const char *text, bool quotes_too) {
    for (; *text; text++) {
        if (*text == '\n') {
            buf_str(out, "\\n");
        } else {
            if (*text == '\\' || (quotes_too && *text == '"')) buf_char(out, '\\');
            buf_char(out, *text);
        }
    }
}

/* As repr() in Python, but positive numbers from 1e6 on have an exponent, of two digits with a 0
 * before it: Python's client does so to look like Go's. */
static void append_number(Buf *out, double value) {
    char text[32];
    if (isinf(value)) {
        buf_str(out, value < 0 ? "-Inf" : "+Inf");
        return;
    }
    if (isnan(value)) {
        buf_str(out, "NaN");
        return;
    }
    size_t length = double_repr(value, text);
    char *dot = strchr(text, '.');
    if (value <= 0 || !dot || dot - text <= 6) {
        buf_append(out, text, length);
        return;
    }
    int exponent = (int)(dot - text) - 1;
    memmove(text + 2, text + 1, (size_t)exponent); /* the point moves behind the first digit */
    text[1] = '.';
    while (length && (text[length - 1] == '0' || text[length - 1] == '.')) length--;
    buf_append(out, text, length);
    buf_printf(out, "e+0%d", exponent);
}

void prom_family(Buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s ", name);
    append_escaped(out, help, false);
    buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

void prom_labels(Buf *out, const char *const *names_and_values, size_t pairs) {
    for (size_t i = 0; i < pairs; i++) {
        buf_printf(out, "%s%s=\"", i ? "," : "", names_and_values[2 * i]);
        append_escaped(out, names_and_values[2 * i + 1], true);
        buf_char(out, '"');
    }
}

static void append_sample(Buf *out, const char *name, const char *suffix, const char *labels,
                          double value) {
    buf_str(out, name);
    buf_str(out, suffix);
    if (*labels) {
        buf_char(out, '{');
        buf_str(out, labels);
        buf_char(out, '}');
    }
    buf_char(out, ' ');
    append_number(out, value);
    buf_char(out, '\n');
}

void prom_value(Buf *out, const char *name, const char *labels, double value) {
    append_sample(out, name, "", labels, value);
}

void prom_histogram(Buf *out, const char *name, const char *labels, const Histogram *histogram) {
    uint64_t total = 0;
    auto_buf Buf with_le = {0};
    for (size_t i = 0; i <= histogram->bound_count; i++) {
        total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        buf_clear(&with_le);
        buf_str(&with_le, labels);
        buf_str(&with_le, *labels ? ",le=\"" : "le=\"");
        append_number(&with_le, i < histogram->bound_count ? histogram->bounds[i] : INFINITY);
        buf_char(&with_le, '"');
        append_sample(out, name, "_bucket", with_le.at, (double)total);
    }
    uint64_t micro = atomic_load_explicit(&histogram->sum_micro, memory_order_relaxed);
    append_sample(out, name, "_count", labels, (double)total); /* of the same reading as +Inf */
    append_sample(out, name, "_sum", labels, (double)micro / 1e6);
}
