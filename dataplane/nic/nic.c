/* SPDX-License-Identifier: Apache-2.0 */
/* nic.c - see nic.h. The DPDK port: buffers, bursts, sleeping. */
#include "dataplane/nic/nic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "dataplane/nic/driver.h"
#include "dataplane/nic/eal.h"
#include "dataplane/nic/exception.h"
#include "dataplane/nic/frame.h"
#include "dataplane/nic/link.h"
#include "dataplane/nic/pool.h"
#include "dataplane/nic/steer.h"
#include "schemas/base/log.h"

#define BUFFERS        4095u
#define RX_DESCRIPTORS 512u
#define TX_DESCRIPTORS 512u
#define TX_TRIES       3u
#define BURST_MAX      64u

struct nic {
    struct driver driver;
    struct steer steer;
    struct exception *exception; /* NULL: the kernel has its frames already */
    struct link link;
    char steering[2 * STEER_TEXT_BYTES];
    uint16_t port;
    uint16_t data_port_be;
    bool started;
    bool has_interrupt;
    struct rte_mempool *pool;
    uint32_t resting; /* buffers that the driver took when it started */
    _Atomic uint64_t chained;
    _Atomic uint64_t summed;
    _Atomic uint64_t no_buffer; /* times that one was wanted */
    bool sums;                  /* the port ends UDP checksums */
    bool rx_sums;               /* the port looks at those that come in */
    uint32_t queues;
    int wait_fds[NIC_LCORES_MAX]; /* of queue i: readable when packets wait; the driver's own */
    bool can_wait;
};

/* What each queue can be waited for on: the driver's socket, or a receive interrupt. */
static void find_wait_fds(struct nic *nic)
{
    if (nic->driver.kind == NIC_NONE) {
        nic->can_wait = true; /* nothing will ever come */
        return;
    }
    uint32_t found = driver_sockets(&nic->driver, nic->wait_fds, NIC_LCORES_MAX);
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

/* Leaves UDP checksums of own datagrams to the port where it offers that. Relayed ones have theirs,
 * updated, so that damage stays visible. What comes in it may check, too; what it has found out is
 * said with each frame (sums_of()). */
static void ask_for_sums(struct nic *nic, struct rte_eth_conf *conf)
{
    const uint64_t checks = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
    struct rte_eth_dev_info info;
    if (!nic->driver.whole || rte_eth_dev_info_get(nic->port, &info) != 0) {
        return;
    }
    nic->sums = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0;
    nic->rx_sums = (info.rx_offload_capa & checks) == checks;
    conf->txmode.offloads |= nic->sums ? RTE_ETH_TX_OFFLOAD_UDP_CKSUM : 0;
    conf->rxmode.offloads |= info.rx_offload_capa & checks;
}

static int port_configure(struct nic *nic)
{
    struct rte_eth_conf conf = {.intr_conf.rxq = 1};
    uint16_t queues = (uint16_t)nic->queues;
    uint16_t rx = RX_DESCRIPTORS;
    uint16_t tx = TX_DESCRIPTORS;
    ask_for_rss(nic, &conf);
    ask_for_sums(nic, &conf);
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

static int make_pool(struct nic *nic, const struct nic_options *options)
{
    uint32_t buffers = BUFFERS + nic->queues * driver_buffers(nic->driver.kind);
    nic->pool = packet_pool_create("weft", buffers, nic->driver.family != 0);
    if (nic->pool == NULL) {
        LOG_ERROR("no memory for %u packet buffers in %u MiB: raise nic.memory_mib", buffers,
                  options->memory_mib);
        return -ENOMEM;
    }
    return 0;
}

/* Rules if the port takes them; else it receives all. Returns 0, or -errno if it can do neither. */
static int part_frames(struct nic *nic, const struct nic_options *options)
{
    struct steer *steer = &nic->steer;
    int rc = 0;
    if (steer_start(steer, options->data_port, nic->queues) != 0 && steer->isolated) {
        rte_eth_dev_stop(nic->port);
        rc = steer_give_up(steer);
        rc = rc != 0 ? rc : rte_eth_dev_start(nic->port);
    }
    if (rc == 0) {
        snprintf(nic->steering, sizeof(nic->steering), "%s%s%s%s%s",
                 steer->count != 0 ? "rules of the port" : "software",
                 steer->isolated ? ", the kernel keeps the rest" : ": other frames go to ",
                 steer->isolated ? "" : options->interface, steer->count == 0 ? "; " : "",
                 steer->refused);
    }
    return rc;
}

/* Of a NIC taken whole: what is not Weft's has to reach the kernel another way. */
static int serve_kernel(struct nic *nic, const struct nic_options *options)
{
    struct exception_options exception = {
        .tap = options->interface,
        .pool = nic->pool,
        .mtu = nic->driver.mtu,
    };
    nic_mac(nic, exception.mac);
    return exception_create(&nic->exception, &exception);
}

static int check_port_mtu(struct nic *nic)
{
    uint16_t mtu = 0;
    int rc = rte_eth_dev_get_mtu(nic->port, &mtu);
    nic->driver.mtu = mtu;
    if (rc == 0 && mtu < DRIVER_MTU_MIN) {
        LOG_ERROR("the MTU of %s is %u, Weft's largest datagram needs %u", nic->driver.port, mtu,
                  DRIVER_MTU_MIN);
        rc = -EMSGSIZE;
    }
    return rc;
}

static int port_start(struct nic *nic, const struct nic_options *options)
{
    int rc = rte_eth_dev_get_port_by_name(nic->driver.port, &nic->port);
    rc = rc != 0 ? rc : make_pool(nic, options);
    if (rc == 0 && nic->driver.whole) {
        steer_prepare(&nic->steer, nic->port);
    }
    rc = rc != 0 ? rc : port_configure(nic);
    if (rc == 0 && nic->driver.whole) {
        rc = check_port_mtu(nic);
        rc = rc != 0 ? rc : part_frames(nic, options);
        rc = rc != 0 || nic->steer.isolated ? rc : serve_kernel(nic, options);
    }
    if (rc == 0) {
        uint8_t mac[6];
        nic_mac(nic, mac);
        link_start(&nic->link, nic->port, nic->exception, nic->driver.mtu, DRIVER_MTU_MIN, mac);
    }
    nic->resting = nic->pool != NULL ? rte_mempool_in_use_count(nic->pool) : 0;
    return rc;
}

int nic_create(struct nic **out, const struct nic_options *options)
{
    *out = NULL;
    struct nic *nic = calloc(1, sizeof(*nic));
    if (nic == NULL) {
        return -ENOMEM;
    }
    nic->queues = options->lcores;
    nic->data_port_be = htons(options->data_port);
    int rc = driver_prepare(&nic->driver, options);
    rc = rc != 0 ? rc : eal_start(options, nic->driver.device, nic->driver.pci);
    if (rc != 0) {
        driver_stopped(&nic->driver);
        free(nic);
        return rc;
    }
    rc = port_start(nic, options);
    if (rc != 0) {
        LOG_ERROR("cannot start driver %s on %s with %u queues: %s", driver_name(options->driver),
                  options->interface, nic->queues, strerror(-rc));
        nic_destroy(nic);
        return rc;
    }
    driver_started(&nic->driver);
    find_wait_fds(nic);
    struct nic_facts facts = nic_facts(nic);
    LOG_INFO("port started driver=%s interface=%s mtu=%u lcores=%u wait=\"%s\" steering=\"%s\" "
             "sums=%s checks=%s",
             facts.driver, options->interface, facts.mtu, nic->queues, facts.wait, facts.steering,
             facts.sums, facts.checks);
    *out = nic;
    return 0;
}

struct nic_facts nic_facts(const struct nic *nic)
{
    struct nic_facts facts = {
        .driver = driver_name(nic->driver.kind),
        .wait = nic->has_interrupt             ? "interrupt"
                : nic->driver.kind == NIC_NONE ? "nothing"
                : nic->can_wait                ? "socket"
                                               : "timer",
        .steering = nic->driver.whole ? nic->steering : driver_steering(nic->driver.kind),
        .mtu = nic->link.mtu,
        .carrier = nic->link.carrier,
        .sums = nic->sums ? "port" : "software",
        .checks = nic->rx_sums ? "port" : "software",
        .summed = atomic_load_explicit(&nic->summed, memory_order_relaxed),
        .chained = atomic_load_explicit(&nic->chained, memory_order_relaxed),
        .whole = nic->exception != NULL,
    };
    if (nic->exception != NULL) {
        struct exception_counts counts = exception_counts(nic->exception);
        facts.to_kernel = counts.to_kernel;
        facts.from_kernel = counts.from_kernel;
        facts.lost = counts.lost;
    }
    return facts;
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
    exception_destroy(nic->exception);
    if (nic->started) {
        steer_stop(&nic->steer);
        rte_eth_dev_stop(nic->port);
        rte_eth_dev_close(nic->port);
    }
    driver_stopped(&nic->driver);
    packet_pool_destroy(nic->pool);
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

void nic_follow(struct nic *nic, const struct kernel_link *wish)
{
    link_follow(&nic->link, wish);
}

void nic_look(struct nic *nic)
{
    link_look(&nic->link);
}

bool nic_sums(const struct nic *nic)
{
    return nic->sums;
}

/* Where the headers are that the port needs to know, and that a sum is missing. */
static void leave_sum(const struct route_packet *p, struct rte_mbuf *buf)
{
    bool six = packet_is_ip6(p);
    uint32_t ip_offset = six ? ROUTE_IPV6_OFFSET : ROUTE_IPV4_OFFSET;
    buf->l2_len = (ip_offset - p->start) & 0x7fu; /* 7 bits */
    buf->l3_len = six ? sizeof(struct route_ipv6) : sizeof(struct route_ipv4);
    buf->ol_flags = RTE_MBUF_F_TX_UDP_CKSUM | (six ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
}

/* Returns how many were sent; the others are freed. */
static uint16_t send_all(struct nic *nic, uint16_t queue, struct rte_mbuf **bufs, uint16_t count)
{
    uint16_t sent = 0;
    for (uint32_t tries = 0; sent < count && tries < TX_TRIES; tries++) {
        sent = (uint16_t)(sent + rte_eth_tx_burst(nic->port, queue, bufs + sent,
                                                  (uint16_t)(count - sent)));
    }
    for (uint16_t i = sent; i < count; i++) {
        rte_pktmbuf_free(bufs[i]);
    }
    return sent;
}

/* Lcore 0 does it for the kernel. */
static void send_for_kernel(struct nic *nic)
{
    struct rte_mbuf *bufs[BURST_MAX];
    uint16_t count = (uint16_t)exception_take(nic->exception, bufs, BURST_MAX);
    uint16_t sent = count != 0 ? send_all(nic, 0, bufs, count) : 0;
    if (sent != count) {
        exception_lost(nic->exception, (uint32_t)(count - sent));
    }
}

/* Keeps the data port's frames and gives the kernel the others. Returns how many are left. */
static uint16_t part_burst(struct nic *nic, struct rte_mbuf **bufs, uint16_t count)
{
    struct rte_mbuf *others[BURST_MAX];
    uint16_t kept = 0;
    uint32_t other = 0;
    for (uint16_t i = 0; i < count; i++) {
        if (frame_is_ours(rte_pktmbuf_mtod(bufs[i], uint8_t *), bufs[i]->data_len,
                          nic->data_port_be)) {
            bufs[kept++] = bufs[i];
        } else {
            others[other++] = bufs[i];
        }
    }
    if (other != 0) {
        exception_give(nic->exception, others, other);
    }
    return kept;
}

/* A chain is a frame larger than a buffer: neither Weft's nor within the MTU. */
static uint16_t drop_chains(struct nic *nic, struct rte_mbuf **bufs, uint16_t count)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < count; i++) {
        if (bufs[i]->nb_segs == 1) {
            bufs[kept++] = bufs[i];
        } else {
            rte_pktmbuf_free(bufs[i]);
            atomic_fetch_add_explicit(&nic->chained, 1, memory_order_relaxed);
        }
    }
    return kept;
}

/* A port that has not looked, or was not asked, says nothing: all flags are 0. */
static inline uint8_t sums_of(const struct rte_mbuf *buf)
{
    uint64_t ip = buf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
    uint64_t udp = buf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    return (uint8_t)((ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD ? ROUTE_SUMS_IP_GOOD : 0) |
                     (udp == RTE_MBUF_F_RX_L4_CKSUM_GOOD ? ROUTE_SUMS_UDP_GOOD : 0) |
                     (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD || udp == RTE_MBUF_F_RX_L4_CKSUM_BAD
                          ? ROUTE_SUMS_BAD
                          : 0));
}

/* The datagram is whole, its checksum was never ended: from another machine's guest (virtio). */
static inline bool is_unended(const struct rte_mbuf *buf)
{
    return (buf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE;
}

uint32_t nic_rx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t max)
{
    struct rte_mbuf *bufs[BURST_MAX];
    if (nic->exception != NULL && queue == 0) {
        send_for_kernel(nic);
    }
    uint16_t count = rte_eth_rx_burst(nic->port, (uint16_t)queue, bufs,
                                      (uint16_t)(max < BURST_MAX ? max : BURST_MAX));
    count = drop_chains(nic, bufs, count);
    if (nic->exception != NULL && count != 0) {
        count = part_burst(nic, bufs, count);
    }
    for (uint16_t i = 0; i < count; i++) {
        uint8_t *frame = rte_pktmbuf_mtod(bufs[i], uint8_t *);
        if (nic->driver.partial_sums || is_unended(bufs[i])) {
            frame_finish_sum(frame, bufs[i]->data_len, nic->data_port_be);
        }
        packet_attach(&packets[i], frame, bufs[i]->data_len);
        packets[i].sums = sums_of(bufs[i]);
        packets[i].buffer = bufs[i];
    }
    return count;
}

bool nic_alloc(struct nic *nic, struct route_packet *packet)
{
    struct rte_mbuf *buf = rte_pktmbuf_alloc(nic->pool);
    if (buf == NULL) {
        atomic_fetch_add_explicit(&nic->no_buffer, 1, memory_order_relaxed);
        return false;
    }
    packet_attach(packet, rte_pktmbuf_mtod(buf, void *), 0);
    packet->buffer = buf;
    return true;
}

uint32_t nic_tx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t count)
{
    struct rte_mbuf *bufs[2 * BURST_MAX];
    uint16_t used = 0;
    uint32_t summed = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rte_mbuf *buf = packets[i].buffer;
        if (packets[i].action == ROUTE_GONE) {
            continue;
        }
        if (packets[i].action != ROUTE_SEND || used == 2 * BURST_MAX) {
            rte_pktmbuf_free(buf);
            continue;
        }
        buf->data_off = (uint16_t)((char *)packet_ether(&packets[i]) - (char *)buf->buf_addr);
        buf->data_len = (uint16_t)packets[i].len;
        buf->pkt_len = packets[i].len;
        buf->ol_flags = 0;
        if (nic->sums && packets[i].own) {
            leave_sum(&packets[i], buf);
            summed++;
        }
        bufs[used++] = buf;
    }
    if (summed != 0) {
        atomic_fetch_add_explicit(&nic->summed, summed, memory_order_relaxed);
    }
    return (uint32_t)(used - send_all(nic, (uint16_t)queue, bufs, used));
}

struct nic_losses nic_losses(const struct nic *nic)
{
    struct nic_losses losses = {
        .no_buffer = atomic_load_explicit(&nic->no_buffer, memory_order_relaxed),
    };
    struct rte_eth_stats stats;
    if (rte_eth_stats_get(nic->port, &stats) == 0) {
        losses.no_buffer += stats.rx_nombuf;
        losses.missed = stats.imissed;
    }
    return losses;
}

uint32_t nic_buffers_in_use(const struct nic *nic)
{
    uint32_t used = rte_mempool_in_use_count(nic->pool);
    return used > nic->resting ? used - nic->resting : 0;
}

static int watch_fd(int epoll_fd, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0 ? -errno : 0;
}

int nic_watch(struct nic *nic, uint32_t queue, int epoll_fd)
{
    if (nic->exception != NULL && queue == 0) {
        int rc = watch_fd(epoll_fd, exception_fd(nic->exception), EPOLLIN | EPOLLET);
        if (rc != 0) {
            return rc;
        }
    }
    if (nic->driver.kind == NIC_NONE) {
        return 0;
    }
    return nic->can_wait ? watch_fd(epoll_fd, nic->wait_fds[queue], EPOLLIN) : -ENOTSUP;
}

/* Nothing came: because there is no buffer for it? Not every driver counts that. */
static void note_exhaustion(struct nic *nic)
{
    struct rte_mbuf *buf = rte_pktmbuf_alloc(nic->pool);
    if (buf == NULL) {
        atomic_fetch_add_explicit(&nic->no_buffer, 1, memory_order_relaxed);
    }
    rte_pktmbuf_free(buf);
}

void nic_sleep_begin(struct nic *nic, uint32_t queue)
{
    note_exhaustion(nic);
    if (nic->has_interrupt) {
        rte_eth_dev_rx_intr_enable(nic->port, (uint16_t)queue);
    } else if (nic->can_wait && nic->driver.kind != NIC_NONE) {
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
