/* SPDX-License-Identifier: Apache-2.0 */
/* resource.c - see resource.h. */
#include "controlplane/maps/resource.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the node's own side ---- */

void resource_source_init(struct resource_source *source, uint32_t node, uint64_t incarnation)
{
    memset(source, 0, sizeof(*source));
    source->node = node;
    source->incarnation = incarnation;
}

size_t resource_publish(struct resource_source *source, const struct resource_facts *facts,
                        bool whole, uint8_t out[RESOURCE_WIRE_MAX])
{
    source->version++;
    whole = whole || source->whole_version == 0 ||
            source->version - source->whole_version >= RESOURCE_WHOLE_EVERY;
    if (whole) {
        source->whole_version = source->version;
    }
    struct resource_message message = {
        .node = source->node,
        .incarnation = source->incarnation,
        .version = source->version,
        .whole_version = source->whole_version,
        .mask = whole ? RESOURCE_MASK_ALL : resource_differ(facts, &source->whole),
        .facts = *facts,
    };
    if (whole) {
        source->whole = *facts;
    }
    return resource_write(&message, out);
}

/* ---- others ---- */

int resource_init(struct resource_map *map, uint32_t nodes_max, uint64_t seed)
{
    memset(map, 0, sizeof(*map));
    int rc = slots_init(&map->slots, nodes_max, seed);
    if (rc != 0) {
        return rc;
    }
    map->entries = calloc(nodes_max, sizeof(*map->entries));
    if (map->entries == NULL) {
        slots_deinit(&map->slots);
        return -ENOMEM;
    }
    return 0;
}

void resource_deinit(struct resource_map *map)
{
    slots_deinit(&map->slots);
    free(map->entries);
    memset(map, 0, sizeof(*map));
}

void resource_forget(struct resource_map *map, uint32_t node)
{
    slots_drop(&map->slots, node);
}

static struct resource_entry *entry_find(const struct resource_map *map, uint32_t node)
{
    uint32_t slot = slots_find(&map->slots, node);
    return slot == SLOTS_NONE ? NULL : &map->entries[slot];
}

/* A report made at `reported_ns` knows of every request that had arrived by then. What was sent
 * `path_ns` before it, or earlier, had. */
static void credits_cover(struct resource_entry *entry, uint64_t reported_ns, uint64_t path_ns)
{
    uint32_t covered = 0;
    while (covered < entry->credit_count &&
           entry->credits[covered].sent_ns + path_ns <= reported_ns) {
        covered++;
    }
    entry->credit_count -= covered;
    memmove(entry->credits, entry->credits + covered,
            entry->credit_count * sizeof(entry->credits[0]));
}

static bool is_news(const struct resource_entry *entry, const struct resource_message *message)
{
    return message->incarnation > entry->incarnation ||
           (message->incarnation == entry->incarnation && message->version > entry->version);
}

static void entry_take(struct resource_entry *entry, const struct resource_message *message)
{
    bool whole = message->whole_version == message->version;
    if (whole) {
        entry->whole = message->facts;
        entry->whole_version = message->version;
    }
    entry->facts = entry->whole;
    resource_copy(&entry->facts, &message->facts, message->mask);
    entry->incarnation = message->incarnation;
    entry->version = message->version;
}

enum resource_verdict resource_receive(struct resource_map *map, const void *data, size_t size,
                                       uint64_t path_ns, uint64_t now_ns, uint32_t *node)
{
    struct resource_message message;
    if (!resource_read(&message, data, size)) {
        return RESOURCE_MALFORMED;
    }
    *node = message.node;
    struct resource_entry *entry = entry_find(map, message.node);
    if (entry != NULL && !is_news(entry, &message)) {
        return RESOURCE_OLD;
    }
    if (message.whole_version != message.version &&
        (entry == NULL || entry->incarnation != message.incarnation ||
         entry->whole_version != message.whole_version)) {
        return RESOURCE_NEED_WHOLE;
    }
    bool fresh;
    entry = &map->entries[slots_take(&map->slots, message.node, &fresh)];
    if (fresh) {
        memset(entry, 0, sizeof(*entry));
    }
    if (message.incarnation > entry->incarnation) {
        entry->credit_count = 0; /* it began anew: nothing of before is under way there */
        entry->reported_ns = 0;
    }
    uint64_t age_ns = message.age_ns + path_ns;
    uint64_t reported_ns = now_ns > age_ns ? now_ns - age_ns : 0;
    /* A reply may have brought later news of the load, which then stays. */
    struct resource_facts load = entry->facts;
    bool keep_load = reported_ns < entry->reported_ns;
    entry_take(entry, &message);
    if (keep_load) {
        entry->facts.room = load.room;
        entry->facts.queue_us = load.queue_us;
        entry->facts.free_vram_mib = load.free_vram_mib;
        return RESOURCE_TAKEN;
    }
    entry->reported_ns = reported_ns;
    credits_cover(entry, reported_ns, path_ns);
    return RESOURCE_TAKEN;
}

void resource_observe(struct resource_map *map, uint32_t node, uint32_t room, uint32_t queue_us,
                      uint32_t free_vram_mib, uint64_t reported_ns)
{
    struct resource_entry *entry = entry_find(map, node);
    if (entry == NULL || reported_ns < entry->reported_ns) {
        return;
    }
    entry->facts.room = room;
    entry->facts.queue_us = queue_us;
    entry->facts.free_vram_mib = free_vram_mib;
    entry->reported_ns = reported_ns;
    credits_cover(entry, reported_ns, 0);
}

void resource_credit(struct resource_map *map, uint32_t node, uint32_t work_us, uint32_t vram_mib,
                     uint64_t now_ns)
{
    struct resource_entry *entry = entry_find(map, node);
    if (entry == NULL) {
        return;
    }
    struct resource_credit *last =
        entry->credit_count > 0 ? &entry->credits[entry->credit_count - 1] : NULL;
    bool joins = last != NULL && (entry->credit_count == RESOURCE_CREDITS ||
                                  now_ns < last->sent_ns + RESOURCE_CREDIT_NS);
    if (!joins) {
        last = &entry->credits[entry->credit_count++];
        *last = (struct resource_credit){0};
    }
    last->sent_ns = now_ns > last->sent_ns ? now_ns : last->sent_ns;
    last->count++;
    last->work_us += work_us;
    last->vram_mib += vram_mib;
}

void resource_release(struct resource_map *map, uint32_t node, uint32_t work_us, uint32_t vram_mib,
                      uint64_t sent_ns)
{
    struct resource_entry *entry = entry_find(map, node);
    if (entry == NULL) {
        return;
    }
    /* The first group that ends at or after it is its own. None: a report has covered it. */
    uint32_t i = 0;
    while (i < entry->credit_count && entry->credits[i].sent_ns < sent_ns) {
        i++;
    }
    if (i == entry->credit_count) {
        return;
    }
    struct resource_credit *group = &entry->credits[i];
    group->work_us -= work_us < group->work_us ? work_us : group->work_us;
    group->vram_mib -= vram_mib < group->vram_mib ? vram_mib : group->vram_mib;
    if (--group->count == 0) {
        entry->credit_count--;
        memmove(group, group + 1, (entry->credit_count - i) * sizeof(*group));
    }
}

/* ---- answers ---- */

static enum resource_freshness freshness_of(uint64_t age_ns)
{
    return age_ns <= RESOURCE_FRESH_NS   ? RESOURCE_FRESH
           : age_ns <= RESOURCE_STALE_NS ? RESOURCE_AGING
           : age_ns < RESOURCE_EXPIRE_NS ? RESOURCE_STALE
                                         : RESOURCE_EXPIRED;
}

static uint32_t less(uint32_t from, uint64_t by)
{
    return by < from ? from - (uint32_t)by : 0;
}

struct resource_view resource_of(const struct resource_map *map, uint32_t node, uint64_t now_ns)
{
    struct resource_view view = {.freshness = RESOURCE_UNKNOWN};
    const struct resource_entry *entry = entry_find(map, node);
    if (entry == NULL) {
        return view;
    }
    view.facts = entry->facts;
    view.age_ns = now_ns > entry->reported_ns ? now_ns - entry->reported_ns : 0;
    view.freshness = freshness_of(view.age_ns);
    uint64_t queue_us = entry->facts.queue_us;
    uint64_t vram_mib = 0;
    for (uint32_t i = 0; i < entry->credit_count; i++) {
        queue_us += entry->credits[i].work_us;
        vram_mib += entry->credits[i].vram_mib;
        view.in_flight += entry->credits[i].count;
    }
    if (view.age_ns > RESOURCE_FRESH_NS) {
        queue_us += (view.age_ns - RESOURCE_FRESH_NS) / NS_PER_US / RESOURCE_PENALTY_PARTS;
    }
    if (view.freshness == RESOURCE_STALE && view.facts.room > 1) {
        view.facts.room = 1;
    } else if (view.freshness == RESOURCE_EXPIRED) {
        view.facts.room = 0;
    }
    view.facts.room = less(view.facts.room, view.in_flight);
    view.facts.free_vram_mib = less(view.facts.free_vram_mib, vram_mib);
    view.facts.queue_us = queue_us < UINT32_MAX ? (uint32_t)queue_us : UINT32_MAX;
    return view;
}
