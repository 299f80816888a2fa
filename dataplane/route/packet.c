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
 * (RFC 1071, 2.B): everything here stays in memory order. */
static uint32_t sum_bytes(const void *data, uint32_t size, uint32_t sum)
{
    const uint8_t *p = data;
    uint64_t wide = sum;
    for (; size >= 4; size -= 4, p += 4) {
        uint32_t word;
        memcpy(&word, p, sizeof(word));
        wide += word;
    }
    if (size >= 2) {
        uint16_t half;
        memcpy(&half, p, sizeof(half));
        wide += half;
        size -= 2;
        p += 2;
    }
    if (size != 0) {
        wide += *p; /* little-endian: a last odd byte is the low one of its word */
    }
    wide = (wide & 0xffffffffu) + (wide >> 32);
    wide = (wide & 0xffffffffu) + (wide >> 32);
    return (uint32_t)wide;
}

static uint16_t sum_fold(uint32_t sum)
{
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t packet_udp_sum(const struct route_frame *frame)
{
    uint32_t len = ntohs(frame->udp.len);
    uint32_t pseudo = (uint32_t)htons(ROUTE_IP_PROTOCOL_UDP) + frame->udp.len;
    uint32_t sum = sum_bytes(&frame->ip.src, 8, pseudo);
    uint64_t wide = (uint64_t)sum + sum_bytes(&frame->udp, len, 0);
    uint32_t folded = (uint32_t)((wide & 0xffffffffu) + (wide >> 32));
    return (uint16_t)~sum_fold(folded);
}

bool packet_udp_ok(const struct route_frame *frame)
{
    return frame->udp.checksum == 0 || packet_udp_sum(frame) == 0;
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

/* Sum of `words` 8-byte words, end-around carry. */
static inline uint16_t sum_words(const void *data, uint32_t words)
{
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, p + 8 * i, sizeof(word));
        sum += word;
        sum += sum < word;
    }
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    return sum_fold((uint32_t)sum);
}

uint16_t packet_request_sum(const struct route_frame *frame)
{
    return sum_words(&frame->weft.req, sizeof(frame->weft.req) / 8);
}

void packet_request_changed(struct route_frame *frame, uint16_t before)
{
    udp_update(frame, before, packet_request_sum(frame));
}

void packet_set(struct route_frame *frame, void *field, const void *value, uint32_t size)
{
    uint16_t before = sum_fold(sum_bytes(field, size, 0));
    memcpy(field, value, size);
    udp_update(frame, before, sum_fold(sum_bytes(field, size, 0)));
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
    uint64_t sum =
        (first & 0xffffffffu) + (first >> 32) + (second & 0xffffffffu) + (second >> 32) + third;
    sum = (sum & 0xffffffffu) + (sum >> 32);
    ip->checksum = (uint16_t)~sum_fold((uint32_t)sum);
}

/* Sum of what packet_readdress() changes under the UDP checksum. */
static inline uint16_t address_sum(const struct route_frame *frame)
{
    uint64_t sum =
        (uint64_t)frame->ip.src + frame->ip.dst + frame->udp.src_port + frame->udp.dst_port;
    sum = (sum & 0xffffffffu) + (sum >> 32);
    return sum_fold((uint32_t)sum);
}

void packet_readdress(struct route_frame *frame, const struct route_host *from,
                      const struct route_hop *to)
{
    uint16_t before = address_sum(frame);
    memcpy(frame->ether.dst, to->mac, sizeof(to->mac));
    memcpy(frame->ether.src, from->mac, sizeof(from->mac));
    frame->ip.src = from->addr;
    frame->ip.dst = to->addr;
    frame->udp.src_port = from->port_be;
    frame->udp.dst_port = to->port_be;
    udp_update(frame, before, address_sum(frame));
    ip_finish(&frame->ip);
}

uint32_t packet_compose(struct route_frame *frame, uint32_t weft_len, const struct route_host *from,
                        const struct route_hop *to)
{
    uint16_t udp_len = (uint16_t)(sizeof(struct route_udp) + weft_len);
    memcpy(frame->ether.dst, to->mac, sizeof(to->mac));
    memcpy(frame->ether.src, from->mac, sizeof(from->mac));
    frame->ether.type = htons(ROUTE_ETHER_TYPE_IPV4);
    frame->ip = (struct route_ipv4){
        .version_ihl = 0x45,
        .total_len = htons((uint16_t)(sizeof(struct route_ipv4) + udp_len)),
        .fragment = htons(0x4000), /* never fragment */
        .protocol = ROUTE_IP_PROTOCOL_UDP,
        .src = from->addr,
        .dst = to->addr,
    };
    ip_finish(&frame->ip);
    frame->udp = (struct route_udp){
        .src_port = from->port_be,
        .dst_port = to->port_be,
        .len = htons(udp_len),
    };
    uint16_t sum = packet_udp_sum(frame);
    frame->udp.checksum = sum != 0 ? sum : 0xffffu;
    return ROUTE_WEFT_OFFSET + weft_len;
}
