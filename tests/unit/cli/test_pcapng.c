/* SPDX-License-Identifier: Apache-2.0 */
/* test_pcapng.c - capture files block by block as the format's draft describes them, and the words
 * about a captured frame. */
#include "controlplane/cli/pcapng.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "controlplane/cli/verdict.h"
#include "tests/unit/suite.h"

static uint8_t block[PCAPNG_BLOCK_MAX + 2000];

static uint32_t u32_at(size_t offset)
{
    uint32_t value;
    memcpy(&value, block + offset, sizeof(value));
    return value;
}

static uint16_t u16_at(size_t offset)
{
    uint16_t value;
    memcpy(&value, block + offset, sizeof(value));
    return value;
}

static void check_block(size_t len, uint32_t type)
{
    ck_assert_uint_gt(len, 12);
    ck_assert_uint_eq(len % 4, 0);
    ck_assert_uint_eq(u32_at(0), type);
    ck_assert_uint_eq(u32_at(4), len);
    ck_assert_uint_eq(u32_at(len - 4), len);
}

/* Where the value of an option is, from `at` on; its length in `*size`. 0: it is not there. */
static size_t option_find(size_t at, size_t len, uint16_t code, uint16_t *size)
{
    while (at + 4 <= len - 4) {
        uint16_t found = u16_at(at);
        *size = u16_at(at + 2);
        if (found == code) {
            return at + 4;
        }
        if (found == 0) {
            ck_assert_uint_eq(at + 4, len - 4); /* the end is the end */
            return 0;
        }
        at += 4 + ((size_t)*size + 3) / 4 * 4;
    }
    ck_abort_msg("options without an end");
}

static void check_option(size_t at, size_t len, uint16_t code, const void *value, size_t size)
{
    uint16_t found;
    size_t where = option_find(at, len, code, &found);
    ck_assert_uint_ne(where, 0);
    ck_assert_uint_eq(found, size);
    ck_assert_mem_eq(block + where, value, size);
}

START_TEST(header_and_interface)
{
    size_t len = pcapng_header(block, sizeof(block), "weft");
    check_block(len, 0x0a0d0d0a);
    ck_assert_uint_eq(u32_at(8), 0x1a2b3c4d);
    ck_assert_uint_eq(u16_at(12), 1);
    check_option(24, len, 4, "weft", 4);
    len = pcapng_interface(block, sizeof(block), "tokyo:eth0", "network port", 1516);
    check_block(len, 1);
    ck_assert_uint_eq(u16_at(8), 1); /* Ethernet */
    ck_assert_uint_eq(u32_at(12), 1516);
    check_option(16, len, 2, "tokyo:eth0", 10);
    check_option(16, len, 3, "network port", 12);
    check_option(16, len, 9, "\x09", 1);
}
END_TEST

START_TEST(packets)
{
    uint8_t data[1516];
    uint16_t size;
    memset(data, 0xab, sizeof(data));
    struct pcapng_packet packet = {
        .interface = 1,
        .time_ns = UINT64_C(0x1122334455667788),
        .data = data,
        .len = 3000,
        .direction = PCAPNG_OUT,
        .queue = 3,
        .lost = 9,
        .comment = "dropped",
    };
    for (packet.captured = 0; packet.captured <= sizeof(data); packet.captured++) {
        size_t len = pcapng_packet(block, sizeof(block), &packet);
        check_block(len, 6);
        ck_assert_uint_eq(u32_at(8), 1);
        ck_assert_uint_eq(u32_at(12), 0x11223344);
        ck_assert_uint_eq(u32_at(16), 0x55667788);
        ck_assert_uint_eq(u32_at(20), packet.captured);
        ck_assert_uint_eq(u32_at(24), 3000);
        ck_assert_mem_eq(block + 28, data, packet.captured);
        size_t options = 28 + (packet.captured + 3) / 4 * 4;
        check_option(options, len, 1, "dropped", 7);
        check_option(options, len, 2, "\2\0\0\0", 4);
        check_option(options, len, 4, "\11\0\0\0\0\0\0\0", 8);
        check_option(options, len, 6, "\3\0\0\0", 4);
    }
    packet.captured = 10;
    packet.lost = 0;
    packet.comment = "";
    size_t len = pcapng_packet(block, sizeof(block), &packet);
    ck_assert_uint_eq(option_find(40, len, 1, &size), 0);
    ck_assert_uint_eq(option_find(40, len, 4, &size), 0);
    for (size_t room = 0; room < len; room++) {
        ck_assert_uint_eq(pcapng_packet(block, room, &packet), 0);
    }
}
END_TEST

START_TEST(statistics_and_long_texts)
{
    uint8_t data[1516] = {0};
    char comment[1000];
    uint16_t size;
    size_t len = pcapng_statistics(block, sizeof(block), 0, 1, 77, 5);
    check_block(len, 5);
    check_option(20, len, 4, "\115\0\0\0\0\0\0\0", 8);
    check_option(20, len, 5, "\5\0\0\0\0\0\0\0", 8);
    memset(comment, 'x', sizeof(comment) - 1);
    comment[sizeof(comment) - 1] = '\0';
    struct pcapng_packet packet = {
        .data = data, .captured = sizeof(data), .len = sizeof(data), .comment = comment, .lost = 1};
    len = pcapng_packet(block, PCAPNG_BLOCK_MAX + sizeof(data), &packet); /* enough for any */
    check_block(len, 6);
    ck_assert_uint_ne(option_find(28 + sizeof(data), len, 1, &size), 0);
    ck_assert_uint_eq(size, PCAPNG_TEXT_MAX);
}
END_TEST

START_TEST(words)
{
    char text[256];
    struct tap_record record = {.point = TAP_NIC_IN, .verdict = TAP_VERDICT_dropped, .why = 1};
    verdict_text(&record, text, sizeof(text));
    ck_assert_str_eq(text, "dropped, not_ours: not UDP to this node's address and port");
    ck_assert(!verdict_goes_out(&record) && !verdict_of_worker(&record));
    record.why = 0;
    verdict_text(&record, text, sizeof(text));
    ck_assert_str_eq(text, "let go of");
    record.why = 255;
    verdict_text(&record, text, sizeof(text));
    ck_assert_str_eq(text, "let go of");
    record = (struct tap_record){.point = TAP_WORKER_OUT};
    verdict_text(&record, text, sizeof(text));
    ck_assert_str_eq(text, "to the local worker or a local client");
    ck_assert(verdict_goes_out(&record) && verdict_of_worker(&record));
    record = (struct tap_record){.point = 200, .verdict = 200};
    verdict_text(&record, text, sizeof(text));
    ck_assert_str_eq(text, "?");
}
END_TEST

START_TEST(lines)
{
    static struct capture_frame frame;
    char text[256];
    frame = (struct capture_frame){
        .record = {.len = 74, .verdict = TAP_VERDICT_to_node},
        .time_ns = UINT64_C(1700000000123456789),
        .captured = 74,
        .data = {[12] = 8,
                 [14] = 0x45,
                 [23] = 17,
                 [26] = 10,
                 [27] = 77,
                 [29] = 9,
                 [30] = 10,
                 [31] = 77,
                 [33] = 1,
                 [34] = 0x9c,
                 [35] = 0x40,
                 [36] = 0x1c,
                 [37] = 0xe8},
    };
    struct weft_hdr h = {
        .ver_fmt = WEFT_VER_FMT, .type = WEFT_T_REQ, .conn_id = 0xabc, .req_seq = 7, .offset = 9};
    memcpy(frame.data + 42, &h, sizeof(h));
    verdict_line(&frame, "eth0", text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, ".123456 in  eth0 10.77.0.9:40000 > 10.77.0.1:7400 REQ "
                                       "conn=0000000000000abc seq=7 offset=9 len=74: sent on"));
    for (frame.captured = 0; frame.captured < 74; frame.captured++) {
        verdict_line(&frame, "eth0", text, sizeof(text));
        ck_assert_ptr_nonnull(strstr(text, "not Weft len=74"));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pcapng");
    TCase *tc = tcase_create("pcapng");
    tcase_add_test(tc, header_and_interface);
    tcase_add_test(tc, packets);
    tcase_add_test(tc, statistics_and_long_texts);
    tcase_add_test(tc, words);
    tcase_add_test(tc, lines);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
