/* SPDX-License-Identifier: Apache-2.0 */
/*
 * switch.h - an Ethernet switch whose every pair of ports is a link with a rule of its own
 * (rule.h). Sans-I/O: frames and the time go in, frames come out when they are due; main.c has the
 * sockets. Memory is taken once, at creation. One thread.
 *
 *     frame -> learn -> per target port: mtu, cut, loss, rate and queue, copies
 *           -> per copy: bits, delay, jitter, reordering -> heap by due time -> frame
 *
 * Each ordered pair draws from its own generator: equal seeds, rules and frames give equal
 * decisions, whatever the other pairs do.
 */
#pragma once

#include "bench/impair/rule.h"

#include <stddef.h>
#include <stdint.h>

#define IMPAIR_PORTS_MAX  64u
#define IMPAIR_FRAMES_MAX (1u << 20)
#define IMPAIR_NEVER      UINT64_MAX

struct impair_config {
    uint64_t seed;
    uint32_t ports;     /* 1..IMPAIR_PORTS_MAX */
    uint32_t frame_max; /* bytes of the longest frame, IMPAIR_FRAME_MIN..65,600 */
    uint32_t frames;    /* under way at a time, 1..IMPAIR_FRAMES_MAX */
};
#define IMPAIR_FRAME_MIN 1600u
#define IMPAIR_FRAME_MAX 65600u

/* Per ordered pair. frames + duplicated = delivered + under way + lost + burst_lost + cut +
 * too_big + queue_full + no_memory. */
#define IMPAIR_COUNTERS(X)                                                                         \
    X(frames) /* wanted to pass */                                                                 \
    X(bytes)  /* of those */                                                                       \
    X(delivered)                                                                                   \
    X(lost)       /* by `loss` */                                                                  \
    X(burst_lost) /* within a burst */                                                             \
    X(cut)                                                                                         \
    X(too_big)                                                                                     \
    X(queue_full)                                                                                  \
    X(no_memory) /* more frames under way than the switch holds */                                 \
    X(duplicated)                                                                                  \
    X(reordered) /* held back */                                                                   \
    X(flipped)   /* frames with at least one bit turned */                                         \
    X(marked)    /* congestion experienced */                                                      \
    X(answered)  /* ICMP: too big */

struct impair_counters {
#define X(name) uint64_t name;
    IMPAIR_COUNTERS(X)
#undef X
};

struct impair_out {
    const uint8_t *frame; /* valid until the next call */
    uint32_t size;
    uint32_t from;
    uint32_t to;
};

struct impair_switch;

/* All links perfect. NULL if the config is out of range or memory is short. */
struct impair_switch *impair_switch_create(const struct impair_config *config);
void impair_switch_destroy(struct impair_switch *sw);

/* From now on; frames under way arrive as decided. */
void impair_switch_rule(struct impair_switch *sw, uint32_t from, uint32_t to,
                        const struct impair_rule *rule);

/* A frame came in on `port`. Frames out of size (shorter than an Ethernet header) are ignored. */
void impair_switch_push(struct impair_switch *sw, uint32_t port, const uint8_t *frame,
                        uint32_t size, uint64_t now_ns);

/* When the next frame is due; IMPAIR_NEVER if none is under way. */
uint64_t impair_switch_due_ns(const struct impair_switch *sw);

/* The next frame due by now; false if there is none. Equal times leave in order of arrival. */
bool impair_switch_pop(struct impair_switch *sw, uint64_t now_ns, struct impair_out *out);

uint32_t impair_switch_under_way(const struct impair_switch *sw);
const struct impair_counters *impair_switch_counters(const struct impair_switch *sw, uint32_t from,
                                                     uint32_t to);
void impair_switch_reset_counters(struct impair_switch *sw);
