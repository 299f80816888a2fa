/* SPDX-License-Identifier: Apache-2.0 */
/* test_reply.c - the frames of a reply, from what a worker emits (serve_job.c) to the pieces that
 * the client hands out (request_reply.c), cut at every byte; and frames that lie. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/flow/request.h"
#include "dataplane/flow/serve.h"
#include "tests/unit/suite.h"

#define T0        NS_PER_S
#define REPLY_MAX 4096u
#define TEXT_MAX  256u

/* ---- a worker's reply ---- */

static struct weft_job *job_open;

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    (void)user;
    (void)view;
    job_open = job;
    return 0;
}

static void on_cancel(void *user, struct weft_job *job)
{
    (void)user;
    (void)job;
}

static struct serve *worker_open(const uint32_t *resume, size_t resume_count)
{
    const struct serve_config config = {.node_id = 8, .node_name = "n", .backend = "b"};
    const struct serve_ops ops = {on_job, on_cancel, NULL};
    struct serve *s = serve_create(&config, &ops);
    const weft_load_t load = {.room = 5};
    const struct prompt_spec spec = {.text = "hi",
                                     .text_len = 2,
                                     .max_tokens = 9,
                                     .top_p = 1.0f,
                                     .resume = resume,
                                     .resume_count = resume_count};
    uint8_t data[WEFT_DATAGRAM_MAX];
    struct weft_req req = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = WEFT_T_REQ,
                                 .hdr_words = WEFT_REQ_WORDS,
                                 .flags = WEFT_F_RELAYED,
                                 .conn_id = 1,
                                 .req_seq = 1,
                                 .budget_us = WEFT_BUDGET_NONE}};
    req.h.msg_len = (uint32_t)prompt_size(&spec);
    memcpy(data, &req, sizeof(req));
    prompt_write(&spec, data + sizeof(req));
    serve_set_load(s, &load);
    job_open = NULL;
    serve_input(s, data, sizeof(req) + req.h.msg_len, T0);
    ck_assert_ptr_nonnull(job_open);
    return s;
}

/* The whole reply; closes the worker. */
static uint32_t worker_reply(struct serve *s, uint8_t *out)
{
    uint8_t data[SERVE_OUT_MAX];
    uint32_t len = 0;
    size_t size;
    while ((size = serve_output(s, T0, data)) != 0) {
        if (data[1] == WEFT_T_RESP) {
            memcpy(out + len, data + sizeof(struct weft_rsp), size - sizeof(struct weft_rsp));
            len += (uint32_t)(size - sizeof(struct weft_rsp));
            ck_assert_uint_le(len, REPLY_MAX - SERVE_OUT_MAX);
        }
    }
    serve_destroy(s);
    return len;
}

/* ---- a client ---- */

struct client {
    struct request_conn conn;
    struct request r;
    char text[TEXT_MAX];
    uint32_t text_len;
    uint32_t pieces;
    uint32_t logprobs; /* rows */
    weft_logprob_t last;
    char last_text[TEXT_MAX];
};

static void client_open(struct client *c, uint32_t resumed, uint32_t last_token)
{
    static uint8_t body[128];
    const struct weft_req_hdr hdr = {.req_seq = 5, .model = 77, .tiers = 7, .max_tokens = 9};
    memset(c, 0, sizeof(*c));
    request_conn_init(&c->conn, 1, 0, 0);
    request_init(&c->r, &c->conn, &hdr, body, sizeof(body), 0, T0);
    c->r.resumed = resumed;
    c->r.last_token = last_token;
}

static void client_put(struct client *c, const uint8_t *reply, uint32_t begin, uint32_t end,
                       uint32_t total)
{
    struct weft_rsp rsp = {.h = {.type = WEFT_T_RESP, .server = 8, .offset = begin}};
    rsp.h.msg_len = end == total ? total : 0;
    rsp.h.flags = end == total ? WEFT_F_LAST : 0;
    rsp.h.arg = datagram_sum(&rsp.h, reply + begin, end - begin);
    const struct datagram_payload p = {reply + begin, end - begin};
    struct request_text text;
    request_input(&c->r, &c->conn, &rsp, p, T0);
    while (request_event(&c->r, &text, T0)) {
        ck_assert_uint_le(c->text_len + text.len, TEXT_MAX);
        memcpy(c->text + c->text_len, text.data, text.len);
        c->text_len += (uint32_t)text.len;
        c->pieces++;
        while (request_logprob(&text, &c->last)) {
            ck_assert_uint_le(c->last.len, TEXT_MAX);
            memcpy(c->last_text, c->last.text, c->last.len);
            c->logprobs++;
        }
    }
}

/* ---- the tests ---- */

static uint32_t reply_make(uint8_t *out)
{
    const weft_logprob_t first[] = {{5, -0.25f, "ab", 2}, {5, -0.25f, "ab", 2}, {9, -3.0f, "", 0}};
    const weft_logprob_t second[] = {{6, -1.5f, "c#", 2}, {7, -0.5f, "deep", 4}};
    struct serve *s = worker_open(NULL, 0);
    ck_assert_int_eq(serve_job_logprobs(job_open, first, 3), 0);
    ck_assert_int_eq(serve_job_emit(job_open, 5, "ab", 2), 0);
    ck_assert_int_eq(serve_job_logprobs(job_open, second, 2), 0);
    ck_assert_int_eq(serve_job_emit(job_open, 6, "c", 1), 0);
    const weft_job_report_t report = {.finish = WEFT_FINISH_STOP,
                                      .new_tokens = 2,
                                      .cached_tokens = 32,
                                      .tail = "#!",
                                      .tail_len = 2};
    serve_job_finish(job_open, &report);
    return worker_reply(s, out);
}

START_TEST(arrives_whole_at_every_cut)
{
    uint8_t reply[REPLY_MAX];
    const uint32_t len = reply_make(reply);
    for (uint32_t cut = 1; cut < len; cut++) {
        struct client c;
        client_open(&c, 0, 0);
        client_put(&c, reply, 0, cut, len);
        ck_assert_uint_le(c.text_len, 3); /* the tail only with the account */
        ck_assert(!c.r.ended);
        client_put(&c, reply, cut, len, len);
        ck_assert_int_eq(c.r.result.status, 0);
        ck_assert_uint_eq(c.r.result.new_tokens, 2);
        ck_assert_uint_eq(c.r.result.cached_tokens, 32);
        ck_assert_uint_eq(c.text_len, 5);
        ck_assert_mem_eq(c.text, "abc#!", 5);
        ck_assert_uint_eq(c.pieces, 3);
        ck_assert_uint_eq(c.logprobs, 5);
        ck_assert(c.last.token == 7 && c.last.logprob == -0.5f && c.last.len == 4);
        ck_assert_mem_eq(c.last_text, "deep", 4);
        request_deinit(&c.r);
    }
}
END_TEST

/* A text comes with its log probabilities or not at all: a piece without would be told twice. */
START_TEST(log_probabilities_wait_for_their_text)
{
    uint8_t reply[REPLY_MAX];
    const uint32_t len = reply_make(reply);
    struct weft_frame frame;
    memcpy(&frame, reply, sizeof(frame));
    ck_assert_int_eq(frame.kind, WEFT_FRAME_LOGPROBS);
    const uint32_t text_at = (uint32_t)sizeof(frame) + frame.len;
    struct client c;
    client_open(&c, 0, 0);
    client_put(&c, reply, 0, text_at + (uint32_t)sizeof(frame) + 1, len);
    ck_assert_uint_eq(c.pieces + c.logprobs, 0);
    client_put(&c, reply, text_at + (uint32_t)sizeof(frame) + 1,
               text_at + (uint32_t)sizeof(frame) + 2, len);
    ck_assert_uint_eq(c.pieces, 1);
    ck_assert_uint_eq(c.logprobs, 3);
    request_deinit(&c.r);
}
END_TEST

START_TEST(tail_goes_on_behind_resumed_tokens)
{
    static const uint32_t given[] = {4, 6};
    uint8_t reply[REPLY_MAX];
    struct serve *s = worker_open(given, 2);
    const weft_job_report_t report = {
        .finish = WEFT_FINISH_STOP, .new_tokens = 2, .tail = "#", .tail_len = 1};
    serve_job_finish(job_open, &report);
    const uint32_t len = worker_reply(s, reply);
    struct client c;
    client_open(&c, 2, 6);
    client_put(&c, reply, 0, len, len);
    ck_assert_int_eq(c.r.result.status, 0);
    ck_assert_mem_eq(c.text, "#", 1);
    request_deinit(&c.r);
    client_open(&c, 2, 7); /* another token: not what was asked to go on behind */
    client_put(&c, reply, 0, len, len);
    ck_assert_int_eq(c.r.result.status, WEFT_E_CORRUPT);
    request_deinit(&c.r);
    client_open(&c, 0, 6); /* nothing was resumed */
    client_put(&c, reply, 0, len, len);
    ck_assert_int_eq(c.r.result.status, WEFT_E_CORRUPT);
    request_deinit(&c.r);
}
END_TEST

START_TEST(embedding_arrives_whole_at_every_cut)
{
    const float values[] = {0.5f, -0.5f, 0.25f};
    uint8_t reply[REPLY_MAX];
    struct serve *s = worker_open(NULL, 0);
    ck_assert_int_eq(serve_job_embedding(job_open, values, 0), -EINVAL);
    ck_assert_int_eq(serve_job_embedding(job_open, values, WEFT_EMBEDDING_MAX + 1), -EINVAL);
    ck_assert_int_eq(serve_job_embedding(job_open, values, 3), 0);
    const weft_job_report_t report = {.finish = WEFT_FINISH_STOP, .prompt_tokens = 7};
    serve_job_finish(job_open, &report);
    const uint32_t len = worker_reply(s, reply);
    for (uint32_t cut = 1; cut <= len; cut++) {
        struct client c;
        client_open(&c, 0, 0);
        client_put(&c, reply, 0, cut, len);
        if (cut < len) {
            client_put(&c, reply, cut, len, len);
        }
        ck_assert_int_eq(c.r.result.status, 0);
        ck_assert_uint_eq(c.r.embedding_count, 3);
        ck_assert_mem_eq(c.r.embedding, values, sizeof(values));
        request_deinit(&c.r);
    }
}
END_TEST

START_TEST(a_failure_has_no_tail)
{
    uint8_t reply[REPLY_MAX];
    struct serve *s = worker_open(NULL, 0);
    const weft_job_report_t report = {
        .status = WEFT_E_WORKER_FAILED, .finish = WEFT_FINISH_FAILED, .tail = "#", .tail_len = 1};
    serve_job_finish(job_open, &report);
    const uint32_t len = worker_reply(s, reply);
    struct client c;
    client_open(&c, 0, 0);
    client_put(&c, reply, 0, len, len);
    ck_assert_int_eq(c.r.result.status, WEFT_E_WORKER_FAILED);
    ck_assert_uint_eq(c.text_len, 0);
    request_deinit(&c.r);
}
END_TEST

START_TEST(limits_of_log_probabilities)
{
    weft_logprob_t rows[WEFT_LOGPROBS_MAX + 1];
    char text[300];
    memset(text, 't', sizeof(text));
    for (size_t i = 0; i <= WEFT_LOGPROBS_MAX; i++) {
        rows[i] = (weft_logprob_t){3, -1.0f, text, sizeof(text)};
    }
    uint8_t *reply = malloc(4 * REPLY_MAX);
    struct serve *s = worker_open(NULL, 0);
    ck_assert_int_lt(serve_job_logprobs(job_open, rows, WEFT_LOGPROBS_MAX + 1), 0);
    ck_assert_int_eq(serve_job_logprobs(job_open, rows, WEFT_LOGPROBS_MAX), 0);
    ck_assert_uint_eq(job_open->reply.end,
                      sizeof(struct weft_frame) +
                          WEFT_LOGPROBS_MAX * (sizeof(struct weft_logprob_entry) + 255));
    serve_destroy(s);
    free(reply);
}
END_TEST

static uint32_t frame_put(uint8_t *out, uint8_t kind, uint8_t flags, uint32_t token,
                          const void *data, uint16_t len)
{
    const struct weft_frame frame = {kind, flags, len, token};
    memcpy(out, &frame, sizeof(frame));
    memcpy(out + sizeof(frame), data, len);
    return (uint32_t)sizeof(frame) + len;
}

START_TEST(lies_are_corrupt)
{
    const struct weft_logprob_entry row = {5, -1.0f, 0};
    const struct weft_logprob_entry far = {5, -1.0f, 1};
    struct weft_logprob_entry many[WEFT_LOGPROBS_MAX + 1];
    for (size_t i = 0; i <= WEFT_LOGPROBS_MAX; i++) {
        many[i] = row;
    }
    for (int kind = 0; kind < 10; kind++) {
        uint8_t reply[REPLY_MAX] = {0};
        uint32_t len = 0;
        const uint8_t l = WEFT_FRAME_LOGPROBS;
        const uint8_t t = WEFT_FRAME_TEXT;
        const uint8_t more = WEFT_FRAME_F_CONTINUED;
        const uint8_t tail = WEFT_FRAME_F_CONTINUED | WEFT_FRAME_F_TAIL;
        len += frame_put(reply, t, 0, 5, "x", 1);
        switch (kind) {
        case 0: /* of another token than the text's */
            len += frame_put(reply + len, l, 0, 6, &row, sizeof(row));
            len += frame_put(reply + len, t, 0, 6, "x", 1);
            break;
        case 1: /* the frame's token and the text's differ */
            len += frame_put(reply + len, l, 0, 5, &row, sizeof(row));
            len += frame_put(reply + len, t, 0, 6, "x", 1);
            break;
        case 2: /* a text beyond the frame */
            len += frame_put(reply + len, l, 0, 5, &far, sizeof(far));
            len += frame_put(reply + len, t, 0, 5, "x", 1);
            break;
        case 3:
            len += frame_put(reply + len, l, 0, 5, many, sizeof(many));
            len += frame_put(reply + len, t, 0, 5, "x", 1);
            break;
        case 4: /* no rows */
            len += frame_put(reply + len, l, 0, 5, "", 0);
            len += frame_put(reply + len, t, 0, 5, "x", 1);
            break;
        case 5: /* before a piece of a token that was told */
            len += frame_put(reply + len, l, 0, 5, &row, sizeof(row));
            len += frame_put(reply + len, t, more, 5, "x", 1);
            break;
        case 6: /* a tail that is none */
            len += frame_put(reply + len, t, tail, 5, "x", 1);
            len += frame_put(reply + len, t, 0, 6, "x", 1);
            break;
        case 7: /* half a float */
            len += frame_put(reply + len, WEFT_FRAME_EMBEDDING, 0, 0, &row, 6);
            break;
        case 8: /* twice */
            len += frame_put(reply + len, WEFT_FRAME_EMBEDDING, 0, 0, &row, 8);
            len += frame_put(reply + len, WEFT_FRAME_EMBEDDING, 0, 0, &row, 8);
            break;
        default: /* nothing behind them */
            len += frame_put(reply + len, l, 0, 5, &row, sizeof(row));
            len += frame_put(reply + len, l, 0, 5, &row, sizeof(row));
            break;
        }
        struct client c;
        client_open(&c, 0, 0);
        client_put(&c, reply, 0, len, len + 1);
        ck_assert_msg(c.r.ended && c.r.result.status == WEFT_E_CORRUPT, "kind %d", kind);
        ck_assert_uint_eq(c.text_len, 1);
        request_deinit(&c.r);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/reply");
    TCase *t = tcase_create("reply");
    tcase_add_test(t, arrives_whole_at_every_cut);
    tcase_add_test(t, log_probabilities_wait_for_their_text);
    tcase_add_test(t, tail_goes_on_behind_resumed_tokens);
    tcase_add_test(t, embedding_arrives_whole_at_every_cut);
    tcase_add_test(t, a_failure_has_no_tail);
    tcase_add_test(t, limits_of_log_probabilities);
    tcase_add_test(t, lies_are_corrupt);
    suite_add_tcase(s, t);
    return suite_main(s);
}
