/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefixes.h - who has computed how a prompt begins: that node's worker need not do it again. What
 * this core has placed, and what nodes tell of the prompts that their workers took last. A hint,
 * worth the prefill that it saves: it never passes a filter, and gives way to who is sooner even
 * without it.
 *
 * A set for each beginning (schemas/base/prefix.h), by its hash; a word for each node that has it;
 * the one heard longest ago makes room. 256 KiB, fixed. A word is read and written at once, by the
 * core and by the control thread: who writes over whom does not matter.
 */
#pragma once

#include <stdatomic.h>

#include "dataplane/route/choose.h"
#include "schemas/base/prefix.h"

#define PREFIXES_SETS    4096u /* a power of two */
#define PREFIXES_WAYS    8u    /* a line */
#define PREFIXES_HOLDERS 8u    /* looked at for a request */
#define PREFIXES_LIFE_NS UINT64_C(600000000000)

/* Zero-filled: knows nothing. A word: node id, time in units of 2^30 ns, 32 bits of the hash. */
struct prefixes {
    _Alignas(64) _Atomic uint64_t at[PREFIXES_SETS][PREFIXES_WAYS];
};

struct prefix_holder {
    uint16_t node;   /* id */
    uint16_t levels; /* that it has; prefix_bytes() */
};

/* That node has, or is about to have, all of this beginning. */
void prefixes_learn(struct prefixes *prefixes, uint64_t prefix, uint16_t node, uint64_t now_ns);

/* Who has the most of it, most first, each once, PREFIXES_HOLDERS at most. Returns how many. */
uint32_t prefixes_find(const struct prefixes *prefixes, uint64_t prefix, uint64_t now_ns,
                       struct prefix_holder holders[PREFIXES_HOLDERS]);

/* `choice` is that of a request which begins so (not 0), no refusal. Predictions of holders are
 * less by the prefill of what they have. The request goes to who has the most, if its prediction is
 * later than the best by no more than it saves: what need not be computed is not waited for by
 * those behind it either. Who was chosen without is then the first alternate. Returns the bytes of
 * the prompt that the node is taken to have. */
uint32_t prefixes_steer(const struct prefixes *prefixes, const struct route_table *table,
                        struct route_load *loads, const struct route_query *query, uint64_t prefix,
                        uint64_t now_ns, struct route_choice *choice);

/* The request goes to the node at `index`, which has `known` bytes of it. What that node will say
 * of its load does not count it yet: requests of one moment would all find the same node free. */
void prefixes_placed(struct prefixes *prefixes, const struct route_table *table,
                     struct route_load *loads, const struct route_query *query, uint64_t prefix,
                     uint16_t index, uint32_t known, uint64_t now_ns);
