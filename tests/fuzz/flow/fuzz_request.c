/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_request.c - a worker, and a user, around the client's machine. Input: steps of one byte
 * kind, one byte time (10 ms) and what the kind needs: more of the reply or some of it again, whose
 * sum is made right, another datagram of a worker's, any datagram, another value somewhere in the
 * headers to come, or something that the user does. Whatever comes, it sends a bounded number of
 * datagrams and ends in silence. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/request.h"

#define BODY_BYTES  20000u
#define REPLY_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum step { STEP_REPLY, STEP_CONTROL, STEP_ANY, STEP_HEADER, STEP_USER, STEPS };

struct client {
    const uint8_t *at; /* of the input */
    size_t left;
    struct request r;
    struct weft_rsp rsp; /* of the next datagram */
    uint8_t reply[REPLY_BYTES];
    uint32_t reply_len;
    uint64_t now_ns;
};

static struct request_conn conn;

static uint32_t take(struct client *c)
{
    uint32_t byte = c->left > 0 ? *c->at : 0;
    c->at += c->left > 0;
    c->left -= c->left > 0;
    return byte;
}

/* The next bytes of the input. */
static struct datagram_payload take_all(struct client *c, size_t len)
{
    struct datagram_payload payload = {.data = c->at};
    payload.len = (uint32_t)(len < c->left ? len : c->left);
    c->at += payload.len;
    c->left -= payload.len;
    return payload;
}

static void drain(struct client *c)
{
    uint8_t out[REQUEST_OUT_MAX];
    struct request_text text;
    while (request_event(&c->r, &text, c->now_ns)) {
        weft_logprob_t one;
        while (request_logprob(&text, &one)) {
        }
    }
    for (uint32_t i = 0; request_output(&c->r, &conn, c->now_ns, out) != 0; i++) {
        if (i > 100) {
            abort();
        }
    }
}

static void receive(struct client *c, const struct weft_rsp *rsp, struct datagram_payload payload)
{
    struct weft_rsp summed = *rsp;
    if (summed.h.type == WEFT_T_RESP) { /* or nothing would get past the sum */
        summed.h.arg = datagram_sum(&summed.h, payload.data, payload.len);
    }
    request_input(&c->r, &conn, &summed, payload, c->now_ns);
}

static void any(struct client *c)
{
    struct datagram_payload whole = take_all(c, take(c));
    struct datagram_payload payload;
    struct weft_rsp rsp;
    if (datagram_check(whole.data, whole.len, true, sizeof(rsp), &payload)) {
        memcpy(&rsp, whole.data, sizeof(rsp));
        receive(c, &rsp, payload);
    }
}

/* What follows in the input is the reply's next part; `back`: that was so before. */
static void reply(struct client *c)
{
    uint32_t back = take(c) * 4;
    struct datagram_payload part = take_all(c, take(c));
    uint32_t room = REPLY_BYTES - c->reply_len;
    uint32_t len = part.len < room ? part.len : room;
    memcpy(c->reply + c->reply_len, part.data, len);
    c->reply_len += len;
    uint32_t begin = c->reply_len - len;
    begin = back < begin ? begin - back : 0;
    struct weft_rsp rsp = c->rsp;
    rsp.h.type = WEFT_T_RESP;
    rsp.h.offset += begin;
    receive(c, &rsp, (struct datagram_payload){c->reply + begin, c->reply_len - begin});
}

static void user(struct client *c)
{
    switch (take(c) % 5) {
    case 0:
        request_cancel(&c->r, c->now_ns);
        break;
    case 1:
        request_hold(&c->r, true, c->now_ns);
        break;
    case 2:
        request_hold(&c->r, false, c->now_ns);
        break;
    case 3:
        request_refused(&c->r);
        break;
    default:
        request_conn_late(&conn, NS_PER_S);
        request_late(&c->r, NS_PER_S, c->now_ns);
        break;
    }
}

static void step(struct client *c, uint32_t kind)
{
    struct weft_rsp rsp = c->rsp;
    uint32_t place;
    switch (kind % STEPS) {
    case STEP_REPLY:
        reply(c);
        break;
    case STEP_CONTROL:
        rsp.h.type = (uint8_t)(WEFT_T_RESP + 1 + take(c) % 7);
        rsp.h.arg += take(c) * 16;
        receive(c, &rsp, take_all(c, sizeof(struct weft_range)));
        break;
    case STEP_ANY:
        any(c);
        break;
    case STEP_HEADER:
        place = take(c) % sizeof(c->rsp);
        ((uint8_t *)&c->rsp)[place] = (uint8_t)take(c);
        break;
    default:
        user(c);
    }
}

/* With nobody left to answer. */
static void end(struct client *c)
{
    request_hold(&c->r, false, c->now_ns);
    for (uint32_t i = 0; !request_closed(&c->r); i++) {
        uint64_t due_ns = request_due_ns(&c->r);
        c->now_ns = due_ns > c->now_ns ? due_ns : c->now_ns;
        request_tick(&c->r, &conn, c->now_ns);
        drain(c);
        if (i > 1000) {
            abort();
        }
    }
    if (!c->r.ended) {
        abort();
    }
    request_deinit(&c->r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct client c;
    static const uint8_t body[BODY_BYTES];
    const struct weft_req_hdr hdr = {.req_seq = 1};
    c = (struct client){.at = data, .left = size, .now_ns = NS_PER_S};
    c.rsp.h.ver_fmt = WEFT_VER_FMT;
    c.rsp.h.hdr_words = sizeof(c.rsp) / 4;
    c.rsp.h.conn_id = 1;
    c.rsp.h.req_seq = 1;
    request_conn_init(&conn, 1, 0, 0);
    request_init(&c.r, &conn, &hdr, body, BODY_BYTES, 0, c.now_ns);
    drain(&c);
    while (c.left >= 2) {
        uint32_t kind = take(&c);
        c.now_ns += take(&c) * 10 * NS_PER_MS;
        request_tick(&c.r, &conn, c.now_ns);
        step(&c, kind);
        drain(&c);
    }
    end(&c);
    return 0;
}
