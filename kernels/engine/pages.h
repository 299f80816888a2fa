/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - which pages of a KV cache are free, held or worth keeping. Pure bookkeeping for
 * engine.c; what a page holds lies in the backend (exec.h).
 *
 * A page has the keys and values of EXEC_PAGE_TOKENS positions. Once all of them are computed it is
 * sealed: known by its tokens and by the page before it, so that a chain of pages stands for a
 * prompt's beginning, and found by the next prompt that begins so. Look-ups compare the tokens
 * themselves; hashes only say where to look.
 *
 * Who uses a page holds a reference, of every page of its chain. A sealed page without references
 * is kept, and taken for something else when no other is free: the one that was let go first goes
 * first. Pages of a chain are let go from its end, so no page ever outlives the one before it.
 *
 * Threads: one at a time. No allocation after creation, no time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exec.h"

#define PAGE_NONE UINT32_MAX

struct page_pool;

/* `count` pages, numbered from 0. `seed` is of the hashes. Returns 0, -EINVAL or -ENOMEM. */
int page_pool_create(struct page_pool **out, uint32_t count, uint64_t seed);
/* NULL is fine. */
void page_pool_destroy(struct page_pool *pool);

/* The longest chain of sealed pages for these tokens, `max` pages at most, into `out`, with a
 * reference to each. Returns how many. */
uint32_t page_pool_match(struct page_pool *pool, const uint32_t *tokens, uint32_t max,
                         uint32_t *out);
/* How many that would be. */
uint32_t page_pool_find(const struct page_pool *pool, const uint32_t *tokens, uint32_t max);

/* Takes pages that hold nothing, with a reference to each: all of them or, -ENOSPC, none. */
int page_pool_take(struct page_pool *pool, uint32_t count, uint32_t *out);

/* The page is full with these EXEC_PAGE_TOKENS tokens, behind the sealed page `parent` (PAGE_NONE:
 * at position 0); the caller holds both. Returns the page to use from now on: if another one stands
 * for the same already, that one, and `page` has been let go. */
uint32_t page_pool_seal(struct page_pool *pool, uint32_t page, uint32_t parent,
                        const uint32_t *tokens);

/* The page's tokens and the page before it (PAGE_NONE: none). False: it is not sealed. */
bool page_pool_look(const struct page_pool *pool, uint32_t page, uint32_t *parent,
                    const uint32_t **tokens);
/* The same as page_pool_take(), but nothing that is kept goes for it. */
int page_pool_take_free(struct page_pool *pool, uint32_t *out);

/* Gives back the references to a whole chain of pages, in the order of positions. */
void page_pool_release(struct page_pool *pool, const uint32_t *pages, uint32_t count);

/* What sealed pages held is gone: nobody finds them any more. Those that are held stay held, but
 * are not sealed: page_pool_look() tells. */
void page_pool_forget(struct page_pool *pool);

struct page_pool_stats {
    uint32_t pages;
    uint32_t held;   /* have references */
    uint32_t kept;   /* sealed, without */
    uint64_t reused; /* pages that were matched, in all */
    uint64_t evicted;
};
struct page_pool_stats page_pool_stats(const struct page_pool *pool);
