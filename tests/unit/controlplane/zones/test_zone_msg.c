/* SPDX-License-Identifier: Apache-2.0 */
/* test_zone_msg.c - every kind of datagram there and back, cut short, lengthened and garbled; and
 * signed summaries. */
#include <check.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/zones/msg.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static struct rng rng = {.state = 0x3e55};

static void record_fill(struct zone_record *r)
{
    memset(r, 0, sizeof(*r));
    r->version = rng_next(&rng);
    r->node = (uint32_t)rng_next(&rng);
    r->addr.s6_addr[0] = 0xfd;
    r->x = (uint16_t)rng_next(&rng);
    r->y = (uint16_t)(rng_next(&rng) & INT16_MAX);
    r->jurisdiction = (uint16_t)rng_next(&rng);
    r->tier = (uint8_t)rng_below(&rng, 8);
    r->model_count = (uint8_t)rng_below(&rng, ZONE_MODELS_MAX + 1);
    for (uint32_t i = 0; i < r->model_count; i++) {
        r->models[i] = (uint32_t)rng_next(&rng);
    }
    r->vram_total_64mib = 100;
    r->vram_free_64mib = 7;
}

static void summary_fill(struct zone_summary *s, uint64_t lo)
{
    struct zone_record r;
    zone_summary_init(s, (struct zone_range){lo, lo + 100});
    for (uint32_t i = 0; i < 3; i++) {
        record_fill(&r);
        zone_summary_add(s, &r);
        s->contacts[i] = (struct zone_contact){.node = r.node, .area = 77, .addr = r.addr};
    }
    s->contact_count = 3;
    s->age_ms = 1234;
}

/* A valid message of a kind, as large as it gets. */
static void msg_fill(struct zone_msg *m, uint8_t kind)
{
    memset(m, 0, sizeof(*m));
    m->header = (struct zone_header){
        .kind = kind, .node = 9, .area = 0x123456, .epoch = 3, .claim = {5, 6}};
    switch (kind) {
    case ZONE_STATE:
        record_fill(&m->state);
        break;
    case ZONE_DELTA:
        m->delta = (struct zone_delta){.version = 1, .queue_us = 2, .room = 3};
        break;
    case ZONE_ASK:
        m->ask.ask =
            (struct zone_ask){.id = 4, .range = {1, 2}, .bound = 77, .budget_ms = 1500, .hops = 2};
        m->ask.query = (struct zone_query){
            .k = 3, .tier_max = 7, .model = 5, .jurisdiction_count = ZONE_JURISDICTIONS_MAX};
        for (uint32_t i = 0; i < ZONE_JURISDICTIONS_MAX; i++) {
            m->ask.query.jurisdictions[i] = (uint16_t)(1 + rng_below(&rng, UINT16_MAX));
        }
        break;
    case ZONE_ANSWER:
        m->answer.id = 5;
        m->answer.stage = ZONE_RELAY_FINISHED;
        m->answer.hops = 3;
        m->answer.asks = 400;
        m->answer.found_count = ZONE_TOP_MAX;
        m->answer.piece_count = zone_answer_room(ZONE_TOP_MAX);
        for (uint32_t i = 0; i < ZONE_TOP_MAX; i++) {
            m->answer.found[i].node = i;
        }
        for (uint32_t i = 0; i < m->answer.piece_count; i++) {
            summary_fill(&m->answer.pieces[i], i * 100);
        }
        break;
    case ZONE_PULL:
        m->pull = (struct zone_pull){.id = 6, .range = {1, ZONE_KEY_END}, .want = 4};
        break;
    case ZONE_VIEW:
        m->view.id = 7;
        m->view.count = ZONE_ANSWER_PIECES;
        for (uint32_t i = 0; i < ZONE_ANSWER_PIECES; i++) {
            summary_fill(&m->view.all[i], i * 100);
        }
        break;
    case ZONE_FETCH:
        m->fetch = (struct zone_fetch){.id = 8, .range = {3, 9}};
        break;
    case ZONE_RECORDS:
        m->page.id = 9;
        m->page.count = ZONE_PAGE_MAX;
        m->page.next = ZONE_KEY_END;
        for (uint32_t i = 0; i < ZONE_PAGE_MAX; i++) {
            record_fill(&m->page.all[i].record);
        }
        break;
    default:
        m->reshape =
            (struct zone_reshape){.stage = ZONE_COMMIT, .epoch = 4, .range = {10, 20}, .cut = 15};
        break;
    }
}

/* What is read and written again is the same bytes, and nothing shorter or longer is taken. */
START_TEST(there_and_back)
{
    uint8_t kind = (uint8_t)_i;
    struct zone_msg in;
    struct zone_msg out;
    uint8_t data[ZONE_DATAGRAM_MAX + 1];
    uint8_t again[ZONE_DATAGRAM_MAX];
    msg_fill(&in, kind);
    size_t size = zone_msg_write(data, &in, NULL);
    ck_assert_uint_le(size, ZONE_DATAGRAM_MAX);
    ck_assert(zone_msg_read(data, size, NULL, &out));
    ck_assert_uint_eq(out.header.node, 9);
    ck_assert_uint_eq(out.header.area, 0x123456);
    ck_assert_uint_eq(zone_msg_write(again, &out, NULL), size);
    ck_assert_mem_eq(data, again, size);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut + 1); /* so that a sanitizer sees the end */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, cut);
        ck_assert(!zone_msg_read(copy, cut, NULL, &out));
        free(copy);
    }
    data[size] = 0;
    ck_assert(!zone_msg_read(data, size + 1, NULL, &out));
    data[1]++;
    ck_assert(!zone_msg_read(data, size, NULL, &out)); /* another version */
}
END_TEST

START_TEST(garbled_is_safe)
{
    struct zone_msg m;
    uint8_t data[ZONE_DATAGRAM_MAX];
    for (uint32_t i = 0; i < 50000; i++) {
        msg_fill(&m, (uint8_t)(1 + i % (ZONE_KINDS - 1)));
        size_t size = zone_msg_write(data, &m, NULL);
        for (uint32_t flips = 1 + rng_below(&rng, 8); flips > 0; flips--) {
            data[rng_below(&rng, (uint32_t)size)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        }
        if (!zone_msg_read(data, size, NULL, &m)) {
            continue;
        }
        ck_assert(m.header.kind >= ZONE_STATE && m.header.kind < ZONE_KINDS);
        if (m.header.kind == ZONE_VIEW) {
            for (uint32_t j = 0; j < m.view.count; j++) {
                ck_assert(zone_range_valid(m.view.all[j].range));
                ck_assert_uint_le(m.view.all[j].contact_count, ZONE_CONTACTS);
            }
        }
    }
}
END_TEST

/* Where nobody is there is no box: one would be united with others', and passed on. */
START_TEST(nobody_has_no_box)
{
    uint8_t data[ZONE_DATAGRAM_MAX];
    struct zone_msg m;
    struct zone_msg out;
    msg_fill(&m, ZONE_VIEW);
    m.view.count = 1;
    zone_summary_init(&m.view.all[0], (struct zone_range){0, 100});
    ck_assert(zone_msg_read(data, zone_msg_write(data, &m, NULL), NULL, &out));
    m.view.all[0].box = (struct zone_box){0, 9, 0, 9, 0, 10};
    ck_assert(!zone_msg_read(data, zone_msg_write(data, &m, NULL), NULL, &out));
    m.view.all[0].live = 1;
    ck_assert(!zone_msg_read(data, zone_msg_write(data, &m, NULL), NULL, &out));
    m.view.all[0].box.z_hi = TORUS_TIERS - 1;
    ck_assert(zone_msg_read(data, zone_msg_write(data, &m, NULL), NULL, &out));
    m.view.all[0].box = ZONE_BOX_EMPTY;
    ck_assert(!zone_msg_read(data, zone_msg_write(data, &m, NULL), NULL, &out));
}
END_TEST

START_TEST(signatures)
{
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES];
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    uint8_t other[crypto_sign_PUBLICKEYBYTES];
    uint8_t data[ZONE_DATAGRAM_MAX];
    struct zone_msg m;
    struct zone_msg out;
    ck_assert_int_ge(sodium_init(), 0);
    crypto_sign_keypair(other, secret);
    crypto_sign_keypair(public_key, secret);
    msg_fill(&m, ZONE_VIEW);
    size_t size = zone_msg_write(data, &m, secret);
    ck_assert_uint_le(size, ZONE_DATAGRAM_MAX);
    ck_assert(zone_msg_read(data, size, public_key, &out));
    ck_assert(out.view.is_signed);
    ck_assert(zone_msg_read(data, size, NULL, &out));
    ck_assert(!zone_msg_read(data, size, other, &out));
    data[ZONE_HEADER_BYTES + 6 + 40] ^= 1; /* within the first summary */
    ck_assert(!zone_msg_read(data, size, public_key, &out));
    /* Unsigned ones are not taken where signatures are asked for. */
    size = zone_msg_write(data, &m, NULL);
    ck_assert(!zone_msg_read(data, size, public_key, &out));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_msg");
    TCase *tcase = tcase_create("zone_msg");
    tcase_add_loop_test(tcase, there_and_back, ZONE_STATE, ZONE_KINDS);
    tcase_add_test(tcase, garbled_is_safe);
    tcase_add_test(tcase, nobody_has_no_box);
    tcase_add_test(tcase, signatures);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
