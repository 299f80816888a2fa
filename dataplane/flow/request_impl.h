/* SPDX-License-Identifier: Apache-2.0 */
/* request_impl.h - what request.c and request_reply.c share; nobody else includes it. */
#pragma once

#include "dataplane/flow/request.h"

/* Ends for good; the worker need not be told anything but a final ACK. */
void request_close(struct request *r, int status);
/* The user learns at once; the worker is told in the background. */
void request_abandon(struct request *r, int status, uint64_t now_ns);
