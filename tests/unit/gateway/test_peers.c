/* SPDX-License-Identifier: Apache-2.0 */
/* test_peers.c - peers.h: what is taken, how it stands with it, bounds, files, lists. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/gateway/peers.h"
#include "tests/unit/suite.h"

static struct peer_node *node_add(struct peers *p, const char *text, struct api_error *error)
{
    json_t *body = json_loads(text, 0, NULL);
    *error = (struct api_error){.http_status = 0};
    struct peer_node *node = peers_add_node(p, body, NULL, 7, error);
    json_decref(body);
    return node;
}

static struct peer_service *service_add(struct peers *p, const char *text, uint64_t now_s,
                                        struct api_error *error)
{
    json_t *body = json_loads(text, 0, NULL);
    *error = (struct api_error){.http_status = 0};
    struct peer_service *service = peers_add_service(p, body, "alice", now_s, error);
    json_decref(body);
    return service;
}

START_TEST(nodes_are_addresses)
{
    static const char *const good[] = {"10.0.0.1", "10.0.0.1:7401", "2001:db8::1",
                                       "[2001:db8::1]:65535"};
    static const char *const bad[] = {"",
                                      "host",
                                      "10.0.0.1:",
                                      "10.0.0.1:0",
                                      "10.0.0.1:65536",
                                      "10.0.0.1:74x",
                                      "10.0.0.1 ",
                                      "[10.0.0.1]:7",
                                      "2001:db8::1]:7",
                                      "a\\u0000b",
                                      "10.0.0.1\\\",\\\"cmd"};
    struct peers p = {.nodes = NULL};
    struct api_error error;
    char text[256];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "{\"node\":\"%s\",\"more\":1}", good[i]);
        ck_assert_msg(node_add(&p, text, &error) != NULL, "%s", good[i]);
        ck_assert_msg(node_add(&p, text, &error) != NULL, "%s", good[i]); /* the same place */
    }
    ck_assert_uint_eq(p.node_count, 4);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "{\"node\":\"%s\"}", bad[i]);
        ck_assert_msg(node_add(&p, text, &error) == NULL, "%s", bad[i]);
        ck_assert_int_eq(error.http_status, 400);
    }
    ck_assert(node_add(&p, "{}", &error) == NULL && node_add(&p, "{\"node\":5}", &error) == NULL);
    ck_assert_uint_eq(p.node_count, 4);
    ck_assert_uint_eq(p.service_count, 0);
    gateway_peers_deinit(&p);
}
END_TEST

START_TEST(services_are_urls_with_models)
{
    static const char *const bad[] = {
        "{}",
        "{\"url\":\"http://a\"}",
        "{\"url\":\"http://a\",\"models\":[]}",
        "{\"url\":\"http://a\",\"models\":[\"\"]}",
        "{\"url\":\"http://a\",\"models\":[\"a b\"]}",
        "{\"url\":\"http://a\",\"models\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
        "{\"url\":\"ftp://a\",\"models\":[\"m\"]}",
        "{\"url\":\"http://\",\"models\":[\"m\"]}",
        "{\"url\":\"http://me:secret@a\",\"models\":[\"m\"]}",
        "{\"url\":\"http://a?b\",\"models\":[\"m\"]}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"ttl_s\":-1}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"ttl_s\":1.5}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"load\":5}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"load\":{\"room\":\"x\"}}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"realtime\":1}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"tags\":\"eu\"}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"tags\":[\"nonsense\"]}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"tags\":[5]}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"jurisdiction\":\"D\"}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"jurisdiction\":\"de\"}",
        "{\"url\":\"http://a\",\"models\":[\"m\"],\"jurisdiction\":\"DEU\"}",
    };
    struct peers p = {.nodes = NULL};
    struct api_error error;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(service_add(&p, bad[i], 1, &error) == NULL, "%s", bad[i]);
        ck_assert_int_eq(error.http_status, 400);
    }
    struct peer_service *s = service_add(
        &p, "{\"url\":\"http://a:8080/v1\",\"models\":[\"m\"],\"ttl_s\":10}", 100, &error);
    ck_assert_ptr_nonnull(s);
    ck_assert(!s->has_load);
    s = service_add(&p,
                    "{\"url\":\"http://a:8080/v1\",\"models\":[\"m\",\"n\"],\"ttl_s\":10,"
                    "\"load\":{\"room\":3,\"queue_us\":9}}",
                    105, &error);
    ck_assert_uint_eq(p.service_count, 1);
    ck_assert(s->has_load && s->room == 3 && s->queue_us == 9 && s->model_count == 2);
    ck_assert_uint_eq(s->since_s, 100);
    ck_assert(!peers_expire(&p, 114));
    ck_assert(peers_expire(&p, 115));
    ck_assert_uint_eq(p.service_count, 0);
    gateway_peers_deinit(&p);
}
END_TEST

/* What a service promises is listed, and outlives a start. */
START_TEST(promises)
{
    struct peers p = {.nodes = NULL}, again = {.nodes = NULL};
    struct api_error error;
    struct buf text = {.data = NULL};
    ck_assert_ptr_nonnull(service_add(&p,
                                      "{\"url\":\"http://a\",\"models\":[\"m\"],\"tags\":[\"gdpr\","
                                      "\"eu\"],\"jurisdiction\":\"DE\"}",
                                      1, &error));
    peers_save_services(&p, &text);
    json_t *file = json_loadb(text.data, buf_len(&text), 0, NULL);
    ck_assert(peers_load_services(&again, file, &error));
    json_decref(file);
    ck_assert_uint_eq(again.services[0].tags, p.services[0].tags);
    ck_assert_str_eq(again.services[0].jurisdiction, "DE");
    buf_deinit(&text);
    peers_write_service(&again.services[0], 1, &text);
    json_t *listed = json_loadb(text.data, buf_len(&text), 0, NULL);
    ck_assert_uint_eq(json_array_size(json_object_get(listed, "tags")), 2);
    ck_assert_str_eq(json_string_value(json_object_get(listed, "jurisdiction")), "DE");
    json_decref(listed);
    buf_deinit(&text);
    gateway_peers_deinit(&p);
    gateway_peers_deinit(&again);
}
END_TEST

START_TEST(bounded)
{
    struct peers p = {.nodes = NULL};
    struct api_error error;
    char text[128];
    for (unsigned i = 0; i <= PEERS_MAX; i++) {
        snprintf(text, sizeof(text), "{\"node\":\"10.0.%u.%u\"}", i / 250, i % 250);
        ck_assert((node_add(&p, text, &error) != NULL) == (i < PEERS_MAX));
        snprintf(text, sizeof(text), "{\"url\":\"http://h%u\",\"models\":[\"m\"]}", i);
        ck_assert((service_add(&p, text, 1, &error) != NULL) == (i < PEERS_MAX));
    }
    ck_assert_int_eq(error.http_status, 429);
    char id[PEERS_ID_MAX];
    strcpy(id, p.nodes[17].id);
    ck_assert(peers_drop_node(&p, id) && !peers_drop_node(&p, id));
    ck_assert(!peers_drop_service(&p, id));
    ck_assert_ptr_nonnull(node_add(&p, "{\"node\":\"10.9.9.9\"}", &error));
    gateway_peers_deinit(&p);
}
END_TEST

START_TEST(telling_the_node)
{
    struct peers p = {.nodes = NULL};
    struct api_error error;
    const struct peer_node *node = node_add(&p, "{\"node\":\"10.0.0.1\"}", &error);
    char id[PEERS_ID_MAX];
    strcpy(id, node->id);
    ck_assert_ptr_eq(peers_due(&p, 1), node);
    json_t *called = json_loads("{\"join\":\"called\"}", 0, NULL);
    json_t *member = json_loads("{\"join\":\"member\"}", 0, NULL);
    json_t *refused = json_loads("{\"error\":\"no room\"}", 0, NULL);
    peers_told(&p, id, called, 5);
    ck_assert_int_eq(node->state, PEER_CALLED);
    ck_assert_ptr_null(peers_due(&p, 5));
    ck_assert_uint_eq(peers_due_ns(&p), 5 + PEERS_TELL_SOON_NS);
    peers_told(&p, id, member, 6);
    ck_assert_int_eq(node->state, PEER_MEMBER);
    ck_assert_uint_eq(peers_due_ns(&p), 6 + PEERS_TELL_AGAIN_NS);
    peers_told(&p, id, refused, 7);
    ck_assert_int_eq(node->state, PEER_REFUSED);
    ck_assert_str_eq(node->reason, "no room");
    peers_told(&p, id, NULL, 8);
    ck_assert_int_eq(node->state, PEER_NEW);
    peers_told(&p, "0123456789abcdef", member, 9); /* dropped meanwhile */
    json_decref(called);
    json_decref(member);
    json_decref(refused);
    gateway_peers_deinit(&p);
}
END_TEST

/* What was saved is what is loaded. */
START_TEST(files)
{
    struct peers p = {.nodes = NULL};
    struct peers q = {.nodes = NULL};
    struct api_error error;
    struct buf out = {.data = NULL};
    struct buf again = {.data = NULL};
    node_add(&p, "{\"node\":\"10.0.0.1\"}", &error);
    service_add(&p, "{\"url\":\"http://a\",\"models\":[\"m\"],\"realtime\":true}", 3, &error);
    peers_save_nodes(&p, &out);
    json_t *file = json_loadb(out.data, buf_len(&out), 0, NULL);
    ck_assert(peers_load_nodes(&q, file, &error));
    peers_save_nodes(&q, &again);
    ck_assert_uint_eq(buf_len(&out), buf_len(&again));
    ck_assert_mem_eq(out.data, again.data, buf_len(&out));
    json_decref(file);
    buf_deinit(&out);
    peers_save_services(&p, &out);
    file = json_loadb(out.data, buf_len(&out), 0, NULL);
    ck_assert(peers_load_services(&q, file, &error));
    ck_assert_str_eq(q.services[0].id, p.services[0].id);
    ck_assert_str_eq(q.services[0].by, "alice");
    ck_assert(q.services[0].realtime && q.services[0].seen_s == 3);
    json_decref(file);
    file = json_loads("[{\"url\":5}]", 0, NULL);
    ck_assert(!peers_load_services(&q, file, &error));
    json_decref(file);
    file = json_loads("{}", 0, NULL);
    ck_assert(!peers_load_nodes(&q, file, &error));
    json_decref(file);
    buf_deinit(&out);
    buf_deinit(&again);
    gateway_peers_deinit(&p);
    gateway_peers_deinit(&q);
}
END_TEST

static json_t *listed(struct buf *out)
{
    json_t *list = json_loadb(out->data, buf_len(out), 0, NULL);
    ck_assert_ptr_nonnull(list);
    buf_deinit(out);
    return list;
}

/* Each registry tells its own: no load among the nodes, no place among the services. */
START_TEST(kept_apart)
{
    static const char text[] =
        "{\"members\":[{\"name\":\"a\",\"id\":1,\"alive\":true,\"models\":[\"m\"],\"room\":3,"
        "\"address\":\"10.0.0.1\",\"latitude_deg\":1.5,\"state\":\"up\"},"
        "{\"name\":\"b\",\"id\":2,\"alive\":true,\"models\":[]}]}";
    json_t *status = json_loads(text, 0, NULL);
    struct peers p = {.nodes = NULL};
    struct api_error error;
    struct buf out = {.data = NULL};
    node_add(&p, "{\"node\":\"10.0.0.1\"}", &error);
    service_add(&p, "{\"url\":\"http://a\",\"models\":[\"x\"]}", 3, &error);
    peers_write_nodes(&p, status, &out);
    json_t *list = listed(&out);
    json_t *data = json_object_get(list, "data");
    ck_assert_uint_eq(json_array_size(data), 3);
    ck_assert_ptr_null(json_object_get(json_array_get(data, 0), "room"));
    ck_assert_ptr_nonnull(json_object_get(json_array_get(data, 0), "weights"));
    ck_assert_ptr_null(json_object_get(json_array_get(data, 2), "models"));
    json_decref(list);
    peers_write_services(&p, status, 5, &out);
    list = listed(&out);
    data = json_object_get(list, "data");
    ck_assert_uint_eq(json_array_size(data), 2); /* b has nothing to serve */
    ck_assert_ptr_null(json_object_get(json_array_get(data, 0), "latitude_deg"));
    ck_assert_int_eq(json_integer_value(
                         json_object_get(json_object_get(json_array_get(data, 0), "load"), "room")),
                     3);
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(data, 1), "age_s")), 2);
    json_decref(list);
    json_decref(status);
    gateway_peers_deinit(&p);
}
END_TEST

/* A member may have as many models, with names as long, as a node can tell of. */
START_TEST(many_models)
{
    struct peers p = {.nodes = NULL};
    json_t *models = json_array();
    for (int i = 0; i < 16; i++) {
        json_array_append_new(models, json_sprintf("%02d-%060d", i, 0));
    }
    json_t *status = json_pack("{s:[{s:s, s:b, s:O, s:o}]}", "members", "name", "a", "alive", 1,
                               "models", models, "speeds", models);
    struct buf out = {.data = NULL};
    peers_write_nodes(&p, status, &out);
    json_t *list = listed(&out);
    ck_assert(json_equal(
        models, json_object_get(json_array_get(json_object_get(list, "data"), 0), "weights")));
    json_decref(list);
    peers_write_services(&p, status, 5, &out);
    list = listed(&out);
    ck_assert(json_equal(
        models, json_object_get(json_array_get(json_object_get(list, "data"), 0), "models")));
    json_decref(list);
    json_decref(status);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_peers");
    TCase *tc = tcase_create("peers");
    tcase_add_test(tc, nodes_are_addresses);
    tcase_add_test(tc, services_are_urls_with_models);
    tcase_add_test(tc, promises);
    tcase_add_test(tc, bounded);
    tcase_add_test(tc, telling_the_node);
    tcase_add_test(tc, files);
    tcase_add_test(tc, kept_apart);
    tcase_add_test(tc, many_models);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
