/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cases.h - what every operation of kernels/cuda/ops.h has to fulfil: one function a property, each
 * with seeded random shapes and inputs against kernels/cuda/ref.h. Run by tests/unit/kernels/emu on
 * the emulator, by tests/gpu/selftest.c on a GPU.
 */
#pragma once

#include "tests/gpu/lab.h"

struct gpu_case {
    const char *name;
    void (*run)(struct lab *lab);
    uint32_t rounds; /* worth doing, with another seed each */
};

extern const struct gpu_case gpu_cases[];
extern const uint32_t gpu_case_count;

/* Runs one round. Returns an empty text, or what went wrong (static storage). */
const char *gpu_case_run(const struct gpu_case *which, struct device *device, uint64_t seed);

/* The cases, by file. cases_matrix.c: */
void case_embed(struct lab *lab);
void case_product(struct lab *lab);
void case_norm_parts(struct lab *lab);
void case_swiglu(struct lab *lab);
void case_same_alone(struct lab *lab);

/* cases_attention.c: */
void case_rope(struct lab *lab);
void case_attend(struct lab *lab);
void case_attend_long(struct lab *lab);
void case_attend_alone(struct lab *lab);
void case_prefill(struct lab *lab);
void case_norm(struct lab *lab);
void case_swiglu_apart(struct lab *lab);

/* cases_gemm.c: */
void case_gemm(struct lab *lab);
void case_gemm_expanded(struct lab *lab);
void case_gemm_parts(struct lab *lab);
void case_gemm_swiglu(struct lab *lab);
void case_gemm_alone(struct lab *lab);

/* cases_sample.c: */
void case_sample(struct lab *lab);
