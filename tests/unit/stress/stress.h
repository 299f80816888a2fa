/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress.h - what the stress tests share: how long they run, and sleeping on an eventfd as the code
 * under test does. They run for a moment in every build; in the thread sanitizer's build for
 * WEFT_STRESS_SECONDS each.
 */
#pragma once

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/ring.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define STRESS_SECONDS_DEFAULT 1u
/* Nothing under test takes so long: who sleeps longer was not woken. */
#define STRESS_LOST_MS 10000

static inline uint64_t stress_end_ns(void)
{
    const char *text = getenv("WEFT_STRESS_SECONDS");
    uint64_t seconds = text != NULL ? strtoull(text, NULL, 10) : STRESS_SECONDS_DEFAULT;
    return clock_now_ns() + seconds * NS_PER_S;
}

/* Any thread. */
static inline void stress_wake(int fd)
{
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof(one));
    (void)written;
}

/* Sleeps until woken. False: nobody did. */
static inline bool stress_sleep(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t ignored;
    if (poll(&p, 1, STRESS_LOST_MS) != 1) {
        return false;
    }
    ssize_t got = read(fd, &ignored, sizeof(ignored));
    (void)got;
    return true;
}

/* Asserting is for the main thread: others end with a text, NULL if all was well. */
static inline void stress_join(pthread_t thread)
{
    void *failure;
    ck_assert_int_eq(pthread_join(thread, &failure), 0);
    ck_assert_msg(failure == NULL, "%s", (const char *)failure);
}

static inline int stress_main(const char *name, const TTest *test)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 3600);
    tcase_add_test(tc, test);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
