/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_keys.c - the key table made of config.def, and how a text of the file becomes the value of
 * a key. config.c applies it to a whole file; config_load.c takes its words for errors.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"
#include "schemas/config_impl.h"

#define LETTERS_AND_DIGITS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* ---- the key table ---- */

#define OWNER_TOP     struct config
#define OWNER_GOSSIP  struct config
#define OWNER_SELF    struct config_member
#define OWNER_NIC     struct config
#define OWNER_SOCKETS struct config
#define OWNER_MEMBER  struct config_member
#define YAML_TOP      struct config_yaml
#define YAML_GOSSIP   struct config_yaml
#define YAML_SELF     struct config_yaml
#define YAML_NIC      struct config_yaml_nic
#define YAML_SOCKETS  struct config_yaml_sockets
#define YAML_MEMBER   struct config_yaml_member
#define KEY_ROW(place_, key_, type_, field_, default_, min_, max_, choices_, text_)                \
    {PLACE_##place_,                                                                               \
     TYPE_##type_,                                                                                 \
     #key_,                                                                                        \
     default_,                                                                                     \
     (double)(min_),                                                                               \
     (double)(max_),                                                                               \
     choices_,                                                                                     \
     text_,                                                                                        \
     offsetof(OWNER_##place_, field_),                                                             \
     offsetof(YAML_##place_, key_)},
const struct config_key config_keys[CONFIG_KEY_COUNT] = {WEFT_CONFIG_KEYS(KEY_ROW)};

/* config_yaml_list is laid over these. */
#define LIST_CHECK_(owner, key)                                                                    \
    WEFT_ASSERT(offsetof(owner, key##_count) ==                                                    \
                    offsetof(owner, key) + offsetof(struct config_yaml_list, count),               \
                "a list is its entries and their number");
LIST_CHECK_(struct config_yaml, seeds)
LIST_CHECK_(struct config_yaml, tags)
LIST_CHECK_(struct config_yaml_member, tags)

const char *const config_place_names[] = {"", "", "", "nic", "sockets", "members"};

/* The map that a key stands in. */
static enum config_place map_of(const struct config_key *key)
{
    return key->place == PLACE_GOSSIP || key->place == PLACE_SELF ? PLACE_TOP : key->place;
}

const struct config_key *config_key_find(enum config_place map, const char *name)
{
    for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
        if (map_of(&config_keys[i]) == map && strcmp(config_keys[i].name, name) == 0) {
            return &config_keys[i];
        }
    }
    return NULL;
}

void config_keys_list(enum config_place map, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < CONFIG_KEY_COUNT && used < size; i++) {
        if (map_of(&config_keys[i]) == map) {
            used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "",
                                     config_keys[i].name);
        }
    }
}

void config_key_expects(const struct config_key *key, char *out, size_t size)
{
    switch (key->type) {
    case TYPE_NAME:
        snprintf(out, size, "1 to %.0f of letters, digits, '.', '_' and '-'", key->max);
        break;
    case TYPE_HEX:
        snprintf(out, size, "%.0f hexadecimal digits", key->max);
        break;
    case TYPE_WORD: {
        size_t used = 0;
        for (const char *c = key->choices; *c != '\0' && used + 5 < size; c++) {
            used += (size_t)snprintf(out + used, size - used, *c == '|' ? " or " : "%c", *c);
        }
        break;
    }
    case TYPE_INT:
        snprintf(out, size, "%.0f to %.0f", key->min, key->max);
        break;
    case TYPE_REAL:
        snprintf(out, size, "a number from %.0f to %.0f", key->min, key->max);
        break;
    case TYPE_PATH:
        snprintf(out, size, "a path from / on, at most %.0f bytes", key->max);
        break;
    case TYPE_DEVICE:
        snprintf(out, size, "a device as DPDK names it, such as 0000:03:00.0");
        break;
    case TYPE_ADDRESS:
        snprintf(out, size, "a node's IP address, such as 10.0.0.1 or 2001:db8::1");
        break;
    case TYPE_TAGS:
        snprintf(out, size, "a list of tags, such as [eu, gdpr]");
        break;
    case TYPE_COUNTRY:
        snprintf(out, size, "two capital letters, such as DE");
        break;
    case TYPE_SEEDS:
        snprintf(out, size, "a list of addresses, such as [10.0.0.1, \"10.0.0.2:7401\"]");
        break;
    }
}

/* ---- values ---- */

/* A text of these letters only. */
static bool letters_read(const struct config_key *key, const char *value, const char *letters,
                         char *out)
{
    size_t len = strlen(value);
    if (len < (size_t)key->min || len > (size_t)key->max || strspn(value, letters) != len) {
        return false;
    }
    memcpy(out, value, len + 1);
    return true;
}

static bool word_read(const struct config_key *key, const char *value, uint32_t *out)
{
    size_t len = strlen(value);
    const char *choice = key->choices;
    for (uint32_t i = 0;; i++) {
        size_t choice_len = strcspn(choice, "|");
        if (choice_len == len && memcmp(choice, value, len) == 0) {
            *out = i;
            return true;
        }
        if (choice[choice_len] == '\0') {
            return false;
        }
        choice += choice_len + 1;
    }
}

static bool int_read(const struct config_key *key, const char *value, uint32_t *out)
{
    size_t len = strlen(value);
    if (len == 0 || len > 9 || strspn(value, "0123456789") != len) {
        return false;
    }
    unsigned long number = strtoul(value, NULL, 10);
    if ((double)number < key->min || (double)number > key->max) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool real_read(const struct config_key *key, const char *value, double *out)
{
    size_t len = strlen(value);
    char *end = NULL;
    if (len == 0 || len > 32 || strspn(value, "0123456789+-.eE") != len) {
        return false; /* strtod alone would take "nan", "inf" and hexadecimal */
    }
    double number = strtod(value, &end);
    if (*end != '\0' || !isfinite(number) || number < key->min || number > key->max) {
        return false;
    }
    *out = number;
    return true;
}

static bool path_read(const struct config_key *key, const char *value, char *out)
{
    size_t len = strlen(value);
    if (value[0] != '/' || len < (size_t)key->min || len > (size_t)key->max) {
        return false;
    }
    memcpy(out, value, len + 1);
    return true;
}

/* Goes to DPDK as it is, as one argument. */
static bool device_read(const struct config_key *key, const char *value, char *out)
{
    return value[0] != '-' && letters_read(key, value, LETTERS_AND_DIGITS "._-:,=/@", out);
}

/* One host that others can name: not "any", not a group, not broadcast, not of one link only. */
static bool address_read(const char *value, struct in6_addr *out)
{
    if (!addr_parse(value, out)) {
        return false;
    }
    if (IN6_IS_ADDR_LOOPBACK(out)) {
        return true;
    }
    if (!addr_is_v4(out)) {
        return addr_v6_is_host(out) && !addr_is_link_local(out);
    }
    uint32_t host = ntohl(addr_v4(out));
    return (host >> 24) != 0 && host < UINT32_C(0xe0000000);
}

static bool country_read(const char *value, char out[static 3])
{
    for (unsigned i = 0; i < 2; i++) {
        if (value[i] < 'A' || value[i] > 'Z') {
            return false;
        }
    }
    if (value[2] != '\0') {
        return false;
    }
    memcpy(out, value, 3);
    return true;
}

bool config_key_read(const struct config_key *key, const char *value, void *field)
{
    switch (key->type) {
    case TYPE_NAME:
        return letters_read(key, value, LETTERS_AND_DIGITS "._-", field);
    case TYPE_HEX:
        return letters_read(key, value, "0123456789abcdefABCDEF", field);
    case TYPE_WORD:
        return word_read(key, value, field);
    case TYPE_INT:
        return int_read(key, value, field);
    case TYPE_REAL:
        return real_read(key, value, field);
    case TYPE_PATH:
        return path_read(key, value, field);
    case TYPE_DEVICE:
        return device_read(key, value, field);
    case TYPE_ADDRESS:
        return address_read(value, field);
    case TYPE_COUNTRY:
        return country_read(value, field);
    case TYPE_TAGS:
    case TYPE_SEEDS:
        break;
    }
    return false;
}

/* "10.0.0.1", "10.0.0.1:7401", "2001:db8::1" or "[2001:db8::1]:7401". */
bool config_seed_read(const char *text, struct config_seed *seed)
{
    char host[ADDR_TEXT_MAX];
    const char *port = NULL;
    size_t len = strlen(text);
    if (text[0] == '[') {
        text++;
        len = strcspn(text, "]");
        if (text[len] != ']') {
            return false;
        }
        port = text[len + 1] != '\0' ? text + len + 1 : NULL;
    } else if (strchr(text, ':') == strrchr(text, ':')) { /* no IPv6 address */
        len = strcspn(text, ":");
        port = text[len] == ':' ? text + len : NULL;
    }
    if (len >= sizeof(host)) {
        return false;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    uint32_t number = 0;
    const struct config_key range = {.min = 1, .max = UINT16_MAX};
    if (port != NULL && (port[0] != ':' || !int_read(&range, port + 1, &number))) {
        return false;
    }
    seed->port = (uint16_t)number;
    return address_read(host, &seed->address);
}

/* ---- listings ---- */

int config_key_describe(size_t index, struct config_key_info *info)
{
    if (index >= CONFIG_KEY_COUNT) {
        return -ENOENT;
    }
    const struct config_key *key = &config_keys[index];
    *info = (struct config_key_info){
        .place = config_place_names[key->place],
        .key = key->name,
        .default_value = key->default_value,
        .text = key->text,
    };
    config_key_expects(key, info->expects, sizeof(info->expects));
    return 0;
}
