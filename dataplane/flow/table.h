/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - requests found by (conn_id, req_seq) in O(1): chained hash, nodes in their owners'
 * structs, a secret key so that a hostile client cannot aim at one bucket. Used by serve.c and
 * dataplane/client.
 */
#pragma once

#include <stdint.h>

struct table_node {
    uint64_t conn_id;
    uint32_t req_seq;
    struct table_node *next;
};

struct table {
    struct table_node **buckets;
    uint32_t mask;
    uint32_t count;
    uint64_t key;
};

/* `buckets` is a power of two. Returns 0 or -ENOMEM. */
int table_init(struct table *t, uint32_t buckets, uint64_t key);
void table_deinit(struct table *t);

struct table_node *table_find(const struct table *t, uint64_t conn_id, uint32_t req_seq);
/* The key must not be there yet. */
void table_add(struct table *t, struct table_node *node);
void table_remove(struct table *t, struct table_node *node);

/* Keyed hash of a request's identity; two rounds of the splitmix64 finaliser. */
uint64_t table_hash(uint64_t key, uint64_t conn_id, uint32_t req_seq);
