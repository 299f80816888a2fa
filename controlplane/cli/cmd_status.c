/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_status.c - `weft status`: asks a node's admin socket and shows the answer as a table. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "schemas/base/addr.h"

const char cmd_status_usage[] =
    "[--socket ADMIN.sock] [--json]\n"
    "\n" NODE_SOCKET_USAGE "  --json          the node's answer as it is\n"
    "\n"
    "examples:\n"
    "  weft status\n"
    "  weft status --json\n"
    "\n"
    "exit: 0 answered, 1 no answer, 2 wrong usage\n";

/* ---- showing ---- */

/* The wait at its worker in milliseconds, or that it takes nothing new. */
static void queue_print(char *out, size_t size, const json_t *member)
{
    if (json_is_true(json_object_get(member, "draining"))) {
        snprintf(out, size, "draining");
        return;
    }
    snprintf(out, size, "%.1f",
             (double)json_integer_value(json_object_get(member, "queue_us")) / 1e3);
}

static void member_print(const json_t *member, bool self)
{
    char rtt[32] = "-";
    char queue[32];
    char address[2 * ADDR_TEXT_MAX];
    const char *second = node_text(member, "client_address", "");
    snprintf(address, sizeof(address), "%s%s%s", node_text(member, "address", "?"),
             second[0] != '\0' ? "," : "", second);
    json_t *rtt_us = json_object_get(member, "rtt_us");
    if (json_is_number(rtt_us)) {
        snprintf(rtt, sizeof(rtt), "%.2f", json_number_value(rtt_us) / 1e3);
    }
    queue_print(queue, sizeof(queue), member);
    printf("  %-20s %5lld  %4lld  %-7s %8s %5lld %9s  %-8s %-16s ", node_text(member, "name", "?"),
           (long long)json_integer_value(json_object_get(member, "id")),
           (long long)json_integer_value(json_object_get(member, "tier")),
           self ? "self" : node_text(member, "state", "?"), rtt,
           (long long)json_integer_value(json_object_get(member, "room")), queue,
           node_text(member, "backend", "-"), address);
    const json_t *models = json_object_get(member, "models");
    for (size_t i = 0; i < json_array_size(models); i++) {
        printf("%s%s", i > 0 ? "," : "", json_string_value(json_array_get(models, i)));
    }
    printf("%s\n", json_array_size(models) == 0 ? "-" : "");
}

/* The scalars of an object and of the objects within it, one a line; zeros can be left out. */
static void scalars_print(json_t *object, const char *prefix, bool zeros)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char name[128];
        snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", key);
        if (json_is_object(value)) {
            scalars_print(value, name, zeros);
        } else if (json_is_string(value)) {
            printf("  %-32s %s\n", name, json_string_value(value));
        } else if (json_is_boolean(value)) {
            printf("  %-32s %s\n", name, json_is_true(value) ? "yes" : "no");
        } else if (json_is_number(value) && (zeros || json_number_value(value) != 0)) {
            printf("  %-32s %.*f\n", name, json_is_real(value) ? 3 : 0, json_number_value(value));
        }
    }
}

/* Those who share memory with the node. */
static void clients_print(const json_t *clients)
{
    size_t count = json_array_size(clients);
    printf("local clients:%s\n", count > 0 ? "" : " none");
    for (size_t i = 0; i < count; i++) {
        json_t *client = json_array_get(clients, i);
        printf("  %-32s pid %.0f, uid %.0f, %.0f datagrams from it, %.0f to it, %.0f lost\n",
               node_text(client, "program", "?"), json_number_value(json_object_get(client, "pid")),
               json_number_value(json_object_get(client, "uid")),
               json_number_value(json_object_get(client, "taken")),
               json_number_value(json_object_get(client, "given")),
               json_number_value(json_object_get(client, "full")));
    }
}

static void status_print(json_t *status)
{
    static const char *const shown[] = {
        "node",    "id",      "version", "uptime_s", "members_version", "members",
        "workers", "clients", "stages",  "lcores",   "counters"};
    const char *node = node_text(status, "node", "?");
    json_t *members = json_object_get(status, "members");
    size_t up = 0;
    for (size_t i = 0; i < json_array_size(members); i++) {
        up += json_is_true(json_object_get(json_array_get(members, i), "alive")) ? 1 : 0;
    }
    printf("node %s, version %s, up %.0f s\n", node, node_text(status, "version", "?"),
           json_number_value(json_object_get(status, "uptime_s")));
    printf("members: %zu of %zu up\n", up, json_array_size(members));
    printf("  %-20s %5s  %4s  %-7s %8s %5s %9s  %-8s %-16s %s\n", "name", "id", "tier", "state",
           "rtt ms", "room", "queue ms", "backend", "address", "models");
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *member = json_array_get(members, i);
        member_print(member, strcmp(node_text(member, "name", ""), node) == 0);
    }
    json_t *workers = json_object_get(status, "workers");
    printf("workers:%s\n", json_array_size(workers) > 0 ? "" : " none");
    for (size_t i = 0; i < json_array_size(workers); i++) {
        scalars_print(json_array_get(workers, i), "", true);
    }
    clients_print(json_object_get(status, "clients"));
    printf("counters (zeros are left out):\n");
    scalars_print(json_object_get(status, "counters"), "", false);
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
        json_object_del(status, shown[i]);
    }
    if (json_object_size(status) > 0) { /* lcores and stages: `weft top` shows them better */
        printf("further:\n");
        scalars_print(status, "", true);
    }
}

int cmd_status(int argc, char **argv)
{
    struct node_request request;
    json_t *status = NULL;
    int rc = node_request_read(&request, "status", argc, argv);
    rc = rc == 0 ? node_status(&status, &request, "status") : rc;
    if (rc != 0) {
        return rc;
    }
    if (request.json) {
        node_json_print(status);
    } else {
        status_print(status);
    }
    json_decref(status);
    return CLI_OK;
}
