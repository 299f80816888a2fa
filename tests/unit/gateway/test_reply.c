/* SPDX-License-Identifier: Apache-2.0 */
/* test_reply.c - reply.h: whole answers, streams event by event, failures before and after the
 * head. Events are parsed as a client would: what is told apart by strings is told apart here. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <weft/wire.h>

#include "dataplane/gateway/reply.h"
#include "tests/unit/suite.h"

#define EVENTS_MAX 64

static struct api_request request;
static struct reply reply;
static json_t *events[EVENTS_MAX]; /* of the stream; NULL = [DONE] */
static size_t event_count;
static size_t comments;

static void begin(enum api_kind kind, const char *body)
{
    struct api_error error;
    memset(&request, 0, sizeof(request));
    ck_assert(api_read(&request, kind, body, strlen(body), &error));
    ck_assert(reply_init(&reply, &request, "0123", 1700000000));
}

static void finish(void)
{
    for (size_t i = 0; i < event_count; i++) {
        json_decref(events[i]);
    }
    event_count = comments = 0;
    reply_deinit(&reply);
    api_deinit(&request);
}

static void text(uint32_t choice, const char *piece)
{
    reply_text(&reply, choice, piece, strlen(piece), NULL, 0);
}

static void done(uint32_t choice, int status, int finish_code)
{
    weft_result_t result = {.status = status,
                            .finish = finish_code,
                            .node = "frankfurt",
                            .backend = "cpu",
                            .prompt_tokens = 10,
                            .new_tokens = 3,
                            .total_us = 1000};
    reply_done(&reply, choice, &result);
}

/* Takes the stream apart at its empty lines. */
static void take_events(void)
{
    size_t len;
    char *all = buf_give(&reply.out, &len);
    char *at = all;
    while (*at != '\0') {
        char *end = strstr(at, "\n\n");
        ck_assert_ptr_nonnull(end);
        *end = '\0';
        if (strncmp(at, "event: ", 7) == 0) {
            at = strchr(at, '\n') + 1;
        }
        if (at[0] == ':') {
            comments++;
        } else {
            ck_assert_msg(strncmp(at, "data: ", 6) == 0, "%s", at);
            bool last = strcmp(at + 6, "[DONE]") == 0;
            events[event_count] = last ? NULL : json_loads(at + 6, 0, NULL);
            ck_assert_msg(last || events[event_count] != NULL, "no JSON: %s", at);
            event_count++;
        }
        at = end + 2;
    }
    free(all);
}

static const json_t *choice_of(size_t event)
{
    return json_array_get(json_object_get(events[event], "choices"), 0);
}

static const char *string_at(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

#define CHAT "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

START_TEST(a_stream)
{
    begin(API_CHAT, CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    ck_assert(!reply.head);
    text(0, "He");
    ck_assert(reply.head && !reply.ended);
    text(0, "\"y\xf0\x9f");
    text(0, "\x98");
    text(0, "\x80!");
    done(0, 0, WEFT_FINISH_STOP);
    ck_assert(reply.ended && !reply.failed);
    take_events();
    ck_assert_uint_eq(event_count, 7); /* role, 3 texts, finish, usage, [DONE] */
    const json_t *delta = json_object_get(choice_of(0), "delta");
    ck_assert_str_eq(string_at(delta, "role"), "assistant");
    static const char *const texts[] = {"He", "\"y", "\xf0\x9f\x98\x80!"};
    for (size_t i = 0; i < 3; i++) {
        delta = json_object_get(choice_of(1 + i), "delta");
        ck_assert_str_eq(string_at(delta, "content"), texts[i]);
        ck_assert(json_is_null(json_object_get(choice_of(1 + i), "finish_reason")));
        ck_assert(json_is_null(json_object_get(events[1 + i], "usage")));
        ck_assert_ptr_nonnull(json_object_get(events[1 + i], "usage"));
    }
    ck_assert_str_eq(string_at(choice_of(4), "finish_reason"), "stop");
    ck_assert_uint_eq(json_array_size(json_object_get(events[5], "choices")), 0);
    const json_t *usage = json_object_get(events[5], "usage");
    ck_assert_int_eq(json_integer_value(json_object_get(usage, "total_tokens")), 13);
    ck_assert_ptr_null(events[6]);
    ck_assert_uint_eq(comments, 1);
    for (size_t i = 0; i < 6; i++) {
        ck_assert_str_eq(string_at(events[i], "object"), "chat.completion.chunk");
        ck_assert_str_eq(string_at(events[i], "id"), "chatcmpl-0123");
    }
    finish();
}
END_TEST

START_TEST(no_usage_unless_asked)
{
    begin(API_CHAT, CHAT ",\"stream\":true}");
    text(0, "a");
    done(0, 0, WEFT_FINISH_LENGTH);
    take_events();
    ck_assert_uint_eq(event_count, 4);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_ptr_null(json_object_get(events[i], "usage"));
    }
    ck_assert_str_eq(string_at(choice_of(2), "finish_reason"), "length");
    finish();
}
END_TEST

START_TEST(an_empty_answer_is_one)
{
    begin(API_CHAT, CHAT ",\"stream\":true}");
    done(0, 0, WEFT_FINISH_STOP);
    take_events();
    ck_assert_uint_eq(event_count, 3);
    finish();
}
END_TEST

START_TEST(half_a_character_at_the_end)
{
    begin(API_CHAT, CHAT ",\"stream\":true}");
    text(0, "\xe2\x82");
    done(0, 0, WEFT_FINISH_LENGTH);
    take_events();
    ck_assert_uint_eq(event_count, 4);
    ck_assert_str_eq(string_at(json_object_get(choice_of(1), "delta"), "content"),
                     "\xef\xbf\xbd\xef\xbf\xbd");
    finish();
}
END_TEST

START_TEST(refused_is_an_http_error)
{
    begin(API_CHAT, CHAT ",\"stream\":true}");
    done(0, WEFT_E_MESH_FULL, WEFT_FINISH_REFUSED);
    ck_assert(reply.head && reply.ended && reply.failed);
    ck_assert_int_eq(reply.error.http_status, 503);
    ck_assert(reply.error.retry);
    json_t *json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    ck_assert_str_eq(string_at(json_object_get(json, "error"), "code"), "mesh_full");
    json_decref(json);
    finish();
}
END_TEST

START_TEST(cut_is_an_event_and_never_done)
{
    begin(API_CHAT, CHAT ",\"stream\":true}");
    text(0, "a");
    done(0, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED);
    text(0, "late");
    ck_assert(reply.ended && reply.failed);
    take_events();
    ck_assert_uint_eq(event_count, 3);
    ck_assert_str_eq(string_at(json_object_get(events[2], "error"), "code"), "worker_lost");
    finish();
}
END_TEST

START_TEST(several_answers)
{
    begin(API_CHAT, CHAT ",\"n\":2}");
    text(1, "b");
    text(0, "a");
    done(1, 0, WEFT_FINISH_STOP);
    ck_assert(!reply.head);
    text(0, "a");
    done(0, 0, WEFT_FINISH_LENGTH);
    ck_assert(reply.head && reply.ended);
    json_t *json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    ck_assert_ptr_nonnull(json);
    const json_t *choices = json_object_get(json, "choices");
    ck_assert_uint_eq(json_array_size(choices), 2);
    const json_t *first = json_array_get(choices, 0);
    ck_assert_str_eq(string_at(json_object_get(first, "message"), "content"), "aa");
    ck_assert_str_eq(string_at(first, "finish_reason"), "length");
    const json_t *usage = json_object_get(json, "usage");
    ck_assert_int_eq(json_integer_value(json_object_get(usage, "prompt_tokens")), 10);
    ck_assert_int_eq(json_integer_value(json_object_get(usage, "completion_tokens")), 6);
    json_decref(json);
    finish();
}
END_TEST

START_TEST(one_of_several_fails)
{
    begin(API_CHAT, CHAT ",\"n\":2}");
    text(0, "a");
    done(0, 0, WEFT_FINISH_STOP);
    done(1, WEFT_E_NO_CAPABLE_NODE, WEFT_FINISH_REFUSED);
    ck_assert(reply.failed && reply.ended);
    ck_assert_int_eq(reply.error.http_status, 422);
    ck_assert(!reply.error.retry);
    finish();
}
END_TEST

START_TEST(completions_with_echo)
{
    begin(API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"on\\nce\",\"echo\":true}");
    text(0, " upon");
    done(0, 0, WEFT_FINISH_STOP);
    json_t *json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    ck_assert_str_eq(string_at(choice, "text"), "on\nce upon");
    ck_assert_str_eq(string_at(json, "object"), "text_completion");
    json_decref(json);
    finish();
}
END_TEST

static void likely(const char *piece, const char *token)
{
    const weft_logprob_t list[2] = {{5, -0.5f, token, strlen(token)}, {6, -INFINITY, "no", 2}};
    reply_text(&reply, 0, piece, strlen(piece), list, 2);
}

/* Those of a token whose text is held back come with the text that goes out next. */
START_TEST(logprobs_of_a_stream)
{
    begin(API_CHAT, CHAT ",\"stream\":true,\"logprobs\":true,\"top_logprobs\":1}");
    likely("a", "a");
    likely("", "b"); /* may begin a stop string */
    likely("bc", "c");
    likely("\xe2", "\xe2");
    done(0, 0, WEFT_FINISH_STOP);
    take_events();
    ck_assert_uint_eq(event_count, 6);
    static const size_t counts[] = {1, 2, 1, 0};
    for (size_t i = 0; i < 4; i++) {
        const json_t *logprobs = json_object_get(choice_of(1 + i), "logprobs");
        ck_assert_uint_eq(json_array_size(json_object_get(logprobs, "content")), counts[i]);
    }
    const json_t *logprobs = json_object_get(choice_of(2), "logprobs");
    const json_t *second = json_array_get(json_object_get(logprobs, "content"), 1);
    ck_assert_str_eq(string_at(second, "token"), "c");
    ck_assert(json_real_value(json_object_get(second, "logprob")) == -0.5);
    const json_t *top = json_array_get(json_object_get(second, "top_logprobs"), 0);
    ck_assert_str_eq(string_at(top, "token"), "no");
    ck_assert_int_eq(json_integer_value(json_object_get(top, "logprob")), -9999);
    finish();
}
END_TEST

START_TEST(logprobs_of_a_completion)
{
    begin(API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"x\",\"logprobs\":1}");
    likely("\xc3\xa9", "\xc3\xa9");
    likely("b", "b");
    done(0, 0, WEFT_FINISH_STOP);
    json_t *json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    const json_t *logprobs = json_object_get(choice, "logprobs");
    ck_assert_uint_eq(json_array_size(json_object_get(logprobs, "tokens")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(logprobs, "token_logprobs")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(logprobs, "top_logprobs")), 2);
    const json_t *offsets = json_object_get(logprobs, "text_offset");
    ck_assert_int_eq(json_integer_value(json_array_get(offsets, 1)), 1);
    json_decref(json);
    finish();
}
END_TEST

static void embed(const char *format)
{
    char body[128];
    const float vectors[2][3] = {{1, -0.5f, 0.25f}, {0, 0, 1e-20f}};
    snprintf(body, sizeof(body), "{\"model\":\"m\",\"input\":[\"a\",\"b\"]%s}", format);
    begin(API_EMBEDDING, body);
    for (uint32_t i = 2; i-- > 0;) { /* in whatever order they end */
        reply_vector(&reply, i, vectors[i], 3);
        done(i, 0, WEFT_FINISH_STOP);
    }
    ck_assert(reply.head && reply.ended && !reply.failed);
}

START_TEST(embeddings)
{
    embed("");
    json_t *json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    const json_t *data = json_object_get(json, "data");
    ck_assert_uint_eq(json_array_size(data), 2);
    const json_t *vector = json_object_get(json_array_get(data, 0), "embedding");
    ck_assert_uint_eq(json_array_size(vector), 3);
    ck_assert(json_number_value(json_array_get(vector, 1)) == -0.5);
    vector = json_object_get(json_array_get(data, 1), "embedding");
    ck_assert((float)json_number_value(json_array_get(vector, 2)) == 1e-20f);
    const json_t *usage = json_object_get(json, "usage");
    ck_assert_int_eq(json_integer_value(json_object_get(usage, "prompt_tokens")), 20);
    json_decref(json);
    finish();
    embed(",\"encoding_format\":\"base64\"");
    json = json_loadb(reply.out.data, buf_len(&reply.out), 0, NULL);
    data = json_object_get(json, "data");
    /* 0000803f 000000bf 0000803e */
    ck_assert_str_eq(string_at(json_array_get(data, 0), "embedding"), "AACAPwAAAL8AAIA+");
    json_decref(json);
    finish();
}
END_TEST

START_TEST(responses_as_events)
{
    begin(API_RESPONSE,
          "{\"model\":\"m\",\"input\":\"q\",\"stream\":true,\"metadata\":{\"a\":\"b\"}}");
    text(0, "a\n");
    text(0, "b");
    done(0, 0, WEFT_FINISH_LENGTH);
    take_events();
    static const char *const types[] = {"response.created",           "response.in_progress",
                                        "response.output_item.added", "response.content_part.added",
                                        "response.output_text.delta", "response.output_text.delta",
                                        "response.output_text.done",  "response.content_part.done",
                                        "response.output_item.done",  "response.incomplete"};
    ck_assert_uint_eq(event_count, sizeof(types) / sizeof(types[0]));
    for (size_t i = 0; i < event_count; i++) {
        ck_assert_str_eq(string_at(events[i], "type"), types[i]);
        ck_assert_int_eq(json_integer_value(json_object_get(events[i], "sequence_number")),
                         (json_int_t)i);
    }
    ck_assert_str_eq(string_at(events[6], "text"), "a\nb");
    const json_t *response = json_object_get(events[9], "response");
    ck_assert_str_eq(string_at(response, "status"), "incomplete");
    ck_assert_str_eq(string_at(json_object_get(response, "metadata"), "a"), "b");
    const json_t *item = json_array_get(json_object_get(response, "output"), 0);
    ck_assert_str_eq(string_at(item, "status"), "incomplete");
    finish();
}
END_TEST

#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\","    \
    "\"function\":{\"name\":\"g\"}}]"

/* Pieces of an answer, and what is left of it: text, and names with arguments. */
static const struct {
    const char *more;
    const char *pieces[6];
    const char *text;
    const char *calls;
} talks[] = {
    {"", {"Hi ", "<tool", "> a <b"}, "Hi <tool> a <b", ""},
    {"",
     {"I ask.\n<tool_", "call>\n{\"name\":\"f\",", "\"arguments\":{\"a\":\"\xc3\xbc\"}}\n</tool_c",
      "all>"},
     "I ask.",
     "f{\"a\":\"\xc3\xbc\"} "},
    {"",
     {"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>",
      "{\"name\":\"g\",\"arguments\":{\"b\":[1]}}</tool_call>"},
     "",
     "f{} g{\"b\":[1]} "},
    {"",
     {"<tool_call>{\"name\":\"f\",\"id\":\"its own\",\"arguments\":{}}</tool_call>"},
     "",
     "f{}<its own> "},
    {"",
     {"<tool_call>{\"name\":\"f\",\"id\":\"i\",\"arguments\":{}}</tool_call><tool_call>{",
      "\"name\":\"f\",\"id\":\"i\",\"arguments\":{}}</tool_call>"},
     "",
     "f{}<i> f{} "},
    {",\"parallel_tool_calls\":false",
     {"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>",
      "{\"name\":\"g\",\"arguments\":{\"b\":[1]}}</tool_call>"},
     "",
     "f{} "},
    {"",
     {"<tool_call>{\"name\":\"h\",\"arguments\":{}}</tool_call>"},
     "<tool_call>{\"name\":\"h\",\"arguments\":{}}</tool_call>",
     ""},
    {"",
     {"<tool_call>", "{\"name\":\"f\",\"arguments\":"},
     "<tool_call>{\"name\":\"f\",\"arguments\":",
     ""},
    {"", {"<tool_call>", "{\"name\":\"f\",\"arguments\":{}}\n"}, "", "f{} "},
    {"", {"I ask. <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"}, "I ask.", "f{} "},
    {"",
     {"<tool_call>?</tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"},
     "<tool_call>?</tool_call>",
     "f{} "},
    {"", {" {\"name\":", "\"f\",\"parameters\":{\"x\":1}}"}, "", "f{\"x\":1} "},
    {"", {"{\"name\":\"f\",\"arguments\":{\"x\":48.85}}"}, "", "f{\"x\":48.85} "},
    {"", {"{\"name\":", "\"Bob\"}"}, "{\"name\":\"Bob\"}", ""},
    {",\"tool_choice\":\"required\"", {"{\"name\": \"g\", ", "\"arguments\": {}}"}, "", "g{} "},
};

/* With its id, if that is not one of the gateway's. */
static void add_id(char *out, const char *id)
{
    if (id[0] != '\0' && strncmp(id, "call_", 5) != 0) {
        strcat(strcat(strcat(out, "<"), id), ">");
    }
}

static void add_call(char *out, const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    strcat(out, string_at(function, "name"));
    strcat(out, string_at(function, "arguments"));
}

START_TEST(calls_of_tools)
{
    char body[1024];
    char got[512] = "";
    char said[512] = "";
    char id[WEFT_CALL_ID_MAX + 1] = "";
    for (int stream = 0; stream < 2; stream++) {
        snprintf(body, sizeof(body), CHAT TOOLS "%s,\"stream\":%s}", talks[_i].more,
                 stream ? "true" : "false");
        begin(API_CHAT, body);
        for (size_t i = 0; i < 6 && talks[_i].pieces[i] != NULL; i++) {
            text(0, talks[_i].pieces[i]);
        }
        done(0, 0, WEFT_FINISH_STOP);
        got[0] = said[0] = '\0';
        const json_t *choice = NULL;
        if (stream) {
            take_events();
            const json_t *first = json_object_get(choice_of(0), "delta");
            ck_assert(json_is_null(json_object_get(first, "content")) ==
                      (talks[_i].text[0] == '\0'));
            for (size_t i = 0; i + 1 < event_count; i++) {
                choice = choice_of(i);
                const json_t *delta = json_object_get(choice, "delta");
                const json_t *call = json_array_get(json_object_get(delta, "tool_calls"), 0);
                strcat(said, string_at(delta, "content"));
                ck_assert((string_at(call, "id")[0] != '\0') ==
                          (string_at(json_object_get(call, "function"), "name")[0] != '\0'));
                add_call(got, call);
                if (string_at(call, "id")[0] != '\0') {
                    strcpy(id, string_at(call, "id"));
                }
                if (call != NULL && string_at(call, "id")[0] == '\0') {
                    add_id(got, id);
                    strcat(got, " ");
                }
            }
        } else {
            size_t len;
            char *all = buf_give(&reply.out, &len);
            events[event_count++] = json_loads(all, 0, NULL);
            free(all);
            choice = choice_of(0);
            const json_t *message = json_object_get(choice, "message");
            const json_t *list = json_object_get(message, "tool_calls");
            strcat(said, string_at(message, "content"));
            ck_assert(json_is_null(json_object_get(message, "content")) ==
                      (list != NULL && said[0] == '\0'));
            for (size_t i = 0; i < json_array_size(list); i++) {
                add_call(got, json_array_get(list, i));
                add_id(got, string_at(json_array_get(list, i), "id"));
                strcat(got, " ");
            }
        }
        ck_assert_str_eq(said, talks[_i].text);
        ck_assert_str_eq(got, talks[_i].calls);
        ck_assert_str_eq(string_at(choice, "finish_reason"),
                         got[0] != '\0' ? "tool_calls" : "stop");
        finish();
    }
}
END_TEST

/* A call that never ends, and space that never does, token by token: each byte is looked at once.
 * Looked at anew with each token, they would take 50 s of computing. */
START_TEST(endless_calls)
{
    static const char *const beginnings[] = {"<tool_call>", ""};
    const clock_t start = clock();
    for (size_t i = 0; i < 2; i++) {
        begin(API_CHAT, CHAT TOOLS "}");
        text(0, beginnings[i]);
        for (size_t at = 0; at < 384 << 10; at += 4) {
            text(0, i == 0 ? "\"a\"," : "    ");
        }
        done(0, 0, WEFT_FINISH_LENGTH);
        finish();
    }
    ck_assert_double_lt((double)(clock() - start) / CLOCKS_PER_SEC, 8.0);
}
END_TEST

#define FLAT_TOOLS                                                                                 \
    ",\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"function\",\"name\":\"g\"}]"

/* What an item of the output says goes behind what is there. */
static void add_item(const json_t *item, char *said, char *got)
{
    if (strcmp(string_at(item, "type"), "function_call") == 0) {
        ck_assert_str_ne(string_at(item, "call_id"), "");
        strcat(strcat(got, string_at(item, "name")), string_at(item, "arguments"));
        add_id(got, string_at(item, "call_id"));
        strcat(got, " ");
    } else {
        const json_t *part = json_array_get(json_object_get(item, "content"), 0);
        strcat(said, string_at(part, "text"));
    }
}

/* Each event is about an item that has begun and not ended; what is added up is what is told at the
 * end. Returns the response. */
static const json_t *items_of_events(char *said, char *got)
{
    const json_t *response = NULL;
    bool open[8] = {false};
    for (size_t i = 0; i < event_count; i++) {
        const char *type = string_at(events[i], "type");
        const json_t *place = json_object_get(events[i], "output_index");
        const size_t at = (size_t)json_integer_value(place);
        ck_assert_uint_lt(at, 8);
        ck_assert(place == NULL || open[at] == (strstr(type, "item.added") == NULL));
        if (strcmp(type, "response.output_item.added") == 0) {
            open[at] = true;
        } else if (strcmp(type, "response.output_item.done") == 0) {
            open[at] = false;
        } else if (strcmp(type, "response.output_text.delta") == 0) {
            strcat(said, string_at(events[i], "delta"));
        } else if (strcmp(type, "response.function_call_arguments.done") == 0) {
            ck_assert_str_eq(string_at(events[i - 1], "delta"), string_at(events[i], "arguments"));
            add_item(json_object_get(events[i + 1], "item"), said, got);
        }
        response = json_object_get(events[i], "response");
    }
    return response;
}

START_TEST(calls_in_responses)
{
    char body[1024];
    for (int stream = 0; stream < 2; stream++) {
        char said[512] = "", got[512] = "", all_said[512] = "", all_got[512] = "";
        snprintf(body, sizeof(body),
                 "{\"model\":\"m\",\"input\":\"q\"" FLAT_TOOLS "%s,\"stream\":%s}", talks[_i].more,
                 stream ? "true" : "false");
        begin(API_RESPONSE, body);
        for (size_t i = 0; i < 6 && talks[_i].pieces[i] != NULL; i++) {
            text(0, talks[_i].pieces[i]);
        }
        done(0, 0, WEFT_FINISH_STOP);
        const json_t *response;
        if (stream) {
            take_events();
            response = items_of_events(said, got);
        } else {
            size_t len;
            char *all = buf_give(&reply.out, &len);
            response = events[event_count++] = json_loads(all, 0, NULL);
            free(all);
        }
        const json_t *output = json_object_get(response, "output");
        for (size_t i = 0; i < json_array_size(output); i++) {
            add_item(json_array_get(output, i), all_said, all_got);
        }
        ck_assert_str_eq(all_said, talks[_i].text);
        ck_assert_str_eq(all_got, talks[_i].calls);
        ck_assert(!stream || strcmp(said, all_said) == 0);
        ck_assert(!stream || strcmp(got, all_got) == 0);
        ck_assert_uint_eq(json_array_size(json_object_get(response, "tools")), 2);
        ck_assert_str_eq(string_at(response, "status"), "completed");
        finish();
    }
}
END_TEST

START_TEST(who_served_and_how_long)
{
    char text[256];
    const weft_result_t result = {.node = "tok\nyo",
                                  .tier = 2,
                                  .backend = "cpu",
                                  .total_us = 12349,
                                  .net_us = 49,
                                  .queue_us = 50,
                                  .prefill_us = 9949,
                                  .decode_us = 9950,
                                  .new_tokens = 7};
    reply_served(&result, text, sizeof(text));
    ck_assert_str_eq(text, "served by tok?yo (tier 2, cpu) in 12.3 ms: net 0.0, queue 0.1, "
                           "prefill 9.9, decode 10.0; 7 tokens");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_reply");
    TCase *tc = tcase_create("reply");
    tcase_add_test(tc, a_stream);
    tcase_add_loop_test(tc, calls_of_tools, 0, sizeof(talks) / sizeof(talks[0]));
    tcase_add_loop_test(tc, calls_in_responses, 0, sizeof(talks) / sizeof(talks[0]));
    tcase_add_test(tc, no_usage_unless_asked);
    tcase_add_test(tc, an_empty_answer_is_one);
    tcase_add_test(tc, half_a_character_at_the_end);
    tcase_add_test(tc, refused_is_an_http_error);
    tcase_add_test(tc, cut_is_an_event_and_never_done);
    tcase_add_test(tc, several_answers);
    tcase_add_test(tc, one_of_several_fails);
    tcase_add_test(tc, completions_with_echo);
    tcase_add_test(tc, logprobs_of_a_stream);
    tcase_add_test(tc, logprobs_of_a_completion);
    tcase_add_test(tc, who_served_and_how_long);
    tcase_add_test(tc, embeddings);
    tcase_add_test(tc, responses_as_events);
    suite_add_tcase(suite, tc);
    TCase *hostile = tcase_create("hostile models");
    tcase_set_timeout(hostile, 120);
    tcase_add_test(hostile, endless_calls);
    suite_add_tcase(suite, hostile);
    return suite_main(suite);
}
