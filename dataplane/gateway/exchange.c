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

/* There may be something to send now. */
static void reply_look(struct exchange *x)
{
    if (x->connection == NULL) {
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
    if (x->connection != NULL && !x->turning) {
        size_t count;
        const weft_logprob_t *logprobs = weft_text_logprobs(req, &count);
        reply_text(&x->reply, call->index, text, len, logprobs, count);
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

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct call *call = user;
    struct exchange *x = call->exchange;
    weft_result_t taken =
        x->request.kind == API_EMBEDDING ? vector_take(x, call->index, req, result) : *result;
    result = &taken;
    call->request = NULL;
    x->live--;
    figures_answer(&x->gateway->figures, x->request.query.model, x->key, result);
    figures_slo(&x->gateway->figures, x->request.query.model, slo_of(&x->request), result);
    live_io_answer(x->gateway, x->request.query.model, result);
    trace_io_answer(call, trace_io_operation(x), x->request.query.model, result);
    if (!x->turning && may_turn(x, result)) {
        x->turning = true;
        calls_cancel(x);
    }
    if (!x->turning) {
        reply_done(&x->reply, call->index, result);
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

/* As many as may be under way at a time; the others follow as these end. */
static void calls_submit(struct exchange *x)
{
    bool first = x->next == 0;
    while (x->next < x->reply.count && x->live < GATEWAY_CALLS_MAX && !x->reply.ended &&
           x->connection != NULL && !x->peer->gone) {
        struct call *call = &x->calls[x->next];
        weft_query_t query = api_query(&x->request, x->next);
        struct trace_told told;
        *call = (struct call){.exchange = x, .index = x->next};
        trace_io_submit(x, call, &told, &query);
        int rc = weft_submit(x->gateway->client, &query, on_text, on_done, call, &call->request);
        if (rc != 0) {
            struct api_error error;
            error_of_status(&error, rc);
            reply_fail(&x->reply, &error);
            break;
        }
        x->next++;
        x->live++;
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
    x->calls = x->inference ? calloc(x->reply.count, sizeof(*x->calls)) : NULL;
    if (x->calls == NULL) {
        error_of_status(&x->error, -ENOMEM);
        exchange_refuse(x, &x->error);
        return;
    }
    x->state = EXCHANGE_ASKING;
    x->asked_model = x->request.query.model;
    x->asked_ns = clock_now_ns();
    calls_submit(x);
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
    free(x->calls);
    api_deinit(&x->request);
    buf_deinit(&x->body);
    buf_deinit(&x->answer);
    free(x);
}
