/* SPDX-License-Identifier: Apache-2.0 */
/* attempt.c - one request on the wire for a weft_request_t, from its opening until its worker knows
 * that it is over; see client_impl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "dataplane/client/client_impl.h"

/* A connection's numbers never repeat: a new connection before they wrap. */
static int attempt_number(struct weft_client *c, uint32_t *seq)
{
    if (c->next_seq == UINT32_MAX) {
        uint64_t conn_id = 0;
        int rc = client_random(&conn_id, sizeof(conn_id));
        if (rc != 0) {
            return rc;
        }
        for (uint32_t i = 0; i < c->path_count; i++) {
            c->paths[i].conn.conn_id = conn_id;
            c->paths[i].conn.cookie = 0;
        }
        c->next_seq = 0;
    }
    *seq = ++c->next_seq;
    return 0;
}

/* Nanoseconds left of the time budget; 0 = there is none. */
static int attempt_budget(const struct weft_request *req, uint64_t now_ns, uint64_t *budget_ns)
{
    *budget_ns = 0;
    if (req->deadline_ns == 0 || (req->stream.count != 0 && !req->end_to_end)) {
        return 0;
    }
    if (now_ns >= req->deadline_ns) {
        return WEFT_E_BUDGET_EXPIRED;
    }
    *budget_ns = req->deadline_ns - now_ns;
    return 0;
}

/* The body behind all tokens given so far. Attempts that used the one before have been given up. */
static int attempt_body(struct weft_request *req, const uint8_t **body, uint32_t *len)
{
    const struct stream *s = &req->stream;
    *body = req->body;
    *len = req->body_len;
    if (s->count == 0) {
        return 0;
    }
    free(req->resumed);
    req->resumed = prompt_resumed(req->body, req->body_len, s->tokens, s->count, &req->resumed_len);
    *body = req->resumed;
    *len = req->resumed_len;
    return req->resumed != NULL ? 0 : -ENOMEM;
}

static void attempt_begin(struct client_attempt *a, const struct stream_order *order,
                          const uint8_t *body, uint32_t body_len, uint64_t budget_ns,
                          uint64_t now_ns)
{
    struct weft_request *req = a->owner;
    struct weft_req_hdr hdr = req->hdr;
    hdr.req_seq = a->node.req_seq;
    request_init(&a->core, &a->path->conn, &hdr, body, body_len, budget_ns, now_ns);
    a->core.wanted = order->target;
    a->core.avoid_count = order->avoid_count;
    memcpy(a->core.avoid, order->avoid, sizeof(a->core.avoid));
    a->core.prefers = order->arithmetic;
    a->core.prefix = req->prefix;
    a->core.resumed = req->stream.count;
    if (req->stream.count != 0 && !req->stream.forgetful) {
        a->core.last_token = req->stream.tokens[req->stream.count - 1];
    }
    a->core.held = req->held;
    if (req->stream.failovers != 0 && a->core.tries_max > REQUEST_TRIES_AGAIN) {
        a->core.tries_max = REQUEST_TRIES_AGAIN; /* somebody waits in the middle of an answer */
    }
    a->node.conn_id = a->path->conn.conn_id;
}

int attempt_start(struct weft_request *req, const struct stream_order *order, uint64_t now_ns)
{
    struct weft_client *c = req->client;
    const uint8_t *body;
    uint32_t body_len;
    uint64_t budget_ns;
    int rc = attempt_budget(req, now_ns, &budget_ns);
    rc = rc == 0 ? attempt_body(req, &body, &body_len) : rc;
    struct client_attempt *a = rc == 0 ? calloc(1, sizeof(*a)) : NULL;
    if (rc == 0 && (a == NULL || c->table.count >= CLIENT_ATTEMPTS_MAX)) {
        rc = -ENOMEM;
    }
    rc = rc == 0 ? attempt_number(c, &a->node.req_seq) : rc;
    if (rc != 0) {
        free(a);
        return rc;
    }
    a->client = c;
    a->path = &c->paths[order->path];
    a->timer.is_attempt = true;
    a->owner = req;
    a->index = order->attempt;
    req->attempts[order->attempt] = a;
    attempt_begin(a, order, body, body_len, budget_ns, now_ns);
    table_add(&c->table, &a->node);
    attempt_step(a, now_ns);
    return 0;
}

void attempt_free(struct client_attempt *a)
{
    struct weft_client *c = a->client;
    timers_set(&c->timers, &a->timer.timer, TIMER_NEVER);
    table_remove(&c->table, &a->node);
    request_deinit(&a->core);
    free(a);
}

static void attempt_detach(struct client_attempt *a)
{
    if (a->owner != NULL) {
        a->owner->attempts[a->index] = NULL;
        a->owner = NULL;
    }
    request_forget_body(&a->core);
}

static void attempt_queue(struct client_attempt *a)
{
    if (!a->ready) {
        a->ready = true;
        STAILQ_INSERT_TAIL(&a->path->ready, a, ready_link);
    }
}

static void attempt_deliver(struct weft_request *req, struct request_text *text)
{
    if (req->text == NULL) {
        return;
    }
    req->logprob_count = 0;
    while (req->logprob_count < WEFT_LOGPROBS_MAX &&
           request_logprob(text, &req->logprobs[req->logprob_count])) {
        req->logprob_count++;
    }
    req->text(req, text->data, text->len, req->user);
    req->logprob_count = 0;
}

static void attempt_texts(struct client_attempt *a, uint64_t now_ns)
{
    struct weft_client *c = a->client;
    struct request_text text;
    while (request_event(&a->core, &text, now_ns)) {
        struct weft_request *req = a->owner; /* gone as soon as it is given up */
        if (req == NULL) {
            continue;
        }
        bool wanted = text.continued
                          ? stream_more(&req->stream, &c->policy, a->index)
                          : stream_token(&req->stream, &c->policy, a->index, text.token, now_ns);
        if (wanted) {
            stream_piece(&req->stream, a->index, text.partial);
            attempt_deliver(req, &text);
        }
    }
}

void attempt_step(struct client_attempt *a, uint64_t now_ns)
{
    struct weft_request *req = a->owner;
    if (req != NULL) {
        stream_computes(&req->stream, a->index, a->core.arithmetic);
    }
    if (req != NULL && !a->accepted && a->core.server != WEFT_NODE_NONE) {
        a->accepted = true;
        uint64_t us = (now_ns - req->stream.start_ns) / NS_PER_US;
        a->core.result.accepted_us = us != 0 ? us : 1;
        stream_accepted(&req->stream, a->index, a->core.server, a->core.alternates);
    }
    attempt_texts(a, now_ns);
    if (a->owner != NULL && a->core.suspect && !a->suspected) {
        stream_suspect(&a->owner->stream, &a->client->policy, a->index);
    }
    a->suspected = a->core.suspect;
    attempt_queue(a);
    if (req == NULL) {
        return;
    }
    if (a->core.ended) {
        if (a->core.result.status == 0) {
            homes_note(&a->client->homes, req->hdr.session, req->hdr.model, a->core.server);
        }
        if (a->core.result.status == 0 && req->embedding == NULL) {
            req->embedding = a->core.embedding;
            req->embedding_count = a->core.embedding_count;
            a->core.embedding = NULL;
        }
        attempt_detach(a);
        stream_over(&req->stream, &req->client->policy, a->index, &a->core.result, now_ns);
    }
    client_follow(req, now_ns);
}

void attempt_give_up(struct client_attempt *a, uint64_t now_ns)
{
    attempt_detach(a);
    request_cancel(&a->core, now_ns);
    request_tick(&a->core, &a->path->conn, now_ns);
    attempt_queue(a);
}

void attempt_settle(struct client_attempt *a)
{
    if (request_closed(&a->core)) {
        if (a->owner != NULL) {
            return; /* its step sees the end first */
        }
        request_bury(&a->core, &a->path->conn);
        attempt_free(a);
        return;
    }
    timers_set(&a->client->timers, &a->timer.timer, request_due_ns(&a->core));
}
