// SPDX-License-Identifier: Apache-2.0
/* folder.h - feeds the store from a folder of manifests, and again whenever one of them changes.
 *
 * Read are *.yaml, *.yml and *.json, several documents each, also a List; in the order of their
 * names, so that the last of two objects of one name counts.  Objects of other kinds are left
 * alone.  A file with any fault keeps its last good objects, and the log says file, line and why.
 */
#ifndef BATON_ROUTE_FOLDER_H
#define BATON_ROUTE_FOLDER_H

#include "store.h"

typedef struct RouteFolder RouteFolder;
/* Fails if the folder or any file cannot be read: there are no good objects yet. */
RouteFolder *route_folder_open(Loop *loop, const char *path, RouteStore *store,
                               Err *err) MUST_CHECK;
uint64_t route_folder_failures(const RouteFolder *folder); /* files refused, counted at each try */
void route_folder_close(RouteFolder *folder); /* the objects stay */

#endif
