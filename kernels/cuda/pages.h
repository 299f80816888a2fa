/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - which page of the KV cache holds which positions of which slot. Pure bookkeeping on the
 * host, used by cuda.c; the kernels read a copy of the tables.
 *
 * A slot has as many pages as its positions need, from a common stock. Positions that are forgotten
 * give their pages back. Or it has the pages that its user has chosen (exec_place()). Rows are
 * those of kernels/exec.h.
 *
 * Threads: one at a time. Errors: 0 or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exec.h"

struct pages {
    uint32_t page_size; /* positions of a page */
    uint32_t slots;
    uint32_t stride;  /* entries of a slot's table */
    uint32_t context; /* positions of a slot */
    uint32_t *tables; /* [slots][stride]; only entries that are in use mean anything */
    uint32_t *used;   /* positions of each slot that hold something */
    uint32_t *held;   /* pages of each slot */
    bool *placed;     /* by pages_place(): the slot has nothing to do with the stock */
    uint32_t *stock;  /* pages that are free */
    uint32_t stock_count;
    uint32_t count;  /* in all */
    bool is_changed; /* the tables have been, since the caller has set this to false */
};

/* `count` pages in all, numbered from 0. pages_deinit() in either case. */
int pages_init(struct pages *pages, uint32_t slots, uint32_t context, uint32_t page_size,
               uint32_t count);
void pages_deinit(struct pages *pages);

/* Checks the rows' slots, positions and order as exec.h asks for, and gives every one a page.
 * Returns -EINVAL, or -ENOSPC if the stock is too small; then nothing has changed. */
int pages_take(struct pages *pages, const struct exec_row *rows, size_t count);

/* exec_place() for a slot. */
int pages_place(struct pages *pages, uint32_t slot, const uint32_t *list, uint32_t count,
                uint32_t used);

/* The rows' slots end where their first row began. */
void pages_forget(struct pages *pages, const struct exec_row *rows, size_t count);
