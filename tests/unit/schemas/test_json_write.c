/* SPDX-License-Identifier: Apache-2.0 */
/* test_json_write.c - json_write.h: what jansson writes, but for reals, which look as they did. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json_write.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define SEED 20261122

static void same(const char *text)
{
    json_t *value = json_loads(text, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    char *written = json_write(value);
    ck_assert_ptr_nonnull(written);
    ck_assert_str_eq(written, text);
    json_decref(value);
    free(written);
}

START_TEST(as_it_was)
{
    same("{}");
    same("[]");
    same("null");
    same("\"a\"");
    same("{\"b\":[1,-2,true,false,null,{}],\"a\":{\"c\":[[]]}}");
    same("[9223372036854775807,-9223372036854775808]");
    same("[\"\\\"\\\\\\n\\u0000\\u001f/\xc3\xa4\xf0\x9f\x98\x80\x7f\"]");
    same("{\"\":1,\"\xc3\xa4\":2,\"\\n\":3}");
}
END_TEST

START_TEST(reals)
{
    same("[0.1,48.85,-0.25,1.0,0.0,-0.0,3.14159,0.30000000000000004,123456789012345.69]");
    same("[1e+30,1.5e-07,1.7976931348623157e+308,4.94065645841247e-324]");
}
END_TEST

/* The same number comes back, whichever it is. */
START_TEST(reals_come_back)
{
    struct rng rng = {suite_seed(SEED)};
    for (int i = 0; i < 20000; i++) {
        const uint64_t bits = rng_next(&rng);
        double number;
        memcpy(&number, &bits, sizeof(number));
        if (!isfinite(number)) {
            continue;
        }
        json_t *value = json_real(number);
        char *text = json_write(value);
        json_t *read = json_loads(text, JSON_DECODE_ANY, NULL);
        ck_assert_msg(json_is_real(read) && json_real_value(read) == number, "%s", text);
        json_decref(value);
        json_decref(read);
        free(text);
    }
}
END_TEST

/* Longer than a piece, with characters across its end. */
START_TEST(long_texts)
{
    for (size_t lead = 0; lead < 5; lead++) {
        char *text = malloc(30003);
        size_t len = lead;
        memset(text, 'x', lead);
        for (; len + 4 <= 30000; len += 4) {
            memcpy(text + len, "\xf0\x9f\x98\x80", 4);
        }
        json_t *value = json_stringn(text, len);
        char *written = json_write(value);
        ck_assert_uint_eq(strlen(written), len + 2);
        ck_assert_int_eq(memcmp(written + 1, text, len), 0);
        json_decref(value);
        free(written);
        free(text);
    }
}
END_TEST

START_TEST(nothing)
{
    ck_assert_ptr_null(json_write(NULL));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_write");
    TCase *tc = tcase_create("json_write");
    tcase_add_test(tc, as_it_was);
    tcase_add_test(tc, reals);
    tcase_add_test(tc, reals_come_back);
    tcase_add_test(tc, long_texts);
    tcase_add_test(tc, nothing);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
