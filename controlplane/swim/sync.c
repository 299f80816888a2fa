/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.c - anti-entropy: two nodes find out by sums whether they know the same, then in which parts
 * they differ, then exchange what differs. It repairs what gossip missed, fills newcomers' tables,
 * and finds those whom one side holds dead and the other alive; it never revives: those are asked
 * to sign a new incarnation. See state.h.
 */
#include <string.h>

#include "controlplane/swim/state.h"

#define BUCKET_MEMBERS 8u /* aimed at */
#define ROOM_KEPT      2u /* datagrams of the output left for others */

void sync_put(struct swim *swim, struct cursor *body)
{
    swim_put_two(body, SWIM_ITEM_SYNC, swim->sum, swim->live_count + 1);
}

void sync_begin(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    swim->sync_ns = jittered(swim, now_ns, swim->sync_gap_ns);
    swim->sync_gap_ns = 2 * swim->sync_gap_ns < SYNC_NS ? 2 * swim->sync_gap_ns : SYNC_NS;
    sync_now(swim, out);
}

void sync_now(struct swim *swim, struct swim_out *out)
{
    struct draft draft;
    uint32_t slot = live_pick(swim, SWIM_SLOT_NONE);
    if (slot != SWIM_SLOT_NONE && draft_begin(swim, &draft, slot, false, out)) {
        sync_put(swim, &draft.body);
        draft_end(swim, &draft);
    }
}

void sync_soon(struct swim *swim, uint64_t now_ns)
{
    swim->sync_gap_ns = SYNC_FAST_NS;
    if (swim->sync_ns > now_ns + SYNC_FAST_NS) {
        swim->sync_ns = jittered(swim, now_ns, SYNC_FAST_NS);
    }
}

static uint32_t bucket_of(uint64_t uid, uint32_t bits)
{
    return bits == 0 ? 0 : (uint32_t)(uid >> (64 - bits));
}

static void sums_make(const struct swim *swim, uint32_t bits, uint32_t *sums)
{
    memset(sums, 0, sizeof(sums[0]) << bits);
    for (uint32_t i = 0; i < swim->slots; i++) {
        const struct member *member = &swim->members[i];
        if (member->pub.uid != 0) {
            uint64_t sum = member_sum(member);
            sums[bucket_of(member->pub.uid, bits)] += (uint32_t)(sum ^ sum >> 32);
        }
    }
}

/* ---- answers ---- */

static void record_send(struct swim *swim, const struct member *member, uint32_t to,
                        struct draft *reply, struct swim_out *out)
{
    size_t bytes = SWIM_ITEM_HEAD + member->raw_size;
    bool dead = member->pub.status == SWIM_DEAD;
    bytes += dead ? SWIM_ITEM_HEAD + 2 * sizeof(uint64_t) : 0;
    if (out_room(out) <= ROOM_KEPT || !draft_ensure(swim, reply, to, bytes, out)) {
        return;
    }
    if (dead) {
        swim_put_two(&reply->body, SWIM_ITEM_DEAD, member->pub.uid, member->pub.record.incarnation);
    }
    swim_put_bytes(&reply->body, SWIM_ITEM_RECORD, member->raw, member->raw_size);
}

static void state_send(struct swim *swim, const struct member *member, uint32_t to,
                       struct draft *reply, struct swim_out *out)
{
    size_t bytes = SWIM_ITEM_HEAD + sizeof(struct swim_state_head) + SWIM_SIGNATURE_BYTES +
                   member->pub.state_size;
    struct swim_state_head head = {.uid = member->pub.uid,
                                   .incarnation = member->pub.record.incarnation,
                                   .version = member->pub.state_version};
    if (member->pub.state_version != 0 && out_room(out) > ROOM_KEPT &&
        draft_ensure(swim, reply, to, bytes, out)) {
        swim_put_state(&reply->body, &head,
                       swim->states + (size_t)swim->state_max * slot_of(swim, member),
                       member->pub.state_size, member->state_signature);
    }
}

static void member_send(struct swim *swim, const struct member *member, uint32_t to,
                        struct draft *reply, struct swim_out *out)
{
    record_send(swim, member, to, reply, out);
    state_send(swim, member, to, reply, out);
}

static void buckets_answer(struct swim *swim, uint32_t to, struct draft *reply,
                           struct swim_out *out)
{
    uint32_t sums[1u << SWIM_BUCKET_BITS_MAX];
    uint32_t bits = 0;
    while (bits < SWIM_BUCKET_BITS_MAX && swim->live_count >> bits > BUCKET_MEMBERS) {
        bits++;
    }
    sums_make(swim, bits, sums);
    size_t bytes = SWIM_ITEM_HEAD + 1 + (sizeof(sums[0]) << bits);
    if (draft_ensure(swim, reply, to, bytes, out)) {
        swim_put_buckets(&reply->body, bits, sums);
    }
}

static void digest_send(struct swim *swim, uint32_t bits, uint32_t bucket, uint32_t to,
                        struct draft *reply, struct swim_out *out)
{
    struct swim_digest digest = {.bits = bits, .bucket = bucket, .complete = true};
    for (uint32_t i = 0; i < swim->slots; i++) {
        const struct member *member = &swim->members[i];
        if (member->pub.uid == 0 || bucket_of(member->pub.uid, bits) != bucket) {
            continue;
        }
        if (digest.count == SWIM_DIGEST_ENTRY_MAX) {
            digest.complete = false;
            break;
        }
        enum swim_status status = member->pub.status;
        digest.entries[digest.count++] = (struct swim_digest_entry){
            .uid = member->pub.uid,
            .incarnation = member->pub.record.incarnation,
            .version = member->pub.record.version,
            .state_version = member->pub.state_version,
            .status = (uint8_t)(status == SWIM_SUSPECT ? SWIM_ALIVE : status),
        };
    }
    size_t bytes = SWIM_ITEM_HEAD + SWIM_DIGEST_HEAD + digest.count * SWIM_DIGEST_ENTRY;
    if (out_room(out) > ROOM_KEPT && draft_ensure(swim, reply, to, bytes, out)) {
        swim_put_digest(&reply->body, &digest);
    }
}

static void buckets_take(struct swim *swim, const struct swim_item *item, uint32_t from,
                         struct draft *reply, struct swim_out *out)
{
    uint32_t theirs[1u << SWIM_BUCKET_BITS_MAX];
    uint32_t own[1u << SWIM_BUCKET_BITS_MAX];
    uint32_t bits;
    if (!swim_get_buckets(item, &bits, theirs)) {
        swim->counters.malformed++;
        return;
    }
    sums_make(swim, bits, own);
    /* From a random one on, so that what finds no room now is first another time. */
    uint32_t first = random_below(swim, 1u << bits);
    for (uint32_t i = 0; i < 1u << bits; i++) {
        uint32_t bucket = (first + i) & ((1u << bits) - 1);
        if (own[bucket] != theirs[bucket]) {
            digest_send(swim, bits, bucket, from, reply, out);
        }
    }
}

/* ---- comparing ---- */

/* One entry of the other's against a member known here. True: ask for it. */
static bool entry_compare(struct swim *swim, const struct swim_digest_entry *entry,
                          struct member *member, uint32_t from, struct draft *reply,
                          struct swim_out *out)
{
    const struct swim_record *own = &member->pub.record;
    if (entry->incarnation != own->incarnation) {
        if (entry->incarnation < own->incarnation) {
            member_send(swim, member, from, reply, out);
        }
        return entry->incarnation > own->incarnation;
    }
    bool live_there = entry->status == SWIM_ALIVE;
    bool live_here = member_is_live(member);
    if (live_there && member->pub.status == SWIM_DEAD) {
        /* With the votes: whoever lacks one of them comes to the same verdict. */
        size_t votes = SWIM_OBSERVERS * (SWIM_ITEM_HEAD + sizeof(struct swim_vote));
        if (draft_ensure(swim, reply, from, SWIM_ITEM_HEAD + 2 * sizeof(uint64_t) + votes, out)) {
            swim_put_two(&reply->body, SWIM_ITEM_DEAD, entry->uid, entry->incarnation);
            put_votes_on(swim, member, &reply->body);
        }
        return false;
    }
    if (entry->status == SWIM_DEAD && live_here && member != &swim->members[SELF]) {
        member_notify(swim, member, true);
        return false;
    }
    if (entry->version < own->version) {
        record_send(swim, member, from, reply, out);
    }
    if (entry->state_version < member->pub.state_version) {
        state_send(swim, member, from, reply, out);
    }
    return entry->version > own->version || entry->state_version > member->pub.state_version;
}

static bool digest_has(const struct swim_digest *digest, uint64_t uid)
{
    for (uint32_t i = 0; i < digest->count; i++) {
        if (digest->entries[i].uid == uid) {
            return true;
        }
    }
    return false;
}

static void digest_take(struct swim *swim, const struct swim_item *item, uint32_t from,
                        uint64_t now_ns, struct draft *reply, struct swim_out *out)
{
    struct swim_digest digest;
    uint64_t pull[SWIM_DIGEST_ENTRY_MAX];
    uint32_t pull_count = 0;
    if (!swim_get_digest(item, &digest)) {
        swim->counters.malformed++;
        return;
    }
    bool newcomer = now_ns < swim->created_ns + NEWCOMER_NS;
    for (uint32_t i = 0; i < digest.count; i++) {
        const struct swim_digest_entry *entry = &digest.entries[i];
        struct member *member = member_find(swim, entry->uid);
        bool wanted = member == NULL && (entry->status == SWIM_ALIVE || newcomer);
        if (member != NULL) {
            wanted = entry_compare(swim, entry, member, from, reply, out);
        }
        if (wanted) {
            pull[pull_count++] = entry->uid;
        }
    }
    bool other_is_new = now_ns < swim->members[from].pub.changed_ns + NEWCOMER_NS;
    for (uint32_t i = 0; i < swim->slots && digest.complete; i++) {
        const struct member *member = &swim->members[i];
        if (member->pub.uid != 0 && bucket_of(member->pub.uid, digest.bits) == digest.bucket &&
            (member_is_live(member) || other_is_new) && !digest_has(&digest, member->pub.uid)) {
            member_send(swim, member, from, reply, out);
        }
    }
    size_t bytes = SWIM_ITEM_HEAD + pull_count * sizeof(pull[0]);
    if (pull_count > 0 && draft_ensure(swim, reply, from, bytes, out)) {
        swim_put_pull(&reply->body, pull, pull_count);
    }
}

static void pull_take(struct swim *swim, const struct swim_item *item, uint32_t from,
                      struct draft *reply, struct swim_out *out)
{
    uint64_t uids[SWIM_PULL_MAX];
    uint32_t count = swim_get_pull(item, uids);
    for (uint32_t i = 0; i < count; i++) {
        const struct member *member = member_find(swim, uids[i]);
        if (member != NULL) {
            member_send(swim, member, from, reply, out);
        }
    }
}

bool sync_item(struct swim *swim, const struct swim_item *item, uint32_t sender, uint64_t now_ns,
               struct draft *reply, struct swim_out *out)
{
    uint64_t sum;
    uint64_t count;
    switch (item->type) {
    case SWIM_ITEM_SYNC:
        if (!swim_get_two(item, &sum, &count)) {
            swim->counters.malformed++;
        } else if (sum != swim->sum) {
            buckets_answer(swim, sender, reply, out);
        }
        return true;
    case SWIM_ITEM_BUCKETS:
        buckets_take(swim, item, sender, reply, out);
        return true;
    case SWIM_ITEM_DIGEST:
        digest_take(swim, item, sender, now_ns, reply, out);
        return true;
    case SWIM_ITEM_PULL:
        pull_take(swim, item, sender, reply, out);
        return true;
    default:
        return false;
    }
}
