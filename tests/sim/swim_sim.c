/* SPDX-License-Identifier: Apache-2.0 */
/* swim_sim.c - the membership protocol in virtual time: lives full of faults, and figures. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/clock.h"
#include "tests/sim/swim_sim.h"

static void usage(FILE *out)
{
    fputs(
        "usage: swim-sim lives  [--seed S] [--count N] [--seconds T] [--verbose]\n"
        "       swim-sim detect [--nodes N] [--trials K] [options]\n"
        "       swim-sim slow   [--nodes N] [--slow C] [--seconds T] [options]\n"
        "       swim-sim heal | back [--nodes N] [--trials K] [options]\n"
        "\n"
        "The production objects of controlplane/swim on a virtual network, in virtual time.\n"
        "\n"
        "  lives   N seeds from S on, each a mesh with its own kinds of faults for T seconds;\n"
        "          invariants at every event. A seed that fails does so again: --seed S --count 1\n"
        "  detect  one node after another is killed: when do others suspect it, when do all know\n"
        "  slow    C nodes pause 0.1 to 30 s over and over: who is held dead wrongly\n"
        "  heal    two halves cannot reach each other for 300 s: how long until all agree again\n"
        "  back    a node is cut off, mute, deaf or stopped until all know, then back: who is "
        "held\n"
        "          dead wrongly, by it or by others\n"
        "\n"
        "  --loss P          of every datagram; default 0\n"
        "  --pause-max-ms P  slow: the longest pause; default 30000, the shortest is a 300th\n"
        "  --delay-us D      one way; default 500\n"
        "  --probe-ms, --suspect-min-ms, --suspect-max-ms  instead of the defaults\n"
        "\n"
        "examples:\n"
        "  swim-sim lives --count 200 --seconds 300\n"
        "  swim-sim detect --nodes 64 --trials 100\n"
        "  swim-sim slow --nodes 64 --slow 8 --seconds 3600\n",
        out);
}

static int lives(const struct sim_settings *settings)
{
    struct life_result result;
    uint64_t simulated_s = 0;
    uint64_t deaths = 0;
    uint32_t broken = 0;
    double bytes = 0.0;
    uint64_t started_ns = clock_now_ns();
    for (uint64_t i = 0; i < settings->trials; i++) {
        uint64_t seed = settings->seed + i;
        life_run(seed, settings->seconds, settings->verbose, &result);
        simulated_s += result.simulated_s;
        deaths += result.deaths;
        bytes += result.bytes_s_node;
        if (result.broken[0] != '\0') {
            broken++;
            printf("seed %llu (%u nodes) breaks: %s\n", (unsigned long long)seed, result.nodes,
                   result.broken);
        }
        if (settings->verbose || settings->trials == 1) {
            printf(
                "seed %llu: %u nodes, %llu s, %llu verdicts, %.0f B/s/node, fingerprint %016llx\n",
                (unsigned long long)seed, result.nodes, (unsigned long long)result.simulated_s,
                (unsigned long long)result.deaths, result.bytes_s_node,
                (unsigned long long)result.fingerprint);
        }
        fflush(stdout);
    }
    printf("%u seeds, %llu simulated cluster-seconds, %llu verdicts, %.0f B/s/node on average, "
           "%u broken, %.0f s\n",
           settings->trials, (unsigned long long)simulated_s, (unsigned long long)deaths,
           bytes / settings->trials, broken, (double)(clock_now_ns() - started_ns) / 1e9);
    return broken == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

enum choice {
    OPTION_SEED = 256,
    OPTION_COUNT,
    OPTION_SECONDS,
    OPTION_NODES,
    OPTION_SLOW,
    OPTION_PAUSE,
    OPTION_LOSS,
    OPTION_DELAY,
    OPTION_PROBE,
    OPTION_MIN,
    OPTION_MAX,
    OPTION_VERBOSE,
    OPTION_HELP,
};

static const struct option options[] = {
    {"seed", required_argument, NULL, OPTION_SEED},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"trials", required_argument, NULL, OPTION_COUNT},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"nodes", required_argument, NULL, OPTION_NODES},
    {"slow", required_argument, NULL, OPTION_SLOW},
    {"pause-max-ms", required_argument, NULL, OPTION_PAUSE},
    {"loss", required_argument, NULL, OPTION_LOSS},
    {"delay-us", required_argument, NULL, OPTION_DELAY},
    {"probe-ms", required_argument, NULL, OPTION_PROBE},
    {"suspect-min-ms", required_argument, NULL, OPTION_MIN},
    {"suspect-max-ms", required_argument, NULL, OPTION_MAX},
    {"verbose", no_argument, NULL, OPTION_VERBOSE},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static void option_take(struct sim_settings *settings, uint32_t *nodes, int option)
{
    char *end = NULL;
    double value = optarg != NULL ? strtod(optarg, &end) : 0.0;
    if (option == '?' || (optarg != NULL && (*end != '\0' || end == optarg || value < 0.0))) {
        usage(stderr);
        exit(2);
    }
    switch (option) {
    case OPTION_SEED:
        settings->seed = (uint64_t)value;
        break;
    case OPTION_COUNT:
        settings->trials = (uint32_t)value;
        break;
    case OPTION_SECONDS:
        settings->seconds = (uint64_t)value;
        break;
    case OPTION_NODES:
        *nodes = (uint32_t)value;
        break;
    case OPTION_SLOW:
        settings->slow = (uint32_t)value;
        break;
    case OPTION_PAUSE:
        settings->pause_max_ms = (uint64_t)value;
        break;
    case OPTION_LOSS:
        settings->loss = value;
        break;
    case OPTION_DELAY:
        settings->delay_ns = (uint64_t)(value * 1e3);
        break;
    case OPTION_PROBE:
        settings->probe_interval_ns = (uint64_t)(value * 1e6);
        break;
    case OPTION_MIN:
        settings->suspect_min_ns = (uint64_t)(value * 1e6);
        break;
    case OPTION_MAX:
        settings->suspect_max_ns = (uint64_t)(value * 1e6);
        break;
    case OPTION_VERBOSE:
        settings->verbose = true;
        break;
    default:
        usage(stdout);
        exit(EXIT_SUCCESS);
    }
}

int main(int argc, char **argv)
{
    struct sim_settings settings = {.seed = 1,
                                    .trials = 30,
                                    .slow = 4,
                                    .seconds = 300,
                                    .pause_max_ms = 30000,
                                    .delay_ns = 500 * NS_PER_US};
    uint32_t nodes = 32;
    int option;
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    const char *what = argv[1];
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        option_take(&settings, &nodes, option);
    }
    if (nodes < 2 || settings.trials == 0 || settings.slow >= nodes) {
        usage(stderr);
        return 2;
    }
    if (strcmp(what, "lives") == 0) {
        return lives(&settings);
    }
    if (strcmp(what, "detect") == 0) {
        return figures_detect(&settings, nodes);
    }
    if (strcmp(what, "slow") == 0) {
        return figures_slow(&settings, nodes);
    }
    if (strcmp(what, "heal") == 0) {
        return figures_heal(&settings, nodes);
    }
    if (strcmp(what, "back") == 0) {
        return figures_back(&settings, nodes);
    }
    usage(stderr);
    return 2;
}
