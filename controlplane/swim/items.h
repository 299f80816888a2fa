/* SPDX-License-Identifier: Apache-2.0 */
/*
 * items.h - what a datagram holds once it is opened: items of type (1 byte), length (2) and
 * content, little-endian. A reader skips types it does not know and bytes behind those it does:
 * items only ever grow at their end. swim.h tells who sends what when.
 *
 * Writers return false, and write nothing, if there is no room. Readers return false if an item is
 * too short or contradicts itself. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/swim/record.h"
#include "schemas/base/cursor.h"

#define SWIM_ITEM_HEAD        3u
#define SWIM_BUCKET_BITS_MAX  8u
#define SWIM_DIGEST_ENTRY     25u
#define SWIM_DIGEST_HEAD      6u
#define SWIM_DIGEST_ENTRY_MAX 46u /* in one item */
#define SWIM_PULL_MAX         128u

enum swim_item_type {
    SWIM_ITEM_PING = 1,  /* token: answer it */
    SWIM_ITEM_ACK,       /* token */
    SWIM_ITEM_PING_REQ,  /* token, whom to ping */
    SWIM_ITEM_NACK,      /* token: pinged, no answer */
    SWIM_ITEM_RECORD,    /* a record as signed */
    SWIM_ITEM_VOTE,      /* a vote as signed */
    SWIM_ITEM_STATE,     /* a member's state as signed */
    SWIM_ITEM_DEAD,      /* uid, incarnation: the sender holds it dead */
    SWIM_ITEM_SYNC,      /* sum over all the sender knows, and how many */
    SWIM_ITEM_BUCKETS,   /* the sums of 2^bits parts of it */
    SWIM_ITEM_DIGEST,    /* the entries of one part */
    SWIM_ITEM_PULL,      /* uids: send me those */
    SWIM_ITEM_CHALLENGE, /* a number to be sent back */
    SWIM_ITEM_PROOF,     /* the number of the other's challenge: what is said here is said now */
};

struct swim_item {
    uint8_t type; /* enum swim_item_type, or one unknown here */
    const uint8_t *data;
    uint16_t size;
};

/* The next item. False at the end; *malformed tells whether that is a good one. */
bool swim_item_next(struct cursor *body, struct swim_item *item, bool *malformed);

/* PING, ACK, NACK. */
bool swim_put_token(struct cursor *body, enum swim_item_type type, uint32_t token);
bool swim_get_token(const struct swim_item *item, uint32_t *token);

/* CHALLENGE, PROOF. */
bool swim_put_number(struct cursor *body, enum swim_item_type type, uint64_t number);
bool swim_get_number(const struct swim_item *item, uint64_t *number);

bool swim_put_ping_req(struct cursor *body, uint32_t token, uint64_t uid);
bool swim_get_ping_req(const struct swim_item *item, uint32_t *token, uint64_t *uid);

/* Any item whose content is at hand. */
bool swim_put_bytes(struct cursor *body, enum swim_item_type type, const void *data, size_t size);

bool swim_put_vote(struct cursor *body, const struct swim_vote *vote);
bool swim_get_vote(const struct swim_item *item, struct swim_vote *vote);

bool swim_put_state(struct cursor *body, const struct swim_state_head *head, const void *data,
                    size_t size, const uint8_t signature[SWIM_SIGNATURE_BYTES]);
/* *data points into the item. */
bool swim_get_state(const struct swim_item *item, struct swim_state_head *head,
                    const uint8_t **data, size_t *size, const uint8_t **signature);

/* DEAD: two numbers; SYNC: sum, count. */
bool swim_put_two(struct cursor *body, enum swim_item_type type, uint64_t first, uint64_t second);
bool swim_get_two(const struct swim_item *item, uint64_t *first, uint64_t *second);

bool swim_put_buckets(struct cursor *body, uint32_t bits, const uint32_t *sums);
/* `sums` has room for 2^SWIM_BUCKET_BITS_MAX. */
bool swim_get_buckets(const struct swim_item *item, uint32_t *bits, uint32_t *sums);

struct swim_digest_entry {
    uint64_t uid;
    uint64_t incarnation;
    uint32_t version;
    uint32_t state_version;
    uint8_t status; /* enum swim_status: alive, dead or left */
};

struct swim_digest {
    uint32_t bits;
    uint32_t bucket;
    bool complete; /* nothing else is known of that bucket */
    uint32_t count;
    struct swim_digest_entry entries[SWIM_DIGEST_ENTRY_MAX];
};

bool swim_put_digest(struct cursor *body, const struct swim_digest *digest);
bool swim_get_digest(const struct swim_item *item, struct swim_digest *digest);

bool swim_put_pull(struct cursor *body, const uint64_t *uids, uint32_t count);
/* Returns how many, at most SWIM_PULL_MAX. */
uint32_t swim_get_pull(const struct swim_item *item, uint64_t uids[SWIM_PULL_MAX]);
