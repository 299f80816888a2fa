/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steps.h - what an input of fuzz_stages.c means: a row of steps, each a head and `len` bytes. A
 * step begins with a sound packet and XORs its bytes over it, so an empty step is good traffic and
 * a small change of the input is a small change of a packet. Also used by make_corpus.c.
 */
#pragma once

#include <stdint.h>

enum step_op {
    STEP_CLIENT,  /* a request from a client */
    STEP_RELAYED, /* a request from another member */
    STEP_REPLY,   /* a reply from another member */
    STEP_WORKER,  /* a reply of the local worker to a request delivered before */
    STEP_FRAME,   /* as STEP_CLIENT, but the bytes begin at the Ethernet header */
    STEP_TABLE,   /* another table from here on: number `mode` */
    STEP_TIME,    /* `mode` seconds pass */
    STEP_BURST,   /* the packets so far are one burst */
    STEP_NETWORK, /* other networks from here on: `mode` is of enum step_network */
    STEP_OPS,
};

/* Bits of `mode` in steps that make packets. */
#define STEP_WHO     0x07u /* which client, member or delivered request */
#define STEP_PROVEN  0x08u /* cookie or tag are made right, after the XOR */
#define STEP_NO_SUM  0x10u /* no UDP checksum; STEP_FRAME: the IP header keeps its own */
#define STEP_CUT     0x20u /* the datagram (or frame) ends after `len` bytes */
#define STEP_FULL    0x40u /* if it comes to the local worker, that is full */
#define STEP_NO_PORT 0x80u /* or gone */

/* STEP_WHO of clients, as of members, is an index: 1..3 are Tokyo, Frankfurt (this node), New York.
 */
#define STEP_DEPARTED 4u /* where New York is in STEP_TABLE_MOVED only */

/* Bits of `mode` in STEP_NETWORK. */
enum step_network {
    STEP_NODES_IP6 = 1,   /* members speak IPv6 among themselves */
    STEP_CLIENTS_IP6 = 2, /* clients come over IPv6 */
    STEP_OWN_VLAN = 4,    /* the node has a VLAN */
    STEP_TAGGED = 8,      /* frames come tagged for it */
    STEP_OTHER_TAG = 16,  /* frames come tagged, for another */
};

enum step_table {
    STEP_TABLE_ALL,
    STEP_TABLE_GONE,  /* without New York */
    STEP_TABLE_MOVED, /* New York at another address */
    STEP_TABLE_DEAD,  /* New York not alive, Tokyo without a neighbour */
    STEP_TABLE_MANY,  /* so many that rows are used */
    STEP_TABLE_ABSTRACT,
    STEP_TABLE_NONE, /* not published yet */
    STEP_TABLES,
};

struct __attribute__((packed)) step {
    uint8_t op; /* modulo STEP_OPS */
    uint8_t mode;
    uint16_t len; /* bytes beyond the end of the input are zero */
};
