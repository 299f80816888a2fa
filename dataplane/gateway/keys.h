/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.h - who may use the API: a file with a line `NAME SHA256 [SCOPE,...]` for each key, the sum
 * in 64 hex digits, `#` begins a comment. Without a scope a key is for asking; `register` lets its
 * holder tell of other nodes and services as well. Keys themselves are in no file, log or answer. A
 * plain hash is enough for what is drawn at random (weft-gateway --new-key draws 256 bits), not for
 * passwords.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYS_NAME_MAX 64u
#define KEYS_SUM      32u

#define KEYS_REGISTER 1u /* scopes */

struct key {
    char name[KEYS_NAME_MAX];
    uint32_t scopes;
    uint8_t sum[KEYS_SUM];
};

struct keys {
    struct key *list;
    size_t count;
};

/* Adds the keys of a file's text. False: `*line` is no such line. */
bool keys_read(struct keys *keys, const char *text, size_t len, unsigned *line);
void keys_deinit(struct keys *keys);

/* The key in an Authorization header ("Bearer KEY"; may be NULL); NULL = none of these. Takes as
 * long whichever key it is. */
const struct key *keys_find(const struct keys *keys, const char *authorization);

/* Draws a key: its text, and the line for the file without its end. */
void keys_draw(const char *name, char key[64], char line[KEYS_NAME_MAX + 80]);
