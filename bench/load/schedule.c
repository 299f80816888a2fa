/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - see schedule.h. Bursts are an interrupted Poisson process (Kuczura 1973). */
#include "bench/load/schedule.h"

#include <math.h>

#include "schemas/base/rng.h"

/* Exponentially distributed, with that mean. */
static double draw_exponential(struct rng *rng, double mean)
{
    return -log(1.0 - rng_unit(rng)) * mean;
}

static void draw_bursts(const struct schedule_plan *plan, struct rng *rng, uint64_t *due_ns,
                        uint32_t count)
{
    const double gap_s = plan->on_s / (plan->on_s + plan->off_s) / plan->rate;
    double at_s = 0;
    double left_s = draw_exponential(rng, plan->on_s);
    for (uint32_t i = 0; i < count; i++) {
        double wait_s = draw_exponential(rng, gap_s);
        while (wait_s > left_s) {
            wait_s -= left_s;
            at_s += left_s + draw_exponential(rng, plan->off_s);
            left_s = draw_exponential(rng, plan->on_s);
        }
        left_s -= wait_s;
        at_s += wait_s;
        due_ns[i] = (uint64_t)(at_s * 1e9);
    }
}

void schedule_draw(const struct schedule_plan *plan, uint64_t *due_ns, uint32_t count)
{
    struct rng rng = {.state = plan->seed};
    double at_s = 0;
    if (plan->kind == SCHEDULE_BURSTS) {
        draw_bursts(plan, &rng, due_ns, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        at_s = plan->kind == SCHEDULE_FIXED ? (double)i / plan->rate
                                            : at_s + draw_exponential(&rng, 1.0 / plan->rate);
        due_ns[i] = (uint64_t)(at_s * 1e9);
    }
}
