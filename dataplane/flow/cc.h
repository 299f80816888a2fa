/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cc.h - how many bytes a receiver lets be on their way to it. The worker's grants (serve.c) and
 * the client's credit (request.c) are made of this window, so congestion control sits with the
 * receiver, as in Homa; which algorithm makes it is a table of functions.
 *
 * `delay` (cc_delay.c, the default) keeps the queue on the way short; `loss` (cc_loss.c) doubles on
 * data and halves on loss, whatever the queue (window.h).
 *
 * Threads: none; all times are of one monotonic clock given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/flow/window.h"
#include "schemas/base/clock.h"

#define CC_WINDOW_MAX_BYTES (8u << 20)                /* 150 ms at 450 Mbit/s */
#define CC_WINDOW_MIN_BYTES (16u * WEFT_DATAGRAM_MAX) /* what comes without permission, too */
#define CC_STEP_BYTES       16384u /* news for the sender at least so often: bursts stay short */
#define CC_TARGET_NS        (10 * NS_PER_MS) /* of queueing delay */
#define CC_BASE_NS          (10 * NS_PER_S)  /* how long the shortest round trip is remembered */
WEFT_ASSERT(WINDOW_MAX_BYTES <= CC_WINDOW_MAX_BYTES, "one bound for all algorithms");

struct cc;

struct cc_ops {
    const char *name;
    void (*init)(struct cc *cc);
    /* `bytes` came for the first time. `rtt_ns`: from permission to the first datagram that it
     * allowed, 0 = no sample; `ecn`: the datagram was marked on its way. */
    void (*on_data)(struct cc *cc, uint32_t bytes, uint64_t rtt_ns, bool ecn, uint64_t now_ns);
    /* `bytes` are missing and have just been asked for again. */
    void (*on_loss)(struct cc *cc, uint32_t bytes, uint64_t now_ns);
    /* CC_WINDOW_MIN_BYTES .. CC_WINDOW_MAX_BYTES. */
    uint32_t (*window)(const struct cc *cc);
};

extern const struct cc_ops cc_delay;
extern const struct cc_ops cc_loss;

struct cc_loss_state {
    struct window window;
    uint32_t bytes; /* since it last grew */
};

struct cc_delay_state {
    uint32_t window;
    bool steady;         /* has met the bottleneck: no more doubling */
    bool marked;         /* since the last sample */
    uint32_t bytes;      /* since the last sample */
    uint64_t sampled_ns; /* when that was; 0 = none yet */
    uint64_t rtt_ns;     /* what it said ... */
    uint64_t excess_ns;  /* ... over the shortest one */
    uint64_t queue_ns;   /* ... of this and of the sample before, the lesser */
    uint64_t
        base_ns[2]; /* shortest round trip of this and of the last half of CC_BASE_NS; 0 = none */
    uint64_t base_since_ns;
    uint64_t cut_ns;      /* last decrease */
    uint32_t resume;      /* slowed down: the window to go back to; 0 = not */
    bool ramp;            /* on the way back */
    uint64_t slow_ns;     /* begin of the slow-down ... */
    uint64_t slow_rtt_ns; /* ... and the round trip then */
    uint64_t next_slow_ns;
    uint64_t came; /* bytes lately, decaying ... */
    uint64_t lost; /* ... and those of them that had to be asked for again */
};

struct cc {
    const struct cc_ops *ops;
    union {
        struct cc_loss_state loss;
        struct cc_delay_state delay;
    };
};

/* NULL: the default. */
void cc_init(struct cc *cc, const struct cc_ops *ops);

static inline void cc_on_data(struct cc *cc, uint32_t bytes, uint64_t rtt_ns, bool ecn,
                              uint64_t now_ns)
{
    cc->ops->on_data(cc, bytes, rtt_ns, ecn, now_ns);
}

static inline void cc_on_loss(struct cc *cc, uint32_t bytes, uint64_t now_ns)
{
    cc->ops->on_loss(cc, bytes, now_ns);
}

static inline uint32_t cc_window(const struct cc *cc)
{
    return cc->ops->window(cc);
}

/* How far permission has to have moved before the sender is told. */
static inline uint32_t cc_step(uint32_t window)
{
    return window / 4 < CC_STEP_BYTES ? window / 4 : CC_STEP_BYTES;
}
