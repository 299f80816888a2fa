/* SPDX-License-Identifier: Apache-2.0 */
/* policy_file.c - reads and signs policy files (policy.h): signature first, then line by line into
 * a policy of as many nodes as the file has lines of that kind. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "controlplane/maps/policy.h"

#define MAGIC          "weft-policy 1"
#define SIGNATURE_WORD "signature "
#define WORDS_MAX      6u
#define NUMBER_MAX     (UINT64_MAX / 10 - 1)
_Static_assert(POLICY_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519");
_Static_assert(POLICY_SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519");
_Static_assert(sizeof(SIGNATURE_WORD) + 2 * POLICY_SIGNATURE_BYTES + 1 <= POLICY_SIGNATURE_LINE_MAX,
               "the line fits");

struct text {
    const char *at;
    size_t length;
};

struct reader {
    struct text rest;
    uint32_t line;
    bool has_version, has_issued, has_expires, has_providers;
    struct policy *policy;
    uint32_t nodes_room;
    enum policy_fault fault;
};

static bool text_is(struct text text, const char *word)
{
    return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

/* Cuts off what is before the next `end`, which is stepped over; all of it if there is none. */
static struct text text_cut(struct text *from, char end)
{
    const char *found = from->length > 0 ? memchr(from->at, end, from->length) : NULL;
    struct text out = {from->at, found != NULL ? (size_t)(found - from->at) : from->length};
    size_t used = found != NULL ? out.length + 1 : out.length;
    from->at += used;
    from->length -= used;
    return out;
}

static bool text_number(struct text text, uint64_t max, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.length; i++) {
        char digit = text.at[i];
        if (digit < '0' || digit > '9' || *out > NUMBER_MAX) {
            return false;
        }
        *out = *out * 10 + (uint64_t)(digit - '0');
    }
    return text.length > 0 && *out <= max;
}

/* Letters, digits and -_. */
static bool text_is_name(struct text text, size_t room)
{
    for (size_t i = 0; i < text.length; i++) {
        char c = text.at[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '-' && c != '_' && c != '.') {
            return false;
        }
    }
    return text.length > 0 && text.length < room;
}

/* ---- words of a line ---- */

static int provider_index(const struct policy *policy, struct text name)
{
    for (uint32_t i = 0; i < policy->provider_count; i++) {
        if (text_is(name, policy->providers[i])) {
            return (int)i;
        }
    }
    return -1;
}

/* Adds the name unless it is there. Returns its index, or -1 with a fault. */
static int provider_add(struct reader *r, struct text name)
{
    int index = provider_index(r->policy, name);
    if (index >= 0) {
        return index;
    }
    if (!text_is_name(name, POLICY_PROVIDER_NAME_MAX)) {
        r->fault = POLICY_FAULT_LINE;
        return -1;
    }
    if (r->policy->provider_count == POLICY_PROVIDERS_MAX) {
        r->fault = POLICY_FAULT_LIMIT;
        return -1;
    }
    index = (int)r->policy->provider_count++;
    memcpy(r->policy->providers[index], name.at, name.length);
    return index;
}

static void read_providers(struct reader *r, struct text list)
{
    do {
        int index = provider_add(r, text_cut(&list, ','));
        if (index < 0) {
            return;
        }
        r->policy->providers_allowed |= UINT32_C(1) << index;
    } while (list.length > 0);
}

static bool read_tags(struct text list, uint32_t *tags)
{
    do {
        struct text tag = text_cut(&list, ',');
        char name[POLICY_PROVIDER_NAME_MAX];
        if (!text_is_name(tag, sizeof(name))) {
            return false;
        }
        memcpy(name, tag.at, tag.length);
        name[tag.length] = '\0';
        uint32_t mask = weft_tag_mask(name);
        if (mask == 0) {
            return false;
        }
        *tags |= mask;
    } while (list.length > 0);
    return true;
}

static bool read_jurisdiction(struct text text, char out[3])
{
    if (text.length != 2 || text.at[0] < 'A' || text.at[0] > 'Z' || text.at[1] < 'A' ||
        text.at[1] > 'Z') {
        return false;
    }
    memcpy(out, text.at, 2);
    return true;
}

static bool read_key(struct text text, struct policy_node *node)
{
    size_t bytes = 0;
    node->has_key = true;
    return text.length == 2 * POLICY_KEY_BYTES &&
           sodium_hex2bin(node->key, sizeof(node->key), text.at, text.length, NULL, &bytes, NULL) ==
               0 &&
           bytes == sizeof(node->key);
}

/* provider=, jurisdiction=, tags= and key= in any order, provider needed, none twice. */
static void read_node(struct reader *r, const struct text *words, uint32_t count)
{
    struct policy_node node = {0};
    uint64_t id;
    unsigned seen = 0;
    bool good = count >= 2 && text_number(words[1], UINT32_MAX - 1, &id);
    for (uint32_t i = 2; i < count && good; i++) {
        struct text value = words[i], key = text_cut(&value, '=');
        unsigned bit;
        if (text_is(key, "provider")) {
            int index = provider_add(r, value);
            node.provider = (uint8_t)index;
            good = index >= 0;
            bit = 1;
        } else if (text_is(key, "jurisdiction")) {
            good = read_jurisdiction(value, node.jurisdiction);
            bit = 2;
        } else if (text_is(key, "key")) {
            good = read_key(value, &node);
            bit = 8;
        } else {
            good = text_is(key, "tags") && read_tags(value, &node.tags);
            bit = 4;
        }
        good = good && (seen & bit) == 0;
        seen |= bit;
    }
    if (!good || (seen & 1) == 0) {
        r->fault = r->fault != POLICY_FAULT_NONE ? r->fault : POLICY_FAULT_LINE;
    } else if (r->policy->node_count == r->nodes_room) {
        r->fault = POLICY_FAULT_LIMIT;
    } else {
        node.node = (uint32_t)id;
        r->policy->nodes[r->policy->node_count++] = node;
    }
}

static void read_once(struct reader *r, bool *seen, struct text word, uint64_t *out)
{
    if (*seen) {
        r->fault = POLICY_FAULT_TWICE;
    } else if (!text_number(word, NUMBER_MAX, out)) {
        r->fault = POLICY_FAULT_LINE;
    }
    *seen = true;
}

static void read_line(struct reader *r, struct text line)
{
    struct text words[WORDS_MAX];
    uint32_t count = 0;
    line = text_cut(&line, '#');
    while (line.length > 0) {
        struct text word = text_cut(&line, ' ');
        if (word.length > 0) {
            if (count == WORDS_MAX) {
                r->fault = POLICY_FAULT_LINE;
                return;
            }
            words[count++] = word;
        }
    }
    if (count == 0) {
        return;
    }
    if (text_is(words[0], "node")) {
        read_node(r, words, count);
    } else if (count != 2) {
        r->fault = POLICY_FAULT_LINE;
    } else if (text_is(words[0], "version")) {
        read_once(r, &r->has_version, words[1], &r->policy->version);
    } else if (text_is(words[0], "issued")) {
        read_once(r, &r->has_issued, words[1], &r->policy->issued_s);
    } else if (text_is(words[0], "expires")) {
        read_once(r, &r->has_expires, words[1], &r->policy->expires_s);
    } else if (text_is(words[0], "providers") && !r->has_providers) {
        r->has_providers = true;
        read_providers(r, words[1]);
    } else {
        r->fault = text_is(words[0], "providers") ? POLICY_FAULT_TWICE : POLICY_FAULT_LINE;
    }
}

/* ---- the file ---- */

/* Where the last line begins, if it is a signature; else `size`. */
static size_t signature_at(const char *data, size_t size)
{
    size_t end = size > 0 && data[size - 1] == '\n' ? size - 1 : size;
    size_t at = end;
    while (at > 0 && data[at - 1] != '\n') {
        at--;
    }
    size_t length = strlen(SIGNATURE_WORD);
    bool found = end - at == length + 2 * POLICY_SIGNATURE_BYTES &&
                 memcmp(data + at, SIGNATURE_WORD, length) == 0;
    return found ? at : size;
}

/* Returns the length of what is signed, 0 if nobody trusted has. */
static size_t signed_size(const char *data, size_t size, const struct policy_key *keys,
                          uint32_t key_count)
{
    size_t at = signature_at(data, size);
    unsigned char signature[POLICY_SIGNATURE_BYTES];
    size_t bytes = 0;
    if (at == size ||
        sodium_hex2bin(signature, sizeof(signature), data + at + strlen(SIGNATURE_WORD),
                       2 * POLICY_SIGNATURE_BYTES, NULL, &bytes, NULL) != 0 ||
        bytes != sizeof(signature)) {
        return 0;
    }
    for (uint32_t i = 0; i < key_count; i++) {
        if (crypto_sign_verify_detached(signature, (const unsigned char *)data, at,
                                        keys[i].bytes) == 0) {
            return at;
        }
    }
    return 0;
}

static uint32_t lines_of(const char *data, size_t size)
{
    uint32_t count = 1;
    for (size_t i = 0; i < size; i++) {
        count += data[i] == '\n';
    }
    return count;
}

static int by_node(const void *a, const void *b)
{
    uint32_t x = ((const struct policy_node *)a)->node, y = ((const struct policy_node *)b)->node;
    return (x > y) - (x < y);
}

/* What can only be said of the whole. */
static void check_whole(struct reader *r, const struct policy *in_force)
{
    struct policy *policy = r->policy;
    r->line = 0;
    if (!r->has_version || !r->has_issued || !r->has_providers) {
        r->fault = POLICY_FAULT_MISSING;
        return;
    }
    if (in_force != NULL && policy->version <= in_force->version) {
        r->fault = POLICY_FAULT_OLD;
        return;
    }
    qsort(policy->nodes, policy->node_count, sizeof(policy->nodes[0]), by_node);
    for (uint32_t i = 1; i < policy->node_count; i++) {
        if (policy->nodes[i].node == policy->nodes[i - 1].node) {
            r->fault = POLICY_FAULT_TWICE;
        }
    }
}

struct policy *policy_read(const void *data, size_t size, const struct policy_key *keys,
                           uint32_t key_count, const struct policy *in_force,
                           struct policy_error *error)
{
    *error = (struct policy_error){POLICY_FAULT_SIZE, 0};
    if (size == 0 || size > POLICY_BYTES_MAX) {
        return NULL;
    }
    size = signed_size(data, size, keys, key_count);
    if (size == 0) {
        error->fault = POLICY_FAULT_SIGNATURE;
        return NULL;
    }
    struct reader r = {.rest = {data, size}, .line = 1};
    if (!text_is(text_cut(&r.rest, '\n'), MAGIC)) {
        *error = (struct policy_error){POLICY_FAULT_FORMAT, 1};
        return NULL;
    }
    uint32_t lines = lines_of(data, size);
    r.nodes_room = lines < POLICY_NODES_MAX ? lines : POLICY_NODES_MAX;
    r.policy = calloc(1, sizeof(*r.policy) + r.nodes_room * sizeof(r.policy->nodes[0]));
    if (r.policy == NULL) {
        error->fault = POLICY_FAULT_MEMORY;
        return NULL;
    }
    while (r.rest.length > 0 && r.fault == POLICY_FAULT_NONE) {
        r.line++;
        read_line(&r, text_cut(&r.rest, '\n'));
    }
    if (r.fault == POLICY_FAULT_NONE) {
        check_whole(&r, in_force);
    }
    *error = (struct policy_error){r.fault, r.fault != POLICY_FAULT_NONE ? r.line : 0};
    if (r.fault != POLICY_FAULT_NONE) {
        policy_destroy(r.policy);
        return NULL;
    }
    return r.policy;
}

size_t policy_sign(const void *text, size_t size, const uint8_t secret[64],
                   char line[POLICY_SIGNATURE_LINE_MAX])
{
    unsigned char signature[POLICY_SIGNATURE_BYTES];
    char hex[2 * POLICY_SIGNATURE_BYTES + 1];
    crypto_sign_detached(signature, NULL, text, size, secret);
    sodium_bin2hex(hex, sizeof(hex), signature, sizeof(signature));
    return (size_t)snprintf(line, POLICY_SIGNATURE_LINE_MAX, SIGNATURE_WORD "%s\n", hex);
}
