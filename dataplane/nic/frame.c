/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - see frame.h. Sums are in memory order throughout (RFC 1071, 2.B). */
#include "dataplane/nic/frame.h"

#include <arpa/inet.h>
#include <string.h>

#define ETHER_BYTES        14u
#define VLAN_BYTES         4u
#define IPV4_BYTES         20u
#define IPV6_BYTES         40u
#define UDP_BYTES          8u
#define UDP_PROTOCOL       17u
#define ETHER_TYPE_IPV4    0x0800u
#define ETHER_TYPE_IPV6    0x86ddu
#define ETHER_TYPE_VLAN    0x8100u
#define IPV4_FRAGMENT_AT   6u
#define IPV4_FRAGMENT_MASK 0x3fffu
#define IPV4_PROTOCOL_AT   9u
#define IPV4_ADDRESSES     12u
#define IPV6_NEXT_AT       6u
#define IPV6_ADDRESSES     8u

static inline uint16_t read16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static uint64_t sum(const uint8_t *at, uint32_t size)
{
    uint64_t total = 0;
    for (; size >= 4; size -= 4, at += 4) {
        uint32_t word;
        memcpy(&word, at, sizeof(word));
        total += word;
    }
    if (size >= 2) {
        total += read16(at);
        at += 2;
        size -= 2;
    }
    return size != 0 ? total + *at : total; /* little-endian: the low byte of its word */
}

static uint16_t fold(uint64_t total)
{
    while (total >> 16 != 0) {
        total = (total & 0xffffu) + (total >> 16);
    }
    return (uint16_t)total;
}

struct place {
    uint32_t udp_at;       /* 0: no UDP */
    uint32_t addresses_at; /* of the network header */
    uint32_t addresses_bytes;
};

static inline struct place find_udp(const uint8_t *frame, uint32_t len)
{
    struct place none = {0};
    uint32_t at = ETHER_BYTES;
    if (len < ETHER_BYTES + VLAN_BYTES) {
        return none;
    }
    uint16_t type = ntohs(read16(frame + at - 2));
    if (type == ETHER_TYPE_VLAN) {
        at += VLAN_BYTES;
        type = ntohs(read16(frame + at - 2));
    }
    const uint8_t *ip = frame + at;
    if (type == ETHER_TYPE_IPV4 && len >= at + IPV4_BYTES + UDP_BYTES && ip[0] == 0x45 &&
        ip[IPV4_PROTOCOL_AT] == UDP_PROTOCOL &&
        (read16(ip + IPV4_FRAGMENT_AT) & htons(IPV4_FRAGMENT_MASK)) == 0) {
        return (struct place){at + IPV4_BYTES, at + IPV4_ADDRESSES, 8};
    }
    if (type == ETHER_TYPE_IPV6 && len >= at + IPV6_BYTES + UDP_BYTES &&
        ip[IPV6_NEXT_AT] == UDP_PROTOCOL) {
        return (struct place){at + IPV6_BYTES, at + IPV6_ADDRESSES, 32};
    }
    return none;
}

static inline bool is_to(const uint8_t *frame, struct place place, uint16_t port_be)
{
    return place.udp_at != 0 && read16(frame + place.udp_at + 2) == port_be;
}

bool frame_is_ours(const uint8_t *frame, uint32_t len, uint16_t port_be)
{
    return is_to(frame, find_udp(frame, len), port_be);
}

bool frame_finish_sum(uint8_t *frame, uint32_t len, uint16_t port_be)
{
    struct place place = find_udp(frame, len);
    uint8_t *udp = frame + place.udp_at;
    if (!is_to(frame, place, port_be)) {
        return false;
    }
    uint16_t udp_len = read16(udp + 4);
    uint16_t checksum = read16(udp + 6);
    uint32_t bytes = ntohs(udp_len);
    uint64_t pseudo = udp_len + htons(UDP_PROTOCOL);
    if (bytes < UDP_BYTES || bytes > len - place.udp_at ||
        checksum != fold(pseudo + sum(frame + place.addresses_at, place.addresses_bytes))) {
        return false;
    }
    uint16_t ended = (uint16_t)~fold(sum(udp, bytes)); /* the beginning is summed with the rest */
    ended = ended != 0 ? ended : 0xffffu;
    memcpy(udp + 6, &ended, sizeof(ended));
    return true;
}
