/* SPDX-License-Identifier: Apache-2.0 */
/* The prefix cache: pages.h says which pages there are, exec_place() lends them to slots. A request
 * gets all pages that its prompt and its longest answer can need before it begins, so that none
 * ever has to give way in the middle. */
#include <errno.h>

#include "kernels/engine/engine_impl.h"

static uint32_t *table_of(const struct engine *e, const struct request *r)
{
    return e->tables + (size_t)r->slot * e->table_stride;
}

/* Whole pages before the last token, whose logits are always wanted. */
static uint32_t pages_before(uint32_t count)
{
    return (count - 1) / EXEC_PAGE_TOKENS;
}

/* An embedding wants the states of all its tokens. */
static bool may_reuse(const struct request *r)
{
    return r->embed != ENGINE_EMBED_MEAN;
}

uint32_t cache_find(const struct engine *e, const uint32_t *tokens, uint32_t count)
{
    if (!e->pool)
        return 0;
    return page_pool_find(e->pool, tokens, pages_before(count)) * EXEC_PAGE_TOKENS;
}

int cache_begin(struct engine *e, struct request *r)
{
    if (!e->pool)
        return 0;
    uint32_t *table = table_of(e, r);
    const uint32_t positions = r->prompt_count + r->max_tokens;
    const uint32_t wanted = (positions + EXEC_PAGE_TOKENS - 1) / EXEC_PAGE_TOKENS;
    uint32_t matched = 0;
    if (may_reuse(r))
        matched = page_pool_match(e->pool, r->tokens, pages_before(r->given_count), table);
    if (page_pool_take(e->pool, wanted - matched, table + matched)) {
        page_pool_release(e->pool, table, matched);
        return -ENOSPC;
    }
    const int rc = exec_place(e->exec, r->slot, table, wanted, matched * EXEC_PAGE_TOKENS);
    if (rc) {
        page_pool_release(e->pool, table, wanted);
        return rc;
    }
    e->looked_tokens += may_reuse(r) ? r->given_count : 0;
    e->found_tokens += (uint64_t)matched * EXEC_PAGE_TOKENS;
    r->pages = wanted;
    r->sealed = matched;
    r->cached_count = r->done_count = matched * EXEC_PAGE_TOKENS;
    return 0;
}

void cache_advance(struct engine *e, struct request *r)
{
    if (!e->pool)
        return;
    uint32_t *table = table_of(e, r);
    /* The last token of an answer is put into the cache by the step that asks what follows it. */
    const uint32_t filled = r->state == PREFILL ? r->done_count : r->prompt_count + r->new_count;
    bool changed = false;
    for (; (r->sealed + 1) * EXEC_PAGE_TOKENS <= filled; r->sealed++) {
        const uint32_t i = r->sealed;
        const uint32_t page = page_pool_seal(e->pool, table[i], i ? table[i - 1] : PAGE_NONE,
                                             r->tokens + (size_t)i * EXEC_PAGE_TOKENS);
        changed = changed || page != table[i];
        table[i] = page;
    }
    /* Another request has computed the same: the same bits, wherever they lie. */
    if (changed)
        (void)exec_place(e->exec, r->slot, table, r->pages, filled);
}

void cache_end(struct engine *e, struct request *r)
{
    if (e->pool)
        page_pool_release(e->pool, table_of(e, r), r->pages);
    r->pages = 0;
}
