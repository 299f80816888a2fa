/* SPDX-License-Identifier: Apache-2.0 */
/* shuttle.c - see shuttle.h. */
#include "tests/unit/swim/shuttle.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "schemas/base/addr.h"

#define PORT      7401u
#define QUEUE_MAX 8192u

struct in6_addr shuttle_address(uint32_t node)
{
    return addr_of_v4(htonl(0x0a000001 + node));
}

struct swim_options shuttle_options(uint32_t node, struct swim_seed *seed)
{
    struct swim_options options = {
        .members_max = SHUTTLE_NODES, .state_max = SWIM_STATE_MAX, .seeds = seed, .seed_count = 1};
    seed->address = shuttle_address(0);
    seed->port = PORT;
    memset(options.entropy, (int)(node + 100), sizeof(options.entropy));
    memset(options.sign_seed, (int)(node + 1), sizeof(options.sign_seed));
    memset(options.mesh_key, 0x77, sizeof(options.mesh_key));
    options.self.incarnation = 1000;
    options.self.address = shuttle_address(node);
    options.self.port = PORT;
    options.self.id = (uint16_t)node;
    snprintf(options.self.name, sizeof(options.self.name), "n%u", node);
    return options;
}

/* Datagrams on their way, in order. */
static struct {
    uint32_t from, to;
    struct swim_datagram datagram;
} queue[QUEUE_MAX];
static uint32_t queue_first, queue_last;

static void drain(struct shuttle *shuttle)
{
    static struct swim_out out;
    while (queue_first != queue_last) {
        uint32_t at = queue_first++ % QUEUE_MAX;
        struct in6_addr from = shuttle_address(queue[at].from);
        struct swim *swim = shuttle->nodes[queue[at].to];
        if (swim != NULL) {
            swim_input(swim, &from, PORT, queue[at].datagram.data, queue[at].datagram.len,
                       shuttle->now_ns, &out);
            shuttle_carry(shuttle, queue[at].to, &out);
        }
    }
}

void shuttle_carry(struct shuttle *shuttle, uint32_t node, const struct swim_out *out)
{
    for (uint32_t i = 0; i < out->event_count; i++) {
        if (shuttle->event_count < SHUTTLE_KEPT) {
            shuttle->events[shuttle->event_count].node = node;
            shuttle->events[shuttle->event_count++].event = out->events[i];
        }
    }
    for (uint32_t i = 0; i < out->datagram_count; i++) {
        const struct swim_datagram *datagram = &out->datagrams[i];
        uint32_t to = ntohl(addr_v4(&datagram->address)) - 0x0a000001;
        shuttle->longest = datagram->len > shuttle->longest ? datagram->len : shuttle->longest;
        if (shuttle->first[node].len == 0) {
            shuttle->first[node] = *datagram;
        }
        if (to < SHUTTLE_NODES && !shuttle->cut[node][to]) {
            shuttle->last[node][to] = *datagram;
            ck_assert_uint_lt(queue_last - queue_first, QUEUE_MAX);
            queue[queue_last % QUEUE_MAX].from = node;
            queue[queue_last % QUEUE_MAX].to = to;
            queue[queue_last++ % QUEUE_MAX].datagram = *datagram;
        }
    }
}

void shuttle_start(struct shuttle *shuttle, uint32_t node, const struct swim_options *options)
{
    if (shuttle->now_ns == 0) {
        shuttle->now_ns = 1000 * NS_PER_S;
    }
    ck_assert_int_eq(swim_create(&shuttle->nodes[node], options, shuttle->now_ns), 0);
}

void shuttle_run(struct shuttle *shuttle, uint64_t for_ns)
{
    static struct swim_out out;
    uint64_t end_ns = shuttle->now_ns + for_ns;
    drain(shuttle);
    for (;;) {
        uint64_t next_ns = UINT64_MAX;
        uint32_t node = 0;
        for (uint32_t i = 0; i < SHUTTLE_NODES; i++) {
            if (shuttle->nodes[i] != NULL && swim_next_ns(shuttle->nodes[i]) < next_ns) {
                next_ns = swim_next_ns(shuttle->nodes[i]);
                node = i;
            }
        }
        if (next_ns > end_ns) {
            break;
        }
        shuttle->now_ns = next_ns > shuttle->now_ns ? next_ns : shuttle->now_ns;
        swim_tick(shuttle->nodes[node], shuttle->now_ns, &out);
        shuttle_carry(shuttle, node, &out);
        drain(shuttle);
    }
    shuttle->now_ns = end_ns;
}

uint32_t shuttle_events(const struct shuttle *shuttle, uint32_t node, enum swim_event_type type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shuttle->event_count; i++) {
        count += shuttle->events[i].node == node && shuttle->events[i].event.type == type ? 1 : 0;
    }
    return count;
}

enum swim_status shuttle_view(const struct shuttle *shuttle, uint32_t node, uint32_t other)
{
    for (uint32_t i = 0; i < swim_slots(shuttle->nodes[node]); i++) {
        const struct swim_member *member = swim_at(shuttle->nodes[node], i);
        if (member != NULL && member->record.id == other) {
            return member->status;
        }
    }
    return SWIM_LEFT;
}

void shuttle_end(struct shuttle *shuttle)
{
    for (uint32_t i = 0; i < SHUTTLE_NODES; i++) {
        swim_destroy(shuttle->nodes[i]);
    }
    memset(shuttle, 0, sizeof(*shuttle));
    queue_first = queue_last = 0;
}
