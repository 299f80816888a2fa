/* SPDX-License-Identifier: Apache-2.0 */
/* test_json_read.c - json_read.h against jansson: the same tree, the same refusals, whatever comes.
 */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json_read.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define TEXT_MAX 4096u

static char *dump(const json_t *value)
{
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY); /* keys in their order */
}

/* What is taken is what jansson makes of it. True: taken. */
static bool agrees(const char *text, size_t len)
{
    json_error_t error = {.line = 0};
    json_error_t expected_error = {.line = 0};
    json_t *expected = json_loadb(text, len, JSON_ALLOW_NUL, &expected_error);
    json_t *quick = json_read_quick(text, len);
    json_t *whole = json_read(text, len, &error);
    bool taken = quick != NULL;
    ck_assert_msg(!taken || expected != NULL, "jansson refuses %.*s", (int)len, text);
    ck_assert_int_eq(whole != NULL, expected != NULL);
    if (expected == NULL) {
        ck_assert_str_eq(error.text, expected_error.text);
        ck_assert_int_eq(error.position, expected_error.position);
    } else {
        char *a = dump(expected);
        char *b = dump(taken ? quick : whole);
        ck_assert_str_eq(a, b);
        free(a);
        free(b);
    }
    json_decref(expected);
    json_decref(quick);
    json_decref(whole);
    return taken;
}

static bool agrees_text(const char *text)
{
    return agrees(text, strlen(text));
}

START_TEST(taken)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        " \t\r\n[ ] \n",
        "{\"a\":[1,-2,3.5,1e3,0,-0,0.25E-2,true,false,null]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello, you there\"}]}",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
        "[\"\\u0041\\u00e4\\u20AC\\ud83d\\ude00\\u0000x\"]",
        "[\"gr\xc3\xbc\xc3\x9f \xe6\xbc\xa2\xe5\xad\x97 \xf0\x9f\x98\x80 and more\"]",
        "[\"\x7f\"]",
        "{\"a\":1,\"b\":2,\"a\":3}",
        "{\"\":{}}",
        "[999999999999999999]",
        "[9223372036854775807,-9223372036854775808]",
        "[1.7976931348623157e308,1e-400]",
        "[\"1234567\",\"12345678\",\"123456789\",\"1234567\\n\",\"12345678\\n9\"]",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_msg(agrees_text(texts[i]), "%s", texts[i]);
    }
}
END_TEST

START_TEST(refused)
{
    static const char *const texts[] = {
        "",
        " ",
        "1",
        "\"a\"",
        "null",
        "{",
        "[",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "[1 2]",
        "[1]]",
        "[1] x",
        "{}{}",
        "[01]",
        "[-]",
        "[1.]",
        "[.5]",
        "[1e]",
        "[+1]",
        "[1-2]",
        "[--1]",
        "[0x1]",
        "[NaN]",
        "[1e400]",
        "[-1e999]",
        "[9223372036854775808]",
        "[tru]",
        "[truex]",
        "[nulltrue]",
        "[\"a]",
        "[\"\n\"]",
        "[\"\\x\"]",
        "[\"\\",
        "[\"\\u12\"]",
        "[\"\\u12g4\"]",
        "[\"\\ud800\"]",
        "[\"\\udc00\"]",
        "[\"\\ud800\\u0041\"]",
        "[\"\\ud800x\"]",
        "[\"\\ud83d\\ud83d\"]",
        "[\"\x80\"]",
        "[\"\xc3\"]",
        "[\"\xc0\xaf\"]",
        "[\"\xed\xa0\x80\"]",
        "[\"\xf4\x90\x80\x80\"]",
        "[\"\xff\"]",
        "\xef\xbb\xbf[]",
        "{\"\\u0000\":1}",
        "{\"\xff\":1}",
        "[\"abcdefgh\x01\"]",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert_msg(!agrees_text(texts[i]), "%s", texts[i]);
    }
    ck_assert(!agrees("[\"a\0b\"]", 7));
    ck_assert(!agrees("[1\0]", 4));
    ck_assert(!agrees("[]\0", 3));
}
END_TEST

/* Left to jansson, which takes it. */
START_TEST(not_sure)
{
    char text[TEXT_MAX] = "{\"";
    memset(text + 2, 'k', 300);
    strcpy(text + 302, "\":1}");
    ck_assert(!agrees_text(text));
    ck_assert(!agrees_text("{\"\\n\":1}"));
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    ck_assert(!agrees(text, 130));
    ck_assert(agrees(text + 1, 128));
}
END_TEST

/* ---- random texts ---- */

struct writer {
    struct rng rng;
    char text[TEXT_MAX];
    size_t len;
};

static void put(struct writer *w, const char *text)
{
    size_t len = strlen(text);
    ck_assert_uint_lt(w->len + len, TEXT_MAX);
    memcpy(w->text + w->len, text, len);
    w->len += len;
}

static const char *one_of(struct writer *w, const char *const *words, size_t count)
{
    return words[rng_below(&w->rng, (uint32_t)count)];
}

#define ONE_OF(w, words) one_of(w, words, sizeof(words) / sizeof((words)[0]))

static void string_write(struct writer *w, bool key)
{
    static const char *const pieces[] = {
        "a",
        "word ",
        "0123456789abcdef",
        "\xc3\xa4",
        "\xe6\xbc\xa2",
        "\xf0\x9f\x98\x80",
        "\x7f",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u00e9",
        "\\u6f22",
        "\\ud83d\\ude00",
        "\\u0000",
    };
    uint32_t kinds = key ? 7 : sizeof(pieces) / sizeof(pieces[0]);
    put(w, "\"");
    for (uint32_t count = rng_below(&w->rng, 6); count > 0; count--) {
        put(w, pieces[rng_below(&w->rng, kinds)]);
    }
    put(w, "\"");
}

static void value_write(struct writer *w, unsigned depth)
{
    static const char *const words[] = {"true",
                                        "false",
                                        "null",
                                        "0",
                                        "-1",
                                        "0.7",
                                        "1e3",
                                        "-0",
                                        "123456789012345678",
                                        "1234567890123456789"};
    static const char *const spaces[] = {"", "", " ", "\n", "\t\r "};
    uint32_t kind = depth == 0 ? 2 : rng_below(&w->rng, depth < 4 && w->len < TEXT_MAX / 8 ? 4 : 2);
    bool array = rng_below(&w->rng, 2) == 0;
    if (depth != 0 && kind == 0) {
        put(w, ONE_OF(w, words));
        return;
    }
    if (kind == 1) {
        string_write(w, false);
        return;
    }
    put(w, array ? "[" : "{");
    for (uint32_t i = 0, count = rng_below(&w->rng, 5); i < count; i++) {
        put(w, i > 0 ? "," : "");
        put(w, ONE_OF(w, spaces));
        if (!array) {
            string_write(w, true);
            put(w, ONE_OF(w, spaces));
            put(w, ":");
        }
        put(w, ONE_OF(w, spaces));
        value_write(w, depth + 1);
        put(w, ONE_OF(w, spaces));
    }
    put(w, array ? "]" : "}");
}

START_TEST(random_texts)
{
    static const char odd[] = "\"\\{}[],:0-.eE \n\x01\x80\xc3u";
    struct writer w = {.rng = {suite_seed((uint64_t)_i)}};
    for (int round = 0; round < 500; round++) {
        w.len = 0;
        value_write(&w, 0);
        ck_assert_msg(agrees(w.text, w.len), "%.*s", (int)w.len, w.text);
        ck_assert(!agrees(w.text, rng_below(&w.rng, (uint32_t)w.len))); /* cut: never whole */
        for (int damage = 0; damage < 8; damage++) {
            size_t at = rng_below(&w.rng, (uint32_t)w.len);
            char kept = w.text[at];
            w.text[at] = damage % 2 == 0 ? odd[rng_below(&w.rng, sizeof(odd) - 1)]
                                         : (char)(kept ^ (1 << rng_below(&w.rng, 8)));
            (void)agrees(w.text, w.len);
            w.text[at] = kept;
        }
    }
}
END_TEST

/* A character that must not be there is found at any place of a string. */
START_TEST(every_place)
{
    static const char odd[] = {'\x01', '\x1f', '\x80', '\xff', '"', '\\'};
    for (size_t at = 2; at < 40; at++) {
        for (size_t i = 0; i < sizeof(odd); i++) {
            char text[] = "[\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnop\"]";
            text[at] = odd[i];
            (void)agrees_text(text);
            ck_assert(odd[i] == '\\' || !agrees_text(text));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_read");
    TCase *tc = tcase_create("json_read");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, taken);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, not_sure);
    tcase_add_test(tc, every_place);
    tcase_add_loop_test(tc, random_texts, 0, 4);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
