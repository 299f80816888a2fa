/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - see config.h. Three steps: libyaml's events become a small tree that knows its lines;
 * the tree is read against the key table of config.def; members are checked against each other.
 */
#include "schemas/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "schemas/config.def"
#include "schemas/tags.def"

#define DEPTH_MAX      5u /* file > members > member > tags > a list by mistake */
#define NODES_MAX      (CONFIG_MEMBERS_MAX * 64u)
#define ERROR_BYTES    512
#define QUOTE_BYTES    48
#define NODE_NOT_THERE UINT32_MAX

/* ---- the key table ---- */

enum place { PLACE_TOP, PLACE_NIC, PLACE_SOCKETS, PLACE_MEMBER };
enum type {
    TYPE_NAME,
    TYPE_WORD,
    TYPE_INT,
    TYPE_REAL,
    TYPE_PATH,
    TYPE_ADDRESS,
    TYPE_TAGS,
    TYPE_COUNTRY
};

struct key {
    enum place place;
    enum type type;
    const char *name;
    const char *default_value;
    double min;
    double max;
    const char *choices;
    const char *text;
    size_t offset; /* in struct config or struct config_member */
};

#define OWNER_TOP     struct config
#define OWNER_NIC     struct config
#define OWNER_SOCKETS struct config
#define OWNER_MEMBER  struct config_member
#define KEY_ROW_(place_, key_, type_, field_, default_, min_, max_, choices_, text_)               \
    {PLACE_##place_, TYPE_##type_,   #key_,                                                        \
     default_,       (double)(min_), (double)(max_),                                               \
     choices_,       text_,          offsetof(OWNER_##place_, field_)},
static const struct key keys[] = {WEFT_CONFIG_KEYS(KEY_ROW_)};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

static const char *const place_names[] = {"", "nic", "sockets", "members"};

/* ---- the tree ---- */

enum node_kind { NODE_SCALAR, NODE_MAP, NODE_LIST };

struct node {
    enum node_kind kind;
    uint32_t line;
    uint32_t first; /* child */
    uint32_t last;
    uint32_t next;     /* sibling */
    uint32_t key_line; /* children of a map */
    char *key;
    char *value; /* scalars */
};

struct reader {
    const char *path;
    config_error_fn fn;
    void *user;
    unsigned errors;
    struct node *nodes;
    uint32_t count;
    uint32_t room;
    uint32_t stack[DEPTH_MAX]; /* open maps and lists */
    uint32_t depth;
    char *key; /* read, its value is still to come */
    uint32_t key_line;
    bool members_lost; /* some had errors of their own */
};

static void report(struct reader *r, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void report(struct reader *r, unsigned line, const char *format, ...)
{
    char text[ERROR_BYTES];
    if (r->errors++ >= CONFIG_ERRORS_MAX) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (r->errors == CONFIG_ERRORS_MAX) {
        snprintf(text, sizeof(text), "too many errors; mend those above first");
    }
    r->fn(r->path, line, text, r->user);
}

/* A value as it may be shown: short and printable. */
static const char *quoted(const char *value, char out[static QUOTE_BYTES])
{
    size_t i = 0;
    for (; value[i] != '\0' && i < QUOTE_BYTES - 4; i++) {
        out[i] = value[i] >= ' ' && value[i] <= '~' ? value[i] : '?';
    }
    strcpy(out + i, value[i] != '\0' ? "..." : "");
    return i == 0 ? "empty" : out;
}

static uint32_t node_add(struct reader *r, enum node_kind kind, uint32_t line)
{
    if (r->count == r->room) {
        uint32_t room = r->room == 0 ? 256 : r->room * 2;
        struct node *nodes = realloc(r->nodes, room * sizeof(*nodes));
        if (nodes == NULL) {
            return NODE_NOT_THERE;
        }
        r->nodes = nodes;
        r->room = room;
    }
    uint32_t index = r->count++;
    r->nodes[index] = (struct node){
        .kind = kind,
        .line = line,
        .first = NODE_NOT_THERE,
        .last = NODE_NOT_THERE,
        .next = NODE_NOT_THERE,
        .key_line = line,
    };
    if (r->depth > 0) {
        struct node *parent = &r->nodes[r->stack[r->depth - 1]];
        if (parent->first == NODE_NOT_THERE) {
            parent->first = index;
        } else {
            r->nodes[parent->last].next = index;
        }
        parent->last = index;
        if (parent->kind == NODE_MAP) {
            r->nodes[index].key = r->key;
            r->nodes[index].key_line = r->key_line;
            r->key = NULL;
        }
    }
    return index;
}

/* True if a map is open and its next event is a key. */
static bool key_expected(const struct reader *r)
{
    return r->depth > 0 && r->nodes[r->stack[r->depth - 1]].kind == NODE_MAP && r->key == NULL;
}

static int scalar_add(struct reader *r, const yaml_event_t *event, uint32_t line)
{
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length) {
        report(r, line, "a text holds a zero byte; take it out");
        return WEFT_E_CONFIG;
    }
    char *copy = strdup(value);
    if (copy == NULL) {
        return -ENOMEM;
    }
    if (key_expected(r)) {
        r->key = copy;
        r->key_line = line;
        return 0;
    }
    uint32_t index = node_add(r, NODE_SCALAR, line);
    if (index == NODE_NOT_THERE) {
        free(copy);
        return -ENOMEM;
    }
    r->nodes[index].value = copy;
    return 0;
}

static int collection_open(struct reader *r, enum node_kind kind, uint32_t line)
{
    if (key_expected(r)) {
        report(r, line, "a key must be a word, not a list or a map");
        return WEFT_E_CONFIG;
    }
    if (r->depth == DEPTH_MAX) {
        report(r, line, "nested too deeply; see `weft conf-check --keys` for the shape");
        return WEFT_E_CONFIG;
    }
    uint32_t index = node_add(r, kind, line);
    if (index == NODE_NOT_THERE) {
        return -ENOMEM;
    }
    r->stack[r->depth++] = index;
    return 0;
}

/* Anchors and tags have no use in this file, and aliases are how small files grow large. */
static bool event_is_plain(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return false;
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor == NULL && event->data.scalar.tag == NULL;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor == NULL && event->data.sequence_start.tag == NULL;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor == NULL && event->data.mapping_start.tag == NULL;
    default:
        return true;
    }
}

static int event_take(struct reader *r, const yaml_event_t *event)
{
    uint32_t line = (uint32_t)event->start_mark.line + 1;
    if (!event_is_plain(event)) {
        report(r, line, "anchors (&), aliases (*) and tags (!) are not used; write it out");
        return WEFT_E_CONFIG;
    }
    if (r->count >= NODES_MAX) {
        report(r, line, "too many entries; at most %u members", CONFIG_MEMBERS_MAX);
        return WEFT_E_CONFIG;
    }
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return scalar_add(r, event, line);
    case YAML_SEQUENCE_START_EVENT:
        return collection_open(r, NODE_LIST, line);
    case YAML_MAPPING_START_EVENT:
        return collection_open(r, NODE_MAP, line);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        if (r->count > 0) {
            report(r, line, "a second document begins; a file holds one");
            return WEFT_E_CONFIG;
        }
        return 0;
    default:
        return 0;
    }
}

static int tree_read(struct reader *r, const void *data, size_t size)
{
    yaml_parser_t parser;
    yaml_event_t event;
    bool ended = false;
    int rc = 0;
    if (!yaml_parser_initialize(&parser)) {
        return -ENOMEM;
    }
    yaml_parser_set_input_string(&parser, data, size);
    while (rc == 0 && !ended) {
        if (!yaml_parser_parse(&parser, &event)) {
            if (parser.error == YAML_MEMORY_ERROR) {
                rc = -ENOMEM;
                break;
            }
            report(r, (unsigned)parser.problem_mark.line + 1, "not valid YAML: %s",
                   parser.problem != NULL ? parser.problem : "unreadable");
            rc = WEFT_E_CONFIG;
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        rc = event_take(r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return rc;
}

static void tree_free(struct reader *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        free(r->nodes[i].key);
        free(r->nodes[i].value);
    }
    free(r->nodes);
    free(r->key);
}

/* ---- values ---- */

static void key_expects(const struct key *key, char *out, size_t size)
{
    switch (key->type) {
    case TYPE_NAME:
        snprintf(out, size, "1 to %.0f of letters, digits, '.', '_' and '-'", key->max);
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
    case TYPE_ADDRESS:
        snprintf(out, size, "a node's IPv4 address, such as 10.0.0.1");
        break;
    case TYPE_TAGS:
        snprintf(out, size, "a list of tags, such as [eu, gdpr]");
        break;
    case TYPE_COUNTRY:
        snprintf(out, size, "two capital letters, such as DE");
        break;
    }
}

static bool name_read(const struct key *key, const char *value, char *out)
{
    size_t len = strlen(value);
    if (len < (size_t)key->min || len > (size_t)key->max ||
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len) {
        return false;
    }
    memcpy(out, value, len + 1);
    return true;
}

static bool word_read(const struct key *key, const char *value, uint32_t *out)
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

static bool int_read(const struct key *key, const char *value, uint32_t *out)
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

static bool real_read(const struct key *key, const char *value, double *out)
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

static bool path_read(const struct key *key, const char *value, char *out)
{
    size_t len = strlen(value);
    if (value[0] != '/' || len < (size_t)key->min || len > (size_t)key->max) {
        return false;
    }
    memcpy(out, value, len + 1);
    return true;
}

/* One host: not "any", not a group, not broadcast. */
static bool address_read(const char *value, struct in_addr *out)
{
    if (inet_pton(AF_INET, value, out) != 1) {
        return false;
    }
    uint32_t host = ntohl(out->s_addr);
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

static bool value_read(const struct key *key, const char *value, void *field)
{
    switch (key->type) {
    case TYPE_NAME:
        return name_read(key, value, field);
    case TYPE_WORD:
        return word_read(key, value, field);
    case TYPE_INT:
        return int_read(key, value, field);
    case TYPE_REAL:
        return real_read(key, value, field);
    case TYPE_PATH:
        return path_read(key, value, field);
    case TYPE_ADDRESS:
        return address_read(value, field);
    case TYPE_COUNTRY:
        return country_read(value, field);
    case TYPE_TAGS:
        break;
    }
    return false;
}

static void tags_take(struct reader *r, const struct node *list, uint32_t *mask)
{
    char shown[QUOTE_BYTES];
    for (uint32_t i = list->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        const struct node *item = &r->nodes[i];
        uint32_t bit = item->kind == NODE_SCALAR ? weft_tag_mask(item->value) : 0;
        if (bit == 0) {
            report(r, item->line, "tag %s is not known; `weft conf-check --keys` lists the tags",
                   item->kind == NODE_SCALAR ? quoted(item->value, shown) : "of a nested list");
        }
        *mask |= bit;
    }
}

static void value_take(struct reader *r, const struct key *key, const struct node *node,
                       void *field)
{
    char shown[QUOTE_BYTES];
    char expects[96];
    if (key->type == TYPE_TAGS && node->kind == NODE_LIST) {
        tags_take(r, node, field);
        return;
    }
    if (node->kind == NODE_SCALAR && value_read(key, node->value, field)) {
        return;
    }
    key_expects(key, expects, sizeof(expects));
    report(r, node->line, "%s is %s; must be %s", key->name,
           node->kind == NODE_SCALAR ? quoted(node->value, shown)
           : node->kind == NODE_LIST ? "a list"
                                     : "a map",
           expects);
}

/* ---- maps ---- */

static const struct key *key_find(enum place place, const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].place == place && strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static void unknown_key_report(struct reader *r, enum place place, const struct node *node)
{
    char known[ERROR_BYTES] = "";
    char shown[QUOTE_BYTES];
    size_t used = 0;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].place == place) {
            used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
                                     used > 0 ? ", " : "", keys[i].name);
        }
    }
    report(r, node->key_line, "key %s is not known here; known are %s%s", quoted(node->key, shown),
           known, place == PLACE_TOP ? ", nic, sockets, members" : "");
}

static bool given_twice_report(struct reader *r, const struct node *map, const struct node *node)
{
    for (uint32_t i = map->first; &r->nodes[i] != node; i = r->nodes[i].next) {
        if (strcmp(r->nodes[i].key, node->key) == 0) {
            char shown[QUOTE_BYTES];
            report(r, node->key_line, "%s is given twice, first on line %u; keep one",
                   quoted(node->key, shown), r->nodes[i].key_line);
            return true;
        }
    }
    return false;
}

static bool section_is(enum place place, const char *name)
{
    return place == PLACE_TOP && (strcmp(name, "nic") == 0 || strcmp(name, "sockets") == 0 ||
                                  strcmp(name, "members") == 0);
}

/* Bounds the quadratic search for keys given twice. */
#define MAP_KEYS_MAX 64u

/* Reads a map's values into `owner`; keys that are not there get their default. */
static void map_take(struct reader *r, const struct node *map, enum place place, void *owner)
{
    bool seen[KEY_COUNT] = {false};
    unsigned count = 0;
    for (uint32_t i = map->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        const struct node *node = &r->nodes[i];
        const struct key *key = key_find(place, node->key);
        if (++count > MAP_KEYS_MAX) {
            report(r, node->key_line, "too many keys; at most %u", MAP_KEYS_MAX);
            return;
        }
        if (given_twice_report(r, map, node)) {
            continue;
        }
        if (key != NULL) {
            seen[key - keys] = true;
            value_take(r, key, node, (char *)owner + key->offset);
        } else if (!section_is(place, node->key)) {
            unknown_key_report(r, place, node);
        }
    }
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct key *key = &keys[i];
        if (key->place != place || seen[i]) {
            continue;
        }
        if (key->default_value == NULL) {
            report(r, map->line, "%s%s%s is missing: %s", place_names[place],
                   place == PLACE_TOP ? "" : ".", key->name, key->text);
        } else if (key->default_value[0] != '\0') {
            (void)value_read(key, key->default_value, (char *)owner + key->offset);
        }
    }
}

/* The section of that name, NULL (and reported) if it is not there or of the wrong kind. */
static const struct node *section_find(struct reader *r, const struct node *top, const char *name,
                                       enum node_kind kind)
{
    for (uint32_t i = top->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        const struct node *node = &r->nodes[i];
        if (strcmp(node->key, name) == 0) {
            if (node->kind == kind) {
                return node;
            }
            report(r, node->line, "%s must be a %s", name, kind == NODE_MAP ? "map" : "list");
            return NULL;
        }
    }
    report(r, top->line, "%s is missing; see `weft conf-check --keys`", name);
    return NULL;
}

/* Members with errors of their own are left out of the array. */
static int members_take(struct reader *r, const struct node *list, struct config *config)
{
    uint32_t count = 0;
    for (uint32_t i = list->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        if (count++ == CONFIG_MEMBERS_MAX) {
            report(r, r->nodes[i].line, "one member too many; at most %u", CONFIG_MEMBERS_MAX);
            return WEFT_E_CONFIG;
        }
    }
    if (count == 0) {
        report(r, list->line, "members is empty; list at least this node");
        return WEFT_E_CONFIG;
    }
    config->members = calloc(count, sizeof(*config->members));
    if (config->members == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = list->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        const struct node *node = &r->nodes[i];
        struct config_member member = {.line = node->line};
        unsigned errors = r->errors;
        if (node->kind == NODE_MAP) {
            map_take(r, node, PLACE_MEMBER, &member);
        } else {
            report(r, node->line, "a member must be a map: {name: ..., id: ..., ...}");
        }
        if (r->errors == errors) {
            config->members[config->member_count++] = member;
        } else {
            r->members_lost = true;
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
    return (a->address.s_addr > b->address.s_addr) - (a->address.s_addr < b->address.s_addr);
}

typedef int (*compare_fn)(const struct config_member *a, const struct config_member *b);

static int compare_sorted(const void *a, const void *b, void *compare)
{
    const struct config_member *const *left = a;
    const struct config_member *const *right = b;
    int order = (*(compare_fn *)compare)(*left, *right);
    return order != 0 ? order : (*left > *right) - (*left < *right); /* array is in file order */
}

static void unique_check(struct reader *r, const struct config *config,
                         const struct config_member **sorted, const char *what, compare_fn compare)
{
    for (uint32_t i = 0; i < config->member_count; i++) {
        sorted[i] = &config->members[i];
    }
    qsort_r(sorted, config->member_count, sizeof(*sorted), compare_sorted, &compare);
    for (uint32_t i = 1; i < config->member_count; i++) {
        if (compare(sorted[i - 1], sorted[i]) == 0) {
            report(r, sorted[i]->line, "member %s has the same %s as %s on line %u; must be unique",
                   sorted[i]->name, what, sorted[i - 1]->name, sorted[i - 1]->line);
        }
    }
}

static int members_check(struct reader *r, struct config *config, unsigned node_line)
{
    const struct config_member **sorted = calloc(config->member_count, sizeof(*sorted));
    if (sorted == NULL) {
        return -ENOMEM;
    }
    unique_check(r, config, sorted, "name", compare_names);
    unique_check(r, config, sorted, "id", compare_ids);
    unique_check(r, config, sorted, "address", compare_addresses);
    free(sorted);
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (strcmp(config->members[i].name, config->node) == 0) {
            config->self = i;
            return 0;
        }
    }
    if (!r->members_lost && config->node[0] != '\0') {
        report(r, node_line, "node %s is not one of the members; add it or mend the name",
               config->node);
    }
    return 0;
}

static unsigned node_key_line(const struct reader *r, const struct node *top)
{
    for (uint32_t i = top->first; i != NODE_NOT_THERE; i = r->nodes[i].next) {
        if (strcmp(r->nodes[i].key, "node") == 0) {
            return r->nodes[i].line;
        }
    }
    return top->line;
}

static int config_take(struct reader *r, struct config *config)
{
    if (r->count == 0 || r->nodes[0].kind != NODE_MAP) {
        report(r, 1, "the file must be a map of keys; see `weft conf-check --keys`");
        return WEFT_E_CONFIG;
    }
    const struct node *top = &r->nodes[0];
    map_take(r, top, PLACE_TOP, config);
    const struct node *nic = section_find(r, top, "nic", NODE_MAP);
    if (nic != NULL) {
        map_take(r, nic, PLACE_NIC, config);
    }
    const struct node *sockets = section_find(r, top, "sockets", NODE_MAP);
    if (sockets != NULL) {
        map_take(r, sockets, PLACE_SOCKETS, config);
        if (config->sockets.admin[0] != '\0' &&
            strcmp(config->sockets.admin, config->sockets.port) == 0) {
            report(r, sockets->line, "sockets.admin and sockets.port are the same; must differ");
        }
    }
    const struct node *members = section_find(r, top, "members", NODE_LIST);
    int rc = members != NULL ? members_take(r, members, config) : WEFT_E_CONFIG;
    if (rc == 0 && config->member_count > 0) {
        rc = members_check(r, config, node_key_line(r, top));
    }
    return rc == 0 && r->errors > 0 ? WEFT_E_CONFIG : rc;
}

int config_parse(struct config **out, const void *data, size_t size, const char *path,
                 config_error_fn fn, void *user)
{
    struct reader r = {.path = path, .fn = fn, .user = user};
    *out = NULL;
    if (size > CONFIG_BYTES_MAX) {
        report(&r, 0, "file is larger than %u MiB", CONFIG_BYTES_MAX >> 20);
        return WEFT_E_CONFIG;
    }
    struct config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return -ENOMEM;
    }
    int rc = tree_read(&r, data, size);
    rc = rc == 0 ? config_take(&r, config) : rc;
    tree_free(&r);
    if (rc != 0) {
        config_destroy(config);
        return rc;
    }
    *out = config;
    return 0;
}

int config_load(struct config **out, const char *path, config_error_fn fn, void *user)
{
    struct reader r = {.path = path, .fn = fn, .user = user};
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        report(&r, 0, "cannot be opened: %s", weft_status_text(-errno));
        return WEFT_E_CONFIG;
    }
    int rc = -ENOMEM;
    char *data = malloc(CONFIG_BYTES_MAX + 1);
    if (data != NULL) {
        size_t size = fread(data, 1, CONFIG_BYTES_MAX + 1, file);
        if (ferror(file)) {
            report(&r, 0, "cannot be read: %s", weft_status_text(-errno));
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

int config_key_describe(size_t index, struct config_key_info *info)
{
    if (index >= KEY_COUNT) {
        return -ENOENT;
    }
    const struct key *key = &keys[index];
    *info = (struct config_key_info){
        .place = place_names[key->place],
        .key = key->name,
        .default_value = key->default_value,
        .text = key->text,
    };
    key_expects(key, info->expects, sizeof(info->expects));
    return 0;
}
