// SPDX-License-Identifier: Apache-2.0
/* internal.h - what server and client share about header fields. */
#ifndef BATON_HTTP_INTERNAL_H
#define BATON_HTTP_INTERNAL_H

#include "http.h"

typedef enum HeadersOf { OF_REQUEST, OF_REPLY } HeadersOf;

bool text_same(Str a, const char *lower); /* any case; lower is lower case */
bool is_token(Str text);                  /* RFC 9110, 5.6.2: what a method or a name consists of */
void header_put(Buf *out, const char *name, Str value);
void header_put_number(Buf *out, const char *name, uint64_t value);
/* Those that are not ours and belong to no single connection. */
void headers_put(Buf *out, HeadersOf what, HttpHeaders headers, bool has_content_type);

#endif
