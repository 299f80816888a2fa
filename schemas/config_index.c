/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_index.c - one pass of libyaml over a configuration file before libcyaml (config_load.c)
 * reads it: refuses what could make a small file costly, and notes the line of every value, which
 * libcyaml does not keep.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "schemas/config_impl.h"

#define DEPTH_MAX   5u /* file > members > member > tags > a list by mistake */
#define ENTRIES_MAX (CONFIG_MEMBERS_MAX * 64u)

struct pass {
    struct config_index *index;
    struct config_report *report;
    uint32_t stack[DEPTH_MAX]; /* open maps and lists */
    uint32_t depth;
    char *key; /* read, its value is still to come */
    uint32_t key_line;
};

static int entry_add(struct pass *pass, enum config_entry_kind kind, uint32_t line)
{
    struct config_index *index = pass->index;
    if (index->count == index->room) {
        uint32_t room = index->room == 0 ? 256 : index->room * 2;
        struct config_entry *entries = realloc(index->entries, room * sizeof(*entries));
        if (entries == NULL) {
            return -ENOMEM;
        }
        index->entries = entries;
        index->room = room;
    }
    index->entries[index->count++] = (struct config_entry){
        .kind = kind,
        .parent = pass->depth > 0 ? pass->stack[pass->depth - 1] : CONFIG_ENTRY_NONE,
        .line = line,
        .key_line = pass->key != NULL ? pass->key_line : line,
        .key = pass->key,
    };
    pass->key = NULL;
    return 0;
}

/* True if a map is open and its next event is a key. */
static bool key_expected(const struct pass *pass)
{
    return pass->depth > 0 && pass->key == NULL &&
           pass->index->entries[pass->stack[pass->depth - 1]].kind == ENTRY_MAP;
}

static int scalar_add(struct pass *pass, const yaml_event_t *event, uint32_t line)
{
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length) {
        config_report_add(pass->report, line, "a text holds a zero byte; take it out");
        return WEFT_E_CONFIG;
    }
    if (key_expected(pass)) {
        pass->key = strdup(value);
        pass->key_line = line;
        return pass->key != NULL ? 0 : -ENOMEM;
    }
    return entry_add(pass, value[0] != '\0' ? ENTRY_SCALAR : ENTRY_EMPTY, line);
}

static int collection_open(struct pass *pass, enum config_entry_kind kind, uint32_t line)
{
    if (key_expected(pass)) {
        config_report_add(pass->report, line, "a key must be a word, not a list or a map");
        return WEFT_E_CONFIG;
    }
    if (pass->depth == DEPTH_MAX) {
        config_report_add(pass->report, line,
                          "nested too deeply; see `weft conf-check --keys` for the shape");
        return WEFT_E_CONFIG;
    }
    int rc = entry_add(pass, kind, line);
    if (rc == 0) {
        pass->stack[pass->depth++] = pass->index->count - 1;
    }
    return rc;
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

static int event_take(struct pass *pass, const yaml_event_t *event)
{
    uint32_t line = (uint32_t)event->start_mark.line + 1;
    if (!event_is_plain(event)) {
        config_report_add(pass->report, line,
                          "anchors (&), aliases (*) and tags (!) are not used; write it out");
        return WEFT_E_CONFIG;
    }
    if (pass->index->count >= ENTRIES_MAX) {
        config_report_add(pass->report, line, "too many entries; at most %u members",
                          CONFIG_MEMBERS_MAX);
        return WEFT_E_CONFIG;
    }
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return scalar_add(pass, event, line);
    case YAML_SEQUENCE_START_EVENT:
        return collection_open(pass, ENTRY_LIST, line);
    case YAML_MAPPING_START_EVENT:
        return collection_open(pass, ENTRY_MAP, line);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        pass->depth--;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        if (pass->index->count > 0) { /* libcyaml would pass over it */
            config_report_add(pass->report, line, "a second document begins; a file holds one");
            return WEFT_E_CONFIG;
        }
        return 0;
    default:
        return 0;
    }
}

int config_index_read(struct config_index *index, struct config_report *report, const void *data,
                      size_t size)
{
    struct pass pass = {.index = index, .report = report};
    yaml_parser_t parser;
    yaml_event_t event;
    bool ended = false;
    int rc = 0;
    if (!yaml_parser_initialize(&parser)) {
        return -ENOMEM;
    }
    yaml_parser_set_input_string(&parser, data, size);
    while (rc == 0 && !ended) {
        if (yaml_parser_parse(&parser, &event)) {
            ended = event.type == YAML_STREAM_END_EVENT;
            rc = event_take(&pass, &event);
            yaml_event_delete(&event);
        } else if (parser.error == YAML_MEMORY_ERROR) {
            rc = -ENOMEM;
        } else {
            config_report_add(report, (unsigned)parser.problem_mark.line + 1, "not valid YAML: %s",
                              parser.problem != NULL ? parser.problem : "unreadable");
            rc = WEFT_E_CONFIG;
        }
    }
    yaml_parser_delete(&parser);
    free(pass.key);
    if (rc == 0 && (index->count == 0 || index->entries[0].kind != ENTRY_MAP)) {
        config_report_add(report, 1,
                          "the file must be a map of keys; see `weft conf-check --keys`");
        rc = WEFT_E_CONFIG;
    }
    return rc;
}

void config_index_free(struct config_index *index)
{
    for (uint32_t i = 0; i < index->count; i++) {
        free(index->entries[i].key);
    }
    free(index->entries);
    *index = (struct config_index){0};
}

uint32_t config_index_next(const struct config_index *index, uint32_t parent, uint32_t after)
{
    /* An entry whose parent comes earlier ends the subtree of `parent`. */
    for (uint32_t i = after + 1; i < index->count && index->entries[i].parent >= parent; i++) {
        if (index->entries[i].parent == parent) {
            return i;
        }
    }
    return CONFIG_ENTRY_NONE;
}

uint32_t config_index_find(const struct config_index *index, uint32_t parent, const char *key)
{
    uint32_t i = config_index_next(index, parent, parent);
    while (i != CONFIG_ENTRY_NONE &&
           (index->entries[i].key == NULL || strcmp(index->entries[i].key, key) != 0)) {
        i = config_index_next(index, parent, i);
    }
    return i;
}
