/* SPDX-License-Identifier: Apache-2.0 */
/* The prefix cache to outside and back: pages.h says what the pages stand for,
 * exec.h what is in them, moved.h how that looks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/engine/engine_impl.h"
#include "kernels/engine/moved.h"

static struct moved_head head_of(const struct engine *e, uint64_t model, uint32_t pages)
{
    return (struct moved_head){
        .magic = MOVED_MAGIC,
        .version = MOVED_VERSION,
        .page_tokens = EXEC_PAGE_TOKENS,
        .model = model,
        .page_bytes = e->info.page_bytes,
        .vocab = e->info.vocab,
        .pages = pages,
    };
}

static int may_move(const struct engine *e)
{
    if (!e->pool || e->info.page_bytes == 0 || !e->exec->ops->page_out || !e->exec->ops->page_in)
        return -ENOTSUP;
    return e->batch.rows ? -EBUSY : 0;
}

/* Sealed pages, each behind its parent: `order` gets their numbers, `place`
 * where each is. */
static uint32_t sort_pages(const struct engine *e, uint32_t *order, uint32_t *place)
{
    uint32_t count = 0;
    uint32_t before;
    for (uint32_t i = 0; i < e->info.pages; i++)
        place[i] = PAGE_NONE;
    do { /* as often as the longest chain has pages */
        before = count;
        for (uint32_t i = 0; i < e->info.pages; i++) {
            uint32_t parent;
            const uint32_t *tokens;
            if (place[i] != PAGE_NONE || !page_pool_look(e->pool, i, &parent, &tokens) ||
                (parent != PAGE_NONE && place[parent] == PAGE_NONE))
                continue;
            place[i] = count;
            order[count++] = i;
        }
    } while (count > before);
    return count;
}

static int write_page(struct engine *e, uint32_t page, const uint32_t *place, void *bytes,
                      engine_sink_fn sink, void *user)
{
    struct moved_page head;
    uint32_t parent;
    const uint32_t *tokens;
    (void)page_pool_look(e->pool, page, &parent, &tokens);
    head.parent = parent == PAGE_NONE ? MOVED_NONE : place[parent];
    memcpy(head.tokens, tokens, sizeof(head.tokens));
    int rc = exec_page_out(e->exec, page, bytes);
    moved_page_seal(&head, bytes, e->info.page_bytes);
    if (rc == 0)
        rc = sink(user, &head, sizeof(head));
    return rc ? rc : sink(user, bytes, e->info.page_bytes);
}

int engine_export(engine_t *engine, uint64_t model, engine_sink_fn sink, void *user)
{
    int rc = may_move(engine);
    if (rc)
        return rc;
    uint32_t *order = malloc(engine->info.pages * sizeof(*order));
    uint32_t *place = malloc(engine->info.pages * sizeof(*place));
    void *bytes = malloc(engine->info.page_bytes);
    uint32_t count = 0;
    if (!order || !place || !bytes) {
        rc = -ENOMEM;
    } else {
        count = sort_pages(engine, order, place);
        struct moved_head head = head_of(engine, model, count);
        moved_head_seal(&head);
        rc = sink(user, &head, sizeof(head));
    }
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = write_page(engine, order[i], place, bytes, sink, user);
    free(order);
    free(place);
    free(bytes);
    return rc ? rc : (int)count;
}

/* One page of many; `pages` are those that have come before, PAGE_NONE where
 * there was no room. */
static int take_page(struct engine *e, const void *data, const struct moved_head *head,
                     uint32_t index, uint32_t *pages)
{
    struct moved_page page;
    const uint8_t *bytes = moved_page_at(data, head, index, &page);
    const uint32_t parent = page.parent == MOVED_NONE ? PAGE_NONE : pages[page.parent];
    pages[index] = PAGE_NONE;
    if ((page.parent != MOVED_NONE && parent == PAGE_NONE) ||
        page_pool_take_free(e->pool, &pages[index]))
        return 0;
    const int rc = exec_page_in(e->exec, pages[index], bytes);
    if (rc) {
        page_pool_release(e->pool, &pages[index], 1);
        pages[index] = PAGE_NONE;
        return rc;
    }
    pages[index] = page_pool_seal(e->pool, pages[index], parent, page.tokens);
    return 0;
}

int engine_import(engine_t *engine, uint64_t model, const void *data, size_t size)
{
    struct moved_head head;
    const struct moved_head expected = head_of(engine, model, 0);
    int rc = may_move(engine);
    if (rc == 0)
        rc = moved_check(data, size, &expected, &head);
    if (rc)
        return rc;
    uint32_t *pages = malloc((head.pages ? head.pages : 1) * sizeof(*pages));
    if (!pages)
        return -ENOMEM;
    uint32_t seen = 0;
    int count = 0;
    for (; rc == 0 && seen < head.pages; seen++)
        rc = take_page(engine, data, &head, seen, pages);
    /* Held until here, so that none could go for another. Chains end first. */
    while (seen-- > 0) {
        if (pages[seen] == PAGE_NONE)
            continue;
        page_pool_release(engine->pool, &pages[seen], 1);
        count++;
    }
    free(pages);
    return rc ? rc : count;
}

/* ---- one session's pages ---- */

size_t engine_page_bytes(const engine_t *engine)
{
    return may_move(engine) == -ENOTSUP ? 0 : engine->info.page_bytes;
}

uint32_t engine_chain_most(uint32_t count)
{
    return count ? (count - 1) / EXEC_PAGE_TOKENS : 0;
}

uint32_t engine_chain_known(const engine_t *engine, const uint32_t *tokens, uint32_t count)
{
    return engine->pool ? page_pool_find(engine->pool, tokens, engine_chain_most(count)) : 0;
}

uint32_t engine_chain_hold(engine_t *engine, const uint32_t *tokens, uint32_t count,
                           uint32_t *pages)
{
    return engine->pool ? page_pool_match(engine->pool, tokens, engine_chain_most(count), pages)
                        : 0;
}

/* Has the backend lost what it held (fail_all()) since it was found or put here? */
static bool is_lost(const struct engine *e, uint32_t page)
{
    uint32_t parent;
    const uint32_t *tokens;
    return !page_pool_look(e->pool, page, &parent, &tokens);
}

int engine_chain_read(engine_t *engine, uint32_t page, void *out)
{
    const int rc = may_move(engine);
    if (rc)
        return rc;
    return is_lost(engine, page) ? -ESTALE : exec_page_out(engine->exec, page, out);
}

int engine_chain_put(engine_t *engine, const uint32_t *tokens, uint32_t index, uint32_t *pages,
                     const void *bytes)
{
    int rc = may_move(engine);
    if (rc)
        return rc;
    const uint32_t *own = tokens + (size_t)index * EXEC_PAGE_TOKENS;
    for (size_t i = 0; i < EXEC_PAGE_TOKENS; i++)
        if (own[i] >= engine->info.vocab)
            return -EINVAL;
    if (index && is_lost(engine, pages[index - 1]))
        return -ESTALE;
    if (page_pool_take(engine->pool, 1, &pages[index]))
        return -ENOSPC;
    rc = exec_page_in(engine->exec, pages[index], bytes);
    if (rc) {
        page_pool_release(engine->pool, &pages[index], 1);
        return rc;
    }
    pages[index] =
        page_pool_seal(engine->pool, pages[index], index ? pages[index - 1] : PAGE_NONE, own);
    return 0;
}

void engine_chain_drop(engine_t *engine, const uint32_t *pages, uint32_t count)
{
    if (count)
        page_pool_release(engine->pool, pages, count);
}
