/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_impl.h - what the four files of the configuration reader share; nobody else includes it.
 * config_index.c: one pass of libyaml, bounds and lines. config_load.c: libcyaml maps the file to
 * struct config_yaml. config_keys.c: the key table, texts to values. config.c: struct config_yaml
 * to struct config.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/config.def"
#include "schemas/config.h"

#define CONFIG_QUOTE_BYTES   48
#define CONFIG_EXPECTS_BYTES 96
#define CONFIG_TAGS_MAX      32u /* entries of one list: as many as a mask has bits */
#define CONFIG_ENTRY_NONE    UINT32_MAX

/* ---- errors (config.c) ---- */

struct config_report {
    const char *path;
    config_error_fn fn;
    void *user;
    unsigned errors; /* with those beyond CONFIG_ERRORS_MAX, which are not passed on */
};

void config_report_add(struct config_report *report, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A text of the file as it may be shown: short and printable. */
const char *config_quote(const char *text, char out[static CONFIG_QUOTE_BYTES]);

/* ---- the key table (config_keys.c) ---- */

/* PLACE_GOSSIP and PLACE_SELF are groups of keys within the map PLACE_TOP. */
enum config_place {
    PLACE_TOP,
    PLACE_GOSSIP,
    PLACE_SELF,
    PLACE_NIC,
    PLACE_SOCKETS,
    PLACE_MEMBER,
    PLACE_NONE
};
enum config_type {
    TYPE_NAME,
    TYPE_HEX,
    TYPE_WORD,
    TYPE_INT,
    TYPE_REAL,
    TYPE_PATH,
    TYPE_DEVICE,
    TYPE_ADDRESS,
    TYPE_TAGS,
    TYPE_COUNTRY,
    TYPE_SEEDS
};

struct config_key {
    enum config_place place;
    enum config_type type;
    const char *name;
    const char *default_value;
    double min;
    double max;
    const char *choices;
    const char *text;
    size_t offset;      /* in struct config or struct config_member */
    size_t yaml_offset; /* in the struct config_yaml* of its place */
};

#define CONFIG_KEY_ONE(...) +1
#define CONFIG_KEY_COUNT    ((size_t)(0 WEFT_CONFIG_KEYS(CONFIG_KEY_ONE)))
extern const struct config_key config_keys[CONFIG_KEY_COUNT];
extern const char *const config_place_names[]; /* "" for those of PLACE_TOP */

static inline bool config_type_is_list(enum config_type type)
{
    return type == TYPE_TAGS || type == TYPE_SEEDS;
}

/* The key of a map; for PLACE_TOP with those of PLACE_GOSSIP and PLACE_SELF. */
const struct config_key *config_key_find(enum config_place map, const char *name);
/* "a, b, c": the keys of a map, for error texts. */
void config_keys_list(enum config_place map, char *out, size_t size);
/* What a key takes, in words. */
void config_key_expects(const struct config_key *key, char *out, size_t size);
/* Stores the text in the key's field. False, and the field may be anything, if it does not fit.
 * Not for lists, which are no single text. */
bool config_key_read(const struct config_key *key, const char *text, void *field);

/* ---- lines (config_index.c) ---- */

enum config_entry_kind { ENTRY_EMPTY, ENTRY_SCALAR, ENTRY_MAP, ENTRY_LIST };

/* One value of the file. */
struct config_entry {
    enum config_entry_kind kind;
    uint32_t parent; /* its map or list; CONFIG_ENTRY_NONE: the value is the file's root */
    uint32_t line;
    uint32_t key_line;
    char *key; /* in a map; NULL in a list */
};

/* Every value of a file in the order of the file, so children follow their parent. */
struct config_index {
    struct config_entry *entries;
    uint32_t count;
    uint32_t room;
};

/* Fills *index (all zero before; free it in any case). Refuses what is not one document of plain
 * YAML of bounded depth and count. Returns 0, WEFT_E_CONFIG after an error, or -ENOMEM. */
int config_index_read(struct config_index *index, struct config_report *report, const void *data,
                      size_t size);
void config_index_free(struct config_index *index);

/* The first child of `parent` behind the entry `after` (give `parent` for its first one), or
 * CONFIG_ENTRY_NONE. */
uint32_t config_index_next(const struct config_index *index, uint32_t parent, uint32_t after);
/* The first child with that key, or CONFIG_ENTRY_NONE. */
uint32_t config_index_find(const struct config_index *index, uint32_t parent, const char *key);

/* ---- the file as libcyaml maps it (config_load.c) ---- */

/* Scalars are texts as they stand in the file, NULL where the key is not there. libcyaml's own
 * numbers will not do: it takes 12abc for 12, 010 for 8 and -18446744073709551615 for 1. */
#define CONFIG_YAML_NAME(key)    char *key;
#define CONFIG_YAML_HEX(key)     char *key;
#define CONFIG_YAML_WORD(key)    char *key;
#define CONFIG_YAML_INT(key)     char *key;
#define CONFIG_YAML_REAL(key)    char *key;
#define CONFIG_YAML_PATH(key)    char *key;
#define CONFIG_YAML_DEVICE(key)  char *key;
#define CONFIG_YAML_ADDRESS(key) char *key;
#define CONFIG_YAML_COUNTRY(key) char *key;
#define CONFIG_YAML_TAGS(key)                                                                      \
    char **key;                                                                                    \
    uint32_t key##_count;
#define CONFIG_YAML_SEEDS(key)                   CONFIG_YAML_TAGS(key)
#define CONFIG_YAML_FIELD(place, key, type, ...) CONFIG_YAML_##type(key)

/* What CONFIG_YAML_TAGS declares, found by a key's yaml_offset. */
struct config_yaml_list {
    char **entries;
    uint32_t count;
};

struct config_yaml_nic {
    WEFT_CONFIG_NIC_KEYS(CONFIG_YAML_FIELD)
};

struct config_yaml_sockets {
    WEFT_CONFIG_SOCKETS_KEYS(CONFIG_YAML_FIELD)
};

struct config_yaml_member {
    WEFT_CONFIG_MEMBER_KEYS(CONFIG_YAML_FIELD)
};

struct config_yaml {
    WEFT_CONFIG_TOP_KEYS(CONFIG_YAML_FIELD)
    WEFT_CONFIG_GOSSIP_KEYS(CONFIG_YAML_FIELD)
    WEFT_CONFIG_SELF_KEYS(CONFIG_YAML_FIELD)
    struct config_yaml_nic *nic;
    struct config_yaml_sockets *sockets;
    struct config_yaml_member *members;
    uint32_t members_count;
};

/* Maps a file that config_index_read() took. Unknown keys are reported and left out of *out, so
 * that the checks can go on; of the other errors of structure (a list for a word, a key given
 * twice) libcyaml finds one at a time, and that one ends the reading. Returns 0 and *out (free it
 * with config_yaml_destroy()), WEFT_E_CONFIG after an error, or -ENOMEM. */
int config_yaml_load(struct config_yaml **out, struct config_report *report,
                     const struct config_index *index, const void *data, size_t size);
void config_yaml_destroy(struct config_yaml *yaml);
