/* SPDX-License-Identifier: Apache-2.0 */
/* top_print.c - the text of `weft top`, made from a view of top.c. See top.h. */
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "controlplane/cli/top.h"

#define LINE_MAX_BYTES 1024
#define DROPS_SHOWN    32u /* names, most frequent first */

struct page {
    const struct top_format *format;
    FILE *out;
    unsigned lines;
};

/* One line, cut to the width. What is not printable ASCII becomes `?`: names come from the mesh,
 * and terminals obey control characters. */
static void line(struct page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(struct page *page, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list args;
    if (page->format->height != 0 && page->lines == page->format->height) {
        return;
    }
    page->lines++;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t len = strlen(text);
    if (page->format->width != 0 && len > page->format->width) {
        len = page->format->width;
    }
    while (len > 0 && text[len - 1] == ' ') {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    fprintf(page->out, "%.*s%s\n", (int)len, text, page->format->end);
}

/* ---- figures ---- */

struct figure {
    char text[16];
};

/* A figure with as many digits as say something: 0, 0.3, 12.4, 130, 12.3k, 4.56M. */
static struct figure figure_of(const json_t *value)
{
    struct figure f = {"-"};
    double v = json_number_value(value);
    if (!json_is_number(value)) {
        return f;
    }
    if (v >= 1e6) {
        snprintf(f.text, sizeof(f.text), "%.2fM", v / 1e6);
    } else if (v >= 1e4) {
        snprintf(f.text, sizeof(f.text), "%.1fk", v / 1e3);
    } else {
        snprintf(f.text, sizeof(f.text), "%.*f", v > 0 && v < 99.95 ? 1 : 0, v);
    }
    return f;
}

/* The value over `unit`, one decimal. */
static struct figure scaled(const json_t *value, double unit, int decimals)
{
    struct figure f = {"-"};
    if (json_is_number(value)) {
        snprintf(f.text, sizeof(f.text), "%.*f", decimals, json_number_value(value) / unit);
    }
    return f;
}

/* The wait at a member or its workers in ms. */
static struct figure queue_of(const json_t *of)
{
    return json_is_true(json_object_get(of, "draining"))
               ? (struct figure){"draining"}
               : scaled(json_object_get(of, "queue_us"), 1e3, 1);
}

static struct figure uptime(const json_t *seconds)
{
    struct figure f;
    double s = json_number_value(seconds);
    const char *unit = s < 120 ? "s" : s < 7200 ? "m" : s < 172800 ? "h" : "d";
    double per = s < 120 ? 1 : s < 7200 ? 60 : s < 172800 ? 3600 : 86400;
    snprintf(f.text, sizeof(f.text), "%.0f%s", s / per, unit);
    return f;
}

/* The least idle lcore: the one that will be full first. */
static struct figure idle_of(const json_t *lcores)
{
    json_t *least = NULL;
    for (size_t i = 0; i < json_array_size(lcores); i++) {
        json_t *idle = json_object_get(json_array_get(lcores, i), "idle");
        if (json_is_number(idle) &&
            (least == NULL || json_number_value(idle) < json_number_value(least))) {
            least = idle;
        }
    }
    return scaled(least, 0.01, 0);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL && text[0] != '\0' ? text : "-";
}

/* ---- parts ---- */

/* The workers of a node in one line: rooms added up, the shortest queue, all models. Those that
 * take nothing new have no queue. */
static json_t *workers_sum(const json_t *workers)
{
    char models[128] = "";
    json_int_t room = 0;
    json_int_t queue_us = INT64_MAX;
    size_t count = json_array_size(workers);
    for (size_t i = 0; i < count; i++) {
        json_t *worker = json_array_get(workers, i);
        json_int_t wait_us = json_integer_value(json_object_get(worker, "queue_us"));
        size_t used = strlen(models);
        snprintf(models + used, sizeof(models) - used, "%s%s", used != 0 ? ", " : "",
                 text_of(worker, "model"));
        room += json_integer_value(json_object_get(worker, "room"));
        bool drains = json_is_true(json_object_get(worker, "draining"));
        queue_us = !drains && wait_us < queue_us ? wait_us : queue_us;
    }
    return count == 0 ? NULL
                      : json_pack("{s:I, s:I, s:b, s:s}", "room", room, "queue_us", queue_us,
                                  "draining", (int)(queue_us == INT64_MAX), "model", models);
}

static void nodes_print(struct page *page, const json_t *nodes, const json_t *sum)
{
    line(page, "%-14s %5s %7s %7s %7s %7s %7s %7s %5s %5s %8s %7s %6s %s", "NODE", "UP", "MEMBERS",
         "REQ/s", "RECV/s", "RELAY/s", "RETN/s", "DROP/s", "IDLE%", "ROOM", "QUEUE ms", "p99 us",
         "MBUFS", "WORKER");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        json_t *node = json_array_get(nodes, i);
        json_t *rates = json_object_get(node, "rates");
        json_t *residence = json_object_get(json_object_get(node, "stages"), "residence");
        if (json_object_get(node, "error") != NULL) {
            line(page, "%-14s %s", text_of(node, "socket"), text_of(node, "error"));
            continue;
        }
        json_t *worker = workers_sum(json_object_get(node, "workers"));
        char members[16];
        snprintf(members, sizeof(members), "%lld/%zu",
                 (long long)json_integer_value(json_object_get(node, "members_up")),
                 json_array_size(json_object_get(node, "members")));
        line(page, "%-14s %5s %7s %7s %7s %7s %7s %7s %5s %5s %8s %7s %6s %s",
             text_of(node, "node"), uptime(json_object_get(node, "uptime_s")).text, members,
             figure_of(json_object_get(rates, "chosen")).text,
             figure_of(json_object_get(rates, "received")).text,
             figure_of(json_object_get(rates, "relayed")).text,
             figure_of(json_object_get(rates, "returned")).text,
             figure_of(json_object_get(node, "drops_per_s")).text,
             idle_of(json_object_get(node, "lcores")).text,
             scaled(json_object_get(worker, "room"), 1, 0).text, queue_of(worker).text,
             scaled(json_object_get(residence, "p99_ns"), 1e3, 1).text,
             scaled(json_object_get(node, "mbufs_in_use"), 1, 0).text, text_of(worker, "model"));
        json_decref(worker);
    }
    json_t *rates = json_object_get(sum, "rates");
    if (json_array_size(nodes) > 1) {
        line(page, "%-14s %5s %7s %7s %7s %7s %7s %7s %5s %5s", "sum", "", "",
             figure_of(json_object_get(rates, "chosen")).text,
             figure_of(json_object_get(rates, "received")).text,
             figure_of(json_object_get(rates, "relayed")).text,
             figure_of(json_object_get(rates, "returned")).text,
             figure_of(json_object_get(sum, "drops_per_s")).text, "",
             scaled(json_object_get(sum, "room"), 1, 0).text);
    }
}

static void drops_print(struct page *page, json_t *drops)
{
    const char *done[DROPS_SHOWN];
    unsigned shown = 0;
    line(page, "%s", "");
    line(page, "drops/s by reason%s", json_object_size(drops) == 0 ? ": none" : "");
    while (shown < DROPS_SHOWN) {
        const char *most = NULL;
        double rate = 0;
        const char *name;
        json_t *value;
        json_object_foreach(drops, name, value)
        {
            bool seen = false;
            for (unsigned i = 0; i < shown; i++) {
                seen |= done[i] == name;
            }
            if (!seen && json_number_value(value) > rate) {
                most = name;
                rate = json_number_value(value);
            }
        }
        if (most == NULL) {
            break;
        }
        line(page, "  %-20s %8s", most, figure_of(json_object_get(drops, most)).text);
        done[shown++] = most;
    }
}

/* As the first node that answers sees them: their load is the same from everywhere, the way to
 * them is not. */
static void members_print(struct page *page, const json_t *nodes)
{
    json_t *node = NULL;
    for (size_t i = 0; i < json_array_size(nodes) && node == NULL; i++) {
        json_t *candidate = json_array_get(nodes, i);
        node = json_object_get(candidate, "error") == NULL ? candidate : NULL;
    }
    json_t *members = json_object_get(node, "members");
    if (json_array_size(members) == 0) {
        return;
    }
    line(page, "%s", "");
    line(page, "members seen from %s", text_of(node, "node"));
    line(page, "  %-20s %-5s %4s %8s %5s %9s %-8s %s", "NAME", "STATE", "TIER", "RTT ms", "ROOM",
         "QUEUE ms", "BACKEND", "MODELS");
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *m = json_array_get(members, i);
        json_t *models = json_object_get(m, "models");
        bool self = strcmp(text_of(m, "name"), text_of(node, "node")) == 0;
        const char *first = json_string_value(json_array_get(models, 0));
        line(page, "  %-20s %-5s %4s %8s %5s %9s %-8s %s%s", text_of(m, "name"),
             self                                        ? "self"
             : json_is_true(json_object_get(m, "alive")) ? "up"
                                                         : "down",
             scaled(json_object_get(m, "tier"), 1, 0).text,
             scaled(json_object_get(m, "rtt_us"), 1e3, 2).text,
             scaled(json_object_get(m, "room"), 1, 0).text, queue_of(m).text, text_of(m, "backend"),
             first != NULL ? first : "-", json_array_size(models) > 1 ? ", ..." : "");
    }
}

void top_print(const json_t *view, const struct top_format *format, FILE *out)
{
    struct page page = {.format = format, .out = out};
    json_t *nodes = json_object_get(view, "nodes");
    json_t *sum = json_object_get(view, "sum");
    nodes_print(&page, nodes, sum);
    drops_print(&page, json_object_get(sum, "drops"));
    members_print(&page, nodes);
}
