/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_mesh_key.c - `weft mesh-key`: makes the key that all members of a mesh share. */
#include <stdio.h>

#include "controlplane/cli/cli.h"
#include "controlplane/keys/keys.h"

const char cmd_mesh_key_usage[] =
    "FILE\n"
    "\n"
    "Writes a new random mesh key to FILE, which must not exist, readable by its owner only. Copy\n"
    "it to each member, where the configuration's mesh_key names it (/etc/weft/mesh.key by\n"
    "default). Who has it can join the mesh and read its gossip.\n"
    "\n"
    "To change the key of a running mesh, put the new one below the old one in every member's\n"
    "file, then above it everywhere, then take the old one out everywhere; send weftd SIGHUP each\n"
    "time.\n"
    "\n"
    "examples:\n"
    "  weft mesh-key /etc/weft/mesh.key\n"
    "\n"
    "exit: 0 made, 1 not made, 2 wrong usage\n";

int cmd_mesh_key(int argc, char **argv)
{
    char why[KEYS_WHY_MAX] = "";
    if (argc != 2 || argv[1][0] == '-') {
        return cli_usage_error("mesh-key", "needs the name of a new file");
    }
    if (keys_mesh_make(argv[1], why) < 0) {
        fprintf(stderr, "weft mesh-key: %s\n", why);
        return CLI_ERROR;
    }
    return CLI_OK;
}
