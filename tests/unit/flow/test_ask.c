/* SPDX-License-Identifier: Apache-2.0 */
/* test_ask.c - what the worker asks for again and when (serve_ask.c), fragment by fragment, and how
 * the client's machine takes it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/request.h"
#include "dataplane/flow/serve.h"
#include "tests/unit/suite.h"

#define T0      NS_PER_S
#define MS      NS_PER_MS
#define PART    400u
#define MSG_LEN 1000000u

struct fixture {
    struct serve *s;
    uint32_t datagrams; /* RESEND_REQs of the latest asks() */
    uint32_t count;     /* ... and what they ask for */
    struct weft_range ranges[4 * SERVE_ASK_RANGES];
    uint32_t offset;
    uint32_t granted;
};

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    (void)user, (void)job, (void)view;
    return 0;
}

static void on_cancel(void *user, struct weft_job *job)
{
    (void)user, (void)job;
}

static void fixture_open(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    struct serve_config config = {.node_id = 4, .seed = 1};
    struct serve_ops ops = {on_job, on_cancel, f};
    f->s = serve_create(&config, &ops);
    weft_load_t load = {.room = 4};
    serve_set_load(f->s, &load);
}

/* Part `i` of the request arrives. */
static void part(struct fixture *f, uint32_t i, uint64_t now_ns)
{
    uint8_t data[sizeof(struct weft_req) + PART] = {0};
    struct weft_req req = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = WEFT_T_REQ,
                                 .hdr_words = WEFT_REQ_WORDS,
                                 .flags = WEFT_F_RELAYED,
                                 .conn_id = 1000,
                                 .req_seq = 1,
                                 .budget_us = WEFT_BUDGET_NONE,
                                 .msg_len = MSG_LEN,
                                 .offset = i * PART}};
    memcpy(data, &req, sizeof(req));
    serve_input(f->s, data, sizeof(data), now_ns);
}

/* Lets time pass; true if a RESEND_REQ came out, which is then in `ranges`. */
static bool asks(struct fixture *f, uint64_t now_ns)
{
    uint8_t out[SERVE_OUT_MAX];
    size_t len;
    f->datagrams = f->count = 0;
    serve_tick(f->s, now_ns);
    while ((len = serve_output(f->s, now_ns, out)) != 0) {
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)out;
        if (rsp->h.type == WEFT_T_RESEND_REQ) {
            f->datagrams++;
            f->offset = rsp->h.offset;
            f->granted = rsp->h.arg;
            memcpy(&f->ranges[f->count], out + sizeof(*rsp), rsp->h.msg_len);
            f->count += rsp->h.msg_len / (uint32_t)sizeof(f->ranges[0]);
        }
    }
    return f->datagrams != 0;
}

static void expect_range(const struct fixture *f, uint32_t i, uint32_t begin, uint32_t end)
{
    ck_assert_uint_lt(i, f->count);
    ck_assert_uint_eq(f->ranges[i].begin, begin * PART);
    ck_assert_uint_eq(f->ranges[i].end, end * PART);
}

/* Parts 0..4 but 1 and 3, at T0, the last one first: both are asked for when reordering explains
 * them no more. */
static void open_gaps(struct fixture *f)
{
    fixture_open(f);
    part(f, 4, T0);
    part(f, 0, T0);
    part(f, 2, T0);
    ck_assert(!asks(f, T0 + 24 * MS)); /* a quarter of the RTO: 25 ms */
    ck_assert(asks(f, T0 + 25 * MS));
    ck_assert_uint_eq(f->count, 2);
    expect_range(f, 0, 1, 2);
    expect_range(f, 1, 3, 4);
    ck_assert_uint_eq(f->offset, PART);
}

START_TEST(gaps_are_asked_for_together)
{
    struct fixture f;
    open_gaps(&f);
    ck_assert(!asks(&f, T0 + 124 * MS));
    serve_destroy(f.s);
}
END_TEST

/* While some are outstanding, new ones do not wait for them; nothing is asked for twice. */
START_TEST(new_gaps_wait_for_nobody)
{
    struct fixture f;
    open_gaps(&f);
    part(&f, 6, T0 + 30 * MS);
    part(&f, 8, T0 + 31 * MS);
    ck_assert(asks(&f, T0 + 55 * MS));
    ck_assert_uint_eq(f.count, 1); /* 7 is younger */
    expect_range(&f, 0, 5, 6);
    ck_assert_uint_eq(f.offset, PART); /* the first ones are still missing */
    ck_assert(asks(&f, T0 + 80 * MS));
    ck_assert_uint_eq(f.count, 1);
    expect_range(&f, 0, 7, 8);
    serve_destroy(f.s);
}
END_TEST

START_TEST(lost_repeats_go_together_in_rounds)
{
    struct fixture f;
    open_gaps(&f);
    part(&f, 1, T0 + 60 * MS);
    ck_assert(!asks(&f, T0 + 124 * MS));
    ck_assert(asks(&f, T0 + 125 * MS)); /* RTO behind the asking */
    ck_assert_uint_eq(f.count, 1);
    expect_range(&f, 0, 3, 4);
    ck_assert(asks(&f, T0 + 225 * MS)); /* the first gap was another one then: no back-off yet */
    ck_assert(!asks(&f, T0 + 424 * MS));
    ck_assert(asks(&f, T0 + 425 * MS));
    part(&f, 3, T0 + 430 * MS);
    ck_assert(!asks(&f, T0 + 529 * MS));
    ck_assert(asks(&f, T0 + 530 * MS)); /* no gap, and yet nothing comes: the rest */
    ck_assert_uint_eq(f.ranges[0].begin, 5 * PART);
    ck_assert_uint_eq(f.ranges[0].end, f.granted);
    serve_destroy(f.s);
}
END_TEST

START_TEST(what_arrives_late_is_not_asked_for)
{
    struct fixture f;
    fixture_open(&f);
    part(&f, 0, T0);
    part(&f, 2, T0);
    part(&f, 1, T0 + 20 * MS);
    ck_assert(!asks(&f, T0 + 119 * MS));
    serve_destroy(f.s);
}
END_TEST

/* Behind the first flight each byte takes a round trip; a long way is no loss. */
START_TEST(a_long_way_is_not_taken_for_loss)
{
    struct fixture f;
    fixture_open(&f);
    for (uint32_t i = 0; i < 50; i++) {
        part(&f, i, T0);
    }
    ck_assert(!asks(&f, T0 + SERVE_WAY_UNKNOWN_NS - MS));
    ck_assert(asks(&f, T0 + SERVE_WAY_UNKNOWN_NS)); /* ... but the GRANT may be lost */
    serve_destroy(f.s);
}
END_TEST

/* More gaps than one datagram names: the rest follows at once. */
START_TEST(many_gaps_take_several_datagrams)
{
    struct fixture f;
    fixture_open(&f);
    for (uint32_t i = 80; i <= 80; i -= 2) { /* the last one first: all are of one age */
        part(&f, i, T0);
    }
    ck_assert(asks(&f, T0 + 25 * MS));
    ck_assert_uint_eq(f.count, 40);
    ck_assert_uint_eq(f.datagrams, 2);
    for (uint32_t i = 0; i < 40; i++) {
        expect_range(&f, i, 2 * i + 1, 2 * i + 2);
    }
    ck_assert(!asks(&f, T0 + 124 * MS));
    serve_destroy(f.s);
}
END_TEST

/* ---- the client ---- */

static void resend_req(struct request *r, struct request_conn *conn, uint32_t cum,
                       const struct weft_range *ranges, uint32_t count)
{
    struct weft_rsp rsp = {.h = {.type = WEFT_T_RESEND_REQ, .server = 8, .offset = cum}};
    struct datagram_payload payload = {(const uint8_t *)ranges,
                                       count * (uint32_t)sizeof(ranges[0])};
    request_input(r, conn, &rsp, payload, T0);
}

/* Sends what it has to; how many datagrams of those were repeats, and where the last one began. */
static uint32_t repeats(struct request *r, struct request_conn *conn, uint32_t *begin)
{
    uint8_t out[REQUEST_OUT_MAX];
    uint32_t count = 0;
    while (request_output(r, conn, T0, out) != 0) {
        const struct weft_req *req = (const struct weft_req *)(const void *)out;
        if ((req->h.flags & WEFT_F_RETX) != 0) {
            count++;
            *begin = req->h.offset;
        }
    }
    return count;
}

START_TEST(the_client_keeps_what_two_have_asked_for)
{
    static uint8_t body[100000];
    struct request_conn conn;
    struct request r;
    struct weft_req_hdr hdr = {.req_seq = 1};
    uint32_t begin = 0;
    request_conn_init(&conn, 1, 0, 0);
    conn.cookie = 5;
    request_init(&r, &conn, &hdr, body, sizeof(body), 0, T0);
    struct weft_rsp grant = {.h = {.type = WEFT_T_GRANT, .server = 8, .arg = 50000}};
    request_input(&r, &conn, &grant, (struct datagram_payload){NULL, 0}, T0);
    ck_assert_uint_eq(repeats(&r, &conn, &begin), 0);
    static const struct weft_range first[] = {{1000, 2000}, {3000, 4000}};
    static const struct weft_range second[] = {{6000, 6500}, {40000, 41000}};
    resend_req(&r, &conn, 1000, first, 2);
    resend_req(&r, &conn, 1000, second, 2); /* before the first ones went */
    ck_assert_uint_eq(repeats(&r, &conn, &begin), 4);
    ck_assert_uint_eq(begin, 40000);
    resend_req(&r, &conn, 1000, second, 2);
    resend_req(&r, &conn, 1000, first, 2); /* from the beginning: instead of the others */
    ck_assert_uint_eq(repeats(&r, &conn, &begin), 2);
    ck_assert_uint_eq(begin, 3000);
    request_deinit(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/ask");
    TCase *t = tcase_create("ask");
    tcase_add_test(t, gaps_are_asked_for_together);
    tcase_add_test(t, new_gaps_wait_for_nobody);
    tcase_add_test(t, lost_repeats_go_together_in_rounds);
    tcase_add_test(t, what_arrives_late_is_not_asked_for);
    tcase_add_test(t, a_long_way_is_not_taken_for_loss);
    tcase_add_test(t, many_gaps_take_several_datagrams);
    tcase_add_test(t, the_client_keeps_what_two_have_asked_for);
    suite_add_tcase(s, t);
    return suite_main(s);
}
