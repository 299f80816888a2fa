/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cc_delay.c - see cc.h: congestion control by queueing delay, the round trip less the shortest one
 * lately. Doubles each round trip until a queue shows, then takes the rate that was measured. From
 * there it grows by a few datagrams a round trip while the queue is below its aim, and above it
 * shrinks in proportion to the excess, at most by half and once per round trip (Swift, Kumar et
 * al., SIGCOMM 2020, section 3.1). Now and then it slows down, so that the queue runs empty and
 * shows the true shortest round trip also to those who came when it was full (LEDBAT++,
 * draft-irtf-iccrg-ledbat-plus-plus, section 4.4, for what LEDBAT, RFC 6817, lacks). A queue is
 * what two samples in a row have seen: what delays one only was a scheduler.
 *
 * Loss halves the window once per round trip if it comes with a queue, or if more than one byte in
 * 32 is lost: what a radio link loses by itself is no sign of congestion (BBR, draft-ietf-ccwg-bbr,
 * bounds loss in the same way). A mark counts as a queue at its aim.
 */
#include "dataplane/flow/cc.h"

#define DELAY_FIRST_BYTES    32768u                   /* the first flight and a little */
#define DELAY_AIM_NS         (CC_TARGET_NS * 3 / 4)   /* the target is passed by those who grow */
#define DELAY_GROW_BYTES     (2 * WEFT_DATAGRAM_SAFE) /* per round trip of DELAY_GROW_NS ... */
#define DELAY_GROW_NS        (10 * NS_PER_MS)         /* ... more in longer ones: fair to them */
#define DELAY_GROW_SHARE     4u                       /* of the window at most */
#define DELAY_SLOW_SHARE     4u  /* left by a slow-down, and given up by it ... */
#define DELAY_SLOW_RTTS      2u  /* ... for so long */
#define DELAY_SLOW_PERIOD    9u  /* next one after so many times its length */
#define DELAY_BETA_PERCENT   80u /* Swift's beta */
#define DELAY_CUT_PERCENT    50u /* Swift's max_mdf */
#define DELAY_LOST_SHARE     32u
#define DELAY_LOST_MIN_BYTES (8 * WEFT_DATAGRAM_SAFE)
#define DELAY_COUNT_BYTES    (512u * 1024u) /* the share of lost bytes is counted over so many */
WEFT_ASSERT(DELAY_FIRST_BYTES >= WEFT_UNSCHEDULED_MAX * WEFT_DATAGRAM_MAX, "the first flight");

static void delay_init(struct cc *cc)
{
    cc->delay = (struct cc_delay_state){.window = DELAY_FIRST_BYTES};
}

static void delay_set(struct cc_delay_state *d, uint64_t bytes)
{
    bytes = bytes > CC_WINDOW_MIN_BYTES ? bytes : CC_WINDOW_MIN_BYTES;
    d->window = bytes < CC_WINDOW_MAX_BYTES ? (uint32_t)bytes : CC_WINDOW_MAX_BYTES;
}

/* The shortest round trip of the last CC_BASE_NS / 2 to CC_BASE_NS, this one included. */
static uint64_t delay_base_ns(struct cc_delay_state *d, uint64_t rtt_ns, uint64_t now_ns)
{
    if (now_ns - d->base_since_ns >= CC_BASE_NS / 2) {
        bool old = now_ns - d->base_since_ns >= CC_BASE_NS;
        d->base_ns[1] = old ? 0 : d->base_ns[0];
        d->base_ns[0] = 0;
        d->base_since_ns = now_ns;
    }
    if (d->base_ns[0] == 0 || rtt_ns < d->base_ns[0]) {
        d->base_ns[0] = rtt_ns;
    }
    bool before = d->base_ns[1] != 0 && d->base_ns[1] < d->base_ns[0];
    return before ? d->base_ns[1] : d->base_ns[0];
}

static void delay_count(struct cc_delay_state *d, uint32_t came, uint32_t lost)
{
    uint64_t span = 4 * (uint64_t)d->window;
    d->came += came;
    d->lost += lost;
    if (d->came >= (span > DELAY_COUNT_BYTES ? span : DELAY_COUNT_BYTES)) {
        d->came /= 2;
        d->lost /= 2;
    }
}

/* The bottleneck shows: its rate was measured since the last sample, or half is a good guess. */
static void delay_meet(struct cc_delay_state *d, uint64_t base_ns, uint64_t now_ns)
{
    uint64_t bytes = d->window / 2;
    if (d->sampled_ns != 0 && now_ns > d->sampled_ns) {
        uint64_t fits =
            (uint64_t)d->bytes * (base_ns + DELAY_AIM_NS / 2) / (now_ns - d->sampled_ns);
        bytes = fits < d->window ? fits : d->window;
    }
    delay_set(d, bytes);
    d->steady = true;
    d->cut_ns = now_ns;
    d->next_slow_ns = now_ns + DELAY_SLOW_RTTS * d->rtt_ns;
}

/* Bytes that a sample stands for: what was permitted and used since the last one. */
static uint32_t delay_used(const struct cc_delay_state *d)
{
    return d->bytes < d->window ? d->bytes : d->window;
}

static void delay_steer(struct cc_delay_state *d, uint64_t now_ns)
{
    if (d->queue_ns < DELAY_AIM_NS) {
        uint64_t grow = DELAY_GROW_BYTES * d->rtt_ns / DELAY_GROW_NS;
        uint64_t most = d->window / DELAY_GROW_SHARE;
        grow = grow < most ? grow : most;
        grow = grow > WEFT_DATAGRAM_SAFE ? grow : WEFT_DATAGRAM_SAFE;
        delay_set(d, d->window + grow * delay_used(d) / d->window);
    } else if (d->queue_ns > DELAY_AIM_NS && now_ns - d->cut_ns >= d->rtt_ns) {
        uint64_t percent = DELAY_BETA_PERCENT * (d->queue_ns - DELAY_AIM_NS) / d->queue_ns;
        percent = percent < DELAY_CUT_PERCENT ? percent : DELAY_CUT_PERCENT;
        delay_set(d, d->window - d->window * percent / 100);
        d->cut_ns = now_ns;
    }
}

static void delay_slow(struct cc_delay_state *d, uint64_t now_ns)
{
    d->resume = d->window;
    d->ramp = false;
    d->slow_ns = now_ns;
    d->slow_rtt_ns = d->rtt_ns;
    delay_set(d, d->window / DELAY_SLOW_SHARE);
}

/* Slowed down: waits until that shows, then doubles its way back to three quarters, and to less if
 * the queue was longer than it seemed. Giving up a share each time is what makes flows equal: those
 * that find the queue at its aim have no other reason to shrink. */
static void delay_resume(struct cc_delay_state *d, uint64_t base_ns, uint64_t now_ns)
{
    if (!d->ramp) {
        if (now_ns - d->slow_ns < DELAY_SLOW_RTTS * d->rtt_ns) {
            return;
        }
        uint64_t share = d->resume - d->resume / DELAY_SLOW_SHARE;
        uint64_t fits = share * (base_ns + DELAY_AIM_NS / 2) / d->slow_rtt_ns;
        d->resume = fits < d->resume ? (uint32_t)fits : d->resume;
        d->ramp = true;
    }
    uint64_t bytes = (uint64_t)d->window + delay_used(d);
    bool back = bytes >= d->resume || d->queue_ns >= DELAY_AIM_NS;
    delay_set(d, bytes < d->resume ? bytes : d->resume);
    if (back) {
        d->resume = 0;
        d->next_slow_ns = now_ns + DELAY_SLOW_PERIOD * (now_ns - d->slow_ns);
    }
}

static void delay_on_data(struct cc *cc, uint32_t bytes, uint64_t rtt_ns, bool ecn, uint64_t now_ns)
{
    struct cc_delay_state *d = &cc->delay;
    delay_count(d, bytes, 0);
    d->bytes += bytes;
    d->marked = d->marked || ecn;
    if (rtt_ns == 0) {
        return;
    }
    uint64_t base_ns = delay_base_ns(d, rtt_ns, now_ns);
    d->rtt_ns = rtt_ns;
    uint64_t excess_ns = rtt_ns - base_ns;
    d->queue_ns = excess_ns < d->excess_ns ? excess_ns : d->excess_ns;
    d->excess_ns = excess_ns;
    if (d->marked && d->queue_ns < DELAY_AIM_NS) {
        d->queue_ns = DELAY_AIM_NS;
    }
    if (d->resume != 0) {
        delay_resume(d, base_ns, now_ns);
    } else if (d->steady && now_ns >= d->next_slow_ns) {
        delay_slow(d, now_ns);
    } else if (d->steady) {
        delay_steer(d, now_ns);
    } else if (d->queue_ns >= DELAY_AIM_NS / 2) {
        delay_meet(d, base_ns, now_ns);
    } else if (excess_ns < DELAY_AIM_NS / 2) { /* else no further before the next sample */
        delay_set(d, (uint64_t)d->window + delay_used(d));
    }
    d->bytes = 0;
    d->marked = false;
    d->sampled_ns = now_ns;
}

static void delay_on_loss(struct cc *cc, uint32_t bytes, uint64_t now_ns)
{
    struct cc_delay_state *d = &cc->delay;
    delay_count(d, 0, bytes);
    bool many = d->lost >= DELAY_LOST_MIN_BYTES && d->lost > (d->came + d->lost) / DELAY_LOST_SHARE;
    if ((!many && d->queue_ns < DELAY_AIM_NS / 2) || now_ns - d->cut_ns < d->rtt_ns) {
        return;
    }
    if (many) { /* judged: the next time on new evidence */
        d->came = d->lost = 0;
    }
    delay_set(d, d->window / 2);
    d->resume /= 2;
    d->next_slow_ns = d->steady ? d->next_slow_ns : now_ns + DELAY_SLOW_RTTS * d->rtt_ns;
    d->steady = true;
    d->cut_ns = now_ns;
}

static uint32_t delay_window(const struct cc *cc)
{
    return cc->delay.window;
}

const struct cc_ops cc_delay = {"delay", delay_init, delay_on_data, delay_on_loss, delay_window};

void cc_init(struct cc *cc, const struct cc_ops *ops)
{
    cc->ops = ops != NULL ? ops : &cc_delay;
    cc->ops->init(cc);
}
