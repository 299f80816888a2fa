/* SPDX-License-Identifier: Apache-2.0 */
/* test_buf.c - buf.h: escapes, bytes that are no UTF-8, characters that come in pieces. */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/buf.h"
#include "schemas/base/rng.h"
#include "schemas/base/utf8.h"
#include "tests/unit/suite.h"

static void expect(struct buf *b, const char *text)
{
    ck_assert_uint_eq(buf_len(b), strlen(text));
    ck_assert_mem_eq(b->data + b->at, text, strlen(text));
    buf_deinit(b);
}

START_TEST(escapes)
{
    struct buf b = {.data = NULL};
    buf_add_quoted(&b, "a\"b\\c\n\t\x01/\x7f\xc3\xa9");
    expect(&b, "\"a\\\"b\\\\c\\n\\t\\u0001/\\u007f\xc3\xa9\"");
    buf_add_json(&b, "x\0y", 3);
    expect(&b, "x\\u0000y");
}
END_TEST

/* Less comes than was expected, as much, more; what is there already stays. */
START_TEST(expected)
{
    for (size_t len = 0; len < 8; len++) {
        struct buf b = {.data = NULL};
        buf_expect(&b, len);
        ck_assert_uint_eq(buf_len(&b), 0);
        buf_add_text(&b, "abcd");
        buf_expect(&b, 1000);
        size_t given;
        char *text = buf_give(&b, &given);
        ck_assert_uint_eq(given, 4);
        ck_assert_str_eq(text, "abcd");
        free(text);
        buf_deinit(&b);
    }
}
END_TEST

START_TEST(no_utf8)
{
    static const char *const bad[] = {"\x80",         "\xc0\xaf",         "\xe0\x80\xaf",
                                      "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
                                      "\xe2\x82"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buf b = {.data = NULL};
        struct buf wanted = {.data = NULL};
        buf_add_json(&b, bad[i], strlen(bad[i]));
        for (size_t j = 0; j < strlen(bad[i]); j++) {
            buf_add_text(&wanted, UTF8_REPLACEMENT);
        }
        ck_assert_uint_eq(buf_len(&b), buf_len(&wanted));
        ck_assert_mem_eq(b.data, wanted.data, buf_len(&b));
        buf_deinit(&b);
        buf_deinit(&wanted);
    }
}
END_TEST

START_TEST(a_character_is_held_until_it_is_whole)
{
    struct buf b = {.data = NULL};
    struct utf8_hold hold = {.len = 0};
    buf_add_held(&b, &hold, "a\xf0\x9f", 3);
    ck_assert_uint_eq(buf_len(&b), 1);
    buf_add_held(&b, &hold, "\x98", 1);
    ck_assert_uint_eq(buf_len(&b), 1);
    buf_add_held(&b, &hold, "\x80z", 2);
    ck_assert_uint_eq(hold.len, 0);
    expect(&b, "a\xf0\x9f\x98\x80z");
    /* What follows is no part of it: that was none, and this one is not lost. */
    buf_add_held(&b, &hold, "\xe2\x82", 2);
    buf_add_held(&b, &hold, "\xc3", 1);
    buf_add_held(&b, &hold, "\xa9", 1);
    expect(&b, UTF8_REPLACEMENT UTF8_REPLACEMENT "\xc3\xa9");
    buf_add_held(&b, &hold, "\xe2\x82", 2);
    buf_add_rest(&b, &hold);
    expect(&b, UTF8_REPLACEMENT UTF8_REPLACEMENT);
}
END_TEST

/* Bytes with many beginnings and ends of characters. */
static size_t draw(struct rng *rng, char *out, size_t max)
{
    static const char *const bits[] = {
        "a",    "\"",   "\n",       "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
        "\xe2", "\x82", "\xf0\x9f", "\xed\xa0"};
    size_t len = 0;
    for (uint32_t i = rng_below(rng, 24); i > 0; i--) {
        const char *bit = bits[rng_below(rng, 10)];
        if (len + strlen(bit) <= max) {
            memcpy(out + len, bit, strlen(bit));
            len += strlen(bit);
        }
    }
    return len;
}

/* However a text is cut: the same comes out, it is valid, and nothing whole is kept back. */
START_TEST(any_cut_gives_the_same)
{
    struct rng rng = {(uint64_t)_i};
    for (int round = 0; round < 2000; round++) {
        char text[128];
        size_t len = draw(&rng, text, sizeof(text));
        struct buf whole = {.data = NULL};
        struct buf cut = {.data = NULL};
        struct utf8_hold hold = {.len = 0};
        buf_add_text(&whole, "\"");
        buf_add_text(&cut, "\"");
        buf_add_json(&whole, text, len);
        for (size_t at = 0; at < len;) {
            size_t step = 1 + rng_below(&rng, 4);
            step = step < len - at ? step : len - at;
            buf_add_held(&cut, &hold, text + at, step);
            ck_assert_uint_lt(hold.len, 4);
            at += step;
        }
        buf_add_rest(&cut, &hold);
        buf_add_text(&whole, "\"");
        buf_add_text(&cut, "\"");
        ck_assert_uint_eq(buf_len(&whole), buf_len(&cut));
        ck_assert_mem_eq(whole.data, cut.data, buf_len(&cut));
        json_t *json = json_loadb(cut.data, buf_len(&cut), JSON_DECODE_ANY, NULL);
        ck_assert_ptr_nonnull(json);
        json_decref(json);
        buf_deinit(&whole);
        buf_deinit(&cut);
    }
}
END_TEST

START_TEST(taken_at_the_front)
{
    struct buf b = {.data = NULL};
    struct rng rng = {7};
    uint32_t in = 0;
    uint32_t out = 0;
    while (out < 100000) {
        for (uint32_t i = rng_below(&rng, 300); i > 0; i--) {
            uint8_t byte = (uint8_t)(in++ * 31u);
            buf_add(&b, &byte, 1);
        }
        uint8_t part[200];
        size_t got = buf_take(&b, part, rng_below(&rng, sizeof(part)));
        for (size_t i = 0; i < got; i++) {
            ck_assert_uint_eq(part[i], (uint8_t)(out++ * 31u));
        }
    }
    ck_assert_uint_eq(buf_len(&b), in - out);
    size_t len;
    char *data = buf_give(&b, &len);
    ck_assert_uint_eq(len, in - out);
    ck_assert_int_eq(data[len], '\0');
    ck_assert_uint_eq(len == 0 ? (uint8_t)(out * 31u) : (uint8_t)data[0], (uint8_t)(out * 31u));
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_buf");
    TCase *tc = tcase_create("buf");
    tcase_add_test(tc, escapes);
    tcase_add_test(tc, expected);
    tcase_add_test(tc, no_utf8);
    tcase_add_test(tc, a_character_is_held_until_it_is_whole);
    tcase_add_loop_test(tc, any_cut_gives_the_same, 0, 4);
    tcase_add_test(tc, taken_at_the_front);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
