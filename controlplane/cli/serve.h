/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - `weft serve`: a node, a worker and a gateway on this machine, kept running. What is
 * decided is here and pure: when a program is started again, and what configuration a node gets
 * that nobody has written one for. cmd_serve.c has the processes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- one program that is to run ---- */

/* Between its end and its next start, doubled each time up to the second; one that ran for the
 * third begins with the first again. One that never ran for KEEPER_SOUND_NS in so many tries never
 * will. */
#define KEEPER_FIRST_NS UINT64_C(250000000)
#define KEEPER_MOST_NS  UINT64_C(8000000000)
#define KEEPER_WELL_NS  UINT64_C(30000000000)
#define KEEPER_SOUND_NS UINT64_C(3000000000)
#define KEEPER_FAILS    6u

struct keeper {
    bool running;
    bool sound;       /* it has run for KEEPER_SOUND_NS at least once */
    uint32_t fails;   /* ends in a row */
    uint64_t due_ns;  /* not running: when to start it */
    uint64_t from_ns; /* running: since when */
};

void keeper_init(struct keeper *k, uint64_t now_ns);
bool keeper_due(const struct keeper *k, uint64_t now_ns);
void keeper_started(struct keeper *k, uint64_t now_ns);
/* It has ended, `usage`: because it did not understand its command line. False: there is no hope.
 */
bool keeper_ended(struct keeper *k, bool usage, uint64_t now_ns);

/* ---- the node's configuration ---- */

struct serve_node {
    const char *folder; /* of its sockets */
    uint32_t data_port; /* UDP, on 127.0.0.1; the next one is used, too */
    double latitude_deg, longitude_deg;
    uint32_t tier;
};

/* A configuration for a node without a network. Returns its length, or 0 if there is no room. */
size_t serve_config_write(const struct serve_node *node, char *out, size_t size);
