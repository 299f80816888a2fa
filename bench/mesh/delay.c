/* SPDX-License-Identifier: Apache-2.0 */
/* delay.c - see delay.h. */
#include "bench/mesh/delay.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define RTT_MAX_MS 10000.0

static const double stretch_at[][2] = {
    {0.0, 1.1}, {0.01, 1.28}, {0.1, 1.5}, {0.5, 1.97}, {0.9, 3.39}, {0.99, 6.77}, {1.0, 8.0},
};

/* Numbers until the end of the file. Returns how many, or -EINVAL or -ENOMEM. */
static long numbers_read(FILE *file, float **out)
{
    size_t count = 0;
    size_t room = 0;
    float *all = NULL;
    double value;
    int got;
    *out = NULL;
    while ((got = fscanf(file, "%lf", &value)) == 1) {
        if (!(value >= 0.0 && value <= RTT_MAX_MS) ||
            count == (size_t)DELAY_MATRIX_HOSTS * DELAY_MATRIX_HOSTS) {
            free(all);
            return -EINVAL;
        }
        if (count == room) {
            room = room == 0 ? 1024 : 2 * room;
            float *more = realloc(all, room * sizeof(*more));
            if (more == NULL) {
                free(all);
                return -ENOMEM;
            }
            all = more;
        }
        all[count++] = (float)value;
    }
    *out = all;
    return got == EOF ? (long)count : -EINVAL;
}

int delay_load_matrix(struct delay *delay, const char *path)
{
    memset(delay, 0, sizeof(*delay));
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return -errno;
    }
    float *all;
    long count = numbers_read(file, &all);
    fclose(file);
    uint32_t hosts = count > 0 ? (uint32_t)lround(sqrt((double)count)) : 0;
    if (count < 1 || (long)hosts * hosts != count) {
        free(all);
        return count < 0 ? (int)count : -EINVAL;
    }
    delay->kind = DELAY_MATRIX;
    delay->hosts = hosts;
    delay->rtt_ms = all;
    return 0;
}

void delay_deinit(struct delay *delay)
{
    free(delay->rtt_ms);
    memset(delay, 0, sizeof(*delay));
}

static double stretch_of(uint64_t seed, uint32_t a, uint32_t b)
{
    uint64_t low = a < b ? a : b;
    uint64_t high = a < b ? b : a;
    struct rng rng = {.state = seed ^ (low << 32 | high)};
    rng_next(&rng);
    double q = rng_unit(&rng);
    size_t i = 1;
    while (q > stretch_at[i][0]) {
        i++;
    }
    double part = (q - stretch_at[i - 1][0]) / (stretch_at[i][0] - stretch_at[i - 1][0]);
    return stretch_at[i - 1][1] + part * (stretch_at[i][1] - stretch_at[i - 1][1]);
}

uint64_t delay_ns(const struct delay *delay, uint32_t from, uint32_t to)
{
    double one_way_ms = 0.0;
    if (delay->kind == DELAY_CONSTANT) {
        return delay->constant_ns;
    }
    if (delay->kind == DELAY_MATRIX) {
        uint32_t row = from % delay->hosts;
        uint32_t column = to % delay->hosts;
        one_way_ms = (double)delay->rtt_ms[(size_t)row * delay->hosts + column] / 2.0;
    } else {
        double km = geo_distance_km(delay->places[from], delay->places[to]);
        one_way_ms = km / DELAY_FIBRE_KM_MS * stretch_of(delay->seed, from, to);
    }
    return DELAY_LOCAL_NS + (uint64_t)(one_way_ms * (double)NS_PER_MS);
}
