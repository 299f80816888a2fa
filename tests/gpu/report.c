/* SPDX-License-Identifier: Apache-2.0 */
/* What was measured, as a table for a person and as JSON for a program. */
#include <string.h>

#include "tests/gpu/bench.h"

static const struct synthetic_shape full_shapes[] = {
    {"135M Q4_1", GGUF_TENSOR_Q4_1, 30, 576, 1536, 9, 3, 64, 49152, 4096},
    {"8B Q4_0", GGUF_TENSOR_Q4_0, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
    {"8B Q4_K", GGUF_TENSOR_Q4_K, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
    {"8B BF16", GGUF_TENSOR_BF16, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
};
static const struct synthetic_shape small_shapes[] = {
    {"tiny Q4_1", GGUF_TENSOR_Q4_1, 1, 64, 128, 2, 1, 32, 256, 64},
    {"tiny BF16", GGUF_TENSOR_BF16, 1, 64, 128, 2, 1, 32, 256, 64},
};

/* What the tensor cores were seen to give: the denominator of prompts' rates. */
static double dense_rate(const struct bench_dense *dense)
{
    return dense->library_flops > dense->gemm_flops ? dense->library_flops : dense->gemm_flops;
}

static double percent_of(double value, double of)
{
    return of > 0.0 ? 100.0 * value / of : 0.0;
}

/* ---- one product ------------------------------------------------------------------------------
 */

static void report_dense(const struct bench_plan *plan, const struct bench_dense *d, FILE *json)
{
    printf("one product of %u columns with %u x %u, BF16: op_gemm %.0f TFLOP/s, cuBLASLt ",
           plan->dense_columns, plan->dense_rows, plan->dense_cols, d->gemm_flops * 1e-12);
    if (d->library_flops > 0)
        printf("%.0f TFLOP/s (version %u)\n", d->library_flops * 1e-12, d->library_version);
    else
        printf("not measured: %s\n", d->why);
    if (json)
        fprintf(json,
                "  \"gemm_flops\": %.0f,\n  \"cublaslt_flops\": %.0f,\n"
                "  \"cublaslt_version\": %u,\n",
                d->gemm_flops, d->library_flops, d->library_version);
}

/* ---- models -----------------------------------------------------------------------------------
 */

static void print_model(const struct bench_result *r, double dense)
{
    printf("%-10s %7.1f %8.1f %6.1f %6.2f %9.1f %9.0f %9.0f %6.1f", r->name, r->load_s,
           r->decode_tps, percent_of(r->decode_tps, r->decode_floor), 100.0 * r->overhead,
           r->decode_batch_tps, r->prefill_tps, r->fast_tps,
           percent_of(r->fast_tps * r->flops_a_token, dense));
    if (r->auto_tps > 0)
        printf(" %9.0f %6.1f", r->auto_tps, percent_of(r->auto_tps * r->flops_a_token, dense));
    else
        printf(" %9s %6s", "-", "-");
    printf(" %9.2f %9.2f\n", 1e3 * r->short_first_s, 1e3 * r->long_first_s);
}

static void json_model(FILE *json, const struct bench_result *r, double dense, bool is_first)
{
    fprintf(json,
            "%s\n    {\"name\": \"%s\", \"load_s\": %.3f, \"bytes_a_token\": %zu,\n"
            "     \"decode_tps\": %.2f, \"decode_floor_tps\": %.2f, \"decode_fraction\": %.6g,\n"
            "     \"decode_overhead\": %.4f, \"decode_batch_tps\": %.2f,\n",
            is_first ? "" : ",", r->name, r->load_s, r->bytes_a_token, r->decode_tps,
            r->decode_floor, percent_of(r->decode_tps, r->decode_floor) / 100.0, r->overhead,
            r->decode_batch_tps);
    fprintf(json,
            "     \"prefill_tps\": %.2f, \"prefill_fast_tps\": %.2f, "
            "\"prefill_fast_fraction\": %.6g,\n"
            "     \"prefill_auto_tps\": %.2f, \"prefill_auto_fraction\": %.6g, \"auto\": \"%s\",\n"
            "     \"flops_a_token\": %.0f, \"first_token_short_s\": %.6f, "
            "\"first_token_long_s\": %.6f}",
            r->prefill_tps, r->fast_tps, percent_of(r->fast_tps * r->flops_a_token, dense) / 100.0,
            r->auto_tps, percent_of(r->auto_tps * r->flops_a_token, dense) / 100.0, r->chosen,
            r->flops_a_token, r->short_first_s, r->long_first_s);
}

static void print_head(const struct bench_plan *plan)
{
    printf("\n%-10s %7s %8s %6s %6s %9s %9s %9s %6s %9s %6s %9s %9s\n", "", "load", "decode",
           "% of", "out of", "batch", "prompt", "tensor", "% of", "auto", "% of", "first", "first");
    printf("%-10s %7s %8s %6s %6s %7u x %9s %9s %6s %9s %6s %6u ms %6u ms\n", "model", "s", "t/s",
           "copy", "kern.%", plan->streams, "f32 t/s", "t/s", "dense", "t/s", "dense",
           plan->short_prompt, plan->prompt);
}

static void report_models(const struct bench_plan *plan, const struct synthetic_shape *shapes,
                          size_t count, double copy, double dense, FILE *json)
{
    bool is_first = true;
    print_head(plan);
    if (json)
        fprintf(json, "  \"prompt_tokens\": %u,\n  \"models\": [", plan->prompt);
    for (size_t i = 0; i < count; i++) {
        struct bench_result r;
        char why[200] = "";
        const int rc = bench_model(plan, &shapes[i], copy, &r, why, sizeof(why));
        if (rc) {
            printf("%-10s not measured: %s\n", shapes[i].name,
                   why[0] ? why : strerror(rc < 0 ? -rc : rc));
            continue;
        }
        print_model(&r, dense);
        if (json)
            json_model(json, &r, dense, is_first);
        is_first = false;
    }
    if (json)
        fputs("\n  ],\n", json);
}

/* ---- ranks ------------------------------------------------------------------------------------
 */

/* What ranks add up for a token of a model is 8 to 32 KiB. */
static void report_sums(FILE *json)
{
    struct bench_sum sums[BENCH_SUMS];
    const int ranks = bench_sums(sums);
    if (ranks <= 0) {
        printf("\nsums over ranks: not measured, %s\n",
               ranks ? "NCCL failed" : "that takes NCCL and two devices");
        return;
    }
    printf("\nsum over %d ranks: %10s %14s\n", ranks, "plain us", "window us");
    if (json)
        fprintf(json, "  \"ranks\": %d,\n  \"sums\": [", ranks);
    for (uint32_t i = 0; i < BENCH_SUMS; i++) {
        printf("%13zu KiB %12.1f %14.1f\n", sums[i].size_bytes >> 10, sums[i].plain_us,
               sums[i].window_us);
        if (json)
            fprintf(json, "%s\n    {\"bytes\": %zu, \"plain_us\": %.2f, \"window_us\": %.2f}",
                    i ? "," : "", sums[i].size_bytes, sums[i].plain_us, sums[i].window_us);
    }
    if (json)
        fputs("\n  ],\n", json);
}

void report_benches(const struct device *device, bool is_small, FILE *json)
{
    const struct bench_plan *plan = is_small ? &bench_plan_small : &bench_plan_full;
    const double copy = bench_copy_bandwidth(device, plan);
    struct bench_dense dense;
    printf("copy within the device: %.0f GB/s, reads and writes together\n", copy * 1e-9);
    if (json)
        fprintf(json, "  \"copy_bytes_per_s\": %.0f,\n", copy);
    const int rc = bench_dense(device, plan, &dense);
    if (rc)
        printf("one product: not measured (%s)\n", strerror(-rc));
    else
        report_dense(plan, &dense, json);
    if (is_small)
        report_models(plan, small_shapes, sizeof(small_shapes) / sizeof(small_shapes[0]), copy,
                      dense_rate(&dense), json);
    else
        report_models(plan, full_shapes, sizeof(full_shapes) / sizeof(full_shapes[0]), copy,
                      dense_rate(&dense), json);
    report_sums(json);
}
