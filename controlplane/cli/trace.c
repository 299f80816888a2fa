/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c - see trace.h. */
#include "controlplane/cli/trace.h"

#include <math.h>
#include <string.h>

#include "controlplane/cli/node.h"
#include "controlplane/cli/report.h"
#include "dataplane/route/choose.h"
#include "schemas/tags.def"

#define WHY_MAX 200u

static double number_at(const json_t *object, const char *key, double none)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : none;
}

static const json_t *named(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (strcmp(node_text(entry, "name", ""), name) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* ---- the request ---- */

static void tags_write(uint32_t tags, char out[TRACE_TAGS_MAX])
{
    size_t used = 0;
    out[0] = '\0';
#define TAG_WRITE_(name, bit, words)                                                               \
    if ((tags & (UINT32_C(1) << (bit))) != 0 && used < TRACE_TAGS_MAX) {                           \
        used +=                                                                                    \
            (size_t)snprintf(out + used, TRACE_TAGS_MAX - used, "%s" #name, used > 0 ? "," : "");  \
    }
    WEFT_TAGS(TAG_WRITE_)
}

void trace_request(const struct query *query, struct trace_words *words, weft_query_t *out)
{
    tags_write(query->tags, words->tags);
    words->more = (weft_query_more_t){
        .jurisdiction = query->land_count == 1 ? query->lands[0] : NULL,
    };
    *out = (weft_query_t){
        .model = query->model,
        .max_tokens = query->max_tokens > 0 ? query->max_tokens : 1,
        .has_tiers = true,
        .tier_min = query->tier_min,
        .tier_max = query->tier_max,
        .radius_km = query->radius_km,
        .vram_mib = query->vram_mib,
        .budget_ms = query->budget_us != WEFT_BUDGET_NONE ? (query->budget_us + 999) / 1000 : 0,
        .end_to_end = query->end_to_end && query->budget_us != WEFT_BUDGET_NONE,
        .tags = words->tags[0] != '\0' ? words->tags : NULL,
        .more = &words->more,
        .has_position = query->has_near,
        .latitude_deg = query->near_latitude_deg,
        .longitude_deg = query->near_longitude_deg,
        .once = true, /* what is shown is one way, not the second attempt after it */
    };
}

/* ---- why ---- */

/* The candidate of the nearest ROUTE_TOP_K that is predicted to be soonest. */
static const json_t *soonest(const json_t *candidates)
{
    const json_t *best = NULL;
    for (size_t i = 0; i < json_array_size(candidates) && i < ROUTE_TOP_K; i++) {
        const json_t *c = json_array_get(candidates, i);
        double ms = number_at(c, "predicted_ms", 0);
        best = best == NULL || ms < number_at(best, "predicted_ms", 0) ? c : best;
    }
    return best;
}

/* The rule of choose.h, applied to what it was given. */
static json_t *why_chosen(const json_t *answer)
{
    const json_t *candidates = json_object_get(answer, "candidates");
    const json_t *chosen = named(candidates, node_text(answer, "would_choose", ""));
    const json_t *nearest = json_array_get(candidates, 0);
    const json_t *best = soonest(candidates);
    char text[WHY_MAX];
    if (chosen == NULL) {
        const char *binding = node_text(answer, "binding", NULL);
        snprintf(text, sizeof(text), "nobody can take it%s%s",
                 binding != NULL ? "; what binds: " : "", binding != NULL ? binding : "");
        return json_string(text);
    }
    double ms = number_at(chosen, "predicted_ms", 0);
    double best_ms = number_at(best, "predicted_ms", 0);
    double cached = number_at(chosen, "cached_tokens", 0);
    if (cached > 0 && json_array_size(candidates) > 1) {
        snprintf(text, sizeof(text),
                 "it has %.0f tokens of the prompt from before, which saves %.1f ms", cached,
                 number_at(chosen, "saved_ms", 0));
    } else if (json_array_size(candidates) == 1) {
        snprintf(text, sizeof(text), "the only one that can take it");
    } else if (chosen == nearest && chosen == best) {
        snprintf(text, sizeof(text), "the nearest, and nobody near is predicted to be sooner");
    } else if (chosen == nearest) {
        snprintf(text, sizeof(text),
                 "the nearest; %.32s is predicted to be %.1f ms sooner, which is not worth going "
                 "farther",
                 node_text(best, "name", "?"), ms - best_ms);
    } else if (chosen == best) {
        snprintf(text, sizeof(text), "predicted to be %.1f ms sooner than the nearest, %.32s",
                 number_at(nearest, "predicted_ms", 0) - ms, node_text(nearest, "name", "?"));
    } else {
        snprintf(text, sizeof(text),
                 "the nearest of those predicted to be about as soon as the soonest, %.32s (%.1f "
                 "against %.1f ms)",
                 node_text(best, "name", "?"), ms, best_ms);
    }
    return json_string(text);
}

/* ---- what became of it ---- */

static void hop_between(json_t *hops, const char *from, const char *to, const char *what, double ms)
{
    json_array_append_new(
        hops, json_pack("{s:s, s:s, s:s, s:f}", "from", from, "to", to, "what", what, "ms", ms));
}

static void hop_at(json_t *hops, const char *at, const char *what, uint64_t us)
{
    json_array_append_new(
        hops, json_pack("{s:s, s:s, s:f}", "at", at, "what", what, "ms", (double)us / 1e3));
}

/* The sum of all is the request's time. The worker's is known, and what probes measured of the way
 * to it; the rest is the client's way to the ingress. */
static json_t *hops_of(const json_t *status, const weft_result_t *r, const char *node)
{
    const char *ingress = node_text(status, "node", "?");
    const json_t *member = named(json_object_get(status, "members"), node);
    json_t *hops = json_array();
    double net_ms = (double)r->net_us / 1e3;
    bool elsewhere = strcmp(node, ingress) != 0;
    double way_ms = elsewhere ? fmin(number_at(member, "rtt_us", 0) / 1e3, net_ms) : 0;
    hop_between(hops, "client", ingress, "client, ingress and packet paths", net_ms - way_ms);
    if (elsewhere) {
        bool guessed = json_is_true(json_object_get(member, "rtt_estimated"));
        hop_between(hops, ingress, node,
                    guessed ? "round trip, estimated" : "round trip as probes measure it", way_ms);
    }
    hop_at(hops, node, "queue", r->queue_us);
    hop_at(hops, node, "prompt", r->prefill_us);
    hop_at(hops, node, "answer", r->decode_us);
    return hops;
}

/* Not the one that this node's status lets expect: why that may be. */
static const char *other_why(const json_t *answer, const char *served)
{
    const json_t *candidates = json_object_get(answer, "candidates");
    const json_t *expected = named(candidates, node_text(answer, "would_choose", ""));
    const json_t *other = named(candidates, served);
    if (expected == NULL || other == NULL) {
        return "what the ingress knows has changed meanwhile";
    }
    double cells = number_at(other, "distance_cells", 0) - number_at(expected, "distance_cells", 0);
    return fabs(cells) <= ROUTE_NEAR_CELLS
               ? "a near-equal: one of two, drawn by the request's lot"
               : "the ingress counts what it has sent, which its status does not show";
}

static json_t *request_of(const json_t *status, const json_t *answer, const weft_result_t *result)
{
    char node[sizeof(result->node) + 1];
    json_t *request = report_json(result, "", 0);
    const json_t *expected =
        named(json_object_get(answer, "candidates"), node_text(answer, "would_choose", ""));
    if (request == NULL) {
        return json_null();
    }
    snprintf(node, sizeof(node), "%.*s", (int)sizeof(result->node), node_text(request, "node", ""));
    json_object_del(request, "text");
    json_object_set_new(request, "accepted_ms",
                        result->accepted_us > 0 ? json_real((double)result->accepted_us / 1e3)
                                                : json_null());
    json_object_set_new(request, "predicted_ms",
                        expected != NULL ? json_real(number_at(expected, "predicted_ms", 0))
                                         : json_null());
    if (node[0] != '\0') {
        bool as_expected = strcmp(node, node_text(answer, "would_choose", "")) == 0;
        json_object_set_new(request, "as_expected", json_boolean(as_expected));
        json_object_set_new(request, "hops", hops_of(status, result, node));
        if (!as_expected) {
            json_object_set_new(request, "other_why", json_string(other_why(answer, node)));
        }
    }
    return request;
}

/* ---- the account ---- */

static json_t *ingress_of(const json_t *status, const char *by)
{
    const char *node = node_text(status, "node", "?");
    const json_t *self = named(json_object_get(status, "members"), node);
    const json_t *residence = json_object_get(json_object_get(status, "stages"), "residence");
    return json_pack("{s:s, s:O?, s:O?, s:s?, s:O?, s:O?, s:O?, s:O?}", "node", node, "id",
                     json_object_get(self, "id"), "tier", json_object_get(self, "tier"), "by", by,
                     "table_epoch", json_object_get(status, "table_epoch"), "membership",
                     json_object_get(status, "membership"), "uptime_s",
                     json_object_get(status, "uptime_s"), "residence_p50_ns",
                     json_object_get(residence, "p50_ns"));
}

json_t *trace_account(const json_t *status, const json_t *answer, const weft_result_t *result,
                      const char *by)
{
    json_t *account = json_copy((json_t *)(uintptr_t)answer);
    json_object_set_new(account, "ingress", ingress_of(status, by));
    json_object_set_new(account, "why", why_chosen(answer));
    json_object_set_new(account, "request",
                        result != NULL ? request_of(status, answer, result) : json_null());
    return account;
}

/* ---- for people ---- */

static void hops_print(FILE *out, const json_t *hops)
{
    for (size_t i = 0; i < json_array_size(hops); i++) {
        const json_t *hop = json_array_get(hops, i);
        char place[80];
        if (json_object_get(hop, "at") != NULL) {
            snprintf(place, sizeof(place), "%.31s", node_text(hop, "at", "?"));
        } else {
            snprintf(place, sizeof(place), "%.31s - %.31s", node_text(hop, "from", "?"),
                     node_text(hop, "to", "?"));
        }
        fprintf(out, "  %-36s %9.1f ms  %s\n", place, number_at(hop, "ms", 0),
                node_text(hop, "what", ""));
    }
}

static void request_print(FILE *out, const json_t *request)
{
    const char *node = node_text(request, "node", NULL);
    if (node == NULL) {
        fprintf(out, "refused   %s\n", node_text(request, "status_text", "?"));
        return;
    }
    bool served = strcmp(node_text(request, "status", ""), "ok") == 0;
    bool as_expected = json_is_true(json_object_get(request, "as_expected"));
    fprintf(out, "%s %s%s%s\n", served ? "served   " : "failed at", node,
            as_expected ? ", as expected" : ", not as expected: ",
            as_expected ? "" : node_text(request, "other_why", ""));
    if (!served) {
        fprintf(out, "          %s\n", node_text(request, "status_text", "?"));
    }
    hops_print(out, json_object_get(request, "hops"));
    fprintf(out, "  %-36s %9.1f ms  first token after %.1f ms", "all of it",
            number_at(request, "total_ms", 0), number_at(request, "first_token_ms", 0));
    if (json_is_number(json_object_get(request, "predicted_ms"))) {
        fprintf(out, ", predicted %.1f ms", number_at(request, "predicted_ms", 0));
    }
    fputc('\n', out);
}

void trace_print(FILE *out, const json_t *account)
{
    const json_t *ingress = json_object_get(account, "ingress");
    const json_t *request = json_object_get(account, "request");
    const char *by = node_text(ingress, "by", NULL);
    fprintf(out, "ingress   %s (id %.0f, tier %.0f)%s%s; table %.0f",
            node_text(ingress, "node", "?"), number_at(ingress, "id", 0),
            number_at(ingress, "tier", 0), by != NULL ? " by " : "", by != NULL ? by : "",
            number_at(ingress, "table_epoch", 0));
    double residence_ns = number_at(ingress, "residence_p50_ns", 0);
    if (residence_ns > 0) {
        fprintf(out, "; its packet path takes %.1f us a burst", residence_ns / 1e3);
    }
    fputc('\n', out);
    query_print(out, account);
    const char *chosen = node_text(account, "would_choose", NULL);
    fprintf(out, "chosen    %s%s%s\n", chosen != NULL ? chosen : "", chosen != NULL ? ": " : "",
            node_text(account, "why", ""));
    if (json_is_object(request)) {
        request_print(out, request);
    }
}
