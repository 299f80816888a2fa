/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_serve.c - two clients and a runtime around the worker's machine. Input: the length of a
 * request's body in two bytes, the body, whose sum is made right; then steps of one byte kind, one
 * byte time (10 ms) and what the kind needs: a fragment of the body, an answer of the client's, any
 * datagram, another value somewhere in the headers to come, or something that the runtime does.
 * Whatever comes, bytes and requests stay bounded, and all of it is forgotten after a while of
 * silence. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/datagram.h"
#include "dataplane/flow/prompt.h"
#include "dataplane/flow/serve.h"

#define BODY_MAX    4096u
#define RUNNING_MAX 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum step {
    STEP_FRAGMENT,
    STEP_ACK,
    STEP_RESEND,
    STEP_CANCEL,
    STEP_ANY,
    STEP_HEADER,
    STEP_EMIT,
    STEP_FINISH,
    STEPS
};

struct input {
    const uint8_t *at;
    size_t left;
};

static struct weft_job *running[RUNNING_MAX]; /* those that the runtime has */
static uint8_t body[BODY_MAX];

static uint32_t take(struct input *in)
{
    uint32_t byte = in->left > 0 ? *in->at : 0;
    in->at += in->left > 0;
    in->left -= in->left > 0;
    return byte;
}

/* ---- the runtime ---- */

static void finish(uint32_t index, int status)
{
    struct weft_job *job = running[index];
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP, .status = status};
    if (job != NULL) {
        running[index] = NULL;
        serve_job_finish(job, &report);
    }
}

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    (void)user;
    for (uint32_t i = 0; i < RUNNING_MAX; i++) {
        if (running[i] == NULL) {
            running[i] = job;
            if (view->max_tokens % 8 == 1) { /* at once */
                (void)serve_job_emit(job, 1, "token", 5);
                finish(i, 0);
            }
            return 0;
        }
    }
    return WEFT_E_MESH_FULL;
}

static void on_cancel(void *user, struct weft_job *job)
{
    (void)user;
    (void)job; /* it ends with a later step */
}

/* ---- the clients ---- */

static void drain(struct serve *s, uint64_t now_ns)
{
    uint8_t out[SERVE_OUT_MAX];
    for (uint32_t i = 0; serve_output(s, now_ns, out) != 0; i++) {
        if (i > 1000) {
            abort();
        }
    }
}

static void send(struct serve *s, const struct weft_req *req, const void *payload, uint32_t len,
                 uint64_t now_ns)
{
    uint8_t datagram[WEFT_DATAGRAM_MAX];
    if (sizeof(*req) + len <= sizeof(datagram)) {
        memcpy(datagram, req, sizeof(*req));
        memcpy(datagram + sizeof(*req), payload, len);
        serve_input(s, datagram, sizeof(*req) + len, now_ns);
    }
}

static void fragment(struct serve *s, struct weft_req *req, struct input *in, uint64_t now_ns)
{
    uint32_t begin = take(in) * 16;
    uint32_t len = take(in) * 16;
    uint32_t total = req->h.msg_len;
    begin = begin < total ? begin : 0;
    len = len < total - begin ? len : total - begin;
    req->h.type = WEFT_T_REQ;
    req->h.offset = begin;
    send(s, req, body + (begin < BODY_MAX ? begin : 0), len < BODY_MAX - begin ? len : 0, now_ns);
}

static void told(struct serve *s, struct weft_req *req, uint8_t type, struct input *in,
                 uint64_t now_ns)
{
    uint32_t words[2] = {take(in) * 4, take(in) * 8};
    req->h.type = type;
    send(s, req, words, sizeof(words), now_ns);
}

static void any(struct serve *s, struct input *in, uint64_t now_ns)
{
    size_t len = take(in);
    len = len < in->left ? len : in->left;
    serve_input(s, in->at, len, now_ns);
    in->at += len;
    in->left -= len;
}

static void step(struct serve *s, struct weft_req *req, struct input *in, uint32_t kind,
                 uint64_t now_ns)
{
    static const uint8_t types[] = {
        [STEP_ACK] = WEFT_T_ACK, [STEP_RESEND] = WEFT_T_RESEND, [STEP_CANCEL] = WEFT_T_CANCEL};
    uint32_t place;
    switch (kind % STEPS) {
    case STEP_FRAGMENT:
        fragment(s, req, in, now_ns);
        break;
    case STEP_ANY:
        any(s, in, now_ns);
        break;
    case STEP_HEADER:
        place = take(in) % sizeof(*req);
        ((uint8_t *)req)[place] = (uint8_t)take(in);
        break;
    case STEP_EMIT:
        place = take(in);
        if (running[place % RUNNING_MAX] != NULL) {
            (void)serve_job_emit(running[place % RUNNING_MAX], place, (const char *)body,
                                 place * 8);
        }
        break;
    case STEP_FINISH:
        place = take(in);
        finish(place % RUNNING_MAX, place & 64 ? WEFT_E_WORKER_FAILED : 0);
        break;
    default:
        told(s, req, types[kind % STEPS], in, now_ns);
    }
}

/* ---- the whole ---- */

/* As it is at first: its tables are large, and all but the set of those that ended are empty. */
static struct serve *begin(void)
{
    static struct serve *s;
    const struct serve_config config = {.node_id = 1, .seed = 2};
    const struct serve_ops ops = {on_job, on_cancel, NULL};
    const weft_load_t load = {.room = 100};
    if (s == NULL && (s = serve_create(&config, &ops)) == NULL) {
        abort();
    }
    memset(s->done.buckets, 0, DONE_SET_MAX * sizeof(*s->done.buckets));
    s->done.count = 0;
    s->done.full = false;
    s->prefixes = (struct serve_prefixes){.count = 0};
    s->stats = (struct serve_stats){.jobs = 0};
    s->controls_head = s->controls_tail = 0;
    serve_set_load(s, &load);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct serve *s = begin();
    uint64_t now_ns = NS_PER_S;
    struct weft_req req = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .hdr_words = sizeof(req) / 4,
                                 .conn_id = 1,
                                 .req_seq = 1,
                                 .budget_us = WEFT_BUDGET_NONE}};
    size_t len = take(&in) | take(&in) << 8;
    len = len < in.left ? len : in.left;
    len = len < BODY_MAX ? len : BODY_MAX;
    memset(body, 0, sizeof(body));
    memcpy(body, in.at, len);
    in.at += len;
    in.left -= len;
    if (len >= WEFT_PROMPT_LEAST) {
        prompt_seal(body, len); /* or nothing would get past the sum */
    }
    req.h.msg_len = (uint32_t)len;
    while (in.left >= 2) {
        uint32_t kind = take(&in);
        now_ns += take(&in) * 10 * NS_PER_MS;
        serve_tick(s, now_ns);
        step(s, &req, &in, kind, now_ns);
        drain(s, now_ns);
    }
    for (uint32_t i = 0; i < RUNNING_MAX; i++) {
        finish(i, 0);
    }
    drain(s, now_ns);
    serve_tick(s, now_ns + 2 * SERVE_GIVE_UP_NS);
    if (s->table.count != 0 || s->partial_bytes != 0 || s->reply_bytes != 0 || s->receiving != 0 ||
        !TAILQ_EMPTY(&s->ready)) {
        abort();
    }
    return 0;
}
