/* SPDX-License-Identifier: Apache-2.0 */
/* zoning.c - see zoning.h. */
#include "controlplane/gossip/zoning.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"

WEFT_ASSERT(ZONE_DATAGRAM_MAX <= LETTER_MAX, "what zones send fits a letter");
WEFT_ASSERT(ZONE_MODELS_MAX == MEMBERS_MODELS_MAX, "zones know all models of a node");
WEFT_ASSERT(ZONING_SEARCHES <= ZONE_SEARCHES_MAX, "all of them have room");

struct asked {
    bool used;
    uint64_t ticket;
    uint64_t begun_ns;
    struct zone_search search;
};

struct zoning {
    struct zoning_options options;
    struct zone zone;
    struct zone_member members[ZONE_MEMBERS_MAX];
    struct zone_duty duties[ZONE_DUTIES];
    struct rng rng;
    uint64_t since_ns;  /* so long it has been without a zone */
    uint64_t others_ns; /* since others are there; 0: there are none */
    uint64_t watch_ns, join_ns, meet_ns;
    uint64_t foreign_ns; /* when a member spoke another version of zones last; 0: none has */
    struct asked asked[ZONING_SEARCHES];
};

/* ---- this node ---- */

static const struct member *self_of(const struct zoning *z)
{
    return members_at(z->options.members, members_self(z->options.members));
}

static struct zone_record record_of(const struct member *m)
{
    uint32_t vram = m->facts.free_vram_mib / WEFT_VRAM_UNIT_MIB;
    struct zone_record record = {
        .node = m->id,
        .tags = m->tags,
        .addr = m->address,
        .x = weft_cell_x(m->longitude_deg),
        .y = weft_cell_y(m->latitude_deg),
        .jurisdiction = zone_jurisdiction(m->jurisdiction),
        .tier = (uint8_t)m->tier,
        .room = m->facts.room,
        .queue_us = m->facts.queue_us,
        .vram_free_64mib = (uint16_t)(vram < UINT16_MAX ? vram : UINT16_MAX),
        .vram_total_64mib = UINT16_MAX, /* not told: nothing old excludes by it */
    };
    for (uint32_t i = 0; i < m->facts.model_count && i < ZONE_MODELS_MAX; i++) {
        record.models[record.model_count++] = m->facts.models[i].id;
    }
    return record;
}

/* The edition of records rises with each start: seconds of the incarnation, which is milliseconds
 * of the wall clock. */
static void begin(struct zoning *z, uint64_t now_ns)
{
    const struct config *config = z->options.config;
    const struct member *self = self_of(z);
    struct zone_record record = record_of(self);
    uint16_t split = (uint16_t)config->zone_members;
    uint16_t merge = split > 0 && split < 3 ? 1 : (uint16_t)(split / 3);
    struct zone_options options = {
        .abstract = config->geometry == CONFIG_GEOMETRY_ABSTRACT,
        .split_above = split,
        .merge_below = merge,
        .silence_ns = UINT64_MAX, /* the membership says who is gone */
        .seed = rng_next(&z->rng),
        .duties = z->duties,
        .duty_max = ZONE_DUTIES,
    };
    record.version = (swim_self(z->options.swim)->record.incarnation / 1000 & UINT32_MAX) << 32;
    zone_init(&z->zone, &options, &record, z->members, ZONE_MEMBERS_MAX, now_ns);
    z->since_ns = now_ns;
    z->others_ns = 0;
}

/* ---- searches ---- */

/* Answers whoever has been waiting for what has ended; `all`: what has not as well, as far as it
 * got. */
static void searches_end(struct zoning *z, bool all, uint64_t now_ns)
{
    for (uint32_t i = 0; i < ZONING_SEARCHES; i++) {
        struct asked *a = &z->asked[i];
        struct zone_result result;
        if (!a->used || (!all && !zone_search_done(&a->search, now_ns))) {
            continue;
        }
        zone_search_result(&a->search, &result);
        if (z->foreign_ns != 0 && now_ns - z->foreign_ns < ZONING_FOREIGN_NS) {
            result.complete = false; /* nobody can ask that one */
        }
        zone_search_end(&z->zone, &a->search);
        a->used = false;
        z->options.found(a->ticket, &a->search.query, &result, now_ns - a->begun_ns,
                         z->options.user);
    }
}

static bool same_facts(const struct zone_record *a, const struct zone_record *b)
{
    return a->tags == b->tags && a->jurisdiction == b->jurisdiction && a->room == b->room &&
           a->queue_us == b->queue_us && a->vram_free_64mib == b->vram_free_64mib &&
           a->model_count == b->model_count && addr_equal(&a->addr, &b->addr) &&
           memcmp(a->models, b->models, sizeof(a->models)) == 0;
}

static void self_follow(struct zoning *z, uint64_t now_ns)
{
    struct zone_record record = record_of(self_of(z));
    const struct zone_record *is = &z->zone.self;
    if (record.node != is->node || record.x != is->x || record.y != is->y ||
        record.tier != is->tier) {
        searches_end(z, true, now_ns);
        begin(z, now_ns);
    } else if (!same_facts(&record, is)) {
        zone_set_self(&z->zone, &record, now_ns);
    }
}

/* ---- the others ---- */

static bool is_other_live(const struct zoning *z, uint32_t index)
{
    return index != members_self(z->options.members) &&
           members_at(z->options.members, index)->alive;
}

static struct zone_contact contact_of(const struct member *m)
{
    struct zone_record record = record_of(m);
    return zone_contact_of(&record);
}

/* Those that swim holds dead go at once; whom it does not know it may not know yet. */
static void lives_follow(struct zoning *z, uint64_t now_ns)
{
    for (uint32_t i = 0; i < z->zone.member_count;) {
        const struct zone_member *mate = &z->members[i];
        const struct member *m = members_find(z->options.members, (uint16_t)mate->record.node);
        bool gone = m != NULL && mate->record.node <= UINT16_MAX
                        ? !m->alive
                        : now_ns - mate->heard_ns >= ZONING_UNKNOWN_NS;
        if (gone) {
            zone_member_down(&z->zone, mate->record.node);
        } else {
            i++;
        }
    }
}

/* A live member, drawn; NULL: there is none. *lowest: no other has a lower id than this node. */
static const struct member *other_draw(struct zoning *z, bool *lowest)
{
    const struct member *drawn = NULL;
    uint32_t seen = 0;
    *lowest = true;
    for (uint32_t i = 0; i < members_count(z->options.members); i++) {
        const struct member *m = members_at(z->options.members, i);
        if (is_other_live(z, i)) {
            *lowest = *lowest && m->id > z->zone.self.node;
            drawn = rng_below(&z->rng, ++seen) == 0 ? m : drawn;
        }
    }
    return drawn;
}

/* ---- datagrams ---- */

static bool zone_sends(void *user, const struct zone_contact *to, const void *data, size_t size)
{
    struct zoning *z = user;
    uint8_t sealed[SWIM_DATAGRAM_MAX];
    const struct member *m =
        to->node <= UINT16_MAX ? members_find(z->options.members, (uint16_t)to->node) : NULL;
    if (m == NULL || m->id == z->zone.self.node) {
        return true; /* not known (yet): as if it were lost */
    }
    if (!m->alive) {
        return false;
    }
    const struct swim_member *peer = swim_at(z->options.swim, m->owner);
    size_t len = peer != NULL && peer->record.id == m->id
                     ? letter_seal(z->options.letters, m->owner, LETTER_ZONE, data, size, sealed)
                     : 0;
    if (len != 0) {
        z->options.send(&peer->record.address, peer->record.port, sealed, len, z->options.user);
    }
    return true;
}

static struct zone_io io_of(struct zoning *z)
{
    return (struct zone_io){.send = zone_sends, .user = z};
}

/* ---- joining ---- */

static void found(struct zoning *z, uint64_t now_ns)
{
    zone_found_mesh(&z->zone, now_ns);
}

static void join(struct zoning *z, uint64_t now_ns)
{
    struct zone_io io = io_of(z);
    bool lowest;
    const struct member *other = other_draw(z, &lowest);
    if (other == NULL) {
        z->others_ns = 0;
        if (z->options.config->seed_count == 0 || now_ns - z->since_ns >= ZONING_ALONE_NS) {
            found(z, now_ns);
        }
        return;
    }
    z->others_ns = z->others_ns != 0 ? z->others_ns : now_ns;
    if (now_ns - z->others_ns >= (lowest ? ZONING_FOUND_NS : ZONING_FOUND_ALL)) {
        found(z, now_ns);
    } else if (now_ns >= z->join_ns) {
        struct zone_contact contact = contact_of(other);
        z->join_ns = now_ns + ZONING_JOIN_NS;
        zone_join(&z->zone, &contact, now_ns, &io);
    }
}

static void meet(struct zoning *z, uint64_t now_ns)
{
    bool lowest;
    const struct member *other = other_draw(z, &lowest);
    z->meet_ns = now_ns + ZONING_MEET_NS;
    if (other != NULL) {
        struct zone_contact contact = contact_of(other);
        zone_meet(&z->zone, &contact);
    }
}

int zoning_search(struct zoning *z, const struct zone_query *query, uint64_t ticket,
                  uint64_t now_ns)
{
    struct zone_io io = io_of(z);
    for (uint32_t i = 0; i < ZONING_SEARCHES; i++) {
        struct asked *a = &z->asked[i];
        if (a->used) {
            continue;
        }
        self_follow(z, now_ns);
        lives_follow(z, now_ns);
        int rc = zone_search_begin(&z->zone, &a->search, query, now_ns, now_ns + ZONING_DEADLINE_NS,
                                   &io);
        if (rc == 0) {
            a->used = true;
            a->ticket = ticket;
            a->begun_ns = now_ns;
            searches_end(z, false, now_ns);
        }
        return rc;
    }
    return -EBUSY;
}

/* ---- time ---- */

void zoning_input(struct zoning *z, const struct letter *letter, uint64_t now_ns)
{
    const struct swim_member *from = swim_at(z->options.swim, letter->slot);
    struct zone_io io = io_of(z);
    uint32_t node;
    if (from == NULL || !zone_msg_sender(letter->body, letter->size, &node) ||
        node != from->record.id) {
        z->zone.counters.malformed++;
        return;
    }
    if (zone_msg_foreign(letter->body, letter->size)) {
        z->foreign_ns = now_ns;
        return;
    }
    zone_input(&z->zone, letter->body, letter->size, &from->record.address, NULL, now_ns, &io);
    searches_end(z, false, now_ns);
}

void zoning_tick(struct zoning *z, uint64_t now_ns)
{
    struct zone_io io = io_of(z);
    if (now_ns >= z->watch_ns) {
        z->watch_ns = now_ns + ZONING_WATCH_NS;
        self_follow(z, now_ns);
        lives_follow(z, now_ns);
        if (!z->zone.joined) {
            join(z, now_ns);
        } else if (now_ns >= z->meet_ns) {
            meet(z, now_ns);
        }
    }
    zone_tick(&z->zone, now_ns, &io);
    searches_end(z, false, now_ns);
}

uint64_t zoning_next_ns(const struct zoning *z)
{
    uint64_t next_ns = zone_next_ns(&z->zone);
    for (uint32_t i = 0; i < ZONING_SEARCHES; i++) {
        const struct asked *a = &z->asked[i];
        if (a->used && a->search.deadline_ns < next_ns) {
            next_ns = a->search.deadline_ns;
        }
    }
    return z->watch_ns < next_ns ? z->watch_ns : next_ns;
}

/* ---- life ---- */

int zoning_create(struct zoning **out, const struct zoning_options *options, uint64_t now_ns)
{
    *out = calloc(1, sizeof(**out));
    if (*out == NULL) {
        return -ENOMEM;
    }
    (*out)->options = *options;
    (*out)->rng.state = options->seed;
    begin(*out, now_ns);
    return 0;
}

void zoning_destroy(struct zoning *z)
{
    free(z);
}

const struct zone *zoning_zone(const struct zoning *z)
{
    return &z->zone;
}
