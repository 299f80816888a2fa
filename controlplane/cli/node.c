/* SPDX-License-Identifier: Apache-2.0 */
/* node.c - see node.h. */
#include "controlplane/cli/node.h"

#include <getopt.h>
#include <stdio.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"

#define WAIT_MS 3000

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
    if (request->socket == NULL || optind != argc) {
        return cli_usage_error(command, "needs --socket PATH and nothing else");
    }
    return 0;
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
