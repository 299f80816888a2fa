/* SPDX-License-Identifier: Apache-2.0 */
/* state.c - see state.h. */
#include "controlplane/maps/state.h"

#include <string.h>

#include "controlplane/maps/resource.h"
#include "schemas/base/cursor.h"
#include "schemas/base/text.h"

WEFT_ASSERT(MEMBERS_MODELS_MAX <= RESOURCE_MODELS_MAX, "a message names them all");

/* With a length before it; what is not a short text is not there. */
static void text_write(struct cursor *c, const char *text, size_t room)
{
    size_t len = strnlen(text, room);
    len = len < room ? len : 0;
    cursor_write_u8(c, (uint8_t)len);
    cursor_write(c, text, len);
}

static void text_read(struct cursor *c, char *text, size_t room)
{
    size_t len = cursor_read_u8(c);
    if (len >= room) {
        c->failed = true;
        return;
    }
    cursor_read(c, text, len);
    c->failed = c->failed || !text_is_word(text, len);
}

/* How many of the models have room with their names, everything else at its longest, and *speeds
 * how many of their speeds behind that. */
static uint32_t models_that_fit(const struct members_facts *facts, uint32_t *speeds)
{
    size_t used = 1 + VIVALDI_WIRE_BYTES + 1 + RESOURCE_WIRE_MAX + 1 + WEFT_BACKEND_MAX + 1 + 1 +
                  2 * STATE_DOUBTS + 1 + 1 + sizeof(facts->prefixes);
    uint32_t count = 0;
    while (count < facts->model_count && count < MEMBERS_MODELS_MAX) {
        size_t more =
            1 + strnlen(facts->models[count].name, WEFT_MODEL_NAME_MAX) + sizeof(uint32_t);
        if (used + more > STATE_BYTES_MAX) {
            break;
        }
        used += more;
        count++;
    }
    size_t room = used < STATE_BYTES_MAX ? STATE_BYTES_MAX - used - 1 : 0;
    room /= sizeof(struct speeds);
    *speeds = room < count ? (uint32_t)room : count;
    return count;
}

static void doubts_write(struct cursor *c, const struct state_doubts *doubts)
{
    cursor_write_u8(c, (uint8_t)doubts->count);
    for (uint32_t i = 0; i < doubts->count; i++) {
        cursor_write_u16(c, doubts->ids[i]);
    }
}

static void doubts_read(struct cursor *c, struct state_doubts *doubts)
{
    doubts->count = cursor_read_u8(c);
    c->failed = c->failed || doubts->count > STATE_DOUBTS;
    for (uint32_t i = 0; !c->failed && i < doubts->count; i++) {
        doubts->ids[i] = cursor_read_u16(c);
    }
}

static void arithmetics_read(struct cursor *c, struct members_facts *facts)
{
    c->failed = cursor_read_u8(c) != facts->model_count * sizeof(uint32_t);
    for (uint32_t i = 0; i < facts->model_count && !c->failed; i++) {
        facts->models[i].arithmetic = cursor_read_u32(c);
    }
}

static void prefixes_write(struct cursor *c, const struct members_facts *facts)
{
    uint32_t count = 0;
    while (count < MEMBERS_PREFIXES && facts->prefixes[count] != 0) {
        count++;
    }
    cursor_write_u8(c, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        cursor_write_u64(c, facts->prefixes[i]);
    }
}

static void prefixes_read(struct cursor *c, struct members_facts *facts)
{
    uint32_t count = cursor_read_u8(c);
    for (uint32_t i = 0; i < count && !c->failed; i++) {
        uint64_t prefix = cursor_read_u64(c);
        c->failed = c->failed || prefix == 0;
        if (i < MEMBERS_PREFIXES) { /* a later version may tell more */
            facts->prefixes[i] = prefix;
        }
    }
}

static void speeds_write(struct cursor *c, const struct members_facts *facts, uint32_t count)
{
    if (cursor_left(c) == 0) {
        return;
    }
    cursor_write_u8(c, (uint8_t)count);
    for (uint32_t i = 0; i < count; i++) {
        cursor_write(c, &facts->models[i].speeds, sizeof(facts->models[i].speeds));
    }
}

static void speeds_read(struct cursor *c, struct members_facts *facts)
{
    uint32_t count = cursor_read_u8(c);
    c->failed = c->failed || count > facts->model_count;
    for (uint32_t i = 0; i < count && !c->failed; i++) {
        cursor_read(c, &facts->models[i].speeds, sizeof(facts->models[i].speeds));
    }
}

size_t state_write(const struct members_facts *facts, const struct vivaldi_coord *coord,
                   const struct state_doubts *doubts, uint16_t node, uint64_t incarnation,
                   uint32_t version, uint8_t out[STATE_BYTES_MAX], uint32_t *dropped)
{
    uint8_t place[VIVALDI_WIRE_BYTES];
    uint8_t load[RESOURCE_WIRE_MAX];
    uint32_t speeds;
    uint32_t count = models_that_fit(facts, &speeds);
    struct resource_message message = {
        .node = node,
        .incarnation = incarnation,
        .version = version,
        .whole_version = version,
        .mask = RESOURCE_MASK_ALL,
        .facts = {.room = facts->room,
                  .queue_us = facts->queue_us,
                  .free_vram_mib = facts->free_vram_mib,
                  .prefill_tps = facts->prefill_tps,
                  .decode_tps = facts->decode_tps,
                  .context_tokens = facts->context_tokens,
                  .model_count = count},
    };
    for (uint32_t i = 0; i < count; i++) {
        message.facts.models[i] = weft_model_id(facts->models[i].name);
    }
    struct cursor c;
    cursor_init(&c, out, STATE_BYTES_MAX);
    cursor_write_u8(&c, STATE_FORMAT);
    vivaldi_write(coord, place);
    cursor_write(&c, place, sizeof(place));
    size_t size = resource_write(&message, load);
    cursor_write_u8(&c, (uint8_t)size);
    cursor_write(&c, load, size);
    text_write(&c, facts->backend, sizeof(facts->backend));
    for (uint32_t i = 0; i < count; i++) {
        text_write(&c, facts->models[i].name, sizeof(facts->models[i].name));
    }
    cursor_write_u8(&c, (uint8_t)facts->flags);
    doubts_write(&c, doubts);
    cursor_write_u8(&c, (uint8_t)(count * sizeof(uint32_t)));
    for (uint32_t i = 0; i < count; i++) {
        cursor_write_u32(&c, facts->models[i].arithmetic);
    }
    prefixes_write(&c, facts);
    speeds_write(&c, facts, speeds);
    *dropped = facts->model_count - count;
    return (size_t)(c.at - out);
}

bool state_read(struct members_facts *facts, struct vivaldi_coord *coord,
                struct state_doubts *doubts, const void *data, size_t size)
{
    struct resource_message message;
    struct cursor c;
    memset(facts, 0, sizeof(*facts));
    memset(doubts, 0, sizeof(*doubts));
    cursor_init_const(&c, data, size);
    if (cursor_read_u8(&c) != STATE_FORMAT) {
        return false;
    }
    const void *place = cursor_take(&c, VIVALDI_WIRE_BYTES);
    size_t length = cursor_read_u8(&c);
    const void *load = cursor_take(&c, length);
    if (c.failed || !vivaldi_read(coord, place, VIVALDI_WIRE_BYTES) ||
        !resource_read(&message, load, length) || message.version != message.whole_version ||
        message.facts.model_count > MEMBERS_MODELS_MAX) {
        return false;
    }
    text_read(&c, facts->backend, sizeof(facts->backend));
    facts->room = (uint16_t)(message.facts.room < UINT16_MAX ? message.facts.room : UINT16_MAX);
    facts->queue_us = message.facts.queue_us;
    facts->free_vram_mib = message.facts.free_vram_mib;
    facts->prefill_tps = message.facts.prefill_tps;
    facts->decode_tps = message.facts.decode_tps;
    facts->context_tokens = message.facts.context_tokens;
    facts->model_count = message.facts.model_count;
    for (uint32_t i = 0; i < facts->model_count && !c.failed; i++) {
        struct members_model *model = &facts->models[i];
        text_read(&c, model->name, sizeof(model->name));
        model->id = message.facts.models[i];
        c.failed |= model->name[0] == '\0' || weft_model_id(model->name) != model->id;
    }
    facts->flags = !c.failed && cursor_left(&c) != 0 ? cursor_read_u8(&c) : 0;
    if (!c.failed && cursor_left(&c) != 0) {
        doubts_read(&c, doubts);
    }
    if (!c.failed && cursor_left(&c) != 0) {
        arithmetics_read(&c, facts);
    }
    if (!c.failed && cursor_left(&c) != 0) {
        prefixes_read(&c, facts);
    }
    if (!c.failed && cursor_left(&c) != 0) {
        speeds_read(&c, facts);
    }
    return !c.failed;
}
