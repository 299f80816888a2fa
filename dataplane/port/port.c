/* SPDX-License-Identifier: Apache-2.0 */
/* port.c - see port.h. */
#include "dataplane/port/port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft/status.h>

static int shm_create(struct port *port)
{
    port->memfd = memfd_create("weft-port", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (port->memfd < 0 || ftruncate(port->memfd, sizeof(struct port_shm)) != 0) {
        return -errno;
    }
    /* Sealed: the worker cannot shrink it under our feet (that would be SIGBUS). */
    if (fcntl(port->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return -errno;
    }
    void *map =
        mmap(NULL, sizeof(struct port_shm), PROT_READ | PROT_WRITE, MAP_SHARED, port->memfd, 0);
    if (map == MAP_FAILED) {
        return -errno;
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
    ssize_t got = recv(socket_fd, hello, sizeof(*hello), MSG_DONTWAIT);
    if (got < 0) {
        return -errno;
    }
    if (got == 0) {
        return -EPIPE;
    }
    if ((size_t)got < sizeof(*hello) || hello->magic != PORT_MAGIC ||
        hello->version != PORT_VERSION || hello->size < sizeof(*hello)) {
        return -EPROTO;
    }
    /* Names come from outside: they must end, and must not be empty. */
    if (memchr(hello->model, '\0', sizeof(hello->model)) == NULL || hello->model[0] == '\0' ||
        memchr(hello->backend, '\0', sizeof(hello->backend)) == NULL) {
        return -EPROTO;
    }
    return 0;
}

static int welcome_send(int socket_fd, const struct port_welcome *welcome, const int *fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PORT_FDS * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)welcome, .iov_len = sizeof(*welcome)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds != NULL) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(PORT_FDS * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, PORT_FDS * sizeof(int));
    }
    ssize_t sent = sendmsg(socket_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == (ssize_t)sizeof(*welcome) ? 0 : -EPIPE;
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
    rc = shm_create(port);
    if (rc == 0) {
        uint64_t word;
        memcpy(&word, &hello.load, sizeof(word));
        atomic_store_explicit(&port->shm->load, word, memory_order_relaxed);
        struct port_welcome welcome = {
            .magic = PORT_MAGIC,
            .version = PORT_VERSION,
            .size = sizeof(welcome),
            .node_id = self->node_id,
            .tier = self->tier,
            .shm_bytes = sizeof(struct port_shm),
        };
        strncpy(welcome.node_name, self->node_name, sizeof(welcome.node_name) - 1);
        int fds[PORT_FDS] = {
            [PORT_FD_SHM] = port->memfd,
            [PORT_FD_WAKE_WORKER] = port->wake_worker_fd,
            [PORT_FD_WAKE_NODE] = port->wake_node_fd,
        };
        rc = welcome_send(socket_fd, &welcome, fds);
    }
    if (rc != 0) {
        port_destroy(port);
        return rc;
    }
    port->socket_fd = socket_fd;
    *out = port;
    return 0;
}

void port_refuse(int socket_fd, int status)
{
    struct port_welcome welcome = {
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(welcome),
        .status = status,
    };
    (void)welcome_send(socket_fd, &welcome, NULL);
    close(socket_fd);
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void port_destroy(struct port *port)
{
    if (port == NULL) {
        return;
    }
    if (port->shm != NULL) {
        munmap(port->shm, sizeof(struct port_shm));
    }
    close_if_open(port->memfd);
    close_if_open(port->wake_worker_fd);
    close_if_open(port->wake_node_fd);
    close_if_open(port->socket_fd);
    free(port);
}

bool port_push(struct port *port, const void *datagram, uint32_t len)
{
    struct ring_slot *slot = ring_reserve(&port->to_worker);
    if (slot == NULL || len > RING_DATA_MAX) {
        return false;
    }
    slot->len = len;
    memcpy(slot->data, datagram, len);
    ring_commit(&port->to_worker);
    port->pushed = true;
    return true;
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
    struct ring_slot *slot = ring_peek(&port->to_node);
    if (slot == NULL) {
        return 0;
    }
    /* The worker may write while we read: its length is taken once and checked. */
    uint32_t len = __atomic_load_n(&slot->len, __ATOMIC_RELAXED);
    if (len > max || len > RING_DATA_MAX || len < sizeof(struct weft_hdr)) {
        len = 1;
    } else {
        memcpy(out, slot->data, len);
    }
    ring_release(&port->to_node);
    return len;
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
    return load;
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
