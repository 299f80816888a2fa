/* SPDX-License-Identifier: Apache-2.0 */
/*
 * talk.h - both ends of a pull (pull.h) over a line: the engine is asked between two steps of its
 * runner, a few pages at a time. Blocks, up to the times given: for a thread of its own (mover.h).
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "kernels/moves/line.h"
#include "kernels/moves/pull.h"
#include "kernels/runner.h"

/* What came over. Also after an error: pages that are whole stay, whatever became of the rest. */
struct talk_account {
    uint32_t known; /* pages that were here before */
    uint32_t pages;
    uint64_t bytes;
    double begin_seconds; /* until the first page */
    double seconds;       /* from there to the last */
};

struct talk_wish {
    const uint32_t *tokens; /* of the whole prompt */
    uint32_t count;
    double prefill_per_second; /* what computing would be like */
    const struct pull_rates *rates;
    uint64_t first_ns;          /* by then a page must have come; 0 = as the next */
    uint64_t deadline_ns;       /* of all of it */
    _Atomic uint32_t *progress; /* rises with every page */
};

/* The caller's end. Returns 0, -ENODATA (there is nothing that would be worth it), -ENOSPC (no room
 * for more), or as line.h and the checks of pull.h. */
int talk_take(runner_t *runner, const struct pull_kind *kind, struct line *line,
              const struct talk_wish *wish, struct talk_account *account);

/* The other end: serves one ask, until `deadline_ns`. Returns 0, also if nothing was wanted, or
 * why not; the caller was told, if that was possible. */
int talk_give(runner_t *runner, const struct pull_kind *kind, struct line *line,
              uint64_t deadline_ns, struct talk_account *account);
