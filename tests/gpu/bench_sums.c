/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over all devices of this machine, timed from the host: many on the stream, one wait. */
#include "tests/gpu/bench.h"

#ifdef WEFT_WITH_NCCL

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "kernels/collective/collective.h"

#define RANKS_MAX  8u
#define WARM       20u
#define ROUNDS     200u
#define TIMEOUT_MS 60000u

static const size_t sizes[BENCH_SUMS] = {(size_t)8 << 10, (size_t)32 << 10, (size_t)128 << 10,
                                         (size_t)1 << 20};

struct rank {
    pthread_t thread;
    uint32_t index;
    uint32_t ranks;
    const uint8_t *id;
    struct bench_sum *out; /* of the first one */
    int rc;
};

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec * 1e-3;
}

static int add_up(struct device *device, struct collective *c, float *data, size_t size_bytes,
                  uint32_t rounds)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < rounds; i++)
        rc = collective_allreduce(c, data, size_bytes / sizeof(*data));
    if (!rc)
        rc = device_mark(device, 0);
    return rc ? rc : collective_wait(c, device->marks[0]);
}

/* Microseconds a sum; 0 without memory. Every rank does the same. */
static int measure(struct device *device, struct collective *c, float *data, size_t size_bytes,
                   double *us)
{
    *us = 0.0;
    if (!data)
        return 0;
    int rc = device_fill(device, data, 0, size_bytes);
    if (!rc)
        rc = add_up(device, c, data, size_bytes, WARM);
    const double begin = now_us();
    if (!rc)
        rc = add_up(device, c, data, size_bytes, ROUNDS);
    *us = (now_us() - begin) / ROUNDS;
    return rc;
}

static int measure_all(struct rank *r, struct device *device, struct collective *c)
{
    const size_t largest = sizes[BENCH_SUMS - 1];
    void *plain;
    int rc = device_alloc(&plain, largest);
    void *window = rc ? NULL : collective_memory(c, largest);
    for (uint32_t i = 0; !rc && i < BENCH_SUMS; i++) {
        struct bench_sum sum = {.size_bytes = sizes[i]};
        rc = measure(device, c, plain, sizes[i], &sum.plain_us);
        if (!rc)
            rc = measure(device, c, window, sizes[i], &sum.window_us);
        if (r->index == 0)
            r->out[i] = sum;
    }
    device_free(plain);
    return rc;
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    struct device device;
    struct collective *c = NULL;
    r->rc = device_open(&device, r->index);
    if (r->rc)
        return NULL;
    const struct collective_nccl how = {.id = r->id,
                                        .rank = r->index,
                                        .ranks = r->ranks,
                                        .stream = device.stream,
                                        .timeout_ms = TIMEOUT_MS};
    r->rc = collective_nccl_join(&c, &how);
    if (!r->rc)
        r->rc = measure_all(r, &device, c);
    collective_destroy(c);
    device_close(&device);
    return NULL;
}

int bench_sums(struct bench_sum out[BENCH_SUMS])
{
    uint8_t id[COLLECTIVE_NCCL_ID_BYTES];
    struct rank ranks[RANKS_MAX];
    const uint32_t devices = device_count();
    const uint32_t count = devices < RANKS_MAX ? devices : RANKS_MAX;
    uint32_t started = 0;
    if (count < 2)
        return 0;
    int rc = collective_nccl_id(id);
    for (; !rc && started < count; started++) {
        ranks[started] = (struct rank){.index = started, .ranks = count, .id = id, .out = out};
        rc = -pthread_create(&ranks[started].thread, NULL, run_rank, &ranks[started]);
        if (rc)
            break;
    }
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(ranks[i].thread, NULL);
        rc = rc ? rc : ranks[i].rc;
    }
    if (rc == -ENOTSUP)
        return 0;
    return rc ? rc : (int)count;
}

#else

int bench_sums(struct bench_sum out[BENCH_SUMS])
{
    (void)out;
    return 0;
}

#endif
