/* SPDX-License-Identifier: Apache-2.0 */
/* items.c - see items.h. */
#include "controlplane/swim/items.h"

#define VOTE_BYTES (24u + SWIM_SIGNATURE_BYTES)
#define STATE_HEAD 22u /* uid, incarnation, version, length */

bool swim_item_next(struct cursor *body, struct swim_item *item, bool *malformed)
{
    *malformed = false;
    if (cursor_left(body) == 0) {
        return false;
    }
    item->type = cursor_read_u8(body);
    item->size = cursor_read_u16(body);
    item->data = cursor_take(body, item->size);
    *malformed = body->failed;
    return !body->failed;
}

static bool item_begin(struct cursor *body, enum swim_item_type type, size_t size)
{
    if (cursor_left(body) < SWIM_ITEM_HEAD + size) {
        return false;
    }
    cursor_write_u8(body, (uint8_t)type);
    cursor_write_u16(body, (uint16_t)size);
    return true;
}

static struct cursor item_cursor(const struct swim_item *item)
{
    struct cursor c;
    cursor_init_const(&c, item->data, item->size);
    return c;
}

bool swim_put_token(struct cursor *body, enum swim_item_type type, uint32_t token)
{
    if (!item_begin(body, type, sizeof(token))) {
        return false;
    }
    cursor_write_u32(body, token);
    return true;
}

bool swim_get_token(const struct swim_item *item, uint32_t *token)
{
    struct cursor c = item_cursor(item);
    *token = cursor_read_u32(&c);
    return !c.failed;
}

bool swim_put_number(struct cursor *body, enum swim_item_type type, uint64_t number)
{
    if (!item_begin(body, type, sizeof(number))) {
        return false;
    }
    cursor_write_u64(body, number);
    return true;
}

bool swim_get_number(const struct swim_item *item, uint64_t *number)
{
    struct cursor c = item_cursor(item);
    *number = cursor_read_u64(&c);
    return !c.failed;
}

bool swim_put_ping_req(struct cursor *body, uint32_t token, uint64_t uid)
{
    if (!item_begin(body, SWIM_ITEM_PING_REQ, sizeof(token) + sizeof(uid))) {
        return false;
    }
    cursor_write_u32(body, token);
    cursor_write_u64(body, uid);
    return true;
}

bool swim_get_ping_req(const struct swim_item *item, uint32_t *token, uint64_t *uid)
{
    struct cursor c = item_cursor(item);
    *token = cursor_read_u32(&c);
    *uid = cursor_read_u64(&c);
    return !c.failed;
}

bool swim_put_bytes(struct cursor *body, enum swim_item_type type, const void *data, size_t size)
{
    if (!item_begin(body, type, size)) {
        return false;
    }
    cursor_write(body, data, size);
    return true;
}

bool swim_put_vote(struct cursor *body, const struct swim_vote *vote)
{
    if (!item_begin(body, SWIM_ITEM_VOTE, VOTE_BYTES)) {
        return false;
    }
    cursor_write_u64(body, vote->suspect);
    cursor_write_u64(body, vote->incarnation);
    cursor_write_u64(body, vote->observer);
    cursor_write(body, vote->signature, sizeof(vote->signature));
    return true;
}

bool swim_get_vote(const struct swim_item *item, struct swim_vote *vote)
{
    struct cursor c = item_cursor(item);
    vote->suspect = cursor_read_u64(&c);
    vote->incarnation = cursor_read_u64(&c);
    vote->observer = cursor_read_u64(&c);
    cursor_read(&c, vote->signature, sizeof(vote->signature));
    return !c.failed;
}

bool swim_put_state(struct cursor *body, const struct swim_state_head *head, const void *data,
                    size_t size, const uint8_t signature[SWIM_SIGNATURE_BYTES])
{
    if (!item_begin(body, SWIM_ITEM_STATE, STATE_HEAD + size + SWIM_SIGNATURE_BYTES)) {
        return false;
    }
    cursor_write_u64(body, head->uid);
    cursor_write_u64(body, head->incarnation);
    cursor_write_u32(body, head->version);
    cursor_write_u16(body, (uint16_t)size);
    cursor_write(body, data, size);
    cursor_write(body, signature, SWIM_SIGNATURE_BYTES);
    return true;
}

bool swim_get_state(const struct swim_item *item, struct swim_state_head *head,
                    const uint8_t **data, size_t *size, const uint8_t **signature)
{
    struct cursor c = item_cursor(item);
    head->uid = cursor_read_u64(&c);
    head->incarnation = cursor_read_u64(&c);
    head->version = cursor_read_u32(&c);
    *size = cursor_read_u16(&c);
    *data = cursor_take(&c, *size);
    *signature = cursor_take(&c, SWIM_SIGNATURE_BYTES);
    return !c.failed && *size <= SWIM_STATE_MAX;
}

bool swim_put_two(struct cursor *body, enum swim_item_type type, uint64_t first, uint64_t second)
{
    if (!item_begin(body, type, sizeof(first) + sizeof(second))) {
        return false;
    }
    cursor_write_u64(body, first);
    cursor_write_u64(body, second);
    return true;
}

bool swim_get_two(const struct swim_item *item, uint64_t *first, uint64_t *second)
{
    struct cursor c = item_cursor(item);
    *first = cursor_read_u64(&c);
    *second = cursor_read_u64(&c);
    return !c.failed;
}

/* ---- anti-entropy ---- */

bool swim_put_buckets(struct cursor *body, uint32_t bits, const uint32_t *sums)
{
    size_t count = (size_t)1 << bits;
    if (!item_begin(body, SWIM_ITEM_BUCKETS, 1 + count * sizeof(sums[0]))) {
        return false;
    }
    cursor_write_u8(body, (uint8_t)bits);
    for (size_t i = 0; i < count; i++) {
        cursor_write_u32(body, sums[i]);
    }
    return true;
}

bool swim_get_buckets(const struct swim_item *item, uint32_t *bits, uint32_t *sums)
{
    struct cursor c = item_cursor(item);
    *bits = cursor_read_u8(&c);
    if (c.failed || *bits > SWIM_BUCKET_BITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < (size_t)1 << *bits; i++) {
        sums[i] = cursor_read_u32(&c);
    }
    return !c.failed;
}

bool swim_put_digest(struct cursor *body, const struct swim_digest *digest)
{
    size_t size = SWIM_DIGEST_HEAD + digest->count * SWIM_DIGEST_ENTRY;
    if (!item_begin(body, SWIM_ITEM_DIGEST, size)) {
        return false;
    }
    cursor_write_u8(body, (uint8_t)digest->bits);
    cursor_write_u16(body, (uint16_t)digest->bucket);
    cursor_write_u8(body, digest->complete ? 1 : 0);
    cursor_write_u16(body, (uint16_t)digest->count);
    for (uint32_t i = 0; i < digest->count; i++) {
        const struct swim_digest_entry *entry = &digest->entries[i];
        cursor_write_u64(body, entry->uid);
        cursor_write_u64(body, entry->incarnation);
        cursor_write_u32(body, entry->version);
        cursor_write_u32(body, entry->state_version);
        cursor_write_u8(body, entry->status);
    }
    return true;
}

bool swim_get_digest(const struct swim_item *item, struct swim_digest *digest)
{
    struct cursor c = item_cursor(item);
    digest->bits = cursor_read_u8(&c);
    digest->bucket = cursor_read_u16(&c);
    digest->complete = cursor_read_u8(&c) != 0;
    digest->count = cursor_read_u16(&c);
    if (c.failed || digest->bits > SWIM_BUCKET_BITS_MAX || digest->bucket >> digest->bits != 0 ||
        digest->count > SWIM_DIGEST_ENTRY_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < digest->count; i++) {
        struct swim_digest_entry *entry = &digest->entries[i];
        entry->uid = cursor_read_u64(&c);
        entry->incarnation = cursor_read_u64(&c);
        entry->version = cursor_read_u32(&c);
        entry->state_version = cursor_read_u32(&c);
        entry->status = cursor_read_u8(&c);
    }
    return !c.failed;
}

bool swim_put_pull(struct cursor *body, const uint64_t *uids, uint32_t count)
{
    if (count > SWIM_PULL_MAX || !item_begin(body, SWIM_ITEM_PULL, count * sizeof(uids[0]))) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        cursor_write_u64(body, uids[i]);
    }
    return true;
}

uint32_t swim_get_pull(const struct swim_item *item, uint64_t uids[SWIM_PULL_MAX])
{
    struct cursor c = item_cursor(item);
    uint32_t count = 0;
    while (count < SWIM_PULL_MAX && cursor_left(&c) >= sizeof(uids[0])) {
        uids[count++] = cursor_read_u64(&c);
    }
    return count;
}
