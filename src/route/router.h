// SPDX-License-Identifier: Apache-2.0
/* router.h - the router as one object on one loop: what router_command() runs, and tests too. */
#ifndef BATON_ROUTE_ROUTER_H
#define BATON_ROUTE_ROUTER_H

#include "folder.h"
#include "hand.h"
#include "metrics.h"
#include "schedule.h"

typedef struct RouterConf {
    const char *host;
    int64_t port;          /* 0: any */
    const char *objects;   /* a folder; NULL: none */
    RouteHand hand;
    bool strict;           /* what is degraded is an error */
    RouteLogFormat access_log;
    int log_fd;            /* where the access log goes */
    int64_t connect_ms, prefill_ms, first_byte_ms, idle_ms; /* 0: no limit */
} RouterConf;

typedef struct Exchange Exchange;
typedef struct Router {
    RouterConf conf;
    Loop *loop;
    RouteStore *store;
    RouteFolder *folder;
    HttpServer *server;
    HttpClient *client;
    RouteMetrics *metrics;
    RouteRandom random;
    Exchange *exchanges;  /* all that are under way */
    size_t exchange_count;
    Exchange *unsent;     /* those with bytes for their client */
    Buf log;              /* lines of the access log */
    Timer *soon;          /* sends both in the loop's next round */
    bool draining, drained_told;
    void (*drained)(void *user);
    void *user;
} Router;

Router *router_open(Loop *loop, const RouterConf *conf, Err *err) MUST_CHECK; /* it listens */
int router_port(const Router *router);
/* /readyz is 503 from now on and so are new requests; `drained`: those under way have ended. */
void router_drain(Router *router, void (*drained)(void *user), void *user);
void router_close(Router *router);
void router_soon(Router *router);

#endif
