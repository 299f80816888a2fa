/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lonely.h - when a node tells its operator that it meets nobody, or hears somebody whom it cannot
 * understand: soon enough to be seen by whoever has just started it, and rarely after that.
 * gossip.c has the words. Pure; any monotonic clock, one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schemas/base/clock.h"

#define LONELY_FIRST_NS   (5 * NS_PER_S) /* so long a seed may take to answer */
#define LONELY_AGAIN_NS   (60 * NS_PER_S)
#define LONELY_LAST_NS    (600 * NS_PER_S) /* the pause doubles up to here */
#define LONELY_FOREIGN_NS (60 * NS_PER_S)  /* between two words about foreign datagrams */

struct lonely {
    uint64_t since_ns;
    uint64_t
        due_ns; /* the next word; UINT64_MAX = none: somebody was met, or nobody is looked for */
    uint64_t pause_ns;
    uint64_t foreign_due_ns;
};

/* `seeds`: it has been told of others at all. */
void lonely_init(struct lonely *lonely, bool seeds, uint64_t now_ns);

/* Is it time to say that nobody answers? Returns for how long nobody has, 0 = say nothing. Once
 * somebody was met it stays quiet: who leaves later is another matter. */
uint64_t lonely_silence(struct lonely *lonely, bool alone, uint64_t now_ns);

/* Something came that no key of this mesh opens: is it time to say so? */
bool lonely_foreign(struct lonely *lonely, uint64_t now_ns);
