/* SPDX-License-Identifier: Apache-2.0 */
/* request.c - see request.h. Input and timers; request_reply.c has the frames of the reply,
 * request_out.c makes the datagrams. */
#include "dataplane/flow/request_impl.h"

#include <stdlib.h>
#include <string.h>

#define NEVER UINT64_MAX

void request_conn_init(struct request_conn *conn, uint64_t conn_id, uint32_t connect_tries,
                       uint64_t stall_ns)
{
    memset(conn, 0, sizeof(*conn));
    conn->conn_id = conn_id;
    conn->connect_tries = connect_tries != 0 ? connect_tries : REQUEST_TRIES;
    conn->stall_ns = stall_ns != 0 ? stall_ns : REQUEST_STALL_NS;
    pmtu_init(&conn->pmtu);
}

void request_conn_late(struct request_conn *conn, uint64_t late_ns)
{
    for (uint32_t i = 0; i < REQUEST_PEERS; i++) {
        struct request_peer *peer = &conn->peers[i];
        peer->suspect_ns += peer->suspect_ns != 0 ? late_ns : 0;
    }
}

void request_late(struct request *r, uint64_t late_ns, uint64_t now_ns)
{
    uint64_t most_ns = REQUEST_FORGIVEN_NS - r->forgiven_ns;
    uint64_t *since[] = {&r->life_ns, &r->step_ns, &r->fresh_ns};
    late_ns = late_ns < most_ns ? late_ns : most_ns;
    r->forgiven_ns += late_ns;
    for (size_t i = 0; i < sizeof(since) / sizeof(since[0]); i++) {
        if (*since[i] != 0) {
            uint64_t later_ns = *since[i] + late_ns;
            *since[i] = later_ns < now_ns ? later_ns : now_ns;
        }
    }
}

static uint64_t request_open_rto_ns(const struct request *r)
{
    uint64_t rto = REQUEST_OPEN_RTO_NS << (r->tries < 5 ? r->tries : 5);
    return rto < RTT_RTO_CAP_NS ? rto : RTT_RTO_CAP_NS;
}

void request_init(struct request *r, const struct request_conn *conn,
                  const struct weft_req_hdr *hdr, const uint8_t *body, uint32_t body_len,
                  uint64_t budget_ns, uint64_t now_ns)
{
    memset(r, 0, sizeof(*r));
    r->hdr = *hdr;
    r->hdr.ver_fmt = WEFT_VER_FMT;
    r->hdr.hdr_words = WEFT_REQ_WORDS;
    r->hdr.hops_left = WEFT_HOPS_MAX;
    r->hdr.conn_id = conn->conn_id;
    r->hdr.origin = WEFT_NODE_NONE;
    r->hdr.alt1 = WEFT_NODE_NONE;
    r->hdr.alt2 = WEFT_NODE_NONE;
    r->body = body;
    r->body_len = body_len;
    r->wanted = WEFT_NODE_NONE;
    r->server = WEFT_NODE_NONE;
    r->alternates[0] = r->alternates[1] = WEFT_NODE_NONE;
    r->stray = WEFT_NODE_NONE;
    cc_init(&r->cc, conn->cc);
    r->credit = FLOW_CREDIT_FIRST_BYTES;
    r->ack_ns = NEVER;
    r->start_ns = now_ns;
    r->life_ns = now_ns;
    r->deadline_ns = budget_ns != 0 ? now_ns + budget_ns : 0;
    r->try_ns = now_ns + request_open_rto_ns(r);
    r->tries_max = conn->connect_tries;
    r->probe_ns = NEVER;
    reasm_init(&r->reply);
}

void request_deinit(struct request *r)
{
    reasm_deinit(&r->reply);
    free(r->embedding);
    r->embedding = NULL;
}

/* ---- endings ---- */

static void request_end(struct request *r, int status)
{
    if (r->ended) {
        return;
    }
    weft_result_t *res = &r->result;
    r->ended = true;
    res->status = status;
    if (status != 0 && res->finish != WEFT_FINISH_REFUSED) {
        res->finish = status == WEFT_E_CANCELLED ? WEFT_FINISH_CANCELLED : WEFT_FINISH_FAILED;
    }
}

void request_close(struct request *r, int status)
{
    bool cancelled = r->state == REQUEST_CANCELLING && !r->ended;
    request_end(r, cancelled ? WEFT_E_CANCELLED : status);
    r->state = REQUEST_CLOSED;
    r->cancel_due = r->stray_due = r->ask_due = r->probe_due = r->first_due = false;
    r->ack_ns = NEVER;
    r->asked.end = 0;
    r->lacks_count = 0;
    r->sent_to = r->granted = 0;
}

static void request_begin_cancel(struct request *r, uint64_t now_ns)
{
    r->state = REQUEST_CANCELLING;
    r->tries = 0;
    r->try_ns = now_ns;
    r->cancel_end_ns = now_ns + REQUEST_CANCEL_NS;
    r->first_due = false;
    r->lacks_count = 0;
}

void request_cancel(struct request *r, uint64_t now_ns)
{
    if (r->ended || r->state == REQUEST_CANCELLING || r->state == REQUEST_CLOSED) {
        return;
    }
    request_begin_cancel(r, now_ns);
}

void request_abandon(struct request *r, int status, uint64_t now_ns)
{
    request_end(r, status);
    request_begin_cancel(r, now_ns);
}

void request_hold(struct request *r, bool held, uint64_t now_ns)
{
    if (r->held == held || r->state != REQUEST_ACCEPTED) {
        r->held = held;
        return;
    }
    r->held = held;
    r->asked.end = 0;
    r->probes = 0;
    r->probe_due = false;
    r->probe_ns = held ? now_ns + REQUEST_HELD_ACK_NS : now_ns;
    r->ack_ns = now_ns;
    r->life_ns = r->step_ns = now_ns; /* silence counts from here */
    r->forgiven_ns = 0;
    r->fresh_ns = 0;
}

void request_refused(struct request *r)
{
    if (r->server == WEFT_NODE_NONE && r->sent_to != 0) {
        request_close(r, WEFT_E_UNREACHABLE);
    }
}

/* ---- input ---- */

static uint64_t request_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The usual time between datagrams of the reply, with its spread; 0 = not known yet. */
static uint64_t request_pace_ns(const struct request *r)
{
    return r->pace.srtt_ns + 4 * r->pace.var_ns;
}

/* Silence before a probe: longer while probes bring nothing new. */
static uint64_t request_quiet_ns(const struct request *r, const struct request_conn *conn)
{
    uint64_t quiet = request_max(REQUEST_QUIET_NS, 2 * request_pace_ns(r));
    quiet = request_max(quiet, rtt_rto_ns(&conn->rtt, 0));
    quiet <<= r->idle < REQUEST_QUIET_DOUBLINGS ? r->idle : REQUEST_QUIET_DOUBLINGS;
    return quiet < REQUEST_QUIET_MAX_NS ? quiet : REQUEST_QUIET_MAX_NS;
}

/* Nobody else is known who could go on: patience costs less than giving up. */
static bool request_alone(const struct request *r, const struct request_conn *conn)
{
    return r->alternates[0] == WEFT_NODE_NONE && !conn->others;
}

static uint64_t request_silent_ns(const struct request *r, const struct request_conn *conn)
{
    uint64_t bound =
        request_max(REQUEST_SILENT_NS, REQUEST_SILENT_RTOS * rtt_rto_ns(&conn->rtt, 0));
    return request_alone(r, conn) ? request_max(bound, REQUEST_ALONE_NS) : bound;
}

static struct request_peer *request_peer(struct request_conn *conn, uint16_t node, uint64_t now_ns)
{
    struct request_peer *peer = &conn->peers[node & (REQUEST_PEERS - 1)];
    if (peer->node != node || peer->heard_ns == 0) {
        *peer = (struct request_peer){.node = node, .heard_ns = now_ns};
    }
    return peer;
}

static void request_alive(struct request *r, const struct request_conn *conn, uint64_t now_ns)
{
    r->life_ns = now_ns;
    r->probes = r->cookies = 0;
    r->probe_due = r->suspect = false;
    r->probe_ns = now_ns + request_quiet_ns(r, conn);
}

/* New bytes of the reply. */
static void request_fresh(struct request *r, uint64_t now_ns)
{
    if (r->fresh_ns != 0) {
        rtt_sample(&r->pace, now_ns - r->fresh_ns);
    }
    r->fresh_ns = r->step_ns = now_ns;
    r->forgiven_ns = 0;
    r->idle = 0;
}

/* It says that it lives; does its model? */
static bool request_stuck(const struct request *r, const struct request_conn *conn, uint64_t now_ns)
{
    uint64_t pace = request_pace_ns(r);
    uint64_t bound = request_max(REQUEST_STUCK_NS, REQUEST_STUCK_GAPS * pace);
    bound = request_alone(r, conn) ? request_max(bound, REQUEST_ALONE_NS) : bound;
    bound = pace == 0 ? REQUEST_STUCK_FIRST_NS : bound;
    bool works = r->held || r->reply.total != REASM_TOTAL_UNKNOWN;
    return !works && now_ns - r->step_ns >= bound;
}

/* It lives and its model works, and yet nothing new comes. */
static bool request_forgotten(const struct request *r, uint64_t now_ns)
{
    if (r->fresh_ns == 0) {
        return now_ns - r->step_ns >= REQUEST_STUCK_FIRST_NS;
    }
    uint64_t pace = request_pace_ns(r);
    uint64_t bound = pace != 0 || r->reply.total != REASM_TOTAL_UNKNOWN
                         ? REQUEST_FORGOTTEN_GAPS * pace
                         : REQUEST_FORGOTTEN_FIRST_NS;
    return now_ns - r->fresh_ns >= request_max(REQUEST_FORGOTTEN_NS, bound);
}

/* The worker lives, and has nothing to send. */
static void request_busy(struct request *r, struct request_conn *conn, uint32_t probes,
                         uint32_t steps, uint64_t now_ns)
{
    if (probes == 1) { /* Karn: of several, none knows which one was answered */
        rtt_sample(&conn->rtt, now_ns - r->probed_ns);
    }
    if (steps == 0 || steps != r->steps) {
        r->step_ns = now_ns;
        r->steps = steps;
        r->idle++;
    }
    if (r->state == REQUEST_ACCEPTED && request_stuck(r, conn, now_ns)) {
        request_abandon(r, WEFT_E_STALLED, now_ns);
    }
}

/* A worker knows the request. False: it is not the one that serves it, leave the datagram. */
static bool request_accept(struct request *r, struct request_conn *conn, const struct weft_rsp *rsp,
                           uint64_t now_ns)
{
    if (r->server == WEFT_NODE_NONE) {
        r->server = rsp->h.server;
        r->step_ns = now_ns;
        if (r->state == REQUEST_OPENING) {
            r->state = REQUEST_ACCEPTED;
            r->tries = 0;
        } else if (r->state == REQUEST_CANCELLING) {
            r->try_ns = now_ns; /* now the CANCEL has an address */
        }
        if (r->sample_ns != 0 && rsp->h.type == WEFT_T_GRANT) {
            rtt_sample(&conn->rtt, now_ns - r->sample_ns);
        }
        r->sample_ns = 0;
        r->first_due = false;
    } else if (rsp->h.server != r->server) {
        /* A fragment went astray and a second worker has begun: it must not go on. */
        r->stray = rsp->h.server;
        r->stray_due = true;
        return false;
    }
    struct request_peer *peer = request_peer(conn, r->server, now_ns);
    peer->heard_ns = now_ns;
    peer->suspect_ns = 0;
    uint32_t probes = r->probes;
    request_alive(r, conn, now_ns);
    if (rsp->h.type == WEFT_T_BUSY) {
        request_busy(r, conn, probes, rsp->h.arg, now_ns);
        r->probe_ns = now_ns + request_quiet_ns(r, conn);
    }
    return true;
}

static void request_alternates(struct request *r, struct datagram_payload payload)
{
    struct weft_grant grant = {.arithmetic = 0};
    if (payload.len >= offsetof(struct weft_grant, arithmetic)) { /* an older worker's ends there */
        memcpy(&grant, payload.data, payload.len < sizeof(grant) ? payload.len : sizeof(grant));
        r->alternates[0] = grant.alt1;
        r->alternates[1] = grant.alt2;
        r->arithmetic = grant.arithmetic;
    }
}

static void request_grant(struct request *r, uint32_t upto, uint64_t now_ns)
{
    upto = upto < r->body_len ? upto : r->body_len;
    if (upto > r->granted) { /* the request is still on its way to the model */
        r->granted = upto;
        r->step_ns = now_ns;
    }
}

static void request_ask(struct request *r, const struct request_conn *conn, uint32_t end,
                        uint64_t now_ns)
{
    bool outstanding = r->asked.end > r->reply.cum;
    if (r->held || (outstanding && now_ns < r->ask_ns)) {
        return;
    }
    r->asks = outstanding ? r->asks + 1 : 0;
    r->asked = (struct reasm_range){r->reply.cum, end};
    r->ask_ns = now_ns + rtt_rto_ns(&conn->rtt, r->asks);
    r->ask_due = true;
    r->result.resends++;
    if (end > r->lost) { /* each byte once */
        cc_on_loss(&r->cc, end - (r->lost > r->reply.cum ? r->lost : r->reply.cum), now_ns);
        r->lost = end;
    }
}

/* A known gap is asked for at once, then each RTO. */
static void request_check_gap(struct request *r, const struct request_conn *conn, uint64_t now_ns)
{
    struct reasm_range gap;
    if (reasm_gap(&r->reply, &gap)) {
        request_ask(r, conn, gap.end, now_ns);
    } else if (r->reply.total != REASM_TOTAL_UNKNOWN && !reasm_complete(&r->reply)) {
        request_ask(r, conn, r->reply.total, now_ns);
    }
}

/* A worker that has more than its credit stops exactly there: if the next part begins there, it
 * went when the new credit had come. Without such a sample the window stays: it is not in use. */
static void request_congestion(struct request *r, const struct weft_rsp *rsp, uint32_t bytes,
                               uint64_t now_ns)
{
    uint64_t rtt_ns = 0;
    if (r->credit_ns != 0 && rsp->h.offset >= r->credit_before) {
        bool answers =
            rsp->h.offset == r->credit_before && (rsp->h.flags & WEFT_F_RETX) == 0 && !r->held;
        rtt_ns = answers ? now_ns - r->credit_ns : 0;
        r->credit_ns = 0;
    }
    cc_on_data(&r->cc, bytes, rtt_ns, (rsp->h.flags & WEFT_F_ECN_ECHO) != 0, now_ns);
}

static void request_resp(struct request *r, struct request_conn *conn, const struct weft_rsp *rsp,
                         struct datagram_payload payload, uint64_t now_ns)
{
    r->body = NULL; /* it answers, so it has the whole request */
    pmtu_arrived(&conn->pmtu, r->hdr.req_seq, r->body_len, now_ns);
    r->step_ns = now_ns; /* even a repeat: it has something to send */
    r->granted = r->sent_to = r->body_len;
    r->lacks_count = 0;
    uint64_t end = (uint64_t)rsp->h.offset + payload.len;
    if (payload.len == 0 || end > WEFT_MESSAGE_MAX) {
        return;
    }
    int fresh =
        reasm_insert(&r->reply, rsp->h.offset, payload.data, payload.len, r->credit - r->reply.cum);
    if (fresh < 0) {
        return;
    }
    if ((rsp->h.flags & WEFT_F_LAST) != 0 && rsp->h.msg_len == end) {
        (void)reasm_set_total(&r->reply, rsp->h.msg_len);
    }
    if (fresh > 0) {
        request_fresh(r, now_ns);
        request_congestion(r, rsp, (uint32_t)fresh, now_ns);
    }
    r->probe_ns = now_ns + request_quiet_ns(r, conn);
    r->unacked++;
    bool used = r->credit - r->reply.cum < cc_window(&r->cc) / 2 &&
                r->credit < r->parsed + WINDOW_MAX_BYTES && r->credit < WEFT_MESSAGE_MAX;
    if (r->unacked >= REQUEST_ACK_EVERY || fresh == 0 || (used && !r->held)) {
        r->ack_ns = now_ns; /* a duplicate tells that the worker does not know how far we are */
    } else if (r->ack_ns == NEVER) {
        r->ack_ns = now_ns + REQUEST_ACK_DELAY_NS;
    }
    request_check_gap(r, conn, now_ns);
}

static void request_need_ack(struct request *r, const struct request_conn *conn,
                             const struct weft_rsp *rsp, uint64_t now_ns)
{
    if (rsp->h.msg_len == 0 || rsp->h.msg_len > WEFT_MESSAGE_MAX) {
        return;
    }
    (void)reasm_set_total(&r->reply, rsp->h.msg_len);
    r->ack_ns = now_ns;
    request_check_gap(r, conn, now_ns);
}

/* Takes over what is asked for again: behind what was asked for before, or instead of it. */
static void request_lack(struct request *r, struct reasm_range range)
{
    if (r->lacks_count != 0 && range.begin < r->lacks[r->lacks_count - 1].end) {
        r->lacks_count = 0;
    }
    range.end = range.end < r->sent_to ? range.end : r->sent_to;
    if (r->lacks_count < REQUEST_LACKS && range.begin < range.end) {
        r->lacks[r->lacks_count++] = range;
    }
}

static void request_resend_req(struct request *r, struct request_conn *conn,
                               const struct weft_rsp *rsp, struct datagram_payload payload,
                               uint64_t now_ns)
{
    struct weft_range range[REQUEST_LACKS];
    uint32_t count = payload.len / (uint32_t)sizeof(range[0]);
    count = count < REQUEST_LACKS ? count : REQUEST_LACKS;
    memcpy(range, payload.data, count * sizeof(range[0]));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t before = i != 0 ? range[i - 1].end : 0; /* no byte twice */
        if (r->body == NULL || range[i].begin < before || range[i].begin >= range[i].end ||
            range[i].end > r->body_len) {
            return;
        }
    }
    if (count == 0) {
        return;
    }
    uint32_t cum = rsp->h.offset < range[0].begin ? rsp->h.offset : range[0].begin;
    if (cum > r->lacked) { /* the rest before it has arrived */
        r->lacked = cum;
        r->step_ns = now_ns;
    }
    pmtu_arrived(&conn->pmtu, r->hdr.req_seq, cum, now_ns);
    for (uint32_t i = 0; i < count; i++) {
        pmtu_lost(&conn->pmtu, r->hdr.req_seq, range[i].begin, range[i].end, now_ns);
        r->granted = range[i].end > r->granted ? range[i].end : r->granted;
        request_lack(r, (struct reasm_range){range[i].begin, range[i].end});
    }
    r->result.resends++;
}

static void request_cookie(struct request *r, struct request_conn *conn,
                           struct datagram_payload payload, uint64_t now_ns)
{
    uint64_t cookie;
    if (payload.len < sizeof(cookie)) {
        return;
    }
    memcpy(&cookie, payload.data, sizeof(cookie));
    if (cookie == 0 || cookie == r->cookie_sent || r->cookies == REQUEST_COOKIES_MAX) {
        return;
    }
    conn->cookie = cookie;
    r->cookies++;
    switch (r->state) {
    case REQUEST_OPENING:
        r->sent_to = 0;
        r->tries = 0;
        r->sample_ns = 0;
        r->try_ns = now_ns + request_open_rto_ns(r);
        break;
    case REQUEST_ACCEPTED: /* the worker learns the new way by it */
        r->ack_ns = r->held ? now_ns : r->ack_ns;
        r->probe_due = !r->held;
        r->probed_ns = now_ns;
        r->probes += r->probes == 0;
        break;
    case REQUEST_CANCELLING:
        r->try_ns = now_ns;
        break;
    case REQUEST_CLOSED:
        break;
    }
}

static void request_reject(struct request *r, const struct weft_rsp *rsp,
                           struct datagram_payload payload)
{
    struct weft_reject why;
    if (payload.len < sizeof(why) || (r->stray != WEFT_NODE_NONE && rsp->h.server == r->stray)) {
        return;
    }
    memcpy(&why, payload.data, sizeof(why));
    if (!r->ended) {
        r->result.constraint = why.constraint;
        r->result.constraint_best = why.best;
        r->result.retry_after_ms = why.retry_after_us / 1000 + (why.retry_after_us % 1000 != 0);
    }
    int status = why.status != 0 ? -(int)why.status : WEFT_E_PROTOCOL;
    if (!r->ended && status != WEFT_E_WORKER_LOST && status != WEFT_E_PROTOCOL) {
        r->result.finish = WEFT_FINISH_REFUSED;
    }
    r->server = r->server == WEFT_NODE_NONE ? rsp->h.server : r->server; /* who to avoid */
    request_close(r, status);
}

static void request_unknown(struct request *r, const struct weft_rsp *rsp, uint64_t now_ns)
{
    if (r->stray != WEFT_NODE_NONE && rsp->h.server == r->stray) {
        return;
    }
    if (r->state != REQUEST_OPENING || r->wanted != WEFT_NODE_NONE) {
        request_close(r, WEFT_E_WORKER_LOST);
        return;
    }
    if (++r->tries >= r->tries_max) {
        request_close(r, WEFT_E_WORKER_LOST);
        return;
    }
    r->sent_to = 0;
    r->sample_ns = 0;
    r->try_ns = now_ns + request_open_rto_ns(r);
}

void request_input(struct request *r, struct request_conn *conn, const struct weft_rsp *rsp,
                   struct datagram_payload payload, uint64_t now_ns)
{
    conn->heard_ns = now_ns;
    if (r->state == REQUEST_CLOSED) {
        return;
    }
    switch (rsp->h.type) {
    case WEFT_T_COOKIE:
        request_cookie(r, conn, payload, now_ns);
        return;
    case WEFT_T_REJECT:
        request_reject(r, rsp, payload);
        return;
    case WEFT_T_UNKNOWN:
        request_unknown(r, rsp, now_ns);
        return;
    case WEFT_T_RESP:
        if (rsp->h.arg != datagram_sum(&rsp->h, payload.data, payload.len)) {
            return; /* as if it had been lost */
        }
        break;
    case WEFT_T_GRANT:
    case WEFT_T_RESEND_REQ:
    case WEFT_T_BUSY:
    case WEFT_T_NEED_ACK:
        break;
    default:
        return;
    }
    if (!request_accept(r, conn, rsp, now_ns)) {
        return;
    }
    if (rsp->h.type == WEFT_T_RESP) {
        request_resp(r, conn, rsp, payload, now_ns);
    } else if (rsp->h.type == WEFT_T_NEED_ACK) {
        request_need_ack(r, conn, rsp, now_ns);
    } else if (r->state == REQUEST_ACCEPTED && rsp->h.type == WEFT_T_GRANT) {
        request_alternates(r, payload);
        pmtu_arrived(&conn->pmtu, r->hdr.req_seq, rsp->h.offset, now_ns);
        request_grant(r, rsp->h.arg, now_ns);
    } else if (r->state == REQUEST_ACCEPTED && rsp->h.type == WEFT_T_RESEND_REQ) {
        request_resend_req(r, conn, rsp, payload, now_ns);
    }
}

/* ---- time ---- */

static bool request_budget_counts(const struct request *r)
{
    bool answered = r->result.first_token_us != 0 && (r->hdr.want & WEFT_WANT_E2E) == 0;
    return r->deadline_ns != 0 && !answered && !r->ended;
}

static uint64_t request_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t request_due_ns(const struct request *r)
{
    if (r->state == REQUEST_CLOSED) {
        return NEVER;
    }
    uint64_t due = request_budget_counts(r) ? r->deadline_ns : NEVER;
    due = request_min(due, r->ack_ns);
    if (r->asked.end > r->reply.cum) {
        due = request_min(due, r->ask_ns);
    }
    if (r->state == REQUEST_ACCEPTED) {
        /* A silence ends in STALLED at some probe: they come more often than stall_ns. */
        return request_min(due, r->probe_ns);
    }
    due = request_min(due, r->try_ns);
    return r->state == REQUEST_CANCELLING ? request_min(due, r->cancel_end_ns) : due;
}

static void request_tick_opening(struct request *r, struct request_conn *conn, uint64_t now_ns)
{
    if (now_ns < r->try_ns) {
        return;
    }
    if (++r->tries >= r->tries_max) {
        /* The node that was asked is there if it has said anything at all meanwhile. */
        bool heard = conn->heard_ns > r->start_ns;
        request_close(r, heard ? WEFT_E_STALLED : WEFT_E_UNREACHABLE);
        return;
    }
    r->try_ns = now_ns + request_open_rto_ns(r);
    r->first_due = true;
    r->sample_ns = 0;
    pmtu_lost(&conn->pmtu, r->hdr.req_seq, 0, r->body_len, now_ns);
}

/* The time for a probe has come: is it this answer that lacks something, or has nobody heard from
 * the worker? */
static void request_probe(struct request *r, struct request_conn *conn, uint64_t now_ns)
{
    struct request_peer *peer = request_peer(conn, r->server, now_ns);
    uint64_t rto_ns = rtt_rto_ns(&conn->rtt, 0);
    bool asked = peer->suspect_ns != 0;
    if (asked && now_ns - peer->suspect_ns >= request_silent_ns(r, conn)) {
        request_abandon(r, WEFT_E_STALLED, now_ns);
        return;
    }
    uint64_t suspect_ns = request_max(peer->suspect_ns + rto_ns, r->life_ns + REQUEST_SUSPECT_NS);
    r->suspect = r->suspect || (asked && now_ns >= suspect_ns);
    if (asked && now_ns - peer->probed_ns < rto_ns) { /* another request asks for all */
        r->probe_ns = peer->suspect_ns + request_silent_ns(r, conn);
        r->probe_ns = r->suspect ? r->probe_ns : request_min(r->probe_ns, suspect_ns);
        return;
    }
    suspect_ns = asked && !r->suspect ? suspect_ns : NEVER;
    r->probe_due = true;
    r->probed_ns = now_ns;
    r->probes++;
    if (asked || now_ns - peer->heard_ns >= request_max(REQUEST_QUIET_NS, rto_ns)) {
        peer->suspect_ns = asked ? peer->suspect_ns : now_ns;
        peer->probed_ns = now_ns;
        r->probe_ns = request_min(now_ns + rto_ns, suspect_ns);
    } else {
        r->idle++;
        r->probe_ns = now_ns + request_quiet_ns(r, conn);
    }
    r->probe_ns = request_min(r->probe_ns, r->life_ns + conn->stall_ns);
}

static void request_tick_accepted(struct request *r, struct request_conn *conn, uint64_t now_ns)
{
    if (r->held) { /* waits for its reader; the worker must know that there is one */
        if (now_ns >= r->probe_ns) {
            r->ack_ns = now_ns;
            r->probe_ns = now_ns + REQUEST_HELD_ACK_NS;
        }
        return;
    }
    if (now_ns - r->life_ns >= conn->stall_ns || request_forgotten(r, now_ns)) {
        request_abandon(r, WEFT_E_STALLED, now_ns);
    } else if (now_ns >= r->probe_ns) {
        request_probe(r, conn, now_ns);
    }
}

static void request_tick_cancelling(struct request *r, const struct request_conn *conn,
                                    uint64_t now_ns)
{
    if (now_ns >= r->cancel_end_ns) {
        request_close(r, WEFT_E_CANCELLED);
    } else if (now_ns >= r->try_ns) {
        r->cancel_due = true;
        r->try_ns = now_ns + rtt_rto_ns(&conn->rtt, r->tries++);
    }
}

void request_tick(struct request *r, struct request_conn *conn, uint64_t now_ns)
{
    if (request_budget_counts(r) && now_ns >= r->deadline_ns && r->state != REQUEST_CLOSED) {
        if (r->state == REQUEST_CANCELLING) {
            r->deadline_ns = 0;
        } else {
            request_abandon(r, WEFT_E_BUDGET_EXPIRED, now_ns);
        }
    }
    if (r->asked.end > r->reply.cum && now_ns >= r->ask_ns) {
        request_check_gap(r, conn, now_ns);
        if (!r->ask_due) {
            r->asked.end = 0; /* the gap has closed in another way */
        }
    }
    switch (r->state) {
    case REQUEST_OPENING:
        request_tick_opening(r, conn, now_ns);
        break;
    case REQUEST_ACCEPTED:
        request_tick_accepted(r, conn, now_ns);
        break;
    case REQUEST_CANCELLING:
        request_tick_cancelling(r, conn, now_ns);
        break;
    case REQUEST_CLOSED:
        break;
    }
}
