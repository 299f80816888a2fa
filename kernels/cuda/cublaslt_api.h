/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cublaslt_api.h - what cublaslt.c uses of cuBLASLt, declared here so that a worker is built
 * without its header and starts without the library: it is looked for when it is first wanted.
 * Names and numbers are those of the binary interface of cuBLASLt 12 and 13
 * (https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api); tests/gpu/cublaslt_abi.c holds
 * them to the header where there is one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct lt_handle *lt_handle_t;
typedef struct lt_desc *lt_desc_t;
typedef struct lt_layout *lt_layout_t;
typedef struct lt_wish *lt_wish_t;

enum {
    LT_SUCCESS = 0,
    LT_R_32F = 0, /* cudaDataType */
    LT_R_16F = 2,
    LT_R_16BF = 14,
    LT_COMPUTE_32F = 68,
    LT_OP_T = 1,
    LT_DESC_TRANSA = 3,
    LT_WISH_WORKSPACE_BYTES = 1,
};

struct lt_algo {
    uint64_t data[8];
};

struct lt_found {
    struct lt_algo algo;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
};

/* X(member, exported name, result, arguments) */
#define LT_CALLS(X)                                                                                \
    X(get_version, "cublasLtGetVersion", size_t, (void))                                           \
    X(create, "cublasLtCreate", int, (lt_handle_t *))                                              \
    X(destroy, "cublasLtDestroy", int, (lt_handle_t))                                              \
    X(desc_create, "cublasLtMatmulDescCreate", int, (lt_desc_t *, int, int))                       \
    X(desc_destroy, "cublasLtMatmulDescDestroy", int, (lt_desc_t))                                 \
    X(desc_set, "cublasLtMatmulDescSetAttribute", int, (lt_desc_t, int, const void *, size_t))     \
    X(layout_create, "cublasLtMatrixLayoutCreate", int,                                            \
      (lt_layout_t *, int, uint64_t, uint64_t, int64_t))                                           \
    X(layout_destroy, "cublasLtMatrixLayoutDestroy", int, (lt_layout_t))                           \
    X(wish_create, "cublasLtMatmulPreferenceCreate", int, (lt_wish_t *))                           \
    X(wish_destroy, "cublasLtMatmulPreferenceDestroy", int, (lt_wish_t))                           \
    X(wish_set, "cublasLtMatmulPreferenceSetAttribute", int,                                       \
      (lt_wish_t, int, const void *, size_t))                                                      \
    X(find, "cublasLtMatmulAlgoGetHeuristic", int,                                                 \
      (lt_handle_t, lt_desc_t, lt_layout_t, lt_layout_t, lt_layout_t, lt_layout_t, lt_wish_t, int, \
       struct lt_found *, int *))                                                                  \
    X(matmul, "cublasLtMatmul", int,                                                               \
      (lt_handle_t, lt_desc_t, const void *, const void *, lt_layout_t, const void *, lt_layout_t, \
       const void *, const void *, lt_layout_t, void *, lt_layout_t, const struct lt_algo *,       \
       void *, size_t, void *))

struct lt_api {
#define LT_MEMBER(member, name, result, arguments) result(*member) arguments;
    LT_CALLS(LT_MEMBER)
#undef LT_MEMBER
};
