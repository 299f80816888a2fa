/* SPDX-License-Identifier: Apache-2.0 */
/* mesh_client.c - the client of mesh.h: what dataplane/client's client.c and attempt.c do between
 * the machines and the sockets, with a check of each token that comes out. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"
#include "tests/unit/flow/mesh.h"

static void client_follow(struct mesh_stream *s);

/* ---- one attempt ---- */

static const uint8_t *attempt_body(struct mesh_stream *s, uint32_t *len)
{
    if (s->core.count == 0) {
        *len = s->body_len;
        return s->body;
    }
    free(s->resumed);
    s->resumed =
        prompt_resumed(s->body, s->body_len, s->core.tokens, s->core.count, &s->resumed_len);
    *len = s->resumed_len;
    return s->resumed;
}

static void attempt_text(struct mesh_attempt *a, const struct request_text *text)
{
    struct mesh_stream *s = a->owner;
    struct mesh *m = s->mesh;
    bool wanted = text->continued
                      ? s->core.leader == (int)a->index
                      : stream_token(&s->core, &m->policy, a->index, text->token, m->now_ns);
    if (!wanted) {
        return;
    }
    stream_piece(&s->core, a->index, text->partial);
    if (s->done != 0) {
        mesh_wrong(m, "text behind the end");
    }
    if (!text->continued) {
        uint32_t before = s->delivered != 0 ? s->ends[s->delivered - 1] : 0;
        if (s->delivered == s->total || s->text_len != before) {
            mesh_wrong(m, "a token too many, or one that is not whole");
            return;
        }
        s->delivered++;
    }
    if (s->delivered == 0 || s->text_len + text->len > s->ends[s->delivered - 1] ||
        memcmp(s->expected + s->text_len, text->data, text->len) != 0) {
        mesh_wrong(m, "not the text of the uncut answer");
        return;
    }
    s->text_len += (uint32_t)text->len;
    if (s == &m->streams[0] && !text->continued) {
        mesh_faults_token(m);
    }
}

static void attempt_detach(struct mesh_attempt *a)
{
    if (a->owner != NULL) {
        a->owner->attempts[a->index] = NULL;
        a->owner = NULL;
    }
    request_forget_body(&a->core);
}

static void attempt_step(struct mesh_attempt *a)
{
    struct mesh_stream *s = a->owner;
    struct request_text text;
    uint64_t now_ns = s != NULL ? s->mesh->now_ns : 0;
    if (s != NULL && !a->accepted && a->core.server != WEFT_NODE_NONE) {
        a->accepted = true;
        stream_accepted(&s->core, a->index, a->core.server, a->core.alternates);
    }
    while (s != NULL && request_event(&a->core, &text, now_ns)) {
        if (a->owner != NULL) {
            attempt_text(a, &text);
        }
    }
    if (s == NULL) {
        return;
    }
    if (a->owner != NULL && a->core.suspect && !a->suspected) {
        stream_suspect(&s->core, &s->mesh->policy, a->index);
    }
    a->suspected = a->core.suspect;
    if (a->core.ended) {
        const weft_result_t *r = &a->core.result;
        if (r->status == 0 && s->core.leader == (int)a->index && r->new_tokens != s->delivered) {
            mesh_wrong(s->mesh, "an account that does not add up was taken");
        }
        attempt_detach(a);
        stream_over(&s->core, &s->mesh->policy, a->index, &a->core.result, now_ns);
    }
    client_follow(s);
}

/* What is still to be read of an attempt that nobody wants. */
static void attempt_drain(struct mesh *m, struct mesh_attempt *a)
{
    struct request_text text;
    while (request_event(&a->core, &text, m->now_ns)) {
    }
}

static void attempt_start(struct mesh_stream *s, const struct stream_order *order)
{
    struct mesh *m = s->mesh;
    struct mesh_attempt *a = calloc(1, sizeof(*a));
    uint32_t len;
    const uint8_t *body = attempt_body(s, &len);
    m->attempts_made++;
    a->owner = s;
    a->index = order->attempt;
    a->path = order->path;
    a->req_seq = ++m->next_seq;
    a->next = m->attempts;
    m->attempts = a;
    if (s->attempts[order->attempt] != NULL || order->path >= m->config.paths) {
        mesh_wrong(m, "an attempt in a place that is taken, or on no path");
        return;
    }
    s->attempts[order->attempt] = a;
    struct weft_req_hdr hdr = s->hdr;
    hdr.req_seq = a->req_seq;
    request_init(&a->core, &m->conns[a->path], &hdr, body, len, 0, m->now_ns);
    a->core.wanted = order->target;
    a->core.avoid_count = order->avoid_count;
    memcpy(a->core.avoid, order->avoid, sizeof(a->core.avoid));
    a->core.resumed = s->core.count;
    if (s->core.failovers != 0) {
        a->core.tries_max = REQUEST_TRIES_AGAIN;
    }
    attempt_step(a);
}

static void attempt_give_up(struct mesh *m, struct mesh_attempt *a)
{
    attempt_detach(a);
    request_cancel(&a->core, m->now_ns);
    request_tick(&a->core, &m->conns[a->path], m->now_ns);
}

/* ---- one stream ---- */

static void client_done(struct mesh_stream *s)
{
    struct mesh *m = s->mesh;
    s->done++;
    s->result = s->core.result;
    s->ended_ns = m->now_ns;
    for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
        if (s->attempts[i] != NULL) {
            mesh_wrong(m, "ended with an attempt of its own");
        }
    }
    stream_deinit(&s->core);
    free(s->body);
    free(s->resumed);
    s->body = s->resumed = NULL;
    if (--m->open == 0) {
        m->all_ended_ns = m->now_ns;
        m->up_at_end = m->sent_up;
        m->down_at_end = m->sent_down;
    }
}

static void client_follow(struct mesh_stream *s)
{
    struct stream_order order;
    if (s->following || s->done != 0) {
        return;
    }
    s->following = true;
    while (stream_next(&s->core, &order)) {
        if (order.kind == STREAM_START) {
            attempt_start(s, &order);
        } else if (s->attempts[order.attempt] != NULL) {
            attempt_give_up(s->mesh, s->attempts[order.attempt]);
        }
    }
    s->following = false;
    if (s->core.ended) {
        client_done(s);
    }
}

void mesh_client_open(struct mesh *m, uint32_t stream)
{
    struct mesh_stream *s = &m->streams[stream];
    const struct mesh_config *c = &m->config;
    char *text = malloc(c->prompt_bytes + 64);
    struct prompt_spec spec = {
        .text = text,
        .text_len = mesh_prompt(c, stream, text),
        .max_tokens = c->max_tokens,
        .top_p = 1.0f,
        .seed = c->seed + stream,
    };
    s->mesh = m;
    s->ends = calloc(c->tokens + 1, sizeof(*s->ends));
    s->expected = mesh_answer(c, stream, s->ends, &s->total);
    s->body_len = (uint32_t)prompt_size(&spec);
    s->body = malloc(s->body_len);
    prompt_write(&spec, s->body);
    free(text);
    s->hdr = (struct weft_req_hdr){.model = 7, .tiers = 7, .max_tokens = (uint16_t)c->max_tokens};
    m->open++;
    stream_init(&s->core, &m->policy, c->hedge, c->once, m->now_ns);
    client_follow(s);
}

void mesh_client_cancel(struct mesh *m, uint32_t stream)
{
    struct mesh_stream *s = &m->streams[stream];
    if (stream >= m->config.streams || s->done != 0) {
        return;
    }
    stream_cancel(&s->core, m->now_ns);
    for (uint32_t i = 0; i < STREAM_ATTEMPTS; i++) {
        if (s->attempts[i] != NULL) {
            request_cancel(&s->attempts[i]->core, m->now_ns);
        }
    }
    client_follow(s);
}

/* ---- the sockets' side ---- */

static struct mesh_attempt *find(const struct mesh *m, uint32_t req_seq)
{
    struct mesh_attempt *a = m->attempts;
    while (a != NULL && a->req_seq != req_seq) {
        a = a->next;
    }
    return a;
}

void mesh_client_input(struct mesh *m, const struct mesh_packet *p)
{
    struct datagram_payload payload;
    if (!datagram_check(p->data, p->len, true, sizeof(struct weft_rsp), &payload)) {
        return;
    }
    const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)p->data;
    struct mesh_attempt *a = find(m, rsp->h.req_seq);
    if (a == NULL) {
        uint8_t out[REQUEST_OUT_MAX];
        size_t len = request_tomb_output(&m->conns[p->from], rsp, out);
        if (len != 0) {
            mesh_send(m, MESH_CLIENT, p->from, m->address, out, len);
        }
        return;
    }
    request_input(&a->core, &m->conns[a->path], rsp, payload, m->now_ns);
    if (a->owner != NULL) {
        attempt_step(a);
    } else {
        attempt_drain(m, a);
    }
}

void mesh_client_refused(struct mesh *m, uint32_t path)
{
    for (uint32_t i = 0; i < m->config.streams; i++) {
        for (uint32_t k = 0; k < STREAM_ATTEMPTS; k++) {
            struct mesh_attempt *a = m->streams[i].attempts[k];
            if (a != NULL && a->path == path) {
                request_refused(&a->core);
                if (a->core.ended) {
                    attempt_step(a);
                }
            }
        }
    }
}

static void flush(struct mesh *m, struct mesh_attempt *a)
{
    uint8_t out[REQUEST_OUT_MAX];
    uint32_t burst = 0;
    size_t len;
    while ((len = request_output(&a->core, &m->conns[a->path], m->now_ns, out)) != 0) {
        if (burst++ > 1000) {
            mesh_wrong(m, "an attempt that sends without end");
            return;
        }
        mesh_send(m, MESH_CLIENT, a->path, m->address, out, len);
    }
}

static void remove_closed(struct mesh *m)
{
    for (struct mesh_attempt **at = &m->attempts; *at != NULL;) {
        struct mesh_attempt *a = *at;
        if (a->owner != NULL || !request_closed(&a->core)) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        request_bury(&a->core, &m->conns[a->path]);
        request_deinit(&a->core);
        free(a);
    }
}

void mesh_client_tick(struct mesh *m)
{
    for (uint32_t i = 0; i < m->config.streams; i++) {
        struct mesh_stream *s = &m->streams[i];
        if (s->done == 0) {
            stream_tick(&s->core, &m->policy, m->now_ns);
            client_follow(s);
        }
    }
    for (struct mesh_attempt *a = m->attempts; a != NULL; a = a->next) {
        if (request_due_ns(&a->core) <= m->now_ns) {
            request_tick(&a->core, &m->conns[a->path], m->now_ns);
        }
        if (a->owner != NULL) {
            attempt_step(a);
        } else {
            attempt_drain(m, a);
        }
    }
    for (struct mesh_attempt *a = m->attempts; a != NULL; a = a->next) {
        flush(m, a);
    }
    remove_closed(m);
}

uint64_t mesh_client_due_ns(const struct mesh *m)
{
    uint64_t due = MESH_NEVER;
    for (const struct mesh_attempt *a = m->attempts; a != NULL; a = a->next) {
        due = mesh_min(due, request_due_ns(&a->core));
    }
    for (uint32_t i = 0; i < m->config.streams; i++) {
        if (m->streams[i].done == 0) {
            due = mesh_min(due, stream_due_ns(&m->streams[i].core));
        }
    }
    return due;
}

void mesh_client_close(struct mesh *m)
{
    while (m->attempts != NULL) {
        struct mesh_attempt *a = m->attempts;
        m->attempts = a->next;
        request_deinit(&a->core);
        free(a);
    }
    for (uint32_t i = 0; i < m->config.streams; i++) {
        struct mesh_stream *s = &m->streams[i];
        if (s->done == 0) {
            stream_deinit(&s->core);
            free(s->body);
            free(s->resumed);
        }
        free(s->expected);
        free(s->ends);
    }
}
