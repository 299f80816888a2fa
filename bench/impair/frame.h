/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - what switch.c and port.c do to single Ethernet frames: finish a checksum that was left
 * to hardware, mark congestion, turn bits, answer "too big". Any bytes may come in; what is not
 * understood stays as it is. Pure functions, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMPAIR_MAC_BYTES    6u
#define IMPAIR_ETHER_BYTES  14u
#define IMPAIR_TAG_BYTES    4u
#define IMPAIR_ANSWER_BYTES 1280u /* the longest answer: IPv6's least MTU (RFC 4443, 3.2) */

struct impair_view {
    uint8_t family;  /* 4, 6, or 0: no whole IP header */
    uint8_t proto;   /* of what follows the IP header; IPv6 extension headers are not followed */
    bool fragment;   /* of a larger packet */
    uint32_t ip;     /* offset of the IP header */
    uint32_t l4;     /* offset of what follows it */
    uint32_t ip_end; /* of the packet by its own length, within the frame */
};

/* Finds the IP header behind up to two VLAN tags. */
void impair_frame_view(const uint8_t *frame, uint32_t size, struct impair_view *view);

/* Bytes that count against an MTU: everything behind the Ethernet header and its tags. */
uint32_t impair_frame_ip_size(const uint8_t *frame, uint32_t size);

/* Ones' complement sum over the bytes from `start` on, into the field at start + offset, where the
 * sender left the sum of the pseudo-header (as a NIC does; linux/virtio_net.h). Returns 0 or
 * -EINVAL if the field is outside. */
int impair_frame_finish(uint8_t *frame, uint32_t size, uint32_t start, uint32_t offset);

/* ECT becomes CE (RFC 3168, RFC 8200). Returns whether the frame carries CE now. */
bool impair_frame_mark(uint8_t *frame, uint32_t size);

/* The payload of an unfragmented UDP datagram: offset and size, false if there is none. */
bool impair_frame_payload(const uint8_t *frame, uint32_t size, uint32_t *at, uint32_t *length);

/* Computes the UDP checksum anew, unless the sender sent none. */
void impair_frame_repair(uint8_t *frame, uint32_t size);

/* Writes "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443) for a frame to its
 * sender, in the name of its receiver, into out of IMPAIR_ANSWER_BYTES + IMPAIR_ETHER_BYTES.
 * Returns the size; 0 if none is due: no IP, IPv4 that may be fragmented, a later fragment, an ICMP
 * error or a group address. */
uint32_t impair_frame_too_big(const uint8_t *frame, uint32_t size, uint32_t mtu, uint8_t *out);
