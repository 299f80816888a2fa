/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve_ask.c - what a request still lacks, and when its client is asked for it again; see serve.h.
 *
 * Each gap is asked for once as soon as it is older than what reordering explains, however many
 * others are outstanding: a long way full of losses costs no more round trips than a clean one.
 * What is not there a round-trip timeout later is asked for again, all of it together, in rounds.
 * Where nothing is known to be missing and yet nothing comes, the end or the GRANT was lost.
 */
#include "dataplane/flow/serve_job.h"

/* The client sends so much without a GRANT, all at once: only what follows takes a round trip. */
#define ASK_FIRST_FLIGHT (WEFT_UNSCHEDULED_MAX * WEFT_REQ_PAYLOAD_SAFE)

static uint64_t ask_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t ask_rto_ns(const struct weft_job *job)
{
    bool way_unknown = job->rtt.srtt_ns == 0 && job->body.cum >= ASK_FIRST_FLIGHT;
    uint64_t rto_ns = rtt_rto_ns(&job->rtt, job->ask.repeats);
    return way_unknown && rto_ns < SERVE_WAY_UNKNOWN_NS ? SERVE_WAY_UNKNOWN_NS : rto_ns;
}

void serve_ask_init(struct weft_job *job, uint64_t now_ns)
{
    job->ask = (struct serve_ask){
        .fresh_ns = TIMER_NEVER, .round_ns = TIMER_NEVER, .quiet_ns = now_ns + ask_rto_ns(job)};
}

uint64_t serve_ask_due_ns(const struct weft_job *job)
{
    return ask_min(job->ask.quiet_ns, ask_min(job->ask.fresh_ns, job->ask.round_ns));
}

/* Gaps behind those that were asked for begin to age. */
static void ask_age(struct weft_job *job, uint64_t now_ns)
{
    const struct reasm *body = &job->body;
    bool fresh =
        body->range_count != 0 && body->ranges[body->range_count - 1].begin > job->ask.asked_to;
    if (!fresh) {
        job->ask.fresh_ns = TIMER_NEVER;
    } else if (job->ask.fresh_ns == TIMER_NEVER) {
        job->ask.fresh_ns = now_ns + rtt_rto_ns(&job->rtt, 0) / SERVE_REORDER_SHARE;
        job->ask.seen = reasm_furthest(body);
    }
}

void serve_ask_progress(struct weft_job *job, uint64_t now_ns)
{
    job->ask.quiet_ns = TIMER_NEVER;
    if (job->body.range_count == 0) { /* nothing is missing but the rest */
        job->ask.fresh_ns = job->ask.round_ns = TIMER_NEVER;
        job->ask.repeats = 0;
        job->ask.quiet_ns = now_ns + ask_rto_ns(job);
        return;
    }
    ask_age(job, now_ns);
    if (job->ask.fresh_ns == TIMER_NEVER && job->ask.round_ns == TIMER_NEVER) {
        job->ask.round_ns = now_ns + ask_rto_ns(job);
        job->ask.round_to = job->ask.asked_to;
    }
}

/* Tells congestion control of what is lost: each byte once, and repeats that were lost too. */
static void ask_lost(struct weft_job *job, const struct weft_range *gaps, uint32_t count,
                     bool again, uint64_t now_ns)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t begin = again || gaps[i].begin > job->ask.lost ? gaps[i].begin : job->ask.lost;
        bytes += gaps[i].end > begin ? gaps[i].end - begin : 0;
    }
    job->ask.lost = gaps[count - 1].end > job->ask.lost ? gaps[count - 1].end : job->ask.lost;
    if (bytes != 0) {
        cc_on_loss(&job->cc, bytes, now_ns);
    }
}

/* Asks for the gaps within [begin, end), a window of bytes at most, for they come all at once.
 * Returns how far it came; `begin` if there is none. */
static uint32_t ask_gaps(struct weft_job *job, uint32_t begin, uint32_t end, bool again,
                         uint64_t now_ns)
{
    const struct reasm *body = &job->body;
    struct weft_range gaps[SERVE_ASK_RANGES];
    uint32_t count = 0;
    uint32_t room = cc_window(&job->cc);
    uint32_t gap_begin = body->cum;
    for (uint32_t i = 0; i < body->range_count && room != 0 && count < SERVE_ASK_RANGES; i++) {
        uint32_t from = gap_begin > begin ? gap_begin : begin;
        uint32_t to = body->ranges[i].begin < end ? body->ranges[i].begin : end;
        if (from < to) {
            to = to - from < room ? to : from + room;
            gaps[count++] = (struct weft_range){from, to};
            room -= to - from;
        }
        gap_begin = body->ranges[i].end;
    }
    if (count == 0) {
        return begin;
    }
    ask_lost(job, gaps, count, again, now_ns);
    serve_resend_req(job, gaps, count);
    return room != 0 && count < SERVE_ASK_RANGES ? end : gaps[count - 1].end;
}

/* The next round waits for all that has been asked for by now. */
static void ask_round(struct weft_job *job, uint64_t now_ns)
{
    job->ask.round_to = job->ask.asked_to;
    job->ask.round_cum = job->body.cum;
    job->ask.round_ns = now_ns + ask_rto_ns(job);
}

static void ask_tick_fresh(struct weft_job *job, uint64_t now_ns)
{
    struct serve_ask *ask = &job->ask;
    uint32_t begin = ask->asked_to > job->body.cum ? ask->asked_to : job->body.cum;
    uint32_t to = ask_gaps(job, begin, ask->seen, false, now_ns);
    ask->asked_to = to > begin ? to : ask->seen;
    ask->fresh_ns = to > begin && to < ask->seen ? now_ns : TIMER_NEVER; /* the rest at once */
    if (ask->round_ns == TIMER_NEVER) {
        ask_round(job, now_ns);
    }
    ask_age(job, now_ns);
}

static void ask_tick_round(struct weft_job *job, uint64_t now_ns)
{
    struct serve_ask *ask = &job->ask;
    struct reasm_range gap;
    bool open = reasm_gap(&job->body, &gap) && gap.begin < ask->round_to;
    bool stuck = open && gap.begin == ask->round_cum;
    ask->repeats = stuck ? ask->repeats + 1 : 0;
    if (open) {
        (void)ask_gaps(job, job->body.cum, ask->round_to, true, now_ns);
    }
    ask_round(job, now_ns);
}

/* The end of what was granted is missing, or the client does not know that it was. */
static void ask_tick_quiet(struct weft_job *job, uint64_t now_ns)
{
    uint32_t window = cc_window(&job->cc);
    struct weft_range rest = {job->body.cum, job->granted};
    rest.end = rest.end - rest.begin < window ? rest.end : rest.begin + window;
    job->granted_ns = 0; /* a sample would not know which of the two it answers */
    job->ask.repeats++;
    job->ask.quiet_ns = now_ns + ask_rto_ns(job);
    ask_lost(job, &rest, 1, job->ask.repeats > 1, now_ns);
    serve_resend_req(job, &rest, 1);
}

void serve_ask_tick(struct weft_job *job, uint64_t now_ns)
{
    if (now_ns >= job->ask.fresh_ns) {
        ask_tick_fresh(job, now_ns);
    }
    if (now_ns >= job->ask.round_ns) {
        ask_tick_round(job, now_ns);
    }
    if (now_ns >= job->ask.quiet_ns) {
        ask_tick_quiet(job, now_ns);
    }
}
