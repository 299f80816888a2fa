/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_query.c - `weft query`: which nodes could take a request, and what bars the others. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/query.h"
#include "controlplane/cli/query_zones.h"

#define WAIT_MS 3000

const char cmd_query_usage[] =
    "--socket ADMIN.sock [OPTION]... ['{JSON}']\n"
    "\n"
    "Which nodes could take such a request, nearest first: a search over all zones of the mesh,\n"
    "begun at the node behind the socket. It says whether that is all there is, and how old. In\n"
    "a static mesh, or with --local, what that node would decide from what it knows at this\n"
    "moment, and what bars each of the others.\n"
    "\n"
    "  --socket PATH       the node's sockets.admin\n"
    "  --json              one JSON object instead of a table\n"
    "  --local             ask no other node\n"
    "  --model NAME        needed, here or in the JSON\n"
    "  --near LAT,LON      in degrees; else the node's own place\n"
    "  --radius-km N       within N km of that place\n"
    "  --tier A-B          hardware tiers, 0 to 7\n"
    "  --vram-mib N        with so much accelerator memory free\n"
    "  --tags A,B          policy tags that the node must all have\n"
    "  --budget-ms N       the first token can come in time; --e2e: the whole answer\n"
    "  --prompt-bytes N, --max-tokens N   of the request; default 0\n"
    "  --k N               show so many; default 8\n"
    "\n"
    "The same as JSON, which options overrule:\n"
    "  weft query --socket S '{\"model\": \"m\", \"tier\": \"4-6\", \"radius_km\": 50,\n"
    "                         \"vram_gib\": 8, \"budget_ms\": 50, \"tags\": [\"eu\"]}'\n"
    "\n"
    "exit: 0 some node can, 1 no answer, 2 wrong usage, 3 none can\n";

enum {
    OPT_SOCKET = 's',
    OPT_JSON = 'j',
    OPT_LOCAL = 'l',
    OPT_E2E = 'e',
    OPT_TEXT = 't',
    OPT_NUMBER = 'n',
    OPT_NEAR = 'p'
};

static const struct option options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"json", no_argument, NULL, OPT_JSON},
    {"local", no_argument, NULL, OPT_LOCAL},
    {"e2e", no_argument, NULL, OPT_E2E},
    {"near", required_argument, NULL, OPT_NEAR},
    {"model", required_argument, NULL, OPT_TEXT},
    {"tier", required_argument, NULL, OPT_TEXT},
    {"tags", required_argument, NULL, OPT_TEXT},
    {"radius-km", required_argument, NULL, OPT_NUMBER},
    {"vram-mib", required_argument, NULL, OPT_NUMBER},
    {"budget-ms", required_argument, NULL, OPT_NUMBER},
    {"prompt-bytes", required_argument, NULL, OPT_NUMBER},
    {"max-tokens", required_argument, NULL, OPT_NUMBER},
    {"k", required_argument, NULL, OPT_NUMBER},
    {NULL, 0, NULL, 0},
};

/* The option as a key of the query's JSON: "radius-km" is radius_km. False: no such value. */
static bool option_set(json_t *object, const char *name, int kind, const char *value)
{
    char key[32];
    snprintf(key, sizeof(key), "%s", name);
    for (char *c = key; *c != '\0'; c++) {
        *c = *c == '-' ? '_' : *c;
    }
    double a, b;
    switch (kind) {
    case OPT_E2E:
        return json_object_set_new(object, key, json_true()) == 0;
    case OPT_TEXT:
        return json_object_set_new(object, key, json_string(value)) == 0;
    case OPT_NUMBER:
        return cli_real(value, 0, 4e9, &a) && json_object_set_new(object, key, json_real(a)) == 0;
    default: {
        char first[32];
        size_t length = strcspn(value, ",");
        if (value[length] == '\0' || length >= sizeof(first)) {
            return false;
        }
        memcpy(first, value, length);
        first[length] = '\0';
        return cli_real(first, -90, 90, &a) && cli_real(value + length + 1, -180, 180, &b) &&
               json_object_set_new(object, key, json_pack("[f, f]", a, b)) == 0;
    }
    }
}

struct command_line {
    const char *socket;
    bool json;
    bool local;
    json_t *options;
    json_t *object; /* the argument, or NULL */
};

/* Returns 0 or the exit code. */
static int command_line_read(struct command_line *line, int argc, char **argv)
{
    opterr = 0; /* own words */
    int index = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (c == OPT_SOCKET) {
            line->socket = optarg;
        } else if (c == OPT_JSON) {
            line->json = true;
        } else if (c == OPT_LOCAL) {
            line->local = true;
        } else if (c == '?' || !option_set(line->options, options[index].name, c, optarg)) {
            return cli_usage_error("query", "%s is no option, or lacks its value",
                                   argv[optind - 1]);
        }
    }
    if (line->socket == NULL) {
        return cli_usage_error("query", "--socket is needed");
    }
    if (optind < argc - 1) {
        return cli_usage_error("query", "one query at a time");
    }
    if (optind < argc) {
        json_error_t error;
        line->object = json_loads(argv[optind], 0, &error);
        if (line->object == NULL) {
            return cli_usage_error("query", "that is no JSON: %s", error.text);
        }
    }
    return 0;
}

/* An answer from what the node knows; NULL: said why. */
static json_t *local_ask(const struct command_line *line, const struct query *query,
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
static json_t *zones_ask(const struct command_line *line, const struct query *query)
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

static int query_ask(const struct command_line *line, const struct query *query)
{
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
    struct command_line line = {.options = json_object()};
    struct query query;
    char why[QUERY_WHY_MAX] = "";
    query_init(&query);
    int rc = command_line_read(&line, argc, argv);
    if (rc == 0 && ((line.object != NULL && !query_read(&query, line.object, why)) ||
                    !query_read(&query, line.options, why))) {
        rc = cli_usage_error("query", "%s", why);
    }
    if (rc == 0 && query.model[0] == '\0') {
        rc = cli_usage_error("query", "a query needs a model");
    }
    rc = rc == 0 ? query_ask(&line, &query) : rc;
    json_decref(line.options);
    json_decref(line.object);
    return rc;
}
