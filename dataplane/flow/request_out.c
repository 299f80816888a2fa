/* SPDX-License-Identifier: Apache-2.0 */
/* request_out.c - the datagrams of request.h's machine, one per call, most urgent first. */
#include <string.h>

#include "dataplane/flow/request.h"
#include "dataplane/flow/window.h"

static uint32_t request_budget_us(const struct request *r, uint64_t now_ns)
{
    bool answered = r->result.first_token_us != 0 && (r->hdr.want & WEFT_WANT_E2E) == 0;
    if (r->deadline_ns == 0 || answered || r->ended || r->state == REQUEST_CANCELLING) {
        return WEFT_BUDGET_NONE; /* what follows the end must not expire on its way */
    }
    uint64_t left_us = r->deadline_ns > now_ns ? (r->deadline_ns - now_ns) / NS_PER_US : 0;
    left_us = left_us != 0 ? left_us : 1;
    return left_us < WEFT_BUDGET_NONE ? (uint32_t)left_us : WEFT_BUDGET_NONE - 1;
}

/* Header and first-hop block; the payload goes behind. */
static struct weft_req *request_stamp(const struct weft_req_hdr *hdr, uint64_t cookie, uint8_t type,
                                      uint16_t target, uint8_t *out)
{
    struct weft_req *req = (struct weft_req *)(void *)out;
    memset(req, 0, sizeof(*req));
    req->h = *hdr;
    req->h.type = type;
    req->h.flags = 0;
    req->h.target = target;
    req->h.msg_len = 0;
    req->h.offset = 0;
    req->h.budget_us = WEFT_BUDGET_NONE;
    req->first.cookie = cookie;
    return req;
}

static uint16_t request_target(const struct request *r)
{
    return r->server != WEFT_NODE_NONE ? r->server : r->wanted;
}

static size_t request_control(const struct request *r, const struct request_conn *conn,
                              uint8_t type, const void *payload, size_t len, uint64_t now_ns,
                              uint8_t *out)
{
    struct weft_req *req = request_stamp(&r->hdr, conn->cookie, type, request_target(r), out);
    req->h.budget_us = request_budget_us(r, now_ns);
    req->h.msg_len = (uint32_t)len;
    if (len != 0) {
        memcpy(out + sizeof(*req), payload, len);
    }
    return sizeof(*req) + len;
}

/* The window behind what has come; what the user has not read counts. */
static uint32_t request_credit(const struct request *r)
{
    uint32_t credit = r->reply.cum + reasm_beyond(&r->reply) + cc_window(&r->cc);
    uint32_t held = r->parsed + WINDOW_MAX_BYTES;
    credit = credit < held ? credit : held;
    return credit < WEFT_MESSAGE_MAX ? credit : WEFT_MESSAGE_MAX;
}

static size_t request_ack(struct request *r, const struct request_conn *conn, uint64_t now_ns,
                          uint8_t *out)
{
    uint32_t credit = request_credit(r);
    if (credit > r->credit) {
        if (r->credit_ns == 0) {
            r->credit_before = r->credit;
            r->credit_ns = now_ns;
        }
        r->credit = credit;
    }
    r->ack_ns = UINT64_MAX;
    r->unacked = 0;
    struct weft_ack ack = {r->reply.cum, r->credit};
    return request_control(r, conn, WEFT_T_ACK, &ack, sizeof(ack), now_ns, out);
}

static size_t request_resend(struct request *r, const struct request_conn *conn, uint32_t end,
                             uint64_t now_ns, uint8_t *out)
{
    uint32_t credit = r->parsed + FLOW_CREDIT_FIRST_BYTES;
    if (credit > r->credit) {
        r->credit = credit;
        r->credit_ns = 0; /* a sample would not know which of the two it answers */
    }
    struct weft_range range = {r->reply.cum, end};
    return request_control(r, conn, WEFT_T_RESEND, &range, sizeof(range), now_ns, out);
}

/* One datagram of at most `size` bytes with the body from `begin`, not past `limit`. */
static size_t request_fragment(struct request *r, struct request_conn *conn, uint32_t begin,
                               uint32_t limit, uint32_t size, uint8_t flags, uint64_t now_ns,
                               uint8_t *out)
{
    uint32_t len = limit - begin;
    uint32_t most = size - (uint32_t)sizeof(struct weft_req);
    len = len < most ? len : most;
    struct weft_req *req = request_stamp(&r->hdr, conn->cookie, WEFT_T_REQ, request_target(r), out);
    req->first.avoid_count = r->avoid_count;
    memcpy(req->first.avoid, r->avoid, sizeof(req->first.avoid));
    req->first.arithmetic = r->prefers;
    req->first.prefix = r->prefix;
    req->h.flags = (uint8_t)(flags | (begin == 0 ? WEFT_F_FIRST : 0) |
                             (begin + len == r->body_len ? WEFT_F_LAST : 0));
    req->h.budget_us = request_budget_us(r, now_ns);
    req->h.msg_len = r->body_len;
    req->h.offset = begin;
    memcpy(out + sizeof(*req), r->body + begin, len);
    r->cookie_sent = conn->cookie;
    pmtu_sent(&conn->pmtu, r->hdr.req_seq, begin, begin + len, (uint32_t)sizeof(*req) + len,
              now_ns);
    return sizeof(*req) + len;
}

/* How far fragments may go. Without a cookie the first one is sure to come back with one, so the
 * others wait. */
static uint32_t request_limit(const struct request *r, const struct request_conn *conn)
{
    uint32_t limit = r->granted;
    if (r->state == REQUEST_OPENING) {
        uint32_t most = pmtu_size(&conn->pmtu) - (uint32_t)sizeof(struct weft_req);
        limit = conn->cookie == 0 ? most : WEFT_UNSCHEDULED_MAX * most;
    }
    return limit < r->body_len ? limit : r->body_len;
}

/* The next part of the body for the first time; 0 if it must wait. */
static size_t request_onward(struct request *r, struct request_conn *conn, uint64_t now_ns,
                             uint8_t *out)
{
    uint32_t begin = r->sent_to;
    uint32_t limit = request_limit(r, conn);
    if (begin >= limit) {
        return 0;
    }
    uint32_t ready = limit - begin + (uint32_t)sizeof(struct weft_req);
    bool opening = r->state == REQUEST_OPENING; /* nothing is known of the path yet */
    uint32_t size = opening ? pmtu_size(&conn->pmtu) : pmtu_next(&conn->pmtu, ready, now_ns);
    if (ready < size && limit < r->body_len) {
        return 0; /* a whole datagram soon, rather than a part now */
    }
    if (begin == 0 && opening) {
        r->sample_ns = now_ns;
    }
    size_t sent = request_fragment(r, conn, begin, limit, size, 0, now_ns, out);
    r->sent_to += (uint32_t)(sent - sizeof(struct weft_req));
    return sent;
}

static size_t request_output_body(struct request *r, struct request_conn *conn, uint64_t now_ns,
                                  uint8_t *out)
{
    if (r->body == NULL || (r->state != REQUEST_OPENING && r->state != REQUEST_ACCEPTED)) {
        return 0;
    }
    uint32_t size = pmtu_again(&conn->pmtu);
    if (r->first_due) {
        r->first_due = false;
        return request_fragment(r, conn, 0, r->body_len, size, WEFT_F_RETX, now_ns, out);
    }
    while (r->lacks_count != 0) {
        struct reasm_range *gap = &r->lacks[0];
        if (gap->begin < gap->end) {
            size_t sent =
                request_fragment(r, conn, gap->begin, gap->end, size, WEFT_F_RETX, now_ns, out);
            gap->begin += (uint32_t)(sent - sizeof(struct weft_req));
            return sent;
        }
        memmove(gap, gap + 1, --r->lacks_count * sizeof(*gap));
    }
    return request_onward(r, conn, now_ns, out);
}

size_t request_output(struct request *r, struct request_conn *conn, uint64_t now_ns, uint8_t *out)
{
    if (r->stray_due) {
        r->stray_due = false;
        request_stamp(&r->hdr, conn->cookie, WEFT_T_CANCEL, r->stray, out);
        return sizeof(struct weft_req);
    }
    if (r->cancel_due) {
        r->cancel_due = false;
        return request_control(r, conn, WEFT_T_CANCEL, NULL, 0, now_ns, out);
    }
    if (r->ask_due) {
        r->ask_due = false;
        return request_resend(r, conn, r->asked.end, now_ns, out);
    }
    if (r->ack_ns <= now_ns) {
        return request_ack(r, conn, now_ns, out);
    }
    if (r->probe_due) {
        r->probe_due = false;
        return request_resend(r, conn, r->reply.cum, now_ns, out);
    }
    return request_output_body(r, conn, now_ns, out);
}

void request_bury(const struct request *r, struct request_conn *conn)
{
    struct request_tomb *tomb = &conn->tombs[r->hdr.req_seq & (REQUEST_TOMBS - 1)];
    tomb->hdr = r->hdr;
    tomb->cum = r->reply.cum;
    tomb->complete = reasm_complete(&r->reply);
}

size_t request_tomb_output(const struct request_conn *conn, const struct weft_rsp *rsp,
                           uint8_t *out)
{
    const struct request_tomb *tomb = &conn->tombs[rsp->h.req_seq & (REQUEST_TOMBS - 1)];
    /* What answers a CANCEL is not answered by another one: two ends would go on for ever. */
    if (rsp->h.type == WEFT_T_REJECT || rsp->h.type == WEFT_T_UNKNOWN ||
        rsp->h.type == WEFT_T_COOKIE || rsp->h.type == WEFT_T_BUSY ||
        tomb->hdr.conn_id != rsp->h.conn_id || tomb->hdr.req_seq != rsp->h.req_seq) {
        return 0;
    }
    uint8_t type = tomb->complete ? WEFT_T_ACK : WEFT_T_CANCEL;
    struct weft_req *req = request_stamp(&tomb->hdr, conn->cookie, type, rsp->h.server, out);
    if (!tomb->complete) {
        return sizeof(*req);
    }
    struct weft_ack ack = {tomb->cum, tomb->cum};
    req->h.msg_len = sizeof(ack);
    memcpy(out + sizeof(*req), &ack, sizeof(ack));
    return sizeof(*req) + sizeof(ack);
}
