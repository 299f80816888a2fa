/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soak.c - weft-bench soak: mixed load for as long as asked, while soak_watch.c looks whether
 * anything grows. Faults come from outside (scripts/bench-soak). Load as in load/: open loop,
 * arrivals drawn beforehand.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/load/account.h"
#include "bench/load/schedule.h"
#include "bench/soak_watch.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define MIX_ENTRIES  4096u
#define WAIT_STEP_NS (100 * NS_PER_MS)

struct options {
    const char *node, *model;
    double rate, seconds, every_s;
    uint64_t seed;
    double failed_max;
    bool json;
};

struct soak {
    struct options o;
    struct watch watch;
    struct trace mix;
    struct drive drive;
    struct account account;
    atomic_bool stop;
    uint64_t begin_ns;
};

/* ---- the mix ---- */

static uint32_t between(struct rng *rng, uint32_t low, uint32_t high)
{
    return low + rng_below(rng, high - low + 1);
}

/* Four in five short, most others some hundred words, one in fifty a prompt of tens of datagrams.
 */
static int draw_mix(struct trace *mix, uint64_t seed)
{
    struct rng rng = {.state = seed};
    *mix =
        (struct trace){.entries = calloc(MIX_ENTRIES, sizeof(*mix->entries)), .count = MIX_ENTRIES};
    if (mix->entries == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < MIX_ENTRIES; i++) {
        struct trace_entry *e = &mix->entries[i];
        uint32_t lot = rng_below(&rng, 100);
        e->input_tokens = lot < 80   ? between(&rng, 1, 64)
                          : lot < 98 ? between(&rng, 100, 1000)
                                     : between(&rng, 4000, 20000);
        e->output_tokens = lot < 80 ? between(&rng, 1, 16) : between(&rng, 8, 64);
    }
    return 0;
}

/* ---- the watch ---- */

static double since_begin_s(const struct soak *s)
{
    return (double)(clock_now_ns() - s->begin_ns) / 1e9;
}

static void *watch_main(void *arg)
{
    struct soak *s = arg;
    double next_s = 0;
    while (!atomic_load(&s->stop)) {
        if (since_begin_s(s) >= next_s) {
            watch_read(&s->watch, since_begin_s(s));
            next_s = since_begin_s(s) + s->o.every_s;
        }
        const struct timespec step = {.tv_nsec = WAIT_STEP_NS};
        nanosleep(&step, NULL);
    }
    return NULL;
}

/* ---- report ---- */

static bool all_flat(const struct watch *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        if (!watch_judge(&w->series[i]).flat) {
            return false;
        }
    }
    return true;
}

static void report_text(const struct soak *s)
{
    const struct account *a = &s->account;
    machine_print();
    printf("%u requests in %.1f s: %u answered, %u refused, %u failed, %u failovers\n", a->requests,
           a->seconds, a->answered, a->refused, a->failed, a->failovers);
    for (uint32_t i = 0; i < ACCOUNT_STATUSES && a->statuses[i].count != 0; i++) {
        if (a->statuses[i].status != 0) {
            printf("  %6u %s\n", a->statuses[i].count, weft_status_text(a->statuses[i].status));
        }
    }
    printf("\n%-16s%-12s%10s%10s%10s%10s%12s  slope of the second half\n", "who", "what", "first",
           "last", "least", "most", "an hour");
    for (uint32_t i = 0; i < s->watch.count; i++) {
        const struct watch_series *series = &s->watch.series[i];
        const struct watch_verdict v = watch_judge(series);
        const char *word = !v.judged ? "too few readings" : v.flat ? "flat" : "GROWS";
        printf("%-16s%-12s%10.0f%10.0f%10.0f%10.0f%12.1f  %s (%+.1f in the time, %u readings",
               series->name, watch_kind_name(series->kind), v.first, v.last, v.least, v.most,
               v.per_hour, word, v.grown, series->count);
        if (series->restarts != 0) {
            printf(", %u restarts", series->restarts);
        }
        puts(")");
    }
    puts(all_flat(&s->watch) ? "flat" : "NOT flat");
}

static json_t *watched_json(const struct watch_series *series)
{
    const struct watch_verdict v = watch_judge(series);
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:b, s:i, s:i}", "who",
                     series->name, "what", watch_kind_name(series->kind), "first", v.first, "last",
                     v.last, "least", v.least, "most", v.most, "per_hour", v.per_hour, "grown",
                     v.grown, "allowed", v.allowed, "judged", (int)v.judged, "flat", (int)v.flat,
                     "readings", (int)series->count, "restarts", (int)series->restarts);
}

static void report_json(const struct soak *s)
{
    const struct account *a = &s->account;
    json_t *series = json_array();
    json_t *statuses = json_object();
    for (uint32_t i = 0; i < s->watch.count; i++) {
        json_array_append_new(series, watched_json(&s->watch.series[i]));
    }
    for (uint32_t i = 0; i < ACCOUNT_STATUSES && a->statuses[i].count != 0; i++) {
        json_object_set_new(statuses, weft_status_name(a->statuses[i].status),
                            json_integer(a->statuses[i].count));
    }
    json_t *out = json_pack(
        "{s:s, s:o, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:o, s:b}", "bench", "soak",
        "machine", machine_json(), "requests", (int)a->requests, "answered", (int)a->answered,
        "refused", (int)a->refused, "failed", (int)a->failed, "failovers", (int)a->failovers,
        "seconds", a->seconds, "first_token_p50_ms", a->first.q[0], "rate", s->o.rate, "statuses",
        statuses, "series", series, "flat", (int)all_flat(&s->watch));
    json_dumpf(out, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(out);
}

/* ---- the run ---- */

static int drive_mix(struct soak *s)
{
    const struct schedule_plan schedule = {
        .kind = SCHEDULE_POISSON, .rate = s->o.rate, .seed = s->o.seed};
    const double wanted = s->o.rate * s->o.seconds;
    const uint32_t count = wanted < 1                    ? 1
                           : wanted > DRIVE_REQUESTS_MAX ? DRIVE_REQUESTS_MAX
                                                         : (uint32_t)wanted;
    uint64_t *due_ns = calloc(count, sizeof(*due_ns));
    if (due_ns == NULL) {
        return -ENOMEM;
    }
    schedule_draw(&schedule, due_ns, count);
    const struct drive_plan plan = {.query = {.model = s->o.model, .seed = s->o.seed},
                                    .node = s->o.node,
                                    .requests = count,
                                    .due_ns = due_ns,
                                    .trace = &s->mix,
                                    .token_scale = 1,
                                    .progress = true,
                                    .label = "soak"};
    int rc = drive_run(&s->drive, &plan);
    free(due_ns);
    return rc;
}

static int run(struct soak *s)
{
    const struct account_plan account = {.intervals = false};
    pthread_t thread;
    s->begin_ns = clock_now_ns();
    int rc = draw_mix(&s->mix, s->o.seed);
    rc = rc == 0 ? -pthread_create(&thread, NULL, watch_main, s) : rc;
    if (rc != 0) {
        trace_deinit(&s->mix);
        return rc;
    }
    rc = drive_mix(s);
    atomic_store(&s->stop, true);
    pthread_join(thread, NULL);
    int made = account_make(&s->account, &s->drive, &account);
    if (rc != 0) {
        fprintf(stderr, "weft-bench soak: %s: %s\n", s->o.node, weft_status_text(rc));
    } else if (s->o.json) {
        report_json(s);
    } else {
        report_text(s);
    }
    account_deinit(&s->account);
    drive_deinit(&s->drive);
    trace_deinit(&s->mix);
    return rc != 0 ? rc : made;
}

/* ---- arguments ---- */

static void usage(FILE *out)
{
    fputs(
        "weft-bench soak - mixed load, and whether anything grows meanwhile\n\n"
        "usage: weft-bench soak --node HOST[:PORT] [OPTIONS]\n\n"
        "  --node HOST[:PORT]    any node of the mesh\n"
        "  --model NAME          default bench-toy\n"
        "  --rate R              requests a second, Poisson; default 20\n"
        "  --seconds S           default 300\n"
        "  --process NAME=FILE   memory, descriptors and threads of the process in a pid file\n"
        "  --admin NAME=SOCKET   mbufs of a node\n"
        "  --folder NAME=FOLDER  files in it\n"
        "  --failed-max N        requests that may fail; default 0\n"
        "  --every S             between two readings; default 1\n"
        "  --seed N              of arrivals and lengths; default 1\n"
        "  --json                for machines\n\n"
        "A series is flat if, by the slope of its second half, it grew by less than 2 MiB or 3 %\n"
        "(memory), 2 descriptors or files, 1 thread, 64 mbufs. A process that began anew begins\n"
        "its series anew.\n\n"
        "Exit status: 0 if all is flat and no more requests failed than may, else 1.\n\n"
        "example (scripts/bench-soak does this with faults):\n"
        "  weft-bench soak --node 10.77.0.1 --process tokyo=/run/weft/mesh/tokyo/node.pid \\\n"
        "    --admin tokyo=/run/weft/mesh/tokyo/admin.sock\n",
        out);
}

/* NAME=PATH, cut apart in place. */
static int add_watched(struct watch *w, int option, char *value)
{
    char *path = strchr(value, '=');
    if (path == NULL || path == value || path[1] == '\0') {
        return -EINVAL;
    }
    *path++ = '\0';
    return option == 'p'   ? watch_add_process(w, value, path)
           : option == 'a' ? watch_add_node(w, value, path)
                           : watch_add_folder(w, value, path);
}

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(struct soak *s, int option, char *value)
{
    double seed;
    switch (option) {
    case 'n':
        s->o.node = value;
        return 0;
    case 'm':
        s->o.model = value;
        return 0;
    case 'r':
        s->o.rate = figures_number(value, 0.001, 1e6);
        return s->o.rate < 0 ? -1 : 0;
    case 's':
        s->o.seconds = figures_number(value, 1, 1e7);
        return s->o.seconds < 0 ? -1 : 0;
    case 'e':
        s->o.every_s = figures_number(value, 0.1, 3600);
        return s->o.every_s < 0 ? -1 : 0;
    case 'd':
        seed = figures_number(value, 0, 1e15);
        s->o.seed = seed < 0 ? 0 : (uint64_t)seed;
        return seed < 0 ? -1 : 0;
    case 'x':
        s->o.failed_max = figures_number(value, 0, 1e9);
        return s->o.failed_max < 0 ? -1 : 0;
    case 'j':
        s->o.json = true;
        return 0;
    case 'p':
    case 'a':
    case 'f':
        return add_watched(&s->watch, option, value) == 0 ? 0 : -1;
    default:
        return option == 'h' ? 1 : -1;
    }
}

int bench_soak(int argc, char **argv)
{
    static const struct option options[] = {
        {"node", required_argument, NULL, 'n'},
        {"model", required_argument, NULL, 'm'},
        {"rate", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {"process", required_argument, NULL, 'p'},
        {"admin", required_argument, NULL, 'a'},
        {"folder", required_argument, NULL, 'f'},
        {"every", required_argument, NULL, 'e'},
        {"seed", required_argument, NULL, 'd'},
        {"failed-max", required_argument, NULL, 'x'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct soak *s = calloc(1, sizeof(*s));
    int option, taken = 0;
    if (s == NULL) {
        return EXIT_FAILURE;
    }
    s->o =
        (struct options){.model = "bench-toy", .rate = 20, .seconds = 300, .every_s = 1, .seed = 1};
    while (taken == 0 && (option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        taken = take_option(s, option, optarg);
    }
    int status = taken == 1 ? EXIT_SUCCESS : BENCH_USAGE;
    if (taken == 1) {
        usage(stdout);
    } else if (taken < 0 || s->o.node == NULL || optind < argc) {
        fprintf(stderr, "weft-bench soak: %s\n",
                taken < 0 ? "an option has a value that cannot be used" : "--node is needed");
    } else {
        int rc = run(s);
        status = rc == 0 && s->account.failed <= s->o.failed_max && all_flat(&s->watch)
                     ? EXIT_SUCCESS
                     : EXIT_FAILURE;
    }
    watch_deinit(&s->watch);
    free(s);
    return status;
}
