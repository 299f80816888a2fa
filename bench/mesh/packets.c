/* SPDX-License-Identifier: Apache-2.0 */
/* packets.c - see packets.h. A packet's number is its place in its class, times the classes. */
#include "bench/mesh/packets.h"

#include <stdlib.h>
#include <string.h>

#define SLAB_PACKETS 1024u

struct packet {
    uint32_t next; /* in a list, of free ones too */
    uint32_t from;
    uint32_t size;
    uint8_t data[];
};

static const uint32_t class_bytes[PACKET_CLASSES] = {96, 240, 600, 1280};

static struct packet *packet_at(const struct packets *packets, uint32_t packet)
{
    uint32_t kind = packet % PACKET_CLASSES;
    uint32_t at = packet / PACKET_CLASSES;
    size_t stride = sizeof(struct packet) + class_bytes[kind];
    uint8_t *slab = packets->classes[kind].slabs[at / SLAB_PACKETS];
    return (struct packet *)(void *)(slab + stride * (at % SLAB_PACKETS));
}

void packets_init(struct packets *packets)
{
    memset(packets, 0, sizeof(*packets));
    for (uint32_t i = 0; i < PACKET_CLASSES; i++) {
        packets->classes[i].free = PACKET_NONE;
    }
}

void packets_deinit(struct packets *packets)
{
    for (uint32_t i = 0; i < PACKET_CLASSES; i++) {
        for (uint32_t j = 0; j < packets->classes[i].slab_count; j++) {
            free(packets->classes[i].slabs[j]);
        }
        free(packets->classes[i].slabs);
    }
    packets_init(packets);
}

static uint32_t packet_fresh(struct packet_class *class, uint32_t kind)
{
    if (class->used == class->slab_count * SLAB_PACKETS) {
        size_t stride = sizeof(struct packet) + class_bytes[kind];
        uint8_t *slab = malloc(stride * SLAB_PACKETS);
        uint8_t **slabs = realloc(class->slabs, (class->slab_count + 1) * sizeof(*slabs));
        if (slabs != NULL) {
            class->slabs = slabs;
        }
        if (slab == NULL || slabs == NULL) {
            free(slab);
            return PACKET_NONE;
        }
        slabs[class->slab_count++] = slab;
    }
    return class->used++ * PACKET_CLASSES + kind;
}

uint32_t packets_add(struct packets *packets, uint32_t from, const void *data, size_t size)
{
    uint32_t kind = 0;
    while (kind < PACKET_CLASSES && class_bytes[kind] < size) {
        kind++;
    }
    if (kind == PACKET_CLASSES) {
        return PACKET_NONE;
    }
    struct packet_class *class = &packets->classes[kind];
    uint32_t number = class->free;
    if (number != PACKET_NONE) {
        class->free = packet_at(packets, number)->next;
    } else {
        number = packet_fresh(class, kind);
    }
    if (number != PACKET_NONE) {
        struct packet *packet = packet_at(packets, number);
        packet->next = PACKET_NONE;
        packet->from = from;
        packet->size = (uint32_t)size;
        memcpy(packet->data, data, size);
    }
    return number;
}

const void *packets_at(const struct packets *packets, uint32_t number, uint32_t *from, size_t *size)
{
    const struct packet *packet = packet_at(packets, number);
    *from = packet->from;
    *size = packet->size;
    return packet->data;
}

void packets_release(struct packets *packets, uint32_t number)
{
    struct packet_class *class = &packets->classes[number % PACKET_CLASSES];
    packet_at(packets, number)->next = class->free;
    class->free = number;
}

uint32_t packets_next(const struct packets *packets, uint32_t number)
{
    return packet_at(packets, number)->next;
}

void packets_link(struct packets *packets, uint32_t number, uint32_t next)
{
    packet_at(packets, number)->next = next;
}
