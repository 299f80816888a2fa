/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_run.c - `weft run`: one prompt to a mesh through the SDK. The text goes to stdout as it
 * comes, what it took to stderr (report.c), so that stdout is the text alone.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/node.h"
#include "controlplane/cli/report.h"
#include "schemas/base/geo.h"

#define DEFAULT_MODEL "smollm2-135m-instruct"
#define TAGS_MAX      256

const char cmd_run_usage[] =
    "[OPTION]... [PROMPT | -]\n"
    "\n"
    "Sends PROMPT as one user message; `-`, or no PROMPT and a pipe, reads it from stdin\n"
    "(at most 16 MiB). The answer goes to stdout, an account of the request to stderr.\n"
    "\n"
    "  --node HOST[:PORT]   any node of the mesh, or several with commas: the next is asked when "
    "one\n"
    "                       does not answer; unix:PATH is this machine's own node, PATH its\n"
    "                       sockets.port; else the environment's WEFT_NODE\n"
    "  --model NAME         default " DEFAULT_MODEL "\n"
    "  --system TEXT        a system message before the prompt\n"
    "  --raw                the prompt is plain text to go on with, not a chat message\n"
    "  --json               one JSON object at the end instead of text\n"
    " where it may run\n"
    "  --near LAT,LON       nearest to this place, in degrees; else to the node asked\n"
    "  --radius-km N        within N km of that place\n"
    "  --tier A-B           hardware tiers, 0 to 7\n"
    "  --vram-mib N         with so much accelerator memory free\n"
    "  --tags A,B           policy tags that the node must all have; weft conf-check --keys lists "
    "them\n"
    "  --jurisdiction XX    only nodes there, as they name theirs: DE\n"
    "  --budget-ms N        refuse unless the first token can come in time\n"
    "  --e2e                the budget covers the whole answer\n"
    "  --priority N         0 to 15, 15 first\n"
    "  --session TEXT       goes where the last request of that session went, if that is as good\n"
    "  --once               one attempt only; else a cut answer goes on at another node\n"
    " sampling\n"
    "  --max-tokens N       default 256\n"
    "  --temperature T      default 0: always the likeliest token\n"
    "  --top-p P, --min-p P, --top-k K, --seed N\n"
    "  --repetition-penalty P, --presence-penalty P, --frequency-penalty P\n"
    "  --stop TEXT          end before TEXT; up to 16 times\n"
    "  --json-schema FILE   the answer is JSON that meets the JSON Schema of that file; `-`: any "
    "JSON\n"
    "                       object\n"
    "  --embed HOW          with --json: a vector for the prompt in place of a text: mean or last\n"
    "  --no-thinking        a model that thinks first is told not to\n"
    "  --logprobs N         with --json: for each token its log probability and the N - 1 best,\n"
    "                       21 at most\n"
    "\n"
    "examples:\n"
    "  weft run --node 10.77.0.1 \"What does a loom do?\"\n"
    "  weft run --node 10.77.0.1 --tags eu,gdpr --budget-ms 500 - <question.txt\n"
    "  weft run --node 10.77.0.1 --json --max-tokens 20 \"Hello\"\n"
    "\n"
    "exit: 0 complete, 1 error or incomplete, 2 wrong usage, 3 refused, 130 interrupted\n";

struct run {
    weft_client_opts_t opts;
    weft_query_t query;
    weft_query_more_t more;
    weft_message_t messages[2];
    const char *stops[WEFT_STOPS_MAX];
    const char *system;
    const char *prompt; /* as on the command line */
    char *read;         /* from stdin, owned */
    char *schema;       /* owned; NULL = none */
    bool raw;
    bool json;
    bool terminal; /* stdout is one */
    char *text;    /* for --json, owned */
    size_t text_len;
    size_t text_room;
    json_t *logprobs;  /* owned; NULL = not asked for */
    json_t *embedding; /* the same */
    bool out_failed;
    char last; /* byte put out */
};

/* ---- options ---- */

enum option_id {
    OPT_NODE = 256,
    OPT_MODEL,
    OPT_SYSTEM,
    OPT_RAW,
    OPT_JSON,
    OPT_NEAR,
    OPT_RADIUS,
    OPT_TIER,
    OPT_VRAM,
    OPT_TAGS,
    OPT_JURISDICTION,
    OPT_BUDGET,
    OPT_E2E,
    OPT_PRIORITY,
    OPT_SESSION,
    OPT_ONCE,
    OPT_MAX_TOKENS,
    OPT_TEMPERATURE,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_TOP_K,
    OPT_SEED,
    OPT_REPETITION,
    OPT_PRESENCE,
    OPT_FREQUENCY,
    OPT_STOP,
    OPT_NO_THINKING,
    OPT_LOGPROBS,
    OPT_EMBED,
    OPT_SCHEMA,
};

static const struct option options[] = {
    {"node", required_argument, NULL, OPT_NODE},
    {"model", required_argument, NULL, OPT_MODEL},
    {"system", required_argument, NULL, OPT_SYSTEM},
    {"raw", no_argument, NULL, OPT_RAW},
    {"json", no_argument, NULL, OPT_JSON},
    {"near", required_argument, NULL, OPT_NEAR},
    {"radius-km", required_argument, NULL, OPT_RADIUS},
    {"tier", required_argument, NULL, OPT_TIER},
    {"vram-mib", required_argument, NULL, OPT_VRAM},
    {"tags", required_argument, NULL, OPT_TAGS},
    {"jurisdiction", required_argument, NULL, OPT_JURISDICTION},
    {"budget-ms", required_argument, NULL, OPT_BUDGET},
    {"e2e", no_argument, NULL, OPT_E2E},
    {"priority", required_argument, NULL, OPT_PRIORITY},
    {"session", required_argument, NULL, OPT_SESSION},
    {"once", no_argument, NULL, OPT_ONCE},
    {"max-tokens", required_argument, NULL, OPT_MAX_TOKENS},
    {"temperature", required_argument, NULL, OPT_TEMPERATURE},
    {"top-p", required_argument, NULL, OPT_TOP_P},
    {"min-p", required_argument, NULL, OPT_MIN_P},
    {"top-k", required_argument, NULL, OPT_TOP_K},
    {"seed", required_argument, NULL, OPT_SEED},
    {"repetition-penalty", required_argument, NULL, OPT_REPETITION},
    {"presence-penalty", required_argument, NULL, OPT_PRESENCE},
    {"frequency-penalty", required_argument, NULL, OPT_FREQUENCY},
    {"stop", required_argument, NULL, OPT_STOP},
    {"no-thinking", no_argument, NULL, OPT_NO_THINKING},
    {"logprobs", required_argument, NULL, OPT_LOGPROBS},
    {"embed", required_argument, NULL, OPT_EMBED},
    {"json-schema", required_argument, NULL, OPT_SCHEMA},
    {NULL, 0, NULL, 0},
};

static bool u32_take(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t value;
    if (!cli_number(text, min, max, &value)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool float_take(const char *text, double min, double max, float *out)
{
    double value;
    if (!cli_real(text, min, max, &value)) {
        return false;
    }
    *out = (float)value;
    return true;
}

static bool near_take(const char *text, weft_query_t *query)
{
    char latitude[32];
    const char *comma = strchr(text, ',');
    if (comma == NULL || (size_t)(comma - text) >= sizeof(latitude)) {
        return false;
    }
    memcpy(latitude, text, (size_t)(comma - text));
    latitude[comma - text] = '\0';
    query->has_position = true;
    return cli_real(latitude, -90, 90, &query->latitude_deg) &&
           cli_real(comma + 1, -180, 180, &query->longitude_deg);
}

/* Names are checked here: the mesh only sees bits. */
static bool tags_take(const char *text, weft_query_t *query)
{
    char copy[TAGS_MAX];
    char *rest = NULL;
    if (strlen(text) >= sizeof(copy)) {
        return false;
    }
    strcpy(copy, text);
    for (char *tag = strtok_r(copy, ",", &rest); tag != NULL; tag = strtok_r(NULL, ",", &rest)) {
        if (weft_tag_mask(tag) == 0) {
            return false;
        }
    }
    query->tags = text;
    return true;
}

static bool place_option_take(struct run *run, int option, const char *value)
{
    weft_query_t *query = &run->query;
    switch (option) {
    case OPT_NEAR:
        return near_take(value, query);
    case OPT_RADIUS:
        return u32_take(value, 1, GEO_HALF_TURN_KM, &query->radius_km);
    case OPT_TIER:
        query->has_tiers = true;
        return cli_range(value, WEFT_TIER_MAX, &query->tier_min, &query->tier_max);
    case OPT_VRAM:
        return u32_take(value, 1, UINT16_MAX * WEFT_VRAM_UNIT_MIB, &query->vram_mib);
    case OPT_TAGS:
        return tags_take(value, query);
    case OPT_JURISDICTION:
        run->more.jurisdiction = value;
        query->more = &run->more;
        return weft_jurisdiction_mask(value) != 0;
    case OPT_BUDGET:
        return u32_take(value, 1, (WEFT_BUDGET_NONE - 1) / 1000, &query->budget_ms);
    case OPT_E2E:
        query->end_to_end = true;
        return true;
    case OPT_PRIORITY:
        return u32_take(value, 0, 15, &query->priority);
    case OPT_SESSION:
        query->session = value;
        return value[0] != '\0';
    default:
        return false;
    }
}

static bool stop_take(struct run *run, const char *text)
{
    weft_query_t *query = &run->query;
    size_t len = strlen(text);
    if (query->stop_count == WEFT_STOPS_MAX || len == 0 || len > WEFT_STOP_BYTES_MAX) {
        return false;
    }
    run->stops[query->stop_count++] = text;
    query->stop = run->stops;
    return true;
}

/* What the worker makes of it is its business; here it has to be a file of sensible length. */
static bool schema_take(struct run *run, const char *path)
{
    if (strcmp(path, "-") == 0) {
        run->query.format = WEFT_FORMAT_JSON;
        return true;
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fprintf(stderr, "weft run: %s: %s\n", path, strerror(errno));
        return false;
    }
    free(run->schema);
    run->schema = calloc(1, WEFT_FORMAT_MAX + 2);
    size_t len = run->schema != NULL ? fread(run->schema, 1, WEFT_FORMAT_MAX + 1, file) : 0;
    bool good = len != 0 && len <= WEFT_FORMAT_MAX && strlen(run->schema) == len;
    fclose(file);
    run->query.format = WEFT_FORMAT_SCHEMA;
    run->query.format_text = run->schema;
    return good;
}

static bool sampling_option_take(struct run *run, int option, const char *value)
{
    weft_query_t *query = &run->query;
    switch (option) {
    case OPT_MAX_TOKENS:
        return u32_take(value, 1, UINT32_MAX, &query->max_tokens);
    case OPT_TEMPERATURE:
        return float_take(value, 0, 100, &query->temperature);
    case OPT_TOP_P:
        return float_take(value, 0, 1, &query->top_p);
    case OPT_MIN_P:
        return float_take(value, 0, 1, &query->min_p);
    case OPT_TOP_K:
        return u32_take(value, 0, UINT32_MAX, &query->top_k);
    case OPT_SEED:
        return cli_number(value, 0, UINT64_MAX, &query->seed);
    case OPT_REPETITION:
        return float_take(value, 0, 100, &query->repetition_penalty);
    case OPT_PRESENCE:
        return float_take(value, -100, 100, &query->presence_penalty);
    case OPT_FREQUENCY:
        return float_take(value, -100, 100, &query->frequency_penalty);
    case OPT_STOP:
        return stop_take(run, value);
    case OPT_NO_THINKING:
        query->no_thinking = true;
        return true;
    case OPT_EMBED:
        query->embed = strcmp(value, "mean") == 0   ? WEFT_EMBED_MEAN
                       : strcmp(value, "last") == 0 ? WEFT_EMBED_LAST
                                                    : WEFT_EMBED_NONE;
        return query->embed != WEFT_EMBED_NONE;
    case OPT_LOGPROBS:
        return u32_take(value, 1, WEFT_LOGPROBS_MAX, &query->logprobs);
    case OPT_SCHEMA:
        return schema_take(run, value);
    default:
        return false;
    }
}

static bool option_take(struct run *run, int option, const char *value)
{
    weft_query_t *query = &run->query;
    switch (option) {
    case OPT_NODE:
        run->opts.node = value;
        return true;
    case OPT_MODEL:
        query->model = value;
        return value[0] != '\0' && strlen(value) < WEFT_MODEL_NAME_MAX;
    case OPT_SYSTEM:
        run->system = value;
        return true;
    case OPT_RAW:
        run->raw = true;
        return true;
    case OPT_JSON:
        run->json = true;
        return true;
    case OPT_ONCE:
        query->once = true;
        return true;
    default:
        return sampling_option_take(run, option, value) || place_option_take(run, option, value);
    }
}

/* Returns CLI_OK or CLI_USAGE. */
static int options_read(struct run *run, int argc, char **argv)
{
    int index = 0;
    opterr = 0; /* own words */
    run->query.model = DEFAULT_MODEL;
    for (int c; (c = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (c == '?') {
            return cli_usage_error("run", "%s is no option, or lacks its value", argv[optind - 1]);
        }
        if (!option_take(run, c, optarg)) {
            return cli_usage_error("run", "--%s cannot be %s", options[index].name,
                                   optarg != NULL ? optarg : "given");
        }
    }
    if (argc - optind > 1) {
        return cli_usage_error("run", "one prompt at a time; put it in quotes");
    }
    run->prompt = optind < argc ? argv[optind] : NULL;
    if (run->raw && run->system != NULL) {
        return cli_usage_error("run", "--system and --raw exclude each other");
    }
    if ((run->query.logprobs != 0 || run->query.embed != WEFT_EMBED_NONE) && !run->json) {
        return cli_usage_error("run", "--logprobs and --embed need --json");
    }
    if (run->query.end_to_end && run->query.budget_ms == 0) {
        return cli_usage_error("run", "--e2e needs --budget-ms");
    }
    run->opts.node = node_to_ask(run->opts.node, "run");
    return run->opts.node != NULL ? CLI_OK : CLI_ERROR;
}

/* ---- the prompt ---- */

/* All of stdin. Returns CLI_OK or CLI_ERROR. */
static int stdin_read(struct run *run, size_t *len)
{
    size_t room = 0;
    *len = 0;
    for (;;) {
        if (*len == room) {
            room = room == 0 ? 65536 : room * 2;
            char *grown = realloc(run->read, room);
            if (grown == NULL) {
                fprintf(stderr, "weft run: out of memory\n");
                return CLI_ERROR;
            }
            run->read = grown;
        }
        size_t got = fread(run->read + *len, 1, room - *len, stdin);
        *len += got;
        if (*len > WEFT_MESSAGE_MAX) {
            fprintf(stderr, "weft run: the prompt is longer than 16 MiB\n");
            return CLI_ERROR;
        }
        if (got == 0) {
            break;
        }
    }
    if (ferror(stdin)) {
        fprintf(stderr, "weft run: stdin cannot be read\n");
        return CLI_ERROR;
    }
    return CLI_OK;
}

static int prompt_read(struct run *run)
{
    const char *text = run->prompt;
    size_t len = text != NULL ? strlen(text) : 0;
    if (text == NULL && isatty(STDIN_FILENO)) {
        return cli_usage_error("run", "no prompt");
    }
    if (text == NULL || strcmp(text, "-") == 0) {
        int rc = stdin_read(run, &len);
        if (rc != CLI_OK) {
            return rc;
        }
        text = run->read;
    }
    if (len == 0) {
        return cli_usage_error("run", "the prompt is empty");
    }
    if (run->raw) {
        run->query.text = text;
        run->query.text_len = len;
        return CLI_OK;
    }
    weft_message_t *next = run->messages;
    if (run->system != NULL) {
        *next++ = (weft_message_t){"system", run->system, strlen(run->system)};
    }
    *next++ = (weft_message_t){"user", text, len};
    run->query.messages = run->messages;
    run->query.message_count = (size_t)(next - run->messages);
    return CLI_OK;
}

/* ---- the answer ---- */

static bool text_keep(struct run *run, const char *text, size_t len)
{
    if (len > run->text_room - run->text_len) {
        size_t room = (run->text_len + len) * 2;
        char *grown = realloc(run->text, room);
        if (grown == NULL) {
            return false;
        }
        run->text = grown;
        run->text_room = room;
    }
    memcpy(run->text + run->text_len, text, len);
    run->text_len += len;
    return true;
}

static bool text_print(struct run *run, const char *text, size_t len)
{
    if (!run->terminal) {
        return fwrite(text, 1, len, stdout) == len && fflush(stdout) == 0;
    }
    /* A model's text must not steer the terminal. */
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool control = (c < ' ' && c != '\n' && c != '\t') || c == 0x7f;
        putchar(control ? '?' : c);
    }
    return fflush(stdout) == 0;
}

static void logprobs_came(struct run *run, const weft_logprob_t *list, size_t count)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(rows, report_logprob(&list[i]));
    }
    if (run->logprobs == NULL) {
        run->logprobs = json_array();
    }
    json_array_append_new(run->logprobs, rows);
}

static void text_came(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct run *run = user;
    size_t count;
    const weft_logprob_t *list = weft_text_logprobs(req, &count);
    if (count != 0) {
        logprobs_came(run, list, count);
    }
    if (len == 0 || run->out_failed) {
        return;
    }
    run->last = text[len - 1];
    if (!(run->json ? text_keep(run, text, len) : text_print(run, text, len))) {
        run->out_failed = true; /* nobody reads on: no need to let the model go on */
        weft_cancel(req);
    }
}

/* ---- interruption ---- */

static _Atomic(weft_client_t *) interrupted_client;

static void interrupt(int number)
{
    (void)number;
    weft_client_t *client = atomic_load(&interrupted_client);
    if (client != NULL) {
        weft_ask_interrupt(client);
    }
}

/* The second Ctrl-C ends the program as usual. */
static void interrupts_catch(weft_client_t *client)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    atomic_store(&interrupted_client, client);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- the end ---- */

static void account_print(struct run *run, const weft_result_t *result)
{
    char sentence[512];
    if (run->json) {
        json_t *json = report_json(result, run->text, run->text_len);
        if (run->logprobs != NULL) {
            json_object_set(json, "logprobs", run->logprobs);
        }
        if (run->embedding != NULL) {
            json_object_set(json, "embedding", run->embedding);
        }
        if (json == NULL || json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) < 0 ||
            putchar('\n') == EOF || fflush(stdout) == EOF) {
            run->out_failed = true;
        }
        json_decref(json);
        return;
    }
    if (run->last != '\0' && run->last != '\n') {
        putchar('\n');
        fflush(stdout);
    }
    report_sentence(result, sentence, sizeof(sentence));
    fprintf(stderr, "%s\n", sentence);
    if (result->status == WEFT_E_UNKNOWN_MODEL) {
        fputs("`weft routes` lists the models that a node knows of; --model takes another\n",
              stderr);
    } else if (result->status == WEFT_E_UNREACHABLE && result->new_tokens == 0) {
        fprintf(stderr,
                "asked %s: is weftd running there, with that data_port, and does UDP get "
                "through?\n",
                run->opts.node);
    }
}

static int exit_code(const struct run *run, int status)
{
    if (run->out_failed) {
        return CLI_ERROR;
    }
    if (status == WEFT_E_CANCELLED) {
        return CLI_INTERRUPTED;
    }
    if (report_is_refusal(status)) {
        return CLI_REFUSED;
    }
    return status == 0 ? CLI_OK : CLI_ERROR;
}

static int embed(struct run *run, weft_client_t *client, weft_result_t *result)
{
    size_t count;
    float *values = calloc(WEFT_EMBEDDING_MAX, sizeof(*values));
    if (values == NULL) {
        return -ENOMEM;
    }
    int status = weft_embed(client, &run->query, values, WEFT_EMBEDDING_MAX, &count, result);
    run->embedding = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(run->embedding, json_real((double)values[i]));
    }
    free(values);
    return status;
}

static int ask(struct run *run)
{
    weft_client_t *client = NULL;
    weft_result_t result;
    memset(&result, 0, sizeof(result));
    int rc = weft_client_create(&client, &run->opts);
    if (rc < 0) {
        fprintf(stderr, "weft run: node %s: %s\n", run->opts.node,
                rc == -EINVAL                          ? "no such host, or not HOST[:PORT]"
                : rc == -ENOENT || rc == -ECONNREFUSED ? "no node listens there; is weftd running?"
                                                       : weft_status_text(rc));
        return rc == -EINVAL ? CLI_USAGE : CLI_ERROR;
    }
    interrupts_catch(client);
    int status = run->query.embed != WEFT_EMBED_NONE
                     ? embed(run, client, &result)
                     : weft_ask(client, &run->query, text_came, run, &result);
    atomic_store(&interrupted_client, NULL);
    result.status = status; /* a query that was never sent has no result of its own */
    account_print(run, &result);
    weft_client_destroy(client);
    return exit_code(run, status);
}

int cmd_run(int argc, char **argv)
{
    struct run run;
    memset(&run, 0, sizeof(run));
    run.terminal = isatty(STDOUT_FILENO) == 1;
    int rc = options_read(&run, argc, argv);
    if (rc == CLI_OK) {
        rc = prompt_read(&run);
    }
    if (rc == CLI_OK) {
        rc = ask(&run);
    }
    free(run.read);
    free(run.schema);
    free(run.text);
    json_decref(run.logprobs);
    json_decref(run.embedding);
    return rc;
}
