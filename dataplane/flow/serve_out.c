/* SPDX-License-Identifier: Apache-2.0 */
/* serve_out.c - what goes back to clients: short answers first, then reply bytes of each job in
 * turn; see serve.h. */
#include <string.h>

#include "dataplane/flow/serve_job.h"

void serve_stamp(const struct serve *s, const struct weft_req *req, uint8_t type,
                 struct weft_rsp *rsp)
{
    memset(rsp, 0, sizeof(*rsp));
    rsp->h.ver_fmt = WEFT_VER_FMT;
    rsp->h.type = type;
    rsp->h.flags = WEFT_F_RELAYED;
    rsp->h.hdr_words = WEFT_RSP_WORDS;
    rsp->h.hops_left = WEFT_HOPS_MAX;
    rsp->h.prio_mode = req->h.prio_mode;
    rsp->h.route_epoch = req->h.route_epoch;
    rsp->h.conn_id = req->h.conn_id;
    rsp->h.req_seq = req->h.req_seq;
    rsp->h.session = req->h.session;
    rsp->h.room = serve_room(s);
    rsp->h.free_vram_64mib = serve_free_vram(s);
    rsp->h.queue_us = s->load.queue_us;
    rsp->h.origin = req->h.origin;
    rsp->h.server = s->config.node_id;
    rsp->ret = req->ret;
}

void serve_control(struct serve *s, const struct weft_req *req, uint8_t type, uint32_t arg,
                   const void *payload, size_t len)
{
    if (s->controls_head - s->controls_tail == SERVE_CONTROLS_MAX) {
        s->stats.controls_lost++;
        return;
    }
    struct serve_control *c = &s->controls[s->controls_head++ & (SERVE_CONTROLS_MAX - 1)];
    serve_stamp(s, req, type, &c->rsp);
    if (type == WEFT_T_NEED_ACK) {
        c->rsp.h.msg_len = arg;
    } else {
        c->rsp.h.arg = arg;
        c->rsp.h.msg_len = (uint32_t)len;
    }
    c->len = (uint16_t)(sizeof(struct weft_rsp) + len);
    if (len != 0) {
        memcpy(c->payload, payload, len);
    }
}

void serve_reject(struct serve *s, const struct weft_req *req, int status, unsigned constraint)
{
    uint32_t retry_us = 0;
    uint32_t best_us = 0;
    if (status == WEFT_E_MESH_FULL || status == WEFT_E_BUDGET_INFEASIBLE) {
        retry_us = s->load.queue_us > SERVE_RETRY_MIN_US ? s->load.queue_us : SERVE_RETRY_MIN_US;
    }
    if (status == WEFT_E_BUDGET_INFEASIBLE) {
        best_us = s->load.queue_us; /* not before that */
    }
    struct weft_reject why = {
        .status = (uint16_t)-status,
        .constraint = (uint16_t)constraint,
        .best = best_us,
        .retry_after_us = retry_us,
        .candidates = 1,
    };
    s->stats.refused++;
    serve_control(s, req, WEFT_T_REJECT, 0, &why, sizeof(why));
}

static size_t serve_output_part(struct weft_job *job, uint64_t now_ns, uint8_t *out)
{
    struct serve *s = job->serve;
    struct serve_reply *reply = &job->reply;
    bool again = reply->again.begin < reply->again.end;
    uint32_t begin = again ? reply->again.begin : reply->sent;
    uint32_t limit = again ? reply->again.end : reply->end;
    if (!again && limit > reply->credit) {
        limit = reply->credit;
    }
    uint32_t whole = limit - begin + (uint32_t)sizeof(struct weft_rsp);
    uint32_t size = again ? pmtu_again(&reply->pmtu) : pmtu_next(&reply->pmtu, whole, now_ns);
    size = size < whole ? size : whole;
    uint32_t end = begin + size - (uint32_t)sizeof(struct weft_rsp);
    pmtu_sent(&reply->pmtu, 0, begin, end, size, now_ns);
    struct weft_rsp *rsp = (struct weft_rsp *)(void *)out;
    serve_stamp(s, &job->last, WEFT_T_RESP, rsp);
    rsp->h.offset = begin;
    rsp->h.flags |= (uint8_t)((begin == 0 ? WEFT_F_FIRST : 0) | (again ? WEFT_F_RETX : 0));
    if (job->state == SERVE_FINISHED && end == reply->end) {
        rsp->h.flags |= WEFT_F_LAST;
        rsp->h.msg_len = end;
    }
    memcpy(out + sizeof(*rsp), reply->data + (begin - reply->base), end - begin);
    rsp->h.arg = datagram_sum(&rsp->h, out + sizeof(*rsp), end - begin);
    reply->sent_ns = now_ns;
    if (again) {
        reply->again.begin = end;
        s->stats.resent++;
    } else {
        reply->sent = end;
    }
    if (job->state == SERVE_FINISHED && reply->sent == reply->end) {
        job->need_ack_ns = now_ns + rtt_rto_ns(&job->rtt, job->need_acks);
    }
    return size;
}

size_t serve_output(struct serve *s, uint64_t now_ns, uint8_t *out)
{
    if (s->controls_tail != s->controls_head) {
        const struct serve_control *c = &s->controls[s->controls_tail++ & (SERVE_CONTROLS_MAX - 1)];
        memcpy(out, &c->rsp, sizeof(c->rsp));
        memcpy(out + sizeof(c->rsp), c->payload, c->len - sizeof(c->rsp));
        return c->len;
    }
    struct weft_job *job = TAILQ_FIRST(&s->ready);
    if (job == NULL) {
        return 0;
    }
    TAILQ_REMOVE(&s->ready, job, ready_link); /* to the end of the queue: each in its turn */
    job->ready = false;
    size_t size = serve_output_part(job, now_ns, out);
    serve_job_update(job);
    return size;
}
