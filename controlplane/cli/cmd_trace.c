/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_trace.c - `weft trace`: one request followed from its ingress to the node that serves it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <weft/client.h>

#include "controlplane/cli/ask.h"
#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/query_line.h"
#include "controlplane/cli/report.h"
#include "controlplane/cli/trace.h"
#include "dataplane/route/choose.h"

#define WAIT_MS 3000
#define PROMPT  "Hello."
#define BY_MAX  160

const char cmd_trace_usage[] =
    "[--socket ADMIN.sock] [OPTION]... ['{JSON}']\n"
    "\n"
    "Follows one request: what its ingress, the node behind the socket, knows; every node with "
    "what\n"
    "bars it or how soon it is predicted to answer; which one the packet path chooses, and why; "
    "then\n"
    "sends it, for one token, and tells who served it and where its time went.\n"
    "\n"
    "  --socket PATH       the node's sockets.admin; default as `weft status` has it\n"
    "  --json              one JSON object instead of text\n"
    "  --dry               send nothing\n"
    "  --node NODE         send it there, as `weft run` takes it; else through the node's own\n"
    "                      sockets.port\n"
    "  --prompt TEXT       default \"" PROMPT "\"\n"
    "  --max-tokens N      default 1\n" QUERY_LINE_USAGE
    "  --k N               show so many, at least 8\n"
    "\n"
    "examples:\n"
    "  weft trace --socket /run/weft/admin.sock --model smollm2-135m-instruct\n"
    "  weft trace --socket /run/weft/admin.sock --model m --tags eu,gdpr --budget-ms 200 --dry\n"
    "  weft trace --socket /run/weft/admin.sock --node 10.77.0.1 '{\"model\": \"m\", \"tier\": "
    "3}'\n"
    "\n"
    "exit: 0 served (dry: some node can), 1 error, 2 wrong usage, 3 refused (dry: none can)\n";

/* How the request gets to its ingress. */
static const char *way_in(const struct query_line *line, const json_t *status, char by[BY_MAX])
{
    if (line->node != NULL) {
        return line->node;
    }
    snprintf(by, BY_MAX, "unix:%s", node_text(status, "port_socket", ""));
    return by;
}

/* Sends it and waits. Returns 0 and the result, or the exit code, said. */
static int send_one(const struct query_line *line, const char *by, weft_result_t *result)
{
    struct trace_words words;
    const char *prompt = line->prompt != NULL ? line->prompt : PROMPT;
    const weft_message_t message = {"user", prompt, strlen(prompt)};
    const weft_client_opts_t opts = {.node = by};
    weft_client_t *client = NULL;
    weft_query_t query;
    memset(result, 0, sizeof(*result));
    trace_request(&line->query, &words, &query);
    query.messages = &message;
    query.message_count = 1;
    int rc = weft_client_create(&client, &opts);
    if (rc < 0) {
        fprintf(stderr, "weft trace: node %s: %s\n", by, weft_status_text(rc));
        return rc == -EINVAL ? CLI_USAGE : CLI_ERROR;
    }
    result->status = weft_ask(client, &query, NULL, NULL, result);
    weft_client_destroy(client);
    return 0;
}

static int exit_code(const json_t *account, const weft_result_t *result)
{
    if (result == NULL) {
        return json_integer_value(json_object_get(account, "found")) > 0 ? CLI_OK : CLI_REFUSED;
    }
    return result->status == 0                 ? CLI_OK
           : report_is_refusal(result->status) ? CLI_REFUSED
                                               : CLI_ERROR;
}

static int trace(struct query_line *line, const json_t *status)
{
    char by[BY_MAX];
    char why[QUERY_WHY_MAX] = "";
    weft_result_t result;
    json_t *answer = query_answer(&line->query, status, why);
    if (answer == NULL) {
        fprintf(stderr, "weft trace: %s: %s\n", line->socket, why);
        return CLI_ERROR;
    }
    const char *way = line->dry ? NULL : way_in(line, status, by);
    int rc = line->dry ? 0 : send_one(line, way, &result);
    if (rc == 0) {
        const weft_result_t *got = line->dry ? NULL : &result;
        json_t *account = trace_account(status, answer, got, way);
        if (line->json) {
            node_json_print(account);
        } else {
            trace_print(stdout, account);
        }
        rc = exit_code(account, got);
        json_decref(account);
    }
    json_decref(answer);
    return rc;
}

int cmd_trace(int argc, char **argv)
{
    struct query_line line;
    json_t *status = NULL;
    int rc = query_line_read(&line, QUERY_LINE_TRACE, argc, argv);
    if (rc == 0 && line.query.land_count > 1 && !line.dry) {
        rc = cli_usage_error("trace", "a request can name one jurisdiction; several: --dry");
    }
    if (rc != 0) {
        return rc;
    }
    if ((!line.dry || line.query.prompt_bytes == 0) &&
        !query_prompt(&line.query, NULL, line.prompt != NULL ? line.prompt : PROMPT)) {
        return cli_usage_error("trace", "the prompt is too long");
    }
    line.query.k = line.query.k > ROUTE_TOP_K ? line.query.k : ROUTE_TOP_K; /* one of these it is */
    line.query.max_tokens = line.query.max_tokens > 0 ? line.query.max_tokens : 1;
    const struct node_request request = {.socket = line.socket, .json = line.json};
    rc = node_status(&status, &request, "trace");
    rc = rc == 0 ? trace(&line, status) : rc;
    json_decref(status);
    return rc;
}
