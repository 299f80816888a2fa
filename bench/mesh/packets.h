/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packets.h - datagrams on their way, kept by size class in blocks that are used again: a run
 * allocates only while more is on the way than ever before. For vnet.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PACKET_NONE    UINT32_MAX
#define PACKET_CLASSES 4u

struct packet_class {
    uint8_t **slabs;
    uint32_t slab_count;
    uint32_t used; /* packets ever handed out */
    uint32_t free; /* number of the first free one, PACKET_NONE */
};

struct packets {
    struct packet_class classes[PACKET_CLASSES];
};

void packets_init(struct packets *packets);
void packets_deinit(struct packets *packets);

/* Keeps a copy of at most VNET_DATAGRAM_MAX bytes. Returns its number, PACKET_NONE: no memory. */
uint32_t packets_add(struct packets *packets, uint32_t from, const void *data, size_t size);
const void *packets_at(const struct packets *packets, uint32_t packet, uint32_t *from,
                       size_t *size);
void packets_release(struct packets *packets, uint32_t packet);

/* A list of packets: what comes after `packet`. PACKET_NONE for a new one. */
uint32_t packets_next(const struct packets *packets, uint32_t packet);
void packets_link(struct packets *packets, uint32_t packet, uint32_t next);
