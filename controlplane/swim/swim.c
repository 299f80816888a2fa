/* SPDX-License-Identifier: Apache-2.0 */
/* swim.c - life, time and readers of a swim object. See swim.h; the parts are listed in state.h. */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/state.h"

#define SUSPICIONS_LEAST 8u
#define ALIGNMENT        16u

/* ---- random numbers: not to be guessed from those seen ---- */

static void random_refill(struct swim *swim)
{
    uint8_t seed[randombytes_SEEDBYTES];
    memcpy(seed, swim->random, sizeof(seed));
    randombytes_buf_deterministic(swim->random, RANDOM_BYTES, seed);
    sodium_memzero(seed, sizeof(seed));
    swim->random_used = sizeof(seed); /* the first are the next seed */
}

uint32_t random_u32(struct swim *swim)
{
    uint32_t value;
    if (swim->random_used + sizeof(value) > RANDOM_BYTES) {
        random_refill(swim);
    }
    memcpy(&value, swim->random + swim->random_used, sizeof(value));
    swim->random_used += (uint32_t)sizeof(value);
    return value;
}

uint64_t random_u64(struct swim *swim)
{
    uint64_t high = random_u32(swim);
    return high << 32 | random_u32(swim) | 1;
}

uint32_t random_below(struct swim *swim, uint32_t bound)
{
    return (uint32_t)((uint64_t)random_u32(swim) * bound >> 32);
}

uint64_t jittered(struct swim *swim, uint64_t now_ns, uint64_t interval_ns)
{
    uint32_t interval_us = (uint32_t)(interval_ns / NS_PER_US);
    return now_ns + interval_ns / 2 + random_below(swim, interval_us) * NS_PER_US;
}

/* ---- memory ---- */

struct layout {
    size_t members, live, suspicions, rings[RINGS], by_uid, by_session, states, total;
    uint32_t suspicions_max;
    uint32_t cells;
    uint32_t ring_room[RINGS];
};

static size_t place(size_t *total, size_t bytes)
{
    size_t at = (*total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *total = at + bytes;
    return at;
}

static struct layout layout_of(const struct swim_options *options)
{
    struct layout layout = {.total = sizeof(struct swim), .cells = 4};
    uint32_t max = options->members_max;
    layout.suspicions_max = max / 2 + SUSPICIONS_LEAST;
    while (layout.cells < 2 * max) {
        layout.cells *= 2;
    }
    layout.ring_room[RING_LIVENESS] = max + layout.suspicions_max * SWIM_OBSERVERS;
    layout.ring_room[RING_STATE] = 2 * max;
    layout.members = place(&layout.total, max * sizeof(struct member));
    layout.live = place(&layout.total, max * sizeof(uint32_t));
    layout.suspicions = place(&layout.total, layout.suspicions_max * sizeof(struct suspicion));
    for (int i = 0; i < RINGS; i++) {
        layout.rings[i] = place(&layout.total, layout.ring_room[i] * sizeof(struct news));
    }
    layout.by_uid = place(&layout.total, layout.cells * sizeof(struct swim_map_cell));
    layout.by_session = place(&layout.total, layout.cells * sizeof(struct swim_map_cell));
    layout.states = place(&layout.total, (size_t)max * options->state_max);
    return layout;
}

size_t swim_memory_bytes(const struct swim_options *options)
{
    return layout_of(options).total;
}

static void swim_lay_out(struct swim *swim, const struct layout *layout)
{
    uint8_t *base = (uint8_t *)swim;
    swim->members = (void *)(base + layout->members);
    swim->live = (void *)(base + layout->live);
    swim->suspicions = (void *)(base + layout->suspicions);
    swim->suspicions_max = layout->suspicions_max;
    for (int i = 0; i < RINGS; i++) {
        swim->rings[i].all = (void *)(base + layout->rings[i]);
        swim->rings[i].room = layout->ring_room[i];
    }
    swim->by_uid.cells = (void *)(base + layout->by_uid);
    swim->by_session.cells = (void *)(base + layout->by_session);
    swim->by_uid.mask = swim->by_session.mask = layout->cells - 1;
    swim->states = base + layout->states;
    for (uint32_t i = 0; i < swim->suspicions_max; i++) {
        swim->suspicions[i].slot = SWIM_SLOT_NONE;
    }
}

/* ---- this node's own record ---- */

/* Signs what stands in its record. */
void self_write(struct swim *swim)
{
    struct member *self = &swim->members[SELF];
    self->raw_size =
        (uint32_t)swim_record_write(&self->pub.record, swim->identity.secret_key, self->raw);
}

/* Bytes that follow from the incarnation are signed anew. */
static void self_state_sign(struct swim *swim)
{
    struct member *self = &swim->members[SELF];
    struct swim_state_head head = {.uid = self->pub.uid,
                                   .incarnation = self->pub.record.incarnation,
                                   .version = self->pub.state_version};
    swim_state_sign(&head, swim->states, self->pub.state_size, swim->identity.secret_key,
                    self->state_signature);
}

void self_refute(struct swim *swim, uint64_t above, uint64_t now_ns)
{
    struct member *self = &swim->members[SELF];
    if (self->pub.status == SWIM_LEFT || above == UINT64_MAX) {
        return;
    }
    swim->sum -= member_sum(self);
    self->pub.record.incarnation = above + 1;
    swim->sum += member_sum(self);
    self_write(swim);
    if (self->pub.state_version != 0) {
        self_state_sign(swim);
        news_state(swim, self, now_ns);
    }
    news_record(swim, self, RING_LIVENESS, now_ns);
    swim->counters.refutations++;
    health_change(swim, 1);
}

int swim_set_self(struct swim *swim, const struct swim_record *facts)
{
    struct member *self = &swim->members[SELF];
    struct swim_record record = *facts;
    struct swim_record check;
    uint8_t raw[SWIM_RECORD_MAX];
    const struct swim_record *own = &self->pub.record;
    memcpy(record.public_key, own->public_key, sizeof(record.public_key));
    record.incarnation = own->incarnation;
    record.session = own->session;
    record.version = own->version + 1;
    record.flags = own->flags;
    record.speaks_min = own->speaks_min;
    record.speaks_max = own->speaks_max;
    size_t size = swim_record_write(&record, swim->identity.secret_key, raw);
    if (!swim_record_read(&check, raw, size)) {
        return -EINVAL;
    }
    swim->sum -= member_sum(self);
    self->pub.record = check;
    swim->sum += member_sum(self);
    self_write(swim);
    news_record(swim, self, RING_STATE, swim->last_ns);
    return 0;
}

int swim_set_state(struct swim *swim, const void *data, size_t size)
{
    struct member *self = &swim->members[SELF];
    if (size > swim->state_max) {
        return -EINVAL;
    }
    swim->sum -= member_sum(self);
    memcpy(swim->states, data, size);
    self->pub.state_size = (uint32_t)size;
    self->pub.state_version++;
    swim->sum += member_sum(self);
    self_state_sign(swim);
    news_state(swim, self, swim->last_ns);
    return 0;
}

/* ---- life ---- */

static int self_begin(struct swim *swim, const struct swim_options *options, uint64_t now_ns)
{
    struct member *self = &swim->members[SELF];
    struct swim_record record = options->self;
    struct swim_record check;
    memcpy(record.public_key, swim->identity.public_key, SWIM_KEY_BYTES);
    record.session = random_u64(swim);
    record.version = 1;
    record.flags = 0;
    record.speaks_min = swim->speaks_min;
    record.speaks_max = swim->speaks_max;
    self->pub.record = record;
    self_write(swim);
    if (!swim_record_read(&check, self->raw, self->raw_size)) {
        return -EINVAL;
    }
    self->pub.record = check;
    self->pub.uid = swim_uid(record.public_key);
    self->pub.status = SWIM_ALIVE;
    self->pub.changed_ns = now_ns;
    self->suspicion = SWIM_SLOT_NONE;
    self->live_at = SWIM_SLOT_NONE;
    swim->slots = 1;
    swim->sum = member_sum(self);
    swim_map_add(&swim->by_uid, self->pub.uid, SELF);
    swim_map_add(&swim->by_session, record.session, SELF);
    return 0;
}

static void timers_begin(struct swim *swim, uint64_t now_ns)
{
    swim->created_ns = now_ns;
    swim->last_ns = now_ns;
    swim->probe_ns = jittered(swim, now_ns, swim->probe_interval_ns);
    swim->suspect_ns = UINT64_MAX;
    swim->gossip_ns = UINT64_MAX;
    swim->sync_gap_ns = SYNC_FAST_NS;
    swim->sync_ns = jittered(swim, now_ns, SYNC_NS);
    swim->remember_ns = now_ns;
    swim->forget_ns = now_ns + FORGET_CHECK_NS;
    swim->challenges[0] = random_u64(swim);
    swim->challenges[1] = swim->challenges[0];
    swim->challenge_ns = now_ns + CHALLENGE_NS;
}

static bool options_valid(const struct swim_options *options)
{
    uint8_t low = options->speaks_min != 0 ? options->speaks_min : SWIM_VERSION;
    uint8_t high = options->speaks_max != 0 ? options->speaks_max : SWIM_VERSION;
    return options->members_max >= 1 && options->members_max <= SWIM_MEMBERS_MAX &&
           options->state_max <= SWIM_STATE_MAX && options->seed_count <= SWIM_SEEDS_MAX &&
           low <= high && high <= 15;
}

int swim_create(struct swim **out, const struct swim_options *options, uint64_t now_ns)
{
    *out = NULL;
    if (sodium_init() < 0 || !options_valid(options)) {
        return -EINVAL;
    }
    struct layout layout = layout_of(options);
    struct swim *swim = calloc(1, layout.total);
    if (swim == NULL) {
        return -ENOMEM;
    }
    /* Keys stay out of swap and core files where the system allows it. */
    (void)sodium_mlock(swim, offsetof(struct swim, members_max));
    swim_lay_out(swim, &layout);
    swim_keyring_init(&swim->keyring, options->mesh_key);
    swim_identity_init(&swim->identity, options->sign_seed);
    memcpy(swim->random, options->entropy, SWIM_KEY_BYTES);
    random_refill(swim);
    swim->members_max = options->members_max;
    swim->state_max = options->state_max;
    swim->speaks_min = options->speaks_min != 0 ? options->speaks_min : SWIM_VERSION;
    swim->speaks_max = options->speaks_max != 0 ? options->speaks_max : SWIM_VERSION;
    swim->probe_interval_ns =
        options->probe_interval_ns != 0 ? options->probe_interval_ns : SWIM_PROBE_INTERVAL_NS;
    swim->suspect_min_ns =
        options->suspect_min_ns != 0 ? options->suspect_min_ns : SWIM_SUSPECT_MIN_NS;
    swim->suspect_max_ns =
        options->suspect_max_ns != 0 ? options->suspect_max_ns : SWIM_SUSPECT_MAX_NS;
    swim->suspect_max_ns =
        swim->suspect_max_ns > swim->suspect_min_ns ? swim->suspect_max_ns : swim->suspect_min_ns;
    swim->seed_count = options->seed_count;
    swim->seeds_fixed = options->seed_count;
    for (uint32_t i = 0; i < options->seed_count; i++) {
        swim->seeds[i] = options->seeds[i];
    }
    swim->free_first = SWIM_SLOT_NONE;
    timers_begin(swim, now_ns);
    int rc = self_begin(swim, options, now_ns);
    if (rc < 0) {
        swim_destroy(swim);
        return rc;
    }
    *out = swim;
    return 0;
}

void swim_destroy(struct swim *swim)
{
    if (swim == NULL) {
        return;
    }
    for (uint32_t i = 0; i < swim->slots; i++) {
        sodium_memzero(swim->members[i].shared, SWIM_KEY_BYTES);
        sodium_memzero(swim->members[i].pair_key, SWIM_KEY_BYTES);
    }
    (void)sodium_munlock(swim, offsetof(struct swim, members_max)); /* wipes as well */
    sodium_memzero(swim, offsetof(struct swim, members_max));
    free(swim);
}

int swim_key_install(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES])
{
    return swim_keyring_install(&swim->keyring, key);
}

int swim_key_use(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES])
{
    return swim_keyring_use(&swim->keyring, key);
}

int swim_key_remove(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES])
{
    return swim_keyring_remove(&swim->keyring, key);
}

/* ---- time ---- */

void event_add(struct swim_out *out, enum swim_event_type type, const struct member *member)
{
    if (out->event_count < SWIM_OUT_EVENTS) {
        out->events[out->event_count++] = (struct swim_event){
            .type = type, .uid = member->pub.uid, .incarnation = member->pub.record.incarnation};
    }
}

void event_clash(struct swim_out *out, const struct member *owner, uint64_t other,
                 uint64_t other_incarnation)
{
    uint32_t at = out->event_count;
    event_add(out, SWIM_EVENT_CLASH, owner);
    if (out->event_count > at) {
        out->events[at].other = other;
        out->events[at].other_incarnation = other_incarnation;
    }
}

void health_change(struct swim *swim, int by)
{
    int health = (int)swim->health + by;
    health = health < 0 ? 0 : health;
    swim->health = health > (int)HEALTH_MAX ? HEALTH_MAX : (uint32_t)health;
}

void pause_check(struct swim *swim, uint64_t now_ns)
{
    uint64_t due_ns = swim_next_ns(swim);
    due_ns = due_ns > swim->last_ns ? due_ns : swim->last_ns;
    swim->last_ns = now_ns;
    if (now_ns < due_ns + PAUSE_NS) {
        return;
    }
    /* Who did not answer meanwhile is not to blame, and what would end it may lie unread. */
    swim->counters.pauses++;
    swim->probe_count = 0;
    health_change(swim, 2);
    suspicions_delay(swim, now_ns - due_ns, now_ns + PAUSE_GRACE_NS);
    swim->probe_ns =
        now_ns + random_below(swim, (uint32_t)(swim->probe_interval_ns / NS_PER_US)) * NS_PER_US;
}

void swim_tick(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    out->datagram_count = 0;
    out->event_count = 0;
    pause_check(swim, now_ns);
    probes_advance(swim, now_ns, out);
    if (now_ns >= swim->suspect_ns && now_ns >= swim->grace_ns) {
        suspicions_settle(swim, now_ns, out);
    }
    if (now_ns >= swim->gossip_ns && out_room(out) >= FANOUT) {
        gossip_round(swim, now_ns, out);
    }
    if (now_ns >= swim->probe_ns && out_room(out) > 0) {
        probe_round(swim, now_ns, out);
    }
    if (swim->notify_count > 0) {
        probe_notify(swim, now_ns, out);
    }
    if (now_ns >= swim->remember_ns && out_room(out) >= FANOUT) {
        probe_remembered(swim, now_ns, out);
    }
    if (now_ns >= swim->sync_ns && out_room(out) > 0) {
        sync_begin(swim, now_ns, out);
    }
    if (now_ns >= swim->challenge_ns) {
        swim->challenge_ns = now_ns + CHALLENGE_NS;
        swim->challenges[1] = swim->challenges[0];
        swim->challenges[0] = random_u64(swim);
    }
    if (now_ns >= swim->forget_ns) {
        swim->forget_ns = now_ns + FORGET_CHECK_NS;
        members_forget_old(swim, now_ns);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t swim_next_ns(const struct swim *swim)
{
    uint64_t verdict_ns = swim->suspect_ns;
    if (verdict_ns < swim->grace_ns) {
        verdict_ns = swim->grace_ns;
    }
    uint64_t next_ns = earlier(probes_next_ns(swim), verdict_ns);
    next_ns = earlier(next_ns, earlier(swim->probe_ns, swim->gossip_ns));
    next_ns = earlier(next_ns, earlier(swim->sync_ns, swim->remember_ns));
    next_ns = earlier(next_ns, earlier(swim->forget_ns, swim->challenge_ns));
    return swim->notify_count > 0 ? earlier(next_ns, swim->last_ns) : next_ns;
}

void swim_leave(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    struct member *self = &swim->members[SELF];
    out->datagram_count = 0;
    out->event_count = 0;
    swim->sum -= member_sum(self);
    self->pub.record.flags |= SWIM_RECORD_LEFT;
    self->pub.record.version++;
    self->pub.status = SWIM_LEFT;
    self->pub.changed_ns = now_ns;
    self_write(swim);
    news_record(swim, self, RING_LIVENESS, now_ns);
    if (swim->live_count > 0) {
        gossip_round(swim, now_ns, out);
    }
}

/* ---- reading ---- */

uint32_t swim_slots(const struct swim *swim)
{
    return swim->slots;
}

const struct swim_member *swim_at(const struct swim *swim, uint32_t slot)
{
    const struct member *member = &swim->members[slot];
    return slot < swim->slots && member->pub.uid != 0 ? &member->pub : NULL;
}

const struct swim_member *swim_find(const struct swim *swim, uint64_t uid)
{
    uint32_t slot = swim_map_get(&swim->by_uid, uid);
    return slot != SWIM_SLOT_NONE ? &swim->members[slot].pub : NULL;
}

const struct swim_member *swim_self(const struct swim *swim)
{
    return &swim->members[SELF].pub;
}

const void *swim_state_of(const struct swim *swim, const struct swim_member *member)
{
    const struct member *full = (const struct member *)(const void *)member;
    return member->state_version != 0 ? swim->states + (size_t)swim->state_max * slot_of(swim, full)
                                      : NULL;
}

uint32_t swim_live_count(const struct swim *swim)
{
    return swim->live_count + (swim->members[SELF].pub.status == SWIM_LEFT ? 0 : 1);
}

uint32_t swim_health(const struct swim *swim)
{
    return swim->health;
}

uint64_t swim_sum(const struct swim *swim)
{
    return swim->sum;
}

const struct swim_counters *swim_counters(const struct swim *swim)
{
    return &swim->counters;
}
