/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - an HTTP request asks the mesh through the SDK; see gateway.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane/gateway/gateway.h"
#include "schemas/base/clock.h"

/* ---- the SDK's callbacks ---- */

static void calls_cancel(struct exchange *x)
{
    for (uint32_t i = 0; i < x->next; i++) {
        if (x->calls[i].request != NULL) {
            weft_cancel(x->calls[i].request);
        }
    }
}

static void calls_hold(struct exchange *x, bool hold)
{
    x->held = hold;
    x->gateway->figures.held += hold;
    for (uint32_t i = 0; i < x->next; i++) {
        if (x->calls[i].request != NULL) {
            weft_hold(x->calls[i].request, hold);
        }
    }
}

/* ---- cascades: two are asked, one answers ---- */

static enum cascade_side side_of(const struct call *call)
{
    return call == &call->exchange->calls[CASCADE_DRAFT] ? CASCADE_DRAFT : CASCADE_BETTER;
}

/* Is it open who answers? */
static bool is_open(const struct exchange *x)
{
    return x->draft != NULL && x->draft->cascade.taken == CASCADE_OPEN;
}

/* Where that call's answer goes; NULL: another was taken. */
static struct reply *reply_of(const struct call *call)
{
    struct exchange *x = call->exchange;
    if (x->draft == NULL) {
        return &x->reply;
    }
    if (is_open(x)) {
        return side_of(call) == CASCADE_DRAFT ? &x->draft->reply : &x->reply;
    }
    return side_of(call) == x->draft->cascade.taken ? &x->reply : NULL;
}

/* Takes one of the two when it is known which, and ends the other. */
static void draft_settle(struct exchange *x)
{
    if (!is_open(x) || cascade_settle(&x->draft->cascade) == CASCADE_OPEN) {
        return;
    }
    enum cascade_side taken = x->draft->cascade.taken;
    const struct call *loser = &x->calls[taken == CASCADE_DRAFT ? CASCADE_BETTER : CASCADE_DRAFT];
    if (taken == CASCADE_DRAFT) {
        struct reply better = x->reply;
        x->reply = x->draft->reply;
        x->draft->reply = better;
        x->request.query.model = x->request.cascade;
        x->downgraded++;
    }
    if (loser->request != NULL) {
        weft_cancel(loser->request);
    }
}

/* Whose client is still there: else nobody is asked. */
static bool is_cascade(const struct exchange *x)
{
    return x->request.cascade[0] != '\0' && !x->peer->gone;
}

static uint32_t calls_most(const struct exchange *x)
{
    return is_cascade(x) ? 2 : x->reply.count;
}

static bool draft_init(struct exchange *x)
{
    struct draft *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return false;
    }
    d->request = api_draft(&x->request);
    if (!reply_init(&d->reply, &d->request, x->id, x->reply.created_s)) {
        free(d);
        return false;
    }
    d->cascade.whole = x->request.query.end_to_end;
    d->cascade.taken = CASCADE_OPEN;
    x->draft = d;
    return true;
}

static void draft_free(struct exchange *x)
{
    if (x->draft != NULL) {
        reply_deinit(&x->draft->reply);
        free(x->draft);
    }
}

/* There may be something to send now. */
static void reply_look(struct exchange *x)
{
    if (x->connection == NULL || is_open(x)) {
        return;
    }
    if (x->reply.out.failed && !x->reply.failed) {
        struct api_error error;
        error_of_status(&error, WEFT_E_MESH_FULL);
        reply_fail(&x->reply, &error);
    }
    if (x->reply.failed) {
        calls_cancel(x);
    }
    if (buf_len(&x->reply.out) > GATEWAY_HOLD_BYTES && !x->held && !x->reply.ended) {
        calls_hold(x, true);
    }
    if (x->reply.head) {
        if (x->state == EXCHANGE_ASKING) {
            x->state = EXCHANGE_SENDING;
            x->status = x->reply.failed ? x->reply.error.http_status : MHD_HTTP_OK;
        }
        server_wake(x);
    }
}

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct call *call = user;
    struct exchange *x = call->exchange;
    if (x->first_ns == 0) {
        x->first_ns = clock_now_ns();
        x->gateway->figures.waiting--;
        x->gateway->figures.running++;
    }
    struct reply *reply = reply_of(call);
    if (x->connection != NULL && !x->turning && reply != NULL) {
        size_t count;
        const weft_logprob_t *logprobs = weft_text_logprobs(req, &count);
        reply_text(reply, call->index, text, len, logprobs, count);
        if (is_open(x)) {
            x->draft->cascade.answers[side_of(call)].begun = true;
            draft_settle(x);
        }
        reply_look(x);
    }
}

/* Its last call is over. */
static void figures_leave(struct exchange *x)
{
    struct figures *f = &x->gateway->figures;
    f->running -= x->first_ns != 0;
    f->waiting -= x->first_ns == 0;
}

/* A whole embedding is there, or what came is none. */
static weft_result_t vector_take(struct exchange *x, uint32_t choice, const weft_request_t *req,
                                 const weft_result_t *result)
{
    size_t count;
    const float *vector = weft_embedding(req, &count);
    weft_result_t taken = *result;
    if (result->status == 0 && vector != NULL) {
        reply_vector(&x->reply, choice, vector, count);
    } else if (result->status == 0) {
        taken.status = WEFT_E_WORKER_FAILED;
    }
    return taken;
}

/* A budget for the whole answer is the mesh's business alone. */
static struct figures_slo slo_of(const struct api_request *r)
{
    return (struct figures_slo){r->query.end_to_end ? 0 : r->query.budget_ms, r->tpot_ms};
}

static void calls_submit(struct exchange *x);

/* ---- other models, where the client allows them ---- */

/* Refused as a whole, before anything of an answer has come: another model may be asked. */
static bool may_turn(const struct exchange *x, const weft_result_t *result)
{
    bool refused =
        result->finish == WEFT_FINISH_REFUSED &&
        (result->status == WEFT_E_UNKNOWN_MODEL || result->status == WEFT_E_NO_CAPABLE_NODE ||
         result->status == WEFT_E_BUDGET_INFEASIBLE || result->status == WEFT_E_MESH_FULL);
    return refused && !x->reply.head && !x->reply.ended && x->connection != NULL &&
           x->downgraded < x->request.downgrade_count;
}

/* All that was asked is over. */
static void turn(struct exchange *x)
{
    x->turning = false;
    x->request.query.model = x->request.downgrades[x->downgraded++];
    x->next = 0;
    x->first_ns = 0;
    reply_restart(&x->reply);
    calls_submit(x);
}

/* An answer is there, or what it failed of. */
static void answer_end(struct call *call, const weft_result_t *result)
{
    struct exchange *x = call->exchange;
    reply_done(reply_of(call), call->index, result);
    if (is_open(x)) {
        x->draft->cascade.answers[side_of(call)].done = true;
        x->draft->cascade.answers[side_of(call)].failed = result->status != 0;
        draft_settle(x);
    }
}

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct call *call = user;
    struct exchange *x = call->exchange;
    weft_result_t taken =
        x->request.kind == API_EMBEDDING ? vector_take(x, call->index, req, result) : *result;
    result = &taken;
    call->request = NULL;
    x->live--;
    figures_answer(&x->gateway->figures, call->model, x->key, result);
    figures_slo(&x->gateway->figures, call->model, slo_of(&x->request), result);
    live_io_answer(x->gateway, call->model, result);
    trace_io_answer(call, trace_io_operation(x), call->model, result);
    if (!x->turning && may_turn(x, result)) {
        x->turning = true;
        calls_cancel(x);
    }
    if (!x->turning && reply_of(call) != NULL) {
        answer_end(call, result);
        calls_submit(x);
    }
    if (x->live == 0) {
        figures_leave(x);
    }
    if (x->turning && x->live == 0 && x->connection != NULL) {
        turn(x);
    }
    reply_look(x);
    if (x->connection == NULL && x->live == 0) {
        exchange_free(x);
    }
}

/* ---- asking ---- */

static enum MHD_Result header_take(void *user, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct exchange *x = user;
    (void)kind;
    if (x->error.http_status == 0) {
        (void)api_header(&x->request, name, value != NULL ? value : "", &x->error);
    }
    return x->error.http_status == 0 ? MHD_YES : MHD_NO;
}

/* What the client left open: its own random numbers, and a length that fits most contexts. */
static void request_complete(struct exchange *x)
{
    weft_query_t *query = &x->request.query;
    if (!x->request.has_seed) {
        query->seed = rng_next(&x->gateway->rng);
    }
    if (query->max_tokens == 0) {
        query->max_tokens = x->gateway->options.default_max_tokens;
    }
}

/* The next call, for that answer. False: it could not be made, and its reply has failed. */
static bool call_submit(struct exchange *x, const struct api_request *request, uint32_t choice)
{
    struct call *call = &x->calls[x->next];
    weft_query_t query = api_query(request, choice);
    struct trace_told told;
    *call = (struct call){.exchange = x, .index = choice, .model = query.model};
    trace_io_submit(x, call, &told, &query);
    int rc = weft_submit(x->gateway->client, &query, on_text, on_done, call, &call->request);
    if (rc != 0) {
        struct api_error error;
        error_of_status(&error, rc);
        reply_fail(reply_of(call), &error);
        return false;
    }
    x->next++;
    x->live++;
    return true;
}

/* Both of a cascade. */
static void draft_submit(struct exchange *x)
{
    struct cascade_answer *answers = x->draft->cascade.answers;
    if (call_submit(x, &x->request, 0)) {
        answers[CASCADE_DRAFT].failed = !call_submit(x, &x->draft->request, 0);
    } else { /* for a reason that is the other's, too */
        answers[CASCADE_BETTER].failed = answers[CASCADE_DRAFT].failed = true;
    }
    x->gateway->figures.waiting += x->live > 0;
    draft_settle(x);
}

/* As many as may be under way at a time; the others follow as these end. */
static void calls_submit(struct exchange *x)
{
    bool first = x->next == 0;
    while (x->next < x->reply.count && x->live < GATEWAY_CALLS_MAX && !x->reply.ended &&
           x->connection != NULL && !x->peer->gone && call_submit(x, &x->request, x->next)) {
    }
    x->gateway->figures.waiting += first && x->live > 0;
    if (x->live == 0 && !x->reply.ended) { /* its end was told before, and is not told again */
        struct api_error error;
        error_set(&error, MHD_HTTP_BAD_REQUEST, "invalid_request_error", "client_gone", false,
                  "The client closed its side of the connection before there was an answer.");
        reply_fail(&x->reply, &error);
    }
}

static bool format_is_fine(struct exchange *x)
{
    weft_query_t query = api_query(&x->request, 0);
    return query.format == WEFT_FORMAT_NONE || x->gateway->check_format == NULL ||
           x->gateway->check_format(&query, &x->error);
}

bool exchange_read(struct exchange *x, enum api_kind kind, const char *body, size_t len)
{
    bool good = api_read(&x->request, kind, body, len, &x->error);
    if (good) {
        MHD_get_connection_values(x->connection, MHD_HEADER_KIND, header_take, x);
        good = x->error.http_status == 0 && api_check(&x->request, &x->error);
        good = good && format_is_fine(x);
    }
    if (good) {
        request_complete(x);
    }
    return good;
}

void exchange_ask(struct exchange *x, enum api_kind kind)
{
    bool good =
        exchange_read(x, kind, buf_len(&x->body) != 0 ? x->body.data : "", buf_len(&x->body));
    buf_deinit(&x->body); /* it lives on as JSON */
    if (!good) {
        exchange_refuse(x, &x->error);
        return;
    }
    x->inference = reply_init(&x->reply, &x->request, x->id, (uint64_t)time(NULL));
    x->calls = x->inference ? calloc(calls_most(x), sizeof(*x->calls)) : NULL;
    if (x->calls == NULL || (is_cascade(x) && !draft_init(x))) {
        error_of_status(&x->error, -ENOMEM);
        exchange_refuse(x, &x->error);
        return;
    }
    x->state = EXCHANGE_ASKING;
    x->asked_model = x->request.query.model;
    x->asked_ns = clock_now_ns();
    if (x->draft != NULL) {
        draft_submit(x);
    } else {
        calls_submit(x);
    }
    reply_look(x);
}

void exchange_cancel(struct exchange *x)
{
    if (x->live > 0) {
        calls_cancel(x);
    }
}

void exchange_drained(struct exchange *x)
{
    if (x->held && buf_len(&x->reply.out) < GATEWAY_UNHOLD_BYTES) {
        calls_hold(x, false);
    }
}

void exchange_free(struct exchange *x)
{
    live_io_leave(x);
    realtime_free(x->realtime);
    components_free(x->components);
    LIST_REMOVE(x, link);
    x->gateway->figures.open--;
    if (x->inference) {
        reply_deinit(&x->reply);
    }
    draft_free(x);
    free(x->calls);
    api_deinit(&x->request);
    buf_deinit(&x->body);
    buf_deinit(&x->answer);
    free(x);
}
