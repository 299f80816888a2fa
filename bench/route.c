/* SPDX-License-Identifier: Apache-2.0 */
/* route.c - weft-bench route: the packet path's pure functions in a loop. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"
#include "schemas/tags.def"
#include "tests/unit/route/fixture.h"

#define ROUNDS          64u /* calls per sample: the clock costs as much as one call */
#define SAMPLES_DEFAULT 4000u
#define MODEL_COUNT     1u

struct scene {
    struct route_core *core;
    struct route_table *table;
    struct rng rng;
    struct route_query queries[ROUNDS];
    struct route_look looks[ROUNDS];
    struct route_frame frames[ROUNDS];
    struct route_frame originals[ROUNDS];
    struct route_packet packets[ROUNDS];
    uint32_t len;
    uint64_t now_ns;
};

struct figure {
    const char *name;
    double median_ns, p99_ns;
    uint32_t samples;
};

#define TAG_BIT_(name, bit, text) TAG_BIT_##name = (bit),
enum { WEFT_TAGS(TAG_BIT_) };
#define TAG(name) (UINT32_C(1) << TAG_BIT_##name)

/* Masks as operators give them: seven classes with the one for no tags. */
static const uint32_t palette[] = {
    0, TAG(eu) | TAG(gdpr), TAG(uk) | TAG(gdpr), TAG(us), TAG(us) | TAG(hipaa), TAG(apac),
};
#define PALETTE (sizeof(palette) / sizeof(palette[0]))

/* A mesh of `count` nodes at random places, all with the model. */
static struct route_table *random_table(struct rng *rng, uint32_t count)
{
    struct route_node *nodes = calloc(count, sizeof(*nodes));
    struct route_table *table = NULL;
    for (uint32_t i = 0; nodes != NULL && i < count; i++) {
        double lat = rng_unit(rng) * 140 - 60;
        double lon = rng_unit(rng) * 360 - 180;
        nodes[i] = fixture_node((uint16_t)(i + 1), lat, lon, (uint8_t)rng_below(rng, 8));
        nodes[i].model_count = 1;
        nodes[i].models[0] = MODEL_A;
        nodes[i].room = UINT16_MAX;
        nodes[i].rtt_us = 1000 + rng_below(rng, 100000);
        nodes[i].queue_us = rng_below(rng, 20000);
        nodes[i].tags = palette[i % PALETTE];
    }
    if (nodes != NULL) {
        (void)route_table_create(&table, nodes, count, 1, 1, false);
    }
    free(nodes);
    return table;
}

/* ---- what is measured: ROUNDS calls each ---- */

static volatile uint32_t sink;

static void run_floor(struct scene *s)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        sink = s->queries[i].model;
    }
}

static void run_choose(struct scene *s)
{
    struct route_choice choice;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        route_choose(s->table, s->core->loads, s->core->scan, &s->queries[i], &choice);
        sink = choice.node;
    }
}

static void run_choose_burst(struct scene *s)
{
    struct route_choice choice;
    for (uint32_t i = 0; i < ROUNDS; i += 32) {
        struct route_look *looks = &s->looks[i];
        route_look(s->table, s->core->loads, s->core->scan, looks, 32);
        for (uint32_t k = 0; k < 32; k++) {
            route_choose_looked(s->table, s->core->loads, s->core->scan, &looks[k], &choice);
            sink = choice.node;
        }
    }
}

/* What L4 load balancers do too: find the next hop of a hot header and write it there. */
static void run_select_rewrite(struct scene *s)
{
    struct route_choice choice;
    struct route_hop hop = {.port_be = s->core->host.port_be};
    for (uint32_t i = 0; i < ROUNDS; i += 32) {
        struct route_look *looks = &s->looks[i];
        route_look(s->table, s->core->loads, s->core->scan, looks, 32);
        for (uint32_t k = 0; k < 32; k++) {
            route_choose_looked(s->table, s->core->loads, s->core->scan, &looks[k], &choice);
            const struct route_node *node = &s->table->nodes[choice.node];
            memcpy(hop.mac, node->mac, sizeof(hop.mac));
            hop.addr = node->addr;
            packet_readdress(&s->packets[i + k], &s->core->host, &hop);
        }
    }
}

/* New places each time: the CPU must not learn its way through the same few choices. */
static void prepare_queries(struct scene *s)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        s->queries[i].x = (uint16_t)rng_next(&s->rng);
        s->queries[i].y = (uint16_t)(rng_next(&s->rng) & 0x7fff);
        s->queries[i].lot = (uint32_t)rng_next(&s->rng);
        s->looks[i].query = s->queries[i];
    }
}

/* Without: the rows of the table know. */
static void prepare_here(struct scene *s)
{
    prepare_queries(s);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        s->looks[i].query.has_position = false;
    }
}

/* The same with tags, which a third of the nodes has. */
static void prepare_tagged(struct scene *s)
{
    prepare_here(s);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        s->looks[i].query.tags = TAG(gdpr);
    }
}

/* And from a place of their own: no row is for that. */
static void prepare_tagged_there(struct scene *s)
{
    prepare_queries(s);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        s->looks[i].query.tags = TAG(gdpr);
    }
}

static void run_packets(struct scene *s)
{
    for (uint32_t i = 0; i < ROUNDS; i += 32) {
        struct route_packet *burst = &s->packets[i];
        stage_parse(s->core, burst, 32);
        stage_classify(s->core, s->table, burst, 32, s->now_ns);
        stage_select(s->core, s->table, burst, 32, s->now_ns);
        stage_rewrite(s->core, s->table, burst, 32);
    }
}

/* ---- preparing a sample: not measured ---- */

static void restore_frames(struct scene *s)
{
    s->now_ns += 1000;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        memcpy(&s->frames[i], &s->originals[i], ROUTE_START_IPV4 + s->len);
        s->packets[i] =
            (struct route_packet){.frame = &s->frames[i], .start = ROUTE_START_IPV4, .len = s->len};
    }
}

/* New requests: no pin may fit, so every sample has its own numbers. */
static void prepare_new(struct scene *s)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t seq = (uint32_t)rng_next(&s->rng);
        packet_set(&s->originals[i], &s->originals[i].weft.req.h.req_seq, &seq, sizeof(seq));
    }
    restore_frames(s);
}

static int compare_double(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

static struct figure measure(struct scene *s, const char *name, uint32_t samples,
                             void (*prepare)(struct scene *), void (*run)(struct scene *))
{
    double *ns = calloc(samples, sizeof(*ns));
    struct figure figure = {.name = name, .samples = samples};
    if (ns == NULL) {
        return figure;
    }
    for (uint32_t i = 0; i < samples; i++) {
        prepare(s);
        uint64_t begin_ns = clock_now_ns();
        run(s);
        ns[i] = (double)(clock_now_ns() - begin_ns) / ROUNDS;
    }
    qsort(ns, samples, sizeof(*ns), compare_double);
    figure.median_ns = ns[samples / 2];
    figure.p99_ns = ns[(size_t)((double)samples * 0.99)];
    free(ns);
    return figure;
}

static struct scene *scene_create(uint32_t nodes)
{
    struct scene *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->rng.state = 42;
    s->now_ns = 1000000;
    s->core = fixture_core(1);
    s->table = random_table(&s->rng, nodes);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        s->queries[i] = (struct route_query){
            .model = MODEL_A,
            .budget_us = WEFT_BUDGET_NONE,
            .prompt_bytes = 1 + rng_below(&s->rng, 4000),
            .tier_max = WEFT_TIER_MAX,
            .has_position = true,
            .x = (uint16_t)rng_next(&s->rng),
            .y = (uint16_t)(rng_next(&s->rng) & 0x7fff),
        };
    }
    return s;
}

static void scene_destroy(struct scene *s)
{
    if (s != NULL) {
        route_core_destroy(s->core);
        route_table_destroy(s->table);
        free(s);
    }
}

static void fill_frames(struct scene *s, bool with_cookie)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fixture_request(&s->packets[i], &s->originals[i], 1, 256);
        s->len = s->packets[i].len;
        s->originals[i].weft.req.h.req_seq = i;
        s->originals[i].weft.req.h.x = s->queries[i].x;
        s->originals[i].weft.req.h.y = s->queries[i].y;
        if (with_cookie) {
            fixture_cookie(s->core, &s->packets[i]);
        }
    }
}

/* Replies of node 2 on their way back to clients of this node. */
static void fill_replies(struct scene *s)
{
    struct route_host from = fixture_host(node_addr(2), PORT_DATA);
    struct route_hop to = {.addr = node_addr(1), .port_be = htons(PORT_DATA)};
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct weft_req request = {.h = {.conn_id = CONN, .req_seq = i, .origin = 1}};
        struct in6_addr addr = client_addr();
        memcpy(request.ret.addr, &addr, sizeof(addr));
        request.ret.port = CLIENT_PORT;
        seal_return(&s->core->seal, &request.ret, CONN);
        fixture_reply(&s->packets[i], &s->originals[i], &request, 2, WEFT_T_RESP);
        packet_compose(&s->packets[i], &from, &to);
        s->len = s->packets[i].len;
    }
}

#define SIZE(n)                                                                                    \
    {                                                                                              \
        n, "choose, " #n " candidates, one by one", "choose, " #n " candidates, in a burst",       \
            "choose, " #n " candidates, from a row", "choose, " #n ", tags, in a burst",           \
            "choose, " #n ", tags, from a row", "select + rewrite, " #n " candidates",             \
            "select + rewrite, " #n ", from a row"                                                 \
    }

static const struct size {
    uint32_t nodes;
    const char *one, *burst, *row, *tagged, *tagged_row, *rewrite, *rewrite_row;
} sizes[] = {SIZE(3), SIZE(64), SIZE(128), SIZE(256), SIZE(1024)};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static uint32_t measure_size(const struct size *size, struct figure *out, uint32_t samples)
{
    struct scene *s = scene_create(size->nodes);
    fill_frames(s, true);
    restore_frames(s);
    stage_parse(s->core, s->packets, ROUNDS);
    out[0] = measure(s, size->one, samples, prepare_queries, run_choose);
    out[1] = measure(s, size->burst, samples, prepare_queries, run_choose_burst);
    out[2] = measure(s, size->row, samples, prepare_here, run_choose_burst);
    out[3] = measure(s, size->tagged, samples, prepare_tagged_there, run_choose_burst);
    out[4] = measure(s, size->tagged_row, samples, prepare_tagged, run_choose_burst);
    out[5] = measure(s, size->rewrite, samples, prepare_queries, run_select_rewrite);
    out[6] = measure(s, size->rewrite_row, samples, prepare_here, run_select_rewrite);
    scene_destroy(s);
    return 7;
}

static uint32_t measure_all(struct figure *out, uint32_t samples)
{
    uint32_t used = 0;
    struct scene *s = scene_create(64);
    out[used++] = measure(s, "floor: the loop around nothing", samples, prepare_queries, run_floor);
    for (size_t i = 0; i < SIZES; i++) {
        used += measure_size(&sizes[i], out + used, samples);
    }
    fill_frames(s, false);
    out[used++] =
        measure(s, "packet: unproven client, cookie", samples, restore_frames, run_packets);
    fill_frames(s, true);
    out[used++] =
        measure(s, "packet: new request, 64 candidates", samples, prepare_new, run_packets);
    fill_frames(s, true);
    restore_frames(s);
    run_packets(s);
    out[used++] =
        measure(s, "packet: later fragment, pinned", samples, restore_frames, run_packets);
    fill_replies(s);
    out[used++] =
        measure(s, "packet: reply through the ingress", samples, restore_frames, run_packets);
    scene_destroy(s);
    return used;
}

/* ---- the table itself ---- */

#define TABLE_NODES  10000u
#define TABLE_MODELS 256u
#define TABLE_BUILDS 15u

struct table_figure {
    double median_ms, worst_ms;
    uint32_t classes;
    size_t bytes;
};

/* Without tags; as operators give them; with more different ones than there are classes. */
#define TABLE_KINDS 3u

static uint32_t tags_of(uint32_t kind, uint32_t i)
{
    return kind == 0 ? 0 : kind == 1 ? palette[i % PALETTE] : (i * 37 & 0xff) | (i & 3) << 24;
}

/* Every node has as many models as it can have. */
static int measure_table(struct table_figure *out, uint32_t kind)
{
    struct rng rng = {.state = 7};
    double ms[TABLE_BUILDS];
    struct route_node *nodes = calloc(TABLE_NODES, sizeof(*nodes));
    int rc = nodes == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; rc == 0 && i < TABLE_NODES; i++) {
        nodes[i] = fixture_node((uint16_t)(i + 1), rng_unit(&rng) * 140 - 60,
                                rng_unit(&rng) * 360 - 180, (uint8_t)rng_below(&rng, 8));
        nodes[i].model_count = ROUTE_MODELS_PER_NODE;
        nodes[i].tags = tags_of(kind, i);
        for (uint32_t m = 0; m < ROUTE_MODELS_PER_NODE; m++) {
            nodes[i].models[m] = (i * 13 + m * 37) % TABLE_MODELS;
        }
    }
    for (uint32_t i = 0; rc == 0 && i < TABLE_BUILDS; i++) {
        struct route_table *table = NULL;
        uint64_t begin_ns = clock_now_ns();
        rc = route_table_create(&table, nodes, TABLE_NODES, 1, 1, false);
        ms[i] = (double)(clock_now_ns() - begin_ns) / 1e6;
        out->bytes = rc == 0 ? table->size_bytes : 0;
        out->classes = rc == 0 ? table->classes.count : 0;
        route_table_destroy(table);
    }
    free(nodes);
    qsort(ms, TABLE_BUILDS, sizeof(ms[0]), compare_double);
    out->median_ms = ms[TABLE_BUILDS / 2];
    out->worst_ms = ms[TABLE_BUILDS - 1];
    return rc;
}

static json_t *tables_json(const struct table_figure tables[TABLE_KINDS])
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < TABLE_KINDS; i++) {
        json_array_append_new(
            list,
            json_pack("{s:i, s:i, s:i, s:f, s:f, s:i, s:I}", "nodes", (int)TABLE_NODES, "models",
                      (int)TABLE_MODELS, "tag_classes", (int)tables[i].classes, "build_median_ms",
                      tables[i].median_ms, "build_worst_ms", tables[i].worst_ms, "samples",
                      (int)TABLE_BUILDS, "bytes", (json_int_t)tables[i].bytes));
    }
    return list;
}

static void print_json(const struct figure *figures, uint32_t count,
                       const struct table_figure tables[TABLE_KINDS])
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:i, s:i}", "name", figures[i].name,
                                              "median_ns", figures[i].median_ns, "p99_ns",
                                              figures[i].p99_ns, "samples", (int)figures[i].samples,
                                              "calls_per_sample", (int)ROUNDS));
    }
    json_t *out =
        json_pack("{s:o, s:s, s:o, s:o}", "machine", machine_json(), "vectors",
                  scan_isa_name(scan_isa()), "figures", list, "tables", tables_json(tables));
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

static void print_text(const struct figure *figures, uint32_t count,
                       const struct table_figure tables[TABLE_KINDS])
{
    machine_print();
    printf("vectors: %s\n\n%-38s %10s %10s   (%u samples of %u calls each)\n",
           scan_isa_name(scan_isa()), "nanoseconds per call", "median", "p99", figures[0].samples,
           ROUNDS);
    for (uint32_t i = 0; i < count; i++) {
        printf("%-38s %10.1f %10.1f\n", figures[i].name, figures[i].median_ns, figures[i].p99_ns);
    }
    printf("\ntable of %u nodes and %u models (median of %u builds)\n", TABLE_NODES, TABLE_MODELS,
           TABLE_BUILDS);
    for (uint32_t i = 0; i < TABLE_KINDS; i++) {
        printf("%2u tag classes: %5.2f MB, built in %.1f ms (worst %.1f)\n", tables[i].classes,
               (double)tables[i].bytes / 1e6, tables[i].median_ms, tables[i].worst_ms);
    }
}

static void usage(FILE *out)
{
    fputs("weft-bench route - cost of the packet path's parts, in nanoseconds per call\n\n"
          "usage: weft-bench route [--samples N] [--json]\n\n"
          "  --samples N  samples of 64 calls for each figure; default 4000\n"
          "  --json       for machines\n\n"
          "examples:\n"
          "  weft-bench route\n"
          "  weft-bench route --samples 20000 --json\n",
          out);
}

int bench_route(int argc, char **argv)
{
    static const struct option options[] = {
        {"samples", required_argument, NULL, 's'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    uint32_t samples = SAMPLES_DEFAULT;
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 's':
            samples = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            json = true;
            break;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        default:
            return BENCH_USAGE;
        }
    }
    if (samples < 100) {
        fputs("weft-bench route: --samples must be at least 100\n", stderr);
        return BENCH_USAGE;
    }
    struct figure figures[8 + 7 * SIZES];
    struct table_figure tables[TABLE_KINDS];
    for (uint32_t i = 0; i < TABLE_KINDS; i++) {
        if (measure_table(&tables[i], i) != 0) {
            fputs("weft-bench route: no memory for a table\n", stderr);
            return EXIT_FAILURE;
        }
    }
    uint32_t count = measure_all(figures, samples);
    if (json) {
        print_json(figures, count, tables);
    } else {
        print_text(figures, count, tables);
    }
    return EXIT_SUCCESS;
}
