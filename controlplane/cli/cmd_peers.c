/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_peers.c - `weft peers`: who is in the mesh, as one node sees it. */
#include <stdio.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/peers.h"

const char cmd_peers_usage[] =
    "[--socket ADMIN.sock] [--json]\n"
    "\n"
    "Every member that the node knows, itself first, then the nearest in time:\n"
    "  state    up, suspect (does not answer somebody; still used), down, left\n"
    "  since    how long it has been in that state\n"
    "  rtt      there and back, smoothed; with ~ if it was not measured\n"
    "  load     how old is what it last said of its load\n"
    "  place    latitude and longitude; with ? if light contradicts it\n"
    "\n" NODE_SOCKET_USAGE "  --json          one JSON object instead of a table\n"
    "\n"
    "examples:\n"
    "  weft peers\n"
    "  weft peers --socket /run/weft/mesh/tokyo/admin.sock --json\n"
    "\n"
    "exit: 0 answered, 1 no answer, 2 wrong usage\n";

int cmd_peers(int argc, char **argv)
{
    struct node_request request;
    json_t *status = NULL;
    int rc = node_request_read(&request, "peers", argc, argv);
    rc = rc == 0 ? node_status(&status, &request, "peers") : rc;
    if (rc != 0) {
        return rc;
    }
    json_t *list = peers_list(status);
    if (request.json) {
        node_json_print(list);
    } else {
        peers_print(stdout, list);
    }
    json_decref(list);
    json_decref(status);
    return CLI_OK;
}
