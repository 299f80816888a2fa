/* SPDX-License-Identifier: Apache-2.0 */
/* partial.c - see partial.h. Sums are in memory order throughout (RFC 1071, 2.B). */
#include "dataplane/nic/partial.h"

#include <arpa/inet.h>
#include <string.h>

#define ETHER_BYTES      14u
#define VLAN_BYTES       4u
#define IPV4_BYTES       20u
#define IPV6_BYTES       40u
#define UDP_BYTES        8u
#define UDP_PROTOCOL     17u
#define ETHER_TYPE_IPV4  0x0800u
#define ETHER_TYPE_IPV6  0x86ddu
#define ETHER_TYPE_VLAN  0x8100u
#define IPV4_PROTOCOL_AT 9u
#define IPV4_ADDRESSES   12u
#define IPV6_NEXT_AT     6u
#define IPV6_ADDRESSES   8u

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

/* Where the UDP header is (0: none) and the sum of the addresses before it. */
static uint32_t find_udp(const uint8_t *frame, uint32_t len, uint64_t *addresses)
{
    uint32_t at = ETHER_BYTES;
    if (len < ETHER_BYTES + VLAN_BYTES) {
        return 0;
    }
    uint16_t type = ntohs(read16(frame + at - 2));
    if (type == ETHER_TYPE_VLAN) {
        at += VLAN_BYTES;
        type = ntohs(read16(frame + at - 2));
    }
    const uint8_t *ip = frame + at;
    if (type == ETHER_TYPE_IPV4 && len >= at + IPV4_BYTES + UDP_BYTES && ip[0] == 0x45 &&
        ip[IPV4_PROTOCOL_AT] == UDP_PROTOCOL) {
        *addresses = sum(ip + IPV4_ADDRESSES, 8);
        return at + IPV4_BYTES;
    }
    if (type == ETHER_TYPE_IPV6 && len >= at + IPV6_BYTES + UDP_BYTES &&
        ip[IPV6_NEXT_AT] == UDP_PROTOCOL) {
        *addresses = sum(ip + IPV6_ADDRESSES, 32);
        return at + IPV6_BYTES;
    }
    return 0;
}

bool partial_finish(uint8_t *frame, uint32_t len, uint16_t port_be)
{
    uint64_t addresses = 0;
    uint32_t at = find_udp(frame, len, &addresses);
    uint8_t *udp = frame + at;
    if (at == 0 || read16(udp + 2) != port_be) {
        return false;
    }
    uint16_t udp_len = read16(udp + 4);
    uint16_t checksum = read16(udp + 6);
    uint32_t bytes = ntohs(udp_len);
    if (bytes < UDP_BYTES || bytes > len - at ||
        checksum != fold(addresses + udp_len + htons(UDP_PROTOCOL))) {
        return false;
    }
    uint16_t ended = (uint16_t)~fold(sum(udp, bytes)); /* the beginning is summed with the rest */
    ended = ended != 0 ? ended : 0xffffu;
    memcpy(udp + 6, &ended, sizeof(ended));
    return true;
}
