/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap_hub.h - the control thread's side of captures: makes the shared memory, tells the lcores, and
 * frees it when none of them uses it any more. One capture at a time. weftd.c makes it before the
 * lcores; the admin socket's `tap` request opens and closes captures.
 *
 * Threads: the control thread; tap_hub_create() and tap_hub_destroy() while no lcore runs.
 */
#pragma once

#include "dataplane/tap/tap.h"

/* Captures ended whose memory some lcore may still use. */
#define TAP_RETIRED_MAX 8u

struct tap_hub;

/* Heap. Returns 0, -EINVAL (more than TAP_LCORES_MAX) or -ENOMEM. */
int tap_hub_create(struct tap_hub **hub, uint32_t lcores, const char *node, const char *interface);
void tap_hub_destroy(struct tap_hub *hub);

struct tap *tap_hub_lcore(struct tap_hub *hub, uint32_t lcore);

/* Begins a capture of the first `snaplen` bytes of frames (1..TAP_SNAPLEN_MAX) in rings of `slots`
 * (rounded up to a power of two). Returns a descriptor of the memory, the caller's; -EBUSY while
 * another capture runs; -EINVAL; or another -errno. */
int tap_hub_open(struct tap_hub *hub, uint32_t snaplen, uint32_t slots);

/* Ends it; nothing if there is none. */
void tap_hub_close(struct tap_hub *hub);

/* From time to time: frees what the lcores have let go of. Returns how many captures are left that
 * have ended but cannot be freed yet. */
uint32_t tap_hub_reap(struct tap_hub *hub);
