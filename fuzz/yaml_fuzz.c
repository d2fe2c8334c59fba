// SPDX-License-Identifier: Apache-2.0
/* yaml_fuzz.c - any text gives a list of documents or an error with a place; what is read can be
 * written as JSON. */
#include <stdlib.h>

#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err err = {0};
    auto_json json_t *documents = yaml_parse((Str){(const char *)data, size}, &err);
    if (!documents) {
        if (err.code == ERR_NONE || strncmp(err.message, "yaml ", 5)) abort();
        return 0;
    }
    if (!json_is_array(documents)) abort();
    auto_buf Buf out = {0};
    buf_json_tree(&out, documents);
    auto_json json_t *again = json_parse((Str){out.at, out.length}, &err);
    /* One level more than a document may have, for the list. */
    if (!again && strncmp(err.message, "Nested too deeply", 17)) abort();
    return 0;
}
