/* SPDX-License-Identifier: Apache-2.0 */
/* node.c - see node.h. */
#include "controlplane/cli/node.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/serve_folder.h"

#define WAIT_MS 3000

/* A socket of a node on this machine: `usual` if it is there, else that in the folder of the one
 * `weft serve` that runs. False: there is none, or more than one, said. */
static bool socket_find(const char *usual, const char *name, const char *command, const char *hint,
                        char out[PATH_MAX])
{
    char folder[PATH_MAX - 16];
    if (access(usual, F_OK) == 0) {
        snprintf(out, PATH_MAX, "%s", usual);
        return true;
    }
    const char *base = serve_folder_base();
    unsigned count = serve_folders_live(base, folder, sizeof(folder));
    if (count == 1) {
        snprintf(out, PATH_MAX, "%s/%s", folder, name);
        return true;
    }
    if (count == 0) {
        fprintf(stderr,
                "weft %s: no node is known: neither %s is there nor does `weft serve` run; "
                "give %s\n",
                command, usual, hint);
    } else {
        fprintf(stderr,
                "weft %s: %u `weft serve` run here, with sockets in %s/weft-serve-*; give %s\n",
                command, count, base, hint);
    }
    return false;
}

static const char *given_or(const char *given, const char *variable)
{
    const char *text = given != NULL ? given : getenv(variable);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

const char *node_socket(const char *given, const char *command)
{
    static char found[PATH_MAX];
    const char *path = given_or(given, "WEFT_ADMIN");
    if (path == NULL &&
        socket_find(NODE_ADMIN, "admin.sock", command, "--socket PATH, or set WEFT_ADMIN", found)) {
        path = found;
    }
    return path;
}

const char *node_to_ask(const char *given, const char *command)
{
    static char found[PATH_MAX + 8];
    char path[PATH_MAX];
    const char *node = given_or(given, "WEFT_NODE");
    if (node == NULL && socket_find(NODE_PORT, "port.sock", command,
                                    "--node HOST[:PORT] or unix:PATH, or set WEFT_NODE", path)) {
        snprintf(found, sizeof(found), "unix:%s", path);
        node = found;
    }
    return node;
}

int node_request_read(struct node_request *request, const char *command, int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    *request = (struct node_request){.socket = NULL};
    opterr = 0; /* own words */
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's') {
            request->socket = optarg;
        } else if (c == 'j') {
            request->json = true;
        } else {
            return cli_usage_error(command, "%s is no option, or lacks its value",
                                   argv[optind - 1]);
        }
    }
    if (optind != argc) {
        return cli_usage_error(command, "%s: takes options only", argv[optind]);
    }
    request->socket = node_socket(request->socket, command);
    return request->socket != NULL ? 0 : CLI_ERROR;
}

int node_status(json_t **status, const struct node_request *request, const char *command)
{
    int rc = ask(request->socket, "status", WAIT_MS, status);
    if (rc < 0) {
        fprintf(stderr, "weft %s: %s: %s\n", command, request->socket, ask_error_text(rc));
        return CLI_ERROR;
    }
    return 0;
}

const char *node_text(const json_t *object, const char *key, const char *none)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL && text[0] != '\0' ? text : none;
}

void node_json_print(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
}
