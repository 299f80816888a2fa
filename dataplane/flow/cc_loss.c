/* SPDX-License-Identifier: Apache-2.0 */
/* cc_loss.c - see cc.h: the window doubles as it is used and halves on loss. Fills any queue up to
 * its end; for paths whose delay says nothing. */
#include "dataplane/flow/cc.h"

static void loss_init(struct cc *cc)
{
    cc->loss = (struct cc_loss_state){0};
    window_init(&cc->loss.window);
}

static void loss_on_data(struct cc *cc, uint32_t bytes, uint64_t rtt_ns, bool ecn, uint64_t now_ns)
{
    (void)rtt_ns;
    (void)now_ns;
    if (ecn) {
        cc->loss.bytes = 0; /* told before it hurts: goes no further */
        return;
    }
    cc->loss.bytes += bytes;
    if (cc->loss.bytes >= cc->loss.window.bytes / 2) {
        cc->loss.bytes = 0;
        window_grow(&cc->loss.window);
    }
}

static void loss_on_loss(struct cc *cc, uint32_t bytes, uint64_t now_ns)
{
    (void)bytes;
    (void)now_ns;
    window_shrink(&cc->loss.window);
}

static uint32_t loss_window(const struct cc *cc)
{
    return cc->loss.window.bytes;
}

const struct cc_ops cc_loss = {"loss", loss_init, loss_on_data, loss_on_loss, loss_window};
