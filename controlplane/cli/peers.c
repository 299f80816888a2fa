/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "controlplane/cli/peers.h"

#include <string.h>

#include "controlplane/cli/node.h"
#include "controlplane/cli/query.h"

#define MODELS_MAX 1024u /* of a whole mesh, shown */

static double number_of(const json_t *object, const char *key, double none)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : none;
}

/* ---- peers ---- */

/* Smaller stands before larger: oneself, those alive by their way, the others by name. */
static double rank_of(const json_t *member, const char *self)
{
    if (strcmp(node_text(member, "name", ""), self) == 0) {
        return -1.0;
    }
    bool alive = json_is_true(json_object_get(member, "alive"));
    return alive ? number_of(member, "rtt_us", 1e9) : 1e12;
}

static bool goes_before(const json_t *a, const json_t *b, const char *self)
{
    double left = rank_of(a, self);
    double right = rank_of(b, self);
    if (left < right || left > right) {
        return left < right;
    }
    return strcmp(node_text(a, "name", ""), node_text(b, "name", "")) < 0;
}

json_t *peers_list(const json_t *status)
{
    const json_t *members = json_object_get(status, "members");
    const char *self = node_text(status, "node", "?");
    json_t *peers = json_array();
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *member = json_array_get(members, i);
        size_t place = 0;
        while (place < json_array_size(peers) &&
               !goes_before(member, json_array_get(peers, place), self)) {
            place++;
        }
        json_array_insert(peers, place, member);
    }
    return json_pack("{s:s, s:s, s:o}", "node", self, "membership",
                     node_text(status, "membership", "static"), "peers", peers);
}

/* A time in milliseconds as people say it. */
static const char *ago_text(const json_t *member, const char *key, char out[16])
{
    double ms = number_of(member, key, -1);
    if (ms < 0) {
        return "-";
    }
    if (ms < 10e3) {
        snprintf(out, 16, "%.1f s", ms / 1e3);
    } else if (ms < 120e3) {
        snprintf(out, 16, "%.0f s", ms / 1e3);
    } else if (ms < 7200e3) {
        snprintf(out, 16, "%.0f min", ms / 60e3);
    } else {
        snprintf(out, 16, "%.0f h", ms / 3600e3);
    }
    return out;
}

/* Behind the model's name: tokens a second of prompts and of an answer, if it has told. */
static void speed_print(FILE *out, const json_t *peer, const char *model)
{
    const json_t *speeds = json_object_get(peer, "speeds");
    for (size_t i = 0; i < json_array_size(speeds); i++) {
        const json_t *s = json_array_get(speeds, i);
        if (strcmp(node_text(s, "model", ""), model) == 0) {
            fprintf(out, "(%.0f/%.0f)", number_of(s, "prefill_tps", 0),
                    number_of(s, "decode_tps", 0));
        }
    }
}

static void models_print(FILE *out, const json_t *peer)
{
    const json_t *models = json_object_get(peer, "models");
    for (size_t i = 0; i < json_array_size(models); i++) {
        const char *name = json_string_value(json_array_get(models, i));
        fprintf(out, "%s%s", i > 0 ? "," : "", name != NULL ? name : "?");
        speed_print(out, peer, name != NULL ? name : "");
    }
    fputs(json_array_size(models) == 0 ? "-\n" : "\n", out);
}

static void peer_print(FILE *out, const json_t *peer, bool self)
{
    char rtt[24] = "-";
    char place[40];
    char age[16];
    char since[16];
    double rtt_us = number_of(peer, "rtt_us", -1);
    if (rtt_us >= 0) {
        snprintf(rtt, sizeof(rtt), "%s%.2f",
                 json_is_true(json_object_get(peer, "rtt_estimated")) ? "~" : "", rtt_us / 1e3);
    }
    snprintf(place, sizeof(place), "%.2f,%.2f%s", number_of(peer, "latitude_deg", 0),
             number_of(peer, "longitude_deg", 0),
             json_is_true(json_object_get(peer, "place_doubted")) ? "?" : "");
    fprintf(out, "%-20s %5.0f  %-7s %7s  %9s %7s %5.0f  %4.0f  %-16s %-16s %14.0f  ",
            node_text(peer, "name", "?"), number_of(peer, "id", 0),
            self ? "self" : node_text(peer, "state", "?"), ago_text(peer, "state_ms_ago", since),
            rtt, self ? "-" : ago_text(peer, "heard_ms_ago", age), number_of(peer, "room", 0),
            number_of(peer, "tier", 0), place, node_text(peer, "address", "?"),
            number_of(peer, "incarnation", 0));
    models_print(out, peer);
}

void peers_print(FILE *out, const json_t *list)
{
    const json_t *peers = json_object_get(list, "peers");
    const char *self = node_text(list, "node", "?");
    size_t alive = 0;
    bool doubted = false;
    bool estimated = false;
    for (size_t i = 0; i < json_array_size(peers); i++) {
        const json_t *peer = json_array_get(peers, i);
        alive += json_is_true(json_object_get(peer, "alive")) ? 1 : 0;
        doubted |= json_is_true(json_object_get(peer, "place_doubted"));
        estimated |= json_is_true(json_object_get(peer, "rtt_estimated"));
    }
    fprintf(out, "%s: %zu of %zu members alive, by %s\n", self, alive, json_array_size(peers),
            strcmp(node_text(list, "membership", ""), "gossip") == 0 ? "gossip"
                                                                     : "the configuration");
    fprintf(out, "%-20s %5s  %-7s %7s  %9s %7s %5s  %4s  %-16s %-16s %14s  %s\n", "name", "id",
            "state", "since", "rtt ms", "load", "room", "tier", "place", "address", "incarnation",
            "models (prompt/answer tokens/s)");
    for (size_t i = 0; i < json_array_size(peers); i++) {
        const json_t *peer = json_array_get(peers, i);
        peer_print(out, peer, strcmp(node_text(peer, "name", ""), self) == 0);
    }
    fputs(estimated ? "~ not measured: by coordinates, or by the distance\n" : "", out);
    fputs(doubted ? "? light could not be there and back in the time measured: that place, or this "
                    "node's own, is not where it is said to be\n"
                  : "",
          out);
}

/* ---- routes ---- */

/* The names of all models that somebody alive has, each once, sorted. */
static json_t *models_list(const json_t *status)
{
    const json_t *members = json_object_get(status, "members");
    json_t *names = json_array();
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *models = json_object_get(json_array_get(members, i), "models");
        for (size_t j = 0; j < json_array_size(models) && json_array_size(names) < MODELS_MAX;
             j++) {
            const char *name = json_string_value(json_array_get(models, j));
            size_t place = 0;
            int order = 1;
            while (name != NULL && place < json_array_size(names) &&
                   (order = strcmp(json_string_value(json_array_get(names, place)), name)) < 0) {
                place++;
            }
            if (name != NULL && (place == json_array_size(names) || order != 0)) {
                json_array_insert_new(names, place, json_string(name));
            }
        }
    }
    return names;
}

/* Of those that have the model: who can take a plain request for it, and what bars the others. */
static json_t *route_of(const json_t *status, const char *model, char *why)
{
    struct query query;
    query_init(&query);
    query.k = QUERY_K_MAX;
    snprintf(query.model, sizeof(query.model), "%s", model);
    json_t *answer = query_answer(&query, status, why);
    if (answer == NULL) {
        return NULL;
    }
    const json_t *excluded = json_object_get(answer, "excluded");
    json_t *barred = json_array();
    for (size_t i = 0; i < json_array_size(excluded); i++) {
        json_t *one = json_array_get(excluded, i);
        const char *verdict = node_text(one, "verdict", "");
        if (strcmp(verdict, "model") != 0 && strcmp(verdict, "down") != 0 &&
            strcmp(verdict, "left") != 0) {
            json_array_append(barred, one);
        }
    }
    json_t *route = json_pack("{s:s, s:O, s:O, s:o}", "model", model, "candidates",
                              json_object_get(answer, "candidates"), "would_choose",
                              json_object_get(answer, "would_choose"), "barred", barred);
    json_decref(answer);
    return route;
}

json_t *routes_list(const json_t *status, char *why)
{
    json_t *routes = json_array();
    json_t *models = models_list(status);
    for (size_t i = 0; i < json_array_size(models); i++) {
        json_t *route = route_of(status, json_string_value(json_array_get(models, i)), why);
        if (route == NULL) {
            json_decref(models);
            json_decref(routes);
            return NULL;
        }
        json_array_append_new(routes, route);
    }
    json_decref(models);
    return json_pack("{s:s, s:o}", "node", node_text(status, "node", "?"), "routes", routes);
}

static void candidate_print(FILE *out, const json_t *route, size_t at)
{
    const json_t *c = json_array_get(json_object_get(route, "candidates"), at);
    bool chosen = strcmp(node_text(c, "name", ""), node_text(route, "would_choose", "")) == 0;
    fprintf(out, "  %-3zu %-20s %5.0f  %4.0f %9.0f %14.1f %5.0f %9.1f%s\n", at + 1,
            node_text(c, "name", "?"), number_of(c, "id", 0), number_of(c, "tier", 0),
            number_of(c, "distance_km", 0), number_of(c, "predicted_ms", 0),
            number_of(c, "room", 0), number_of(c, "queue_ms", 0), chosen ? "  <- chosen" : "");
}

void routes_print(FILE *out, const json_t *list)
{
    const json_t *routes = json_object_get(list, "routes");
    if (json_array_size(routes) == 0) {
        fprintf(out, "no member that %s knows has a model\n", node_text(list, "node", "?"));
    }
    for (size_t i = 0; i < json_array_size(routes); i++) {
        const json_t *route = json_array_get(routes, i);
        const json_t *barred = json_object_get(route, "barred");
        size_t count = json_array_size(json_object_get(route, "candidates"));
        fprintf(out, "%s: %zu node%s from %s\n", node_text(route, "model", "?"), count,
                count == 1 ? "" : "s", node_text(list, "node", "?"));
        if (count > 0) {
            fprintf(out, "      %-20s %5s  %4s %9s %14s %5s %9s\n", "node", "id", "tier", "km",
                    "first token ms", "room", "queue ms");
        }
        for (size_t j = 0; j < count; j++) {
            candidate_print(out, route, j);
        }
        for (size_t j = 0; j < json_array_size(barred); j++) {
            const json_t *one = json_array_get(barred, j);
            fprintf(out, "  not %-20s %5.0f  %s\n", node_text(one, "name", "?"),
                    number_of(one, "id", 0), node_text(one, "text", ""));
        }
    }
}
