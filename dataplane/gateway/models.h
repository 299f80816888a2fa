/* SPDX-License-Identifier: Apache-2.0 */
/*
 * models.h - the models of a mesh as the API lists them, from the node's status answer. Pure.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/gateway/buf.h"

/* {"object":"list","data":[...]}: every model of a member that is alive, and those of `more` (names
 * with commas, may be NULL), each once, by name. `status` may be NULL: nothing is known. */
void models_write_list(const json_t *status, const char *more, uint64_t created_s, struct buf *out);

/* One of them; false if there is none of that name. */
bool models_write_one(const json_t *status, const char *more, const char *name, uint64_t created_s,
                      struct buf *out);
