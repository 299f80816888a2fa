/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_write.h - jansson's tree as a JSON text, in which numbers look as they did: jansson writes
 * reals with 17 digits, so that 48.85 becomes 48.850000000000001, in what a model shall call a
 * function with, too. Here they have as few digits as lead back to the same number.
 */
#pragma once

#include <jansson.h>

/* Without spaces, keys in their order. Heap, free() it; NULL: no memory, or `value` is NULL. */
char *json_write(const json_t *value);
