/* SPDX-License-Identifier: Apache-2.0 */
/* publish.c - see publish.h. */
#include "dataplane/nic/publish.h"

#include <errno.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct publish {
    void *_Atomic current[PUBLISH_PLACES_MAX]; /* those without readers stay NULL */
    uint8_t place_of[PUBLISH_READERS_MAX];
    uint32_t used; /* places that have readers, a bit each */
    void *(*copy)(const void *object, uint32_t place);
    void (*destroy)(void *object);
    void (*destroy_copy)(void *copy);
    struct rte_rcu_qsbr *qsbr;
};

static int start_readers(struct publish *publish, uint32_t readers)
{
    publish->qsbr = rte_zmalloc("qsbr", rte_rcu_qsbr_get_memsize(readers), RTE_CACHE_LINE_SIZE);
    if (publish->qsbr == NULL || rte_rcu_qsbr_init(publish->qsbr, readers) != 0) {
        return -ENOMEM;
    }
    for (uint32_t reader = 0; reader < readers; reader++) {
        rte_rcu_qsbr_thread_register(publish->qsbr, reader);
    }
    return 0;
}

int publish_create_placed(struct publish **out, const struct publish_options *options)
{
    *out = NULL;
    if (options->readers == 0 || options->readers > PUBLISH_READERS_MAX) {
        return -EINVAL;
    }
    struct publish *publish = rte_zmalloc("publish", sizeof(*publish), RTE_CACHE_LINE_SIZE);
    if (publish == NULL) {
        return -ENOMEM;
    }
    publish->copy = options->copy;
    publish->destroy = options->destroy;
    publish->destroy_copy = options->destroy_copy;
    for (uint32_t i = 0; i < options->readers; i++) {
        uint32_t place = options->places != NULL ? options->places[i] : 0;
        place = place < PUBLISH_PLACES_MAX ? place : PUBLISH_PLACES_MAX - 1;
        publish->place_of[i] = (uint8_t)place;
        publish->used |= 1u << place;
    }
    if (start_readers(publish, options->readers) != 0) {
        publish_destroy(publish);
        return -ENOMEM;
    }
    *out = publish;
    return 0;
}

int publish_create(struct publish **out, uint32_t readers, void (*destroy)(void *object))
{
    struct publish_options options = {.readers = readers, .destroy = destroy};
    return publish_create_placed(out, &options);
}

/* The lowest place has the object, the others a copy or the same. */
static void destroy_all(const struct publish *publish, void *const objects[PUBLISH_PLACES_MAX])
{
    void *object = objects[__builtin_ctz(publish->used)];
    for (uint32_t i = 0; i < PUBLISH_PLACES_MAX; i++) {
        if (objects[i] != NULL && objects[i] != object) {
            publish->destroy_copy(objects[i]);
        }
    }
    if (object != NULL) {
        publish->destroy(object);
    }
}

void publish_destroy(struct publish *publish)
{
    if (publish == NULL) {
        return;
    }
    void *last[PUBLISH_PLACES_MAX];
    for (uint32_t i = 0; i < PUBLISH_PLACES_MAX; i++) {
        last[i] = atomic_load(&publish->current[i]);
    }
    destroy_all(publish, last);
    rte_free(publish->qsbr);
    rte_free(publish);
}

void publish_set(struct publish *publish, void *object)
{
    void *next[PUBLISH_PLACES_MAX] = {NULL};
    void *old[PUBLISH_PLACES_MAX] = {NULL};
    bool given = false;
    for (uint32_t i = 0; i < PUBLISH_PLACES_MAX; i++) {
        if ((publish->used >> i & 1) != 0) {
            void *copy = given && publish->copy != NULL ? publish->copy(object, i) : NULL;
            next[i] = copy != NULL ? copy : object;
            given = true;
        }
    }
    for (uint32_t i = 0; i < PUBLISH_PLACES_MAX; i++) {
        old[i] = atomic_exchange_explicit(&publish->current[i], next[i], memory_order_acq_rel);
    }
    rte_rcu_qsbr_synchronize(publish->qsbr, RTE_QSBR_THRID_INVALID);
    destroy_all(publish, old);
}

const void *publish_get(const struct publish *publish, uint32_t reader)
{
    return atomic_load_explicit(&publish->current[publish->place_of[reader]], memory_order_acquire);
}

void publish_quiescent(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_quiescent(publish->qsbr, reader);
}

void publish_online(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_thread_online(publish->qsbr, reader);
}

void publish_offline(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_thread_offline(publish->qsbr, reader);
}
