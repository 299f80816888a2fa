/* SPDX-License-Identifier: Apache-2.0 */
/* Embeddings: the question as JSON, replies that are right and wrong. */
#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "kernels/upstream/vector.h"
#include "tests/unit/suite.h"

#define MAX 4u

static void asks(const weft_job_view_t *view, const char *wanted)
{
    int status;
    char *body = vector_write("m", view, &status);
    ck_assert_ptr_nonnull(body);
    json_t *got = json_loads(body, 0, NULL), *want = json_loads(wanted, 0, NULL);
    ck_assert(json_equal(got, want));
    json_decref(got);
    json_decref(want);
    free(body);
}

START_TEST(questions)
{
    static const uint32_t ids[] = {3, 70000};
    const weft_job_part_t text[] = {{0, "Gr\xc3\xbc\xc3\x9f\x65", 7}};
    const weft_job_part_t bad[] = {{0, "\xff", 1}};
    const weft_job_part_t chat[] = {{WEFT_ROLE_USER, "a", 1}, {WEFT_ROLE_USER, "b", 1}};
    weft_job_view_t view = {.parts = text, .part_count = 1, .embed = 1};
    asks(&view, "{\"model\":\"m\",\"input\":\"Gr\\u00fc\\u00dfe\",\"encoding_format\":\"float\"}");
    view = (weft_job_view_t){.tokens = ids, .token_count = 2, .embed = 1};
    asks(&view, "{\"model\":\"m\",\"input\":[3,70000],\"encoding_format\":\"float\"}");
    int status = 0;
    view = (weft_job_view_t){.parts = bad, .part_count = 1, .embed = 1};
    ck_assert_ptr_null(vector_write("m", &view, &status));
    ck_assert_int_eq(status, WEFT_E_BAD_REQUEST);
    view = (weft_job_view_t){.parts = chat, .part_count = 1, .embed = 2};
    asks(&view, "{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"float\"}");
    view.part_count = 2;
    ck_assert_ptr_null(vector_write("m", &view, &status));
    ck_assert_int_eq(status, WEFT_E_BAD_REQUEST);
}
END_TEST

static int parse(const char *reply, struct vector *vector)
{
    static float values[MAX];
    *vector = (struct vector){.values = values, .max = MAX};
    return vector_parse(vector, reply, strlen(reply));
}

START_TEST(replies)
{
    struct vector v;
    ck_assert_int_eq(parse("{\"data\":[{\"index\":0,\"embedding\":[3,0,-4.0]}],\"usage\":"
                           "{\"prompt_tokens\":7}}",
                           &v),
                     0);
    ck_assert_uint_eq(v.count, 3);
    ck_assert_uint_eq(v.prompt_tokens, 7);
    ck_assert_float_eq_tol(v.values[0], 0.6f, 1e-6f); /* of length 1 */
    ck_assert_float_eq_tol(v.values[2], -0.8f, 1e-6f);
    static const char *const wrong[] = {
        "",
        "[]",
        "{\"data\":[]}",
        "{\"data\":[{\"embedding\":[]}]}",
        "{\"data\":[{\"embedding\":\"AAAA\"}]}",
        "{\"data\":[{\"embedding\":[1,\"2\"]}]}",
        "{\"data\":[{\"embedding\":[1,null]}]}",
        "{\"data\":[{\"embedding\":[0,0]}]}",
        "{\"data\":[{\"embedding\":[1e300,1]}]}",
        "{\"error\":{\"message\":\"no\"}}",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(parse(wrong[i], &v) == -EBADMSG, "%s", wrong[i]);
    ck_assert_int_eq(parse("{\"data\":[{\"embedding\":[1,2,3,4,5]}]}", &v), -EMSGSIZE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_vector");
    TCase *tests = tcase_create("vector");
    tcase_add_test(tests, questions);
    tcase_add_test(tests, replies);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
