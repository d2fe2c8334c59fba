// SPDX-License-Identifier: Apache-2.0
/* json_fuzz.c - tree and scan agree on what is JSON; what is written reads back as the same tree;
 * the members that a scan finds are those of the tree. */
#include <stdlib.h>

#include "text/text.h"

static void members_are_those_of(const json_t *tree, JsonScan scan) {
    JsonMember member;
    size_t count = 0;
    for (; json_scan_next(&scan, &member); count++) {
        Err err = {0};
        auto_buf Buf key = {0};
        Str quoted = {member.key.at - 1, member.key.length + 2};
        if (!json_unquote(quoted, &key)) abort();
        const char *name = key.at ? key.at : "";
        JsonMember last;
        if (!json_scan_find(&scan, name, &last)) abort();
        auto_json json_t *value = json_parse(last.value, &err);
        if (!value || !json_equal(value, json_object_get(tree, name))) abort();
        if (member.whole.at != quoted.at ||
            member.whole.at + member.whole.length != member.value.at + member.value.length)
            abort();
    }
    if (count != scan.count) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Str text = {(const char *)data, size};
    Err err = {0}, scan_err = {0};
    JsonScan scan;
    auto_json json_t *tree = json_parse(text, &err);
    bool scanned = json_scan(text, &scan, &scan_err);
    if (scanned != json_is_object(tree)) abort();
    if (!tree) {
        if (strcmp(err.message, scan_err.message) || !err.param[0]) abort();
        return 0;
    }
    if (scanned && scan.count < 64) members_are_those_of(tree, scan); /* each find is a pass */
    auto_buf Buf out = {0};
    buf_json_tree(&out, tree);
    auto_json json_t *again = json_parse((Str){out.at, out.length}, &err);
    if (!again || !json_equal(tree, again)) abort();
    return 0;
}
