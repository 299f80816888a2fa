/* SPDX-License-Identifier: Apache-2.0 */
/* ways.c - see ways.h. */
#include "controlplane/gossip/ways.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

enum { LETTER_ASK = 1, LETTER_ANSWER = 2 };

/* Of an answer model, arithmetic and key are zero. Little-endian. */
struct body {
    uint8_t kind;
    uint8_t reserved[3];
    int32_t status;
    uint32_t model;
    uint32_t arithmetic;
    uint8_t ticket[WAY_TICKET_BYTES];
    uint8_t key[WAY_KEY_BYTES];
};

_Static_assert(sizeof(struct body) == WAY_LETTER_BYTES, "letters are of one length");

/* The first `WAYS_MAX` are wanted here, the others expected. */
static struct way *free_in(struct ways *ways, uint32_t begin)
{
    for (uint32_t i = begin; i < begin + WAYS_MAX; i++) {
        if (ways->all[i].state == WAY_FREE) {
            return &ways->all[i];
        }
    }
    return NULL;
}

static struct way *find(struct ways *ways, uint32_t begin, const uint8_t ticket[WAY_TICKET_BYTES])
{
    for (uint32_t i = begin; i < begin + WAYS_MAX; i++) {
        if (ways->all[i].state != WAY_FREE &&
            sodium_memcmp(ways->all[i].ticket, ticket, WAY_TICKET_BYTES) == 0) {
            return &ways->all[i];
        }
    }
    return NULL;
}

static void drop(struct way *way)
{
    sodium_memzero(way, sizeof(*way));
}

int ways_want(struct ways *ways, uint32_t slot, uint32_t model, uint32_t arithmetic, uint64_t tag,
              const uint8_t random[WAY_TICKET_BYTES + WAY_KEY_BYTES], uint64_t now_ns)
{
    struct way *way = free_in(ways, 0);
    if (way == NULL) {
        return -EBUSY;
    }
    *way = (struct way){.state = WAY_ASKING,
                        .slot = slot,
                        .model = model,
                        .arithmetic = arithmetic,
                        .due_ns = now_ns,
                        .tag = tag};
    memcpy(way->ticket, random, WAY_TICKET_BYTES);
    memcpy(way->key, random + WAY_TICKET_BYTES, WAY_KEY_BYTES);
    return 0;
}

static void ask(struct way *way, uint64_t now_ns, struct way_out *out)
{
    struct body body = {.kind = LETTER_ASK, .model = way->model, .arithmetic = way->arithmetic};
    memcpy(body.ticket, way->ticket, sizeof(body.ticket));
    memcpy(body.key, way->key, sizeof(body.key));
    way->asks++;
    way->due_ns = now_ns + WAY_ASK_AGAIN_NS;
    out->act = WAY_SAY;
    out->slot = way->slot;
    memcpy(out->letter, &body, sizeof(body));
    sodium_memzero(&body, sizeof(body));
}

static void fail(struct way *way, int status, struct way_out *out)
{
    out->act = WAY_FAILED;
    out->status = status;
    out->way = *way;
    drop(way);
}

bool ways_tick(struct ways *ways, uint64_t now_ns, struct way_out *out)
{
    out->act = WAY_NOTHING;
    for (uint32_t i = 0; i < 2 * WAYS_MAX; i++) {
        struct way *way = &ways->all[i];
        if (way->state == WAY_FREE || now_ns < way->due_ns) {
            continue;
        }
        if (way->state == WAY_EXPECTED) {
            drop(way);
        } else if (way->state == WAY_ASKING && way->asks < WAY_ASKS_MAX) {
            ask(way, now_ns, out);
            return true;
        } else if (way->state == WAY_ASKING) {
            fail(way, -ETIMEDOUT, out);
            return true;
        }
    }
    return false;
}

uint64_t ways_next_ns(const struct ways *ways)
{
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < 2 * WAYS_MAX; i++) {
        const struct way *way = &ways->all[i];
        bool due = way->state == WAY_ASKING || way->state == WAY_EXPECTED;
        next_ns = due && way->due_ns < next_ns ? way->due_ns : next_ns;
    }
    return next_ns;
}

static bool body_of(const void *data, size_t size, struct body *body)
{
    if (size < sizeof(*body)) {
        return false; /* longer ones come from newer members */
    }
    memcpy(body, data, sizeof(*body));
    return body->kind == LETTER_ASK || body->kind == LETTER_ANSWER;
}

bool ways_is_ask(const void *data, size_t size, uint32_t *model, uint32_t *arithmetic)
{
    struct body body;
    bool is = body_of(data, size, &body) && body.kind == LETTER_ASK;
    *model = is ? body.model : 0;
    *arithmetic = is ? body.arithmetic : 0;
    return is;
}

static bool is_spent(const struct ways *ways, const uint8_t ticket[WAY_TICKET_BYTES])
{
    for (uint32_t i = 0; i < WAYS_SPENT && i < ways->spent_count; i++) {
        if (sodium_memcmp(ways->spent[i], ticket, WAY_TICKET_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static void spend(struct ways *ways, const uint8_t ticket[WAY_TICKET_BYTES])
{
    memcpy(ways->spent[ways->spent_count % WAYS_SPENT], ticket, WAY_TICKET_BYTES);
    ways->spent_count++;
}

/* A place for what that member asks for; NULL: all are taken, or its share of them. */
static struct way *place_for(struct ways *ways, uint32_t slot)
{
    uint32_t own = 0;
    for (uint32_t i = WAYS_MAX; i < 2 * WAYS_MAX; i++) {
        own += ways->all[i].state != WAY_FREE && ways->all[i].slot == slot;
    }
    return own < WAYS_SHARE ? free_in(ways, WAYS_MAX) : NULL;
}

/* Asks come again when the answer was lost: the same answer again, unless things have changed. */
static void expect(struct ways *ways, uint32_t slot, const struct body *body, int status,
                   uint64_t now_ns, struct way_out *out)
{
    struct way *way = find(ways, WAYS_MAX, body->ticket);
    if (is_spent(ways, body->ticket)) {
        return;
    }
    if (way != NULL && way->slot != slot) {
        status = -EACCES;
    } else if (way != NULL && status != 0) {
        drop(way);
    } else if (status == 0) {
        way = way != NULL ? way : place_for(ways, slot);
        status = way != NULL ? 0 : -EBUSY;
    }
    if (status == 0) {
        *way = (struct way){.state = WAY_EXPECTED,
                            .slot = slot,
                            .model = body->model,
                            .arithmetic = body->arithmetic,
                            .due_ns = now_ns + WAY_EXPECT_NS};
        memcpy(way->ticket, body->ticket, sizeof(way->ticket));
        memcpy(way->key, body->key, sizeof(way->key));
    }
    struct body answer = {.kind = LETTER_ANSWER, .status = status};
    memcpy(answer.ticket, body->ticket, sizeof(answer.ticket));
    out->act = WAY_SAY;
    out->slot = slot;
    memcpy(out->letter, &answer, sizeof(answer));
}

static void answered(struct ways *ways, uint32_t slot, const struct body *body, struct way_out *out)
{
    struct way *way = find(ways, 0, body->ticket);
    if (way == NULL || way->state != WAY_ASKING || way->slot != slot) {
        return;
    }
    if (body->status != 0) {
        fail(way, body->status < 0 && body->status > -4096 ? body->status : -EPROTO, out);
        return;
    }
    way->state = WAY_CONNECTING;
    out->act = WAY_CONNECT;
    out->way = *way;
    out->index = (uint32_t)(way - ways->all);
}

void ways_input(struct ways *ways, uint32_t slot, const void *data, size_t size, int status,
                uint64_t now_ns, struct way_out *out)
{
    struct body body;
    out->act = WAY_NOTHING;
    if (!body_of(data, size, &body)) {
        return;
    }
    if (body.kind == LETTER_ASK) {
        expect(ways, slot, &body, status, now_ns, out);
    } else {
        answered(ways, slot, &body, out);
    }
    sodium_memzero(&body, sizeof(body));
}

bool ways_came(struct ways *ways, const uint8_t ticket[WAY_TICKET_BYTES], uint64_t now_ns,
               struct way *out)
{
    struct way *way = find(ways, WAYS_MAX, ticket);
    if (way == NULL || now_ns >= way->due_ns) {
        return false;
    }
    *out = *way;
    spend(ways, ticket);
    drop(way);
    return true;
}

void ways_end(struct ways *ways, uint32_t index)
{
    drop(&ways->all[index]);
}
