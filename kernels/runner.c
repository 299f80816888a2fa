/* SPDX-License-Identifier: Apache-2.0 */
/* See runner.h. One lock, two conditions (work to do, room for events), one eventfd. */
#include "kernels/runner.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/slice.h"

/* Steps whose events fit before the engine has to wait. */
#define QUEUE_STEPS 4u

/* Somebody waits for the runner's thread to call it. */
struct visit {
    runner_visit_fn fn;
    void *user;
    int rc;
    bool over;
    struct visit *next;
};

struct runner {
    engine_t *engine;
    int fd;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t work; /* something to compute, or the end */
    pthread_cond_t space;
    pthread_cond_t visited;
    struct visit *visits; /* the latest first */
    bool closing;
    struct engine_event *fresh; /* what a call of the engine gives */
    size_t fresh_max;
    struct engine_event *queue; /* ring; indexes run freely */
    size_t queue_max;
    size_t head;
    size_t tail;
    int coming; /* of those in `fresh`, for which there has been no room in the queue yet */
};

/* With the lock held. Who was told that nothing is left must be woken, but without the lock, or
 * would run straight into it. */
static void publish(struct runner *r, int count)
{
    bool wake = false;
    r->coming = count;
    for (int i = 0; i < count; i++) {
        while (r->head - r->tail == r->queue_max && !r->closing) {
            (void)eventfd_write(r->fd, 1);
            pthread_cond_wait(&r->space, &r->lock);
        }
        if (r->closing)
            return;
        wake = wake || r->head == r->tail;
        r->queue[r->head++ % r->queue_max] = r->fresh[i];
        r->coming--;
    }
    if (wake) {
        pthread_mutex_unlock(&r->lock);
        (void)eventfd_write(r->fd, 1);
        pthread_mutex_lock(&r->lock);
    }
}

/* With the lock held. */
static void receive_visits(struct runner *r)
{
    if (!r->visits)
        return;
    for (struct visit *v = r->visits; v; v = v->next) {
        v->rc = r->closing ? -ECANCELED : v->fn(r->engine, v->user);
        v->over = true;
    }
    r->visits = NULL;
    pthread_cond_broadcast(&r->visited);
}

static void *runner_main(void *arg)
{
    struct runner *r = arg;
    slice_usual();
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->closing && !r->visits && !engine_busy(r->engine))
            pthread_cond_wait(&r->work, &r->lock);
        receive_visits(r);
        if (r->closing)
            break;
        publish(r, engine_plan(r->engine, clock_now_ns(), r->fresh, r->fresh_max));
        pthread_mutex_unlock(&r->lock);
        engine_run(r->engine, clock_now_ns());
        pthread_mutex_lock(&r->lock);
        publish(r, engine_settle(r->engine, r->fresh, r->fresh_max));
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

int runner_create(runner_t **out, engine_t *engine)
{
    *out = NULL;
    struct runner *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->engine = engine;
    r->fresh_max = engine_events_max(engine);
    r->queue_max = QUEUE_STEPS * r->fresh_max;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_cond_init(&r->space, NULL);
    pthread_cond_init(&r->visited, NULL);
    r->fresh = calloc(r->fresh_max, sizeof(*r->fresh));
    r->queue = calloc(r->queue_max, sizeof(*r->queue));
    r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = !r->fresh || !r->queue ? -ENOMEM : r->fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = -pthread_create(&r->thread, NULL, runner_main, r);
    r->started = rc == 0;
    if (rc) {
        runner_destroy(r);
        return rc;
    }
    *out = r;
    return 0;
}

void runner_destroy(runner_t *runner)
{
    if (!runner)
        return;
    if (runner->started) {
        pthread_mutex_lock(&runner->lock);
        runner->closing = true;
        engine_cancel_all(runner->engine, clock_now_ns());
        pthread_cond_signal(&runner->work);
        pthread_cond_signal(&runner->space);
        pthread_mutex_unlock(&runner->lock);
        pthread_join(runner->thread, NULL);
    }
    if (runner->fd >= 0)
        close(runner->fd);
    pthread_cond_destroy(&runner->visited);
    pthread_cond_destroy(&runner->space);
    pthread_cond_destroy(&runner->work);
    pthread_mutex_destroy(&runner->lock);
    free(runner->queue);
    free(runner->fresh);
    free(runner);
}

int runner_submit(runner_t *runner, const struct engine_request *request)
{
    pthread_mutex_lock(&runner->lock);
    const int rc = engine_submit(runner->engine, request, clock_now_ns());
    pthread_mutex_unlock(&runner->lock);
    if (rc == 0)
        pthread_cond_signal(&runner->work);
    return rc;
}

int runner_cancel(runner_t *runner, uint64_t id)
{
    pthread_mutex_lock(&runner->lock);
    const int rc = engine_cancel(runner->engine, id, clock_now_ns());
    pthread_mutex_unlock(&runner->lock);
    return rc;
}

void runner_cancel_all(runner_t *runner)
{
    pthread_mutex_lock(&runner->lock);
    engine_cancel_all(runner->engine, clock_now_ns());
    pthread_mutex_unlock(&runner->lock);
}

void runner_load(runner_t *runner, struct engine_load *out)
{
    pthread_mutex_lock(&runner->lock);
    engine_load(runner->engine, clock_now_ns(), out);
    pthread_mutex_unlock(&runner->lock);
}

int runner_fd(const runner_t *runner)
{
    return runner->fd;
}

size_t runner_take(runner_t *runner, struct engine_event *events, size_t capacity)
{
    struct runner *r = runner;
    eventfd_t wakes;
    size_t count = 0;
    /* First, so that what comes from here on wakes again. */
    (void)eventfd_read(r->fd, &wakes);
    pthread_mutex_lock(&r->lock);
    while (count < capacity && r->tail != r->head)
        events[count++] = r->queue[r->tail++ % r->queue_max];
    const bool left = r->tail != r->head;
    pthread_mutex_unlock(&r->lock);
    if (count)
        pthread_cond_signal(&r->space);
    if (left)
        (void)eventfd_write(r->fd, 1);
    return count;
}

int runner_visit(runner_t *runner, runner_visit_fn fn, void *user)
{
    struct visit visit = {.fn = fn, .user = user};
    pthread_mutex_lock(&runner->lock);
    if (runner->closing) {
        pthread_mutex_unlock(&runner->lock);
        return -ECANCELED;
    }
    visit.next = runner->visits;
    runner->visits = &visit;
    pthread_cond_signal(&runner->work);
    while (!visit.over)
        pthread_cond_wait(&runner->visited, &runner->lock);
    pthread_mutex_unlock(&runner->lock);
    return visit.rc;
}

uint32_t runner_known(runner_t *runner, const uint32_t *tokens, uint32_t count)
{
    pthread_mutex_lock(&runner->lock);
    const uint32_t known = engine_chain_known(runner->engine, tokens, count);
    pthread_mutex_unlock(&runner->lock);
    return known;
}

void runner_wake(runner_t *runner)
{
    (void)eventfd_write(runner->fd, 1);
}

bool runner_is_idle(runner_t *runner)
{
    pthread_mutex_lock(&runner->lock);
    const bool idle =
        !engine_busy(runner->engine) && runner->coming <= 0 && runner->head == runner->tail;
    pthread_mutex_unlock(&runner->lock);
    return idle;
}
