/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.h - one pointer from the control thread to the lcores, reclaimed by rte_rcu_qsbr: the
 * control thread swaps in a complete new object and frees the old one once every lcore has passed a
 * quiescent state. An lcore's side is a load and, once per burst, a store.
 */
#pragma once

#include <stdint.h>

struct publish;

/* `destroy` frees an object that nobody can see any more. Readers are numbered 0..readers-1 and
 * begin off-line. Returns 0 or -ENOMEM. */
int publish_create(struct publish **publish, uint32_t readers, void (*destroy)(void *object));

/* Frees the current object too. All readers must have gone off-line. NULL is fine. */
void publish_destroy(struct publish *publish);

/* Control thread: makes `object` current; the old one is freed before it returns. */
void publish_set(struct publish *publish, void *object);

/* Lcore: the current object, valid until the next publish_quiescent() or publish_offline(). NULL
 * before the first publish_set(). */
const void *publish_get(const struct publish *publish);

/* Lcore: holds no object now. */
void publish_quiescent(struct publish *publish, uint32_t reader);

/* Lcore: around a sleep, and before the first and after the last use. */
void publish_online(struct publish *publish, uint32_t reader);
void publish_offline(struct publish *publish, uint32_t reader);
