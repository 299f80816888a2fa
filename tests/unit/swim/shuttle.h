/* SPDX-License-Identifier: Apache-2.0 */
/* shuttle.h - a few swim objects whose datagrams arrive at once, and a look at each of them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/swim/swim.h"

#define SHUTTLE_NODES 8u
#define SHUTTLE_KEPT  4096u

struct shuttle {
    uint64_t now_ns;
    struct swim *nodes[SHUTTLE_NODES]; /* node i is 10.0.0.(i+1):7401 */
    bool cut[SHUTTLE_NODES][SHUTTLE_NODES];
    struct {
        uint32_t node;
        struct swim_event event;
    } events[SHUTTLE_KEPT];
    uint32_t event_count;
    struct swim_datagram last[SHUTTLE_NODES][SHUTTLE_NODES]; /* from, to */
    struct swim_datagram first[SHUTTLE_NODES];               /* that it ever sent */
    uint32_t longest;
};

struct in6_addr shuttle_address(uint32_t node);
/* Defaults for node `node`, seed is node 0; change what is to be different. */
struct swim_options shuttle_options(uint32_t node, struct swim_seed *seed);
void shuttle_start(struct shuttle *shuttle, uint32_t node, const struct swim_options *options);
void shuttle_run(struct shuttle *shuttle, uint64_t for_ns);
/* What a call has put out. */
void shuttle_carry(struct shuttle *shuttle, uint32_t node, const struct swim_out *out);
uint32_t shuttle_events(const struct shuttle *shuttle, uint32_t node, enum swim_event_type type);
/* What `node` thinks of `other`; SWIM_LEFT: unknown. */
enum swim_status shuttle_view(const struct shuttle *shuttle, uint32_t node, uint32_t other);
void shuttle_end(struct shuttle *shuttle);
