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
    double decode_tps;    /* one stream, behind a short prompt */
    double decode_floor;  /* tokens/s if a token took as long as reading its weights */
    double decode_8_tps;  /* eight streams, all of them together */
    double prefill_tps;   /* prompt tokens */
    size_t bytes_a_token; /* weights read */
};

/* Bytes a second that a copy within the device reads and writes together; 0 if it failed. */
double bench_copy_bandwidth(const struct device *device);

/* 0, or what cuda_create() or exec_forward() returned. `why` gets a sentence. */
int bench_model(const struct synthetic_shape *shape, double bytes_per_s, struct bench_result *out,
                char *why, size_t why_size);
