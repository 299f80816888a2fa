/* SPDX-License-Identifier: Apache-2.0 */
/* lonely.c - see lonely.h. */
#include "controlplane/gossip/lonely.h"

void lonely_init(struct lonely *lonely, bool seeds, uint64_t now_ns)
{
    *lonely = (struct lonely){.since_ns = now_ns,
                              .due_ns = seeds ? now_ns + LONELY_FIRST_NS : UINT64_MAX,
                              .pause_ns = LONELY_AGAIN_NS};
}

uint64_t lonely_silence(struct lonely *lonely, bool alone, uint64_t now_ns)
{
    if (!alone) {
        lonely->due_ns = UINT64_MAX;
    }
    if (now_ns < lonely->due_ns) {
        return 0;
    }
    lonely->due_ns = now_ns + lonely->pause_ns;
    lonely->pause_ns =
        lonely->pause_ns * 2 < LONELY_LAST_NS ? lonely->pause_ns * 2 : LONELY_LAST_NS;
    return now_ns - lonely->since_ns;
}

bool lonely_foreign(struct lonely *lonely, uint64_t now_ns)
{
    if (now_ns < lonely->foreign_due_ns) {
        return false;
    }
    lonely->foreign_due_ns = now_ns + LONELY_FOREIGN_NS;
    return true;
}
