/* SPDX-License-Identifier: Apache-2.0 */
/* packet.c - checksums and headers. See packet.h. */
#include "dataplane/route/packet.h"

#include <arpa/inet.h>
#include <string.h>

const char *route_drop_name(unsigned drop)
{
#define DROP_NAME_(name, text) #name,
    static const char *const names[] = {WEFT_DROPS(DROP_NAME_)};
    return drop < ROUTE_DROP_COUNT ? names[drop] : "?";
}

const char *route_drop_text(unsigned drop)
{
#define DROP_TEXT_(name, text) text,
    static const char *const texts[] = {WEFT_DROPS(DROP_TEXT_)};
    return drop < ROUTE_DROP_COUNT ? texts[drop] : "?";
}

/* One's complement sums work in either byte order as long as it is the same everywhere
 * (RFC 1071, 2.B): everything here stays in memory order. A sum may be kept in a wider word and
 * folded at the end: adding its halves to each other, turned, leaves the carry where it belongs. */
static inline uint16_t sum_fold(uint32_t sum)
{
    sum += sum << 16 | sum >> 16;
    return (uint16_t)(sum >> 16);
}

static inline uint16_t sum_fold_wide(uint64_t sum)
{
    sum += sum << 32 | sum >> 32;
    return sum_fold((uint32_t)(sum >> 32));
}

static inline uint64_t sum_add(uint64_t sum, uint64_t word)
{
    sum += word;
    return sum + (sum < word);
}

static uint64_t sum_bytes(const void *data, uint32_t size, uint64_t sum)
{
    const uint8_t *p = data;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof(word));
        sum = sum_add(sum, word);
    }
    if ((size & 4) != 0) {
        uint32_t word;
        memcpy(&word, p, sizeof(word));
        sum = sum_add(sum, word);
        p += 4;
    }
    if ((size & 2) != 0) {
        uint16_t half;
        memcpy(&half, p, sizeof(half));
        sum = sum_add(sum, half);
        p += 2;
    }
    if ((size & 1) != 0) {
        sum = sum_add(sum, *p); /* little-endian: a last odd byte is the low one of its word */
    }
    return sum;
}

uint16_t packet_udp_sum(const struct route_packet *p)
{
    const struct route_frame *frame = p->frame;
    uint64_t sum = (uint64_t)htons(ROUTE_IP_PROTOCOL_UDP) + frame->udp.len;
    if (__builtin_expect(packet_is_ip6(p), 0)) {
        sum = sum_bytes(&frame->ip6.src, 2 * sizeof(frame->ip6.src), sum);
    } else {
        sum += (uint64_t)frame->ip.src + frame->ip.dst;
    }
    return (uint16_t)~sum_fold_wide(sum_bytes(&frame->udp, ntohs(frame->udp.len), sum));
}

bool packet_udp_ok(const struct route_packet *p)
{
    return p->frame->udp.checksum == 0 ? !packet_is_ip6(p) : packet_udp_sum(p) == 0;
}

/* HC' = ~(~HC + ~m + m'), RFC 1624, with m and m' as sums over all words changed. A result of 0 is
 * sent as 0xffff: 0 means "no checksum", and stays so. */
static inline void udp_update(struct route_frame *frame, uint16_t before, uint16_t after)
{
    uint16_t checksum = frame->udp.checksum;
    if (checksum == 0) {
        return;
    }
    checksum = (uint16_t)~sum_fold((uint32_t)(uint16_t)~checksum + (uint16_t)~before + after);
    frame->udp.checksum = checksum != 0 ? checksum : 0xffffu;
}

uint16_t packet_request_sum(const struct route_frame *frame)
{
    WEFT_ASSERT(sizeof(frame->weft.req) % 8 == 0, "summed in words of 8 bytes");
    uint64_t sum = 0;
    for (uint32_t i = 0; i < sizeof(frame->weft.req); i += 8) {
        uint64_t word;
        memcpy(&word, frame->weft.bytes + i, sizeof(word));
        sum = sum_add(sum, word);
    }
    return sum_fold_wide(sum);
}

void packet_request_changed(struct route_frame *frame, uint16_t before)
{
    udp_update(frame, before, packet_request_sum(frame));
}

void packet_set(struct route_frame *frame, void *field, const void *value, uint32_t size)
{
    uint16_t before = sum_fold_wide(sum_bytes(field, size, 0));
    memcpy(field, value, size);
    udp_update(frame, before, sum_fold_wide(sum_bytes(field, size, 0)));
}

void packet_set_u8(struct route_frame *frame, uint8_t *field, uint8_t value)
{
    /* The 16-bit word around the byte: words are counted from the UDP header. */
    size_t offset = (size_t)(field - (uint8_t *)&frame->udp) & ~(size_t)1;
    uint8_t *word = (uint8_t *)&frame->udp + offset;
    uint8_t changed[2] = {word[0], word[1]};
    changed[(size_t)(field - word)] = value;
    packet_set(frame, word, changed, sizeof(changed));
}

/* The IPv4 header's own checksum, from scratch: it is 20 bytes. */
static inline void ip_finish(struct route_ipv4 *ip)
{
    uint64_t first;
    uint64_t second;
    uint32_t third;
    ip->ttl = ROUTE_IP_TTL;
    ip->checksum = 0;
    memcpy(&first, (const uint8_t *)ip, sizeof(first));
    memcpy(&second, (const uint8_t *)ip + 8, sizeof(second));
    memcpy(&third, (const uint8_t *)ip + 16, sizeof(third));
    ip->checksum = (uint16_t)~sum_fold_wide(sum_add(sum_add(first, second), third));
}

/* Sum of what packet_readdress() changes under the UDP checksum. Length and protocol sum to the
 * same in both pseudo-headers (RFC 8200, 8.1), so a change of family is a change of addresses. */
static uint16_t address_sum(const struct route_packet *p)
{
    const struct route_frame *f = p->frame;
    uint64_t sum = (uint64_t)f->udp.src_port + f->udp.dst_port;
    return sum_fold_wide(packet_is_ip6(p) ? sum_bytes(&f->ip6.src, 2 * sizeof(f->ip6.src), sum)
                                          : sum + f->ip.src + f->ip.dst);
}

/* The link's header in front of an IP header at `ip_offset`. */
static inline void write_link(struct route_packet *p, uint32_t ip_offset, uint16_t type_be,
                              const struct route_host *from, const struct route_hop *to)
{
    uint32_t start = ip_offset - (uint32_t)sizeof(struct route_ether);
    uint8_t *ip = (uint8_t *)p->frame + ip_offset;
    memcpy(ip - sizeof(type_be), &type_be, sizeof(type_be));
    if (__builtin_expect(from->vlan_be != 0, 0)) {
        struct route_vlan tag = {.type = htons(ROUTE_ETHER_TYPE_VLAN), .tci = from->vlan_be};
        memcpy(ip - sizeof(type_be) - sizeof(tag), &tag, sizeof(tag));
        start -= (uint32_t)sizeof(tag);
    }
    p->start = (uint8_t)start;
    p->len = ROUTE_WEFT_OFFSET - start + p->weft_len;
    memcpy(packet_ether(p)->dst, to->mac, sizeof(to->mac));
    memcpy(packet_ether(p)->src, from->mac, sizeof(from->mac));
}

/* All of an IPv4 header but addresses and what ip_finish() does. */
static void begin_ipv4(struct route_packet *p, uint8_t traffic_class)
{
    uint32_t size = (uint32_t)(sizeof(struct route_ipv4) + sizeof(struct route_udp)) + p->weft_len;
    p->frame->ip = (struct route_ipv4){
        .version_ihl = 0x45,
        .tos = traffic_class,
        .total_len = htons((uint16_t)size),
        .fragment = htons(0x4000), /* never fragment */
        .protocol = ROUTE_IP_PROTOCOL_UDP,
    };
}

static void write_ipv6(struct route_packet *p, uint8_t traffic_class, const struct route_host *from,
                       const struct route_hop *to)
{
    uint32_t size = (uint32_t)sizeof(struct route_udp) + p->weft_len;
    p->frame->ip6 = (struct route_ipv6){
        .version_class_flow = htonl(6u << 28 | (uint32_t)traffic_class << 20),
        .payload_len = htons((uint16_t)size),
        .next_header = ROUTE_IP_PROTOCOL_UDP,
        .hop_limit = ROUTE_IP_TTL,
        .src = from->addr6,
        .dst = to->addr,
    };
    write_link(p, ROUTE_IPV6_OFFSET, htons(ROUTE_ETHER_TYPE_IPV6), from, to);
}

static inline void write_ipv4(struct route_packet *p, const struct route_host *from,
                              const struct route_hop *to)
{
    p->frame->ip.src = from->addr;
    p->frame->ip.dst = addr_v4(&to->addr);
    ip_finish(&p->frame->ip);
    write_link(p, ROUTE_IPV4_OFFSET, htons(ROUTE_ETHER_TYPE_IPV4), from, to);
}

/* From scratch; a result of 0 would mean "none". */
static void write_sum(struct route_packet *p)
{
    p->frame->udp.checksum = 0;
    uint16_t sum = packet_udp_sum(p);
    p->frame->udp.checksum = sum != 0 ? sum : 0xffffu;
}

static uint8_t traffic_class_of(const struct route_packet *p)
{
    return packet_is_ip6(p) ? (uint8_t)(ntohl(p->frame->ip6.version_class_flow) >> 20)
                            : p->frame->ip.tos;
}

/* The usual way: IPv4 stays IPv4, without a tag. The same as below in one sum. */
static inline void readdress_plain(struct route_packet *p, const struct route_host *from,
                                   const struct route_hop *to)
{
    struct route_frame *f = p->frame;
    uint32_t dst = addr_v4(&to->addr);
    uint64_t sum = (uint64_t)(uint16_t)~f->udp.checksum + (uint32_t)~f->ip.src +
                   (uint32_t)~f->ip.dst + (uint16_t)~f->udp.src_port + (uint16_t)~f->udp.dst_port;
    sum += (uint64_t)from->addr + dst + from->port_be + to->port_be;
    if (f->udp.checksum != 0) {
        uint16_t checksum = (uint16_t)~sum_fold_wide(sum);
        f->udp.checksum = checksum != 0 ? checksum : 0xffffu;
    }
    f->ip.src = from->addr;
    f->ip.dst = dst;
    f->udp.src_port = from->port_be;
    f->udp.dst_port = to->port_be;
    ip_finish(&f->ip);
    memcpy(packet_ether(p)->dst, to->mac, sizeof(to->mac));
    memcpy(packet_ether(p)->src, from->mac, sizeof(from->mac));
}

static __attribute__((noinline)) void readdress_any(struct route_packet *p,
                                                    const struct route_host *from,
                                                    const struct route_hop *to)
{
    bool four = addr_is_v4(&to->addr);
    uint16_t before = address_sum(p);
    if (!four) {
        write_ipv6(p, traffic_class_of(p), from, to);
    } else {
        if (packet_is_ip6(p)) {
            begin_ipv4(p, traffic_class_of(p));
        }
        write_ipv4(p, from, to);
    }
    p->frame->udp.src_port = from->port_be;
    p->frame->udp.dst_port = to->port_be;
    if (!four && p->frame->udp.checksum == 0) {
        write_sum(p);
        return;
    }
    udp_update(p->frame, before, address_sum(p));
}

void packet_readdress(struct route_packet *p, const struct route_host *from,
                      const struct route_hop *to)
{
    bool plain = p->start == ROUTE_START_IPV4 && from->vlan_be == 0;
    if (__builtin_expect(plain && addr_is_v4(&to->addr), 1)) {
        readdress_plain(p, from, to);
    } else {
        readdress_any(p, from, to);
    }
}

void packet_compose(struct route_packet *p, const struct route_host *from,
                    const struct route_hop *to)
{
    if (addr_is_v4(&to->addr)) {
        begin_ipv4(p, 0);
        write_ipv4(p, from, to);
    } else {
        write_ipv6(p, 0, from, to);
    }
    p->frame->udp = (struct route_udp){
        .src_port = from->port_be,
        .dst_port = to->port_be,
        .len = htons((uint16_t)(sizeof(struct route_udp) + p->weft_len)),
    };
    write_sum(p);
}
