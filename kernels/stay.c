/* SPDX-License-Identifier: Apache-2.0 */
/* See stay.h. One loop over all ports, so that one that has to attach again stops none of the
 * others. */
#include "kernels/stay.h"

#include <errno.h>
#include <signal.h>

#include "schemas/base/clock.h"
#include "schemas/base/log.h"
#include "schemas/base/slice.h"

#define RETRY_FIRST_MS   100u
#define RETRY_LAST_MS    5000u
#define DRAIN_TIMEOUT_NS (30 * NS_PER_S)

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen = signals_seen + 1;
}

void stay_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- sleeping ---- */

static int sooner(int a_ms, int b_ms)
{
    if (a_ms < 0 || b_ms < 0)
        return a_ms < 0 ? b_ms : a_ms;
    return a_ms < b_ms ? a_ms : b_ms;
}

static int ms_until(uint64_t due_ns, uint64_t now_ns)
{
    return due_ns > now_ns ? (int)((due_ns - now_ns) / NS_PER_MS + 1) : 0;
}

/* Sleeps until a descriptor has something, the time is over, or a signal comes. None slips in
 * between the look and the sleep. */
static void stay_wait(const struct stay *s, int timeout_ms)
{
    struct pollfd fds[STAY_FDS_MAX + STAY_PORTS_MAX];
    size_t count = s->ops->fds(s->ops->user, fds);
    for (uint32_t i = 0; i < s->count; i++)
        if (s->ports[i].port)
            fds[count++] =
                (struct pollfd){.fd = weft_worker_fd(s->ports[i].port), .events = POLLIN};
    const struct timespec ts = {.tv_sec = timeout_ms / 1000,
                                .tv_nsec = (timeout_ms % 1000) * 1000000L};
    sigset_t none;
    sigemptyset(&none);
    (void)ppoll(fds, count, timeout_ms < 0 ? NULL : &ts, &none);
}

static int work_ms(const struct stay *s)
{
    return s->ops->timeout_ms ? s->ops->timeout_ms(s->ops->user) : -1;
}

/* Lets a pending signal in without sleeping. */
static void check_signals(struct stay *s)
{
    sigset_t pending;
    if (sigpending(&pending) == 0 &&
        (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1))
        stay_wait(s, 0);
    if (signals_seen && !s->draining) {
        s->draining = true;
        s->drain_begin_ns = clock_now_ns();
        LOG_INFO("stopping: finishing what is open; a second signal stops at once");
    }
}

/* ---- ports ---- */

static void attach(struct stay *s, uint32_t index, uint64_t now_ns)
{
    struct stay_port *p = &s->ports[index];
    const int rc = s->ops->attach(s->ops->user, index, &p->port);
    if (rc == 0) {
        LOG_INFO("attached to node %s model=%s", weft_worker_node(p->port)->name, p->model);
        p->retry_ms = RETRY_FIRST_MS;
        p->last = 0;
        return;
    }
    if (rc != p->last)
        LOG_WARN("cannot attach to %s model=%s: %s; trying on%s", s->socket_path, p->model,
                 weft_status_text(rc),
                 rc == -ENOENT || rc == -ECONNREFUSED
                     ? " hint=\"no node listens there: is weftd running, is it its sockets.port?\""
                     : "");
    p->port = NULL;
    p->last = rc;
    p->due_ns = now_ns + p->retry_ms * NS_PER_MS;
    p->retry_ms = p->retry_ms * 2 < RETRY_LAST_MS ? p->retry_ms * 2 : RETRY_LAST_MS;
}

static void detach(struct stay *s, uint32_t index)
{
    struct stay_port *p = &s->ports[index];
    if (!p->port)
        return;
    s->ops->detach(s->ops->user, index);
    weft_worker_destroy(p->port);
    p->port = NULL;
    /* A node that refuses at once must not be hammered. */
    p->due_ns = clock_now_ns() + p->retry_ms * NS_PER_MS;
}

void stay_close(struct stay *s, uint32_t index)
{
    detach(s, index);
    s->ports[index] = (struct stay_port){.retry_ms = RETRY_FIRST_MS};
}

static void attach_all(struct stay *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const uint64_t now_ns = clock_now_ns();
        if (!s->ports[i].port && s->ports[i].model && !s->draining && now_ns >= s->ports[i].due_ns)
            attach(s, i, now_ns);
    }
}

static void process_all(struct stay *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        struct stay_port *p = &s->ports[i];
        const int rc = p->port ? weft_worker_process(p->port) : 0;
        if (rc) {
            LOG_WARN("the node has gone model=%s: %s", p->model, weft_status_text(rc));
            detach(s, i);
        }
    }
}

static bool is_attached(const struct stay *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->ports[i].port)
            return true;
    return false;
}

static int next_ms(const struct stay *s)
{
    const uint64_t now_ns = clock_now_ns();
    int ms = work_ms(s);
    if (s->draining)
        ms = sooner(ms, ms_until(s->drain_begin_ns + DRAIN_TIMEOUT_NS, now_ns));
    for (uint32_t i = 0; i < s->count; i++) {
        const struct stay_port *p = &s->ports[i];
        ms = sooner(ms, p->port                    ? weft_worker_timeout_ms(p->port)
                        : s->draining || !p->model ? -1
                                                   : ms_until(p->due_ns, now_ns));
    }
    return ms;
}

/* ---- staying ---- */

/* An answer is not over when its last token is there, but when the client has it. */
static bool is_done(const struct stay *s)
{
    size_t open = 0;
    for (uint32_t i = 0; i < s->count; i++)
        open += s->ports[i].port ? weft_worker_open(s->ports[i].port) : 0;
    return open == 0 && s->ops->is_idle(s->ops->user);
}

static bool is_over(const struct stay *s)
{
    if (!s->draining)
        return false;
    return signals_seen > 1 || !is_attached(s) || is_done(s) ||
           clock_now_ns() - s->drain_begin_ns > DRAIN_TIMEOUT_NS;
}

void stay_run(struct stay *s)
{
    slice_short(); /* what has come goes on, whoever computes */
    for (uint32_t i = 0; i < s->count; i++)
        s->ports[i].retry_ms = RETRY_FIRST_MS;
    for (;;) {
        check_signals(s);
        attach_all(s);
        s->ops->work(s->ops->user); /* fresh before the ports answer with it */
        process_all(s);
        s->ops->work(s->ops->user);
        if (is_over(s))
            break;
        stay_wait(s, next_ms(s));
    }
    process_all(s); /* the last answer's end */
    for (uint32_t i = 0; i < s->count; i++)
        detach(s, i);
}

void stay_pause(struct stay *s, uint32_t ms, bool (*until)(void *user))
{
    const uint64_t end_ns = clock_now_ns() + ms * NS_PER_MS;
    for (uint64_t now_ns = clock_now_ns(); now_ns < end_ns && !signals_seen;
         now_ns = clock_now_ns()) {
        s->ops->work(s->ops->user);
        if (until && until(s->ops->user))
            return;
        stay_wait(s, sooner(ms_until(end_ns, now_ns), work_ms(s)));
    }
}
