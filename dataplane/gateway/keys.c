/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - see keys.h. */
#include "dataplane/gateway/keys.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "schemas/base/text.h"

#define SCHEME  "Bearer "
#define KEY_MAX 1024u

static bool name_good(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len < KEYS_NAME_MAX && text_is_word(name, len);
}

/* "register", or a list with commas; NULL: none. */
static bool scopes_read(struct key *key, char *text)
{
    char *rest = NULL;
    key->scopes = 0;
    if (text == NULL) {
        return true;
    }
    for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        if (strcmp(word, "register") != 0) {
            return false;
        }
        key->scopes |= KEYS_REGISTER;
    }
    return true;
}

/* One line, without its end; changes it. */
static bool line_read(struct keys *keys, char *line)
{
    char *rest = NULL;
    size_t sum_len;
    struct key key;
    line[strcspn(line, "#")] = '\0';
    const char *name = strtok_r(line, " \t\r", &rest);
    const char *sum = strtok_r(NULL, " \t\r", &rest);
    if (name == NULL) {
        return true;
    }
    char *scopes = strtok_r(NULL, " \t\r", &rest);
    if (!name_good(name) || sum == NULL || strtok_r(NULL, " \t\r", &rest) != NULL ||
        strlen(sum) != (size_t)2 * KEYS_SUM ||
        sodium_hex2bin(key.sum, sizeof(key.sum), sum, strlen(sum), NULL, &sum_len, NULL) != 0 ||
        sum_len != KEYS_SUM || !scopes_read(&key, scopes)) {
        return false;
    }
    strcpy(key.name, name);
    struct key *grown = realloc(keys->list, (keys->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return false;
    }
    keys->list = grown;
    keys->list[keys->count++] = key;
    return true;
}

bool keys_read(struct keys *keys, const char *text, size_t len, unsigned *line)
{
    size_t at = 0;
    for (*line = 1; at < len; (*line)++) {
        char copy[256];
        const char *end = memchr(text + at, '\n', len - at);
        size_t length = end != NULL ? (size_t)(end - text) - at : len - at;
        if (length >= sizeof(copy)) {
            return false;
        }
        memcpy(copy, text + at, length);
        copy[length] = '\0';
        if (strlen(copy) != length || !line_read(keys, copy)) {
            return false;
        }
        at += length + (end != NULL);
    }
    return true;
}

void keys_deinit(struct keys *keys)
{
    free(keys->list);
    *keys = (struct keys){.list = NULL};
}

const struct key *keys_find(const struct keys *keys, const char *authorization)
{
    uint8_t sum[KEYS_SUM];
    const struct key *found = NULL;
    if (authorization == NULL || strncasecmp(authorization, SCHEME, strlen(SCHEME)) != 0) {
        return NULL;
    }
    const char *key = authorization + strlen(SCHEME);
    key += strspn(key, " ");
    if (strlen(key) > KEY_MAX) {
        return NULL;
    }
    crypto_hash_sha256(sum, (const uint8_t *)key, strlen(key));
    for (size_t i = 0; i < keys->count; i++) {
        if (sodium_memcmp(sum, keys->list[i].sum, sizeof(sum)) == 0) {
            found = &keys->list[i];
        }
    }
    return found;
}

void keys_draw(const char *name, char key[64], char line[KEYS_NAME_MAX + 80])
{
    uint8_t random[32];
    uint8_t sum[KEYS_SUM];
    char hex[2 * KEYS_SUM + 1];
    char text[48];
    randombytes_buf(random, sizeof(random));
    sodium_bin2base64(text, sizeof(text), random, sizeof(random),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    snprintf(key, 64, "wk-%s", text);
    crypto_hash_sha256(sum, (const uint8_t *)key, strlen(key));
    snprintf(line, KEYS_NAME_MAX + 80, "%s %s", name,
             sodium_bin2hex(hex, sizeof(hex), sum, sizeof(sum)));
    sodium_memzero(random, sizeof(random));
}
