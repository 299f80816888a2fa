/* SPDX-License-Identifier: Apache-2.0 */
/* witness.c - see witness.h. */
#include "controlplane/maps/witness.h"

#include <string.h>

#include "schemas/base/cursor.h"

#define WITNESS_MAGIC   0xc7u
#define WITNESS_VERSION 1u
_Static_assert(WITNESS_WIRE_MAX <= 1000, "leaves room in a datagram of 1,232 bytes");

static uint32_t capped(uint64_t value_ns, uint64_t unit_ns, uint32_t max)
{
    uint64_t units = value_ns / unit_ns;
    return units < max ? (uint32_t)units : max;
}

size_t witness_write(const struct witness *witness, uint8_t out[WITNESS_WIRE_MAX])
{
    const uint8_t header[WITNESS_HEADER_BYTES] = {WITNESS_MAGIC, WITNESS_VERSION,
                                                  (uint8_t)witness->leg_count,
                                                  (uint8_t)witness->subject_count};
    struct cursor c;
    cursor_init(&c, out, WITNESS_WIRE_MAX);
    if (witness->leg_count > WITNESS_LEGS_MAX || witness->subject_count > WITNESS_SUBJECTS_MAX) {
        return 0;
    }
    cursor_write(&c, header, sizeof(header));
    for (uint32_t i = 0; i < witness->leg_count; i++) {
        const struct witness_leg *leg = &witness->legs[i];
        cursor_write_u32(&c, leg->to);
        cursor_write_u32(&c, capped(leg->rtt_ns, NS_PER_US, UINT32_MAX));
        cursor_write_u32(&c, capped(leg->p95_ns, NS_PER_US, UINT32_MAX));
        cursor_write_u16(&c, (uint16_t)capped(leg->age_ns, NS_PER_MS, UINT16_MAX));
    }
    for (uint32_t i = 0; i < witness->subject_count; i++) {
        cursor_write_u32(&c, witness->subjects[i]);
    }
    return (size_t)(c.at - out);
}

bool witness_read(struct witness *witness, const void *data, size_t size)
{
    memset(witness, 0, sizeof(*witness));
    struct cursor c;
    cursor_init_const(&c, data, size);
    bool known = cursor_read_u8(&c) == WITNESS_MAGIC && cursor_read_u8(&c) == WITNESS_VERSION;
    uint32_t legs = cursor_read_u8(&c), subjects = cursor_read_u8(&c);
    if (!known || legs > WITNESS_LEGS_MAX || subjects > WITNESS_SUBJECTS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < legs; i++) {
        struct witness_leg *leg = &witness->legs[i];
        leg->to = cursor_read_u32(&c);
        leg->rtt_ns = cursor_read_u32(&c) * NS_PER_US;
        leg->p95_ns = cursor_read_u32(&c) * NS_PER_US;
        leg->age_ns = cursor_read_u16(&c) * NS_PER_MS;
    }
    for (uint32_t i = 0; i < subjects; i++) {
        witness->subjects[i] = cursor_read_u32(&c);
    }
    witness->leg_count = legs;
    witness->subject_count = subjects;
    return !c.failed && cursor_left(&c) == 0;
}

void witness_apply(const struct witness *witness, uint32_t observer, struct relay_map *relays,
                   struct position_map *positions, uint64_t path_ns, uint64_t now_ns)
{
    for (uint32_t i = 0; i < witness->leg_count; i++) {
        const struct witness_leg *leg = &witness->legs[i];
        relay_learn(relays, observer, leg->to, leg->rtt_ns, leg->p95_ns, leg->age_ns + path_ns,
                    now_ns);
    }
    for (uint32_t i = 0; i < witness->subject_count; i++) {
        position_contradict(positions, observer, witness->subjects[i], now_ns);
    }
}
