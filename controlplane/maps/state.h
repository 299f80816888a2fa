/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - what a node tells of itself besides its record, as one member state of swim: its place
 * among round-trip times (vivaldi.h), its load (a whole message of resource.h), the names of its
 * backend and models, and whose places it has found to be false. Always whole: whoever has the
 * newest needs no other.
 *
 *      0  u8   STATE_FORMAT
 *      1       the coordinate, VIVALDI_WIRE_BYTES
 *     45  u8   length, and the message of resource.h, with the models' ids
 *         u8   length, and the backend's name
 *         for each id a length (u8) and the model's name
 *         u8   MEMBERS_FACT_*; not there: none
 *         u8   count, and the ids (u16) of members whose places light contradicts (position.h);
 *              not there: none
 *         u8   length, and for each id a u32: what its worker computes with (schemas/wire.def,
 *              GRANT); not there: not known
 *         u8   count, and so many u64: how the prompts that its workers took last began, newest
 *              first (schemas/base/prefix.h), none of them 0; not there: not told
 *         u8   count, and struct speeds (speeds.h) of so many of the models, from the first on: as
 *              many as find room behind all of the above at its longest; not there: not told
 *         whatever later versions append
 *
 * Pure functions, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/members.h"
#include "controlplane/maps/vivaldi.h"

#define STATE_BYTES_MAX 1000u
#define STATE_FORMAT    1u
#define STATE_DOUBTS    8u /* places that one node can contradict at a time */

struct state_doubts {
    uint32_t count;
    uint16_t ids[STATE_DOUBTS]; /* beyond `count` zero */
};

/* Writes; `version` rises with each state of a start, whose `incarnation` that is. What finds no
 * room is left out: first the speeds of the last models, then the last models with their names,
 * *dropped says how many. Returns the bytes used. */
size_t state_write(const struct members_facts *facts, const struct vivaldi_coord *coord,
                   const struct state_doubts *doubts, uint16_t node, uint64_t incarnation,
                   uint32_t version, uint8_t out[STATE_BYTES_MAX], uint32_t *dropped);

/* False: nothing that state_write() can have written, nor a later version's. `facts` and `doubts`
 * have no bytes of other origin, so that they can be compared as bytes. */
bool state_read(struct members_facts *facts, struct vivaldi_coord *coord,
                struct state_doubts *doubts, const void *data, size_t size);
