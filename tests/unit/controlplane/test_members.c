/* SPDX-License-Identifier: Apache-2.0 */
/* test_members.c - controlplane/maps/members.c in virtual time: meshes of real members tables that
 * send each other what they write, with loss, delay, reordering, forgery and random bytes. */
#include "controlplane/maps/members.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define NODES     3u
#define START_NS  (1000 * NS_PER_S)
#define DATA_PORT 7400u
#define PORT      7401u

static struct config configs[NODES];
static struct config_member config_members[NODES];

static void configs_fill(void)
{
    static const char *const names[NODES] = {"madrid", "frankfurt", "oslo"};
    memset(configs, 0, sizeof(configs));
    memset(config_members, 0, sizeof(config_members));
    for (uint32_t i = 0; i < NODES; i++) {
        struct config_member *member = &config_members[i];
        strcpy(member->name, names[i]);
        member->id = 10 + i;
        member->address = addr_of_v4(htonl(0x0a000001 + i));
        member->tier = i;
        member->tags = weft_tag_mask("eu") | weft_tag_mask("gdpr");
        strcpy(configs[i].node, names[i]);
        configs[i].data_port = DATA_PORT;
        configs[i].members = config_members;
        configs[i].member_count = NODES;
        configs[i].self = i;
    }
}

static struct members *node_new(uint32_t index, uint64_t incarnation, uint64_t now_ns)
{
    struct members *members;
    ck_assert_int_eq(members_create(&members, &configs[index], incarnation, now_ns), 0);
    return members;
}

/* The beacon `from` would send to `to` at `now_ns`; returns its length. */
static uint16_t beacon_whole(struct members *from, uint32_t to, uint64_t now_ns,
                             uint8_t data[MEMBERS_BEACON_MAX])
{
    static uint8_t room[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = room[0]}, {.data = room[1]}, {.data = room[2]}};
    members_touch(from, now_ns);
    unsigned count = members_tick(from, out, NODES, now_ns);
    ck_assert_uint_eq(count, NODES - 1);
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_eq(out[i].port, PORT);
        if (addr_equal(&out[i].address, &config_members[to].address)) {
            memcpy(data, out[i].data, out[i].len);
            return out[i].len;
        }
    }
    ck_abort_msg("no beacon to %u", to);
    return 0;
}

/* The same without its sum, as older nodes send it: tests may change what is in it. */
static uint16_t beacon_take(struct members *from, uint32_t to, uint64_t now_ns,
                            uint8_t data[MEMBERS_BEACON_MAX])
{
    uint16_t len = beacon_whole(from, to, now_ns, data);
    memset(data + offsetof(struct beacon, sum), 0, sizeof(((struct beacon *)0)->sum));
    return len;
}

static void give(struct members *to, uint32_t from, const void *data, size_t len, uint64_t now_ns)
{
    members_receive(to, data, len, &config_members[from].address, PORT, now_ns);
}

static void pass(struct members *from, uint32_t from_index, struct members *to, uint32_t to_index,
                 uint64_t sent_ns, uint64_t heard_ns)
{
    uint8_t data[MEMBERS_BEACON_MAX];
    uint16_t len = beacon_take(from, to_index, sent_ns, data);
    give(to, from_index, data, len, heard_ns);
}

static void facts_fill(struct members_facts *facts)
{
    memset(facts, 0, sizeof(*facts));
    facts->room = 3;
    facts->queue_us = 1500;
    facts->free_vram_mib = 8192;
    facts->prefill_tps = 900;
    facts->decode_tps = 60;
    facts->context_tokens = 4096;
    strcpy(facts->backend, "cpu");
    facts->model_count = 2;
    strcpy(facts->models[0].name, "smollm2-135m-instruct");
    strcpy(facts->models[1].name, "qwen3-0.6b");
}

START_TEST(starts_alone)
{
    struct members *a = node_new(0, 1, START_NS);
    ck_assert_uint_eq(members_count(a), NODES);
    ck_assert_uint_eq(members_self(a), 0);
    ck_assert(members_at(a, 0)->alive);
    ck_assert(!members_at(a, 1)->alive);
    ck_assert_str_eq(members_find(a, 11)->name, "frankfurt");
    ck_assert_ptr_null(members_find(a, 13));
    ck_assert_ptr_null(members_find(a, WEFT_NODE_NONE));
    ck_assert_ptr_null(members_at(a, NODES));
    members_destroy(a);
    members_destroy(NULL);
}
END_TEST

START_TEST(up_and_down_at_exact_times)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = data[0]}, {.data = data[1]}, {.data = data[2]}};
    uint64_t version = members_version(a);
    pass(b, 1, a, 0, START_NS, START_NS + 7);
    ck_assert(members_at(a, 1)->alive);
    ck_assert_uint_eq(members_at(a, 1)->changed_ns, START_NS + 7);
    ck_assert_uint_gt(members_version(a), version);
    version = members_version(a);
    /* Alive to the last nanosecond. */
    while (members_tick(a, out, NODES, START_NS + 7 + MEMBERS_SILENCE_NS - 1) == NODES) {
    }
    ck_assert(members_at(a, 1)->alive);
    ck_assert_uint_eq(members_version(a), version);
    ck_assert_uint_eq(members_next_ns(a), START_NS + 7 + MEMBERS_SILENCE_NS);
    members_tick(a, out, NODES, START_NS + 7 + MEMBERS_SILENCE_NS);
    ck_assert(!members_at(a, 1)->alive);
    ck_assert_uint_gt(members_version(a), version);
    version = members_version(a);
    pass(b, 1, a, 0, START_NS + 2 * NS_PER_S, START_NS + 2 * NS_PER_S);
    ck_assert(members_at(a, 1)->alive);
    ck_assert_uint_gt(members_version(a), version);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* Three of four beacons may be lost for ever without a member going down. */
START_TEST(loss_is_survived)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = data[0]}, {.data = data[1]}, {.data = data[2]}};
    unsigned sent = 0;
    unsigned downs = 0;
    for (uint64_t t = START_NS; t < START_NS + 20 * NS_PER_S; t += NS_PER_MS) {
        unsigned count = members_tick(b, out, NODES, t);
        for (unsigned i = 0; i < count; i++) {
            if (addr_equal(&out[i].address, &config_members[0].address) && sent++ % 4 == 0) {
                give(a, 1, out[i].data, out[i].len, t);
            }
        }
        bool was = members_at(a, 1)->alive;
        uint8_t own[NODES][MEMBERS_BEACON_MAX];
        struct members_out own_out[NODES] = {{.data = own[0]}, {.data = own[1]}, {.data = own[2]}};
        members_tick(a, own_out, NODES, t);
        downs += was && !members_at(a, 1)->alive ? 1 : 0;
    }
    ck_assert_uint_eq(sent, 80);
    /* Exactly four periods between beacons heard: down at the instant the next one arrives, up with
     * it. So none in between. */
    ck_assert_uint_eq(downs, 0);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(facts_arrive)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    facts_fill(&facts);
    uint64_t version = members_version(b);
    members_set_local(b, &facts);
    ck_assert_uint_gt(members_version(b), version);
    version = members_version(b);
    members_set_local(b, &facts);
    ck_assert_uint_eq(members_version(b), version);
    ck_assert_uint_eq(members_at(b, 1)->facts.models[1].id, weft_model_id("qwen3-0.6b"));
    pass(b, 1, a, 0, START_NS, START_NS);
    const struct member *seen = members_at(a, 1);
    ck_assert_uint_eq(seen->facts.room, 3);
    ck_assert_uint_eq(seen->facts.queue_us, 1500);
    ck_assert_uint_eq(seen->facts.free_vram_mib, 8192);
    ck_assert_uint_eq(seen->facts.prefill_tps, 900);
    ck_assert_uint_eq(seen->facts.decode_tps, 60);
    ck_assert_uint_eq(seen->facts.context_tokens, 4096);
    ck_assert_str_eq(seen->facts.backend, "cpu");
    ck_assert_uint_eq(seen->facts.model_count, 2);
    ck_assert_str_eq(seen->facts.models[0].name, "smollm2-135m-instruct");
    ck_assert_uint_eq(seen->facts.models[0].id, weft_model_id("smollm2-135m-instruct"));
    ck_assert_uint_eq(seen->tier, 1);
    ck_assert_uint_eq(seen->tags, config_members[1].tags);
    /* The same facts again are no news; another room is. */
    version = members_version(a);
    pass(b, 1, a, 0, START_NS + 1, START_NS + 1);
    ck_assert_uint_eq(members_version(a), version);
    facts.room = 2;
    members_set_local(b, &facts);
    pass(b, 1, a, 0, START_NS + 2, START_NS + 2);
    ck_assert_uint_eq(members_at(a, 1)->facts.room, 2);
    ck_assert_uint_gt(members_version(a), version);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(local_facts_are_checked)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members_facts facts;
    facts_fill(&facts);
    facts.model_count = 1000;
    memset(facts.models, 'x', sizeof(facts.models)); /* no end of string anywhere */
    memset(facts.backend, '\n', sizeof(facts.backend));
    members_set_local(a, &facts);
    const struct members_facts *kept = &members_at(a, 0)->facts;
    ck_assert_uint_eq(kept->model_count, 1);
    ck_assert_uint_eq(strlen(kept->models[0].name), WEFT_MODEL_NAME_MAX - 1);
    ck_assert_str_eq(kept->backend, "");
    members_destroy(a);
}
END_TEST

START_TEST(reordering_and_duplicates)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    uint8_t first[MEMBERS_BEACON_MAX];
    uint8_t second[MEMBERS_BEACON_MAX];
    facts_fill(&facts);
    facts.room = 1;
    members_set_local(b, &facts);
    uint16_t first_len = beacon_take(b, 0, START_NS, first);
    facts.room = 2;
    members_set_local(b, &facts);
    uint16_t second_len = beacon_take(b, 0, START_NS + 1, second);
    give(a, 1, second, second_len, START_NS + 2);
    give(a, 1, first, first_len, START_NS + 3);
    give(a, 1, second, second_len, START_NS + 4);
    ck_assert_uint_eq(members_at(a, 1)->facts.room, 2);
    ck_assert_uint_eq(members_at(a, 1)->heard_ns, START_NS + 2);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 1);
    ck_assert_uint_eq(members_counters(a)->beacons_stale, 2);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* Any one bit: not taken, and the next beacon is. */
START_TEST(damaged_is_not_taken)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 100, START_NS);
    uint8_t data[MEMBERS_BEACON_MAX];
    uint16_t len = beacon_whole(b, 0, START_NS, data);
    for (unsigned bit = 0; bit < len * 8u; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        give(a, 1, data, len, START_NS + 1);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 0);
    give(a, 1, data, len, START_NS + 2);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 1);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(restart_begins_anew)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 100, START_NS);
    uint8_t old[MEMBERS_BEACON_MAX];
    uint8_t data[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = data[0]}, {.data = data[1]}, {.data = data[2]}};
    for (unsigned i = 0; i < 50; i++) {
        pass(b, 1, a, 0, START_NS + i, START_NS + i);
    }
    uint16_t old_len = beacon_take(b, 0, START_NS + 60, old);
    members_destroy(b);
    /* Later incarnation, sequence from 1: taken at once. */
    b = node_new(1, 101, START_NS + 70);
    pass(b, 1, a, 0, START_NS + 70, START_NS + 70);
    ck_assert_uint_eq(members_at(a, 1)->heard_ns, START_NS + 70);
    /* What the old one had still under way is not. */
    give(a, 1, old, old_len, START_NS + 80);
    ck_assert_uint_eq(members_at(a, 1)->heard_ns, START_NS + 70);
    members_destroy(b);
    /* Its clock was set back: not believed while the other still counts as up, then taken. */
    b = node_new(1, 50, START_NS + 90);
    pass(b, 1, a, 0, START_NS + 90, START_NS + 90);
    ck_assert_uint_eq(members_at(a, 1)->heard_ns, START_NS + 70);
    members_tick(a, out, NODES, START_NS + 70 + MEMBERS_SILENCE_NS);
    ck_assert(!members_at(a, 1)->alive);
    pass(b, 1, a, 0, START_NS + 2 * NS_PER_S, START_NS + 2 * NS_PER_S);
    ck_assert(members_at(a, 1)->alive);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(strangers_are_ignored)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[MEMBERS_BEACON_MAX];
    uint16_t len = beacon_take(b, 0, START_NS, data);
    struct in6_addr outside = addr_of_v4(htonl(0xc0a80001));
    members_receive(a, data, len, &outside, PORT, START_NS);
    members_receive(a, data, len, &config_members[2].address, PORT, START_NS);
    members_receive(a, data, len, &config_members[1].address, PORT + 1, START_NS);
    uint16_t node = 9; /* no member has it */
    memcpy(data + offsetof(struct beacon, node), &node, sizeof(node));
    members_receive(a, data, len, &config_members[1].address, PORT, START_NS);
    node = WEFT_NODE_NONE;
    memcpy(data + offsetof(struct beacon, node), &node, sizeof(node));
    members_receive(a, data, len, &config_members[1].address, PORT, START_NS);
    /* Its own beacon come back. */
    len = beacon_take(a, 1, START_NS, data);
    members_receive(a, data, len, &config_members[0].address, PORT, START_NS);
    ck_assert_uint_eq(members_counters(a)->beacons_stranger, 6);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 0);
    ck_assert(!members_at(a, 1)->alive);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* Offset, width, value to put there, counter that must rise. */
struct damage {
    size_t at;
    size_t width;
    uint64_t value;
};

START_TEST(malformed_is_counted)
{
    static const struct damage damages[] = {
        {offsetof(struct beacon, magic), 4, 0},
        {offsetof(struct beacon, model_count), 1, 1},
        {offsetof(struct beacon, model_count), 1, 3},
        {offsetof(struct beacon, model_count), 1, 255},
        {offsetof(struct beacon, hdr_bytes), 2, 0},
        {offsetof(struct beacon, hdr_bytes), 2, 92},
        {offsetof(struct beacon, hdr_bytes), 2, 104},
        {offsetof(struct beacon, hdr_bytes), 2, 65528},
        {offsetof(struct beacon, tier), 1, 8},
        {offsetof(struct beacon, sequence), 8, 0},
        {offsetof(struct beacon, sent_ns), 8, 0},
        {offsetof(struct beacon, backend), 1, 0x1b},
        {offsetof(struct beacon, backend) + 15, 1, 'x'},
        {sizeof(struct beacon), 1, 0},
        {sizeof(struct beacon) + 5, 1, ' '},
        {sizeof(struct beacon) + 63, 1, 'x'},
        {sizeof(struct beacon) + 64, 1, 0xc3},
    };
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    uint8_t data[MEMBERS_BEACON_MAX];
    facts_fill(&facts);
    members_set_local(b, &facts);
    uint16_t len = beacon_take(b, 0, START_NS, data);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        uint8_t copy[MEMBERS_BEACON_MAX];
        memcpy(copy, data, len);
        memcpy(copy + damages[i].at, &damages[i].value, damages[i].width);
        give(a, 1, copy, len, START_NS);
        ck_assert_msg(members_counters(a)->beacons_malformed == i + 1, "damage %zu was taken", i);
    }
    uint64_t malformed = members_counters(a)->beacons_malformed;
    for (uint16_t cut = 0; cut < len; cut++) {
        uint8_t *copy = malloc(cut > 0 ? cut : 1); /* exact size: for the address sanitizer */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, cut);
        give(a, 1, copy, cut, START_NS);
        free(copy);
    }
    ck_assert_uint_eq(members_counters(a)->beacons_malformed, malformed + len);
    data[offsetof(struct beacon, version)] = BEACON_VERSION + 1;
    give(a, 1, data, len, START_NS);
    ck_assert_uint_eq(members_counters(a)->beacons_version, 1);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 0);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* Strings that fill their field to the end have no zero: not taken. */
START_TEST(unterminated_strings)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    uint8_t data[MEMBERS_BEACON_MAX];
    facts_fill(&facts);
    members_set_local(b, &facts);
    uint16_t len = beacon_take(b, 0, START_NS, data);
    uint8_t copy[MEMBERS_BEACON_MAX];
    memcpy(copy, data, len);
    memset(copy + offsetof(struct beacon, backend), 'x', WEFT_BACKEND_MAX);
    give(a, 1, copy, len, START_NS);
    memcpy(copy, data, len);
    memset(copy + sizeof(struct beacon) + WEFT_MODEL_NAME_MAX, 'x', WEFT_MODEL_NAME_MAX);
    give(a, 1, copy, len, START_NS);
    ck_assert_uint_eq(members_counters(a)->beacons_malformed, 2);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* One model more than the table has room for still fits a datagram, behind an older header. */
START_TEST(too_many_models)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[MEMBERS_BEACON_MAX];
    for (unsigned count = MEMBERS_MODELS_MAX; count <= MEMBERS_MODELS_MAX + 1; count++) {
        uint16_t len = beacon_take(b, 0, START_NS + count, data);
        ck_assert_uint_eq(len, sizeof(struct beacon));
        len = BEACON_LEAST;
        memcpy(data + offsetof(struct beacon, hdr_bytes), &len, sizeof(len));
        memset(data + len, 0, sizeof(data) - len);
        for (unsigned i = 0; i < count; i++) {
            data[len] = (uint8_t)('a' + i);
            len = (uint16_t)(len + sizeof(struct beacon_model));
        }
        data[offsetof(struct beacon, model_count)] = (uint8_t)count;
        ck_assert_uint_le(len, MEMBERS_BEACON_MAX);
        give(a, 1, data, len, START_NS + count);
    }
    ck_assert_uint_eq(members_at(a, 1)->facts.model_count, MEMBERS_MODELS_MAX);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 1);
    ck_assert_uint_eq(members_counters(a)->beacons_malformed, 1);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* A newer sender's longer header is stepped over. */
START_TEST(longer_header_is_read)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    uint8_t data[MEMBERS_BEACON_MAX];
    uint8_t longer[MEMBERS_BEACON_MAX];
    facts_fill(&facts);
    members_set_local(b, &facts);
    uint16_t len = beacon_take(b, 0, START_NS, data);
    uint16_t hdr = sizeof(struct beacon) + 16;
    memcpy(longer, data, sizeof(struct beacon));
    memset(longer + sizeof(struct beacon), 0xee, 16);
    memcpy(longer + hdr, data + sizeof(struct beacon), len - sizeof(struct beacon));
    memcpy(longer + offsetof(struct beacon, hdr_bytes), &hdr, sizeof(hdr));
    give(a, 1, longer, len + 16u, START_NS);
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 1);
    ck_assert_str_eq(members_at(a, 1)->facts.models[1].name, "qwen3-0.6b");
    members_destroy(a);
    members_destroy(b);
}
END_TEST

static void given_behind(struct members *from, struct members *to, uint16_t header, uint64_t now_ns)
{
    uint8_t data[MEMBERS_BEACON_MAX];
    uint16_t len = beacon_take(from, 0, now_ns, data);
    memcpy(data + offsetof(struct beacon, hdr_bytes), &header, sizeof(header));
    memmove(data + header, data + sizeof(struct beacon), len - sizeof(struct beacon));
    give(to, 1, data, (uint16_t)(len - sizeof(struct beacon) + header), now_ns);
}

/* How fast each model is and what its worker computes with; new speeds are news, and older headers
 * say nothing of them: what stands behind those are names. */
START_TEST(speeds_and_arithmetic_are_told)
{
    static const struct speeds none;
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    const struct members_facts *seen = &members_at(a, 1)->facts;
    struct members_facts facts;
    facts_fill(&facts);
    facts.prefixes[0] = 7;
    facts.models[0].arithmetic = 9;
    facts.models[0].speeds = (struct speeds){.prefill = 200, .decode = {90, 91, 92, 93}};
    facts.models[1].speeds = (struct speeds){.prefill = 100, .slots = 4, .running = 255};
    members_set_local(b, &facts);
    pass(b, 1, a, 0, START_NS, START_NS);
    ck_assert_mem_eq(&seen->models[0].speeds, &facts.models[0].speeds, sizeof(none));
    ck_assert_mem_eq(&seen->models[1].speeds, &facts.models[1].speeds, sizeof(none));
    uint64_t version = members_version(a);
    facts.models[1].speeds.prefill++;
    members_set_local(b, &facts);
    pass(b, 1, a, 0, START_NS + 1, START_NS + 1);
    ck_assert_uint_eq(seen->models[1].speeds.prefill, 101);
    ck_assert_uint_gt(members_version(a), version);
    given_behind(b, a, BEACON_PLAIN, START_NS + 2);
    ck_assert_mem_eq(&seen->models[0].speeds, &none, sizeof(none));
    ck_assert_uint_eq(seen->models[0].arithmetic, 9);
    ck_assert_uint_eq(seen->prefixes[0], 7);
    given_behind(b, a, offsetof(struct beacon, prefixes), START_NS + 3);
    ck_assert_uint_eq(seen->models[0].arithmetic, 9);
    ck_assert_uint_eq(seen->prefixes[0], 0);
    given_behind(b, a, BEACON_LEAST, START_NS + 4);
    ck_assert_uint_eq(seen->models[0].arithmetic, 0);
    ck_assert_str_eq(seen->models[1].name, "qwen3-0.6b");
    ck_assert_uint_eq(members_counters(a)->beacons_heard, 5);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* A beacon with all the names that there can be has no room for speeds. */
START_TEST(speeds_give_way_to_names)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    const struct members_facts *seen = &members_at(a, 1)->facts;
    struct members_facts facts;
    facts_fill(&facts);
    for (unsigned i = 0; i < MEMBERS_MODELS_MAX; i++) {
        facts.models[i] = (struct members_model){.speeds = {.prefill = (uint8_t)(i + 1)}};
        facts.models[i].name[0] = (char)('a' + i);
    }
    for (unsigned count = MEMBERS_MODELS_MAX - 1; count <= MEMBERS_MODELS_MAX; count++) {
        facts.model_count = count;
        members_set_local(b, &facts);
        pass(b, 1, a, 0, START_NS + count, START_NS + count);
        ck_assert_uint_eq(seen->model_count, count);
        for (unsigned i = 0; i < count; i++) {
            bool told = count < MEMBERS_MODELS_MAX && i < BEACON_SPEEDS;
            ck_assert_uint_eq(seen->models[i].speeds.prefill, told ? i + 1 : 0);
        }
    }
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* Tags the configuration does not give are not believed; fewer are. */
START_TEST(tags_never_widen)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[MEMBERS_BEACON_MAX];
    uint16_t len = beacon_take(b, 0, START_NS, data);
    uint32_t tags = weft_tag_mask("eu") | weft_tag_mask("hipaa");
    memcpy(data + offsetof(struct beacon, tags), &tags, sizeof(tags));
    give(a, 1, data, len, START_NS);
    ck_assert_uint_eq(members_at(a, 1)->tags, weft_tag_mask("eu"));
    ck_assert_uint_eq(members_counters(a)->tags_foreign, 1);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

/* b holds a's beacon for 180 ms; both ways take 20 ms. Clocks differ by an hour. */
START_TEST(rtt_without_hold_time)
{
    const uint64_t way_ns = 20 * NS_PER_MS;
    const uint64_t hold_ns = 180 * NS_PER_MS;
    const uint64_t skew_ns = 3600 * NS_PER_S;
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS + skew_ns);
    pass(a, 0, b, 1, START_NS, START_NS + way_ns + skew_ns);
    ck_assert_uint_eq(members_at(a, 1)->srtt_ns, 0);
    pass(b, 1, a, 0, START_NS + way_ns + hold_ns + skew_ns, START_NS + 2 * way_ns + hold_ns);
    ck_assert_uint_eq(members_at(a, 1)->srtt_ns, 40 * NS_PER_MS);
    ck_assert_uint_eq(members_at(a, 1)->rttvar_ns, 20 * NS_PER_MS);
    /* A sample of 80 ms: srtt 7/8 * 40 + 1/8 * 80 = 45; rttvar 3/4 * 20 + 1/4 * 40 = 25. */
    uint64_t later_ns = START_NS + 500 * NS_PER_MS;
    uint64_t version = members_version(a);
    pass(a, 0, b, 1, later_ns, later_ns + way_ns + skew_ns);
    pass(b, 1, a, 0, later_ns + way_ns + skew_ns, later_ns + 4 * way_ns);
    ck_assert_uint_eq(members_at(a, 1)->srtt_ns, 45 * NS_PER_MS);
    ck_assert_uint_eq(members_at(a, 1)->rttvar_ns, 25 * NS_PER_MS);
    ck_assert_uint_eq(members_version(a), version); /* 5 of 40 ms is not more than an eighth */
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(bad_echo_is_not_a_sample)
{
    static const uint64_t echoes[][2] = {
        {START_NS + 5 * NS_PER_S, 0},  /* from the future */
        {START_NS - 10 * NS_PER_S, 0}, /* too long ago */
        {START_NS, 2 * NS_PER_S},      /* held longer than it is ago */
        {START_NS, UINT64_MAX},        {UINT64_MAX, UINT64_MAX}, {1, 0},
    };
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    uint8_t data[MEMBERS_BEACON_MAX];
    for (size_t i = 0; i < sizeof(echoes) / sizeof(echoes[0]); i++) {
        uint16_t len = beacon_take(b, 0, START_NS + i, data);
        memcpy(data + offsetof(struct beacon, echo_ns), &echoes[i][0], 8);
        memcpy(data + offsetof(struct beacon, echo_hold_ns), &echoes[i][1], 8);
        give(a, 1, data, len, START_NS + NS_PER_S);
        ck_assert_uint_eq(members_counters(a)->beacons_bad_echo, i + 1);
    }
    ck_assert_uint_eq(members_at(a, 1)->srtt_ns, 0);
    ck_assert(members_at(a, 1)->alive); /* the rest of it counts */
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(beacons_are_paced)
{
    struct members *a = node_new(0, 1, START_NS);
    uint8_t data[NODES][MEMBERS_BEACON_MAX];
    struct members_out out[NODES] = {{.data = data[0]}, {.data = data[1]}, {.data = data[2]}};
    unsigned sent = 0;
    unsigned wakes = 0;
    uint64_t t = START_NS;
    while ((t = members_next_ns(a)) < START_NS + 10 * NS_PER_S) {
        sent += members_tick(a, out, NODES, t);
        wakes++;
    }
    ck_assert_uint_eq(sent, 2 * 40);
    ck_assert_uint_eq(wakes, 2 * 40);
    /* After a stop of ten seconds: one beacon to each, not forty. */
    ck_assert_uint_eq(members_tick(a, out, NODES, START_NS + 20 * NS_PER_S), 2);
    ck_assert_uint_eq(members_tick(a, out, NODES, START_NS + 20 * NS_PER_S), 0);
    /* Little room: the rest comes with the next call. */
    members_touch(a, START_NS + 21 * NS_PER_S);
    ck_assert_uint_eq(members_tick(a, out, 1, START_NS + 21 * NS_PER_S), 1);
    ck_assert_uint_eq(members_tick(a, out, 1, START_NS + 21 * NS_PER_S), 1);
    ck_assert_uint_eq(members_tick(a, out, 1, START_NS + 21 * NS_PER_S), 0);
    members_destroy(a);
}
END_TEST

START_TEST(large_mesh)
{
    const uint32_t count = CONFIG_MEMBERS_MAX;
    struct config config = {.data_port = DATA_PORT, .member_count = count};
    static uint8_t data[64][MEMBERS_BEACON_MAX];
    struct members_out out[64];
    struct members *a;
    unsigned sent = 0;
    unsigned most = 0;
    config.members = calloc(count, sizeof(*config.members));
    ck_assert_ptr_nonnull(config.members);
    for (uint32_t i = 0; i < count; i++) {
        config.members[i].id = i;
        config.members[i].address = addr_of_v4(htonl(0x0a000000 + i));
    }
    for (unsigned i = 0; i < 64; i++) {
        out[i].data = data[i];
    }
    ck_assert_int_eq(members_create(&a, &config, 1, START_NS), 0);
    free(config.members);
    members_touch(a, START_NS); /* must not make a burst of thousands */
    for (uint64_t t = START_NS; t < START_NS + MEMBERS_PERIOD_NS; t += MEMBERS_PACE_NS) {
        unsigned now = 0;
        unsigned got;
        do {
            got = members_tick(a, out, 64, t);
            now += got;
        } while (got == 64);
        sent += now;
        most = now > most ? now : most;
    }
    ck_assert_uint_eq(sent, count - 1);
    ck_assert_uint_le(most, count / 10 + 1);
    members_destroy(a);
}
END_TEST

/* Two names with one id cannot both be routed: the first stays. */
START_TEST(model_ids_do_not_clash)
{
    static const char first[] = "costarring";
    static const char second[] = "liquid"; /* a known pair of 32-bit FNV-1a */
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct members_facts facts;
    ck_assert_uint_eq(weft_model_id(first), weft_model_id(second));
    facts_fill(&facts);
    strcpy(facts.models[0].name, first);
    members_set_local(a, &facts);
    strcpy(facts.models[0].name, second);
    members_set_local(b, &facts);
    pass(b, 1, a, 0, START_NS, START_NS);
    ck_assert_uint_eq(members_counters(a)->models_clash, 1);
    ck_assert_uint_eq(members_at(a, 1)->facts.model_count, 1);
    ck_assert_str_eq(members_at(a, 1)->facts.models[0].name, "qwen3-0.6b");
    members_destroy(a);
    members_destroy(b);
}
END_TEST

START_TEST(random_datagrams)
{
    struct members *a = node_new(0, 1, START_NS);
    struct members *b = node_new(1, 1, START_NS);
    struct rng rng = {.state = 0x5eed};
    struct members_facts facts;
    uint64_t now_ns = START_NS;
    facts_fill(&facts);
    members_set_local(b, &facts);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t data[MEMBERS_BEACON_MAX + 64];
        size_t len = rng_below(&rng, sizeof(data) + 1);
        now_ns += rng_below(&rng, 400) * NS_PER_MS;
        if (i % 2 == 0) {
            for (size_t j = 0; j < len; j++) {
                data[j] = (uint8_t)rng_next(&rng);
            }
        } else {
            len = beacon_take(b, 0, now_ns, data);
            for (unsigned flips = rng_below(&rng, 4); flips > 0; flips--) {
                data[rng_below(&rng, (uint32_t)len)] ^= (uint8_t)(1u << rng_below(&rng, 8));
            }
        }
        uint8_t *copy = malloc(len > 0 ? len : 1);
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, len);
        give(a, rng_below(&rng, NODES), copy, len, now_ns);
        free(copy);
        const struct member *member = members_at(a, 1);
        ck_assert_uint_le(member->tier, WEFT_TIER_MAX);
        ck_assert_uint_le(member->facts.model_count, MEMBERS_MODELS_MAX);
        ck_assert_uint_eq(member->tags & ~member->config_tags, 0);
        ck_assert_uint_le(member->srtt_ns, MEMBERS_RTT_MAX_NS);
    }
    ck_assert_uint_gt(members_counters(a)->beacons_heard, 0);
    members_destroy(a);
    members_destroy(b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("members");
    TCase *tcase = tcase_create("members");
    tcase_add_unchecked_fixture(tcase, configs_fill, NULL);
    tcase_add_test(tcase, starts_alone);
    tcase_add_test(tcase, up_and_down_at_exact_times);
    tcase_add_test(tcase, loss_is_survived);
    tcase_add_test(tcase, facts_arrive);
    tcase_add_test(tcase, local_facts_are_checked);
    tcase_add_test(tcase, reordering_and_duplicates);
    tcase_add_test(tcase, damaged_is_not_taken);
    tcase_add_test(tcase, restart_begins_anew);
    tcase_add_test(tcase, strangers_are_ignored);
    tcase_add_test(tcase, malformed_is_counted);
    tcase_add_test(tcase, unterminated_strings);
    tcase_add_test(tcase, too_many_models);
    tcase_add_test(tcase, longer_header_is_read);
    tcase_add_test(tcase, speeds_and_arithmetic_are_told);
    tcase_add_test(tcase, speeds_give_way_to_names);
    tcase_add_test(tcase, tags_never_widen);
    tcase_add_test(tcase, rtt_without_hold_time);
    tcase_add_test(tcase, bad_echo_is_not_a_sample);
    tcase_add_test(tcase, beacons_are_paced);
    tcase_add_test(tcase, large_mesh);
    tcase_add_test(tcase, model_ids_do_not_clash);
    tcase_add_test(tcase, random_datagrams);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
