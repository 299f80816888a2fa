/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of text to tokens and back, with a vocabulary and without. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/upstream/text.h"
#include "schemas/base/rng.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define TOKENS_MAX 8192u
#define ROUNDS     300u
#define PIECE_MAX  3000u

static char path[] = "/tmp/weft-test-text-XXXXXX";

struct said {
    uint32_t tokens[TOKENS_MAX];
    size_t count;
    char text[TOKENS_MAX];
    size_t len;
    int stop_at;
};

static struct said said;

static int take(uint32_t token, const char *bytes, size_t len, void *user)
{
    struct said *s = user;
    s->tokens[s->count++] = token;
    memcpy(s->text + s->len, bytes, len);
    s->len += len;
    return (int)s->count == s->stop_at ? -7 : 0;
}

static void write_model(void)
{
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
}

static void remove_model(void)
{
    unlink(path);
}

START_TEST(with_a_vocabulary)
{
    static const char *const pieces[] = {
        "hello", " ", "wor", "ld", "\xc3\xa9", "\n", "\xe6\x9d\xb1", "<|im_end|>", "x"};
    struct text text;
    struct rng rng = {9};
    char why[128] = "";
    ck_assert_msg(text_open(&text, path, why, sizeof(why)) == 0, "%s", why);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        char piece[PIECE_MAX] = "", whole[PIECE_MAX] = "";
        uint32_t count = 0;
        memset(&said, 0, sizeof(said));
        for (uint32_t i = rng_below(&rng, 9); i; i--) {
            piece[0] = 0;
            for (uint32_t j = rng_below(&rng, 30); j; j--)
                strcat(piece, pieces[rng_below(&rng, sizeof(pieces) / sizeof(pieces[0]))]);
            strcat(whole, piece);
            ck_assert_int_eq(text_tokens(&text, piece, strlen(piece), &count, take, &said), 0);
        }
        ck_assert_uint_eq(count, said.count);
        ck_assert_uint_eq(said.len, strlen(whole));
        ck_assert_int_eq(memcmp(said.text, whole, said.len), 0);
        said.tokens[said.count++] = TEXT_EMPTY;
        size_t len, begun;
        char *back = text_of(&text, said.tokens, said.count, &len, &begun);
        ck_assert_ptr_nonnull(back);
        ck_assert_str_eq(back, whole);
        ck_assert_uint_eq(len, strlen(whole));
        ck_assert_uint_eq(begun, 0);
        free(back);
    }
    text_close(&text);
}
END_TEST

START_TEST(ends_inside_a_character)
{
    struct text text;
    uint32_t count = 0;
    size_t len, begun;
    ck_assert_int_eq(text_open(&text, path, NULL, 0), 0);
    memset(&said, 0, sizeof(said));
    /* Nothing in the tiny vocabulary joins these bytes: one token each. */
    ck_assert_int_eq(text_tokens(&text, "\xf0\x9f\x98\x80", 4, &count, take, &said), 0);
    ck_assert_uint_gt(said.count, 1);
    for (size_t i = 0; i <= said.count; i++) {
        char *back = text_of(&text, said.tokens, i, &len, &begun);
        ck_assert_ptr_nonnull(back);
        ck_assert_uint_eq(begun, len % 4);
        free(back);
    }
    /* The end of a character without its beginning. */
    ck_assert_ptr_null(text_of(&text, said.tokens + 1, said.count - 1, &len, &begun));
    const uint32_t foreign[] = {said.tokens[0], TEXT_MARK | 1};
    ck_assert_ptr_null(text_of(&text, foreign, 2, &len, &begun));
    text_close(&text);
}
END_TEST

START_TEST(without)
{
    struct text text;
    uint32_t count = 5; /* some were resumed */
    size_t len, begun;
    ck_assert_int_eq(text_open(&text, NULL, NULL, 0), 0);
    memset(&said, 0, sizeof(said));
    ck_assert_int_eq(text_tokens(&text, "Hello", 5, &count, take, &said), 0);
    ck_assert_int_eq(text_tokens(&text, " you", 4, &count, take, &said), 0);
    ck_assert_uint_eq(said.count, 2);
    ck_assert_uint_eq(said.tokens[0], TEXT_MARK | 5);
    ck_assert_uint_eq(said.tokens[1], TEXT_MARK | 6);
    ck_assert_uint_eq(count, 7);
    ck_assert_ptr_null(text_of(&text, said.tokens, 2, &len, &begun));
    const uint32_t real[] = {17};
    ck_assert_ptr_null(text_of(&text, real, 1, &len, &begun));
    said.stop_at = 3;
    ck_assert_int_eq(text_tokens(&text, "!", 1, &count, take, &said), -7);
    text_close(&text);
}
END_TEST

START_TEST(no_file)
{
    struct text text;
    char why[128] = "";
    ck_assert_int_ne(text_open(&text, "/nowhere/at/all", why, sizeof(why)), 0);
    ck_assert(why[0] != 0);
    text_close(&text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_text");
    TCase *tests = tcase_create("text");
    tcase_add_unchecked_fixture(tests, write_model, remove_model);
    tcase_add_test(tests, with_a_vocabulary);
    tcase_add_test(tests, ends_inside_a_character);
    tcase_add_test(tests, without);
    tcase_add_test(tests, no_file);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
