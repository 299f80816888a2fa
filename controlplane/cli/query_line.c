/* SPDX-License-Identifier: Apache-2.0 */
/* query_line.c - see query_line.h. Options become keys of the JSON that query_read.c takes. */
#include "controlplane/cli/query_line.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"

enum {
    OPT_SOCKET = 's',
    OPT_JSON = 'j',
    OPT_LOCAL = 'l',
    OPT_DRY = 'd',
    OPT_NODE = 'o',
    OPT_PROMPT = 'r',
    OPT_E2E = 'e',
    OPT_TEXT = 't',
    OPT_NUMBER = 'n',
    OPT_NEAR = 'p'
};

static const struct option options[] = {
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"json", no_argument, NULL, OPT_JSON},
    {"local", no_argument, NULL, OPT_LOCAL},
    {"dry", no_argument, NULL, OPT_DRY},
    {"node", required_argument, NULL, OPT_NODE},
    {"prompt", required_argument, NULL, OPT_PROMPT},
    {"e2e", no_argument, NULL, OPT_E2E},
    {"near", required_argument, NULL, OPT_NEAR},
    {"model", required_argument, NULL, OPT_TEXT},
    {"tier", required_argument, NULL, OPT_TEXT},
    {"tags", required_argument, NULL, OPT_TEXT},
    {"jurisdiction", required_argument, NULL, OPT_TEXT},
    {"radius-km", required_argument, NULL, OPT_NUMBER},
    {"vram-mib", required_argument, NULL, OPT_NUMBER},
    {"budget-ms", required_argument, NULL, OPT_NUMBER},
    {"prompt-bytes", required_argument, NULL, OPT_NUMBER},
    {"max-tokens", required_argument, NULL, OPT_NUMBER},
    {"k", required_argument, NULL, OPT_NUMBER},
    {NULL, 0, NULL, 0},
};

static bool is_of(int option, enum query_line_kind kind)
{
    bool query_only = option == OPT_LOCAL;
    bool trace_only = option == OPT_DRY || option == OPT_NODE || option == OPT_PROMPT;
    return kind == QUERY_LINE_TRACE ? !query_only : !trace_only;
}

static bool near_set(json_t *object, const char *key, const char *value)
{
    double latitude, longitude;
    char first[32];
    size_t length = strcspn(value, ",");
    if (value[length] == '\0' || length >= sizeof(first)) {
        return false;
    }
    memcpy(first, value, length);
    first[length] = '\0';
    return cli_real(first, -90, 90, &latitude) &&
           cli_real(value + length + 1, -180, 180, &longitude) &&
           json_object_set_new(object, key, json_pack("[f, f]", latitude, longitude)) == 0;
}

/* The option as a key of the query's JSON: "radius-km" is radius_km. False: no such value. */
static bool condition_set(json_t *object, const char *name, int kind, const char *value)
{
    char key[32];
    double number;
    snprintf(key, sizeof(key), "%s", name);
    for (char *c = key; *c != '\0'; c++) {
        *c = *c == '-' ? '_' : *c;
    }
    switch (kind) {
    case OPT_E2E:
        return json_object_set_new(object, key, json_true()) == 0;
    case OPT_TEXT:
        return json_object_set_new(object, key, json_string(value)) == 0;
    case OPT_NUMBER:
        return cli_real(value, 0, 4e9, &number) &&
               json_object_set_new(object, key, json_real(number)) == 0;
    default:
        return near_set(object, key, value);
    }
}

static bool option_take(struct query_line *line, json_t *conditions, const char *name, int kind,
                        const char *value)
{
    switch (kind) {
    case OPT_SOCKET:
        line->socket = value;
        return true;
    case OPT_JSON:
        line->json = true;
        return true;
    case OPT_LOCAL:
        line->local = true;
        return true;
    case OPT_DRY:
        line->dry = true;
        return true;
    case OPT_NODE:
        line->node = value;
        return true;
    case OPT_PROMPT:
        line->prompt = value;
        return value[0] != '\0';
    default:
        return condition_set(conditions, name, kind, value);
    }
}

/* Takes over the object on the command line, if there is one, then the options. */
static int conditions_read(struct query_line *line, const char *command, const char *text,
                           const json_t *conditions)
{
    char why[QUERY_WHY_MAX] = "";
    json_error_t error;
    json_t *object = text != NULL ? json_loads(text, 0, &error) : NULL;
    int rc = 0;
    if (text != NULL && object == NULL) {
        rc = cli_usage_error(command, "that is no JSON: %s", error.text);
    } else if ((object != NULL && !query_read(&line->query, object, why)) ||
               !query_read(&line->query, conditions, why)) {
        rc = cli_usage_error(command, "%s", why);
    } else if (line->query.model[0] == '\0') {
        rc = cli_usage_error(command, "a %s needs a model", command);
    }
    json_decref(object);
    return rc;
}

int query_line_read(struct query_line *line, enum query_line_kind kind, int argc, char **argv)
{
    const char *command = kind == QUERY_LINE_TRACE ? "trace" : "query";
    json_t *conditions = json_object();
    int rc = 0;
    int index = 0;
    memset(line, 0, sizeof(*line));
    query_init(&line->query);
    opterr = 0; /* own words */
    for (int c; rc == 0 && (c = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (c == '?' || !is_of(c, kind) ||
            !option_take(line, conditions, options[index].name, c, optarg)) {
            rc = cli_usage_error(command, "%s is no option, or lacks its value", argv[optind - 1]);
        }
    }
    if (rc == 0 && optind < argc - 1) {
        rc = cli_usage_error(command, "one %s at a time", command);
    }
    if (rc == 0) {
        rc = conditions_read(line, command, optind < argc ? argv[optind] : NULL, conditions);
    }
    if (rc == 0) {
        line->socket = node_socket(line->socket, command);
        rc = line->socket != NULL ? 0 : CLI_ERROR;
    }
    json_decref(conditions);
    return rc;
}
