/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pull.h - what two workers say to each other when one takes over the pages of a prompt's beginning
 * from the other instead of computing them. Pure: the messages and their checks; talk.h sends them
 * through a line.
 *
 *     caller                                         called
 *     pull_ask, the prompt's tokens  ───────────►
 *                                    ◄───────────    pull_head: so many pages are here
 *     pull_go: so many of them       ───────────►
 *                                    ◄───────────    pull_page and its bytes, for each
 *                                    ◄───────────    pull_tail: a sum over all
 *
 * Pages are asked for by the very tokens that they stand for: nobody learns anything that it could
 * not compute from what it has. Both sides have to be of one model, arithmetic, page size and
 * version; anything else is refused, and the caller computes as if nobody had been asked.
 * Little-endian. Each page has a sum (CRC-32C) over its tokens and bytes, and the tail one over
 * those sums; against deceit there is the line's seal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exec.h"

#define PULL_MAGIC      0x4c505457u /* "WTPL" */
#define PULL_VERSION    1u
#define PULL_TOKENS_MAX (1u << 20)
#define PULL_PAGE_MAX   (64u << 20) /* bytes of a page */

/* What both have to have alike. */
struct pull_kind {
    uint32_t arithmetic;  /* host_arithmetic(): weights and way of computing; not 0 */
    uint32_t page_tokens; /* EXEC_PAGE_TOKENS */
    uint64_t page_bytes;
    uint32_t vocab;
    uint32_t reserved; /* zero */
};
_Static_assert(sizeof(struct pull_kind) == 24, "kind is 24 bytes");

struct pull_ask {
    uint32_t magic;
    uint16_t version;
    uint16_t size; /* of this struct */
    struct pull_kind kind;
    uint32_t tokens; /* that follow, 4 bytes each: whole pages */
    uint32_t first;  /* page wanted first: those before it are known to the caller */
    uint32_t crc;    /* of what is before it, then of the tokens */
    uint32_t reserved;
};
_Static_assert(sizeof(struct pull_ask) == 48, "ask is 48 bytes");

struct pull_head {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    int32_t
        status; /* 0, or why there are none: -ESTALE of another kind, -EPROTO, -EINVAL, -EBUSY */
    uint32_t pages; /* there are so many from `first` on */
    uint32_t reserved;
    uint32_t crc; /* of what is before it */
};
_Static_assert(sizeof(struct pull_head) == 24, "head is 24 bytes");

struct pull_go {
    uint32_t pages; /* send so many; 0: thank you, no */
    uint32_t crc;
};

struct pull_page {
    uint32_t index; /* in the prompt */
    uint32_t crc;   /* of the index, the page's tokens and its bytes */
};

struct pull_tail {
    uint32_t pages;
    uint32_t sum; /* CRC-32C of the pages' sums, in order */
    uint32_t crc; /* of what is before it */
    uint32_t reserved;
};

/* `count` is of whole pages. */
void pull_ask_seal(struct pull_ask *ask, const struct pull_kind *kind, const uint32_t *tokens,
                   uint32_t count, uint32_t first);
/* Is what came an ask of this kind, and how many tokens follow? Returns 0, -EPROTO (another
 * version), -ESTALE (another kind), -EINVAL (no ask at all, or too long). */
int pull_ask_check(const struct pull_ask *ask, const struct pull_kind *own);
/* Are they those that were meant? Returns 0 or -EINVAL. */
int pull_tokens_check(const struct pull_ask *ask, const uint32_t *tokens);

void pull_head_seal(struct pull_head *head, int status, uint32_t pages);
/* `most`: pages that were asked for. Returns 0, -EPROTO, -EINVAL, or the status it brings. */
int pull_head_check(const struct pull_head *head, uint32_t most);

void pull_go_seal(struct pull_go *go, uint32_t pages);
/* Returns 0 or -EINVAL: damaged, or more than there are. */
int pull_go_check(const struct pull_go *go, uint32_t most);

/* `tokens` are the page's own. */
void pull_page_seal(struct pull_page *page, uint32_t index, const uint32_t *tokens,
                    const void *bytes, size_t page_bytes);
int pull_page_check(const struct pull_page *page, uint32_t index, const uint32_t *tokens,
                    const void *bytes, size_t page_bytes);

/* The sum over pages: begins as 0. */
uint32_t pull_sum(uint32_t sum, const struct pull_page *page);
void pull_tail_seal(struct pull_tail *tail, uint32_t pages, uint32_t sum);
int pull_tail_check(const struct pull_tail *tail, uint32_t pages, uint32_t sum);

/* ---- is it worth it? ---- */

struct pull_rates {
    double bytes_per_second; /* of the pulls before; 0 = none yet */
    double begin_seconds;    /* until the first page comes */
};

#define PULL_FIRST_RATE  125e6 /* bytes a second, until there is a measured one */
#define PULL_FIRST_BEGIN 0.02
#define PULL_GAIN        1.25 /* so much longer prefill must be predicted to take */

/* Seconds that `pages` will take to come. */
double pull_seconds(const struct pull_rates *rates, uint64_t pages, size_t page_bytes);
/* Does computing them take clearly longer? */
bool pull_pays(const struct pull_rates *rates, uint64_t pages, size_t page_bytes,
               double prefill_per_second);
/* What a pull of `bytes` has taken, from the first page to the last, and before it. */
void pull_learn(struct pull_rates *rates, uint64_t bytes, double begin_seconds, double seconds);
/* One has taken longer than predicted, and was given up. */
void pull_slower(struct pull_rates *rates);
