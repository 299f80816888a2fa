/* SPDX-License-Identifier: Apache-2.0 */
/* cascade.c - see cascade.h. */
#include "dataplane/gateway/cascade.h"

enum cascade_side cascade_settle(struct cascade *c)
{
    const struct cascade_answer *better = &c->answers[CASCADE_BETTER];
    if (c->taken != CASCADE_OPEN) {
        return c->taken;
    }
    bool there = !better->failed && (better->done || (better->begun && !c->whole));
    if (there || c->answers[CASCADE_DRAFT].failed) {
        c->taken = CASCADE_BETTER;
    } else if (better->failed) {
        c->taken = CASCADE_DRAFT;
    }
    return c->taken;
}
