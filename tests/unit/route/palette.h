/* SPDX-License-Identifier: Apache-2.0 */
/* palette.h - random tags as operators give them: for test_choose.c, so that tables have tag
 * classes and requests fall into them. */
#pragma once

#include "dataplane/route/choose.h"
#include "dataplane/route/table.h"
#include "schemas/base/rng.h"

/* As operators give tags: a few masks for all, so that there are classes of them. */
#define PALETTE_MAX 5u
struct palette {
    uint32_t masks[PALETTE_MAX];
    uint32_t count;
};

static inline struct palette random_palette(struct rng *rng)
{
    struct palette p = {.count = 1 + rng_below(rng, PALETTE_MAX)};
    for (uint32_t i = 0; i < p.count; i++) {
        p.masks[i] = 0;
        for (uint32_t k = rng_below(rng, 4); k > 0; k--) {
            p.masks[i] |= UINT32_C(1) << (rng_below(rng, 5) * 7);
        }
    }
    return p;
}

/* One of them for the node; NULL: it keeps its own. */
static inline void palette_dress(const struct palette *p, struct route_node *node, struct rng *rng)
{
    node->tags = p != NULL ? p->masks[rng_below(rng, p->count)] : node->tags;
}

/* Tags of one of them, or a part of these, or others. */
static inline uint32_t random_tags(struct rng *rng, const struct palette *p)
{
    uint32_t tags = p->masks[rng_below(rng, p->count)];
    tags &= rng_below(rng, 2) != 0 ? UINT32_MAX : (uint32_t)rng_next(rng);
    return rng_below(rng, 8) != 0 ? tags : tags | UINT32_C(1) << (rng_below(rng, 5) * 7);
}

/* Does a row for tags answer it? */
static inline bool has_tag_row(const struct route_table *table, const struct route_query *q)
{
    const struct route_model *model = route_table_model(table, q->model);
    uint32_t class = route_class_of(&table->classes, q->tags);
    return model != NULL && q->tags != 0 && class < model->row_classes && !q->has_position &&
           q->tier_max == WEFT_TIER_MAX;
}

/* In one of a few jurisdictions, or in none. */
static inline void set_land(struct rng *rng, uint32_t *tags)
{
    static const char *const lands[] = {"DE", "DF", "FR", "AA", "ZZ"};
    uint32_t land = rng_below(rng, 7);
    *tags =
        (*tags & ~WEFT_TAGS_JURISDICTION) | (land < 5 ? weft_jurisdiction_mask(lands[land]) : 0);
}

/* Most requests ask for none. */
static inline void ask_land(struct rng *rng, uint32_t *tags)
{
    *tags &= ~WEFT_TAGS_JURISDICTION;
    if (rng_below(rng, 4) == 0) {
        set_land(rng, tags);
    }
}
