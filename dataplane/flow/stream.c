/* SPDX-License-Identifier: Apache-2.0 */
/* stream.c - see stream.h. */
#include "dataplane/flow/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/clock.h"

#define NEVER UINT64_MAX
#define P95   0.95

void stream_policy_init(struct stream_policy *policy, uint32_t paths)
{
    memset(policy, 0, sizeof(*policy));
    policy->paths = paths;
    policy->retry_purse = STREAM_RETRY_MAX;
}

static uint32_t purse_filled(uint32_t purse, uint32_t income, uint32_t max)
{
    return purse + income < max ? purse + income : max;
}

static bool purse_pay(uint32_t *purse)
{
    if (*purse < STREAM_PURSE) {
        return false;
    }
    *purse -= STREAM_PURSE;
    return true;
}

/* What took the attempt with it, and others too: its worker's node; before any worker has answered,
 * the node that was asked. */
static struct stream_loss *loss_of(struct stream_policy *policy, const struct stream_attempt *lost,
                                   uint16_t *node)
{
    if (lost->answered && lost->server != WEFT_NODE_NONE) {
        *node = lost->server;
        return &policy->losses[lost->server & (STREAM_LOSSES - 1)];
    }
    *node = (uint16_t)lost->path;
    return &policy->path_losses[lost->path & (STREAM_LOSSES - 1)];
}

static void loss_note(struct stream_policy *policy, const struct stream_attempt *lost,
                      uint64_t now_ns)
{
    uint16_t node;
    struct stream_loss *loss = loss_of(policy, lost, &node);
    *loss = (struct stream_loss){node, now_ns};
}

/* Somebody has paid for the loss that took this attempt, which was open then. */
static bool loss_paid(struct stream_policy *policy, const struct stream *s,
                      const struct stream_attempt *lost, uint64_t now_ns)
{
    uint16_t node;
    const struct stream_loss *loss = loss_of(policy, lost, &node);
    return s->failovers == 0 && loss->at_ns != 0 && loss->node == node &&
           s->start_ns <= loss->at_ns && now_ns - loss->at_ns < STREAM_LOSS_MS * NS_PER_MS;
}

/* Pays for another attempt in place of one that was lost, unless somebody has. */
static bool loss_pay(struct stream_policy *policy, const struct stream *s,
                     const struct stream_attempt *lost, uint64_t now_ns)
{
    if (loss_paid(policy, s, lost, now_ns)) {
        return true;
    }
    if (!purse_pay(&policy->retry_purse)) {
        return false;
    }
    loss_note(policy, lost, now_ns);
    return true;
}

/* ---- orders ---- */

static struct stream_order *order_add(struct stream *s, enum stream_kind kind, uint32_t attempt)
{
    assert(s->orders_head - s->orders_tail < STREAM_ORDERS);
    struct stream_order *order = &s->orders[s->orders_head++ % STREAM_ORDERS];
    memset(order, 0, sizeof(*order));
    order->kind = kind;
    order->attempt = attempt;
    order->target = WEFT_NODE_NONE;
    return order;
}

bool stream_next(struct stream *s, struct stream_order *order)
{
    if (s->orders_head == s->orders_tail) {
        return false;
    }
    *order = s->orders[s->orders_tail++ % STREAM_ORDERS];
    return true;
}

static uint16_t avoid_kept(const struct stream *s)
{
    return s->avoid_count < WEFT_AVOID_MAX ? s->avoid_count : WEFT_AVOID_MAX;
}

static bool avoids(const struct stream *s, uint16_t node)
{
    for (uint16_t i = 0; i < avoid_kept(s); i++) {
        if (s->avoid[i] == node) {
            return true;
        }
    }
    return false;
}

static void avoid_add(struct stream *s, uint16_t node)
{
    if (node != WEFT_NODE_NONE && !avoids(s, node)) {
        s->avoid[s->avoid_count++ % WEFT_AVOID_MAX] = node;
    }
}

/* An alternate that has not failed yet; it is used up. */
static uint16_t alternate_take(struct stream *s)
{
    for (uint32_t i = 0; i < 2; i++) {
        uint16_t node = s->alternates[i];
        s->alternates[i] = WEFT_NODE_NONE;
        if (node != WEFT_NODE_NONE && !avoids(s, node)) {
            return node;
        }
    }
    return WEFT_NODE_NONE;
}

/* What an attempt from here on should compute with, for the answer to be that of one attempt. */
static uint32_t wanted_arithmetic(const struct stream *s)
{
    return s->count != 0 ? s->arithmetic : 0;
}

/* Where to go on. Alternates may compute in any way: the mesh knows who does not. */
static uint16_t next_target(struct stream *s)
{
    uint16_t other = alternate_take(s);
    return wanted_arithmetic(s) != 0 ? (uint16_t)WEFT_NODE_NONE : other;
}

static void start(struct stream *s, uint32_t attempt, uint32_t path, uint16_t target)
{
    struct stream_order *order = order_add(s, STREAM_START, attempt);
    order->path = path;
    order->target = target;
    order->avoid_count = avoid_kept(s);
    memcpy(order->avoid, s->avoid, sizeof(order->avoid));
    order->arithmetic = target == WEFT_NODE_NONE ? wanted_arithmetic(s) : 0;
    s->attempts[attempt] = (struct stream_attempt){
        .live = true,
        .target = target,
        .server = WEFT_NODE_NONE,
        .path = path,
    };
}

static uint32_t free_attempt(const struct stream *s)
{
    return s->attempts[0].live ? 1 : 0;
}

static uint32_t live_count(const struct stream *s)
{
    return (uint32_t)s->attempts[0].live + s->attempts[1].live;
}

static void drop(struct stream *s, uint32_t attempt)
{
    if (s->attempts[attempt].live) {
        s->attempts[attempt].live = false;
        order_add(s, STREAM_CANCEL, attempt);
    }
}

/* ---- the ends ---- */

static void finish(struct stream *s, const weft_result_t *from, int status, uint64_t now_ns)
{
    weft_result_t *res = &s->result;
    s->ended = true;
    s->hedge_ns = s->path_ns = s->retry_ns = NEVER;
    *res = *from;
    res->status = status;
    if (status != 0 && (from->status == 0 || from->finish == 0 || from->status != status)) {
        res->finish = status == WEFT_E_CANCELLED ? WEFT_FINISH_CANCELLED : WEFT_FINISH_FAILED;
    }
    res->new_tokens = s->count;
    res->failovers = s->failovers;
    res->mixed = s->mixed;
    res->hedged = s->hedged;
    res->gap_us = s->gap_ns / NS_PER_US;
    res->resends = s->resends;
    res->total_us = (now_ns - s->start_ns) / NS_PER_US;
    res->first_token_us = 0;
    if (s->count != 0) {
        uint64_t us = (s->first_ns - s->start_ns) / NS_PER_US;
        res->first_token_us = us != 0 ? us : 1;
    }
    uint64_t worker_us = res->queue_us + res->prefill_us + res->decode_us;
    res->net_us = res->total_us > worker_us ? res->total_us - worker_us : 0;
}

/* ---- life ---- */

void stream_init(struct stream *s, struct stream_policy *policy, bool hedge, bool once,
                 uint64_t now_ns)
{
    memset(s, 0, sizeof(*s));
    s->leader = -1;
    s->once = once;
    s->alternates[0] = s->alternates[1] = WEFT_NODE_NONE;
    s->start_ns = s->last_ns = now_ns;
    s->hedge_ns = s->path_ns = s->retry_ns = NEVER;
    policy->retry_purse = purse_filled(policy->retry_purse, STREAM_RETRY_INCOME, STREAM_RETRY_MAX);
    policy->hedge_purse = purse_filled(policy->hedge_purse, STREAM_HEDGE_INCOME, STREAM_HEDGE_MAX);
    if (hedge && !once && policy->first_us.count >= STREAM_HEDGE_SAMPLES) {
        s->hedge_ns = now_ns + hist_quantile(&policy->first_us, P95) * NS_PER_US;
    }
    if (policy->paths > 1 && !once) {
        s->path_ns = now_ns + STREAM_PATH_MS * NS_PER_MS;
    }
    start(s, 0, policy->path, WEFT_NODE_NONE);
}

void stream_deinit(struct stream *s)
{
    free(s->tokens);
    s->tokens = NULL;
}

void stream_accepted(struct stream *s, uint32_t attempt, uint16_t server,
                     const uint16_t alternates[2])
{
    struct stream_attempt *a = &s->attempts[attempt];
    if (!a->live) {
        return;
    }
    a->answered = true;
    a->server = server;
    s->path_ns = NEVER;
    if (alternates[0] != WEFT_NODE_NONE) {
        memcpy(s->alternates, alternates, sizeof(s->alternates));
    }
}

void stream_computes(struct stream *s, uint32_t attempt, uint32_t arithmetic)
{
    s->attempts[attempt].arithmetic = arithmetic;
}

/* The next token is this attempt's. */
static void note_arithmetic(struct stream *s, uint32_t attempt)
{
    uint32_t now = s->attempts[attempt].arithmetic;
    s->mixed += s->count != 0 && now != 0 && s->arithmetic != 0 && now != s->arithmetic;
    s->arithmetic = now != 0 ? now : s->arithmetic;
}

static void remember(struct stream *s, uint32_t token)
{
    if (s->count == s->capacity && !s->forgetful) {
        uint32_t capacity = s->capacity != 0 ? 2 * s->capacity : STREAM_TOKENS_INITIAL;
        uint32_t *tokens = realloc(s->tokens, capacity * sizeof(*tokens));
        s->forgetful = tokens == NULL;
        s->tokens = tokens != NULL ? tokens : s->tokens;
        s->capacity = tokens != NULL ? capacity : s->capacity;
    }
    if (!s->forgetful) {
        s->tokens[s->count] = token;
    }
    s->count++;
}

static void count_failover(struct stream *s, struct stream_policy *policy)
{
    s->failovers++;
    policy->failovers++;
}

/* Its token is the first of this race: the other attempt, if there is one, is not needed. */
static void win(struct stream *s, struct stream_policy *policy, uint32_t attempt)
{
    const struct stream_attempt *other = &s->attempts[1 - attempt];
    if (other->live && s->leader == (int)(1 - attempt)) {
        s->first_failure = s->first_failure != 0 ? s->first_failure : WEFT_E_STALLED;
        avoid_add(s, other->server);
        count_failover(s, policy);
    }
    if (other->live && (!other->answered || s->leader >= 0) && other->path == policy->path) {
        policy->path = s->attempts[attempt].path; /* it may be the node that was asked */
    }
    s->leader = (int)attempt;
    s->hedge_ns = s->path_ns = NEVER;
    drop(s, 1 - attempt);
}

bool stream_token(struct stream *s, struct stream_policy *policy, uint32_t attempt, uint32_t token,
                  uint64_t now_ns)
{
    if (s->ended || s->cancelled || !s->attempts[attempt].live) {
        return false;
    }
    if (s->leader != (int)attempt) {
        win(s, policy, attempt);
    } else {
        drop(s, 1 - attempt); /* a rival of somebody who lives */
    }
    if (s->count == 0) {
        s->first_ns = now_ns;
        hist_add(&policy->first_us, (now_ns - s->start_ns) / NS_PER_US);
    } else if (now_ns - s->last_ns > s->gap_ns) {
        s->gap_ns = now_ns - s->last_ns;
    }
    s->last_ns = now_ns;
    s->refusals = 0;
    note_arithmetic(s, attempt);
    remember(s, token);
    return true;
}

bool stream_more(struct stream *s, struct stream_policy *policy, uint32_t attempt)
{
    if (s->ended || s->cancelled || !s->attempts[attempt].live || s->count == 0) {
        return false;
    }
    if (s->leader != (int)attempt) {
        win(s, policy, attempt);
    }
    return true;
}

void stream_piece(struct stream *s, uint32_t attempt, bool partial)
{
    if (s->leader == (int)attempt) {
        s->partial = partial;
    }
}

/* ---- going elsewhere ---- */

/* The attempt was lost, and somebody else may do better. */
static bool is_loss(int status)
{
    switch (status) {
    case WEFT_E_WORKER_LOST:
    case WEFT_E_WORKER_FAILED:
    case WEFT_E_STALLED:
    case WEFT_E_UNREACHABLE:
    case WEFT_E_CORRUPT:
    case WEFT_E_PROTOCOL:
    case WEFT_E_DRAINING:
    case WEFT_E_LOOP:
        return true;
    default:
        return false;
    }
}

/* Refused by a node that takes nothing, or hands on nothing: another attempt does no work twice. */
static bool is_turned(const weft_result_t *result)
{
    return result->finish == WEFT_FINISH_REFUSED &&
           (result->status == WEFT_E_DRAINING || result->status == WEFT_E_LOOP);
}

/* Nobody could take it just now. */
static bool is_refusal(int status)
{
    switch (status) {
    case WEFT_E_MESH_FULL:
    case WEFT_E_UNKNOWN_MODEL:
    case WEFT_E_NO_CAPABLE_NODE:
    case WEFT_E_BUDGET_INFEASIBLE:
        return true;
    default:
        return false;
    }
}

static uint32_t next_path(const struct stream_policy *policy, uint32_t path)
{
    return (path + 1) % policy->paths;
}

/* The node that was asked takes no new requests, or somebody behind it. */
static void after_turning(struct stream *s, struct stream_policy *policy,
                          const struct stream_attempt *lost, const weft_result_t *result,
                          uint64_t now_ns)
{
    uint32_t path = lost->path;
    s->first_failure = s->first_failure != 0 ? s->first_failure : result->status;
    s->turned++;
    if (lost->server != WEFT_NODE_NONE) {
        avoid_add(s, lost->server);
    } else {
        s->closed++;
        path = next_path(policy, path);
        policy->path = policy->path == lost->path ? path : policy->path;
    }
    if (s->forgetful || s->partial || s->turned > STREAM_TURNED_MAX || s->closed >= policy->paths) {
        finish(s, result, s->first_failure, now_ns);
        return;
    }
    start(s, free_attempt(s), path, alternate_take(s));
}

static void after_loss(struct stream *s, struct stream_policy *policy,
                       const struct stream_attempt *lost, const weft_result_t *result,
                       uint64_t now_ns)
{
    uint32_t path = lost->path;
    bool unheard = result->status == WEFT_E_UNREACHABLE || result->status == WEFT_E_STALLED;
    s->first_failure = s->first_failure != 0 ? s->first_failure : result->status;
    avoid_add(s, lost->server != WEFT_NODE_NONE ? lost->server : lost->target);
    if (unheard) { /* it may be the node that was asked */
        path = next_path(policy, path);
        policy->path = policy->path == lost->path ? path : policy->path;
    }
    bool nowhere = result->status == WEFT_E_UNREACHABLE && policy->paths == 1;
    if (s->once || s->forgetful || s->partial || nowhere || s->failovers == STREAM_FAILOVERS_MAX ||
        !loss_pay(policy, s, lost, now_ns)) {
        finish(s, result, s->first_failure, now_ns);
        return;
    }
    count_failover(s, policy);
    start(s, free_attempt(s), path, next_target(s));
}

/* An answer that has begun elsewhere, or should have: worth some patience. */
static void after_refusal(struct stream *s, const struct stream_policy *policy,
                          const struct stream_attempt *refused, const weft_result_t *result,
                          uint64_t now_ns)
{
    if (refused->target != WEFT_NODE_NONE) {
        avoid_add(s, refused->target); /* that one cannot: let the mesh choose */
        start(s, free_attempt(s), policy->path, WEFT_NODE_NONE);
        return;
    }
    if (s->refusals == STREAM_REFUSALS_MAX) {
        finish(s, result, s->first_failure, now_ns);
        return;
    }
    uint64_t wait_ms = (uint64_t)STREAM_BACKOFF_MS << s->refusals++;
    wait_ms = result->retry_after_ms > wait_ms ? result->retry_after_ms : wait_ms;
    s->retry_ns = now_ns + wait_ms * NS_PER_MS;
}

void stream_over(struct stream *s, struct stream_policy *policy, uint32_t attempt,
                 const weft_result_t *result, uint64_t now_ns)
{
    struct stream_attempt over = s->attempts[attempt];
    s->attempts[attempt].live = false;
    if (!over.live || s->ended) {
        return;
    }
    s->resends += result->resends;
    if (result->status == 0) {
        drop(s, 1 - attempt);
        finish(s, result, 0, now_ns);
        return;
    }
    bool led = s->leader == (int)attempt;
    s->leader = led ? -1 : s->leader;
    if (s->cancelled) {
        if (live_count(s) == 0) {
            finish(s, result, WEFT_E_CANCELLED, now_ns);
        }
    } else if (live_count(s) != 0) {
        avoid_add(s, over.server); /* the other one goes on alone */
        s->first_failure = is_loss(result->status) ? result->status : s->first_failure;
        if (led) {
            loss_note(policy, &over, now_ns); /* the other one was paid for */
            count_failover(s, policy);
        }
    } else if (is_turned(result)) {
        after_turning(s, policy, &over, result, now_ns);
    } else if (is_loss(result->status)) {
        after_loss(s, policy, &over, result, now_ns);
    } else if (is_refusal(result->status) && s->first_failure != 0) {
        after_refusal(s, policy, &over, result, now_ns);
    } else {
        finish(s, result, result->status, now_ns);
    }
}

void stream_suspect(struct stream *s, struct stream_policy *policy, uint32_t attempt)
{
    if (s->ended || s->cancelled || s->once || s->forgetful || s->partial ||
        s->leader != (int)attempt || live_count(s) != 1 || s->failovers == STREAM_FAILOVERS_MAX ||
        policy->retry_purse < STREAM_RIVAL_LEAST) {
        return;
    }
    uint16_t other = alternate_take(s);
    uint16_t server = s->attempts[attempt].server;
    if (other == WEFT_NODE_NONE || other == server) {
        return;
    }
    (void)purse_pay(&policy->retry_purse);
    /* By another node that it knows, if there is one: the silence may be that of the first. */
    bool picky = wanted_arithmetic(s) != 0;
    start(s, 1 - attempt, next_path(policy, s->attempts[attempt].path),
          picky ? (uint16_t)WEFT_NODE_NONE : other);
    struct stream_order *order = &s->orders[(s->orders_head - 1) % STREAM_ORDERS];
    if (picky && order->avoid_count < WEFT_AVOID_MAX) {
        order->avoid[order->avoid_count++] = server; /* it may still turn out to live */
    }
}

void stream_cancel(struct stream *s, uint64_t now_ns)
{
    if (s->ended || s->cancelled) {
        return;
    }
    s->cancelled = true;
    s->hedge_ns = s->path_ns = s->retry_ns = NEVER;
    if (live_count(s) == 0) {
        weft_result_t none = {.finish = WEFT_FINISH_CANCELLED};
        finish(s, &none, WEFT_E_CANCELLED, now_ns);
    }
}

/* No token yet: a second attempt beside the first. */
static void tick_beside(struct stream *s, struct stream_policy *policy, uint64_t now_ns)
{
    bool alone = live_count(s) == 1 && s->count == 0;
    uint32_t first = s->attempts[0].live ? 0 : 1;
    struct stream_attempt *a = &s->attempts[first];
    if (now_ns >= s->path_ns) {
        s->path_ns = NEVER;
        if (alone && !a->answered && loss_pay(policy, s, a, now_ns)) {
            start(s, 1 - first, next_path(policy, a->path), WEFT_NODE_NONE);
            return;
        }
    }
    if (now_ns >= s->hedge_ns) {
        s->hedge_ns = NEVER;
        uint16_t other = alone && a->answered ? alternate_take(s) : (uint16_t)WEFT_NODE_NONE;
        if (other != WEFT_NODE_NONE && other != a->server && purse_pay(&policy->hedge_purse)) {
            s->hedged = true;
            policy->hedges++;
            start(s, 1 - first, a->path, other);
        }
    }
}

void stream_tick(struct stream *s, struct stream_policy *policy, uint64_t now_ns)
{
    if (s->ended || s->cancelled) {
        return;
    }
    tick_beside(s, policy, now_ns);
    if (now_ns >= s->retry_ns) {
        s->retry_ns = NEVER;
        start(s, free_attempt(s), policy->path, WEFT_NODE_NONE);
    }
}

uint64_t stream_due_ns(const struct stream *s)
{
    uint64_t due = s->hedge_ns < s->path_ns ? s->hedge_ns : s->path_ns;
    return due < s->retry_ns ? due : s->retry_ns;
}
