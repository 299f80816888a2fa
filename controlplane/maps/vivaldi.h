/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vivaldi.h - network coordinates: a node's place in a space where distance predicts round-trip
 * time, found by measuring to a few others. Sans-I/O; coordinates travel in the nodes' records.
 *
 * Vivaldi (Dabek, Cox, Kaashoek and Morris, SIGCOMM 2004) in 8 dimensions and height, with what
 * Ledlie, Gardner and Seltzer (NSDI 2007) and Lee et al. (2010) add for real networks: a median
 * filter per peer (latency.h), gravity towards the origin, and an additive adjustment from the last
 * 20 residuals. Constants as in HashiCorp's serf/coordinate. On top of that: a coordinate is
 * refused unless all of it is finite and within bounds, and no single sample moves a node further
 * than VIVALDI_STEP_MAX_S, so that a lie costs accuracy and not the place.
 *
 * Unit: seconds, except where a name says otherwise. Threads: plain data.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/base/rng.h"

#define VIVALDI_DIMENSIONS   8
#define VIVALDI_WINDOW       20    /* residuals behind the adjustment */
#define VIVALDI_ERROR_MAX    1.5   /* of a newcomer */
#define VIVALDI_CE           0.25  /* how fast the error follows */
#define VIVALDI_CC           0.25  /* how fast the place follows */
#define VIVALDI_HEIGHT_MIN_S 10e-6 /* the last mile of a host in a rack */
#define VIVALDI_GRAVITY_RHO  150.0
#define VIVALDI_STEP_MAX_S   0.1
#define VIVALDI_LIMIT_S      10.0 /* of each component; also the longest RTT taken */
#define VIVALDI_WIRE_BYTES   44u

struct vivaldi_coord {
    double place[VIVALDI_DIMENSIONS];
    double height;     /* at least VIVALDI_HEIGHT_MIN_S */
    double adjustment; /* half of this node's mean residual */
    double error;      /* relative, of its predictions: 0..VIVALDI_ERROR_MAX */
};

/* A node's own. */
struct vivaldi {
    struct vivaldi_coord at;
    double residuals[VIVALDI_WINDOW];
    uint32_t residual_next;
    struct rng rng; /* for a direction when two nodes stand at one place */
};

/* The coordinate of a node that has measured nothing. */
struct vivaldi_coord vivaldi_origin(void);

void vivaldi_init(struct vivaldi *v, uint64_t seed);

/* Finite, and within the limits. */
bool vivaldi_valid(const struct vivaldi_coord *coord);

/* Predicted round-trip time of two nodes, seconds: distance, heights and adjustments; never below
 * the heights' minimum. */
double vivaldi_rtt(const struct vivaldi_coord *a, const struct vivaldi_coord *b);

/* Takes one measurement to a peer that says it is at `peer`. False: refused (RTT not in
 * (0, VIVALDI_LIMIT_S], or not a coordinate); nothing has changed. */
bool vivaldi_update(struct vivaldi *v, const struct vivaldi_coord *peer, double rtt);

/* VIVALDI_WIRE_BYTES: place[8], height, adjustment as int32 in microseconds, error as uint16 in
 * thousandths, two bytes of zero; little-endian. Write needs a valid coordinate; read returns false
 * for bytes that vivaldi_write() cannot have written. */
void vivaldi_write(const struct vivaldi_coord *coord, uint8_t out[VIVALDI_WIRE_BYTES]);
bool vivaldi_read(struct vivaldi_coord *coord, const void *data, size_t size);
