// SPDX-License-Identifier: Apache-2.0
/* tensor.h - holds quantised matrices and the kernels on them.
 *
 *   weight.h   the weight types of model files, their blocks, and what one block means
 *   matrix.h   a matrix repacked into tiles of 16 rows; activations; the product of both
 *   kernels.h  the table that scalar, AVX2 and AVX-512 fill; which one runs here
 *   team.h     threads that run one function together, with a barrier
 *   exact.h    elementary functions that give the same bits on every processor
 *
 * The rule of this layer: every kernel set gives the same bits.  Sums of integer products are
 * exact; every float step is one IEEE operation in an order that does not depend on lanes, threads,
 * chunks or company. */
#ifndef BATON_TENSOR_H
#define BATON_TENSOR_H

#include "base/base.h"

#include "exact.h"
#include "team.h"
#include "weight.h"
#include "matrix.h"
#include "kernels.h"

#endif
