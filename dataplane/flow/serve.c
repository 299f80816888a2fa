/* SPDX-License-Identifier: Apache-2.0 */
/* serve.c - see serve.h: creation, load, and what each kind of datagram does. */
#include "dataplane/flow/serve.h"

#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/serve_job.h"

struct serve *serve_create(const struct serve_config *config, const struct serve_ops *ops)
{
    struct serve *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->config = *config;
    s->ops = *ops;
    if (s->config.requests_max == 0 || s->config.requests_max > SERVE_REQUESTS_MAX) {
        s->config.requests_max = SERVE_REQUESTS_MAX;
    }
    if (s->config.partial_bytes_max == 0) {
        s->config.partial_bytes_max = SERVE_PARTIAL_BYTES_MAX;
    }
    if (s->config.reply_bytes_max == 0) {
        s->config.reply_bytes_max = SERVE_REPLY_BYTES_MAX;
    }
    TAILQ_INIT(&s->ready);
    s->controls = calloc(SERVE_CONTROLS_MAX, sizeof(*s->controls));
    if (s->controls == NULL || table_init(&s->table, SERVE_REQUESTS_MAX, config->seed) != 0 ||
        timers_init(&s->timers, SERVE_REQUESTS_MAX) != 0 ||
        done_set_init(&s->done, ~config->seed) != 0) {
        serve_destroy(s);
        return NULL;
    }
    return s;
}

void serve_destroy(struct serve *s)
{
    if (s == NULL) {
        return;
    }
    for (uint32_t i = 0; s->table.buckets != NULL && i <= s->table.mask; i++) {
        while (s->table.buckets[i] != NULL) {
            serve_job_close((struct weft_job *)(void *)s->table.buckets[i], false);
        }
    }
    done_set_deinit(&s->done);
    timers_deinit(&s->timers);
    table_deinit(&s->table);
    free(s->controls);
    free(s);
}

void serve_set_load(struct serve *s, const weft_load_t *load)
{
    s->load = *load;
    s->started = 0;
}

uint16_t serve_room(const struct serve *s)
{
    uint64_t taken = (uint64_t)s->receiving + s->started;
    if (s->load.room <= taken) {
        return 0;
    }
    uint64_t room = s->load.room - taken;
    return room < UINT16_MAX ? (uint16_t)room : UINT16_MAX;
}

uint16_t serve_free_vram(const struct serve *s)
{
    uint32_t units = s->load.free_vram_mib / WEFT_VRAM_UNIT_MIB;
    return units < UINT16_MAX ? (uint16_t)units : UINT16_MAX;
}

struct weft_job *serve_find(const struct serve *s, const struct weft_req *req)
{
    return (struct weft_job *)(void *)table_find(&s->table, req->h.conn_id, req->h.req_seq);
}

/* Refuses a request that has no job, and remembers that, so that none of its other fragments can
 * start it after the client has been told. */
static void serve_refuse(struct serve *s, const struct weft_req *req, int status,
                         unsigned constraint)
{
    done_set_add(&s->done, req->h.conn_id, req->h.req_seq, (uint16_t)-status, (uint16_t)constraint);
    serve_reject(s, req, status, constraint);
}

/* Answers for a request that has ended here. */
static bool serve_ended(struct serve *s, const struct weft_req *req)
{
    const struct done_entry *e = done_set_find(&s->done, req->h.conn_id, req->h.req_seq);
    if (e == NULL) {
        return false;
    }
    if (e->status != 0 && req->h.type != WEFT_T_CANCEL) {
        serve_reject(s, req, -(int)e->status, e->constraint);
    } else {
        serve_control(s, req, WEFT_T_UNKNOWN, 0, NULL, 0);
    }
    return true;
}

static struct weft_job *serve_open(struct serve *s, const struct weft_req *req, uint64_t now_ns)
{
    if (req->h.msg_len < WEFT_PROMPT_LEAST || req->h.msg_len > WEFT_MESSAGE_MAX) {
        serve_refuse(s, req, WEFT_E_BAD_REQUEST, WEFT_C_NONE);
        return NULL;
    }
    if (req->h.budget_us == 0) {
        serve_refuse(s, req, WEFT_E_BUDGET_EXPIRED, WEFT_C_BUDGET);
        return NULL;
    }
    struct weft_job *job = NULL;
    if (serve_room(s) != 0 && s->table.count < s->config.requests_max) {
        job = serve_job_open(s, req, now_ns);
    }
    if (job == NULL) {
        bool drains = WEFT_DRAINS(s->load.room, s->load.queue_us);
        serve_refuse(s, req, drains ? WEFT_E_DRAINING : WEFT_E_MESH_FULL, WEFT_C_ROOM);
    }
    return job;
}

void serve_grant(struct serve *s, const struct weft_job *job)
{
    struct weft_grant grant = {job->last.h.alt1, job->last.h.alt2, s->config.arithmetic};
    uint32_t place = s->controls_head;
    serve_control(s, &job->last, WEFT_T_GRANT, job->granted, &grant, sizeof(grant));
    if (s->controls_head != place) { /* how far it has come without a gap */
        s->controls[place & (SERVE_CONTROLS_MAX - 1)].rsp.h.offset = job->body.cum;
    }
}

void serve_resend_req(const struct weft_job *job, const struct weft_range *gaps, uint32_t count)
{
    struct serve *s = job->serve;
    uint32_t place = s->controls_head;
    serve_control(s, &job->last, WEFT_T_RESEND_REQ, job->granted, gaps, count * sizeof(*gaps));
    if (s->controls_head != place) {
        s->controls[place & (SERVE_CONTROLS_MAX - 1)].rsp.h.offset = job->body.cum;
    }
}

static void serve_busy(struct serve *s, const struct weft_job *job)
{
    serve_control(s, &job->last, WEFT_T_BUSY, s->load.steps, NULL, 0);
}

/* Lets the client go on as bytes arrive, so that as many as the window are on their way. */
static void serve_extend_grant(struct serve *s, struct weft_job *job, uint64_t now_ns)
{
    uint32_t window = cc_window(&job->cc);
    uint32_t beyond = reasm_beyond(&job->body); /* no longer on its way */
    beyond = beyond < CC_WINDOW_MAX_BYTES ? beyond : CC_WINDOW_MAX_BYTES;
    uint64_t upto = (uint64_t)job->body.cum + beyond + window;
    upto = upto < job->body.total ? upto : job->body.total;
    if (upto <= job->granted ||
        (upto - job->granted < cc_step(window) && upto != job->body.total)) {
        return;
    }
    if (job->granted_ns == 0) {
        job->granted_before = job->granted;
        job->granted_ns = now_ns;
    }
    job->granted = (uint32_t)upto;
    serve_grant(s, job);
}

/* A fragment whose last byte was not granted before went when the GRANT had come, unless it is a
 * repeat (Karn). Returns the round trip, 0 = no sample. */
static uint64_t serve_sample(struct weft_job *job, const struct weft_req *req, uint32_t len,
                             uint64_t now_ns)
{
    if (job->granted_ns == 0 || (req->h.flags & WEFT_F_RETX) != 0 ||
        req->h.offset + len <= job->granted_before) {
        return 0;
    }
    uint64_t rtt_ns = now_ns - job->granted_ns;
    rtt_sample(&job->rtt, rtt_ns);
    job->granted_ns = 0;
    return rtt_ns;
}

/* One fragment of a request that is not complete. The job may be gone afterwards. */
static void serve_receive(struct serve *s, struct weft_job *job, const struct weft_req *req,
                          struct datagram_payload payload, bool first, uint64_t now_ns)
{
    uint32_t before = job->body.capacity;
    int fresh = -1;
    if (req->h.msg_len == job->body.total) {
        fresh = reasm_insert(&job->body, req->h.offset, payload.data, payload.len,
                             job->granted - job->body.cum);
    }
    s->partial_bytes += job->body.capacity - before;
    if (s->partial_bytes > s->config.partial_bytes_max) {
        serve_job_refuse(job, WEFT_E_MESH_FULL);
        return;
    }
    if (reasm_complete(&job->body)) {
        serve_job_start(job, now_ns);
        return;
    }
    if (first || fresh == 0) {
        serve_grant(s, job);
    }
    if (fresh > 0) {
        uint64_t rtt_ns = serve_sample(job, req, payload.len, now_ns);
        bool marked = (req->h.flags & WEFT_F_ECN_ECHO) != 0;
        cc_on_data(&job->cc, (uint32_t)fresh, rtt_ns, marked, now_ns);
        serve_ask_progress(job, now_ns);
        serve_extend_grant(s, job, now_ns);
    }
    serve_job_update(job);
}

static void serve_req(struct serve *s, struct weft_job *job, const struct weft_req *req,
                      struct datagram_payload payload, uint64_t now_ns)
{
    bool first = job == NULL;
    if (first) {
        if (serve_ended(s, req)) {
            return;
        }
        job = serve_open(s, req, now_ns);
        if (job == NULL) {
            return;
        }
    }
    serve_job_heard(job, req, now_ns);
    if (job->state == SERVE_RECEIVING) {
        serve_receive(s, job, req, payload, first, now_ns);
    } else {
        serve_grant(s, job); /* the first one was lost */
        serve_job_update(job);
    }
}

/* Reply bytes before `cum` have arrived. False if the job ended by it. */
static bool serve_acked(struct weft_job *job, uint32_t cum, uint32_t credit, uint64_t now_ns)
{
    struct serve_reply *reply = &job->reply;
    if (cum > reply->sent) {
        return true;
    }
    if (cum > reply->acked) {
        pmtu_arrived(&reply->pmtu, 0, cum, now_ns);
        reply->acked = cum;
        reply->again.begin = reply->again.begin > cum ? reply->again.begin : cum;
        job->need_acks = 0;
    }
    credit = credit < WEFT_MESSAGE_MAX ? credit : WEFT_MESSAGE_MAX;
    reply->credit = credit > reply->credit ? credit : reply->credit;
    if (job->state == SERVE_FINISHED && reply->acked == reply->end) {
        serve_job_close(job, true);
        return false;
    }
    return true;
}

static void serve_ack(struct weft_job *job, struct datagram_payload payload, uint64_t now_ns)
{
    struct weft_ack ack;
    if (payload.len < sizeof(ack)) {
        return;
    }
    memcpy(&ack, payload.data, sizeof(ack));
    if (serve_acked(job, ack.cum, ack.credit, now_ns)) {
        serve_job_update(job);
    }
}

static void serve_resend(struct serve *s, struct weft_job *job, struct datagram_payload payload,
                         uint64_t now_ns)
{
    struct weft_range range;
    if (payload.len < sizeof(range)) {
        return;
    }
    memcpy(&range, payload.data, sizeof(range));
    if (job->state == SERVE_RECEIVING) {
        serve_grant(s, job); /* a sign of life that also repeats what may be sent */
        return;
    }
    struct serve_reply *reply = &job->reply;
    if (range.begin > reply->sent || range.end < range.begin ||
        !serve_acked(job, range.begin, range.begin + FLOW_CREDIT_FIRST_BYTES, now_ns)) {
        return;
    }
    if (range.begin == range.end && now_ns - reply->sent_ns < RTT_RTO_FLOOR_NS) {
        serve_busy(s, job); /* a sign of life; what was just sent is on its way */
        serve_job_update(job);
        return;
    }
    uint32_t begin = range.begin > reply->acked ? range.begin : reply->acked;
    uint32_t end = range.end > range.begin ? range.end : range.begin + SERVE_RESEND_BURST;
    end = end < reply->sent ? end : reply->sent;
    reply->again = (struct reasm_range){begin, end > begin ? end : begin};
    pmtu_lost(&reply->pmtu, 0, begin, end, now_ns);
    serve_job_update(job);
    if (!job->ready) {
        serve_busy(s, job);
    }
}

static void serve_cancel(struct serve *s, struct weft_job *job)
{
    if (job->state == SERVE_RUNNING) {
        serve_job_cancel(job);
        serve_busy(s, job);
        serve_job_update(job);
        return;
    }
    if (job->state == SERVE_FINISHED && job->reply.sent < job->reply.end) {
        return; /* its end has not gone out yet */
    }
    /* Not begun, or done already: over either way. The reply must not go again, or a client that
     * has forgotten the request would answer each part of it with another CANCEL. */
    int status = job->state == SERVE_RECEIVING ? WEFT_E_CANCELLED : 0;
    serve_control(s, &job->last, WEFT_T_UNKNOWN, 0, NULL, 0);
    done_set_add(&s->done, job->node.conn_id, job->node.req_seq, (uint16_t)-status, WEFT_C_NONE);
    serve_job_close(job, false);
}

void serve_input(struct serve *s, const uint8_t *data, size_t len, uint64_t now_ns)
{
    struct datagram_payload payload;
    if (!datagram_check(data, len, false, sizeof(struct weft_req), &payload)) {
        s->stats.malformed++;
        return;
    }
    const struct weft_req *req = (const struct weft_req *)(const void *)data;
    struct weft_job *job = serve_find(s, req);
    if (req->h.type == WEFT_T_REQ) {
        serve_req(s, job, req, payload, now_ns);
        return;
    }
    if (req->h.type != WEFT_T_ACK && req->h.type != WEFT_T_RESEND && req->h.type != WEFT_T_CANCEL) {
        s->stats.malformed++;
        return;
    }
    if (job == NULL) {
        if (req->h.type == WEFT_T_ACK || serve_ended(s, req)) {
            return; /* a repeated last ACK needs no answer */
        }
        if (req->h.type == WEFT_T_CANCEL) {
            done_set_add(&s->done, req->h.conn_id, req->h.req_seq, (uint16_t)-WEFT_E_CANCELLED,
                         WEFT_C_NONE); /* its REQ may still be on the way */
        }
        serve_control(s, req, WEFT_T_UNKNOWN, 0, NULL, 0);
        return;
    }
    serve_job_heard(job, req, now_ns);
    if (req->h.type == WEFT_T_ACK) {
        serve_ack(job, payload, now_ns);
    } else if (req->h.type == WEFT_T_RESEND) {
        serve_resend(s, job, payload, now_ns);
    } else {
        serve_cancel(s, job);
    }
}

void serve_tick(struct serve *s, uint64_t now_ns)
{
    while (timers_due_ns(&s->timers) <= now_ns) {
        struct timer *timer = timers_first(&s->timers);
        serve_job_tick(
            (struct weft_job *)(void *)((char *)timer - offsetof(struct weft_job, timer)), now_ns);
    }
}

uint64_t serve_due_ns(const struct serve *s)
{
    return timers_due_ns(&s->timers);
}
