/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_query.c - `weft query`: which nodes could take a request, and what bars the others. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/query.h"
#include "controlplane/cli/query_line.h"
#include "controlplane/cli/query_zones.h"

#define WAIT_MS 3000

const char cmd_query_usage[] =
    "[--socket ADMIN.sock] [OPTION]... ['{JSON}']\n"
    "\n"
    "Which nodes could take such a request, nearest first: a search over all zones of the mesh,\n"
    "begun at the node behind the socket. It says whether that is all there is, and how old. In\n"
    "a static mesh, or with --local, what that node would decide from what it knows at this\n"
    "moment, and what bars each of the others.\n"
    "\n"
    "  --socket PATH       the node's sockets.admin; default as `weft status` has it\n"
    "  --json              one JSON object instead of a table\n"
    "  --local             ask no other node\n" QUERY_LINE_USAGE
    "  --prompt-bytes N, --max-tokens N   of the request; default 0\n"
    "  --k N               show so many; default 8\n"
    "\n"
    "The same can be said as JSON, which options overrule; there also \"prompt\" and \"system\",\n"
    "the words themselves: then it shows, and counts, what nodes have of the prompt's beginning.\n"
    "\n"
    "examples:\n"
    "  weft query --model smollm2-135m-instruct --tags eu --budget-ms 50\n"
    "  weft query '{\"model\": \"m\", \"tier\": \"4-6\", \"radius_km\": 50, \"vram_gib\": 8}'\n"
    "\n"
    "exit: 0 some node can, 1 no answer, 2 wrong usage, 3 none can\n";

/* An answer from what the node knows; NULL: said why. */
static json_t *local_ask(const struct query_line *line, const struct query *query,
                         const json_t *status)
{
    char why[QUERY_WHY_MAX] = "";
    json_t *answer = query_answer(query, status, why);
    if (answer == NULL) {
        fprintf(stderr, "weft query: %s: %s\n", line->socket, why);
    }
    return answer;
}

/* An answer from all zones; NULL: said why. */
static json_t *zones_ask(const struct query_line *line, const struct query *query)
{
    struct query_zones zones;
    char why[QUERY_WHY_MAX] = "";
    json_t *answer = NULL;
    query_zones_init(&zones);
    for (int rc = 1; rc == 1;) {
        json_t *request = query_zones_request(&zones, query);
        char *text = json_dumps(request, JSON_COMPACT | JSON_REAL_PRECISION(9));
        json_t *page = NULL;
        int failed = text != NULL ? ask(line->socket, text, WAIT_MS, &page) : -ENOMEM;
        free(text);
        json_decref(request);
        if (failed != 0) {
            snprintf(why, sizeof(why), "%s", ask_error_text(failed));
            rc = -1;
        } else {
            rc = query_zones_take(&zones, query, page, why);
        }
        answer = rc == 0 ? query_zones_answer(&zones, query, why) : NULL;
        json_decref(page);
    }
    query_zones_deinit(&zones);
    if (answer == NULL) {
        fprintf(stderr, "weft query: %s: %s\n", line->socket, why);
    }
    return answer;
}

static int query_ask(const struct query_line *line)
{
    const struct query *query = &line->query;
    json_t *status = NULL;
    int rc = ask(line->socket, "status", WAIT_MS, &status);
    if (rc != 0) {
        fprintf(stderr, "weft query: %s: %s\n", line->socket, ask_error_text(rc));
        return CLI_ERROR;
    }
    bool zones = !line->local && json_object_get(status, "zone") != NULL;
    json_t *answer = zones ? zones_ask(line, query) : local_ask(line, query, status);
    json_decref(status);
    if (answer == NULL) {
        return CLI_ERROR;
    }
    if (line->json) {
        json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(7));
        putchar('\n');
    } else {
        query_print(stdout, answer);
    }
    bool some = json_integer_value(json_object_get(answer, "found")) > 0;
    json_decref(answer);
    return some ? CLI_OK : CLI_REFUSED;
}

int cmd_query(int argc, char **argv)
{
    struct query_line line;
    int rc = query_line_read(&line, QUERY_LINE_QUERY, argc, argv);
    return rc == 0 ? query_ask(&line) : rc;
}
