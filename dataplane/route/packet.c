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
    if ((p->sums & ROUTE_SUMS_UDP_GOOD) != 0) {
        return true;
    }
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

static inline uint64_t word_at(const void *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof(word));
    return word;
}

/* In place of `mask` the bits of `value`. */
static inline uint64_t word_with(uint64_t word, uint64_t mask, uint64_t value)
{
    return (word & ~mask) | value;
}

/* Sums with room for all carries; ended by sum_wide(). */
typedef unsigned __int128 wide;

static inline uint64_t sum_wide(wide sum)
{
    return sum_add((uint64_t)sum, (uint64_t)(sum >> 64));
}

/* What was, what is: they differ by (~m + m') of RFC 1624. */
struct change {
    wide before, after;
};

static inline void word_change(struct change *c, uint8_t *at, uint64_t from, uint64_t to)
{
    memcpy(at, &to, sizeof(to));
    c->before += from;
    c->after += to;
}

/* Words are changed in registers and written whole: a load right behind a store of a part of it
 * would wait for that store. */
void packet_ingress(struct route_frame *frame, const struct route_ingress *in)
{
    WEFT_ASSERT(offsetof(struct weft_hdr, flags) == 2 &&
                    offsetof(struct weft_hdr, hops_left) == 4 &&
                    offsetof(struct weft_hdr, route_epoch) == 6,
                "as written here");
    WEFT_ASSERT(offsetof(struct weft_req_hdr, budget_us) == 40 &&
                    offsetof(struct weft_req_hdr, origin) == 54 &&
                    offsetof(struct weft_req_hdr, target) == 56 &&
                    offsetof(struct weft_req_hdr, max_tokens) == 62,
                "as written here");
    uint8_t *bytes = frame->weft.bytes;
    uint64_t head = word_at(bytes);
    uint64_t budget = word_at(bytes + 40);
    uint64_t origin = word_at(bytes + 48);
    uint64_t nodes = word_at(bytes + 56);
    struct change c = {0, (uint16_t)~frame->udp.checksum};
    word_change(&c, bytes, head,
                word_with(head, UINT64_C(0xffff00ff00000000),
                          (uint64_t)in->epoch << 48 | (uint64_t)in->hops_left << 32 |
                              (uint64_t)WEFT_F_RELAYED << 16));
    word_change(&c, bytes + 40, budget, word_with(budget, UINT32_MAX, in->budget_us));
    word_change(&c, bytes + 48, origin,
                word_with(origin, UINT64_C(0xffff) << 48, (uint64_t)in->origin << 48));
    word_change(&c, bytes + 56, nodes,
                word_with(nodes, UINT64_C(0xffffffffffff),
                          in->target | (uint64_t)in->alternates[0] << 16 |
                              (uint64_t)in->alternates[1] << 32));
    uint8_t *block = bytes + sizeof(struct weft_req_hdr);
    word_change(&c, block, word_at(block), in->block[0]);
    word_change(&c, block + 8, word_at(block + 8), in->block[1]);
    word_change(&c, block + 16, word_at(block + 16), in->block[2]);
    word_change(&c, block + 24, word_at(block + 24), in->block[3]);
    if (frame->udp.checksum != 0) {
        uint64_t sum = sum_add(sum_wide(c.after), ~sum_wide(c.before));
        uint16_t checksum = (uint16_t)~sum_fold_wide(sum);
        frame->udp.checksum = checksum != 0 ? checksum : 0xffffu;
    }
}

void packet_return_words(const struct route_packet *p, uint64_t words[3])
{
    WEFT_ASSERT(offsetof(struct weft_return, port) == 16 && offsetof(struct weft_return, mac) == 18,
                "as written here");
    const struct route_frame *f = p->frame;
    const uint8_t *mac = packet_ether(p)->src;
    uint32_t mac_head;
    uint16_t mac_tail;
    memcpy(&mac_head, mac, sizeof(mac_head));
    memcpy(&mac_tail, mac + sizeof(mac_head), sizeof(mac_tail));
    if (__builtin_expect(!packet_is_ip6(p), 1)) {
        words[0] = 0;
        words[1] = htonl(0xffff) | (uint64_t)f->ip.src << 32; /* addr_of_v4() */
    } else {
        memcpy(words, &f->ip6.src, sizeof(f->ip6.src));
    }
    words[2] = ntohs(f->udp.src_port) | (uint64_t)mac_head << 16 | (uint64_t)mac_tail << 48;
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

/* Everything of an IPv4 header behind its first 8 bytes, which stay as they are; its own checksum
 * from scratch: it is 20 bytes. */
static inline void ip_finish(struct route_ipv4 *ip, uint32_t src, uint32_t dst)
{
    uint32_t ttl = htonl((ROUTE_IP_TTL << 8 | ROUTE_IP_PROTOCOL_UDP) << 16);
    uint64_t sum = sum_add(word_at(ip), (uint64_t)ttl + src + dst);
    uint32_t third = ttl | (uint32_t)(uint16_t)~sum_fold_wide(sum) << 16;
    WEFT_ASSERT(offsetof(struct route_ipv4, ttl) == 8 &&
                    offsetof(struct route_ipv4, checksum) == 10,
                "one word");
    memcpy(&ip->ttl, &third, sizeof(third));
    ip->src = src;
    ip->dst = dst;
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

/* The first 8 bytes of an IPv4 header, in one store. */
static inline void begin_ipv4(struct route_packet *p, uint8_t traffic_class)
{
    uint32_t size = (uint32_t)(sizeof(struct route_ipv4) + sizeof(struct route_udp)) + p->weft_len;
    uint64_t first = 0x45u | (uint32_t)traffic_class << 8 | (uint32_t)htons((uint16_t)size) << 16 |
                     (uint64_t)htons(0x4000) << 48; /* never fragment; no id */
    memcpy(&p->frame->ip, &first, sizeof(first));
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
    ip_finish(&p->frame->ip, from->addr, addr_v4(&to->addr));
    write_link(p, ROUTE_IPV4_OFFSET, htons(ROUTE_ETHER_TYPE_IPV4), from, to);
}

/* From scratch; a result of 0 would mean "none". */
static void write_sum(struct route_packet *p)
{
    p->frame->udp.checksum = 0;
    uint16_t sum = packet_udp_sum(p);
    p->frame->udp.checksum = sum != 0 ? sum : 0xffffu;
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
    f->udp.src_port = from->port_be;
    f->udp.dst_port = to->port_be;
    ip_finish(&f->ip, from->addr, dst);
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
        write_ipv6(p, packet_traffic_class(p), from, to);
    } else {
        if (packet_is_ip6(p)) {
            begin_ipv4(p, packet_traffic_class(p));
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
    struct route_frame *f = p->frame;
    bool four = addr_is_v4(&to->addr);
    uint8_t traffic_class = f->weft.common.type == WEFT_T_RESP ? ROUTE_ECN_ECT0 : 0;
    uint16_t len_be = htons((uint16_t)(sizeof(struct route_udp) + p->weft_len));
    /* From what is written, not from where: see packet_ingress(). The length counts twice. */
    uint64_t sum = (uint64_t)htons(ROUTE_IP_PROTOCOL_UDP) + len_be;
    if (four) {
        begin_ipv4(p, traffic_class);
        write_ipv4(p, from, to);
        sum += (uint64_t)from->addr + addr_v4(&to->addr);
    } else {
        write_ipv6(p, traffic_class, from, to);
        sum = sum_bytes(&from->addr6, sizeof(from->addr6), sum);
        sum = sum_bytes(&to->addr, sizeof(to->addr), sum);
    }
    uint16_t checksum = sum_fold_wide(sum);
    if (__builtin_expect(!from->port_sums, 1)) {
        sum += (uint64_t)len_be + from->port_be + to->port_be;
        checksum = (uint16_t)~sum_fold_wide(sum_bytes(f->weft.bytes, p->weft_len, sum));
        checksum = checksum != 0 ? checksum : 0xffffu; /* 0 would mean "none" */
    }
    uint64_t udp = from->port_be | (uint32_t)to->port_be << 16 | (uint64_t)len_be << 32 |
                   (uint64_t)checksum << 48;
    memcpy(&f->udp, &udp, sizeof(udp));
}
