/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query.h - one question to the mesh: which nodes can take such a request, in what order, and what
 * bars each of the others. Answered from the members that one node knows (its status answer), with
 * the packet path's own filters, ranks and predictions (dataplane/route), so that the answer is
 * what that node would do. Used by cmd_query.c. Pure; no I/O.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <weft/wire.h>

#define QUERY_K_DEFAULT 8u
#define QUERY_K_MAX     4096u
#define QUERY_WHY_MAX   160u
#define QUERY_LANDS_MAX 8u /* jurisdictions of a query */

struct query {
    char model[WEFT_MODEL_NAME_MAX]; /* "" = not given */
    bool has_near;                   /* else the node's own place */
    double near_latitude_deg, near_longitude_deg;
    uint32_t radius_km; /* 0 = any */
    uint32_t tier_min, tier_max;
    uint32_t vram_mib;
    uint32_t tags;
    uint32_t land_count; /* 0 = any jurisdiction; else one of these */
    char lands[QUERY_LANDS_MAX][3];
    uint32_t budget_us; /* WEFT_BUDGET_NONE = any */
    bool end_to_end;    /* the budget covers the whole answer */
    uint32_t prompt_bytes;
    uint64_t prefix; /* how the prompt begins (schemas/base/prefix.h); 0 = not known */
    uint32_t max_tokens;
    uint32_t k; /* candidates shown */
};

void query_init(struct query *query);

/*
 * Takes over what an object says; what it does not name stays:
 *   {"model": "m", "near": [50.1, 8.7], "radius_km": 50, "tier": "4-6" | [4, 6] | 5,
 *    "vram_gib": 8 | "vram_mib": 8192, "tags": "eu,gdpr" | ["eu"], "jurisdiction": "DE,FR" |
 * ["DE"], "budget_ms": 50, "e2e": true, "prompt_bytes": 400, "max_tokens": 256, "k": 8}, and
 * instead of prompt_bytes, beside "model", "prompt": "what is asked" and "system": "what stands
 * before it". False: a sentence in `why`, and the query is not to be used.
 */
bool query_read(struct query *query, const json_t *object, char why[QUERY_WHY_MAX]);

/* The prompt is that of a chat with these messages, the first or the second NULL: its length, and
 * how it begins for the query's model. False: too long. */
bool query_prompt(struct query *query, const char *system, const char *user);

/*
 * The answer from a node's status, a new reference; NULL with a sentence in `why`:
 *   node, scope ("local"), query, candidates [{name, id, distance_km, distance_cells, predicted_ms,
 * age_ms, ...}] in rank order, with cached_tokens of the prompt that such a node has, and saved_ms
 * by which it is predicted to be sooner for it, if the query says how the prompt begins; `found`
 * (of which the first k are shown), would_choose, binding (if nobody would be chosen: the
 * constraint that binds), excluded [{name, id, verdict, text}], complete (every member's record is
 * current), not_heard [names], oldest_record_ms.
 */
json_t *query_answer(const struct query *query, const json_t *status, char why[QUERY_WHY_MAX]);

/* The answer for people. */
void query_print(FILE *out, const json_t *answer);
