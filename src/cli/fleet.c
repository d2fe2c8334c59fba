// SPDX-License-Identifier: Apache-2.0
#include "fleet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK_EVERY_MS 10
#define PATIENCE_MS 5000 /* between SIGTERM and SIGKILL */

bool fleet_init(Fleet *fleet, Loop *loop, HttpClient *client, Err *err) {
    *fleet = (Fleet){.loop = loop, .client = client};
    ssize_t n = readlink("/proc/self/exe", fleet->program, sizeof fleet->program - 1);
    if (n <= 0)
        return err_set(err, ERR_IO, "could not find this program's own file: %s", strerror(errno));
    const char *tmp = getenv("TMPDIR");
    snprintf(fleet->folder, sizeof fleet->folder, "%s/baton-run-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    if (mkdtemp(fleet->folder)) return true;
    err_set(err, ERR_IO, "could not make a folder for logs, '%s': %s", fleet->folder,
            strerror(errno));
    return err_hint(err, "Set TMPDIR to a folder that can be written to.");
}

/* A port that is free now; whoever takes it in between makes the member fail, and say so. */
static int free_port(Err *err) {
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&address, length) &&
        !getsockname(fd, (struct sockaddr *)&address, &length))
        return ntohs(address.sin_port);
    err_set(err, ERR_IO, "could not find a free port: %s", strerror(errno));
    return 0;
}

FleetMember *fleet_add(Fleet *fleet, const char *name, const char *health, int port, Err *err) {
    assert(fleet->count < FLEET_MAX);
    FleetMember *m = &fleet->members[fleet->count];
    *m = (FleetMember){
        .name = name, .health = health, .port = port ? port : free_port(err), .fleet = fleet};
    if (!m->port) return NULL;
    fleet->count++;
    snprintf(m->url, sizeof m->url, "http://127.0.0.1:%d", m->port);
    snprintf(m->log, sizeof m->log, "%s/%.16s.log", fleet->folder, name);
    m->argv[0] = fleet->program;
    return m;
}

void fleet_argue(FleetMember *member, const char *const *words) {
    size_t n = 0;
    while (member->argv[n]) n++;
    for (; *words; words++) {
        assert(n < FLEET_ARGUMENTS - 1);
        member->argv[n++] = *words;
    }
}

static void note(FleetMember *m, MemberState state) {
    m->state = state;
    m->fleet->changed(m->fleet, m, m->fleet->user);
}

static void on_exit_of(void *user, int64_t status, int signal_number) {
    (void)status;
    (void)signal_number;
    FleetMember *m = user;
    Fleet *fleet = m->fleet;
    child_close(m->child);
    m->child = NULL;
    if (!fleet->stopping) {
        note(m, MEMBER_ENDED);
        return;
    }
    m->state = MEMBER_ENDED;
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->members[i].child) return;
    fleet->ended(fleet, fleet->user);
}

static void on_checked(HttpCall *call, int status, Str body, const Err *failure, void *user) {
    (void)call;
    (void)body;
    FleetMember *m = user;
    m->check = NULL;
    if (failure || status != 200 || m->state != MEMBER_STARTING) return; /* asked again soon */
    m->ready_us = clock_mono_us();
    note(m, MEMBER_READY);
}

static void check_all(void *user) {
    Fleet *fleet = user;
    for (size_t i = 0; i < fleet->count; i++) {
        FleetMember *m = &fleet->members[i];
        if (m->state != MEMBER_STARTING || m->check) continue;
        HttpCallConf conf = {.host = "127.0.0.1",
                             .port = m->port,
                             .method = STR("GET"),
                             .target = str_of(m->health),
                             .connect_ms = 1000,
                             .first_byte_ms = 1000,
                             .done = on_checked,
                             .user = m};
        m->check = http_call(fleet->client, &conf);
    }
}

bool fleet_start(Fleet *fleet, Err *err) {
    for (size_t i = 0; i < fleet->count; i++) {
        FleetMember *m = &fleet->members[i];
        m->started_us = clock_mono_us();
        ChildConf conf = {.argv = m->argv, .log_path = m->log, .exited = on_exit_of, .user = m};
        if (!(m->child = child_spawn(fleet->loop, &conf, err)))
            return err_wrap(err, "could not start %s", m->name);
    }
    fleet->timer = timer_start(fleet->loop, CHECK_EVERY_MS, CHECK_EVERY_MS, check_all, fleet);
    return true;
}

bool fleet_ready(const Fleet *fleet) {
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->members[i].state != MEMBER_READY) return false;
    return true;
}

static void send_all(Fleet *fleet, int signal_number) {
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->members[i].child) child_kill(fleet->members[i].child, signal_number);
}

static void on_patience_over(void *user) { send_all(user, SIGKILL); }

static void tell_ended(void *user) {
    Fleet *fleet = user;
    fleet->ended(fleet, fleet->user);
}

void fleet_stop(Fleet *fleet) {
    if (fleet->stopping) return;
    fleet->stopping = true;
    timer_close(fleet->timer);
    bool any = false;
    for (size_t i = 0; i < fleet->count; i++) any |= fleet->members[i].child != NULL;
    fleet->timer = any ? timer_start(fleet->loop, PATIENCE_MS, 0, on_patience_over, fleet)
                       : timer_start(fleet->loop, 0, 0, tell_ended, fleet);
    send_all(fleet, SIGTERM);
}

void fleet_done(Fleet *fleet) {
    timer_close(fleet->timer);
    for (size_t i = 0; i < fleet->count; i++) unlink(fleet->members[i].log);
    rmdir(fleet->folder);
}

char *fleet_log_end(const FleetMember *member) {
    Err err;
    size_t length;
    char *text = file_read(member->log, 16 * MIB, &length, &err);
    if (!text) return mem_dup_str("");
    size_t from = length;
    for (int lines = 0; from && lines < 8; from--) lines += from < length && text[from - 1] == '\n';
    char *end = mem_dup_str(text + from);
    free(text);
    return end;
}
