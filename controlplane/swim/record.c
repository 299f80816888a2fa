/* SPDX-License-Identifier: Apache-2.0 */
/* record.c - see record.h. */
#include "controlplane/swim/record.h"

#include <sodium.h>
#include <string.h>

#include "schemas/base/cursor.h"
#include "schemas/base/text.h"

#define FIXED_BYTES     112u
#define LATITUDE_UDEG   90000000
#define LONGITUDE_UDEG  180000000
#define VOTE_CONTEXT    "weft swim vote 1"
#define STATE_CONTEXT   "weft swim state1"
#define CONTEXT_BYTES   16u
#define STATE_HEAD_SIZE (CONTEXT_BYTES + 20u)

uint64_t swim_uid(const uint8_t public_key[SWIM_KEY_BYTES])
{
    uint8_t hash[32];
    uint64_t uid;
    crypto_generichash(hash, sizeof(hash), public_key, SWIM_KEY_BYTES, NULL, 0);
    memcpy(&uid, hash, sizeof(uid));
    return uid != 0 ? uid : 1;
}

size_t swim_record_write(const struct swim_record *record, const uint8_t *secret_key, uint8_t *out)
{
    struct cursor c;
    size_t name_len = strnlen(record->name, sizeof(record->name) - 1);
    size_t size = FIXED_BYTES + name_len;
    uint8_t head[4] = {SWIM_RECORD_FORMAT, (uint8_t)record->flags, (uint8_t)size,
                       (uint8_t)(size >> 8)};
    cursor_init(&c, out, SWIM_RECORD_MAX);
    cursor_write(&c, head, sizeof(head));
    cursor_write_u32(&c, record->version);
    cursor_write_u64(&c, record->incarnation);
    cursor_write_u64(&c, record->session);
    cursor_write(&c, record->public_key, SWIM_KEY_BYTES);
    cursor_write(&c, &record->address, sizeof(record->address));
    cursor_write(&c, &record->client_address, sizeof(record->client_address));
    cursor_write_u16(&c, record->port);
    cursor_write_u16(&c, record->id);
    cursor_write_u32(&c, (uint32_t)record->latitude_udeg);
    cursor_write_u32(&c, (uint32_t)record->longitude_udeg);
    cursor_write_u32(&c, record->tags);
    cursor_write_u8(&c, record->tier);
    cursor_write_u8(&c, record->speaks_min);
    cursor_write_u8(&c, record->speaks_max);
    cursor_write_u8(&c, (uint8_t)name_len);
    cursor_write(&c, record->jurisdiction, 2);
    cursor_write_u16(&c, record->data_port);
    cursor_write(&c, record->name, name_len);
    crypto_sign_detached(out + size, NULL, out, size, secret_key);
    return size + SWIM_SIGNATURE_BYTES;
}

static bool values_valid(const struct swim_record *record)
{
    return record->incarnation != 0 && record->session != 0 && record->port != 0 &&
           record->id < WEFT_NODE_NONE && record->tier <= WEFT_TIER_MAX &&
           record->latitude_udeg >= -LATITUDE_UDEG && record->latitude_udeg <= LATITUDE_UDEG &&
           record->longitude_udeg >= -LONGITUDE_UDEG && record->longitude_udeg <= LONGITUDE_UDEG &&
           record->speaks_min != 0 && record->speaks_min <= record->speaks_max &&
           !IN6_IS_ADDR_UNSPECIFIED(&record->address) &&
           (record->jurisdiction[0] == '\0' ? record->jurisdiction[1] == '\0'
                                            : text_is_word(record->jurisdiction, 2));
}

bool swim_record_read(struct swim_record *record, const uint8_t *data, size_t size)
{
    struct cursor c;
    memset(record, 0, sizeof(*record));
    if (size < FIXED_BYTES + SWIM_SIGNATURE_BYTES || size > SWIM_RECORD_MAX) {
        return false;
    }
    cursor_init_const(&c, data, size - SWIM_SIGNATURE_BYTES);
    uint8_t format = cursor_read_u8(&c);
    record->flags = cursor_read_u8(&c);
    uint16_t signed_bytes = cursor_read_u16(&c);
    record->version = cursor_read_u32(&c);
    record->incarnation = cursor_read_u64(&c);
    record->session = cursor_read_u64(&c);
    cursor_read(&c, record->public_key, SWIM_KEY_BYTES);
    cursor_read(&c, &record->address, sizeof(record->address));
    cursor_read(&c, &record->client_address, sizeof(record->client_address));
    record->port = cursor_read_u16(&c);
    record->id = cursor_read_u16(&c);
    record->latitude_udeg = (int32_t)cursor_read_u32(&c);
    record->longitude_udeg = (int32_t)cursor_read_u32(&c);
    record->tags = cursor_read_u32(&c);
    record->tier = cursor_read_u8(&c);
    record->speaks_min = cursor_read_u8(&c);
    record->speaks_max = cursor_read_u8(&c);
    uint8_t name_len = cursor_read_u8(&c);
    cursor_read(&c, record->jurisdiction, 2);
    record->data_port = cursor_read_u16(&c);
    if (name_len == 0 || name_len >= sizeof(record->name)) {
        return false;
    }
    cursor_read(&c, record->name, name_len);
    return !c.failed && format == SWIM_RECORD_FORMAT &&
           signed_bytes + SWIM_SIGNATURE_BYTES == size && text_is_word(record->name, name_len) &&
           values_valid(record);
}

bool swim_record_verify(const struct swim_record *record, const uint8_t *data, size_t size)
{
    size_t signed_bytes = size - SWIM_SIGNATURE_BYTES;
    return crypto_sign_verify_detached(data + signed_bytes, data, signed_bytes,
                                       record->public_key) == 0;
}

/* ---- votes and states ---- */

static void vote_bytes(const struct swim_vote *vote, uint8_t out[CONTEXT_BYTES + 24])
{
    struct cursor c;
    cursor_init(&c, out, CONTEXT_BYTES + 24);
    cursor_write(&c, VOTE_CONTEXT, CONTEXT_BYTES);
    cursor_write_u64(&c, vote->suspect);
    cursor_write_u64(&c, vote->incarnation);
    cursor_write_u64(&c, vote->observer);
}

void swim_vote_sign(struct swim_vote *vote, const uint8_t *secret_key)
{
    uint8_t bytes[CONTEXT_BYTES + 24];
    vote_bytes(vote, bytes);
    crypto_sign_detached(vote->signature, NULL, bytes, sizeof(bytes), secret_key);
}

bool swim_vote_verify(const struct swim_vote *vote, const uint8_t public_key[SWIM_KEY_BYTES])
{
    uint8_t bytes[CONTEXT_BYTES + 24];
    vote_bytes(vote, bytes);
    return crypto_sign_verify_detached(vote->signature, bytes, sizeof(bytes), public_key) == 0;
}

static size_t state_bytes(const struct swim_state_head *head, const void *data, size_t size,
                          uint8_t out[STATE_HEAD_SIZE + SWIM_STATE_MAX])
{
    struct cursor c;
    cursor_init(&c, out, STATE_HEAD_SIZE + SWIM_STATE_MAX);
    cursor_write(&c, STATE_CONTEXT, CONTEXT_BYTES);
    cursor_write_u64(&c, head->uid);
    cursor_write_u64(&c, head->incarnation);
    cursor_write_u32(&c, head->version);
    cursor_write(&c, data, size);
    return STATE_HEAD_SIZE + size;
}

void swim_state_sign(const struct swim_state_head *head, const void *data, size_t size,
                     const uint8_t *secret_key, uint8_t signature[SWIM_SIGNATURE_BYTES])
{
    uint8_t bytes[STATE_HEAD_SIZE + SWIM_STATE_MAX];
    size_t used = state_bytes(head, data, size, bytes);
    crypto_sign_detached(signature, NULL, bytes, used, secret_key);
}

bool swim_state_verify(const struct swim_state_head *head, const void *data, size_t size,
                       const uint8_t signature[SWIM_SIGNATURE_BYTES],
                       const uint8_t public_key[SWIM_KEY_BYTES])
{
    uint8_t bytes[STATE_HEAD_SIZE + SWIM_STATE_MAX];
    if (size > SWIM_STATE_MAX) {
        return false;
    }
    size_t used = state_bytes(head, data, size, bytes);
    return crypto_sign_verify_detached(signature, bytes, used, public_key) == 0;
}
