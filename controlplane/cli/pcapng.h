/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pcapng.h - writes captures: header, interfaces, packets with a comment, statistics. Pure: blocks
 * into a caller's buffer; cmd_pcap.c writes them out.
 *
 * Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html (sections 4.1 to 4.3 and
 * 4.6). Little-endian, Ethernet, times in nanoseconds.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PCAPNG_TEXT_MAX 256u /* of names and comments, cut beyond */
/* Room that any block below needs at most, besides the packet's bytes. */
#define PCAPNG_BLOCK_MAX 1024u

/* Each returns the bytes written, or 0 if `size` is too small. */
size_t pcapng_header(uint8_t *out, size_t size, const char *program);

size_t pcapng_interface(uint8_t *out, size_t size, const char *name, const char *text,
                        uint32_t snaplen);

enum pcapng_direction { PCAPNG_IN = 1, PCAPNG_OUT = 2 };

struct pcapng_packet {
    uint32_t interface;
    uint64_t time_ns; /* since 1970 */
    const uint8_t *data;
    uint32_t captured; /* bytes at `data` */
    uint32_t len;      /* bytes of the frame */
    enum pcapng_direction direction;
    uint32_t queue;
    uint64_t lost;       /* packets lost since the one before; 0 = none */
    const char *comment; /* "" = none */
};
size_t pcapng_packet(uint8_t *out, size_t size, const struct pcapng_packet *packet);

/* At the end: what an interface took and lost. */
size_t pcapng_statistics(uint8_t *out, size_t size, uint32_t interface, uint64_t time_ns,
                         uint64_t received, uint64_t lost);
