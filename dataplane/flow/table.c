/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - see table.h. */
#include "dataplane/flow/table.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t table_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t table_hash(uint64_t key, uint64_t conn_id, uint32_t req_seq)
{
    return table_mix(table_mix(conn_id ^ key) + req_seq + (key >> 7));
}

int table_init(struct table *t, uint32_t buckets, uint64_t key)
{
    t->buckets = calloc(buckets, sizeof(struct table_node *));
    t->mask = buckets - 1;
    t->count = 0;
    t->key = key;
    return t->buckets != NULL ? 0 : -ENOMEM;
}

void table_deinit(struct table *t)
{
    free(t->buckets);
    t->buckets = NULL;
}

static struct table_node **table_bucket(const struct table *t, uint64_t conn_id, uint32_t req_seq)
{
    return &t->buckets[table_hash(t->key, conn_id, req_seq) & t->mask];
}

struct table_node *table_find(const struct table *t, uint64_t conn_id, uint32_t req_seq)
{
    struct table_node *n = *table_bucket(t, conn_id, req_seq);
    while (n != NULL && (n->req_seq != req_seq || n->conn_id != conn_id)) {
        n = n->next;
    }
    return n;
}

void table_add(struct table *t, struct table_node *node)
{
    struct table_node **bucket = table_bucket(t, node->conn_id, node->req_seq);
    node->next = *bucket;
    *bucket = node;
    t->count++;
}

void table_remove(struct table *t, struct table_node *node)
{
    struct table_node **at = table_bucket(t, node->conn_id, node->req_seq);
    while (*at != NULL && *at != node) {
        at = &(*at)->next;
    }
    if (*at == node) {
        *at = node->next;
        t->count--;
    }
}
