/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - weft/client.h over the state machine of dataplane/flow/request.h: opens requests,
 * keeps their time, runs callbacks. client_io.c has the socket. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dataplane/client/client_impl.h"

static int client_random(void *out, size_t len)
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
    c->epoll = c->socket = c->wake = -1;
    STAILQ_INIT(&c->ready);
    uint64_t random[2]; /* connection id, key of the table */
    int rc = client_random(random, sizeof(random));
    if (rc == 0) {
        request_conn_init(&c->conn, random[0], (uint32_t)opts->connect_tries,
                          opts->stall_timeout_ms * NS_PER_MS);
        rc = table_init(&c->table, CLIENT_OPEN_MAX, random[1]);
    }
    rc = rc == 0 ? timers_init(&c->timers, CLIENT_OPEN_MAX) : rc;
    rc = rc == 0 ? client_io_open(c, opts->node) : rc;
    if (rc != 0) {
        weft_client_destroy(c);
        return rc;
    }
    *client = c;
    return 0;
}

static void client_free(struct weft_request *req)
{
    struct weft_client *c = req->client;
    timers_set(&c->timers, &req->timer, TIMER_NEVER);
    table_remove(&c->table, &req->node);
    request_deinit(&req->core);
    free(req);
}

void weft_client_destroy(weft_client_t *c)
{
    if (c == NULL) {
        return;
    }
    uint64_t now_ns = clock_now_ns();
    c->processing = true;
    for (uint32_t i = 0; c->table.buckets != NULL && i <= c->table.mask; i++) {
        for (struct table_node *n = c->table.buckets[i]; n != NULL; n = n->next) {
            struct weft_request *req = (struct weft_request *)(void *)n;
            req->reported = true;
            request_cancel(&req->core, now_ns);
            request_tick(&req->core, &c->conn, now_ns);
            client_step(req, now_ns);
        }
    }
    if (c->socket >= 0) {
        client_io_flush(c, now_ns); /* best effort: a worker that is not told notices by itself */
    }
    for (uint32_t i = 0; c->table.buckets != NULL && i <= c->table.mask; i++) {
        while (c->table.buckets[i] != NULL) {
            client_free((struct weft_request *)(void *)c->table.buckets[i]);
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
    if (c->refused || (!c->blocked && !STAILQ_EMPTY(&c->ready))) {
        return 0;
    }
    uint64_t due_ns = timers_due_ns(&c->timers);
    if (c->blocked) {
        return 1; /* the socket's buffer empties on its own */
    }
    if (due_ns == TIMER_NEVER) {
        return -1;
    }
    uint64_t now_ns = clock_now_ns();
    uint64_t ms = due_ns > now_ns ? (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* After any input: callbacks, then into the queue of those that may have something to send. */
void client_step(struct weft_request *req, uint64_t now_ns)
{
    struct weft_client *c = req->client;
    struct request_text text;
    while (request_event(&req->core, &text, now_ns)) {
        if (req->text != NULL && !req->reported) {
            req->text(req, text.data, text.len, req->user);
        }
    }
    if (req->core.ended && !req->reported) {
        req->reported = true;
        req->done(req, &req->core.result, req->user);
    }
    if (!req->ready) {
        req->ready = true;
        STAILQ_INSERT_TAIL(&c->ready, req, ready_link);
    }
}

/* All was sent: sleep until the next deadline, or go. */
void client_settle(struct weft_request *req)
{
    struct weft_client *c = req->client;
    if (request_closed(&req->core)) {
        request_bury(&req->core, &c->conn);
        client_free(req);
        return;
    }
    timers_set(&c->timers, &req->timer, request_due_ns(&req->core));
}

static void client_tick(struct weft_client *c, uint64_t now_ns)
{
    while (timers_due_ns(&c->timers) <= now_ns) {
        struct timer *t = timers_first(&c->timers);
        struct weft_request *req =
            (struct weft_request *)(void *)((char *)t - offsetof(struct weft_request, timer));
        timers_set(&c->timers, t, TIMER_NEVER); /* set again by client_settle() */
        request_tick(&req->core, &c->conn, now_ns);
        client_step(req, now_ns);
    }
}

/* The node's host says that nobody listens there. Rare, so a walk over all is fine. */
static void client_refuse(struct weft_client *c, uint64_t now_ns)
{
    c->refused = false;
    for (uint32_t i = 0; i <= c->table.mask; i++) {
        for (struct table_node *n = c->table.buckets[i]; n != NULL; n = n->next) {
            struct weft_request *req = (struct weft_request *)(void *)n;
            request_refused(&req->core, now_ns);
            if (req->core.ended && !req->reported) {
                client_step(req, now_ns);
            }
        }
    }
}

int weft_client_process(weft_client_t *c)
{
    if (!c->asking && atomic_load(&c->interrupted)) {
        client_interrupt_clear(c); /* nothing to interrupt; do not stay readable */
    }
    c->processing = true;
    client_io_receive(c, clock_now_ns());
    uint64_t now_ns = clock_now_ns();
    client_tick(c, now_ns);
    client_io_flush(c, now_ns);
    if (c->refused) {
        client_refuse(c, now_ns);
        client_io_flush(c, now_ns);
    }
    c->processing = false;
    return (int)c->table.count;
}

int weft_submit(weft_client_t *c, const weft_query_t *query, weft_text_fn text, weft_done_fn done,
                void *user, weft_request_t **out)
{
    if (done == NULL) {
        return -EINVAL;
    }
    if (c->table.count == CLIENT_OPEN_MAX) {
        return -EAGAIN;
    }
    struct weft_req_hdr hdr;
    uint8_t *body = NULL;
    uint32_t body_len = 0;
    int rc = query_encode(query, &hdr, &body, &body_len);
    if (rc != 0) {
        return rc;
    }
    struct weft_request *req = calloc(1, sizeof(*req));
    if (req == NULL) {
        free(body);
        return -ENOMEM;
    }
    if (c->next_seq == UINT32_MAX) { /* a connection's numbers never repeat */
        uint64_t conn_id = 0;
        rc = client_random(&conn_id, sizeof(conn_id));
        if (rc != 0) {
            free(body);
            free(req);
            return rc;
        }
        c->conn.conn_id = conn_id;
        c->conn.cookie = 0;
        c->next_seq = 0;
    }
    hdr.req_seq = ++c->next_seq;
    uint64_t now_ns = clock_now_ns();
    request_init(&req->core, &c->conn, &hdr, body, body_len, query->budget_ms * NS_PER_MS, now_ns);
    req->node.conn_id = c->conn.conn_id;
    req->node.req_seq = hdr.req_seq;
    req->client = c;
    req->text = text;
    req->done = done;
    req->user = user;
    table_add(&c->table, &req->node);
    client_step(req, now_ns);
    if (out != NULL) {
        *out = req;
    }
    if (!c->processing) {
        client_io_flush(c, now_ns);
    }
    return 0;
}

void weft_cancel(weft_request_t *req)
{
    request_cancel(&req->core, clock_now_ns());
    if (!req->ready) {
        timers_set(&req->client->timers, &req->timer, request_due_ns(&req->core));
    }
}
