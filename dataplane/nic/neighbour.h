/* SPDX-License-Identifier: Apache-2.0 */
/*
 * neighbour.h - link addresses of the other nodes, asked of the kernel (rtnetlink): ARP, neighbour
 * discovery, routes and gateways stay the kernel's business, the packet path only copies the answer
 * into its table. Control thread only. Needs traffic through the kernel to keep entries fresh;
 * beacons are that.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct neighbours;

struct neighbour {
    struct in6_addr address; /* in: of the node, schemas/base/addr.h */
    bool known;              /* out */
    uint8_t mac[6];          /* out: of the next hop to it */
};

/* Heap; `interface` is the one packets leave by, tagged for `vlan` unless that is 0. A VLAN's
 * neighbours are those of the kernel's VLAN device upon that interface, which must be there.
 * Returns 0 or -errno; -ENODEV: no such interface, or no such VLAN device. */
int neighbours_create(struct neighbours **neighbours, const char *interface, uint32_t vlan);
void neighbours_destroy(struct neighbours *neighbours);

/* Looks up all. Returns how many answers have changed, or -errno (the list is then as it was). */
int neighbours_refresh(struct neighbours *neighbours, struct neighbour *list, uint32_t count);

/* Was the neighbour unknown at the last refresh, or has it another link address since? */
bool neighbours_is_news(const struct neighbours *neighbours, uint32_t interface,
                        const struct in6_addr *address, const uint8_t mac[6]);
