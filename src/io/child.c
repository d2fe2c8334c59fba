// SPDX-License-Identifier: Apache-2.0
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PARENT "BATON_PARENT"

extern char **environ;

struct Child {
    Item item;
    uv_process_t uv;
    bool exited, closed;
    void (*tell)(void *user, int64_t status, int signal);
    void *user;
};

static void free_data(uv_handle_t *handle) { free(handle->data); }

static void child_drop(Child *child) {
    item_leave(&child->item);
    uv_close((uv_handle_t *)&child->uv, free_data);
}

static void on_exit_of(uv_process_t *uv, int64_t status, int signal) {
    Child *child = uv->data;
    child->exited = true;
    if (child->closed) child_drop(child);
    else if (child->tell) child->tell(child->user, status, signal);
}

static void child_drop_item(Item *item) { child_drop((Child *)item); }

/* ---- the environment: ours, with some variables replaced ---- */

typedef struct Environment {
    char **at;
    size_t count, capacity;
} Environment;

static void env_put(Environment *env, char *entry) {
    mem_reserve(env->at, env->capacity, env->count + 1);
    env->at[env->count++] = entry;
}

static bool same_name(const char *a, const char *b) {
    size_t n = strcspn(a, "=");
    return n == strcspn(b, "=") && memcmp(a, b, n) == 0;
}

static void env_set(Environment *env, const char *entry) {
    for (size_t i = 0; i < env->count; i++)
        if (same_name(env->at[i], entry)) {
            env->at[i] = (char *)entry;
            return;
        }
    env_put(env, (char *)entry);
}

static Environment env_make(const char *const *add, const char *parent) {
    Environment env = {0};
    for (char **at = environ; *at; at++) env_put(&env, *at);
    env_set(&env, parent);
    for (; add && *add; add++) env_set(&env, *add);
    env_put(&env, NULL);
    return env;
}

/* ---- io.h ---- */

static void spawn_failed(const char *program, int error, Err *err) {
    char text[64];
    err_set(err, error == UV_ENOENT ? ERR_NOT_FOUND : ERR_IO, "could not start '%s': %s", program,
            error_text(error, text));
}

Child *child_spawn(Loop *loop, const ChildConf *conf, Err *err) {
    loop_check(loop);
    char parent[64], text[64];
    snprintf(parent, sizeof parent, PARENT "=%d", (int)getpid());
    auto_close int log = -1;
    if (conf->log_path) {
        log = open(conf->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (log < 0) {
            err_set(err, ERR_IO, "could not open the log '%s': %s", conf->log_path,
                    error_text(errno, text));
            return NULL;
        }
    }
    Environment env = env_make(conf->env_add, parent);
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = log >= 0 ? log : STDOUT_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = log >= 0 ? log : STDERR_FILENO},
    };
    uv_process_options_t options = {.exit_cb = on_exit_of, .file = conf->argv[0],
                                    .args = (char **)conf->argv, .env = env.at,
                                    .stdio = stdio, .stdio_count = 3};
    Child *child = mem_new(sizeof *child);
    loop_own(loop, &child->item, child_drop_item);
    child->uv.data = child;
    child->tell = conf->exited;
    child->user = conf->user;
    int failed = uv_spawn(&loop->uv, &child->uv, &options);
    free(env.at);
    if (!failed) return child;
    spawn_failed(conf->argv[0], failed, err);
    child_drop(child);
    return NULL;
}

int child_pid(const Child *child) { return child->uv.pid; }

void child_kill(Child *child, int signal) {
    if (!child->exited) uv_process_kill(&child->uv, signal);
}

/* A running child is still waited for, so that it does not stay behind as a zombie. */
void child_close(Child *child) {
    if (!child) return;
    child->closed = true;
    if (child->exited) child_drop(child);
}

void child_follow_parent(void) {
    const char *value = getenv(PARENT);
    if (!value) return;
    long parent = strtol(value, NULL, 10);
    unsetenv(PARENT); /* it is about us, not about our own children */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) raise(SIGTERM); /* it died before the kernel knew our wish */
}
