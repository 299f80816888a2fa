/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of synthetic models, timed from the host: what a user of exec.h sees. */
#include "tests/gpu/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda.h"

#define COPY_ROUNDS  20u
#define FIRST_ROUNDS 5u
#define STREAMS_MAX  8u

const struct bench_plan bench_plan_full = {.prompt = 2048,
                                           .short_prompt = 128,
                                           .chunk = 256,
                                           .fast_chunk = 2048,
                                           .streams = STREAMS_MAX,
                                           .decode_warm = 8,
                                           .decode_steps = 64,
                                           .copy_bytes = (size_t)1 << 30,
                                           .dense_rows = 14336,
                                           .dense_cols = 4096,
                                           .dense_columns = 2048};
const struct bench_plan bench_plan_small = {.prompt = 24,
                                            .short_prompt = 5,
                                            .chunk = 8,
                                            .fast_chunk = 24,
                                            .streams = 2,
                                            .decode_warm = 2,
                                            .decode_steps = 3,
                                            .copy_bytes = (size_t)1 << 16,
                                            .dense_rows = 128,
                                            .dense_cols = 64,
                                            .dense_columns = 64};

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double bench_copy_bandwidth(const struct device *device, const struct bench_plan *plan)
{
    const size_t bytes = plan->copy_bytes;
    void *a = NULL;
    void *b = NULL;
    int rc = device_alloc(&a, bytes);
    rc = rc ? rc : device_alloc(&b, bytes);
    rc = rc ? rc : device_fill(device, a, 1, bytes);
    rc = rc ? rc : device_copy(device, b, a, bytes);
    rc = rc ? rc : device_wait(device);
    const double begin = now_s();
    for (uint32_t i = 0; !rc && i < COPY_ROUNDS; i++)
        rc = device_copy(device, b, a, bytes);
    rc = rc ? rc : device_wait(device);
    const double seconds = now_s() - begin;
    device_free(a);
    device_free(b);
    return rc ? 0 : 2.0 * (double)bytes * COPY_ROUNDS / seconds;
}

/* ---- steps ----------------------------------------------------------------------------------- */

struct bench {
    const struct bench_plan *plan;
    exec_t *exec;
    struct exec_row *rows; /* [plan->prompt] */
    float *logits;         /* [STREAMS_MAX][vocab] */
    int rc;
};

/* A prompt of `count` tokens in slot 0, `chunk` rows a step. Returns its seconds. */
static double prompt_s(struct bench *b, uint32_t count, uint32_t chunk)
{
    const double begin = now_s();
    for (uint32_t at = 0; at < count && !b->rc; at += chunk) {
        const uint32_t some = count - at < chunk ? count - at : chunk;
        for (uint32_t i = 0; i < some; i++)
            b->rows[i] =
                (struct exec_row){0, at + i, (at + i) * 7 % 200, at + i + 1 == count, false};
        b->rc = exec_forward(b->exec, b->rows, some, b->logits, NULL);
    }
    return now_s() - begin;
}

/* The second of two: the first one warms up. */
static double prefill_tps(struct bench *b, uint32_t chunk)
{
    (void)prompt_s(b, b->plan->prompt, chunk);
    return b->plan->prompt / prompt_s(b, b->plan->prompt, chunk);
}

static double first_s(struct bench *b, uint32_t count, uint32_t chunk)
{
    double best = prompt_s(b, count, chunk);
    for (uint32_t i = 1; i < FIRST_ROUNDS; i++) {
        const double seconds = prompt_s(b, count, chunk);
        best = seconds < best ? seconds : best;
    }
    return best;
}

/* Steps of `streams` slots; slot 0 goes on at `position`. `kernels_s` gets the time that the
 * kernels took. Returns tokens a second. */
static double decode_tps(struct bench *b, uint32_t streams, uint32_t position, uint32_t steps,
                         double *kernels_s)
{
    struct exec_row rows[STREAMS_MAX];
    *kernels_s = 0.0;
    const double begin = now_s();
    for (uint32_t n = 0; n < steps && !b->rc; n++) {
        for (uint32_t i = 0; i < streams; i++)
            rows[i] = (struct exec_row){i, (i ? 0 : position) + n, 5 + n, true, false};
        b->rc = exec_forward(b->exec, rows, streams, b->logits, NULL);
        *kernels_s += cuda_step_seconds(b->exec);
    }
    return streams * steps / (now_s() - begin);
}

static void measure_exact(struct bench *b, struct bench_result *out)
{
    const struct bench_plan *plan = b->plan;
    const uint32_t behind = plan->prompt + plan->decode_warm;
    double kernels_s;
    out->prefill_tps = prefill_tps(b, plan->chunk);
    (void)decode_tps(b, 1, plan->prompt, plan->decode_warm, &kernels_s);
    out->decode_tps = decode_tps(b, 1, behind, plan->decode_steps, &kernels_s);
    out->overhead = 1.0 - kernels_s * out->decode_tps / plan->decode_steps;
    (void)decode_tps(b, plan->streams, plan->prompt, plan->decode_warm, &kernels_s);
    out->decode_batch_tps =
        decode_tps(b, plan->streams, plan->prompt, plan->decode_steps, &kernels_s);
}

static void measure_fast(struct bench *b, struct bench_result *out)
{
    const struct bench_plan *plan = b->plan;
    out->fast_tps = prefill_tps(b, plan->fast_chunk);
    out->short_first_s = first_s(b, plan->short_prompt, plan->fast_chunk);
    out->long_first_s = first_s(b, plan->prompt, plan->fast_chunk);
}

static void measure_auto(struct bench *b, struct bench_result *out)
{
    struct exec_info info;
    exec_info(b->exec, &info);
    const char *chosen = strstr(info.detail, "cuBLASLt");
    (void)snprintf(out->chosen, sizeof(out->chosen), "%s", chosen ? chosen : "own");
    if (chosen)
        out->auto_tps = prefill_tps(b, b->plan->fast_chunk);
}

/* ---- a model ----------------------------------------------------------------------------------
 */

static double flops_a_token(const struct synthetic_shape *s, uint32_t prompt)
{
    const double attn = (double)s->heads * s->head_width;
    const double kv = (double)s->kv_heads * s->head_width;
    const double weights =
        s->width * (2 * attn + 2 * kv) + 3.0 * (double)s->width * (double)s->ffn_width;
    return s->layers * (2 * weights + 2 * attn * prompt); /* half of the positions, two products */
}

static int run(struct bench *b, const struct model *model, const struct cuda_options *options,
               void (*measure)(struct bench *, struct bench_result *), struct bench_result *out,
               char *why, size_t why_size)
{
    const double begin = now_s();
    b->rc = cuda_create(&b->exec, model, options, why, why_size);
    if (out->load_s <= 0.0)
        out->load_s = now_s() - begin;
    if (!b->rc)
        measure(b, out);
    exec_destroy(b->exec);
    b->exec = NULL;
    return b->rc;
}

int bench_model(const struct bench_plan *plan, const struct synthetic_shape *shape,
                double bytes_per_s, struct bench_result *out, char *why, size_t why_size)
{
    const uint32_t context = plan->prompt + 2 * (plan->decode_warm + plan->decode_steps);
    struct cuda_options exact = {
        .slots = plan->streams, .context = context, .batch_max = plan->chunk, .timed = true};
    const struct cuda_options fast = {
        .slots = 1, .context = context, .batch_max = plan->fast_chunk, .fast = true};
    struct cuda_options automatic = fast;
    struct bench b = {.plan = plan,
                      .rows = calloc(plan->prompt, sizeof(*b.rows)),
                      .logits = calloc((size_t)STREAMS_MAX * shape->vocab, sizeof(*b.logits))};
    struct model *model = synthetic_create(shape, 1);
    int rc = model && b.rows && b.logits ? 0 : -ENOMEM;
    *out = (struct bench_result){.name = shape->name};
    automatic.gemm = CUDA_GEMM_AUTO;
    if (!rc) {
        out->bytes_a_token = model->weight_bytes;
        out->decode_floor = bytes_per_s / (double)model->weight_bytes;
        out->flops_a_token = flops_a_token(shape, plan->prompt);
        rc = run(&b, model, &exact, measure_exact, out, why, why_size);
    }
    if (!rc)
        rc = run(&b, model, &fast, measure_fast, out, why, why_size);
    if (!rc)
        rc = run(&b, model, &automatic, measure_auto, out, why, why_size);
    synthetic_destroy(model);
    free(b.rows);
    free(b.logits);
    return rc;
}
