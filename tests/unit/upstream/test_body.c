/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs as JSON, read back by a JSON parser. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "kernels/upstream/body.h"
#include "tests/unit/suite.h"

static const weft_job_part_t chat[] = {
    {WEFT_ROLE_SYSTEM, "Be \"brief\".", 11},
    {WEFT_ROLE_USER, "Gr\xc3\xbc\xc3\x9f\x65\n", 8},
};
static const weft_job_part_t text[] = {{0, "Once", 4}};
static const uint32_t ids[] = {1, 49151};

static weft_job_view_t view_of(const weft_job_part_t *parts, size_t count)
{
    return (weft_job_view_t){.parts = parts, .part_count = count, .max_tokens = 20, .top_p = 1.0f};
}

/* Writes, reads back, and holds that no status was told. */
static json_t *written(const weft_job_view_t *view, enum body_resume resume, const char *given)
{
    const struct body_options options = {"m", resume};
    int status = 0;
    char *body = body_write(&options, view, given, given ? strlen(given) : 0, 15, &status);
    ck_assert_ptr_nonnull(body);
    json_t *root = json_loads(body, 0, NULL);
    ck_assert_ptr_nonnull(root);
    free(body);
    return root;
}

static int refused(const weft_job_view_t *view, const char *given)
{
    const struct body_options options = {"m", BODY_RESUME_NONE};
    int status = 0;
    char *body = body_write(&options, view, given, given ? strlen(given) : 0, 15, &status);
    ck_assert_ptr_null(body);
    return status;
}

START_TEST(of_chats)
{
    weft_job_view_t view = view_of(chat, 2);
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    json_t *wanted = json_loads("{\"model\":\"m\",\"stream\":true,\"stream_options\":"
                                "{\"include_usage\":true},\"messages\":[{\"role\":\"system\","
                                "\"content\":\"Be \\\"brief\\\".\"},{\"role\":\"user\","
                                "\"content\":\"Gr\\u00fc\\u00dfe\\n\"}],\"max_tokens\":15,"
                                "\"temperature\":0.0}",
                                0, NULL);
    ck_assert(json_equal(got, wanted));
    ck_assert(body_is_chat(&view));
    json_decref(got);
    json_decref(wanted);
}
END_TEST

/* Written piece by piece; wherever a piece ends, no character is cut. */
START_TEST(long_texts)
{
    enum { LEN = 100000 };
    char *long_text = malloc(LEN + 8);
    for (size_t lead = 0; lead < 4; lead++) {
        size_t len = 0;
        for (; len < lead; len++)
            long_text[len] = '"';
        for (; len < LEN; len += 4)
            memcpy(long_text + len, "\xf0\x9f\x98\x80", 4);
        const weft_job_part_t parts[] = {{WEFT_ROLE_USER, long_text, len}};
        weft_job_view_t view = view_of(parts, 1);
        json_t *got = written(&view, BODY_RESUME_NONE, NULL);
        json_t *text_got =
            json_object_get(json_array_get(json_object_get(got, "messages"), 0), "content");
        ck_assert_uint_eq(json_string_length(text_got), len);
        ck_assert_int_eq(memcmp(json_string_value(text_got), long_text, len), 0);
        json_decref(got);
        const weft_job_part_t cut[] = {{WEFT_ROLE_USER, long_text, len - 1}};
        view = view_of(cut, 1);
        ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
    }
    free(long_text);
}
END_TEST

/* A character that begins in the prompt and ends in what was given. */
START_TEST(going_on_within_a_character)
{
    const weft_job_part_t half[] = {{0, "Gr\xc3", 3}};
    weft_job_view_t view = view_of(half, 1);
    json_t *got = written(&view, BODY_RESUME_NONE, "\xbc\xc3\x9f");
    ck_assert_str_eq(json_string_value(json_object_get(got, "prompt")), "Gr\xc3\xbc\xc3\x9f");
    json_decref(got);
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
}
END_TEST

START_TEST(sampling)
{
    weft_job_view_t view = view_of(text, 1);
    view.temperature = 0.7f;
    view.top_p = 0.9f;
    view.min_p = 0.05f;
    view.top_k = 40;
    view.seed = UINT64_MAX; /* the API's are signed */
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    json_t *wanted = json_loads("{\"model\":\"m\",\"stream\":true,\"stream_options\":"
                                "{\"include_usage\":true},\"prompt\":\"Once\",\"max_tokens\":15,"
                                "\"temperature\":0.7,\"top_p\":0.9,\"min_p\":0.05,\"top_k\":40,"
                                "\"seed\":9223372036854775807}",
                                0, NULL);
    ck_assert(json_equal(got, wanted));
    ck_assert(!body_is_chat(&view));
    json_decref(got);
    json_decref(wanted);
}
END_TEST

/* Floats are floats, whatever their value; what is none is the job's mistake. */
START_TEST(numbers)
{
    static const float values[] = {1.0f, 2e-7f, 1e10f, 0.7f, 1234567.0f};
    weft_job_view_t view = view_of(text, 1);
    view.top_k = 40;
    view.seed = UINT64_MAX;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        view.temperature = values[i];
        json_t *got = written(&view, BODY_RESUME_NONE, NULL);
        const json_t *temperature = json_object_get(got, "temperature");
        ck_assert(json_is_real(temperature));
        ck_assert_float_eq((float)json_real_value(temperature), values[i]);
        ck_assert_int_eq(json_integer_value(json_object_get(got, "top_k")), 40);
        ck_assert_int_eq(json_integer_value(json_object_get(got, "seed")), INT64_MAX);
        ck_assert_int_eq(json_integer_value(json_object_get(got, "max_tokens")), 15);
        json_decref(got);
    }
    view.temperature = INFINITY;
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
}
END_TEST

START_TEST(stops_and_switches)
{
    const weft_job_part_t stops[] = {{0, "END", 3}, {0, "\xff", 1}, {0, "\n", 1},
                                     {0, "4", 1},   {0, "5", 1},    {0, "6", 1}};
    weft_job_view_t view = view_of(chat, 2);
    view.stops = stops;
    view.stop_count = 6;
    view.repetition_penalty = 1.1f;
    view.presence_penalty = -0.5f;
    view.frequency_penalty = 0.25f;
    view.no_thinking = 1;
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    ck_assert_double_eq(json_real_value(json_object_get(got, "repetition_penalty")), 1.1);
    ck_assert_double_eq(json_real_value(json_object_get(got, "presence_penalty")), -0.5);
    ck_assert_double_eq(json_real_value(json_object_get(got, "frequency_penalty")), 0.25);
    json_t *wanted = json_loads("[[\"END\",\"\\n\",\"4\"],{\"enable_thinking\":false}]", 0, NULL);
    ck_assert(json_equal(json_object_get(got, "stop"), json_array_get(wanted, 0)));
    ck_assert(json_equal(json_object_get(got, "chat_template_kwargs"), json_array_get(wanted, 1)));
    json_decref(wanted);
    json_decref(got);
    view = view_of(chat, 2); /* at its defaults nothing of that is said */
    view.repetition_penalty = 1.0f;
    got = written(&view, BODY_RESUME_NONE, NULL);
    ck_assert_uint_eq(json_object_size(got), 6);
    json_decref(got);
}
END_TEST

START_TEST(going_on)
{
    weft_job_view_t view = view_of(text, 1);
    json_t *got = written(&view, BODY_RESUME_NONE, " upon");
    ck_assert_str_eq(json_string_value(json_object_get(got, "prompt")), "Once upon");
    json_decref(got);

    view = view_of(chat, 2);
    ck_assert_int_eq(refused(&view, "Hel"), WEFT_E_NO_CAPABLE_NODE);
    for (int vllm = 0; vllm < 2; vllm++) {
        got = written(&view, vllm ? BODY_RESUME_VLLM : BODY_RESUME_PREFILL, "Hel");
        json_t *messages = json_object_get(got, "messages");
        ck_assert_uint_eq(json_array_size(messages), 3);
        json_t *last = json_array_get(messages, 2);
        ck_assert_str_eq(json_string_value(json_object_get(last, "role")), "assistant");
        ck_assert_str_eq(json_string_value(json_object_get(last, "content")), "Hel");
        ck_assert_int_eq(json_is_true(json_object_get(got, "continue_final_message")), vllm);
        ck_assert_int_eq(json_is_false(json_object_get(got, "add_generation_prompt")), vllm);
        json_decref(got);
    }
    /* Nothing given yet: an ordinary question. */
    got = written(&view, BODY_RESUME_VLLM, "");
    ck_assert_uint_eq(json_array_size(json_object_get(got, "messages")), 2);
    ck_assert_ptr_null(json_object_get(got, "continue_final_message"));
    json_decref(got);
}
END_TEST

static weft_job_part_t part_of(uint32_t role, const char *part_text)
{
    return (weft_job_part_t){role, part_text, strlen(part_text)};
}

START_TEST(tools)
{
    const weft_job_part_t parts[] = {
        part_of(WEFT_ROLE_TOOLS, "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"),
        part_of(WEFT_ROLE_USER, "q"),
        part_of(WEFT_ROLE_CALLS,
                "{\"content\":\"\",\"calls\":[{\"name\":\"f\",\"arguments\":{\"a\":"
                "1}},{\"name\":\"g\",\"arguments\":{}}]}"),
        part_of(WEFT_ROLE_TOOL, "one"),
        part_of(WEFT_ROLE_TOOL, "two"),
        part_of(WEFT_ROLE_CALLS,
                "{\"content\":\"c\",\"calls\":[{\"name\":\"f\",\"arguments\":{}}]}"),
        part_of(WEFT_ROLE_TOOL, "three"),
    };
    weft_job_view_t view = view_of(parts, sizeof(parts) / sizeof(parts[0]));
    view.format = WEFT_FORMAT_CALL;
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    json_t *wanted = json_loads(
        "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":"
        "\"required\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
        "\"content\":\"\",\"tool_calls\":[{\"id\":\"call_0\",\"type\":\"function\",\"function\":{"
        "\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"call_1\",\"type\":\"function\","
        "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":"
        "\"call_0\",\"content\":\"one\"},{\"role\":\"tool\",\"tool_call_id\":\"call_1\","
        "\"content\":"
        "\"two\"},{\"role\":\"assistant\",\"content\":\"c\",\"tool_calls\":[{\"id\":\"call_2\","
        "\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
        "\"tool_call_id\":\"call_2\",\"content\":\"three\"}]}",
        0, NULL);
    const char *key;
    json_t *value;
    ck_assert_ptr_nonnull(wanted);
    json_object_foreach(wanted, key, value)
    {
        ck_assert_msg(json_equal(json_object_get(got, key), value), "%s", key);
    }
    ck_assert(body_has_tools(&view));
    ck_assert_ptr_null(json_object_get(got, "response_format"));
    json_decref(got);
    json_decref(wanted);
    view.format_text = "f";
    view.format_len = 1;
    got = written(&view, BODY_RESUME_NONE, NULL);
    const json_t *function = json_object_get(json_object_get(got, "tool_choice"), "function");
    ck_assert_str_eq(json_string_value(json_object_get(function, "name")), "f");
    json_decref(got);
    view.format = WEFT_FORMAT_NONE;
    got = written(&view, BODY_RESUME_NONE, NULL);
    ck_assert_ptr_null(json_object_get(got, "tool_choice"));
    json_decref(got);
}
END_TEST

/* Ids go as they came; a call without a result waits for none, and a result's name goes with it. */
START_TEST(ids_of_calls)
{
    const weft_job_part_t parts[] = {
        part_of(WEFT_ROLE_TOOLS, "[]"),
        part_of(WEFT_ROLE_CALLS,
                "{\"content\":\"\",\"calls\":[{\"name\":\"f\",\"arguments\":{},\"id\":\"x\","
                "\"result\":false},{\"name\":\"f\",\"arguments\":{},\"id\":\"y\",\"result\":\"n\"},"
                "{\"name\":\"f\",\"arguments\":{}},{\"name\":\"f\",\"arguments\":{},\"id\":"
                "\"z\"}]}"),
        part_of(WEFT_ROLE_TOOL, "of y"),
        part_of(WEFT_ROLE_TOOL, "of number 2"),
        part_of(WEFT_ROLE_TOOL, "of z"),
        part_of(WEFT_ROLE_TOOL, "of nobody"),
    };
    static const char *const answered[] = {"y", "call_2", "z", "call_4"};
    weft_job_view_t view = view_of(parts, sizeof(parts) / sizeof(parts[0]));
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    const json_t *messages = json_object_get(got, "messages");
    ck_assert_uint_eq(json_array_size(messages), 5);
    const json_t *calls = json_object_get(json_array_get(messages, 0), "tool_calls");
    static const char *const called[] = {"x", "y", "call_2", "z"};
    for (size_t i = 0; i < 4; i++) {
        const json_t *call = json_array_get(calls, i), *message = json_array_get(messages, i + 1);
        ck_assert_str_eq(json_string_value(json_object_get(call, "id")), called[i]);
        ck_assert_str_eq(json_string_value(json_object_get(message, "tool_call_id")), answered[i]);
        ck_assert((json_object_get(message, "name") != NULL) == (i == 0));
    }
    json_decref(got);
}
END_TEST

START_TEST(tools_that_are_none)
{
    static const struct {
        uint32_t role;
        const char *text;
    } bad[] = {{WEFT_ROLE_TOOLS, "{}"},
               {WEFT_ROLE_TOOLS, "nonsense"},
               {WEFT_ROLE_CALLS, "{}"},
               {WEFT_ROLE_CALLS, "{\"content\":\"\",\"calls\":[5]}"},
               {WEFT_ROLE_TOOL, "\xff"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const weft_job_part_t parts[] = {part_of(bad[i].role, bad[i].text),
                                         part_of(WEFT_ROLE_USER, "q")};
        const weft_job_view_t view = view_of(parts, 2);
        ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
    }
}
END_TEST

START_TEST(token_ids)
{
    const weft_job_view_t view = {.tokens = ids, .token_count = 2, .max_tokens = 9, .top_p = 1};
    json_t *got = written(&view, BODY_RESUME_NONE, NULL);
    json_t *prompt = json_object_get(got, "prompt");
    ck_assert_uint_eq(json_array_size(prompt), 2);
    ck_assert_int_eq(json_integer_value(json_array_get(prompt, 1)), 49151);
    json_decref(got);
}
END_TEST

START_TEST(no_utf8)
{
    const weft_job_part_t bad[] = {{WEFT_ROLE_USER, "a\xff", 2}};
    const weft_job_part_t half[] = {{0, "a\xc3", 2}};
    const weft_job_part_t nobody[] = {{99, "a", 1}};
    weft_job_view_t view = view_of(bad, 1);
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
    view = view_of(half, 1);
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
    view = view_of(nobody, 1);
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
    view = view_of(NULL, 0);
    ck_assert_int_eq(refused(&view, NULL), WEFT_E_BAD_REQUEST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_body");
    TCase *tests = tcase_create("body");
    tcase_add_test(tests, of_chats);
    tcase_add_test(tests, long_texts);
    tcase_add_test(tests, going_on_within_a_character);
    tcase_add_test(tests, sampling);
    tcase_add_test(tests, numbers);
    tcase_add_test(tests, stops_and_switches);
    tcase_add_test(tests, going_on);
    tcase_add_test(tests, tools);
    tcase_add_test(tests, ids_of_calls);
    tcase_add_test(tests, tools_that_are_none);
    tcase_add_test(tests, token_ids);
    tcase_add_test(tests, no_utf8);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
