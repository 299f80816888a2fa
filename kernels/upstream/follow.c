/* SPDX-License-Identifier: Apache-2.0 */
/* follow.c - see follow.h. */
#include "kernels/upstream/follow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/registry.h"
#include "schemas/base/log.h"

#define WHY_MAX 128u

struct follow {
    struct follow_options options;
    struct served *served;
    struct http *http;
    struct http_peer *peer;
    struct http_call *call; /* under way; NULL = none */
    bool asks_node;         /* it is for what the node promises */
    bool waits;             /* for a port, to know the node */
    bool told_silence;      /* the registry's, to the log */
    char node[32];          /* whose promise it is; "" = none is known */
    struct registry_promise promise;
    uint64_t due_ns;
    uint64_t node_due_ns;
    char nodes_url[WHERE_URL_MAX + 32];
    char services_url[WHERE_URL_MAX + 32];
    int status; /* of the answer that comes */
    size_t len;
    char *text; /* FOLLOW_LIST_MAX bytes */
    struct registry_service services[REGISTRY_MAX];
    char models[REGISTRY_MODELS_MAX][REGISTRY_MODEL_MAX];
};

int follow_create(struct follow **out, const struct follow_options *options, struct served *served)
{
    struct follow *f = calloc(1, sizeof(*f));
    *out = f;
    if (!f)
        return -ENOMEM;
    f->options = *options;
    f->served = served;
    f->text = malloc(FOLLOW_LIST_MAX);
    const char *base = options->registry->base;
    (void)snprintf(f->nodes_url, sizeof(f->nodes_url), "%s/peers", base);
    (void)snprintf(f->services_url, sizeof(f->services_url), "%s/compute/peers", base);
    int rc = f->text ? http_create(&f->http, options->local_only) : -ENOMEM;
    if (rc == 0)
        rc = http_peer_create(&f->peer, options->key[0] ? options->key : NULL,
                              options->ca_path[0] ? options->ca_path : NULL);
    if (rc) {
        follow_destroy(f);
        *out = NULL;
    }
    return rc;
}

void follow_destroy(struct follow *f)
{
    if (!f)
        return;
    http_cancel(f->call);
    http_peer_destroy(f->peer);
    http_destroy(f->http);
    free(f->text);
    free(f);
}

/* ---- what is taken ---- */

/* Why not; NULL: it is. `why` has room for a sentence. */
static const char *objection(const struct follow *f, const struct registry_service *service,
                             struct endpoint_config *config, char why[WHY_MAX])
{
    if (f->node[0] && !registry_keeps(&service->promise, &f->promise))
        return "it promises less than the node does";
    if (where_parse(&config->where, service->url, why, WHY_MAX))
        return why;
    if (strcmp(config->where.base, f->options.registry->base) == 0)
        return "it is the registry";
    if (!where_allowed(f->options.allowed, &config->where, NULL))
        return WHERE_VARIABLE " forbids it";
    return NULL;
}

static void service_take(struct follow *f, const struct served_model *model,
                         const struct registry_service *service)
{
    struct endpoint_config config = {.name = ""};
    const struct endpoint_told told = {
        .told = service->told,
        .room = service->room,
        .queue_us = service->queue_us,
        .age_s = service->age_s,
    };
    char sentence[WHY_MAX];
    const char *why = objection(f, service, &config, sentence);
    (void)snprintf(config.model, sizeof(config.model), "%s", model->name);
    if (!why && relay_put(model->relay, service->id, &config, &told) == -ENOSPC)
        why = "there are too many";
    if (why)
        LOG_DEBUG("registered service %s is not used: %s", service->url, why);
}

static void model_take(struct follow *f, const struct served_model *model)
{
    size_t count;
    if (registry_services(f->text, f->len, model->name, f->services, REGISTRY_MAX, &count))
        return;
    relay_mark(model->relay);
    for (size_t i = 0; i < count; i++)
        service_take(f, model, &f->services[i]);
    relay_sweep(model->relay);
}

static bool fits(const struct registry_service *service, void *user)
{
    struct endpoint_config config = {.name = ""};
    char sentence[WHY_MAX];
    return !objection(user, service, &config, sentence);
}

/* Which node it is, only a port tells: for that the first model is attached, without anybody to ask
 * and so without room, before it is known what has to be promised. */
static void services_take(struct follow *f, uint64_t now_ns)
{
    size_t count;
    if (f->options.all &&
        registry_models(f->text, f->len, fits, f, f->models, REGISTRY_MODELS_MAX, &count) == 0)
        served_offer(f->served, f->models, f->node[0] || count == 0 ? count : 1, now_ns);
    for (size_t i = 0; f->node[0] && i < SERVED_MAX; i++)
        if (f->served->models[i].relay)
            model_take(f, &f->served->models[i]);
}

static void node_take(struct follow *f, uint64_t now_ns)
{
    const int rc = registry_node(f->text, f->len, f->node, &f->promise);
    f->node_due_ns = now_ns + (rc ? FOLLOW_NS : FOLLOW_NODE_NS);
    if (rc)
        f->node[0] = 0;
}

/* ---- asking ---- */

static void on_head(void *user, int status, const char *content_type)
{
    struct follow *f = user;
    (void)content_type;
    f->status = status;
}

static int on_data(void *user, const char *data, size_t len)
{
    struct follow *f = user;
    if (len > FOLLOW_LIST_MAX - f->len)
        return -EMSGSIZE;
    memcpy(f->text + f->len, data, len);
    f->len += len;
    return 0;
}

static void on_end(void *user, int status, const struct http_end *end)
{
    struct follow *f = user;
    const uint64_t now_ns = clock_now_ns();
    const bool good = status == 200 && end->whole;
    f->call = NULL;
    f->due_ns = now_ns + FOLLOW_NS;
    if (!good && !f->told_silence)
        LOG_WARN("registry %s gives no list: http=%d %s", f->options.registry->base, status,
                 end->error);
    f->told_silence = !good;
    if (good && f->asks_node) {
        node_take(f, now_ns);
        f->due_ns = f->node[0] ? now_ns : f->due_ns;
    } else if (good) {
        services_take(f, now_ns);
    }
}

void follow_tick(struct follow *f, const char *node, uint64_t now_ns)
{
    static const struct http_events events = {on_head, on_data, on_end};
    http_process(f->http, now_ns);
    if (node && strcmp(f->node, node) != 0) {
        (void)snprintf(f->node, sizeof(f->node), "%s", node);
        f->node_due_ns = 0;
    }
    f->waits = !f->node[0] && !f->options.all;
    if (f->waits || f->call || now_ns < f->due_ns)
        return;
    f->asks_node = f->node[0] && now_ns >= f->node_due_ns;
    f->len = 0;
    f->call = http_start(f->http, f->peer, f->asks_node ? f->nodes_url : f->services_url, NULL,
                         NULL, FOLLOW_TIMEOUT_MS, &events, f);
    f->due_ns = now_ns + FOLLOW_NS;
}

int follow_fd(const struct follow *f)
{
    return http_fd(f->http);
}

int follow_timeout_ms(const struct follow *f, uint64_t now_ns)
{
    const int http_ms = http_timeout_ms(f->http, now_ns);
    if (f->call || f->waits)
        return http_ms;
    const int ms = f->due_ns > now_ns ? (int)((f->due_ns - now_ns) / NS_PER_MS + 1) : 0;
    return http_ms >= 0 && http_ms < ms ? http_ms : ms;
}
