/* SPDX-License-Identifier: Apache-2.0 */
/* switch.c - see switch.h. */
#include "bench/impair/switch.h"

#include "bench/impair/frame.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAC_ROWS  2048u /* power of two */
#define MAC_PROBE 8u
#define SLOT_NONE UINT32_MAX
#define BYTE_BITS 8u

struct pair {
    struct impair_rule rule;
    struct rng rng;
    bool in_burst;
    uint64_t free_ns; /* the wire has sent everything queued by then */
    uint64_t last_ns; /* due time of the last frame */
    struct impair_counters counters;
};

struct mac_row {
    uint64_t mac; /* 0 = free: no station has it */
    uint32_t port;
};

struct due {
    uint64_t at_ns;
    uint64_t order; /* of arrival */
    uint32_t slot;
    uint32_t size;
    uint16_t from;
    uint16_t to;
    bool answer; /* the switch's own, not counted as delivered */
};

struct impair_switch {
    struct impair_config config;
    struct pair *pairs; /* from * ports + to */
    uint8_t *bytes;     /* frames slots of frame_max */
    uint32_t *spare;    /* slots not in use, a stack */
    uint32_t spares;
    struct due *heap;
    uint32_t heap_size;
    uint64_t arrivals;
    uint32_t lent; /* slot that the caller of pop still reads */
    struct mac_row macs[MAC_ROWS];
};

static struct pair *pair_of(const struct impair_switch *sw, uint32_t from, uint32_t to)
{
    return &sw->pairs[from * sw->config.ports + to];
}

static uint8_t *slot_bytes(const struct impair_switch *sw, uint32_t slot)
{
    return sw->bytes + (size_t)slot * sw->config.frame_max;
}

static void seed_pairs(struct impair_switch *sw)
{
    struct rng seeds = {sw->config.seed};
    for (uint32_t i = 0; i < sw->config.ports * sw->config.ports; i++) {
        sw->pairs[i].rng.state = rng_next(&seeds);
    }
}

struct impair_switch *impair_switch_create(const struct impair_config *config)
{
    if (config->ports < 1 || config->ports > IMPAIR_PORTS_MAX ||
        config->frame_max < IMPAIR_FRAME_MIN || config->frame_max > IMPAIR_FRAME_MAX ||
        config->frames < 1 || config->frames > IMPAIR_FRAMES_MAX) {
        return NULL;
    }
    struct impair_switch *sw = calloc(1, sizeof(*sw));
    if (sw == NULL) {
        return NULL;
    }
    sw->config = *config;
    sw->lent = SLOT_NONE;
    sw->pairs = calloc((size_t)config->ports * config->ports, sizeof(*sw->pairs));
    sw->bytes = malloc((size_t)config->frames * config->frame_max);
    sw->spare = calloc(config->frames, sizeof(*sw->spare));
    sw->heap = calloc(config->frames, sizeof(*sw->heap));
    if (sw->pairs == NULL || sw->bytes == NULL || sw->spare == NULL || sw->heap == NULL) {
        impair_switch_destroy(sw);
        return NULL;
    }
    /* The lowest slot on top: memory that was never needed is never touched. */
    while (sw->spares < config->frames) {
        sw->spare[sw->spares] = config->frames - 1 - sw->spares;
        sw->spares++;
    }
    seed_pairs(sw);
    return sw;
}

void impair_switch_destroy(struct impair_switch *sw)
{
    if (sw == NULL) {
        return;
    }
    free(sw->pairs);
    free(sw->bytes);
    free(sw->spare);
    free(sw->heap);
    free(sw);
}

void impair_switch_rule(struct impair_switch *sw, uint32_t from, uint32_t to,
                        const struct impair_rule *rule)
{
    pair_of(sw, from, to)->rule = *rule;
}

/* ---- stations ------------------------------------------------------------------------------- */
static uint64_t mac_read(const uint8_t *p)
{
    uint64_t mac = 0;
    for (uint32_t i = 0; i < IMPAIR_MAC_BYTES; i++) {
        mac = mac << 8 | p[i];
    }
    return mac;
}

/* The row of a station, or the one to be used for it: a free one, or its first (the station that
 * had it is flooded until it speaks again). */
static struct mac_row *mac_row(struct impair_switch *sw, uint64_t mac)
{
    struct rng hash = {mac};
    uint32_t first = (uint32_t)rng_next(&hash) & (MAC_ROWS - 1), vacant = first;
    for (uint32_t i = MAC_PROBE; i-- > 0;) {
        uint32_t at = (first + i) & (MAC_ROWS - 1);
        if (sw->macs[at].mac == mac) {
            return &sw->macs[at];
        }
        if (sw->macs[at].mac == 0) {
            vacant = at;
        }
    }
    return &sw->macs[vacant];
}

static void learn(struct impair_switch *sw, const uint8_t *frame, uint32_t port)
{
    uint64_t mac = mac_read(frame + IMPAIR_MAC_BYTES);
    bool group = (frame[IMPAIR_MAC_BYTES] & 1u) != 0;
    if (mac != 0 && !group) {
        *mac_row(sw, mac) = (struct mac_row){mac, port};
    }
}

/* ---- frames under way, by due time ---------------------------------------------------------- */
static bool due_before(const struct due *a, const struct due *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

/* The heap has as many places as there are slots: whoever has a slot has a place. */
static void heap_add(struct impair_switch *sw, struct due entry)
{
    uint32_t at = sw->heap_size++;
    entry.order = sw->arrivals++;
    while (at > 0 && due_before(&entry, &sw->heap[(at - 1) / 2])) {
        sw->heap[at] = sw->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sw->heap[at] = entry;
}

static struct due heap_take(struct impair_switch *sw)
{
    struct due first = sw->heap[0], last = sw->heap[--sw->heap_size];
    uint32_t at = 0;
    for (uint32_t child = 1; child < sw->heap_size; child = 2 * at + 1) {
        if (child + 1 < sw->heap_size && due_before(&sw->heap[child + 1], &sw->heap[child])) {
            child++;
        }
        if (!due_before(&sw->heap[child], &last)) {
            break;
        }
        sw->heap[at] = sw->heap[child];
        at = child;
    }
    sw->heap[at] = last;
    return first;
}

static void take_back(struct impair_switch *sw)
{
    if (sw->lent != SLOT_NONE) {
        sw->spare[sw->spares++] = sw->lent;
        sw->lent = SLOT_NONE;
    }
}

/* ---- decisions ------------------------------------------------------------------------------ */
static bool chance(struct pair *pair, double share)
{
    return share > 0 && rng_unit(&pair->rng) < share;
}

/* What the jitter adds, which may be negative. */
static double jitter_ns(struct pair *pair)
{
    double width = (double)pair->rule.jitter_ns, u = rng_unit(&pair->rng);
    double angle, more;
    switch (pair->rule.jitter) {
    case IMPAIR_JITTER_NORMAL: /* Box and Muller 1958 */
        angle = 2 * M_PI * rng_unit(&pair->rng);
        return width * sqrt(-2 * log1p(-u)) * cos(angle);
    case IMPAIR_JITTER_PARETO: /* Lomax by its inverse; scale so that the mean is the width */
        more = pow(1 - u, -1 / IMPAIR_PARETO_SHAPE) - 1;
        return fmin(width * (IMPAIR_PARETO_SHAPE - 1) * more, width * IMPAIR_PARETO_JITTERS_MAX);
    case IMPAIR_JITTER_UNIFORM:
    default:
        return width * (2 * u - 1);
    }
}

static uint64_t due_ns(struct pair *pair, uint64_t sent_ns)
{
    const struct impair_rule *rule = &pair->rule;
    double delay = (double)rule->delay_ns;
    if (rule->jitter_ns != 0) {
        delay = fmax(0, delay + jitter_ns(pair));
    }
    uint64_t at_ns = sent_ns + (uint64_t)delay;
    bool held = chance(pair, rule->reorder);
    if (rule->keep_order && at_ns < pair->last_ns) {
        at_ns = pair->last_ns;
    }
    if (held) { /* on purpose, so those behind it do not wait for it */
        pair->counters.reordered++;
        return at_ns + rule->reorder_ns;
    }
    pair->last_ns = at_ns > pair->last_ns ? at_ns : pair->last_ns;
    return at_ns;
}

/* A burst may begin with this frame, and ends at the earliest with the next. */
static bool is_lost(struct pair *pair)
{
    const struct impair_rule *rule = &pair->rule;
    if (rule->burst_begin == 0) {
        pair->in_burst = false;
    } else {
        bool turns = chance(pair, pair->in_burst ? rule->burst_end : rule->burst_begin);
        pair->in_burst = pair->in_burst != turns;
    }
    if (!chance(pair, pair->in_burst ? rule->burst_loss : rule->loss)) {
        return false;
    }
    *(pair->in_burst ? &pair->counters.burst_lost : &pair->counters.lost) += 1;
    return true;
}

/* When the frame has left the queue through the wire; 0 if the queue has no room. *backlog is what
 * was there before it. An empty queue takes any frame. */
static uint64_t through_queue(struct pair *pair, uint32_t size, uint64_t now_ns, double *backlog)
{
    double ns_per_byte = BYTE_BITS * (double)NS_PER_S / (double)pair->rule.rate_bits;
    uint64_t start_ns = pair->free_ns > now_ns ? pair->free_ns : now_ns;
    *backlog = (double)(start_ns - now_ns) / ns_per_byte;
    if (start_ns > now_ns && *backlog + size > pair->rule.queue_bytes) {
        return 0;
    }
    pair->free_ns = start_ns + (uint64_t)(size * ns_per_byte);
    return pair->free_ns;
}

/* Turns one bit in each byte that is hit; draws the gaps between hits, not every byte. */
static void flip_bits(struct pair *pair, uint8_t *frame, uint32_t size)
{
    uint32_t at, length, hits = 0;
    if (pair->rule.flip <= 0 || !impair_frame_payload(frame, size, &at, &length)) {
        return;
    }
    double scale = pair->rule.flip < 1 ? 1 / log1p(-pair->rule.flip) : 0;
    for (double next = 0;; next += 1) {
        next += floor(log1p(-rng_unit(&pair->rng)) * scale);
        if (next >= length) {
            break;
        }
        frame[at + (uint32_t)next] ^= (uint8_t)(1u << rng_below(&pair->rng, BYTE_BITS));
        hits++;
    }
    if (hits != 0) {
        pair->counters.flipped++;
        if (pair->rule.flip_repair) {
            impair_frame_repair(frame, size);
        }
    }
}

/* ---- the way of one frame over one link ----------------------------------------------------- */
static void send_copy(struct impair_switch *sw, struct pair *pair, struct due entry,
                      const uint8_t *frame, bool mark)
{
    if (sw->spares == 0) {
        pair->counters.no_memory++;
        return;
    }
    entry.slot = sw->spare[--sw->spares];
    uint8_t *copy = slot_bytes(sw, entry.slot);
    memcpy(copy, frame, entry.size);
    if (mark && impair_frame_mark(copy, entry.size)) {
        pair->counters.marked++;
    }
    flip_bits(pair, copy, entry.size);
    entry.at_ns = due_ns(pair, entry.at_ns);
    heap_add(sw, entry);
}

/* The error comes from the far end, so it takes both ways' time, but nothing can happen to it. */
static void answer_too_big(struct impair_switch *sw, struct due entry, const uint8_t *frame)
{
    struct pair *pair = pair_of(sw, entry.from, entry.to);
    if (!pair->rule.mtu_tell || sw->spares == 0) {
        return;
    }
    uint32_t slot = sw->spare[sw->spares - 1];
    uint32_t size = impair_frame_too_big(frame, entry.size, pair->rule.mtu, slot_bytes(sw, slot));
    if (size == 0) {
        return;
    }
    sw->spares--;
    pair->counters.answered++;
    heap_add(sw, (struct due){
                     .at_ns = entry.at_ns + pair->rule.delay_ns +
                              pair_of(sw, entry.to, entry.from)->rule.delay_ns,
                     .slot = slot,
                     .size = size,
                     .from = entry.to,
                     .to = entry.from,
                     .answer = true,
                 });
}

/* entry.at_ns is now. */
static void send_over(struct impair_switch *sw, struct due entry, const uint8_t *frame)
{
    struct pair *pair = pair_of(sw, entry.from, entry.to);
    const struct impair_rule *rule = &pair->rule;
    double backlog = 0;
    pair->counters.frames++;
    pair->counters.bytes += entry.size;
    if (rule->mtu != 0 && impair_frame_ip_size(frame, entry.size) > rule->mtu) {
        pair->counters.too_big++;
        answer_too_big(sw, entry, frame);
        return;
    }
    if (rule->cut) {
        pair->counters.cut++;
        return;
    }
    if (is_lost(pair)) {
        return;
    }
    if (rule->rate_bits != 0) {
        entry.at_ns = through_queue(pair, entry.size, entry.at_ns, &backlog);
        if (entry.at_ns == 0) {
            pair->counters.queue_full++;
            return;
        }
    }
    bool mark = rule->ecn_bytes != 0 && backlog > rule->ecn_bytes;
    bool twice = chance(pair, rule->duplicate);
    send_copy(sw, pair, entry, frame, mark);
    if (twice) {
        pair->counters.duplicated++;
        send_copy(sw, pair, entry, frame, mark);
    }
}

void impair_switch_push(struct impair_switch *sw, uint32_t port, const uint8_t *frame,
                        uint32_t size, uint64_t now_ns)
{
    take_back(sw);
    if (size < IMPAIR_ETHER_BYTES || size > sw->config.frame_max) {
        return;
    }
    learn(sw, frame, port);
    struct due entry = {.at_ns = now_ns, .size = size, .from = (uint16_t)port};
    uint64_t target = mac_read(frame);
    const struct mac_row *row = mac_row(sw, target);
    if ((frame[0] & 1u) == 0 && target != 0 && row->mac == target) {
        entry.to = (uint16_t)row->port;
        if (entry.to != port) {
            send_over(sw, entry, frame);
        }
        return;
    }
    for (uint32_t to = 0; to < sw->config.ports; to++) {
        entry.to = (uint16_t)to;
        if (to != port) {
            send_over(sw, entry, frame);
        }
    }
}

uint64_t impair_switch_due_ns(const struct impair_switch *sw)
{
    return sw->heap_size != 0 ? sw->heap[0].at_ns : IMPAIR_NEVER;
}

bool impair_switch_pop(struct impair_switch *sw, uint64_t now_ns, struct impair_out *out)
{
    take_back(sw);
    if (impair_switch_due_ns(sw) > now_ns || sw->heap_size == 0) {
        return false;
    }
    struct due first = heap_take(sw);
    sw->lent = first.slot;
    if (!first.answer) {
        pair_of(sw, first.from, first.to)->counters.delivered++;
    }
    *out = (struct impair_out){slot_bytes(sw, first.slot), first.size, first.from, first.to};
    return true;
}

uint32_t impair_switch_under_way(const struct impair_switch *sw)
{
    return sw->heap_size;
}

const struct impair_counters *impair_switch_counters(const struct impair_switch *sw, uint32_t from,
                                                     uint32_t to)
{
    return &pair_of(sw, from, to)->counters;
}

void impair_switch_reset_counters(struct impair_switch *sw)
{
    for (uint32_t i = 0; i < sw->config.ports * sw->config.ports; i++) {
        sw->pairs[i].counters = (struct impair_counters){0};
    }
}
