/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - see frame.h. Offsets are those of RFC 791, 768, 792, 8200 and 4443. */
#include "bench/impair/frame.h"

#include <errno.h>
#include <string.h>

#define TYPE_IPV4      0x0800u
#define TYPE_IPV6      0x86ddu
#define TYPE_VLAN      0x8100u
#define TYPE_QINQ      0x88a8u
#define TAGS_MAX       2
#define IPV4_BYTES     20u
#define IPV6_BYTES     40u
#define UDP_BYTES      8u
#define ICMP_BYTES     8u
#define PROTO_ICMP     1u
#define PROTO_UDP      17u
#define PROTO_ICMP6    58u
#define PROTO_FRAGMENT 44u
#define IPV4_QUOTE_MAX 548u
#define FRESH_TTL      64u
#define ECN_MASK       3u

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* Internet checksum (RFC 1071), not yet inverted. */
static uint64_t sum_bytes(const uint8_t *p, uint32_t size, uint64_t sum)
{
    for (uint32_t i = 0; i + 1 < size; i += 2) {
        sum += get16(p + i);
    }
    return (size & 1u) != 0 ? sum + ((uint32_t)p[size - 1] << 8) : sum;
}

static uint16_t sum_fold(uint64_t sum)
{
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

static void view_ipv4(const uint8_t *p, uint32_t left, struct impair_view *view)
{
    uint32_t header = (p[0] & 15u) * 4u, total = get16(p + 2);
    if (header < IPV4_BYTES || total < header || total > left) {
        return;
    }
    view->family = 4;
    view->proto = p[9];
    view->fragment = (get16(p + 6) & 0x3fffu) != 0;
    view->l4 = view->ip + header;
    view->ip_end = view->ip + total;
}

static void view_ipv6(const uint8_t *p, uint32_t left, struct impair_view *view)
{
    uint32_t total = IPV6_BYTES + get16(p + 4);
    if (total > left) {
        return;
    }
    view->family = 6;
    view->proto = p[6];
    view->fragment = p[6] == PROTO_FRAGMENT;
    view->l4 = view->ip + IPV6_BYTES;
    view->ip_end = view->ip + total;
}

/* The type behind the tags, *at behind it; 0 if the frame ends before. */
static uint32_t skip_tags(const uint8_t *frame, uint32_t size, uint32_t *at)
{
    *at = IMPAIR_ETHER_BYTES;
    if (size < IMPAIR_ETHER_BYTES) {
        return 0;
    }
    uint32_t type = get16(frame + 12);
    for (int i = 0; i < TAGS_MAX && (type == TYPE_VLAN || type == TYPE_QINQ); i++) {
        if (*at + IMPAIR_TAG_BYTES > size) {
            return 0;
        }
        type = get16(frame + *at + 2);
        *at += IMPAIR_TAG_BYTES;
    }
    return type;
}

void impair_frame_view(const uint8_t *frame, uint32_t size, struct impair_view *view)
{
    *view = (struct impair_view){0};
    uint32_t type = skip_tags(frame, size, &view->ip);
    uint32_t left = view->ip <= size ? size - view->ip : 0;
    const uint8_t *p = frame + view->ip;
    if (type == TYPE_IPV4 && left >= IPV4_BYTES && p[0] >> 4 == 4) {
        view_ipv4(p, left, view);
    } else if (type == TYPE_IPV6 && left >= IPV6_BYTES && p[0] >> 4 == 6) {
        view_ipv6(p, left, view);
    }
}

uint32_t impair_frame_ip_size(const uint8_t *frame, uint32_t size)
{
    uint32_t at;
    struct impair_view view;
    impair_frame_view(frame, size, &view);
    if (view.family != 0) { /* without the padding of short frames */
        return view.ip_end - view.ip;
    }
    skip_tags(frame, size, &at);
    return size > at ? size - at : 0;
}

int impair_frame_finish(uint8_t *frame, uint32_t size, uint32_t start, uint32_t offset)
{
    if (start > size || offset > size - start || size - start - offset < 2) {
        return -EINVAL;
    }
    uint16_t sum = sum_fold(sum_bytes(frame + start, size - start, 0));
    put16(frame + start + offset, sum == 0 ? 0xffff : sum); /* to UDP, 0 says "none" */
    return 0;
}

bool impair_frame_mark(uint8_t *frame, uint32_t size)
{
    struct impair_view view;
    impair_frame_view(frame, size, &view);
    uint8_t *p = frame + view.ip;
    if (view.family == 4) {
        if ((p[1] & ECN_MASK) == 0) {
            return false;
        }
        p[1] |= ECN_MASK;
        put16(p + 10, 0);
        put16(p + 10, sum_fold(sum_bytes(p, view.l4 - view.ip, 0)));
        return true;
    }
    /* The traffic class lies across the first two bytes; ECN is in the upper half of the second. */
    if (view.family != 6 || (p[1] >> 4 & ECN_MASK) == 0) {
        return false;
    }
    p[1] = (uint8_t)(p[1] | ECN_MASK << 4);
    return true;
}

/* The UDP header; NULL if there is none to be trusted. */
static const uint8_t *find_udp(const uint8_t *frame, uint32_t size, struct impair_view *view)
{
    impair_frame_view(frame, size, view);
    if (view->family == 0 || view->proto != PROTO_UDP || view->fragment ||
        view->ip_end - view->l4 < UDP_BYTES) {
        return NULL;
    }
    const uint8_t *udp = frame + view->l4;
    uint32_t length = get16(udp + 4);
    return length >= UDP_BYTES && length <= view->ip_end - view->l4 ? udp : NULL;
}

bool impair_frame_payload(const uint8_t *frame, uint32_t size, uint32_t *at, uint32_t *length)
{
    struct impair_view view;
    const uint8_t *udp = find_udp(frame, size, &view);
    if (udp == NULL || get16(udp + 4) == UDP_BYTES) {
        return false;
    }
    *at = view.l4 + UDP_BYTES;
    *length = get16(udp + 4) - UDP_BYTES;
    return true;
}

/* Sum of the pseudo-header for `length` bytes above IP. */
static uint64_t sum_pseudo(const uint8_t *ip, uint8_t family, uint32_t proto, uint32_t length)
{
    uint64_t sum = family == 4 ? sum_bytes(ip + 12, 8, 0) : sum_bytes(ip + 8, 32, 0);
    return sum + proto + length;
}

void impair_frame_repair(uint8_t *frame, uint32_t size)
{
    struct impair_view view;
    if (find_udp(frame, size, &view) == NULL) {
        return;
    }
    uint8_t *udp = frame + view.l4;
    uint32_t length = get16(udp + 4);
    if (view.family == 4 && get16(udp + 6) == 0) {
        return;
    }
    put16(udp + 6, 0);
    uint64_t sum = sum_pseudo(frame + view.ip, view.family, PROTO_UDP, length);
    uint16_t folded = sum_fold(sum_bytes(udp, length, sum));
    put16(udp + 6, folded == 0 ? 0xffff : folded);
}

static void ether_back(const uint8_t *frame, uint32_t type, uint8_t *out)
{
    memcpy(out, frame + IMPAIR_MAC_BYTES, IMPAIR_MAC_BYTES);
    memcpy(out + IMPAIR_MAC_BYTES, frame, IMPAIR_MAC_BYTES);
    put16(out + 12, type);
}

static uint32_t too_big_ipv4(const uint8_t *frame, const struct impair_view *view, uint32_t mtu,
                             uint8_t *out)
{
    const uint8_t *ip = frame + view->ip;
    bool may_fragment = (ip[6] & 0x40u) == 0, later = (get16(ip + 6) & 0x1fffu) != 0;
    /* Echo requests and replies may be answered; everything else of ICMP counts as an error. */
    bool error = view->proto == PROTO_ICMP &&
                 (view->l4 >= view->ip_end || (frame[view->l4] != 0 && frame[view->l4] != 8));
    if (may_fragment || later || error || ip[16] >= 224) {
        return 0;
    }
    uint32_t quote = view->ip_end - view->ip;
    quote = quote < IPV4_QUOTE_MAX ? quote : IPV4_QUOTE_MAX;
    uint32_t total = IPV4_BYTES + ICMP_BYTES + quote;
    uint8_t *p = out + IMPAIR_ETHER_BYTES, *icmp = p + IPV4_BYTES;
    ether_back(frame, TYPE_IPV4, out);
    memset(p, 0, IPV4_BYTES + ICMP_BYTES);
    p[0] = 0x45;
    put16(p + 2, total);
    p[8] = FRESH_TTL;
    p[9] = PROTO_ICMP;
    memcpy(p + 12, ip + 16, 4);
    memcpy(p + 16, ip + 12, 4);
    put16(p + 10, sum_fold(sum_bytes(p, IPV4_BYTES, 0)));
    icmp[0] = 3;
    icmp[1] = 4;
    put16(icmp + 6, mtu);
    memcpy(icmp + ICMP_BYTES, ip, quote);
    put16(icmp + 2, sum_fold(sum_bytes(icmp, ICMP_BYTES + quote, 0)));
    return IMPAIR_ETHER_BYTES + total;
}

static uint32_t too_big_ipv6(const uint8_t *frame, const struct impair_view *view, uint32_t mtu,
                             uint8_t *out)
{
    const uint8_t *ip = frame + view->ip;
    /* Types below 128 are errors (RFC 4443, 2.1); a group is spared as with IPv4. */
    bool error = view->proto == PROTO_ICMP6 && (view->l4 >= view->ip_end || frame[view->l4] < 128);
    if (error || ip[24] == 0xff) {
        return 0;
    }
    uint32_t quote = view->ip_end - view->ip;
    uint32_t room = IMPAIR_ANSWER_BYTES - IPV6_BYTES - ICMP_BYTES;
    quote = quote < room ? quote : room;
    uint8_t *p = out + IMPAIR_ETHER_BYTES, *icmp = p + IPV6_BYTES;
    ether_back(frame, TYPE_IPV6, out);
    memset(p, 0, IPV6_BYTES + ICMP_BYTES);
    p[0] = 0x60;
    put16(p + 4, ICMP_BYTES + quote);
    p[6] = PROTO_ICMP6;
    p[7] = FRESH_TTL;
    memcpy(p + 8, ip + 24, 16);
    memcpy(p + 24, ip + 8, 16);
    icmp[0] = 2;
    put16(icmp + 6, mtu);
    memcpy(icmp + ICMP_BYTES, ip, quote);
    uint64_t sum = sum_pseudo(p, 6, PROTO_ICMP6, ICMP_BYTES + quote);
    put16(icmp + 2, sum_fold(sum_bytes(icmp, ICMP_BYTES + quote, sum)));
    return IMPAIR_ETHER_BYTES + IPV6_BYTES + ICMP_BYTES + quote;
}

uint32_t impair_frame_too_big(const uint8_t *frame, uint32_t size, uint32_t mtu, uint8_t *out)
{
    struct impair_view view;
    impair_frame_view(frame, size, &view);
    /* An answer without the frame's tags would go to another network. */
    if (view.family == 0 || view.ip != IMPAIR_ETHER_BYTES || (frame[0] & 1u) != 0) {
        return 0;
    }
    return view.family == 4 ? too_big_ipv4(frame, &view, mtu, out)
                            : too_big_ipv6(frame, &view, mtu, out);
}
