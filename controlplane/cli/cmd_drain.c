/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_drain.c - `weft drain`: a node takes no new requests until it is told otherwise. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"

#define WAIT_MS 5000u

const char cmd_drain_usage[] =
    "[--undo] [--socket ADMIN.sock]\n"
    "\n"
    "The node finishes what it has and gets nothing new; it stays a member, takes in requests for\n"
    "others, and gives what its workers know of sessions to the nodes where those go on. Stop it\n"
    "with SIGTERM then, or take it back.\n"
    "\n"
    "In a static mesh (`members:` in its file) nodes have no keys by which one could prove itself "
    "to\n"
    "another: what is known of a session stays, and it is computed anew where it goes on. The "
    "answer\n"
    "says which of the two will be.\n"
    "\n"
    "  --undo          it takes requests again\n" NODE_SOCKET_USAGE "\n"
    "examples:\n"
    "  weft drain\n"
    "  weft drain --undo\n"
    "\n"
    "exit: 0 done, 1 no answer, 2 wrong usage\n";

/* What becomes of the sessions here: by a word, which older nodes do not say. */
static const char *sessions_text(const json_t *answer)
{
    static const struct {
        const char *word;
        const char *text;
    } all[] = {
        {"move", "draining; sessions take what is known of them here along"},
        {"static", "draining; sessions are computed anew where they go on: the nodes of a static "
                   "mesh have no keys to move them with"},
        {"closed", "draining; sessions are computed anew where they go on: this node could not "
                   "open its TCP port, its log says why"},
    };
    const char *word = json_string_value(json_object_get(answer, "sessions"));
    for (size_t i = 0; word != NULL && i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(word, all[i].word) == 0) {
            return all[i].text;
        }
    }
    return "draining";
}

static int drain_ask(const char *socket, bool undo)
{
    json_t *answer = NULL;
    int rc = ask(socket, undo ? "{\"cmd\":\"drain\",\"undo\":true}" : "{\"cmd\":\"drain\"}",
                 WAIT_MS, &answer);
    if (rc != 0) {
        fprintf(stderr, "weft drain: %s: %s\n", socket, ask_error_text(rc));
        return CLI_ERROR;
    }
    const json_t *draining = json_object_get(answer, "draining");
    bool done = json_is_boolean(draining) && json_is_true(draining) == !undo;
    if (done) {
        puts(undo ? "takes requests again" : sessions_text(answer));
    } else {
        fprintf(stderr, "weft drain: the node at %s cannot do that\n", socket);
    }
    json_decref(answer);
    return done ? CLI_OK : CLI_ERROR;
}

int cmd_drain(int argc, char **argv)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"undo", no_argument, NULL, 'u'},
                                            {NULL, 0, NULL, 0}};
    const char *socket = NULL;
    bool undo = false;
    int option;
    opterr = 0; /* own words */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's') {
            socket = optarg;
        } else if (option == 'u') {
            undo = true;
        } else {
            return cli_usage_error("drain", "%s is no option, or lacks its value",
                                   argv[optind - 1]);
        }
    }
    if (optind < argc) {
        return cli_usage_error("drain", "%s is too much", argv[optind]);
    }
    socket = node_socket(socket, "drain");
    return socket != NULL ? drain_ask(socket, undo) : CLI_ERROR;
}
