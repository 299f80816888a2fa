/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coordinates.c - weft-bench coordinates: how well controlplane/maps/latency.c predicts the round
 * trips of a measured matrix between hosts that never talked to each other, with and without liars.
 * Virtual time, seeded.
 */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/mesh/delay.h"
#include "bench/options.h"
#include "controlplane/maps/latency.h"

#define PEERS_MAX    64u
#define PAIR_SAMPLES (1u << 20)
#define CHOICES      8u /* candidates, of which the nearest is to be taken */
#define START_NS     (1000 * NS_PER_S)
#define SPIKE_SHARE  0.02 /* of the samples take three times as long */
#define JITTER_SHARE 0.05 /* mean of what is added to the others, exponential */
#define LIAR_REACH_S 0.5  /* liars claim to be that far out, somewhere else each time */
#define STAGES       4u

static const double stages[STAGES] = {0.02, 0.1, 0.3, 1.0}; /* of the probes, when it is looked */

struct run {
    const char *matrix_path;
    uint32_t neighbours;
    uint32_t probes;
    double liar_share;
    uint64_t seed;
    bool json;
    struct delay delay;
    uint32_t liars;
    struct latency_map *maps;
    uint32_t *peers; /* hosts * neighbours */
    struct rng rng;
    json_t *out;
};

static double rtt_ms(const struct run *r, uint32_t a, uint32_t b)
{
    return (double)r->delay.rtt_ms[(size_t)a * r->delay.hosts + b];
}

static bool pair_usable(const struct run *r, uint32_t a, uint32_t b)
{
    return a != b && rtt_ms(r, a, b) > 0.0;
}

/* ---- the mesh ---- */

static int mesh_make(struct run *r)
{
    uint32_t hosts = r->delay.hosts;
    r->rng.state = r->seed;
    r->liars = (uint32_t)(r->liar_share * hosts);
    r->maps = calloc(hosts, sizeof(*r->maps));
    r->peers = calloc((size_t)hosts * r->neighbours, sizeof(*r->peers));
    if (r->maps == NULL || r->peers == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i < hosts; i++) {
        if (latency_init(&r->maps[i], PEERS_MAX, NULL, r->seed * hosts + i) != 0) {
            return -1;
        }
        for (uint32_t k = 0; k < r->neighbours; k++) {
            uint32_t *peer = &r->peers[(size_t)i * r->neighbours + k];
            do {
                *peer = rng_below(&r->rng, hosts);
            } while (!pair_usable(r, i, *peer));
        }
    }
    return 0;
}

static void mesh_free(struct run *r)
{
    for (uint32_t i = 0; r->maps != NULL && i < r->delay.hosts; i++) {
        latency_deinit(&r->maps[i]);
    }
    free(r->maps);
    free(r->peers);
    r->maps = NULL;
    r->peers = NULL;
}

static struct vivaldi_coord said_by(struct run *r, uint32_t node)
{
    struct vivaldi_coord coord = r->maps[node].own.at;
    if (node < r->liars) {
        coord = vivaldi_origin();
        coord.error = 0.01;
        for (int d = 0; d < VIVALDI_DIMENSIONS; d++) {
            coord.place[d] = (rng_unit(&r->rng) * 2.0 - 1.0) * LIAR_REACH_S;
        }
    }
    return coord;
}

/* Every node measures to one of its neighbours. */
static void mesh_round(struct run *r, uint32_t round)
{
    for (uint32_t i = 0; i < r->delay.hosts; i++) {
        uint32_t pick = rng_below(&r->rng, r->neighbours);
        uint32_t peer = r->peers[(size_t)i * r->neighbours + pick];
        struct vivaldi_coord coord = said_by(r, peer);
        struct latency_claim claim = {.coord = &coord};
        double factor = rng_unit(&r->rng) < SPIKE_SHARE
                            ? 3.0
                            : 1.0 - JITTER_SHARE * log(1.0 - rng_unit(&r->rng));
        uint64_t rtt_ns = (uint64_t)(rtt_ms(r, i, peer) * factor * (double)NS_PER_MS);
        latency_sample(&r->maps[i], peer, &claim, rtt_ns, START_NS + round * NS_PER_S);
    }
}

/* ---- figures ---- */

static bool is_neighbour(const struct run *r, uint32_t a, uint32_t b)
{
    return latency_peer(&r->maps[a], b) != NULL;
}

static double predicted_ms(const struct run *r, uint32_t a, uint32_t b)
{
    return vivaldi_rtt(&r->maps[a].own.at, &r->maps[b].own.at) * 1e3;
}

/* Both honest, and strangers to each other. */
static void look_at_pairs(const struct run *r, struct series *relative, struct series *absolute)
{
    for (uint32_t a = r->liars; a < r->delay.hosts; a++) {
        for (uint32_t b = r->liars; b < r->delay.hosts; b++) {
            if (pair_usable(r, a, b) && !is_neighbour(r, a, b)) {
                double off = fabs(predicted_ms(r, a, b) - rtt_ms(r, a, b));
                series_add(relative, off / rtt_ms(r, a, b));
                series_add(absolute, off);
            }
        }
    }
}

/* What it costs to take the one of CHOICES that looks nearest. */
static void look_at_choices(struct run *r, struct series *lost)
{
    for (uint32_t a = r->liars; a < r->delay.hosts; a++) {
        double best = INFINITY, taken = 0, looks = INFINITY;
        for (uint32_t k = 0; k < CHOICES; k++) {
            uint32_t b = r->liars + rng_below(&r->rng, r->delay.hosts - r->liars);
            if (!pair_usable(r, a, b)) {
                continue;
            }
            best = fmin(best, rtt_ms(r, a, b));
            if (predicted_ms(r, a, b) < looks) {
                looks = predicted_ms(r, a, b);
                taken = rtt_ms(r, a, b);
            }
        }
        if (!isinf(best)) {
            series_add(lost, taken - best);
        }
    }
}

/* Shares of (honest, liar) neighbours that are distrusted by the honest. */
static void look_at_trust(const struct run *r, double share[2])
{
    uint32_t seen[2] = {0}, distrusted[2] = {0};
    for (uint32_t a = r->liars; a < r->delay.hosts; a++) {
        for (uint32_t k = 0; k < r->neighbours; k++) {
            uint32_t b = r->peers[(size_t)a * r->neighbours + k];
            seen[b < r->liars]++;
            distrusted[b < r->liars] += latency_is_distrusted(&r->maps[a], b);
        }
    }
    for (int i = 0; i < 2; i++) {
        share[i] = seen[i] > 0 ? (double)distrusted[i] / seen[i] : 0.0;
    }
}

static json_t *quantiles_json(struct series *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:I}", "p10", series_quantile(s, 0.1), "p50",
                     series_quantile(s, 0.5), "p90", series_quantile(s, 0.9), "p99",
                     series_quantile(s, 0.99), "samples", (json_int_t)s->seen);
}

static void quantiles_print(const char *what, struct series *s, double times, const char *unit)
{
    printf("  %-34s p10 %6.1f  p50 %6.1f  p90 %6.1f  p99 %7.1f %s (n = %llu)\n", what,
           times * series_quantile(s, 0.1), times * series_quantile(s, 0.5),
           times * series_quantile(s, 0.9), times * series_quantile(s, 0.99), unit,
           (unsigned long long)s->seen);
}

static void report(struct run *r, uint32_t probes, struct series *s)
{
    double trust[2];
    look_at_pairs(r, &s[0], &s[1]);
    look_at_choices(r, &s[2]);
    look_at_trust(r, trust);
    if (r->json) {
        json_array_append_new(
            json_object_get(r->out, "stages"),
            json_pack("{s:i, s:f, s:o, s:o, s:o, s:f, s:f}", "probes", (int)probes, "liars",
                      r->liar_share, "relative_error", quantiles_json(&s[0]), "error_ms",
                      quantiles_json(&s[1]), "choice_lost_ms", quantiles_json(&s[2]),
                      "honest_distrusted", trust[0], "liars_distrusted", trust[1]));
        return;
    }
    printf("%u probes a node to %u others, %.0f %% liars\n", probes, r->neighbours,
           100 * r->liar_share);
    quantiles_print("relative error, strangers", &s[0], 100.0, "%");
    quantiles_print("absolute error, strangers", &s[1], 1.0, "ms");
    quantiles_print("lost by the nearest of 8 by look", &s[2], 1.0, "ms");
    printf("  distrusted: %.2f %% of honest neighbours", 100 * trust[0]);
    printf(r->liars > 0 ? ", %.1f %% of liars\n" : "\n", 100 * trust[1]);
}

/* One mesh from its start, looked at in stages. */
static int run_mesh(struct run *r)
{
    int rc = mesh_make(r);
    uint32_t stage = 0;
    for (uint32_t round = 0; rc == 0 && round < r->probes; round++) {
        mesh_round(r, round);
        if (round + 1 < (uint32_t)(stages[stage] * r->probes)) {
            continue;
        }
        struct series s[3] = {{0}};
        for (int i = 0; i < 3 && rc == 0; i++) {
            rc = series_init(&s[i], PAIR_SAMPLES);
        }
        if (rc == 0) {
            report(r, round + 1, s);
        }
        for (int i = 0; i < 3; i++) {
            series_deinit(&s[i]);
        }
        stage += stage + 1 < STAGES;
    }
    mesh_free(r);
    return rc;
}

/* ---- command line ---- */

static void usage(FILE *out)
{
    fputs("weft-bench coordinates - predicted round trips against a measured matrix\n\n"
          "usage: weft-bench coordinates --matrix FILE [OPTIONS]\n\n"
          "  --matrix FILE   round trips in ms, a square of numbers\n"
          "  --neighbours N  nodes that each one measures to; default 16\n"
          "  --probes N      measurements of each node; default 1000\n"
          "  --liars SHARE   of nodes with a new false place each time, in a second run; 0.1\n"
          "  --seed N        default 1\n"
          "  --json          one object\n\n"
          "examples:\n"
          "  weft-bench coordinates --matrix rtt.txt\n"
          "  weft-bench coordinates --matrix rtt.txt --liars 0.2 --json\n",
          out);
}

static const struct option long_options[] = {
    {"matrix", required_argument, NULL, 'm'}, {"neighbours", required_argument, NULL, 'n'},
    {"probes", required_argument, NULL, 'p'}, {"liars", required_argument, NULL, 'l'},
    {"seed", required_argument, NULL, 'S'},   {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
};

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(void *user, int option, const char *value)
{
    struct run *r = user;
    double n = 0;
    switch (option) {
    case 'm':
        r->matrix_path = value;
        return 0;
    case 'n':
        n = figures_number(value, 1, PEERS_MAX);
        r->neighbours = (uint32_t)n;
        break;
    case 'p':
        n = figures_number(value, 50, 1e6);
        r->probes = (uint32_t)n;
        break;
    case 'l':
        n = figures_number(value, 0, 0.9);
        r->liar_share = n;
        break;
    case 'S':
        n = figures_number(value, 0, 1e15);
        r->seed = (uint64_t)n;
        break;
    case 'j':
        r->json = true;
        return 0;
    default:
        return option == 'h' ? 1 : -1;
    }
    return n < 0 ? -1 : 0;
}

static int run_all(struct run *r)
{
    int rc = delay_load_matrix(&r->delay, r->matrix_path);
    if (rc != 0) {
        fprintf(stderr, "weft-bench coordinates: %s: %s\n", r->matrix_path, strerror(-rc));
        return EXIT_FAILURE;
    }
    double liars = r->liar_share;
    r->out = json_pack("{s:o, s:i, s:[]}", "machine", machine_json(), "hosts", (int)r->delay.hosts,
                       "stages");
    if (!r->json) {
        printf("%u hosts, seed %llu\n", r->delay.hosts, (unsigned long long)r->seed);
    }
    r->liar_share = 0;
    rc = run_mesh(r);
    r->liar_share = liars;
    rc = rc == 0 && liars > 0 ? run_mesh(r) : rc;
    if (r->json) {
        json_dumpf(r->out, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(r->out);
    delay_deinit(&r->delay);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int bench_coordinates(int argc, char **argv)
{
    struct run r = {.neighbours = 16, .probes = 1000, .liar_share = 0.1, .seed = 1};
    int taken = bench_options(argc, argv, "coordinates", long_options, take_option, &r);
    if (taken > 0) {
        usage(stdout);
    }
    if (taken != 0) {
        return taken > 0 ? EXIT_SUCCESS : BENCH_USAGE;
    }
    if (optind != argc || r.matrix_path == NULL) {
        fputs("weft-bench coordinates: --matrix FILE is needed, and nothing else\n", stderr);
        return BENCH_USAGE;
    }
    return run_all(&r);
}
