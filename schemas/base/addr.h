/* SPDX-License-Identifier: Apache-2.0 */
/*
 * addr.h - an IP address of either family in 16 bytes: IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2),
 * so that one type, one comparison and one field of a return block do for both. On the wire and in
 * sockets IPv4 stays IPv4: the mapped form never leaves the process but in a return block.
 */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ADDR_TEXT_MAX INET6_ADDRSTRLEN

/* `addr` in network order. */
static inline struct in6_addr addr_of_v4(uint32_t addr)
{
    return (struct in6_addr){.s6_addr32 = {0, 0, htonl(0xffff), addr}};
}

static inline bool addr_is_v4(const struct in6_addr *a)
{
    return (a->s6_addr32[0] | a->s6_addr32[1] | (a->s6_addr32[2] ^ htonl(0xffff))) == 0;
}

/* Of one that is IPv4, network order. */
static inline uint32_t addr_v4(const struct in6_addr *a)
{
    return a->s6_addr32[3];
}

static inline bool addr_equal(const struct in6_addr *a, const struct in6_addr *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* May a datagram come from there? Not "this network", loopback, groups, broadcast (RFC 1122). */
static inline bool addr_v4_is_host(uint32_t addr)
{
    uint32_t first = ntohl(addr) >> 24;
    return first != 0 && first != 127 && first < 224;
}

/* The same of an address that stands in an IPv6 header. All of ::/96 (unspecified, loopback, the
 * IPv4-compatible ones) and ::ffff:0:0/96 (IPv4 in disguise) have no place on a link. */
static inline bool addr_v6_is_host(const struct in6_addr *a)
{
    bool narrow = (a->s6_addr32[0] | a->s6_addr32[1]) == 0 &&
                  (a->s6_addr32[2] == 0 || a->s6_addr32[2] == htonl(0xffff));
    return !narrow && a->s6_addr[0] != 0xff;
}

static inline bool addr_is_link_local(const struct in6_addr *a)
{
    return a->s6_addr[0] == 0xfe && (a->s6_addr[1] & 0xc0) == 0x80;
}

/* "10.0.0.1" or "2001:db8::1"; no brackets, no zone. False: neither. */
static inline bool addr_parse(const char *text, struct in6_addr *out)
{
    struct in_addr four;
    if (inet_pton(AF_INET, text, &four) == 1) {
        *out = addr_of_v4(four.s_addr);
        return true;
    }
    return inet_pton(AF_INET6, text, out) == 1 && !addr_is_v4(out);
}

/* The way addr_parse() takes it. Returns `text`, of ADDR_TEXT_MAX bytes. */
static inline const char *addr_format(const struct in6_addr *a, char *text)
{
    bool four = addr_is_v4(a);
    return inet_ntop(four ? AF_INET : AF_INET6, four ? &a->s6_addr32[3] : a->s6_addr32, text,
                     ADDR_TEXT_MAX);
}

/* For bind(), sendto(): the socket address of the family that `a` is of. Returns its length. */
static inline socklen_t addr_to_socket(const struct in6_addr *a, uint16_t port,
                                       struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (addr_is_v4(a)) {
        struct sockaddr_in *four = (struct sockaddr_in *)(void *)out;
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        four->sin_addr.s_addr = addr_v4(a);
        return sizeof(*four);
    }
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)out;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    six->sin6_addr = *a;
    return sizeof(*six);
}

/* Back again: what recvfrom() said. Returns the port. */
static inline uint16_t addr_of_socket(const struct sockaddr_storage *from, struct in6_addr *out)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)from;
        *out = addr_of_v4(four->sin_addr.s_addr);
        return ntohs(four->sin_port);
    }
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)from;
    *out = six->sin6_addr;
    return ntohs(six->sin6_port);
}
