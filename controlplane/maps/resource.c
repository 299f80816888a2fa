/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resource.c - see resource.h.
 *
 *     0  u8   RESOURCE_MAGIC
 *     1  u8   length of the whole message
 *     2  u16  mask: fields that follow
 *     4  u32  age in 0.1 ms, stops at its largest value
 *     8  u64  incarnation
 *    16  u32  version        20  u32  version of the whole message that this one builds on
 *    24  u32  node           28  the fields by rising bit, each a varint; models: count, then u32
 * each
 */
#include "controlplane/maps/resource.h"

#include <string.h>

#include "schemas/base/cursor.h"

#define RESOURCE_MAGIC   0xb7u
#define AGE_UNIT_NS      (NS_PER_MS / 10)
#define HEADER_BYTES     28u
#define VARINT_BYTES_MAX 5u
_Static_assert(HEADER_BYTES + RESOURCE_FIELD_COUNT * VARINT_BYTES_MAX + 1 +
                       4 * RESOURCE_MODELS_MAX <=
                   RESOURCE_WIRE_MAX,
               "the longest message fits");
_Static_assert(RESOURCE_WIRE_MAX <= UINT8_MAX, "its length fits a byte");

/* ---- varints: seven bits a byte, low ones first (LEB128), the shortest form only ---- */

/* Not inlined: gcc 12 at -O3 takes fifteen of them in a row for writes behind the message. */
static __attribute__((noinline)) void write_varint(struct cursor *c, uint32_t value)
{
    uint8_t bytes[VARINT_BYTES_MAX];
    size_t count = 0;
    for (; value >= 0x80 && count < VARINT_BYTES_MAX - 1; value >>= 7) {
        bytes[count++] = (uint8_t)(value | 0x80);
    }
    bytes[count++] = (uint8_t)value;
    cursor_write(c, bytes, count);
}

static uint32_t read_varint(struct cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 7 * VARINT_BYTES_MAX; shift += 7) {
        uint8_t byte = cursor_read_u8(c);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            c->failed |= value > UINT32_MAX || (byte == 0 && shift > 0);
            return (uint32_t)value;
        }
    }
    c->failed = true;
    return 0;
}

/* ---- messages ---- */

static uint32_t age_units(uint64_t age_ns)
{
    uint64_t units = age_ns / AGE_UNIT_NS;
    return units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

size_t resource_write(const struct resource_message *message, uint8_t out[RESOURCE_WIRE_MAX])
{
    const struct resource_facts *facts = &message->facts;
    struct cursor c;
    cursor_init(&c, out, RESOURCE_WIRE_MAX);
    cursor_write_u8(&c, RESOURCE_MAGIC);
    cursor_write_u8(&c, 0);
    cursor_write_u16(&c, (uint16_t)message->mask);
    cursor_write_u32(&c, age_units(message->age_ns));
    cursor_write_u64(&c, message->incarnation);
    cursor_write_u32(&c, message->version);
    cursor_write_u32(&c, message->whole_version);
    cursor_write_u32(&c, message->node);
#define WRITE_(bit, type, name, text)                                                              \
    if ((message->mask >> (bit)) & 1) {                                                            \
        write_varint(&c, facts->name);                                                             \
    }
    RESOURCE_FIELDS(WRITE_)
#undef WRITE_
    if (message->mask & RESOURCE_MODELS_BIT) {
        cursor_write_u8(&c, (uint8_t)facts->model_count);
        cursor_write(&c, facts->models, facts->model_count * sizeof(facts->models[0]));
    }
    out[1] = (uint8_t)(c.at - out);
    return out[1];
}

static void read_models(struct cursor *c, struct resource_facts *facts)
{
    facts->model_count = cursor_read_u8(c);
    if (facts->model_count > RESOURCE_MODELS_MAX) {
        c->failed = true;
        return;
    }
    cursor_read(c, facts->models, facts->model_count * sizeof(facts->models[0]));
}

bool resource_read(struct resource_message *message, const void *data, size_t size)
{
    memset(message, 0, sizeof(*message));
    struct cursor c;
    cursor_init_const(&c, data, size);
    bool known = cursor_read_u8(&c) == RESOURCE_MAGIC;
    size_t length = cursor_read_u8(&c);
    message->mask = cursor_read_u16(&c);
    message->age_ns = cursor_read_u32(&c) * AGE_UNIT_NS;
    message->incarnation = cursor_read_u64(&c);
    message->version = cursor_read_u32(&c);
    message->whole_version = cursor_read_u32(&c);
    message->node = cursor_read_u32(&c);
    if (!known || length != size || (message->mask & ~RESOURCE_MASK_ALL) != 0 ||
        message->version == 0 || message->whole_version == 0 ||
        message->whole_version > message->version) {
        return false;
    }
#define READ_(bit, type, name, text)                                                               \
    if ((message->mask >> (bit)) & 1) {                                                            \
        message->facts.name = read_varint(&c);                                                     \
    }
    RESOURCE_FIELDS(READ_)
#undef READ_
    if (message->mask & RESOURCE_MODELS_BIT) {
        read_models(&c, &message->facts);
    }
    bool whole = message->whole_version == message->version;
    return !c.failed && cursor_left(&c) == 0 && (!whole || message->mask == RESOURCE_MASK_ALL);
}
