/* SPDX-License-Identifier: Apache-2.0 */
/* live.c - what is counted, see live.h; live_view.c has the events. */
#include "dataplane/gateway/live.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct live_node *node_of(struct live *live, const char *name)
{
    for (uint32_t i = 0; i < live->node_count; i++) {
        if (strcmp(live->nodes[i].name, name) == 0) {
            return &live->nodes[i];
        }
    }
    if (live->node_count == LIVE_NODES_MAX) {
        return &live->nodes[LIVE_NODES_MAX - 1];
    }
    struct live_node *node = &live->nodes[live->node_count++];
    snprintf(node->name, sizeof(node->name), "%s",
             live->node_count == LIVE_NODES_MAX ? "other" : name);
    return node;
}

void live_answer(struct live *live, uint64_t unix_ms, const char *model,
                 const weft_result_t *result)
{
    struct live_line *line = &live->lines[live->lines_count++ % LIVE_LINES_MAX];
    *line = (struct live_line){.at_ms = unix_ms, .result = *result};
    snprintf(line->model, sizeof(line->model), "%s", model);
    struct live_node *node = node_of(live, result->node);
    node->answers++;
    node->whole += result->status == 0;
    node->prompt_tokens += result->prompt_tokens;
    node->cached_tokens += result->cached_tokens;
    node->new_tokens += result->new_tokens;
}

/* ---- quantiles ---- */

const double live_quantiles[LIVE_QUANTILES] = {.5, .9, .95, .99};

/* In microseconds; 0 = this answer has none. */
static uint64_t first_token_us(const weft_result_t *r)
{
    return r->first_token_us;
}

static uint64_t per_token_us(const weft_result_t *r)
{
    return r->new_tokens > 1 ? (r->total_us - r->first_token_us) / (r->new_tokens - 1) : 0;
}

static uint64_t duration_us(const weft_result_t *r)
{
    return r->total_us;
}

static int us_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void live_recent(const struct live *live, struct live_recent out[LIVE_RECENTS])
{
    static const struct {
        const char *name, *metric, *text;
        uint64_t (*of)(const weft_result_t *r);
    } kinds[LIVE_RECENTS] = {
        {"first_token", "weft_gateway_recent_first_token_seconds", "time to the first token",
         first_token_us},
        {"per_token", "weft_gateway_recent_per_token_seconds", "time between tokens", per_token_us},
        {"duration", "weft_gateway_recent_duration_seconds", "time of whole answers", duration_us},
    };
    uint64_t values[LIVE_LINES_MAX];
    uint64_t kept = live->lines_count < LIVE_LINES_MAX ? live->lines_count : LIVE_LINES_MAX;
    for (uint32_t k = 0; k < LIVE_RECENTS; k++) {
        uint32_t count = 0;
        for (uint64_t i = 0; i < kept; i++) {
            const weft_result_t *r = &live->lines[i].result;
            uint64_t us = r->status == 0 ? kinds[k].of(r) : 0;
            if (us != 0) {
                values[count++] = us;
            }
        }
        qsort(values, count, sizeof(values[0]), us_compare);
        out[k] = (struct live_recent){kinds[k].name, kinds[k].metric, kinds[k].text, count, {0}};
        for (uint32_t q = 0; q < LIVE_QUANTILES && count != 0; q++) {
            /* The smallest value that so many do not exceed. */
            uint32_t at = (uint32_t)ceil(live_quantiles[q] * count);
            out[k].us[q] = values[at > 0 ? at - 1 : 0];
        }
    }
}

void live_write_metrics(const struct live *live, struct buf *out)
{
#define COUNTER_(field, metric, text)                                                              \
    buf_add_text(out, "# HELP " metric " " text ", by node\n# TYPE " metric " counter\n");         \
    for (uint32_t i = 0; i < live->node_count; i++) {                                              \
        buf_add_text(out, metric "{node=");                                                        \
        buf_add_quoted(out, live->nodes[i].name);                                                  \
        buf_add_format(out, "} %llu\n", (unsigned long long)live->nodes[i].field);                 \
    }
    LIVE_NODE_COUNTERS(COUNTER_)
#undef COUNTER_
    struct live_recent recent[LIVE_RECENTS];
    live_recent(live, recent);
    for (uint32_t i = 0; i < LIVE_RECENTS; i++) {
        const struct live_recent *r = &recent[i];
        buf_add_format(out, "# HELP %s %s, of the last %u answers\n# TYPE %s gauge\n", r->metric,
                       r->text, LIVE_LINES_MAX, r->metric);
        for (uint32_t q = 0; q < LIVE_QUANTILES && r->count != 0; q++) {
            buf_add_format(out, "%s{quantile=\"%g\"} %.9g\n", r->metric, live_quantiles[q],
                           (double)r->us[q] * 1e-6);
        }
    }
}
