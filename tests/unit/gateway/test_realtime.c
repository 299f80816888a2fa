/* SPDX-License-Identifier: Apache-2.0 */
/* test_realtime.c - realtime.h: events in, events out, and what is asked of the mesh. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/realtime.h"
#include "tests/unit/suite.h"

static struct realtime session;
static struct buf frames;

/* The next event that went out; each is one frame of a server. */
static json_t *event_next(void)
{
    const uint8_t *p = (const uint8_t *)frames.data + frames.at;
    ck_assert_uint_ge(buf_len(&frames), 2);
    size_t len = p[1];
    size_t head = 2;
    if (len == 126) {
        len = (size_t)p[2] << 8 | p[3];
        head = 4;
    }
    json_t *event = json_loadb((const char *)p + head, len, JSON_ALLOW_NUL, NULL);
    ck_assert_msg(event != NULL, "%.*s", (int)len, (const char *)p + head);
    frames.at += head + len;
    return event;
}

static const char *text_at(const json_t *event, const char *outer, const char *inner)
{
    const json_t *value = json_object_get(event, outer);
    const char *text = json_string_value(inner != NULL ? json_object_get(value, inner) : value);
    return text != NULL ? text : "";
}

static void expect(const char *type)
{
    json_t *event = event_next();
    ck_assert_str_eq(text_at(event, "type", NULL), type);
    json_decref(event);
}

static void expect_error(const char *code)
{
    json_t *event = event_next();
    ck_assert_str_eq(text_at(event, "type", NULL), "error");
    ck_assert_str_eq(text_at(event, "error", "code"), code);
    json_decref(event);
}

static enum realtime_action say(const char *event)
{
    return realtime_event(&session, event, strlen(event));
}

static void begin(void)
{
    ck_assert(realtime_init(&session, "abc", "m", &frames));
    expect("session.created");
}

static void end(void)
{
    ck_assert_uint_eq(buf_len(&frames), 0);
    realtime_deinit(&session);
    buf_deinit(&frames);
}

/* The body, which must be a request of the chat API. */
static json_t *question(void)
{
    struct api_request request;
    struct api_error error = {.http_status = 0};
    size_t len;
    char *text = realtime_question(&session, &len);
    memset(&request, 0, sizeof(request));
    ck_assert_msg(api_read(&request, API_CHAT, text, len, &error), "%s", error.message);
    ck_assert_str_eq(request.query.session, "abc");
    api_deinit(&request);
    json_t *body = json_loadb(text, len, 0, NULL);
    free(text);
    return body;
}

#define HI                                                                                         \
    "{\"type\":\"conversation.item.create\",\"item\":{\"type\":\"message\",\"role\":\"user\","     \
    "\"content\":[{\"type\":\"input_text\",\"text\":\"h\\u00e4\"},{\"type\":\"input_text\","       \
    "\"text\":\"!\"}]}}"

START_TEST(a_turn)
{
    const weft_result_t result = {.finish = WEFT_FINISH_STOP,
                                  .prompt_tokens = 9,
                                  .new_tokens = 2,
                                  .cached_tokens = 7,
                                  .node = "tokyo"};
    begin();
    ck_assert_int_eq(say("{\"type\":\"session.update\",\"session\":{\"instructions\":\"be\","
                         "\"temperature\":0.5,\"max_output_tokens\":7}}"),
                     REALTIME_NOTHING);
    expect("session.updated");
    say(HI);
    expect("conversation.item.added");
    ck_assert_int_eq(say("{\"type\":\"response.create\",\"response\":{\"max_output_tokens\":3}}"),
                     REALTIME_ASK);
    expect("response.created");
    expect("response.output_item.added");
    expect("response.content_part.added");
    json_t *body = question();
    const json_t *messages = json_object_get(body, "messages");
    ck_assert_int_eq(json_integer_value(json_object_get(body, "max_tokens")), 3);
    ck_assert_uint_eq(json_array_size(messages), 2);
    ck_assert_str_eq(text_at(json_array_get(messages, 0), "content", NULL), "be");
    ck_assert_str_eq(text_at(json_array_get(messages, 1), "content", NULL), "h\xc3\xa4!");
    json_decref(body);
    realtime_text(&session, "\xc3", 1); /* a character in two tokens is one delta */
    ck_assert_uint_eq(buf_len(&frames), 0);
    realtime_text(&session, "\xb6\"", 2);
    json_t *delta = event_next();
    ck_assert_str_eq(text_at(delta, "delta", NULL), "\xc3\xb6\"");
    ck_assert_str_eq(text_at(delta, "response_id", NULL), "resp_abc_1");
    json_decref(delta);
    realtime_done(&session, &result, NULL);
    expect("response.output_text.done");
    expect("response.content_part.done");
    expect("response.output_item.done");
    json_t *done = event_next();
    const json_t *response = json_object_get(done, "response");
    ck_assert_str_eq(text_at(response, "status", NULL), "completed");
    ck_assert_int_eq(json_integer_value(json_object_get(
                         json_object_get(json_object_get(response, "usage"), "input_token_details"),
                         "cached_tokens")),
                     7);
    json_decref(done);
    body = question(); /* the answer belongs to what follows */
    const json_t *last = json_array_get(json_object_get(body, "messages"), 2);
    ck_assert_str_eq(text_at(last, "role", NULL), "assistant");
    ck_assert_str_eq(text_at(last, "content", NULL), "\xc3\xb6\"");
    json_decref(body);
    end();
}
END_TEST

static const char *status_of_end(const weft_result_t *result, const struct api_error *error)
{
    static char status[32];
    realtime_done(&session, result, error);
    for (;;) {
        json_t *event = event_next();
        bool done = strcmp(text_at(event, "type", NULL), "response.done") == 0;
        if (done) {
            snprintf(status, sizeof(status), "%s",
                     text_at(json_object_get(event, "response"), "status", NULL));
        }
        json_decref(event);
        if (done) {
            return status;
        }
    }
}

START_TEST(ends)
{
    const weft_result_t cut = {.status = WEFT_E_STALLED, .finish = WEFT_FINISH_FAILED};
    const weft_result_t gone = {.status = WEFT_E_CANCELLED, .finish = WEFT_FINISH_CANCELLED};
    const weft_result_t length = {.finish = WEFT_FINISH_LENGTH};
    struct api_error error = {.http_status = 0};
    error_of_status(&error, WEFT_E_MESH_FULL);
    begin();
    ck_assert_int_eq(say("{\"type\":\"response.cancel\"}"), REALTIME_NOTHING);
    expect_error("response_cancel_not_active");
    say(HI);
    for (int i = 0; i < 4; i++) {
        frames.at = frames.end = 0;
        ck_assert_int_eq(say("{\"type\":\"response.create\"}"), REALTIME_ASK);
        frames.at = frames.end = 0;
        ck_assert_int_eq(say("{\"type\":\"response.create\"}"), REALTIME_NOTHING);
        expect_error("conversation_already_has_active_response");
        if (i == 0) {
            ck_assert_str_eq(status_of_end(&cut, NULL), "failed");
        } else if (i == 1) {
            ck_assert_str_eq(status_of_end(NULL, &error), "failed");
        } else if (i == 2) {
            ck_assert_str_eq(status_of_end(&length, NULL), "incomplete");
        } else {
            realtime_text(&session, "so far", 6);
            ck_assert_int_eq(say("{\"type\":\"response.cancel\"}"), REALTIME_CANCEL);
            ck_assert_str_eq(status_of_end(&gone, NULL), "cancelled");
        }
    }
    realtime_text(&session, "late", 4); /* nobody waits for it */
    json_t *body = question();
    ck_assert_uint_eq(json_array_size(json_object_get(body, "messages")), 2);
    json_decref(body);
    end();
}
END_TEST

START_TEST(refusals)
{
    static const char *const bad[][2] = {
        {"", "invalid_value"},
        {"[]", "invalid_value"},
        {"{\"type\":5}", "invalid_value"},
        {"{\"type\":\"input_audio_buffer.commit\"}", "unsupported_event"},
        {"{\"type\":\"session.update\"}", "invalid_value"},
        {"{\"type\":\"session.update\",\"session\":{\"model\":\"n\"}}", "invalid_value"},
        {"{\"type\":\"session.update\",\"session\":{\"temperature\":3}}", "invalid_value"},
        {"{\"type\":\"session.update\",\"session\":{\"max_output_tokens\":0}}", "invalid_value"},
        {"{\"type\":\"session.update\",\"session\":{\"tools\":[{}]}}", "unsupported_parameter"},
        {"{\"type\":\"session.update\",\"session\":{\"output_modalities\":[\"audio\"]}}",
         "unsupported_parameter"},
        {"{\"type\":\"conversation.item.create\"}", "unsupported_parameter"},
        {"{\"type\":\"conversation.item.create\",\"item\":{\"type\":\"message\",\"role\":\"user\","
         "\"content\":[{\"type\":\"input_audio\",\"text\":\"\"}]}}",
         "unsupported_parameter"},
        {"{\"type\":\"conversation.item.create\",\"item\":{\"type\":\"message\",\"role\":\"user\","
         "\"id\":\"a\\\"\\n\",\"content\":[{\"type\":\"text\",\"text\":\"\"}]}}",
         "invalid_value"},
        {"{\"type\":\"conversation.item.delete\",\"item_id\":\"x\"}", "item_not_found"},
        {"{\"type\":\"response.create\"}", "invalid_value"},
        {"{\"type\":\"response.create\",\"response\":5}", "invalid_value"},
    };
    begin();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(say(bad[i][0]), REALTIME_NOTHING);
        json_t *event = event_next();
        ck_assert_msg(strcmp(text_at(event, "error", "code"), bad[i][1]) == 0, "%s: %s", bad[i][0],
                      text_at(event, "error", "code"));
        json_decref(event);
    }
    end();
}
END_TEST

START_TEST(bounded)
{
    begin();
    for (unsigned i = 0; i < REALTIME_ITEMS_MAX; i++) {
        say(HI);
        expect("conversation.item.added");
    }
    say(HI);
    expect_error("conversation_full");
    ck_assert_int_eq(say("{\"type\":\"response.create\"}"), REALTIME_NOTHING);
    expect_error("invalid_value");
    say("{\"type\":\"conversation.item.delete\",\"item_id\":\"item_abc_5\"}");
    expect("conversation.item.deleted");
    ck_assert_uint_eq(session.text_bytes, 4 * (REALTIME_ITEMS_MAX - 1));
    say(HI);
    expect("conversation.item.added");
    end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_realtime");
    TCase *tc = tcase_create("realtime");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_turn);
    tcase_add_test(tc, ends);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, bounded);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
