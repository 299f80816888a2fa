/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - weft-bench load: many requests through a running mesh, and what can be said of their
 * latency. This file has the arguments and the order of things; load/ has the parts. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/load/answerer.h"
#include "bench/load/report.h"
#include "bench/load/schedule.h"
#include "bench/options.h"
#include "schemas/base/clock.h"

#define SELF            "self"
#define ARRIVALS_MAX    160u
#define FLOOR_REQUESTS  2000u
#define FLOOR_NS        (3 * NS_PER_S)
#define SPIN_NS         (100 * NS_PER_US)
#define TIME_MAX_MS     4e6
#define CLOSED_OPEN_MAX 65536
#define PROMPT_FILE_MAX ((size_t)16 << 20)

struct options {
    struct drive_plan drive;
    struct account_plan account;
    struct schedule_plan schedule;
    struct pace_plan self;
    const char *trace;
    const char *hlog;
    const char *samples;
    const char *prompt_file;
    double speed;
    double seconds;
    bool json, open, no_floor;
};

/* What main builds up and takes down. */
struct session {
    struct options o;
    struct trace trace;
    uint64_t *due_ns;
    char arrivals[ARRIVALS_MAX];
    struct answerer *self;
    struct drive drive, floor_drive;
    struct account account, floor;
    bool has_floor;
};

/* ---- arguments ---- */

static void usage(FILE *out)
{
    fputs("weft-bench load - sends requests through a running mesh and accounts for each\n\n"
          "usage: weft-bench load --node HOST[:PORT] [OPTIONS]\n\n"
          "  --node HOST[:PORT]  any node of the mesh; or http://HOST:PORT[/PATH], any server that "
          "is\n"
          "                      compatible with OpenAI's; or self: a server in this process\n"
          "  --requests N        how many; default 100, with --trace all of it\n"
          "  --seconds S         instead: as many as are due in that time\n"
          "Ctrl-C sends no more and reports on what was sent; a second one ends at once\n"
          "closed loop, for finding the ceiling; its latencies leave out whoever would have come\n"
          "while it waited\n"
          "  --concurrency N     open at a time; default 16\n"
          "open loop: sends when the schedule says, and latency counts from then\n"
          "  --rate R            per second\n"
          "  --arrivals KIND     poisson (default) or fixed\n"
          "  --burst ON/OFF      Poisson arrivals for about ON ms, then none for about OFF ms; R "
          "is the\n"
          "                      mean of both\n"
          "  --trace FILE        as recorded: AzurePublicDataset's CSV or Mooncake's JSON lines, "
          "with\n"
          "                      their lengths of prompt and answer\n"
          "  --speed X           of the trace; default 1\n"
          "  --token-scale X     of the trace's lengths; default 1\n"
          "each request\n"
          "  --model NAME        default smollm2-135m-instruct\n"
          "  --prompt TEXT       default: a short question\n"
          "  --prompt-file FILE  instead: what is in there\n"
          "  --max-tokens N      default 8\n"
          "  --budget-ms N       time until the first token; default none\n"
          "  --near LAT,LON      the client's place\n"
          "  --seed N            of arrivals and samplers; default 1\n"
          "account\n"
          "  --slo-ttft-ms MS    goodput: answers whose first token came within that\n"
          "  --slo-tpot-ms MS    ... and whose others did, on average\n"
          "  --warmup-s S        leave out of the latencies what was due before\n"
          "  --no-floor          do not measure the harness against itself first\n"
          "  --no-intervals      no bootstrap\n"
          "  --hlog FILE         an HdrHistogram log as well\n"
          "  --samples FILE      CSV with every request as well\n"
          "  --json              for machines, and for scripts/bench-plot\n"
          "--node self, a server whose latencies are known\n"
          "  --self-pace-ms MS   between its tokens; default 0\n"
          "  --self-slots N      answers at a time\n"
          "  --self-stall MS/MS  gives nothing for the first time at the end of each second one\n\n"
          "Exit status: 0 if every request was answered or refused with a reason, else 1.\n\n"
          "examples:\n"
          "  weft-bench load --node 10.77.0.1 --requests 1000 --concurrency 1000\n"
          "  weft-bench load --node 10.77.0.1 --rate 5 --seconds 60 --json >run.json\n"
          "  weft-bench load --node self --rate 200 --seconds 60 --self-stall 1000/10000\n",
          out);
}

static const struct option long_options[] = {
    {"node", required_argument, NULL, 'n'},
    {"requests", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 'd'},
    {"concurrency", required_argument, NULL, 'c'},
    {"rate", required_argument, NULL, 'R'},
    {"arrivals", required_argument, NULL, 'a'},
    {"burst", required_argument, NULL, 'B'},
    {"trace", required_argument, NULL, 'T'},
    {"speed", required_argument, NULL, 'x'},
    {"token-scale", required_argument, NULL, 'k'},
    {"model", required_argument, NULL, 'm'},
    {"prompt", required_argument, NULL, 'p'},
    {"prompt-file", required_argument, NULL, 'f'},
    {"max-tokens", required_argument, NULL, 't'},
    {"budget-ms", required_argument, NULL, 'b'},
    {"near", required_argument, NULL, 'l'},
    {"seed", required_argument, NULL, 's'},
    {"slo-ttft-ms", required_argument, NULL, 'F'},
    {"slo-tpot-ms", required_argument, NULL, 'P'},
    {"warmup-s", required_argument, NULL, 'w'},
    {"no-floor", no_argument, NULL, 'N'},
    {"no-intervals", no_argument, NULL, 'I'},
    {"hlog", required_argument, NULL, 'H'},
    {"samples", required_argument, NULL, 'S'},
    {"json", no_argument, NULL, 'j'},
    {"self-pace-ms", required_argument, NULL, '1'},
    {"self-slots", required_argument, NULL, '2'},
    {"self-stall", required_argument, NULL, '3'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Two positive numbers with a slash between. */
static int take_pair(const char *value, double *first, double *second)
{
    char end;
    return sscanf(value, "%lf/%lf%c", first, second, &end) == 2 && *first > 0 && *second > 0 &&
                   *first <= TIME_MAX_MS && *second <= TIME_MAX_MS
               ? 0
               : -1;
}

/* A number from `min` to `max` into *out. */
static int take_number(double *out, const char *value, double min, double max)
{
    char *end;
    double n = strtod(value, &end);
    *out = n;
    return *value != '\0' && *end == '\0' && n >= min && n <= max ? 0 : -1;
}

static int take_count(uint32_t *out, const char *value, double min, double max)
{
    double n;
    int rc = take_number(&n, value, min, max);
    *out = rc == 0 ? (uint32_t)n : 0;
    return rc;
}

static int take_arrivals(struct options *o, const char *value)
{
    bool fixed = strcmp(value, "fixed") == 0;
    o->schedule.kind = fixed ? SCHEDULE_FIXED : SCHEDULE_POISSON;
    return fixed || strcmp(value, "poisson") == 0 ? 0 : -1;
}

static int take_burst(struct options *o, const char *value)
{
    double on_ms = 0, off_ms = 0;
    int rc = take_pair(value, &on_ms, &off_ms);
    o->schedule.kind = SCHEDULE_BURSTS;
    o->schedule.on_s = on_ms / 1e3;
    o->schedule.off_s = off_ms / 1e3;
    return rc;
}

/* Of the server in this process. */
static int take_self(struct options *o, int option, const char *value)
{
    double first = 0, second = 0;
    int rc;
    switch (option) {
    case '1':
        rc = take_number(&first, value, 0, TIME_MAX_MS);
        o->self.interval_ns = rc == 0 ? (uint64_t)(first * (double)NS_PER_MS) : 0;
        return rc;
    case '2':
        return take_count(&o->self.slots, value, 1, 1e6);
    default:
        rc = take_pair(value, &first, &second);
        rc = rc == 0 && first < second ? 0 : -1;
        o->self.stall_ns = rc == 0 ? (uint64_t)(first * (double)NS_PER_MS) : 0;
        o->self.every_ns = rc == 0 ? (uint64_t)(second * (double)NS_PER_MS) : 0;
        return rc;
    }
}

/* Of each request. */
static int take_query(struct options *o, int option, const char *value)
{
    weft_query_t *q = &o->drive.query;
    double seed = 0;
    int rc;
    switch (option) {
    case 'm':
        q->model = value;
        return 0;
    case 'p':
        o->drive.prompt = value;
        return 0;
    case 'f':
        o->prompt_file = value;
        return 0;
    case 't':
        return take_count(&q->max_tokens, value, 1, UINT32_MAX);
    case 'b':
        return take_count(&q->budget_ms, value, 0, TIME_MAX_MS);
    case 'l':
        q->has_position = sscanf(value, "%lf,%lf", &q->latitude_deg, &q->longitude_deg) == 2;
        return q->has_position ? 0 : -1;
    default:
        rc = take_number(&seed, value, 0, 1e15);
        q->seed = o->schedule.seed = o->account.seed = rc == 0 ? (uint64_t)seed : 0;
        return rc;
    }
}

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(void *user, int option, const char *value)
{
    struct options *o = user;
    switch (option) {
    case 'n':
        o->drive.node = value;
        return 0;
    case 'r':
        return take_count(&o->drive.requests, value, 1, DRIVE_REQUESTS_MAX);
    case 'd':
        return take_number(&o->seconds, value, 0.001, 1e7);
    case 'c':
        return take_count(&o->drive.concurrency, value, 1, CLOSED_OPEN_MAX);
    case 'R':
        o->open = true;
        return take_number(&o->schedule.rate, value, 1e-3, 1e7);
    case 'a':
        return take_arrivals(o, value);
    case 'B':
        return take_burst(o, value);
    case 'T':
        o->trace = value;
        o->open = true;
        return 0;
    case 'x':
        return take_number(&o->speed, value, 1e-3, 1e6);
    case 'k':
        return take_number(&o->drive.token_scale, value, 1e-6, 1e3);
    case 'F':
        return take_number(&o->account.slo_first_ms, value, 0, TIME_MAX_MS);
    case 'P':
        return take_number(&o->account.slo_token_ms, value, 0, TIME_MAX_MS);
    case 'w':
        return take_number(&o->account.warmup_s, value, 0, 1e7);
    case 'N':
        o->no_floor = true;
        return 0;
    case 'I':
        o->account.intervals = false;
        return 0;
    case 'H':
        o->hlog = value;
        return 0;
    case 'S':
        o->samples = value;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'h':
        return 1;
    default:
        return option <= '3' ? take_self(o, option, value) : take_query(o, option, value);
    }
}

static const char *complaint(const struct options *o, int argc)
{
    if (o->drive.node == NULL || optind != argc) {
        return "--node is needed";
    }
    if (o->trace != NULL && o->schedule.rate > 0) {
        return "--trace has a rate of its own (--speed changes it)";
    }
    if (!o->open && (o->schedule.kind != SCHEDULE_POISSON || o->seconds > 0)) {
        return "--seconds, --arrivals and --burst need --rate";
    }
    return NULL;
}

/* ---- schedule ---- */

static int plan_trace(struct session *s)
{
    struct options *o = &s->o;
    uint32_t line = 0, count = 0;
    int rc = trace_load(&s->trace, o->trace, &line);
    if (rc != 0) {
        const char *why = rc == -EINVAL ? "neither of the formats of --help" : strerror(-rc);
        fprintf(stderr,
                line > 0 ? "weft-bench load: %s: %s, line %u\n" : "weft-bench load: %s: %s\n",
                o->trace, why, line);
        return rc;
    }
    s->due_ns = calloc(s->trace.count, sizeof(*s->due_ns));
    if (s->due_ns == NULL) {
        return -ENOMEM;
    }
    for (; count < s->trace.count; count++) {
        s->due_ns[count] = (uint64_t)((double)s->trace.entries[count].at_ns / o->speed);
        if (o->seconds > 0 && (double)s->due_ns[count] > o->seconds * 1e9) {
            break;
        }
    }
    o->drive.requests =
        o->drive.requests != 0 && o->drive.requests < count ? o->drive.requests : count;
    o->drive.trace = &s->trace;
    const char *name = strrchr(o->trace, '/');
    snprintf(s->arrivals, sizeof(s->arrivals), "%.80s at speed %g, lengths x %g",
             name != NULL ? name + 1 : o->trace, o->speed, o->drive.token_scale);
    return 0;
}

static int plan_drawn(struct session *s)
{
    struct options *o = &s->o;
    const struct schedule_plan *p = &o->schedule;
    if (o->seconds > 0) {
        double count = o->seconds * p->rate;
        o->drive.requests = count < 1                    ? 1
                            : count > DRIVE_REQUESTS_MAX ? DRIVE_REQUESTS_MAX
                                                         : (uint32_t)count;
    }
    s->due_ns = calloc(o->drive.requests, sizeof(*s->due_ns));
    if (s->due_ns == NULL) {
        return -ENOMEM;
    }
    schedule_draw(p, s->due_ns, o->drive.requests);
    if (p->kind == SCHEDULE_BURSTS) {
        snprintf(s->arrivals, sizeof(s->arrivals),
                 "bursts, %g a second on average: on for %g ms, off for %g ms", p->rate,
                 p->on_s * 1e3, p->off_s * 1e3);
    } else {
        snprintf(s->arrivals, sizeof(s->arrivals), "%s, %g a second",
                 p->kind == SCHEDULE_FIXED ? "fixed" : "poisson", p->rate);
    }
    return 0;
}

static int plan(struct session *s)
{
    struct options *o = &s->o;
    int rc = 0;
    if (o->trace == NULL && o->drive.requests == 0) {
        o->drive.requests = 100;
    }
    if (o->trace != NULL) {
        rc = plan_trace(s);
    } else if (o->open) {
        rc = plan_drawn(s);
    } else {
        snprintf(s->arrivals, sizeof(s->arrivals), "closed loop, %u open", o->drive.concurrency);
    }
    o->drive.due_ns = s->due_ns;
    return rc;
}

/* ---- the runs ---- */

/* The beginning of the same schedule against a server in this process that gives all tokens at
 * once: what is left is the harness and the machine. */
static int measure_floor(struct session *s)
{
    struct drive_plan p = s->o.drive;
    const struct pace_plan at_once = {0};
    const struct account_plan account = {.intervals = false};
    struct answerer *answerer = NULL;
    int rc = answerer_start(&answerer, &at_once, 0);
    if (rc != 0) {
        return rc;
    }
    p.node = answerer_address(answerer);
    p.label = "floor";
    p.query.budget_ms = 0;
    p.requests = p.requests < FLOOR_REQUESTS ? p.requests : FLOOR_REQUESTS;
    while (p.due_ns != NULL && p.requests > 1 && p.due_ns[p.requests - 1] > FLOOR_NS) {
        p.requests--;
    }
    rc = drive_run(&s->floor_drive, &p);
    rc = rc == 0 ? account_make(&s->floor, &s->floor_drive, &account) : rc;
    s->has_floor = rc == 0;
    answerer_stop(answerer);
    return rc;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = number;
}

/* Ctrl-C ends the run early, and what was measured is told; a second one ends it at once. */
static int measure_until_interrupted(struct session *s)
{
    const struct sigaction once = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    struct sigaction before;
    s->o.drive.stop = &interrupted;
    sigaction(SIGINT, &once, &before);
    const int rc = drive_run(&s->drive, &s->o.drive);
    sigaction(SIGINT, &before, NULL);
    if (interrupted != 0) {
        fprintf(stderr, "weft-bench load: interrupted after %u of %u requests\n", s->drive.sent,
                s->o.drive.requests);
    }
    return rc;
}

/* The whole file, ended by a zero. Heap; NULL after a sentence about why not. */
static char *read_prompt(const char *path)
{
    char *text = malloc(PROMPT_FILE_MAX + 1);
    FILE *file = fopen(path, "rb");
    size_t len = 0;
    if (text != NULL && file != NULL)
        len = fread(text, 1, PROMPT_FILE_MAX + 1, file);
    const char *why = text == NULL            ? strerror(ENOMEM)
                      : file == NULL          ? strerror(errno)
                      : ferror(file)          ? "it cannot be read"
                      : len == 0              ? "it is empty"
                      : len > PROMPT_FILE_MAX ? "it is longer than 16 MiB"
                      : memchr(text, 0, len)  ? "it has a zero byte"
                                              : NULL;
    if (file != NULL)
        fclose(file);
    if (why == NULL) {
        text[len] = '\0';
        return text;
    }
    fprintf(stderr, "weft-bench load: %s: %s\n", path, why);
    free(text);
    return NULL;
}

static int measure(struct session *s)
{
    struct options *o = &s->o;
    int rc = 0;
    if (strcmp(o->drive.node, SELF) == 0) {
        rc = answerer_start(&s->self, &o->self, 0);
        o->drive.node = rc == 0 ? answerer_address(s->self) : SELF;
    } else if (!o->no_floor) {
        rc = measure_floor(s);
    }
    rc = rc == 0 ? measure_until_interrupted(s) : rc;
    if (rc != 0) {
        fprintf(stderr, "weft-bench load: %s: %s\n", o->drive.node,
                rc == -EINVAL ? "no such host, or not HOST[:PORT]" : weft_status_text(rc));
    }
    return s->drive.sent == 0 ? rc : account_make(&s->account, &s->drive, &o->account) | rc;
}

static int report(const struct session *s, int argc, char **argv)
{
    const struct report_context c = {.drive = &s->drive,
                                     .drive_plan = &s->o.drive,
                                     .plan = &s->o.account,
                                     .account = &s->account,
                                     .floor = s->has_floor ? &s->floor : NULL,
                                     .arrivals = s->arrivals,
                                     .exponential = s->o.open && s->o.trace == NULL &&
                                                    s->o.schedule.kind == SCHEDULE_POISSON,
                                     .argc = argc,
                                     .argv = argv};
    if (s->o.json) {
        json_t *out = report_as_json(&c);
        json_dumpf(out, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(14));
        putchar('\n');
        json_decref(out);
    } else {
        report_text(&c);
    }
    int rc = s->o.hlog != NULL ? report_hlog(&c, s->o.hlog) : 0;
    rc = rc == 0 && s->o.samples != NULL ? report_samples(&c, s->o.samples) : rc;
    if (rc != 0) {
        fprintf(stderr, "weft-bench load: a file could not be written: %s\n", strerror(-rc));
    }
    return rc;
}

static int run(const struct options *o, int argc, char **argv)
{
    struct session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return EXIT_FAILURE;
    }
    s->o = *o;
    char *prompt = o->prompt_file != NULL ? read_prompt(o->prompt_file) : NULL;
    int rc = o->prompt_file == NULL || prompt != NULL ? plan(s) : -EINVAL;
    s->o.drive.prompt = prompt != NULL ? prompt : o->drive.prompt;
    rc = rc == 0 ? measure(s) : rc;
    if (s->drive.sent != 0) {
        rc |= report(s, argc, argv);
    }
    bool good = rc == 0 && s->account.failed == 0 && s->drive.ended == s->o.drive.requests;
    answerer_stop(s->self);
    account_deinit(&s->account);
    account_deinit(&s->floor);
    drive_deinit(&s->drive);
    drive_deinit(&s->floor_drive);
    trace_deinit(&s->trace);
    free(s->due_ns);
    free(prompt);
    free(s);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int bench_load(int argc, char **argv)
{
    struct options o = {
        .drive = {.query = {.model = "smollm2-135m-instruct", .max_tokens = 8, .seed = 1},
                  .prompt = "Name three colours.",
                  .concurrency = 16,
                  .token_scale = 1,
                  .spin_ns = SPIN_NS,
                  .progress = true,
                  .label = "load"},
        .account = {.intervals = true, .seed = 1},
        .schedule = {.seed = 1},
        .speed = 1,
    };
    int taken = bench_options(argc, argv, "load", long_options, take_option, &o);
    if (taken > 0) {
        usage(stdout);
    }
    if (taken != 0) {
        return taken > 0 ? EXIT_SUCCESS : BENCH_USAGE;
    }
    const char *wrong = complaint(&o, argc);
    if (wrong != NULL) {
        fprintf(stderr, "weft-bench load: %s\n", wrong);
        return BENCH_USAGE;
    }
    return run(&o, argc, argv);
}
