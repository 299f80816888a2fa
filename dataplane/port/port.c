/* SPDX-License-Identifier: Apache-2.0 */
/* port.c - see port.h. */
#include "dataplane/port/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "schemas/base/text.h"

static int shm_create(struct port *port)
{
    void *map;
    int rc = share_memory(sizeof(struct port_shm), &port->memfd, &map);
    if (rc != 0) {
        return rc;
    }
    port->shm = map;
    ring_end_init(&port->to_worker, &port->shm->to_worker, port->shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&port->to_node, &port->shm->to_node, port->shm->to_node_slots, PORT_SLOTS);
    port->wake_worker_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    port->wake_node_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return port->wake_worker_fd < 0 || port->wake_node_fd < 0 ? -errno : 0;
}

static int hello_receive(int socket_fd, struct port_hello *hello)
{
    int rc =
        share_hello(socket_fd, hello, sizeof(*hello), PORT_HELLO_LEAST, PORT_MAGIC, PORT_VERSION);
    if (rc != 0) {
        return rc;
    }
    /* Names come from outside: they must end, and must not be empty. */
    if (memchr(hello->model, '\0', sizeof(hello->model)) == NULL || hello->model[0] == '\0' ||
        memchr(hello->backend, '\0', sizeof(hello->backend)) == NULL) {
        return -EPROTO;
    }
    /* They go to other nodes, which take no others, into logs and on people's screens. */
    return text_is_word(hello->model, strlen(hello->model)) &&
                   text_is_word(hello->backend, strlen(hello->backend))
               ? 0
               : -EINVAL;
}

int port_open(struct port **out, int socket_fd, const struct port_self *self)
{
    *out = NULL;
    struct port_hello hello;
    int rc = hello_receive(socket_fd, &hello);
    if (rc != 0) {
        return rc;
    }
    /* Ring ends are cache-line aligned only in the shared part; this is ordinary memory. */
    struct port *port = calloc(1, sizeof(*port));
    if (port == NULL) {
        return -ENOMEM;
    }
    port->socket_fd = port->memfd = port->wake_worker_fd = port->wake_node_fd = -1;
    port->facts = hello;
    port->model = weft_model_id(hello.model);
    rc = shm_create(port);
    if (rc == 0) {
        uint64_t word;
        memcpy(&word, &hello.load, sizeof(word));
        atomic_store_explicit(&port->shm->load, word, memory_order_relaxed);
        int fds[PORT_FDS] = {
            [PORT_FD_SHM] = port->memfd,
            [PORT_FD_WAKE_WORKER] = port->wake_worker_fd,
            [PORT_FD_WAKE_NODE] = port->wake_node_fd,
        };
        rc = share_welcome(socket_fd, self, PORT_SHM_LEAST, fds, PORT_FDS);
    }
    if (rc != 0) {
        port_destroy(port);
        return rc;
    }
    port->socket_fd = socket_fd;
    *out = port;
    return 0;
}

void port_destroy(struct port *port)
{
    if (port == NULL) {
        return;
    }
    if (port->shm != NULL) {
        munmap(port->shm, sizeof(struct port_shm));
    }
    share_close(port->memfd);
    share_close(port->wake_worker_fd);
    share_close(port->wake_node_fd);
    share_close(port->socket_fd);
    free(port);
}

bool port_push(struct port *port, const void *datagram, uint32_t len)
{
    bool pushed = share_push(&port->to_worker, datagram, len);
    port->pushed |= pushed;
    return pushed;
}

void port_flush(struct port *port)
{
    if (port->pushed && ring_must_wake(&port->to_worker)) {
        uint64_t one = 1;
        /* It can only fail when the counter is full, and then the worker is awake. */
        ssize_t written = write(port->wake_worker_fd, &one, sizeof(one));
        (void)written;
    }
    port->pushed = false;
}

uint32_t port_pop(struct port *port, void *out, uint32_t max)
{
    return share_pop(&port->to_node, out, max);
}

bool port_stalled(struct port *port, uint64_t now_ns)
{
    uint32_t tail = atomic_load_explicit(&port->to_worker.ring->tail, memory_order_relaxed);
    bool reads = tail == port->to_worker.index || tail != port->stall_tail;
    if (reads) {
        port->stall_tail = tail;
        port->stall_ns = now_ns;
    }
    bool stalled = !reads && now_ns - port->stall_ns >= PORT_STALL_NS;
    if (stalled != atomic_load_explicit(&port->stalled, memory_order_relaxed)) {
        atomic_store_explicit(&port->stalled, stalled, memory_order_relaxed);
    }
    return stalled;
}

struct port_load port_load_now(const struct port *port)
{
    uint64_t word = atomic_load_explicit(&port->shm->load, memory_order_relaxed);
    struct port_load load;
    memcpy(&load, &word, sizeof(load));
    if (atomic_load_explicit(&port->stalled, memory_order_relaxed)) {
        load.room = 0;
    }
    if (atomic_load_explicit(&port->rests, memory_order_relaxed)) {
        load.room = 0;
        load.queue_us = WEFT_QUEUE_DRAINING;
    }
    return load;
}

uint16_t port_room_told(const struct port *port)
{
    uint64_t word = atomic_load_explicit(&port->shm->load, memory_order_relaxed);
    struct port_load load;
    memcpy(&load, &word, sizeof(load));
    return load.room;
}

struct port_rates port_rates_now(const struct port *port)
{
    uint64_t word = atomic_load_explicit(&port->shm->rates, memory_order_relaxed);
    struct port_rates rates;
    memcpy(&rates, &word, sizeof(rates));
    if (rates.prefill_per_second == 0) {
        rates.prefill_per_second = port->facts.prefill_per_second;
    }
    if (rates.decode_per_second == 0) {
        rates.decode_per_second = port->facts.decode_per_second;
    }
    return rates;
}

struct port_figures port_figures_now(const struct port *port)
{
    uint64_t words[PORT_FIGURE_WORDS];
    struct port_figures figures;
    for (uint32_t i = 0; i < PORT_FIGURE_WORDS; i++) {
        words[i] = atomic_load_explicit(&port->shm->figures[i], memory_order_relaxed);
    }
    memcpy(&figures, words, sizeof(figures));
    return figures;
}

uint32_t port_prefixes_now(const struct port *port, uint64_t *prefixes, uint32_t max)
{
    const struct port_prefixes *told = &port->shm->prefixes;
    uint64_t newest = atomic_load_explicit(&told->count, memory_order_acquire);
    uint32_t count = 0;
    while (count < max && count < PORT_PREFIXES && count < newest) {
        uint64_t at = (newest - 1 - count) % PORT_PREFIXES;
        prefixes[count++] = atomic_load_explicit(&told->at[at], memory_order_relaxed);
    }
    return count;
}

bool port_take(struct port *port, uint64_t now_ns)
{
    uint64_t word = atomic_load_explicit(&port->shm->load, memory_order_relaxed);
    if (word != port->taken_word || now_ns - port->taken_ns > PORT_TAKEN_NS) {
        port->taken = 0;
        port->taken_word = word;
        port->taken_ns = now_ns;
    }
    struct port_load load = port_load_now(port);
    if (port->taken >= load.room) {
        return false;
    }
    port->taken++;
    return true;
}
