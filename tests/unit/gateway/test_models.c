/* SPDX-License-Identifier: Apache-2.0 */
/* test_models.c - models.h: the list of models from a node's status answer. */
#include <check.h>
#include <jansson.h>
#include <string.h>

#include "dataplane/gateway/models.h"
#include "tests/unit/suite.h"

static const char status_text[] =
    "{\"members\":["
    "{\"name\":\"a\",\"alive\":true,\"models\":[\"z\",\"m\"],\"room\":3,\"context_tokens\":100},"
    "{\"name\":\"b\",\"alive\":true,\"models\":[\"m\"],\"room\":4,\"context_tokens\":200},"
    "{\"name\":\"c\",\"alive\":false,\"models\":[\"gone\"],\"room\":9,\"context_tokens\":200},"
    "{\"name\":\"d\",\"alive\":true}, 5]}";

START_TEST(listed_once_and_by_name)
{
    json_t *status = json_loads(status_text, 0, NULL);
    struct buf out = {.data = NULL};
    models_write_list(status, "extra,m,,", 17, &out);
    json_t *list = json_loadb(out.data, buf_len(&out), 0, NULL);
    const json_t *data = json_object_get(list, "data");
    static const char *const names[] = {"extra", "m", "z"};
    ck_assert_uint_eq(json_array_size(data), 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_str_eq(json_string_value(json_object_get(json_array_get(data, i), "id")),
                         names[i]);
    }
    const json_t *m = json_array_get(data, 1);
    ck_assert_int_eq(json_integer_value(json_object_get(m, "max_model_len")), 200);
    const json_t *weft = json_object_get(m, "weft");
    ck_assert_int_eq(json_integer_value(json_object_get(weft, "room")), 7);
    ck_assert_uint_eq(json_array_size(json_object_get(weft, "nodes")), 2);
    json_decref(list);
    buf_deinit(&out);
    ck_assert(models_write_one(status, NULL, "z", 17, &out));
    ck_assert(!models_write_one(status, NULL, "gone", 17, &out));
    ck_assert(!models_write_one(NULL, NULL, "z", 17, &out));
    ck_assert(models_write_one(NULL, "q,z", "z", 17, &out));
    buf_deinit(&out);
    json_decref(status);
}
END_TEST

START_TEST(of_nothing)
{
    struct buf out = {.data = NULL};
    models_write_list(NULL, NULL, 17, &out);
    ck_assert_uint_eq(buf_len(&out), strlen("{\"object\":\"list\",\"data\":[]}"));
    buf_deinit(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_models");
    TCase *tc = tcase_create("models");
    tcase_add_test(tc, listed_once_and_by_name);
    tcase_add_test(tc, of_nothing);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
