// SPDX-License-Identifier: Apache-2.0
/* kv.h - owns KV blocks, the prefix index, the ledger, the wire format and the transports.
 *
 *     tokens of a prompt   [0..15] [16..31] [32..41]
 *     blocks               [  b7 ] [  b3  ] [  b9  ]      one block: 16 tokens, all layers, K and V
 *     chain                 h1 ───▶  h2 ───▶  h3          h_i proves everything up to block i
 *
 * A block's bytes: [layer][k|v][kv_head], K as [dim][token], V as [token][dim], IEEE half, little
 * endian. K lies dim-major so that scores of 16 tokens are 16 lanes; see doc/kv-wire-format.md.
 *
 *   chain.h  what a block proves: hashes of model, salt and tokens
 *   pool.h   blocks in one memfd, references, prefix index, LRU, leases: the ledger
 *   agent.h  moves sealed blocks between engines: offers, pulls, rails */
#ifndef BATON_KV_H
#define BATON_KV_H

#include "base/base.h"

#include "chain.h"
#include "pool.h"
#include "agent.h"

#endif
