/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - see loop.h. */
#include "controlplane/loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/log.h"

/* Both queues hold all that can be in flight (a poll and a removal of each watch). */
#define RING_ENTRIES (2 * LOOP_WATCHES_MAX)
#define EVENTS_BATCH 64u
#define WAIT_MAX_NS  (60 * NS_PER_S)
/* user_data of requests whose completion says nothing. */
#define DATA_NONE UINT64_MAX

enum watch_state {
    WATCH_FREE,
    WATCH_IDLE,  /* wanted, no poll in flight: in its callback, or at rest */
    WATCH_ARMED, /* a poll is in flight */
    WATCH_DYING, /* not wanted; its poll's completion is still to come */
};

struct watch {
    enum watch_state state;
    int fd;
    unsigned events;
    loop_fd_fn fn;
    void *user;
    uint64_t rest_ns; /* not armed until then; 0 = not at rest */
    bool starved;     /* its last accept found no descriptor */
};

struct timer {
    loop_timer_fn fn; /* NULL = no such timer */
    void *user;
    uint64_t at_ns; /* 0 = not armed */
    uint64_t period_ns;
};

struct loop {
    struct io_uring ring;
    struct watch watches[LOOP_WATCHES_MAX];
    struct timer timers[LOOP_TIMERS_MAX];
    uint64_t rest_ns; /* when the next watch has rested; 0 = none rests */
    _Atomic bool stop;
    int stop_fd;
};

static void stop_wake(int fd, void *user)
{
    uint64_t count;
    (void)user;
    /* Level-triggered: emptied so that it does not fire for ever. */
    ssize_t got = read(fd, &count, sizeof(count));
    (void)got;
}

int loop_create(struct loop **out)
{
    *out = NULL;
    struct loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return -ENOMEM;
    }
    loop->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->stop_fd < 0) {
        int rc = -errno;
        free(loop);
        return rc;
    }
    int rc = io_uring_queue_init(RING_ENTRIES, &loop->ring, 0);
    if (rc == 0 && (loop->ring.features & IORING_FEAT_EXT_ARG) == 0) {
        io_uring_queue_exit(&loop->ring);
        rc = -ENOSYS;
    }
    if (rc < 0) {
        LOG_ERROR("io_uring cannot be used error=%d hint=\"needs Linux 5.11 or newer, sysctl "
                  "kernel.io_uring_disabled=0, and a seccomp profile that allows io_uring\"",
                  -rc);
        close(loop->stop_fd);
        free(loop);
        return rc;
    }
    rc = loop_watch(loop, loop->stop_fd, POLLIN, stop_wake, NULL);
    if (rc < 0) {
        loop_destroy(loop);
        return rc;
    }
    *out = loop;
    return 0;
}

void loop_destroy(struct loop *loop)
{
    if (loop != NULL) {
        io_uring_queue_exit(&loop->ring);
        close(loop->stop_fd);
        free(loop);
    }
}

/* A submission entry; a full queue is handed to the kernel first, which always empties it. */
static struct io_uring_sqe *sqe_get(struct loop *loop)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
    while (sqe == NULL) {
        (void)io_uring_submit(&loop->ring);
        sqe = io_uring_get_sqe(&loop->ring);
    }
    return sqe;
}

static void watch_arm(struct loop *loop, struct watch *watch)
{
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_poll_add(sqe, watch->fd, watch->events);
    sqe->user_data = (uint64_t)(watch - loop->watches);
    watch->state = WATCH_ARMED;
}

static struct watch *watch_find(struct loop *loop, int fd)
{
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        struct watch *watch = &loop->watches[i];
        if (watch->fd == fd && (watch->state == WATCH_IDLE || watch->state == WATCH_ARMED)) {
            return watch;
        }
    }
    return NULL;
}

int loop_watch(struct loop *loop, int fd, unsigned events, loop_fd_fn fn, void *user)
{
    if (fcntl(fd, F_GETFD) < 0) {
        return -EBADF;
    }
    if (watch_find(loop, fd) != NULL) {
        return -EEXIST;
    }
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        struct watch *watch = &loop->watches[i];
        if (watch->state == WATCH_FREE) {
            *watch = (struct watch){.fd = fd, .events = events, .fn = fn, .user = user};
            watch_arm(loop, watch);
            return 0;
        }
    }
    return -ENOSPC;
}

void loop_unwatch(struct loop *loop, int fd)
{
    struct watch *watch = watch_find(loop, fd);
    if (watch == NULL) {
        return;
    }
    if (watch->state == WATCH_IDLE) {
        watch->state = WATCH_FREE;
        return;
    }
    watch->state = WATCH_DYING;
    struct io_uring_sqe *sqe = sqe_get(loop);
    io_uring_prep_poll_remove(sqe, (uint64_t)(watch - loop->watches));
    sqe->user_data = DATA_NONE;
    /* Now, not at the next wait: the poll names the descriptor by number until it is submitted, and
     * holds the file open until it is removed. */
    (void)io_uring_submit(&loop->ring);
}

/* ---- accepting ---- */

/* In place of the poll that would follow its callback. */
static void watch_rest(struct loop *loop, struct watch *watch)
{
    watch->rest_ns = clock_now_ns() + LOOP_REST_NS;
    if (loop->rest_ns == 0 || watch->rest_ns < loop->rest_ns) {
        loop->rest_ns = watch->rest_ns;
    }
}

static void rests_run(struct loop *loop, uint64_t now_ns)
{
    if (loop->rest_ns == 0 || now_ns < loop->rest_ns) {
        return;
    }
    loop->rest_ns = 0;
    for (unsigned i = 0; i < LOOP_WATCHES_MAX; i++) {
        struct watch *watch = &loop->watches[i];
        if (watch->rest_ns > now_ns) {
            bool first = loop->rest_ns == 0 || watch->rest_ns < loop->rest_ns;
            loop->rest_ns = first ? watch->rest_ns : loop->rest_ns;
        } else if (watch->rest_ns != 0) {
            watch->rest_ns = 0;
            if (watch->state == WATCH_IDLE) {
                watch_arm(loop, watch);
            }
        }
    }
}

int loop_accept(struct loop *loop, int listen_fd)
{
    struct watch *watch = watch_find(loop, listen_fd);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int rc = fd >= 0 ? fd : -errno;
    bool starved = rc == -EMFILE || rc == -ENFILE || rc == -ENOBUFS || rc == -ENOMEM;
    if (watch == NULL) {
        return rc;
    }
    if (starved && !watch->starved) {
        LOG_WARN("who connects has to wait: %s", strerror(-rc));
    }
    if (starved) {
        watch_rest(loop, watch);
    }
    watch->starved = starved || (watch->starved && rc < 0);
    return rc;
}

/* ---- timers ---- */

int loop_timer_add(struct loop *loop, loop_timer_fn fn, void *user)
{
    for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
        if (loop->timers[i].fn == NULL) {
            loop->timers[i] = (struct timer){.fn = fn, .user = user};
            return (int)i;
        }
    }
    return -ENOSPC;
}

void loop_timer_remove(struct loop *loop, int timer)
{
    if (timer >= 0) {
        loop->timers[timer] = (struct timer){.fn = NULL};
    }
}

void loop_timer_arm(struct loop *loop, int timer, uint64_t at_ns, uint64_t period_ns)
{
    loop->timers[timer].at_ns = at_ns != 0 ? at_ns : 1;
    loop->timers[timer].period_ns = period_ns;
}

void loop_timer_disarm(struct loop *loop, int timer)
{
    loop->timers[timer].at_ns = 0;
}

static void timers_run(struct loop *loop, uint64_t now_ns)
{
    for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
        struct timer *timer = &loop->timers[i];
        if (timer->at_ns == 0 || timer->at_ns > now_ns) {
            continue;
        }
        if (timer->period_ns == 0) {
            timer->at_ns = 0;
        } else {
            uint64_t missed = (now_ns - timer->at_ns) / timer->period_ns;
            timer->at_ns += (missed + 1) * timer->period_ns;
        }
        timer->fn(now_ns, timer->user);
    }
}

static uint64_t timers_wait_ns(const struct loop *loop, uint64_t now_ns)
{
    uint64_t wait_ns = WAIT_MAX_NS;
    if (loop->rest_ns != 0) {
        wait_ns = loop->rest_ns > now_ns ? loop->rest_ns - now_ns : 0;
    }
    for (unsigned i = 0; i < LOOP_TIMERS_MAX; i++) {
        uint64_t at_ns = loop->timers[i].at_ns;
        if (at_ns != 0) {
            uint64_t left_ns = at_ns > now_ns ? at_ns - now_ns : 0;
            wait_ns = left_ns < wait_ns ? left_ns : wait_ns;
        }
    }
    return wait_ns;
}

/* ---- running ---- */

static void event_handle(struct loop *loop, uint64_t data, int result)
{
    if (data >= LOOP_WATCHES_MAX) {
        return;
    }
    struct watch *watch = &loop->watches[data];
    if (watch->state == WATCH_DYING) {
        watch->state = WATCH_FREE;
        return;
    }
    if (result < 0) {
        LOG_ERROR("descriptor cannot be watched any more fd=%d error=%d", watch->fd, -result);
        watch->state = WATCH_FREE;
        return;
    }
    watch->state = WATCH_IDLE;
    watch->fn(watch->fd, watch->user);
    /* The callback may have unwatched it, and the place may even have been taken by another watch,
     * which is then armed already. */
    if (watch->state == WATCH_IDLE && watch->rest_ns == 0) {
        watch_arm(loop, watch);
    }
}

/* Handles what has completed; takes it out of the ring first, callbacks may submit. */
static void events_run(struct loop *loop)
{
    struct io_uring_cqe *cqes[EVENTS_BATCH];
    uint64_t data[EVENTS_BATCH];
    int results[EVENTS_BATCH];
    unsigned count = io_uring_peek_batch_cqe(&loop->ring, cqes, EVENTS_BATCH);
    for (unsigned i = 0; i < count; i++) {
        data[i] = cqes[i]->user_data;
        results[i] = cqes[i]->res;
    }
    io_uring_cq_advance(&loop->ring, count);
    for (unsigned i = 0; i < count; i++) {
        event_handle(loop, data[i], results[i]);
    }
}

int loop_run(struct loop *loop)
{
    while (!atomic_exchange(&loop->stop, false)) {
        struct io_uring_cqe *cqe;
        uint64_t wait_ns = timers_wait_ns(loop, clock_now_ns());
        struct __kernel_timespec timeout = {
            .tv_sec = (long long)(wait_ns / NS_PER_S),
            .tv_nsec = (long long)(wait_ns % NS_PER_S),
        };
        int rc = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, &timeout, NULL);
        if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
            LOG_ERROR("event loop cannot wait error=%d", -rc);
            return rc;
        }
        events_run(loop);
        rests_run(loop, clock_now_ns());
        timers_run(loop, clock_now_ns());
    }
    return 0;
}

void loop_stop(struct loop *loop)
{
    int saved = errno; /* a signal handler must leave it alone */
    uint64_t one = 1;
    atomic_store(&loop->stop, true);
    ssize_t put = write(loop->stop_fd, &one, sizeof(one));
    (void)put; /* full: it is readable already */
    errno = saved;
}
