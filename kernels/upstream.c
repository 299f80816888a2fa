/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upstream.c - weft-upstream: serves models of OpenAI-compatible HTTP servers to the node on
 * this machine. One thread has the port and the signals (stay.h) and the calls (upstream/relay.h).
 * If the node goes away it breaks off what it did for it and attaches again.
 */
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <weft/worker.h>

#include "kernels/stay.h"
#include "kernels/upstream/follow.h"
#include "kernels/upstream/relay.h"
#include "kernels/upstream/settings.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define FIRST_PROBE_MS 2000u

struct upstream {
    struct settings settings;
    struct text text;
    struct relay_options relay_options;
    struct served served;  /* each model with the port of its index */
    struct follow *follow; /* NULL = no registry */
    struct stay stay;
};

static weft_load_t load_of(const struct upstream *u, uint32_t index)
{
    weft_load_t load;
    relay_load(u->served.models[index].relay, &load);
    if (u->stay.draining) {
        load.room = 0;
        load.queue_us = UINT32_MAX;
    }
    return load;
}

static int on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    const struct served_model *model = user;
    const struct upstream *u = model->user;
    (void)port;
    return u->stay.draining ? WEFT_E_DRAINING : relay_take(model->relay, job, view);
}

static void on_cancel(weft_worker_t *port, weft_job_t *job, void *user)
{
    const struct served_model *model = user;
    (void)port;
    relay_cancel(model->relay, job);
}

/* ---- stay.h ---- */

static int attach(void *user, uint32_t index, weft_worker_t **port)
{
    struct upstream *u = user;
    const weft_load_t load = load_of(u, index);
    struct served_model *model = &u->served.models[index];
    const weft_worker_facts_t facts = {
        .model = model->name,
        .backend = "upstream",
        .context_tokens = u->settings.context,
        .prefill_per_second = load.prefill_per_second,
        .decode_per_second = load.decode_per_second,
        .can = WEFT_CAN_FORMATS | WEFT_CAN_TOOLS,
    };
    const weft_worker_callbacks_t callbacks = {
        .on_job = on_job, .on_cancel = on_cancel, .user = model};
    model->user = u;
    return weft_worker_attach(port, u->settings.port, &facts, &load, &callbacks);
}

static void detach(void *user, uint32_t index)
{
    struct upstream *u = user;
    relay_drop_all(u->served.models[index].relay);
}

/* The name of the node, if any port is attached. */
static const char *node_name(const struct upstream *u)
{
    for (uint32_t i = 0; i < u->stay.count; i++)
        if (u->stay.ports[i].port)
            return weft_worker_node(u->stay.ports[i].port)->name;
    return NULL;
}

/* Ports follow the models that there are. */
static void ports_follow(struct upstream *u, uint64_t now_ns)
{
    for (uint32_t i = 0; i < u->stay.count; i++) {
        struct served_model *model = &u->served.models[i];
        const weft_worker_t *port = u->stay.ports[i].port;
        if (served_is_over(model, now_ns) && (!port || weft_worker_open(port) == 0)) {
            stay_close(&u->stay, i);
            served_remove(model);
        }
        u->stay.ports[i].model = model->relay ? model->name : NULL;
    }
}

/* Without a node the servers' health is kept up all the same. */
static void work(void *user)
{
    struct upstream *u = user;
    if (u->follow)
        follow_tick(u->follow, node_name(u), clock_now_ns());
    ports_follow(u, clock_now_ns());
    for (uint32_t i = 0; i < u->stay.count; i++) {
        if (!u->served.models[i].relay)
            continue;
        relay_process(u->served.models[i].relay);
        const weft_load_t load = load_of(u, i);
        if (u->stay.ports[i].port)
            weft_worker_set_load(u->stay.ports[i].port, &load);
    }
}

static bool is_idle(void *user)
{
    const struct upstream *u = user;
    for (uint32_t i = 0; i < u->stay.count; i++)
        if (u->served.models[i].relay && !relay_is_idle(u->served.models[i].relay))
            return false;
    return true;
}

static bool is_known(void *user)
{
    const struct upstream *u = user;
    for (uint32_t i = 0; i < u->stay.count; i++)
        if (u->served.models[i].relay && !relay_is_known(u->served.models[i].relay))
            return false;
    return true;
}

static int timeout_ms(void *user)
{
    const struct upstream *u = user;
    int least = u->follow ? follow_timeout_ms(u->follow, clock_now_ns()) : -1;
    for (uint32_t i = 0; i < u->stay.count; i++) {
        const struct relay *relay = u->served.models[i].relay;
        const int ms = relay ? relay_timeout_ms(relay) : -1;
        least = ms >= 0 && (least < 0 || ms < least) ? ms : least;
    }
    return least;
}

static size_t fds(void *user, struct pollfd *out)
{
    const struct upstream *u = user;
    size_t count = 0;
    for (uint32_t i = 0; i < u->stay.count; i++)
        if (u->served.models[i].relay)
            out[count++] =
                (struct pollfd){.fd = relay_fd(u->served.models[i].relay), .events = POLLIN};
    if (u->follow)
        out[count++] = (struct pollfd){.fd = follow_fd(u->follow), .events = POLLIN};
    return count;
}

static int follow_open(struct upstream *u)
{
    const struct settings *settings = &u->settings;
    const struct follow_options options = {
        .registry = &settings->registry,
        .key = settings->registry_key,
        .ca_path = settings->ca ? settings->ca : "",
        .all = settings->all_models,
        .local_only = settings->local_only,
        .allowed = settings->allowed,
    };
    return follow_create(&u->follow, &options, &u->served);
}

static int open_all(struct upstream *u)
{
    char why[256];
    uint64_t seed = 0;
    int rc = text_open(&u->text, u->settings.tokenizer, why, sizeof(why));
    if (rc) {
        fprintf(stderr, "weft-upstream: cannot use the vocabulary of %s: %s\n",
                u->settings.tokenizer, why);
        return rc;
    }
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = clock_now_ns(); /* it only spreads pauses */
    u->relay_options = (struct relay_options){
        .endpoints = u->settings.endpoints,
        .endpoint_count = u->settings.endpoint_count,
        .slots = u->settings.slots,
        .first_ns = u->settings.first_s * NS_PER_S,
        .silence_ns = u->settings.silence_s * NS_PER_S,
        .local_only = u->settings.local_only,
        .text = &u->text,
        .seed = seed,
    };
    u->served.options = &u->relay_options;
    for (size_t i = 0; rc >= 0 && i < u->settings.model_count; i++)
        rc = served_add(&u->served, u->settings.models[i], true);
    rc = rc < 0 ? rc : 0;
    if (rc == 0 && u->settings.registry.base[0])
        rc = follow_open(u);
    if (rc)
        fprintf(stderr, "weft-upstream: cannot start: %s\n", weft_status_text(rc));
    return rc;
}

static void tell_settings(const struct upstream *u)
{
    for (size_t i = 0; i < u->settings.endpoint_count; i++) {
        const struct endpoint_config *e = &u->settings.endpoints[i];
        LOG_INFO("endpoint %s %s model=%s key=%s", e->name[0] ? e->name : e->where.host,
                 e->where.base, e->model, e->key[0] ? "yes" : "no");
    }
    if (u->settings.registry.base[0])
        LOG_INFO("registry %s key=%s", u->settings.registry.base,
                 u->settings.registry_key[0] ? "yes" : "no");
    for (size_t i = 0; i < u->settings.model_count || i == 0; i++)
        LOG_INFO("model=%s slots=%u context=%u vocabulary=%s dials=%s",
                 u->settings.all_models ? "as registered" : u->settings.models[i],
                 u->settings.slots, u->settings.context, u->text.tokenizer ? "yes" : "no",
                 u->settings.local_only ? "local addresses only" : "any address");
}

static void run(struct upstream *u)
{
    const struct stay_ops ops = {attach, detach, work, is_idle, timeout_ms, fds, u};
    u->stay = (struct stay){.socket_path = u->settings.port, .ops = &ops, .count = SERVED_MAX};
    stay_pause(&u->stay, FIRST_PROBE_MS,
               is_known); /* so that the node is told at once what is true */
    stay_run(&u->stay);
}

int main(int argc, char **argv)
{
    static struct upstream u; /* large: keys and paths of all endpoints */
    log_init(LOG_LEVEL_INFO, "weft-upstream");
    int rc = settings_read(&u.settings, argc, argv);
    if (rc)
        return rc < 0 ? 2 : 0;
    stay_catch_signals();
    rc = curl_global_init(CURL_GLOBAL_DEFAULT) ? -ENOMEM : 0;
    if (rc == 0)
        rc = open_all(&u);
    if (rc == 0) {
        tell_settings(&u);
        run(&u);
        for (size_t i = 0; i < SERVED_MAX; i++)
            if (u.served.models[i].relay)
                relay_log_account(u.served.models[i].relay);
    }
    follow_destroy(u.follow);
    served_deinit(&u.served);
    text_close(&u.text);
    settings_deinit(&u.settings);
    curl_global_cleanup();
    return rc ? 1 : 0;
}
