// SPDX-License-Identifier: Apache-2.0
#include "exact.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

double exact_log(double x) {
    int exponent;
    double m = frexp(x, &exponent); /* exact: moves bits */
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    /* ln m = 2 atanh(s), s = (m-1)/(m+1), |s| < 0.1716: the term s^23/23 is below 1e-18 */
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return 2 * s * sum + exponent * 0.69314718055994530942;
}

static double power(double x, unsigned n) {
    double result = 1;
    for (; n; n >>= 1, x *= x)
        if (n & 1) result *= x;
    return result;
}

double exact_root(double x, unsigned n) {
    /* Halving the interval: slow, but every step is one comparison of IEEE products. */
    double low = 1, high = x;
    for (int i = 0; i < 2000; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) break;
        if (power(middle, n) <= x) low = middle;
        else high = middle;
    }
    return low;
}

void exact_sin_cos(double x, double *sin_out, double *cos_out) {
    /* Cody and Waite: pi/2 in three parts, of which the first two have 33 bits: k * part is exact.
     */
    static const double part1 = 1.57079632673412561417e+00, part2 = 6.07710050630396597660e-11,
                        part3 = 2.02226624879595063154e-21;
    double k = (double)(int64_t)(x * 0.63661977236758134308 + (x < 0 ? -0.5 : 0.5));
    double r = ((x - k * part1) - k * part2) - k * part3, r2 = r * r;
    /* Taylor, |r| <= pi/4: the next terms are below 1e-17 */
    static const double s[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                               1.0 / 6227020800.0, -1.0 / 1307674368000.0};
    static const double c[] = {-1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
                               1.0 / 479001600.0, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    double ss = 0, cc = 0;
    for (int i = 6; i >= 0; i--) ss = ss * r2 + s[i];
    for (int i = 7; i >= 0; i--) cc = cc * r2 + c[i];
    double sine = r + r * r2 * ss, cosine = 1 + r2 * cc;
    switch ((int64_t)k & 3) {
    case 0: *sin_out = sine; *cos_out = cosine; break;
    case 1: *sin_out = cosine; *cos_out = -sine; break;
    case 2: *sin_out = -sine; *cos_out = -cosine; break;
    default: *sin_out = -cosine; *cos_out = sine; break;
    }
}

/* The same steps as f_exp() in body_float.h, for one value. */
float exact_exp(float x) {
    x = x > -87.33654f ? x : -87.33654f;
    x = x < 88.0f ? x : 88.0f;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power_of_two;
    memcpy(&power_of_two, &bits, sizeof bits);
    return p * power_of_two;
}
