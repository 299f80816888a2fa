/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_members.c - any sequence of datagrams into a members table. Input: records of one byte
 * sender, one byte time step (8 ms), two bytes length, then so many bytes. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/maps/members.h"
#include "schemas/base/addr.h"

#define NODES 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void table_check(const struct members *members)
{
    for (uint32_t i = 0; i < NODES; i++) {
        const struct member *member = members_at(members, i);
        if (member->tier > WEFT_TIER_MAX || (member->tags & ~member->config_tags) != 0 ||
            member->facts.model_count > MEMBERS_MODELS_MAX ||
            member->srtt_ns > MEMBERS_RTT_MAX_NS) {
            abort();
        }
    }
}

static void beacons_check(struct members *members, uint64_t now_ns)
{
    uint8_t room[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = room[0]}, {.data = room[1]}, {.data = room[2]}};
    unsigned count = members_tick(members, out, NODES, now_ns);
    for (unsigned i = 0; i < count; i++) {
        if (out[i].len < BEACON_PLAIN || out[i].len > MEMBERS_BEACON_MAX) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_member configured[NODES];
    struct config config = {.data_port = 7400, .members = configured, .member_count = NODES};
    struct members *members;
    uint64_t now_ns = NS_PER_S;
    memset(configured, 0, sizeof(configured));
    for (uint32_t i = 0; i < NODES; i++) {
        configured[i].id = i;
        configured[i].address = addr_of_v4(htonl(0x0a000001 + i));
        configured[i].tags = 0xff;
    }
    if (members_create(&members, &config, 1, now_ns) < 0) {
        return 0;
    }
    while (size >= 4) {
        uint8_t from = data[0] % NODES;
        size_t len = (size_t)data[2] | (size_t)data[3] << 8;
        now_ns += data[1] * 8 * NS_PER_MS;
        data += 4;
        size -= 4;
        len = len < size ? len : size;
        members_receive(members, data, len, &configured[from].address, 7401, now_ns);
        table_check(members);
        beacons_check(members, now_ns);
        data += len;
        size -= len;
    }
    members_destroy(members);
    return 0;
}
