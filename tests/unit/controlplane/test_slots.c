/* SPDX-License-Identifier: Apache-2.0 */
/* test_slots.c - controlplane/maps/slots.c against a plain list kept in order of use. */
#include "controlplane/maps/slots.h"

#include <errno.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define CAPACITY 37u
#define KEYS     90u

/* Keys, newest first. */
struct model {
    uint64_t keys[CAPACITY];
    uint32_t count;
};

static uint32_t model_find(const struct model *m, uint64_t key)
{
    uint32_t i = 0;
    while (i < m->count && m->keys[i] != key) {
        i++;
    }
    return i;
}

static void model_drop(struct model *m, uint32_t at)
{
    m->count--;
    memmove(m->keys + at, m->keys + at + 1, (m->count - at) * sizeof(m->keys[0]));
}

static void model_front(struct model *m, uint64_t key)
{
    uint32_t at = model_find(m, key);
    if (at < m->count) {
        model_drop(m, at);
    } else if (m->count == CAPACITY) {
        m->count--;
    }
    memmove(m->keys + 1, m->keys, m->count * sizeof(m->keys[0]));
    m->keys[0] = key;
    m->count++;
}

static bool same(const struct slots *s, const struct model *m)
{
    uint32_t slot = s->newest;
    for (uint32_t i = 0; i < m->count; i++, slot = s->older[slot]) {
        if (slot >= CAPACITY || s->keys[slot] != m->keys[i] || slots_find(s, m->keys[i]) != slot) {
            return false;
        }
    }
    return slot == SLOTS_NONE && s->used == m->count;
}

START_TEST(like_a_list_in_order_of_use)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng rng = {seed};
        struct slots s;
        struct model m = {0};
        ck_assert_int_eq(slots_init(&s, CAPACITY, seed), 0);
        for (uint32_t step = 0; step < 3000; step++) {
            uint64_t key = rng_below(&rng, KEYS);
            uint32_t at = model_find(&m, key);
            bool fresh;
            switch (rng_below(&rng, 4)) {
            case 0:
                ck_assert_int_eq(slots_drop(&s, key), at < m.count);
                if (at < m.count) {
                    model_drop(&m, at);
                }
                break;
            case 1:
                ck_assert_int_eq(slots_find(&s, key) == SLOTS_NONE, at == m.count);
                break;
            default:
                slots_take(&s, key, &fresh);
                ck_assert_int_eq(fresh, at == m.count);
                model_front(&m, key);
            }
            ck_assert(same(&s, &m));
        }
        slots_deinit(&s);
    }
}
END_TEST

START_TEST(sizes)
{
    struct slots s;
    ck_assert_int_eq(slots_init(&s, 0, 1), -EINVAL);
    ck_assert_int_eq(slots_init(&s, SLOTS_MAX + 1, 1), -EINVAL);
    ck_assert_int_eq(slots_init(&s, 1, 1), 0);
    bool fresh;
    ck_assert_uint_eq(slots_take(&s, 7, &fresh), 0);
    ck_assert_uint_eq(slots_take(&s, 8, &fresh), 0);
    ck_assert(fresh);
    ck_assert_uint_eq(slots_find(&s, 7), SLOTS_NONE);
    slots_deinit(&s);
}
END_TEST

MAIN_OF("slots", like_a_list_in_order_of_use, sizes)
