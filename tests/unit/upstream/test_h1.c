/* SPDX-License-Identifier: Apache-2.0 */
/* test_h1.c - h1.h: replies cut into portions of every size read the same; what is no reply, and
 * what is not whole. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/h1.h"
#include "tests/unit/suite.h"

#define OUT_MAX 256u
#define OK      "HTTP/1.1 200 OK\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"

/* Reads what comes in portions; the body into `out`. Returns the bytes that were taken, or an
 * error. */
static int read_portions(struct h1 *h, const char *reply, size_t all, size_t portion, char *out)
{
    size_t written = 0, taken = 0;
    h1_init(h);
    while (taken < all && h->state != H1_COMPLETE) {
        const char *at = reply + taken;
        size_t len = all - taken < portion ? all - taken : portion;
        const size_t before = len;
        struct h1_body body;
        int rc;
        while ((rc = h1_next(h, &at, &len, &body)) == 1) {
            ck_assert_uint_lt(written + body.len, OUT_MAX);
            memcpy(out + written, body.data, body.len);
            written += body.len;
        }
        if (rc)
            return rc;
        taken += before - len;
    }
    out[written] = 0;
    return (int)taken;
}

struct wanted {
    const char *reply;
    const char *body;
    int status;
    bool close;
    const char *type;
    size_t left; /* bytes behind the reply */
};

static const struct wanted whole[] = {
    {OK "Content-Length: 5\r\nContent-Type:  text/plain \r\n\r\nhello", "hello", 200, false,
     "text/plain", 0},
    {OK "content-length:0\n\nHTTP/1.1", "", 200, false, "", 8},
    {OK CHUNKED "5;x=1\r\nhello\r\nA \r\n0123456789\r\n0\r\nT: 1\r\n\r\nx", "hello0123456789", 200,
     false, "", 1},
    {OK "Content-Length: 3\r\n" CHUNKED "1\r\na\r\n0\r\n\r\n", "a", 200, true, "", 0},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 404 \r\n"
     "Content-Length: 2\r\nContent-Length: 2\r\n\r\nno",
     "no", 404, false, "", 0},
    {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "a", 200, true, "", 0},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\na", "a", 200, false, "",
     0},
    {OK "Connection: x, close\r\nContent-Length: 1\r\n\r\na", "a", 200, true, "", 0},
    {OK "Connection: closed\r\nContent-Length: 1\r\n\r\na", "a", 200, false, "", 0},
    {"HTTP/1.1 204\r\n\r\nHTTP/1.1", "", 204, false, "", 8},
};

START_TEST(whole_replies)
{
    const struct wanted *w = &whole[_i];
    const size_t all = strlen(w->reply);
    for (size_t portion = 1; portion <= all; portion++) {
        char out[OUT_MAX];
        struct h1 h;
        ck_assert_int_eq(read_portions(&h, w->reply, all, portion, out), (int)(all - w->left));
        ck_assert_int_eq(h.state, H1_COMPLETE);
        ck_assert_str_eq(out, w->body);
        ck_assert_int_eq(h.status, w->status);
        ck_assert(h.has_head && h.close == w->close);
        ck_assert_str_eq(h.type, w->type);
        ck_assert(h1_end(&h));
    }
}
END_TEST

static const char *const cut[] = {
    "HTTP/1.1 200 OK\r\nContent-Le", OK "Content-Length: 5\r\n\r\nhell",
    OK CHUNKED "5\r\nhello\r\n",     OK CHUNKED "5\r\nhello\r\n0\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
};

START_TEST(cut_replies)
{
    char out[OUT_MAX];
    struct h1 h;
    const size_t all = strlen(cut[_i]);
    ck_assert_int_eq(read_portions(&h, cut[_i], all, all, out), (int)all);
    ck_assert(!h1_end(&h));
}
END_TEST

START_TEST(until_the_end)
{
    static const char reply[] = OK "Retry-After: 7\r\nretry-after-ms: 7001\r\n\r\nall of it";
    char out[OUT_MAX];
    struct h1 h;
    ck_assert_int_eq(read_portions(&h, reply, strlen(reply), 3, out), (int)strlen(reply));
    ck_assert_str_eq(out, "all of it");
    ck_assert_int_eq(h.state, H1_REST);
    ck_assert(h.close && h1_end(&h));
    ck_assert_str_eq(h.retry_after, "7");
    ck_assert_str_eq(h.retry_after_ms, "7001");
}
END_TEST

static const char *const bad[] = {
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2p1\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    OK "Content-Length: -5\r\n\r\n",
    OK "Content-Length: 5, 5\r\n\r\n",
    OK "Content-Length: 99999999999999999999999\r\n\r\n",
    OK "Content-Length:\r\n\r\n",
    OK "Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK CHUNKED "x\r\n",
    OK CHUNKED "\r\n",
    OK CHUNKED "-1\r\n",
    OK CHUNKED "fffffffffffffffff\r\n",
    OK CHUNKED "1\r\nab\r\n",
};

START_TEST(no_replies)
{
    char out[OUT_MAX];
    struct h1 h;
    for (size_t portion = 1; portion < 8; portion++)
        ck_assert_int_eq(read_portions(&h, bad[_i], strlen(bad[_i]), portion, out), -EBADMSG);
    ck_assert(!h1_end(&h));
}
END_TEST

START_TEST(a_zero_byte_is_none)
{
    static const char reply[] = OK "Content-Length: 1\0\r\n\r\na";
    char out[OUT_MAX];
    struct h1 h;
    ck_assert_int_eq(read_portions(&h, reply, sizeof(reply) - 1, 4, out), -EBADMSG);
}
END_TEST

/* A header of any length is stepped over, or its beginning kept; all of them have a bound. */
START_TEST(long_headers)
{
    static const char begin[] = OK "Set-Cookie: ", rest[] = "\r\nContent-Length: 1\r\n\r\na";
    char out[OUT_MAX];
    struct h1 h;
    for (size_t len = H1_LINE_MAX - 20; len < 2 * H1_HEAD_MAX; len = len * 3 / 2) {
        char *reply = malloc(sizeof(begin) + len + sizeof(rest));
        char *at = mempcpy(reply, begin, sizeof(begin) - 1);
        memset(at, 'x', len);
        at = mempcpy(at + len, rest, sizeof(rest) - 1);
        const int all = (int)(at - reply);
        const bool fits = (size_t)all - 1 <= H1_HEAD_MAX;
        ck_assert_int_eq(read_portions(&h, reply, (size_t)all, 4096, out), fits ? all : -EBADMSG);
        free(reply);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_h1");
    TCase *tests = tcase_create("h1");
    tcase_add_loop_test(tests, whole_replies, 0, sizeof(whole) / sizeof(whole[0]));
    tcase_add_loop_test(tests, cut_replies, 0, sizeof(cut) / sizeof(cut[0]));
    tcase_add_test(tests, until_the_end);
    tcase_add_loop_test(tests, no_replies, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(tests, a_zero_byte_is_none);
    tcase_add_test(tests, long_headers);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
