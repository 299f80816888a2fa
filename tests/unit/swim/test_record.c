/* SPDX-License-Identifier: Apache-2.0 */
/* test_record.c - records, votes and states: what is signed stands, and nothing else does. */
#include <check.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/record.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

#define FIXED 112u

static uint8_t public_key[32];
static uint8_t secret_key[64];

static struct swim_record sample(void)
{
    struct swim_record record = {
        .incarnation = 0x1122334455667788,
        .session = 99,
        .version = 7,
        .address = addr_of_v4(htonl(0x0a000001)),
        .port = 7401,
        .data_port = 7400,
        .id = 12,
        .latitude_udeg = -33870000,
        .longitude_udeg = 151210000,
        .tags = 0x80000005,
        .tier = 3,
        .speaks_min = 1,
        .speaks_max = 2,
        .jurisdiction = "AU",
        .name = "sydney",
    };
    uint8_t seed[32] = {5};
    crypto_sign_seed_keypair(public_key, secret_key, seed);
    memcpy(record.public_key, public_key, 32);
    ck_assert(addr_parse("2001:db8::7", &record.client_address));
    return record;
}

START_TEST(comes_back_as_it_went)
{
    struct swim_record record = sample();
    struct swim_record read;
    uint8_t raw[SWIM_RECORD_MAX];
    size_t size = swim_record_write(&record, secret_key, raw);
    ck_assert_uint_eq(size, FIXED + strlen("sydney") + SWIM_SIGNATURE_BYTES);
    ck_assert(swim_record_read(&read, raw, size));
    ck_assert(swim_record_verify(&read, raw, size));
    ck_assert_mem_eq(read.public_key, record.public_key, 32);
    ck_assert_uint_eq(read.incarnation, record.incarnation);
    ck_assert_uint_eq(read.session, 99);
    ck_assert_uint_eq(read.version, 7);
    ck_assert(addr_equal(&read.address, &record.address));
    ck_assert(addr_equal(&read.client_address, &record.client_address));
    ck_assert_uint_eq(read.port, 7401);
    ck_assert_uint_eq(read.data_port, 7400);
    ck_assert_uint_eq(read.id, 12);
    ck_assert_int_eq(read.latitude_udeg, -33870000);
    ck_assert_int_eq(read.longitude_udeg, 151210000);
    ck_assert_uint_eq(read.tags, 0x80000005);
    ck_assert_uint_eq(read.tier, 3);
    ck_assert_uint_eq(read.speaks_max, 2);
    ck_assert_str_eq(read.jurisdiction, "AU");
    ck_assert_str_eq(read.name, "sydney");
}
END_TEST

/* Whatever bit is changed: either it cannot be read, or it is not signed. */
START_TEST(every_bit_is_signed)
{
    struct swim_record record = sample();
    struct swim_record read;
    uint8_t raw[SWIM_RECORD_MAX];
    size_t size = swim_record_write(&record, secret_key, raw);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert(!swim_record_read(&read, raw, size) || !swim_record_verify(&read, raw, size));
        raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t less = 0; less < size; less++) {
        ck_assert(!swim_record_read(&read, raw, less));
    }
}
END_TEST

/* A later version appends fields: they are stepped over, and are signed. */
START_TEST(longer_records_are_read)
{
    struct swim_record record = sample();
    struct swim_record read;
    uint8_t raw[SWIM_RECORD_MAX];
    size_t body = swim_record_write(&record, secret_key, raw) - SWIM_SIGNATURE_BYTES;
    memset(raw + body, 0xab, 10);
    body += 10;
    raw[2] = (uint8_t)body;
    crypto_sign_detached(raw + body, NULL, raw, body, secret_key);
    ck_assert(swim_record_read(&read, raw, body + SWIM_SIGNATURE_BYTES));
    ck_assert(swim_record_verify(&read, raw, body + SWIM_SIGNATURE_BYTES));
    ck_assert_str_eq(read.name, "sydney");
    raw[body - 1] ^= 1;
    ck_assert(!swim_record_verify(&read, raw, body + SWIM_SIGNATURE_BYTES));
}
END_TEST

START_TEST(values_out_of_range_are_refused)
{
    struct swim_record good = sample();
    struct swim_record bad[12];
    struct swim_record read;
    uint8_t raw[SWIM_RECORD_MAX];
    for (unsigned i = 0; i < 12; i++) {
        bad[i] = good;
    }
    bad[0].incarnation = 0;
    bad[1].session = 0;
    bad[2].port = 0;
    bad[3].id = WEFT_NODE_NONE;
    bad[4].tier = WEFT_TIER_MAX + 1;
    bad[5].latitude_udeg = 90000001;
    bad[6].longitude_udeg = -180000001;
    bad[7].speaks_min = 3;
    bad[8].address = in6addr_any;
    strcpy(bad[9].jurisdiction, "A ");
    bad[10].name[0] = '\0';
    strcpy(bad[11].name, "two words");
    for (unsigned i = 0; i < 12; i++) {
        size_t size = swim_record_write(&bad[i], secret_key, raw);
        ck_assert_msg(!swim_record_read(&read, raw, size), "record %u was taken", i);
    }
}
END_TEST

START_TEST(votes_bind_all_three)
{
    struct swim_vote vote = {.suspect = 1, .incarnation = 2, .observer = 3};
    sample();
    swim_vote_sign(&vote, secret_key);
    ck_assert(swim_vote_verify(&vote, public_key));
    vote.suspect++;
    ck_assert(!swim_vote_verify(&vote, public_key));
    vote.suspect--;
    vote.incarnation++;
    ck_assert(!swim_vote_verify(&vote, public_key));
    vote.incarnation--;
    vote.observer++;
    ck_assert(!swim_vote_verify(&vote, public_key));
}
END_TEST

START_TEST(states_bind_owner_and_version)
{
    struct swim_state_head head = {.uid = 1, .incarnation = 2, .version = 3};
    uint8_t signature[SWIM_SIGNATURE_BYTES];
    uint8_t data[SWIM_STATE_MAX] = {7};
    sample();
    swim_state_sign(&head, data, sizeof(data), secret_key, signature);
    ck_assert(swim_state_verify(&head, data, sizeof(data), signature, public_key));
    ck_assert(!swim_state_verify(&head, data, sizeof(data) - 1, signature, public_key));
    ck_assert(!swim_state_verify(&head, data, sizeof(data) + 1, signature, public_key));
    head.version++;
    ck_assert(!swim_state_verify(&head, data, sizeof(data), signature, public_key));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_record");
    TCase *cases = tcase_create("record");
    tcase_add_test(cases, comes_back_as_it_went);
    tcase_add_test(cases, every_bit_is_signed);
    tcase_add_test(cases, longer_records_are_read);
    tcase_add_test(cases, values_out_of_range_are_refused);
    tcase_add_test(cases, votes_bind_all_three);
    tcase_add_test(cases, states_bind_owner_and_version);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
