/* SPDX-License-Identifier: Apache-2.0 */
/* routes.c - the paths of the API and what answers them; see gateway.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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
                      : g->census.path != NULL && g->census.status == NULL
                          ? census_error(&g->census)
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
bool exchange_census(struct exchange *x)
{
    const struct census *c = &x->gateway->census;
    if (c->path == NULL || c->status != NULL) {
        return true;
    }
    char text[256];
    snprintf(text, sizeof(text), "The node does not answer: %s.", census_error(c));
    error_set(&x->error, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "node_unreachable", true,
              text);
    exchange_refuse(x, &x->error);
    return false;
}

static void models_list(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    if (exchange_census(x)) {
        models_write_list(g->census.status, g->options.models, g->started_s, &x->answer);
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    }
}

static void models_one(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    if (!exchange_census(x)) {
        return;
    }
    if (models_write_one(g->census.status, g->options.models, x->tail, g->started_s, &x->answer)) {
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    } else {
        error_of_status(&x->error, WEFT_E_UNKNOWN_MODEL);
        exchange_refuse(x, &x->error);
    }
}

/* ---- figures and questions ---- */

static void metrics(struct exchange *x)
{
    trace_io_count(x->gateway);
    figures_write(&x->gateway->figures, x->gateway->census.status, &x->answer);
    live_write_metrics(&x->gateway->live.live, &x->answer);
    exchange_answer(x, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8");
}

static void usage(struct exchange *x)
{
    figures_write_usage(&x->gateway->figures, x->gateway->started_s, &x->answer);
    exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
}

/* Where would it go? Nothing is sent. */
static void route_query(struct exchange *x)
{
    const struct gateway *g = x->gateway;
    if (g->census.path == NULL) {
        error_set(&x->error, MHD_HTTP_NOT_IMPLEMENTED, "server_error", "no_admin_socket", false,
                  "The gateway knows no admin socket to ask (--admin).");
        exchange_refuse(x, &x->error);
    }
    if (g->census.path == NULL || !exchange_census(x)) {
        return;
    }
    json_t *question = json_loadb(x->body.data, buf_len(&x->body), 0, NULL);
    json_t *answer = question != NULL ? g->dry_run(question, g->census.status, &x->error) : NULL;
    char *text = json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (question == NULL) {
        error_bad(&x->error, NULL, "The body is no valid JSON.");
    } else if (text == NULL && x->error.http_status == 0) {
        error_of_status(&x->error, -ENOMEM);
    }
    if (text != NULL) {
        buf_add_text(&x->answer, text);
        exchange_answer(x, MHD_HTTP_OK, JSON_TYPE);
    } else {
        exchange_refuse(x, &x->error);
    }
    free(text);
    json_decref(question);
    json_decref(answer);
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

static void embedding(struct exchange *x)
{
    exchange_ask(x, API_EMBEDDING);
}

static void response(struct exchange *x)
{
    exchange_ask(x, API_RESPONSE);
}

/* ---- the table ---- */

static const struct route routes[] = {
    {.method = "GET", .path = "/", .open = true, .handle = dashboard_send},
    {.method = "GET", .path = "/dashboard/", .tail = true, .open = true, .handle = dashboard_send},
    {.method = "GET", .path = "/v1/live", .census = true, .handle = live_io_watch},
    {.method = "GET", .path = "/health", .open = true, .handle = health},
    {.method = "GET", .path = "/ready", .open = true, .census = true, .handle = ready},
    {.method = "GET", .path = "/metrics", .open = true, .census = true, .handle = metrics},
    {.method = "GET", .path = "/v1/models", .census = true, .handle = models_list},
    {.method = "GET", .path = "/v1/models/", .tail = true, .census = true, .handle = models_one},
    {.method = "POST", .path = "/v1/components/run", .handle = components_run},
    {.method = "GET", .path = "/v1/realtime", .handle = realtime_open},
    {.method = "GET", .path = "/v1/usage", .handle = usage},
    {.method = "GET", .path = "/v1/peers", .census = true, .handle = peers_answer},
    {.method = "POST", .path = "/v1/peers/register", .handle = peers_register},
    {.method = "DELETE", .path = "/v1/peers/", .tail = true, .handle = peers_remove},
    {.method = "GET", .path = "/v1/compute/peers", .census = true, .handle = services_list},
    {.method = "POST", .path = "/v1/compute/peers", .handle = services_register},
    {.method = "DELETE", .path = "/v1/compute/peers/", .tail = true, .handle = services_remove},
    {.method = "POST", .path = "/v1/route", .census = true, .handle = route_query},
    {.method = "POST", .path = "/v1/chat/completions", .handle = chat},
    {.method = "POST", .path = "/v1/completions", .handle = completion},
    {.method = "POST", .path = "/v1/responses", .handle = response},
    {.method = "POST", .path = "/v1/embeddings", .handle = embedding},
};
#define ROUTES (sizeof(routes) / sizeof(routes[0]))

/* A path that is named is never read as one with a tail. */
static bool path_is_named(const char *path)
{
    for (size_t i = 0; i < ROUTES; i++) {
        if (!routes[i].tail && strcmp(path, routes[i].path) == 0) {
            return true;
        }
    }
    return false;
}

static bool path_fits(const struct route *route, const char *path, bool named)
{
    size_t len = strlen(route->path);
    return route->tail ? !named && strncmp(path, route->path, len) == 0 && path[len] != '\0'
                       : strcmp(path, route->path) == 0;
}

/* The path of a target in absolute form, which servers have to take (RFC 9112, 3.2.2). */
static const char *path_of(const char *target)
{
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    const char *path = scheme != 0 ? strchr(target + scheme, '/') : target;
    return path != NULL ? path : "/";
}

bool route_find(struct exchange *x, const char *method, const char *target)
{
    const char *path = path_of(target);
    bool path_known = false;
    bool named = path_is_named(path);
    x->head = strcmp(method, "HEAD") == 0;
    const char *wanted = x->head ? "GET" : method;
    for (size_t i = 0; i < ROUTES; i++) {
        const struct route *route = &routes[i];
        if (!path_fits(route, path, named)) {
            continue;
        }
        path_known = true;
        size_t len = strlen(x->allow);
        snprintf(x->allow + len, sizeof(x->allow) - len, "%s%s", len != 0 ? ", " : "",
                 route->method);
        if (strcmp(route->method, wanted) == 0) {
            x->route = route;
            x->allow[0] = '\0';
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
