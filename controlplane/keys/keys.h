/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.h - the two secrets of a node that gossips, in files: its identity (the seed of its Ed25519
 * key; made at the first start, mode 0600, never leaves the machine) and the mesh key that all
 * members share (made once with `weft mesh-key`, then carried to each of them).
 *
 * Both are text: 64 hexadecimal digits a line, '#' begins a comment. An identity is one line. A
 * mesh key file may have up to KEYS_MESH_MAX lines: the first is used to seal, all of them open,
 * which is how a key is changed in a running mesh: add the new one below everywhere, then put it
 * first everywhere, then take the old one out everywhere, and send weftd SIGHUP each time.
 *
 * Any thread; nothing is kept.
 */
#pragma once

#include <stdint.h>

#define KEYS_BYTES    32u
#define KEYS_MESH_MAX 4u
#define KEYS_WHY_MAX  320u

struct keys {
    uint8_t identity[KEYS_BYTES];
    uint8_t mesh[KEYS_MESH_MAX][KEYS_BYTES];
    uint32_t mesh_count;
};

/* Reads the identity, and makes one (with the last folder of its path) if there is no such file.
 * Refuses a file that others may read or write. Returns 0, or -errno and a sentence in `why`. */
int keys_identity_load(uint8_t identity[KEYS_BYTES], const char *path, char why[KEYS_WHY_MAX]);

/* Reads the mesh keys. Refuses a file that anybody but its owner and group may read, or that others
 * may write. -ENOENT: there is none. */
int keys_mesh_load(struct keys *keys, const char *path, char why[KEYS_WHY_MAX]);

/* The key of a mesh that wants none: known to everybody, keeps nobody out. */
void keys_mesh_open(struct keys *keys);

/* Writes a new random key to a new file of mode 0600. -EEXIST: it is there already, and stays. */
int keys_mesh_make(const char *path, char why[KEYS_WHY_MAX]);

void keys_wipe(struct keys *keys);
