/* SPDX-License-Identifier: Apache-2.0 */
/* test_serve.c - serve.h one datagram at a time: at most once, limits, refusals, hostile input. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/flow/serve.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define T0 NS_PER_S

struct fixture {
    struct serve *s;
    uint32_t jobs;
    uint32_t cancels;
    struct weft_job *job;
    int answer; /* what on_job returns */
    bool finish_on_cancel;
    uint8_t out[SERVE_OUT_MAX];
};

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    struct fixture *f = user;
    ck_assert(view->max_tokens != 0);
    f->jobs++;
    f->job = f->answer == 0 ? job : NULL;
    return f->answer;
}

static void on_cancel(void *user, struct weft_job *job)
{
    struct fixture *f = user;
    f->cancels++;
    if (f->finish_on_cancel) {
        weft_job_report_t report = {.finish = WEFT_FINISH_STOP};
        serve_job_finish(job, &report);
        f->job = NULL;
    }
}

static void fixture_open(struct fixture *f, uint32_t room)
{
    memset(f, 0, sizeof(*f));
    struct serve_config config = {.node_id = 4, .seed = 1, .partial_bytes_max = 1u << 20};
    struct serve_ops ops = {on_job, on_cancel, f};
    f->s = serve_create(&config, &ops);
    weft_load_t load = {.room = room, .queue_us = 77, .free_vram_mib = 130};
    serve_set_load(f->s, &load);
}

static size_t make(uint8_t *out, uint8_t type, uint32_t seq, uint32_t msg_len, uint32_t offset,
                   const void *payload, size_t len)
{
    struct weft_req req;
    memset(&req, 0, sizeof(req));
    req.h.ver_fmt = WEFT_VER_FMT;
    req.h.type = type;
    req.h.hdr_words = WEFT_REQ_WORDS;
    req.h.flags = WEFT_F_RELAYED;
    req.h.conn_id = 1000;
    req.h.req_seq = seq;
    req.h.msg_len = msg_len;
    req.h.offset = offset;
    req.h.budget_us = WEFT_BUDGET_NONE;
    req.h.origin = 6;
    memcpy(out, &req, sizeof(req));
    if (len != 0) {
        memcpy(out + sizeof(req), payload, len);
    }
    return sizeof(req) + len;
}

static void put(struct fixture *f, uint8_t type, uint32_t seq, const void *payload, size_t len,
                uint64_t now_ns)
{
    uint8_t data[WEFT_DATAGRAM_MAX];
    size_t size = make(data, type, seq, (uint32_t)len, 0, payload, len);
    serve_input(f->s, data, size, now_ns);
}

static size_t small_body(uint8_t *out)
{
    struct prompt_spec spec = {.text = "hi", .text_len = 2, .max_tokens = 3, .top_p = 1.0f};
    prompt_write(&spec, out);
    return prompt_size(&spec);
}

static void put_req(struct fixture *f, uint32_t seq, uint64_t now_ns)
{
    uint8_t body[128];
    size_t len = small_body(body);
    put(f, WEFT_T_REQ, seq, body, len, now_ns);
}

/* The next reply, or type 0. */
static const struct weft_rsp *next(struct fixture *f, uint64_t now_ns)
{
    static const struct weft_rsp none;
    size_t len = serve_output(f->s, now_ns, f->out);
    return len != 0 ? (const struct weft_rsp *)(const void *)f->out : &none;
}

static int reject_status(const struct fixture *f)
{
    struct weft_reject why;
    memcpy(&why, f->out + sizeof(struct weft_rsp), sizeof(why));
    return -(int)why.status;
}

START_TEST(executes_once)
{
    struct fixture f;
    fixture_open(&f, 10);
    put_req(&f, 1, T0);
    const struct weft_rsp *rsp = next(&f, T0);
    ck_assert_int_eq(rsp->h.type, WEFT_T_GRANT);
    ck_assert_uint_eq(rsp->h.arg, sizeof(struct weft_prompt) + 2);
    ck_assert_uint_eq(rsp->h.room, 9); /* the one just taken is subtracted */
    ck_assert_uint_eq(rsp->h.free_vram_64mib, 2);
    ck_assert_uint_eq(rsp->h.queue_us, 77);
    ck_assert_uint_eq(rsp->h.origin, 6);
    ck_assert_uint_eq(rsp->h.server, 4);
    put_req(&f, 1, T0); /* while it runs: the GRANT again */
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_GRANT);
    ck_assert_int_eq(serve_job_emit(f.job, 5, "ab", 2), 0);
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP, .new_tokens = 1};
    serve_job_finish(f.job, &report);
    rsp = next(&f, T0);
    ck_assert_int_eq(rsp->h.type, WEFT_T_RESP);
    ck_assert_int_ne(rsp->h.flags & WEFT_F_LAST, 0);
    struct weft_ack ack = {rsp->h.msg_len, rsp->h.msg_len};
    put(&f, WEFT_T_ACK, 1, &ack, sizeof(ack), T0);
    ck_assert_uint_eq(f.s->table.count, 0);
    ck_assert_int_eq(next(&f, T0)->h.type, 0);
    put_req(&f, 1, T0); /* a late copy */
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_UNKNOWN);
    ck_assert_uint_eq(f.jobs, 1);
    serve_destroy(f.s);
}
END_TEST

START_TEST(cancel_before_its_request)
{
    struct fixture f;
    fixture_open(&f, 10);
    put(&f, WEFT_T_CANCEL, 1, NULL, 0, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_UNKNOWN);
    put_req(&f, 1, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_CANCELLED);
    ck_assert_uint_eq(f.jobs, 0);
    serve_destroy(f.s);
}
END_TEST

START_TEST(cancel_that_finishes_at_once)
{
    struct fixture f;
    fixture_open(&f, 10);
    f.finish_on_cancel = true;
    put_req(&f, 1, T0);
    next(&f, T0);
    put(&f, WEFT_T_CANCEL, 1, NULL, 0, T0);
    put(&f, WEFT_T_CANCEL, 1, NULL, 0, T0);
    ck_assert_uint_eq(f.cancels, 1);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_BUSY);
    const struct weft_rsp *rsp = next(&f, T0);
    ck_assert_int_eq(rsp->h.type, WEFT_T_RESP);
    struct weft_done done;
    memcpy(&done, f.out + sizeof(*rsp) + sizeof(struct weft_frame), sizeof(done));
    ck_assert_int_eq(done.finish, WEFT_FINISH_CANCELLED);
    ck_assert_int_eq(-(int)done.status, WEFT_E_CANCELLED);
    serve_destroy(f.s);
}
END_TEST

START_TEST(refusals_are_final)
{
    struct fixture f;
    fixture_open(&f, 0);
    put_req(&f, 1, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_MESH_FULL);
    put(&f, WEFT_T_CANCEL, 1, NULL, 0, T0); /* whoever gives up does not ask why */
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_UNKNOWN);
    weft_load_t load = {.room = 1};
    serve_set_load(f.s, &load);
    put_req(&f, 1, T0); /* room now, but the client was told no */
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    f.answer = WEFT_E_TOO_LONG;
    put_req(&f, 2, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_TOO_LONG);
    ck_assert_uint_eq(serve_room(f.s), 1); /* a refused one takes none */
    uint8_t junk[60] = {0};
    put(&f, WEFT_T_REQ, 3, junk, sizeof(junk), T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_CORRUPT);
    put(&f, WEFT_T_REQ, 4, junk, 5, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_BAD_REQUEST);
    ck_assert_uint_eq(f.s->table.count, 0);
    load = (weft_load_t){.room = 0, .queue_us = WEFT_QUEUE_DRAINING};
    serve_set_load(f.s, &load);
    put_req(&f, 5, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_DRAINING);
    serve_destroy(f.s);
}
END_TEST

START_TEST(budget_runs_out_before_the_start)
{
    struct fixture f;
    fixture_open(&f, 10);
    uint8_t body[128];
    size_t len = small_body(body);
    uint8_t data[WEFT_DATAGRAM_MAX];
    size_t size = make(data, WEFT_T_REQ, 1, (uint32_t)len, 0, body, 20);
    ((struct weft_req *)(void *)data)->h.budget_us = 1000;
    serve_input(f.s, data, size, T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_GRANT);
    size = make(data, WEFT_T_REQ, 1, (uint32_t)len, 20, body + 20, len - 20);
    serve_input(f.s, data, size, T0 + 2 * NS_PER_MS);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_REJECT);
    ck_assert_int_eq(reject_status(&f), WEFT_E_BUDGET_EXPIRED);
    ck_assert_uint_eq(f.jobs, 0);
    serve_destroy(f.s);
}
END_TEST

START_TEST(partial_requests_are_bounded_and_forgotten)
{
    struct fixture f;
    fixture_open(&f, 60000);
    uint8_t piece[1000] = {0};
    uint8_t data[WEFT_DATAGRAM_MAX];
    uint32_t full = 0;
    for (uint32_t seq = 1; seq <= 5000; seq++) { /* each claims 16 MiB and sends a far byte */
        size_t size = make(data, WEFT_T_REQ, seq, WEFT_MESSAGE_MAX, 31000, piece, sizeof(piece));
        serve_input(f.s, data, size, T0);
        while (next(&f, T0)->h.type != 0) {
            full += ((struct weft_rsp *)(void *)f.out)->h.type == WEFT_T_REJECT;
        }
        ck_assert_uint_le(f.s->partial_bytes, 1u << 20);
    }
    ck_assert_uint_ge(full, 4900);
    serve_tick(f.s, T0 + SERVE_GIVE_UP_NS);
    ck_assert_uint_eq(f.s->partial_bytes, 0);
    ck_assert_uint_eq(f.s->table.count, 0);
    ck_assert_uint_eq(serve_room(f.s), 60000);
    serve_destroy(f.s);
}
END_TEST

START_TEST(requests_are_bounded)
{
    struct fixture f;
    fixture_open(&f, 60000);
    for (uint32_t seq = 1; seq <= 2 * SERVE_REQUESTS_MAX; seq++) {
        put_req(&f, seq, T0);
    }
    ck_assert_uint_eq(f.s->table.count, SERVE_REQUESTS_MAX);
    ck_assert_uint_eq(f.jobs, SERVE_REQUESTS_MAX);
    ck_assert_uint_eq(f.s->stats.controls_lost, 2 * SERVE_REQUESTS_MAX - SERVE_CONTROLS_MAX);
    serve_destroy(f.s);
}
END_TEST

START_TEST(replies_are_bounded)
{
    struct fixture f;
    fixture_open(&f, 10);
    put_req(&f, 1, T0);
    char *big = calloc(1, 1 << 20);
    int rc = 0;
    uint32_t count = 0;
    while ((rc = serve_job_emit(f.job, 1, big, 1 << 20)) == 0) {
        ck_assert_uint_lt(count++, 17);
    }
    ck_assert_int_eq(rc, -ENOBUFS);
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP};
    serve_job_finish(f.job, &report); /* the end always has its place */
    ck_assert_uint_le(f.job->reply.end, WEFT_MESSAGE_MAX);
    uint32_t sent = 0;
    while (next(&f, T0)->h.type != 0) {
        sent++;
    }
    ck_assert_uint_le(sent, FLOW_CREDIT_FIRST_BYTES / WEFT_RSP_PAYLOAD_SAFE + 3);
    free(big);
    serve_tick(f.s, T0 + SERVE_GIVE_UP_NS);
    ck_assert_uint_eq(f.s->reply_bytes, 0);
    serve_destroy(f.s);
}
END_TEST

/* Of all requests together, that is. */
START_TEST(replies_share_their_bound)
{
    struct fixture f;
    fixture_open(&f, 10);
    const uint32_t max = f.s->config.reply_bytes_max = 64u << 10;
    static const char text[1000];
    struct weft_job *jobs[4];
    for (uint32_t i = 0; i < 4; i++) {
        put_req(&f, i + 1, T0);
        jobs[i] = f.job;
        ck_assert_ptr_nonnull(jobs[i]);
    }
    bool full = false;
    for (uint32_t i = 0; i < 4 * 64; i++) {
        int rc = serve_job_emit(jobs[i % 4], 1, text, sizeof(text));
        ck_assert(rc == 0 || rc == -ENOBUFS);
        ck_assert_uint_le(f.s->reply_bytes, max);
        full = full || rc != 0;
    }
    ck_assert(full);
    uint32_t started = f.jobs;
    f.s->config.reply_bytes_max = (uint32_t)f.s->reply_bytes;
    put_req(&f, 5, T0); /* not even its end would have a place */
    ck_assert_uint_eq(f.jobs, started);
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP};
    for (uint32_t i = 0; i < 4; i++) {
        serve_job_finish(jobs[i], &report);
    }
    serve_tick(f.s, T0 + SERVE_GIVE_UP_NS);
    ck_assert_uint_eq(f.s->reply_bytes, 0);
    serve_destroy(f.s);
}
END_TEST

START_TEST(credit_and_resend)
{
    struct fixture f;
    fixture_open(&f, 10);
    put_req(&f, 1, T0);
    next(&f, T0);
    char text[100] = {0};
    ck_assert_int_eq(serve_job_emit(f.job, 1, text, 92), 0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_RESP);
    struct weft_range range = {0, 0}; /* the client has nothing: what was sent goes again */
    put(&f, WEFT_T_RESEND, 1, &range, sizeof(range), T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_BUSY); /* ... unless it is still on its way */
    put(&f, WEFT_T_RESEND, 1, &range, sizeof(range), T0 + RTT_RTO_FLOOR_NS);
    const struct weft_rsp *rsp = next(&f, T0 + RTT_RTO_FLOOR_NS);
    ck_assert_int_eq(rsp->h.type, WEFT_T_RESP);
    ck_assert_int_ne(rsp->h.flags & WEFT_F_RETX, 0);
    range = (struct weft_range){100, 100}; /* it has all: alive, no more to say */
    put(&f, WEFT_T_RESEND, 1, &range, sizeof(range), T0);
    ck_assert_int_eq(next(&f, T0)->h.type, WEFT_T_BUSY);
    struct weft_range lies[] = {{101, 101}, {50, 40}, {UINT32_MAX, UINT32_MAX}, {200, 300}};
    for (size_t i = 0; i < 4; i++) {
        put(&f, WEFT_T_RESEND, 1, &lies[i], sizeof(lies[i]), T0);
        ck_assert_int_eq(next(&f, T0)->h.type, 0);
    }
    struct weft_ack ack = {UINT32_MAX, UINT32_MAX};
    put(&f, WEFT_T_ACK, 1, &ack, sizeof(ack), T0);
    ck_assert_uint_eq(f.job->reply.acked, 100);
    serve_destroy(f.s);
}
END_TEST

/* A RESEND for bytes that an ACK then frees: what is gone must not be read. */
START_TEST(ack_overtakes_resend)
{
    struct fixture f;
    fixture_open(&f, 10);
    put_req(&f, 1, T0);
    char *text = calloc(1, 60000);
    ck_assert_int_eq(serve_job_emit(f.job, 1, text, 60000), 0);
    while (next(&f, T0)->h.type != 0) {
    }
    struct weft_range range = {0, 1000};
    put(&f, WEFT_T_RESEND, 1, &range, sizeof(range), T0);
    struct weft_ack ack = {50000, WEFT_MESSAGE_MAX};
    put(&f, WEFT_T_ACK, 1, &ack, sizeof(ack), T0);
    ck_assert_int_eq(serve_job_emit(f.job, 1, text, 20000), 0); /* moves the buffer's front */
    ck_assert_uint_eq(f.job->reply.base, 50000);
    const struct weft_rsp *rsp = next(&f, T0);
    ck_assert_int_eq(rsp->h.type, WEFT_T_RESP);
    ck_assert_uint_ge(rsp->h.offset, 50000);
    free(text);
    serve_destroy(f.s);
}
END_TEST

START_TEST(finished_reply_is_asked_for_and_given_up)
{
    struct fixture f;
    fixture_open(&f, 10);
    put_req(&f, 1, T0);
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP};
    serve_job_finish(f.job, &report);
    while (next(&f, T0)->h.type != 0) {
    }
    uint32_t asked = 0;
    for (uint64_t now = T0; now < T0 + 10 * NS_PER_S; now += 10 * NS_PER_MS) {
        serve_tick(f.s, now);
        const struct weft_rsp *rsp = next(&f, now);
        if (rsp->h.type == WEFT_T_NEED_ACK) {
            asked++;
            ck_assert_uint_eq(rsp->h.msg_len, sizeof(struct weft_frame) + sizeof(struct weft_done));
        }
    }
    ck_assert_uint_ge(asked, 5); /* 0.1, 0.2, 0.4 ... 2 s */
    ck_assert_uint_le(asked, 8);
    ck_assert_uint_eq(f.s->table.count, 0);
    ck_assert_uint_eq(serve_due_ns(f.s), TIMER_NEVER);
    serve_destroy(f.s);
}
END_TEST

/* Random headers around valid ones, for keys that exist and keys that do not. */
START_TEST(hostile_datagrams)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct fixture f;
        fixture_open(&f, 50);
        struct rng rng = {seed};
        uint64_t now = T0;
        for (uint32_t step = 0; step < 300; step++) {
            uint8_t data[WEFT_DATAGRAM_MAX];
            uint8_t payload[300];
            for (size_t i = 0; i < sizeof(payload); i++) {
                payload[i] = rng_below(&rng, 3) == 0 ? (uint8_t)rng_next(&rng) : 0;
            }
            static const uint8_t types[] = {WEFT_T_REQ,    WEFT_T_ACK,  WEFT_T_CANCEL,
                                            WEFT_T_RESEND, WEFT_T_RESP, 0x7f};
            uint32_t offset = rng_below(&rng, 2) == 0 ? 0 : (uint32_t)rng_next(&rng);
            uint32_t total =
                rng_below(&rng, 2) == 0 ? rng_below(&rng, 2000) : (uint32_t)rng_next(&rng);
            size_t len = make(data, types[rng_below(&rng, 6)], rng_below(&rng, 20), total,
                              rng_below(&rng, 2) == 0 ? offset % 2000 : offset, payload,
                              rng_below(&rng, sizeof(payload)));
            if (rng_below(&rng, 4) == 0) {
                data[rng_below(&rng, 96)] = (uint8_t)rng_next(&rng);
            }
            size_t cut = rng_below(&rng, 8) == 0 ? rng_below(&rng, (uint32_t)len) : len;
            uint8_t *copy = malloc(cut != 0 ? cut : 1);
            memcpy(copy, data, cut);
            serve_input(f.s, copy, cut, now);
            free(copy);
            if (f.job != NULL && rng_below(&rng, 3) == 0) {
                weft_job_report_t report = {.finish = (int)rng_below(&rng, 9), .status = -7};
                (void)serve_job_emit(f.job, 1, "xyz", 3);
                serve_job_finish(f.job, &report);
                f.job = NULL;
            }
            uint32_t burst = 0;
            while (next(&f, now)->h.type != 0) {
                ck_assert_uint_lt(burst++, 100);
            }
            now += rng_below(&rng, 100) * NS_PER_MS;
            serve_tick(f.s, now);
            f.job = f.job != NULL && f.s->table.count == 0 ? NULL : f.job;
        }
        serve_destroy(f.s);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/serve");
    TCase *t = tcase_create("serve");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, executes_once);
    tcase_add_test(t, cancel_before_its_request);
    tcase_add_test(t, cancel_that_finishes_at_once);
    tcase_add_test(t, refusals_are_final);
    tcase_add_test(t, budget_runs_out_before_the_start);
    tcase_add_test(t, partial_requests_are_bounded_and_forgotten);
    tcase_add_test(t, requests_are_bounded);
    tcase_add_test(t, replies_are_bounded);
    tcase_add_test(t, replies_share_their_bound);
    tcase_add_test(t, credit_and_resend);
    tcase_add_test(t, ack_overtakes_resend);
    tcase_add_test(t, finished_reply_is_asked_for_and_given_up);
    tcase_add_test(t, hostile_datagrams);
    suite_add_tcase(s, t);
    return suite_main(s);
}
