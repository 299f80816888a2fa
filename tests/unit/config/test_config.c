/* SPDX-License-Identifier: Apache-2.0 */
/* test_config.c - schemas/config*.c: a good file, every class of error with its line, hostile YAML,
 * and what libyaml and libcyaml by themselves would let pass. */
#include "schemas/config.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

#define ERRORS_ROOM 256

struct errors {
    unsigned count;
    struct {
        unsigned line;
        char text[512];
    } all[ERRORS_ROOM];
};

static struct errors errors;

static void error_keep(const char *path, unsigned line, const char *text, void *user)
{
    struct errors *kept = user;
    ck_assert_ptr_nonnull(path);
    ck_assert_uint_lt(kept->count, ERRORS_ROOM);
    kept->all[kept->count].line = line;
    snprintf(kept->all[kept->count].text, sizeof(kept->all[0].text), "%s", text);
    kept->count++;
}

static int parse(const char *text, struct config **config)
{
    memset(&errors, 0, sizeof(errors));
    return config_parse(config, text, strlen(text), "test.yaml", error_keep, &errors);
}

static bool error_is(unsigned i, unsigned line, const char *part)
{
    return i < errors.count && errors.all[i].line == line &&
           strstr(errors.all[i].text, part) != NULL;
}

static void errors_print(const char *what)
{
    fprintf(stderr, "%s\n", what);
    for (unsigned i = 0; i < errors.count; i++) {
        fprintf(stderr, "  %u: %s\n", errors.all[i].line, errors.all[i].text);
    }
}

static const char good[] = "# a node\n"                                        /* 1 */
                           "node: frankfurt\n"                                 /* 2 */
                           "geometry: geo\n"                                   /* 3 */
                           "data_port: 7400\n"                                 /* 4 */
                           "nic: {driver: af_packet, interface: veth0,\n"      /* 5 */
                           "  hugepages: off, memory_mib: 128}\n"              /* 6 */
                           "sockets:\n"                                        /* 7 */
                           "  admin: /run/weft/admin.sock\n"                   /* 8 */
                           "  port: /run/weft/port.sock\n"                     /* 9 */
                           "members:\n"                                        /* 10 */
                           "  - {name: madrid, id: 1, address: 10.77.0.1,\n"   /* 11 */
                           "     latitude: 40.42, longitude: -3.7, tier: 0}\n" /* 12 */
                           "  - name: frankfurt\n"                             /* 13 */
                           "    id: 2\n"                                       /* 14 */
                           "    address: 10.77.0.2\n"                          /* 15 */
                           "    latitude: 50.11\n"                             /* 16 */
                           "    longitude: 8.68\n"                             /* 17 */
                           "    tier: 3\n"                                     /* 18 */
                           "    jurisdiction: DE\n"                            /* 19 */
                           "    tags: [eu, gdpr]\n";                           /* 20 */

START_TEST(good_file)
{
    struct config *config;
    ck_assert_int_eq(parse(good, &config), 0);
    ck_assert_uint_eq(errors.count, 0);
    ck_assert_str_eq(config->node, "frankfurt");
    ck_assert_uint_eq(config->geometry, CONFIG_GEOMETRY_GEO);
    ck_assert_uint_eq(config->data_port, 7400);
    ck_assert_uint_eq(config_control_port(config), 7401);
    ck_assert_uint_eq(config->nic.driver, CONFIG_DRIVER_AF_PACKET);
    ck_assert_str_eq(config->nic.interface, "veth0");
    ck_assert_uint_eq(config->nic.hugepages, CONFIG_HUGEPAGES_OFF);
    ck_assert_uint_eq(config->nic.memory_mib, 128);
    ck_assert_str_eq(config->sockets.admin, "/run/weft/admin.sock");
    ck_assert_str_eq(config->sockets.port, "/run/weft/port.sock");
    ck_assert_uint_eq(config->member_count, 2);
    ck_assert_uint_eq(config->self, 1);
    const struct config_member *madrid = &config->members[0];
    const struct config_member *self = &config->members[1];
    ck_assert_str_eq(madrid->name, "madrid");
    ck_assert_uint_eq(madrid->line, 11);
    ck_assert_uint_eq(madrid->tags, 0);
    ck_assert_str_eq(madrid->jurisdiction, "");
    ck_assert_double_eq_tol(madrid->longitude_deg, -3.7, 1e-12);
    ck_assert_uint_eq(self->id, 2);
    ck_assert_uint_eq(addr_v4(&self->address), htonl(0x0a4d0002));
    ck_assert(IN6_IS_ADDR_UNSPECIFIED(&self->client_address));
    ck_assert_double_eq_tol(self->latitude_deg, 50.11, 1e-12);
    ck_assert_uint_eq(self->tier, 3);
    ck_assert_str_eq(self->jurisdiction, "DE");
    ck_assert_uint_eq(self->tags, weft_tag_mask("eu") | weft_tag_mask("gdpr"));
    config_destroy(config);
    config_destroy(NULL);
}
END_TEST

/* Keys that may be left out have the defaults of the table. */
START_TEST(defaults)
{
    static const char text[] =
        "node: a\nnic: {interface: eth0}\nsockets: {admin: /a, port: /b}\n"
        "members: [{name: a, id: 0, address: 127.0.0.1, latitude: 0, longitude: 0, tier: 7}]\n";
    struct config *config;
    ck_assert_int_eq(parse(text, &config), 0);
    ck_assert_uint_eq(config->geometry, CONFIG_GEOMETRY_GEO);
    ck_assert_uint_eq(config->data_port, WEFT_PORT_DEFAULT);
    ck_assert_uint_eq(config->nic.driver, CONFIG_DRIVER_AF_PACKET);
    ck_assert_uint_eq(config->nic.hugepages, CONFIG_HUGEPAGES_AUTO);
    ck_assert_uint_eq(config->nic.memory_mib, 64);
    config_destroy(config);
}
END_TEST

/* `find` in the good file replaced by `put` must give exactly one error. */
struct edit {
    const char *find;
    const char *put;
    unsigned line;
    const char *error;
};

static const struct edit edits[] = {
    {"tier: 3", "tier: 9", 18, "tier is 9; must be 0 to 7"},
    {"tier: 3", "tier: -1", 18, "tier is -1; must be 0 to 7"},
    {"tier: 3", "tier: three", 18, "tier is three; must be 0 to 7"},
    {"tier: 3", "tier: 0x3", 18, "tier is 0x3"},
    {"tier: 3", "tier:", 18, "tier is empty"},
    {"tier: 3", "tier: [3]", 18, "tier is a list"},
    {"tier: 3", "tier: {a: 3}", 18, "tier is a map"},
    {"tier: 3", "tier: 99999999999999999999999999", 18, "must be 0 to 7"},
    {"id: 2\n", "id: 65535\n", 14, "id is 65535; must be 0 to 65534"},
    {"id: 2\n", "id: 1\n", 13, "member frankfurt has the same id as madrid on line 11"},
    {"id: 2\n", "id: 4294967298\n", 14, "id is 4294967298"},
    {"name: madrid", "name: frankfurt", 13, "same name as frankfurt on line 11"},
    {"10.77.0.2", "10.77.0.1", 13, "same address as madrid on line 11"},
    {"10.77.0.2", "10.77.0.256", 15, "address is 10.77.0.256; must be a node's IP address"},
    {"10.77.0.2", "224.0.0.1", 15, "address is 224.0.0.1"},
    {"10.77.0.2", "0.0.0.0", 15, "address is 0.0.0.0"},
    {"10.77.0.2", "fe80::1", 15, "address is fe80::1"},
    {"10.77.0.2", "ff02::1", 15, "address is ff02::1"},
    {"10.77.0.2", "\"::\"", 15, "address is ::"},
    {"10.77.0.2", "::ffff:10.77.0.2", 15, "address is ::ffff:10.77.0.2"},
    {"10.77.0.2", "2001:db8::2", 13, "an address of another family than madrid on line 11"},
    {"10.77.0.2", "10.77.0.2\n    client_address: 10.77.0.3", 13, "same family as its address"},
    {"10.77.0.2", "10.77.0.2\n    client_address: fe80::1", 16, "client_address is fe80::1"},
    {"latitude: 50.11", "latitude: 90.01", 16, "must be a number from -90 to 90"},
    {"latitude: 50.11", "latitude: nan", 16, "latitude is nan"},
    {"latitude: 50.11", "latitude: 1e999", 16, "latitude is 1e999"},
    {"longitude: -3.7", "longitude: -180.5", 12, "must be a number from -180 to 180"},
    {"[eu, gdpr]", "[eu,\n      gpdr]", 21, "tag gpdr is not known"},
    {"[eu, gdpr]", "[eu, [us]]", 20, "a tag is a list; must be a word"},
    {"[eu, gdpr]", "eu", 20, "tags is a single value; must be a list of tags"},
    {"jurisdiction: DE", "jurisdiction: de", 19, "two capital letters"},
    {"jurisdiction: DE", "jurisdiction: DEU", 19, "two capital letters"},
    {"node: frankfurt", "node: berlin", 2, "node berlin is not one of the members"},
    {"node: frankfurt\n", "\n", 3, "node is missing"},
    {"node: frankfurt", "node: a b", 2, "node is a b; must be 1 to 31 of letters"},
    {"node: frankfurt", "node: abcdefghijklmnopqrstuvwxyz0123456", 2, "must be 1 to 31"},
    {"geometry: geo", "geometry: flat", 3, "geometry is flat; must be geo or abstract"},
    {"geometry: geo", "geometry: ge", 3, "must be geo or abstract"},
    {"data_port: 7400", "data_port: 65535", 4, "data_port is 65535; must be 1 to 65534"},
    {"data_port: 7400", "data_port: 0", 4, "must be 1 to 65534"},
    {"data_port: 7400", "data_prot: 7400", 4, "key data_prot is not known here; known are node"},
    {"driver: af_packet", "driver: dpdk", 5, "driver dpdk needs a device"},
    {"driver: af_packet", "driver: af_xdp, device: net_null0", 5, "device is for driver dpdk only"},
    {"driver: af_packet", "driver: af_packet, device: -w", 5,
     "device is -w; must be a device as DPDK"},
    {"driver: af_packet", "driver: af_packet, device: a b", 5,
     "device is a b; must be a device as DPDK"},
    {"driver: af_packet", "driver: mlx5", 5, "driver is mlx5; must be af_packet"},
    {"veth0", "averyveryverylong", 5, "interface is averyveryverylong; must be 1 to 15"},
    {"veth0", "../etc", 5, "interface is ../etc"},
    {"hugepages: off", "hugepages: maybe", 6, "must be auto or on or off"},
    {"memory_mib: 128", "memory_mib: 31", 6, "must be 32 to 65536"},
    {"memory_mib: 128", "memory: 128", 6, "key memory is not known here; known are driver"},
    {"admin: /run", "admin: run", 8, "must be a path from / on"},
    {"/run/weft/admin.sock", "/run/weft/port.sock", 8, "are the same"},
    {"  port: /run/weft/port.sock\n", "", 8, "sockets.port is missing"},
    {"    id: 2\n", "", 13, "members.id is missing"},
    {"    id: 2\n", "    id: 2\n    id: 3\n", 15, "id is given twice, first on line 14"},
    {"    id: 2\n", "    id: 2\n    color: red\n", 15,
     "key color is not known here; known are name"},
    {"geometry: geo\n", "geometry: geo\nnode: x\n", 4, "node is given twice, first on line 2"},
    {"tier: 3", "tier: &a 3", 18, "anchors (&), aliases (*) and tags (!)"},
    {"tier: 3", "tier: *a", 18, "anchors (&), aliases (*) and tags (!)"},
    {"tier: 3", "tier: !!int 3", 18, "anchors (&), aliases (*) and tags (!)"},
    {"tier: 3", "tier: \"3\\0\"", 18, "zero byte"},
    {"tier: 3", "tier: \"a\\e[31m\"", 18, "tier is a?[31m;"},
    {"tier: 3", "tier: {3", 19, "not valid YAML"},
    {"tier: 3", "tier: 3: 4", 18, "not valid YAML"},
    {"# a node\n", "\t- x\n", 1, "not valid YAML"},
    {"    tags: [eu, gdpr]\n", "---\nnode: x\n", 20, "a second document"},
    {"    tags: [eu, gdpr]\n", "  - hello\n", 20, "a member must be a map"},
    {"    tags: [eu, gdpr]\n", "    tags: [[[[[[1]]]]]]\n", 20, "nested too deeply"},
    {"    tags: [eu, gdpr]\n", "    [a]: 1\n", 20, "a key must be a word"},
    /* libcyaml's own integers would take these for 3, 8, 1 and 3. */
    {"tier: 3", "tier: 3abc", 18, "tier is 3abc; must be 0 to 7"},
    {"tier: 3", "tier: 010", 18, "tier is 010"},
    {"tier: 3", "tier: -18446744073709551615", 18, "tier is -18446744073709551615"},
    {"tier: 3", "tier: \" 3\"", 18, "tier is  3"},
    {"tier: 3", "tier: 3.0", 18, "tier is 3.0"},
    {"latitude: 50.11", "latitude: 50.11N", 16, "latitude is 50.11N"},
    {"latitude: 50.11", "latitude: 0x12", 16, "latitude is 0x12"},
    {"latitude: 50.11", "latitude: .inf", 16, "latitude is .inf"},
    {"hugepages: off", "hugepages: 0", 6, "hugepages is 0; must be auto or on or off"},
    {"[eu, gdpr]", "[1]", 20, "tag 1 is not known"},
    {"[eu, gdpr]", "[EU]", 20, "tag EU is not known"},
    {"[eu, gdpr]", "[eu, \"\"]", 20, "tag empty is not known"},
    {"[eu, gdpr]", "", 20, "tags is empty; must be a list of tags"},
    {"[eu, gdpr]", "{eu: gdpr}", 20, "tags is a map; must be a list of tags"},
    /* Nulls are texts like any other. */
    {"tier: 3", "tier: ~", 18, "tier is ~; must be 0 to 7"},
    {"tier: 3", "tier: null", 18, "tier is null"},
    {"address: 10.77.0.2", "address: ~", 15, "address is ~"},
    {"jurisdiction: DE", "jurisdiction:", 19, "jurisdiction is empty"},
    {"  - name: frankfurt\n", "  -\n  - name: frankfurt\n", 13,
     "a member must be a map: {name: ..., id: ..., ...}; this is empty"},
    /* Given twice: the line of the second, though libcyaml tells that of the value before. */
    {"sockets:\n", "nic:\n  driver: af_packet\nsockets:\n", 7,
     "nic is given twice, first on line 5"},
    {"    tags: [eu, gdpr]\n", "members: []\n", 20, "members is given twice, first on line 10"},
    {"  hugepages: off,", "\n\n  driver: af_packet,", 8, "driver is given twice, first on line 5"},
    {"tier: 0}", "tier: 0,\n     name: x}", 13, "name is given twice, first on line 11"},
    /* A value on a line of its own, a key behind nested lists. */
    {"tier: 3", "tier:\n\n      9", 20, "tier is 9"},
    {"    tags: [eu, gdpr]\n", "    tags:\n    - eu\n    - gdpr\n    last: 1\n", 23,
     "key last is not known here"},
    {"tier: 3", "\ttier: 3", 18, "not valid YAML"},
    {"tier: 3", "tier: |\n      9", 18, "tier is 9"},
};

START_TEST(one_error)
{
    const struct edit *edit = &edits[_i];
    char text[4096];
    struct config *config = (struct config *)&errors;
    const char *at = strstr(good, edit->find);
    ck_assert_ptr_nonnull(at);
    snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good, edit->put,
             at + strlen(edit->find));
    int rc = parse(text, &config);
    if (rc != WEFT_E_CONFIG || errors.count == 0 || !error_is(0, edit->line, edit->error)) {
        errors_print(text);
    }
    ck_assert_int_eq(rc, WEFT_E_CONFIG);
    ck_assert_ptr_null(config);
    ck_assert_uint_ge(errors.count, 1);
    ck_assert_msg(error_is(0, edit->line, edit->error), "expected %u: %s", edit->line, edit->error);
    ck_assert_uint_eq(errors.count, 1);
}
END_TEST

START_TEST(all_errors_at_once)
{
    static const char text[] = "node: oslo\n"
                               "colour: red\n"
                               "nic: {driver: e1000, memory_mib: 1}\n"
                               "members:\n"
                               "  - {name: oslo, id: 1, address: 10.0.0.1, latitude: 91,\n"
                               "     longitude: 0, tier: 8}\n"
                               "  - {name: b, id: 2, address: 10.0.0.2, latitude: 1,\n"
                               "     longitude: 0, tier: 1}\n"
                               "  - {name: c, id: 2, address: 10.0.0.3, latitude: 1,\n"
                               "     longitude: 0, tier: 1}\n";
    struct config *config;
    ck_assert_int_eq(parse(text, &config), WEFT_E_CONFIG);
    ck_assert_uint_eq(errors.count, 8);
    ck_assert(error_is(0, 2, "key colour"));
    ck_assert(error_is(1, 3, "driver is e1000"));
    ck_assert(error_is(2, 3, "memory_mib is 1"));
    ck_assert(error_is(3, 3, "nic.interface is missing"));
    ck_assert(error_is(4, 1, "sockets is missing"));
    ck_assert(error_is(5, 5, "latitude is 91"));
    ck_assert(error_is(6, 6, "tier is 8"));
    /* Not also "oslo is not one of the members": its entry is only broken. */
    ck_assert(error_is(7, 9, "same id as b on line 7"));
}
END_TEST

/* A section that is not of its kind, in a file that is good apart from that. */
START_TEST(wrong_shapes)
{
    static const struct {
        const char *nic;
        const char *sockets;
        const char *members;
        unsigned line;
        const char *error;
    } cases[] = {
        {"3", NULL, NULL, 2, "nic is a single value; must be a map of keys"},
        {"", NULL, NULL, 2, "nic is empty; must be a map of keys"},
        {"[]", NULL, NULL, 2, "nic is a list; must be a map of keys"},
        {NULL, "~", NULL, 3, "sockets is a single value; must be a map of keys"},
        {NULL, "[{admin: /a, port: /b}]", NULL, 3, "sockets is a list; must be a map of keys"},
        {NULL, NULL, "", 4, "members is empty; must be a list of maps"},
        {NULL, NULL, "~", 4, "members is a single value; must be a list of maps"},
        {NULL, NULL, "{name: a}", 4, "members is a map; must be a list of maps"},
        {NULL, NULL, "[]", 4, "members is empty; list at least this node"},
        {NULL, NULL, "[[a]]", 4,
         "a member must be a map: {name: ..., id: ..., ...}; this is a list"},
        {NULL, NULL, "[{name: [a]}]", 4, "name is a list; must be 1 to 31 of letters"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        struct config *config;
        snprintf(text, sizeof(text), "node: a\nnic: %s\nsockets: %s\nmembers: %s\n",
                 cases[i].nic != NULL ? cases[i].nic : "{interface: e}",
                 cases[i].sockets != NULL ? cases[i].sockets : "{admin: /a, port: /b}",
                 cases[i].members != NULL ? cases[i].members
                                          : "[{name: a, id: 0, address: 127.0.0.1, latitude: 0, "
                                            "longitude: 0, tier: 7}]");
        int rc = parse(text, &config);
        if (!error_is(0, cases[i].line, cases[i].error)) {
            errors_print(text);
        }
        ck_assert_int_eq(rc, WEFT_E_CONFIG);
        ck_assert_ptr_null(config);
        ck_assert_uint_eq(errors.count, 1);
        ck_assert(error_is(0, cases[i].line, cases[i].error));
    }
}
END_TEST

/* libcyaml stops at the first unknown key; all of them are named, and the checks go on. */
START_TEST(unknown_keys_at_once)
{
    static const char text[] = "colour: {nic: [1, 2], node: {x: y}}\n"
                               "nic: {interface: e, speed: 10}\n"
                               "node: a\n"
                               "colour: again\n"
                               "sockets: {admin: /a, port: /b, third: /c}\n"
                               "members:\n"
                               "  - {name: a, id: 0, address: 127.0.0.1, latitude: 0,\n"
                               "     longitude: 0, tier: 8, owner: {name: x}}\n";
    struct config *config;
    ck_assert_int_eq(parse(text, &config), WEFT_E_CONFIG);
    ck_assert_uint_eq(errors.count, 6);
    ck_assert(error_is(0, 1, "key colour is not known here; known are node, geometry"));
    ck_assert(error_is(1, 2, "key speed is not known here; known are driver"));
    ck_assert(error_is(2, 4, "key colour"));
    ck_assert(error_is(3, 5, "key third is not known here; known are admin, port"));
    ck_assert(error_is(4, 8, "key owner is not known here; known are name"));
    ck_assert(error_is(5, 8, "tier is 8"));
    /* Together with an error of shape, which ends the reading. */
    ck_assert_int_eq(parse("x: 1\nnic: 3\nnode: [a]\ny: 2\n", &config), WEFT_E_CONFIG);
    ck_assert_uint_eq(errors.count, 3);
    ck_assert(error_is(0, 1, "key x"));
    ck_assert(error_is(1, 4, "key y"));
    ck_assert(error_is(2, 2, "nic is a single value"));
}
END_TEST

/* What is unusual and still right. */
START_TEST(good_oddities)
{
    static const char text[] =
        "\xef\xbb\xbf%YAML 1.1\n--- # the one document\r\n"
        "? node\n: \"a\"\nnic: {interface: 'e', memory_mib: 0064}\n"
        "sockets: {admin: /a, port: /b}\n"
        "members: [{name: a, id: 0, address: 127.0.0.1, latitude: 1e1, longitude: -.5,\n"
        "  tier: 7, tags: []}]\n...\n";
    struct config *config;
    int rc = parse(text, &config);
    if (rc != 0) {
        errors_print(text);
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_str_eq(config->node, "a");
    ck_assert_uint_eq(config->nic.memory_mib, 64); /* not octal */
    ck_assert_double_eq_tol(config->members[0].latitude_deg, 10, 1e-12);
    ck_assert_double_eq_tol(config->members[0].longitude_deg, -0.5, 1e-12);
    config_destroy(config);
}
END_TEST

START_TEST(tag_limit)
{
    char text[4096];
    struct config *config;
    for (unsigned count = 32; count <= 33; count++) {
        size_t used =
            (size_t)snprintf(text, sizeof(text),
                             "node: a\nnic: {interface: e}\nsockets: {admin: /a, port: /b}\n"
                             "members:\n- {name: a, id: 0, address: 127.0.0.1, latitude: 0,\n"
                             "  longitude: 0, tier: 7, tags: [\n");
        for (unsigned i = 0; i < count; i++) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, "    eu,\n");
        }
        snprintf(text + used, sizeof(text) - used, "  ]}\n");
        int rc = parse(text, &config);
        ck_assert_int_eq(rc, count == 32 ? 0 : WEFT_E_CONFIG);
        ck_assert(count == 32 || error_is(0, 7 + 32, "one tag too many; at most 32"));
        config_destroy(config);
    }
}
END_TEST

START_TEST(socket_paths_at_the_limit)
{
    char text[1024];
    char path[CONFIG_PATH_MAX + 2];
    struct config *config;
    for (size_t len = CONFIG_PATH_MAX - 1; len <= CONFIG_PATH_MAX; len++) {
        memset(path, 'x', len);
        path[0] = '/';
        path[len] = '\0';
        snprintf(text, sizeof(text),
                 "node: a\nnic: {interface: e}\nsockets:\n  admin: %s\n  port: /b\n"
                 "members: [{name: a, id: 0, address: 127.0.0.1, latitude: 0, longitude: 0, "
                 "tier: 7}]\n",
                 path);
        int rc = parse(text, &config);
        if (len < CONFIG_PATH_MAX) {
            ck_assert_int_eq(rc, 0);
            ck_assert_str_eq(config->sockets.admin, path);
            config_destroy(config);
        } else {
            ck_assert_int_eq(rc, WEFT_E_CONFIG);
            ck_assert(error_is(0, 4, "at most 107 bytes"));
        }
    }
}
END_TEST

/* A file with `count` members, each on its own line from line 5 on. */
static char *many_members(unsigned count)
{
    size_t room = 512 + (size_t)count * 128;
    char *text = malloc(room);
    ck_assert_ptr_nonnull(text);
    size_t used = (size_t)snprintf(
        text, room, "node: n0\nnic: {interface: e}\nsockets: {admin: /a, port: /b}\nmembers:\n");
    for (unsigned i = 0; i < count; i++) {
        used += (size_t)snprintf(text + used, room - used,
                                 "  - {name: n%u, id: %u, address: 10.1.%u.%u, latitude: 1, "
                                 "longitude: 2, tier: 1}\n",
                                 i, i, i / 250, i % 250 + 1);
    }
    return text;
}

START_TEST(member_limit)
{
    struct config *config;
    char *text = many_members(CONFIG_MEMBERS_MAX);
    ck_assert_int_eq(parse(text, &config), 0);
    ck_assert_uint_eq(config->member_count, CONFIG_MEMBERS_MAX);
    config_destroy(config);
    free(text);
    text = many_members(CONFIG_MEMBERS_MAX + 1);
    ck_assert_int_eq(parse(text, &config), WEFT_E_CONFIG);
    ck_assert(error_is(0, CONFIG_MEMBERS_MAX + 5, "one member too many; at most 4096"));
    free(text);
}
END_TEST

START_TEST(error_limit)
{
    struct config *config;
    char *text = many_members(400);
    for (char *at = text; (at = strstr(at, "tier: 1")) != NULL; at++) {
        at[6] = '9';
    }
    ck_assert_int_eq(parse(text, &config), WEFT_E_CONFIG);
    ck_assert_uint_eq(errors.count, CONFIG_ERRORS_MAX);
    ck_assert(error_is(0, 5, "tier is 9"));
    ck_assert(error_is(CONFIG_ERRORS_MAX - 1, 104, "too many errors"));
    free(text);
}
END_TEST

START_TEST(hostile_files)
{
    static const char *const files[] = {
        "",
        "\n\n",
        "just words",
        "[1, 2, 3]",
        "node: *a\na: &a [*a, *a]",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\n",
        "{{{{{{{{{{{{{{{{{{{{{{{{",
        "[[[[[[[[[[[[[[[[[[[[[[[[",
        "- - - - - - - - - - - -",
        "? ? ? ? ? ?",
        "%YAML 9.9\n---\na: b\n",
        "members: 3\nnic: 4\nsockets: []\nnode: {}\n",
        "members: []\n",
        "members: [[], [], {}]\n",
        "\xff\xfe\x00\x01",
        "node: \"\\uD800\"\n",
        "<<: {node: a}\n",
        "~",
        "---\n---\n---\n",
        "node: a\n...\n---\nnode: a\n",
        "node: a\n\tnic: x\n",
        "? {node: a}\n: b\n",
        "node: &a\n",
        "members: &m [{name: a}]\nnic: *m\n",
        "!!map {node: a}\n",
        "? |\n  a\n  b\n: c\n",
        "\"%s%n%s%n\": '%n'\n",
        "node: \"it's in sequence entry '9\"\nmembers: [{name: [']\"]}]\n",
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct config *config;
        ck_assert_int_eq(parse(files[i], &config), WEFT_E_CONFIG);
        ck_assert_uint_ge(errors.count, 1);
    }
}
END_TEST

START_TEST(large_files)
{
    struct config *config;
    size_t size = CONFIG_BYTES_MAX + 1;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    memset(text, '[', size);
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_parse(&config, text, size, "t", error_keep, &errors), WEFT_E_CONFIG);
    ck_assert(error_is(0, 0, "larger than 4 MiB"));
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_parse(&config, text, size - 1, "t", error_keep, &errors),
                     WEFT_E_CONFIG);
    ck_assert(error_is(0, 1, "nested too deeply"));
    /* More keys than any map needs: the search for keys given twice must stay bounded. */
    size_t used = 0;
    for (unsigned i = 0; i < 100000; i++) {
        used += (size_t)snprintf(text + used, size - used, "k%u: 1\n", i);
    }
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_parse(&config, text, used, "t", error_keep, &errors), WEFT_E_CONFIG);
    ck_assert_uint_eq(errors.count, CONFIG_ERRORS_MAX);
    /* One key, one text and one number as long as the file. */
    for (unsigned i = 0; i < 3; i++) {
        used = (size_t)snprintf(text, size, "%s", i == 0 ? "" : i == 1 ? "node: " : "data_port: ");
        memset(text + used, '7', size - 1 - used);
        memset(&errors, 0, sizeof(errors));
        ck_assert_int_eq(config_parse(&config, text, size - 1, "t", error_keep, &errors),
                         WEFT_E_CONFIG);
        ck_assert_uint_ge(errors.count, 1);
    }
    /* More values than any file needs, deep in an unknown key. */
    used = (size_t)snprintf(text, size, "x: [");
    memset(text + used, ' ', size - used);
    for (; used + 2 < size; used += 2) {
        memcpy(text + used, "1,", 2);
    }
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_parse(&config, text, size - 1, "t", error_keep, &errors),
                     WEFT_E_CONFIG);
    ck_assert(error_is(0, 1, "too many entries"));
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_parse(&config, text, 0, "t", error_keep, &errors), WEFT_E_CONFIG);
    free(text);
}
END_TEST

START_TEST(files)
{
    char path[] = "/tmp/weft-config-XXXXXX";
    struct config *config;
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_load(&config, "/nonexistent/x.yaml", error_keep, &errors),
                     WEFT_E_CONFIG);
    ck_assert(error_is(0, 0, "cannot be opened: No such file"));
    memset(&errors, 0, sizeof(errors));
    ck_assert_int_eq(config_load(&config, "/tmp", error_keep, &errors), WEFT_E_CONFIG);
    ck_assert(error_is(0, 0, "cannot be read: Is a directory"));
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, good, sizeof(good) - 1), (ssize_t)sizeof(good) - 1);
    close(fd);
    memset(&errors, 0, sizeof(errors));
    int rc = config_load(&config, path, error_keep, &errors);
    unlink(path);
    ck_assert_int_eq(rc, 0);
    ck_assert_str_eq(config->node, "frankfurt");
    config_destroy(config);
}
END_TEST

START_TEST(ipv6_members)
{
    static const char text[] =
        "node: b\nnic: {interface: veth0, vlan: 5}\n"
        "sockets: {admin: /a, port: /b}\n"
        "members:\n"
        "  - {name: a, id: 0, address: 2001:db8::1, latitude: 0, longitude: 0, tier: 7}\n"
        "  - {name: b, id: 1, address: \"2001:db8::2\", client_address: 10.77.0.2,\n"
        "     latitude: 0, longitude: 0, tier: 7}\n";
    struct config *config;
    char shown[ADDR_TEXT_MAX];
    ck_assert_int_eq(parse(text, &config), 0);
    ck_assert_uint_eq(config->nic.vlan, 5);
    ck_assert_str_eq(addr_format(&config->members[0].address, shown), "2001:db8::1");
    ck_assert_str_eq(addr_format(&config->members[1].address, shown), "2001:db8::2");
    ck_assert_str_eq(addr_format(&config->members[1].client_address, shown), "10.77.0.2");
    config_destroy(config);
}
END_TEST

#define GOSSIP_HEAD                                                                                \
    "node: a\nnic: {interface: eth0}\nsockets: {admin: /a, port: /b}\n" /* 3 lines */

START_TEST(gossip_file)
{
    static const char text[] =
        GOSSIP_HEAD "data_port: 7500\nid: 9\naddress: \"10.0.0.9\"\n"
                    "latitude: 50.5\nlongitude: 8.25\ntier: 4\njurisdiction: DE\ntags: [eu]\n"
                    "seeds: [10.0.0.1, \"10.0.0.2:9000\"]\n"
                    "identity: /tmp/i\nmesh_key: /tmp/m\n";
    struct config *config;
    char shown[ADDR_TEXT_MAX];
    ck_assert_int_eq(parse(text, &config), 0);
    ck_assert(config->gossip);
    ck_assert_uint_eq(config->member_count, 1);
    ck_assert_uint_eq(config->self, 0);
    const struct config_member *self = &config->members[0];
    ck_assert_str_eq(self->name, "a");
    ck_assert_uint_eq(self->id, 9);
    ck_assert_str_eq(addr_format(&self->address, shown), "10.0.0.9");
    ck_assert_double_eq_tol(self->longitude_deg, 8.25, 1e-12);
    ck_assert_uint_eq(self->tier, 4);
    ck_assert_str_eq(self->jurisdiction, "DE");
    ck_assert_uint_eq(self->tags, weft_tag_mask("eu"));
    ck_assert_uint_eq(config->seed_count, 2);
    ck_assert_str_eq(addr_format(&config->seeds[0].address, shown), "10.0.0.1");
    ck_assert_uint_eq(config->seeds[0].port, 7501);
    ck_assert_uint_eq(config->seeds[1].port, 9000);
    ck_assert_str_eq(config->identity, "/tmp/i");
    ck_assert_str_eq(config->mesh_key, "/tmp/m");
    config_destroy(config);
}
END_TEST

START_TEST(gossip_defaults)
{
    static const char text[] = GOSSIP_HEAD "address: 2001:db8::1\nlatitude: 0\nlongitude: 0\n"
                                           "seeds: [2001:db8::2, \"[2001:db8::3]:7777\"]\n";
    struct config *config;
    char shown[ADDR_TEXT_MAX];
    ck_assert_int_eq(parse(text, &config), 0);
    ck_assert_uint_eq(config->members[0].id, WEFT_NODE_NONE);
    ck_assert_uint_eq(config->members[0].tier, 0);
    ck_assert_str_eq(config->identity, "/var/lib/weft/identity.key");
    ck_assert_str_eq(config->mesh_key, "/etc/weft/mesh.key");
    ck_assert_str_eq(addr_format(&config->seeds[1].address, shown), "2001:db8::3");
    ck_assert_uint_eq(config->seeds[0].port, WEFT_PORT_DEFAULT + 1);
    ck_assert_uint_eq(config->seeds[1].port, 7777);
    config_destroy(config);
    ck_assert_int_eq(
        parse(GOSSIP_HEAD "address: 10.0.0.1\nlatitude: 0\nlongitude: 0\nseeds: []\n", &config), 0);
    ck_assert(config->gossip);
    ck_assert_uint_eq(config->seed_count, 0);
    config_destroy(config);
    ck_assert_int_eq(parse(good, &config), 0);
    ck_assert(!config->gossip);
    config_destroy(config);
}
END_TEST

#define GOSSIP_SELF "address: 10.0.0.1\nlatitude: 0\nlongitude: 0\n"
static const struct slip {
    const char *text;
    unsigned line;
    const char *part;
} slips[] = {
    {GOSSIP_HEAD, 1, "members or seeds is missing"},
    {GOSSIP_HEAD "seeds: []\nlatitude: 0\nlongitude: 0\n", 1, "address is missing"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [10.0.0.x]\n", 7, "seed 10.0.0.x; must be"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [10.0.0.2, \"10.0.0.3:\"]\n", 7, "seed 10.0.0.3:; must be"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [\"10.0.0.3:0\"]\n", 7, "seed 10.0.0.3:0; must be"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [\"10.0.0.3:65536\"]\n", 7, "seed 10.0.0.3:65536; must"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [\"[2001:db8::1\"]\n", 7, "seed [2001:db8::1; must be"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [\"[2001:db8::1]7401\"]\n", 7, "seed [2001:db8::1]7401; must"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [0.0.0.0]\n", 7, "seed 0.0.0.0; must be"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [[10.0.0.2]]\n", 7, "a seed is a list"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: 10.0.0.2\n", 7, "seeds is a single value; must be a list of"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds:\n", 7, "seeds is empty; must be a list of"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [2001:db8::1]\n", 7, "another family than address"},
    {GOSSIP_HEAD GOSSIP_SELF "client_address: 10.0.0.2\nseeds: []\n", 7, "same family as address"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: []\ntier: 8\n", 8, "tier is 8; must be 0 to 7"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: []\ntags: [ue]\n", 8, "tag ue is not known"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: []\nidentity: i\n", 8, "identity is i; must be a path"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: []\npolicy_key: acme\n", 8,
     "policy_key is acme; must be 64 hexadecimal digits"},
    {GOSSIP_HEAD GOSSIP_SELF "seeds: [1.0.0.1, 1.0.0.2, 1.0.0.3, 1.0.0.4, 1.0.0.5, 1.0.0.6,\n"
                             " 1.0.0.7, 1.0.0.8, 1.0.0.9, 1.0.0.1, 1.0.0.1, 1.0.0.1, 1.0.0.1,\n"
                             " 1.0.0.1, 1.0.0.1, 1.0.0.1,\n 1.0.0.17]\n",
     10, "one seed too many; at most 16"},
    {GOSSIP_HEAD "seeds: []\nmembers: [{name: a, id: 0, address: 127.0.0.1, latitude: 0,\n"
                 " longitude: 0, tier: 7}]\n",
     4, "seeds is for a node with seeds; this file lists all members"},
    {GOSSIP_HEAD "tier: 3\nmembers: [{name: a, id: 0, address: 127.0.0.1, latitude: 0,\n"
                 " longitude: 0, tier: 7}]\n",
     4, "tier is for a node with seeds"},
};

START_TEST(gossip_error)
{
    struct config *config;
    ck_assert_int_eq(parse(slips[_i].text, &config), WEFT_E_CONFIG);
    ck_assert_ptr_null(config);
    if (errors.count != 1 || !error_is(0, slips[_i].line, slips[_i].part)) {
        errors_print(slips[_i].text);
        ck_abort_msg("not the one error %u: %s", slips[_i].line, slips[_i].part);
    }
}
END_TEST

START_TEST(keys_described)
{
    struct config_key_info info;
    size_t count = 0;
    for (; config_key_describe(count, &info) == 0; count++) {
        ck_assert_ptr_nonnull(info.place);
        ck_assert_ptr_nonnull(info.key);
        ck_assert_str_ne(info.expects, "");
        ck_assert_str_ne(info.text, "");
    }
    ck_assert_uint_eq(count, 35);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");
    tcase_add_test(tcase, good_file);
    tcase_add_test(tcase, defaults);
    tcase_add_loop_test(tcase, one_error, 0, (int)(sizeof(edits) / sizeof(edits[0])));
    tcase_add_test(tcase, all_errors_at_once);
    tcase_add_test(tcase, wrong_shapes);
    tcase_add_test(tcase, unknown_keys_at_once);
    tcase_add_test(tcase, good_oddities);
    tcase_add_test(tcase, tag_limit);
    tcase_add_test(tcase, socket_paths_at_the_limit);
    tcase_add_test(tcase, member_limit);
    tcase_add_test(tcase, error_limit);
    tcase_add_test(tcase, hostile_files);
    tcase_add_test(tcase, large_files);
    tcase_add_test(tcase, files);
    tcase_add_test(tcase, ipv6_members);
    tcase_add_test(tcase, gossip_file);
    tcase_add_test(tcase, gossip_defaults);
    tcase_add_loop_test(tcase, gossip_error, 0, (int)(sizeof(slips) / sizeof(slips[0])));
    tcase_add_test(tcase, keys_described);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
