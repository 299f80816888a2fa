/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap_shm.h - the memory through which captured frames leave weftd: one memfd per capture, a ring
 * per lcore. Written by tap.c on the lcores, set up by tap_hub.c, read by `weft pcap`, which gets
 * the descriptor over the admin socket.
 *
 * Layout: struct tap_shm, then from TAP_SLOTS_OFFSET on `slots` ring slots of each lcore in turn. A
 * slot's data is a struct tap_record and the first bytes of the frame. The reader may write to all
 * of it; the lcore takes nothing from there but the reader's index, which ring.h checks.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "schemas/base/ring.h"

#define TAP_MAGIC        0x50415457u /* "WTAP" */
#define TAP_VERSION      1u
#define TAP_LCORES_MAX   64u
#define TAP_SLOTS_MIN    64u
#define TAP_SLOTS_MAX    65536u
#define TAP_SLOTS        4096u /* 6 MiB an lcore */
#define TAP_SLOTS_OFFSET 16384u
#define TAP_NAME_MAX     32u

/* Where a frame was seen. POINT(name, worker's side, going out, text) */
#define TAP_POINTS(POINT)                                                                          \
    POINT(NIC_IN, 0, 0, "taken from the network")                                                  \
    POINT(NIC_OUT, 0, 1, "given to the network")                                                   \
    POINT(WORKER_IN, 1, 0, "from the local worker")                                                \
    POINT(WORKER_OUT, 1, 1, "to the local worker or a local client")                               \
    POINT(CLIENT_IN, 1, 0, "from a local client")
#define TAP_POINT_ENUM_(name, worker, out, text) TAP_##name,
enum tap_point { TAP_POINTS(TAP_POINT_ENUM_) TAP_POINT_COUNT };

/* What became of a frame that came in. VERDICT(name, text) */
#define TAP_VERDICTS(VERDICT)                                                                      \
    VERDICT(none, "")                                                                              \
    VERDICT(to_node, "sent on to another node")                                                    \
    VERDICT(to_client, "sent to the client")                                                       \
    VERDICT(answered, "answered to the sender")                                                    \
    VERDICT(delivered, "to the local worker or a local client")                                    \
    VERDICT(handed, "to the lcore that has the ports")                                             \
    VERDICT(dropped, "let go of")
#define TAP_VERDICT_ENUM_(name, text) TAP_VERDICT_##name,
enum tap_verdict { TAP_VERDICTS(TAP_VERDICT_ENUM_) TAP_VERDICT_COUNT };

/* Packed: a slot's data has no alignment. */
struct __attribute__((packed)) tap_record {
    uint64_t time_ns;    /* of the burst, clock_now_ns() */
    uint16_t len;        /* bytes of the frame; what follows may be fewer */
    uint8_t point;       /* enum tap_point */
    uint8_t verdict;     /* enum tap_verdict; none for frames going out */
    uint8_t why;         /* reason counted (drops.def) + 1; 0 = none. Also of answers: refused */
    uint8_t reserved[3]; /* zero */
};
_Static_assert(sizeof(struct tap_record) == 16, "a record has no holes");
#define TAP_SNAPLEN_MAX (RING_DATA_MAX - (uint32_t)sizeof(struct tap_record))

struct tap_ring {
    struct ring ring;
    _Alignas(64) _Atomic uint64_t lost; /* frames not captured: the ring was full */
};

struct tap_shm {
    uint32_t magic;
    uint32_t version;
    uint32_t lcores;
    uint32_t slots; /* of each lcore, a power of two */
    uint32_t snaplen;
    uint32_t drop_count;     /* length of drops.def: reasons are its places */
    uint64_t wall_offset_ns; /* + time_ns = nanoseconds since 1970 */
    char node[TAP_NAME_MAX];
    char interface[TAP_NAME_MAX];
    struct tap_ring rings[TAP_LCORES_MAX];
};
_Static_assert(sizeof(struct tap_shm) <= TAP_SLOTS_OFFSET, "the slots come after it");

static inline size_t tap_shm_bytes(uint32_t lcores, uint32_t slots)
{
    return TAP_SLOTS_OFFSET + (size_t)lcores * slots * RING_SLOT_BYTES;
}

static inline struct ring_slot *tap_shm_slots(struct tap_shm *shm, uint32_t lcore, uint32_t slots)
{
    return (struct ring_slot *)(void *)((uint8_t *)shm + TAP_SLOTS_OFFSET +
                                        (size_t)lcore * slots * RING_SLOT_BYTES);
}
