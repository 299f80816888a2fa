/* SPDX-License-Identifier: Apache-2.0 */
/* pcapng.c - see pcapng.h. */
#include "controlplane/cli/pcapng.h"

#include <string.h>

#include "schemas/base/cursor.h"

#define BLOCK_SECTION    0x0a0d0d0au
#define BLOCK_INTERFACE  1u
#define BLOCK_STATISTICS 5u
#define BLOCK_PACKET     6u
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define LINK_ETHERNET    1u
#define TIME_NANOSECONDS 9u /* if_tsresol: negative power of ten */

enum option {
    OPTION_END = 0,
    OPTION_COMMENT = 1,
    OPTION_SHB_USERAPPL = 4,
    OPTION_IF_NAME = 2,
    OPTION_IF_DESCRIPTION = 3,
    OPTION_IF_TSRESOL = 9,
    OPTION_EPB_FLAGS = 2,
    OPTION_EPB_DROPCOUNT = 4,
    OPTION_EPB_QUEUE = 6,
    OPTION_ISB_IFRECV = 4,
    OPTION_ISB_IFDROP = 5,
};

/* ---- pieces ---- */

static void pad(struct cursor *c, size_t written)
{
    static const uint8_t zeros[4];
    cursor_write(c, zeros, (4 - written % 4) % 4);
}

static void option_put(struct cursor *c, enum option code, const void *value, size_t len)
{
    cursor_write_u16(c, (uint16_t)code);
    cursor_write_u16(c, (uint16_t)len);
    cursor_write(c, value, len);
    pad(c, len);
}

static void text_put(struct cursor *c, enum option code, const char *text)
{
    size_t len = strnlen(text, PCAPNG_TEXT_MAX);
    if (len > 0) {
        option_put(c, code, text, len);
    }
}

/* The length stands at both ends and is known only now. */
static void block_begin(struct cursor *c, uint8_t *out, size_t size, uint32_t type)
{
    cursor_init(c, out, size);
    cursor_write_u32(c, type);
    cursor_write_u32(c, 0);
}

static size_t block_end(struct cursor *c, uint8_t *out)
{
    cursor_write_u32(c, OPTION_END);
    cursor_write_u32(c, 0);
    if (c->failed) {
        return 0;
    }
    uint32_t len = (uint32_t)(c->at - out);
    memcpy(out + 4, &len, sizeof(len));
    memcpy(c->at - 4, &len, sizeof(len));
    return len;
}

static void time_put(struct cursor *c, uint64_t time_ns)
{
    cursor_write_u32(c, (uint32_t)(time_ns >> 32));
    cursor_write_u32(c, (uint32_t)time_ns);
}

/* ---- blocks ---- */

size_t pcapng_header(uint8_t *out, size_t size, const char *program)
{
    struct cursor c;
    block_begin(&c, out, size, BLOCK_SECTION);
    cursor_write_u32(&c, BYTE_ORDER_MAGIC);
    cursor_write_u16(&c, 1); /* version 1.0 */
    cursor_write_u16(&c, 0);
    cursor_write_u64(&c, UINT64_MAX); /* section length: not known */
    text_put(&c, OPTION_SHB_USERAPPL, program);
    return block_end(&c, out);
}

size_t pcapng_interface(uint8_t *out, size_t size, const char *name, const char *text,
                        uint32_t snaplen)
{
    struct cursor c;
    uint8_t resolution = TIME_NANOSECONDS;
    block_begin(&c, out, size, BLOCK_INTERFACE);
    cursor_write_u16(&c, LINK_ETHERNET);
    cursor_write_u16(&c, 0);
    cursor_write_u32(&c, snaplen);
    text_put(&c, OPTION_IF_NAME, name);
    text_put(&c, OPTION_IF_DESCRIPTION, text);
    option_put(&c, OPTION_IF_TSRESOL, &resolution, sizeof(resolution));
    return block_end(&c, out);
}

size_t pcapng_packet(uint8_t *out, size_t size, const struct pcapng_packet *packet)
{
    struct cursor c;
    uint32_t flags = (uint32_t)packet->direction;
    block_begin(&c, out, size, BLOCK_PACKET);
    cursor_write_u32(&c, packet->interface);
    time_put(&c, packet->time_ns);
    cursor_write_u32(&c, packet->captured);
    cursor_write_u32(&c, packet->len);
    cursor_write(&c, packet->data, packet->captured);
    pad(&c, packet->captured);
    text_put(&c, OPTION_COMMENT, packet->comment);
    option_put(&c, OPTION_EPB_FLAGS, &flags, sizeof(flags));
    if (packet->lost > 0) {
        option_put(&c, OPTION_EPB_DROPCOUNT, &packet->lost, sizeof(packet->lost));
    }
    option_put(&c, OPTION_EPB_QUEUE, &packet->queue, sizeof(packet->queue));
    return block_end(&c, out);
}

size_t pcapng_statistics(uint8_t *out, size_t size, uint32_t interface, uint64_t time_ns,
                         uint64_t received, uint64_t lost)
{
    struct cursor c;
    block_begin(&c, out, size, BLOCK_STATISTICS);
    cursor_write_u32(&c, interface);
    time_put(&c, time_ns);
    option_put(&c, OPTION_ISB_IFRECV, &received, sizeof(received));
    option_put(&c, OPTION_ISB_IFDROP, &lost, sizeof(lost));
    return block_end(&c, out);
}
