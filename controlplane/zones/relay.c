/* SPDX-License-Identifier: Apache-2.0 */
/* relay.c - see relay.h. */
#include "controlplane/zones/relay.h"

#include "schemas/base/clock.h"

void zone_relay_offer(struct zone_relay *r, uint64_t cost_us[ZONE_RELAYS_MAX],
                      const struct zone_contact *contact, uint64_t cost)
{
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->to[i].node == contact->node) {
            return;
        }
    }
    uint32_t at = r->count < ZONE_RELAYS_MAX ? r->count++ : ZONE_RELAYS_MAX;
    for (; at > 0 && cost_us[at - 1] > cost; at--) {
        if (at < ZONE_RELAYS_MAX) {
            cost_us[at] = cost_us[at - 1];
            r->to[at] = r->to[at - 1];
        }
    }
    if (at < ZONE_RELAYS_MAX) {
        cost_us[at] = cost;
        r->to[at] = *contact;
    }
}

/* Tells of those who have been silent for longer than their round-trip times allow. Late is less
 * than that: the next has been asked, which blames nobody. */
static void silent_tell(struct zone_relay *r, struct zone_peers *peers, uint64_t now_ns)
{
    for (uint32_t i = 0; i < r->asked; i++) {
        uint64_t rto_ns = (uint64_t)zone_peers_rto_us(peers, &r->to[i]) * NS_PER_US;
        if (!r->heard[i] && !r->blamed[i] && now_ns >= r->sent_ns[i] + rto_ns) {
            r->blamed[i] = true;
            zone_peers_silent(peers, r->to[i].node);
        }
    }
}

bool zone_relay_poll(struct zone_relay *r, struct zone_peers *peers, uint64_t now_ns,
                     struct zone_contact *to)
{
    if (!r->waits || now_ns < r->due_ns) {
        return false;
    }
    if (r->working || r->asked == r->count) {
        silent_tell(r, peers, now_ns);
        r->waits = false;
        return false;
    }
    *to = r->to[r->asked];
    r->sent_ns[r->asked++] = now_ns;
    uint64_t wait_us =
        r->asked < r->count ? zone_peers_late_us(peers, to) : zone_peers_rto_us(peers, to);
    bool races = r->hops != 0 && r->asked < ZONE_RELAY_RACE && r->asked < r->count;
    r->due_ns = races ? now_ns : now_ns + wait_us * NS_PER_US;
    return true;
}

void zone_relay_gone(struct zone_relay *r, const struct zone_peers *peers, uint64_t now_ns)
{
    uint32_t at = --r->asked;
    r->count--;
    for (uint32_t i = at; i < r->count; i++) {
        r->to[i] = r->to[i + 1];
    }
    r->due_ns = now_ns;
    if (at > 0 && at == r->count) {
        uint64_t rto_us = zone_peers_rto_us(peers, &r->to[at - 1]);
        r->due_ns = r->sent_ns[at - 1] + rto_us * NS_PER_US;
    }
}

bool zone_relay_heard(struct zone_relay *r, struct zone_peers *peers, uint32_t from, uint32_t stage,
                      uint64_t now_ns)
{
    uint32_t i = 0;
    while (i < r->asked && r->to[i].node != from) {
        i++;
    }
    if (i == r->asked) {
        return false;
    }
    if (!r->heard[i]) {
        r->heard[i] = true;
        zone_peers_heard(peers, from, (uint32_t)((now_ns - r->sent_ns[i]) / NS_PER_US));
    }
    if (stage == ZONE_RELAY_WORKING && !r->working) {
        r->working = true;
        r->begun_ns = now_ns;
        r->due_ns = now_ns + zone_peers_patience_us(peers) * NS_PER_US;
    } else if (stage == ZONE_RELAY_FINISHED) {
        if (r->working) {
            zone_peers_worked(peers, (uint32_t)((now_ns - r->begun_ns) / NS_PER_US));
        }
        silent_tell(r, peers, now_ns);
        r->waits = false;
    } else if (stage == ZONE_RELAY_NOT && !r->working) {
        r->due_ns = now_ns; /* no room: the next one */
    }
    return true;
}
