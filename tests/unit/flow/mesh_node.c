/* SPDX-License-Identifier: Apache-2.0 */
/* mesh_node.c - nodes of mesh.h: cookies, choice, relay and refusals as dataplane/route and core.c
 * have them, the real serve.h behind, and a runtime whose tokens follow from what came before. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/flow/mesh.h"

#define BIG_TOKEN_ONE_IN 8u

/* ---- what the model says ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    struct rng rng = {a ^ (b * UINT64_C(0x9e3779b97f4a7c15))};
    return rng_next(&rng);
}

static uint64_t hash_text(const char *text, size_t len, uint64_t seed)
{
    uint64_t h = seed;
    for (size_t i = 0; i < len; i++) {
        h = mix(h, (uint8_t)text[i]);
    }
    return h;
}

static uint32_t token_next(uint64_t hash)
{
    return (uint32_t)mix(hash, 1) & 0xffff;
}

static uint32_t token_text(const struct mesh_config *c, uint32_t token, char *out)
{
    uint32_t most = c->token_bytes;
    if (most > 64 && token % BIG_TOKEN_ONE_IN != 0) {
        most = 8;
    }
    uint32_t len = token / BIG_TOKEN_ONE_IN % (most + 1);
    for (uint32_t i = 0; i < len; i++) {
        out[i] = (char)('a' + (token + i * 7) % 26);
    }
    return len;
}

uint32_t mesh_prompt(const struct mesh_config *c, uint32_t stream, char *out)
{
    struct rng rng = {c->seed * 31 + stream};
    uint32_t len = (uint32_t)snprintf(out, 64, "%u ", c->tokens);
    for (uint32_t i = 0; i < c->prompt_bytes; i++) {
        out[len++] = (char)('a' + rng_below(&rng, 26));
    }
    return len;
}

char *mesh_answer(const struct mesh_config *c, uint32_t stream, uint32_t *ends, uint32_t *total)
{
    char *prompt = malloc(c->prompt_bytes + 64);
    char *text = malloc((size_t)c->tokens * (c->token_bytes + 8) + 1);
    uint64_t hash = hash_text(prompt, mesh_prompt(c, stream, prompt), c->seed + stream);
    uint32_t len = 0;
    *total = c->tokens < c->max_tokens ? c->tokens : c->max_tokens;
    for (uint32_t i = 0; i < *total; i++) {
        uint32_t token = token_next(hash);
        len += token_text(c, token, text + len);
        ends[i] = len;
        hash = mix(hash, token);
    }
    free(prompt);
    return text;
}

/* ---- the runtime ---- */

static void set_load(struct mesh_node *n)
{
    weft_load_t load = {.room = MESH_SLOTS, .queue_us = 1000, .steps = n->steps};
    for (uint32_t i = 0; i < MESH_SLOTS; i++) {
        load.room -= n->runs[i].job != NULL;
    }
    serve_set_load(n->serve, &load);
}

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    struct mesh_node *n = user;
    struct mesh_run *run = n->runs;
    while (run < n->runs + MESH_SLOTS && run->job != NULL) {
        run++;
    }
    if (run == n->runs + MESH_SLOTS) {
        return WEFT_E_MESH_FULL;
    }
    const weft_job_part_t *text = &view->parts[0];
    *run = (struct mesh_run){.job = job,
                             .hash = hash_text(text->text, text->len, view->seed),
                             .at = (uint32_t)view->resume_count,
                             .until = view->max_tokens,
                             .total = (uint32_t)strtoul(text->text, NULL, 10),
                             .prefill = n->mesh->config.prefill_steps};
    for (size_t i = 0; i < view->resume_count; i++) {
        if (view->resume[i] != token_next(run->hash)) {
            mesh_wrong(n->mesh, "resumed behind a token that was never given");
        }
        run->hash = mix(run->hash, view->resume[i]);
    }
    uint8_t *executed = &n->executed[job->node.req_seq % MESH_INFLIGHT_MAX];
    if ((*executed)++ != 0) {
        mesh_wrong(n->mesh, "a request executed twice by the same worker");
    }
    n->mesh->executions++;
    if (n->step_due_ns == MESH_NEVER) {
        n->step_due_ns = n->mesh->now_ns + n->step_ns;
    }
    return 0;
}

static void on_cancel(void *user, struct weft_job *job)
{
    struct mesh_node *n = user;
    for (uint32_t i = 0; i < MESH_SLOTS; i++) {
        n->runs[i].stop = n->runs[i].stop || n->runs[i].job == job;
    }
}

/* The last frame of the reply, which is `size` bytes long, as a broken runtime would write it. */
static void garble(struct mesh_node *n, struct weft_job *job, uint32_t before)
{
    struct serve_reply *reply = &job->reply;
    struct weft_frame frame;
    uint8_t *at = reply->data + (before - reply->base);
    memcpy(&frame, at, sizeof(frame));
    if (n->variant % 3 == 0 && frame.kind == WEFT_FRAME_TEXT) {
        frame.kind = 0x77;
    } else if (n->variant % 3 == 1 && frame.kind == WEFT_FRAME_TEXT) {
        frame.flags ^= WEFT_FRAME_F_CONTINUED;
    } else if (frame.kind == WEFT_FRAME_DONE) {
        frame.kind = n->variant % 2 == 0 ? 0x77 : frame.kind;
        frame.len = (uint16_t)(frame.len - n->variant % 2);
    }
    memcpy(at, &frame, sizeof(frame));
}

static void finish(struct mesh_node *n, struct mesh_run *run)
{
    weft_job_report_t report = {
        .finish = run->at == run->total ? WEFT_FINISH_STOP : WEFT_FINISH_LENGTH,
        .prompt_tokens = 1,
        .new_tokens = run->at,
        .decode_us = 1,
    };
    if (n->miscounts) {
        report.new_tokens += n->variant % 2 == 0 ? 1 : (uint32_t)-1;
    }
    struct weft_job *job = run->job;
    uint32_t before = job->reply.end;
    run->job = NULL;
    serve_job_finish(job, &report);
    if (n->garbles) {
        garble(n, job, before);
    }
}

static void run_step(struct mesh_node *n, struct mesh_run *run)
{
    const struct mesh_config *c = &n->mesh->config;
    bool last = run->at >= run->total || run->at >= run->until;
    if (run->prefill != 0 && !run->stop) {
        run->prefill--;
        return;
    }
    if (!run->stop && !last) {
        char text[4096];
        uint32_t token = token_next(run->hash);
        uint32_t before = run->job->reply.end;
        int rc = serve_job_emit(run->job, token, text, token_text(c, token, text));
        ck_assert_int_eq(rc, 0);
        if (n->garbles && run->job->reply.end != before) {
            garble(n, run->job, before);
        }
        run->hash = mix(run->hash, token);
        run->at++;
        n->mesh->tokens++;
        last = !c->late_done && (run->at == run->total || run->at == run->until);
    }
    if (run->stop || last) {
        finish(n, run);
    }
}

static void runtime_step(struct mesh_node *n)
{
    n->steps++;
    n->step_due_ns = MESH_NEVER;
    for (uint32_t i = 0; i < MESH_SLOTS; i++) {
        if (n->runs[i].job != NULL) {
            run_step(n, &n->runs[i]);
        }
        if (n->runs[i].job != NULL) {
            n->step_due_ns = n->mesh->now_ns + n->step_ns;
        }
    }
    set_load(n);
}

/* ---- the worker ---- */

void mesh_worker_start(struct mesh_node *n)
{
    struct serve_config sc = {
        .node_id = n->id, .tier = 2, .node_name = "n", .backend = "sim", .seed = n->secret};
    struct serve_ops ops = {on_job, on_cancel, n};
    n->serve = serve_create(&sc, &ops);
    n->known_dead_ns = MESH_NEVER;
    n->step_due_ns = MESH_NEVER;
    n->frozen = n->stalled = n->garbles = n->miscounts = false;
    memset(n->executed, 0, sizeof(n->executed));
    n->steps = 1;
    set_load(n);
}

/* What answers a request's datagram in the node's own name. */
static void answer(struct mesh_node *n, const struct weft_req *req, uint8_t type,
                   const void *payload, size_t len, uint32_t address)
{
    uint8_t out[WEFT_DATAGRAM_MAX];
    bool relayed = (req->h.flags & WEFT_F_RELAYED) != 0;
    struct weft_rsp rsp = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = type,
                                 .flags = relayed ? WEFT_F_RELAYED : 0,
                                 .hdr_words = WEFT_RSP_WORDS,
                                 .conn_id = req->h.conn_id,
                                 .req_seq = req->h.req_seq,
                                 .origin = relayed ? req->h.origin : (uint16_t)WEFT_NODE_NONE,
                                 .server = relayed ? n->id : (uint16_t)WEFT_NODE_NONE}};
    if (relayed) {
        rsp.ret = req->ret;
        memcpy(&address, req->ret.addr, sizeof(address));
    }
    memcpy(out, &rsp, sizeof(rsp));
    memcpy(out + sizeof(rsp), payload, len);
    uint32_t to = relayed && req->h.origin != n->id ? req->h.origin : MESH_CLIENT;
    mesh_send(n->mesh, n->id, to, address, out, sizeof(rsp) + len);
}

static void reject(struct mesh_node *n, const struct weft_req *req, int status, uint32_t address)
{
    struct weft_reject why = {.status = (uint16_t)-status, .retry_after_us = 1000};
    answer(n, req, WEFT_T_REJECT, &why, sizeof(why), address);
}

void mesh_worker_stop(struct mesh_node *n, bool told)
{
    serve_destroy(n->serve);
    n->serve = NULL;
    n->step_due_ns = MESH_NEVER;
    memset(n->runs, 0, sizeof(n->runs));
    for (uint32_t i = 0; i < n->inflight_count && told; i++) {
        const struct mesh_inflight *e = &n->inflight[i];
        struct weft_req req = {.h = {.flags = WEFT_F_RELAYED,
                                     .conn_id = e->conn_id,
                                     .req_seq = e->req_seq,
                                     .origin = e->origin}};
        req.ret = e->ret;
        if (e->open) {
            reject(n, &req, WEFT_E_WORKER_LOST, 0);
        }
    }
    n->inflight_count = 0;
    while (n->ring_count != 0) {
        mesh_packet_free(n->ring[--n->ring_count]);
    }
    n->known_dead_ns =
        n->mesh->now_ns + 100 * NS_PER_MS + rng_below(&n->mesh->rng, 900) * NS_PER_MS;
}

uint32_t mesh_node_jobs(const struct mesh_node *n)
{
    uint32_t count = n->serve != NULL ? n->serve->table.count : 0;
    for (uint32_t i = 0; i < MESH_SLOTS; i++) {
        count += n->runs[i].job != NULL;
    }
    return count;
}

static struct mesh_inflight *inflight_find(struct mesh_node *n, uint64_t conn_id, uint32_t req_seq)
{
    for (uint32_t i = 0; i < n->inflight_count; i++) {
        if (n->inflight[i].conn_id == conn_id && n->inflight[i].req_seq == req_seq) {
            return &n->inflight[i];
        }
    }
    return NULL;
}

static void to_client(struct mesh_node *n, const uint8_t *data, size_t len)
{
    const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)data;
    uint32_t address;
    memcpy(&address, rsp->ret.addr, sizeof(address));
    if (rsp->ret.tag == n->secret) {
        mesh_send(n->mesh, n->id, MESH_CLIENT, address, data, len);
    }
}

static void worker_flush(struct mesh_node *n)
{
    uint8_t out[SERVE_OUT_MAX];
    size_t len;
    while ((len = serve_output(n->serve, n->mesh->now_ns, out)) != 0) {
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)out;
        struct mesh_inflight *e = inflight_find(n, rsp->h.conn_id, rsp->h.req_seq);
        if (e == NULL || e->forwarded_to != WEFT_NODE_NONE) {
            mesh_wrong(n->mesh, "a worker answers what it was never asked");
            return;
        }
        if (rsp->h.type == WEFT_T_REJECT ||
            (rsp->h.type == WEFT_T_RESP && (rsp->h.flags & WEFT_F_LAST) != 0)) {
            e->open = false;
        }
        if (rsp->h.origin == n->id) {
            to_client(n, out, len);
        } else {
            mesh_send(n->mesh, n->id, rsp->h.origin, 0, out, len);
        }
    }
}

/* ---- the node that serves ---- */

static bool serves(const struct mesh *m, uint32_t node)
{
    return node < m->config.nodes && m->now_ns < m->nodes[node].known_dead_ns;
}

/* This node cannot: the next alternate, or a refusal (UNKNOWN for `status` 0). */
static void pass_on(struct mesh_node *n, struct weft_req *req, size_t len, int status)
{
    while (req->h.type == WEFT_T_REQ && req->h.alt1 != WEFT_NODE_NONE) {
        uint16_t to = req->h.alt1;
        req->h.target = to;
        req->h.alt1 = req->h.alt2;
        req->h.alt2 = WEFT_NODE_NONE;
        if (to == n->id || !serves(n->mesh, to)) {
            continue;
        }
        if (req->h.hops_left == 0) {
            status = WEFT_E_LOOP;
            break;
        }
        req->h.hops_left--;
        if (inflight_find(n, req->h.conn_id, req->h.req_seq) == NULL && n->serve != NULL &&
            n->inflight_count < MESH_INFLIGHT_MAX) {
            n->inflight[n->inflight_count++] = (struct mesh_inflight){
                .conn_id = req->h.conn_id, .req_seq = req->h.req_seq, .forwarded_to = to};
        }
        mesh_send(n->mesh, n->id, to, 0, (const uint8_t *)req, len);
        return;
    }
    if (status == 0) {
        answer(n, req, WEFT_T_UNKNOWN, "", 0, 0);
    } else {
        reject(n, req, status, 0);
    }
}

/* As deliver_one() of dataplane/core.c. Takes the packet over. */
static void deliver(struct mesh_node *n, struct mesh_packet *p)
{
    struct weft_req *req = (struct weft_req *)(void *)p->data;
    bool is_request = req->h.type == WEFT_T_REQ;
    struct mesh_inflight *e = inflight_find(n, req->h.conn_id, req->h.req_seq);
    if (n->serve == NULL || (e == NULL && !is_request)) {
        pass_on(n, req, p->len, is_request ? WEFT_E_MESH_FULL : 0);
    } else if (e != NULL && e->forwarded_to != WEFT_NODE_NONE) {
        req->h.alt1 = e->forwarded_to;
        pass_on(n, req, p->len, WEFT_E_MESH_FULL);
    } else if (e == NULL && (serve_room(n->serve) == 0 || n->inflight_count == MESH_INFLIGHT_MAX)) {
        pass_on(n, req, p->len, WEFT_E_MESH_FULL);
    } else {
        if (e == NULL) {
            e = &n->inflight[n->inflight_count++];
            *e = (struct mesh_inflight){.conn_id = req->h.conn_id,
                                        .req_seq = req->h.req_seq,
                                        .forwarded_to = WEFT_NODE_NONE,
                                        .open = true};
        }
        e->origin = req->h.origin;
        e->ret = req->ret;
        if (!n->frozen) {
            serve_input(n->serve, p->data, p->len, n->mesh->now_ns);
        } else if (n->ring_count < MESH_RING_MAX) {
            n->ring[n->ring_count++] = p;
            return;
        }
    }
    mesh_packet_free(p);
}

void mesh_worker_thaw(struct mesh_node *n)
{
    n->frozen = false;
    for (uint32_t i = 0; i < n->ring_count; i++) {
        if (n->serve != NULL) {
            serve_input(n->serve, n->ring[i]->data, n->ring[i]->len, n->mesh->now_ns);
        }
        mesh_packet_free(n->ring[i]);
    }
    n->ring_count = 0;
}

/* ---- the node that is asked ---- */

static bool avoided(const struct weft_first_hop *first, uint32_t node)
{
    uint32_t count = first->avoid_count < WEFT_AVOID_MAX ? first->avoid_count : WEFT_AVOID_MAX;
    for (uint32_t i = 0; i < count; i++) {
        if (first->avoid[i] == node) {
            return true;
        }
    }
    return false;
}

/* The nearest that are known to serve, in order; those to be avoided only if there are no others.
 */
static uint32_t choose(const struct mesh_node *n, const struct weft_first_hop *first,
                       uint16_t picks[3])
{
    const struct mesh *m = n->mesh;
    uint32_t count = 0;
    for (uint32_t soft = 0; soft < 2 && count == 0; soft++) {
        for (uint32_t far = 0; far < 2 * m->config.nodes && count < 3; far++) {
            uint32_t node = far % 2 == 0 ? n->id + far / 2 : n->id - (far + 1) / 2;
            if (serves(m, node) && (soft != 0 || !avoided(first, node))) {
                picks[count++] = (uint16_t)node;
            }
        }
    }
    return count;
}

static const struct mesh_pin *pin_for(struct mesh_node *n, const struct weft_req *req)
{
    struct mesh_pin *pin = &n->pins[req->h.req_seq % MESH_INFLIGHT_MAX];
    if (pin->req_seq == req->h.req_seq && serves(n->mesh, pin->node)) {
        return pin;
    }
    uint16_t picks[3] = {WEFT_NODE_NONE, WEFT_NODE_NONE, WEFT_NODE_NONE};
    if (req->h.type != WEFT_T_REQ || choose(n, &req->first, picks) == 0) {
        return NULL;
    }
    *pin = (struct mesh_pin){req->h.req_seq, picks[0], {picks[1], picks[2]}};
    return pin;
}

static void first_hop(struct mesh_node *n, struct mesh_packet *p)
{
    struct weft_req *req = (struct weft_req *)(void *)p->data;
    struct mesh_pin named = {0, req->h.target, {WEFT_NODE_NONE, WEFT_NODE_NONE}};
    uint64_t cookie = mix(n->secret, p->address) | 1;
    const struct mesh_pin *pin = NULL;
    if (req->first.cookie != cookie) {
        answer(n, req, WEFT_T_COOKIE, &cookie, sizeof(cookie), p->address);
    } else if (req->h.target != WEFT_NODE_NONE) {
        pin = serves(n->mesh, req->h.target) ? &named : NULL;
    } else {
        pin = pin_for(n, req);
    }
    if (req->first.cookie == cookie && pin == NULL) {
        if (req->h.type == WEFT_T_REQ && req->h.target == WEFT_NODE_NONE) {
            reject(n, req, WEFT_E_UNKNOWN_MODEL, p->address);
        } else {
            answer(n, req, WEFT_T_UNKNOWN, "", 0, p->address);
        }
    }
    if (pin == NULL) {
        mesh_packet_free(p);
        return;
    }
    memset(&req->ret, 0, sizeof(req->ret));
    memcpy(req->ret.addr, &p->address, sizeof(p->address));
    req->ret.tag = n->secret;
    req->h.origin = n->id;
    req->h.target = pin->node;
    req->h.alt1 = pin->alternates[0];
    req->h.alt2 = pin->alternates[1];
    req->h.flags |= WEFT_F_RELAYED;
    req->h.hops_left = WEFT_HOPS_MAX - 1;
    if (pin->node == n->id) {
        deliver(n, p);
        return;
    }
    mesh_send(n->mesh, n->id, pin->node, 0, p->data, p->len);
    mesh_packet_free(p);
}

void mesh_node_input(struct mesh *m, uint32_t node, struct mesh_packet *p)
{
    struct mesh_node *n = &m->nodes[node];
    struct datagram_payload payload;
    const struct weft_hdr *h = (const struct weft_hdr *)(const void *)p->data;
    if (!n->alive) {
        if (p->from == MESH_CLIENT && m->config.net_refuses) {
            mesh_client_refused(m, node);
        }
    } else if (datagram_check(p->data, p->len, true, sizeof(struct weft_rsp), &payload)) {
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)p->data;
        if (rsp->h.origin == n->id && p->from != MESH_CLIENT) {
            to_client(n, p->data, p->len);
        }
    } else if (datagram_check(p->data, p->len, false, sizeof(struct weft_req), &payload)) {
        bool relayed = (h->flags & WEFT_F_RELAYED) != 0;
        if (relayed == (p->from == MESH_CLIENT)) {
            mesh_wrong(m, "a request that is relayed and is not");
        } else if (relayed) {
            deliver(n, p);
            return;
        } else {
            first_hop(n, p);
            return;
        }
    }
    mesh_packet_free(p);
}

/* ---- life and time ---- */

void mesh_node_start(struct mesh *m, uint32_t node)
{
    struct mesh_node *n = &m->nodes[node];
    n->mesh = m;
    n->id = (uint16_t)node;
    n->alive = true;
    n->secret = rng_next(&m->rng) | 1;
    n->step_ns = m->config.step_ns * (4 + rng_below(&m->rng, 5)) / 4;
    memset(n->pins, 0, sizeof(n->pins));
    mesh_worker_start(n);
}

void mesh_node_stop(struct mesh *m, uint32_t node)
{
    struct mesh_node *n = &m->nodes[node];
    mesh_worker_stop(n, false);
    n->alive = false;
}

void mesh_node_tick(struct mesh_node *n)
{
    if (n->serve == NULL || n->frozen) {
        return;
    }
    if (n->step_due_ns <= n->mesh->now_ns && !n->stalled) {
        runtime_step(n);
    }
    serve_tick(n->serve, n->mesh->now_ns);
    worker_flush(n);
}

uint64_t mesh_node_due_ns(const struct mesh_node *n)
{
    if (n->serve == NULL || n->frozen) {
        return MESH_NEVER;
    }
    return mesh_min(serve_due_ns(n->serve), n->stalled ? MESH_NEVER : n->step_due_ns);
}
