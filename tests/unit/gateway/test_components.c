/* SPDX-License-Identifier: Apache-2.0 */
/* test_components.c - components.h: stages read, the nearest chosen, what is asked and told. */
#include <check.h>
#include <jansson.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/components.h"
#include "tests/unit/suite.h"

static bool read_text(struct components *c, const char *text, struct api_error *error)
{
    memset(c, 0, sizeof(*c));
    *error = (struct api_error){.http_status = 0};
    return components_read(c, text, strlen(text), error);
}

START_TEST(the_nearest_goes_on)
{
    static const char text[] =
        "{\"stages\":[{\"component\":\"encode\",\"model\":\"e\",\"input\":\"q\",\"among\":[\"a\","
        "\"b\",\"c\"],\"weft\":{\"tags\":\"eu\"}},{\"component\":\"decode\",\"model\":\"d\","
        "\"max_tokens\":5,\"weft\":{\"tier\":\"4-6\"}}]}";
    static const float vectors[4][2] = {{1, 0}, {0, 1}, {0.8f, 0.6f}, {-1, 0}};
    const weft_result_t result = {.finish = WEFT_FINISH_LENGTH, .node = "here"};
    struct components c;
    struct api_error error;
    weft_query_t query;
    ck_assert_msg(read_text(&c, text, &error), "%s", error.message);
    ck_assert_uint_eq(c.texts, 4);
    query = components_encode(&c, 2);
    ck_assert_str_eq(query.model, "e");
    ck_assert_str_eq(query.tags, "eu");
    ck_assert(query.embed != 0 && query.text_len == 1 && query.text[0] == 'b');
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert(components_vector(&c, i, vectors[i], 2, &result));
    }
    ck_assert(components_decode(&c, &query, &error));
    ck_assert_uint_eq(c.best, 1);
    ck_assert_str_eq(query.model, "d");
    ck_assert(query.tags == NULL || query.tags[0] == '\0');
    ck_assert(query.has_tiers && query.tier_min == 4 && query.max_tokens == 5);
    ck_assert_uint_eq(query.message_count, 1);
    ck_assert_uint_eq(query.messages[0].len, 4);
    ck_assert_mem_eq(query.messages[0].text, "b\n\nq", 4);
    struct buf out = {.data = NULL};
    components_text(&c, "\xc3", 1);
    components_text(&c, "\xa4\"", 2);
    components_write(&c, &result, "7", &out);
    json_t *run = json_loadb(out.data, buf_len(&out), 0, NULL);
    const json_t *stages = json_object_get(run, "stages");
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(stages, 0), "best")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(stages, 1), "text")),
                     "\xc3\xa4\"");
    json_decref(run);
    buf_deinit(&out);
    components_deinit(&c);
}
END_TEST

START_TEST(refusals)
{
#define ENCODE "{\"component\":\"encode\",\"model\":\"e\",\"input\":\"q\",\"among\":[\"a\"]}"
#define DECODE "{\"component\":\"decode\",\"model\":\"d\"}"
    static const char *const bad[] = {
        "",
        "[]",
        "{\"stages\":[" ENCODE "]}",
        "{\"stages\":[" DECODE "," ENCODE "]}",
        "{\"stages\":[" ENCODE "," DECODE "," DECODE "]}",
        "{\"stages\":[{\"component\":\"encode\",\"model\":\"e\",\"input\":\"q\"}," DECODE "]}",
        "{\"stages\":[{\"component\":\"encode\",\"input\":\"q\",\"among\":[\"a\"]}," DECODE "]}",
        "{\"stages\":[{\"component\":\"encode\",\"model\":\"e\",\"input\":\"q\",\"among\":[5]}"
        "," DECODE "]}",
        "{\"stages\":[" ENCODE ",{\"component\":\"decode\"}]}",
        "{\"stages\":[" ENCODE ",{\"component\":\"decode\",\"model\":\"d\",\"max_tokens\":0}]}",
    };
    struct components c;
    struct api_error error;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!read_text(&c, bad[i], &error), "%s", bad[i]);
        ck_assert_int_eq(error.http_status, 400);
        components_deinit(&c);
    }
    ck_assert(read_text(&c, "{\"stages\":[" ENCODE "," DECODE "]}", &error));
    const float vector[2] = {1, 0};
    const weft_result_t result = {.finish = WEFT_FINISH_STOP};
    ck_assert(!components_vector(&c, 0, NULL, 0, &result));
    ck_assert(components_vector(&c, 0, vector, 2, &result));
    ck_assert(!components_vector(&c, 1, vector, 1, &result)); /* another model's */
    components_deinit(&c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_components");
    TCase *tc = tcase_create("components");
    tcase_add_test(tc, the_nearest_goes_on);
    tcase_add_test(tc, refusals);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
