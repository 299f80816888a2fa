/* SPDX-License-Identifier: Apache-2.0 */
/* weft-gpu-selftest: all cases of cases.h on a GPU, then benches; a table for a person, JSON for a
 * program. Exit 0 if all is well, 1 if a case failed, 77 without a GPU. Needs no library beyond the
 * CUDA runtime; scripts/gpu-check builds and runs it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.h"
#include "tests/gpu/bench.h"
#include "tests/gpu/cases.h"

#define EXIT_SKIPPED 77
#define ROUNDS_MORE  10u /* a GPU has time for more than the emulator */

static const char usage[] =
    "Usage: weft-gpu-selftest [--device N] [--json FILE] [--no-bench] [--seed N]\n"
    "Runs every GPU operation against its reference, then measures. Exit 77 without a GPU.\n";

static const struct synthetic_shape shapes[] = {
    {"135M Q4_1", GGUF_TENSOR_Q4_1, 30, 576, 1536, 9, 3, 64, 49152, 4096},
    {"8B Q4_0", GGUF_TENSOR_Q4_0, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
    {"8B Q4_K", GGUF_TENSOR_Q4_K, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
    {"8B BF16", GGUF_TENSOR_BF16, 32, 4096, 14336, 32, 8, 128, 128256, 4096},
};

struct options {
    uint32_t device;
    uint64_t seed;
    const char *json;
    bool bench;
};

/* Returns 0 to go on, else the status to exit with. */
static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--no-bench") == 0) {
            o->bench = false;
        } else if (strcmp(argv[i], "--device") == 0 && has_value) {
            o->device = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && has_value) {
            o->seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--json") == 0 && has_value) {
            o->json = argv[++i];
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    return 0;
}

static void json_case(FILE *json, bool is_first, const char *name, const char *failure)
{
    if (!json)
        return;
    fprintf(json, "%s\n    {\"name\": \"%s\", \"ok\": %s}", is_first ? "" : ",", name,
            failure[0] ? "false" : "true");
}

static uint32_t run_cases(struct device *device, const struct options *o, FILE *json)
{
    uint32_t failed = 0;
    printf("%-24s %s\n", "operation", "result");
    for (uint32_t i = 0; i < gpu_case_count; i++) {
        const struct gpu_case *c = &gpu_cases[i];
        const char *failure = "";
        for (uint32_t r = 0; !failure[0] && r < c->rounds * ROUNDS_MORE; r++)
            failure = gpu_case_run(c, device, o->seed + i * 1000003u + r);
        failed += failure[0] != 0;
        printf("%-24s %s%s\n", c->name, failure[0] ? "FAILED: " : "ok", failure);
        json_case(json, i == 0, c->name, failure);
    }
    return failed;
}

static void run_benches(struct device *device, FILE *json)
{
    const double copy = bench_copy_bandwidth(device);
    printf("\ncopy within the device: %.0f GB/s, reads and writes together\n", copy * 1e-9);
    printf("%-12s %8s %12s %12s %14s %12s %12s\n", "model", "load s", "decode t/s", "% of floor",
           "8 streams t/s", "prefill t/s", "fast t/s");
    if (json)
        fprintf(json, "  \"copy_bytes_per_s\": %.0f,\n  \"models\": [", copy);
    bool is_first = true;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct bench_result r;
        char why[160] = "";
        const int rc = bench_model(&shapes[i], copy, &r, why, sizeof(why));
        if (rc) {
            printf("%-12s not measured (%d): %s\n", shapes[i].name, rc, why);
            continue;
        }
        printf("%-12s %8.1f %12.1f %12.1f %14.1f %12.0f %12.0f\n", r.name, r.load_s, r.decode_tps,
               100.0 * r.decode_tps / r.decode_floor, r.decode_8_tps, r.prefill_tps, r.fast_tps);
        if (json)
            fprintf(json,
                    "%s\n    {\"name\": \"%s\", \"bytes_a_token\": %zu, \"decode_tps\": %.2f, "
                    "\"decode_floor_tps\": %.2f, \"decode_8_tps\": %.2f, \"prefill_tps\": %.2f, "
                    "\"prefill_fast_tps\": %.2f}",
                    is_first ? "" : ",", r.name, r.bytes_a_token, r.decode_tps, r.decode_floor,
                    r.decode_8_tps, r.prefill_tps, r.fast_tps);
        is_first = false;
    }
    if (json)
        fputs("\n  ],\n", json);
}

static void run_dense(const struct device *device, FILE *json)
{
    struct bench_dense rates;
    if (bench_dense(device, &rates)) {
        printf("\none product: not measured\n");
        return;
    }
    printf("\none product of a prompt, BF16: op_gemm %.0f TFLOP/s, cuBLASLt ",
           rates.gemm_flops * 1e-12);
    if (rates.library_flops > 0)
        printf("%.0f TFLOP/s\n", rates.library_flops * 1e-12);
    else
        printf("not in this build\n");
    if (json)
        fprintf(json, "  \"gemm_flops\": %.0f,\n  \"cublaslt_flops\": %.0f,\n", rates.gemm_flops,
                rates.library_flops);
}

/* What ranks add up for a token of a model is 8 to 32 KiB. */
static void run_sums(FILE *json)
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

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .bench = true};
    struct device device;
    FILE *json = NULL;
    int status = parse(&o, argc, argv);
    if (status)
        return status;
    if (device_open(&device, o.device)) {
        printf("skipped: there is no CUDA device %u\n", o.device);
        return EXIT_SKIPPED;
    }
    if (o.json && !(json = fopen(o.json, "we"))) {
        perror(o.json);
        return 2;
    }
    printf("%s, sm_%u, %u processors, seed %llu\n\n", device.name, device.capability,
           device.processors, (unsigned long long)o.seed);
    if (json)
        fprintf(json, "{\n  \"device\": \"%s\", \"capability\": %u, \"seed\": %llu,\n", device.name,
                device.capability, (unsigned long long)o.seed);
    if (o.bench) {
        run_benches(&device, json);
        run_dense(&device, json);
        run_sums(json);
    }
    if (json)
        fputs("  \"cases\": [", json);
    const uint32_t failed = run_cases(&device, &o, json);
    if (json) {
        fprintf(json, "\n  ],\n  \"failed\": %u\n}\n", failed);
        (void)fclose(json);
    }
    printf("%u passed, %u failed, 0 skipped\n", gpu_case_count - failed, failed);
    device_close(&device);
    return failed ? 1 : 0;
}
