/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors.h - ways between this node's workers and those of other nodes (schemas/port.h): who here
 * can be called, who calls. attach.c brings those who say so on the port's socket, control.h agrees
 * with the other node and makes the connection; it is handed over here and then nobody's business.
 * Control thread; part of the program (glue.c).
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "controlplane/control.h"

struct doors;

/* Returns 0 or -ENOMEM. */
int doors_create(struct doors **doors);
/* NULL is fine. */
void doors_destroy(struct doors *doors);

void doors_start(struct doors *doors, struct control *control);

/* Somebody has said hello with PORT_WAY_MAGIC, which is still to be read: the descriptor is taken.
 */
void doors_take(struct doors *doors, int fd);

/* Hooks of control.h. */
int doors_have(const struct doors *doors, uint32_t model, uint32_t arithmetic);
void doors_came(struct doors *doors, const struct control_way *way);
void doors_done(struct doors *doors, const struct control_way *way);

/* Adds `moves` to the status answer. */
void doors_status(const struct doors *doors, json_t *status);
