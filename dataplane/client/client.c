/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - weft/client.h: opens requests, carries out what their streams decide, runs callbacks,
 * keeps time. attempt.c has what is on the wire, client_io.c the sockets. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dataplane/client/client_impl.h"

int client_random(void *out, size_t len)
{
    ssize_t got = getrandom(out, len, 0);
    return got == (ssize_t)len ? 0 : -EIO;
}

int weft_client_create(weft_client_t **client, const weft_client_opts_t *opts)
{
    *client = NULL;
    if (opts->node == NULL || opts->connect_tries > UINT32_MAX) {
        return -EINVAL;
    }
    struct weft_client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return -ENOMEM;
    }
    c->epoll = c->wake = -1;
    LIST_INIT(&c->requests);
    uint64_t random[2]; /* connection id, key of the table */
    int rc = client_random(random, sizeof(random));
    rc = rc == 0 ? table_init(&c->table, CLIENT_OPEN_MAX, random[1]) : rc;
    /* Each request has a timer besides those of its attempts. */
    rc = rc == 0 ? timers_init(&c->timers, CLIENT_ATTEMPTS_MAX + CLIENT_OPEN_MAX) : rc;
    rc = rc == 0 ? client_io_open(c, opts->node) : rc;
    if (rc != 0) {
        weft_client_destroy(c);
        return rc;
    }
    stream_policy_init(&c->policy, c->path_count);
    for (uint32_t i = 0; i < c->path_count; i++) {
        request_conn_init(&c->paths[i].conn, random[0], (uint32_t)opts->connect_tries,
                          opts->stall_timeout_ms * NS_PER_MS);
        c->paths[i].conn.others = c->path_count > 1;
    }
    *client = c;
    return 0;
}

static void client_request_free(struct weft_request *req)
{
    LIST_REMOVE(req, open_link);
    req->client->open--;
    timers_set(&req->client->timers, &req->timer.timer, TIMER_NEVER);
    stream_deinit(&req->stream);
    free(req->body);
    free(req->resumed);
    free(req->embedding);
    free(req);
}

void weft_client_destroy(weft_client_t *c)
{
    if (c == NULL) {
        return;
    }
    uint64_t now_ns = clock_now_ns();
    c->processing = true;
    while (!LIST_EMPTY(&c->requests)) {
        struct weft_request *req = LIST_FIRST(&c->requests);
        for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
            if (req->attempts[i] != NULL) {
                attempt_give_up(req->attempts[i], now_ns);
            }
        }
        client_request_free(req);
    }
    if (c->paths != NULL) {
        client_io_flush(c, now_ns); /* best effort: a worker that is not told notices by itself */
    }
    for (uint32_t i = 0; c->table.buckets != NULL && i <= c->table.mask; i++) {
        while (c->table.buckets[i] != NULL) {
            attempt_free((struct client_attempt *)(void *)c->table.buckets[i]);
        }
    }
    client_io_close(c);
    timers_deinit(&c->timers);
    table_deinit(&c->table);
    free(c);
}

int weft_client_fd(const weft_client_t *c)
{
    return c->epoll;
}

int weft_client_timeout_ms(const weft_client_t *c)
{
    bool blocked = false;
    for (uint32_t i = 0; i < c->path_count; i++) {
        const struct client_path *path = &c->paths[i];
        if (path->refused || (!path->blocked && !STAILQ_EMPTY(&path->ready)) ||
            (path->portal != NULL && path->portal->more)) {
            return 0;
        }
        blocked = blocked || path->blocked;
    }
    if (blocked) {
        return 1; /* a socket's buffer, a ring empties on its own */
    }
    uint64_t due_ns = timers_due_ns(&c->timers);
    if (due_ns == TIMER_NEVER) {
        return -1;
    }
    uint64_t now_ns = clock_now_ns();
    uint64_t ms = due_ns > now_ns ? (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static void client_order(struct weft_request *req, const struct stream_order *order,
                         uint64_t now_ns)
{
    if (order->kind == STREAM_CANCEL) {
        if (req->attempts[order->attempt] != NULL) {
            attempt_give_up(req->attempts[order->attempt], now_ns);
        }
        return;
    }
    weft_result_t result = {.status = attempt_start(req, order, now_ns)};
    if (result.status != 0) {
        stream_over(&req->stream, &req->client->policy, order->attempt, &result, now_ns);
    }
}

void client_follow(struct weft_request *req, uint64_t now_ns)
{
    if (req->following) {
        return; /* attempt_start() steps its attempt: the loop below goes on */
    }
    struct stream_order order;
    req->following = true;
    while (stream_next(&req->stream, &order)) {
        client_order(req, &order, now_ns);
    }
    req->following = false;
    if (req->stream.ended) {
        req->done(req, &req->stream.result, req->user);
        client_request_free(req);
        return;
    }
    timers_set(&req->client->timers, &req->timer.timer, stream_due_ns(&req->stream));
}

static void client_tick(struct weft_client *c, uint64_t now_ns)
{
    while (timers_due_ns(&c->timers) <= now_ns) {
        struct timer *t = timers_first(&c->timers);
        struct client_timer *due = (struct client_timer *)(void *)t;
        timers_set(&c->timers, t, TIMER_NEVER); /* set again by whoever it belongs to */
        if (due->is_attempt) {
            struct client_attempt *a =
                (struct client_attempt *)(void *)((char *)due -
                                                  offsetof(struct client_attempt, timer));
            request_tick(&a->core, &a->path->conn, now_ns);
            attempt_step(a, now_ns);
        } else {
            struct weft_request *req =
                (struct weft_request *)(void *)((char *)due - offsetof(struct weft_request, timer));
            stream_tick(&req->stream, &c->policy, now_ns);
            client_follow(req, now_ns);
        }
    }
}

/* The node's host says that nobody listens there. Rare, so a walk over all is fine. */
static void client_refuse(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    path->refused = false;
    struct weft_request *req = LIST_FIRST(&c->requests);
    while (req != NULL) {
        struct weft_request *next = LIST_NEXT(req, open_link); /* this one may be freed */
        for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
            struct client_attempt *a = req->attempts[i];
            if (a != NULL && a->path == path) {
                request_refused(&a->core);
                if (a->core.ended) {
                    attempt_step(a, now_ns);
                    break;
                }
            }
        }
        req = next;
    }
}

/* The client was away for `late_ns`, until now: it must not take the others for silent. */
static void client_late(struct weft_client *c, uint64_t late_ns, uint64_t now_ns)
{
    if (late_ns < CLIENT_LATE_NS) {
        return;
    }
    for (uint32_t i = 0; i < c->path_count; i++) {
        request_conn_late(&c->paths[i].conn, late_ns);
    }
    struct weft_request *req;
    LIST_FOREACH(req, &c->requests, open_link)
    {
        for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
            if (req->attempts[i] != NULL) {
                request_late(&req->attempts[i]->core, late_ns, now_ns);
            }
        }
    }
}

/* How long a machine or a program has let the client wait. */
static uint64_t client_waited_ns(const struct weft_client *c, uint64_t now_ns)
{
    uint64_t due_ns = timers_due_ns(&c->timers);
    due_ns = due_ns > c->processed_ns ? due_ns : c->processed_ns;
    return now_ns > due_ns ? now_ns - due_ns : 0;
}

int weft_client_process(weft_client_t *c)
{
    if (!c->asking && atomic_load(&c->interrupted)) {
        client_interrupt_clear(c); /* nothing to interrupt; do not stay readable */
    }
    c->processing = true;
    uint64_t begin_ns = clock_now_ns();
    client_late(c, client_waited_ns(c, begin_ns), begin_ns);
    client_io_receive(c, begin_ns);
    uint64_t now_ns = clock_now_ns();
    client_late(c, now_ns - begin_ns, now_ns); /* callbacks may take their time */
    client_tick(c, now_ns);
    client_io_flush(c, now_ns);
    for (uint32_t i = 0; i < c->path_count; i++) {
        if (c->paths[i].refused) {
            client_refuse(c, &c->paths[i], now_ns);
            client_io_flush(c, now_ns);
        }
    }
    client_io_rest(c);
    c->processed_ns = clock_now_ns();
    c->processing = false;
    return (int)c->open;
}

int weft_submit(weft_client_t *c, const weft_query_t *query, weft_text_fn text, weft_done_fn done,
                void *user, weft_request_t **out)
{
    if (done == NULL) {
        return -EINVAL;
    }
    if (c->open == CLIENT_OPEN_MAX) {
        return -EAGAIN;
    }
    struct weft_request *req = calloc(1, sizeof(*req));
    if (req == NULL) {
        return -ENOMEM;
    }
    int rc = query_encode(query, &c->homes, &req->hdr, &req->body, &req->body_len);
    if (rc != 0) {
        free(req);
        return rc;
    }
    req->prefix = prompt_prefix(req->hdr.model, req->body, req->body_len);
    uint64_t now_ns = clock_now_ns();
    req->client = c;
    req->text = text;
    req->done = done;
    req->user = user;
    req->end_to_end = query->end_to_end;
    req->deadline_ns = query->budget_ms != 0 ? now_ns + query->budget_ms * NS_PER_MS : 0;
    LIST_INSERT_HEAD(&c->requests, req, open_link);
    c->open++;
    stream_init(&req->stream, &c->policy, query->hedge, query->once, now_ns);
    /* The first attempt by hand: if it cannot be opened, the caller hears of it, not `done`. */
    struct stream_order order;
    (void)stream_next(&req->stream, &order);
    req->following = true;
    rc = attempt_start(req, &order, now_ns);
    req->following = false;
    if (rc != 0) {
        client_request_free(req);
        return rc;
    }
    timers_set(&c->timers, &req->timer.timer, stream_due_ns(&req->stream));
    if (out != NULL) {
        *out = req;
    }
    if (!c->processing) {
        client_io_flush(c, now_ns);
    }
    return 0;
}

const weft_logprob_t *weft_text_logprobs(const weft_request_t *req, size_t *count)
{
    *count = req->logprob_count;
    return req->logprob_count != 0 ? req->logprobs : NULL;
}

const float *weft_embedding(const weft_request_t *req, size_t *count)
{
    *count = req->embedding != NULL ? req->embedding_count : 0;
    return req->embedding;
}

void weft_hold(weft_request_t *req, bool hold)
{
    uint64_t now_ns = clock_now_ns();
    req->held = hold;
    for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
        struct client_attempt *a = req->attempts[i];
        if (a != NULL) {
            request_hold(&a->core, hold, now_ns);
            timers_set(&req->client->timers, &a->timer.timer, now_ns); /* steps it */
        }
    }
}

void weft_cancel(weft_request_t *req)
{
    uint64_t now_ns = clock_now_ns();
    stream_cancel(&req->stream, now_ns);
    timers_set(&req->client->timers, &req->timer.timer, now_ns); /* reports, if nothing is live */
    for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
        struct client_attempt *a = req->attempts[i];
        if (a != NULL) {
            request_cancel(&a->core, now_ns);
            if (!a->ready) {
                timers_set(&req->client->timers, &a->timer.timer, request_due_ns(&a->core));
            }
        }
    }
}
