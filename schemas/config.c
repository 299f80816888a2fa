/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - see config.h. What libcyaml read (config_load.c) are texts; here they become struct
 * config by the key table (config_keys.c), and the members are checked against each other.
 */
#include "schemas/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"
#include "schemas/config_impl.h"

#define ERROR_BYTES 512

/* ---- errors ---- */

void config_report_add(struct config_report *report, unsigned line, const char *format, ...)
{
    char text[ERROR_BYTES];
    if (report->errors++ >= CONFIG_ERRORS_MAX) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (report->errors == CONFIG_ERRORS_MAX) {
        snprintf(text, sizeof(text), "too many errors; mend those above first");
    }
    report->fn(report->path, line, text, report->user);
}

const char *config_quote(const char *text, char out[static CONFIG_QUOTE_BYTES])
{
    size_t i = 0;
    for (; text[i] != '\0' && i < CONFIG_QUOTE_BYTES - 4; i++) {
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    strcpy(out + i, text[i] != '\0' ? "..." : "");
    return i == 0 ? "empty" : out;
}

/* ---- maps ---- */

struct check {
    struct config_report *report;
    const struct config_index *index;
    bool members_lost; /* some had errors of their own */
};

/* The line of a value; that of its map if the value is not there. */
static unsigned value_line(const struct check *check, uint32_t map, const char *key)
{
    uint32_t at = config_index_find(check->index, map, key);
    return check->index->entries[at != CONFIG_ENTRY_NONE ? at : map].line;
}

static void tags_take(struct check *check, uint32_t map, const struct config_yaml_list *tags,
                      uint32_t *mask)
{
    char shown[CONFIG_QUOTE_BYTES];
    uint32_t list = config_index_find(check->index, map, "tags");
    uint32_t at = list;
    for (uint32_t i = 0; i < tags->count; i++) {
        uint32_t bit = weft_tag_mask(tags->entries[i]);
        at = config_index_next(check->index, list, at);
        if (bit == 0) {
            config_report_add(check->report, check->index->entries[at].line,
                              "tag %s is not known; `weft conf-check --keys` lists the tags",
                              config_quote(tags->entries[i], shown));
        }
        *mask |= bit;
    }
}

/* Without a port: the control port of a node whose data port is the same as here. */
static void seeds_take(struct check *check, uint32_t map, const struct config_yaml_list *seeds,
                       struct config *config)
{
    char shown[CONFIG_QUOTE_BYTES];
    uint32_t list = config_index_find(check->index, map, "seeds");
    uint32_t at = list;
    for (uint32_t i = 0; i < seeds->count; i++) {
        struct config_seed seed;
        at = config_index_next(check->index, list, at);
        if (!config_seed_read(seeds->entries[i], &seed)) {
            config_report_add(check->report, check->index->entries[at].line,
                              "seed %s; must be a node's IP address, such as 10.0.0.1, "
                              "\"10.0.0.1:7401\" or \"[2001:db8::1]:7401\"",
                              config_quote(seeds->entries[i], shown));
            continue;
        }
        seed.port = seed.port != 0 ? seed.port : config_control_port(config);
        config->seeds[config->seed_count++] = seed;
    }
}

static void list_take(struct check *check, const struct config_key *key, uint32_t map,
                      const void *yaml, void *owner)
{
    struct config_yaml_list list;
    memcpy(&list.entries, yaml, sizeof(list.entries));
    memcpy(&list.count, (const char *)yaml + offsetof(struct config_yaml_list, count),
           sizeof(list.count));
    if (key->type == TYPE_TAGS) {
        tags_take(check, map, &list, (uint32_t *)(void *)((char *)owner + key->offset));
    } else {
        seeds_take(check, map, &list, owner);
    }
}

static void value_take(struct check *check, const struct config_key *key, uint32_t map,
                       const char *text, void *field)
{
    char shown[CONFIG_QUOTE_BYTES];
    char expects[CONFIG_EXPECTS_BYTES];
    if (!config_key_read(key, text, field)) {
        config_key_expects(key, expects, sizeof(expects));
        config_report_add(check->report, value_line(check, map, key->name), "%s is %s; must be %s",
                          key->name, config_quote(text, shown), expects);
    }
}

/* Stores the texts of a map in `owner`; keys that are not there get their default. */
static void map_take(struct check *check, enum config_place place, uint32_t map, const void *yaml,
                     void *owner)
{
    const struct config_key *missing[CONFIG_KEY_COUNT];
    size_t missing_count = 0;
    for (const struct config_key *key = config_keys; key < config_keys + CONFIG_KEY_COUNT; key++) {
        const void *text = (const char *)yaml + key->yaml_offset; /* a char *, but for tags */
        void *field = (char *)owner + key->offset;
        if (key->place != place) {
            continue;
        }
        if (config_type_is_list(key->type)) {
            list_take(check, key, map, text, owner);
        } else if (*(char *const *)text != NULL) {
            value_take(check, key, map, *(char *const *)text, field);
        } else if (key->default_value == NULL) {
            missing[missing_count++] = key;
        } else if (key->default_value[0] != '\0') {
            (void)config_key_read(key, key->default_value, field);
        }
    }
    for (size_t i = 0; i < missing_count; i++) {
        const char *of = config_place_names[place];
        config_report_add(check->report, check->index->entries[map].line, "%s%s%s is missing: %s",
                          of, of[0] == '\0' ? "" : ".", missing[i]->name, missing[i]->text);
    }
}

/* The entry of a section, CONFIG_ENTRY_NONE (and reported) if it is not there. */
static uint32_t section_find(struct check *check, const char *name)
{
    uint32_t at = config_index_find(check->index, 0, name);
    if (at == CONFIG_ENTRY_NONE) {
        config_report_add(check->report, check->index->entries[0].line,
                          "%s is missing; see `weft conf-check --keys`", name);
    }
    return at;
}

/* What only a node that gossips says at the top, and this file must not. */
static void gossip_keys_refuse(struct check *check)
{
    for (const struct config_key *key = config_keys; key < config_keys + CONFIG_KEY_COUNT; key++) {
        uint32_t at = config_index_find(check->index, 0, key->name);
        if ((key->place == PLACE_GOSSIP || key->place == PLACE_SELF) && at != CONFIG_ENTRY_NONE) {
            config_report_add(check->report, check->index->entries[at].key_line,
                              "%s is for a node with seeds; this file lists all members, take one "
                              "of the two out",
                              key->name);
        }
    }
}

/* This node alone: the others tell of themselves. */
static int gossip_take(struct check *check, const struct config_yaml *yaml, struct config *config)
{
    config->gossip = true;
    config->members = calloc(1, sizeof(*config->members));
    if (config->members == NULL) {
        return -ENOMEM;
    }
    struct config_member *self = &config->members[0];
    self->id = WEFT_NODE_NONE;
    self->line = check->index->entries[0].line;
    memcpy(self->name, config->node, sizeof(self->name));
    config->member_count = 1;
    unsigned errors = check->report->errors;
    map_take(check, PLACE_GOSSIP, 0, yaml, config);
    map_take(check, PLACE_SELF, 0, yaml, self);
    bool four = addr_is_v4(&self->address);
    for (uint32_t i = 0; i < config->seed_count && check->report->errors == errors; i++) {
        if (addr_is_v4(&config->seeds[i].address) != four) {
            config_report_add(check->report, value_line(check, 0, "seeds"),
                              "a seed is of another family than address; a mesh uses one");
        }
    }
    if (check->report->errors == errors && !IN6_IS_ADDR_UNSPECIFIED(&self->client_address) &&
        addr_is_v4(&self->client_address) == four) {
        config_report_add(check->report, value_line(check, 0, "client_address"),
                          "client_address is of the same family as address; must be the other one");
    }
    return 0;
}

/* Members with errors of their own are left out of the array. */
static int members_take(struct check *check, uint32_t list, const struct config_yaml *yaml,
                        struct config *config)
{
    if (yaml->members_count == 0) {
        config_report_add(check->report, check->index->entries[list].line,
                          "members is empty; list at least this node");
        return WEFT_E_CONFIG;
    }
    config->members = calloc(yaml->members_count, sizeof(*config->members));
    if (config->members == NULL) {
        return -ENOMEM;
    }
    uint32_t at = list;
    for (uint32_t i = 0; i < yaml->members_count; i++) {
        unsigned errors = check->report->errors;
        at = config_index_next(check->index, list, at);
        struct config_member member = {.line = check->index->entries[at].line};
        map_take(check, PLACE_MEMBER, at, &yaml->members[i], &member);
        if (check->report->errors == errors) {
            config->members[config->member_count++] = member;
        } else {
            check->members_lost = true;
        }
    }
    return 0;
}

/* ---- members among themselves ---- */

static int compare_ids(const struct config_member *a, const struct config_member *b)
{
    return (a->id > b->id) - (a->id < b->id);
}

static int compare_names(const struct config_member *a, const struct config_member *b)
{
    return strcmp(a->name, b->name);
}

static int compare_addresses(const struct config_member *a, const struct config_member *b)
{
    return memcmp(&a->address, &b->address, sizeof(a->address));
}

/* Those that have none are all different. */
static int compare_client_addresses(const struct config_member *a, const struct config_member *b)
{
    int order = memcmp(&a->client_address, &b->client_address, sizeof(a->client_address));
    return order == 0 && IN6_IS_ADDR_UNSPECIFIED(&a->client_address) ? (a > b) - (a < b) : order;
}

typedef int (*compare_fn)(const struct config_member *a, const struct config_member *b);

static int compare_sorted(const void *a, const void *b, void *compare)
{
    const struct config_member *const *left = a;
    const struct config_member *const *right = b;
    int order = (*(compare_fn *)compare)(*left, *right);
    return order != 0 ? order : (*left > *right) - (*left < *right); /* array is in file order */
}

static void unique_check(struct config_report *report, const struct config *config,
                         const struct config_member **sorted, const char *what, compare_fn compare)
{
    for (uint32_t i = 0; i < config->member_count; i++) {
        sorted[i] = &config->members[i];
    }
    qsort_r(sorted, config->member_count, sizeof(*sorted), compare_sorted, &compare);
    for (uint32_t i = 1; i < config->member_count; i++) {
        if (compare(sorted[i - 1], sorted[i]) == 0) {
            config_report_add(report, sorted[i]->line,
                              "member %s has the same %s as %s on line %u; must be unique",
                              sorted[i]->name, what, sorted[i - 1]->name, sorted[i - 1]->line);
        }
    }
}

/* Members talk to each other over one family; a second address is of the other one. */
static void families_check(struct config_report *report, const struct config *config)
{
    bool four = addr_is_v4(&config->members[0].address);
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct config_member *m = &config->members[i];
        if (addr_is_v4(&m->address) != four) {
            config_report_add(report, m->line,
                              "member %s has an address of another family than %s on line %u; a "
                              "mesh uses one, clients of the other come to client_address",
                              m->name, config->members[0].name, config->members[0].line);
        } else if (!IN6_IS_ADDR_UNSPECIFIED(&m->client_address) &&
                   addr_is_v4(&m->client_address) == four) {
            config_report_add(report, m->line,
                              "member %s has a client_address of the same family as its address; "
                              "must be the other one",
                              m->name);
        }
    }
}

static int members_check(struct check *check, struct config *config)
{
    const struct config_member **sorted = calloc(config->member_count, sizeof(*sorted));
    if (sorted == NULL) {
        return -ENOMEM;
    }
    unique_check(check->report, config, sorted, "name", compare_names);
    unique_check(check->report, config, sorted, "id", compare_ids);
    unique_check(check->report, config, sorted, "address", compare_addresses);
    unique_check(check->report, config, sorted, "client_address", compare_client_addresses);
    free(sorted);
    families_check(check->report, config);
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (strcmp(config->members[i].name, config->node) == 0) {
            config->self = i;
            return 0;
        }
    }
    if (!check->members_lost && config->node[0] != '\0') {
        config_report_add(check->report, value_line(check, 0, "node"),
                          "node %s is not one of the members; add it or mend the name",
                          config->node);
    }
    return 0;
}

/* ---- files ---- */

/* Only the driver dpdk wants a device, and it cannot do without. */
static void nic_check(struct check *check, uint32_t nic, const struct config *config)
{
    bool wanted = config->nic.driver == CONFIG_DRIVER_DPDK;
    if (wanted != (config->nic.device[0] != '\0')) {
        config_report_add(check->report, check->index->entries[nic].line,
                          wanted ? "driver dpdk needs a device; such as device: \"0000:03:00.0\""
                                 : "device is for driver dpdk only; take it out");
    }
}

static int config_take(struct check *check, const struct config_yaml *yaml, struct config *config)
{
    map_take(check, PLACE_TOP, 0, yaml, config);
    uint32_t nic = section_find(check, "nic");
    if (nic != CONFIG_ENTRY_NONE) {
        map_take(check, PLACE_NIC, nic, yaml->nic, config);
        nic_check(check, nic, config);
    }
    uint32_t sockets = section_find(check, "sockets");
    if (sockets != CONFIG_ENTRY_NONE) {
        map_take(check, PLACE_SOCKETS, sockets, yaml->sockets, config);
        if (config->sockets.admin[0] != '\0' &&
            strcmp(config->sockets.admin, config->sockets.port) == 0) {
            config_report_add(check->report, check->index->entries[sockets].line,
                              "sockets.admin and sockets.port are the same; must differ");
        }
    }
    uint32_t members = config_index_find(check->index, 0, "members");
    if (members == CONFIG_ENTRY_NONE) {
        if (config_index_find(check->index, 0, "seeds") != CONFIG_ENTRY_NONE) {
            return gossip_take(check, yaml, config);
        }
        config_report_add(check->report, check->index->entries[0].line,
                          "members or seeds is missing; see `weft conf-check --keys`");
        return WEFT_E_CONFIG;
    }
    gossip_keys_refuse(check);
    int rc = members_take(check, members, yaml, config);
    return rc == 0 && config->member_count > 0 ? members_check(check, config) : rc;
}

int config_parse(struct config **out, const void *data, size_t size, const char *path,
                 config_error_fn fn, void *user)
{
    struct config_report report = {.path = path, .fn = fn, .user = user};
    struct config_index index = {0};
    struct check check = {.report = &report, .index = &index};
    struct config_yaml *yaml = NULL;
    *out = NULL;
    if (size > CONFIG_BYTES_MAX) {
        config_report_add(&report, 0, "file is larger than %u MiB; take out what is not needed",
                          CONFIG_BYTES_MAX >> 20);
        return WEFT_E_CONFIG;
    }
    struct config *config = calloc(1, sizeof(*config));
    int rc = config != NULL ? config_index_read(&index, &report, data, size) : -ENOMEM;
    rc = rc == 0 ? config_yaml_load(&yaml, &report, &index, data, size) : rc;
    rc = rc == 0 ? config_take(&check, yaml, config) : rc;
    rc = rc == 0 && report.errors > 0 ? WEFT_E_CONFIG : rc;
    config_yaml_destroy(yaml);
    config_index_free(&index);
    if (rc != 0) {
        config_destroy(config);
        return rc;
    }
    *out = config;
    return 0;
}

int config_load(struct config **out, const char *path, config_error_fn fn, void *user)
{
    struct config_report report = {.path = path, .fn = fn, .user = user};
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        config_report_add(&report, 0, "cannot be opened: %s", weft_status_text(-errno));
        return WEFT_E_CONFIG;
    }
    int rc = -ENOMEM;
    char *data = malloc(CONFIG_BYTES_MAX + 1);
    if (data != NULL) {
        size_t size = fread(data, 1, CONFIG_BYTES_MAX + 1, file);
        if (ferror(file)) {
            config_report_add(&report, 0, "cannot be read: %s", weft_status_text(-errno));
            rc = WEFT_E_CONFIG;
        } else {
            rc = config_parse(out, data, size, path, fn, user);
        }
    }
    free(data);
    fclose(file);
    return rc;
}

void config_destroy(struct config *config)
{
    if (config != NULL) {
        free(config->members);
        free(config);
    }
}
