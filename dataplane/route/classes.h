/* SPDX-License-Identifier: Apache-2.0 */
/*
 * classes.h - tag classes: the few sets of nodes that requests for tags can mean, so that a table
 * can have rows for them (table.h). Pure.
 *
 * A request for the tags Q is for all nodes whose tags are a superset of Q. What these have in
 * common, the intersection of their masks, is the closure of Q (as in formal concept analysis,
 * Ganter and Wille 1999): it contains Q, and the nodes that have it are the same nodes. So the
 * intersections of nodes' masks are all the classes there are, whatever is asked for; and since
 * they are closed under intersection, the closure of Q is the smallest of those that contain Q.
 *
 * A jurisdiction (wire.def) is no class: its bits in nodes' masks would make classes that no
 * request means. Who asks for one has no row, but a search.
 *
 * Where there are more than ROUTE_CLASSES_MAX the ones with the most nodes are kept (`cut`), and a
 * request has one only if it asks for exactly those tags.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ROUTE_CLASSES_MAX 16u /* with the one for no tags */
#define ROUTE_CLASS_NONE  UINT32_MAX

struct route_classes {
    uint32_t count;
    bool cut;
    uint32_t masks[ROUTE_CLASSES_MAX]; /* [0] is 0; then rising by the number of tags */
};

/* The classes of `count` nodes' masks, in any order. */
void route_classes_find(struct route_classes *classes, const uint32_t *masks, uint32_t count);

/* The class of a request for `tags`, ROUTE_CLASS_NONE if it has none. */
static inline uint32_t route_class_of(const struct route_classes *classes, uint32_t tags)
{
    if (tags == 0) {
        return 0;
    }
    for (uint32_t i = 1; i < classes->count; i++) {
        if ((classes->masks[i] & tags) == tags && (!classes->cut || classes->masks[i] == tags)) {
            return i;
        }
    }
    return ROUTE_CLASS_NONE;
}
