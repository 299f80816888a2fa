/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xdp_filter.bpf.c - runs in the kernel, in front of its network stack (AF_XDP driver only): frames
 * for the data port go to the socket of their queue, all others stay the kernel's: ARP, ICMP, SSH,
 * beacons. Compiled for BPF when Weft is built and embedded into xdp.c, which writes the port in.
 *
 * Only what stage_parse() can take is redirected: Ethernet with one 802.1Q tag at most, IPv4
 * without options and not a fragment or IPv6 without extension headers, UDP. If the queue has no
 * socket the frame stays with the kernel, too.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name)           __attribute__((section(name), used))
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, value)   value *name
#define BIG16(value)            __builtin_bswap16(value)

/* Helper functions of the kernel are called by number. */
static long (*const redirect_map)(void *map, __u64 key,
                                  __u64 flags) = (void *)BPF_FUNC_redirect_map;

/* The driver looks for a map of this name and puts its sockets in, by queue. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_XSKMAP);
    MAP_NUMBER(max_entries, 64);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, __u32);
} xsks_map SECTION(".maps");

/* xdp.c finds the marker in the object file and writes the port (as on the wire) behind it. */
const volatile struct {
    char marker[8];
    __u16 port_be;
    __u8 unused[6];
} weft_settings SECTION(".rodata") = {.marker = {'W', 'e', 'f', 't', 'P', 'o', 'r', 't'}};

struct ether {
    __u8 addresses[12];
    __u16 type;
} __attribute__((packed));

struct vlan {
    __u16 tag;
    __u16 type;
} __attribute__((packed));

struct udp {
    __u16 src_port;
    __u16 dst_port;
    __u16 len;
    __u16 checksum;
} __attribute__((packed));

struct ipv4_udp {
    __u8 version_ihl;
    __u8 tos;
    __u16 total_len;
    __u16 id;
    __u16 fragment;
    __u8 ttl;
    __u8 protocol;
    __u16 checksum;
    __u8 addresses[8];
    struct udp udp;
} __attribute__((packed));

struct ipv6_udp {
    __u32 version_flow;
    __u16 payload_len;
    __u8 next_header;
    __u8 hop_limit;
    __u8 addresses[32];
    struct udp udp;
} __attribute__((packed));

static inline int is_ours(const void *at, const void *end, __u16 type)
{
    if (type == BIG16(0x0800)) {
        const struct ipv4_udp *h = at;
        return (const void *)(h + 1) <= end && h->version_ihl == 0x45 &&
               (h->fragment & BIG16(0x3fff)) == 0 && h->protocol == 17 &&
               h->udp.dst_port == weft_settings.port_be;
    }
    if (type == BIG16(0x86dd)) {
        const struct ipv6_udp *h = at;
        return (const void *)(h + 1) <= end && h->next_header == 17 &&
               h->udp.dst_port == weft_settings.port_be;
    }
    return 0;
}

SECTION("xdp") int weft_filter(struct xdp_md *ctx)
{
    const void *end = (const void *)(long)ctx->data_end;
    const struct ether *ether = (const void *)(long)ctx->data;
    const struct vlan *vlan = (const void *)(ether + 1);
    if ((const void *)(vlan + 1) > end) {
        return XDP_PASS;
    }
    int tagged = ether->type == BIG16(0x8100);
    const void *network = tagged ? (const void *)(vlan + 1) : (const void *)vlan;
    if (!is_ours(network, end, tagged ? vlan->type : ether->type)) {
        return XDP_PASS;
    }
    return (int)redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}

char weft_license[] SECTION("license") = "Apache-2.0";
