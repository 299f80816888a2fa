/* SPDX-License-Identifier: Apache-2.0 */
/* components_io.c - see components_io.h. */
#include "dataplane/gateway/components_io.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/gateway/components.h"
#include "dataplane/gateway/gateway.h"

void components_free(struct components *c)
{
    if (c != NULL) {
        components_deinit(c);
        free(c);
    }
}

static void counted(const struct call *call, const char *operation, const char *model,
                    const weft_result_t *result)
{
    struct gateway *g = call->exchange->gateway;
    g->figures.waiting--;
    figures_answer(&g->figures, model, call->exchange->key, result);
    live_io_answer(g, model, result);
    trace_io_answer(call, operation, model, result);
}

/* One of its calls is over; is it of use to anybody still? */
static bool call_end(struct call *call)
{
    struct exchange *x = call->exchange;
    call->request = NULL;
    x->live--;
    if (x->connection == NULL) {
        if (x->live == 0) {
            exchange_free(x);
        }
        return false;
    }
    return x->error.http_status == 0;
}

/* The answer, or why there is none; the others are given up. */
static void finish(struct exchange *x)
{
    if (x->error.http_status != 0) {
        exchange_refuse(x, &x->error);
        exchange_cancel(x);
    } else {
        exchange_answer(x, MHD_HTTP_OK, "application/json");
    }
    server_wake(x);
}

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    const struct call *call = user;
    (void)req;
    components_text(call->exchange->components, text, len);
}

static void on_decoded(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct call *call = user;
    struct exchange *x = call->exchange;
    (void)req;
    counted(call, "chat", x->components->decode.query.model, result);
    if (!call_end(call)) {
        return;
    }
    if (result->status != 0) {
        error_of_result(&x->error, result);
    } else {
        components_write(x->components, result, x->id, &x->answer);
    }
    finish(x);
}

static void submit(struct exchange *x, weft_query_t *query, weft_text_fn text, weft_done_fn done)
{
    struct call *call = &x->calls[x->next];
    struct trace_told told;
    *call = (struct call){.exchange = x, .index = x->next};
    trace_io_submit(x, call, &told, query);
    int rc = weft_submit(x->gateway->client, query, text, done, call, &call->request);
    if (rc != 0) {
        error_of_status(&x->error, rc);
        return;
    }
    x->next++;
    x->live++;
    x->gateway->figures.waiting++;
}

static void decode_begin(struct exchange *x)
{
    weft_query_t query;
    if (components_decode(x->components, &query, &x->error)) {
        query.max_tokens =
            query.max_tokens != 0 ? query.max_tokens : x->gateway->options.default_max_tokens;
        query.seed = x->components->decode.has_seed ? query.seed : rng_next(&x->gateway->rng);
        submit(x, &query, on_text, on_decoded);
    }
    if (x->error.http_status != 0) {
        finish(x);
    }
}

static void on_vector(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct call *call = user;
    struct exchange *x = call->exchange;
    struct components *c = x->components;
    size_t count;
    const float *vector = weft_embedding(req, &count);
    bool good = result->status == 0 && components_vector(c, call->index, vector, count, result);
    counted(call, "embeddings", c->encode.query.model, result);
    if (!call_end(call)) {
        return;
    }
    if (!good) {
        weft_result_t failed = *result;
        failed.status = failed.status != 0 ? failed.status : WEFT_E_WORKER_FAILED;
        error_of_result(&x->error, &failed);
        finish(x);
    } else if (x->live == 0) {
        decode_begin(x);
    }
}

void components_run(struct exchange *x)
{
    if (!x->gateway->options.components) {
        error_set(&x->error, MHD_HTTP_NOT_IMPLEMENTED, "invalid_request_error", "experimental",
                  false, "Components at different nodes are an experiment that is off here.");
        exchange_refuse(x, &x->error);
        return;
    }
    x->components = calloc(1, sizeof(*x->components));
    x->calls = calloc(COMPONENTS_CALLS_MAX, sizeof(*x->calls));
    if (x->components == NULL || x->calls == NULL) {
        error_of_status(&x->error, -ENOMEM);
    } else if (components_read(x->components, buf_len(&x->body) != 0 ? x->body.data : "",
                               buf_len(&x->body), &x->error)) {
        x->state = EXCHANGE_ASKING;
        for (uint32_t i = 0; i < x->components->texts && x->error.http_status == 0; i++) {
            weft_query_t query = components_encode(x->components, i);
            submit(x, &query, NULL, on_vector);
        }
    }
    if (x->error.http_status != 0) {
        finish(x);
    }
}
