/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_nic_xdp.c - DPDK's AF_XDP driver with our filter on a veth pair whose ends are in two
 * network namespaces: the data port comes to rte_eth_rx_burst(), everything else stays the
 * kernel's. The driver itself is used here, not nic.c. EAL starts once per process and does not
 * survive fork: one binary, CK_FORK=no. Skipped (77) where namespaces or AF_XDP sockets may not be
 * made.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/nic/sockets.h"
#include "dataplane/nic/xdp.h"
#include "tests/unit/suite.h"

#define SKIPPED     77
#define PORT_DATA   7400
#define PORT_BEACON 7401
#define PORT_PEER   5555
#define OWN_ADDR    "10.9.0.1"
#define PEER_ADDR   "10.9.0.2"
#define UDP_HEADERS 42u
#define BURST       32u
#define WAIT_MS     2000

/* For the leak checker: the driver never gives back what libbpf and libxdp gave it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libbpf.so\nleak:libxdp.so\n";
}

static pid_t peer_pid; /* holds the other namespace */
static int own_ns_fd, peer_ns_fd;
static int peer_fd;   /* UDP socket there */
static int raw_fd;    /* packet socket there */
static int beacon_fd; /* the kernel's side of our own end */
static int data_fd;   /* the same on the data port: nothing ought to come */
static uint16_t port;
static struct rte_mempool *pool;
static struct xdp xdp;

/* ---- the network ---- */

static int open_ns(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* A process that sleeps in a namespace of its own; dies with this one's pipe. */
static int start_peer(void)
{
    int ready[2], hold[2];
    char byte;
    if (pipe(ready) != 0 || pipe(hold) != 0) {
        return -errno;
    }
    peer_pid = fork();
    if (peer_pid == 0) {
        close(hold[1]);
        byte = unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1) {
            while (read(hold[0], &byte, 1) > 0) {
            }
        }
        _exit(0);
    }
    close(hold[0]);
    return peer_pid > 0 && read(ready[0], &byte, 1) == 1 && byte == 'y' ? 0 : -EPERM;
}

static int run_in_peer(const char *command)
{
    char line[512];
    snprintf(line, sizeof(line), "nsenter -t %d -n sh -c '%s' >/dev/null 2>&1", (int)peer_pid,
             command);
    return system(line);
}

static int udp_socket(const char *addr, uint16_t udp_port)
{
    struct sockaddr_in self = {
        .sin_family = AF_INET,
        .sin_port = htons(udp_port),
        .sin_addr.s_addr = inet_addr(addr),
    };
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return bind(fd, (struct sockaddr *)&self, sizeof(self)) == 0 ? fd : -1;
}

static int make_network(void)
{
    char line[256];
    if (unshare(CLONE_NEWNET) != 0 || start_peer() != 0) {
        return -EPERM;
    }
    own_ns_fd = open_ns(getpid());
    peer_ns_fd = open_ns(peer_pid);
    snprintf(line, sizeof(line),
             "ip link add w0 type veth peer name w1 && ip link set w1 netns %d && "
             "ip addr add " OWN_ADDR "/24 dev w0 && ip link set w0 up",
             (int)peer_pid);
    /* The peer writes whole checksums: the driver's frames have no kernel to complete them. */
    if (system(line) != 0 || run_in_peer("ip addr add " PEER_ADDR "/24 dev w1 && ip link set w1 up "
                                         "&& ethtool -K w1 tx off") != 0) {
        return -EPERM;
    }
    beacon_fd = udp_socket(OWN_ADDR, PORT_BEACON);
    data_fd = udp_socket(OWN_ADDR, PORT_DATA);
    if (setns(peer_ns_fd, CLONE_NEWNET) != 0) {
        return -EPERM;
    }
    peer_fd = udp_socket(PEER_ADDR, PORT_PEER);
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("w1")};
    raw_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (raw_fd < 0 || bind(raw_fd, (struct sockaddr *)&link, sizeof(link)) != 0) {
        return -EPERM;
    }
    int rc = setns(own_ns_fd, CLONE_NEWNET);
    int probe = socket(AF_XDP, SOCK_RAW, 0);
    if (probe >= 0) {
        close(probe);
    }
    return rc == 0 && probe >= 0 && beacon_fd >= 0 && data_fd >= 0 && peer_fd >= 0 ? 0 : -EPERM;
}

static void send_datagram(uint16_t udp_port, const char *text, size_t size)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(udp_port),
        .sin_addr.s_addr = inet_addr(OWN_ADDR),
    };
    ck_assert_int_eq(sendto(peer_fd, text, size, 0, (struct sockaddr *)&to, sizeof(to)),
                     (ssize_t)size);
}

/* ---- the driver ---- */

static int start_port(void)
{
    char device[PATH_MAX + 128], argument[PATH_MAX + 160], prefix[40], lcores[32];
    struct rte_eth_conf conf = {.intr_conf.rxq = 0};
    if (xdp_device(&xdp, 1, device, sizeof(device)) != 0) {
        return -ENAMETOOLONG;
    }
    snprintf(argument, sizeof(argument), "--vdev=%s", device);
    snprintf(lcores, sizeof(lcores), "--lcores=0@%d", sched_getcpu());
    snprintf(prefix, sizeof(prefix), "--file-prefix=weft-xdp-test-%d", (int)getpid());
    char *args[] = {"test",
                    lcores,
                    "--no-pci",
                    "--no-huge",
                    "--no-shconf",
                    "--no-telemetry",
                    "--log-level=*:error",
                    "-m",
                    "64",
                    prefix,
                    argument};
    if (rte_eal_init(sizeof(args) / sizeof(args[0]), args) < 0 ||
        rte_eth_dev_get_port_by_name(XDP_PORT, &port) != 0) {
        return -EIO;
    }
    pool = rte_pktmbuf_pool_create("test", 8191, 64, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (pool == NULL || rte_eth_dev_configure(port, 1, 1, &conf) != 0 ||
        rte_eth_rx_queue_setup(port, 0, 512, (unsigned)SOCKET_ID_ANY, NULL, pool) != 0 ||
        rte_eth_tx_queue_setup(port, 0, 512, (unsigned)SOCKET_ID_ANY, NULL) != 0) {
        return -EIO;
    }
    return rte_eth_dev_start(port);
}

/* The next frame, NULL if none comes within `limit_ms`. */
static struct rte_mbuf *receive(int limit_ms)
{
    struct rte_mbuf *buf;
    for (int ms = 0; ms <= limit_ms; ms++) {
        if (rte_eth_rx_burst(port, 0, &buf, 1) == 1) {
            return buf;
        }
        usleep(1000);
    }
    return NULL;
}

/* ---- cases ---- */

START_TEST(the_kernel_keeps_arp_and_icmp)
{
    ck_assert_int_eq(run_in_peer("ip neigh flush all"), 0);
    ck_assert_int_eq(run_in_peer("ping -c 1 -W 2 " OWN_ADDR), 0);
    ck_assert_ptr_null(receive(20));
}
END_TEST

START_TEST(the_kernel_keeps_other_ports)
{
    char text[64] = "";
    send_datagram(PORT_BEACON, "beacon", 6);
    ck_assert_int_eq(recv(beacon_fd, text, sizeof(text), 0), 6);
    ck_assert_str_eq(text, "beacon");
    ck_assert_ptr_null(receive(20));
}
END_TEST

START_TEST(the_data_port_comes_to_the_driver)
{
    char text[64];
    send_datagram(PORT_DATA, "request", 7);
    struct rte_mbuf *buf = receive(WAIT_MS);
    ck_assert_ptr_nonnull(buf);
    ck_assert_uint_ge(buf->data_len, UDP_HEADERS + 7);
    ck_assert_mem_eq(rte_pktmbuf_mtod_offset(buf, char *, UDP_HEADERS), "request", 7);
    rte_pktmbuf_free(buf);
    ck_assert_int_eq(recv(data_fd, text, sizeof(text), MSG_DONTWAIT), -1);
}
END_TEST

/* A fragment has no ports behind its first piece: the kernel puts it together. */
START_TEST(fragments_stay_with_the_kernel)
{
    static char big[3000];
    memset(big, 'f', sizeof(big));
    send_datagram(PORT_DATA, big, sizeof(big));
    ck_assert_int_eq(recv(data_fd, big, sizeof(big), 0), (ssize_t)sizeof(big));
    ck_assert_ptr_null(receive(20));
}
END_TEST

/* IPv6 and tagged frames, cut where the filter looks: only whole headers of UDP to the data port
 * are taken. */
START_TEST(both_families_and_tags)
{
    static const struct {
        uint8_t ether[6]; /* the last bytes before the network header */
        uint32_t ether_bytes;
        uint32_t network_bytes;
        uint8_t first;
        uint32_t protocol_at;
    } kinds[] = {
        {{0x08, 0x00}, 2, 20, 0x45, 9},
        {{0x86, 0xdd}, 2, 40, 0x60, 6},
        {{0x81, 0x00, 0x00, 0x07, 0x08, 0x00}, 6, 20, 0x45, 9},
        {{0x81, 0x00, 0x00, 0x07, 0x86, 0xdd}, 6, 40, 0x60, 6},
    };
    for (size_t i = 0; i < 3 * sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t kind = i / 3, fault = i % 3; /* none, another protocol, another port */
        uint8_t frame[128] = {0x02};
        uint32_t ip_at = 12 + kinds[kind].ether_bytes, udp_at = ip_at + kinds[kind].network_bytes;
        memcpy(frame + 12, kinds[kind].ether, kinds[kind].ether_bytes);
        frame[ip_at] = kinds[kind].first;
        frame[ip_at + kinds[kind].protocol_at] = fault == 1 ? 6 : 17;
        frame[udp_at + 2] = PORT_DATA >> 8;
        frame[udp_at + 3] = fault == 2 ? (PORT_DATA & 0xff) + 1 : PORT_DATA & 0xff;
        frame[udp_at + 8] = (uint8_t)i;
        ck_assert_int_eq(send(raw_fd, frame, sizeof(frame), 0), sizeof(frame));
        struct rte_mbuf *buf = receive(fault == 0 ? WAIT_MS : 20);
        ck_assert_msg((buf != NULL) == (fault == 0), "kind %zu, fault %zu", kind, fault);
        if (buf != NULL) {
            ck_assert_mem_eq(rte_pktmbuf_mtod(buf, uint8_t *), frame, sizeof(frame));
            rte_pktmbuf_free(buf);
        }
        ck_assert_int_eq(send(raw_fd, frame, udp_at + 7, 0), (ssize_t)udp_at + 7);
        ck_assert_ptr_null(receive(5));
    }
}
END_TEST

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
    uint8_t was[8];
    memcpy(was, a, size);
    memcpy(a, b, size);
    memcpy(b, was, size);
}

/* Sent back with both ends swapped; sums stay right. */
START_TEST(frames_are_sent)
{
    char text[64] = "";
    send_datagram(PORT_DATA, "there and back", 14);
    struct rte_mbuf *buf = receive(WAIT_MS);
    ck_assert_ptr_nonnull(buf);
    uint8_t *frame = rte_pktmbuf_mtod(buf, uint8_t *);
    swap(frame, frame + 6, 6);
    swap(frame + 26, frame + 30, 4);
    swap(frame + 34, frame + 36, 2);
    ck_assert_uint_eq(rte_eth_tx_burst(port, 0, &buf, 1), 1);
    ck_assert_int_eq(recv(peer_fd, text, sizeof(text), 0), 14);
    ck_assert_str_eq(text, "there and back");
}
END_TEST

START_TEST(a_frame_ends_the_sleep)
{
    int fds[4];
    struct epoll_event event = {.events = EPOLLIN};
    ck_assert_uint_eq(sockets_find(AF_XDP, fds, 4), 1);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[0], &event), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_null(receive(0));
        ck_assert_int_eq(epoll_wait(epoll_fd, &event, 1, 0), 0);
        send_datagram(PORT_DATA, "wake", 4);
        ck_assert_int_eq(epoll_wait(epoll_fd, &event, 1, WAIT_MS), 1);
        struct rte_mbuf *buf = receive(0);
        ck_assert_ptr_nonnull(buf);
        rte_pktmbuf_free(buf);
    }
    close(epoll_fd);
}
END_TEST

START_TEST(more_than_the_rings_hold)
{
    char text[16];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 200; i++) {
            snprintf(text, sizeof(text), "%d %d", round, i);
            send_datagram(PORT_DATA, text, strlen(text));
        }
        for (int i = 0; i < 200; i++) {
            struct rte_mbuf *buf = receive(WAIT_MS);
            ck_assert_ptr_nonnull(buf);
            snprintf(text, sizeof(text), "%d %d", round, i);
            ck_assert_mem_eq(rte_pktmbuf_mtod_offset(buf, char *, UDP_HEADERS), text, strlen(text));
            rte_pktmbuf_free(buf);
        }
    }
}
END_TEST

/* ---- before the port starts, and after it has stopped ---- */

static uint32_t attached_id(void)
{
    uint32_t id = 0;
    ck_assert_int_eq(bpf_xdp_query_id((int)if_nametoindex("w0"), 0, &id), 0);
    return id;
}

/* As if a process had died with its program attached. */
static void leave_filter(const char *object)
{
    struct bpf_object *o = bpf_object__open_file(object, NULL);
    ck_assert_ptr_nonnull(o);
    ck_assert_int_eq(bpf_object__load(o), 0);
    int fd = bpf_program__fd(bpf_object__next_program(o, NULL));
    ck_assert_int_eq(bpf_xdp_attach((int)if_nametoindex("w0"), fd, 0, NULL), 0);
    bpf_object__close(o);
}

static void attach_stranger(void)
{
    struct bpf_insn pass[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_EXIT},
    };
    int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "stranger", "Apache-2.0", pass, 2, NULL);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bpf_xdp_attach((int)if_nametoindex("w0"), fd, 0, NULL), 0);
    close(fd);
}

START_TEST(what_a_crash_left_is_taken_away)
{
    struct xdp first, second;
    ck_assert_int_eq(xdp_prepare(&first, "/tmp", "w0", PORT_DATA), 0);
    leave_filter(first.object);
    ck_assert_uint_ne(attached_id(), 0);
    ck_assert_int_eq(xdp_prepare(&second, "/tmp", "w0", PORT_DATA), 0);
    ck_assert_uint_eq(attached_id(), 0);
    leave_filter(second.object);
    xdp_stopped(&second);
    ck_assert_uint_eq(attached_id(), 0);
    ck_assert_str_eq(second.object, "");
    ck_assert_int_eq(access(first.object, F_OK), 0);
    xdp_stopped(&first);
}
END_TEST

START_TEST(what_others_attached_stays)
{
    struct xdp one;
    attach_stranger();
    uint32_t id = attached_id();
    ck_assert_int_eq(xdp_prepare(&one, "/tmp", "w0", PORT_DATA), -EBUSY);
    xdp_stopped(&one);
    ck_assert_uint_eq(attached_id(), id);
    ck_assert_int_eq(bpf_xdp_detach((int)if_nametoindex("w0"), 0, NULL), 0);
}
END_TEST

START_TEST(bad_arguments_are_told)
{
    char small[8];
    struct xdp one;
    ck_assert_int_eq(xdp_prepare(&one, "/tmp", "nosuch", PORT_DATA), -ENODEV);
    xdp_stopped(&one);
    ck_assert_int_eq(xdp_prepare(&one, "/nonexistent", "w0", PORT_DATA), -ENOENT);
    xdp_stopped(&one);
    ck_assert_int_eq(xdp_device(&one, 1, small, sizeof(small)), -ENAMETOOLONG);
    ck_assert_uint_eq(xdp_queues("w0"), 1);
    ck_assert_uint_eq(xdp_queues("nosuch"), 1);
}
END_TEST

START_TEST(the_driver_loads_the_filter)
{
    ck_assert_int_eq(xdp_prepare(&xdp, "/tmp", "w0", PORT_DATA), 0);
    char object[PATH_MAX];
    memcpy(object, xdp.object, sizeof(object));
    ck_assert_int_eq(start_port(), 0);
    xdp_started(&xdp);
    ck_assert_int_eq(access(object, F_OK), -1);
    ck_assert_uint_ne(attached_id(), 0);
}
END_TEST

START_TEST(nothing_stays_behind)
{
    rte_eth_dev_stop(port);
    rte_eth_dev_close(port);
    xdp_stopped(&xdp);
    ck_assert_uint_eq(attached_id(), 0);
    char folder[PATH_MAX];
    snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
    rte_eal_cleanup();
    rmdir(folder);
}
END_TEST

int main(void)
{
    if (make_network() != 0) {
        fputs("skipped: needs root, iproute2, nsenter, ethtool and AF_XDP sockets\n", stderr);
        return SKIPPED;
    }
    Suite *suite = suite_create("nic_xdp");
    TCase *tc = tcase_create("nic_xdp");
    tcase_add_test(tc, bad_arguments_are_told);
    tcase_add_test(tc, what_a_crash_left_is_taken_away);
    tcase_add_test(tc, what_others_attached_stays);
    tcase_add_test(tc, the_driver_loads_the_filter);
    tcase_add_test(tc, the_kernel_keeps_arp_and_icmp);
    tcase_add_test(tc, the_kernel_keeps_other_ports);
    tcase_add_test(tc, the_data_port_comes_to_the_driver);
    tcase_add_test(tc, fragments_stay_with_the_kernel);
    tcase_add_test(tc, both_families_and_tags);
    tcase_add_test(tc, frames_are_sent);
    tcase_add_test(tc, a_frame_ends_the_sleep);
    tcase_add_test(tc, more_than_the_rings_hold);
    tcase_add_test(tc, nothing_stays_behind);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    kill(peer_pid, SIGKILL);
    waitpid(peer_pid, NULL, 0);
    return status;
}
