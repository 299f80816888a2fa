/* SPDX-License-Identifier: Apache-2.0 */
/* prefixes.c - weft-bench prefixes: how often a prompt finds its beginning computed, and what that
 * does to the load; see prefix_sim.h. */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/options.h"
#include "bench/prefix_sim.h"
#include "schemas/base/clock.h"

struct bench {
    struct prefix_options base;
    const char *path;
    bool json;
};

static json_t *result_json(const struct prefix_options *o, const struct prefix_result *r)
{
    double tokens = (double)(r->tokens != 0 ? r->tokens : 1);
    return json_pack("{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "policy",
                     prefix_policy_name(o->policy), "routers", (int)o->routers, "hit_percent",
                     100 * (double)r->known / tokens, "ceiling_percent",
                     100 * (double)r->ceiling / tokens, "work_max_over_mean", r->work_most,
                     "requests_max_over_mean", r->requests_most, "first_token_p50_ms",
                     (double)hist_quantile(&r->first_us, 0.5) / 1e3, "first_token_p99_ms",
                     (double)hist_quantile(&r->first_us, 0.99) / 1e3, "busy", r->busy);
}

static void print_result(const struct prefix_options *o, const struct prefix_result *r)
{
    double tokens = (double)(r->tokens != 0 ? r->tokens : 1);
    printf("%-16s %7u %7.1f %7.1f %9.2f %9.2f %10.0f %10.0f %6.2f\n", prefix_policy_name(o->policy),
           o->routers, 100 * (double)r->known / tokens,
           100 * (double)r->known / (double)(r->ceiling != 0 ? r->ceiling : 1), r->work_most,
           r->requests_most, (double)hist_quantile(&r->first_us, 0.5) / 1e3,
           (double)hist_quantile(&r->first_us, 0.99) / 1e3, r->busy);
    fflush(stdout);
}

static int run_all(const struct bench *b, const struct trace *trace)
{
    struct prefix_result *result = malloc(sizeof(*result));
    json_t *list = json_array();
    int rc = result == NULL ? -ENOMEM : 0;
    if (!b->json) {
        printf("%u workers, %u prompt tokens/s each, gossip every %.1f s, trace at %g times its "
               "speed\n%-16s %7s %7s %7s %9s %9s %10s %10s %6s\n",
               b->base.workers, b->base.prefill_tps, (double)b->base.gossip_ns / 1e9, b->base.speed,
               "", "routers", "hit %", "of most", "work", "requests", "first p50", "p99 ms",
               "busy");
    }
    for (enum prefix_policy p = 0; rc == 0 && p < PREFIX_POLICIES; p++) {
        struct prefix_options o = b->base;
        for (uint32_t many = 0; rc == 0 && many < 2; many++) {
            o.policy = p;
            o.routers = many ? b->base.routers : 1;
            if (many && (o.routers == 1 || p == PREFIX_TURNS)) {
                continue;
            }
            rc = prefix_sim_run(&o, trace, result);
            if (rc == 0 && b->json) {
                json_array_append_new(list, result_json(&o, result));
            } else if (rc == 0) {
                print_result(&o, result);
            }
        }
    }
    if (rc == 0 && b->json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(list);
    free(result);
    return rc;
}

static void usage(FILE *out)
{
    fputs(
        "weft-bench prefixes - prompts that begin alike, from a recorded trace, simulated\n\n"
        "usage: weft-bench prefixes [OPTIONS] TRACE\n\n"
        "  --workers N    default 8\n"
        "  --routers N    ingresses; default 8; each policy is shown with one, too\n"
        "  --prefill N    prompt tokens a second of a worker; default 10000\n"
        "  --decode N     tokens a second of an answer; default 40\n"
        "  --cache N      tokens of prompts that a worker keeps; default all\n"
        "  --gossip-ms N  between two news of a worker; default 1000\n"
        "  --speed X      of the trace; default 1\n"
        "  --json         for machines\n\n"
        "TRACE: JSON lines with hash_ids, as of Mooncake. Printed: tokens of prompts found in the\n"
        "worker's cache, in percent of all and of those that anybody had seen before; work "
        "(tokens\n"
        "computed) and requests of the busiest worker against the mean; time to the first "
        "token.\n\n"
        "examples:\n"
        "  weft-bench prefixes mooncake_conversation_trace.jsonl\n"
        "  weft-bench prefixes --routers 16 --speed 1.2 mooncake_synthetic_trace.jsonl\n",
        out);
}

static const struct option long_options[] = {
    {"workers", required_argument, NULL, 'w'}, {"routers", required_argument, NULL, 'r'},
    {"prefill", required_argument, NULL, 'p'}, {"decode", required_argument, NULL, 'd'},
    {"cache", required_argument, NULL, 'c'},   {"gossip-ms", required_argument, NULL, 'g'},
    {"speed", required_argument, NULL, 's'},   {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
};

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(void *user, int option, const char *value)
{
    struct bench *b = user;
    struct prefix_options *o = &b->base;
    double n = option == 'j' || option == 'h' ? 0 : figures_number(value, 0.01, 1e9);
    switch (n < 0 ? '?' : option) {
    case 'w':
        o->workers = (uint32_t)n;
        return n <= PREFIX_WORKERS_MAX ? 0 : -1;
    case 'r':
        o->routers = (uint32_t)n;
        return n <= PREFIX_ROUTERS_MAX ? 0 : -1;
    case 'p':
        o->prefill_tps = (uint32_t)n;
        return 0;
    case 'd':
        o->decode_tps = (uint32_t)n;
        return 0;
    case 'c':
        o->cache_blocks = (uint32_t)n / TRACE_BLOCK_TOKENS;
        return 0;
    case 'g':
        o->gossip_ns = (uint64_t)(n * NS_PER_MS);
        return 0;
    case 's':
        o->speed = n;
        return 0;
    case 'j':
        b->json = true;
        return 0;
    default:
        return option == 'h' ? 1 : -1;
    }
}

static int run(const struct bench *b)
{
    struct trace trace = {0};
    uint32_t line = 0;
    int rc = trace_load(&trace, b->path, &line);
    if (rc != 0) {
        fprintf(stderr,
                line > 0 ? "weft-bench prefixes: %s: %s, line %u\n"
                         : "weft-bench prefixes: %s: %s\n",
                b->path, strerror(-rc), line);
        return EXIT_FAILURE;
    }
    rc = run_all(b, &trace);
    trace_deinit(&trace);
    if (rc != 0) {
        fprintf(stderr, "weft-bench prefixes: %s\n",
                rc == -EINVAL ? "a trace with hash_ids is needed, and values above 0"
                              : strerror(-rc));
    }
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int bench_prefixes(int argc, char **argv)
{
    struct bench b = {.base = {.workers = 8,
                               .routers = 8,
                               .prefill_tps = 10000,
                               .decode_tps = 40,
                               .speed = 1,
                               .gossip_ns = NS_PER_S,
                               .hop_ns = NS_PER_MS}};
    int taken = bench_options(argc, argv, "prefixes", long_options, take_option, &b);
    if (taken > 0) {
        usage(stdout);
    }
    if (taken != 0) {
        return taken > 0 ? EXIT_SUCCESS : BENCH_USAGE;
    }
    if (optind + 1 != argc) {
        fputs("weft-bench prefixes: needs one TRACE\n", stderr);
        return BENCH_USAGE;
    }
    b.path = argv[optind];
    return run(&b);
}
