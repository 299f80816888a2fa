/* SPDX-License-Identifier: Apache-2.0 */
/* tap.c - see tap.h. */
#include "dataplane/tap/tap.h"

#include <string.h>

void tap_init(struct tap *tap, uint32_t lcore)
{
    memset(tap, 0, sizeof(*tap));
    tap->lcore = lcore;
}

/* The generation is read before the view, so that what is acknowledged is never newer than what is
 * used: tap_hub.c frees a view only when all have acknowledged the generation that took it away. */
void tap_switch(struct tap *tap)
{
    uint32_t generation = atomic_load_explicit(&tap->generation, memory_order_acquire);
    struct tap_view *view = atomic_load_explicit(&tap->wanted, memory_order_acquire);
    if (view != tap->current && view != NULL) {
        ring_end_init(&tap->end, &view->shm->rings[tap->lcore].ring,
                      tap_shm_slots(view->shm, tap->lcore, view->slots), view->slots);
    }
    tap->current = view;
    tap->current_generation = generation;
    tap->kept = tap->offered = 0;
    atomic_store_explicit(&tap->seen, generation, memory_order_release);
}

/* Slots free behind the `taken` that are filled but not given yet. */
static uint32_t room_after(const struct tap *tap, uint32_t taken)
{
    uint32_t tail = atomic_load_explicit(&tap->end.ring->tail, memory_order_acquire);
    uint32_t used = tap->end.index + taken - tail; /* nonsense of the reader's is full as well */
    return used <= tap->end.mask ? tap->end.mask + 1 - used : 0;
}

static struct ring_slot *slot_at(const struct tap *tap, uint32_t place)
{
    return &tap->end.slots[(tap->end.index + place) & tap->end.mask];
}

/* One writer: no locked instruction needed. */
static void add(_Atomic uint64_t *counter, uint32_t count)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + count,
                          memory_order_relaxed);
}

static void lose(struct tap *tap, uint32_t count)
{
    add(&tap->current->shm->rings[tap->lcore].lost, count);
    add(&tap->lost, count);
}

static struct tap_record *fill(const struct tap *tap, uint32_t place, enum tap_point point,
                               const struct route_packet *p)
{
    struct ring_slot *slot = slot_at(tap, place);
    struct tap_record *record = (struct tap_record *)(void *)slot->data;
    uint32_t kept = p->len < tap->current->snaplen ? p->len : tap->current->snaplen;
    *record = (struct tap_record){
        .time_ns = tap->now_ns,
        .len = (uint16_t)(p->len < UINT16_MAX ? p->len : UINT16_MAX),
        .point = (uint8_t)point,
    };
    memcpy(slot->data + sizeof(*record), packet_ether(p), kept);
    slot->len = (uint32_t)sizeof(*record) + kept;
    return record;
}

/* A worker's datagram has no headers yet: zeros stand where the reader will put some. */
static void fill_worker(const struct tap *tap, uint32_t place, const struct route_packet *p)
{
    struct route_packet whole = *p;
    const uint32_t headers = ROUTE_WEFT_OFFSET - p->start;
    whole.len = headers + p->weft_len;
    fill(tap, place, TAP_WORKER_IN, &whole);
    uint32_t kept = whole.len < tap->current->snaplen ? whole.len : tap->current->snaplen;
    memset(slot_at(tap, place)->data + sizeof(struct tap_record), 0,
           kept < headers ? kept : headers);
}

void tap_take(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    uint32_t room = room_after(tap, 0);
    tap->offered = count;
    tap->kept = count < room ? count : room;
    for (uint32_t i = 0; i < tap->kept; i++) {
        fill(tap, i, TAP_NIC_IN, &packets[i]);
    }
    if (count > tap->kept) {
        lose(tap, count - tap->kept);
    }
}

/* Place for `count` more frames behind those of this burst, or for fewer. */
static uint32_t more_of(struct tap *tap, uint32_t count)
{
    /* A gap would give later frames the verdicts of others. */
    uint32_t room = tap->kept == tap->offered ? room_after(tap, tap->kept) : 0;
    tap->offered += count;
    if (count > room) {
        lose(tap, count - room);
    }
    return count < room ? count : room;
}

void tap_take_worker(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    uint32_t more = more_of(tap, count);
    for (uint32_t i = 0; i < more; i++) {
        fill_worker(tap, tap->kept + i, &packets[i]);
    }
    tap->kept += more;
}

void tap_take_local(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    uint32_t more = more_of(tap, count);
    for (uint32_t i = 0; i < more; i++) {
        fill(tap, tap->kept + i, TAP_CLIENT_IN, &packets[i]);
    }
    tap->kept += more;
}

static enum tap_verdict verdict_of(const struct route_packet *p)
{
    switch (p->action) {
    case ROUTE_SEND:
        return p->to == ROUTE_TO_NODE     ? TAP_VERDICT_to_node
               : p->to == ROUTE_TO_CLIENT ? TAP_VERDICT_to_client
                                          : TAP_VERDICT_answered;
    case ROUTE_GONE:
        return TAP_VERDICT_handed;
    default:
        return p->why != 0 ? TAP_VERDICT_dropped : TAP_VERDICT_delivered;
    }
}

/* One store gives the reader the whole burst. */
void tap_give(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < tap->kept; i++) {
        struct tap_record *record = (struct tap_record *)(void *)slot_at(tap, i)->data;
        record->verdict = (uint8_t)verdict_of(&packets[i]);
        record->why = packets[i].why;
    }
    uint32_t used = tap->kept;
    uint32_t room = room_after(tap, used);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < count; i++) {
        enum tap_verdict verdict = verdict_of(&packets[i]);
        if (verdict == TAP_VERDICT_handed || verdict == TAP_VERDICT_dropped) {
            continue; /* the frame may be another lcore's by now, or goes nowhere */
        }
        if (room == 0) {
            lost++;
            continue;
        }
        fill(tap, used, verdict == TAP_VERDICT_delivered ? TAP_WORKER_OUT : TAP_NIC_OUT,
             &packets[i]);
        used++;
        room--;
    }
    if (lost > 0) {
        lose(tap, lost);
    }
    if (used > 0) {
        tap->end.index += used - 1;
        ring_commit(&tap->end);
    }
    tap->kept = tap->offered = 0;
}
