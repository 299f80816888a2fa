/* SPDX-License-Identifier: Apache-2.0 */
/*
 * speeds.h - how fast a node is with one of its models, as eight bytes of a state (state.h) and of
 * a beacon: what a router predicts with, and what people are shown. Speeds and sizes are in steps
 * of a twelfth of an octave, from 1 to 2.2 million; what is told is off by 6 % at most, and is told
 * anew only when it would be off by more, since measured speeds never stand still.
 *
 * Pure functions, any thread. Used by members.h, attach.c (who tells) and glue.c (who predicts).
 */
#pragma once

#include <stdint.h>
#include <weft/wire.h>

#define SPEEDS_BATCHES 4u  /* 1, 2, 4 and 8 streams */
#define SPEEDS_STEPS   12u /* of a code in an octave */

/* Codes are those of speeds_code(). All zero: nothing is known. Of several workers for one model
 * `slots` and `running` are those of the one that would get the next request. */
struct speeds {
    uint8_t prefill;                /* prompt tokens per second */
    uint8_t decode[SPEEDS_BATCHES]; /* tokens per second of 1, 2, 4, 8 streams together */
    uint8_t memory;                 /* MiB that the model takes */
    uint8_t slots;                  /* streams at a time; 255 = that or more, 0 = not known */
    uint8_t running;                /* requests that the worker had when this was told */
};
WEFT_ASSERT(sizeof(struct speeds) == 8, "it is a word of a beacon");

/* The code of a figure; 0 = not known. `told` stays while it is off by a step at most; 0: none. */
uint8_t speeds_code(uint32_t value, uint8_t told);

/* The figure of a code; 0 = not known. */
uint32_t speeds_value(uint8_t code);

/* Tokens per second of one stream more than those that run, at most as many as there are slots.
 * Between the batches that were measured as a straight line says; 0 = not known. */
uint32_t speeds_stream(const struct speeds *speeds);
