/* SPDX-License-Identifier: Apache-2.0 */
/* stress_ring.c - schemas/base/ring.h with a thread at each end, both of which sleep and are woken
 * by eventfds. A small ring, so that it is full and empty often. */
#include <string.h>

#include "stress.h"

#define SLOTS 8u
#define ENDED UINT64_MAX

static struct ring forth, back;
static struct ring_slot forth_slots[SLOTS], back_slots[SLOTS];
static int forth_fd, back_fd;
static uint64_t end_ns;
static uint64_t exchanged, slept;

static void put(struct ring_slot *slot, uint64_t value, struct rng *rng)
{
    slot->len = 8 + rng_below(rng, RING_DATA_MAX - 8);
    memcpy(slot->data, &value, sizeof(value));
    memset(slot->data + 8, (int)(value & 0xff), slot->len - 8);
}

/* The value; ENDED - 1 if the entry is not whole. */
static uint64_t get(const struct ring_slot *slot)
{
    uint64_t value;
    memcpy(&value, slot->data, sizeof(value));
    if (slot->len < 8 || slot->len > RING_DATA_MAX ||
        (slot->len > 8 && slot->data[slot->len - 1] != (value & 0xff))) {
        return ENDED - 1;
    }
    return value;
}

/* Sends every value back. */
static void *echo(void *arg)
{
    struct rng rng = {.state = 2};
    struct ring_end in, out;
    uint64_t expected = 0;
    (void)arg;
    ring_end_init(&in, &forth, forth_slots, SLOTS);
    ring_end_init(&out, &back, back_slots, SLOTS);
    for (;;) {
        struct ring_slot *from = ring_peek(&in);
        struct ring_slot *to = ring_reserve(&out);
        if (from != NULL && to != NULL) {
            uint64_t value = get(from);
            ring_release(&in);
            if (value != ENDED && value != expected++) {
                return "an entry was lost, repeated or torn on its way there";
            }
            put(to, value, &rng);
            ring_commit(&out);
            if (value == ENDED) {
                break;
            }
        } else if (ring_must_wake(&out)) {
            stress_wake(back_fd);
        } else if (from == NULL && ring_sleep_begin(&in)) {
            if (!stress_sleep(forth_fd) && ring_peek(&in) != NULL) {
                return "the echo was not woken";
            }
            ring_sleep_end(&in);
        }
    }
    if (ring_must_wake(&out)) {
        stress_wake(back_fd);
    }
    return NULL;
}

/* Everything that has come back. NULL if it is right. */
static const char *collect(struct ring_end *in, uint64_t *expected, bool *ended)
{
    for (struct ring_slot *slot; (slot = ring_peek(in)) != NULL; ring_release(in)) {
        uint64_t value = get(slot);
        *ended = value == ENDED;
        if (!*ended && value != (*expected)++) {
            return "an entry was lost, repeated or torn on its way back";
        }
    }
    return NULL;
}

static void *source(void *arg)
{
    struct rng rng = {.state = 1};
    struct ring_end in, out;
    uint64_t next = 0, expected = 0;
    bool stopping = false, ended = false;
    (void)arg;
    ring_end_init(&in, &back, back_slots, SLOTS);
    ring_end_init(&out, &forth, forth_slots, SLOTS);
    while (!ended) {
        struct ring_slot *slot;
        for (uint32_t burst = rng_below(&rng, 2 * SLOTS); burst > 0 && !stopping; burst--) {
            if ((slot = ring_reserve(&out)) == NULL) {
                break;
            }
            stopping = clock_now_ns() > end_ns;
            put(slot, stopping ? ENDED : next++, &rng);
            ring_commit(&out);
        }
        if (ring_must_wake(&out)) {
            stress_wake(forth_fd);
        }
        const char *failure = collect(&in, &expected, &ended);
        if (failure != NULL) {
            return (void *)(uintptr_t)failure;
        }
        bool waits = stopping || rng_below(&rng, 4) == 0;
        if (!ended && waits && expected < next + stopping && ring_sleep_begin(&in)) {
            slept++;
            if (!stress_sleep(back_fd)) {
                return "the source was not woken";
            }
            ring_sleep_end(&in);
        }
    }
    exchanged = next;
    return expected == next ? NULL : "entries are missing";
}

START_TEST(both_ends_sleep_and_wake)
{
    pthread_t threads[2];
    forth_fd = eventfd(0, EFD_NONBLOCK);
    back_fd = eventfd(0, EFD_NONBLOCK);
    end_ns = stress_end_ns();
    ck_assert_int_eq(pthread_create(&threads[0], NULL, echo, NULL), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, source, NULL), 0);
    stress_join(threads[1]);
    stress_join(threads[0]);
    ck_assert_uint_gt(exchanged, 0);
    ck_assert_uint_gt(slept, 0);
    printf("ring: %lu entries there and back, %lu sleeps\n", (unsigned long)exchanged,
           (unsigned long)slept);
    close(forth_fd);
    close(back_fd);
}
END_TEST

int main(void)
{
    return stress_main("ring", both_ends_sleep_and_wake);
}
