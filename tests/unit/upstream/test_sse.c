/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams: the examples of the standard, every way to cut one, and a second implementation
 * that sees the whole stream at once as the oracle for random ones. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/sse.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define OUT_MAX     4096u
#define CAPACITY    256u
#define ROUNDS      20000u
#define PIECES_MAX  24u
#define STREAM_MAX  512u
#define SEPARATOR   '\x1e'
#define RANDOM_SEED 11u

/* All events of a stream, each behind a separator, read in portions of up to `portion` bytes. */
static int read_all(const char *stream, size_t len, size_t portion, char *out)
{
    char buffer[CAPACITY];
    struct sse sse;
    sse_init(&sse, buffer, sizeof(buffer));
    size_t at = 0;
    for (size_t begin = 0; begin < len; begin += portion) {
        const char *data = stream + begin;
        size_t left = len - begin < portion ? len - begin : portion;
        struct sse_event event;
        int rc;
        while ((rc = sse_next(&sse, &data, &left, &event)) == 1) {
            out[at++] = SEPARATOR;
            memcpy(out + at, event.data, event.len);
            at += event.len;
        }
        if (rc)
            return rc;
        ck_assert_uint_eq(left, 0);
    }
    out[at] = 0;
    return 0;
}

static void expect(const char *stream, const char *wanted)
{
    char out[OUT_MAX];
    for (size_t portion = 1; portion <= strlen(stream); portion++) {
        ck_assert_int_eq(read_all(stream, strlen(stream), portion, out), 0);
        ck_assert_msg(strcmp(out, wanted) == 0, "portions of %zu of '%s': '%s'", portion, stream,
                      out);
    }
}

START_TEST(of_the_standard)
{
    expect("data: YHOO\ndata: +2\ndata: 10\n\n", "\x1eYHOO\n+2\n10");
    expect(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
           "\x1e"
           "first event\x1esecond event\x1e third");
    expect("data\n\ndata\ndata\n\ndata:", "\x1e\x1e\n");
    expect("data:test\n\ndata: test\n\n", "\x1etest\x1etest");
}
END_TEST

START_TEST(line_ends_and_fields)
{
    expect("data: a\r\n\r\ndata: b\r\rdata: c\n\n", "\x1e"
                                                    "a\x1e"
                                                    "b\x1e"
                                                    "c");
    expect("\xef\xbb\xbf"
           "data: marked\n\n",
           "\x1emarked");
    expect("dat: no\ndata2: no\n data: no\nevent: error\nretry: 10\ndata: yes\n\n", "\x1eyes");
    expect("event: nothing\n\ndata: cut off\n", "");
    expect("data: [DONE]\n\n", "\x1e[DONE]");
    expect("data: a: b\n\n", "\x1e"
                             "a: b");
}
END_TEST

START_TEST(too_long)
{
    char stream[CAPACITY + 64];
    char out[OUT_MAX];
    memset(stream, 'x', sizeof(stream));
    memcpy(stream, "data: ", 6);
    for (size_t portion = 1; portion < sizeof(stream); portion += 37)
        ck_assert_int_eq(read_all(stream, sizeof(stream), portion, out), -EMSGSIZE);
    /* For good. */
    char buffer[4];
    struct sse sse;
    struct sse_event event;
    sse_init(&sse, buffer, sizeof(buffer));
    const char *at = "data: 12345\n\ndata: 1\n\n";
    size_t len = strlen(at);
    ck_assert_int_eq(sse_next(&sse, &at, &len, &event), -EMSGSIZE);
    at = "data: 1\n\n";
    len = strlen(at);
    ck_assert_int_eq(sse_next(&sse, &at, &len, &event), -EMSGSIZE);
    /* An event that just fits does, and so does the one after it. */
    sse_init(&sse, buffer, sizeof(buffer));
    at = "data: 1234\n\ndata: 5678\n\n";
    len = strlen(at);
    ck_assert_int_eq(sse_next(&sse, &at, &len, &event), 1);
    ck_assert_int_eq(sse_next(&sse, &at, &len, &event), 1);
    ck_assert(event.len == 4 && memcmp(event.data, "5678", 4) == 0);
}
END_TEST

/* ---- the oracle: lines first, then fields, over the whole stream ---- */

static size_t line_end(const char *stream, size_t len, size_t at, size_t *next)
{
    size_t end = at;
    while (end < len && stream[end] != '\n' && stream[end] != '\r')
        end++;
    *next = end + 1;
    if (end + 1 < len && stream[end] == '\r' && stream[end + 1] == '\n')
        *next = end + 2;
    return end;
}

static void oracle(const char *stream, size_t len, char *out)
{
    char event[OUT_MAX];
    size_t event_len = 0, at_out = 0, next;
    bool has = false;
    for (size_t at = 0; at < len; at = next) {
        const size_t end = line_end(stream, len, at, &next);
        if (end == len)
            break; /* a line without an end is none */
        const char *line = stream + at;
        const size_t size = end - at;
        if (size == 0 && has) {
            out[at_out++] = SEPARATOR;
            memcpy(out + at_out, event, event_len);
            at_out += event_len;
        }
        if (size == 0) {
            has = false;
            event_len = 0;
            continue;
        }
        const bool bare = size == 4 && memcmp(line, "data", 4) == 0;
        const bool full = size > 4 && memcmp(line, "data:", 5) == 0;
        if (!bare && !full)
            continue;
        if (has)
            event[event_len++] = '\n';
        has = true;
        const size_t skip = bare ? size : (size > 5 && line[5] == ' ' ? 6 : 5);
        memcpy(event + event_len, line + skip, size - skip);
        event_len += size - skip;
    }
    out[at_out] = 0;
}

START_TEST(like_the_oracle)
{
    static const char *const pieces[] = {"data: ", "data:", "data", "\n",    "\r",  "\r\n",
                                         "\n\n",   " ",     ":",    "x",     "abc", "event: e",
                                         "id",     "dat",   "a",    ": c\n", "\r\r"};
    struct rng rng = {RANDOM_SEED};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        char stream[STREAM_MAX] = "";
        char wanted[OUT_MAX], got[OUT_MAX];
        const uint32_t count = rng_below(&rng, PIECES_MAX);
        for (uint32_t i = 0; i < count; i++)
            strcat(stream, pieces[rng_below(&rng, sizeof(pieces) / sizeof(pieces[0]))]);
        const size_t len = strlen(stream);
        oracle(stream, len, wanted);
        ck_assert_int_eq(read_all(stream, len, 1 + rng_below(&rng, 9), got), 0);
        ck_assert_msg(strcmp(got, wanted) == 0, "round %u: '%s' gave '%s', not '%s'", round, stream,
                      got, wanted);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_sse");
    TCase *tests = tcase_create("sse");
    tcase_add_test(tests, of_the_standard);
    tcase_add_test(tests, line_ends_and_fields);
    tcase_add_test(tests, too_long);
    tcase_add_test(tests, like_the_oracle);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
