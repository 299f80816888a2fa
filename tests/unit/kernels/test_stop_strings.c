/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/model/stop.c: random texts and strings over few letters, in random pieces,
 * against a search through the whole text. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/stop.h"
#include "stop_oracle.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define ROUNDS   20000u
#define TEXT_MAX 60u

static size_t random_text(uint64_t *rng, char *out, size_t max)
{
    const size_t len = tiny_random(rng) % (max + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = "aab"[tiny_random(rng) % 3];
    return len;
}

/* What a piece lets out. */
static size_t feed(const struct stop_set *set, struct stop_state *state, const char *bytes,
                   size_t len, char *out)
{
    char all[STOP_BYTES_MAX + TEXT_MAX];
    const size_t held = state->held_len;
    memcpy(all, state->held, held);
    memcpy(all + held, bytes, len);
    const size_t certain = stop_feed(set, state, bytes, len);
    ck_assert_uint_le(certain, held + len);
    if (!state->ended) {
        ck_assert_uint_eq(certain + state->held_len, held + len);
        ck_assert_mem_eq(state->held, all + certain, state->held_len);
    }
    memcpy(out, all, certain);
    return certain;
}

START_TEST(test_against_search)
{
    uint64_t rng = 12;
    unsigned hits = 0;
    for (unsigned n = 0; n < ROUNDS; n++) {
        char strings[STOP_STRINGS_MAX][8];
        char text[TEXT_MAX];
        char got[TEXT_MAX + STOP_BYTES_MAX];
        struct stop_set set = {.count = 0};
        struct stop_state state = {.held_len = 0};
        const size_t wanted = tiny_random(&rng) % 4;
        for (size_t i = 0; i < wanted; i++) {
            const size_t len = 1 + random_text(&rng, strings[i], 6);
            strings[i][len - 1] = 'b';
            ck_assert_int_eq(stop_add(&set, (struct gguf_str){strings[i], len}), 0);
        }
        const size_t len = random_text(&rng, text, TEXT_MAX);
        bool found;
        const size_t cut = stop_oracle(&set, text, len, &found);
        size_t count = 0;
        for (size_t at = 0; at < len;) {
            size_t piece = tiny_random(&rng) % 5;
            piece = piece < len - at ? piece : len - at;
            count += feed(&set, &state, text + at, piece, got + count);
            at += piece;
        }
        ck_assert_int_eq(state.ended, found);
        if (!found) {
            memcpy(got + count, state.held, state.held_len);
            count += state.held_len;
        }
        ck_assert_uint_eq(count, cut);
        ck_assert_mem_eq(got, text, cut);
        hits += found;
    }
    ck_assert(hits > ROUNDS / 4 && hits < ROUNDS);
}
END_TEST

START_TEST(test_limits)
{
    static const char longest[STOP_BYTES_MAX + 1];
    struct stop_set set = {.count = 0};
    struct stop_state state = {.held_len = 0};
    ck_assert_int_eq(stop_add(&set, (struct gguf_str){"", 0}), -EINVAL);
    ck_assert_int_eq(stop_add(&set, (struct gguf_str){longest, sizeof(longest)}), -EINVAL);
    for (size_t i = 0; i < STOP_STRINGS_MAX; i++)
        ck_assert_int_eq(stop_add(&set, (struct gguf_str){longest, STOP_BYTES_MAX}), 0);
    ck_assert_int_eq(stop_add(&set, (struct gguf_str){longest, 1}), -EINVAL);
    ck_assert_uint_eq(stop_feed(&set, &state, longest, STOP_BYTES_MAX - 1), 0);
    ck_assert_uint_eq(stop_feed(&set, &state, longest, 1), 0);
    ck_assert(state.ended && state.held_len == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stop_strings");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, test_against_search);
    tcase_add_test(tcase, test_limits);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
