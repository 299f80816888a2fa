/* SPDX-License-Identifier: Apache-2.0 */
/* test_keys.c - keys.h: the file, and who is let in. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/gateway/keys.h"
#include "tests/unit/suite.h"

/* SHA-256 of "abc", FIPS 180-2 appendix B.1. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static bool read_text(struct keys *keys, const char *text, unsigned *line)
{
    return keys_read(keys, text, strlen(text), line);
}

START_TEST(found)
{
    struct keys keys = {.list = NULL};
    unsigned line;
    ck_assert(read_text(&keys, "# all\n\nalice " ABC " # hers\r\n", &line));
    ck_assert_uint_eq(keys.count, 1);
    ck_assert_str_eq(keys_find(&keys, "Bearer abc")->name, "alice");
    ck_assert_str_eq(keys_find(&keys, "bearer  abc")->name, "alice");
    static const char *const others[] = {NULL,          "",    "Bearer",    "Bearer ",
                                         "Bearer abcd", "abc", "Basic abc", "Bearer " ABC};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_ptr_null(keys_find(&keys, others[i]));
    }
    keys_deinit(&keys);
}
END_TEST

START_TEST(scopes)
{
    struct keys keys = {.list = NULL};
    unsigned line;
    ck_assert(read_text(&keys, "alice " ABC " register # hers\n", &line));
    ck_assert_uint_eq(keys_find(&keys, "Bearer abc")->scopes, KEYS_REGISTER);
    keys_deinit(&keys);
    ck_assert(read_text(&keys, "alice " ABC "\n", &line));
    ck_assert_uint_eq(keys_find(&keys, "Bearer abc")->scopes, 0);
    keys_deinit(&keys);
    ck_assert(!read_text(&keys, "alice " ABC " register,all\n", &line));
    keys_deinit(&keys);
}
END_TEST

START_TEST(wrong_lines)
{
    static const char *const wrong[] = {
        "a " ABC "\nb\n",        "a " ABC "\nb 12\n",         "a " ABC "\nb " ABC " c\n",
        "a " ABC "\nb " ABC "0", "a " ABC "\n\x01 " ABC "\n", "a " ABC "\nb z" ABC,
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct keys keys = {.list = NULL};
        unsigned line;
        ck_assert_msg(!read_text(&keys, wrong[i], &line), "taken: %s", wrong[i]);
        ck_assert_uint_eq(line, 2);
        keys_deinit(&keys);
    }
}
END_TEST

START_TEST(drawn)
{
    struct keys keys = {.list = NULL};
    char key[2][64];
    char line[KEYS_NAME_MAX + 80];
    char header[80];
    unsigned at;
    keys_draw("bob", key[0], line);
    keys_draw("bob", key[1], line);
    ck_assert_str_ne(key[0], key[1]);
    ck_assert(read_text(&keys, line, &at));
    snprintf(header, sizeof(header), "Bearer %s", key[1]);
    ck_assert_str_eq(keys_find(&keys, header)->name, "bob");
    snprintf(header, sizeof(header), "Bearer %s", key[0]);
    ck_assert_ptr_null(keys_find(&keys, header));
    keys_deinit(&keys);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_keys");
    TCase *tc = tcase_create("keys");
    tcase_add_test(tc, found);
    tcase_add_test(tc, scopes);
    tcase_add_test(tc, wrong_lines);
    tcase_add_test(tc, drawn);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
