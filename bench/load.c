/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - weft-bench load: many requests through a running mesh, by the SDK's async core. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "bench/bench.h"
#include "schemas/base/clock.h"
#include "schemas/base/hist.h"
#include "schemas/base/rng.h"

#define NODES_SEEN_MAX    64u
#define STATUSES_SEEN_MAX 32u
#define LATE_NS           (1 * NS_PER_MS)
#define REQUESTS_MAX      10000000u

struct load_options {
    const char *node;
    const char *model;
    const char *prompt;
    uint32_t requests;
    uint32_t concurrency;
    double rate; /* per second; 0 = closed loop */
    uint32_t max_tokens;
    uint32_t budget_ms;
    uint64_t seed;
    double latitude, longitude;
    bool has_position;
    bool json;
};

struct tally {
    char name[WEFT_NAME_MAX];
    int status;
    uint64_t count;
};

struct load {
    const struct load_options *options;
    weft_client_t *client;
    uint32_t sent, open, ended;
    uint64_t late;
    uint64_t answered, refused, failed, tokens;
    struct tally nodes[NODES_SEEN_MAX];
    struct tally statuses[STATUSES_SEEN_MAX];
    struct hist first_us; /* answered ones, from the intended send */
    struct hist total_us;
    struct hist refusal_us;
};

struct ticket {
    struct load *load;
    uint64_t late_ns;
};

static void count_node(struct load *l, const char *name)
{
    for (uint32_t i = 0; i < NODES_SEEN_MAX; i++) {
        if (l->nodes[i].count == 0) {
            snprintf(l->nodes[i].name, sizeof(l->nodes[i].name), "%s", name);
        }
        if (strcmp(l->nodes[i].name, name) == 0) {
            l->nodes[i].count++;
            return;
        }
    }
}

static void count_status(struct load *l, int status)
{
    for (uint32_t i = 0; i < STATUSES_SEEN_MAX; i++) {
        if (l->statuses[i].count == 0 || l->statuses[i].status == status) {
            l->statuses[i].status = status;
            l->statuses[i].count++;
            return;
        }
    }
}

/* A refusal says why and took nothing; everything else that is not an answer is a failure. */
static bool is_refusal(int status)
{
    switch (status) {
    case WEFT_E_UNKNOWN_MODEL:
    case WEFT_E_NO_CAPABLE_NODE:
    case WEFT_E_BUDGET_INFEASIBLE:
    case WEFT_E_BUDGET_EXPIRED:
    case WEFT_E_MESH_FULL:
    case WEFT_E_TOO_LONG:
    case WEFT_E_DRAINING:
        return true;
    default:
        return false;
    }
}

static void on_done(weft_request_t *req, const weft_result_t *r, void *user)
{
    struct ticket *ticket = user;
    struct load *l = ticket->load;
    uint64_t late_us = ticket->late_ns / NS_PER_US;
    (void)req;
    free(ticket);
    l->open--;
    l->ended++;
    count_status(l, r->status);
    if (r->status == WEFT_OK) {
        l->answered++;
        l->tokens += r->new_tokens;
        count_node(l, r->node);
        hist_add(&l->first_us, r->first_token_us + late_us);
        hist_add(&l->total_us, r->total_us + late_us);
    } else if (is_refusal(r->status)) {
        l->refused++;
        hist_add(&l->refusal_us, r->total_us + late_us);
    } else {
        l->failed++;
    }
}

static int send_one(struct load *l, uint64_t late_ns)
{
    const struct load_options *o = l->options;
    weft_message_t message = {.role = "user", .text = o->prompt, .len = strlen(o->prompt)};
    weft_query_t query = {
        .model = o->model,
        .messages = &message,
        .message_count = 1,
        .max_tokens = o->max_tokens,
        .budget_ms = o->budget_ms,
        .seed = o->seed + l->sent,
        .has_position = o->has_position,
        .latitude_deg = o->latitude,
        .longitude_deg = o->longitude,
    };
    struct ticket *ticket = malloc(sizeof(*ticket));
    if (ticket == NULL) {
        return -1;
    }
    *ticket = (struct ticket){l, late_ns};
    int rc = weft_submit(l->client, &query, NULL, on_done, ticket, NULL);
    if (rc != 0) {
        free(ticket);
        fprintf(stderr, "weft-bench load: cannot send: %s\n", weft_status_text(rc));
        return -1;
    }
    l->sent++;
    l->open++;
    l->late += late_ns > LATE_NS;
    return 0;
}

/* Sends what is due. Returns the time of the next send, UINT64_MAX if none is planned. */
static uint64_t send_due(struct load *l, const uint64_t *schedule, uint64_t now_ns, bool *broken)
{
    const struct load_options *o = l->options;
    while (l->sent < o->requests) {
        if (schedule != NULL && schedule[l->sent] > now_ns) {
            return schedule[l->sent];
        }
        if (schedule == NULL && l->open >= o->concurrency) {
            return UINT64_MAX;
        }
        if (send_one(l, schedule != NULL ? now_ns - schedule[l->sent] : 0) != 0) {
            *broken = true;
            return UINT64_MAX;
        }
    }
    return UINT64_MAX;
}

static void show_progress(const struct load *l, uint64_t now_ns, uint64_t *shown_ns)
{
    if (isatty(STDERR_FILENO) && now_ns - *shown_ns > NS_PER_S) {
        *shown_ns = now_ns;
        fprintf(stderr, "\r%u of %u sent, %u ended ", l->sent, l->options->requests, l->ended);
    }
}

static int run(struct load *l, const uint64_t *schedule)
{
    bool broken = false;
    uint64_t shown_ns = 0;
    while (!broken && l->ended < l->options->requests) {
        uint64_t now_ns = clock_now_ns();
        uint64_t next_ns = send_due(l, schedule, now_ns, &broken);
        int timeout_ms = weft_client_timeout_ms(l->client);
        if (next_ns != UINT64_MAX) {
            uint64_t wait_ms = next_ns > now_ns ? (next_ns - now_ns) / NS_PER_MS : 0;
            if (timeout_ms < 0 || wait_ms < (uint64_t)timeout_ms) {
                timeout_ms = (int)wait_ms;
            }
        }
        struct pollfd fd = {.fd = weft_client_fd(l->client), .events = POLLIN};
        poll(&fd, 1, timeout_ms);
        int rc = weft_client_process(l->client);
        if (rc < 0) {
            fprintf(stderr, "weft-bench load: %s\n", weft_status_text(rc));
            broken = true;
        }
        show_progress(l, now_ns, &shown_ns);
    }
    if (shown_ns != 0) {
        fputc('\n', stderr);
    }
    return broken ? -1 : 0;
}

/* Arrivals of a Poisson process, drawn before the first is sent. */
static uint64_t *draw_schedule(const struct load_options *o, uint64_t start_ns)
{
    uint64_t *schedule = calloc(o->requests, sizeof(*schedule));
    struct rng rng = {.state = o->seed};
    double at_ns = (double)start_ns;
    for (uint32_t i = 0; schedule != NULL && i < o->requests; i++) {
        at_ns += -log(1.0 - rng_unit(&rng)) / o->rate * 1e9;
        schedule[i] = (uint64_t)at_ns;
    }
    return schedule;
}

/* ---- report ---- */

static json_t *hist_json(const struct hist *h)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:I}", "p50", (double)hist_quantile(h, 0.5) / 1000.0,
                     "p90", (double)hist_quantile(h, 0.9) / 1000.0, "p99",
                     (double)hist_quantile(h, 0.99) / 1000.0, "max", (double)h->max / 1000.0,
                     "samples", (json_int_t)h->count);
}

static void print_json(const struct load *l, double seconds)
{
    json_t *nodes = json_object();
    json_t *statuses = json_object();
    for (uint32_t i = 0; i < NODES_SEEN_MAX && l->nodes[i].count != 0; i++) {
        json_object_set_new(nodes, l->nodes[i].name, json_integer((json_int_t)l->nodes[i].count));
    }
    for (uint32_t i = 0; i < STATUSES_SEEN_MAX && l->statuses[i].count != 0; i++) {
        json_object_set_new(statuses, weft_status_name(l->statuses[i].status),
                            json_integer((json_int_t)l->statuses[i].count));
    }
    json_t *out = json_pack(
        "{s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:o, s:o, s:o}", "requests",
        (int)l->ended, "answered", (json_int_t)l->answered, "refused", (json_int_t)l->refused,
        "failed", (json_int_t)l->failed, "late_sends", (json_int_t)l->late, "tokens",
        (json_int_t)l->tokens, "seconds", seconds, "tokens_per_s", (double)l->tokens / seconds,
        "statuses", statuses, "served_by", nodes, "first_token_ms", hist_json(&l->first_us),
        "total_ms", hist_json(&l->total_us), "refusal_ms", hist_json(&l->refusal_us));
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

static void print_hist(const char *name, const struct hist *h)
{
    if (h->count != 0) {
        printf("%-24s p50 %9.2f   p90 %9.2f   p99 %9.2f   max %9.2f   (n = %llu)\n", name,
               (double)hist_quantile(h, 0.5) / 1000.0, (double)hist_quantile(h, 0.9) / 1000.0,
               (double)hist_quantile(h, 0.99) / 1000.0, (double)h->max / 1000.0,
               (unsigned long long)h->count);
    }
}

static void print_text(const struct load *l, double seconds)
{
    printf("%u requests in %.2f s: %llu answered, %llu refused, %llu failed\n", l->ended, seconds,
           (unsigned long long)l->answered, (unsigned long long)l->refused,
           (unsigned long long)l->failed);
    for (uint32_t i = 0; i < STATUSES_SEEN_MAX && l->statuses[i].count != 0; i++) {
        if (l->statuses[i].status != WEFT_OK) {
            printf("  %6llu %s\n", (unsigned long long)l->statuses[i].count,
                   weft_status_text(l->statuses[i].status));
        }
    }
    for (uint32_t i = 0; i < NODES_SEEN_MAX && l->nodes[i].count != 0; i++) {
        printf("  %6llu served by %s\n", (unsigned long long)l->nodes[i].count, l->nodes[i].name);
    }
    print_hist("first token, ms", &l->first_us);
    print_hist("whole answer, ms", &l->total_us);
    print_hist("refusal, ms", &l->refusal_us);
    printf("%llu tokens, %.1f per second; %llu sent more than 1 ms late\n",
           (unsigned long long)l->tokens, (double)l->tokens / seconds, (unsigned long long)l->late);
}

/* ---- arguments ---- */

static void usage(FILE *out)
{
    fputs("weft-bench load - sends requests through a running mesh and accounts for each\n\n"
          "usage: weft-bench load --node HOST[:PORT] [OPTIONS]\n\n"
          "  --node HOST[:PORT]  any node of the mesh\n"
          "  --requests N        how many; default 100\n"
          "  --concurrency N     closed loop: open at a time; default 16\n"
          "  --rate R            open loop instead: R per second, Poisson arrivals\n"
          "  --model NAME        default smollm2-135m-instruct\n"
          "  --prompt TEXT       default: a short question\n"
          "  --max-tokens N      default 8\n"
          "  --budget-ms N       time until the first token; default none\n"
          "  --near LAT,LON      the client's place\n"
          "  --seed N            of arrivals and samplers; default 1\n"
          "  --json              for machines\n\n"
          "Exit status: 0 if every request was answered or refused with a reason, else 1.\n\n"
          "examples:\n"
          "  weft-bench load --node 10.77.0.1 --requests 1000 --concurrency 1000\n"
          "  weft-bench load --node 10.77.0.1 --requests 200 --rate 5 --json\n",
          out);
}

static const struct option load_options[] = {
    {"node", required_argument, NULL, 'n'},
    {"requests", required_argument, NULL, 'r'},
    {"concurrency", required_argument, NULL, 'c'},
    {"rate", required_argument, NULL, 'R'},
    {"model", required_argument, NULL, 'm'},
    {"prompt", required_argument, NULL, 'p'},
    {"max-tokens", required_argument, NULL, 't'},
    {"budget-ms", required_argument, NULL, 'b'},
    {"near", required_argument, NULL, 'l'},
    {"seed", required_argument, NULL, 's'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* A whole number from `min` to `max`; -1 if the text is not one. */
static int64_t number(const char *text, int64_t min, int64_t max)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    return *text != '\0' && *end == '\0' && value >= min && value <= max ? value : -1;
}

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(struct load_options *o, int option, const char *value)
{
    int64_t n = value != NULL ? number(value, 0, INT64_MAX) : 0;
    switch (option) {
    case 'n':
        o->node = value;
        return 0;
    case 'r':
        o->requests = (uint32_t)n;
        return n >= 1 && n <= REQUESTS_MAX ? 0 : -1;
    case 'c':
        o->concurrency = (uint32_t)n;
        return n >= 1 && n <= 65536 ? 0 : -1;
    case 'R':
        o->rate = strtod(value, NULL);
        return o->rate > 0 && o->rate < 1e7 ? 0 : -1;
    case 'm':
        o->model = value;
        return 0;
    case 'p':
        o->prompt = value;
        return 0;
    case 't':
        o->max_tokens = (uint32_t)n;
        return n >= 1 && n <= UINT32_MAX ? 0 : -1;
    case 'b':
        o->budget_ms = (uint32_t)n;
        return n >= 0 && n <= 4000000 ? 0 : -1;
    case 'l':
        o->has_position = sscanf(value, "%lf,%lf", &o->latitude, &o->longitude) == 2;
        return o->has_position ? 0 : -1;
    case 's':
        o->seed = (uint64_t)n;
        return n >= 0 ? 0 : -1;
    case 'j':
        o->json = true;
        return 0;
    default:
        return 1;
    }
}

static int run_load(const struct load_options *o)
{
    struct load *l = calloc(1, sizeof(*l));
    uint64_t *schedule = NULL;
    weft_client_opts_t client_options = {.node = o->node};
    int rc = l == NULL ? -1 : weft_client_create(&l->client, &client_options);
    if (rc != 0) {
        fprintf(stderr, "weft-bench load: %s: %s\n", o->node, weft_status_text(rc));
        free(l);
        return EXIT_FAILURE;
    }
    l->options = o;
    uint64_t start_ns = clock_now_ns();
    if (o->rate > 0) {
        schedule = draw_schedule(o, start_ns);
    }
    rc = o->rate > 0 && schedule == NULL ? -1 : run(l, schedule);
    double seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    if (o->json) {
        print_json(l, seconds);
    } else {
        print_text(l, seconds);
    }
    bool good = rc == 0 && l->failed == 0 && l->answered + l->refused == o->requests;
    weft_client_destroy(l->client);
    free(schedule);
    free(l);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int bench_load(int argc, char **argv)
{
    struct load_options o = {
        .model = "smollm2-135m-instruct",
        .prompt = "Name three colours.",
        .requests = 100,
        .concurrency = 16,
        .max_tokens = 8,
        .seed = 1,
    };
    int option;
    while ((option = getopt_long(argc, argv, "", load_options, NULL)) != -1) {
        int taken = option == '?' ? -1 : take_option(&o, option, optarg);
        if (taken > 0) {
            usage(stdout);
            return EXIT_SUCCESS;
        }
        if (taken < 0) {
            if (option != '?') {
                fprintf(stderr, "weft-bench load: cannot use %s\n", optarg);
            }
            usage(stderr);
            return 2;
        }
    }
    if (o.node == NULL || optind != argc) {
        fputs("weft-bench load: --node is needed\n\n", stderr);
        usage(stderr);
        return 2;
    }
    return run_load(&o);
}
