// SPDX-License-Identifier: Apache-2.0
/* exact.h - elementary functions whose bits do not depend on the processor or the C library.
 *
 * libm picks its code by processor and promises no last bit.  These use only IEEE additions,
 * multiplications, divisions and fma in a fixed order; errors are below 1e-15 (double) and 1e-7
 * (float), relative. */
#ifndef BATON_TENSOR_EXACT_H
#define BATON_TENSOR_EXACT_H

double exact_log(double x);                          /* x > 0, finite */
double exact_root(double x, unsigned n);             /* x^(1/n), x >= 1 */
void exact_sin_cos(double x, double *sin, double *cos); /* |x| <= 2^30 */
float exact_exp(float x); /* clamped to [-87.3, 88]; what the kernels compute, for one */

#endif
