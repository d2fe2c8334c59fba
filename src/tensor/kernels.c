// SPDX-License-Identifier: Apache-2.0
#include "kernels.h"

#include <stdio.h>

const Kernels *const kernels_all[] = {&kernels_avx512, &kernels_avx2, &kernels_scalar, NULL};
const Kernels *kernels = &kernels_scalar;

bool kernels_init(const char *name, Err *err) {
    bool forced = name && *name;
    for (size_t i = 0; kernels_all[i]; i++) {
        if (forced && strcmp(name, kernels_all[i]->name) != 0) continue;
        if (kernels_all[i]->runs_here()) {
            kernels = kernels_all[i];
            return true;
        }
        if (forced) {
            err_set(err, ERR_UNSUPPORTED, "BATON_KERNELS=%s cannot run on this processor", name);
            return err_hint(err,
                            "Unset BATON_KERNELS to let Baton choose: avx2 or scalar will do.");
        }
    }
    err_set(err, ERR_INVALID, "BATON_KERNELS=%s is not a set of kernels", name);
    return err_hint(err,
                    "Use scalar, avx2 or avx512, or unset it to take the best that runs here.");
}

size_t attend_scratch(size_t tokens, size_t dim) {
    size_t padded = (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS * PAGE_TOKENS;
    return ATTEND_ROWS * (dim + padded);
}
