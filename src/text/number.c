// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DIGITS_MAX 17 /* enough for every double */

/* Writes d.ddde+XX with `digits` digits into out; true if it reads back as value. */
static bool written_exactly(double value, int digits, char out[40]) {
    snprintf(out, 40, "%.*e", digits - 1, value);
    return strtod(out, NULL) == value;
}

/* The next larger decimal of the same 16 digits; true if it reads back as value. */
static bool next_written_exactly(double value, char out[40]) {
    char text[40];
    snprintf(text, sizeof text, "%.15e", value);
    for (char *last = strchr(text, 'e') - 1; ++*last > '9'; last -= last[-1] == '.' ? 2 : 1)
        *last = '0'; /* all nines were a shorter decimal, found before */
    memcpy(out, text, sizeof text);
    return strtod(out, NULL) == value;
}

/* The fewest digits of a positive, finite double.  Up to 15 digits survive the way to a double and
 * back, so 15 rounded digits hold every shorter form, with zeros behind it.  Denormals have less
 * precision than that and are tried from one digit on.  Doubles are twice as far apart above a
 * power of two as below, so there a decimal that is not the nearest may do, too. */
static void shortest(double value, char out[40]) {
    int first = value < 2.2250738585072014e-308 ? 1 : 15, exponent;
    for (int digits = first; digits < DIGITS_MAX; digits++)
        if (written_exactly(value, digits, out)) return;
    if (frexp(value, &exponent) == 0.5 && next_written_exactly(value, out)) return;
    snprintf(out, 40, "%.*e", DIGITS_MAX - 1, value);
}

static size_t copy_out(const char *text, char *out) {
    size_t length = strlen(text);
    memcpy(out, text, length + 1);
    return length;
}

size_t double_repr(double value, char out[32]) {
    if (isnan(value)) return copy_out("nan", out);
    if (isinf(value)) return copy_out(value < 0 ? "-inf" : "inf", out);
    if (value == 0) return copy_out(signbit(value) ? "-0.0" : "0.0", out);
    char text[40], digits[DIGITS_MAX + 1];
    shortest(fabs(value), text);
    size_t count = 0, at = 0;
    for (const char *c = text; *c != 'e'; c++)
        if (*c != '.') digits[count++] = *c;
    while (count > 1 && digits[count - 1] == '0') count--;
    int point = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1; /* digits in front of the point */
    if (value < 0) out[at++] = '-';
    if (point > 16 || point < -3) {
        out[at++] = digits[0];
        if (count > 1) out[at++] = '.';
        for (size_t i = 1; i < count; i++) out[at++] = digits[i];
        return at + (size_t)snprintf(out + at, 32 - at, "e%c%02d", point > 0 ? '+' : '-',
                                     abs(point - 1));
    }
    if (point <= 0) {
        at += copy_out("0.", out + at);
        for (int i = point; i < 0; i++) out[at++] = '0';
    }
    for (int i = 0; i < (int)count || i < point; i++) {
        if (i == point && i > 0) out[at++] = '.';
        out[at++] = i < (int)count ? digits[i] : '0';
    }
    if ((int)count <= point) at += copy_out(".0", out + at);
    out[at] = 0;
    return at;
}

size_t int_repr(int64_t value, char out[24]) {
    char reversed[24];
    size_t count = 0, at = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        reversed[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0) out[at++] = '-';
    while (count) out[at++] = reversed[--count];
    out[at] = 0;
    return at;
}
