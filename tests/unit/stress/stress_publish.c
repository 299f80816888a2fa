/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress_publish.c - dataplane/nic/publish.c itself, over the real rte_rcu_qsbr: one thread swaps
 * tables as fast as it can, others read them in bursts, go off-line and come back. A freed table is
 * overwritten first, so that even without a sanitizer a late reader is seen.
 */
#include <string.h>

#include "dataplane/nic/publish.h"
#include "stress.h"

#define READERS 3u
#define WORDS   64u
#define FREED   UINT64_MAX

struct object {
    uint64_t words[WORDS]; /* all the same */
};

static struct publish *tables;
static _Atomic bool stop;
static uint64_t bursts[READERS];

static void object_free(void *object)
{
    struct object *o = object;
    for (uint32_t i = 0; i < WORDS; i++) {
        o->words[i] = FREED;
    }
    free(o);
}

static struct object *object_make(uint64_t value)
{
    struct object *o = malloc(sizeof(*o));
    ck_assert_ptr_nonnull(o);
    for (uint32_t i = 0; i < WORDS; i++) {
        o->words[i] = value;
    }
    return o;
}

/* As an lcore: a table lasts for a burst, is never kept over a quiescent state. */
static void *reader(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    struct rng rng = {.state = me};
    uint64_t last = 0;
    publish_online(tables, me);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        const struct object *o = publish_get(tables, me);
        uint64_t first = o->words[0];
        for (uint32_t i = 1; i < WORDS; i++) {
            if (o->words[i] != first) {
                return "a table changed while it was read";
            }
        }
        if (first == FREED || first < last) {
            return "a table was read after it was freed, or came back";
        }
        last = first;
        bursts[me]++;
        publish_quiescent(tables, me);
        if (rng_below(&rng, 16) == 0) {
            publish_offline(tables, me);
            if (rng_below(&rng, 16) == 0) {
                usleep(100);
            }
            publish_online(tables, me);
        }
    }
    publish_offline(tables, me);
    return NULL;
}

START_TEST(tables_are_swapped_under_readers)
{
    pthread_t threads[READERS];
    uint64_t value = 1;
    uint64_t end_ns = stress_end_ns();
    ck_assert_int_eq(publish_create(&tables, READERS, object_free), 0);
    publish_set(tables, object_make(value));
    for (uint32_t i = 0; i < READERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, reader, (void *)(uintptr_t)i), 0);
    }
    while (clock_now_ns() < end_ns) {
        publish_set(tables, object_make(++value));
    }
    atomic_store(&stop, true);
    uint64_t total = 0;
    for (uint32_t i = 0; i < READERS; i++) {
        stress_join(threads[i]);
        ck_assert_uint_gt(bursts[i], 0);
        total += bursts[i];
    }
    publish_destroy(tables);
    printf("publish: %lu tables, %lu bursts\n", (unsigned long)value, (unsigned long)total);
}
END_TEST

int main(void)
{
    return stress_main("publish", tables_are_swapped_under_readers);
}
