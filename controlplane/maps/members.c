/* SPDX-License-Identifier: Apache-2.0 */
/* members.c - see members.h. */
#include "controlplane/maps/members.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/maps/members_impl.h"
#include "schemas/base/addr.h"
#include "schemas/base/crc32c.h"
#include "schemas/base/text.h"

#define SRTT_NOTABLE_NS   (50 * NS_PER_US)
#define SRTT_NOTABLE_PART 8u

int members_create(struct members **out, const struct config *config, uint64_t incarnation,
                   uint64_t now_ns)
{
    uint32_t count = config->member_count;
    *out = NULL;
    struct members *members = calloc(1, sizeof(*members) + count * sizeof(members->all[0]));
    if (members == NULL) {
        return -ENOMEM;
    }
    members->version = 1;
    members->incarnation = incarnation;
    members->count = count;
    members->self = config->self;
    members->port = config_control_port(config);
    memset(members->by_id, 0xff, sizeof(members->by_id));
    for (uint32_t i = 0; i < count; i++) {
        const struct config_member *from = &config->members[i];
        struct member *member = &members->all[i];
        memcpy(member->name, from->name, sizeof(member->name));
        memcpy(member->jurisdiction, from->jurisdiction, sizeof(member->jurisdiction));
        member->id = (uint16_t)from->id;
        member->address = from->address;
        member->client_address = from->client_address;
        member->latitude_deg = from->latitude_deg;
        member->longitude_deg = from->longitude_deg;
        member->config_tags = from->tags;
        member->tags = from->tags;
        member->tier = from->tier;
        member->changed_ns = now_ns;
        /* Spread over the period, on the raster. */
        uint64_t offset_ns = MEMBERS_PERIOD_NS * i / count;
        member->due_ns = now_ns + offset_ns / MEMBERS_PACE_NS * MEMBERS_PACE_NS;
        members->by_id[member->id] = (uint16_t)i;
    }
    members->all[members->self].alive = true;
    *out = members;
    return 0;
}

void members_destroy(struct members *members)
{
    free(members);
}

/* ---- models ---- */

/* Zero-terminated, filled up with zeros, printable without spaces; empty only if allowed. */
static bool text_valid(const char *text, size_t room, bool may_be_empty)
{
    size_t len = strnlen(text, room);
    if (len == room || (len == 0 && !may_be_empty) || !text_is_word(text, len)) {
        return false;
    }
    for (size_t i = len; i < room; i++) {
        if (text[i] != '\0') {
            return false;
        }
    }
    return true;
}

/* Does another name, of any member, already own this id? */
static bool model_clashes(const struct members *members, const struct members_model *model)
{
    for (uint32_t i = 0; i < members->count; i++) {
        const struct members_facts *facts = &members->all[i].facts;
        for (uint32_t j = 0; j < facts->model_count; j++) {
            if (facts->models[j].id == model->id &&
                strcmp(facts->models[j].name, model->name) != 0) {
                return true;
            }
        }
    }
    return false;
}

/* Adds a model unless it is there already or its id belongs to another name. */
static void model_add(struct members *members, struct members_facts *facts, const char *name,
                      uint32_t arithmetic, struct speeds speeds)
{
    struct members_model model = {
        .id = weft_model_id(name), .arithmetic = arithmetic, .speeds = speeds};
    strcpy(model.name, name); /* text_valid: it fits */
    bool clash = model_clashes(members, &model);
    for (uint32_t i = 0; i < facts->model_count && !clash; i++) {
        if (strcmp(facts->models[i].name, name) == 0) {
            return;
        }
        clash = facts->models[i].id == model.id;
    }
    if (clash) {
        members->counters.models_clash++;
        return;
    }
    facts->models[facts->model_count++] = model;
}

/* ---- own facts ---- */

/* Facts are compared as bytes: keep them free of stale ones after the strings. */
static void facts_copy_scalars(struct members_facts *to, const struct members_facts *from)
{
    memset(to, 0, sizeof(*to));
    to->room = from->room;
    to->queue_us = from->queue_us;
    to->free_vram_mib = from->free_vram_mib;
    to->prefill_tps = from->prefill_tps;
    to->decode_tps = from->decode_tps;
    to->context_tokens = from->context_tokens;
    to->flags = from->flags & MEMBERS_FACT_MASK;
    memcpy(to->prefixes, from->prefixes, sizeof(to->prefixes));
}

void members_put_facts(struct members *members, struct member *member,
                       const struct members_facts *facts)
{
    struct members_facts clean;
    uint32_t count =
        facts->model_count < MEMBERS_MODELS_MAX ? facts->model_count : MEMBERS_MODELS_MAX;
    facts_copy_scalars(&clean, facts);
    memcpy(clean.backend, facts->backend, strnlen(facts->backend, sizeof(clean.backend) - 1));
    if (!text_valid(clean.backend, sizeof(clean.backend), true)) {
        memset(clean.backend, 0, sizeof(clean.backend));
    }
    for (uint32_t i = 0; i < count; i++) {
        char name[WEFT_MODEL_NAME_MAX] = "";
        memcpy(name, facts->models[i].name, strnlen(facts->models[i].name, sizeof(name) - 1));
        if (text_valid(name, sizeof(name), false)) {
            model_add(members, &clean, name, facts->models[i].arithmetic, facts->models[i].speeds);
        }
    }
    if (memcmp(&member->facts, &clean, sizeof(clean)) != 0) {
        memcpy(&member->facts, &clean, sizeof(clean)); /* not assigned: padding is compared too */
        members->version++;
    }
}

void members_set_local(struct members *members, const struct members_facts *facts)
{
    members_put_facts(members, &members->all[members->self], facts);
}

/* ---- receiving ---- */

static const char *beacon_model_name(const struct beacon *beacon, const uint8_t *data, size_t i)
{
    return (const char *)(data + beacon->hdr_bytes + i * sizeof(struct beacon_model));
}

static struct speeds beacon_speeds(const struct beacon *beacon, size_t i)
{
    struct speeds speeds = {.prefill = 0};
    if (i < BEACON_SPEEDS) {
        memcpy(&speeds, &beacon->speeds[i], sizeof(speeds));
    }
    return speeds;
}

/* The usual case, and cheap: a beacon that names the models known already. */
static bool models_same(const struct members_facts *facts, const struct beacon *beacon,
                        const uint8_t *data)
{
    if (facts->model_count != beacon->model_count) {
        return false;
    }
    for (size_t i = 0; i < beacon->model_count; i++) {
        if (strcmp(facts->models[i].name, beacon_model_name(beacon, data, i)) != 0 ||
            facts->models[i].arithmetic != beacon->arithmetic[i]) {
            return false;
        }
    }
    return true;
}

/* Half a CRC-32C of the datagram with the field itself as zero, never 0: UDP's checksum does not
 * see what a box on the way has damaged and summed up again, and one bit of a sequence number would
 * make all later beacons old. */
static uint16_t beacon_sum(const uint8_t *data, size_t size)
{
    static const uint8_t none[sizeof(((struct beacon *)0)->sum)];
    const size_t at = offsetof(struct beacon, sum), behind = at + sizeof(none);
    uint32_t crc = crc32c(0, data, at);
    crc = crc32c(crc, none, sizeof(none));
    crc = crc32c(crc, data + behind, size - behind);
    return (uint16_t)crc != 0 ? (uint16_t)crc : UINT16_MAX;
}

/* The header and its models, checked in themselves; not yet who sent it. */
static bool beacon_valid(const struct beacon *beacon, const uint8_t *data, size_t size)
{
    size_t models_bytes = beacon->model_count * sizeof(struct beacon_model);
    if (beacon->hdr_bytes < BEACON_LEAST || beacon->hdr_bytes % 8 != 0 ||
        beacon->model_count > MEMBERS_MODELS_MAX || size != beacon->hdr_bytes + models_bytes ||
        (beacon->sum != 0 && beacon->sum != beacon_sum(data, size))) {
        return false;
    }
    if (beacon->tier > WEFT_TIER_MAX || beacon->sequence == 0 || beacon->sent_ns == 0 ||
        !text_valid(beacon->backend, sizeof(beacon->backend), true)) {
        return false;
    }
    for (size_t i = 0; i < beacon->model_count; i++) {
        if (!text_valid(beacon_model_name(beacon, data, i), WEFT_MODEL_NAME_MAX, false)) {
            return false;
        }
    }
    return true;
}

/* Newer than what was heard? A member that is down may begin anew with any incarnation: its clock
 * may have been set back, and nothing newer from it is being lost. */
static bool beacon_is_news(const struct member *member, const struct beacon *beacon)
{
    if (beacon->incarnation == member->incarnation) {
        return beacon->sequence > member->sequence_heard;
    }
    return beacon->incarnation > member->incarnation || !member->alive;
}

void members_tell_srtt(struct members *members, struct member *member)
{
    uint64_t told_ns = member->srtt_told_ns;
    uint64_t moved_ns =
        member->srtt_ns > told_ns ? member->srtt_ns - told_ns : told_ns - member->srtt_ns;
    if (told_ns == 0 || (moved_ns > SRTT_NOTABLE_NS && moved_ns > told_ns / SRTT_NOTABLE_PART)) {
        member->srtt_told_ns = member->srtt_ns;
        members->version++;
    }
}

static void rtt_sample(struct members *members, struct member *member, const struct beacon *beacon,
                       uint64_t now_ns)
{
    if (beacon->echo_ns == 0) {
        return;
    }
    uint64_t age_ns = now_ns - beacon->echo_ns;
    if (beacon->echo_ns > now_ns || age_ns > MEMBERS_RTT_MAX_NS || beacon->echo_hold_ns > age_ns) {
        members->counters.beacons_bad_echo++;
        return;
    }
    uint64_t rtt_ns = age_ns - beacon->echo_hold_ns;
    rtt_ns = rtt_ns > 0 ? rtt_ns : 1; /* 0 means not measured */
    if (member->srtt_ns == 0) {
        member->srtt_ns = rtt_ns;
        member->rttvar_ns = rtt_ns / 2;
    } else {
        uint64_t error_ns =
            rtt_ns > member->srtt_ns ? rtt_ns - member->srtt_ns : member->srtt_ns - rtt_ns;
        member->rttvar_ns = (3 * member->rttvar_ns + error_ns) / 4;
        member->srtt_ns = (7 * member->srtt_ns + rtt_ns) / 8;
        member->srtt_ns = member->srtt_ns > 0 ? member->srtt_ns : 1;
    }
    members_tell_srtt(members, member);
}

static void facts_take(struct members *members, struct member *member, const struct beacon *beacon,
                       const uint8_t *data)
{
    struct members_facts facts = {
        .room = beacon->room,
        .queue_us = beacon->queue_us,
        .free_vram_mib = beacon->free_vram_mib,
        .prefill_tps = beacon->prefill_tps,
        .decode_tps = beacon->decode_tps,
        .context_tokens = beacon->context_tokens,
        .flags = beacon->flags,
    };
    struct members_facts clean;
    memcpy(facts.prefixes, beacon->prefixes, sizeof(beacon->prefixes));
    facts_copy_scalars(&clean, &facts);
    memcpy(clean.backend, beacon->backend, sizeof(clean.backend));
    if (models_same(&member->facts, beacon, data)) {
        clean.model_count = member->facts.model_count;
        memcpy(clean.models, member->facts.models, sizeof(clean.models));
        for (size_t i = 0; i < clean.model_count; i++) {
            clean.models[i].speeds = beacon_speeds(beacon, i);
        }
    } else {
        for (size_t i = 0; i < beacon->model_count; i++) {
            model_add(members, &clean, beacon_model_name(beacon, data, i), beacon->arithmetic[i],
                      beacon_speeds(beacon, i));
        }
    }
    uint32_t tags = beacon->tags & member->config_tags;
    if (tags != beacon->tags) {
        members->counters.tags_foreign++;
    }
    if (memcmp(&member->facts, &clean, sizeof(clean)) != 0 || member->tags != tags ||
        member->tier != beacon->tier) {
        memcpy(&member->facts, &clean, sizeof(clean));
        member->tags = tags;
        member->tier = beacon->tier;
        members->version++;
    }
}

/* What the sender's header has of it: behind an older one's end names follow. */
static void beacon_read(struct beacon *beacon, const void *data, size_t size)
{
    memset(beacon, 0, sizeof(*beacon));
    memcpy(beacon, data, BEACON_LEAST);
    size_t has = beacon->hdr_bytes < size ? beacon->hdr_bytes : size;
    if (has > BEACON_LEAST) {
        memcpy(beacon, data, has < sizeof(*beacon) ? has : sizeof(*beacon));
    }
}

void members_receive(struct members *members, const void *data, size_t size,
                     const struct in6_addr *from, uint16_t port, uint64_t now_ns)
{
    struct beacon beacon;
    if (size < BEACON_LEAST || size > MEMBERS_BEACON_MAX) {
        members->counters.beacons_malformed++;
        return;
    }
    beacon_read(&beacon, data, size);
    if (beacon.magic != BEACON_MAGIC) {
        members->counters.beacons_malformed++;
        return;
    }
    if (beacon.version != BEACON_VERSION) {
        members->counters.beacons_version++;
        return;
    }
    uint16_t index = members->by_id[beacon.node];
    if (index == INDEX_NONE || index == members->self || port != members->port ||
        !addr_equal(&members->all[index].address, from)) {
        members->counters.beacons_stranger++;
        return;
    }
    if (!beacon_valid(&beacon, data, size)) {
        members->counters.beacons_malformed++;
        return;
    }
    struct member *member = &members->all[index];
    if (!beacon_is_news(member, &beacon)) {
        members->counters.beacons_stale++;
        return;
    }
    members->counters.beacons_heard++;
    member->incarnation = beacon.incarnation;
    member->sequence_heard = beacon.sequence;
    member->peer_sent_ns = beacon.sent_ns;
    member->heard_ns = now_ns;
    if (!member->alive) {
        member->alive = true;
        member->changed_ns = now_ns;
        members->version++;
    }
    facts_take(members, member, &beacon, data);
    rtt_sample(members, member, &beacon, now_ns);
}

/* ---- sending ---- */

static uint16_t beacon_write(struct members *members, struct member *to, uint8_t *out,
                             uint64_t now_ns)
{
    const struct member *self = &members->all[members->self];
    const struct members_facts *facts = &self->facts;
    const size_t names = facts->model_count * sizeof(struct beacon_model);
    const size_t header =
        sizeof(struct beacon) + names <= MEMBERS_BEACON_MAX ? sizeof(struct beacon) : BEACON_PLAIN;
    struct beacon beacon = {
        .magic = BEACON_MAGIC,
        .version = BEACON_VERSION,
        .model_count = (uint8_t)facts->model_count,
        .hdr_bytes = (uint16_t)header,
        .node = self->id,
        .tier = (uint8_t)self->tier,
        .flags = (uint8_t)facts->flags,
        .tags = self->tags,
        .incarnation = members->incarnation,
        .sequence = ++to->sequence_sent,
        .sent_ns = now_ns,
        .room = facts->room,
        .queue_us = facts->queue_us,
        .free_vram_mib = facts->free_vram_mib,
        .prefill_tps = facts->prefill_tps,
        .decode_tps = facts->decode_tps,
        .context_tokens = facts->context_tokens,
    };
    memcpy(beacon.backend, facts->backend, sizeof(beacon.backend));
    memcpy(beacon.prefixes, facts->prefixes, sizeof(beacon.prefixes));
    /* Only to a member that is up: a long hold would measure the clocks' difference in rate. */
    if (to->alive && to->peer_sent_ns != 0) {
        beacon.echo_ns = to->peer_sent_ns;
        beacon.echo_hold_ns = now_ns - to->heard_ns;
    }
    size_t used = header;
    for (uint32_t i = 0; i < facts->model_count; i++) {
        if (i < BEACON_SPEEDS) {
            memcpy(&beacon.speeds[i], &facts->models[i].speeds, sizeof(beacon.speeds[i]));
        }
        beacon.arithmetic[i] = facts->models[i].arithmetic;
        memcpy(out + used, facts->models[i].name, sizeof(struct beacon_model));
        used += sizeof(struct beacon_model);
    }
    memcpy(out, &beacon, header);
    const uint16_t sum = beacon_sum(out, used);
    memcpy(out + offsetof(struct beacon, sum), &sum, sizeof(sum));
    members->counters.beacons_sent++;
    return (uint16_t)used;
}

unsigned members_tick(struct members *members, struct members_out *out, unsigned room,
                      uint64_t now_ns)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < members->count; i++) {
        struct member *member = &members->all[i];
        if (i == members->self) {
            continue;
        }
        if (member->alive && now_ns >= member->heard_ns + MEMBERS_SILENCE_NS) {
            member->alive = false;
            member->changed_ns = now_ns;
            /* It may come back elsewhere in the network: measure anew. */
            member->srtt_ns = 0;
            member->rttvar_ns = 0;
            member->srtt_told_ns = 0;
            members->version++;
        }
        if (member->due_ns <= now_ns && count < room) {
            struct members_out *beacon = &out[count++];
            beacon->address = member->address;
            beacon->port = members->port;
            beacon->len = beacon_write(members, member, beacon->data, now_ns);
            /* Periods missed are skipped: no burst after a stop. */
            uint64_t missed = (now_ns - member->due_ns) / MEMBERS_PERIOD_NS;
            member->due_ns += (missed + 1) * MEMBERS_PERIOD_NS;
        }
    }
    return count;
}

uint64_t members_next_ns(const struct members *members)
{
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member *member = &members->all[i];
        if (i == members->self) {
            continue;
        }
        next_ns = member->due_ns < next_ns ? member->due_ns : next_ns;
        if (member->alive && member->heard_ns + MEMBERS_SILENCE_NS < next_ns) {
            next_ns = member->heard_ns + MEMBERS_SILENCE_NS;
        }
    }
    return next_ns;
}

void members_touch(struct members *members, uint64_t now_ns)
{
    if (members->count > MEMBERS_BURST_MAX) {
        return;
    }
    for (uint32_t i = 0; i < members->count; i++) {
        struct member *member = &members->all[i];
        member->due_ns = member->due_ns < now_ns ? member->due_ns : now_ns;
    }
}

/* ---- reading ---- */

uint64_t members_version(const struct members *members)
{
    return members->version;
}

uint32_t members_count(const struct members *members)
{
    return members->count;
}

uint32_t members_self(const struct members *members)
{
    return members->self;
}

const struct member *members_at(const struct members *members, uint32_t index)
{
    return index < members->count ? &members->all[index] : NULL;
}

enum member_state member_state_of(const struct members *members, const struct member *member)
{
    if (members->roster) {
        return member->state;
    }
    return member->alive ? MEMBER_UP : MEMBER_DOWN;
}

const char *member_state_name(enum member_state state)
{
#define MEMBER_STATE_NAME_(name, text) [MEMBER_##name] = text,
    static const char *const names[] = {MEMBERS_STATES(MEMBER_STATE_NAME_)};
    return names[state];
}

const struct member *members_find(const struct members *members, uint16_t id)
{
    uint16_t index = members->by_id[id];
    return index != INDEX_NONE ? &members->all[index] : NULL;
}

const struct members_counters *members_counters(const struct members *members)
{
    return &members->counters;
}
