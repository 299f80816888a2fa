/* SPDX-License-Identifier: Apache-2.0 */
/* test_peers.c - controlplane/cli/peers.c: a status answer as a list of members, and as routes. */
#include "controlplane/cli/peers.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cli/query.h"
#include "tests/unit/controlplane/main_of.h"

#define PLACE "\"latitude_deg\": 50, \"longitude_deg\": 8, \"tier\": 1, \"tags\": []"

static const char text[] =
    "{\"node\": \"here\", \"membership\": \"gossip\", \"members\": ["
    "{\"name\": \"gone\", \"id\": 5, \"alive\": false, \"state\": \"left\", " PLACE
    ", \"rtt_us\": 50.0, \"models\": [\"m\"], \"room\": 9},"
    "{\"name\": \"far\", \"id\": 2, \"alive\": true, \"state\": \"up\", " PLACE
    ", \"rtt_us\": 9000.0, \"rtt_estimated\": true, \"models\": [\"m\", \"a\"], \"room\": 3},"
    "{\"name\": \"here\", \"id\": 1, \"alive\": true, \"state\": \"up\", " PLACE
    ", \"rtt_us\": null, \"models\": []},"
    "{\"name\": \"full\", \"id\": 4, \"alive\": true, \"state\": \"suspect\", " PLACE
    ", \"rtt_us\": null, \"models\": [\"m\"], \"room\": 0},"
    "{\"name\": \"near\", \"id\": 3, \"alive\": true, \"state\": \"up\", " PLACE
    ", \"rtt_us\": 200.0, \"place_doubted\": true, \"heard_ms_ago\": 1500, \"models\": [\"m\"], "
    "\"room\": 3}]}";

static json_t *status_make(void)
{
    json_t *status = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(status);
    return status;
}

/* Whatever `print` prints, in memory. */
static char *printed(void (*print)(FILE *, const json_t *), const json_t *list)
{
    char *words = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&words, &size);
    print(out, list);
    fclose(out);
    return words;
}

static const char *name_at(const json_t *list, size_t i)
{
    return json_string_value(json_object_get(json_array_get(list, i), "name"));
}

START_TEST(self_then_near_then_gone)
{
    static const char *const order[] = {"here", "near", "far", "full", "gone"};
    json_t *status = status_make();
    json_t *list = peers_list(status);
    const json_t *peers = json_object_get(list, "peers");
    ck_assert_uint_eq(json_array_size(peers), 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_str_eq(name_at(peers, i), order[i]);
    }
    char *words = printed(peers_print, list);
    ck_assert_ptr_nonnull(strstr(words, "here: 4 of 5 members alive, by gossip\n"));
    ck_assert_ptr_nonnull(strstr(words, "~9.00"));
    ck_assert_ptr_nonnull(strstr(words, "50.00,8.00?"));
    ck_assert_ptr_nonnull(strstr(words, "1.5 s"));
    ck_assert_ptr_nonnull(strstr(words, "m,a"));
    free(words);
    json_decref(list);
    json_decref(status);
}
END_TEST

START_TEST(routes_by_model)
{
    char why[QUERY_WHY_MAX] = "";
    json_t *status = status_make();
    json_t *list = routes_list(status, why);
    ck_assert_ptr_nonnull(list);
    const json_t *routes = json_object_get(list, "routes");
    ck_assert_uint_eq(json_array_size(routes), 2);
    const json_t *m = json_array_get(routes, 1);
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(routes, 0), "model")), "a");
    ck_assert_str_eq(json_string_value(json_object_get(m, "model")), "m");
    const json_t *candidates = json_object_get(m, "candidates");
    ck_assert_uint_eq(json_array_size(candidates), 2); /* not who is full, nor who has left */
    ck_assert_str_eq(name_at(candidates, 0), "far");   /* as far away, and the lower id */
    ck_assert_str_eq(json_string_value(json_object_get(m, "would_choose")), "near");
    const json_t *barred = json_object_get(m, "barred");
    ck_assert_uint_eq(json_array_size(barred), 1);
    ck_assert_str_eq(name_at(barred, 0), "full");
    char *words = printed(routes_print, list);
    ck_assert_ptr_nonnull(strstr(words, "m: 2 nodes from here\n"));
    ck_assert_ptr_nonnull(strstr(words, "  <- chosen\n"));
    ck_assert_ptr_nonnull(strstr(words, "is full"));
    free(words);
    json_decref(list);
    json_decref(status);
}
END_TEST

/* Whoever has left is no gap in what is known; whoever is down is. */
START_TEST(leaving_is_no_gap)
{
    char why[QUERY_WHY_MAX] = "";
    struct query query;
    json_t *status = status_make();
    query_init(&query);
    strcpy(query.model, "m");
    json_t *answer = query_answer(&query, status, why);
    ck_assert(json_is_true(json_object_get(answer, "complete")));
    json_decref(answer);
    json_t *gone = json_array_get(json_object_get(status, "members"), 0);
    json_object_set_new(gone, "state", json_string("down"));
    answer = query_answer(&query, status, why);
    ck_assert(json_is_false(json_object_get(answer, "complete")));
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(answer, "not_heard"), 0)),
                     "gone");
    json_decref(answer);
    json_decref(status);
}
END_TEST

START_TEST(nothing_to_route)
{
    char why[QUERY_WHY_MAX] = "";
    json_t *status =
        json_pack("{s:s, s:[{s:s, s:i}]}", "node", "a", "members", "name", "a", "id", 1);
    json_t *list = routes_list(status, why);
    char *words = printed(routes_print, list);
    ck_assert_str_eq(words, "no member that a knows has a model\n");
    free(words);
    json_decref(list);
    json_decref(status);
}
END_TEST

MAIN_OF("peers", self_then_near_then_gone, routes_by_model, leaving_is_no_gap, nothing_to_route)
