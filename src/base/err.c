// SPDX-License-Identifier: Apache-2.0
#include "base.h"

#include <stdio.h>

static const struct {
    const char *name;
    int http_status;
    const char *kube_reason;
} codes[ERR_CODES] = {
    [ERR_NONE]         = {"none",         200, "Success"},
    [ERR_INVALID]      = {"invalid",      400, "BadRequest"},
    [ERR_UNAUTHORIZED] = {"unauthorized", 401, "Unauthorized"},
    [ERR_NOT_FOUND]    = {"not_found",    404, "NotFound"},
    [ERR_CONFLICT]     = {"conflict",     409, "Conflict"},
    [ERR_TOO_LARGE]    = {"too_large",    413, "RequestEntityTooLarge"},
    [ERR_UNSUPPORTED]  = {"unsupported",  400, "BadRequest"},
    [ERR_EXHAUSTED]    = {"exhausted",    503, "ServiceUnavailable"},
    [ERR_UNAVAILABLE]  = {"unavailable",  503, "ServiceUnavailable"},
    [ERR_DEADLINE]     = {"deadline",     504, "Timeout"},
    [ERR_IO]           = {"io",           500, "InternalError"},
    [ERR_DAMAGED]      = {"damaged",      500, "InternalError"},
    [ERR_INTERNAL]     = {"internal",     500, "InternalError"},
};

bool err_set(Err *err, ErrCode code, const char *format, ...) {
    assert(code > ERR_NONE && code < ERR_CODES);
    char text[sizeof err->message]; /* the arguments may point into err */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    *err = (Err){.code = code};
    memcpy(err->message, text, sizeof text);
    return false;
}

bool err_hint(Err *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(err->hint, sizeof err->hint, format, args);
    va_end(args);
    return false;
}

bool err_param(Err *err, const char *param) {
    snprintf(err->param, sizeof err->param, "%s", param);
    return false;
}

bool err_wrap(Err *err, const char *format, ...) {
    char text[sizeof err->message / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Buf whole = {.limit = sizeof err->message - 1};
    buf_printf(&whole, "%s: ", text);
    size_t room = whole.limit - whole.length, length = strlen(err->message);
    buf_append(&whole, err->message, length < room ? length : room);
    memcpy(err->message, whole.at, whole.length + 1);
    buf_done(&whole);
    return false;
}

const char *err_name(ErrCode code) { return codes[code].name; }
int err_http_status(ErrCode code) { return codes[code].http_status; }
const char *err_kube_reason(ErrCode code) { return codes[code].kube_reason; }
