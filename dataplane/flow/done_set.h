/* SPDX-License-Identifier: Apache-2.0 */
/*
 * done_set.h - the window of requests that have ended at this worker, and how: what makes execution
 * at most once when a datagram comes late. Fixed size, the oldest is forgotten first. Used by
 * serve.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DONE_SET_MAX 32768u /* entries; a power of two */

struct done_entry {
    uint64_t conn_id;
    uint32_t req_seq;
    uint32_t next;       /* in its bucket, index + 1; 0 = end */
    uint16_t status;     /* minus the status it was refused with; 0 = was executed */
    uint16_t constraint; /* WEFT_C_* of the refusal */
};

struct done_set {
    struct done_entry *entries;
    uint32_t *buckets; /* index + 1; 0 = empty */
    uint32_t count;    /* ever added, wraps */
    bool full;
    uint64_t key;
};

/* Returns 0 or -ENOMEM. */
int done_set_init(struct done_set *s, uint64_t key);
void done_set_deinit(struct done_set *s);

/* The entry, or NULL. Valid until the next add. */
const struct done_entry *done_set_find(const struct done_set *s, uint64_t conn_id,
                                       uint32_t req_seq);
/* The request must not be there yet. */
void done_set_add(struct done_set *s, uint64_t conn_id, uint32_t req_seq, uint16_t status,
                  uint16_t constraint);
