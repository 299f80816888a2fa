/* SPDX-License-Identifier: Apache-2.0 */
/* exception.c - see exception.h. */
#include "dataplane/nic/exception.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <pthread.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "schemas/base/log.h"

#define RING_FRAMES 1024u
#define BURST       32u
#define TUN_DEVICE  "/dev/net/tun"

struct exception {
    char tap[IF_NAMESIZE];
    struct rte_ring *to_kernel;   /* lcores -> thread */
    struct rte_ring *from_kernel; /* thread -> lcore 0 */
    struct rte_mempool *pool;
    int tap_fd;   /* the same number for the whole life */
    int wake_fd;  /* wakes the thread */
    int event_fd; /* wakes lcore 0 */
    bool running;
    pthread_t thread;
    _Atomic bool asleep;
    _Atomic bool stop;
    _Atomic bool gone; /* somebody has removed the interface */
    _Atomic uint64_t given, taken, lost;
};

/* ---- the interface ---- */

static int set_flag_up(int fd, struct ifreq *request)
{
    if (ioctl(fd, SIOCGIFFLAGS, request) != 0) {
        return -errno;
    }
    request->ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, request) != 0 ? -errno : 0;
}

static int set_mac(int fd, struct ifreq *request, const uint8_t mac[6])
{
    if (ioctl(fd, SIOCGIFHWADDR, request) != 0) {
        return -errno;
    }
    if (memcmp(request->ifr_hwaddr.sa_data, mac, 6) == 0 || exception_no_mac(mac)) {
        return 0; /* a new one would cost the kernel its neighbours */
    }
    request->ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request->ifr_hwaddr.sa_data, mac, 6);
    return ioctl(fd, SIOCSIFHWADDR, request) != 0 ? -errno : 0;
}

int exception_set(const struct exception *e, uint32_t mtu, const uint8_t mac[6])
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", e->tap);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : set_mac(fd, &request, mac);
    if (rc == 0) {
        request.ifr_mtu = (int)mtu;
        rc = ioctl(fd, SIOCSIFMTU, &request) != 0 ? -errno : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static int set_up(const struct exception *e)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", e->tap);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : set_flag_up(fd, &request);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* Returns a descriptor or -errno. */
static int tap_open(const char *name)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    int fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd < 0 ? -errno : fd;
}

void exception_carrier(const struct exception *e, bool up)
{
    int carrier = up;
    (void)ioctl(e->tap_fd, TUNSETCARRIER, &carrier); /* before Linux 5.0: always there */
}

bool exception_gone(const struct exception *e)
{
    return atomic_load_explicit(&e->gone, memory_order_acquire);
}

int exception_reopen(struct exception *e, uint32_t mtu, const uint8_t mac[6])
{
    if (if_nametoindex(e->tap) == 0) {
        return -ENODEV; /* whoever removed it makes it anew, with its addresses */
    }
    int fd = tap_open(e->tap);
    if (fd < 0) {
        return fd;
    }
    int rc = dup3(fd, e->tap_fd, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    rc = rc != 0 ? rc : exception_set(e, mtu, mac);
    rc = rc != 0 ? rc : set_up(e);
    if (rc == 0) {
        atomic_store_explicit(&e->gone, false, memory_order_release);
        eventfd_write(e->wake_fd, 1);
    }
    return rc;
}

/* ---- the thread ---- */

static void count(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static uint32_t write_frames(struct exception *e)
{
    struct rte_mbuf *bufs[BURST];
    uint32_t n = rte_ring_sc_dequeue_burst(e->to_kernel, (void **)bufs, BURST, NULL);
    for (uint32_t i = 0; i < n; i++) {
        ssize_t done = write(e->tap_fd, rte_pktmbuf_mtod(bufs[i], void *), bufs[i]->data_len);
        count(done > 0 ? &e->given : &e->lost, 1);
        rte_pktmbuf_free(bufs[i]);
    }
    return n;
}

/* Reads also what there is no buffer for: the TAP would stay readable. */
static bool read_frame(struct exception *e, bool *queued)
{
    uint8_t scratch[1];
    struct rte_mbuf *buf = rte_pktmbuf_alloc(e->pool);
    ssize_t len = buf != NULL
                      ? read(e->tap_fd, rte_pktmbuf_mtod(buf, void *), rte_pktmbuf_tailroom(buf))
                      : read(e->tap_fd, scratch, sizeof(scratch));
    if (len > 0 && buf != NULL) {
        buf->data_len = (uint16_t)len;
        buf->pkt_len = (uint32_t)len;
        if (rte_ring_sp_enqueue(e->from_kernel, buf) == 0) {
            count(&e->taken, 1);
            *queued = true;
            return true;
        }
    }
    if (len > 0) {
        count(&e->lost, 1);
    }
    rte_pktmbuf_free(buf);
    return len > 0;
}

static uint32_t read_frames(struct exception *e)
{
    uint32_t n = 0;
    bool queued = false;
    while (n < BURST && read_frame(e, &queued)) {
        n++;
    }
    if (queued) {
        eventfd_write(e->event_fd, 1);
    }
    return n;
}

static void wait_for_either(struct exception *e)
{
    bool gone = exception_gone(e);
    struct pollfd fds[] = {{.fd = e->wake_fd, .events = POLLIN},
                           {.fd = gone ? -1 : e->tap_fd, .events = POLLIN}};
    atomic_store_explicit(&e->asleep, true, memory_order_relaxed);
    /* Pairs with the fence in exception_give(): one of the two sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
    if (rte_ring_empty(e->to_kernel) != 0) {
        poll(fds, 2, -1);
    }
    atomic_store_explicit(&e->asleep, false, memory_order_relaxed);
    if (!gone && (fds[1].revents & (POLLERR | POLLHUP)) != 0) {
        atomic_store_explicit(&e->gone, true, memory_order_release);
    }
    eventfd_t ignored;
    eventfd_read(e->wake_fd, &ignored);
}

static void *run(void *arg)
{
    struct exception *e = arg;
    while (!atomic_load_explicit(&e->stop, memory_order_acquire)) {
        uint32_t moved = write_frames(e);
        moved += read_frames(e);
        if (moved == 0) {
            wait_for_either(e);
        }
    }
    return NULL;
}

static int start_thread(struct exception *e)
{
    sigset_t all, old;
    sigfillset(&all); /* signals are for the main thread */
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = -pthread_create(&e->thread, NULL, run, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    e->running = rc == 0;
    return rc;
}

/* ---- */

int exception_create(struct exception **out, const struct exception_options *options)
{
    *out = NULL;
    struct exception *e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    e->pool = options->pool;
    snprintf(e->tap, sizeof(e->tap), "%s", options->tap);
    e->tap_fd = -1;
    e->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->to_kernel = rte_ring_create("weft_to_kernel", RING_FRAMES, SOCKET_ID_ANY, RING_F_SC_DEQ);
    e->from_kernel = rte_ring_create("weft_from_kernel", RING_FRAMES, SOCKET_ID_ANY,
                                     RING_F_SP_ENQ | RING_F_SC_DEQ);
    int rc = e->wake_fd < 0 || e->event_fd < 0 || e->to_kernel == NULL || e->from_kernel == NULL
                 ? -ENOMEM
                 : tap_open(e->tap);
    if (rc >= 0) {
        e->tap_fd = rc;
        rc = exception_set(e, options->mtu, options->mac);
        rc = rc != 0 ? rc : set_up(e);
        rc = rc != 0 ? rc : start_thread(e);
    }
    if (rc != 0) {
        LOG_ERROR("cannot use the TAP interface %s: %s (needs %s and CAP_NET_ADMIN, and no other "
                  "program on it)",
                  options->tap, strerror(-rc), TUN_DEVICE);
        exception_destroy(e);
        return rc;
    }
    *out = e;
    return 0;
}

static void drain(struct rte_ring *ring)
{
    void *buf;
    while (ring != NULL && rte_ring_dequeue(ring, &buf) == 0) {
        rte_pktmbuf_free(buf);
    }
    rte_ring_free(ring);
}

void exception_destroy(struct exception *e)
{
    if (e == NULL) {
        return;
    }
    if (e->running) {
        atomic_store_explicit(&e->stop, true, memory_order_release);
        eventfd_write(e->wake_fd, 1);
        pthread_join(e->thread, NULL);
    }
    drain(e->to_kernel);
    drain(e->from_kernel);
    int fds[] = {e->tap_fd, e->wake_fd, e->event_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    free(e);
}

void exception_give(struct exception *e, struct rte_mbuf **bufs, uint32_t n)
{
    uint32_t given = rte_ring_mp_enqueue_burst(e->to_kernel, (void *const *)bufs, n, NULL);
    if (given != n) {
        rte_pktmbuf_free_bulk(bufs + given, n - given);
        count(&e->lost, n - given);
    }
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&e->asleep, memory_order_relaxed) &&
        atomic_exchange_explicit(&e->asleep, false, memory_order_relaxed)) {
        eventfd_write(e->wake_fd, 1);
    }
}

uint32_t exception_take(struct exception *e, struct rte_mbuf **bufs, uint32_t max)
{
    return rte_ring_sc_dequeue_burst(e->from_kernel, (void **)bufs, max, NULL);
}

void exception_lost(struct exception *e, uint32_t n)
{
    count(&e->lost, n);
}

int exception_fd(const struct exception *e)
{
    return e->event_fd;
}

struct exception_counts exception_counts(const struct exception *e)
{
    return (struct exception_counts){
        .to_kernel = atomic_load_explicit(&e->given, memory_order_relaxed),
        .from_kernel = atomic_load_explicit(&e->taken, memory_order_relaxed),
        .lost = atomic_load_explicit(&e->lost, memory_order_relaxed),
    };
}
