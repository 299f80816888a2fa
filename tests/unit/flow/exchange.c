/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - see exchange.h. */
#include "tests/unit/flow/exchange.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"

#define NEVER UINT64_MAX

/* ---- the network: a heap of packets by time of arrival ---- */

static bool packet_before(const struct exchange_packet *a, const struct exchange_packet *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void packet_push(struct exchange *x, struct exchange_packet *p)
{
    if (x->packet_count == x->packet_capacity) {
        x->packet_capacity = x->packet_capacity != 0 ? 2 * x->packet_capacity : 64;
        x->packets = realloc(x->packets, x->packet_capacity * sizeof(struct exchange_packet *));
    }
    uint32_t i = x->packet_count++;
    while (i > 0 && packet_before(p, x->packets[(i - 1) / 2])) {
        x->packets[i] = x->packets[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    x->packets[i] = p;
}

static struct exchange_packet *packet_pop(struct exchange *x)
{
    struct exchange_packet *first = x->packets[0];
    struct exchange_packet *last = x->packets[--x->packet_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= x->packet_count) {
            break;
        }
        if (child + 1 < x->packet_count &&
            packet_before(x->packets[child + 1], x->packets[child])) {
            child++;
        }
        if (!packet_before(x->packets[child], last)) {
            break;
        }
        x->packets[i] = x->packets[child];
        i = child;
    }
    x->packets[i] = last;
    return first;
}

static bool network_fits(const struct exchange *x, size_t len, bool to_worker)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < EXCHANGE_MTUS; i++) {
        const struct exchange_mtu *mtu = &x->config.mtu[to_worker][i];
        bytes = mtu->at_ns != 0 && mtu->at_ns <= x->now_ns ? mtu->bytes : bytes;
    }
    return bytes == 0 || len <= bytes;
}

/* As ck_assert(), which tells check where it is each time: too slow for each datagram. */
static void need(bool good, const char *what)
{
    if (!good) {
        ck_abort_msg("%s", what);
    }
}

/* When it leaves the bottleneck; NEVER if it finds no place there. */
static uint64_t network_queue(struct exchange *x, uint8_t *data, size_t len, bool to_worker)
{
    const struct exchange_config *c = &x->config;
    struct exchange_link *link = &x->links[to_worker];
    if (c->rate_bytes == 0) {
        return x->now_ns;
    }
    uint64_t begin_ns = link->free_ns > x->now_ns ? link->free_ns : x->now_ns;
    uint64_t wait_ns = begin_ns - x->now_ns;
    if (wait_ns * c->rate_bytes / NS_PER_S + len > c->queue_bytes) {
        link->dropped++;
        return NEVER;
    }
    if (c->mark_ns != 0 && wait_ns > c->mark_ns) {
        data[2] |= WEFT_F_ECN_ECHO;
    }
    if (x->now_ns >= link->count_ns) {
        hist_add(&link->queue_us, wait_ns / NS_PER_US);
    }
    link->bytes += len;
    link->free_ns = begin_ns + (len + 42) * NS_PER_S / c->rate_bytes; /* Ethernet, IP, UDP */
    return link->free_ns;
}

static void network_send(struct exchange *x, const uint8_t *data, size_t len, bool to_worker)
{
    const struct exchange_config *c = &x->config;
    need(len <= WEFT_DATAGRAM_MAX, "a datagram is too long");
    x->links[to_worker].too_large += !network_fits(x, len, to_worker);
    uint32_t copies = rng_below(&x->rng, 1000) < c->dup_permille ? 2 : 1;
    for (uint32_t i = 0; i < copies; i++) {
        if (rng_below(&x->rng, 1000) < c->loss_permille || !network_fits(x, len, to_worker)) {
            continue;
        }
        struct exchange_packet *p = malloc(sizeof(*p));
        memcpy(p->data, data, len);
        uint64_t gone_ns = network_queue(x, p->data, len, to_worker);
        if (gone_ns == NEVER) {
            free(p);
            continue;
        }
        uint64_t spread = c->delay_max_ns - c->delay_min_ns;
        p->at_ns = gone_ns + c->delay_min_ns + (spread != 0 ? rng_next(&x->rng) % spread : 0);
        p->order = x->order++;
        p->to_worker = to_worker;
        p->len = (uint32_t)len;
        packet_push(x, p);
    }
    if (x->packet_count > x->in_flight_peak) {
        x->in_flight_peak = x->packet_count;
    }
}

/* ---- what the worker generates ---- */

static void token_text(uint64_t seed, uint32_t request, uint32_t token, char *out, uint32_t len)
{
    struct rng rng = {seed ^ ((uint64_t)request << 32) ^ token};
    for (uint32_t i = 0; i < len; i++) {
        out[i] = (char)('a' + rng_below(&rng, 26));
    }
}

bool exchange_text_ok(const struct exchange *x, uint32_t i, uint32_t tokens)
{
    uint32_t size = x->config.token_bytes;
    char *want = malloc(size + 1);
    bool ok = x->text_len[i] == tokens * size;
    for (uint32_t t = 0; ok && t < tokens; t++) {
        token_text(x->config.seed, i, t, want, size);
        ok = memcmp(x->text[i] + (size_t)t * size, want, size) == 0;
    }
    free(want);
    return ok;
}

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    struct exchange *x = user;
    uint32_t i = job->node.req_seq - 1;
    struct exchange_run *run = &x->run[i];
    run->executions++;
    x->job_ns[i] = x->now_ns;
    run->active = true;
    run->job = job;
    run->next_ns = x->now_ns + x->config.prefill_ns;
    char *want = malloc(x->config.prompt_bytes + 1);
    token_text(~x->config.seed, i, 0, want, x->config.prompt_bytes);
    if (view->part_count != 1 || view->parts[0].len != x->config.prompt_bytes ||
        memcmp(view->parts[0].text, want, view->parts[0].len) != 0) {
        x->prompt_wrong = true;
    }
    free(want);
    return 0;
}

static void on_cancel(void *user, struct weft_job *job)
{
    struct exchange *x = user;
    x->run[job->node.req_seq - 1].stop = true;
    x->run[job->node.req_seq - 1].cancels++;
}

static void worker_run(struct exchange *x, struct exchange_run *run, uint32_t i)
{
    while (run->active && run->next_ns <= x->now_ns) {
        if (run->stop || run->emitted == x->config.tokens) {
            weft_job_report_t report = {.finish = WEFT_FINISH_STOP,
                                        .prompt_tokens = 1,
                                        .new_tokens = run->emitted,
                                        .prefill_us = x->config.prefill_ns / 1000};
            run->active = false;
            serve_job_finish(run->job, &report);
            return;
        }
        char *text = malloc(x->config.token_bytes + 1);
        token_text(x->config.seed, i, run->emitted, text, x->config.token_bytes);
        int rc = serve_job_emit(run->job, run->emitted, text, x->config.token_bytes);
        need(rc == 0, "a token finds no place");
        free(text);
        run->emitted++;
        run->next_ns += x->config.token_ns;
    }
}

/* ---- the node between them ---- */

static bool worker_gone(const struct exchange *x)
{
    const struct exchange_config *c = &x->config;
    return (c->die_ns != 0 && x->now_ns >= c->die_ns) ||
           (c->reject_ns != 0 && x->now_ns >= c->reject_ns);
}

static bool network_silent(const struct exchange *x)
{
    return x->config.silence_ns != 0 && x->now_ns >= x->config.silence_ns;
}

static bool clients_gone(const struct exchange *x)
{
    return x->config.vanish_ns != 0 && x->now_ns >= x->config.vanish_ns;
}

static void node_answer(struct exchange *x, const struct weft_req *req, uint8_t type,
                        const void *payload, size_t len)
{
    uint8_t out[WEFT_DATAGRAM_MAX];
    struct weft_rsp rsp = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = type,
                                 .hdr_words = WEFT_RSP_WORDS,
                                 .conn_id = req->h.conn_id,
                                 .req_seq = req->h.req_seq,
                                 .server = 1}};
    memcpy(out, &rsp, sizeof(rsp));
    memcpy(out + sizeof(rsp), payload, len);
    network_send(x, out, sizeof(rsp) + len, false);
}

static void node_up(struct exchange *x, struct exchange_packet *p)
{
    struct weft_req *req = (struct weft_req *)(void *)p->data;
    need(req->h.origin == WEFT_NODE_NONE, "an origin");
    uint64_t cookie = EXCHANGE_COOKIE;
    if (!x->config.no_cookie && req->first.cookie != cookie) {
        node_answer(x, req, WEFT_T_COOKIE, &cookie, sizeof(cookie));
        return;
    }
    if (worker_gone(x)) {
        struct weft_reject why = {.status = (uint16_t)-WEFT_E_WORKER_LOST};
        bool reject = x->config.reject_ns != 0;
        node_answer(x, req, reject ? WEFT_T_REJECT : WEFT_T_UNKNOWN, &why,
                    reject ? sizeof(why) : 0);
        return;
    }
    req->h.flags |= WEFT_F_RELAYED;
    req->h.origin = 3;
    memset(&req->ret, 0x5a, sizeof(req->ret));
    serve_input(x->serve, p->data, p->len, x->now_ns);
}

/* ---- the clients ---- */

static void client_step(struct exchange *x, uint32_t i)
{
    struct request *r = &x->requests[i];
    struct request_text text;
    while (request_event(r, &text, x->now_ns)) {
        while (x->text_room[i] <= x->text_len[i] + text.len) { /* a sanitizer copies each time */
            x->text_room[i] = x->text_room[i] == 0 ? 4096 : 2 * x->text_room[i];
            x->text[i] = realloc(x->text[i], x->text_room[i]);
        }
        memcpy(x->text[i] + x->text_len[i], text.data, text.len);
        x->text_len[i] += (uint32_t)text.len;
    }
    if (r->ended && x->ended_ns[i] == 0) {
        x->result[i] = r->result;
        x->ended_ns[i] = x->now_ns;
        x->result[i].total_us = (x->now_ns - r->start_ns) / NS_PER_US;
    }
    uint8_t out[REQUEST_OUT_MAX];
    size_t len;
    uint32_t burst = 0;
    while ((len = request_output(r, &x->conn, x->now_ns, out)) != 0) {
        x->sent_up++;
        x->acks += out[1] == WEFT_T_ACK;
        need(burst++ < 10000, "a burst without an end");
        network_send(x, out, len, true);
    }
    if (request_closed(r)) {
        request_bury(r, &x->conn);
        request_deinit(r);
        x->open[i] = false;
    }
}

static uint64_t client_start_ns(const struct exchange *x, uint32_t i)
{
    return NS_PER_S + i * x->config.stagger_ns;
}

static void client_start(struct exchange *x, uint32_t i)
{
    const struct exchange_config *c = &x->config;
    char *prompt = malloc(c->prompt_bytes + 1);
    token_text(~c->seed, i, 0, prompt, c->prompt_bytes);
    struct prompt_spec spec = {
        .text = prompt, .text_len = c->prompt_bytes, .max_tokens = 9, .top_p = 1.0f};
    size_t size = prompt_size(&spec);
    x->body[i] = malloc(size);
    prompt_write(&spec, x->body[i]);
    free(prompt);
    struct weft_req_hdr hdr = {.req_seq = i + 1, .model = 7, .want = WEFT_WANT_E2E};
    request_init(&x->requests[i], &x->conn, &hdr, x->body[i], (uint32_t)size, c->budget_ns,
                 x->now_ns);
    x->started[i] = true;
    x->open[i] = true;
    client_step(x, i);
}

static void node_down(struct exchange *x, const struct exchange_packet *p)
{
    struct datagram_payload payload;
    need(datagram_check(p->data, p->len, true, sizeof(struct weft_rsp), &payload), "no reply");
    const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)p->data;
    if ((rsp->h.flags & WEFT_F_RELAYED) != 0) {
        need(rsp->h.origin == 3 && rsp->ret.addr[0] == 0x5a, "another return block");
    }
    uint32_t i = rsp->h.req_seq - 1;
    if (x->open[i]) {
        request_input(&x->requests[i], &x->conn, rsp, payload, x->now_ns);
        client_step(x, i);
        return;
    }
    uint8_t out[REQUEST_OUT_MAX];
    size_t len = request_tomb_output(&x->conn, rsp, out);
    if (len != 0) {
        network_send(x, out, len, true);
    }
}

/* ---- time ---- */

static void worker_flush(struct exchange *x)
{
    uint8_t out[SERVE_OUT_MAX];
    size_t len;
    while ((len = serve_output(x->serve, x->now_ns, out)) != 0) {
        x->sent_down++;
        if (!worker_gone(x)) {
            network_send(x, out, len, false);
        }
    }
    x->partial_peak =
        x->serve->partial_bytes > x->partial_peak ? x->serve->partial_bytes : x->partial_peak;
    x->reply_peak = x->serve->reply_bytes > x->reply_peak ? x->serve->reply_bytes : x->reply_peak;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_ns(const struct exchange *x)
{
    uint64_t next = x->packet_count != 0 ? x->packets[0]->at_ns : NEVER;
    next = min64(next, serve_due_ns(x->serve));
    for (uint32_t i = 0; i < x->config.requests; i++) {
        if (!x->started[i]) {
            next = min64(next, client_start_ns(x, i));
        }
        if (x->open[i] && !clients_gone(x)) {
            next = min64(next, request_due_ns(&x->requests[i]));
        }
        if (x->run[i].active) {
            next = min64(next, x->run[i].next_ns);
        }
    }
    if (x->config.cancel_ns > x->now_ns) {
        next = min64(next, x->config.cancel_ns);
    }
    return next;
}

static void deliver(struct exchange *x)
{
    while (x->packet_count != 0 && x->packets[0]->at_ns <= x->now_ns) {
        struct exchange_packet *p = packet_pop(x);
        if (network_silent(x) || (clients_gone(x) && !p->to_worker)) {
            free(p);
            continue;
        }
        if (p->to_worker) {
            node_up(x, p);
        } else {
            node_down(x, p);
        }
        free(p);
    }
}

void exchange_play(struct exchange *x, uint64_t limit_ns)
{
    for (uint64_t next = next_ns(x); next != NEVER && next <= limit_ns; next = next_ns(x)) {
        x->now_ns = next > x->now_ns ? next : x->now_ns;
        deliver(x);
        for (uint32_t i = 0; i < x->config.requests; i++) {
            worker_run(x, &x->run[i], i);
        }
        serve_tick(x->serve, x->now_ns);
        worker_flush(x);
        for (uint32_t i = 0; i < x->config.requests && !clients_gone(x); i++) {
            if (!x->started[i] && x->now_ns >= client_start_ns(x, i)) {
                client_start(x, i);
            }
            if (x->open[i]) {
                if (x->now_ns == x->config.cancel_ns) {
                    request_cancel(&x->requests[i], x->now_ns);
                }
                request_tick(&x->requests[i], &x->conn, x->now_ns);
                client_step(x, i);
            }
        }
    }
}

struct exchange *exchange_create(const struct exchange_config *config)
{
    struct exchange *x = calloc(1, sizeof(*x));
    x->config = *config;
    x->rng.state = config->seed;
    x->now_ns = NS_PER_S;
    struct serve_config sc = {
        .node_id = 1, .tier = 2, .node_name = "n", .backend = "sim", .cc = config->cc};
    struct serve_ops ops = {on_job, on_cancel, x};
    x->serve = serve_create(&sc, &ops);
    weft_load_t load = {.room = config->room != 0 ? config->room : 100, .queue_us = 5000};
    serve_set_load(x->serve, &load);
    request_conn_init(&x->conn, 0xc0ffee ^ config->seed, 0, 0);
    x->conn.cc = config->cc;
    for (uint32_t i = 0; i < config->requests; i++) {
        if (client_start_ns(x, i) == x->now_ns) {
            client_start(x, i);
        }
    }
    return x;
}

void exchange_destroy(struct exchange *x)
{
    while (x->packet_count != 0) {
        free(packet_pop(x));
    }
    free(x->packets);
    for (uint32_t i = 0; i < x->config.requests; i++) {
        if (x->open[i]) {
            request_deinit(&x->requests[i]);
        }
        free(x->text[i]);
        free(x->body[i]);
    }
    serve_destroy(x->serve);
    free(x);
}
