// SPDX-License-Identifier: Apache-2.0
/* fleet.h - the processes that `baton run` starts: engines and a router, watched until all are
 * ready.
 *
 *     STARTING ──answers its health check──▶ READY ──exits──▶ ENDED (before fleet_stop(): a
 * failure)
 *
 * They end when we do, however that happens.  Thread: the loop's. */
#ifndef BATON_CLI_FLEET_H
#define BATON_CLI_FLEET_H

#include "http/http.h"

typedef enum MemberState { MEMBER_STARTING, MEMBER_READY, MEMBER_ENDED } MemberState;

#define FLEET_MAX 4
#define FLEET_ARGUMENTS 24

typedef struct FleetMember {
    const char *name;          /* "prefill" */
    const char *health;        /* "/health" */
    char url[64];              /* "http://127.0.0.1:40123" */
    int port;
    MemberState state;
    int64_t started_us, ready_us;
    char log[512];             /* where its output goes */
    const char *argv[FLEET_ARGUMENTS];
    struct Fleet *fleet;
    Child *child;
    HttpCall *check;
} FleetMember;

typedef struct Fleet {
    Loop *loop;
    HttpClient *client;
    FleetMember members[FLEET_MAX];
    size_t count;
    char folder[480];          /* of the logs */
    char program[512];
    Timer *timer;
    bool stopping;
    void (*changed)(struct Fleet *fleet, FleetMember *member, void *user); /* its state */
    void (*ended)(struct Fleet *fleet, void *user); /* after fleet_stop(): all have */
    void *user;
} Fleet;

bool fleet_init(Fleet *fleet, Loop *loop, HttpClient *client,
                Err *err) MUST_CHECK; /* then set changed, ended, user */
/* A member on a free port; complete its argv (NULL-terminated, the words outlive the fleet) before
 * fleet_start(). */
FleetMember *fleet_add(Fleet *fleet, const char *name, const char *health, int port,
                       Err *err) MUST_CHECK;
void fleet_argue(FleetMember *member, const char *const *words); /* appends; NULL-terminated */
bool fleet_start(Fleet *fleet, Err *err) MUST_CHECK;
bool fleet_ready(const Fleet *fleet);
void fleet_stop(Fleet *fleet);  /* SIGTERM, and SIGKILL to who is still there 5 s later */
void fleet_done(Fleet *fleet);  /* removes the logs */
char *fleet_log_end(const FleetMember *member); /* the last lines of its log, yours to free() */

#endif
