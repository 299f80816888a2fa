/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp_io.h - records go to a collector: a bounded ring, one writer, and a thread that empties it
 * in batches, by libcurl. Pushing never waits and never allocates; what finds the ring full, or the
 * collector does not take, is counted as dropped.
 *
 * Threads: all but the thread of its own is the caller's one.
 */
#pragma once

#include <stdint.h>

#include "dataplane/gateway/trace.h"

#define OTLP_RING     1024u /* records; a power of two */
#define OTLP_BATCH    128u  /* records of one POST at most */
#define OTLP_DELAY_MS 500   /* a batch waits so long for more */
#define OTLP_TRIES    4u    /* for a collector that is away or busy; 1, 2, 4 s between them */
#define OTLP_POST_MS  10000
#define OTLP_STOP_MS  2000 /* at the end, for what is left */

struct otlp_io;

/* Starts it. `endpoint`: http://HOST[:PORT], to which /v1/traces is added, or https. Returns 0,
 * -EINVAL for anything else, or -ENOMEM, -EAGAIN, ... Block signals first. */
int otlp_io_start(struct otlp_io **io, const char *endpoint);
/* Sends what is left, if that does not take long, and frees. NULL is fine. */
void otlp_io_stop(struct otlp_io *io);

void otlp_io_push(struct otlp_io *io, const struct trace_record *record);

/* Spans so far: taken by the collector; lost. */
uint64_t otlp_io_sent(const struct otlp_io *io);
uint64_t otlp_io_dropped(const struct otlp_io *io);
