/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_conf_check.c - `weft conf-check`: reads a configuration as weftd would, without a node. */
#include <stdio.h>
#include <string.h>

#include "controlplane/cli/cli.h"
#include "schemas/base/addr.h"
#include "schemas/config.h"
#include "schemas/tags.def"

const char cmd_conf_check_usage[] =
    "FILE | --keys\n"
    "\n"
    "Prints every error of FILE as file:line: text, or a summary of the node.\n"
    "  --keys   list all keys, their ranges and defaults, and the policy tags\n"
    "\n"
    "examples:\n"
    "  weft conf-check /etc/weft/node.yaml\n"
    "  weft conf-check --keys\n"
    "\n"
    "exit: 0 valid, 1 not valid, 2 wrong usage\n";

static void error_print(const char *path, unsigned line, const char *text, void *user)
{
    (void)user;
    if (line > 0) {
        fprintf(stderr, "%s:%u: %s\n", path, line, text);
    } else {
        fprintf(stderr, "%s: %s\n", path, text);
    }
}

static int keys_print(void)
{
    struct config_key_info info;
    for (size_t i = 0; config_key_describe(i, &info) == 0; i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s%s%s", info.place, info.place[0] != '\0' ? "." : "",
                 info.key);
        printf("%-23s%s\n", key, info.text);
        printf("%-23s  %s; %s%s\n", "", info.expects,
               info.default_value == NULL      ? "needed"
               : info.default_value[0] == '\0' ? "may be left out"
                                               : "default ",
               info.default_value != NULL ? info.default_value : "");
    }
    printf("\ntags\n");
#define TAG_PRINT_(name, bit, text) printf("  %-20s%s\n", #name, text);
    WEFT_TAGS(TAG_PRINT_)
#undef TAG_PRINT_
    return CLI_OK;
}

static void summary_print(const char *path, const struct config *config)
{
    const struct config_member *self = &config->members[config->self];
    char address[ADDR_TEXT_MAX];
    char second[ADDR_TEXT_MAX] = "";
    addr_format(&self->address, address);
    if (!IN6_IS_ADDR_UNSPECIFIED(&self->client_address)) {
        addr_format(&self->client_address, second);
    }
    char id[32] = "id by its identity";
    if (self->id != WEFT_NODE_NONE) {
        snprintf(id, sizeof(id), "id %u", self->id);
    }
    printf("%s is valid\n", path);
    printf("  node       %s, %s, tier %u, %.4f %.4f\n", config->node, id, self->tier,
           self->latitude_deg, self->longitude_deg);
    printf("  listens    %s, UDP %u and %u, on %s\n", address, config->data_port,
           config_control_port(config), config->nic.interface);
    if (second[0] != '\0') {
        printf("  clients    %s, UDP %u, too\n", second, config->data_port);
    }
    printf("  sockets    %s, %s\n", config->sockets.admin, config->sockets.port);
    if (config->gossip) {
        printf("  keys       %s, %s\n", config->identity, config->mesh_key);
        printf("  seeds      %u\n", config->seed_count);
    } else {
        printf("  members    %u\n", config->member_count);
    }
}

int cmd_conf_check(int argc, char **argv)
{
    struct config *config;
    if (argc != 2) {
        return cli_usage_error("conf-check", "needs one file");
    }
    if (strcmp(argv[1], "--keys") == 0) {
        return keys_print();
    }
    if (argv[1][0] == '-' && argv[1][1] != '\0') {
        return cli_usage_error("conf-check", "takes a file or --keys");
    }
    int rc = config_load(&config, argv[1], error_print, NULL);
    if (rc < 0) {
        if (rc != WEFT_E_CONFIG) {
            fprintf(stderr, "weft conf-check: %s\n", weft_status_text(rc));
        }
        return CLI_ERROR;
    }
    summary_print(argv[1], config);
    config_destroy(config);
    return CLI_OK;
}
