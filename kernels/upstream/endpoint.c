/* SPDX-License-Identifier: Apache-2.0 */
/* endpoint.c - see endpoint.h. */
#include "kernels/upstream/endpoint.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/log.h"

const char *endpoint_name(const struct endpoint *endpoint)
{
    return endpoint->config.name[0] ? endpoint->config.name : endpoint->config.where.host;
}

int endpoint_init(struct endpoint *endpoint, const struct endpoint_config *config,
                  struct http *http, uint64_t seed)
{
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->there = true;
    endpoint->limit = UINT32_MAX;
    endpoint->config = *config;
    endpoint->http = http;
    breaker_init(&endpoint->breaker, seed);
    const char *base = config->where.base;
    (void)snprintf(endpoint->chat_url, ENDPOINT_URL_MAX, "%s/chat/completions", base);
    (void)snprintf(endpoint->text_url, ENDPOINT_URL_MAX, "%s/completions", base);
    (void)snprintf(endpoint->embed_url, ENDPOINT_URL_MAX, "%s/embeddings", base);
    (void)snprintf(endpoint->models_url, ENDPOINT_URL_MAX, "%s/models", base);
    endpoint->list = malloc(ENDPOINT_LIST_MAX);
    if (!endpoint->list)
        return -ENOMEM;
    const int rc = http_peer_create(&endpoint->peer, config->key[0] ? config->key : NULL,
                                    config->ca_path[0] ? config->ca_path : NULL);
    explicit_bzero(endpoint->config.key, sizeof(endpoint->config.key));
    return rc;
}

void endpoint_deinit(struct endpoint *endpoint)
{
    http_cancel(endpoint->probe);
    http_peer_destroy(endpoint->peer);
    free(endpoint->list);
    memset(endpoint, 0, sizeof(*endpoint));
}

void endpoint_tell(struct endpoint *endpoint, const struct endpoint_told *told)
{
    const struct endpoint_told *before = &endpoint->told;
    const bool again = before->told == told->told && before->room == told->room &&
                       before->queue_us == told->queue_us && told->age_s >= before->age_s;
    if (!again && told->told)
        endpoint->limit =
            told->room < UINT32_MAX - endpoint->open ? endpoint->open + told->room : UINT32_MAX;
    if (!told->told)
        endpoint->limit = UINT32_MAX;
    endpoint->told = *told;
}

uint32_t endpoint_places(const struct endpoint *endpoint)
{
    const uint32_t slots = endpoint->config.slots ? endpoint->config.slots : UINT32_MAX;
    const uint32_t most = slots < endpoint->limit ? slots : endpoint->limit;
    if (endpoint->leaving || !endpoint->there || endpoint->open >= most)
        return 0;
    return most == UINT32_MAX ? most : most - endpoint->open;
}

bool endpoint_has_room(const struct endpoint *endpoint, uint64_t now_ns)
{
    return endpoint_places(endpoint) && breaker_allows(&endpoint->breaker, now_ns);
}

void endpoint_release(struct endpoint *endpoint, uint64_t now_ns)
{
    endpoint->open--;
    endpoint->used_ns = now_ns;
}

double endpoint_silence_s(const struct endpoint *endpoint, uint64_t now_ns)
{
    if (endpoint->open || now_ns <= endpoint->used_ns)
        return 0;
    return (double)(now_ns - endpoint->used_ns) / NS_PER_S;
}

/* ---- the breaker, with a line in the log when it changes ---- */

static void note(const struct endpoint *endpoint, enum breaker_state before, const char *why,
                 uint64_t now_ns)
{
    const struct breaker *breaker = &endpoint->breaker;
    if (breaker->state == before)
        return;
    if (breaker->state == BREAKER_CLOSED)
        LOG_INFO("endpoint %s answers", endpoint_name(endpoint));
    else if (breaker->state == BREAKER_OPEN)
        LOG_WARN("endpoint %s is left alone for %llu ms: %s", endpoint_name(endpoint),
                 (unsigned long long)((breaker->until_ns - now_ns) / NS_PER_MS), why);
}

static void failed(struct endpoint *endpoint, bool gone, const char *why, uint64_t now_ns)
{
    const enum breaker_state before = endpoint->breaker.state;
    endpoint->failures++;
    breaker_failure(&endpoint->breaker, gone, now_ns);
    note(endpoint, before, why, now_ns);
}

static void lives(struct endpoint *endpoint, uint64_t now_ns)
{
    const enum breaker_state before = endpoint->breaker.state;
    endpoint->heard_ns = now_ns;
    breaker_alive(&endpoint->breaker);
    note(endpoint, before, "", now_ns);
}

/* ---- probes ---- */

static void probe_head(void *user, int status, const char *content_type)
{
    struct endpoint *endpoint = user;
    (void)status, (void)content_type;
    endpoint->list_len = 0;
}

static int probe_data(void *user, const char *data, size_t len)
{
    struct endpoint *endpoint = user;
    if (len > ENDPOINT_LIST_MAX - endpoint->list_len)
        return -EMSGSIZE;
    memcpy(endpoint->list + endpoint->list_len, data, len);
    endpoint->list_len += len;
    return 0;
}

static bool lists_model(const json_t *models, const char *model)
{
    for (size_t i = 0; i < json_array_size(models); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(models, i), "id"));
        if (id && strcmp(id, model) == 0)
            return true;
    }
    return false;
}

/* A list without the model: worth a word, no more. Servers know names that they do not list. */
static void look_for_model(struct endpoint *endpoint)
{
    json_t *root = json_loadb(endpoint->list, endpoint->list_len, 0, NULL);
    const json_t *models = json_object_get(root, "data");
    if (json_array_size(models) && !lists_model(models, endpoint->config.model) &&
        !endpoint->told_missing) {
        const char *first = json_string_value(json_object_get(json_array_get(models, 0), "id"));
        LOG_WARN("endpoint %s lists %zu models and none called %s; the first is %s",
                 endpoint_name(endpoint), json_array_size(models), endpoint->config.model,
                 first ? first : "nameless");
        endpoint->told_missing = true;
    }
    json_decref(root);
}

static void probe_end(void *user, int status, const struct http_end *end)
{
    struct endpoint *endpoint = user;
    const uint64_t now_ns = clock_now_ns();
    char why[96];
    endpoint->probe = NULL;
    endpoint->probed = true;
    if (end->retry_after_ns)
        breaker_hold(&endpoint->breaker, end->retry_after_ns, now_ns);
    if (status == 0 || !end->whole) {
        failed(endpoint, true, end->error, now_ns);
    } else if (status == 401 || status == 403 || status >= 500) {
        (void)snprintf(why, sizeof(why), "GET /models: HTTP %d%s", status,
                       status < 500 ? ", the key is not accepted" : "");
        failed(endpoint, true, why, now_ns);
    } else {
        lives(endpoint, now_ns);
        if (status == 200)
            look_for_model(endpoint);
    }
}

static bool is_quiet(const struct endpoint *endpoint, uint64_t now_ns)
{
    return endpoint->breaker.state == BREAKER_CLOSED &&
           now_ns >= endpoint->heard_ns + ENDPOINT_PROBE_NS && now_ns >= endpoint->breaker.hold_ns;
}

void endpoint_tick(struct endpoint *endpoint, uint64_t now_ns)
{
    static const struct http_events events = {probe_head, probe_data, probe_end};
    if (endpoint->probe ||
        (!is_quiet(endpoint, now_ns) && !breaker_probe(&endpoint->breaker, now_ns)))
        return;
    endpoint->probe = http_start(endpoint->http, endpoint->peer, endpoint->models_url, NULL, NULL,
                                 ENDPOINT_PROBE_MS, &events, endpoint);
    if (!endpoint->probe)
        failed(endpoint, true, "out of memory", now_ns);
}

uint64_t endpoint_due_ns(const struct endpoint *endpoint, uint64_t now_ns)
{
    const uint64_t due_ns = breaker_due_ns(&endpoint->breaker, now_ns);
    if (endpoint->probe)
        return UINT64_MAX;
    if (endpoint->breaker.state != BREAKER_CLOSED)
        return due_ns;
    const uint64_t probe_ns = endpoint->heard_ns + ENDPOINT_PROBE_NS;
    return due_ns < probe_ns ? due_ns : probe_ns;
}

/* ---- answers ---- */

void endpoint_judge(struct endpoint *endpoint, enum answer_verdict verdict,
                    const struct http_end *end, uint64_t now_ns)
{
    const enum breaker_state before = endpoint->breaker.state;
    const bool gone = end && end->unreachable;
    const uint64_t pause_ns = end ? end->retry_after_ns : 0;
    if (pause_ns)
        breaker_hold(&endpoint->breaker, pause_ns, now_ns);
    switch (verdict) {
    case ANSWER_COMPLETE:
    case ANSWER_BAD_REQUEST:
    case ANSWER_TOO_LONG:
    case ANSWER_FILTERED:
        endpoint->heard_ns = now_ns;
        endpoint->answers++;
        breaker_success(&endpoint->breaker);
        note(endpoint, before, "", now_ns);
        return;
    case ANSWER_BUSY:
        endpoint->heard_ns = now_ns;
        if (!pause_ns)
            breaker_hold(&endpoint->breaker, ENDPOINT_BUSY_NS, now_ns);
        return;
    case ANSWER_DENIED:
        failed(endpoint, true, "it refuses this key, model or path", now_ns);
        return;
    case ANSWER_CUT:
    case ANSWER_FAILED:
        failed(endpoint, gone,
               end ? (end->error[0] ? end->error : "failed answers") : "no answer in time", now_ns);
        return;
    }
}

uint32_t endpoint_wait_us(const struct endpoint *endpoint, uint64_t now_ns)
{
    const double silence_s = endpoint_silence_s(endpoint, now_ns);
    uint64_t wait_us = (uint64_t)(pace_wait_s(&endpoint->pace, silence_s) * 1e6);
    if (!breaker_allows(&endpoint->breaker, now_ns)) {
        const uint64_t due_ns = breaker_due_ns(&endpoint->breaker, now_ns);
        wait_us = due_ns == UINT64_MAX || due_ns <= now_ns
                      ? NS_PER_S / NS_PER_US
                      : (due_ns - now_ns + NS_PER_US - 1) / NS_PER_US;
    }
    if (endpoint->told.told && wait_us < endpoint->told.queue_us)
        wait_us = endpoint->told.queue_us;
    return wait_us < ENDPOINT_WAIT_MAX_US ? (uint32_t)wait_us : ENDPOINT_WAIT_MAX_US;
}

void endpoint_log_account(const struct endpoint *endpoint)
{
    const struct endpoint_config *config = &endpoint->config;
    const double cost = ((double)endpoint->tokens_in * config->price_in +
                         (double)endpoint->tokens_out * config->price_out) /
                        1e6;
    LOG_INFO("account of %s answers=%llu failures=%llu tokens_in=%llu tokens_out=%llu cost=%.6f "
             "first_ms=%.0f wait_ms=%.0f prefill_tps=%.0f decode_tps=%.0f",
             endpoint_name(endpoint), (unsigned long long)endpoint->answers,
             (unsigned long long)endpoint->failures, (unsigned long long)endpoint->tokens_in,
             (unsigned long long)endpoint->tokens_out, cost, endpoint->pace.first_s * 1e3,
             pace_wait_s(&endpoint->pace, 0) * 1e3, pace_prefill(&endpoint->pace, 0),
             pace_decode(&endpoint->pace, 0));
}
