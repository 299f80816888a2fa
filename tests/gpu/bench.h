/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - how fast the CUDA backend is on the device at hand, against what its memory and its
 * tensor cores give in the same run. Used by selftest.c and report.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/cuda/device.h"
#include "tests/gpu/synthetic.h"

/* How much is measured: on a GPU, or on the emulator, where only the way there is of interest. */
struct bench_plan {
    uint32_t prompt;       /* tokens */
    uint32_t short_prompt; /* for the time to the first token */
    uint32_t chunk;        /* rows of a step, in float32 */
    uint32_t fast_chunk;   /* and on the tensor cores */
    uint32_t streams;      /* of the batch */
    uint32_t decode_warm;
    uint32_t decode_steps;
    size_t copy_bytes;
    uint32_t dense_rows; /* of one product */
    uint32_t dense_cols;
    uint32_t dense_columns;
};
extern const struct bench_plan bench_plan_full;
extern const struct bench_plan bench_plan_small;

/* Rates are tokens a second. */
struct bench_result {
    const char *name;
    double load_s;
    double decode_tps;       /* one stream, behind the prompt */
    double decode_floor;     /* if a token took as long as reading its weights */
    double decode_batch_tps; /* `streams` streams, all of them together */
    double overhead;         /* of one stream's time a token: the part that no kernel runs in */
    double prefill_tps;      /* in float32 */
    double fast_tps;         /* on the tensor cores: cuda_options.fast */
    double auto_tps;         /* with CUDA_GEMM_AUTO; 0 if that is nothing else here */
    double short_first_s;    /* from a prompt's tokens to the first one's logits, as `fast` */
    double long_first_s;
    double flops_a_token; /* of a prompt of plan->prompt, without the embedding's matrix */
    size_t bytes_a_token; /* weights read */
    char chosen[144];     /* what CUDA_GEMM_AUTO has chosen */
};

/* What one sum over all devices of this machine takes, in microseconds: in memory like any other,
 * and in the group's own (collective_memory()), 0 if it has none. */
struct bench_sum {
    size_t size_bytes;
    double plain_us;
    double window_us;
};

#define BENCH_SUMS 4u

/* A rank a device, each on a thread. Returns how many ranks there were: 0 without NCCL or with one
 * device; or a negative errno. */
int bench_sums(struct bench_sum out[BENCH_SUMS]);

/* Rates of one product as prompts have it (the plan's: 2,048 columns, a matrix of 14,336 x 4,096 in
 * BF16), in operations a second: by op_gemm(), and by cuBLASLt, 0 with a sentence in `why` where it
 * is not there. */
struct bench_dense {
    double gemm_flops;
    double library_flops;
    uint32_t library_version;
    char why[200];
};

/* 0 or a negative errno. */
int bench_dense(const struct device *device, const struct bench_plan *plan,
                struct bench_dense *out);

/* Bytes a second that a copy within the device reads and writes together; 0 if it failed. */
double bench_copy_bandwidth(const struct device *device, const struct bench_plan *plan);

/* 0, or what cuda_create() or exec_forward() returned. `why` gets a sentence. */
int bench_model(const struct bench_plan *plan, const struct synthetic_shape *shape,
                double bytes_per_s, struct bench_result *out, char *why, size_t why_size);

/* report.c: all of that, as a table and, if `json` is not NULL, as members of its object. */
void report_benches(const struct device *device, bool is_small, FILE *json);
