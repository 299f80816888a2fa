/* SPDX-License-Identifier: Apache-2.0 */
/* done_set.c - see done_set.h: a ring of entries with hash chains of indexes through it. */
#include "dataplane/flow/done_set.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/flow/table.h"

int done_set_init(struct done_set *s, uint64_t key)
{
    s->entries = calloc(DONE_SET_MAX, sizeof(struct done_entry));
    s->buckets = calloc(DONE_SET_MAX, sizeof(uint32_t));
    s->count = 0;
    s->full = false;
    s->key = key;
    if (s->entries == NULL || s->buckets == NULL) {
        done_set_deinit(s);
        return -ENOMEM;
    }
    return 0;
}

void done_set_deinit(struct done_set *s)
{
    free(s->entries);
    free(s->buckets);
    s->entries = NULL;
    s->buckets = NULL;
}

static uint32_t *done_set_bucket(const struct done_set *s, uint64_t conn_id, uint32_t req_seq)
{
    return &s->buckets[table_hash(s->key, conn_id, req_seq) & (DONE_SET_MAX - 1)];
}

const struct done_entry *done_set_find(const struct done_set *s, uint64_t conn_id, uint32_t req_seq)
{
    uint32_t at = *done_set_bucket(s, conn_id, req_seq);
    while (at != 0) {
        const struct done_entry *e = &s->entries[at - 1];
        if (e->req_seq == req_seq && e->conn_id == conn_id) {
            return e;
        }
        at = e->next;
    }
    return NULL;
}

static void done_set_unlink(struct done_set *s, uint32_t index)
{
    const struct done_entry *old = &s->entries[index];
    uint32_t *at = done_set_bucket(s, old->conn_id, old->req_seq);
    while (*at != 0 && *at != index + 1) {
        at = &s->entries[*at - 1].next;
    }
    if (*at != 0) {
        *at = old->next;
    }
}

void done_set_add(struct done_set *s, uint64_t conn_id, uint32_t req_seq, uint16_t status,
                  uint16_t constraint)
{
    uint32_t index = s->count & (DONE_SET_MAX - 1);
    if (s->full) {
        done_set_unlink(s, index);
    }
    uint32_t *bucket = done_set_bucket(s, conn_id, req_seq);
    s->entries[index] = (struct done_entry){conn_id, req_seq, *bucket, status, constraint};
    *bucket = index + 1;
    s->count++;
    s->full = s->full || index == DONE_SET_MAX - 1;
}
