/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of synthetic models, timed from the host: what a user of exec.h sees. */
#include "tests/gpu/bench.h"

#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/cuda.h"

#define COPY_BYTES   ((size_t)1 << 30)
#define COPY_ROUNDS  20u
#define STREAMS      8u
#define PROMPT       2048u
#define CHUNK        256u
#define DECODE_WARM  8u
#define DECODE_STEPS 64u

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double bench_copy_bandwidth(const struct device *device)
{
    void *a = NULL;
    void *b = NULL;
    int rc = device_alloc(&a, COPY_BYTES);
    rc = rc ? rc : device_alloc(&b, COPY_BYTES);
    rc = rc ? rc : device_fill(device, a, 1, COPY_BYTES);
    rc = rc ? rc : device_copy(device, b, a, COPY_BYTES);
    rc = rc ? rc : device_wait(device);
    const double begin = now_s();
    for (uint32_t i = 0; !rc && i < COPY_ROUNDS; i++)
        rc = device_copy(device, b, a, COPY_BYTES);
    rc = rc ? rc : device_wait(device);
    const double seconds = now_s() - begin;
    device_free(a);
    device_free(b);
    return rc ? 0 : 2.0 * (double)COPY_BYTES * COPY_ROUNDS / seconds;
}

/* A prompt of PROMPT tokens in slot 0. Returns tokens a second, or a negative errno. */
static double prefill(exec_t *exec, float *logits)
{
    struct exec_row rows[CHUNK];
    const double begin = now_s();
    for (uint32_t at = 0; at < PROMPT; at += CHUNK) {
        for (uint32_t i = 0; i < CHUNK; i++)
            rows[i] =
                (struct exec_row){0, at + i, (at + i) * 7 % 1000, at + i + 1 == PROMPT, false};
        const int rc = exec_forward(exec, rows, CHUNK, logits, NULL);
        if (rc)
            return rc;
    }
    return PROMPT / (now_s() - begin);
}

/* Steps of `streams` slots from `position` on; slot 0 goes on behind its prompt. */
static double decode(exec_t *exec, uint32_t streams, uint32_t position, uint32_t steps,
                     float *logits)
{
    struct exec_row rows[STREAMS];
    const double begin = now_s();
    for (uint32_t n = 0; n < steps; n++) {
        for (uint32_t i = 0; i < streams; i++)
            rows[i] = (struct exec_row){i, (i ? 0 : position) + n, 5 + n, true, false};
        const int rc = exec_forward(exec, rows, streams, logits, NULL);
        if (rc)
            return rc;
    }
    return streams * steps / (now_s() - begin);
}

static int measure(exec_t *exec, uint32_t vocab, struct bench_result *out)
{
    float *logits = malloc((size_t)STREAMS * vocab * sizeof(*logits));
    if (!logits)
        return -1;
    double rate = prefill(exec, logits); /* the first one warms up */
    if (rate >= 0)
        rate = out->prefill_tps = prefill(exec, logits);
    if (rate >= 0)
        rate = decode(exec, 1, PROMPT, DECODE_WARM, logits);
    if (rate >= 0)
        rate = out->decode_tps = decode(exec, 1, PROMPT + DECODE_WARM, DECODE_STEPS, logits);
    if (rate >= 0)
        rate = decode(exec, STREAMS, PROMPT, DECODE_WARM, logits);
    if (rate >= 0)
        rate = out->decode_8_tps = decode(exec, STREAMS, PROMPT, DECODE_STEPS, logits);
    free(logits);
    return rate < 0 ? (int)rate : 0;
}

static int measure_fast(exec_t *exec, uint32_t vocab, struct bench_result *out)
{
    float *logits = malloc(vocab * sizeof(*logits));
    if (!logits)
        return -1;
    double rate = prefill(exec, logits); /* the first one warms up */
    if (rate >= 0)
        rate = out->fast_tps = prefill(exec, logits);
    free(logits);
    return rate < 0 ? (int)rate : 0;
}

int bench_model(const struct synthetic_shape *shape, double bytes_per_s, struct bench_result *out,
                char *why, size_t why_size)
{
    struct cuda_options options = {.slots = STREAMS, .context = PROMPT + 256, .batch_max = CHUNK};
    struct model *model = synthetic_create(shape, 1);
    exec_t *exec;
    if (!model)
        return -1;
    *out = (struct bench_result){.name = shape->name, .bytes_a_token = model->weight_bytes};
    out->decode_floor = bytes_per_s / (double)model->weight_bytes;
    const double begin = now_s();
    int rc = cuda_create(&exec, model, &options, why, why_size);
    out->load_s = now_s() - begin;
    if (rc == 0)
        rc = measure(exec, shape->vocab, out);
    exec_destroy(exec);
    exec = NULL;
    options.fast = true;
    if (rc == 0)
        rc = cuda_create(&exec, model, &options, why, why_size);
    if (rc == 0)
        rc = measure_fast(exec, shape->vocab, out);
    exec_destroy(exec);
    synthetic_destroy(model);
    return rc;
}
