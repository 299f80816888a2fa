/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - what a node says of itself inside its zone, what a search asks for, and the one rule
 * by which the two are held together: hard filters, then toroidal-Manhattan distance, ties by node
 * id. Search, summaries and the brute force of the tests all use zone_query_match().
 *
 * One writer per record: its node. `version` is (edition << 32 | counter); the higher one wins. The
 * edition grows with each start of the node and each change of what does not change by the second.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/base/cursor.h"

#define ZONE_MODELS_MAX        16u
#define ZONE_TOP_MAX           15u /* records that one search may ask for */
#define ZONE_JURISDICTIONS_MAX 8u  /* that one search may allow */

struct zone_record {
    uint64_t version;
    uint32_t node;
    uint32_t tags;
    struct in6_addr addr; /* schemas/base/addr.h */
    uint16_t x, y;
    uint16_t jurisdiction; /* zone_jurisdiction() */
    uint8_t tier;
    uint8_t model_count;
    uint16_t room; /* requests it would still accept */
    uint32_t queue_us;
    uint16_t vram_free_64mib;
    uint16_t vram_total_64mib;
    uint32_t models[ZONE_MODELS_MAX]; /* weft_model_id() */
};

#define ZONE_RECORD_BYTES_MAX (8 + 4 + 4 + 16 + 3 * 2 + 1 + 1 + 2 + 4 + 2 + 2 + 4 * ZONE_MODELS_MAX)

struct zone_query {
    uint32_t model; /* 0 = any */
    uint32_t tags;  /* all of them are needed */
    uint16_t x, y;
    uint8_t tier_min, tier_max;
    uint16_t radius_km;         /* 0 = no limit; cells in an abstract mesh */
    uint16_t vram_64mib;        /* free, at least */
    uint8_t k;                  /* 1..ZONE_TOP_MAX */
    uint8_t jurisdiction_count; /* 0 = any; else it must be one of these */
    uint16_t jurisdictions[ZONE_JURISDICTIONS_MAX];
    bool abstract;
    uint32_t fresh_ms; /* evidence on free memory older than this excludes nothing */
    /* Only what comes behind this one in the order of answers: the next page of a search. */
    bool has_after;
    uint32_t after_distance;
    uint32_t after_node;
};

/* One found record. */
struct zone_found {
    uint32_t distance; /* cells */
    uint32_t node;
    uint64_t version;
    struct in6_addr addr;
    uint16_t x, y;
    uint8_t tier;
    uint16_t room;
    uint32_t queue_us;
    uint16_t vram_free_64mib;
    uint32_t age_ms; /* since the node said so */
};

/* The best so far, by (distance, node). */
struct zone_top {
    uint8_t k;
    uint8_t count;
    struct zone_found all[ZONE_TOP_MAX];
};

/* Two letters as a number, 0 for "": whoever does not say where it is, is in none. */
static inline uint16_t zone_jurisdiction(const char text[3])
{
    return (uint16_t)((uint8_t)text[0] << 8 | (uint8_t)(text[0] != '\0' ? text[1] : 0));
}

/* Does the record pass every filter? Then *distance is set. */
bool zone_query_match(const struct zone_query *query, const struct zone_record *record,
                      uint32_t *distance);
bool zone_query_valid(const struct zone_query *query);

void zone_top_init(struct zone_top *top, uint8_t k);
/* Takes it if it is among the k best; of one node the higher version counts. True: a node has come
 * in that was not there. */
bool zone_top_add(struct zone_top *top, const struct zone_found *found);
/* Distance of the k-th, UINT32_MAX while there are fewer: nothing farther can matter. */
uint32_t zone_top_bound(const struct zone_top *top);

struct zone_found zone_found_of(const struct zone_record *record, uint32_t distance,
                                uint32_t age_ms);

/* Wire. A reader leaves the cursor failed if the bytes are not a valid one. */
void zone_record_write(struct cursor *c, const struct zone_record *record);
bool zone_record_read(struct cursor *c, struct zone_record *record);
void zone_query_write(struct cursor *c, const struct zone_query *query);
bool zone_query_read(struct cursor *c, struct zone_query *query);
void zone_found_write(struct cursor *c, const struct zone_found *found);
bool zone_found_read(struct cursor *c, struct zone_found *found);
#define ZONE_FOUND_BYTES (4 + 4 + 8 + 16 + 2 + 2 + 1 + 2 + 4 + 2 + 4)
