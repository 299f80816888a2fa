/* SPDX-License-Identifier: Apache-2.0 */
/* The table of all cases. */
#include "tests/gpu/cases.h"

#include <stdio.h>

const struct gpu_case gpu_cases[] = {
    {"embed", case_embed, 3},
    {"matvec/product", case_product, 3},
    {"matvec/norm_parts", case_norm_parts, 6},
    {"matvec/swiglu", case_swiglu, 4},
    {"matvec/same_alone", case_same_alone, 4},
    {"gemm", case_gemm, 1},
    {"gemm/expanded", case_gemm_expanded, 1},
    {"gemm/parts", case_gemm_parts, 2},
    {"gemm/swiglu", case_gemm_swiglu, 3},
    {"gemm/same_alone", case_gemm_alone, 2},
    {"rope", case_rope, 8},
    {"attend", case_attend, 6},
    {"attend/long", case_attend_long, 1},
    {"attend/same_alone", case_attend_alone, 3},
    {"prefill", case_prefill, 5},
    {"norm", case_norm, 3},
    {"swiglu", case_swiglu_apart, 2},
    {"sample", case_sample, 8},
};
const uint32_t gpu_case_count = sizeof(gpu_cases) / sizeof(gpu_cases[0]);

const char *gpu_case_run(const struct gpu_case *which, struct device *device, uint64_t seed)
{
    static char failure[320];
    struct lab lab;
    lab_init(&lab, device, seed);
    which->run(&lab);
    (void)snprintf(failure, sizeof(failure), "%s", lab.failure);
    lab_deinit(&lab);
    return failure;
}
