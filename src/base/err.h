// SPDX-License-Identifier: Apache-2.0
/* err.h - one error: what happened, and what the reader can do about it.
 *
 * An Err lives on the caller's stack and is the last parameter, never NULL.  It is set once, where
 * the cause is known, wrapped on the way up ("context: cause"), and shown only at the edge.  It is
 * written on failure only.  Message: lower case, no full stop, names the object and the values;
 * "could not" may pass later, "cannot" never will.  Hint: full sentences, the next command or flag.
 */
#ifndef BATON_BASE_ERR_H
#define BATON_BASE_ERR_H

typedef enum ErrCode {
    ERR_NONE,
    ERR_INVALID,     /* the input is wrong and will stay wrong */
    ERR_UNAUTHORIZED,
    ERR_NOT_FOUND,
    ERR_CONFLICT,    /* taken, or changed meanwhile */
    ERR_TOO_LARGE,   /* over one of the limits in limits.h */
    ERR_UNSUPPORTED, /* right, but not there yet */
    ERR_EXHAUSTED,   /* no memory, blocks or queue places: may pass */
    ERR_UNAVAILABLE, /* a peer is gone or draining: may pass */
    ERR_DEADLINE,
    ERR_IO,
    ERR_DAMAGED,     /* bytes that do not prove themselves: a file, a block, a message */
    ERR_INTERNAL,
    ERR_CODES
} ErrCode;

typedef struct Err {
    ErrCode code;
    char message[512];
    char hint[256];
    char param[64]; /* the request field or flag at fault, "" if none */
} Err;

/* All return false, so that `return err_set(...)` reads as "fail with". */
bool err_set(Err *err, ErrCode code, const char *format, ...) PRINTF(3, 4);
bool err_hint(Err *err, const char *format, ...) PRINTF(2, 3);  /* keeps code and message */
bool err_param(Err *err, const char *param);                    /* names the field at fault */
bool err_wrap(Err *err, const char *format, ...)
    PRINTF(2, 3); /* message becomes "context: message" */

const char *err_name(ErrCode code);       /* "not_found": logs and metrics */
int err_http_status(ErrCode code);        /* 404 */
const char *err_kube_reason(ErrCode code); /* "NotFound" */

#endif
