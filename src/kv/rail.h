// SPDX-License-Identifier: Apache-2.0
/* rail.h - how blocks get from one pool into another: one table per way.
 *
 *            connects over            the descriptor       blocks
 *     shm    an abstract Unix socket  comes first of all   are copied out of the peer's memory
 *     tcp    TCP                      -                    come in BLOCK messages
 *
 * Messages, proofs and the confirmation at the end are the same over both. */
#ifndef BATON_KV_RAIL_H
#define BATON_KV_RAIL_H

#include "io/io.h"

#include "agent.h"

struct Conn;
struct Pull;

typedef struct Rail {
    KvRail id;
    Stream *(*connect)(struct Conn *conn, const StreamCalls *calls);
    bool (*accepted)(struct Conn *conn);         /* false: refused; NULL: nothing to do */
    bool (*attach)(struct Conn *conn,
                   Err *err); /* the peer's hello has come; NULL: nothing to do */
    void (*detach)(struct Conn *conn);           /* NULL: nothing to do */
    /* Moves a slice of a proven pull's blocks; true: there is more, otherwise it has called
     * pull_moved() or pull_fail().  NULL: the owner sends them, in BLOCK messages. */
    bool (*work)(struct Pull *pull);
} Rail;

extern const Rail rail_shm, rail_tcp;

#endif
