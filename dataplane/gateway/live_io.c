/* SPDX-License-Identifier: Apache-2.0 */
/* live_io.c - see live_io.h. */
#include "dataplane/gateway/live_io.h"

#include <time.h>

#include "dataplane/gateway/gateway.h"
#include "schemas/base/clock.h"

static uint64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

static struct live_sources sources_of(const struct gateway *g, uint64_t now_ns)
{
    const struct census *c = &g->census;
    return (struct live_sources){
        .live = &g->live.live,
        .figures = &g->figures,
        .status = c->status,
        .error = c->path == NULL              ? ""
                 : census_error(c)[0] != '\0' ? census_error(c)
                                              : "not asked yet",
        .status_age_ms = c->status != NULL ? (now_ns - c->known_ns) / NS_PER_MS : 0,
        .unix_ms = unix_ms(),
    };
}

void live_io_answer(struct gateway *g, const char *model, const weft_result_t *result)
{
    live_answer(&g->live.live, unix_ms(), model, result);
}

/* An event, or what stands for those that were lost, to one of them. */
static void viewer_tell(struct exchange *x, const struct live_sources *from,
                        const struct buf *event)
{
    struct buf *out = &x->reply.out;
    if (buf_len(out) > LIVE_HOLD_BYTES) {
        x->viewer.lost = true;
    } else if (x->viewer.lost && buf_len(out) == 0) {
        live_view_whole(&x->gateway->live.view, from, out);
        x->viewer.lost = false;
    } else if (!x->viewer.lost) {
        buf_add(out, event->data + event->at, buf_len(event));
    }
    server_wake(x);
}

static void tick(struct gateway *g, uint64_t now_ns)
{
    struct live_io *io = &g->live;
    struct live_sources from = sources_of(g, now_ns);
    struct buf event = {.data = NULL};
    bool changed = live_view_step(&io->view, &from, &event);
    io->tick_ns = now_ns + LIVE_TICK_NS;
    if (changed || now_ns >= io->beat_ns) {
        struct exchange *x;
        LIST_FOREACH(x, &io->viewers, viewer.link)
        {
            viewer_tell(x, &from, &event);
        }
        io->beat_ns = now_ns + LIVE_BEAT_NS;
    }
    buf_deinit(&event);
}

void live_io_watch(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (LIST_EMPTY(&g->live.viewers)) {
        live_view_reset(&g->live.view);
    }
    x->viewer.watching = true;
    tick(g, clock_now_ns());
    LIST_INSERT_HEAD(&g->live.viewers, x, viewer.link);
    x->viewer.lost = true;
    struct live_sources from = sources_of(g, clock_now_ns());
    viewer_tell(x, &from, NULL);
    exchange_answer(x, MHD_HTTP_OK, "text/event-stream; charset=utf-8");
}

void live_io_leave(struct exchange *x)
{
    if (!x->viewer.watching) {
        return;
    }
    LIST_REMOVE(x, viewer.link);
    x->viewer.watching = false;
    buf_deinit(&x->reply.out);
    if (LIST_EMPTY(&x->gateway->live.viewers)) {
        live_view_reset(&x->gateway->live.view);
    }
}

bool live_io_wanted(const struct gateway *g)
{
    return !LIST_EMPTY(&g->live.viewers);
}

void live_io_turn(struct gateway *g, uint64_t now_ns)
{
    if (g->stopping) {
        struct exchange *x;
        LIST_FOREACH(x, &g->live.viewers, viewer.link)
        {
            x->reply.ended = true;
            server_wake(x);
        }
    } else if (live_io_wanted(g) && now_ns >= g->live.tick_ns) {
        tick(g, now_ns);
    }
}

uint64_t live_io_due_ns(const struct gateway *g)
{
    return live_io_wanted(g) && !g->stopping ? g->live.tick_ns : UINT64_MAX;
}
