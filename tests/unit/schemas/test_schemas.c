/* SPDX-License-Identifier: Apache-2.0 */
/* test_schemas.c - the vocabulary: tables, names, coordinates, and the small helpers of base/. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "schemas/base/cpu.h"
#include "schemas/base/crc32c.h"
#include "schemas/base/cursor.h"
#include "schemas/base/geo.h"
#include "schemas/base/hist.h"
#include "schemas/base/ring.h"
#include "schemas/base/rng.h"
#include "schemas/tags.def"
#include "tests/unit/suite.h"

START_TEST(statuses_have_sentences_and_names)
{
#define CHECK_STATUS_(name, code, sentence)                                                        \
    ck_assert_int_lt(code, -1000);                                                                 \
    ck_assert_str_eq(weft_status_text(code), sentence);                                            \
    ck_assert_int_eq(sentence[strlen(sentence) - 1], '.');                                         \
    ck_assert_int_eq(strcasecmp(weft_status_name(code), #name), 0);
    WEFT_STATUSES(CHECK_STATUS_)
    ck_assert_str_eq(weft_status_name(WEFT_E_MESH_FULL), "mesh_full");
    ck_assert_str_eq(weft_status_name(0), "ok");
    ck_assert_str_eq(weft_status_name(-ENOENT), "errno");
    ck_assert_str_eq(weft_status_text(-ENOENT), strerror(ENOENT));
    ck_assert_str_eq(weft_status_text(-5000), "Unknown status.");
}
END_TEST

START_TEST(wire_values_are_distinct_and_named)
{
    uint32_t flags = 0;
    uint32_t tags = 0;
#define ADD_FLAG_(name, bit, text)                                                                 \
    ck_assert_uint_eq(flags >> (bit)&1, 0);                                                        \
    flags |= UINT32_C(1) << (bit);
    WEFT_FLAGS(ADD_FLAG_)
#define ADD_TAG_(name, bit, text)                                                                  \
    ck_assert_uint_eq(tags >> (bit)&1, 0);                                                         \
    tags |= UINT32_C(1) << (bit);                                                                  \
    ck_assert_uint_eq(weft_tag_mask(#name), UINT32_C(1) << (bit));
    WEFT_TAGS(ADD_TAG_)
    ck_assert_uint_eq(weft_tag_mask("nosuch"), 0);
    ck_assert_str_eq(weft_type_name(WEFT_T_GRANT), "GRANT");
    ck_assert_str_eq(weft_type_name(0x7f), "?");
    ck_assert_str_eq(weft_constraint_unit(WEFT_C_RADIUS), "km");
    ck_assert_str_eq(weft_role_name(WEFT_ROLE_USER), "user");
    ck_assert_str_eq(weft_finish_name(WEFT_FINISH_LENGTH), "length");
    /* FNV-1a's published vectors. */
    ck_assert_uint_eq(weft_model_id(""), 0x811c9dc5u);
    ck_assert_uint_eq(weft_model_id("a"), 0xe40c292cu);
    ck_assert_uint_eq(weft_model_id("foobar"), 0xbf9cf968u);
}
END_TEST

/* As wire.def says it: the number-th word of twelve bits with six of them set. */
static uint32_t jurisdiction_word(unsigned number)
{
    uint32_t word = 0;
    for (unsigned seen = 0; seen <= number; word++) {
        seen += __builtin_popcount(word) == 6;
    }
    return (word - 1) << 12;
}

START_TEST(jurisdictions_are_words_none_of_which_contains_another)
{
    uint32_t masks[26 * 26];
    uint32_t tags = 0;
    char name[3];
    for (unsigned i = 0; i < 26 * 26; i++) {
        const char letters[3] = {(char)('A' + i / 26), (char)('A' + i % 26), 0};
        masks[i] = weft_jurisdiction_mask(letters);
        ck_assert_uint_eq(masks[i], jurisdiction_word(i));
        ck_assert(weft_jurisdiction_name(masks[i] | ~WEFT_TAGS_JURISDICTION, name));
        ck_assert_str_eq(name, letters);
        for (unsigned j = 0; j < i; j++) {
            ck_assert((masks[i] & masks[j]) != masks[i] && (masks[i] & masks[j]) != masks[j]);
        }
    }
#define TAG_ADD_(name, bit, text) tags |= UINT32_C(1) << (bit);
    WEFT_TAGS(TAG_ADD_)
    ck_assert_uint_eq(tags & WEFT_TAGS_JURISDICTION, 0);
    static const char *const bad[] = {"", "D", "de", "De", "dE", "DEU", "D1", "@A", "[A", "D "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_uint_eq(weft_jurisdiction_mask(bad[i]), 0);
    }
    for (uint32_t word = 0; word < 1u << 12; word++) { /* all that may be on the wire */
        bool is_one = false;
        for (unsigned i = 0; i < 26 * 26; i++) {
            is_one = is_one || masks[i] == word << 12;
        }
        ck_assert(weft_jurisdiction_name(word << 12, name) == is_one);
        ck_assert_uint_eq(strlen(name), is_one ? 2 : 0);
    }
    ck_assert_str_eq(weft_constraint_text(9), "no such node is in that jurisdiction");
}
END_TEST

START_TEST(cells_cover_the_globe)
{
    ck_assert_uint_eq(weft_cell_x(-180.0), 0);
    ck_assert_uint_eq(weft_cell_x(180.0), 0); /* the same meridian */
    ck_assert_uint_eq(weft_cell_x(0.0), 32768);
    ck_assert_uint_eq(weft_cell_x(179.9999), 0);
    ck_assert_uint_eq(weft_cell_x(-190.0), weft_cell_x(170.0));
    ck_assert_uint_eq(weft_cell_x(550.0), weft_cell_x(-170.0));
    ck_assert_uint_eq(weft_cell_y(-90.0), 0);
    ck_assert_uint_eq(weft_cell_y(90.0), 32767);
    ck_assert_uint_eq(weft_cell_y(500.0), 32767);
    ck_assert_uint_eq(weft_cell_x(NAN), 0);
    ck_assert_uint_eq(weft_cell_y(NAN), 0);
    for (uint32_t c = 0; c < 65536; c += 13) {
        ck_assert_uint_eq(weft_cell_x(weft_cell_longitude((uint16_t)c)), c);
        ck_assert_uint_eq(weft_cell_y(weft_cell_latitude((uint16_t)(c / 2))), c / 2);
    }
}
END_TEST

START_TEST(great_circles_are_right)
{
    struct geo_point london = geo_point_at(51.5074, -0.1278);
    struct geo_point dubai = geo_point_at(25.2048, 55.2708);
    struct geo_point pole = geo_point_at(90.0, 0.0);
    double km = geo_distance_km(london, dubai);
    ck_assert_double_ge(km, 5466.0);
    ck_assert_double_le(km, 5486.0);
    ck_assert_double_eq_tol(geo_distance_km(pole, geo_point_at(-90, 17)), GEO_HALF_TURN_KM, 0.5);
    ck_assert_double_eq_tol(geo_distance_km(london, london), 0.0, 1e-9);
    ck_assert(geo_chord2(london, dubai) <= geo_chord2_of_km(km + 0.001));
    ck_assert(geo_chord2(london, dubai) > geo_chord2_of_km(km - 0.001));
    ck_assert(isinf(geo_chord2_of_km(20100.0)));
}
END_TEST

START_TEST(histogram_is_within_its_error)
{
    static struct hist hist;
    struct rng rng = {.state = 3};
    for (int i = 0; i < 200000; i++) {
        uint64_t value = rng_next(&rng) >> rng_below(&rng, 64);
        uint64_t top = hist_bucket_top(hist_bucket(value));
        ck_assert_uint_lt(hist_bucket(value), HIST_BUCKETS);
        ck_assert_uint_ge(top, value);
        ck_assert_double_le((double)(top - value), (double)value * 0.032);
    }
    ck_assert_uint_eq(hist_quantile(&hist, 0.5), 0);
    for (uint64_t v = 1; v <= 1000; v++) {
        hist_add(&hist, v);
    }
    ck_assert_uint_ge(hist_quantile(&hist, 0.5), 500);
    ck_assert_uint_le(hist_quantile(&hist, 0.5), 516);
    ck_assert_uint_ge(hist_quantile(&hist, 0.99), 990);
    ck_assert_uint_eq(hist_quantile(&hist, 1.0), 1000);
    hist_add(&hist, UINT64_MAX);
    ck_assert_uint_eq(hist_quantile(&hist, 1.0), UINT64_MAX);
}
END_TEST

START_TEST(cursor_never_overruns)
{
    uint8_t data[7] = {1, 0, 0, 0, 2, 0, 9};
    struct cursor c;
    cursor_init_const(&c, data, sizeof(data));
    ck_assert_uint_eq(cursor_read_u32(&c), 1);
    ck_assert_uint_eq(cursor_read_u16(&c), 2);
    ck_assert(!c.failed);
    ck_assert_uint_eq(cursor_read_u16(&c), 0);
    ck_assert(c.failed);
    ck_assert_uint_eq(cursor_read_u8(&c), 0); /* failed once, failed for good */
    cursor_init(&c, data, sizeof(data));
    cursor_write_u64(&c, 5);
    ck_assert(c.failed);
    ck_assert_uint_eq(data[0], 1);
}
END_TEST

/* ---- the ring between two threads ---- */

#define RING_SLOTS    8u
#define RING_MESSAGES 20000u /* where other work runs, each eight cost a turn of the scheduler */

static struct ring ring;
static struct ring_slot slots[RING_SLOTS];

static void *produce(void *arg)
{
    struct ring_end end;
    (void)arg;
    ring_end_init(&end, &ring, slots, RING_SLOTS);
    for (uint32_t i = 0; i < RING_MESSAGES;) {
        struct ring_slot *slot = ring_reserve(&end);
        if (slot == NULL) {
            sched_yield();
            continue;
        }
        slot->len = 4;
        memcpy(slot->data, &i, 4);
        ring_commit(&end);
        i++;
    }
    return NULL;
}

START_TEST(ring_keeps_order_between_threads)
{
    struct ring_end end;
    pthread_t thread;
    ring_end_init(&end, &ring, slots, RING_SLOTS);
    ck_assert_int_eq(pthread_create(&thread, NULL, produce, NULL), 0);
    for (uint32_t i = 0; i < RING_MESSAGES;) {
        struct ring_slot *slot = ring_peek(&end);
        uint32_t value;
        if (slot == NULL) {
            sched_yield();
            continue;
        }
        memcpy(&value, slot->data, 4);
        ck_assert_uint_eq(value, i);
        ring_release(&end);
        i++;
    }
    pthread_join(thread, NULL);
    ck_assert_ptr_null(ring_peek(&end));
}
END_TEST

/* The vectors of RFC 3720, appendix B.4, and the usual check value; in pieces as well. */
START_TEST(crc_has_its_test_vectors)
{
    uint8_t bytes[32] = {0};
    ck_assert_uint_eq(crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    ck_assert_uint_eq(crc32c(0, bytes, 32), 0x62a8ab43u);
    for (unsigned i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)i;
    }
    ck_assert_uint_eq(crc32c(0, bytes, 32), 0x46dd794eu);
    for (unsigned cut = 0; cut <= 32; cut++) {
        ck_assert_uint_eq(crc32c(crc32c(0, bytes, cut), bytes + cut, 32 - cut), 0x46dd794eu);
    }
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283u);
}
END_TEST

/* Long ones are summed up in three places at once: the same as byte by byte, wherever it begins. */
START_TEST(long_sums)
{
    enum { SIZE = 40000 };
    uint8_t *bytes = malloc(SIZE);
    struct rng rng = {suite_seed(1)};
    uint32_t sum = 0;
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)rng_next(&rng);
        sum = crc32c(sum, &bytes[i], 1);
    }
    ck_assert_uint_eq(crc32c(0, bytes, SIZE), sum);
    for (int round = 0; round < 100; round++) {
        size_t cut = rng_below(&rng, SIZE);
        ck_assert_uint_eq(crc32c(crc32c(0, bytes, cut), bytes + cut, SIZE - cut), sum);
    }
    free(bytes);
}
END_TEST

START_TEST(processors_are_those_that_are_permitted)
{
    cpu_set_t had;
    cpu_set_t one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof(had), &had), 0);
    ck_assert_uint_eq(cpu_permitted(), (uint32_t)CPU_COUNT(&had));
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &had))
            CPU_SET(cpu, &one);
    }
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    ck_assert_uint_eq(cpu_permitted(), 1);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(had), &had), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schemas");
    TCase *tc = tcase_create("schemas");
    tcase_set_timeout(tc, 120); /* two threads may have to share a core with others */
    tcase_add_test(tc, statuses_have_sentences_and_names);
    tcase_add_test(tc, wire_values_are_distinct_and_named);
    tcase_add_test(tc, jurisdictions_are_words_none_of_which_contains_another);
    tcase_add_test(tc, cells_cover_the_globe);
    tcase_add_test(tc, great_circles_are_right);
    tcase_add_test(tc, histogram_is_within_its_error);
    tcase_add_test(tc, cursor_never_overruns);
    tcase_add_test(tc, crc_has_its_test_vectors);
    tcase_add_test(tc, long_sums);
    tcase_add_test(tc, processors_are_those_that_are_permitted);
    tcase_add_test(tc, ring_keeps_order_between_threads);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
