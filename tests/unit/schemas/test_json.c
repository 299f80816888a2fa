/* SPDX-License-Identifier: Apache-2.0 */
/* test_json.c - json.h: texts written as jansson writes them, whatever is in them. */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define TEXT_MAX 256u

/* Both refuse it, or both write the same but for the case of hexadecimal digits. */
static void compare(const char *text, size_t len)
{
    char out[2 * TEXT_MAX * JSON_GROWTH_MAX];
    json_t *value = json_stringn(text, len);
    char *wanted = value != NULL ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    const char *end = json_put_text(out, text, len);
    ck_assert_int_eq(end != NULL, wanted != NULL);
    if (end != NULL) {
        size_t out_len = (size_t)(end - out);
        ck_assert_uint_le(out_len, len * JSON_GROWTH_MAX);
        ck_assert_uint_eq(strlen(wanted), out_len + 2);
        ck_assert_int_eq(strncasecmp(wanted + 1, out, out_len), 0);
        json_t *back = json_loads(wanted, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        ck_assert(json_equal(back, value));
        json_decref(back);
    }
    free(wanted);
    json_decref(value);
}

/* Each byte at each place among plain ones. */
START_TEST(every_byte)
{
    for (unsigned c = 0; c < 256; c++) {
        for (size_t at = 0; at < 20; at++) {
            char text[21] = "abcdefghijklmnopqrst";
            text[at] = (char)c;
            compare(text, 20);
        }
    }
}
END_TEST

START_TEST(skip_plain)
{
    static const char odd[] = {'"', '\\', '\0', '\x1f', '\x80', '\xff'};
    char text[64];
    memset(text, '~', sizeof(text));
    ck_assert_ptr_eq(json_skip_plain(text, text + 64), text + 64);
    ck_assert_ptr_eq(json_skip_plain(text, text + 7), text);
    for (size_t at = 0; at < sizeof(text); at++) {
        for (size_t i = 0; i < sizeof(odd); i++) {
            memset(text, '~', sizeof(text));
            text[at] = odd[i];
            ck_assert_uint_eq((size_t)(json_skip_plain(text, text + 64) - text), at / 8 * 8);
        }
    }
}
END_TEST

START_TEST(random_texts)
{
    static const char *const pieces[] = {"a",
                                         "plain words here ",
                                         "\"",
                                         "\\",
                                         "\n",
                                         "\x01",
                                         "\x7f",
                                         "\xc3\xa4",
                                         "\xe6\xbc\xa2",
                                         "\xf0\x9f\x98\x80",
                                         "\xff",
                                         "\xc3",
                                         "\xed\xa0\x80"};
    struct rng rng = {suite_seed((uint64_t)_i)};
    for (int round = 0; round < 1000; round++) {
        char text[TEXT_MAX];
        size_t len = 0;
        uint32_t kinds = rng_below(&rng, 2) == 0 ? 10 : sizeof(pieces) / sizeof(pieces[0]);
        for (uint32_t count = rng_below(&rng, 12); count > 0; count--) {
            const char *piece = pieces[rng_below(&rng, kinds)];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        compare(text, len);
        compare(text, len > 0 ? rng_below(&rng, (uint32_t)len) : 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tc = tcase_create("json");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_byte);
    tcase_add_test(tc, skip_plain);
    tcase_add_loop_test(tc, random_texts, 0, 4);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
