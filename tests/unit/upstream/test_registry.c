/* SPDX-License-Identifier: Apache-2.0 */
/* A gateway's registries as JSON: who is taken, who promises enough, and what is no list. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "kernels/upstream/registry.h"
#include "tests/unit/suite.h"

static struct registry_service services[4];

static size_t read_all(const char *text, size_t max)
{
    size_t count = 99;
    ck_assert_int_eq(registry_services(text, strlen(text), "m", services, max, &count), 0);
    return count;
}

START_TEST(those_with_the_model)
{
    static const char list[] =
        "{\"object\":\"list\",\"data\":[5,{},"
        "{\"id\":\"1\",\"source\":\"mesh\",\"kind\":\"weft\",\"models\":[\"m\"],\"address\":\"x\"},"
        "{\"id\":\"a\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://a/v1\","
        "\"models\":[\"n\",\"m\"],\"load\":{\"told\":true,\"room\":3,\"queue_us\":-1},\"age_s\":7,"
        "\"tags\":[\"eu\",\"gdpr\",\"nonsense\"],\"jurisdiction\":\"DE\"},"
        "{\"id\":\"b\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://b/v1\","
        "\"models\":[\"m\"],\"load\":{\"told\":false}},"
        "{\"id\":\"\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://d/v1\","
        "\"models\":[\"m\"]},"
        "{\"id\":\"c\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://c\","
        "\"models\":[\"n\"]}]}";
    ck_assert_uint_eq(read_all(list, 4), 2);
    ck_assert_str_eq(services[0].id, "a");
    ck_assert_str_eq(services[0].url, "http://a/v1");
    ck_assert(services[0].told && services[0].room == 3 && services[0].queue_us == 0);
    ck_assert_uint_eq(services[0].age_s, 7);
    ck_assert_uint_eq(services[0].promise.tags, weft_tag_mask("eu") | weft_tag_mask("gdpr"));
    ck_assert_str_eq(services[0].promise.jurisdiction, "DE");
    ck_assert(!services[1].told && services[1].promise.tags == 0);
    ck_assert_uint_eq(read_all(list, 1), 1);
}
END_TEST

static bool is_german(const struct registry_service *service, void *user)
{
    (*(unsigned *)user)++;
    return strcmp(service->promise.jurisdiction, "DE") == 0;
}

START_TEST(which_models_there_are)
{
    static const char list[] =
        "{\"data\":[5,{\"id\":\"1\",\"source\":\"mesh\",\"kind\":\"weft\",\"models\":[\"x\"],"
        "\"address\":\"x\",\"jurisdiction\":\"DE\"},"
        "{\"id\":\"a\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://a/v1\","
        "\"models\":[\"n\",\"m\",5,\"\"],\"jurisdiction\":\"DE\"},"
        "{\"id\":\"b\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://b/v1\","
        "\"models\":[\"french\"],\"jurisdiction\":\"FR\"},"
        "{\"id\":\"c\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://c\","
        "\"models\":[\"m\",\"o\","
        "\"1234567890123456789012345678901234567890123456789012345678901234\"],"
        "\"jurisdiction\":\"DE\"},"
        "{\"id\":\"d\",\"source\":\"registered\",\"kind\":\"openai\",\"address\":\"http://d\","
        "\"jurisdiction\":\"DE\"}]}";
    char models[4][REGISTRY_MODEL_MAX];
    size_t count = 99;
    unsigned asked = 0;
    ck_assert_int_eq(registry_models(list, strlen(list), is_german, &asked, models, 4, &count), 0);
    ck_assert_uint_eq(asked, 4); /* who is no service is not looked at */
    ck_assert_uint_eq(count, 3);
    ck_assert_str_eq(models[0], "n");
    ck_assert_str_eq(models[1], "m");
    ck_assert_str_eq(models[2], "o");
    ck_assert_int_eq(registry_models(list, strlen(list), is_german, &asked, models, 2, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(registry_models("[]", 2, is_german, &asked, models, 4, &count), -EBADMSG);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(no_lists)
{
    static const char *const bad[] = {"", "[]", "{}", "{\"data\":{}}", "{\"data\":[", "nonsense"};
    struct registry_promise promise;
    size_t count;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const size_t len = strlen(bad[i]);
        ck_assert_int_eq(registry_services(bad[i], len, "m", services, 4, &count), -EBADMSG);
        ck_assert_uint_eq(count, 0);
        ck_assert_int_eq(registry_node(bad[i], len, "n", &promise), -EBADMSG);
    }
    ck_assert_uint_eq(read_all("{\"data\":[]}", 4), 0);
}
END_TEST

START_TEST(what_does_not_fit)
{
    char list[1024], longest[REGISTRY_URL_MAX + 1];
    memset(longest, 'u', sizeof(longest) - 1);
    longest[REGISTRY_URL_MAX] = 0;
    for (size_t cut = 0; cut < 2; cut++) {
        snprintf(
            list, sizeof(list),
            "{\"data\":[{\"id\":\"a\",\"source\":\"registered\",\"kind\":\"openai\",\"models\":["
            "\"m\"],\"address\":\"%s\",\"jurisdiction\":\"DEU\"}]}",
            longest + cut);
        ck_assert_uint_eq(read_all(list, 4), cut);
    }
    ck_assert_str_eq(services[0].promise.jurisdiction, "");
}
END_TEST

START_TEST(promises)
{
    static const char list[] =
        "{\"data\":[{\"source\":\"registered\",\"node\":\"f\",\"tags\":[]},{\"source\":\"mesh\","
        "\"node\":\"f\",\"tags\":[\"eu\",\"gdpr\"],\"jurisdiction\":\"DE\"}]}";
    struct registry_promise node;
    ck_assert_int_eq(registry_node(list, sizeof(list) - 1, "g", &node), -ENOENT);
    ck_assert_int_eq(registry_node(list, sizeof(list) - 1, "f", &node), 0);
    struct registry_promise service = {.tags = node.tags, .jurisdiction = "DE"};
    ck_assert(registry_keeps(&service, &node));
    service.tags |= weft_tag_mask("hipaa");
    ck_assert(registry_keeps(&service, &node));
    service.tags &= ~weft_tag_mask("gdpr");
    ck_assert(!registry_keeps(&service, &node));
    service = (struct registry_promise){.tags = node.tags, .jurisdiction = "FR"};
    ck_assert(!registry_keeps(&service, &node));
    service.jurisdiction[0] = 0;
    ck_assert(!registry_keeps(&service, &node));
    node.jurisdiction[0] = 0;
    ck_assert(registry_keeps(&service, &node));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_registry");
    TCase *tests = tcase_create("registry");
    tcase_add_test(tests, those_with_the_model);
    tcase_add_test(tests, which_models_there_are);
    tcase_add_test(tests, no_lists);
    tcase_add_test(tests, what_does_not_fit);
    tcase_add_test(tests, promises);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
