/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h - what the commands share that ask one node and show its answer: `weft status`, `weft
 * peers`, `weft routes`.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct node_request {
    const char *socket; /* --socket */
    bool json;          /* --json */
};

/* What the commands say of it in their usage. */
#define NODE_SOCKET_USAGE                                                                          \
    "  --socket PATH   the node's sockets.admin; default: the environment's WEFT_ADMIN, else\n"    \
    "                  " NODE_ADMIN ", else that of your `weft serve`\n"
#define NODE_ADMIN "/run/weft/admin.sock"
#define NODE_PORT  "/run/weft/port.sock"

/* The admin socket to ask: `given`, or if that is NULL the default. NULL: none is known, said. */
const char *node_socket(const char *given, const char *command);
/* The node that clients ask if none is named: the environment's WEFT_NODE, or this machine's own as
 * "unix:PATH". NULL: none is known, said. */
const char *node_to_ask(const char *given, const char *command);

/* Reads `[--socket PATH] [--json]` and nothing else. Returns 0 or the exit code, said. */
int node_request_read(struct node_request *request, const char *command, int argc, char **argv);

/* The node's status, a new reference. Returns 0 or the exit code, said. */
int node_status(json_t **status, const struct node_request *request, const char *command);

/* The text of a key; `none` if there is none, or an empty one. */
const char *node_text(const json_t *object, const char *key, const char *none);

/* JSON as commands print it. */
void node_json_print(const json_t *json);
