/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xdp_filter.bpf.c - runs in the kernel, in front of its network stack (AF_XDP driver only): frames
 * for the data port go to the socket of their queue, all others stay the kernel's: ARP, ICMP, SSH,
 * beacons. Compiled for BPF when Weft is built and embedded into xdp.c, which writes the port in.
 *
 * Only what stage_parse() takes is redirected: Ethernet, IPv4 without options and not a fragment,
 * UDP. If the queue has no socket the frame stays with the kernel, too.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name)           __attribute__((section(name), used))
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, value)   value *name

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

struct headers {
    __u8 ether_addresses[12];
    __u16 ether_type;
    __u8 version_ihl;
    __u8 tos;
    __u16 total_len;
    __u16 id;
    __u16 fragment;
    __u8 ttl;
    __u8 protocol;
    __u16 checksum;
    __u8 ip_addresses[8];
    __u16 src_port;
    __u16 dst_port;
    __u8 udp_rest[4];
} __attribute__((packed));

SECTION("xdp") int weft_filter(struct xdp_md *ctx)
{
    const struct headers *h = (const void *)(long)ctx->data;
    if ((const void *)(h + 1) > (const void *)(long)ctx->data_end) {
        return XDP_PASS;
    }
    if (h->ether_type != __builtin_bswap16(0x0800) || h->version_ihl != 0x45 ||
        (h->fragment & __builtin_bswap16(0x3fff)) != 0 || h->protocol != 17 ||
        h->dst_port != weft_settings.port_be) {
        return XDP_PASS;
    }
    return (int)redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}

char weft_license[] SECTION("license") = "Apache-2.0";
