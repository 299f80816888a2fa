/* SPDX-License-Identifier: Apache-2.0 */
/* mesh_sim.c - weft-bench mesh-sim: the control plane's zones in virtual time; see bench/mesh. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/mesh/sim_runs.h"

static const struct kind {
    const char *name;
    int (*run)(const struct sim_run *run, json_t *out);
    uint32_t nodes, searches, seconds;
    const char *text;
} kinds[] = {
    {"lookup", sim_lookup, 10000, 2000, 0, "latency of searches: zones, Kademlia, Chord"},
    {"recover", sim_recover, 10000, 300, 30, "searches while a part of the machines is killed"},
    {"exact", sim_exact, 300, 100000, 0, "searches during churn against brute force"},
    {"churn", sim_churn, 300, 0, 300, "growth, crashes, a partition: invariants at each event"},
    {"state", sim_state, 100000, 300, 10, "state, hops and bytes of a node from N = 100 on"},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void usage(FILE *out)
{
    fputs(
        "weft-bench mesh-sim - zones in virtual time, against Kademlia and Chord\n\n"
        "usage: weft-bench mesh-sim KIND [OPTIONS]\n\n"
        "The zones of the control plane, as the daemon runs them, in virtual time. The same seed\n"
        "gives the same run.\n\n",
        out);
    for (size_t i = 0; i < KINDS; i++) {
        fprintf(out, "  %-8s %s\n", kinds[i].name, kinds[i].text);
    }
    fputs("\n  --nodes N      machines\n"
          "  --searches N   searches of each kind; a second (recover)\n"
          "  --seconds N    virtual seconds (churn, state, recover)\n"
          "  --seed N       default 1\n"
          "  --runs N       seeds from --seed on (churn); default 1\n"
          "  --loss P       share of datagrams lost, 0..1\n"
          "  --kill P       share of the machines killed at once (lookup, recover); default\n"
          "                 0.2\n"
          "  --mend S       in which tables are looked through for dead ones (recover);\n"
          "                 default 600\n"
          "  --deadline MS  an answer counts as in time (lookup, recover); default 500\n"
          "  --matrix FILE  measured round-trip times in ms, a square; default: great circle\n"
          "                 times a stretch drawn from measured quantiles\n"
          "  --json         one JSON object\n\n"
          "examples:\n"
          "  weft-bench mesh-sim lookup --nodes 1000\n"
          "  weft-bench mesh-sim recover --nodes 1000 --mend 5\n"
          "  weft-bench mesh-sim exact --searches 1000000\n"
          "  weft-bench mesh-sim churn --runs 100 --loss 0.05\n"
          "  weft-bench mesh-sim state --nodes 10000 --json\n",
          out);
}

enum sim_option {
    NODES = 256,
    SEARCHES,
    SECONDS,
    SEED,
    RUNS,
    LOSS,
    KILL,
    MEND,
    DEADLINE,
    MATRIX,
    JSON
};

static const struct option options[] = {
    {"nodes", required_argument, NULL, NODES},
    {"searches", required_argument, NULL, SEARCHES},
    {"seconds", required_argument, NULL, SECONDS},
    {"seed", required_argument, NULL, SEED},
    {"runs", required_argument, NULL, RUNS},
    {"loss", required_argument, NULL, LOSS},
    {"kill", required_argument, NULL, KILL},
    {"mend", required_argument, NULL, MEND},
    {"deadline", required_argument, NULL, DEADLINE},
    {"matrix", required_argument, NULL, MATRIX},
    {"json", no_argument, NULL, JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Takes one option's value; false: it is none. */
static bool option_take(struct sim_run *run, int option, const char *text)
{
    static const double most[] = {
        [NODES - NODES] = 200000, [SEARCHES - NODES] = 1e9, [SECONDS - NODES] = 1e6,
        [SEED - NODES] = 1e15,    [RUNS - NODES] = 1e6,     [LOSS - NODES] = 1,
        [KILL - NODES] = 1,       [MEND - NODES] = 1e6,     [DEADLINE - NODES] = 1e6};
    if (option == MATRIX) {
        run->world.matrix = text;
        return true;
    }
    bool share = option == LOSS || option == KILL;
    double value = figures_number(text, share ? 0 : 1, most[option - NODES]);
    switch (option) {
    case NODES:
        run->world.nodes = (uint32_t)value;
        break;
    case SEARCHES:
        run->searches = (uint32_t)value;
        break;
    case SECONDS:
        run->seconds = (uint32_t)value;
        break;
    case SEED:
        run->world.seed = (uint64_t)value;
        break;
    case RUNS:
        run->runs = (uint32_t)value;
        break;
    case LOSS:
        run->world.loss = value;
        break;
    case KILL:
        run->kill = value;
        break;
    case MEND:
        run->mend_s = value;
        break;
    default:
        run->deadline_ms = value;
        break;
    }
    return value >= 0;
}

static int kind_run(const struct kind *kind, const struct sim_run *run)
{
    json_t *out = json_pack(
        "{s:s, s:i, s:I, s:f, s:s, s:o}", "kind", kind->name, "nodes", (int)run->world.nodes,
        "seed", (json_int_t)run->world.seed, "loss", run->world.loss, "delays",
        run->world.matrix != NULL ? run->world.matrix : "great circle", "machine", machine_json());
    int rc = kind->run(run, out);
    if (rc < 0) {
        fprintf(stderr, "weft-bench mesh-sim: %s\n", strerror(-rc));
    }
    if (run->json && rc == 0) {
        json_dumpf(out, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(out);
    return rc < 0 ? EXIT_FAILURE : rc;
}

int bench_mesh_sim(int argc, char **argv)
{
    const struct kind *kind = NULL;
    for (size_t i = 0; i < KINDS && argc > 1; i++) {
        kind = strcmp(argv[1], kinds[i].name) == 0 ? &kinds[i] : kind;
    }
    if (kind == NULL) {
        bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
        if (help) {
            usage(stdout);
        } else {
            fputs("weft-bench mesh-sim: needs a KIND\n", stderr);
        }
        return help ? EXIT_SUCCESS : BENCH_USAGE;
    }
    struct sim_run run = {.world = {.nodes = kind->nodes, .seed = 1, .jitter = 0.05},
                          .searches = kind->searches,
                          .seconds = kind->seconds,
                          .runs = 1,
                          .kill = 0.2,
                          .mend_s = 600,
                          .deadline_ms = 500};
    int option;
    optind = 2;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == JSON) {
            run.json = true;
        } else if (option == 'h') {
            usage(stdout);
            return EXIT_SUCCESS;
        } else if (option == '?') {
            return BENCH_USAGE;
        } else if (!option_take(&run, option, optarg)) {
            fprintf(stderr, "weft-bench mesh-sim: an option cannot be %s\n", optarg);
            return BENCH_USAGE;
        }
    }
    return kind_run(kind, &run);
}
