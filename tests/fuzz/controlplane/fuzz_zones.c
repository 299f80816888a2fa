/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_zones.c - any sequence of datagrams into one node of a zone. Input: records of one byte
 * sender, one byte time step (16 ms), two bytes length, then so many bytes. Of what is sent each
 * datagram must be one that the decoder takes; claim, view and memory stay within their rules. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/zones/zone.h"

#define MEMBERS 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sent_check(void *user, const struct zone_contact *to, const void *data, size_t size)
{
    struct zone_msg msg;
    (void)user;
    if (size > ZONE_DATAGRAM_MAX || !zone_msg_read(data, size, NULL, &msg)) {
        abort();
    }
    return to->node % 4 != 2; /* some are known to be gone */
}

static void zone_check(const struct zone *z)
{
    if (z->member_count > MEMBERS || z->view.count > ZONE_VIEW_MAX ||
        (z->joined && !zone_range_valid(z->claim)) ||
        (z->joined && !zone_range_has(z->claim, z->key))) {
        abort();
    }
    for (uint32_t i = 0; i < z->view.count; i++) {
        const struct zone_range *r = &z->view.all[i].is.range;
        if (!zone_range_valid(*r) || (i != 0 && z->view.all[i - 1].is.range.hi > r->lo)) {
            abort();
        }
    }
    for (uint32_t i = 1; i < z->member_count; i++) {
        if (z->members[i - 1].key > z->members[i].key) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct zone zone;
    static struct zone_member members[MEMBERS];
    static struct zone_search search;
    static struct zone_duty duties[2];
    const struct zone_options options = {
        .split_above = 6, .merge_below = 2, .seed = 5, .duties = duties, .duty_max = 2};
    const struct zone_record self = {.version = 1, .node = 3, .x = 1000, .y = 2000, .tier = 2};
    const struct zone_query query = {.k = 4, .tier_max = 7};
    const struct zone_io io = {sent_check, NULL};
    struct in6_addr from = {.s6_addr = {0xfd}};
    uint64_t now_ns = NS_PER_S;
    zone_init(&zone, &options, &self, members, MEMBERS, now_ns);
    zone_found_mesh(&zone, now_ns);
    zone_search_begin(&zone, &search, &query, now_ns, UINT64_MAX, &io);
    while (size >= 4) {
        size_t len = (size_t)data[2] | (size_t)data[3] << 8;
        from.s6_addr[15] = data[0];
        now_ns += data[1] * 16 * NS_PER_MS;
        data += 4;
        size -= 4;
        len = len < size ? len : size;
        zone_input(&zone, data, len, &from, NULL, now_ns, &io);
        zone_check(&zone);
        zone_tick(&zone, now_ns, &io);
        zone_check(&zone);
        if (zone_search_done(&search, now_ns)) {
            struct zone_result result;
            zone_search_result(&search, &result);
            zone_search_end(&zone, &search);
            zone_search_begin(&zone, &search, &query, now_ns, UINT64_MAX, &io);
        }
        data += len;
        size -= len;
    }
    zone_search_end(&zone, &search);
    return 0;
}
