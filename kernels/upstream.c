/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upstream.c - weft-upstream: serves a model of an OpenAI-compatible HTTP server to the node on
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
    struct relay *relay;
    struct follow *follow; /* NULL = no registry */
    struct stay stay;      /* one port */
};

static weft_load_t load_of(const struct upstream *u)
{
    weft_load_t load;
    relay_load(u->relay, &load);
    if (u->stay.draining) {
        load.room = 0;
        load.queue_us = UINT32_MAX;
    }
    return load;
}

static int on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct upstream *u = user;
    (void)port;
    return u->stay.draining ? WEFT_E_DRAINING : relay_take(u->relay, job, view);
}

static void on_cancel(weft_worker_t *port, weft_job_t *job, void *user)
{
    struct upstream *u = user;
    (void)port;
    relay_cancel(u->relay, job);
}

/* ---- stay.h ---- */

static int attach(void *user, uint32_t index, weft_worker_t **port)
{
    struct upstream *u = user;
    const weft_load_t load = load_of(u);
    const weft_worker_facts_t facts = {
        .model = u->settings.model,
        .backend = "upstream",
        .context_tokens = u->settings.context,
        .prefill_per_second = load.prefill_per_second,
        .decode_per_second = load.decode_per_second,
        .can = WEFT_CAN_FORMATS | WEFT_CAN_TOOLS,
    };
    const weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel, .user = u};
    (void)index;
    return weft_worker_attach(port, u->settings.port, &facts, &load, &callbacks);
}

static void detach(void *user, uint32_t index)
{
    struct upstream *u = user;
    (void)index;
    relay_drop_all(u->relay);
}

/* Without a node the servers' health is kept up all the same. */
static void work(void *user)
{
    struct upstream *u = user;
    weft_worker_t *port = u->stay.ports[0].port;
    relay_process(u->relay);
    if (u->follow)
        follow_tick(u->follow, port ? weft_worker_node(port)->name : NULL, clock_now_ns());
    const weft_load_t load = load_of(u);
    if (port)
        weft_worker_set_load(port, &load);
}

static bool is_idle(void *user)
{
    const struct upstream *u = user;
    return relay_is_idle(u->relay);
}

static bool is_known(void *user)
{
    const struct upstream *u = user;
    return relay_is_known(u->relay);
}

static int timeout_ms(void *user)
{
    const struct upstream *u = user;
    const int relay_ms = relay_timeout_ms(u->relay);
    if (!u->follow || !u->stay.ports[0].port)
        return relay_ms;
    const uint64_t due_ns = follow_due_ns(u->follow);
    const uint64_t now_ns = clock_now_ns();
    const uint64_t ms = due_ns > now_ns ? (due_ns - now_ns) / NS_PER_MS + 1 : 0;
    return relay_ms >= 0 && (uint64_t)relay_ms < ms ? relay_ms : ms < INT_MAX ? (int)ms : INT_MAX;
}

static size_t fds(void *user, struct pollfd *out)
{
    const struct upstream *u = user;
    out[0] = (struct pollfd){.fd = relay_fd(u->relay), .events = POLLIN};
    return 1;
}

static int follow_open(struct upstream *u)
{
    const struct settings *settings = &u->settings;
    const struct follow_options options = {
        .registry = &settings->registry,
        .key = settings->registry_key,
        .ca_path = settings->ca ? settings->ca : "",
        .model = settings->model,
        .allowed = settings->allowed,
    };
    return follow_create(&u->follow, &options, u->relay);
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
    const struct relay_options options = {
        .endpoints = u->settings.endpoints,
        .endpoint_count = u->settings.endpoint_count,
        .slots = u->settings.slots,
        .first_ns = u->settings.first_s * NS_PER_S,
        .silence_ns = u->settings.silence_s * NS_PER_S,
        .local_only = u->settings.local_only,
        .text = &u->text,
        .seed = seed,
    };
    rc = relay_create(&u->relay, &options);
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
    LOG_INFO("model=%s slots=%u context=%u vocabulary=%s dials=%s", u->settings.model,
             u->settings.slots, u->settings.context, u->text.tokenizer ? "yes" : "no",
             u->settings.local_only ? "local addresses only" : "any address");
}

static void run(struct upstream *u)
{
    const struct stay_ops ops = {attach, detach, work, is_idle, timeout_ms, fds, u};
    u->stay = (struct stay){.socket_path = u->settings.port, .ops = &ops, .count = 1};
    u->stay.ports[0].model = u->settings.model;
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
        relay_log_account(u.relay);
    }
    follow_destroy(u.follow);
    relay_destroy(u.relay);
    text_close(&u.text);
    settings_deinit(&u.settings);
    curl_global_cleanup();
    return rc ? 1 : 0;
}
