/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_load.c - libcyaml maps a configuration file to struct config_yaml (config_impl.h) by a
 * schema made of the lists of config.def; its errors become errors of ours, with the line that
 * config_index.c noted.
 *
 * Every key is optional in the schema: libcyaml would stop at the first missing one, config.c
 * reports them all. libcyaml's backtrace names the path of an error. The lines in it are not used:
 * for a key unknown or given twice it names the value before.
 */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/config_impl.h"

/* ---- schema ---- */

#define OPTIONAL_PTR (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)

static const cyaml_schema_value_t tag_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};

#define FIELD_TEXT(owner, key)                                                                     \
    CYAML_FIELD_STRING_PTR(#key, OPTIONAL_PTR, owner, key, 0, CYAML_UNLIMITED),
#define FIELD_NAME    FIELD_TEXT
#define FIELD_HEX     FIELD_TEXT
#define FIELD_WORD    FIELD_TEXT
#define FIELD_INT     FIELD_TEXT
#define FIELD_REAL    FIELD_TEXT
#define FIELD_PATH    FIELD_TEXT
#define FIELD_DEVICE  FIELD_TEXT
#define FIELD_ADDRESS FIELD_TEXT
#define FIELD_COUNTRY FIELD_TEXT
#define FIELD_TAGS(owner, key)                                                                     \
    CYAML_FIELD_SEQUENCE(#key, OPTIONAL_PTR, owner, key, &tag_schema, 0, CONFIG_TAGS_MAX),

#define FIELD_SEEDS(owner, key)                                                                    \
    CYAML_FIELD_SEQUENCE(#key, OPTIONAL_PTR, owner, key, &tag_schema, 0, CONFIG_SEEDS_MAX),

#define NIC_FIELD(place, key, type, ...)     FIELD_##type(struct config_yaml_nic, key)
#define SOCKETS_FIELD(place, key, type, ...) FIELD_##type(struct config_yaml_sockets, key)
#define MEMBER_FIELD(place, key, type, ...)  FIELD_##type(struct config_yaml_member, key)
#define TOP_FIELD(place, key, type, ...)     FIELD_##type(struct config_yaml, key)

/* clang-format off */
static const cyaml_schema_field_t nic_fields[] = {
    WEFT_CONFIG_NIC_KEYS(NIC_FIELD)
    CYAML_FIELD_END
};
static const cyaml_schema_field_t sockets_fields[] = {
    WEFT_CONFIG_SOCKETS_KEYS(SOCKETS_FIELD)
    CYAML_FIELD_END
};
static const cyaml_schema_field_t member_fields[] = {
    WEFT_CONFIG_MEMBER_KEYS(MEMBER_FIELD)
    CYAML_FIELD_END
};
static const cyaml_schema_value_t member_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_yaml_member, member_fields)
};
static const cyaml_schema_field_t top_fields[] = {
    WEFT_CONFIG_TOP_KEYS(TOP_FIELD)
    WEFT_CONFIG_GOSSIP_KEYS(TOP_FIELD)
    WEFT_CONFIG_SELF_KEYS(TOP_FIELD)
    CYAML_FIELD_MAPPING_PTR("nic", OPTIONAL_PTR, struct config_yaml, nic, nic_fields),
    CYAML_FIELD_MAPPING_PTR("sockets", OPTIONAL_PTR, struct config_yaml, sockets, sockets_fields),
    CYAML_FIELD_SEQUENCE("members", OPTIONAL_PTR, struct config_yaml, members, &member_schema, 0,
                         CONFIG_MEMBERS_MAX),
    CYAML_FIELD_END
};
static const cyaml_schema_value_t top_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_yaml, top_fields)
};
/* clang-format on */

/* ---- libcyaml's log ---- */

#define STEPS_MAX     8u /* more than the depth of the schema */
#define STEP_BYTES    32
#define MESSAGE_BYTES 160

/* What libcyaml logs of an error: a message, then the path to it from the inside out. */
struct trace {
    char message[MESSAGE_BYTES];
    char steps[STEPS_MAX][STEP_BYTES]; /* a key, or the number of a list's entry from 1 */
    uint32_t count;
};

static void trace_log(cyaml_log_t level, void *user, const char *format, va_list args)
{
    struct trace *trace = user;
    char text[MESSAGE_BYTES];
    int at = 0;
    (void)level;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    (void)sscanf(text, "  in mapping field '%n", &at);
    if (at == 0) {
        (void)sscanf(text, "  in sequence entry '%n", &at);
    }
    if (at > 0 && trace->count < STEPS_MAX) {
        snprintf(trace->steps[trace->count++], STEP_BYTES, "%.*s", (int)strcspn(text + at, "'"),
                 text + at);
    } else if (trace->message[0] == '\0') {
        memcpy(trace->message, text, sizeof(text));
    }
}

/* The entry a trace leads to; the root if it leads nowhere. */
static uint32_t trace_entry(const struct trace *trace, const struct config_index *index)
{
    uint32_t entry = 0;
    for (uint32_t i = trace->count; i > 0; i--) {
        const char *step = trace->steps[i - 1];
        uint32_t child = CONFIG_ENTRY_NONE;
        if (index->entries[entry].kind == ENTRY_MAP) {
            child = config_index_find(index, entry, step);
        } else {
            unsigned long number = strtoul(step, NULL, 10);
            child = entry;
            for (unsigned long n = 0; n < number && child != CONFIG_ENTRY_NONE; n++) {
                child = config_index_next(index, entry, child);
            }
        }
        if (child == CONFIG_ENTRY_NONE) {
            return 0;
        }
        entry = child;
    }
    return entry;
}

/* ---- errors of structure ---- */

static bool key_is(const struct config_entry *entry, const char *key)
{
    return entry->key != NULL && strcmp(entry->key, key) == 0;
}

/* Which keys a map may have; PLACE_NONE for what is not one of the maps of config.def. */
static enum config_place map_place(const struct config_index *index, uint32_t map)
{
    const struct config_entry *entry = &index->entries[map];
    if (entry->kind != ENTRY_MAP) {
        return PLACE_NONE;
    }
    if (map == 0) {
        return PLACE_TOP;
    }
    if (entry->parent == 0) {
        return key_is(entry, "nic")       ? PLACE_NIC
               : key_is(entry, "sockets") ? PLACE_SOCKETS
                                          : PLACE_NONE;
    }
    const struct config_entry *list = &index->entries[entry->parent];
    return list->parent == 0 && list->kind == ENTRY_LIST && key_is(list, "members") ? PLACE_MEMBER
                                                                                    : PLACE_NONE;
}

static bool key_is_known(enum config_place place, const char *key)
{
    return config_key_find(place, key) != NULL ||
           (place == PLACE_TOP && (strcmp(key, "nic") == 0 || strcmp(key, "sockets") == 0 ||
                                   strcmp(key, "members") == 0));
}

/* libcyaml stops at the first unknown key; names every one in the file. */
static void unknown_keys_report(struct config_report *report, const struct config_index *index)
{
    char known[512];
    char shown[CONFIG_QUOTE_BYTES];
    for (uint32_t i = 1; i < index->count && report->errors < CONFIG_ERRORS_MAX; i++) {
        const struct config_entry *entry = &index->entries[i];
        enum config_place place = map_place(index, entry->parent);
        if (place != PLACE_NONE && !key_is_known(place, entry->key)) {
            config_keys_list(place, known, sizeof(known));
            config_report_add(report, entry->key_line, "key %s is not known here; known are %s%s",
                              config_quote(entry->key, shown), known,
                              place == PLACE_TOP ? ", nic, sockets, members" : "");
        }
    }
}

static void kind_report(struct config_report *report, const struct config_index *index, uint32_t at)
{
    static const char *const kinds[] = {
        [ENTRY_EMPTY] = "empty",
        [ENTRY_SCALAR] = "a single value",
        [ENTRY_MAP] = "a map",
        [ENTRY_LIST] = "a list",
    };
    char expects[CONFIG_EXPECTS_BYTES] = "a map of keys; see `weft conf-check --keys`";
    const struct config_entry *entry = &index->entries[at];
    const char *kind = kinds[entry->kind];
    if (entry->key == NULL) { /* in a list: of tags, of seeds, or of members */
        const struct config_entry *list =
            entry->parent != CONFIG_ENTRY_NONE ? &index->entries[entry->parent] : NULL;
        if (list != NULL && key_is(list, "members")) {
            config_report_add(report, entry->line,
                              "a member must be a map: {name: ..., id: ..., ...}; this is %s",
                              kind);
        } else if (list != NULL && key_is(list, "seeds")) {
            config_report_add(report, entry->line,
                              "a seed is %s; must be an address, such as 10.0.0.1", kind);
        } else {
            config_report_add(report, entry->line, "a tag is %s; must be a word, such as eu", kind);
        }
        return;
    }
    const struct config_key *key = config_key_find(map_place(index, entry->parent), entry->key);
    if (key != NULL) {
        config_key_expects(key, expects, sizeof(expects));
    } else if (key_is(entry, "members")) {
        snprintf(expects, sizeof(expects), "a list of maps; see `weft conf-check --keys`");
    }
    config_report_add(report, entry->line, "%s is %s; must be %s", entry->key, kind, expects);
}

static void excess_report(struct config_report *report, const struct config_index *index,
                          uint32_t last)
{
    uint32_t list = index->entries[last].parent;
    uint32_t at = config_index_next(index, list, last);
    bool members = key_is(&index->entries[list], "members");
    bool seeds = key_is(&index->entries[list], "seeds");
    config_report_add(report, index->entries[at != CONFIG_ENTRY_NONE ? at : last].line,
                      "one %s too many; at most %u",
                      members ? "member"
                      : seeds ? "seed"
                              : "tag",
                      members ? CONFIG_MEMBERS_MAX
                      : seeds ? CONFIG_SEEDS_MAX
                              : CONFIG_TAGS_MAX);
}

/* False if the entry is alone with its key. */
static bool twice_report(struct config_report *report, const struct config_index *index,
                         uint32_t first)
{
    const struct config_entry *entry = &index->entries[first];
    for (uint32_t i = config_index_next(index, entry->parent, first); i != CONFIG_ENTRY_NONE;
         i = config_index_next(index, entry->parent, i)) {
        if (key_is(&index->entries[i], entry->key)) {
            config_report_add(report, index->entries[i].key_line,
                              "%s is given twice, first on line %u; keep one", entry->key,
                              entry->key_line);
            return true;
        }
    }
    return false;
}

/* One error of libcyaml in plain words. */
static void error_report(struct config_report *report, const struct config_index *index,
                         cyaml_err_t error, const struct trace *trace)
{
    char shown[CONFIG_QUOTE_BYTES];
    uint32_t at = trace_entry(trace, index);
    if (at != 0 && error == CYAML_ERR_INVALID_VALUE) {
        kind_report(report, index, at);
    } else if (at != 0 && error == CYAML_ERR_SEQUENCE_ENTRIES_MAX) {
        excess_report(report, index, at);
    } else if (at == 0 || error != CYAML_ERR_UNEXPECTED_EVENT || index->entries[at].key == NULL ||
               !twice_report(report, index, at)) {
        config_report_add(report, index->entries[at].line,
                          "cannot be read: %s (%s); see `weft conf-check --keys`",
                          cyaml_strerror(error), config_quote(trace->message, shown));
    }
}

/* ---- reading ---- */

static cyaml_err_t load(struct config_yaml **out, struct trace *trace, const void *data,
                        size_t size, cyaml_cfg_flags_t flags)
{
    cyaml_data_t *loaded = NULL;
    const cyaml_config_t settings = {
        .log_fn = trace_log,
        .log_ctx = trace,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = flags,
    };
    *trace = (struct trace){.count = 0};
    cyaml_err_t error = cyaml_load_data(data, size, &settings, &top_schema, &loaded, NULL);
    *out = loaded;
    return error;
}

int config_yaml_load(struct config_yaml **out, struct config_report *report,
                     const struct config_index *index, const void *data, size_t size)
{
    struct trace trace;
    unsigned errors = report->errors;
    cyaml_err_t error = load(out, &trace, data, size, CYAML_CFG_NO_ALIAS);
    if (error != CYAML_OK) {
        unknown_keys_report(report, index);
    }
    if (error == CYAML_ERR_INVALID_KEY && report->errors > errors) {
        error = load(out, &trace, data, size,
                     (cyaml_cfg_flags_t)(CYAML_CFG_NO_ALIAS | CYAML_CFG_IGNORE_UNKNOWN_KEYS));
    }
    switch (error) {
    case CYAML_OK:
        return *out != NULL ? 0 : -ENOMEM; /* NULL only for no document: refused before */
    case CYAML_ERR_OOM:
    case CYAML_ERR_LIBYAML_PARSER_INIT:
    case CYAML_ERR_LIBYAML_PARSER: /* config_index_read() parsed the same bytes without an error */
        return -ENOMEM;
    default:
        error_report(report, index, error, &trace);
        return WEFT_E_CONFIG;
    }
}

void config_yaml_destroy(struct config_yaml *yaml)
{
    const cyaml_config_t settings = {.mem_fn = cyaml_mem};
    if (yaml != NULL) {
        cyaml_free(&settings, &top_schema, yaml, 0);
    }
}
