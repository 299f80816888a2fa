/* SPDX-License-Identifier: Apache-2.0 */
/* relay.c - see relay.h. */
#include "kernels/upstream/relay.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "kernels/upstream/said.h"
#include "kernels/upstream/vector.h"
#include "schemas/base/log.h"

#define NEVER          UINT64_MAX
#define LINGER_NS      (100 * NS_PER_MS) /* for the end of a reply whose last event is here */
#define NOBODY_WAIT_US 1000000u          /* with no server at all: one may register meanwhile */
#define OVERSHOOT      4u /* pieces per token asked for, before a server is a babbler */

struct slot {
    weft_job_t *job; /* NULL: free */
    const weft_job_view_t *view;
    struct relay *relay;
    struct endpoint *endpoint; /* asked last */
    struct http_call *call;
    char *body;   /* of the call */
    char *buffer; /* ANSWER_BUFFER bytes for `answer` */
    struct answer answer;
    uint32_t tried;      /* endpoints, by bit */
    struct said said;    /* what the job has been given */
    uint32_t call_count; /* tokens that were there when the call began */
    bool nothing_left;   /* resumed behind its last token */
    uint64_t call_ns;    /* when the call began */
    uint64_t first_ns;   /* its first text; 0 = none yet */
    uint64_t last_ns;    /* its latest text */
    uint64_t alive_ns;   /* its latest byte, or call_ns */
    uint64_t job_first_ns;
};

struct relay {
    struct relay_options options;
    struct http *http;
    struct endpoint *endpoints;
    struct slot *slots;
    uint32_t open;
};

/* ---- text ---- */

static int emit(uint32_t token, const char *bytes, size_t len, void *user)
{
    const struct slot *slot = user;
    return weft_job_emit(slot->job, token, bytes, len);
}

static int on_text(const char *text, size_t len, void *user)
{
    struct slot *slot = user;
    const uint64_t now_ns = clock_now_ns();
    if (slot->first_ns == 0)
        slot->first_ns = now_ns;
    if (slot->job_first_ns == 0)
        slot->job_first_ns = now_ns;
    slot->last_ns = now_ns;
    if (slot->said.count / OVERSHOOT > slot->view->max_tokens)
        return -E2BIG;
    return said_add(&slot->said, text, len, emit, slot);
}

/* ---- the ends ---- */

static void slot_free(struct slot *slot)
{
    char *buffer = slot->buffer;
    struct relay *relay = slot->relay;
    free(slot->body);
    said_deinit(&slot->said);
    *slot = (struct slot){.relay = relay, .buffer = buffer};
    relay->open--;
}

static uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (to_ns - from_ns) / NS_PER_US : 0;
}

static void finish(struct slot *slot, int status, int reason)
{
    const uint32_t resumed = (uint32_t)slot->view->resume_count;
    uint32_t prompt = slot->answer.prompt_tokens;
    size_t tail_len;
    const char *tail = said_tail(&slot->said, &tail_len);
    prompt -= prompt > resumed && resumed ? resumed : 0; /* it went with the prompt */
    const weft_job_report_t report = {
        .status = status,
        .finish = status ? WEFT_FINISH_FAILED : reason,
        .prompt_tokens = prompt,
        .new_tokens = slot->said.count,
        .queue_us = us_between(slot->view->received_ns, slot->call_ns),
        .prefill_us = us_between(slot->call_ns, slot->job_first_ns),
        .decode_us = us_between(slot->job_first_ns, slot->last_ns),
        .cached_tokens = slot->answer.cached_tokens,
        .tail = status == 0 ? tail : NULL,
        .tail_len = status == 0 ? tail_len : 0,
    };
    weft_job_finish(slot->job, &report);
    slot_free(slot);
}

/* What the server says it gave, or else what came. */
static uint32_t tokens_of_call(const struct slot *slot)
{
    const uint32_t came = slot->said.count - slot->call_count;
    return slot->answer.completion_tokens ? slot->answer.completion_tokens : came;
}

static void learn(struct slot *slot)
{
    struct endpoint *endpoint = slot->endpoint;
    const struct answer *answer = &slot->answer;
    const uint32_t tokens = tokens_of_call(slot);
    const double s = 1.0 / (double)NS_PER_S;
    endpoint->tokens_in += answer->prompt_tokens;
    endpoint->tokens_out += tokens;
    if (slot->first_ns == 0)
        return;
    pace_first(&endpoint->pace, answer->prompt_tokens,
               (double)(slot->first_ns - slot->call_ns) * s);
    if (answer->kind == ANSWER_STREAM && tokens > 1)
        pace_decoded(&endpoint->pace, tokens - 1, (double)(slot->last_ns - slot->first_ns) * s);
}

static void complete(struct slot *slot)
{
    const int reason = slot->answer.finish == DELTA_LENGTH ? WEFT_FINISH_LENGTH : WEFT_FINISH_STOP;
    learn(slot);
    uint32_t missing = tokens_of_call(slot) - (slot->said.count - slot->call_count);
    if (tokens_of_call(slot) < slot->said.count - slot->call_count)
        missing = 0;
    for (; missing && slot->said.count < slot->view->max_tokens; missing--, slot->said.count++)
        if (weft_job_emit(slot->job, TEXT_EMPTY, "", 0))
            break;
    finish(slot, 0, reason);
}

/* ---- calls ---- */

static void call_head(void *user, int status, const char *content_type)
{
    struct slot *slot = user;
    slot->alive_ns = clock_now_ns();
    answer_head(&slot->answer, status, content_type);
}

static int call_data(void *user, const char *data, size_t len)
{
    struct slot *slot = user;
    slot->alive_ns = clock_now_ns();
    return answer_data(&slot->answer, data, len, on_text, slot);
}

static void move_on(struct slot *slot);

/* The call is over; `end` NULL: it was broken off because nothing came. */
static void call_over(struct slot *slot, enum answer_verdict verdict, const struct http_end *end)
{
    struct endpoint *endpoint = slot->endpoint;
    slot->call = NULL;
    free(slot->body);
    slot->body = NULL;
    endpoint_release(endpoint, clock_now_ns());
    endpoint_judge(endpoint, verdict, end, clock_now_ns());
    if (verdict != ANSWER_COMPLETE)
        LOG_INFO("answer of %s %s http=%d given=%u: %s", endpoint_name(endpoint),
                 answer_verdict_name(verdict), slot->answer.http_status,
                 slot->said.count - slot->call_count,
                 slot->answer.message[0] ? slot->answer.message : (end ? end->error : "silence"));
    switch (verdict) {
    case ANSWER_COMPLETE:
        complete(slot);
        return;
    case ANSWER_BAD_REQUEST:
    case ANSWER_FILTERED:
        finish(slot, WEFT_E_BAD_REQUEST, 0);
        return;
    case ANSWER_TOO_LONG:
        finish(slot, WEFT_E_TOO_LONG, 0);
        return;
    case ANSWER_CUT:
    case ANSWER_FAILED:
    case ANSWER_BUSY:
    case ANSWER_DENIED:
        break;
    }
    move_on(slot);
}

/* The reply to an embedding: read here, whole. */
static enum answer_verdict take_vector(struct slot *slot)
{
    struct answer *answer = &slot->answer;
    struct vector vector = {.max = WEFT_EMBEDDING_MAX};
    vector.values = malloc(WEFT_EMBEDDING_MAX * sizeof(*vector.values));
    int rc = vector.values ? vector_parse(&vector, answer->buffer, answer->length) : -ENOMEM;
    if (rc == 0)
        rc = weft_job_embedding(slot->job, vector.values, vector.count);
    answer->prompt_tokens = vector.prompt_tokens;
    free(vector.values);
    return rc ? ANSWER_CUT : ANSWER_COMPLETE;
}

static void call_end(void *user, int status, const struct http_end *end)
{
    struct slot *slot = user;
    enum answer_verdict verdict = ANSWER_CUT;
    const bool is_vector = slot->view->embed && slot->answer.kind == ANSWER_WHOLE;
    if (status && is_vector)
        verdict = end->whole && !slot->answer.spoiled ? take_vector(slot) : ANSWER_CUT;
    else if (status)
        verdict = answer_end(&slot->answer, end->whole, on_text, slot);
    if (said_stopped(&slot->said))
        verdict = ANSWER_COMPLETE; /* what the server has behind it is of no interest */
    call_over(slot, verdict, end);
}

/* Where a job goes and what is asked there; NULL sets *status. */
static char *question(const struct slot *slot, const struct endpoint *endpoint, const char **url,
                      int *status)
{
    const weft_job_view_t *view = slot->view;
    const struct endpoint_config *config = &endpoint->config;
    const struct body_options options = {config->model, config->resume};
    *status = WEFT_E_WORKER_FAILED;
    if (view->embed) {
        *url = endpoint->embed_url;
        return vector_write(config->model, view, status);
    }
    *url = body_is_chat(view) ? endpoint->chat_url : endpoint->text_url;
    if (slot->said.count >= view->max_tokens)
        return NULL; /* by its pieces nothing is left to ask for */
    return body_write(&options, view, slot->said.bytes, slot->said.len,
                      view->max_tokens - slot->said.count, status);
}

/* Asks one server. Returns 0 or a status. */
static int call(struct slot *slot, struct endpoint *endpoint)
{
    static const struct http_events events = {call_head, call_data, call_end};
    struct relay *relay = slot->relay;
    const char *url;
    int status;
    slot->body = question(slot, endpoint, &url, &status);
    if (!slot->body)
        return status;
    answer_init(&slot->answer, slot->buffer, ANSWER_BUFFER);
    slot->call_ns = slot->alive_ns = clock_now_ns();
    slot->first_ns = slot->last_ns = 0;
    slot->call_count = slot->said.count;
    slot->endpoint = endpoint;
    const struct http_trace trace = {slot->view->traceparent, slot->view->tracestate,
                                     slot->view->tracestate_len};
    slot->call = http_start(relay->http, endpoint->peer, url, slot->body, &trace, 0, &events, slot);
    if (!slot->call) {
        free(slot->body);
        slot->body = NULL;
        return WEFT_E_WORKER_FAILED;
    }
    endpoint->open++;
    return 0;
}

/* Who is asked next: the first of those that were configured, else of the registered ones the one
 * with the shortest wait. NULL: nobody has room that was not asked yet. */
static struct endpoint *next_endpoint(const struct slot *slot, uint64_t now_ns)
{
    struct relay *relay = slot->relay;
    struct endpoint *best = NULL;
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        struct endpoint *endpoint = &relay->endpoints[i];
        if (slot->tried & 1u << i || !endpoint_has_room(endpoint, now_ns))
            continue;
        if (!endpoint->id[0])
            return endpoint;
        if (!best || endpoint_wait_us(endpoint, now_ns) < endpoint_wait_us(best, now_ns))
            best = endpoint;
    }
    return best;
}

/* Returns 0 or a status. */
static int call_next(struct slot *slot)
{
    const uint64_t now_ns = clock_now_ns();
    struct endpoint *endpoint;
    int status = WEFT_E_MESH_FULL;
    if (slot->said.count && !slot->said.kept)
        return WEFT_E_NO_CAPABLE_NODE; /* cannot be gone on with */
    while ((endpoint = next_endpoint(slot, now_ns))) {
        slot->tried |= 1u << (endpoint - slot->relay->endpoints);
        status = call(slot, endpoint);
        if (status == 0)
            return 0;
    }
    return status;
}

static void move_on(struct slot *slot)
{
    if (call_next(slot))
        finish(slot, WEFT_E_WORKER_FAILED, 0);
}

/* ---- jobs ---- */

static struct slot *slot_find(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->options.slots; i++)
        if (!relay->slots[i].job)
            return &relay->slots[i];
    return NULL;
}

/* Will anybody be able to go on behind the text of this job? Then it is kept. */
static bool is_kept(const struct relay *relay, const weft_job_view_t *view)
{
    if (!body_is_chat(view))
        return !view->tokens;
    if (body_has_tools(view))
        return false; /* a call that has begun is no text of the server's */
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++)
        if (relay->endpoints[i].config.resume != BODY_RESUME_NONE)
            return true;
    return false;
}

int relay_take(struct relay *relay, weft_job_t *job, const weft_job_view_t *view)
{
    struct slot *slot = slot_find(relay);
    if (view->logprobs)
        return WEFT_E_NO_CAPABLE_NODE;
    if (!slot)
        return WEFT_E_MESH_FULL;
    if (!slot->buffer && !(slot->buffer = malloc(ANSWER_BUFFER)))
        return WEFT_E_MESH_FULL;
    slot->job = job;
    slot->view = view;
    relay->open++;
    int status = said_init(&slot->said, relay->options.text, view, is_kept(relay, view));
    slot->nothing_left = view->resume_count && slot->said.count >= view->max_tokens;
    if (status == 0 && !slot->nothing_left)
        status = call_next(slot);
    if (status)
        slot_free(slot);
    else
        weft_job_set_user(job, slot);
    return status;
}

static void stop_call(struct slot *slot)
{
    if (slot->call)
        endpoint_release(slot->endpoint, clock_now_ns());
    http_cancel(slot->call);
    slot->call = NULL;
}

void relay_cancel(struct relay *relay, weft_job_t *job)
{
    struct slot *slot = weft_job_user(job);
    (void)relay;
    if (!slot || slot->job != job)
        return;
    stop_call(slot);
    finish(slot, WEFT_E_CANCELLED, 0);
}

void relay_drop_all(struct relay *relay)
{
    for (uint32_t i = 0; i < relay->options.slots; i++) {
        struct slot *slot = &relay->slots[i];
        if (!slot->job)
            continue;
        stop_call(slot);
        slot_free(slot);
    }
}

/* ---- time ---- */

/* When the silence of a call is too long, or its end has been waited for long enough. */
static uint64_t patience_ns(const struct slot *slot)
{
    const struct relay_options *options = &slot->relay->options;
    if (slot->answer.done)
        return slot->alive_ns + LINGER_NS;
    return slot->alive_ns + (slot->answer.total ? options->silence_ns : options->first_ns);
}

static uint64_t budget_ns(const struct slot *slot)
{
    const weft_job_view_t *view = slot->view;
    const bool counts = view->deadline_is_end_to_end || slot->job_first_ns == 0;
    return view->deadline_ns && counts ? view->deadline_ns : NEVER;
}

static uint64_t slot_due_ns(const struct slot *slot)
{
    if (slot->nothing_left)
        return 0;
    const uint64_t a = patience_ns(slot), b = budget_ns(slot);
    return a < b ? a : b;
}

static void slot_tick(struct slot *slot, uint64_t now_ns)
{
    if (slot->nothing_left) {
        finish(slot, 0, WEFT_FINISH_LENGTH);
        return;
    }
    if (now_ns >= budget_ns(slot)) {
        stop_call(slot);
        finish(slot, WEFT_E_BUDGET_EXPIRED, 0);
        return;
    }
    if (now_ns < patience_ns(slot))
        return;
    http_cancel(slot->call);
    const enum answer_verdict verdict =
        slot->answer.done ? answer_end(&slot->answer, true, on_text, slot) : ANSWER_CUT;
    call_over(slot, verdict, NULL);
}

static void endpoint_leave(struct endpoint *endpoint)
{
    endpoint_log_account(endpoint);
    endpoint_deinit(endpoint);
}

void relay_process(struct relay *relay)
{
    uint64_t now_ns = clock_now_ns();
    http_process(relay->http, now_ns);
    now_ns = clock_now_ns();
    for (uint32_t i = 0; relay->open && i < relay->options.slots; i++)
        if (relay->slots[i].job && now_ns >= slot_due_ns(&relay->slots[i]))
            slot_tick(&relay->slots[i], now_ns);
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        struct endpoint *endpoint = &relay->endpoints[i];
        if (endpoint->leaving && endpoint->open == 0)
            endpoint_leave(endpoint);
        else if (endpoint->there && !endpoint->leaving)
            endpoint_tick(endpoint, now_ns);
    }
}

int relay_fd(const struct relay *relay)
{
    return http_fd(relay->http);
}

int relay_timeout_ms(const struct relay *relay)
{
    const uint64_t now_ns = clock_now_ns();
    uint64_t due_ns = NEVER;
    for (uint32_t i = 0; relay->open && i < relay->options.slots; i++)
        if (relay->slots[i].job && slot_due_ns(&relay->slots[i]) < due_ns)
            due_ns = slot_due_ns(&relay->slots[i]);
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        const struct endpoint *endpoint = &relay->endpoints[i];
        if (!endpoint->there || endpoint->leaving)
            continue;
        const uint64_t at_ns = endpoint_due_ns(endpoint, now_ns);
        due_ns = at_ns < due_ns ? at_ns : due_ns;
    }
    const int http_ms = http_timeout_ms(relay->http, now_ns);
    uint64_t ms = due_ns > now_ns ? (due_ns - now_ns) / NS_PER_MS + 1 : 0;
    ms = ms < INT_MAX ? ms : INT_MAX;
    return http_ms >= 0 && (uint64_t)http_ms < ms ? http_ms : (int)ms;
}

/* ---- servers that come and go ---- */

struct http *relay_http(struct relay *relay)
{
    return relay->http;
}

void relay_mark(struct relay *relay)
{
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++)
        relay->endpoints[i].seen = false;
}

static bool is_same(const struct endpoint *endpoint, const char *id,
                    const struct endpoint_config *config)
{
    return endpoint->there && !endpoint->leaving && strcmp(endpoint->id, id) == 0 &&
           strcmp(endpoint->config.where.base, config->where.base) == 0;
}

int relay_put(struct relay *relay, const char *id, const struct endpoint_config *config,
              const struct endpoint_told *told)
{
    struct endpoint *free_place = NULL;
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        struct endpoint *endpoint = &relay->endpoints[i];
        if (is_same(endpoint, id, config)) {
            endpoint->seen = true;
            endpoint_tell(endpoint, told);
            return 0;
        }
        if (!endpoint->there && !free_place)
            free_place = endpoint;
    }
    if (!free_place)
        return -ENOSPC;
    const size_t place = (size_t)(free_place - relay->endpoints);
    const int rc = endpoint_init(free_place, config, relay->http, relay->options.seed + place);
    if (rc) {
        endpoint_deinit(free_place);
        return rc;
    }
    (void)snprintf(free_place->id, sizeof(free_place->id), "%s", id);
    free_place->seen = true;
    endpoint_tell(free_place, told);
    LOG_INFO("endpoint %s %s is registered", endpoint_name(free_place), config->where.base);
    return 0;
}

void relay_sweep(struct relay *relay)
{
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        struct endpoint *endpoint = &relay->endpoints[i];
        if (!endpoint->there || !endpoint->id[0] || endpoint->seen || endpoint->leaving)
            continue;
        endpoint->leaving = true;
        LOG_INFO("endpoint %s is registered no more", endpoint_name(endpoint));
    }
}

/* ---- the whole ---- */

bool relay_is_idle(const struct relay *relay)
{
    return relay->open == 0;
}

bool relay_is_known(const struct relay *relay)
{
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++)
        if (relay->endpoints[i].there && !relay->endpoints[i].probed)
            return false;
    return true;
}

void relay_load(const struct relay *relay, weft_load_t *load)
{
    const uint64_t now_ns = clock_now_ns();
    const struct endpoint *next = NULL; /* who would be asked */
    uint64_t places = 0;
    uint32_t wait_us = NOBODY_WAIT_US;
    bool any = false;
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++) {
        const struct endpoint *endpoint = &relay->endpoints[i];
        if (!endpoint->there || endpoint->leaving)
            continue;
        const uint32_t own_us = endpoint_wait_us(endpoint, now_ns);
        if (endpoint_has_room(endpoint, now_ns)) {
            if (!next || (next->id[0] && own_us < endpoint_wait_us(next, now_ns)))
                next = endpoint;
            places += endpoint_places(endpoint);
        }
        wait_us = !any || own_us < wait_us ? own_us : wait_us;
        any = true;
    }
    const uint32_t free_slots = relay->options.slots - relay->open;
    const struct endpoint *whose = next ? next : &relay->endpoints[0];
    const double silence_s = endpoint_silence_s(whose, now_ns);
    *load = (weft_load_t){
        .room = places < free_slots ? (uint32_t)places : free_slots,
        .queue_us = next ? endpoint_wait_us(next, now_ns) : wait_us,
        .prefill_per_second = (uint32_t)pace_prefill(&whose->pace, silence_s),
        .decode_per_second = (uint32_t)pace_decode(&whose->pace, silence_s),
    };
}

void relay_log_account(const struct relay *relay)
{
    for (size_t i = 0; i < ENDPOINT_ENDPOINTS_MAX; i++)
        if (relay->endpoints[i].there)
            endpoint_log_account(&relay->endpoints[i]);
}

int relay_create(struct relay **out, const struct relay_options *options)
{
    *out = NULL;
    struct relay *relay = calloc(1, sizeof(*relay));
    if (!relay)
        return -ENOMEM;
    relay->options = *options;
    relay->options.endpoints = NULL; /* copied below */
    relay->endpoints = calloc(ENDPOINT_ENDPOINTS_MAX, sizeof(*relay->endpoints));
    relay->slots = calloc(options->slots, sizeof(*relay->slots));
    int rc =
        relay->endpoints && relay->slots ? http_create(&relay->http, options->local_only) : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < options->slots; i++)
        relay->slots[i].relay = relay;
    for (size_t i = 0; rc == 0 && i < options->endpoint_count; i++)
        rc = endpoint_init(&relay->endpoints[i], &options->endpoints[i], relay->http,
                           options->seed + i);
    if (rc)
        relay_destroy(relay);
    else
        *out = relay;
    return rc;
}

void relay_destroy(struct relay *relay)
{
    if (!relay)
        return;
    if (relay->slots && relay->open)
        relay_drop_all(relay);
    for (size_t i = 0; relay->endpoints && i < ENDPOINT_ENDPOINTS_MAX; i++)
        endpoint_deinit(&relay->endpoints[i]);
    for (uint32_t i = 0; relay->slots && i < relay->options.slots; i++)
        free(relay->slots[i].buffer);
    http_destroy(relay->http);
    free(relay->endpoints);
    free(relay->slots);
    free(relay);
}
