/* SPDX-License-Identifier: Apache-2.0 */
/* See pages.h. A page is in one of three places: free list, list of the kept (oldest first), or
 * held. Sealed ones are in a bucket of the hash table besides. */
#include "kernels/engine/pages.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct page {
    uint32_t refs;
    bool sealed;
    uint32_t parent;
    uint32_t next; /* in the bucket, or in the free list */
    uint32_t older;
    uint32_t newer;
    uint64_t hash; /* of the chain up to here */
    uint32_t tokens[EXEC_PAGE_TOKENS];
};

struct page_pool {
    uint32_t count;
    uint32_t mask; /* of buckets */
    uint64_t seed;
    struct page *pages;
    uint32_t *buckets;
    uint32_t free;
    uint32_t oldest;
    uint32_t newest;
    uint32_t free_count;
    uint32_t kept;
    uint64_t reused;
    uint64_t evicted;
};

int page_pool_create(struct page_pool **out, uint32_t count, uint64_t seed)
{
    uint32_t buckets = 1;
    *out = NULL;
    if (count == 0 || count >= UINT32_MAX / 2)
        return -EINVAL;
    while (buckets < count)
        buckets *= 2;
    struct page_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->pages = calloc(count, sizeof(*pool->pages));
    pool->buckets = malloc(buckets * sizeof(*pool->buckets));
    if (!pool->pages || !pool->buckets) {
        page_pool_destroy(pool);
        return -ENOMEM;
    }
    pool->count = pool->free_count = count;
    pool->mask = buckets - 1;
    pool->seed = seed;
    pool->oldest = pool->newest = PAGE_NONE;
    for (uint32_t i = 0; i < buckets; i++)
        pool->buckets[i] = PAGE_NONE;
    for (uint32_t i = 0; i < count; i++)
        pool->pages[i].next = i + 1 < count ? i + 1 : PAGE_NONE;
    *out = pool;
    return 0;
}

void page_pool_destroy(struct page_pool *pool)
{
    if (!pool)
        return;
    free(pool->pages);
    free(pool->buckets);
    free(pool);
}

/* ---- finding ---- */

/* The finaliser of splitmix64 over everything before and the next token. */
static uint64_t mix(uint64_t hash, uint32_t token)
{
    uint64_t z = hash + 0x9e3779b97f4a7c15ull + token;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t chain_hash(const struct page_pool *pool, uint32_t parent, const uint32_t *tokens)
{
    uint64_t hash = parent == PAGE_NONE ? pool->seed : pool->pages[parent].hash;
    for (size_t i = 0; i < EXEC_PAGE_TOKENS; i++)
        hash = mix(hash, tokens[i]);
    return hash;
}

static uint32_t look_up(const struct page_pool *pool, uint32_t parent, const uint32_t *tokens)
{
    const uint64_t hash = chain_hash(pool, parent, tokens);
    uint32_t at = pool->buckets[hash & pool->mask];
    for (; at != PAGE_NONE; at = pool->pages[at].next) {
        const struct page *p = &pool->pages[at];
        if (p->hash == hash && p->parent == parent &&
            memcmp(p->tokens, tokens, sizeof(p->tokens)) == 0)
            return at;
    }
    return PAGE_NONE;
}

uint32_t page_pool_find(const struct page_pool *pool, const uint32_t *tokens, uint32_t max)
{
    uint32_t parent = PAGE_NONE;
    uint32_t count = 0;
    for (; count < max; count++) {
        const uint32_t page = look_up(pool, parent, tokens + (size_t)count * EXEC_PAGE_TOKENS);
        if (page == PAGE_NONE)
            break;
        parent = page;
    }
    return count;
}

/* ---- holding ---- */

static void kept_add(struct page_pool *pool, uint32_t page)
{
    struct page *p = &pool->pages[page];
    p->older = pool->newest;
    p->newer = PAGE_NONE;
    if (pool->newest != PAGE_NONE)
        pool->pages[pool->newest].newer = page;
    else
        pool->oldest = page;
    pool->newest = page;
    pool->kept++;
}

static void kept_remove(struct page_pool *pool, uint32_t page)
{
    const struct page *p = &pool->pages[page];
    if (p->older != PAGE_NONE)
        pool->pages[p->older].newer = p->newer;
    else
        pool->oldest = p->newer;
    if (p->newer != PAGE_NONE)
        pool->pages[p->newer].older = p->older;
    else
        pool->newest = p->older;
    pool->kept--;
}

static void hold(struct page_pool *pool, uint32_t page)
{
    if (pool->pages[page].refs++ == 0)
        kept_remove(pool, page);
}

static void free_add(struct page_pool *pool, uint32_t page)
{
    pool->pages[page].next = pool->free;
    pool->free = page;
    pool->free_count++;
}

static void let_go(struct page_pool *pool, uint32_t page)
{
    struct page *p = &pool->pages[page];
    if (--p->refs)
        return;
    if (p->sealed) {
        kept_add(pool, page);
        return;
    }
    free_add(pool, page);
}

uint32_t page_pool_match(struct page_pool *pool, const uint32_t *tokens, uint32_t max,
                         uint32_t *out)
{
    uint32_t parent = PAGE_NONE;
    uint32_t count = 0;
    for (; count < max; count++) {
        const uint32_t page = look_up(pool, parent, tokens + (size_t)count * EXEC_PAGE_TOKENS);
        if (page == PAGE_NONE)
            break;
        hold(pool, page);
        out[count] = parent = page;
    }
    pool->reused += count;
    return count;
}

/* Nobody finds the page any more. */
static void unseal(struct page_pool *pool, uint32_t page)
{
    struct page *p = &pool->pages[page];
    uint32_t *link = &pool->buckets[p->hash & pool->mask];
    while (*link != page)
        link = &pool->pages[*link].next;
    *link = p->next;
    p->sealed = false;
}

int page_pool_take(struct page_pool *pool, uint32_t count, uint32_t *out)
{
    if (count > pool->free_count + pool->kept)
        return -ENOSPC;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page = pool->free;
        if (page != PAGE_NONE) {
            pool->free = pool->pages[page].next;
            pool->free_count--;
        } else {
            page = pool->oldest;
            kept_remove(pool, page);
            unseal(pool, page);
            pool->evicted++;
        }
        pool->pages[page].refs = 1;
        out[i] = page;
    }
    return 0;
}

bool page_pool_look(const struct page_pool *pool, uint32_t page, uint32_t *parent,
                    const uint32_t **tokens)
{
    const struct page *p = &pool->pages[page];
    if (page >= pool->count || !p->sealed)
        return false;
    *parent = p->parent;
    *tokens = p->tokens;
    return true;
}

int page_pool_take_free(struct page_pool *pool, uint32_t *out)
{
    return pool->free == PAGE_NONE ? -ENOSPC : page_pool_take(pool, 1, out);
}

uint32_t page_pool_seal(struct page_pool *pool, uint32_t page, uint32_t parent,
                        const uint32_t *tokens)
{
    struct page *p = &pool->pages[page];
    const uint32_t same = look_up(pool, parent, tokens);
    if (same != PAGE_NONE) {
        hold(pool, same);
        let_go(pool, page);
        return same;
    }
    p->sealed = true;
    p->parent = parent;
    p->hash = chain_hash(pool, parent, tokens);
    memcpy(p->tokens, tokens, sizeof(p->tokens));
    p->next = pool->buckets[p->hash & pool->mask];
    pool->buckets[p->hash & pool->mask] = page;
    return page;
}

void page_pool_release(struct page_pool *pool, const uint32_t *pages, uint32_t count)
{
    while (count > 0)
        let_go(pool, pages[--count]);
}

void page_pool_forget(struct page_pool *pool)
{
    for (uint32_t page = 0; page < pool->count; page++) {
        if (!pool->pages[page].sealed)
            continue;
        unseal(pool, page);
        if (pool->pages[page].refs)
            continue;
        kept_remove(pool, page);
        free_add(pool, page);
    }
}

struct page_pool_stats page_pool_stats(const struct page_pool *pool)
{
    return (struct page_pool_stats){
        .pages = pool->count,
        .held = pool->count - pool->free_count - pool->kept,
        .kept = pool->kept,
        .reused = pool->reused,
        .evicted = pool->evicted,
    };
}
