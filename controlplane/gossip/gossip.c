/* SPDX-License-Identifier: Apache-2.0 */
/* gossip.c - see gossip.h: life, own facts, ids, time. peers.c carries over what swim knows. */
#include "controlplane/gossip/gossip.h"

#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/gossip/lonely.h"
#include "controlplane/gossip/peers.h"
#include "controlplane/maps/state.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"

#define UDEG         1e6
#define CLASH_LOG_NS (60 * NS_PER_S)

struct gossip {
    const struct config *config;
    struct swim *swim;
    struct peers peers;
    uint8_t sign_seed[SWIM_KEY_BYTES];
    uint8_t mesh_keys[GOSSIP_KEYS_MAX][SWIM_KEY_BYTES]; /* as swim has them */
    uint32_t mesh_key_count;
    uint64_t incarnation;
    bool id_derived;
    uint32_t id_attempt;
    uint64_t clash_other; /* uid; 0 = none yet */
    uint64_t clash_since_ns;
    uint64_t clash_logged_ns;
    bool dirty; /* something may have changed that the table has not yet */
    uint64_t refreshed_ns;
    bool left;
    /* Own state. */
    struct members_facts facts;
    uint32_t state_version;
    uint64_t told_ns; /* 0 = never */
    bool changed;     /* since it was told */
    bool urgent;
    struct gossip_counters counters;
    struct lonely lonely;
};

uint16_t gossip_id_of(const uint8_t sign_seed[SWIM_KEY_BYTES], uint32_t attempt)
{
    uint8_t hash[sizeof(uint64_t) * 2];
    uint8_t number[4];
    uint64_t word;
    memcpy(number, &attempt, sizeof(number));
    crypto_generichash(hash, sizeof(hash), number, sizeof(number), sign_seed, SWIM_KEY_BYTES);
    memcpy(&word, hash, sizeof(word));
    return (uint16_t)(word % WEFT_NODE_NONE);
}

/* ---- life ---- */

static void record_fill(struct swim_record *record, const struct config *config)
{
    const struct config_member *self = &config->members[config->self];
    record->address = self->address;
    record->client_address = self->client_address;
    record->port = config_control_port(config);
    record->data_port = (uint16_t)config->data_port;
    record->id = (uint16_t)self->id;
    record->latitude_udeg = (int32_t)lround(self->latitude_deg * UDEG);
    record->longitude_udeg = (int32_t)lround(self->longitude_deg * UDEG);
    record->tags = self->tags;
    record->tier = (uint8_t)self->tier;
    memcpy(record->jurisdiction, self->jurisdiction, sizeof(record->jurisdiction));
    memcpy(record->name, self->name, sizeof(record->name));
}

static int swim_begin(struct gossip *gossip, const struct gossip_options *options, uint64_t now_ns)
{
    const struct config *config = options->config;
    struct swim_seed seeds[SWIM_SEEDS_MAX];
    struct swim_options own = {
        .members_max = GOSSIP_MEMBERS_MAX,
        .state_max = STATE_BYTES_MAX,
        .self = {.incarnation = options->incarnation_ms},
        .seeds = seeds,
        .seed_count = config->seed_count,
    };
    WEFT_ASSERT(CONFIG_SEEDS_MAX <= SWIM_SEEDS_MAX, "all of a file's seeds are taken");
    WEFT_ASSERT(STATE_BYTES_MAX <= SWIM_STATE_MAX, "a state can be sent");
    for (uint32_t i = 0; i < config->seed_count; i++) {
        seeds[i] =
            (struct swim_seed){.address = config->seeds[i].address, .port = config->seeds[i].port};
    }
    record_fill(&own.self, config);
    memcpy(own.entropy, options->entropy, SWIM_KEY_BYTES);
    memcpy(own.sign_seed, options->sign_seed, SWIM_KEY_BYTES);
    memcpy(own.mesh_key, options->mesh_keys[0], SWIM_KEY_BYTES);
    int rc = swim_create(&gossip->swim, &own, now_ns);
    sodium_memzero(&own, sizeof(own));
    for (uint32_t i = 1; rc == 0 && i < options->mesh_key_count; i++) {
        rc = swim_key_install(gossip->swim, options->mesh_keys[i]);
    }
    return rc;
}

/* Is there a seed that is not this node itself? */
static bool seeks_others(const struct config *config)
{
    for (uint32_t i = 0; i < config->seed_count; i++) {
        if (!addr_equal(&config->seeds[i].address, &config->members[config->self].address)) {
            return true;
        }
    }
    return false;
}

int gossip_create(struct gossip **out, const struct gossip_options *options, uint64_t now_ns)
{
    const struct config *config = options->config;
    uint64_t seed;
    *out = NULL;
    if (sodium_init() < 0 || options->mesh_key_count == 0 ||
        options->mesh_key_count > GOSSIP_KEYS_MAX ||
        config->members[config->self].id >= WEFT_NODE_NONE) {
        return -EINVAL;
    }
    struct gossip *gossip = calloc(1, sizeof(*gossip));
    if (gossip == NULL) {
        return -ENOMEM;
    }
    gossip->config = config;
    gossip->incarnation = options->incarnation_ms;
    gossip->refreshed_ns = now_ns;
    lonely_init(&gossip->lonely, seeks_others(config), now_ns);
    gossip->id_derived = options->id_derived;
    gossip->changed = true;
    memcpy(gossip->sign_seed, options->sign_seed, SWIM_KEY_BYTES);
    memcpy(gossip->mesh_keys, options->mesh_keys, sizeof(gossip->mesh_keys));
    gossip->mesh_key_count = options->mesh_key_count;
    crypto_generichash((uint8_t *)&seed, sizeof(seed), options->entropy, SWIM_KEY_BYTES,
                       (const uint8_t *)"maps", 4);
    int rc = swim_begin(gossip, options, now_ns);
    if (rc == 0) {
        rc = peers_init(&gossip->peers, gossip->swim, config, &gossip->counters, seed, now_ns);
    }
    if (rc < 0) {
        gossip_destroy(gossip);
        return rc;
    }
    *out = gossip;
    return 0;
}

void gossip_destroy(struct gossip *gossip)
{
    if (gossip == NULL) {
        return;
    }
    peers_deinit(&gossip->peers);
    swim_destroy(gossip->swim);
    sodium_memzero(gossip, sizeof(*gossip));
    free(gossip);
}

/* ---- keys ---- */

static bool key_among(const uint8_t key[SWIM_KEY_BYTES], uint8_t (*keys)[SWIM_KEY_BYTES],
                      uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (memcmp(keys[i], key, SWIM_KEY_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

/* Those that are not wanted any more go, but for the one in use. */
static void keys_prune(struct gossip *gossip, uint8_t (*keys)[SWIM_KEY_BYTES], uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < gossip->mesh_key_count; i++) {
        uint8_t *key = gossip->mesh_keys[i];
        if (key_among(key, keys, count) || swim_key_remove(gossip->swim, key) == -EBUSY) {
            memmove(gossip->mesh_keys[kept++], key, SWIM_KEY_BYTES);
        }
    }
    gossip->mesh_key_count = kept;
}

int gossip_set_keys(struct gossip *gossip, uint8_t (*keys)[SWIM_KEY_BYTES], uint32_t count)
{
    if (count == 0 || count > GOSSIP_KEYS_MAX) {
        return -EINVAL;
    }
    keys_prune(gossip, keys, count);
    int rc = swim_key_install(gossip->swim, keys[0]);
    if (rc < 0) {
        return rc;
    }
    (void)swim_key_use(gossip->swim, keys[0]); /* it is there */
    keys_prune(gossip, keys, count);           /* the one that was in use */
    for (uint32_t i = 1; i < count; i++) {
        (void)swim_key_install(gossip->swim, keys[i]); /* what else is there is among them: room */
    }
    memcpy(gossip->mesh_keys, keys, count * sizeof(keys[0]));
    gossip->mesh_key_count = count;
    return 0;
}

/* ---- ids ---- */

static bool id_is_known(const struct gossip *gossip, uint16_t id)
{
    return members_find(gossip->peers.members, id) != NULL;
}

static void id_change(struct gossip *gossip)
{
    struct swim_record record = swim_self(gossip->swim)->record;
    uint16_t before = record.id;
    do {
        record.id = gossip_id_of(gossip->sign_seed, ++gossip->id_attempt);
    } while (id_is_known(gossip, record.id) && gossip->id_attempt < UINT16_MAX);
    if (swim_set_self(gossip->swim, &record) == 0) {
        gossip->counters.id_changes++;
        gossip->dirty = true;
        gossip->urgent = true;
        gossip->changed = true;
        LOG_WARN("id %u is another member's; this node is %u from now on", before, record.id);
    }
}

/* Whoever started last gives way: both see both incarnations and come to the same end, whatever
 * their clocks. Nobody gives way who was told which id to have; then the other one does, a little
 * later. */
static void clash_take(struct gossip *gossip, const struct swim_event *event, uint64_t now_ns)
{
    const struct swim_member *self = swim_self(gossip->swim);
    if (event->uid != self->uid) {
        return;
    }
    gossip->counters.id_clashes++;
    if (gossip->clash_other != event->other) {
        gossip->clash_other = event->other;
        gossip->clash_since_ns = now_ns;
    }
    bool younger = self->record.incarnation != event->other_incarnation
                       ? self->record.incarnation > event->other_incarnation
                       : self->uid > event->other;
    if (gossip->id_derived && (younger || now_ns >= gossip->clash_since_ns + GOSSIP_CLASH_NS)) {
        id_change(gossip);
        gossip->clash_other = 0;
    } else if (!gossip->id_derived &&
               (gossip->clash_logged_ns == 0 || now_ns >= gossip->clash_logged_ns + CLASH_LOG_NS)) {
        gossip->clash_logged_ns = now_ns;
        LOG_ERROR("id %u is another member's too hint=\"give this node another id, or none\"",
                  self->record.id);
    }
}

/* ---- own state ---- */

/* Other models, or others that compute otherwise; how fast they are can wait. */
static bool models_differ(const struct members_facts *a, const struct members_facts *b)
{
    bool differ = a->model_count != b->model_count;
    for (uint32_t i = 0; i < a->model_count && !differ; i++) {
        differ = strcmp(a->models[i].name, b->models[i].name) != 0 ||
                 a->models[i].arithmetic != b->models[i].arithmetic;
    }
    return differ;
}

static bool facts_notable(const struct members_facts *a, const struct members_facts *b)
{
    return models_differ(a, b) || memcmp(a->backend, b->backend, sizeof(a->backend)) != 0 ||
           (a->room == 0) != (b->room == 0);
}

void gossip_set_local(struct gossip *gossip, const struct members_facts *facts)
{
    struct members *members = gossip->peers.members;
    members_set_local(members, facts);
    const struct members_facts *clean = &members_at(members, members_self(members))->facts;
    if (memcmp(clean, &gossip->facts, sizeof(*clean)) != 0) {
        gossip->urgent = gossip->urgent || facts_notable(clean, &gossip->facts);
        gossip->changed = true;
        memcpy(&gossip->facts, clean, sizeof(*clean));
    }
}

static uint64_t state_due_ns(const struct gossip *gossip)
{
    if (gossip->told_ns == 0) {
        return 0;
    }
    return gossip->told_ns + (gossip->urgent    ? GOSSIP_URGENT_NS
                              : gossip->changed ? GOSSIP_STATE_NS
                                                : GOSSIP_REPEAT_NS);
}

static void state_tell(struct gossip *gossip, uint64_t now_ns)
{
    uint8_t state[STATE_BYTES_MAX];
    uint32_t dropped;
    size_t size = state_write(&gossip->facts, &gossip->peers.latency.own.at, &gossip->peers.doubts,
                              swim_self(gossip->swim)->record.id, gossip->incarnation,
                              ++gossip->state_version, state, &dropped);
    if (swim_set_state(gossip->swim, state, size) == 0) {
        gossip->counters.states_told++;
    }
    gossip->counters.models_untold = dropped;
    gossip->told_ns = now_ns;
    gossip->changed = false;
    gossip->urgent = false;
}

/* ---- time ---- */

static void events_take(struct gossip *gossip, struct swim_out *out, uint64_t now_ns)
{
    for (uint32_t i = 0; i < out->event_count; i++) {
        if (out->events[i].type == SWIM_EVENT_CLASH) {
            clash_take(gossip, &out->events[i], now_ns);
        }
    }
    gossip->dirty = gossip->dirty || out->event_count > 0;
}

static void refresh(struct gossip *gossip, uint64_t now_ns, struct swim_out *out)
{
    struct state_doubts before = gossip->peers.doubts;
    gossip->dirty = peers_refresh(&gossip->peers, now_ns, out);
    if (memcmp(&before, &gossip->peers.doubts, sizeof(before)) != 0) {
        gossip->changed = true;
    }
    gossip->refreshed_ns = now_ns;
}

/* Says so if nobody is met, at each refresh: those come every second at least. */
static void lonely_say(struct gossip *gossip, uint64_t now_ns)
{
    const bool alone = members_count(gossip->peers.members) <= 1;
    const uint64_t silent_ns = lonely_silence(&gossip->lonely, alone && !gossip->left, now_ns);
    if (silent_ns != 0) {
        LOG_WARN("no seed has answered for %llu s seeds=%u hint=\"does weftd run there, does UDP "
                 "port %u get through both ways, is mesh_key the same file?\"",
                 (unsigned long long)(silent_ns / NS_PER_S), gossip->config->seed_count,
                 config_control_port(gossip->config));
    }
}

static uint64_t refresh_due_ns(const struct gossip *gossip)
{
    return gossip->refreshed_ns + (gossip->dirty ? GOSSIP_REFRESH_NS : GOSSIP_STATE_NS);
}

void gossip_input(struct gossip *gossip, const struct in6_addr *from, uint16_t port,
                  const void *data, size_t size, uint64_t now_ns, struct swim_out *out)
{
    const uint64_t before = swim_counters(gossip->swim)->unsealed;
    swim_input(gossip->swim, from, port, data, size, now_ns, out);
    events_take(gossip, out, now_ns);
    if (swim_counters(gossip->swim)->unsealed != before &&
        lonely_foreign(&gossip->lonely, now_ns)) {
        char text[ADDR_TEXT_MAX];
        LOG_WARN(
            "gossip from %s is not sealed with a key of this mesh hint=\"a node of yours? Then "
            "its mesh_key is another, or an old one\"",
            addr_format(from, text));
    }
}

void gossip_tick(struct gossip *gossip, uint64_t now_ns, struct swim_out *out)
{
    if (now_ns >= state_due_ns(gossip) && !gossip->left) {
        state_tell(gossip, now_ns);
    }
    swim_tick(gossip->swim, now_ns, out);
    events_take(gossip, out, now_ns);
    if (now_ns >= refresh_due_ns(gossip)) {
        refresh(gossip, now_ns, out);
        lonely_say(gossip, now_ns);
    }
}

uint64_t gossip_next_ns(const struct gossip *gossip)
{
    uint64_t next_ns = swim_next_ns(gossip->swim);
    uint64_t state_ns = gossip->left ? UINT64_MAX : state_due_ns(gossip);
    uint64_t refresh_ns = refresh_due_ns(gossip);
    next_ns = state_ns < next_ns ? state_ns : next_ns;
    return refresh_ns < next_ns ? refresh_ns : next_ns;
}

int gossip_join(struct gossip *gossip, const struct config_seed *seed, struct swim_out *out)
{
    const struct swim_seed own = {.address = seed->address, .port = seed->port};
    return swim_join(gossip->swim, &own, out);
}

void gossip_leave(struct gossip *gossip, uint64_t now_ns, struct swim_out *out)
{
    out->datagram_count = 0;
    out->event_count = 0;
    if (!gossip->left) {
        gossip->left = true;
        swim_leave(gossip->swim, now_ns, out);
    }
}

void gossip_ask(struct gossip *gossip, uint16_t id, uint64_t now_ns, struct swim_out *out)
{
    const struct members *members = gossip->peers.members;
    const struct member *member = members_find(members, id);
    out->datagram_count = 0;
    out->event_count = 0;
    if (member != NULL && member != members_at(members, members_self(members))) {
        swim_ask(gossip->swim, gossip->peers.all[member->owner].uid, now_ns, out);
    }
}

void gossip_set_decree(struct gossip *gossip, const struct decree *decree)
{
    gossip->peers.decree = decree;
    peers_self_refresh(&gossip->peers);
    gossip->dirty = true;
}

/* ---- reading ---- */

bool gossip_has_left(const struct gossip *gossip)
{
    return gossip->left;
}

struct members *gossip_members(struct gossip *gossip)
{
    return gossip->peers.members;
}

const struct swim *gossip_swim(const struct gossip *gossip)
{
    return gossip->swim;
}

const struct gossip_counters *gossip_counters(const struct gossip *gossip)
{
    return &gossip->counters;
}
