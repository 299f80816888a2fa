/* SPDX-License-Identifier: Apache-2.0 */
/* nic.c - see nic.h. The DPDK port: buffers, bursts, sleeping. */
#include "dataplane/nic/nic.h"

#include <dirent.h>
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "dataplane/nic/eal.h"
#include "schemas/base/log.h"

#define BUFFERS        4095u
#define BUFFER_CACHE   64u
#define RX_DESCRIPTORS 512u
#define TX_DESCRIPTORS 512u
#define TX_TRIES       3u
#define BURST_MAX      64u

struct nic {
    uint16_t port;
    bool started;
    bool has_interrupt;
    struct rte_mempool *pool;
    uint32_t queues;
    int wait_fds[NIC_LCORES_MAX]; /* of queue i: readable when packets wait; the driver's own */
    bool can_wait;
};

/* The af_packet driver has no receive interrupt, but a readable socket is one. DPDK does not tell
 * its descriptor, so: which packet sockets did this process gain? */
static uint32_t packet_sockets(int *fds, uint32_t max)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int domain = 0;
        socklen_t size = sizeof(domain);
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
            domain == AF_PACKET && count < max) {
            fds[count++] = fd;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

static int compare_int(const void *a, const void *b)
{
    const int *x = a;
    const int *y = b;
    return (*x > *y) - (*x < *y);
}

/* What each queue can be waited for on: the driver's sockets in the order in which it opened them,
 * or its interrupts. */
static void find_wait_fds(struct nic *nic)
{
    uint32_t found = packet_sockets(nic->wait_fds, NIC_LCORES_MAX);
    qsort(nic->wait_fds, found, sizeof(int), compare_int);
    nic->can_wait = found == nic->queues;
    if (found != 0) {
        return;
    }
    nic->has_interrupt = true;
    for (uint32_t q = 0; q < nic->queues; q++) {
        nic->wait_fds[q] = rte_eth_dev_rx_intr_ctl_q_get_fd(nic->port, (uint16_t)q);
        nic->has_interrupt = nic->has_interrupt && nic->wait_fds[q] >= 0;
    }
    nic->can_wait = nic->has_interrupt;
}

/* Spreads flows over the queues where the port can; af_packet's fan-out needs no asking. */
static void ask_for_rss(const struct nic *nic, struct rte_eth_conf *conf)
{
    struct rte_eth_dev_info info;
    if (nic->queues > 1 && rte_eth_dev_info_get(nic->port, &info) == 0 &&
        (info.flow_type_rss_offloads & RTE_ETH_RSS_UDP) != 0) {
        conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf->rx_adv_conf.rss_conf.rss_hf = RTE_ETH_RSS_UDP & info.flow_type_rss_offloads;
    }
}

static int port_configure(struct nic *nic)
{
    struct rte_eth_conf conf = {.intr_conf.rxq = 1};
    uint16_t queues = (uint16_t)nic->queues;
    uint16_t rx = RX_DESCRIPTORS;
    uint16_t tx = TX_DESCRIPTORS;
    ask_for_rss(nic, &conf);
    /* Not every driver has receive interrupts; some refuse the configuration, others ignore it. */
    int rc = rte_eth_dev_configure(nic->port, queues, queues, &conf);
    if (rc != 0) {
        conf.intr_conf.rxq = 0;
        rc = rte_eth_dev_configure(nic->port, queues, queues, &conf);
    }
    if (rc == 0) {
        rc = rte_eth_dev_adjust_nb_rx_tx_desc(nic->port, &rx, &tx);
    }
    for (uint16_t q = 0; rc == 0 && q < queues; q++) {
        rc = rte_eth_rx_queue_setup(nic->port, q, rx, (unsigned)SOCKET_ID_ANY, NULL, nic->pool);
        if (rc == 0) {
            rc = rte_eth_tx_queue_setup(nic->port, q, tx, (unsigned)SOCKET_ID_ANY, NULL);
        }
    }
    if (rc == 0) {
        rc = rte_eth_dev_start(nic->port);
    }
    nic->started = rc == 0;
    return rc;
}

int nic_create(struct nic **out, const struct nic_options *options)
{
    *out = NULL;
    int rc = eal_start(options);
    if (rc != 0) {
        return rc;
    }
    struct nic *nic = calloc(1, sizeof(*nic));
    if (nic == NULL) {
        eal_stop();
        return -ENOMEM;
    }
    const char *device = EAL_PORT;
    nic->queues = options->lcores;
    rc = rte_eth_dev_get_port_by_name(device, &nic->port);
    if (rc == 0) {
        nic->pool = rte_pktmbuf_pool_create("weft", BUFFERS, BUFFER_CACHE, 0,
                                            RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
        rc = nic->pool != NULL ? port_configure(nic) : -ENOMEM;
    }
    if (rc != 0) {
        LOG_ERROR("cannot start port %s on %s with %u queues: %s", device, options->interface,
                  nic->queues, strerror(-rc));
        nic_destroy(nic);
        return rc;
    }
    find_wait_fds(nic);
    LOG_INFO("port started driver=%s interface=%s lcores=%u wait=%s", device, options->interface,
             nic->queues,
             nic->has_interrupt ? "interrupt"
             : nic->can_wait    ? "socket"
                                : "timed");
    *out = nic;
    return 0;
}

int nic_launch(struct nic *nic, uint32_t lcore, int (*fn)(void *arg), void *arg)
{
    return lcore != 0 && lcore < nic->queues ? rte_eal_remote_launch(fn, arg, lcore) : -EINVAL;
}

void nic_join(struct nic *nic)
{
    (void)nic;
    rte_eal_mp_wait_lcore();
}

void nic_destroy(struct nic *nic)
{
    if (nic == NULL) {
        return;
    }
    if (nic->started) {
        rte_eth_dev_stop(nic->port);
        rte_eth_dev_close(nic->port);
    }
    rte_mempool_free(nic->pool);
    free(nic);
    eal_stop();
}

void nic_mac(const struct nic *nic, uint8_t mac[6])
{
    struct rte_ether_addr addr;
    memset(&addr, 0, sizeof(addr));
    rte_eth_macaddr_get(nic->port, &addr);
    memcpy(mac, addr.addr_bytes, sizeof(addr.addr_bytes));
}

uint32_t nic_rx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t max)
{
    struct rte_mbuf *bufs[BURST_MAX];
    uint16_t count = rte_eth_rx_burst(nic->port, (uint16_t)queue, bufs,
                                      (uint16_t)(max < BURST_MAX ? max : BURST_MAX));
    uint32_t kept = 0;
    for (uint16_t i = 0; i < count; i++) {
        /* A chain would be a jumbo frame: not Weft's, and the stages see one piece only. */
        if (bufs[i]->nb_segs != 1) {
            rte_pktmbuf_free(bufs[i]);
            continue;
        }
        packets[kept].frame = rte_pktmbuf_mtod(bufs[i], struct route_frame *);
        packets[kept].buffer = bufs[i];
        packets[kept].len = bufs[i]->data_len;
        kept++;
    }
    return kept;
}

bool nic_alloc(struct nic *nic, struct route_packet *packet)
{
    struct rte_mbuf *buf = rte_pktmbuf_alloc(nic->pool);
    if (buf == NULL) {
        return false;
    }
    packet->frame = rte_pktmbuf_mtod(buf, struct route_frame *);
    packet->buffer = buf;
    packet->len = 0;
    return true;
}

uint32_t nic_tx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t count)
{
    struct rte_mbuf *bufs[2 * BURST_MAX];
    uint16_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rte_mbuf *buf = packets[i].buffer;
        if (packets[i].action == ROUTE_GONE) {
            continue;
        }
        if (packets[i].action != ROUTE_SEND || used == 2 * BURST_MAX) {
            rte_pktmbuf_free(buf);
            continue;
        }
        buf->data_len = (uint16_t)packets[i].len;
        buf->pkt_len = packets[i].len;
        bufs[used++] = buf;
    }
    uint16_t sent = 0;
    for (uint32_t tries = 0; sent < used && tries < TX_TRIES; tries++) {
        sent = (uint16_t)(sent + rte_eth_tx_burst(nic->port, (uint16_t)queue, bufs + sent,
                                                  (uint16_t)(used - sent)));
    }
    for (uint16_t i = sent; i < used; i++) {
        rte_pktmbuf_free(bufs[i]);
    }
    return (uint32_t)(used - sent);
}

uint32_t nic_buffers_in_use(const struct nic *nic)
{
    return rte_mempool_in_use_count(nic->pool);
}

int nic_watch(struct nic *nic, uint32_t queue, int epoll_fd)
{
    if (!nic->can_wait) {
        return -ENOTSUP;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = nic->wait_fds[queue]};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, nic->wait_fds[queue], &event) != 0 ? -errno : 0;
}

void nic_sleep_begin(struct nic *nic, uint32_t queue)
{
    if (nic->has_interrupt) {
        rte_eth_dev_rx_intr_enable(nic->port, (uint16_t)queue);
    } else if (nic->can_wait) {
        /* A link that went down left an error, which would wake at once, until somebody asks. */
        int error;
        socklen_t size = sizeof(error);
        getsockopt(nic->wait_fds[queue], SOL_SOCKET, SO_ERROR, &error, &size);
    }
}

void nic_sleep_end(struct nic *nic, uint32_t queue)
{
    if (nic->has_interrupt) {
        rte_eth_dev_rx_intr_disable(nic->port, (uint16_t)queue);
    }
}
