/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msg.h - the datagrams of zones, at most ZONE_DATAGRAM_MAX bytes: little-endian, one header, then
 * what the kind says. Whoever carries them (the membership's sealed datagrams) proves the sender;
 * here `node` is believed to be it.
 *
 * | kind | from, to | holds |
 * |---|---|---|
 * | STATE | member to each of its zone, 1 Hz | claim, epoch, whole record |
 * | DELTA | the same, 9 of 10 times | claim, epoch, what changes from second to second |
 * | ASK / ANSWER | searcher / anyone | query and range / records found, finer pieces; or, of an ASK
 * with a budget, that the search has begun, how it goes, how it ended (relay.h) |
 * | PULL / VIEW | anyone | a range / summaries that tile it, the claim of who answers |
 * | FETCH / RECORDS | member / member | a range from a path on / a page of whole records |
 * | RESHAPE | coordinator and members | stage of a split or merge |
 *
 * A FETCH with id 0 is answered by STATE: only the record of who is asked is wanted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/zones/search.h"

#define ZONE_DATAGRAM_MAX 1192u /* of 1,232 sealed ones */
#define ZONE_MSG_VERSION  3u
#define ZONE_PAGE_MAX     9u /* records of a page */

enum zone_kind {
    ZONE_STATE = 1,
    ZONE_DELTA,
    ZONE_ASK,
    ZONE_ANSWER,
    ZONE_PULL,
    ZONE_VIEW,
    ZONE_FETCH,
    ZONE_RECORDS,
    ZONE_RESHAPE,
    ZONE_KINDS
};

enum zone_stage { ZONE_PREPARE, ZONE_ACK, ZONE_COMMIT, ZONE_STAGES };

/* Every message says where its sender is and what its zone claims. */
struct zone_header {
    uint8_t kind; /* enum zone_kind */
    uint32_t node;
    uint32_t area; /* zone_area() of its path */
    uint32_t epoch;
    struct zone_range claim;
};
#define ZONE_HEADER_BYTES (1 + 1 + 4 + 3 + 4 + 7 + 7)

struct zone_delta {
    uint64_t version;
    uint32_t queue_us;
    uint16_t room;
    uint16_t vram_free_64mib;
};

struct zone_pull {
    uint32_t id;
    struct zone_range range;
    uint8_t want; /* pieces, 1..ZONE_ANSWER_PIECES */
};

struct zone_pieces {
    uint32_t id;
    uint8_t count;
    bool is_signed; /* each piece has its signature */
    struct zone_summary all[ZONE_ANSWER_PIECES];
};

struct zone_fetch {
    uint32_t id;
    struct zone_range range;
};

struct zone_page {
    uint32_t id;
    uint8_t count;
    bool whole;    /* who sends it knows all records of the range asked for */
    uint64_t next; /* path to go on from; ZONE_KEY_END: that was all */
    struct {
        uint16_t age_ms;
        struct zone_record record;
    } all[ZONE_PAGE_MAX];
};

struct zone_reshape {
    uint8_t stage; /* enum zone_stage */
    uint32_t epoch;
    struct zone_range range;    /* what is to be reshaped, as one */
    uint64_t cut;               /* split there; 0: becomes one zone */
    struct zone_contact source; /* merge: who has the records of the other part */
};

struct zone_msg {
    struct zone_header header;
    union {
        struct zone_record state;
        struct zone_delta delta;
        struct {
            struct zone_ask ask; /* `to` is not sent */
            struct zone_query query;
        } ask;
        struct zone_answer answer;
        struct zone_pull pull;
        struct zone_pieces view;
        struct zone_fetch fetch;
        struct zone_page page;
        struct zone_reshape reshape;
    };
};

/* Writes a message; `secret` signs the pieces of a VIEW (NULL: unsigned). Returns its length. */
size_t zone_msg_write(uint8_t out[ZONE_DATAGRAM_MAX], const struct zone_msg *msg,
                      const uint8_t *secret);

/* True: all of it is valid and in `msg`. `public_key` of the sender checks signed pieces; NULL:
 * they are taken unchecked. */
bool zone_msg_read(const void *data, size_t size, const uint8_t *public_key, struct zone_msg *msg);

/* Who says that it has sent this; false: that is no message. */
bool zone_msg_sender(const void *data, size_t size, uint32_t *node);

/* Is it of another version of this format? Nothing but its sender can be read. */
bool zone_msg_foreign(const void *data, size_t size);

/* Pieces that an answer has room for beside its records. */
uint32_t zone_answer_room(uint32_t found_count);
