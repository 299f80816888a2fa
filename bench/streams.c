/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - weft-bench streams: what the SDK itself costs. First the same exchange (a request for
 * a model that nobody has, refused by the node) through a plain socket, through weft_ask() and, if
 * there is one, through weft_ask() over a port of the same node, in turn; then thousands of streams
 * open at once in this one process, served by a toy worker (toy.h) through a real node.
 */
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/toy.h"
#include "dataplane/client/resolve.h"
#include "schemas/base/clock.h"

#define MODEL         "bench-toy"
#define NOBODYS_MODEL "bench-nobody-has-it"
#define ROUND         100u /* exchanges before the other side has its turn */
#define ANSWER_MS     1000
#define SETTLE_NS     (300 * NS_PER_MS)
#define STATUSES      32u

struct options {
    const char *node, *port, *local;
    uint32_t count, tokens, interval_ms, exchanges;
    bool json;
};

struct cost {
    struct series us; /* wall time of one exchange */
    double cpu_s;
};

/* Of the same exchange. */
struct costs {
    struct cost plain, sdk, local;
};

struct streams {
    uint32_t open, peak, complete, failed, failovers;
    uint32_t failures[STATUSES]; /* by status, -1001 on; the first takes what is none */
    int first_constraint;        /* of a refusal */
    uint64_t tokens;
    struct series gap_ms, first_ms;
};

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- one exchange ---- */

/* The datagram that weft_ask() sends, made once. */
static void plain_request(uint8_t *out, uint32_t *len)
{
    static const char prompt[] = "x";
    struct weft_req req = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = WEFT_T_REQ,
                                 .flags = WEFT_F_FIRST | WEFT_F_LAST,
                                 .hdr_words = WEFT_REQ_WORDS,
                                 .hops_left = WEFT_HOPS_MAX,
                                 .conn_id = figures_now_ns(),
                                 .model = weft_model_id(NOBODYS_MODEL),
                                 .budget_us = WEFT_BUDGET_NONE,
                                 .tiers = WEFT_TIER_MAX,
                                 .origin = WEFT_NODE_NONE,
                                 .target = WEFT_NODE_NONE,
                                 .alt1 = WEFT_NODE_NONE,
                                 .alt2 = WEFT_NODE_NONE,
                                 .msg_len = sizeof(struct weft_prompt) + 1}};
    struct weft_prompt head = {
        .kind = WEFT_PROMPT_TEXT, .hdr_len = sizeof(head), .max_tokens = 1, .top_p = 1.0f};
    memcpy(out, &req, sizeof(req));
    memcpy(out + sizeof(req), &head, sizeof(head));
    memcpy(out + sizeof(req) + sizeof(head), prompt, 1);
    *len = sizeof(req) + sizeof(head) + 1;
}

/* Sends and waits for an answer of the type; false if none came. */
static bool plain_exchange(int fd, uint8_t *request, uint32_t len, uint8_t type, uint8_t *answer)
{
    struct weft_req *req = (struct weft_req *)(void *)request;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    req->h.req_seq++;
    if (send(fd, request, len, 0) != (ssize_t)len || poll(&pfd, 1, ANSWER_MS) != 1) {
        return false;
    }
    return recv(fd, answer, WEFT_DATAGRAM_MAX, 0) >= (ssize_t)sizeof(struct weft_rsp) &&
           answer[1] == type;
}

static bool plain_round(int fd, uint8_t *request, uint32_t len, struct cost *cost)
{
    uint8_t answer[WEFT_DATAGRAM_MAX];
    double cpu = cpu_seconds();
    for (uint32_t i = 0; i < ROUND; i++) {
        uint64_t begin_ns = clock_now_ns();
        if (!plain_exchange(fd, request, len, WEFT_T_REJECT, answer)) {
            return false;
        }
        series_add(&cost->us, (double)(clock_now_ns() - begin_ns) / 1e3);
    }
    cost->cpu_s += cpu_seconds() - cpu;
    return true;
}

static bool sdk_round(weft_client_t *client, struct cost *cost)
{
    weft_query_t query = {.model = NOBODYS_MODEL, .text = "x", .text_len = 1, .max_tokens = 1};
    double cpu = cpu_seconds();
    for (uint32_t i = 0; i < ROUND; i++) {
        weft_result_t result;
        uint64_t begin_ns = clock_now_ns();
        if (weft_ask(client, &query, NULL, NULL, &result) != WEFT_E_UNKNOWN_MODEL) {
            fprintf(stderr, "weft-bench streams: %s\n", weft_status_text(result.status));
            return false;
        }
        series_add(&cost->us, (double)(clock_now_ns() - begin_ns) / 1e3);
    }
    cost->cpu_s += cpu_seconds() - cpu;
    return true;
}

/* `local` is NULL without a port. */
static bool measure_cost(const struct options *o, weft_client_t *client, weft_client_t *local,
                         struct costs *costs)
{
    uint8_t request[WEFT_DATAGRAM_MAX], answer[WEFT_DATAGRAM_MAX];
    uint32_t len;
    int fd = resolve_connect(o->node);
    plain_request(request, &len);
    bool ok = fd >= 0 && plain_exchange(fd, request, len, WEFT_T_COOKIE, answer);
    if (!ok) {
        fprintf(stderr, "weft-bench streams: no answer from %s\n", o->node);
    }
    memcpy(&((struct weft_req *)(void *)request)->first.cookie, answer + sizeof(struct weft_rsp),
           sizeof(uint64_t));
    for (uint32_t done = 0; ok && done < o->exchanges; done += ROUND) {
        ok = plain_round(fd, request, len, &costs->plain) && sdk_round(client, &costs->sdk) &&
             (local == NULL || sdk_round(local, &costs->local));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* ---- thousands at once ---- */

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct streams *s = user;
    (void)req;
    s->open--;
    s->complete += result->status == 0;
    s->failed += result->status != 0;
    if (result->status != 0) {
        uint32_t status = result->status < -1000 ? (uint32_t)-result->status - 1000 : 0;
        s->failures[status < STATUSES ? status : 0]++;
        s->first_constraint = s->first_constraint != 0 ? s->first_constraint : result->constraint;
    }
    s->failovers += result->failovers;
    s->tokens += result->new_tokens;
    series_add(&s->first_ms, (double)result->first_token_us / 1e3);
    series_add(&s->gap_ms, (double)result->gap_us / 1e3);
}

static void turn(weft_client_t *client, int wait_ms)
{
    struct pollfd pfd = {.fd = weft_client_fd(client), .events = POLLIN};
    int ms = weft_client_timeout_ms(client);
    (void)poll(&pfd, 1, ms < 0 || ms > wait_ms ? wait_ms : ms);
    (void)weft_client_process(client);
}

/* Opens them all, and says what each one costs in memory while all are open. */
static bool open_all(const struct options *o, weft_client_t *client, struct streams *s,
                     double *bytes_each)
{
    weft_query_t query = {
        .model = MODEL, .text = "x", .text_len = 1, .max_tokens = o->tokens, .once = false};
    size_t before = mallinfo2().uordblks;
    for (uint32_t i = 0; i < o->count; i++) {
        int rc = weft_submit(client, &query, NULL, on_done, s, NULL);
        if (rc != 0) {
            fprintf(stderr, "weft-bench streams: %s\n", weft_status_text(rc));
            return false;
        }
        s->open++;
        s->peak = s->open > s->peak ? s->open : s->peak;
        if (i % ROUND == 0) {
            turn(client, 0);
        }
    }
    for (uint64_t end_ns = clock_now_ns() + SETTLE_NS; clock_now_ns() < end_ns;) {
        turn(client, 10);
    }
    *bytes_each = s->open != 0 ? (double)(mallinfo2().uordblks - before) / s->open : 0;
    return true;
}

static bool measure_streams(const struct options *o, weft_client_t *client, struct streams *s,
                            double *bytes_each)
{
    bool ok = open_all(o, client, s, bytes_each);
    uint64_t told_ns = clock_now_ns();
    while (ok && s->open != 0) {
        turn(client, 100);
        if (!o->json && clock_now_ns() - told_ns > 2 * NS_PER_S) {
            told_ns = clock_now_ns();
            fprintf(stderr, "%u streams open\n", s->open);
        }
    }
    return ok;
}

/* ---- report ---- */

static void cost_print(const char *name, struct cost *cost)
{
    uint32_t n = (uint32_t)cost->us.seen;
    printf("one exchange, %-15sp50 %7.1f us   p99 %7.1f us   cpu %6.1f us   (n = %u)\n", name,
           series_quantile(&cost->us, 0.5), series_quantile(&cost->us, 0.99), cost->cpu_s * 1e6 / n,
           n);
}

static void report_text(const struct options *o, struct costs *costs, struct streams *s,
                        double bytes_each, double seconds)
{
    struct cost *plain = &costs->plain, *sdk = &costs->sdk;
    machine_print();
    cost_print("plain socket", plain);
    cost_print("SDK", sdk);
    if (o->local != NULL) {
        cost_print("SDK, own node", &costs->local);
    }
    printf("added by the SDK             p50 %7.1f us                      cpu %6.1f us\n",
           series_quantile(&sdk->us, 0.5) - series_quantile(&plain->us, 0.5),
           (sdk->cpu_s - plain->cpu_s) * 1e6 / (double)plain->us.seen);
    if (o->port != NULL) {
        printf("%u streams at once: %u complete, %u failed, %u failovers, %llu tokens in %.1f s\n",
               s->peak, s->complete, s->failed, s->failovers, (unsigned long long)s->tokens,
               seconds);
        for (uint32_t i = 0; i < STATUSES; i++) {
            if (s->failures[i] != 0) {
                printf("failed: %u, %s (%s)\n", s->failures[i], weft_status_text(-1000 - (int)i),
                       weft_constraint_text((unsigned)s->first_constraint));
            }
        }
        printf("memory of a stream           %7.0f bytes in this process\n", bytes_each);
        printf("first token                  p50 %7.1f ms   p99 %7.1f ms\n",
               series_quantile(&s->first_ms, 0.5), series_quantile(&s->first_ms, 0.99));
        printf("longest gap of a stream      p50 %7.1f ms   p99 %7.1f ms   (pace: %u ms)\n",
               series_quantile(&s->gap_ms, 0.5), series_quantile(&s->gap_ms, 0.99), o->interval_ms);
    }
}

static void report_json(const struct options *o, struct costs *costs, struct streams *s,
                        double bytes_each, double seconds)
{
    double n = (double)costs->plain.us.seen;
    json_t *out = json_pack(
        "{s:o, s:o, s:f, s:o, s:f, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:o, s:o}", "machine",
        machine_json(), "plain_us", series_json(&costs->plain.us), "plain_cpu_us",
        costs->plain.cpu_s * 1e6 / n, "sdk_us", series_json(&costs->sdk.us), "sdk_cpu_us",
        costs->sdk.cpu_s * 1e6 / n, "streams", (int)s->peak, "complete", (int)s->complete, "failed",
        (int)s->failed, "failovers", (int)s->failovers, "tokens", (json_int_t)s->tokens, "seconds",
        seconds, "bytes_per_stream", bytes_each, "first_token_ms", series_json(&s->first_ms),
        "longest_gap_ms", series_json(&s->gap_ms));
    if (o->local != NULL) {
        json_object_set_new(out, "local_us", series_json(&costs->local.us));
        json_object_set_new(out, "local_cpu_us", json_real(costs->local.cpu_s * 1e6 / n));
    }
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

/* ---- arguments ---- */

static void usage(FILE *out)
{
    fputs(
        "weft-bench streams - what the SDK costs: one exchange, and thousands of streams at "
        "once\n\n"
        "usage: weft-bench streams --node HOST[:PORT] [--local unix:PATH] [--port SOCKET] "
        "[OPTIONS]\n\n"
        "  --node HOST[:PORT]  any node of the mesh\n"
        "  --local unix:PATH   the port socket of the same node: the exchange through it as well\n"
        "  --port SOCKET       worker socket of a node without a worker: a toy worker is attached\n"
        "                      there; without it only the single exchange is measured\n"
        "  --count N           streams at once; default 10000\n"
        "  --tokens N          of each stream; default 10\n"
        "  --interval-ms N     between two tokens; default 1000\n"
        "  --exchanges N       single exchanges of each kind; default 5000\n"
        "  --json              for machines\n\n"
        "Exit status: 0 if every stream was complete, else 1.\n\n"
        "example, on a mesh without workers:\n"
        "  scripts/mesh exec client build/bin/weft-bench streams --node 10.77.0.1 \\\n"
        "    --port /run/weft/mesh/frankfurt/port.sock\n",
        out);
}

static int run(const struct options *o)
{
    struct costs costs = {0};
    struct streams s = {0};
    double bytes_each = 0, seconds = 0;
    const struct pace_plan plan = {.interval_ns = o->interval_ms * NS_PER_MS};
    pid_t toy = o->port != NULL ? toy_start(o->port, MODEL, &plan) : 0;
    weft_client_t *client = NULL, *local = NULL;
    weft_client_opts_t opts = {.node = o->node}, local_opts = {.node = o->local};
    int rc = toy < 0 ? (int)toy : weft_client_create(&client, &opts);
    int local_rc = rc == 0 && o->local != NULL ? weft_client_create(&local, &local_opts) : 0;
    if (rc != 0 || local_rc != 0) {
        fprintf(stderr, "weft-bench streams: %s: %s\n",
                toy < 0   ? o->port
                : rc != 0 ? o->node
                          : o->local,
                weft_status_text(rc != 0 ? rc : local_rc));
        weft_client_destroy(client);
        toy_stop(toy);
        return EXIT_FAILURE;
    }
    bool ok = series_init(&costs.plain.us, o->exchanges) == 0 &&
              series_init(&costs.sdk.us, o->exchanges) == 0 &&
              series_init(&costs.local.us, o->exchanges) == 0 &&
              series_init(&s.gap_ms, o->count) == 0 && series_init(&s.first_ms, o->count) == 0;
    ok = ok && measure_cost(o, client, local, &costs);
    if (ok && o->port != NULL) {
        sleep(1); /* until the mesh knows the toy */
        uint64_t begin_ns = clock_now_ns();
        ok = measure_streams(o, client, &s, &bytes_each);
        seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
    }
    if (ok && o->json) {
        report_json(o, &costs, &s, bytes_each, seconds);
    } else if (ok) {
        report_text(o, &costs, &s, bytes_each, seconds);
    }
    weft_client_destroy(local);
    weft_client_destroy(client);
    toy_stop(toy);
    series_deinit(&costs.plain.us);
    series_deinit(&costs.sdk.us);
    series_deinit(&costs.local.us);
    series_deinit(&s.gap_ms);
    series_deinit(&s.first_ms);
    return ok && s.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int take_number(uint32_t *out, const char *text, double min, double max)
{
    double n = figures_number(text, min, max);
    *out = n < 0 ? 0 : (uint32_t)n;
    return n < 0 ? -1 : 0;
}

int bench_streams(int argc, char **argv)
{
    static const struct option options[] = {
        {"node", required_argument, NULL, 'n'},
        {"local", required_argument, NULL, 'l'},
        {"port", required_argument, NULL, 'p'},
        {"count", required_argument, NULL, 'c'},
        {"tokens", required_argument, NULL, 't'},
        {"interval-ms", required_argument, NULL, 'i'},
        {"exchanges", required_argument, NULL, 'e'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {.count = 10000, .tokens = 10, .interval_ms = 1000, .exchanges = 5000};
    int option, bad = 0;
    while (bad == 0 && (option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            o.node = optarg;
            break;
        case 'l':
            o.local = optarg;
            break;
        case 'p':
            o.port = optarg;
            break;
        case 'c':
            bad = take_number(&o.count, optarg, 1, 15000);
            break;
        case 't':
            bad = take_number(&o.tokens, optarg, 1, 1e6);
            break;
        case 'i':
            bad = take_number(&o.interval_ms, optarg, 1, 60000);
            break;
        case 'e':
            bad = take_number(&o.exchanges, optarg, ROUND, 1e6);
            break;
        case 'j':
            o.json = true;
            break;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            bad = 1;
            break;
        }
    }
    if (bad != 0 || o.node == NULL || optind < argc) {
        fprintf(stderr, "weft-bench streams: %s\n",
                bad != 0 ? "an option has a value that cannot be used" : "--node is needed");
        return BENCH_USAGE;
    }
    return run(&o);
}
