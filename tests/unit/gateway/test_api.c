/* SPDX-License-Identifier: Apache-2.0 */
/* test_api.c - api.h: bodies and headers of requests, those that are right and those that are not.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "tests/unit/suite.h"

static struct api_request r;
static struct api_error error;

static bool read_as(enum api_kind kind, const char *body)
{
    api_deinit(&r);
    memset(&error, 0, sizeof(error));
    return api_read(&r, kind, body, strlen(body), &error);
}

#define CHAT_HEAD "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void finish(void)
{
    api_deinit(&r);
}

START_TEST(a_chat)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD
                      ",\"max_tokens\":7,\"temperature\":0.5,\"top_p\":0,\"seed\":-3,\"n\":2,"
                      "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                      "\"nobody_knows_this\":[1]}"));
    ck_assert_str_eq(r.query.model, "m");
    ck_assert_uint_eq(r.message_count, 1);
    ck_assert_str_eq(r.messages[0].role, "user");
    ck_assert_uint_eq(r.messages[0].len, 2);
    ck_assert_uint_eq(r.query.max_tokens, 7);
    ck_assert(r.query.temperature == 0.5f);
    ck_assert(r.query.top_p > 0.0f && r.query.top_p < 0.01f);
    ck_assert_uint_eq(r.query.seed, (uint64_t)-3);
    ck_assert(r.has_seed && r.stream && r.include_usage);
    ck_assert_uint_eq(r.n, 2);
    weft_query_t second = api_query(&r, 1);
    ck_assert_uint_eq(second.seed, (uint64_t)-2);
    ck_assert_ptr_eq(second.messages, r.messages);
    finish();
}
END_TEST

START_TEST(sampling)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD
                      ",\"stop\":[\"a\",\"bc\"],\"presence_penalty\":-1,\"logprobs\":true,"
                      "\"frequency_penalty\":0.5,\"top_logprobs\":3,"
                      "\"chat_template_kwargs\":{\"enable_thinking\":false}}"));
    ck_assert_uint_eq(r.query.stop_count, 2);
    ck_assert_str_eq(r.query.stop[1], "bc");
    ck_assert(r.query.presence_penalty == -1.0f && r.query.frequency_penalty == 0.5f);
    ck_assert(r.logprobs && r.query.no_thinking);
    ck_assert_uint_eq(r.query.logprobs, 4);
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"stop\":\"x\",\"logprobs\":true}"));
    ck_assert_uint_eq(r.query.logprobs, 1);
    ck_assert_uint_eq(r.query.stop_count, 1);
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"stop\":null,\"logprobs\":false}"));
    ck_assert(r.query.logprobs == 0 && r.query.stop_count == 0 && !r.query.no_thinking);
    ck_assert(read_as(API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"x\",\"logprobs\":0}"));
    ck_assert_uint_eq(r.query.logprobs, 1);
    finish();
}
END_TEST

START_TEST(defaults)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"temperature\":null,\"n\":null,\"stream\":null}"));
    ck_assert(r.query.temperature == 1.0f);
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"top_k\":40}"));
    ck_assert_uint_eq(r.query.top_k, 40);
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"top_k\":-1}")); /* off, as others have it */
    ck_assert_uint_eq(r.query.top_k, 0);
    ck_assert_uint_eq(r.n, 1);
    ck_assert(!r.stream && !r.has_seed && !r.include_usage);
    ck_assert_uint_eq(r.query.max_tokens, 0);
    finish();
}
END_TEST

START_TEST(parts_and_roles)
{
    ck_assert(read_as(API_CHAT,
                      "{\"model\":\"m\",\"messages\":["
                      "{\"role\":\"developer\",\"content\":\"be\"},"
                      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\u0000\"},"
                      "{\"type\":\"text\",\"text\":\"b\"}]},"
                      "{\"role\":\"assistant\",\"content\":null},"
                      "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"},"
                      "{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\","
                      "\"refusal\":\"not that\"}]}]}"));
    ck_assert_uint_eq(r.message_count, 5);
    ck_assert_str_eq(r.messages[0].role, "system");
    ck_assert_uint_eq(r.messages[1].len, 3);
    ck_assert_mem_eq(r.messages[1].text, "a\0b", 3);
    ck_assert_uint_eq(r.messages[2].len, 0);
    ck_assert_uint_eq(r.messages[3].len, 2);
    ck_assert_mem_eq(r.messages[4].text, "not that", 8);
    finish();
}
END_TEST

START_TEST(completions)
{
    ck_assert(read_as(API_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"x\",\"yy\"],\"n\":3}"));
    ck_assert_uint_eq(r.prompt_count, 2);
    ck_assert(api_check(&r, &error));
    ck_assert_uint_eq(api_query(&r, 2).text_len, 1);
    ck_assert_uint_eq(api_query(&r, 3).text_len, 2);
    ck_assert_uint_eq(api_query(&r, 3).seed, r.query.seed);
    ck_assert(read_as(API_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"x\",\"yy\"],\"n\":9}"));
    ck_assert(!api_check(&r, &error));
    ck_assert(read_as(API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"x\",\"n\":2,\"best_of\":2}"));
    finish();
}
END_TEST

/* What would be answered in another way than was asked for. */
START_TEST(completions_refused)
{
    static const struct {
        const char *more;
        const char *param;
    } asked[] = {
        {"\"prompt\":\"\"", "prompt"},
        {"\"prompt\":[\"a\",\"\"]", "prompt"},
        {"\"prompt\":[1,2]", "prompt"},
        {"\"prompt\":\"x\",\"best_of\":3", "best_of"},
        {"\"prompt\":\"x\",\"best_of\":3,\"n\":2", "best_of"},
        {"\"prompt\":\"x\",\"echo\":true,\"logprobs\":1", "echo"},
        {"\"prompt\":\"x\",\"suffix\":\"y\"", "suffix"},
    };
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        char body[256];
        snprintf(body, sizeof(body), "{\"model\":\"m\",%s}", asked[i].more);
        ck_assert_msg(!read_as(API_COMPLETION, body), "taken: %s", body);
        ck_assert_str_eq(error.param, asked[i].param);
        finish();
    }
    ck_assert(!read_as(API_EMBEDDING, "{\"model\":\"m\",\"input\":\"\"}"));
    ck_assert_str_eq(error.param, "input");
    finish();
}
END_TEST

START_TEST(embeddings)
{
    ck_assert(read_as(API_EMBEDDING, "{\"model\":\"m\",\"input\":\"q\",\"stream\":true}"));
    ck_assert(api_check(&r, &error));
    ck_assert_uint_eq(r.prompt_count, 1);
    ck_assert(r.query.embed == WEFT_EMBED_MEAN && !r.base64 && !r.stream);
    ck_assert(read_as(API_EMBEDDING,
                      "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"pooling\":\"last\","
                      "\"encoding_format\":\"base64\"}"));
    ck_assert(r.query.embed == WEFT_EMBED_LAST && r.base64);
    ck_assert_mem_eq(api_query(&r, 1).text, "b", 1);
    char body[32768] = "{\"model\":\"m\",\"input\":[\"x\"";
    for (uint32_t i = 1; i < API_INPUTS_MAX; i++) {
        strcat(body, ",\"x\"");
    }
    size_t len = strlen(body);
    strcpy(body + len, "]}");
    ck_assert(read_as(API_EMBEDDING, body));
    ck_assert(api_check(&r, &error));
    ck_assert_uint_eq(r.prompt_count, API_INPUTS_MAX);
    strcpy(body + len, ",\"x\"]}");
    ck_assert(!read_as(API_EMBEDDING, body));
    static const char *const bad[] = {
        "{\"model\":\"m\"}", "{\"model\":\"m\",\"input\":[]}", "{\"model\":\"m\",\"input\":[1,2]}",
        "{\"model\":\"m\",\"input\":\"q\",\"dimensions\":5}",
        "{\"model\":\"m\",\"input\":\"q\",\"encoding_format\":\"int8\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!read_as(API_EMBEDDING, bad[i]), "%s", bad[i]);
    }
    finish();
}
END_TEST

START_TEST(responses)
{
    ck_assert(read_as(API_RESPONSE, "{\"model\":\"m\",\"input\":\"q\",\"instructions\":\"be\","
                                    "\"max_output_tokens\":9}"));
    ck_assert_uint_eq(r.message_count, 2);
    ck_assert_str_eq(r.messages[0].role, "system");
    ck_assert_str_eq(r.messages[1].text, "q");
    ck_assert_uint_eq(r.query.max_tokens, 9);
    ck_assert(read_as(API_RESPONSE, "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":"
                                    "[{\"type\":\"input_text\",\"text\":\"q\"}]}]}"));
    ck_assert_str_eq(r.messages[0].text, "q");
    finish();
}
END_TEST

static const struct {
    const char *body;
    const char *param; /* "" = none */
} wrong[] = {
    {"", ""},
    {"nonsense", ""},
    {"[]", ""},
    {"{}", "model"},
    {"{\"model\":5}", "model"},
    {"{\"model\":\"\"}", "model"},
    {"{\"model\":\"a\\u0000b\",\"messages\":[]}", "model"},
    {"{\"model\":\"m\"}", "messages"},
    {"{\"model\":\"m\",\"messages\":[]}", "messages"},
    {"{\"model\":\"m\",\"messages\":[5]}", "messages"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"function\",\"content\":\"x\"}]}", "messages"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
     "messages"},
    {CHAT_HEAD ",\"max_tokens\":0}", "max_tokens"},
    {CHAT_HEAD ",\"max_tokens\":1.5}", "max_tokens"},
    {CHAT_HEAD ",\"max_tokens\":-1}", "max_tokens"},
    {CHAT_HEAD ",\"max_tokens\":4294967296}", "max_tokens"},
    {CHAT_HEAD ",\"temperature\":2.5}", "temperature"},
    {CHAT_HEAD ",\"temperature\":\"hot\"}", "temperature"},
    {CHAT_HEAD ",\"top_p\":1.01}", "top_p"},
    {CHAT_HEAD ",\"top_k\":-2}", "top_k"},
    {CHAT_HEAD ",\"n\":17}", "n"},
    {CHAT_HEAD ",\"seed\":1.5}", "seed"},
    {CHAT_HEAD ",\"stream\":1}", "stream"},
    {CHAT_HEAD ",\"stream_options\":[]}", "stream_options"},
    {CHAT_HEAD ",\"tools\":[{}]}", "tools"},
    {CHAT_HEAD ",\"tools\":{}}", "tools"},
    {CHAT_HEAD ",\"tool_choice\":\"required\"}", "tool_choice"},
    {CHAT_HEAD
     ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":{"
     "\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
     "tool_choice"},
    {CHAT_HEAD
     ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"response_format\":{"
     "\"type\":\"json_object\"}}",
     "response_format"},
    {CHAT_HEAD ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format"},
    {CHAT_HEAD ",\"response_format\":{\"type\":\"xml\"}}", "response_format"},
    {CHAT_HEAD ",\"stop\":[\"\"]}", "stop"},
    {CHAT_HEAD ",\"stop\":5}", "stop"},
    {CHAT_HEAD ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"0\",\"1\","
               "\"2\",\"3\",\"4\",\"5\",\"6\",\"7\"]}",
     "stop"},
    {CHAT_HEAD ",\"top_logprobs\":2}", "top_logprobs"},
    {CHAT_HEAD ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs"},
    {CHAT_HEAD ",\"presence_penalty\":2.1}", "presence_penalty"},
    {CHAT_HEAD ",\"logit_bias\":{\"5\":1}}", "logit_bias"},
    {CHAT_HEAD ",\"weft\":5}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"tiers\":5}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"tier\":8}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"tier\":[5,4]}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"tags\":[\"atlantis\"]}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"near\":[91,0]}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"radius_km\":0}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"radius_km\":1.5}}", "weft"},
    {CHAT_HEAD ",\"weft\":{\"hedge\":2}}", "weft"},
};

START_TEST(refused)
{
    ck_assert_msg(!read_as(API_CHAT, wrong[_i].body), "taken: %s", wrong[_i].body);
    ck_assert_int_eq(error.http_status, 400);
    ck_assert_msg(strcmp(error.param, wrong[_i].param) == 0, "%s names %s: %s", wrong[_i].body,
                  error.param, error.message);
    ck_assert_str_ne(error.message, "");
    ck_assert(!error.retry);
    finish();
}
END_TEST

START_TEST(formats_and_tools)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"response_format\":{\"type\":\"json_object\"}}"));
    ck_assert_uint_eq(r.query.format, WEFT_FORMAT_JSON);
    finish();
    ck_assert(read_as(API_CHAT,
                      CHAT_HEAD ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
                                "\"name\":\"x\",\"schema\":{\"type\": \"null\"}}}}"));
    ck_assert_uint_eq(r.query.format, WEFT_FORMAT_SCHEMA);
    ck_assert_str_eq(r.query.format_text, "{\"type\":\"null\"}");
    finish();
    ck_assert(read_as(API_RESPONSE,
                      "{\"model\":\"m\",\"input\":\"hi\",\"text\":{\"format\":{\"type\":"
                      "\"json_schema\",\"name\":\"x\",\"schema\":{}}}}"));
    ck_assert_str_eq(r.query.format_text, "{}");
    finish();
    ck_assert(read_as(
        API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{"
                  "\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":"
                  "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]},{"
                  "\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"2\"}],\"tools\":[{"
                  "\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"type\":"
                  "\"function\",\"function\":{\"name\":\"f\"}}}"));
    ck_assert_uint_eq(r.query.format, WEFT_FORMAT_CALL);
    ck_assert_str_eq(r.query.format_text, "f");
    ck_assert_uint_eq(r.message_count, 4);
    ck_assert_str_eq(r.messages[0].role, "tools");
    ck_assert_str_eq(r.messages[2].role, "calls");
    ck_assert_str_eq(r.messages[2].text,
                     "{\"content\":\"\",\"calls\":[{\"name\":\"f\",\"arguments\":{\"a\":1},"
                     "\"id\":\"1\"}]}");
    ck_assert_str_eq(r.messages[3].role, "tool");
    ck_assert(r.tools && api_has_tool(&r, "f") && !api_has_tool(&r, "g"));
    finish();
    /* Models write nothing where a function takes nothing, and clients send it back. */
    ck_assert(read_as(API_CHAT,
                      "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":["
                      "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
                      "\"\"}}]}]}"));
    ck_assert_str_eq(r.messages[0].text,
                     "{\"content\":\"\",\"calls\":[{\"name\":\"f\",\"arguments\":{},"
                     "\"result\":false}]}");
    finish();
}
END_TEST

/* What a model thought may come along with what it said; other items may not. */
START_TEST(items_of_responses)
{
    ck_assert(read_as(API_RESPONSE,
                      "{\"model\":\"m\",\"input\":[{\"type\":\"reasoning\",\"id\":\"rs_1\","
                      "\"summary\":[]},{\"role\":\"user\",\"content\":\"q\"}]}"));
    ck_assert_uint_eq(r.message_count, 1);
    finish();
    ck_assert(!read_as(API_RESPONSE,
                       "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"q\"},"
                       "{\"type\":\"item_reference\",\"id\":\"msg_1\"}]}"));
    ck_assert_ptr_nonnull(strstr(error.message, "item_reference"));
    finish();
}
END_TEST

#define FLAT "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{},\"strict\":true}]"

/* In responses a function and its tool are one, and calls and what they gave are items. */
START_TEST(tools_of_responses)
{
    ck_assert(read_as(
        API_RESPONSE,
        "{\"model\":\"m\",\"instructions\":\"be\",\"input\":[{\"role\":\"user\",\"content\":\"q\"},"
        "{"
        "\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
        "\"text\":"
        "\"I ask\"}]},{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\",\"arguments\":"
        "\"{\\\"a\\\":1}\"},{\"type\":\"function_call\",\"call_id\":\"2\",\"name\":\"f\","
        "\"arguments\":"
        "\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":\"x\"},{\"type\":"
        "\"function_call_output\",\"call_id\":\"2\",\"output\":[{\"type\":\"input_text\",\"text\":"
        "\"y\"}]}]," FLAT ",\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"}}"));
    ck_assert_uint_eq(r.query.format, WEFT_FORMAT_CALL);
    ck_assert_str_eq(r.query.format_text, "f");
    static const char *const messages[][2] = {
        {"tools",
         "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{},\"strict\":"
         "true}}]"},
        {"system", "be"},
        {"user", "q"},
        {"calls", "{\"content\":\"I ask\",\"calls\":[{\"name\":\"f\",\"arguments\":{\"a\":1},"
                  "\"id\":\"1\"},{\"name\":\"f\",\"arguments\":{},\"id\":\"2\"}]}"},
        {"tool", "x"},
        {"tool", "y"}};
    ck_assert_uint_eq(r.message_count, 6);
    for (size_t i = 0; i < 6; i++) {
        ck_assert_str_eq(r.messages[i].role, messages[i][0]);
        ck_assert_str_eq(r.messages[i].text, messages[i][1]);
    }
    ck_assert(r.tools && api_has_tool(&r, "f") && !api_has_tool(&r, "g"));
    finish();
    static const char *const bad[] = {
        "{\"model\":\"m\",\"input\":[{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{"
        "\"}]}",
        "{\"model\":\"m\",\"input\":[{\"type\":\"function_call\",\"arguments\":\"{}\"}]}",
        "{\"model\":\"m\",\"input\":[{\"type\":\"function_call_output\",\"output\":5}]}",
        "{\"model\":\"m\",\"input\":[{\"type\":\"reasoning\"}]}",
        "{\"model\":\"m\",\"input\":\"q\",\"tools\":[{\"type\":\"web_search\"}]}",
        "{\"model\":\"m\",\"input\":\"q\",\"text\":{\"format\":{\"type\":\"json_object\"}}," FLAT
        "}",
        "{\"model\":\"m\",\"input\":\"q\",\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}"
        "," FLAT "}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!read_as(API_RESPONSE, bad[i]), "%s", bad[i]);
        finish();
    }
}
END_TEST

START_TEST(of_no_effect)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"tools\":[],\"tool_choice\":\"auto\","
                                          "\"response_format\":{\"type\":\"text\"},"
                                          "\"logit_bias\":{},\"parallel_tool_calls\":true}"));
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"tools\":[{}],\"tool_choice\":\"none\"}"));
    finish();
}
END_TEST

START_TEST(places_of_the_body)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD
                      ",\"weft\":{\"tags\":[\"eu\",\"gdpr\"],\"tier\":[4,6],\"near\":[50.1,-8.7],"
                      "\"radius_km\":50,\"vram_mib\":8192,\"budget_ms\":50,\"e2e\":true,"
                      "\"priority\":15,\"session\":\"s\",\"hedge\":true,\"once\":false}}"));
    const weft_query_t *q = &r.query;
    ck_assert_str_eq(q->tags, "eu,gdpr");
    ck_assert(q->has_tiers && q->tier_min == 4 && q->tier_max == 6);
    ck_assert(q->has_position && q->latitude_deg == 50.1 && q->longitude_deg == -8.7);
    ck_assert_uint_eq(q->radius_km, 50);
    ck_assert_uint_eq(q->vram_mib, 8192);
    ck_assert_uint_eq(q->budget_ms, 50);
    ck_assert(q->end_to_end && q->hedge && !q->once);
    ck_assert_uint_eq(q->priority, 15);
    ck_assert_str_eq(q->session, "s");
    finish();
}
END_TEST

static bool header(const char *name, const char *value)
{
    memset(&error, 0, sizeof(error));
    return api_header(&r, name, value, &error);
}

START_TEST(places_of_headers)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"weft\":{\"tier\":1,\"radius_km\":7}}"));
    ck_assert(header("X-Weft-Tier", "4-6"));
    ck_assert(header("x-weft-tags", "eu, gdpr"));
    ck_assert(header("x-weft-jurisdiction", "DE"));
    ck_assert(header("x-weft-near", "-33.9, 151.2"));
    ck_assert(header("x-slo-ttft-ms", "50"));
    ck_assert(header("x-stainless-os", "whatever"));
    ck_assert(header("x-weft-hedge", "TRUE"));
    ck_assert_uint_eq(r.query.tier_min, 4);
    ck_assert_uint_eq(r.query.radius_km, 7);
    ck_assert_str_eq(r.query.tags, "eu,gdpr");
    ck_assert_str_eq(r.query.more->jurisdiction, "DE");
    ck_assert(r.query.latitude_deg == -33.9 && r.query.longitude_deg == 151.2);
    ck_assert_uint_eq(r.query.budget_ms, 50);
    ck_assert(r.query.hedge && r.has_budget);
    static const char *const bad[][2] = {
        {"x-weft-tier", "9"},
        {"x-weft-tier", "-1"},
        {"x-weft-tier", ""},
        {"x-weft-jurisdiction", "de"},
        {"x-weft-jurisdiction", "DEU"},
        {"x-weft-jurisdiction", ""},
        {"x-weft-tags", ","},
        {"x-weft-near", "5"},
        {"x-weft-priority", "16"},
        {"x-weft-hedge", "yes?"},
        {"x-weft-anything", "1"},
        {"x-slo-tpot-ms", "0"},
        {"x-weft-e2e", ""},
        {"x-weft-radius-km", "1e3x"},
        {"x-weft-session", "\xff"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!header(bad[i][0], bad[i][1]), "%s: %s", bad[i][0], bad[i][1]);
        ck_assert_int_eq(error.http_status, 400);
    }
    finish();
}
END_TEST

START_TEST(downgrades)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"weft\":{\"downgrade\":[\"a\",\"b/c\"]}}"));
    ck_assert_uint_eq(r.downgrade_count, 2);
    ck_assert_str_eq(r.downgrades[1], "b/c");
    ck_assert(api_header(&r, "X-Weft-Downgrade", "x, y ,z", &error));
    ck_assert_uint_eq(r.downgrade_count, 3);
    ck_assert_str_eq(r.downgrades[2], "z");
    ck_assert(!api_header(&r, "x-weft-downgrade", "1,2,3,4,5", &error));
    ck_assert(!api_header(&r, "x-weft-downgrade", " , ", &error));
    ck_assert(!api_header(&r, "x-weft-downgrade", "a\tb", &error));
    ck_assert(!read_as(API_CHAT, CHAT_HEAD ",\"weft\":{\"downgrade\":true}}"));
    ck_assert(
        read_as(API_EMBEDDING, "{\"model\":\"m\",\"input\":\"x\",\"weft\":{\"downgrade\":\"a\"}}"));
    ck_assert(!api_check(&r, &error));
    finish();
}
END_TEST

#define LONG_NAME "0123456789012345678901234567890123456789012345678901234567890123" /* 64 */

static bool checked_as(const char *more)
{
    char body[512];
    snprintf(body, sizeof(body), CHAT_HEAD ",\"weft\":{%s}}", more);
    finish();
    return read_as(API_CHAT, body) && api_check(&r, &error);
}

START_TEST(cascades)
{
    ck_assert(checked_as("\"cascade\":\"a/b\",\"budget_ms\":50,\"session\":\"s\""));
    struct api_request draft = api_draft(&r);
    ck_assert_str_eq(api_query(&draft, 0).model, "a/b");
    ck_assert_ptr_null(api_query(&draft, 0).session);
    ck_assert_str_eq(api_query(&r, 0).model, "m");
    ck_assert_str_eq(api_query(&r, 0).session, "s");
    ck_assert(api_header(&r, "X-Weft-Cascade", "other", &error));
    ck_assert_str_eq(r.cascade, "other");
    static const char *const wrong_ones[] = {
        "\"cascade\":\"a\"",
        "\"cascade\":\"m\",\"budget_ms\":50",
        "\"cascade\":\"\",\"budget_ms\":50",
        "\"cascade\":\"a b\",\"budget_ms\":50",
        "\"cascade\":\"a,b\",\"budget_ms\":50",
        "\"cascade\":[\"a\"],\"budget_ms\":50",
        "\"cascade\":true,\"budget_ms\":50",
        "\"cascade\":\"a\",\"downgrade\":\"b\",\"budget_ms\":50",
        "\"budget_ms\":50,\"cascade\":\"" LONG_NAME "\"",
    };
    for (size_t i = 0; i < sizeof(wrong_ones) / sizeof(wrong_ones[0]); i++) {
        ck_assert_msg(!checked_as(wrong_ones[i]), "taken: %s", wrong_ones[i]);
    }
    finish();
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"n\":2,\"weft\":{\"cascade\":\"a\",\"ttft_ms\":5}}"));
    ck_assert(!api_check(&r, &error));
    finish();
    ck_assert(read_as(API_EMBEDDING, "{\"model\":\"m\",\"input\":\"x\",\"weft\":"
                                     "{\"cascade\":\"a\",\"budget_ms\":5}}"));
    ck_assert(!api_check(&r, &error));
    finish();
}
END_TEST

START_TEST(e2e_needs_a_budget)
{
    ck_assert(read_as(API_CHAT, CHAT_HEAD ",\"weft\":{\"e2e\":true}}"));
    ck_assert(!api_check(&r, &error));
    ck_assert(header("x-weft-budget-ms", "100"));
    ck_assert(api_check(&r, &error));
    finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_api");
    TCase *tc = tcase_create("api");
    tcase_add_test(tc, a_chat);
    tcase_add_test(tc, sampling);
    tcase_add_test(tc, defaults);
    tcase_add_test(tc, parts_and_roles);
    tcase_add_test(tc, completions);
    tcase_add_test(tc, completions_refused);
    tcase_add_test(tc, embeddings);
    tcase_add_test(tc, responses);
    tcase_add_loop_test(tc, refused, 0, (int)(sizeof(wrong) / sizeof(wrong[0])));
    tcase_add_test(tc, of_no_effect);
    tcase_add_test(tc, formats_and_tools);
    tcase_add_test(tc, items_of_responses);
    tcase_add_test(tc, tools_of_responses);
    tcase_add_test(tc, places_of_the_body);
    tcase_add_test(tc, places_of_headers);
    tcase_add_test(tc, downgrades);
    tcase_add_test(tc, cascades);
    tcase_add_test(tc, e2e_needs_a_budget);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
