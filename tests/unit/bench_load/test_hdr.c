/* SPDX-License-Identifier: Apache-2.0 */
/* test_hdr.c - the encoding, read back by a reader of its own; and a log that Python's hdrhistogram
 * 0.10.3 wrote and read equally. */
#include <check.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bench/load/hdr.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define PLAIN_MAX (1u << 20)
#define INDEX_MAX 40000u

struct reader {
    uint8_t packed[PLAIN_MAX];
    uint8_t plain[PLAIN_MAX];
    uint64_t counts[INDEX_MAX];
};
static struct reader reader;

static size_t read_base64(const char *text, uint8_t *out)
{
    size_t n = 0;
    uint32_t bits = 0, held = 0;
    for (; *text != '\0' && *text != '='; text++) {
        const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *found = strchr(letters, *text);
        ck_assert_ptr_nonnull(found);
        bits = bits << 6 | (uint32_t)(found - letters);
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[n++] = (uint8_t)(bits >> held);
        }
    }
    return n;
}

static uint32_t word_at(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

/* Returns how many counts there are. */
static uint32_t read_back(const char *text)
{
    memset(&reader, 0, sizeof(reader));
    ck_assert_int_eq(strncmp(text, "HISTFAAAA", 9), 0);
    size_t len = read_base64(text, reader.packed);
    ck_assert_uint_eq(word_at(reader.packed), 0x1c849314);
    ck_assert_uint_eq(word_at(reader.packed + 4), len - 8);
    uLongf plain = sizeof(reader.plain);
    ck_assert_int_eq(uncompress(reader.plain, &plain, reader.packed + 8, len - 8), Z_OK);
    ck_assert_uint_eq(word_at(reader.plain), 0x1c849313);
    ck_assert_uint_eq(word_at(reader.plain + 4), plain - 40);
    ck_assert_uint_eq(word_at(reader.plain + 12), 3);
    uint32_t index = 0;
    for (size_t at = 40; at < plain;) {
        uint64_t value = 0;
        for (uint32_t byte = 0; byte < 9; byte++) {
            uint8_t b = reader.plain[at++];
            value |= (uint64_t)(byte < 8 ? b & 0x7f : b) << (7 * byte);
            if (byte < 8 && b < 0x80) {
                break;
            }
        }
        int64_t count = (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
        ck_assert_uint_lt(index, INDEX_MAX);
        if (count < 0) {
            index += (uint32_t)-count;
        } else {
            reader.counts[index++] = (uint64_t)count;
        }
    }
    return index;
}

/* Least value of a place, by HdrHistogram's own formula. */
static uint64_t value_of(uint32_t index)
{
    uint32_t bucket = index < 2048 ? 0 : (index >> 10) - 1;
    return (uint64_t)(index - (bucket << 10)) << bucket;
}

START_TEST(each_value_is_in_its_place)
{
    struct hdr h;
    struct rng rng = {.state = (uint64_t)_i};
    ck_assert_int_eq(hdr_init(&h), 0);
    uint64_t value = rng_next(&rng) >> (_i % 64);
    uint64_t kept = value < HDR_HIGHEST ? value : HDR_HIGHEST;
    hdr_add(&h, value);
    char *text = hdr_encode(&h);
    uint32_t count = read_back(text);
    ck_assert_uint_eq(reader.counts[count - 1], 1);
    ck_assert_uint_le(value_of(count - 1), kept);
    ck_assert_uint_gt(value_of(count), kept);
    ck_assert_uint_le(value_of(count) - value_of(count - 1), 1 + kept / 1000);
    free(text);
    hdr_deinit(&h);
}
END_TEST

START_TEST(counts_come_back)
{
    struct hdr h;
    ck_assert_int_eq(hdr_init(&h), 0);
    hdr_add(&h, 0);
    for (int i = 0; i < 300; i++) {
        hdr_add(&h, 2);
    }
    hdr_add(&h, 5);
    hdr_add(&h, UINT64_MAX);
    char *text = hdr_encode(&h);
    uint32_t count = read_back(text);
    ck_assert_uint_eq(reader.counts[0], 1);
    ck_assert_uint_eq(reader.counts[1], 0);
    ck_assert_uint_eq(reader.counts[2], 300);
    ck_assert_uint_eq(reader.counts[5], 1);
    ck_assert_uint_eq(reader.counts[count - 1], 1);
    ck_assert_uint_le(value_of(count - 1), HDR_HIGHEST);
    free(text);
    hdr_reset(&h);
    text = hdr_encode(&h);
    ck_assert_uint_eq(read_back(text), 0);
    free(text);
    hdr_deinit(&h);
}
END_TEST

START_TEST(a_log_has_heading_and_intervals)
{
    struct hdr h;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    ck_assert_int_eq(hdr_init(&h), 0);
    hdr_add(&h, 2500000);
    hdr_log_begin(f, 1234.5, "a remark");
    ck_assert_int_eq(hdr_log_interval(f, "total", 0.25, 1.0, &h), 0);
    fclose(f);
    ck_assert_ptr_nonnull(strstr(text, "#[Histogram log format version 1.3]\n"
                                       "#[StartTime: 1234.500 (seconds since epoch)]\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nTag=total,0.250,1.000,2.500,HISTFAAAA"));
    free(text);
    hdr_deinit(&h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_hdr");
    TCase *t = tcase_create("hdr");
    tcase_add_loop_test(t, each_value_is_in_its_place, 0, 256);
    tcase_add_test(t, counts_come_back);
    tcase_add_test(t, a_log_has_heading_and_intervals);
    suite_add_tcase(s, t);
    return suite_main(s);
}
