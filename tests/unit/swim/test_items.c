/* SPDX-License-Identifier: Apache-2.0 */
/* test_items.c - items of a datagram: there and back, cut short, grown, unknown. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/items.h"
#include "tests/unit/suite.h"

static uint8_t buffer[2048];

static struct swim_item only(size_t used)
{
    struct cursor c;
    struct swim_item item;
    bool malformed;
    cursor_init(&c, buffer, used);
    ck_assert(swim_item_next(&c, &item, &malformed));
    ck_assert_uint_eq(cursor_left(&c), 0);
    return item;
}

START_TEST(small_ones)
{
    struct cursor c;
    uint32_t token;
    uint64_t uid, first, second;
    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_token(&c, SWIM_ITEM_ACK, 0xdeadbeef));
    struct swim_item item = only((size_t)(c.at - buffer));
    ck_assert_int_eq(item.type, SWIM_ITEM_ACK);
    ck_assert(swim_get_token(&item, &token));
    ck_assert_uint_eq(token, 0xdeadbeef);
    item.size = 3;
    ck_assert(!swim_get_token(&item, &token));

    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_ping_req(&c, 5, 6));
    item = only((size_t)(c.at - buffer));
    ck_assert(swim_get_ping_req(&item, &token, &uid));
    ck_assert_uint_eq(token, 5);
    ck_assert_uint_eq(uid, 6);
    item.size = 11;
    ck_assert(!swim_get_ping_req(&item, &token, &uid));

    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_two(&c, SWIM_ITEM_SYNC, 7, 8));
    item = only((size_t)(c.at - buffer));
    ck_assert(swim_get_two(&item, &first, &second));
    ck_assert_uint_eq(first, 7);
    ck_assert_uint_eq(second, 8);
    item.size = 15;
    ck_assert(!swim_get_two(&item, &first, &second));
}
END_TEST

START_TEST(votes_and_states)
{
    struct cursor c;
    struct swim_vote vote = {.suspect = 1, .incarnation = 2, .observer = 3};
    struct swim_vote read;
    struct swim_state_head head = {.uid = 4, .incarnation = 5, .version = 6};
    struct swim_state_head head_read;
    const uint8_t *data, *signature;
    size_t size;
    memset(vote.signature, 0x5a, sizeof(vote.signature));
    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_vote(&c, &vote));
    struct swim_item item = only((size_t)(c.at - buffer));
    ck_assert(swim_get_vote(&item, &read));
    ck_assert_mem_eq(&read, &vote, sizeof(vote));
    item.size--;
    ck_assert(!swim_get_vote(&item, &read));

    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_state(&c, &head, "hello", 5, vote.signature));
    item = only((size_t)(c.at - buffer));
    ck_assert(swim_get_state(&item, &head_read, &data, &size, &signature));
    ck_assert_uint_eq(head_read.version, 6);
    ck_assert_uint_eq(size, 5);
    ck_assert_mem_eq(data, "hello", 5);
    ck_assert_mem_eq(signature, vote.signature, sizeof(vote.signature));
    for (uint16_t less = 0; less < item.size; less++) {
        struct swim_item cut = item;
        cut.size = less;
        ck_assert(!swim_get_state(&cut, &head_read, &data, &size, &signature));
    }
}
END_TEST

START_TEST(sums_and_digests)
{
    struct cursor c;
    uint32_t sums[256], sums_read[256], bits;
    static struct swim_digest digest, read;
    for (uint32_t i = 0; i < 256; i++) {
        sums[i] = i * 77;
    }
    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_buckets(&c, 8, sums));
    struct swim_item item = only((size_t)(c.at - buffer));
    ck_assert(swim_get_buckets(&item, &bits, sums_read));
    ck_assert_uint_eq(bits, 8);
    ck_assert_mem_eq(sums, sums_read, sizeof(sums));
    buffer[SWIM_ITEM_HEAD] = 9;
    ck_assert(!swim_get_buckets(&item, &bits, sums_read));

    digest.bits = 3;
    digest.bucket = 5;
    digest.complete = true;
    digest.count = SWIM_DIGEST_ENTRY_MAX;
    for (uint32_t i = 0; i < digest.count; i++) {
        digest.entries[i] =
            (struct swim_digest_entry){.uid = i, .incarnation = 2 * i, .version = 3 * i};
    }
    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(swim_put_digest(&c, &digest));
    item = only((size_t)(c.at - buffer));
    ck_assert_uint_le(item.size + SWIM_ITEM_HEAD, 1200);
    ck_assert(swim_get_digest(&item, &read));
    ck_assert_mem_eq(&read, &digest, sizeof(digest));
    item.size--;
    ck_assert(!swim_get_digest(&item, &read));
    item.size++;
    buffer[SWIM_ITEM_HEAD + 1] = 8; /* there are eight buckets, from 0 */
    ck_assert(!swim_get_digest(&item, &read));
}
END_TEST

START_TEST(pulls)
{
    struct cursor c;
    uint64_t uids[SWIM_PULL_MAX + 1], read[SWIM_PULL_MAX];
    for (uint32_t i = 0; i <= SWIM_PULL_MAX; i++) {
        uids[i] = i;
    }
    cursor_init(&c, buffer, sizeof(buffer));
    ck_assert(!swim_put_pull(&c, uids, SWIM_PULL_MAX + 1));
    ck_assert(swim_put_pull(&c, uids, SWIM_PULL_MAX));
    struct swim_item item = only((size_t)(c.at - buffer));
    ck_assert_uint_eq(swim_get_pull(&item, read), SWIM_PULL_MAX);
    ck_assert_mem_eq(read, uids, sizeof(read));
    item.size -= 3;
    ck_assert_uint_eq(swim_get_pull(&item, read), SWIM_PULL_MAX - 1);
}
END_TEST

START_TEST(no_room_writes_nothing)
{
    struct swim_vote vote = {.suspect = 1};
    for (size_t room = 0; room < 91; room++) {
        struct cursor c;
        cursor_init(&c, buffer, room);
        ck_assert(!swim_put_vote(&c, &vote));
        ck_assert_ptr_eq(c.at, buffer);
        ck_assert(!c.failed);
    }
}
END_TEST

START_TEST(cut_datagrams_are_malformed)
{
    struct cursor c;
    struct swim_item item;
    bool malformed;
    cursor_init(&c, buffer, sizeof(buffer));
    swim_put_token(&c, SWIM_ITEM_PING, 1);
    for (size_t size = 1; size < 7; size++) {
        cursor_init(&c, buffer, size);
        ck_assert(!swim_item_next(&c, &item, &malformed));
        ck_assert(malformed);
    }
    cursor_init(&c, buffer, 0);
    ck_assert(!swim_item_next(&c, &item, &malformed));
    ck_assert(!malformed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_items");
    TCase *cases = tcase_create("items");
    tcase_add_test(cases, small_ones);
    tcase_add_test(cases, votes_and_states);
    tcase_add_test(cases, sums_and_digests);
    tcase_add_test(cases, pulls);
    tcase_add_test(cases, no_room_writes_nothing);
    tcase_add_test(cases, cut_datagrams_are_malformed);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
