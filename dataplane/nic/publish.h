/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.h - one pointer from the control thread to the lcores, reclaimed by rte_rcu_qsbr: the
 * control thread swaps in a complete new object and frees the old one once every lcore has passed a
 * quiescent state. An lcore's side is a load and, once per burst, a store.
 */
#pragma once

#include <stdint.h>

struct publish;

/* Where readers are: those of one place (a NUMA node) read a copy of their own. */
#define PUBLISH_PLACES_MAX  8u
#define PUBLISH_READERS_MAX 64u

struct publish_options {
    uint32_t readers;       /* numbered from 0; they begin off-line */
    const uint32_t *places; /* of each reader, below PUBLISH_PLACES_MAX; NULL: all are in place 0 */
    /* A copy of `object` for the readers of a place, or NULL if that cannot be had: then they share
     * the object itself. May be NULL where there is one place. The object itself is for the readers
     * of the lowest place. */
    void *(*copy)(const void *object, uint32_t place);
    /* Free an object, or a copy of one, that nobody can see any more. */
    void (*destroy)(void *object);
    void (*destroy_copy)(void *copy);
};

/* Returns 0, -EINVAL or -ENOMEM. */
int publish_create_placed(struct publish **publish, const struct publish_options *options);

/* The same for readers in one place. */
int publish_create(struct publish **publish, uint32_t readers, void (*destroy)(void *object));

/* Frees the current object too. All readers must have gone off-line. NULL is fine. */
void publish_destroy(struct publish *publish);

/* Control thread: makes `object` current; the old one is freed before it returns. Each reader sees
 * one object at a time; those of two places may change over a moment apart, as any two readers do.
 */
void publish_set(struct publish *publish, void *object);

/* Lcore: the current object or its place's copy, valid until the next publish_quiescent() or
 * publish_offline(). NULL before the first publish_set(). */
const void *publish_get(const struct publish *publish, uint32_t reader);

/* Lcore: holds no object now. */
void publish_quiescent(struct publish *publish, uint32_t reader);

/* Lcore: around a sleep, and before the first and after the last use. */
void publish_online(struct publish *publish, uint32_t reader);
void publish_offline(struct publish *publish, uint32_t reader);
