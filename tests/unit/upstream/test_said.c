/* SPDX-License-Identifier: Apache-2.0 */
/* Text given out piece by piece with stop strings: however it is cut and wherever it is resumed,
 * the same bytes come out as a search in the whole text leaves. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/upstream/said.h"
#include "schemas/base/rng.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define ROUNDS   3000u
#define TEXT_MAX 400u

static char path[] = "/tmp/weft-test-said-XXXXXX";
static struct text with, without;

struct heard {
    uint32_t tokens[2 * TEXT_MAX];
    size_t count;
    char text[2 * TEXT_MAX];
    size_t len;
};

static int hear(uint32_t token, const char *bytes, size_t len, void *user)
{
    struct heard *heard = user;
    heard->tokens[heard->count++] = token;
    memcpy(heard->text + heard->len, bytes, len);
    heard->len += len;
    return 0;
}

static void setup(void)
{
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    ck_assert_int_eq(text_open(&with, path, NULL, 0), 0);
    ck_assert_int_eq(text_open(&without, NULL, NULL, 0), 0);
}

static void teardown(void)
{
    text_close(&with);
    unlink(path);
}

/* Bytes before the stop string that is complete first; of several, the longest. */
static size_t oracle(const char *text, size_t len, const weft_job_part_t *stops, size_t count,
                     bool *found)
{
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < count; i++)
            if (stops[i].len <= end && stops[i].len > longest &&
                memcmp(text + end - stops[i].len, stops[i].text, stops[i].len) == 0)
                longest = stops[i].len;
        if (longest) {
            *found = true;
            return end - longest;
        }
    }
    *found = false;
    return len;
}

/* Gives `text` from `at` on, in random pieces; stops before `until` at the latest. */
static int feed(struct said *said, struct rng *rng, const char *text, size_t at, size_t until,
                struct heard *heard)
{
    int rc = 0;
    while (rc == 0 && at < until) {
        size_t part = 1 + rng_below(rng, 12);
        part = part < until - at ? part : until - at;
        rc = said_add(said, text + at, part, hear, heard);
        at += part;
    }
    return rc;
}

static const weft_job_part_t stops[] = {{0, "aab", 3}, {0, "ba", 2}, {0, "bbbb", 4}};

START_TEST(like_the_oracle)
{
    struct rng rng = {21};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        char text[TEXT_MAX];
        const size_t len = rng_below(&rng, 40);
        for (size_t i = 0; i < len; i++)
            text[i] = rng_below(&rng, 3) ? 'a' : 'b';
        weft_job_view_t view = {.stops = stops, .stop_count = 1 + rng_below(&rng, 3)};
        bool found;
        const size_t wanted = oracle(text, len, stops, view.stop_count, &found);
        struct said said;
        struct heard heard = {.len = 0};
        ck_assert_int_eq(said_init(&said, &with, &view, true), 0);
        /* The first attempt breaks off at `cut`; the second one has nothing but its tokens. */
        const size_t cut = rng_below(&rng, (uint32_t)len + 1);
        int rc = feed(&said, &rng, text, 0, cut, &heard);
        if (rc == 0) {
            struct said next;
            view.resume = heard.tokens;
            view.resume_count = heard.count;
            ck_assert_int_eq(said_init(&next, &with, &view, true), 0);
            ck_assert_uint_eq(next.count, heard.count);
            ck_assert_uint_eq(next.len, heard.len);
            rc = feed(&next, &rng, text, heard.len, len, &heard);
            said_deinit(&said);
            said = next;
        }
        ck_assert_int_eq(rc, found ? -ECANCELED : 0);
        ck_assert_int_eq(said_stopped(&said), found);
        size_t tail_len;
        const char *tail = said_tail(&said, &tail_len);
        memcpy(heard.text + heard.len, tail, tail_len);
        ck_assert_uint_eq(heard.len + tail_len, wanted);
        ck_assert_int_eq(memcmp(heard.text, text, wanted), 0);
        ck_assert_uint_eq(said.count, heard.count);
        said_deinit(&said);
    }
}
END_TEST

/* Cut behind any token, also inside a character: who goes on sends whole characters only. */
START_TEST(inside_characters)
{
    static const char text[] = "\xc3\xa9 \xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x98\x80!\xc3\xbc";
    const size_t len = sizeof(text) - 1;
    struct heard whole = {.len = 0};
    struct said said;
    weft_job_view_t view = {.max_tokens = 99};
    ck_assert_int_eq(said_init(&said, &with, &view, true), 0);
    ck_assert_int_eq(said_add(&said, text, len, hear, &whole), 0);
    said_deinit(&said);
    for (size_t count = 1; count <= whole.count; count++) {
        struct heard heard = {.len = 0};
        view.resume = whole.tokens;
        view.resume_count = count;
        ck_assert_int_eq(said_init(&said, &with, &view, true), 0);
        const size_t had = said.len + said.begun_len;
        ck_assert((text[said.len] & 0xc0) != 0x80); /* a boundary */
        ck_assert_int_eq(said_add(&said, text + said.len, len - said.len, hear, &heard), 0);
        ck_assert_uint_eq(heard.len, len - had);
        ck_assert_int_eq(memcmp(heard.text, text + had, heard.len), 0);
        ck_assert(said.len == len && memcmp(said.bytes, text, len) == 0);
        said_deinit(&said);
        if (said_init(&said, &with, &view, true) == 0 && said.begun_len)
            ck_assert_int_eq(said_add(&said, "x", 1, hear, &heard), -EILSEQ);
        said_deinit(&said);
    }
}
END_TEST

START_TEST(resumed_behind_nothing)
{
    const uint32_t marks[] = {TEXT_MARK | 0, TEXT_MARK | 1};
    const uint32_t ids[] = {5};
    struct said said;
    weft_job_view_t view = {.resume = marks, .resume_count = 2, .max_tokens = 9};
    ck_assert_int_eq(said_init(&said, &with, &view, true), WEFT_E_NO_CAPABLE_NODE);
    said_deinit(&said);
    ck_assert_int_eq(said_init(&said, &without, &view, true), WEFT_E_NO_CAPABLE_NODE);
    said_deinit(&said);
    view.resume = ids;
    view.resume_count = 1;
    ck_assert_int_eq(said_init(&said, &with, &view, false), WEFT_E_NO_CAPABLE_NODE);
    said_deinit(&said);
    ck_assert_int_eq(said_init(&said, &with, &view, true), 0);
    said_deinit(&said);
    const weft_job_part_t empty[] = {{0, "", 0}};
    view = (weft_job_view_t){.stops = empty, .stop_count = 1};
    ck_assert_int_eq(said_init(&said, &with, &view, true), WEFT_E_BAD_REQUEST);
    said_deinit(&said);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_said");
    TCase *tests = tcase_create("said");
    tcase_add_unchecked_fixture(tests, setup, teardown);
    tcase_add_test(tests, like_the_oracle);
    tcase_add_test(tests, inside_characters);
    tcase_add_test(tests, resumed_behind_nothing);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
