/* SPDX-License-Identifier: Apache-2.0 */
/*
 * glue.h - where the two planes meet, on the control thread: builds routing tables from the
 * members, has workers and local clients attached (attach.h), offers captures, reports status. Made
 * by weftd.c after core and before control, whose hooks are glue_hooks().
 */
#pragma once

#include "controlplane/control.h"
#include "dataplane/core.h"
#include "schemas/config.h"

struct glue;

/* Opens the socket to attach to. Keeps all pointers; cores[0] owns the ports. Returns 0 or
 * -errno, logged. */
int glue_create(struct glue **glue, const struct config *config, struct core *const *cores,
                struct publish *tables, struct tap_hub *taps);

/* Neither thread may run any more. NULL is fine. */
void glue_destroy(struct glue *glue);

struct control_hooks glue_hooks(struct glue *glue);

/* Starts watching that socket and offers captures. */
int glue_start(struct glue *glue, struct control *control);
