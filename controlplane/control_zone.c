/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_zone.c - what goes by letter between members: the zones; and `query` on the admin socket,
 * a search over all of them. See control_impl.h and gossip/zoning.h.
 */
#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <string.h>

#include "controlplane/control_impl.h"
#include "controlplane/keys/keys.h"

#define FRESH_MS 60000u /* evidence on free memory older than this excludes nothing */

/* ---- sending ---- */

void letters_flush(struct control *control)
{
    unsigned count = control->letters_going_count;
    if (count > 0) {
        unsigned sent = (unsigned)udp_send(control->fd, control->letters_going, count);
        control->send_failures += count - sent;
        control->letters_going_count = 0;
    }
}

static void letter_send(const struct in6_addr *address, uint16_t port, const void *data,
                        size_t size, void *user)
{
    struct control *control = user;
    if (control->letters_going_count == UDP_BATCH) {
        letters_flush(control);
    }
    struct udp_datagram *datagram = &control->letters_going[control->letters_going_count++];
    datagram->address = *address;
    datagram->port = port;
    datagram->len = (uint16_t)size;
    memcpy(datagram->data, data, size);
}

void letter_to(struct control *control, uint32_t slot, enum letter_topic topic, const void *data,
               size_t size)
{
    uint8_t sealed[SWIM_DATAGRAM_MAX];
    const struct swim_member *to = swim_at(gossip_swim(control->gossip), slot);
    size_t len = letter_seal(&control->letters, slot, topic, data, size, sealed);
    if (len != 0) {
        letter_send(&to->record.address, to->record.port, sealed, len, control);
    }
}

/* ---- a query: what is asked ---- */

static double number_at(const json_t *object, const char *key, double none)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : none;
}

static uint32_t whole_in(const json_t *value, uint32_t max, bool *good)
{
    double number = json_is_number(value) ? json_number_value(value) : -1;
    *good = *good && number >= 0 && number <= (double)max;
    return *good ? (uint32_t)number : 0;
}

static uint32_t whole_at(const json_t *object, const char *key, uint32_t none, uint32_t max,
                         bool *good)
{
    const json_t *value = json_object_get(object, key);
    return value == NULL ? none : whole_in(value, max, good);
}

/* False: not a list of up to ZONE_JURISDICTIONS_MAX names of two letters. */
static bool jurisdictions_of(const json_t *list, struct zone_query *query)
{
    size_t count = json_array_size(list);
    if (list != NULL && (!json_is_array(list) || count > ZONE_JURISDICTIONS_MAX)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL || strlen(name) != 2) {
            return false;
        }
        query->jurisdictions[query->jurisdiction_count++] = zone_jurisdiction(name);
    }
    return true;
}

/* The keys of query.h, resolved by who asks. */
static bool zone_query_of(const struct control *control, const json_t *request,
                          struct zone_query *query)
{
    const struct member *self = members_at(control->members, members_self(control->members));
    const char *model = json_string_value(json_object_get(request, "model"));
    const json_t *after = json_object_get(request, "after");
    double latitude = number_at(request, "latitude", self->latitude_deg);
    double longitude = number_at(request, "longitude", self->longitude_deg);
    bool good = fabs(latitude) <= 90 && fabs(longitude) <= 180;
    *query = (struct zone_query){
        .model = model != NULL && model[0] != '\0' ? weft_model_id(model) : 0,
        .tags = whole_at(request, "tags", 0, UINT32_MAX, &good),
        .x = weft_cell_x(good ? longitude : 0),
        .y = weft_cell_y(good ? latitude : 0),
        .tier_min = (uint8_t)whole_at(request, "tier_min", 0, WEFT_TIER_MAX, &good),
        .tier_max = (uint8_t)whole_at(request, "tier_max", WEFT_TIER_MAX, WEFT_TIER_MAX, &good),
        .radius_km = (uint16_t)whole_at(request, "radius_km", 0, UINT16_MAX, &good),
        .vram_64mib = (uint16_t)whole_at(request, "vram_64mib", 0, UINT16_MAX, &good),
        .k = (uint8_t)whole_at(request, "k", ZONE_TOP_MAX, ZONE_TOP_MAX, &good),
        .abstract = control->config->geometry == CONFIG_GEOMETRY_ABSTRACT,
        .fresh_ms = FRESH_MS,
        .has_after = after != NULL,
        .after_distance = after != NULL ? whole_in(json_array_get(after, 0), UINT32_MAX, &good) : 0,
        .after_node = after != NULL ? whole_in(json_array_get(after, 1), UINT32_MAX, &good) : 0,
    };
    return good && jurisdictions_of(json_object_get(request, "jurisdictions"), query) &&
           zone_query_valid(query);
}

/* ---- a query: what was found ---- */

/* The member with what its zone says of it; NULL: the membership does not know it, or knows that it
 * is gone. */
static json_t *found_json(const struct control *control, const struct zone_found *found,
                          uint64_t now_ns)
{
    const struct member *member =
        found->node <= UINT16_MAX ? members_find(control->members, (uint16_t)found->node) : NULL;
    if (member == NULL || !member->alive) {
        return NULL;
    }
    json_t *json = control_member_json(control->members, member, now_ns);
    json_object_set_new(json, "room", json_integer(found->room));
    json_object_set_new(json, "queue_us", json_integer((json_int_t)found->queue_us));
    json_object_set_new(
        json, "free_vram_mib",
        json_integer((json_int_t)found->vram_free_64mib * (json_int_t)WEFT_VRAM_UNIT_MIB));
    json_object_set_new(json, "distance_cells", json_integer((json_int_t)found->distance));
    json_object_set_new(json, "heard_ms_ago", json_integer((json_int_t)found->age_ms));
    return json;
}

/* Names of live members whose zone has not been heard. Beyond ZONE_SEARCH_UNHEARD ranges are not
 * listed: then it may be any of them. */
static json_t *unheard_names(const struct control *control, const struct zone_result *result)
{
    json_t *names = json_array();
    for (uint32_t i = 0; i < members_count(control->members); i++) {
        const struct member *m = members_at(control->members, i);
        uint64_t key = zone_key(weft_cell_x(m->longitude_deg), weft_cell_y(m->latitude_deg),
                                (uint8_t)m->tier, m->id);
        bool unheard = result->unheard_count > ZONE_SEARCH_UNHEARD;
        for (uint32_t r = 0; r < result->unheard_count && r < ZONE_SEARCH_UNHEARD; r++) {
            unheard = unheard || zone_range_has(result->unheard[r], key);
        }
        for (uint32_t f = 0; f < result->top.count; f++) {
            unheard = unheard && result->top.all[f].node != m->id;
        }
        if (unheard && m->alive && i != members_self(control->members)) {
            json_array_append_new(names, json_string(m->name));
        }
    }
    return names;
}

static void query_found(uint64_t ticket, const struct zone_query *query,
                        const struct zone_result *result, uint64_t took_ns, void *user)
{
    struct control *control = user;
    uint64_t now_ns = clock_now_ns();
    const struct members *members = control->members;
    json_t *found = json_array();
    for (uint32_t i = 0; i < result->top.count; i++) {
        json_t *json = found_json(control, &result->top.all[i], now_ns);
        if (json != NULL) {
            json_array_append_new(found, json);
        }
    }
    json_t *answer =
        json_pack("{s:s, s:o, s:o, s:b, s:b, s:I, s:I, s:o, s:I, s:I, s:f, s:f}", "node",
                  control->config->node, "self",
                  control_member_json(members, members_at(members, members_self(members)), now_ns),
                  "found", found, "more", (int)(result->top.count == query->k), "complete",
                  (int)result->complete, "age_ms", (json_int_t)result->age_ms, "unheard",
                  (json_int_t)result->unheard_count, "not_heard", unheard_names(control, result),
                  "asks", (json_int_t)result->asks, "hops", (json_int_t)result->hops, "took_ms",
                  (double)took_ns / 1e6, "settled_ms", (double)result->settled_ns / 1e6);
    if (answer != NULL && result->top.count > 0) {
        const struct zone_found *last = &result->top.all[result->top.count - 1];
        json_object_set_new(
            answer, "last",
            json_pack("[I, I]", (json_int_t)last->distance, (json_int_t)last->node));
    }
    admin_answer(control->admin, ticket, answer);
}

static json_t *query_ask(const json_t *request, uint64_t ticket, void *user)
{
    struct control *control = user;
    struct zone_query query;
    if (control->zoning == NULL) {
        return json_pack("{s:s}", "error", "a static mesh has no zones");
    }
    if (!zone_query_of(control, request, &query)) {
        return json_pack("{s:s}", "error", "that is no query");
    }
    uint64_t now_ns = clock_now_ns();
    int rc = zoning_search(control->zoning, &query, ticket, now_ns);
    letters_flush(control);
    mesh_send(control, now_ns); /* to be waked when an answer is late */
    return rc == 0 ? NULL
                   : json_pack("{s:s}", "error",
                               rc == -EBUSY ? "too many queries at once" : strerror(-rc));
}

int zone_query_offer(struct control *control)
{
    struct admin_later later = {.command = "query", .ask = query_ask, .user = control};
    return admin_offer_later(control->admin, &later);
}

/* ---- status ---- */

json_t *zone_status(const struct control *control)
{
    const struct zone *zone = zoning_zone(control->zoning);
    uint64_t now_ns = clock_now_ns();
    const double whole = (double)ZONE_KEY_END;
    json_t *names = json_array();
    for (uint32_t i = 0; i < zone->member_count; i++) {
        const struct zone_member *mate = &zone->members[i];
        const struct member *m = members_find(control->members, (uint16_t)mate->record.node);
        if (m != NULL && zone_range_has(zone->claim, mate->key)) {
            json_array_append_new(names, json_string(m->name));
        }
    }
    return json_pack(
        "{s:b, s:b, s:I, s:I, s:[f, f], s:o, s:I, s:I, s:I, s:I}", "joined", (int)zone->joined,
        "synced", (int)(zone->joined && zone_range_equal(zone->synced, zone->claim)), "members",
        (json_int_t)zone_live(zone, now_ns), "epoch", (json_int_t)zone->epoch, "claim",
        (double)zone->claim.lo / whole, (double)zone->claim.hi / whole, "mates", names, "view",
        (json_int_t)zone->view.count, "splits", (json_int_t)zone->counters.splits, "merges",
        (json_int_t)zone->counters.merges, "takeovers", (json_int_t)zone->counters.takeovers);
}

/* ---- life ---- */

int letters_create(struct control *control, const struct keys *keys)
{
    uint64_t seed;
    const struct swim *swim = gossip_swim(control->gossip);
    int rc = letters_init(&control->letters, swim, keys->identity,
                          (const uint8_t(*)[SWIM_KEY_BYTES])keys->mesh, keys->mesh_count);
    if (rc < 0) {
        return rc;
    }
    randombytes_buf(&seed, sizeof(seed));
    struct zoning_options options = {
        .config = control->config,
        .swim = swim,
        .members = control->members,
        .letters = &control->letters,
        .seed = seed,
        .send = letter_send,
        .found = query_found,
        .user = control,
    };
    rc = control_policy_create(control);
    return rc < 0 ? rc : zoning_create(&control->zoning, &options, control->started_ns);
}

void letters_destroy(struct control *control)
{
    zoning_destroy(control->zoning);
    decree_deinit(&control->decree);
    letters_deinit(&control->letters);
}

void letters_receive(struct control *control, const void *data, size_t size, uint64_t now_ns)
{
    struct letter letter;
    if (letter_open(&control->letters, data, size, now_ns, &letter)) {
        if (letter.topic == LETTER_ZONE) {
            zoning_input(control->zoning, &letter, now_ns);
        } else if (letter.topic == LETTER_POLICY) {
            control_policy_receive(control, &letter, now_ns);
        } else if (letter.topic == LETTER_WAY) {
            control_way_receive(control, &letter, now_ns);
        }
        letters_flush(control);
    }
}

uint64_t letters_tick(struct control *control, uint64_t now_ns)
{
    if (gossip_has_left(control->gossip)) {
        return UINT64_MAX;
    }
    if (zoning_next_ns(control->zoning) <= now_ns) {
        zoning_tick(control->zoning, now_ns);
        control_policy_tick(control, now_ns); /* zones wake often enough */
        letters_flush(control);
    }
    return zoning_next_ns(control->zoning);
}
