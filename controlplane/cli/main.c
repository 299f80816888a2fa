/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - `weft`: finds the sub-command in a table and runs it. See cli.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "controlplane/cli/cli.h"

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const struct cli_command commands[] = {
    {"serve", cmd_serve, "run a node, a model and OpenAI's API on this machine", cmd_serve_usage},
    {"run", cmd_run, "ask a mesh and print the answer as it comes", cmd_run_usage},
    {"status", cmd_status, "show what a node on this machine knows", cmd_status_usage},
    {"top", cmd_top, "watch the nodes of this machine", cmd_top_usage},
    {"peers", cmd_peers, "who is in the mesh, as a node sees it", cmd_peers_usage},
    {"routes", cmd_routes, "which nodes could serve which model", cmd_routes_usage},
    {"query", cmd_query, "which nodes could take a request, and what bars the others",
     cmd_query_usage},
    {"trace", cmd_trace, "follow one request: who could take it, who did, where its time went",
     cmd_trace_usage},
    {"pcap", cmd_pcap, "capture a node's datagrams, with what became of each", cmd_pcap_usage},
    {"drain", cmd_drain, "have a node take no new requests, or take them again", cmd_drain_usage},
    {"mesh-key", cmd_mesh_key, "make the key that the members of a mesh share", cmd_mesh_key_usage},
    {"policy", cmd_policy, "sign a policy, and show which one a node obeys", cmd_policy_usage},
    {"conf-check", cmd_conf_check, "check a node's configuration file", cmd_conf_check_usage},
    {"version", cmd_version, "print the version", "\n"},
    {"help", cmd_help, "explain a command", "[COMMAND]\n"},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static const struct cli_command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void commands_print(FILE *file)
{
    fprintf(file, "usage: weft COMMAND ...\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(file, "  %-12s%s\n", commands[i].name, commands[i].summary);
    }
    fprintf(file, "\n`weft help COMMAND` explains one.\n");
}

static int cmd_help(int argc, char **argv)
{
    if (argc < 2) {
        commands_print(stdout);
        return CLI_OK;
    }
    const struct cli_command *command = command_find(argv[1]);
    if (command == NULL) {
        fprintf(stderr, "weft help: there is no command %s; `weft help` lists them\n", argv[1]);
        return CLI_USAGE;
    }
    printf("weft %s - %s\n\nusage: weft %s%s%s", command->name, command->summary, command->name,
           command->usage[0] != '\n' ? " " : "", command->usage);
    return CLI_OK;
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("weft %s (wire protocol %u)\n", WEFT_RELEASE, WEFT_VERSION);
    return CLI_OK;
}

static bool help_wanted(int argc, char **argv)
{
    return argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

/* What was printed counts once it has arrived: a full disk is no success. */
static int flushed(int status)
{
    if (status == CLI_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        fprintf(stderr, "weft: cannot write: %s\n", strerror(errno));
        return CLI_ERROR;
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        commands_print(stderr);
        return CLI_USAGE;
    }
    if (help_wanted(argc, argv)) {
        commands_print(stdout);
        return flushed(CLI_OK);
    }
    bool version = strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0;
    const struct cli_command *command = command_find(version ? "version" : argv[1]);
    if (command == NULL) {
        fprintf(stderr, "weft: there is no command %s; `weft help` lists them\n", argv[1]);
        return CLI_USAGE;
    }
    argc--;
    argv++;
    if (help_wanted(argc, argv)) {
        char *help[] = {argv[0], argv[0], NULL};
        return flushed(cmd_help(2, help));
    }
    return flushed(command->run(argc, argv));
}
