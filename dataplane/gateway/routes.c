/* SPDX-License-Identifier: Apache-2.0 */
/* routes.c - the paths of the API and what answers them; see gateway.h. */
#include <stdio.h>
#include <string.h>

#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/models.h"

#define JSON_TYPE "application/json"

void exchange_answer(struct exchange *x, int status, const char *content_type)
{
    x->status = status;
    x->content_type = content_type;
    x->state = EXCHANGE_SENDING;
}

void exchange_refuse(struct exchange *x, const struct api_error *error)
{
    if (error != &x->error) {
        x->error = *error;
    }
    buf_deinit(&x->answer);
    error_write(&x->error, &x->answer);
    exchange_answer(x, x->error.http_status, JSON_TYPE);
}

/* ---- is it there? ---- */

static void health(struct exchange *x)
{
    buf_add_text(&x->answer, "{\"status\":\"ok\"}\n");
    exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
}

/* Ready: not about to stop, and the node next to it answers (if there is a way to ask). */
static void ready(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    const char *why = g->stopping ? "the gateway is stopping"
                      : g->census.path != NULL && g->census.status == NULL ? g->census.error
                                                                           : "";
    buf_add_text(&x->answer, "{\"status\":");
    buf_add_quoted(&x->answer, why[0] == '\0' ? "ready" : "not ready");
    if (why[0] != '\0') {
        buf_add_text(&x->answer, ",\"reason\":");
        buf_add_quoted(&x->answer, why);
    }
    buf_add_text(&x->answer, "}\n");
    exchange_answer(x, why[0] == '\0' ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, JSON_TYPE);
}

/* ---- models ---- */

/* Whoever can be asked must be asked: an empty list would be a lie. */
static bool census_known(struct exchange *x)
{
    const struct census *c = &x->gateway->census;
    if (c->path == NULL || c->status != NULL) {
        return true;
    }
    char text[256];
    snprintf(text, sizeof(text), "The node does not answer: %s.", c->error);
    error_set(&x->error, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "node_unreachable", true,
              text);
    exchange_refuse(x, &x->error);
    return false;
}

static void models_list(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    if (census_known(x)) {
        models_write_list(g->census.status, g->options.models, g->started_s, &x->answer);
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    }
}

static void models_one(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    if (!census_known(x)) {
        return;
    }
    if (models_write_one(g->census.status, g->options.models, x->tail, g->started_s, &x->answer)) {
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    } else {
        error_of_status(&x->error, WEFT_E_UNKNOWN_MODEL);
        exchange_refuse(x, &x->error);
    }
}

/* ---- inference ---- */

static void chat(struct exchange *x)
{
    exchange_ask(x, API_CHAT);
}

static void completion(struct exchange *x)
{
    exchange_ask(x, API_COMPLETION);
}

static void response(struct exchange *x)
{
    exchange_ask(x, API_RESPONSE);
}

/* ---- the table ---- */

static const struct route routes[] = {
    {"GET", "/health", false, false, health},
    {"GET", "/ready", false, true, ready},
    {"GET", "/v1/models", false, true, models_list},
    {"GET", "/v1/models/", true, true, models_one},
    {"POST", "/v1/chat/completions", false, false, chat},
    {"POST", "/v1/completions", false, false, completion},
    {"POST", "/v1/responses", false, false, response},
};
#define ROUTES (sizeof(routes) / sizeof(routes[0]))

static bool path_fits(const struct route *route, const char *path)
{
    size_t len = strlen(route->path);
    return route->tail ? strncmp(path, route->path, len) == 0 && path[len] != '\0'
                       : strcmp(path, route->path) == 0;
}

bool route_find(struct exchange *x, const char *method, const char *path)
{
    bool path_known = false;
    x->head = strcmp(method, "HEAD") == 0;
    const char *wanted = x->head ? "GET" : method;
    for (size_t i = 0; i < ROUTES; i++) {
        const struct route *route = &routes[i];
        if (!path_fits(route, path)) {
            continue;
        }
        path_known = true;
        if (strcmp(route->method, wanted) == 0) {
            x->route = route;
            snprintf(x->tail, sizeof(x->tail), "%s", path + strlen(route->path));
            return true;
        }
    }
    char text[256];
    snprintf(text, sizeof(text), path_known ? "%s is not for %s." : "There is no %s %s.",
             path_known ? path : method, path_known ? method : path);
    error_set(&x->error, path_known ? MHD_HTTP_METHOD_NOT_ALLOWED : MHD_HTTP_NOT_FOUND,
              "invalid_request_error", path_known ? "method_not_allowed" : "unknown_url", false,
              text);
    return false;
}
