/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packet.h - a frame and what the stages have found out about it. Ethernet, at most one 802.1Q tag,
 * IPv4 (no options) or IPv6 (no extension headers), UDP. A frame is looked at through a view in
 * which the Weft datagram always begins at ROUTE_WEFT_OFFSET: the headers end there and begin
 * wherever their length puts them (`start`). A frame that changes its family grows or shrinks at
 * its head, into the room in front of it, and its payload never moves.
 * UDP checksums are updated for the bytes changed (RFC 1624), never recomputed over a payload that
 * this node did not write: damage on any hop stays visible to the receiver.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/addr.h"
#include "schemas/drops.def"

#define ROUTE_DROP_ENUM_(name, text) ROUTE_DROP_##name,
enum route_drop { WEFT_DROPS(ROUTE_DROP_ENUM_) ROUTE_DROP_COUNT };

/* Name and text of a drop reason; "?" outside the table. */
const char *route_drop_name(unsigned drop);
const char *route_drop_text(unsigned drop);

#define ROUTE_ETHER_TYPE_IPV4 0x0800u
#define ROUTE_ETHER_TYPE_IPV6 0x86ddu
#define ROUTE_ETHER_TYPE_VLAN 0x8100u
#define ROUTE_VLAN_ID         0x0fffu /* of a tag: the rest is priority */
#define ROUTE_IP_PROTOCOL_UDP 17u
#define ROUTE_IP_TTL          64u

/* All header fields are big-endian. */
struct WEFT_PACKED route_ether {
    uint8_t dst[6];
    uint8_t src[6];
    uint16_t type;
};

/* Between the addresses and the type of a tagged frame. */
struct WEFT_PACKED route_vlan {
    uint16_t type; /* ROUTE_ETHER_TYPE_VLAN */
    uint16_t tci;
};

struct WEFT_PACKED route_ipv4 {
    uint8_t version_ihl;
    uint8_t tos;
    uint16_t total_len;
    uint16_t id;
    uint16_t fragment;
    uint8_t ttl;
    uint8_t protocol;
    uint16_t checksum;
    uint32_t src;
    uint32_t dst;
};

struct WEFT_PACKED route_ipv6 {
    uint32_t version_class_flow;
    uint16_t payload_len;
    uint8_t next_header;
    uint8_t hop_limit;
    struct in6_addr src;
    struct in6_addr dst;
};

struct WEFT_PACKED route_udp {
    uint16_t src_port;
    uint16_t dst_port;
    uint16_t len;
    uint16_t checksum; /* 0 = none, over IPv4 only */
};

/* Where things are in the view, from its first byte. */
#define ROUTE_WEFT_OFFSET 66u
#define ROUTE_IPV4_OFFSET 38u
#define ROUTE_IPV6_OFFSET 18u
/* `start` of an untagged frame; a tag puts it 4 lower. */
#define ROUTE_START_IPV4 24u
#define ROUTE_START_IPV6 4u

/* The view. Bytes before `start` are the room in front, not the frame's. */
struct WEFT_PACKED route_frame {
    union {
        struct WEFT_PACKED {
            uint8_t before_ip[ROUTE_IPV4_OFFSET];
            struct route_ipv4 ip;
        };
        struct WEFT_PACKED {
            uint8_t before_ip6[ROUTE_IPV6_OFFSET];
            struct route_ipv6 ip6;
        };
    };
    struct route_udp udp;
    union {
        struct weft_hdr common;
        struct weft_req req;
        struct weft_rsp rsp;
        uint8_t bytes[WEFT_DATAGRAM_MAX];
    } weft;
};
WEFT_ASSERT(offsetof(struct route_frame, ip) == ROUTE_IPV4_OFFSET, "IPv4 + UDP end at Weft");
WEFT_ASSERT(offsetof(struct route_frame, ip6) == ROUTE_IPV6_OFFSET, "IPv6 + UDP end at Weft");
WEFT_ASSERT(offsetof(struct route_frame, weft) == ROUTE_WEFT_OFFSET, "Weft has one place");

/* The longest frame without a tag: Ethernet's MTU. Over IPv6 the datagram is 20 bytes shorter. */
#define ROUTE_FRAME_MAX        1514u
#define ROUTE_DATAGRAM_MAX_IP6 (WEFT_DATAGRAM_MAX - 20u)
WEFT_ASSERT(ROUTE_WEFT_OFFSET - ROUTE_START_IPV4 + WEFT_DATAGRAM_MAX == ROUTE_FRAME_MAX, "MTU");
WEFT_ASSERT(ROUTE_WEFT_OFFSET - ROUTE_START_IPV6 + ROUTE_DATAGRAM_MAX_IP6 == ROUTE_FRAME_MAX,
            "MTU");

/* What becomes of a packet. */
enum route_action {
    ROUTE_UNDECIDED,
    ROUTE_LET_GO,  /* counted by reason already */
    ROUTE_SEND,    /* to the network, where `to` says */
    ROUTE_DELIVER, /* to the local worker */
    ROUTE_GONE,    /* handed to another lcore, buffer and all */
};

enum route_to {
    ROUTE_TO_NODE,   /* another node: `next` is its index */
    ROUTE_TO_CLIENT, /* the client named in the return block */
    ROUTE_TO_SENDER, /* back to where the frame came from */
};

/* What a port has found out about the checksums of a frame that it took in. A mask; 0: nothing,
 * they are looked at here. */
enum route_sums {
    ROUTE_SUMS_IP_GOOD = 1,
    ROUTE_SUMS_UDP_GOOD = 2,
    ROUTE_SUMS_BAD = 4, /* one of them is wrong */
};

/* One packet on its way through the stages. */
struct route_packet {
    struct route_frame *frame; /* the view: the frame itself begins `start` bytes behind it */
    void *buffer;              /* the shell's own handle: who owns the frame's memory */
    uint32_t len;              /* bytes of the frame */
    uint16_t weft_len;         /* bytes of the Weft datagram */
    uint16_t next;             /* node index, with ROUTE_TO_NODE */
    uint16_t sender;           /* index of the member whose address it came from, or
                                  ROUTE_INDEX_NONE */
    uint8_t action;            /* enum route_action */
    uint8_t to;                /* enum route_to, with ROUTE_SEND */
    uint8_t why;               /* 1 + the enum route_drop it was counted under; 0: none */
    uint8_t start;             /* of the frame in the view; tells the family */
    uint8_t sums;              /* enum route_sums */
    bool from_worker : 1;      /* came out of the local ring */
    bool own : 1;              /* this node wrote the datagram: headers are composed, not updated */
};

WEFT_ASSERT(sizeof(struct route_packet) == 32, "two to a cache line");

/* A received frame, or a buffer for a datagram of this node's own (`len` 0), as a packet. The
 * ROUTE_START_IPV4 bytes before `data` must be the buffer's as well: headers may grow into them. */
static inline void packet_attach(struct route_packet *p, void *data, uint32_t len)
{
    p->frame = (struct route_frame *)(void *)((uint8_t *)data - ROUTE_START_IPV4);
    p->start = ROUTE_START_IPV4;
    p->len = len;
    p->sums = 0;
}

/* Are its headers IPv6's? They begin further in front, tagged or not. */
static inline bool packet_is_ip6(const struct route_packet *p)
{
    return p->start <= ROUTE_START_IPV6;
}

/* The frame's first byte: where the link's header is. */
static inline struct route_ether *packet_ether(const struct route_packet *p)
{
    return (struct route_ether *)(void *)((uint8_t *)p->frame + p->start);
}

/* Who sent it, in 16 bytes whatever the family. */
static inline struct in6_addr packet_source(const struct route_packet *p)
{
    return packet_is_ip6(p) ? p->frame->ip6.src : addr_of_v4(p->frame->ip.src);
}

static inline struct in6_addr packet_destination(const struct route_packet *p)
{
    return packet_is_ip6(p) ? p->frame->ip6.dst : addr_of_v4(p->frame->ip.dst);
}

/* This node's own place on the network. It has an address of one family or of both. */
struct route_host {
    uint8_t mac[6];
    uint16_t port_be;      /* of the data plane, big-endian */
    uint16_t vlan_be;      /* of every frame, big-endian; 0 = untagged */
    uint32_t addr;         /* IPv4, network order; 0 = none */
    struct in6_addr addr6; /* all zero = none */
    bool port_sums;        /* the port ends the UDP checksums of what this node writes (nic.h) */
};

/* Where a packet goes on the link and the network. */
struct route_hop {
    uint8_t mac[6];
    uint16_t port_be;
    struct in6_addr addr; /* of a family that the sending host has an address of */
};

/* Explicit congestion notification (RFC 3168): the low two bits of the traffic class. Replies' data
 * goes out as ECT(0), clients send theirs so. */
#define ROUTE_ECN_ECT0 2u
#define ROUTE_ECN_CE   3u

/* The traffic class of a frame, whatever its family. */
static inline uint8_t packet_traffic_class(const struct route_packet *p)
{
    return packet_is_ip6(p) ? (uint8_t)(ntohl(p->frame->ip6.version_class_flow) >> 20)
                            : p->frame->ip.tos;
}

/* Internet checksum (RFC 1071) of the UDP datagram with its pseudo-header; the frame must hold
 * `udp.len` bytes from the UDP header on. 0 = correct, as summed with the checksum field. */
uint16_t packet_udp_sum(const struct route_packet *p);

/* Is the UDP checksum right (or absent, which IPv6 does not allow)? As the port says, if it does.
 */
bool packet_udp_ok(const struct route_packet *p);

/* Is the header checksum right (RFC 1122, 3.2.1.2)? One's complement sums of 16-bit words are sums
 * modulo 65,535; no header is all zero. */
static inline bool packet_ip_ok(const struct route_ipv4 *ip)
{
    uint64_t first, second;
    uint32_t third;
    memcpy(&first, ip, sizeof(first));
    memcpy(&second, (const uint8_t *)ip + 8, sizeof(second));
    memcpy(&third, (const uint8_t *)ip + 16, sizeof(third));
    uint64_t sum = first + second;
    sum += sum < first; /* 2^64 is 1 in that arithmetic */
    sum += third;
    sum += sum < third;
    return sum % 0xffffu == 0;
}

/* Copies `size` bytes over `field` (both at even offsets of the UDP datagram or its pseudo-header)
 * and updates the UDP checksum by RFC 1624, eqn. 3. `size` must be even. */
void packet_set(struct route_frame *frame, void *field, const void *value, uint32_t size);

/* What an ingress writes into a request: the choice, and the return block over the first-hop block
 * (`block` in words, the tag last). */
struct route_ingress {
    uint64_t block[sizeof(struct weft_return) / sizeof(uint64_t)];
    uint32_t budget_us;
    uint16_t origin, target, alternates[2];
    uint16_t epoch;
    uint8_t hops_left;
};
void packet_ingress(struct route_frame *frame, const struct route_ingress *in);

/* The first three words of a return block for the sender of a packet. */
void packet_return_words(const struct route_packet *p, uint64_t words[3]);

/* The same for one byte that may be at an odd place. */
void packet_set_u8(struct route_frame *frame, uint8_t *field, uint8_t value);

/* Gives the frame new addresses and, if those are of the other family, other headers: checksums
 * updated, TTL fresh, traffic class kept, flow label 0. A datagram that came without a checksum
 * (IPv4) gets one where it must have one (IPv6). `weft_len` must fit the family. */
void packet_readdress(struct route_packet *p, const struct route_host *from,
                      const struct route_hop *to);

/* Fills in all headers in front of a Weft datagram of `p->weft_len` bytes that this node wrote, UDP
 * checksum included; with `port_sums` it is the sum of the pseudo header, for the port to end. A
 * RESP is ECN-capable, what answers at once is not. */
void packet_compose(struct route_packet *p, const struct route_host *from,
                    const struct route_hop *to);
