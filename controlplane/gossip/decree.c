/* SPDX-License-Identifier: Apache-2.0 */
/* decree.c - see decree.h. */
#include "controlplane/gossip/decree.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/cursor.h"

#define HEAD_BYTES (1u + 8u + 4u)
enum { DECREE_HAVE = 1, DECREE_PULL, DECREE_PART };
WEFT_ASSERT(HEAD_BYTES + 4 + DECREE_PART_MAX <= LETTER_MAX, "a part fits a letter");

int decree_init(struct decree *d, const char *key_hex, const char *providers)
{
    size_t bytes = 0;
    memset(d, 0, sizeof(*d));
    d->providers = providers;
    if (key_hex == NULL || key_hex[0] == '\0') {
        return 0;
    }
    if (strlen(key_hex) != 2 * POLICY_KEY_BYTES ||
        sodium_hex2bin(d->key.bytes, sizeof(d->key.bytes), key_hex, 2 * POLICY_KEY_BYTES, NULL,
                       &bytes, NULL) != 0 ||
        bytes != POLICY_KEY_BYTES) {
        return -EINVAL;
    }
    d->required = true;
    d->changes = 1;
    return 0;
}

static void incoming_end(struct decree *d)
{
    free(d->incoming);
    d->incoming = NULL;
}

void decree_deinit(struct decree *d)
{
    incoming_end(d);
    policy_destroy(d->policy);
    free(d->text);
    d->policy = NULL;
    d->text = NULL;
}

int decree_take(struct decree *d, const void *data, size_t size, struct policy_error *error)
{
    *error = (struct policy_error){POLICY_FAULT_SIGNATURE, 0};
    struct policy *policy =
        d->required ? policy_read(data, size, &d->key, 1, d->policy, error) : NULL;
    uint8_t *text = policy != NULL ? malloc(size) : NULL;
    if (text == NULL) {
        policy_destroy(policy);
        d->refused++;
        return -EINVAL;
    }
    memcpy(text, data, size);
    policy_destroy(d->policy);
    free(d->text);
    d->policy = policy;
    d->text = text;
    d->size = (uint32_t)size;
    d->changes++;
    return 0;
}

/* ---- letters ---- */

static uint64_t version_of(const struct decree *d)
{
    return d->policy != NULL ? d->policy->version : 0;
}

/* What all three begin with. */
static size_t head_write(uint8_t *out, uint8_t kind, uint64_t version, uint32_t number)
{
    out[0] = kind;
    memcpy(out + 1, &version, sizeof(version));
    memcpy(out + 1 + sizeof(version), &number, sizeof(number));
    return HEAD_BYTES;
}

static size_t have_write(const struct decree *d, uint8_t *out)
{
    return head_write(out, DECREE_HAVE, version_of(d), d->size);
}

static size_t pull_write(const struct decree *d, uint8_t *out)
{
    return head_write(out, DECREE_PULL, d->incoming_version, d->incoming_got);
}

static void sender_ban(struct decree *d, uint64_t now_ns)
{
    d->banned_slot = d->incoming_slot;
    d->banned_ns = now_ns;
    incoming_end(d);
}

static size_t have_heard(struct decree *d, const struct letter *letter, struct cursor *c,
                         uint64_t now_ns, uint8_t *out)
{
    uint64_t version = cursor_read_u64(c);
    uint32_t size = cursor_read_u32(c);
    if (c->failed || version == version_of(d)) {
        return 0;
    }
    if (version < version_of(d)) {
        return have_write(d, out);
    }
    if (d->incoming != NULL && now_ns - d->incoming_ns >= DECREE_STALL_NS) {
        sender_ban(d, now_ns);
    }
    bool banned = d->banned_ns != 0 && letter->slot == d->banned_slot &&
                  now_ns - d->banned_ns < DECREE_BAN_NS;
    if (banned || size == 0 || size > POLICY_BYTES_MAX) {
        return 0;
    }
    if (d->incoming == NULL) {
        d->incoming = malloc(size);
        d->incoming_version = version;
        d->incoming_size = size;
        d->incoming_got = 0;
        d->incoming_slot = letter->slot;
        d->incoming_ns = now_ns;
    }
    bool his =
        d->incoming != NULL && d->incoming_slot == letter->slot && d->incoming_version == version;
    return his ? pull_write(d, out) : 0;
}

static size_t pull_heard(const struct decree *d, struct cursor *in, uint8_t *out)
{
    uint64_t version = cursor_read_u64(in);
    uint32_t offset = cursor_read_u32(in);
    if (in->failed || d->policy == NULL || version != version_of(d) || offset >= d->size) {
        return 0;
    }
    uint32_t left = d->size - offset;
    uint32_t bytes = left < DECREE_PART_MAX ? left : DECREE_PART_MAX;
    size_t used = head_write(out, DECREE_PART, version, d->size);
    memcpy(out + used, &offset, sizeof(offset));
    used += sizeof(offset);
    memcpy(out + used, d->text + offset, bytes);
    return used + bytes;
}

static size_t part_heard(struct decree *d, const struct letter *letter, struct cursor *c,
                         uint64_t now_ns, uint8_t *out)
{
    uint64_t version = cursor_read_u64(c);
    uint32_t size = cursor_read_u32(c);
    uint32_t offset = cursor_read_u32(c);
    size_t bytes = cursor_left(c);
    if (c->failed || d->incoming == NULL || letter->slot != d->incoming_slot ||
        version != d->incoming_version || size != d->incoming_size || offset != d->incoming_got ||
        bytes == 0 || bytes > size - offset) {
        return 0;
    }
    cursor_read(c, d->incoming + offset, bytes);
    d->incoming_got += (uint32_t)bytes;
    d->incoming_ns = now_ns;
    if (d->incoming_got < d->incoming_size) {
        return pull_write(d, out);
    }
    struct policy_error error;
    if (decree_take(d, d->incoming, d->incoming_size, &error) < 0) {
        sender_ban(d, now_ns);
        return 0;
    }
    incoming_end(d);
    return 0;
}

size_t decree_input(struct decree *d, const struct letter *letter, uint64_t now_ns, uint8_t *out)
{
    struct cursor c;
    cursor_init_const(&c, letter->body, letter->size);
    if (!d->required) {
        return 0;
    }
    switch (cursor_read_u8(&c)) {
    case DECREE_HAVE:
        return have_heard(d, letter, &c, now_ns, out);
    case DECREE_PULL:
        return pull_heard(d, &c, out);
    case DECREE_PART:
        return part_heard(d, letter, &c, now_ns, out);
    default:
        return 0;
    }
}

size_t decree_tell(struct decree *d, uint64_t now_ns, uint8_t *out)
{
    d->tell_ns = now_ns + DECREE_TELL_NS;
    return d->required ? have_write(d, out) : 0;
}

/* ---- verdicts ---- */

bool decree_judge(const struct decree *d, uint32_t id, const uint8_t public_key[SWIM_KEY_BYTES],
                  uint32_t *tags, char jurisdiction[3])
{
    if (d == NULL || !d->required) {
        return true;
    }
    const struct policy_node *node = d->policy != NULL ? policy_node(d->policy, id) : NULL;
    uint32_t granted = 0;
    bool listed =
        node != NULL && (!node->has_key || memcmp(node->key, public_key, sizeof(node->key)) == 0);
    memset(jurisdiction, 0, 3);
    if (listed) {
        granted = node->tags;
        memcpy(jurisdiction, node->jurisdiction, 3);
    }
    *tags &= granted;
    if (d->policy == NULL) {
        return true; /* a request that asks for nothing may go anywhere */
    }
    uint32_t allowed = policy_providers(d->policy, d->providers);
    return listed && ((allowed >> node->provider) & 1) != 0;
}
