/* SPDX-License-Identifier: Apache-2.0 */
/* duty.c - searches that a node does for others who are far from where the search points; relay.h
 * has the asker's part. Each has its place in the caller's memory, a time limit, and a limit on the
 * answers it sends, so one datagram starts no more than one search does; nobody has more than half
 * of the places. */
#include "controlplane/zones/internal.h"

static void duty_tell(struct zone *z, struct zone_duty *d, bool finished, uint64_t now_ns,
                      const struct zone_io *io)
{
    struct zone_result result;
    struct zone_msg msg = {.header.kind = ZONE_ANSWER};
    struct zone_answer *a = &msg.answer;
    zone_search_result(&d->search, &result);
    a->id = d->id;
    a->stage = finished ? ZONE_RELAY_FINISHED : ZONE_RELAY_WORKING;
    a->hops = (uint8_t)(result.hops < UINT8_MAX ? result.hops : UINT8_MAX);
    a->asks = (uint16_t)(result.asks < UINT16_MAX ? result.asks : UINT16_MAX);
    if (finished && result.complete) {
        a->covered = ZONE_RANGE_ALL;
        a->excluded_age_ms = result.age_ms;
    }
    a->found_count = result.top.count;
    for (uint32_t i = 0; i < result.top.count; i++) {
        a->found[i] = result.top.all[i];
    }
    d->tells++;
    d->told_ns = now_ns;
    d->told_changed_ns = d->search.changed_ns;
    zone_send(z, io, &d->to, &msg);
}

static void duty_step(struct zone *z, struct zone_duty *d, uint64_t now_ns,
                      const struct zone_io *io)
{
    zone_search_step(z, &d->search, now_ns, io);
    if (zone_search_done(&d->search, now_ns)) {
        d->used = false;
        duty_tell(z, d, true, now_ns, io);
    } else if (d->tells == 0 ||
               (d->search.changed_ns > d->told_changed_ns && d->tells < ZONE_DUTY_TELLS &&
                now_ns - d->told_ns >= ZONE_TELL_NS)) {
        duty_tell(z, d, false, now_ns, io);
    }
}

bool zone_duty_take(struct zone *z, const struct zone_msg *in, const struct zone_contact *from,
                    uint64_t now_ns, const struct zone_io *io)
{
    const struct zone_ask *ask = &in->ask.ask;
    struct zone_duty *d = NULL;
    uint32_t own = 0;
    for (uint32_t i = 0; i < z->options.duty_max; i++) {
        struct zone_duty *at = &z->options.duties[i];
        bool his = at->used && at->to.node == from->node;
        if (his && at->id == ask->id) {
            return true; /* the same datagram twice */
        }
        own += his;
        d = at->used ? d : at;
    }
    if (d == NULL || !z->joined || own >= (z->options.duty_max + 1) / 2) {
        z->counters.duties_refused++;
        return false;
    }
    uint64_t budget_ns = ask->budget_ms * NS_PER_MS;
    budget_ns = budget_ns < ZONE_RELAY_LIMIT_NS ? budget_ns : ZONE_RELAY_LIMIT_NS;
    uint32_t hops = ask->hops < ZONE_RELAY_HOPS ? ask->hops : ZONE_RELAY_HOPS;
    d->used = true;
    d->tells = 0;
    d->to = *from;
    d->id = ask->id;
    z->counters.duties++;
    zone_search_start(z, &d->search, &in->ask.query, hops, now_ns, now_ns + budget_ns);
    d->told_changed_ns = now_ns;
    duty_step(z, d, now_ns, io);
    return true;
}

void zone_duties_poll(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    for (uint32_t i = 0; i < z->options.duty_max; i++) {
        if (z->options.duties[i].used) {
            duty_step(z, &z->options.duties[i], now_ns, io);
        }
    }
}
