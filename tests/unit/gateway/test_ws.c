/* SPDX-License-Identifier: Apache-2.0 */
/* test_ws.c - ws.h: frames of RFC 6455 and of its section 5.7, in pieces, and what is refused. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/ws.h"
#include "tests/unit/suite.h"

#define MAX 100000u

/* A client's frame. */
static void frame_add(struct buf *out, unsigned first, const char *payload, size_t len,
                      uint32_t mask)
{
    uint8_t head[WS_HEADER_MAX] = {(uint8_t)first};
    size_t size = 2;
    if (len < 126) {
        head[1] = (uint8_t)(0x80 | len);
    } else if (len <= UINT16_MAX) {
        head[1] = 0xfe;
        head[size++] = (uint8_t)(len >> 8);
        head[size++] = (uint8_t)len;
    } else {
        head[1] = 0xff;
        for (unsigned i = 0; i < 8; i++) {
            head[size++] = (uint8_t)((uint64_t)len >> (56 - 8 * i));
        }
    }
    memcpy(head + size, &mask, 4);
    buf_add(out, head, size + 4);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)payload[i] ^ head[size + (i & 3)];
        buf_add(out, &c, 1);
    }
}

/* What it makes of these bytes: one letter for each event, messages and control payloads behind
 * it. */
static void events_of(const struct buf *in, size_t step, struct buf *out)
{
    struct ws w = {.message_max = MAX};
    const uint8_t *data = (const uint8_t *)in->data;
    for (size_t at = 0; at < in->end;) {
        size_t end = step < in->end - at ? at + step : in->end;
        while (at < end) {
            enum ws_event event;
            at += ws_feed(&w, data + at, end - at, &event);
            if (event == WS_MORE) {
                continue;
            }
            buf_add(out, &"MTBPOCF"[event], 1);
            if (event == WS_TEXT || event == WS_BINARY) {
                buf_add(out, w.message.data, buf_len(&w.message));
            } else if (event == WS_PING || event == WS_PONG) {
                buf_add(out, w.control, w.control_len);
            } else {
                buf_add_format(out, "%u", w.code);
            }
        }
    }
    buf_add(out, "", 1);
    ws_deinit(&w);
}

static void expect(const struct buf *in, const char *wanted)
{
    for (size_t step = 1; step <= in->end; step++) {
        struct buf out = {.data = NULL};
        events_of(in, step, &out);
        ck_assert_str_eq(out.data, wanted);
        buf_deinit(&out);
    }
}

START_TEST(handshake)
{
    char accept[WS_ACCEPT_MAX];
    ck_assert(ws_accept("dGhlIHNhbXBsZSBub25jZQ==", accept)); /* section 1.3 */
    ck_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    static const char *const bad[] = {"", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===",
                                      "dGhlIHNhbXBsZSBub25j*Q==", "dGhlIHNhbXBsZSBub25jZXh4"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!ws_accept(bad[i], accept), "%s", bad[i]);
    }
    ck_assert(!ws_accept(NULL, accept));
}
END_TEST

START_TEST(messages)
{
    struct buf in = {.data = NULL};
    static const uint8_t hello[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d,
                                    0x7f, 0x9f, 0x4d, 0x51, 0x58}; /* section 5.7 */
    buf_add(&in, hello, sizeof(hello));
    frame_add(&in, 0x01, "a\xc3", 2, 7); /* begun within a character */
    frame_add(&in, 0x89, "ping", 4, 9);
    frame_add(&in, 0x00, "", 0, 1);
    frame_add(&in, 0x8a, "", 0, 1);
    frame_add(&in, 0x80, "\xa4z", 2, 3);
    frame_add(&in, 0x82, "\xff", 1, 0);
    frame_add(&in, 0x81, "", 0, 5);
    frame_add(&in, 0x88, "\x03\xe8well", 6, 5);
    frame_add(&in, 0x81, "late", 4, 5);
    expect(&in, "THelloPpingOTa\xc3\xa4zB\xffTC1000");
    buf_deinit(&in);
}
END_TEST

static void refused(unsigned first, const char *payload, size_t len, const char *wanted)
{
    struct buf in = {.data = NULL};
    frame_add(&in, first, payload, len, 0x04030201);
    expect(&in, wanted);
    buf_deinit(&in);
}

START_TEST(refusals)
{
    char longest[126] = {0};
    refused(0xc1, "a", 1, "F1002"); /* a reserved bit */
    refused(0x83, "", 0, "F1002");  /* reserved opcodes */
    refused(0x8b, "", 0, "F1002");
    refused(0x80, "", 0, "F1002"); /* goes on with nothing */
    refused(0x09, "", 0, "F1002"); /* a control frame in parts */
    refused(0x89, longest, 126, "F1002");
    refused(0x88, "\x03", 1, "F1002");
    refused(0x88, "\x03\xed", 2, "F1002"); /* 1005 is never sent */
    refused(0x88, "\x03\xe8\xff", 3, "F1007");
    refused(0x88, "", 0, "C1005");
    refused(0x81, "\xff", 1, "F1007");
    refused(0x81, "a\xc3", 2, "F1007");
    static const uint8_t raw[][10] = {
        {0x81, 0x01, 'a'},                /* not masked */
        {0x81, 0xfe, 0, 125, 0, 0, 0, 0}, /* not the shortest form */
        {0x81, 0xff, 0, 0, 0, 0, 0, 0, 255, 255},
    };
    for (size_t i = 0; i < 3; i++) {
        struct ws w = {.message_max = MAX};
        enum ws_event event = WS_MORE;
        uint8_t zeros[4] = {0};
        (void)ws_feed(&w, raw[i], sizeof(raw[i]), &event);
        if (event == WS_MORE) {
            (void)ws_feed(&w, zeros, sizeof(zeros), &event);
        }
        ck_assert_int_eq(event, WS_FAIL);
        ck_assert_uint_eq(w.code, WS_CODE_PROTOCOL);
        ws_deinit(&w);
    }
    struct buf in = {.data = NULL};
    frame_add(&in, 0x01, "a", 1, 1);
    frame_add(&in, 0x81, "b", 1, 1); /* a new one within another */
    expect(&in, "F1002");
    buf_deinit(&in);
}
END_TEST

/* The bound is one of the whole message. */
START_TEST(too_long)
{
    struct buf in = {.data = NULL};
    struct buf out = {.data = NULL};
    char *text = calloc(1, MAX);
    memset(text, 'x', MAX);
    frame_add(&in, 0x81, text, MAX, 77);
    frame_add(&in, 0x01, text, MAX, 77);
    frame_add(&in, 0x80, text, 1, 77);
    events_of(&in, 999, &out);
    ck_assert_uint_eq(buf_len(&out), 1 + MAX + strlen("F1009") + 1);
    ck_assert_str_eq(out.data + 1 + MAX, "F1009");
    free(text);
    buf_deinit(&in);
    buf_deinit(&out);
}
END_TEST

/* Lengths around the three forms come back as they were, in a server's frame. */
START_TEST(server_frames)
{
    static const size_t lens[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};
    char *text = calloc(1, 70000);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        struct buf out = {.data = NULL};
        ws_frame(&out, WS_OP_TEXT, text, lens[i]);
        const uint8_t *p = (const uint8_t *)out.data;
        size_t head = lens[i] < 126 ? 2 : lens[i] <= 65535 ? 4 : 10;
        uint64_t told = p[1];
        for (size_t at = 2, from = told >= 126 ? 0 : 1; at < head; at++) {
            told = (from++ == 0 ? 0 : told << 8) | p[at];
        }
        ck_assert_uint_eq(p[0], 0x81);
        ck_assert_uint_eq(buf_len(&out), head + lens[i]);
        ck_assert_uint_eq(told, lens[i]);
        buf_deinit(&out);
    }
    struct buf out = {.data = NULL};
    ws_frame_close(&out, WS_CODE_GOING, "x");
    ws_frame_close(&out, WS_CODE_NONE, "x");
    ck_assert_mem_eq(out.data, "\x88\x03\x03\xe9x\x88\x00", 7);
    buf_deinit(&out);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_ws");
    TCase *tc = tcase_create("ws");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, handshake);
    tcase_add_test(tc, messages);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, too_long);
    tcase_add_test(tc, server_frames);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
