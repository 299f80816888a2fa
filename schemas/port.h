/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h - how a worker attaches to its node. dataplane/port is weftd's end, dataplane/client the
 * worker's; schemas/base/ring.h is the ring itself.
 *
 * Over a SOCK_SEQPACKET Unix socket the worker sends port_hello; weftd answers port_welcome with
 * three descriptors (SCM_RIGHTS), in this order: a sealed memfd of port_shm, the eventfd that wakes
 * the worker, the eventfd that wakes the node. After that the socket carries nothing: its closing
 * is how each side learns that the other has gone.
 *
 * Ring entries are wire messages from the common header on: struct weft_req + payload towards the
 * worker, struct weft_rsp + payload towards the node. Neither side trusts the other: indexes and
 * lengths are checked, entries are copied out before they are looked at twice.
 */
#pragma once

#include <stdint.h>
#include <weft/wire.h>

#include "schemas/base/ring.h"

#define PORT_MAGIC   0x31545057u /* "WPT1" */
#define PORT_VERSION 1u
#define PORT_SLOTS   2048u /* entries of each ring; a power of two */
#define PORT_FDS     3u

enum port_fd { PORT_FD_SHM = 0, PORT_FD_WAKE_WORKER = 1, PORT_FD_WAKE_NODE = 2 };

/* Current load, one 8-byte word so that it is never torn: same shape as in struct weft_rsp_hdr. */
struct port_load {
    uint16_t room;
    uint16_t free_vram_64mib;
    uint32_t queue_us;
};
WEFT_ASSERT(sizeof(struct port_load) == 8, "load is one word");

struct port_hello {
    uint32_t magic;
    uint16_t version;
    uint16_t size; /* of this struct; longer ones come from newer workers */
    uint32_t context_tokens;
    uint32_t prefill_per_second;
    uint32_t decode_per_second;
    uint32_t pid;
    struct port_load load;
    char model[WEFT_MODEL_NAME_MAX];
    char backend[WEFT_BACKEND_MAX];
};
WEFT_ASSERT(sizeof(struct port_hello) == 112, "hello is 112 bytes");

struct port_welcome {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    int32_t status; /* 0, or why the port was refused; then no descriptors come */
    uint16_t node_id;
    uint8_t tier;
    uint8_t reserved;
    uint32_t shm_bytes;
    char node_name[WEFT_NAME_MAX];
};
WEFT_ASSERT(sizeof(struct port_welcome) == 52, "welcome is 52 bytes");

/* Measured speeds, kept current as the worker learns; one word too. 0 = as in the hello. */
struct port_rates {
    uint32_t prefill_per_second;
    uint32_t decode_per_second;
};
WEFT_ASSERT(sizeof(struct port_rates) == 8, "rates are one word");

/* The shared memory. The worker writes `load` and `rates` (one relaxed store of each word). */
struct port_shm {
    _Alignas(64) _Atomic uint64_t load; /* struct port_load as a word */
    _Atomic uint64_t rates;             /* struct port_rates as a word */
    _Alignas(64) struct ring to_worker;
    struct ring to_node;
    struct ring_slot to_worker_slots[PORT_SLOTS];
    struct ring_slot to_node_slots[PORT_SLOTS];
};
