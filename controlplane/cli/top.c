/* SPDX-License-Identifier: Apache-2.0 */
/* top.c - see top.h: answers to a view. top_print.c shows it. */
#include "controlplane/cli/top.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/clock.h"
#include "schemas/metrics.def"

struct top_node {
    const char *socket;
    json_t *status; /* NULL: did not answer */
    json_t *before; /* the answer before it, or NULL */
    uint64_t at_ns;
    uint64_t before_ns;
    int error;
};

struct top {
    unsigned count;
    struct top_node nodes[TOP_NODES_MAX];
};

struct top *top_create(const char *const *sockets, unsigned count)
{
    struct top *top = count <= TOP_NODES_MAX ? calloc(1, sizeof(*top)) : NULL;
    if (top == NULL) {
        return NULL;
    }
    top->count = count;
    for (unsigned i = 0; i < count; i++) {
        top->nodes[i].socket = sockets[i];
    }
    return top;
}

void top_destroy(struct top *top)
{
    if (top == NULL) {
        return;
    }
    for (unsigned i = 0; i < top->count; i++) {
        json_decref(top->nodes[i].status);
        json_decref(top->nodes[i].before);
    }
    free(top);
}

void top_feed(struct top *top, unsigned index, json_t *status, int error, uint64_t now_ns)
{
    struct top_node *node = &top->nodes[index];
    json_decref(node->before);
    node->before = node->status; /* NULL after a failure: rates begin anew */
    node->before_ns = node->at_ns;
    node->status = status;
    node->at_ns = now_ns;
    node->error = error;
}

/* ---- rates ---- */

static double seconds_of(const struct top_node *node)
{
    return (double)(node->at_ns - node->before_ns) / (double)NS_PER_S;
}

/* Per second, or -1 if it cannot be known. Either value may be NULL. */
static double rate_of(const struct top_node *node, const json_t *now, const json_t *before)
{
    double seconds = seconds_of(node);
    if (!json_is_number(now) || !json_is_number(before) || !(seconds > 0)) {
        return -1;
    }
    double rise = json_number_value(now) - json_number_value(before);
    return (rise >= 0 ? rise : json_number_value(now)) / seconds;
}

static json_t *rate_json(double rate)
{
    return rate >= 0 ? json_real(rate) : json_null();
}

/* Rates of the numbers in an object; with `nonzero` only of those that rise. */
static json_t *rates_json(const struct top_node *node, json_t *now, const json_t *before,
                          bool nonzero)
{
    json_t *rates = json_object();
    const char *name;
    json_t *value;
    json_object_foreach(now, name, value)
    {
        double rate = rate_of(node, value, json_object_get(before, name));
        if (json_is_number(value) && (!nonzero || rate > 0)) {
            json_object_set_new(rates, name, rate_json(rate));
        }
    }
    return rates;
}

static double total_of(json_t *rates)
{
    double total = 0;
    const char *name;
    json_t *value;
    json_object_foreach(rates, name, value)
    {
        total += json_number_value(value);
    }
    return total;
}

/* ---- a node ---- */

static json_t *lcores_json(const struct top_node *node)
{
    json_t *lcores = json_array();
    json_t *now = json_object_get(node->status, "lcores");
    json_t *before = json_object_get(node->before, "lcores");
    for (size_t i = 0; i < json_array_size(now); i++) {
        json_t *a = json_array_get(now, i);
        json_t *b = json_array_get(before, i);
        double busy =
            rate_of(node, json_object_get(a, "busy_ns"), json_object_get(b, "busy_ns")) / 1e9;
        json_array_append_new(
            lcores, json_pack("{s:o, s:o}", "received_per_s",
                              rate_json(rate_of(node, json_object_get(a, "received"),
                                                json_object_get(b, "received"))),
                              "idle", busy < 0 ? json_null() : json_real(busy < 1 ? 1 - busy : 0)));
    }
    return lcores;
}

static void copy_members(json_t *out, json_t *status)
{
    json_t *members = json_object_get(status, "members");
    size_t up = 0;
    for (size_t i = 0; i < json_array_size(members); i++) {
        up += json_is_true(json_object_get(json_array_get(members, i), "alive")) ? 1 : 0;
    }
    json_object_set(out, "members", members);
    json_object_set_new(out, "members_up", json_integer((json_int_t)up));
}

static json_t *node_json(const struct top_node *node)
{
    static const char *const copied[] = {"node",
                                         "version",
                                         "uptime_s",
                                         "workers",
                                         "stages",
#define METRIC_NAME_(name, kind, unit, text) #name,
                                         WEFT_METRICS_NODE(METRIC_NAME_)
#undef METRIC_NAME_
    };
    json_t *out = json_object();
    json_object_set_new(out, "socket", json_string(node->socket));
    if (node->status == NULL) {
        json_object_set_new(out, "error", json_string(strerror(-node->error)));
        return out;
    }
    for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++) {
        json_object_set(out, copied[i], json_object_get(node->status, copied[i]));
    }
    copy_members(out, node->status);
    json_t *now = json_object_get(node->status, "counters");
    json_t *before = json_object_get(node->before, "counters");
    json_t *drops =
        rates_json(node, json_object_get(now, "drops"), json_object_get(before, "drops"), true);
    json_object_set_new(out, "rates", rates_json(node, now, before, false));
    json_object_set_new(out, "drops_per_s",
                        node->before != NULL ? json_real(total_of(drops)) : json_null());
    json_object_set_new(out, "drops", drops);
    json_object_set_new(out, "lcores", lcores_json(node));
    return out;
}

/* ---- the sum ---- */

static void sum_add(json_t *sum, json_t *rates)
{
    const char *name;
    json_t *value;
    json_object_foreach(rates, name, value)
    {
        if (json_is_number(value)) {
            double so_far = json_number_value(json_object_get(sum, name));
            json_object_set_new(sum, name, json_real(so_far + json_number_value(value)));
        }
    }
}

static json_t *sum_json(const struct top *top, json_t *nodes)
{
    json_t *rates = json_object();
    json_t *drops = json_object();
    json_int_t room = 0;
    int answering = 0;
    for (unsigned i = 0; i < top->count; i++) {
        json_t *node = json_array_get(nodes, i);
        answering += top->nodes[i].status != NULL ? 1 : 0;
        sum_add(rates, json_object_get(node, "rates"));
        sum_add(drops, json_object_get(node, "drops"));
        json_t *workers = json_object_get(node, "workers");
        for (size_t j = 0; j < json_array_size(workers); j++) {
            room += json_integer_value(json_object_get(json_array_get(workers, j), "room"));
        }
    }
    return json_pack("{s:i, s:i, s:o, s:f, s:o, s:I}", "asked", (int)top->count, "answering",
                     answering, "rates", rates, "drops_per_s", total_of(drops), "drops", drops,
                     "room", room);
}

json_t *top_view(const struct top *top)
{
    json_t *nodes = json_array();
    for (unsigned i = 0; i < top->count; i++) {
        json_array_append_new(nodes, node_json(&top->nodes[i]));
    }
    json_t *sum = sum_json(top, nodes);
    return json_pack("{s:o, s:o}", "nodes", nodes, "sum", sum);
}
