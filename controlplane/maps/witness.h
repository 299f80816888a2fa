/* SPDX-License-Identifier: Apache-2.0 */
/*
 * witness.h - what one node has measured of others and tells its zone: legs for relays (relay.h)
 * and whose positions light contradicts (position.h). The message says nothing of who sends it:
 * that is the authenticated sender of the datagram, and a witness speaks for itself alone.
 *
 * Sans-I/O, plain data. Units: nanoseconds; microseconds on the wire.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/position.h"
#include "controlplane/maps/relay.h"

#define WITNESS_LEGS_MAX     48u
#define WITNESS_SUBJECTS_MAX 16u
#define WITNESS_LEG_BYTES    14u
#define WITNESS_HEADER_BYTES 4u
#define WITNESS_WIRE_MAX                                                                           \
    (WITNESS_HEADER_BYTES + WITNESS_LEGS_MAX * WITNESS_LEG_BYTES + WITNESS_SUBJECTS_MAX * 4u)

struct witness_leg {
    uint32_t to;
    uint64_t rtt_ns;
    uint64_t p95_ns;
    uint64_t age_ns;
};

struct witness {
    uint32_t leg_count;
    uint32_t subject_count;
    struct witness_leg legs[WITNESS_LEGS_MAX];
    uint32_t subjects[WITNESS_SUBJECTS_MAX]; /* whose claimed position is contradicted */
};

/*
 * u8 0xc7, u8 version 1, u8 legs, u8 subjects; each leg u32 to, u32 rtt, u32 p95 (us), u16 age (ms,
 * stops at its largest value); each subject u32. Little-endian. Returns the length.
 */
size_t witness_write(const struct witness *witness, uint8_t out[WITNESS_WIRE_MAX]);

/* False: witness_write() cannot have written it. */
bool witness_read(struct witness *witness, const void *data, size_t size);

/* Takes over what `observer` says, which was `path_ns` under way. What it says of itself does not
 * count, nor what the maps do not believe. `now_ns` is not 0. */
void witness_apply(const struct witness *witness, uint32_t observer, struct relay_map *relays,
                   struct position_map *positions, uint64_t path_ns, uint64_t now_ns);
