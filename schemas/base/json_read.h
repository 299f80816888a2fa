/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_read.h - a JSON text as jansson's tree, ten times faster for the long texts that prompts
 * are.
 *
 * jansson looks at each byte in four functions. What stands here steps over the plain parts of a
 * string eight bytes at a time, and gives up wherever it is not sure: at any error, at keys with
 * escapes, at depths beyond 64. Then jansson reads the text from its beginning: what is refused,
 * and in which words, is its decision alone; what is taken is the tree that it would have made.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

/* As json_loadb(text, len, JSON_ALLOW_NUL, error): the caller's reference, or NULL. */
json_t *json_read(const char *text, size_t len, json_error_t *error);

/* Without jansson behind it: NULL also where it is not sure. For tests. */
json_t *json_read_quick(const char *text, size_t len);
