/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upstream.c - weft-upstream: serves a model of an OpenAI-compatible HTTP server to the node on
 * this machine. One thread has the port (weft/worker.h), the calls (upstream/relay.h) and the
 * signals; it sleeps until one of them has something. If the node goes away it breaks off what it
 * did for it and attaches again.
 */
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <weft/worker.h>

#include "kernels/upstream/relay.h"
#include "kernels/upstream/settings.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define RETRY_FIRST_MS   100u
#define RETRY_LAST_MS    5000u
#define DRAIN_TIMEOUT_NS (30 * NS_PER_S)
#define FIRST_PROBE_MS   2000u

struct upstream {
    struct settings settings;
    struct text text;
    struct relay *relay;
    weft_worker_t *port;
    bool draining;
    uint64_t drain_begin_ns;
};

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen = signals_seen + 1;
}

static void publish_load(struct upstream *u)
{
    weft_load_t load;
    relay_load(u->relay, &load);
    if (u->draining)
        load.room = 0;
    weft_worker_set_load(u->port, &load);
}

static int on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct upstream *u = user;
    (void)port;
    return u->draining ? WEFT_E_DRAINING : relay_take(u->relay, job, view);
}

static void on_cancel(weft_worker_t *port, weft_job_t *job, void *user)
{
    struct upstream *u = user;
    (void)port;
    relay_cancel(u->relay, job);
}

/* Sleeps until a descriptor has something, the time is over, or a signal comes. The signals are
 * blocked everywhere else, so none slips in between the look and the sleep. */
static void wait_ms(const struct upstream *u, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = relay_fd(u->relay), .events = POLLIN},
                           {.fd = u->port ? weft_worker_fd(u->port) : -1, .events = POLLIN}};
    const struct timespec ts = {.tv_sec = timeout_ms / 1000,
                                .tv_nsec = (timeout_ms % 1000) * 1000000L};
    sigset_t none;
    sigemptyset(&none);
    (void)ppoll(fds, 2, timeout_ms < 0 ? NULL : &ts, &none);
}

static int sooner(int a_ms, int b_ms)
{
    if (a_ms < 0 || b_ms < 0)
        return a_ms < 0 ? b_ms : a_ms;
    return a_ms < b_ms ? a_ms : b_ms;
}

/* Lets a pending signal in without sleeping. */
static void check_signals(struct upstream *u)
{
    sigset_t pending;
    if (sigpending(&pending) == 0 &&
        (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1))
        wait_ms(u, 0);
    if (signals_seen && !u->draining) {
        u->draining = true;
        u->drain_begin_ns = clock_now_ns();
        LOG_INFO("stopping: finishing what is open; a second signal stops at once");
    }
}

static bool is_over(const struct upstream *u)
{
    if (!u->draining)
        return false;
    return signals_seen > 1 || !u->port || relay_is_idle(u->relay) ||
           clock_now_ns() - u->drain_begin_ns > DRAIN_TIMEOUT_NS;
}

static int attach(struct upstream *u)
{
    weft_load_t load;
    relay_load(u->relay, &load);
    const weft_worker_facts_t facts = {
        .model = u->settings.model,
        .backend = "upstream",
        .context_tokens = u->settings.context,
        .prefill_per_second = load.prefill_per_second,
        .decode_per_second = load.decode_per_second,
    };
    const weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel, .user = u};
    return weft_worker_attach(&u->port, u->settings.port, &facts, &load, &callbacks);
}

static void serve_port(struct upstream *u)
{
    for (;;) {
        check_signals(u);
        relay_process(u->relay);
        publish_load(u); /* fresh before the port answers with it */
        const int rc = weft_worker_process(u->port);
        if (rc) {
            LOG_WARN("the node has gone: %s", weft_status_text(rc));
            return;
        }
        publish_load(u);
        if (is_over(u)) {
            (void)weft_worker_process(u->port); /* the last answer's end */
            return;
        }
        wait_ms(u, sooner(weft_worker_timeout_ms(u->port), relay_timeout_ms(u->relay)));
    }
}

/* Without a node the servers' health is kept up all the same. `until_known`: not longer than until
 * it is known who is well. */
static void pause_ms(struct upstream *u, uint32_t ms, bool until_known)
{
    const uint64_t end_ns = clock_now_ns() + ms * NS_PER_MS;
    for (uint64_t now_ns = clock_now_ns(); now_ns < end_ns && !signals_seen;
         now_ns = clock_now_ns()) {
        const int left_ms = (int)((end_ns - now_ns) / NS_PER_MS + 1);
        relay_process(u->relay);
        if (until_known && relay_is_known(u->relay))
            return;
        wait_ms(u, sooner(left_ms, relay_timeout_ms(u->relay)));
    }
}

static void detach(struct upstream *u)
{
    weft_worker_t *port = u->port;
    relay_drop_all(u->relay);
    u->port = NULL;
    weft_worker_destroy(port);
}

static void run(struct upstream *u)
{
    uint32_t retry_ms = RETRY_FIRST_MS;
    int last = 0;
    for (check_signals(u); !is_over(u); check_signals(u)) {
        const int rc = attach(u);
        if (rc) {
            if (rc != last)
                LOG_WARN("cannot attach to %s: %s; trying on", u->settings.port,
                         weft_status_text(rc));
            last = rc;
            pause_ms(u, retry_ms, false);
            retry_ms = retry_ms * 2 < RETRY_LAST_MS ? retry_ms * 2 : RETRY_LAST_MS;
            continue;
        }
        LOG_INFO("attached to node %s model=%s", weft_worker_node(u->port)->name,
                 u->settings.model);
        last = 0;
        retry_ms = RETRY_FIRST_MS;
        serve_port(u);
        const bool over = is_over(u);
        detach(u);
        if (over)
            return;
        pause_ms(u, retry_ms, false); /* a node that refuses at once must not be hammered */
    }
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
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
    LOG_INFO("model=%s slots=%u context=%u vocabulary=%s dials=%s", u->settings.model,
             u->settings.slots, u->settings.context, u->text.tokenizer ? "yes" : "no",
             u->settings.local_only ? "local addresses only" : "any address");
}

int main(int argc, char **argv)
{
    static struct upstream u; /* large: keys and paths of all endpoints */
    log_init(LOG_LEVEL_INFO, "weft-upstream");
    int rc = settings_read(&u.settings, argc, argv);
    if (rc)
        return rc < 0 ? 2 : 0;
    catch_signals();
    rc = curl_global_init(CURL_GLOBAL_DEFAULT) ? -ENOMEM : 0;
    if (rc == 0)
        rc = open_all(&u);
    if (rc == 0) {
        tell_settings(&u);
        pause_ms(&u, FIRST_PROBE_MS, true); /* so that the node is told at once what is true */
        run(&u);
        relay_log_account(u.relay);
    }
    relay_destroy(u.relay);
    text_close(&u.text);
    settings_deinit(&u.settings);
    curl_global_cleanup();
    return rc ? 1 : 0;
}
