/* SPDX-License-Identifier: Apache-2.0 */
/* policies.c - weft-bench policies: response times by policy and age of gossip; see sim.h. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/options.h"
#include "bench/sim.h"
#include "schemas/base/clock.h"

static const double loads_all[] = {0.5, 0.8, 0.95};
static const double ages_s[] = {0, 0.1, 0.5, 1, 2, 5, 10};
#define LOADS (sizeof(loads_all) / sizeof(loads_all[0]))
#define AGES  (sizeof(ages_s) / sizeof(ages_s[0]))

struct bench {
    struct sim_options base;
    double load; /* only this one; 0 = all */
    bool json;
    json_t *list;
};

/* One simulation, into `result`. Returns 0 or the exit status. */
static int simulate(struct bench *b, enum sim_policy policy, double age_s,
                    struct sim_result *result)
{
    b->base.policy = policy;
    b->base.staleness_ns = (uint64_t)(age_s * 1e9);
    int rc = sim_run(&b->base, result);
    if (rc != 0) {
        fprintf(stderr, "weft-bench policies: %s\n", strerror(-rc));
        return EXIT_FAILURE;
    }
    if (b->json) {
        json_array_append_new(
            b->list, json_pack("{s:s, s:s, s:f, s:o, s:f, s:f, s:I, s:I, s:I}", "policy",
                               sim_policy_name(policy), "service",
                               sim_service_name(b->base.service), "load", b->base.load, "gossip_s",
                               sim_policy_listens(policy) ? json_real(age_s) : json_null(),
                               "p50_ms", (double)hist_quantile(&result->us, 0.5) / 1e3, "p99_ms",
                               (double)hist_quantile(&result->us, 0.99) / 1e3, "samples",
                               (json_int_t)result->us.count, "refused", (json_int_t)result->refused,
                               "second_chance", (json_int_t)result->second_chance));
    }
    return 0;
}

static void print_cell(const struct sim_result *result)
{
    printf(" %7.0f/%-7.0f", (double)hist_quantile(&result->us, 0.5) / 1e3,
           (double)hist_quantile(&result->us, 0.99) / 1e3);
}

static void print_head(const struct bench *b)
{
    if (b->json) {
        return;
    }
    printf("\nload %.2f, %s service times: milliseconds p50/p99 of %u requests, by the age of "
           "gossip\n%-15s",
           b->base.load, sim_service_name(b->base.service),
           b->base.requests - b->base.requests / 10, "");
    for (size_t a = 0; a < AGES; a++) {
        char age[16];
        snprintf(age, sizeof(age), "%g s", ages_s[a]);
        printf("      %-10s", age);
    }
    putchar('\n');
}

static int run_policy(struct bench *b, enum sim_policy policy, struct sim_result *result)
{
    uint64_t refused = 0, second_chance = 0;
    if (!b->json) {
        printf("%-15s", sim_policy_name(policy));
    }
    for (size_t a = 0; a < AGES; a++) {
        int rc = simulate(b, policy, ages_s[a], result);
        if (rc != 0) {
            return rc;
        }
        refused += result->refused;
        second_chance += result->second_chance;
        if (!b->json) {
            print_cell(result);
            fflush(stdout);
        }
        if (!sim_policy_listens(policy)) {
            break;
        }
    }
    if (!b->json) {
        puts(sim_policy_listens(policy) ? "" : "  (does not listen to gossip)");
        if (policy == SIM_WEFT) {
            printf("%15s of all columns' requests %lu times a second chance, %lu told to come back "
                   "later\n",
                   "", (unsigned long)second_chance, (unsigned long)refused);
        }
    }
    return 0;
}

static int run_all(struct bench *b)
{
    struct sim_result *result = malloc(sizeof(*result));
    int rc = result == NULL ? EXIT_FAILURE : 0;
    for (enum sim_service service = 0; service < SIM_SERVICES; service++) {
        for (size_t l = 0; l < LOADS; l++) {
            if (b->load > 0 && l != 0) {
                break;
            }
            b->base.service = service;
            b->base.load = b->load > 0 ? b->load : loads_all[l];
            print_head(b);
            for (enum sim_policy policy = 0; rc == 0 && policy < SIM_POLICIES; policy++) {
                rc = run_policy(b, policy, result);
            }
        }
    }
    free(result);
    return rc;
}

static void usage(FILE *out)
{
    fputs("weft-bench policies - response times by policy and age of gossip, simulated\n\n"
          "usage: weft-bench policies [OPTIONS]\n\n"
          "  --load L       offered load of all slots, 0.05 to 0.99; default 0.5, 0.8 and 0.95\n"
          "  --nodes N      workers; default 16\n"
          "  --slots N      requests that one answers at the same time; default 4\n"
          "  --queue N      that it lets wait (weft only); default 16\n"
          "  --routers N    ingresses; default 4\n"
          "  --service-ms N mean service time; default 200\n"
          "  --requests N   in each simulation; default 100000, the first tenth is left out\n"
          "  --seed N       default 1; the same seed gives the same figures everywhere\n"
          "  --json         for machines\n\n"
          "Policies: random; round robin; JBSQ: the router's own least, at most (slots + 1) / "
          "routers\n"
          "of it at a node, the rest waits at the router; shortest queue and two choices by what "
          "was\n"
          "gossiped; weft: the packet path's own function with its overlay of loads from replies, "
          "its\n"
          "count of what it has sent, and the second chance of full workers.\n\n"
          "examples:\n"
          "  weft-bench policies\n"
          "  weft-bench policies --load 0.9 --routers 1 --nodes 8\n"
          "  weft-bench policies --json | jq '.results[] | select(.policy == \"weft\")'\n",
          out);
}

static const struct option long_options[] = {
    {"load", required_argument, NULL, 'l'},
    {"nodes", required_argument, NULL, 'n'},
    {"slots", required_argument, NULL, 's'},
    {"queue", required_argument, NULL, 'q'},
    {"routers", required_argument, NULL, 'r'},
    {"service-ms", required_argument, NULL, 'm'},
    {"requests", required_argument, NULL, 'R'},
    {"seed", required_argument, NULL, 'S'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(void *user, int option, const char *value)
{
    struct bench *b = user;
    static const struct {
        int option;
        double min, max;
    } ranges[] = {{'l', 0.05, 0.99}, {'n', 1, 1000},    {'s', 1, 1000},  {'q', 0, 10000},
                  {'r', 1, 64},      {'m', 1, 1000000}, {'R', 100, 1e7}, {'S', 0, 1e15}};
    double n = 0;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (ranges[i].option == option) {
            n = figures_number(value, ranges[i].min, ranges[i].max);
        }
    }
    if (n < 0) {
        return -1;
    }
    switch (option) {
    case 'l':
        b->load = n;
        return 0;
    case 'n':
        b->base.nodes = (uint32_t)n;
        return 0;
    case 's':
        b->base.slots = (uint32_t)n;
        return 0;
    case 'q':
        b->base.queue_max = (uint32_t)n;
        return 0;
    case 'r':
        b->base.routers = (uint32_t)n;
        return 0;
    case 'm':
        b->base.service_ns = (uint64_t)(n * 1e6);
        return 0;
    case 'R':
        b->base.requests = (uint32_t)n;
        return 0;
    case 'S':
        b->base.seed = (uint64_t)n;
        return 0;
    case 'j':
        b->json = true;
        return 0;
    default:
        return 1;
    }
}

int bench_policies(int argc, char **argv)
{
    struct bench b = {
        .base =
            {
                .nodes = 16,
                .slots = 4,
                .queue_max = 16,
                .routers = 4,
                .service_ns = 200 * NS_PER_MS,
                .hop_ns = NS_PER_MS,
                .requests = 100000,
                .seed = 1,
            },
    };
    int taken = bench_options(argc, argv, "policies", long_options, take_option, &b);
    if (taken > 0) {
        usage(stdout);
    }
    if (taken != 0) {
        return taken > 0 ? EXIT_SUCCESS : BENCH_USAGE;
    }
    if (optind != argc) {
        fputs("weft-bench policies: takes options only\n", stderr);
        return BENCH_USAGE;
    }
    b.list = json_array();
    if (!b.json) {
        printf("%u workers of %u slots, %u routers, mean service %.0f ms, one hop %.0f ms, seed "
               "%lu\n",
               b.base.nodes, b.base.slots, b.base.routers, (double)b.base.service_ns / 1e6,
               (double)b.base.hop_ns / 1e6, (unsigned long)b.base.seed);
    }
    int rc = run_all(&b);
    if (b.json && rc == 0) {
        json_t *out = json_pack("{s:o, s:O}", "machine", machine_json(), "results", b.list);
        json_dumpf(out, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(out);
    }
    json_decref(b.list);
    return rc;
}
