/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_routes.c - `weft routes`: which nodes a node's packet path would choose from, by model. */
#include <stdio.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/peers.h"
#include "controlplane/cli/query.h"

const char cmd_routes_usage[] =
    "[--socket ADMIN.sock] [--json]\n"
    "\n"
    "For each model that some member has: the nodes that can take a plain request now, nearest\n"
    "first, by the packet path's own filters and predictions, and what bars the others that have\n"
    "it. A request with conditions of its own: `weft query`.\n"
    "\n" NODE_SOCKET_USAGE "  --json          one JSON object instead of tables\n"
    "\n"
    "examples:\n"
    "  weft routes\n"
    "  weft routes --json\n"
    "\n"
    "exit: 0 answered, 1 no answer, 2 wrong usage\n";

int cmd_routes(int argc, char **argv)
{
    char why[QUERY_WHY_MAX] = "";
    struct node_request request;
    json_t *status = NULL;
    int rc = node_request_read(&request, "routes", argc, argv);
    rc = rc == 0 ? node_status(&status, &request, "routes") : rc;
    if (rc != 0) {
        return rc;
    }
    json_t *list = routes_list(status, why);
    json_decref(status);
    if (list == NULL) {
        fprintf(stderr, "weft routes: %s\n", why);
        return CLI_ERROR;
    }
    if (request.json) {
        node_json_print(list);
    } else {
        routes_print(stdout, list);
    }
    json_decref(list);
    return CLI_OK;
}
