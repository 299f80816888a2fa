/* SPDX-License-Identifier: Apache-2.0 */
/* serve_job.c - the life of one request at the worker; see serve.h. */
#include "dataplane/flow/serve_job.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"

#define REPLY_CAPACITY_MIN 1024u
#define FRAME_TEXT_MAX     ((uint32_t)UINT16_MAX)
#define LOGPROB_TEXT_MAX   255u
/* Of the account and of the text that may come with it. */
#define DONE_BYTES                                                                                 \
    ((uint32_t)(2 * sizeof(struct weft_frame) + WEFT_STOP_BYTES_MAX + sizeof(struct weft_done)))

struct weft_job *serve_job_open(struct serve *s, const struct weft_req *req, uint64_t now_ns)
{
    struct weft_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return NULL;
    }
    job->node.conn_id = req->h.conn_id;
    job->node.req_seq = req->h.req_seq;
    job->serve = s;
    job->state = SERVE_RECEIVING;
    if (req->h.budget_us != WEFT_BUDGET_NONE) {
        job->deadline_ns = now_ns + req->h.budget_us * NS_PER_US;
    }
    reasm_init(&job->body);
    job->body.total = req->h.msg_len;
    cc_init(&job->cc, s->config.cc);
    uint32_t window = cc_window(&job->cc);
    job->granted = req->h.msg_len < window ? req->h.msg_len : window;
    serve_ask_init(job, now_ns);
    job->reply.credit = FLOW_CREDIT_FIRST_BYTES;
    pmtu_init(&job->reply.pmtu);
    job->need_ack_ns = TIMER_NEVER;
    table_add(&s->table, &job->node);
    s->receiving++;
    return job;
}

void serve_job_heard(struct weft_job *job, const struct weft_req *req, uint64_t now_ns)
{
    job->last = *req;
    job->heard_ns = now_ns;
}

/* Leaves SERVE_RECEIVING: neither room nor partial bytes are held any more. */
static void serve_job_received(struct weft_job *job)
{
    job->serve->receiving--;
    job->serve->partial_bytes -= job->body.capacity;
}

void serve_job_close(struct weft_job *job, bool remember)
{
    struct serve *s = job->serve;
    if (job->state == SERVE_RECEIVING) {
        serve_job_received(job);
    }
    if (remember) {
        done_set_add(&s->done, job->node.conn_id, job->node.req_seq, 0, WEFT_C_NONE);
    }
    if (job->ready) {
        TAILQ_REMOVE(&s->ready, job, ready_link);
    }
    timers_set(&s->timers, &job->timer, TIMER_NEVER);
    table_remove(&s->table, &job->node);
    s->reply_bytes -= job->reply.capacity;
    free(job->reply.data);
    free(job->parts);
    reasm_deinit(&job->body);
    free(job);
}

void serve_job_refuse(struct weft_job *job, int status)
{
    struct serve *s = job->serve;
    unsigned constraint = WEFT_C_NONE;
    if (status == WEFT_E_MESH_FULL) {
        constraint = WEFT_C_ROOM;
    } else if (status == WEFT_E_BUDGET_EXPIRED || status == WEFT_E_BUDGET_INFEASIBLE) {
        constraint = WEFT_C_BUDGET;
    } else if (status == WEFT_E_NO_CAPABLE_NODE) {
        constraint = WEFT_C_ABILITY;
    }
    if (status > 0 || status < -(int)UINT16_MAX) {
        status = WEFT_E_WORKER_FAILED; /* not a status: does not fit the wire */
    }
    done_set_add(&s->done, job->node.conn_id, job->node.req_seq, (uint16_t)-status,
                 (uint16_t)constraint);
    serve_reject(s, &job->last, status, constraint);
    serve_job_close(job, false);
}

/* Room for `need` bytes behind the end. What was acknowledged is dropped when it is half of the
 * buffer, so that each byte is moved at most about once. */
static int serve_reply_reserve(struct weft_job *job, uint32_t need)
{
    struct serve_reply *reply = &job->reply;
    uint64_t want = (uint64_t)(reply->end - reply->base) + need;
    if (want <= reply->capacity) {
        return 0;
    }
    if (reply->acked - reply->base >= reply->capacity / 2 && reply->acked > reply->base) {
        memmove(reply->data, reply->data + (reply->acked - reply->base), reply->end - reply->acked);
        want -= reply->acked - reply->base;
        reply->base = reply->acked;
    }
    uint32_t capacity = reply->capacity != 0 ? reply->capacity : REPLY_CAPACITY_MIN;
    while (capacity < want) {
        capacity *= 2; /* want is below twice WEFT_MESSAGE_MAX: no overflow */
    }
    uint64_t grown = capacity - reply->capacity;
    if (grown == 0) {
        return 0;
    }
    uint8_t *data = NULL;
    if (job->serve->reply_bytes + grown <= job->serve->config.reply_bytes_max) {
        data = realloc(reply->data, capacity);
    }
    if (data == NULL) {
        return -ENOBUFS;
    }
    job->serve->reply_bytes += grown;
    reply->data = data;
    reply->capacity = capacity;
    return 0;
}

/* The runtime has this prompt, and keeps it for a while. */
static void serve_note_prefix(struct serve *s, uint64_t prefix)
{
    struct serve_prefixes *p = &s->prefixes;
    bool known = prefix == 0;
    for (uint32_t i = 0; i < SERVE_PREFIXES; i++) {
        known = known || p->at[i] == prefix;
    }
    if (!known) {
        p->at[p->count++ % SERVE_PREFIXES] = prefix;
    }
}

void serve_job_start(struct weft_job *job, uint64_t now_ns)
{
    struct serve *s = job->serve;
    if (job->deadline_ns != 0 && now_ns >= job->deadline_ns) {
        serve_job_refuse(job, WEFT_E_BUDGET_EXPIRED);
        return;
    }
    int rc = prompt_parse(job->body.data, job->body.total, &job->view, &job->parts);
    if (rc != 0) {
        serve_job_refuse(job, rc == -ENOMEM ? WEFT_E_MESH_FULL : rc);
        return;
    }
    job->granted = job->body.total;
    job->view.priority = job->last.h.prio_mode >> 4;
    job->view.deadline_ns = job->deadline_ns;
    job->view.deadline_is_end_to_end = (job->last.h.want & WEFT_WANT_E2E) != 0;
    job->view.received_ns = now_ns;
    job->view.conn_id = job->node.conn_id;
    job->view.session = job->last.h.session;
    uint64_t prefix = prompt_prefix(job->last.h.model, job->body.data, job->body.total);
    serve_job_received(job);
    job->state = SERVE_RUNNING;
    if (job->view.resume_count != 0) {
        job->last_token = job->view.resume[job->view.resume_count - 1];
    }
    s->started++;
    rc = serve_reply_reserve(job, DONE_BYTES) == 0 ? s->ops.on_job(s->ops.user, job, &job->view)
                                                   : WEFT_E_MESH_FULL;
    if (rc != 0) {
        s->started -= s->started != 0;
        serve_job_refuse(job, rc);
        return;
    }
    serve_grant(s, job);
    serve_note_prefix(s, prefix);
    s->stats.jobs++;
    serve_job_update(job);
}

void serve_job_cancel(struct weft_job *job)
{
    if (job->state == SERVE_RUNNING && !job->cancelled) {
        job->cancelled = true;
        job->serve->ops.on_cancel(job->serve->ops.user, job);
    }
}

/* ---- timers ---- */

static uint64_t serve_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t serve_job_due_ns(const struct weft_job *job)
{
    switch (job->state) {
    case SERVE_RECEIVING:
        return serve_min(serve_ask_due_ns(job), job->heard_ns + SERVE_GIVE_UP_NS);
    case SERVE_RUNNING:
        return job->cancelled ? TIMER_NEVER : job->heard_ns + SERVE_CLIENT_GONE_NS;
    case SERVE_FINISHED:
        break;
    }
    return serve_min(job->need_ack_ns, job->heard_ns + SERVE_GIVE_UP_NS);
}

static bool serve_job_can_send(const struct weft_job *job)
{
    const struct serve_reply *reply = &job->reply;
    uint32_t limit = reply->end < reply->credit ? reply->end : reply->credit;
    return reply->again.begin < reply->again.end || reply->sent < limit;
}

void serve_job_update(struct weft_job *job)
{
    struct serve *s = job->serve;
    bool ready = job->state != SERVE_RECEIVING && serve_job_can_send(job);
    if (ready && !job->ready) {
        TAILQ_INSERT_TAIL(&s->ready, job, ready_link);
    } else if (!ready && job->ready) {
        TAILQ_REMOVE(&s->ready, job, ready_link);
    }
    job->ready = ready;
    timers_set(&s->timers, &job->timer, serve_job_due_ns(job));
}

static void serve_tick_receiving(struct weft_job *job, uint64_t now_ns)
{
    if (now_ns >= job->heard_ns + SERVE_GIVE_UP_NS) {
        job->serve->stats.gone++;
        serve_job_close(job, false); /* never begun: it may come again */
        return;
    }
    serve_ask_tick(job, now_ns);
    serve_job_update(job);
}

static void serve_tick_finished(struct weft_job *job, uint64_t now_ns)
{
    if (now_ns >= job->heard_ns + SERVE_GIVE_UP_NS) {
        job->serve->stats.gone++;
        serve_job_close(job, true);
        return;
    }
    if (now_ns >= job->need_ack_ns) {
        struct weft_req *req = &job->last;
        serve_control(job->serve, req, WEFT_T_NEED_ACK, job->reply.end, NULL, 0);
        job->need_ack_ns = now_ns + rtt_rto_ns(&job->rtt, ++job->need_acks);
    }
    serve_job_update(job);
}

void serve_job_tick(struct weft_job *job, uint64_t now_ns)
{
    switch (job->state) {
    case SERVE_RECEIVING:
        serve_tick_receiving(job, now_ns);
        break;
    case SERVE_RUNNING:
        if (now_ns >= job->heard_ns + SERVE_CLIENT_GONE_NS) {
            job->serve->stats.gone++;
            serve_job_cancel(job);
        }
        serve_job_update(job);
        break;
    case SERVE_FINISHED:
        serve_tick_finished(job, now_ns);
        break;
    }
}

/* ---- the reply ---- */

static void serve_reply_put(struct serve_reply *reply, const void *data, uint32_t len)
{
    if (len != 0) {
        memcpy(reply->data + (reply->end - reply->base), data, len);
        reply->end += len;
    }
}

/* `spare` bytes stay free behind: the DONE frame must always fit. */
static int serve_reply_frame(struct weft_job *job, uint8_t kind, uint8_t flags, uint32_t token,
                             const void *data, uint32_t len, uint32_t spare)
{
    struct weft_frame frame = {kind, flags, (uint16_t)len, token};
    uint32_t need = (uint32_t)sizeof(frame) + len;
    if ((uint64_t)job->reply.end + need + spare > WEFT_MESSAGE_MAX ||
        serve_reply_reserve(job, need + spare) != 0) {
        return -ENOBUFS;
    }
    serve_reply_put(&job->reply, &frame, sizeof(frame));
    serve_reply_put(&job->reply, data, len);
    return 0;
}

int serve_job_emit(struct weft_job *job, uint32_t token, const char *text, size_t len)
{
    if (job->cancelled) {
        return 0; /* nobody reads it */
    }
    if (len > WEFT_MESSAGE_MAX) {
        return -ENOBUFS;
    }
    uint8_t flags = 0;
    do {
        uint32_t part = len < FRAME_TEXT_MAX ? (uint32_t)len : FRAME_TEXT_MAX;
        int rc = serve_reply_frame(job, WEFT_FRAME_TEXT, flags, token, text, part, DONE_BYTES);
        if (rc != 0) {
            return rc;
        }
        text = part != 0 ? text + part : text;
        len -= part;
        flags = WEFT_FRAME_F_CONTINUED;
    } while (len != 0);
    job->last_token = token;
    serve_job_update(job);
    return 0;
}

int serve_job_logprobs(struct weft_job *job, const weft_logprob_t *list, size_t count)
{
    uint8_t rows[WEFT_LOGPROBS_MAX * (sizeof(struct weft_logprob_entry) + LOGPROB_TEXT_MAX)];
    uint8_t *at = rows;
    if (job->cancelled || count == 0) {
        return 0;
    }
    if (count > WEFT_LOGPROBS_MAX) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t len = list[i].len < LOGPROB_TEXT_MAX ? (uint32_t)list[i].len : LOGPROB_TEXT_MAX;
        struct weft_logprob_entry entry = {list[i].token, list[i].logprob, len};
        memcpy(at, &entry, sizeof(entry));
        at += sizeof(entry);
        if (len != 0) {
            memcpy(at, list[i].text, len);
        }
        at += len;
    }
    return serve_reply_frame(job, WEFT_FRAME_LOGPROBS, 0, list[0].token, rows,
                             (uint32_t)(at - rows), DONE_BYTES);
}

int serve_job_embedding(struct weft_job *job, const float *values, size_t count)
{
    if (job->cancelled) {
        return 0;
    }
    if (count == 0 || count > WEFT_EMBEDDING_MAX) {
        return -EINVAL;
    }
    return serve_reply_frame(job, WEFT_FRAME_EMBEDDING, 0, 0, values,
                             (uint32_t)(count * sizeof(*values)), DONE_BYTES);
}

static uint32_t serve_us(uint64_t us)
{
    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

void serve_job_finish(struct weft_job *job, const weft_job_report_t *report)
{
    struct serve *s = job->serve;
    if (job->state != SERVE_RUNNING) {
        return;
    }
    int status = report->status;
    int finish = report->finish;
    if (job->cancelled) {
        status = status == 0 ? WEFT_E_CANCELLED : status;
        finish = WEFT_FINISH_CANCELLED;
    }
    if (status > 0 || status < -(int)UINT16_MAX) {
        status = WEFT_E_WORKER_FAILED;
    }
    if (status == 0 && report->tail_len != 0 && report->tail_len <= WEFT_STOP_BYTES_MAX) {
        (void)serve_reply_frame(job, WEFT_FRAME_TEXT, WEFT_FRAME_F_CONTINUED | WEFT_FRAME_F_TAIL,
                                job->last_token, report->tail, (uint32_t)report->tail_len,
                                DONE_BYTES - (uint32_t)sizeof(struct weft_frame) -
                                    (uint32_t)report->tail_len);
    }
    struct weft_done done = {
        .status = (uint16_t)-status,
        .finish = (uint8_t)finish,
        .tier = s->config.tier,
        .prompt_tokens = report->prompt_tokens,
        .new_tokens = report->new_tokens,
        .queue_us = serve_us(report->queue_us),
        .prefill_us = serve_us(report->prefill_us),
        .decode_us = serve_us(report->decode_us),
        .node = s->config.node_id,
        .cached_tokens = report->cached_tokens,
    };
    memcpy(done.node_name, s->config.node_name, sizeof(done.node_name));
    memcpy(done.backend, s->config.backend, sizeof(done.backend));
    job->state = SERVE_FINISHED;
    free(job->parts);
    job->parts = NULL;
    reasm_deinit(&job->body);
    /* Its place has been kept free since the start. */
    int rc = serve_reply_frame(job, WEFT_FRAME_DONE, 0, 0, &done, sizeof(done), 0);
    assert(rc == 0);
    (void)rc;
    serve_job_update(job);
}
