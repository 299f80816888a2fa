/* SPDX-License-Identifier: Apache-2.0 */
/* test_request.c - request.h one datagram at a time: cookies, the wire it writes, strays, corrupt
 * replies, tombs, hostile input. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/flow/request.h"
#include "dataplane/flow/window.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define T0 NS_PER_S

struct fixture {
    struct request_conn conn;
    struct request r;
    uint8_t *body;
    uint8_t out[REQUEST_OUT_MAX];
};

static void fixture_open(struct fixture *f, size_t prompt, uint64_t budget_ns)
{
    char *text = calloc(1, prompt + 1);
    struct prompt_spec spec = {.text = text, .text_len = prompt, .max_tokens = 3, .top_p = 1.0f};
    size_t len = prompt_size(&spec);
    f->body = malloc(len);
    prompt_write(&spec, f->body);
    free(text);
    struct weft_req_hdr hdr = {
        .req_seq = 5, .model = 77, .req_tags = 3, .tiers = 7, .max_tokens = 3, .session = 9};
    request_conn_init(&f->conn, 4242, 0, 0);
    request_init(&f->r, &f->conn, &hdr, f->body, (uint32_t)len, budget_ns, T0);
}

static void fixture_close(struct fixture *f)
{
    request_deinit(&f->r);
    free(f->body);
}

static const struct weft_req *next(struct fixture *f, uint64_t now_ns)
{
    static const struct weft_req none;
    size_t len = request_output(&f->r, &f->conn, now_ns, f->out);
    ck_assert_uint_le(len, WEFT_DATAGRAM_MAX);
    return len != 0 ? (const struct weft_req *)(const void *)f->out : &none;
}

static void put(struct fixture *f, uint8_t type, uint16_t server, uint32_t offset, uint32_t msg_len,
                uint8_t flags, uint32_t arg, const void *payload, uint32_t len, uint64_t now_ns)
{
    struct weft_rsp rsp;
    memset(&rsp, 0, sizeof(rsp));
    rsp.h.type = type;
    rsp.h.server = server;
    rsp.h.offset = offset;
    rsp.h.msg_len = msg_len;
    rsp.h.flags = flags;
    rsp.h.arg = arg;
    if (type == WEFT_T_RESP) {
        rsp.h.arg = datagram_sum(&rsp.h, payload, len);
    }
    struct datagram_payload p = {payload, len};
    struct request_text text;
    request_input(&f->r, &f->conn, &rsp, p, now_ns);
    while (request_event(&f->r, &text, now_ns)) {
    }
}

static void cookie(struct fixture *f, uint64_t value, uint64_t now_ns)
{
    put(f, WEFT_T_COOKIE, 1, 0, 0, 0, 0, &value, sizeof(value), now_ns);
}

START_TEST(first_flight_and_route_block)
{
    struct fixture f;
    fixture_open(&f, 100000, 0);
    const struct weft_req *req = next(&f, T0);
    ck_assert_int_eq(req->h.type, WEFT_T_REQ);
    ck_assert_int_eq(next(&f, T0)->h.type, 0); /* the rest waits for the cookie */
    cookie(&f, 99, T0);
    uint32_t count = 0;
    while ((req = next(&f, T0))->h.type != 0) {
        ck_assert_uint_eq(req->first.cookie, 99);
        ck_assert_uint_eq(req->h.offset, count * WEFT_REQ_PAYLOAD_SAFE);
        ck_assert_uint_eq(req->h.msg_len, 100000 + sizeof(struct weft_prompt));
        ck_assert_uint_eq(req->h.model, 77);
        ck_assert_uint_eq(req->h.req_tags, 3);
        ck_assert_uint_eq(req->h.conn_id, 4242);
        ck_assert_uint_eq(req->h.target, WEFT_NODE_NONE);
        ck_assert_uint_eq(req->h.origin, WEFT_NODE_NONE);
        ck_assert_uint_eq(req->h.budget_us, WEFT_BUDGET_NONE);
        ck_assert_int_eq((req->h.flags & WEFT_F_FIRST) != 0, count == 0);
        count++;
    }
    ck_assert_uint_eq(count, WEFT_UNSCHEDULED_MAX);
    cookie(&f, 99, T0); /* the same again: no new flight */
    ck_assert_int_eq(next(&f, T0)->h.type, 0);
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 20000, NULL, 0, T0);
    req = next(&f, T0);
    ck_assert_uint_eq(req->h.offset, 16 * WEFT_REQ_PAYLOAD_SAFE);
    ck_assert_uint_eq(req->h.target, 8);
    fixture_close(&f);
}
END_TEST

START_TEST(cookies_without_end_do_not_loop)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    uint32_t sent = 0;
    for (uint64_t i = 1; i <= 1000; i++) {
        while (next(&f, T0)->h.type != 0) {
            sent++;
        }
        cookie(&f, i, T0);
    }
    ck_assert_uint_le(sent, 1 + REQUEST_COOKIES_MAX);
    for (uint64_t now = T0; !f.r.ended && now < T0 + 20 * NS_PER_S; now += 10 * NS_PER_MS) {
        request_tick(&f.r, &f.conn, now);
        next(&f, now);
    }
    ck_assert_int_eq(f.r.result.status, WEFT_E_UNREACHABLE);
    ck_assert(request_closed(&f.r));
    fixture_close(&f);
}
END_TEST

/* A client that moves gets a new cookie each time, however often, as long as its worker is heard in
 * between. */
START_TEST(cookies_do_not_run_out)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    cookie(&f, 1, T0);
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 54, NULL, 0, T0);
    uint64_t now_ns = T0;
    for (uint64_t i = 2; i < 4 * REQUEST_COOKIES_MAX; i++) {
        now_ns = request_due_ns(&f.r);
        request_tick(&f.r, &f.conn, now_ns);
        while (next(&f, now_ns)->h.type != 0) {
        }
        cookie(&f, i, now_ns); /* the answer to the probe */
        ck_assert_uint_eq(f.conn.cookie, i);
        request_tick(&f.r, &f.conn, now_ns);
        ck_assert_int_eq(next(&f, now_ns)->h.type, WEFT_T_RESEND);
        put(&f, WEFT_T_BUSY, 8, 0, 0, 0, (uint32_t)i, NULL, 0, now_ns);
    }
    ck_assert(!f.r.ended);
    fixture_close(&f);
}
END_TEST

START_TEST(budget_shrinks_on_the_wire)
{
    struct fixture f;
    fixture_open(&f, 10, 500 * NS_PER_MS);
    ck_assert_uint_eq(next(&f, T0)->h.budget_us, 500000);
    uint64_t later = T0 + 200 * NS_PER_MS;
    request_tick(&f.r, &f.conn, later);
    ck_assert_uint_eq(next(&f, later)->h.budget_us, 300000);
    ck_assert_uint_eq(request_due_ns(&f.r), T0 + 500 * NS_PER_MS);
    request_tick(&f.r, &f.conn, T0 + 500 * NS_PER_MS);
    ck_assert_int_eq(f.r.result.status, WEFT_E_BUDGET_EXPIRED);
    const struct weft_req *req = next(&f, T0 + 500 * NS_PER_MS);
    ck_assert_int_eq(req->h.type, WEFT_T_CANCEL);
    ck_assert_uint_eq(req->h.budget_us, WEFT_BUDGET_NONE); /* must not expire on its way */
    fixture_close(&f);
}
END_TEST

START_TEST(second_worker_is_cancelled)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    next(&f, T0);
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 50, NULL, 0, T0);
    put(&f, WEFT_T_GRANT, 9, 0, 0, 0, 50, NULL, 0, T0);
    const struct weft_req *req = next(&f, T0);
    ck_assert_int_eq(req->h.type, WEFT_T_CANCEL);
    ck_assert_uint_eq(req->h.target, 9);
    put(&f, WEFT_T_UNKNOWN, 9, 0, 0, 0, 0, NULL, 0, T0); /* its answer ends nothing */
    ck_assert(!f.r.ended);
    put(&f, WEFT_T_UNKNOWN, 8, 0, 0, 0, 0, NULL, 0, T0);
    ck_assert_int_eq(f.r.result.status, WEFT_E_WORKER_LOST);
    fixture_close(&f);
}
END_TEST

START_TEST(reject_carries_its_reason)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    next(&f, T0);
    struct weft_reject why = {.status = 1003,
                              .constraint = WEFT_C_BUDGET,
                              .best = 900,
                              .retry_after_us = 1500,
                              .candidates = 2};
    put(&f, WEFT_T_REJECT, 8, 0, 0, 0, 0, &why, sizeof(why) - 1, T0);
    ck_assert(!f.r.ended);
    put(&f, WEFT_T_REJECT, 8, 0, 0, 0, 0, &why, sizeof(why), T0);
    ck_assert_int_eq(f.r.result.status, WEFT_E_BUDGET_INFEASIBLE);
    ck_assert_int_eq(f.r.result.constraint, WEFT_C_BUDGET);
    ck_assert_uint_eq(f.r.result.constraint_best, 900);
    ck_assert_uint_eq(f.r.result.retry_after_ms, 2);
    ck_assert(request_closed(&f.r));
    fixture_close(&f);
}
END_TEST

static uint32_t done_frame(uint8_t *out, uint16_t status)
{
    struct weft_frame frame = {WEFT_FRAME_DONE, 0, sizeof(struct weft_done), 0};
    struct weft_done done;
    memset(&done, 'n', sizeof(done)); /* names without an end */
    done.status = status;
    done.new_tokens = 0;
    done.finish = WEFT_FINISH_STOP;
    memcpy(out, &frame, sizeof(frame));
    memcpy(out + sizeof(frame), &done, sizeof(done));
    return sizeof(frame) + sizeof(done);
}

START_TEST(damaged_part_counts_as_lost)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    next(&f, T0);
    uint8_t reply[128];
    uint32_t len = done_frame(reply, 0);
    struct weft_rsp rsp = {.h = {.type = WEFT_T_RESP, .server = 8, .flags = WEFT_F_LAST}};
    rsp.h.msg_len = len;
    rsp.h.arg = datagram_sum(&rsp.h, reply, len);
    struct datagram_payload p = {reply, len};
    for (uint32_t bit = 0; bit < 8 * len; bit++) {
        reply[bit / 8] ^= (uint8_t)(1 << bit % 8);
        request_input(&f.r, &f.conn, &rsp, p, T0);
        ck_assert_uint_eq(f.r.reply.cum, 0);
        reply[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    rsp.h.offset = 1; /* the header's fields count too */
    request_input(&f.r, &f.conn, &rsp, p, T0);
    ck_assert_uint_eq(f.r.reply.range_count, 0);
    rsp.h.offset = 0;
    request_input(&f.r, &f.conn, &rsp, p, T0);
    ck_assert_uint_eq(f.r.reply.cum, len);
    fixture_close(&f);
}
END_TEST

START_TEST(end_is_acknowledged_and_remembered)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    next(&f, T0);
    uint8_t reply[128];
    uint32_t len = done_frame(reply, 0);
    put(&f, WEFT_T_RESP, 8, 0, len, WEFT_F_LAST, 0, reply, len, T0);
    ck_assert(f.r.ended);
    ck_assert_int_eq(f.r.result.status, 0);
    ck_assert_uint_eq(strlen(f.r.result.node), 31);
    ck_assert(!request_closed(&f.r)); /* the last ACK is owed */
    const struct weft_req *req = next(&f, T0);
    struct weft_ack ack;
    memcpy(&ack, f.out + sizeof(*req), sizeof(ack));
    ck_assert_int_eq(req->h.type, WEFT_T_ACK);
    ck_assert_uint_eq(ack.cum, len);
    ck_assert(request_closed(&f.r));
    request_bury(&f.r, &f.conn);
    struct weft_rsp rsp = {.h = {.type = WEFT_T_NEED_ACK, .conn_id = 4242, .req_seq = 5}};
    ck_assert_uint_ne(request_tomb_output(&f.conn, &rsp, f.out), 0);
    ck_assert_int_eq(f.out[1], WEFT_T_ACK);
    rsp.h.req_seq += REQUEST_TOMBS; /* same place, another request */
    ck_assert_uint_eq(request_tomb_output(&f.conn, &rsp, f.out), 0);
    fixture_close(&f);
}
END_TEST

START_TEST(malformed_replies_are_corrupt)
{
    uint8_t reply[256];
    for (int kind = 0; kind < 3; kind++) {
        struct fixture f;
        fixture_open(&f, 10, 0);
        next(&f, T0);
        uint32_t len = done_frame(reply, 0);
        if (kind == 0) { /* bytes behind the end */
            len += 8;
        } else if (kind == 1) { /* DONE too short */
            struct weft_frame frame = {WEFT_FRAME_DONE, 0, 20, 0};
            memcpy(reply, &frame, sizeof(frame));
            len = 28;
        } else { /* ends inside a frame */
            struct weft_frame frame = {WEFT_FRAME_TEXT, 0, 1000, 0};
            memcpy(reply, &frame, sizeof(frame));
        }
        put(&f, WEFT_T_RESP, 8, 0, len, WEFT_F_LAST, 0, reply, len, T0);
        ck_assert_msg(f.r.ended && f.r.result.status == WEFT_E_CORRUPT, "kind %d", kind);
        fixture_close(&f);
    }
}
END_TEST

START_TEST(gap_is_asked_for_at_once)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    next(&f, T0);
    uint8_t piece[20] = {WEFT_FRAME_TEXT, 0, 92};
    put(&f, WEFT_T_RESP, 8, 0, 0, 0, 0, piece, 20, T0);
    put(&f, WEFT_T_RESP, 8, 40, 0, 0, 0, piece, 20, T0);
    const struct weft_req *req = next(&f, T0);
    struct weft_range range;
    memcpy(&range, f.out + sizeof(*req), sizeof(range));
    ck_assert_int_eq(req->h.type, WEFT_T_RESEND);
    ck_assert_uint_eq(range.begin, 20);
    ck_assert_uint_eq(range.end, 40);
    put(&f, WEFT_T_RESP, 8, 60, 0, 0, 0, piece, 20, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, 0); /* one outstanding */
    uint64_t due = request_due_ns(&f.r);
    ck_assert_uint_le(due, T0 + REQUEST_ACK_DELAY_NS);
    uint64_t rto = T0 + rtt_rto_ns(&f.conn.rtt, 0);
    request_tick(&f.r, &f.conn, rto);
    bool again = false;
    while ((req = next(&f, rto))->h.type != 0) {
        again = again || req->h.type == WEFT_T_RESEND;
    }
    ck_assert(again);
    fixture_close(&f);
}
END_TEST

/* Silence: a probe, suspicion 200 ms behind the last sign of life, then the end; a sign of life
 * puts an end to suspicion. */
START_TEST(silence_makes_suspicious)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    uint16_t alternates[2] = {4, 5};
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 54, alternates, sizeof(alternates), T0);
    for (uint32_t round = 0; round < 2; round++) {
        uint64_t heard_ns = f.r.life_ns;
        while (!f.r.suspect && !f.r.ended) {
            uint64_t now_ns = request_due_ns(&f.r);
            request_tick(&f.r, &f.conn, now_ns);
            while (next(&f, now_ns)->h.type != 0) {
            }
            ck_assert(!f.r.suspect || now_ns - heard_ns >= REQUEST_SUSPECT_NS);
            ck_assert(!f.r.suspect || now_ns - heard_ns < 2 * REQUEST_SUSPECT_NS);
        }
        ck_assert(f.r.suspect && !f.r.ended);
        if (round == 0) {
            put(&f, WEFT_T_BUSY, 8, 0, 0, 0, 1, NULL, 0, request_due_ns(&f.r));
            ck_assert(!f.r.suspect);
        }
    }
    while (!f.r.ended) {
        request_tick(&f.r, &f.conn, request_due_ns(&f.r));
    }
    ck_assert_int_eq(f.r.result.status, WEFT_E_STALLED);
    fixture_close(&f);
}
END_TEST

/* The silence of a pause of one's own is nobody's fault: it does not count. */
START_TEST(own_pauses_do_not_count)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    uint16_t alternates[2] = {4, 5};
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 54, alternates, sizeof(alternates), T0);
    uint64_t now_ns = request_due_ns(&f.r);
    request_tick(&f.r, &f.conn, now_ns); /* a probe */
    uint64_t late_ns = 2 * NS_PER_S;
    request_conn_late(&f.conn, late_ns);
    request_tick(&f.r, &f.conn, now_ns + late_ns);
    ck_assert(!f.r.ended);
    request_tick(&f.r, &f.conn, now_ns + 2 * late_ns);
    ck_assert(f.r.ended);
    fixture_close(&f);
}
END_TEST

/* Nor does it count for the bound that holds whatever the estimates say. */
START_TEST(own_long_pauses_do_not_count)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 54, NULL, 0, T0);
    uint64_t late_ns = 2 * REQUEST_STALL_NS;
    uint64_t now_ns = T0 + late_ns;
    request_conn_late(&f.conn, late_ns);
    request_late(&f.r, late_ns, now_ns);
    request_tick(&f.r, &f.conn, now_ns);
    ck_assert(!f.r.ended);
    ck_assert_uint_eq(f.r.life_ns, now_ns);
    request_late(&f.r, late_ns, now_ns); /* more than there was: not into the future */
    ck_assert_uint_eq(f.r.life_ns, now_ns);
    for (uint32_t i = 0; !f.r.ended && i < 1000; i++) {
        now_ns = request_due_ns(&f.r);
        request_tick(&f.r, &f.conn, now_ns);
    }
    ck_assert(f.r.ended);
    ck_assert_uint_ge(now_ns - T0, late_ns + REQUEST_SILENT_NS);
    fixture_close(&f);
}
END_TEST

/* A program that is always late comes to an end as well. */
START_TEST(pauses_without_end_are_not_forgiven)
{
    struct fixture f;
    fixture_open(&f, 10, 0);
    put(&f, WEFT_T_GRANT, 8, 0, 0, 0, 54, NULL, 0, T0);
    uint64_t now_ns = T0;
    while (!f.r.ended && now_ns < T0 + 100 * NS_PER_S) {
        now_ns += 50 * NS_PER_MS;
        request_conn_late(&f.conn, 50 * NS_PER_MS);
        request_late(&f.r, 50 * NS_PER_MS, now_ns);
        request_tick(&f.r, &f.conn, now_ns);
    }
    ck_assert(f.r.ended);
    ck_assert_uint_le(now_ns - T0, REQUEST_FORGIVEN_NS + REQUEST_STALL_NS + NS_PER_S);
    fixture_close(&f);
}
END_TEST

START_TEST(hostile_datagrams)
{
    static const uint8_t types[] = {WEFT_T_RESP,   WEFT_T_GRANT,    WEFT_T_RESEND_REQ,
                                    WEFT_T_COOKIE, WEFT_T_NEED_ACK, WEFT_T_BUSY,
                                    0xff,          WEFT_T_RESP,     WEFT_T_UNKNOWN};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct fixture f;
        fixture_open(&f, seed % 3 == 0 ? 100000 : 10, 0);
        struct rng rng = {seed};
        uint64_t now = T0;
        for (uint32_t step = 0; step < 200 && f.r.state != REQUEST_CLOSED; step++) {
            uint8_t payload[64];
            for (size_t i = 0; i < sizeof(payload); i++) {
                payload[i] = (uint8_t)(rng_below(&rng, 3) == 0 ? rng_next(&rng) : 0);
            }
            payload[0] = (uint8_t)rng_below(&rng, 3);
            uint32_t any = (uint32_t)rng_next(&rng);
            put(&f, types[rng_below(&rng, rng_below(&rng, 20) == 0 ? 9 : 8)],
                (uint16_t)rng_below(&rng, 2), rng_below(&rng, 2) == 0 ? any % 5000 : any,
                rng_below(&rng, 2) == 0 ? any % 6000 : any, (uint8_t)rng_below(&rng, 4),
                (uint32_t)rng_next(&rng), payload, rng_below(&rng, sizeof(payload)), now);
            uint32_t burst = 0;
            while (next(&f, now)->h.type != 0) {
                ck_assert_uint_lt(burst++, 200);
            }
            now += rng_below(&rng, 20) * NS_PER_MS;
            request_tick(&f.r, &f.conn, now);
            ck_assert_uint_le(f.r.reply.capacity, 4 * WINDOW_MAX_BYTES);
        }
        fixture_close(&f);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/request");
    TCase *t = tcase_create("request");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, first_flight_and_route_block);
    tcase_add_test(t, cookies_without_end_do_not_loop);
    tcase_add_test(t, cookies_do_not_run_out);
    tcase_add_test(t, budget_shrinks_on_the_wire);
    tcase_add_test(t, second_worker_is_cancelled);
    tcase_add_test(t, reject_carries_its_reason);
    tcase_add_test(t, damaged_part_counts_as_lost);
    tcase_add_test(t, end_is_acknowledged_and_remembered);
    tcase_add_test(t, malformed_replies_are_corrupt);
    tcase_add_test(t, gap_is_asked_for_at_once);
    tcase_add_test(t, silence_makes_suspicious);
    tcase_add_test(t, own_pauses_do_not_count);
    tcase_add_test(t, own_long_pauses_do_not_count);
    tcase_add_test(t, pauses_without_end_are_not_forgiven);
    tcase_add_test(t, hostile_datagrams);
    suite_add_tcase(s, t);
    return suite_main(s);
}
