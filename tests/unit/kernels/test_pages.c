/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of paged KV: kernels/engine/pages.c against a naive model that keeps whole prompts, and the
 * CPU backend with pages in any order, shared or its own: the same bits. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/engine/pages.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define P       EXEC_PAGE_TOKENS
#define POOL    24u
#define HOLDERS 6u
#define PAGES   8u /* of a holder at most */
#define STEPS   60000u
#define CONTEXT 96u

/* ---- the naive model ---- */

/* What a page stands for: every token up to its end. */
struct known {
    bool sealed;
    uint32_t pages; /* of the chain up to and with this one */
    uint32_t tokens[PAGES * P];
    uint64_t let_go; /* when the last reference went */
};

struct holder {
    uint32_t count;  /* pages held */
    uint32_t sealed; /* of those */
    uint32_t pages[PAGES];
    uint32_t tokens[PAGES * P];
};

static struct known known[POOL];
static struct holder holders[HOLDERS];
static uint64_t clock_now;

static uint32_t refs_of(uint32_t page)
{
    uint32_t refs = 0;
    for (size_t h = 0; h < HOLDERS; h++)
        for (uint32_t i = 0; i < holders[h].count; i++)
            refs += holders[h].pages[i] == page;
    return refs;
}

/* The sealed page that stands for the first `pages` pages of these tokens. */
static uint32_t page_for(const uint32_t *tokens, uint32_t pages)
{
    for (uint32_t p = 0; p < POOL; p++)
        if (known[p].sealed && known[p].pages == pages &&
            memcmp(known[p].tokens, tokens, pages * P * sizeof(*tokens)) == 0)
            return p;
    return PAGE_NONE;
}

static uint32_t chain_for(const uint32_t *tokens, uint32_t max)
{
    uint32_t count = 0;
    while (count < max && page_for(tokens, count + 1) != PAGE_NONE)
        count++;
    return count;
}

/* ---- steps ---- */

/* Few beginnings, so that they are shared. */
static void random_tokens(uint64_t *rng, uint32_t *tokens)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        const uint32_t kind = (uint32_t)(tiny_random(rng) % 3);
        for (uint32_t j = 0; j < P; j++)
            tokens[i * P + j] = kind * 100 + j;
    }
}

static void begin(struct page_pool *pool, struct holder *h, uint64_t *rng)
{
    uint32_t got[PAGES];
    const uint32_t wanted = 1 + (uint32_t)(tiny_random(rng) % PAGES);
    random_tokens(rng, h->tokens);
    const uint32_t max = wanted - (tiny_random(rng) % 2 ? 1 : 0);
    const uint32_t expected = chain_for(h->tokens, max);
    ck_assert_uint_eq(page_pool_find(pool, h->tokens, max), expected);
    const uint32_t matched = page_pool_match(pool, h->tokens, max, got);
    ck_assert_uint_eq(matched, expected);
    for (uint32_t i = 0; i < matched; i++) {
        ck_assert_uint_eq(got[i], page_for(h->tokens, i + 1));
        h->pages[h->count++] = got[i];
    }
    h->sealed = matched;
    uint32_t kept = 0;
    uint32_t free_pages = 0;
    for (uint32_t p = 0; p < POOL; p++) {
        kept += refs_of(p) == 0 && known[p].sealed;
        free_pages += refs_of(p) == 0 && !known[p].sealed;
    }
    const uint32_t more = wanted - matched;
    const int rc = page_pool_take(pool, more, got);
    ck_assert_int_eq(rc, more > kept + free_pages ? -ENOSPC : 0);
    if (rc) {
        page_pool_release(pool, h->pages, h->count);
        for (uint32_t i = h->count; i-- > 0;) {
            const uint32_t page = h->pages[i];
            h->count--;
            if (refs_of(page) == 0)
                known[page].let_go = ++clock_now;
        }
        h->sealed = 0;
        return;
    }
    for (uint32_t i = 0; i < more; i++) {
        ck_assert_uint_lt(got[i], POOL);
        ck_assert_uint_eq(refs_of(got[i]), 0);
        if (known[got[i]].sealed) {
            ck_assert_uint_le(free_pages, i);   /* only when nothing is free ... */
            for (uint32_t p = 0; p < POOL; p++) /* ... and the one let go first */
                ck_assert(!known[p].sealed || refs_of(p) ||
                          known[p].let_go >= known[got[i]].let_go);
        }
        known[got[i]].sealed = false;
        h->pages[h->count++] = got[i];
    }
}

static void seal(struct page_pool *pool, struct holder *h)
{
    const uint32_t i = h->sealed;
    const uint32_t page = h->pages[i];
    const uint32_t same = page_for(h->tokens, i + 1);
    const uint32_t got =
        page_pool_seal(pool, page, i ? h->pages[i - 1] : PAGE_NONE, h->tokens + i * P);
    ck_assert_uint_eq(got, same == PAGE_NONE ? page : same);
    h->pages[h->sealed++] = got;
    if (same != PAGE_NONE)
        return;
    known[page].sealed = true;
    known[page].pages = i + 1;
    memcpy(known[page].tokens, h->tokens, (i + 1) * P * sizeof(uint32_t));
}

static void end(struct page_pool *pool, struct holder *h)
{
    page_pool_release(pool, h->pages, h->count);
    while (h->count > 0) {
        const uint32_t page = h->pages[--h->count];
        if (refs_of(page) == 0)
            known[page].let_go = ++clock_now;
    }
    h->sealed = 0;
}

static void check_stats(const struct page_pool *pool)
{
    uint32_t held = 0;
    uint32_t kept = 0;
    for (uint32_t p = 0; p < POOL; p++) {
        held += refs_of(p) > 0;
        kept += refs_of(p) == 0 && known[p].sealed;
        if (known[p].sealed && known[p].pages > 1) /* no page outlives the one before it */
            ck_assert_uint_ne(page_for(known[p].tokens, known[p].pages - 1), PAGE_NONE);
    }
    const struct page_pool_stats s = page_pool_stats(pool);
    ck_assert_uint_eq(s.held, held);
    ck_assert_uint_eq(s.kept, kept);
    ck_assert_uint_eq(s.pages, POOL);
}

START_TEST(test_against_model)
{
    struct page_pool *pool;
    uint64_t rng = (uint64_t)_i + 1;
    memset(known, 0, sizeof(known));
    memset(holders, 0, sizeof(holders));
    ck_assert_int_eq(page_pool_create(&pool, POOL, rng), 0);
    for (unsigned step = 0; step < STEPS; step++) {
        struct holder *h = &holders[tiny_random(&rng) % HOLDERS];
        if (h->count == 0)
            begin(pool, h, &rng);
        else if (h->sealed < h->count && tiny_random(&rng) % 3)
            seal(pool, h);
        else if (tiny_random(&rng) % 2)
            end(pool, h);
        if (step % 16 == 0)
            check_stats(pool);
    }
    const struct page_pool_stats s = page_pool_stats(pool);
    ck_assert(s.reused > STEPS / 20 && s.evicted > STEPS / 100);
    page_pool_destroy(pool);
}
END_TEST

/* ---- the backend ---- */

static struct model *model_make(uint8_t **data)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    *data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, *data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    return model;
}

static void run_row(exec_t *exec, uint32_t slot, uint32_t position, float *logits)
{
    const struct exec_row row = {slot, position, (position * 7 + 3) % 256, true, false};
    ck_assert_int_eq(exec_forward(exec, &row, 1, logits, NULL), 0);
}

START_TEST(test_paged_is_contiguous)
{
    uint8_t *data;
    struct model *model = model_make(&data);
    for (int exact = 0; exact < 2; exact++) {
        const struct cpu_options options = {
            .slots = 3, .context = CONTEXT, .exact = exact != 0, .threads = 1};
        float plain[TINY_VOCAB];
        float paged[TINY_VOCAB];
        float shared[TINY_VOCAB];
        exec_t *exec;
        struct exec_info info;
        ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
        exec_info(exec, &info);
        ck_assert_uint_eq(info.pages, 3 * CONTEXT / P);
        static const uint32_t far[] = {17, 6, 12, 8, 16, 7};
        static const uint32_t fork[] = {17, 6, 12, 9, 10, 11};
        ck_assert_int_eq(exec_place(exec, 1, far, 6, 0), 0);
        for (uint32_t p = 0; p < CONTEXT; p++) {
            run_row(exec, 0, p, plain);
            run_row(exec, 1, p, paged);
            ck_assert_mem_eq(plain, paged, sizeof(plain));
            if (p < 3 * P - 1)
                continue;
            if (p == 3 * P - 1) { /* what slot 1 has computed in three pages counts for slot 2 */
                ck_assert_int_eq(exec_place(exec, 2, fork, 6, 3 * P), 0);
                continue;
            }
            run_row(exec, 2, p, shared);
            ck_assert_mem_eq(plain, shared, sizeof(plain));
        }
        const struct exec_row beyond = {2, 2 * P, 1, true, false};
        static const uint32_t absent[] = {18};
        ck_assert_int_eq(exec_place(exec, 2, fork, 2, 0), 0);
        ck_assert_int_eq(exec_forward(exec, &beyond, 1, plain, NULL), -EINVAL);
        ck_assert_int_eq(exec_place(exec, 3, fork, 2, 0), -EINVAL);
        ck_assert_int_eq(exec_place(exec, 2, absent, 1, 0), -EINVAL);
        ck_assert_int_eq(exec_place(exec, 2, fork, 2, 2 * P + 1), -EINVAL);
        ck_assert_int_eq(exec_place(exec, 2, fork, 7, 0), -EINVAL);
        exec_destroy(exec);
    }
    model_destroy(model);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pages");
    TCase *tcase = tcase_create("core");
    tcase_add_loop_test(tcase, test_against_model, 0, 3);
    tcase_add_test(tcase, test_paged_is_contiguous);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
