/* SPDX-License-Identifier: Apache-2.0 */
/* test_http_reply.c - answers of OpenAI-compatible servers, whole and cut at every place. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/http_reply.h"
#include "tests/unit/suite.h"

#define EVENT(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define STREAM      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

static const struct {
    const char *bytes;
    enum http_state state; /* at the end, without the connection's end */
    uint32_t status;
    uint32_t pieces;
    bool ok;
    bool close;
} cases[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", HTTP_COMPLETE, 200, 0, true, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", HTTP_COMPLETE, 200, 0, true, true},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", HTTP_COMPLETE, 200,
     0, true, false},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", HTTP_COMPLETE,
     200, 0, true, false},
    {"HTTP/1.1 204 No Content\r\n\r\n", HTTP_COMPLETE, 204, 0, false, false},
    {"HTTP/1.1 503 Full\r\nconnection: CLOSE\r\ncontent-length: 2\r\n\r\n{}", HTTP_COMPLETE, 503, 0,
     false, true},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end", HTTP_BODY, 200, 0, false, true},
    {STREAM "Content-Length: 107\r\n\r\n" EVENT("a") EVENT("") "data: [DONE]\n\n", HTTP_COMPLETE,
     200, 1, true, false},
    /* chunks that end in the middle of an event */
    {STREAM "Transfer-Encoding: chunked\r\n\r\n"
            "1c\r\ndata: {\"choices\":[{\"delta\":{\r\n"
            "18;x=y\r\n\"content\":\"one\"}}]}\n\ndat\r\n"
            "b\r\na: [DONE]\n\n\r\n0\r\nTrailer: x\r\n\r\n",
     HTTP_COMPLETE, 200, 1, true, false},
    {STREAM "Transfer-Encoding: chunked\r\n\r\n"
            "30\r\ndata: {\"error\":{\"message\":\"the worker is gone\"}}\r\n1\r\n\n\r\n0\r\n\r\n",
     HTTP_COMPLETE, 200, 0, false, false},
    /* a stream without its end is no answer */
    {STREAM "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", HTTP_COMPLETE, 200, 0, false, false},
    {"HTTP/2 200\r\n\r\n", HTTP_BAD, 0, 0, false, false},
    {"HTTP/1.1 abc\r\n\r\n", HTTP_BAD, 0, 0, false, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", HTTP_BAD, 200, 0, false, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", HTTP_BAD, 200, 0, false,
     false},
    {STREAM "Transfer-Encoding: chunked\r\n\r\nzz\r\n", HTTP_BAD, 200, 0, false, false},
    {STREAM "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", HTTP_BAD, 200, 0, false, false},
};

static void expect(const struct http_reply *r, int i)
{
    ck_assert_int_eq((int)r->state, (int)cases[i].state);
    ck_assert_uint_eq(r->status, cases[i].status);
    ck_assert_uint_eq(r->pieces, cases[i].pieces);
    ck_assert_int_eq(http_reply_ok(r), cases[i].ok);
    if (r->state != HTTP_BAD) {
        ck_assert_int_eq(r->close, cases[i].close);
    }
}

START_TEST(whole_and_cut_at_every_place)
{
    const char *bytes = cases[_i].bytes;
    const size_t len = strlen(bytes);
    static struct http_reply r;
    for (size_t cut = 0; cut <= len; cut++) {
        http_reply_init(&r);
        size_t used = http_reply_feed(&r, bytes, cut);
        (void)http_reply_feed(&r, bytes + used, len - used);
        expect(&r, _i);
    }
    http_reply_init(&r);
    for (size_t i = 0; i < len; i++) {
        (void)http_reply_feed(&r, bytes + i, 1);
    }
    expect(&r, _i);
}
END_TEST

START_TEST(the_end_of_the_connection)
{
    static struct http_reply r;
    const char *open_end = "HTTP/1.1 200 OK\r\n\r\nsome", *cut = cases[0].bytes;
    http_reply_init(&r);
    (void)http_reply_feed(&r, open_end, strlen(open_end));
    http_reply_end(&r);
    ck_assert(http_reply_ok(&r));
    http_reply_init(&r);
    (void)http_reply_feed(&r, cut, strlen(cut) - 1);
    http_reply_end(&r);
    ck_assert(!http_reply_ok(&r));
    http_reply_init(&r);
    http_reply_end(&r);
    ck_assert(!http_reply_ok(&r));
}
END_TEST

START_TEST(nothing_behind_the_answer_is_taken)
{
    static struct http_reply r;
    const char *two = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1";
    http_reply_init(&r);
    ck_assert_uint_eq(http_reply_feed(&r, two, strlen(two)), strlen(two) - 8);
    ck_assert_uint_eq(http_reply_feed(&r, two, strlen(two)), 0);
}
END_TEST

START_TEST(long_lines)
{
    static struct http_reply r;
    static char text[3 * HTTP_LINE_MAX];
    const char *head = "HTTP/1.1 200 OK\r\nX: ";
    memset(text, 'x', sizeof(text));
    http_reply_init(&r);
    (void)http_reply_feed(&r, head, strlen(head));
    (void)http_reply_feed(&r, text, sizeof(text));
    (void)http_reply_feed(&r, "\r\n", 2);
    ck_assert_int_eq((int)r.state, (int)HTTP_BAD);
    /* ... but the text of an event may be. */
    const char *stream = STREAM "\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"";
    http_reply_init(&r);
    (void)http_reply_feed(&r, stream, strlen(stream));
    (void)http_reply_feed(&r, text, sizeof(text));
    (void)http_reply_feed(&r, "\"}}]}\n\ndata: [DONE]\n\n", 22);
    http_reply_end(&r);
    ck_assert_uint_eq(r.pieces, 1);
    ck_assert(http_reply_ok(&r));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_http_reply");
    TCase *t = tcase_create("reply");
    tcase_add_loop_test(t, whole_and_cut_at_every_place, 0, sizeof(cases) / sizeof(cases[0]));
    tcase_add_test(t, the_end_of_the_connection);
    tcase_add_test(t, nothing_behind_the_answer_is_taken);
    tcase_add_test(t, long_lines);
    suite_add_tcase(s, t);
    return suite_main(s);
}
