/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - how fast the CUDA backend is on the device at hand, against what its memory gives in
 * the same run. Used by selftest.c. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/device.h"
#include "tests/gpu/synthetic.h"

struct bench_result {
    const char *name;
    double load_s;
    double decode_tps;    /* one stream, behind the prompt */
    double decode_floor;  /* tokens/s if a token took as long as reading its weights */
    double decode_8_tps;  /* eight streams, all of them together */
    double prefill_tps;   /* prompt tokens */
    double fast_tps;      /* the same on the tensor cores, as halves: cuda_options.fast */
    size_t bytes_a_token; /* weights read */
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

/* Rates of one product as prompts have it (2,048 columns, a matrix of 14,336 x 4,096 in BF16), in
 * operations a second: by op_gemm(), and by cuBLASLt, 0 where this was built without. */
struct bench_dense {
    double gemm_flops;
    double library_flops;
};

/* 0 or a negative errno. */
int bench_dense(const struct device *device, struct bench_dense *out);

/* Bytes a second that a copy within the device reads and writes together; 0 if it failed. */
double bench_copy_bandwidth(const struct device *device);

/* 0, or what cuda_create() or exec_forward() returned. `why` gets a sentence. */
int bench_model(const struct synthetic_shape *shape, double bytes_per_s, struct bench_result *out,
                char *why, size_t why_size);
