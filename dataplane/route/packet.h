/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packet.h - a frame and what the stages have found out about it. Ethernet, IPv4 (no options) and
 * UDP headers have fixed places, so the Weft header is at ROUTE_WEFT_OFFSET.
 * UDP checksums are updated for the bytes changed (RFC 1624), never recomputed over a payload that
 * this node did not write: damage on any hop stays visible to the receiver.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#include "schemas/drops.def"

#define ROUTE_DROP_ENUM_(name, text) ROUTE_DROP_##name,
enum route_drop { WEFT_DROPS(ROUTE_DROP_ENUM_) ROUTE_DROP_COUNT };

/* Name and text of a drop reason; "?" outside the table. */
const char *route_drop_name(unsigned drop);
const char *route_drop_text(unsigned drop);

#define ROUTE_ETHER_TYPE_IPV4 0x0800u
#define ROUTE_IP_PROTOCOL_UDP 17u
#define ROUTE_IP_TTL          64u

struct WEFT_PACKED route_ether {
    uint8_t dst[6];
    uint8_t src[6];
    uint16_t type; /* big-endian, like all of the three headers */
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

struct WEFT_PACKED route_udp {
    uint16_t src_port;
    uint16_t dst_port;
    uint16_t len;
    uint16_t checksum; /* 0 = none */
};

struct WEFT_PACKED route_frame {
    struct route_ether ether;
    struct route_ipv4 ip;
    struct route_udp udp;
    union {
        struct weft_hdr common;
        struct weft_req req;
        struct weft_rsp rsp;
        uint8_t bytes[WEFT_DATAGRAM_MAX];
    } weft;
};
#define ROUTE_WEFT_OFFSET 42u
WEFT_ASSERT(offsetof(struct route_frame, weft) == ROUTE_WEFT_OFFSET, "Ethernet + IPv4 + UDP");
#define ROUTE_FRAME_MAX ((uint32_t)sizeof(struct route_frame))

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

/* One packet on its way through the stages. */
struct route_packet {
    struct route_frame *frame;
    void *buffer;      /* the shell's own handle: who owns the frame's memory */
    uint32_t len;      /* bytes of the frame */
    uint16_t weft_len; /* bytes of the Weft datagram */
    uint16_t next;     /* node index, with ROUTE_TO_NODE */
    uint16_t sender;   /* index of the member whose address it came from, or ROUTE_INDEX_NONE */
    uint8_t action;    /* enum route_action */
    uint8_t to;        /* enum route_to, with ROUTE_SEND */
    uint8_t why;       /* 1 + the enum route_drop it was counted under; 0: none */
    bool from_worker;  /* came out of the local ring */
    bool own;          /* this node wrote the datagram: headers are composed, not updated */
};

/* This node's own place on the network. */
struct route_host {
    uint8_t mac[6];
    uint16_t port_be; /* of the data plane, big-endian */
    uint32_t addr;    /* IPv4, network order */
};

/* Internet checksum (RFC 1071) of the UDP datagram with its pseudo-header; `frame` must hold
 * `udp.len` bytes from the UDP header on. 0 = correct, as summed with the checksum field. */
uint16_t packet_udp_sum(const struct route_frame *frame);

/* Is the UDP checksum right (or absent)? */
bool packet_udp_ok(const struct route_frame *frame);

/* Copies `size` bytes over `field` (both at even offsets of the UDP datagram or its pseudo-header)
 * and updates the UDP checksum by RFC 1624, eqn. 3. `size` must be even. */
void packet_set(struct route_frame *frame, void *field, const void *value, uint32_t size);

/* For changes all over a request's header and block: take the sum, change the fields, say so. */
uint16_t packet_request_sum(const struct route_frame *frame);
void packet_request_changed(struct route_frame *frame, uint16_t before);

/* The same for one byte that may be at an odd place. */
void packet_set_u8(struct route_frame *frame, uint8_t *field, uint8_t value);

/* Where a packet goes on the link and the network. */
struct route_hop {
    uint8_t mac[6];
    uint16_t port_be;
    uint32_t addr;
};

/* Gives the frame new addresses (checksums updated, TTL fresh). */
void packet_readdress(struct route_frame *frame, const struct route_host *from,
                      const struct route_hop *to);

/* Fills in all headers in front of a Weft datagram of `weft_len` bytes that this node wrote, UDP
 * checksum included. Returns the length of the frame. */
uint32_t packet_compose(struct route_frame *frame, uint32_t weft_len, const struct route_host *from,
                        const struct route_hop *to);
