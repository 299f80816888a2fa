/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ways.h - two members agree by sealed letters (letters.h) on a connection between programs of
 * theirs: whoever wants one makes a ticket and a key and asks; who takes it expects that ticket on
 * its control port's TCP number, and says so. Letters prove who asks and keep the key from
 * everybody else; the ticket only says which letter a connection belongs to. control_way.c has the
 * sockets.
 *
 * A ticket is shown in the clear, and its key seals one connection: an ask that was held up on its
 * way and comes when its ticket has been shown opens nothing any more.
 *
 * Sans-I/O: datagrams' bodies and the time go in, what is to be done comes out. Bounded: WAYS_MAX
 * of either kind at a time. Threads: one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAYS_MAX         16u
#define WAYS_SHARE       8u  /* of those expected here that one member may have */
#define WAYS_SPENT       64u /* tickets that are remembered when they have been shown */
#define WAY_TICKET_BYTES 16u
#define WAY_KEY_BYTES    32u
#define WAY_LETTER_BYTES 64u /* all are of this length */
#define WAY_ASK_AGAIN_NS UINT64_C(150000000)
#define WAY_ASKS_MAX     5u
#define WAY_EXPECT_NS    UINT64_C(3000000000) /* so long a ticket is good */

enum way_state { WAY_FREE = 0, WAY_ASKING, WAY_CONNECTING, WAY_EXPECTED };

struct way {
    enum way_state state;
    uint32_t slot;       /* of swim: who is asked, or has asked */
    uint32_t model;      /* weft_model_id() of what the programs serve */
    uint32_t arithmetic; /* of both programs */
    uint32_t asks;
    uint64_t due_ns; /* ASKING: the next ask; CONNECTING, EXPECTED: the end */
    uint64_t tag;    /* of who wanted it */
    uint8_t ticket[WAY_TICKET_BYTES];
    uint8_t key[WAY_KEY_BYTES];
};

/* Zero-filled: none. */
struct ways {
    struct way all[2 * WAYS_MAX]; /* wanted here, then expected here */
    uint8_t spent[WAYS_SPENT][WAY_TICKET_BYTES];
    uint32_t spent_count; /* ever; the last WAYS_SPENT are kept */
};

enum way_act {
    WAY_NOTHING = 0,
    WAY_CONNECT, /* who was asked takes it: connect, show the ticket, then ways_end() */
    WAY_FAILED,  /* it will not be: `status` says why; it has ended */
    WAY_SAY,     /* send `letter` to `slot` */
};

struct way_out {
    enum way_act act;
    struct way way; /* as it was, for CONNECT and FAILED */
    uint32_t index; /* CONNECT: for ways_end() */
    int status;
    uint32_t slot;
    uint8_t letter[WAY_LETTER_BYTES];
};

/* Wants a way to the member in that slot; `random` is fresh and secret. ways_tick() asks at once.
 * Returns 0 or -EBUSY. */
int ways_want(struct ways *ways, uint32_t slot, uint32_t model, uint32_t arithmetic, uint64_t tag,
              const uint8_t random[WAY_TICKET_BYTES + WAY_KEY_BYTES], uint64_t now_ns);

/* What is due, one thing a call: until it returns false. */
bool ways_tick(struct ways *ways, uint64_t now_ns, struct way_out *out);
/* When ways_tick() has something to do; UINT64_MAX: not before something else happens. */
uint64_t ways_next_ns(const struct ways *ways);

/* Is this letter about a way that is asked for, and which? Then the caller says by `status` of
 * ways_input() whether a program here takes it. */
bool ways_is_ask(const void *body, size_t size, uint32_t *model, uint32_t *arithmetic);
/* A letter that has come. `status`: 0, or why it is not taken if it is an ask. */
void ways_input(struct ways *ways, uint32_t slot, const void *body, size_t size, int status,
                uint64_t now_ns, struct way_out *out);

/* A connection has shown this ticket. Returns whether it was expected; it is not any more. */
bool ways_came(struct ways *ways, const uint8_t ticket[WAY_TICKET_BYTES], uint64_t now_ns,
               struct way *out);

/* The connection of WAY_CONNECT stands, or will not. */
void ways_end(struct ways *ways, uint32_t index);
