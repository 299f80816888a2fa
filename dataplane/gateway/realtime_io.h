/* SPDX-License-Identifier: Apache-2.0 */
/*
 * realtime_io.h - GET /v1/realtime?model=NAME: the HTTP connection becomes a WebSocket, the
 * conversation over it one session of the mesh. realtime.h has the conversation, ws.h the frames.
 *
 * The library hands the socket over and keeps the connection's memory until it is told that all is
 * over; here is a duplicate of the socket in the loop's own set. An answer that comes faster than
 * its client reads is held in the mesh, and a client that asks faster than it reads is not read.
 * Pages may come from this gateway's own origin or that of --cors only: a browser sends a WebSocket
 * anywhere.
 */
#pragma once

#include <microhttpd.h>
#include <sys/queue.h>

#include "dataplane/gateway/realtime.h"
#include "dataplane/gateway/ws.h"

struct exchange;
struct gateway;
struct realtime_io;
LIST_HEAD(realtimes, realtime_io);

/* What routes.c has for it: refuses, or makes the answer a handshake. */
void realtime_open(struct exchange *x);
/* Sends that. */
enum MHD_Result realtime_send(struct exchange *x);
/* Its socket is ready for that (EPOLL*). */
void realtime_ready(struct realtime_io *rt, uint32_t events);
/* Looks for those that are silent, or are to end; and when that is due. */
void realtime_turn(struct gateway *g, uint64_t now_ns);
uint64_t realtime_due_ns(const struct gateway *g);
/* Ends all, at once. */
void realtime_stop(struct gateway *g);
/* Whose model, and how many answers were asked for; for traces. */
const char *realtime_model(const struct realtime_io *rt);
uint32_t realtime_turns(const struct realtime_io *rt);
/* With its exchange. NULL is fine. */
void realtime_free(struct realtime_io *rt);
