// SPDX-License-Identifier: Apache-2.0
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SETTLE_MS 100 /* editors and copies touch a file more than once */

typedef struct File {
    char *name;
    struct timespec changed;
    int64_t size;
    uint64_t inode;
    json_t *objects; /* an array; the last good ones */
    bool seen;
} File;

struct RouteFolder {
    char *path;
    RouteStore *store;
    Watch *watch;
    Timer *settle;
    File *files; /* by name */
    size_t count, room;
    json_t *applied; /* "kind namespace/name": file; what the store has from here */
    uint64_t failures;
};

/* ---- one file ---- */

static bool has_ending(const char *name, const char *ending) {
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && !strcmp(name + length - tail, ending);
}

static bool is_manifest(const char *name) {
    return name[0] != '.' &&
           (has_ending(name, ".yaml") || has_ending(name, ".yml") || has_ending(name, ".json"));
}

/* "yaml line 7, column 3: ..." and "Expecting value: line 7 column 3 (char 80)" both name it. */
static long line_in(const char *message) {
    const char *at = strstr(message, "line ");
    return at ? strtol(at + 5, NULL, 10) : 0;
}

static bool is_ours(const json_t *object) {
    const char *kind = route_text(object, "kind", "");
    for (RouteKind k = 0; k < ROUTE_KINDS; k++)
        if (!strcmp(kind, route_kind_name(k))) return true;
    return !*kind || !json_is_object(object); /* not one at all: the check says so */
}

static bool take(json_t *objects, json_t *object, Err *err) {
    const json_t *items = route_at(object, "items");
    if (json_is_array(items) && has_ending(route_text(object, "kind", ""), "List")) {
        for (size_t i = 0; i < json_array_size(items); i++)
            if (!take(objects, json_array_get(items, i), err)) return false;
        return true;
    }
    if (!is_ours(object)) {
        log_debug("route: %s %s is none of the router's", route_text(object, "kind", ""),
                  route_name(object));
        return true;
    }
    if (!route_object_check(object, NULL, NULL, err)) return false;
    json_array_append(objects, object);
    return true;
}

static json_t *file_parse(const char *path, const char *name, Err *err) {
    size_t length;
    auto_free char *text = file_read(path, LIMIT_YAML, &length, err);
    if (!text) return NULL;
    Str all = {text, length};
    auto_json json_t *documents =
        has_ending(name, ".json") ? json_parse(all, err) : yaml_parse(all, err);
    if (!documents) return NULL;
    auto_json json_t *objects = json_array();
    if (!json_is_array(documents))
        return take(objects, documents, err) ? json_incref(objects) : NULL;
    for (size_t i = 0; i < json_array_size(documents); i++)
        if (!take(objects, json_array_get(documents, i), err)) return NULL;
    return json_incref(objects);
}

/* False: the file cannot be used; `err` says where and why. */
static bool file_load(RouteFolder *folder, File *file, Err *err) {
    auto_buf Buf path = {0};
    buf_printf(&path, "%s/%s", folder->path, file->name);
    json_t *objects = file_parse(path.at, file->name, err);
    if (objects) {
        json_decref(file->objects);
        file->objects = objects;
        return true;
    }
    folder->failures++;
    long line = line_in(err->message);
    return line ? err_wrap(err, "%s:%ld", path.at, line) : err_wrap(err, "%s", path.at);
}

/* ---- the folder ---- */

static File *file_get(RouteFolder *folder, const char *name) {
    for (size_t i = 0; i < folder->count; i++)
        if (!strcmp(folder->files[i].name, name)) return &folder->files[i];
    if (folder->count == LIMIT_OBJECTS) return NULL;
    mem_reserve(folder->files, folder->room, folder->count + 1);
    File *file = &folder->files[folder->count++];
    *file = (File){.name = mem_dup_str(name), .size = -1};
    return file;
}

static bool file_changed(File *file, const struct stat *now) {
    bool same = file->size == now->st_size && file->inode == now->st_ino &&
                file->changed.tv_sec == now->st_mtim.tv_sec &&
                file->changed.tv_nsec == now->st_mtim.tv_nsec;
    file->size = now->st_size;
    file->inode = now->st_ino;
    file->changed = now->st_mtim;
    return !same;
}

static int file_order(const void *a, const void *b) {
    return strcmp(((const File *)a)->name, ((const File *)b)->name);
}

static void drop_unseen(RouteFolder *folder) {
    size_t kept = 0;
    for (size_t i = 0; i < folder->count; i++) {
        File *file = &folder->files[i];
        if (file->seen) {
            folder->files[kept++] = *file;
            continue;
        }
        free(file->name);
        json_decref(file->objects);
    }
    folder->count = kept;
    if (kept) qsort(folder->files, kept, sizeof *folder->files, file_order);
}

/* Files that are new or changed are read.  False if one of them is at fault: `err` is the first
 * one's, the others go to the log. */
static bool scan(RouteFolder *folder, Err *err) {
    DIR *dir = opendir(folder->path);
    if (!dir) {
        return err_set(err, ERR_IO, "could not read the folder '%s': %s", folder->path,
                       strerror(errno));
    }
    bool ok = true;
    for (size_t i = 0; i < folder->count; i++) folder->files[i].seen = false;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat now;
        if (!is_manifest(entry->d_name)) continue;
        if (fstatat(dirfd(dir), entry->d_name, &now, 0) != 0 || !S_ISREG(now.st_mode)) continue;
        File *file = file_get(folder, entry->d_name);
        if (!file) {
            log_error("route: '%s' has more than %d files: the rest is not read", folder->path,
                      LIMIT_OBJECTS);
            break;
        }
        file->seen = true;
        Err own = {0};
        if (!file_changed(file, &now) || file_load(folder, file, &own)) continue;
        if (ok) *err = own;
        else log_error("route: %s", own.message);
        ok = false;
    }
    closedir(dir);
    drop_unseen(folder);
    return ok;
}

/* ---- into the store ---- */

static void key_of(const json_t *object, Buf *key) {
    buf_clear(key);
    buf_printf(key, "%d %s/%s", (int)route_object_kind(object), route_namespace(object),
               route_name(object));
}

static void apply_one(RouteFolder *folder, const File *file, json_t *object, json_t *applied) {
    auto_buf Buf key = {0};
    key_of(object, &key);
    const char *other = json_string_value(json_object_get(applied, key.at));
    if (other)
        log_warn("route: %s %s/%s of %s is also in %s: the last one counts",
                 route_kind_name(route_object_kind(object)), route_namespace(object),
                 route_name(object), other, file->name);
    json_object_set_new(applied, key.at, json_string(file->name));
    Err err = {0};
    if (!route_store_apply(folder->store, object, &err)) log_error("route: %s", err.message);
}

static void delete_key(RouteFolder *folder, const char *key) {
    Str rest = str_of(strchr(key, ' ') + 1), namespace;
    str_cut(&rest, '/', &namespace);
    auto_free char *space = mem_dup_bytes(namespace.at, namespace.length);
    route_store_delete(folder->store, (RouteKind)(key[0] - '0'), space, rest.at);
}

static void apply(RouteFolder *folder) {
    json_t *applied = json_object();
    for (size_t i = 0; i < folder->count; i++)
        for (size_t k = 0; k < json_array_size(folder->files[i].objects); k++)
            apply_one(folder, &folder->files[i], json_array_get(folder->files[i].objects, k),
                      applied);
    for (void *at = json_object_iter(folder->applied); at;
         at = json_object_iter_next(folder->applied, at))
        if (!json_object_get(applied, json_object_iter_key(at)))
            delete_key(folder, json_object_iter_key(at));
    json_decref(folder->applied);
    folder->applied = applied;
    route_store_publish(folder->store);
}

static void on_settled(void *user) {
    RouteFolder *folder = user;
    Err err = {0};
    if (!scan(folder, &err))
        log_error("route: %s: its last good objects stay in effect", err.message);
    apply(folder);
}

static void on_changed(void *user) {
    RouteFolder *folder = user;
    timer_again(folder->settle, SETTLE_MS);
}

/* ---- folder.h ---- */

RouteFolder *route_folder_open(Loop *loop, const char *path, RouteStore *store, Err *err) {
    RouteFolder *folder = mem_new(sizeof *folder);
    folder->path = mem_dup_str(path);
    folder->store = store;
    folder->applied = json_object();
    folder->settle = timer_start(loop, TIMER_NEVER, 0, on_settled, folder);
    folder->watch = watch_open(loop, path, on_changed, folder, err); /* first: nothing is missed */
    if (!folder->watch) err_hint(err, "--objects takes a folder of manifests.");
    if (!folder->watch || !scan(folder, err)) {
        route_folder_close(folder);
        return NULL;
    }
    apply(folder);
    return folder;
}

uint64_t route_folder_failures(const RouteFolder *folder) { return folder ? folder->failures : 0; }

void route_folder_close(RouteFolder *folder) {
    if (!folder) return;
    watch_close(folder->watch);
    timer_close(folder->settle);
    for (size_t i = 0; i < folder->count; i++) {
        free(folder->files[i].name);
        json_decref(folder->files[i].objects);
    }
    free(folder->files);
    json_decref(folder->applied);
    free(folder->path);
    free(folder);
}
