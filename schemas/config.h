/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - a node's YAML configuration: keys in config.def, checks in config.c. Read by weftd at
 * start and by `weft conf-check`.
 *
 * A file is read in three steps. One pass of libyaml, libcyaml's own parser, bounds size, depth and
 * count, refuses anchors, aliases, YAML tags and further documents, and notes the line of every
 * value; so a hostile file costs no more than its own length. Then libcyaml maps the file by a
 * schema made of config.def. Then the values are checked and stored.
 *
 * Errors come with their lines. Reported in one go are unknown and missing keys, bad values and
 * members that clash. A file of the wrong shape (not YAML, a list in place of a word, a key given
 * twice, too many members) ends the reading at the first such error: mend it and check again.
 *
 * Threads: none; the result is plain memory that nobody changes.
 */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>
#include <weft/status.h>
#include <weft/wire.h>

#define CONFIG_PATH_MAX    sizeof(((struct sockaddr_un *)0)->sun_path) /* zero included */
#define CONFIG_DEVICE_MAX  256u                                        /* zero included */
#define CONFIG_MEMBERS_MAX 4096u
#define CONFIG_SEEDS_MAX   16u
#define CONFIG_BYTES_MAX   (4u << 20)
#define CONFIG_ERRORS_MAX  100u /* reported; further ones are only counted */

/* Same order as in the `choices` of config.def. */
enum config_geometry { CONFIG_GEOMETRY_GEO, CONFIG_GEOMETRY_ABSTRACT };
enum config_driver { CONFIG_DRIVER_AF_PACKET, CONFIG_DRIVER_AF_XDP, CONFIG_DRIVER_DPDK };
enum config_hugepages { CONFIG_HUGEPAGES_AUTO, CONFIG_HUGEPAGES_ON, CONFIG_HUGEPAGES_OFF };

struct config_member {
    char name[WEFT_NAME_MAX];
    uint32_t id;                    /* WEFT_NODE_NONE: gossip, and none given */
    struct in6_addr address;        /* schemas/base/addr.h */
    struct in6_addr client_address; /* of the other family; all zero = not given */
    double latitude_deg;
    double longitude_deg;
    uint32_t tier;
    uint32_t tags;        /* mask, bits of tags.def */
    char jurisdiction[3]; /* "" = not given */
    uint32_t line;        /* of the entry in the file */
};

struct config_seed {
    struct in6_addr address;
    uint16_t port; /* of the control port */
};

struct config {
    char node[WEFT_NAME_MAX];
    uint32_t geometry; /* enum config_geometry */
    uint32_t data_port;
    struct {
        uint32_t driver;                /* enum config_driver */
        char device[CONFIG_DEVICE_MAX]; /* "" unless the driver is CONFIG_DRIVER_DPDK */
        char interface[IF_NAMESIZE];
        uint32_t vlan;      /* 0 = untagged */
        uint32_t hugepages; /* enum config_hugepages */
        uint32_t memory_mib;
        uint32_t lcores;
    } nic;
    struct {
        char admin[CONFIG_PATH_MAX];
        char port[CONFIG_PATH_MAX];
    } sockets;
    bool gossip; /* false: a static mesh, and the next seven mean nothing */
    char identity[CONFIG_PATH_MAX];
    char mesh_key[CONFIG_PATH_MAX];
    uint32_t zone_members;
    char policy_key[65]; /* hex, "" = none */
    char policy[CONFIG_PATH_MAX];
    struct config_seed seeds[CONFIG_SEEDS_MAX];
    uint32_t seed_count;
    struct config_member *members; /* of a static mesh; with gossip this node alone */
    uint32_t member_count;
    uint32_t self; /* index of this node in members */
};

/* Where control traffic (beacons, gossip) goes. */
static inline uint16_t config_control_port(const struct config *config)
{
    return (uint16_t)(config->data_port + 1);
}

/* One entry of `seeds`, "10.0.0.1", "10.0.0.1:7401" or "[2001:db8::1]:7401"; port 0: none is given.
 */
bool config_seed_read(const char *text, struct config_seed *seed);

/* Takes one error: what is wrong and what to do. `path` is the one given, `line` from 1 (0: the
 * file as a whole). Strings live until it returns. */
typedef void (*config_error_fn)(const char *path, unsigned line, const char *text, void *user);

/* Reads and checks the file. Returns 0 and *out (free it with config_destroy()), WEFT_E_CONFIG
 * after at least one call of `fn`, or -ENOMEM. */
int config_load(struct config **out, const char *path, config_error_fn fn, void *user);

/* The same for a file already in memory; `path` only names it in errors. */
int config_parse(struct config **out, const void *data, size_t size, const char *path,
                 config_error_fn fn, void *user);

/* NULL is fine. */
void config_destroy(struct config *config);

/* One key of config.def in words, for listings. Static strings. */
struct config_key_info {
    const char *place; /* "", "nic", "sockets" or "members" */
    const char *key;
    char expects[96];          /* "a whole number, 0 to 7" */
    const char *default_value; /* NULL = needed */
    const char *text;
};

/* Fills in the key at `index` and returns 0, or -ENOENT past the last one. */
int config_key_describe(size_t index, struct config_key_info *info);
