/* SPDX-License-Identifier: Apache-2.0 */
/* population.c - see population.h. */
#include "bench/mesh/population.h"

#include <math.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/torus.h"

#define CITY_ZIPF     0.8
#define MODEL_ZIPF    1.0
#define CITY_SPREAD   0.2 /* degrees */
#define LAT_LOW       -38.0
#define LAT_HIGH      62.0
#define EDITION_FIRST (UINT64_C(1) << 32)

const char *const population_workload_names[POPULATION_WORKLOADS] = {"local", "mixed", "global"};

static void zipf(double *upto, uint32_t count, double exponent)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += pow(i + 1.0, -exponent);
        upto[i] = sum;
    }
    for (uint32_t i = 0; i < count; i++) {
        upto[i] /= sum;
    }
}

static uint32_t drawn(struct rng *rng, const double *upto, uint32_t count)
{
    double u = rng_unit(rng);
    uint32_t i = 0;
    while (i + 1 < count && upto[i] < u) {
        i++;
    }
    return i;
}

void population_init(struct population *p, uint64_t seed)
{
    memset(p, 0, sizeof(*p));
    p->rng.state = seed;
    zipf(p->city_upto, POPULATION_CITIES, CITY_ZIPF);
    zipf(p->model_upto, POPULATION_MODELS, MODEL_ZIPF);
    for (uint32_t i = 0; i < POPULATION_CITIES; i++) {
        p->lat[i] = LAT_LOW + (LAT_HIGH - LAT_LOW) * rng_unit(&p->rng);
        p->lon[i] = -180.0 + 360.0 * rng_unit(&p->rng);
    }
    for (uint32_t i = 0; i < POPULATION_MODELS; i++) {
        p->models[i] = (uint32_t)rng_next(&p->rng) | 1u;
    }
}

void population_load(struct population *p, struct zone_record *r)
{
    r->vram_free_64mib = (uint16_t)rng_below(&p->rng, r->vram_total_64mib + 1u);
    r->queue_us = rng_below(&p->rng, 200000);
    r->room = (uint16_t)rng_below(&p->rng, 32);
}

/* Cities lie in countries of different sizes; a few machines do not say where. */
static uint16_t jurisdiction_of(uint32_t city)
{
    uint32_t country = city % 7u * (city % 5u);
    return country == 0 ? 0 : (uint16_t)(('A' + country % 26u) << 8 | ('A' + country / 26u));
}

struct zone_record population_machine(struct population *p, uint32_t node)
{
    /* GiB of accelerator memory by tier. */
    static const uint16_t memory[TORUS_TIERS] = {0, 12, 24, 80, 320, 640, 2048, 1024};
    uint32_t city = drawn(&p->rng, p->city_upto, POPULATION_CITIES);
    double lat = p->lat[city] + CITY_SPREAD * (rng_unit(&p->rng) - 0.5);
    double lon = p->lon[city] + CITY_SPREAD * (rng_unit(&p->rng) - 0.5);
    struct zone_record r = {.version = EDITION_FIRST, .node = node};
    r.addr.s6_addr[0] = 0xfd;
    memcpy(&r.addr.s6_addr[12], &node, sizeof(node));
    r.x = weft_cell_x(lon);
    r.y = weft_cell_y(lat);
    r.tier = (uint8_t)rng_below(&p->rng, TORUS_TIERS);
    r.vram_total_64mib = (uint16_t)(memory[r.tier] * 16u);
    r.model_count = (uint8_t)(1 + rng_below(&p->rng, 4));
    for (uint32_t i = 0; i < r.model_count; i++) {
        r.models[i] = p->models[drawn(&p->rng, p->model_upto, POPULATION_MODELS)];
    }
    r.tags = 1u << (uint32_t)((lon + 190.0) / 125.0) % 3u;
    r.jurisdiction = jurisdiction_of(city);
    for (uint32_t bit = 4; bit < 10; bit++) {
        r.tags |= (uint32_t)(rng_below(&p->rng, 3) == 0) << bit;
    }
    population_load(p, &r);
    return r;
}

struct zone_query population_query(struct population *p, const struct zone_record *asker,
                                   enum population_workload workload, bool filters)
{
    struct zone_query q = {.k = 8, .tier_max = TORUS_TIERS - 1, .fresh_ms = 60000};
    bool local = workload == POPULATION_LOCAL ||
                 (workload == POPULATION_MIXED && rng_below(&p->rng, 2) == 0);
    uint32_t city = drawn(&p->rng, p->city_upto, POPULATION_CITIES);
    q.x = local ? asker->x : weft_cell_x(p->lon[city]);
    q.y = local ? asker->y : weft_cell_y(p->lat[city]);
    q.model = p->models[drawn(&p->rng, p->model_upto, POPULATION_MODELS)];
    if (!filters) {
        return q;
    }
    q.k = (uint8_t)(1 + rng_below(&p->rng, ZONE_TOP_MAX));
    q.model = rng_below(&p->rng, 8) == 0 ? 0 : q.model;
    q.model = rng_below(&p->rng, 50) == 0 ? 12345u : q.model; /* nobody has it */
    q.tier_min = (uint8_t)rng_below(&p->rng, TORUS_TIERS);
    q.tier_max = (uint8_t)(q.tier_min + rng_below(&p->rng, TORUS_TIERS - q.tier_min));
    q.tags = rng_below(&p->rng, 3) == 0 ? 1u << (4 + rng_below(&p->rng, 6)) : 0;
    q.vram_64mib = (uint16_t)(rng_below(&p->rng, 3) == 0 ? rng_below(&p->rng, 6000) : 0);
    q.radius_km = (uint16_t)(rng_below(&p->rng, 3) == 0 ? 1 + rng_below(&p->rng, 6000) : 0);
    /* One in four allows some countries, by what was drawn before: no draw of its own, so that
     * what follows is what it always was. */
    uint32_t lot = q.x * 31u + q.y * 7u + q.k;
    for (uint32_t i = 0; lot % 4 == 0 && i < lot / 4 % 3 + 1; i++) {
        uint16_t code = jurisdiction_of(lot / 16 + i * 11);
        q.jurisdictions[q.jurisdiction_count] = code;
        q.jurisdiction_count = (uint8_t)(q.jurisdiction_count + (code != 0));
    }
    return q;
}

struct geo_point population_place(const struct zone_record *r)
{
    return geo_point_at(weft_cell_latitude(r->y), weft_cell_longitude(r->x));
}
