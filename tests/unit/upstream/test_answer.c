/* SPDX-License-Identifier: Apache-2.0 */
/* Replies of servers of many kinds, each cut behind every byte: complete only where the server has
 * given its reason, and the text is always a beginning of the whole one. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/answer.h"
#include "tests/unit/suite.h"

#define TEXT_MAX 1024u
#define STREAM   "text/event-stream; charset=utf-8"

static char buffer[4096];

struct heard {
    char text[TEXT_MAX];
    size_t len;
    int stop_at; /* pieces; 0 = never */
    int pieces;
};

static int hear(const char *text, size_t len, void *user)
{
    struct heard *heard = user;
    ck_assert_uint_lt(heard->len + len, TEXT_MAX);
    memcpy(heard->text + heard->len, text, len);
    heard->len += len;
    heard->text[heard->len] = 0;
    return ++heard->pieces == heard->stop_at ? -ENOBUFS : 0;
}

static enum answer_verdict read_reply(struct answer *answer, int status, const char *type,
                                      const char *body, size_t len, size_t portion, bool whole,
                                      struct heard *heard)
{
    memset(heard, 0, sizeof(*heard));
    answer_init(answer, buffer, sizeof(buffer));
    answer_head(answer, status, type);
    for (size_t at = 0; at < len; at += portion) {
        const size_t part = len - at < portion ? len - at : portion;
        if (answer_data(answer, body + at, part, hear, heard))
            return answer_end(answer, false, hear, heard);
    }
    return answer_end(answer, whole, hear, heard);
}

static enum answer_verdict verdict_of(int status, const char *type, const char *body)
{
    struct answer answer;
    struct heard heard;
    return read_reply(&answer, status, type, body, strlen(body), 7, true, &heard);
}

/* What servers send for "Hello you", with where their reason to end is complete. */
static const struct {
    const char *name, *body, *reason;
    enum answer_verdict verdict;
} streams[] = {
    {"openai",
     "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
     "\"\"},\"finish_reason\":null}],\"usage\":null}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}"
     "\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"},\"finish_reason\":null}]}"
     "\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
     "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n"
     "data: [DONE]\n\n",
     "\"stop\"}]}\n\n", ANSWER_COMPLETE},
    {"text with the reason in the last piece",
     "data: {\"choices\":[{\"text\":\"Hello\",\"finish_reason\":null}]}\r\n\r\n"
     "data: {\"choices\":[{\"text\":\" you\",\"finish_reason\":\"length\"}],\"usage\":"
     "{\"prompt_tokens\":9,\"completion_tokens\":2}}\r\n\r\n",
     "\"completion_tokens\":2}}\r\n\r\n", ANSWER_COMPLETE},
    {"reasoning beside it, a choice that was not asked for",
     ": OPENROUTER PROCESSING\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
     "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"no\"},\"finish_reason\":"
     "\"stop\"}]}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}},{\"index\":1,\"delta\":"
     "{\"content\":\"no\"}}]}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" you\"}}]}\n\n"
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":null},\"finish_reason\":\"stop\"}],"
     "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
     "\"completion_tokens\":2}}\n\n", ANSWER_COMPLETE},
    {"no reason, and [DONE] all the same",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\ndata: [DONE]\n\n",
     NULL, ANSWER_CUT},
    {"an error as an event",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n"
     "event: error\ndata: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n"
     "data: [DONE]\n\n",
     NULL, ANSWER_FAILED},
    {"a censor",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":"
     "\"content_filter\"}]}\n\n",
     NULL, ANSWER_FILTERED},
    {"aborted",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":"
     "\"abort\"}]}\n\n",
     NULL, ANSWER_FAILED},
    {"half an event",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n"
     "data: {\"choices\":[{\"index\":0,\"del\n\n",
     NULL, ANSWER_CUT},
    {"another type",
     "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":[1]},\"finish_reason\":\"stop\"}]}"
     "\n\n",
     NULL, ANSWER_CUT},
};

START_TEST(cut_behind_every_byte)
{
    const size_t i = (size_t)_i;
    const char *body = streams[i].body;
    const size_t len = strlen(body);
    size_t enough = SIZE_MAX; /* bytes with which the reason is there */
    if (streams[i].reason) {
        const char *reason = strstr(body, streams[i].reason);
        ck_assert_ptr_nonnull(reason);
        const char *end = strstr(reason, body[len - 2] == '\r' ? "\r\n\r" : "\n\n");
        enough = (size_t)(end - body) + (body[len - 2] == '\r' ? 3 : 2);
    }
    for (size_t cut = 0; cut <= len; cut++) {
        for (size_t portion = 1; portion < 400; portion = portion * 3 + 1) {
            struct answer answer;
            struct heard heard;
            const enum answer_verdict got =
                read_reply(&answer, 200, STREAM, body, cut, portion, (cut & 1) != 0, &heard);
            ck_assert_msg((got == ANSWER_COMPLETE) == (cut >= enough), "%s: %s behind byte %zu",
                          streams[i].name, answer_verdict_name(got), cut);
            ck_assert_int_eq(strncmp("Hello you", heard.text, heard.len), 0);
            if (cut == len)
                ck_assert_int_eq(got, streams[i].verdict);
            if (cut == len && enough != SIZE_MAX) {
                ck_assert_str_eq(heard.text, "Hello you");
                ck_assert_uint_eq(answer.completion_tokens, 2);
                ck_assert_uint_eq(answer.prompt_tokens, 9);
            }
        }
    }
}
END_TEST

#define CALL(index, more)                                                                          \
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":" index "," more       \
    "}]}}]}\n\n"
#define CALLS_TEXT                                                                                 \
    "Wait.\n<tool_call>\n{\"name\": \"f\", \"id\": \"x\", \"arguments\": "                         \
    "{\"a\":\"\\u003c/b>\"}}\n</tool_call>"                                                        \
    "\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"

/* Two calls, the second without arguments; then one that the length has cut, and nonsense. */
START_TEST(calls_become_text)
{
    static const char calls[] =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Wait.\"}}]}\n\n" CALL(
            "0",
            "\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}")
            CALL("0", "\"function\":{\"arguments\":\"{\\\"a\\\":\\\"<\"}")
                CALL("0", "\"function\":{\"arguments\":\"/b>\\\"}\"}")
                    CALL("1", "\"id\":\"no\\\" id\",\"function\":{\"name\":\"g\"}");
    static const char end[] =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
    static const char cut[] =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
    static const char *const bad[] = {CALL("0", "\"function\":{\"arguments\":\"{}\"}"),
                                      CALL("0", "\"function\":5"),
                                      CALL("-1", "\"function\":{\"name\":\"f\"}"),
                                      CALL("0", "\"function\":{\"name\":\"f\\\" g\"}"),
                                      CALL("0", "\"function\":{\"name\":\"f\",\"arguments\":{}}")};
    char body[2048];
    struct answer answer;
    struct heard heard;
    for (size_t portion = 1; portion < 1000; portion = portion * 3 + 1) {
        snprintf(body, sizeof(body), "%s%s", calls, end);
        ck_assert_int_eq(
            read_reply(&answer, 200, STREAM, body, strlen(body), portion, true, &heard),
            ANSWER_COMPLETE);
        ck_assert_str_eq(heard.text, CALLS_TEXT);
        snprintf(body, sizeof(body), "%s%s", calls, cut);
        ck_assert_int_eq(
            read_reply(&answer, 200, STREAM, body, strlen(body), portion, true, &heard),
            ANSWER_COMPLETE);
        ck_assert_uint_lt(heard.len, sizeof(CALLS_TEXT) - 10);
        ck_assert_int_eq(strncmp(CALLS_TEXT, heard.text, heard.len), 0);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body), "%s%s", bad[i], end);
        ck_assert_int_eq(verdict_of(200, STREAM, body), ANSWER_CUT);
    }
    static const char whole[] = "{\"choices\":[{\"message\":{\"content\":\"Wait.\",\"tool_calls\":["
                                "{\"id\":\"x\",\"function\":{"
                                "\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\\\"</"
                                "b>\\\"}\"}},{\"function\":{\"name\":\"g\",\"arguments\":"
                                "\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}";
    ck_assert_int_eq(read_reply(&answer, 200, NULL, whole, sizeof(whole) - 1, 99, true, &heard),
                     ANSWER_COMPLETE);
    ck_assert_str_eq(heard.text, CALLS_TEXT);
}
END_TEST

START_TEST(not_streamed)
{
    static const char body[] =
        "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}";
    struct answer answer;
    struct heard heard;
    for (size_t cut = 0; cut < sizeof(body) - 1; cut++) {
        ck_assert_int_eq(read_reply(&answer, 200, "application/json", body, cut, 9, true, &heard),
                         ANSWER_CUT);
        ck_assert_uint_eq(heard.len, 0);
    }
    ck_assert_int_eq(
        read_reply(&answer, 200, "application/json", body, sizeof(body) - 1, 9, true, &heard),
        ANSWER_COMPLETE);
    ck_assert_str_eq(heard.text, "Hello");
    /* A whole body over a connection that broke behind it cannot be told from half of one. */
    ck_assert_int_eq(read_reply(&answer, 200, NULL, body, sizeof(body) - 1, 9, false, &heard),
                     ANSWER_CUT);
}
END_TEST

START_TEST(refusals)
{
    ck_assert_int_eq(verdict_of(429, "application/json", "{\"error\":{\"message\":\"slow\"}}"),
                     ANSWER_BUSY);
    ck_assert_int_eq(verdict_of(503, NULL, ""), ANSWER_BUSY);
    ck_assert_int_eq(verdict_of(500, NULL, "<html>"), ANSWER_FAILED);
    ck_assert_int_eq(verdict_of(502, STREAM, ""), ANSWER_FAILED);
    ck_assert_int_eq(verdict_of(401, NULL, ""), ANSWER_DENIED);
    ck_assert_int_eq(verdict_of(404, NULL, "{\"detail\":\"Not Found\"}"), ANSWER_DENIED);
    ck_assert_int_eq(verdict_of(307, NULL, ""), ANSWER_DENIED);
    ck_assert_int_eq(verdict_of(204, NULL, ""), ANSWER_DENIED);
    ck_assert_int_eq(verdict_of(422, NULL, "{\"detail\":\"no\"}"), ANSWER_BAD_REQUEST);
    ck_assert_int_eq(verdict_of(413, NULL, ""), ANSWER_TOO_LONG);
    ck_assert_int_eq(verdict_of(400, NULL,
                                "{\"object\":\"error\",\"message\":\"This model's maximum context "
                                "length is 2048 tokens\",\"code\":400}"),
                     ANSWER_TOO_LONG);
    ck_assert_int_eq(verdict_of(400, NULL, "{\"error\":{\"message\":\"top_k\",\"code\":\"x\"}}"),
                     ANSWER_BAD_REQUEST);
    ck_assert_int_eq(verdict_of(200, STREAM, "data: {\"error\":\"context length\"}\n\n"),
                     ANSWER_TOO_LONG);
}
END_TEST

START_TEST(messages_are_for_logs)
{
    struct answer answer;
    struct heard heard;
    const char body[] = "{\"error\":{\"message\":\"two\\nlines\\u0007\"}}";
    read_reply(&answer, 400, NULL, body, strlen(body), 99, true, &heard);
    ck_assert_str_eq(answer.message, "two lines ");
}
END_TEST

START_TEST(bounds)
{
    struct answer answer;
    struct heard heard = {.len = 0};
    static char much[sizeof(buffer) + 1];
    memset(much, 'x', sizeof(much));
    ck_assert_int_eq(read_reply(&answer, 200, NULL, much, sizeof(much), 512, true, &heard),
                     ANSWER_CUT);
    ck_assert_int_eq(read_reply(&answer, 500, NULL, much, sizeof(much), 512, true, &heard),
                     ANSWER_FAILED);
    memcpy(much, "data: ", 6);
    ck_assert_int_eq(read_reply(&answer, 200, STREAM, much, sizeof(much), 512, true, &heard),
                     ANSWER_CUT);
    /* Comments without end cost no memory, and end too. */
    answer_init(&answer, buffer, sizeof(buffer));
    answer_head(&answer, 200, STREAM);
    int rc = 0;
    uint64_t total = 0;
    memset(much, ':', sizeof(much));
    for (; rc == 0 && total <= ANSWER_TOTAL_MAX; total += sizeof(much))
        rc = answer_data(&answer, much, sizeof(much), hear, &heard);
    ck_assert_int_eq(rc, -EMSGSIZE);
    /* Who takes the text may have enough. */
    memset(&heard, 0, sizeof(heard));
    heard.stop_at = 1;
    answer_init(&answer, buffer, sizeof(buffer));
    answer_head(&answer, 200, STREAM);
    ck_assert_int_eq(answer_data(&answer, streams[0].body, strlen(streams[0].body), hear, &heard),
                     -ENOBUFS);
    ck_assert_int_eq(answer_end(&answer, false, hear, &heard), ANSWER_CUT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_answer");
    TCase *tests = tcase_create("answer");
    tcase_add_loop_test(tests, cut_behind_every_byte, 0,
                        (int)(sizeof(streams) / sizeof(streams[0])));
    tcase_add_test(tests, calls_become_text);
    tcase_add_test(tests, not_streamed);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, messages_are_for_logs);
    tcase_add_test(tests, bounds);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
