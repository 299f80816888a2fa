/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.h - what the dashboard is told: who served how much, the last answers, and of everything
 * that /metrics tells what has changed since the last event. Pure: no clock, no socket; live_io.c
 * has the viewers. One thread.
 *
 * struct live counts all the time and costs a few additions for each answer. struct live_view is
 * the one aggregation that all viewers share: it remembers what was told last and is only kept
 * while somebody watches. Whatever an event says is read from the same places as /metrics, so both
 * say the same at the same moment.
 *
 * An event is one JSON object. Sections that have not changed are left out of it:
 *   seq, at_ms (Unix), full (forget what you know), age_ms (of what the node said; null = unknown),
 *   mesh {node, version, membership, error}, gateway {gauges, totals}, models [counters of each],
 *   served [counters of each node that served], recent {quantiles}, counters, drops (of the node),
 *   workers [figures of each at the node, in the status answer's units],
 *   members [those that changed], gone [names], log [answers that ended, oldest first]
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/figures.h"

#define LIVE_NODES_MAX 256u /* that have served; the last is `other` */
#define LIVE_LINES_MAX 512u /* answers remembered; quantiles are of these */
#define LIVE_LOG_MAX   64u  /* of them in one event */

/* An answer that is over. Nothing of the prompt or the text. */
struct live_line {
    uint64_t at_ms; /* Unix */
    char model[FIGURES_NAME_MAX];
    weft_result_t result;
};

/* Of each node that served; "" = answers that nobody served. */
#define LIVE_NODE_COUNTERS(COUNTER)                                                                \
    COUNTER(answers, "weft_gateway_node_answers_total", "answers that are over")                   \
    COUNTER(whole, "weft_gateway_node_whole_total", "answers that are whole")                      \
    COUNTER(prompt_tokens, "weft_gateway_node_prompt_tokens_total", "tokens of prompts")           \
    COUNTER(cached_tokens, "weft_gateway_node_cached_tokens_total", "of them known already")       \
    COUNTER(new_tokens, "weft_gateway_node_generation_tokens_total", "tokens delivered")

struct live_node {
    char name[32];
#define FIELD_(field, ...) uint64_t field;
    LIVE_NODE_COUNTERS(FIELD_)
#undef FIELD_
};

struct live {
    uint64_t lines_count; /* so many ever; the last LIVE_LINES_MAX are kept */
    struct live_line lines[LIVE_LINES_MAX];
    uint32_t node_count;
    struct live_node nodes[LIVE_NODES_MAX];
};

/* An answer of the mesh is over. */
void live_answer(struct live *live, uint64_t unix_ms, const char *model,
                 const weft_result_t *result);

/* Quantiles of the answers that are remembered and whole. */
#define LIVE_QUANTILES 4u
#define LIVE_RECENTS   3u
extern const double live_quantiles[LIVE_QUANTILES];
struct live_recent {
    const char *name;
    const char *metric;
    const char *text;
    uint32_t count; /* of values; 0 = no quantiles */
    uint64_t us[LIVE_QUANTILES];
};
void live_recent(const struct live *live, struct live_recent out[LIVE_RECENTS]);

/* What only this file counts, for /metrics. */
void live_write_metrics(const struct live *live, struct buf *out);

/* Where everything comes from that an event tells. */
struct live_sources {
    const struct live *live;
    const struct figures *figures;
    json_t *status;    /* the node's, NULL = unknown */
    const char *error; /* why it is; "" = there is nobody to ask */
    uint64_t status_age_ms;
    uint64_t unix_ms;
};

enum live_section {
    LIVE_MESH,
    LIVE_GATEWAY,
    LIVE_MODELS,
    LIVE_RECENT,
    LIVE_WORKERS,
    LIVE_COUNTERS,
    LIVE_DROPS,
    LIVE_SECTIONS
};

struct live_view {
    uint64_t seq;
    json_t *status;                     /* of the last event; a reference */
    json_t *members;                    /* {name: what was told} */
    struct buf sections[LIVE_SECTIONS]; /* what was told */
    uint64_t answers_told[LIVE_NODES_MAX];
    uint64_t lines_told;
};

/* A view begins as zeros. Forgets and frees everything. */
void live_view_reset(struct live_view *view);

/* Brings the view up to the sources' moment and adds an event with what has changed (perhaps
 * nothing), as a server-sent event. Returns whether anything has. */
bool live_view_step(struct live_view *view, const struct live_sources *from, struct buf *out);

/* Adds an event with all that the view knows: for somebody who has seen none, or lost some. */
void live_view_whole(const struct live_view *view, const struct live_sources *from,
                     struct buf *out);
