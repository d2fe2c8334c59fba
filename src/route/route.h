// SPDX-License-Identifier: Apache-2.0
/* route.h - matches, schedules and proxies requests over pairs of prefill and decode engines.
 *
 *     objects (ModelRoute, ModelServer, Pod)  ◀── a folder of manifests, or flags
 *        │
 *     request ─▶ model name ─▶ decode pod, prefill pod of its group ─▶ prefill call ─▶ decode call
 *                                                                                         │
 *     client  ◀───────────────────────── the answer, Baton-Trace ─────────────────────────┘
 *
 * One thread, one loop.  Every reply carries Baton-Trace: where its tokens were computed, and a
 * clock of its stages (record.h says what each part means). */
#ifndef BATON_ROUTE_H
#define BATON_ROUTE_H

#include "http/http.h"
#include "text/text.h"

/* `baton router ...`: runs until SIGTERM or SIGINT.  Prints errors itself; returns the exit status:
 * 0, 1 for a failure, 2 for wrong use. */
int router_command(int argc, char **argv);

#endif
