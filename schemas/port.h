/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h - how a worker or a local client attaches to its node. dataplane/port is weftd's end,
 * dataplane/client the other; schemas/base/ring.h is the ring itself. The first word of the hello
 * says which of the two it is; both use one socket.
 *
 * A worker's port. Over a SOCK_SEQPACKET Unix socket the worker sends port_hello; weftd answers
 * port_welcome with three descriptors (SCM_RIGHTS), in this order: a sealed memfd of port_shm, the
 * eventfd that wakes the worker, the eventfd that wakes the node. After that the socket carries
 * nothing: its closing is how each side learns that the other has gone.
 *
 * A client's port. The client sends port_client_hello and gets port_welcome with two descriptors: a
 * sealed memfd of port_client_shm and the eventfd that wakes the node, which the node only waits on
 * and never reads. The client is woken by a byte on the socket: sending it can never make the node
 * wait, whatever the other end has done to its descriptors. The node sends nothing else there, and
 * the client nothing at all.
 *
 * Ring entries are wire messages from the common header on: struct weft_req + payload towards a
 * worker or from a client, struct weft_rsp + payload the other way. Neither side trusts the other:
 * indexes and lengths are checked, entries are copied out before they are looked at twice.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <weft/wire.h>

#include "schemas/base/ring.h"

#define PORT_MAGIC       0x31545057u /* "WPT1" */
#define PORT_VERSION     1u
#define PORT_WORKERS_MAX 8u    /* at one node */
#define PORT_SLOTS       2048u /* entries of each ring; a power of two */
#define PORT_FDS         3u

#define PORT_CLIENT_MAGIC   0x31435057u /* "WPC1" */
#define PORT_CLIENT_VERSION 1u
#define PORT_CLIENT_SLOTS   1024u /* entries of each ring; a power of two */
#define PORT_CLIENT_FDS     2u
#define PORT_CLIENTS_MAX    32u /* of one node at a time */
#define PORT_PROGRAM_MAX    32u

enum port_fd { PORT_FD_SHM = 0, PORT_FD_WAKE_WORKER = 1, PORT_FD_WAKE_NODE = 2 };
enum port_client_fd { PORT_CLIENT_FD_SHM = 0, PORT_CLIENT_FD_WAKE_NODE = 1 };

/* Current load, one 8-byte word so that it is never torn: same shape as in struct weft_rsp_hdr. No
 * room and WEFT_QUEUE_DRAINING: it takes nothing new any more. */
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
    uint32_t arithmetic; /* as in a GRANT; from here on older workers say nothing */
    uint32_t reserved;
};
#define PORT_HELLO_LEAST 112u
WEFT_ASSERT(offsetof(struct port_hello, arithmetic) == PORT_HELLO_LEAST, "hellos were 112 bytes");
WEFT_ASSERT(sizeof(struct port_hello) == 120, "hello is 120 bytes");

/* Who asks is what the socket says (SO_PEERCRED); the name is for people. */
struct port_client_hello {
    uint32_t magic;
    uint16_t version;
    uint16_t size; /* as above */
    char program[PORT_PROGRAM_MAX];
};
WEFT_ASSERT(sizeof(struct port_client_hello) == 40, "hello is 40 bytes");

/* To either: its magic is PORT_MAGIC. */
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

/* How the model is served, for people (WEFT_METRICS_FIGURES); zero = unknown, as all of it is of an
 * older worker. */
struct port_figures {
    uint32_t decode_tps_2;
    uint32_t decode_tps_4;
    uint32_t decode_tps_8;
    uint32_t kv_pages;
    uint32_t kv_pages_used;
    uint32_t memory_mib;
    uint32_t prefix_queries;
    uint32_t prefix_hits;
    uint16_t slots;
    uint16_t running;
    uint16_t waiting;
    uint16_t loaded;
};
#define PORT_FIGURE_WORDS 5u
WEFT_ASSERT(sizeof(struct port_figures) == 8 * PORT_FIGURE_WORDS, "figures are five words");

/* How the prompts that the worker took last began (schemas/base/prefix.h), each once; number i,
 * from 0, is at i % PORT_PREFIXES. */
#define PORT_PREFIXES 16u
struct port_prefixes {
    _Atomic uint64_t count; /* ever put in */
    _Atomic uint64_t at[PORT_PREFIXES];
};

/* The shared memory. The worker writes `load`, `rates`, `figures` and, once, `can` (one relaxed
 * store of each word, so that two words of the figures may be of different moments). */
struct port_shm {
    _Alignas(64) _Atomic uint64_t load;          /* struct port_load as a word */
    _Atomic uint64_t rates;                      /* struct port_rates as a word */
    _Atomic uint64_t can;                        /* enum weft_can */
    _Atomic uint64_t figures[PORT_FIGURE_WORDS]; /* struct port_figures */
    _Alignas(64) struct ring to_worker;
    struct ring to_node;
    struct ring_slot to_worker_slots[PORT_SLOTS];
    struct ring_slot to_node_slots[PORT_SLOTS];
    _Alignas(64) struct port_prefixes prefixes; /* the worker's, too; see PORT_SHM_LEAST */
};

/* What a welcome says; the memory may be longer, and who knows more of it uses it. */
#define PORT_SHM_LEAST offsetof(struct port_shm, prefixes)

WEFT_ASSERT(offsetof(struct port_shm, to_worker) == 64, "what is published is one line");

struct port_client_shm {
    _Alignas(64) struct ring to_client;
    struct ring to_node;
    struct ring_slot to_client_slots[PORT_CLIENT_SLOTS];
    struct ring_slot to_node_slots[PORT_CLIENT_SLOTS];
};

/* A way: a worker's own connection with the worker of another node, for what is no request: pages
 * of a session that moves (kernels/moves). The nodes agree on it by sealed letters and hand the
 * connected TCP socket over, with a key that is this way's alone; then they have no part in it.
 *
 * A worker that can be called keeps a connection to the port's socket on which it has sent
 * port_way_hello with PORT_WAY_SERVE, gets a port_way with a descriptor for each call, and sends
 * port_way_figures when they have changed. Who calls sends PORT_WAY_CALL and gets one port_way:
 * with a descriptor, or with a status and none. */
#define PORT_WAY_MAGIC     0x31575057u /* "WPW1" */
#define PORT_WAY_VERSION   1u
#define PORT_WAY_KEY_BYTES 32u

enum port_way_op { PORT_WAY_SERVE = 1, PORT_WAY_CALL = 2 };

struct port_way_hello {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    uint16_t op;
    uint16_t node;       /* CALL: its id */
    uint32_t model;      /* weft_model_id() */
    uint32_t arithmetic; /* as in the worker's hello: only equal ones are joined */
    uint32_t reserved;
};
WEFT_ASSERT(sizeof(struct port_way_hello) == 24, "way hello is 24 bytes");

struct port_way {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    int32_t status; /* 0, or -errno: there is no way, and no descriptor */
    uint16_t node;  /* the other one */
    uint16_t reserved;
    uint8_t key[PORT_WAY_KEY_BYTES];
};
WEFT_ASSERT(sizeof(struct port_way) == 48, "way is 48 bytes");

/* Of a worker since it began; `moves` in the status answer (WEFT_METRICS_MOVES). */
struct port_way_figures {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    uint64_t sessions_moved;
    uint64_t pages_moved;
    uint64_t bytes_moved;
    uint64_t move_fallbacks;
    uint64_t sessions_given;
    uint64_t pages_given;
    uint64_t bytes_given;
};
WEFT_ASSERT(sizeof(struct port_way_figures) == 64, "way figures are 64 bytes");
