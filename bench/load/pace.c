/* SPDX-License-Identifier: Apache-2.0 */
/* pace.c - see pace.h. All jobs have the same pace, so a queue in order of the next token does. */
#include "bench/load/pace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <weft/wire.h>

#include "schemas/base/clock.h"

#define LATE_MAX_NS (10 * NS_PER_MS) /* later than that it was no wake-up */

struct pace_job {
    TAILQ_ENTRY(pace_job) link;
    weft_job_t *job;
    uint64_t due_ns;
    uint32_t given, wanted;
    bool served; /* in `queue`, else in `waiting` */
    bool cancelled;
};

void pace_init(struct pace *p, const struct pace_plan *plan)
{
    *p = (struct pace){.plan = *plan};
    TAILQ_INIT(&p->queue);
    TAILQ_INIT(&p->waiting);
}

static void forget(struct pace_queue *queue)
{
    struct pace_job *j;
    while ((j = TAILQ_FIRST(queue)) != NULL) {
        TAILQ_REMOVE(queue, j, link);
        free(j);
    }
}

void pace_deinit(struct pace *p)
{
    forget(&p->queue);
    forget(&p->waiting);
    p->open = p->served = 0;
}

static void serve_next(struct pace *p, uint64_t now_ns)
{
    struct pace_job *j;
    while ((p->plan.slots == 0 || p->served < p->plan.slots) &&
           (j = TAILQ_FIRST(&p->waiting)) != NULL) {
        TAILQ_REMOVE(&p->waiting, j, link);
        TAILQ_INSERT_TAIL(&p->queue, j, link);
        j->served = true;
        j->due_ns = now_ns + p->plan.interval_ns;
        p->served++;
    }
}

int pace_add(struct pace *p, weft_job_t *job, const weft_job_view_t *view, uint64_t now_ns)
{
    struct pace_job *j = calloc(1, sizeof(*j));
    if (j == NULL) {
        return WEFT_E_MESH_FULL;
    }
    j->job = job;
    j->given = (uint32_t)view->resume_count;
    j->wanted = view->max_tokens;
    weft_job_set_user(job, j);
    TAILQ_INSERT_TAIL(&p->waiting, j, link);
    p->open++;
    serve_next(p, now_ns);
    return 0;
}

void pace_cancel(struct pace *p, weft_job_t *job)
{
    struct pace_job *j = weft_job_user(job);
    TAILQ_REMOVE(j->served ? &p->queue : &p->waiting, j, link);
    p->served += !j->served;
    j->served = j->cancelled = true;
    j->due_ns = 0;
    TAILQ_INSERT_HEAD(&p->queue, j, link);
}

static void finish(struct pace *p, struct pace_job *j)
{
    weft_job_report_t report = {.status = j->cancelled ? WEFT_E_CANCELLED : 0,
                                .finish = j->cancelled ? WEFT_FINISH_CANCELLED : WEFT_FINISH_LENGTH,
                                .prompt_tokens = 1,
                                .new_tokens = j->given};
    weft_job_finish(j->job, &report);
    p->open--;
    p->served--;
    p->job_ns = j->wanted * p->plan.interval_ns;
    free(j);
}

/* End of the stall that it is in, else 0. */
static uint64_t still_until_ns(const struct pace *p, uint64_t now_ns)
{
    if (p->plan.every_ns == 0) {
        return 0;
    }
    uint64_t left_ns = p->plan.every_ns - now_ns % p->plan.every_ns;
    return left_ns <= p->plan.stall_ns ? now_ns + left_ns : 0;
}

static bool is_over(const struct pace_job *j)
{
    return j->cancelled || j->given >= j->wanted;
}

static void emit(struct pace_job *j)
{
    if (!is_over(j)) {
        j->given++;
        (void)weft_job_emit(j->job, j->given, "x", 1);
    }
}

void pace_step(struct pace *p, uint64_t now_ns)
{
    struct pace_job *j;
    if (still_until_ns(p, now_ns) != 0) {
        return;
    }
    while ((j = TAILQ_FIRST(&p->queue)) != NULL && j->due_ns <= now_ns) {
        TAILQ_REMOVE(&p->queue, j, link);
        do {
            emit(j);
        } while (p->plan.interval_ns == 0 && !is_over(j));
        if (is_over(j)) {
            /* Who waits has the place from when it was free, not from when this thread woke: else
             * the capacity would be the machine's. */
            const uint64_t free_ns = j->due_ns;
            finish(p, j);
            serve_next(p, now_ns - free_ns < LATE_MAX_NS ? free_ns : now_ns);
        } else {
            j->due_ns += p->plan.interval_ns;
            TAILQ_INSERT_TAIL(&p->queue, j, link);
        }
    }
}

uint64_t pace_wait_ns(const struct pace *p)
{
    return p->plan.slots == 0 ? 0 : (p->open - p->served) * p->job_ns / p->plan.slots;
}

uint64_t pace_due_ns(const struct pace *p, uint64_t now_ns)
{
    const struct pace_job *j = TAILQ_FIRST(&p->queue);
    uint64_t still_ns = still_until_ns(p, now_ns);
    return j == NULL ? UINT64_MAX : j->due_ns > still_ns ? j->due_ns : still_ns;
}
