/* SPDX-License-Identifier: Apache-2.0 */
/* parse.c - stage_parse() and stage_parse_worker() of stages.h: is a frame whole, for this node,
 * and sound in itself? */
#include <arpa/inet.h>
#include <string.h>

#include "dataplane/route/stages.h"

/* Is the datagram one of this protocol's, towards the worker, and sound in itself? */
static enum route_drop check_request(const struct weft_req *req, uint32_t weft_len)
{
    uint32_t header = req->h.hdr_words * 4u;
    if (req->h.hdr_words < WEFT_REQ_WORDS || header > weft_len) {
        return ROUTE_DROP_truncated;
    }
    uint32_t payload = weft_len - header;
    uint8_t tier_min = req->h.tiers >> 4;
    uint8_t tier_max = req->h.tiers & 0x0f;
    if (tier_min > tier_max || tier_max > WEFT_TIER_MAX || req->h.conn_id == 0) {
        return ROUTE_DROP_bad_header;
    }
    switch (req->h.type) {
    case WEFT_T_REQ:
        if (payload == 0 || req->h.msg_len > WEFT_MESSAGE_MAX || req->h.offset > req->h.msg_len ||
            payload > req->h.msg_len - req->h.offset) {
            return ROUTE_DROP_bad_length;
        }
        return ROUTE_DROP_COUNT;
    case WEFT_T_ACK:
        return payload >= sizeof(struct weft_ack) ? ROUTE_DROP_COUNT : ROUTE_DROP_bad_length;
    case WEFT_T_RESEND:
        return payload >= sizeof(struct weft_range) ? ROUTE_DROP_COUNT : ROUTE_DROP_bad_length;
    case WEFT_T_CANCEL:
        return ROUTE_DROP_COUNT;
    default:
        return ROUTE_DROP_bad_type;
    }
}

static enum route_drop check_reply(const struct weft_rsp *rsp, uint32_t weft_len)
{
    uint32_t header = rsp->h.hdr_words * 4u;
    if (rsp->h.hdr_words < WEFT_RSP_WORDS || header > weft_len) {
        return ROUTE_DROP_truncated;
    }
    /* Cookies go straight from an ingress to its client and are never relayed. */
    if (rsp->h.type < WEFT_T_RESP || rsp->h.type > WEFT_T_UNKNOWN || rsp->h.type == WEFT_T_COOKIE) {
        return ROUTE_DROP_bad_type;
    }
    return ROUTE_DROP_COUNT;
}

/* ROUTE_DROP_COUNT: nothing wrong. */
static enum route_drop check_weft(const struct route_frame *f, uint32_t weft_len)
{
    if (weft_len < sizeof(struct weft_hdr)) {
        return ROUTE_DROP_truncated;
    }
    if (weft_len > WEFT_DATAGRAM_MAX) {
        return ROUTE_DROP_oversized;
    }
    if (f->weft.common.ver_fmt != WEFT_VER_FMT) {
        return ROUTE_DROP_bad_version;
    }
    bool down = (f->weft.common.type & WEFT_TYPE_DOWN) != 0;
    if (weft_len < (down ? sizeof(struct weft_rsp) : sizeof(struct weft_req))) {
        return ROUTE_DROP_truncated;
    }
    return down ? check_reply(&f->weft.rsp, weft_len) : check_request(&f->weft.req, weft_len);
}

/* What follows the IP header: a UDP datagram of at most `room` bytes. */
static inline enum route_drop check_udp(struct route_packet *p, uint32_t room, bool from_host)
{
    const struct route_frame *f = p->frame;
    uint32_t udp_len = ntohs(f->udp.len);
    if (udp_len < sizeof(struct route_udp) || udp_len > room) {
        return ROUTE_DROP_truncated;
    }
    if (f->udp.src_port == 0 || !from_host) {
        return ROUTE_DROP_bad_header; /* nobody to answer */
    }
    p->weft_len = (uint16_t)(udp_len - sizeof(struct route_udp));
    p->len = ROUTE_WEFT_OFFSET - p->start + p->weft_len;
    return check_weft(f, p->weft_len);
}

/* Puts the view where the IP header behind `link` bytes is in its place. */
static inline void view_ip(struct route_packet *p, uint32_t link, uint32_t ip_offset)
{
    uint8_t *first = (uint8_t *)packet_ether(p);
    p->start = (uint8_t)(ip_offset - link);
    p->frame = (struct route_frame *)(void *)(first - p->start);
}

static inline enum route_drop check_ipv4(const struct route_core *core, struct route_packet *p,
                                         uint32_t link)
{
    const struct route_frame *f = p->frame;
    uint32_t room = p->len - link;
    if (room < sizeof(f->ip) + sizeof(f->udp) || f->ip.version_ihl != 0x45 ||
        f->ip.protocol != ROUTE_IP_PROTOCOL_UDP || f->ip.dst != core->answers.addr ||
        f->ip.dst == 0) {
        return ROUTE_DROP_not_ours;
    }
    if ((f->ip.fragment & htons(0x3fff)) != 0) {
        return ROUTE_DROP_fragmented;
    }
    if (f->udp.dst_port != core->host.port_be) {
        return ROUTE_DROP_not_ours;
    }
    uint8_t known = p->sums & (ROUTE_SUMS_BAD | ROUTE_SUMS_IP_GOOD);
    if (known != ROUTE_SUMS_IP_GOOD && (known != 0 || !packet_ip_ok(&f->ip))) {
        return ROUTE_DROP_bad_checksum;
    }
    uint32_t ip_len = ntohs(f->ip.total_len);
    if (ip_len > room || ip_len < sizeof(f->ip)) {
        return ROUTE_DROP_truncated;
    }
    return check_udp(p, ip_len - (uint32_t)sizeof(f->ip), addr_v4_is_host(f->ip.src));
}

/* For this node, but not with UDP right behind the IPv6 header. */
static enum route_drop check_next_header(uint8_t next_header)
{
    switch (next_header) {
    case IPPROTO_FRAGMENT:
        return ROUTE_DROP_fragmented;
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_AH:
    case IPPROTO_DSTOPTS:
    case IPPROTO_MH:
        return ROUTE_DROP_ip_extension;
    default:
        return ROUTE_DROP_not_ours;
    }
}

static enum route_drop check_ipv6(const struct route_core *core, struct route_packet *p,
                                  uint32_t link)
{
    static const struct in6_addr none = IN6ADDR_ANY_INIT;
    const struct route_frame *f = p->frame;
    uint32_t room = p->len - link;
    if (room < sizeof(f->ip6) + sizeof(f->udp)) {
        return ROUTE_DROP_not_ours;
    }
    struct in6_addr dst = f->ip6.dst;
    struct in6_addr src = f->ip6.src;
    if ((ntohl(f->ip6.version_class_flow) >> 28) != 6 || !addr_equal(&dst, &core->answers.addr6) ||
        addr_equal(&dst, &none)) {
        return ROUTE_DROP_not_ours;
    }
    if (f->ip6.next_header != ROUTE_IP_PROTOCOL_UDP) {
        return check_next_header(f->ip6.next_header);
    }
    if (f->udp.dst_port != core->host.port_be) {
        return ROUTE_DROP_not_ours;
    }
    uint32_t payload_len = ntohs(f->ip6.payload_len);
    if (payload_len > room - sizeof(f->ip6)) {
        return ROUTE_DROP_truncated;
    }
    if (f->udp.checksum == 0 || (p->sums & ROUTE_SUMS_BAD) != 0) {
        return ROUTE_DROP_bad_checksum; /* RFC 8200, 8.1 */
    }
    enum route_drop why = check_udp(p, payload_len, addr_v6_is_host(&src));
    return p->weft_len > ROUTE_DATAGRAM_MAX_IP6 && why == ROUTE_DROP_COUNT ? ROUTE_DROP_oversized
                                                                           : why;
}

/* IPv6, and whatever is tagged or ought to be. */
static __attribute__((noinline)) enum route_drop check_rarer(const struct route_core *core,
                                                             struct route_packet *p)
{
    const uint8_t *first = (const uint8_t *)packet_ether(p);
    uint16_t type = packet_ether(p)->type;
    uint32_t link = sizeof(struct route_ether);
    uint16_t vlan_be = 0;
    if (type == htons(ROUTE_ETHER_TYPE_VLAN)) {
        memcpy(&vlan_be, first + link, sizeof(vlan_be));
        memcpy(&type, first + link + sizeof(vlan_be), sizeof(type));
        vlan_be &= htons(ROUTE_VLAN_ID); /* 0: a tag for its priority alone */
        link += (uint32_t)sizeof(struct route_vlan);
    }
    enum route_drop why = ROUTE_DROP_not_ours;
    if (type == htons(ROUTE_ETHER_TYPE_IPV4)) {
        view_ip(p, link, ROUTE_IPV4_OFFSET);
        why = check_ipv4(core, p, link);
    } else if (type == htons(ROUTE_ETHER_TYPE_IPV6)) {
        view_ip(p, link, ROUTE_IPV6_OFFSET);
        why = check_ipv6(core, p, link);
    }
    return why != ROUTE_DROP_not_ours && vlan_be != core->host.vlan_be ? ROUTE_DROP_wrong_vlan
                                                                       : why;
}

static enum route_drop check_frame(const struct route_core *core, struct route_packet *p)
{
    if (p->len < ROUTE_WEFT_OFFSET - ROUTE_START_IPV4) {
        return ROUTE_DROP_not_ours;
    }
    if (__builtin_expect(p->start != ROUTE_START_IPV4 || core->host.vlan_be != 0 ||
                             packet_ether(p)->type != htons(ROUTE_ETHER_TYPE_IPV4),
                         0)) {
        return check_rarer(core, p);
    }
    return check_ipv4(core, p, sizeof(struct route_ether));
}

/* Whom it reaches in the end may have no IP header to look at (a worker) or another one than came
 * here; so the mark goes into the Weft header too. The one in the IP header stays. */
static __attribute__((noinline)) void note_congestion(struct route_core *core,
                                                      struct route_packet *p)
{
    struct weft_hdr *h = &p->frame->weft.common;
    route_count(&core->counters.congestion);
    packet_set_u8(p->frame, &h->flags, h->flags | WEFT_F_ECN_ECHO);
}

/* Nothing is known of it yet but where it came from. */
static inline void begin(struct route_packet *p, bool from_worker)
{
    p->action = ROUTE_UNDECIDED;
    p->why = 0;
    p->from_worker = p->own = from_worker;
    p->sender = p->next = ROUTE_INDEX_NONE;
}

void stage_parse(struct route_core *core, struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        begin(p, false);
        route_count(&core->counters.received);
        enum route_drop why = check_frame(core, p);
        if (why != ROUTE_DROP_COUNT) {
            route_drop(core, p, why);
        } else if (__builtin_expect((packet_traffic_class(p) & ROUTE_ECN_CE) == ROUTE_ECN_CE, 0)) {
            note_congestion(core, p);
        }
    }
}

void stage_parse_worker(struct route_core *core, struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        begin(p, true);
        p->start = ROUTE_START_IPV4;
        if (check_weft(p->frame, p->weft_len) != ROUTE_DROP_COUNT ||
            (p->frame->weft.common.type & WEFT_TYPE_DOWN) == 0) {
            route_drop(core, p, ROUTE_DROP_worker_garbage);
        }
    }
}

void stage_parse_local(struct route_core *core, struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        begin(p, false);
        enum route_drop why = check_weft(p->frame, p->weft_len);
        if (why != ROUTE_DROP_COUNT) {
            route_drop(core, p, why);
        }
    }
}
