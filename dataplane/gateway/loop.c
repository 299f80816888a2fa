/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - one thread waits on one epoll set: the SDK, the HTTP library, the census, signals, and
 * the ends of clients. See gateway.h.
 */
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/tls.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define EVENTS_MAX 256
#define STOP_NS    (10 * NS_PER_S) /* what is being answered may still end */

int gateway_loop_watch(struct gateway *g, enum watch_kind kind, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &g->watches[kind]};
    return epoll_ctl(g->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static void peer_gone(struct peer *p)
{
    p->gone = true;
    if (p->exchange != NULL) {
        exchange_cancel(p->exchange);
        if (p->exchange->state != EXCHANGE_READING) {
            server_wake(p->exchange); /* the library finds the end by itself */
        }
    }
}

static void stop_begin(struct gateway *g)
{
    uint64_t now_ns = clock_now_ns();
    LOG_INFO("stopping open=%u", (unsigned)g->figures.open);
    g->stop_ns = g->stopping ? now_ns : now_ns + STOP_NS; /* the second time: at once */
    g->stopping = true;
}

static void reload(const struct gateway *g)
{
    const struct gateway_options *o = &g->options;
    if (o->tls_cert != NULL && tls_load(o->tls_cert, o->tls_key) == 0) {
        LOG_INFO("certificate read again path=%s", o->tls_cert);
    }
}

static void signal_take(struct gateway *g)
{
    struct signalfd_siginfo info;
    if (read(g->signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return;
    }
    if (info.ssi_signo == SIGHUP) {
        reload(g);
    } else {
        stop_begin(g);
    }
}

/* Those who wait for the census hear of it, whether it was answered or not. */
static void census_tell(struct gateway *g)
{
    struct exchange *x;
    LIST_FOREACH(x, &g->exchanges, link)
    {
        if (x->state == EXCHANGE_COUNTING && x->connection != NULL) {
            server_wake(x);
        }
    }
}

static bool census_wanted(struct gateway *g)
{
    if (live_io_wanted(g)) {
        return true;
    }
    if (!g->counting) {
        return false; /* the usual case: not all streams are looked at each turn */
    }
    const struct exchange *x;
    LIST_FOREACH(x, &g->exchanges, link)
    {
        if (x->state == EXCHANGE_COUNTING && x->suspended) {
            return true;
        }
    }
    g->counting = false;
    return false;
}

static void census_turn(struct gateway *g)
{
    uint64_t now_ns = clock_now_ns();
    if (g->census.question.fd >= 0) {
        if (census_step(&g->census, now_ns)) {
            census_tell(g);
        }
    } else if (census_wanted(g)) {
        int fd = census_ask(&g->census, now_ns);
        if (fd < 0 || gateway_loop_watch(g, WATCH_CENSUS, fd) != 0) {
            census_tell(g); /* nobody is there to answer */
        }
    }
}

static int sooner(int a_ms, int b_ms)
{
    return a_ms < 0 ? b_ms : b_ms < 0 || a_ms < b_ms ? a_ms : b_ms;
}

static int until_ms(uint64_t due_ns)
{
    uint64_t now_ns = clock_now_ns();
    return due_ns == UINT64_MAX ? -1
           : due_ns <= now_ns   ? 0
                                : (int)((due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int wait_ms(struct gateway *g)
{
    int ms = sooner(weft_client_timeout_ms(g->client), server_timeout_ms(g));
    ms = sooner(ms, until_ms(census_due_ns(&g->census)));
    ms = sooner(ms, until_ms(live_io_due_ns(g)));
    ms = sooner(ms, until_ms(peers_io_due_ns(g)));
    ms = sooner(ms, until_ms(realtime_due_ns(g)));
    return sooner(ms, g->stopping ? until_ms(g->stop_ns) : -1);
}

static void turn(struct gateway *g)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(g->epoll, events, EVENTS_MAX, wait_ms(g));
    bool http = false;
    /* Ends of clients first: nothing is freed before the library runs. */
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->kind == WATCH_PEER) {
            peer_gone((struct peer *)(void *)watch);
        } else if (watch->kind == WATCH_SIGNAL) {
            signal_take(g);
        } else if (watch->kind == WATCH_REALTIME) {
            realtime_ready((struct realtime_io *)(void *)watch, events[i].events);
        }
        http = http || watch->kind == WATCH_HTTP;
    }
    weft_client_process(g->client);
    census_turn(g);
    live_io_turn(g, clock_now_ns());
    peers_io_turn(g, clock_now_ns());
    realtime_turn(g, clock_now_ns());
    if (http || server_timeout_ms(g) == 0) {
        server_run(g);
    }
}

void gateway_loop_run(struct gateway *g)
{
    while (!g->stopping || (g->figures.open > 0 && clock_now_ns() < g->stop_ns)) {
        turn(g);
        census_turn(g); /* the library may have brought somebody who wants it */
    }
}
