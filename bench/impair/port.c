/* SPDX-License-Identifier: Apache-2.0 */
/* port.c - see port.h and packet(7). */
#include "bench/impair/port.h"

#include "bench/impair/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define RECEIVE_BYTES (8 << 20)
/* Headers and tags beyond the MTU; also keeps the frames aligned. */
#define ROOM_TAG 8u
#define MACS     (2u * IMPAIR_MAC_BYTES)

int impair_burst_init(struct impair_burst *burst, uint32_t frame_max)
{
    size_t each = ROOM_TAG + (size_t)frame_max;
    *burst = (struct impair_burst){.frame_max = frame_max};
    burst->memory = malloc(each * IMPAIR_BURST);
    return burst->memory != NULL ? 0 : -ENOMEM;
}

void impair_burst_deinit(struct impair_burst *burst)
{
    free(burst->memory);
    *burst = (struct impair_burst){0};
}

static int configure(struct impair_port *port)
{
    int on = 1, bytes = RECEIVE_BYTES;
    struct packet_mreq all = {.mr_ifindex = port->ifindex, .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(port->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0 ||
        setsockopt(port->fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) != 0 ||
        setsockopt(port->fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) != 0 ||
        setsockopt(port->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) != 0 ||
        setsockopt(port->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) != 0) {
        return -errno;
    }
    /* A longer queue is welcome, not needed. */
    (void)setsockopt(port->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    return 0;
}

static int open_on(struct impair_port *port, const char *interface)
{
    struct ifreq request = {0};
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    if (strlen(interface) >= sizeof(request.ifr_name)) {
        return -ENODEV;
    }
    memcpy(request.ifr_name, interface, strlen(interface));
    if (ioctl(port->fd, SIOCGIFINDEX, &request) != 0) {
        return -errno;
    }
    port->ifindex = request.ifr_ifindex;
    if (ioctl(port->fd, SIOCGIFMTU, &request) != 0) {
        return -errno;
    }
    port->mtu = (uint32_t)request.ifr_mtu;
    address.sll_ifindex = port->ifindex;
    int rc = configure(port);
    if (rc == 0 && bind(port->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        rc = -errno;
    }
    return rc;
}

int impair_port_open(struct impair_port *port, const char *interface)
{
    *port = (struct impair_port){.fd = -1};
    /* Protocol 0: nothing of other interfaces comes in before bind names this one. */
    port->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = port->fd >= 0 ? open_on(port, interface) : -errno;
    if (rc != 0) {
        impair_port_close(port);
    }
    return rc;
}

void impair_port_close(struct impair_port *port)
{
    if (port->fd >= 0) {
        close(port->fd);
    }
    port->fd = -1;
}

/* The tag that the kernel took out of the frame, as TPID and TCI; 0 if there was none. */
static uint32_t taken_tag(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        struct tpacket_auxdata aux;
        if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA ||
            c->cmsg_len < CMSG_LEN(sizeof(aux))) {
            continue;
        }
        memcpy(&aux, CMSG_DATA(c), sizeof(aux));
        if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) {
            return 0;
        }
        bool known = (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
        return (uint32_t)(known ? aux.tp_vlan_tpid : ETH_P_8021Q) << 16 | aux.tp_vlan_tci;
    }
    return 0;
}

/* Makes the frame what it would be on a cable. False if it is not one frame. */
static bool make_whole(struct impair_port *port, const struct virtio_net_hdr *header,
                       struct msghdr *message, uint8_t **frame, uint32_t *size, uint32_t max)
{
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        port->counters.merged++;
        return false;
    }
    if ((message->msg_flags & MSG_TRUNC) != 0 || *size < IMPAIR_ETHER_BYTES) {
        port->counters.truncated++;
        return false;
    }
    if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 &&
        impair_frame_finish(*frame, *size, header->csum_start, header->csum_offset) == 0) {
        port->counters.finished++;
    }
    uint32_t tag = taken_tag(message);
    if (tag != 0) {
        if (*size + IMPAIR_TAG_BYTES > max) {
            port->counters.truncated++;
            return false;
        }
        uint32_t wire = htonl(tag);
        memmove(*frame - IMPAIR_TAG_BYTES, *frame, MACS);
        memcpy(*frame - IMPAIR_TAG_BYTES + MACS, &wire, sizeof(wire));
        *frame -= IMPAIR_TAG_BYTES;
        *size += IMPAIR_TAG_BYTES;
    }
    return true;
}

void impair_port_receive(struct impair_port *port, struct impair_burst *burst)
{
    struct mmsghdr messages[IMPAIR_BURST];
    struct iovec parts[IMPAIR_BURST][2];
    struct virtio_net_hdr headers[IMPAIR_BURST];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
    } controls[IMPAIR_BURST];
    size_t each = ROOM_TAG + (size_t)burst->frame_max;
    for (uint32_t i = 0; i < IMPAIR_BURST; i++) {
        parts[i][0] = (struct iovec){&headers[i], sizeof(headers[i])};
        parts[i][1] = (struct iovec){burst->memory + i * each + ROOM_TAG, burst->frame_max};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = parts[i],
                                                   .msg_iovlen = 2,
                                                   .msg_control = &controls[i],
                                                   .msg_controllen = sizeof(controls[i])}};
    }
    burst->count = 0;
    int n = recvmmsg(port->fd, messages, IMPAIR_BURST, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        uint8_t *frame = parts[i][1].iov_base;
        uint32_t size = messages[i].msg_len;
        size = size > sizeof(headers[i]) ? size - (uint32_t)sizeof(headers[i]) : 0;
        port->counters.received++;
        if (make_whole(port, &headers[i], &messages[i].msg_hdr, &frame, &size, burst->frame_max)) {
            burst->frames[burst->count] = frame;
            burst->sizes[burst->count++] = size;
        }
    }
}

void impair_port_send(struct impair_port *port, const uint8_t *frame, uint32_t size)
{
    struct virtio_net_hdr header = {0};
    union {
        const uint8_t *from;
        void *base; /* sendmsg only reads */
    } bytes = {frame};
    struct iovec parts[2] = {{&header, sizeof(header)}, {bytes.base, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (sendmsg(port->fd, &message, MSG_DONTWAIT) < 0) {
        port->counters.send_failed++;
    } else {
        port->counters.sent++;
    }
}

void impair_port_overrun(struct impair_port *port)
{
    struct tpacket_stats stats;
    socklen_t size = sizeof(stats);
    /* Reading them sets them to zero. */
    if (getsockopt(port->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0) {
        port->counters.overrun += stats.tp_drops;
    }
}
