/* SPDX-License-Identifier: Apache-2.0 */
/* A library with cuBLASLt's names for the emulator, whose device memory is the host's: products the
 * plain way, and every argument looked at as the real one would. It refuses more than
 * FAKE_COLUMNS_MOST columns, as the real one has nothing for some shapes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cublaslt_api.h"
#include "tests/unit/kernels/emu/fake_cublaslt.h"

#define INVALID   7 /* CUBLAS_STATUS_INVALID_VALUE */
#define NOT_THERE 15

struct lt_desc {
    int compute, scale, turned;
};
struct lt_layout {
    int type;
    uint64_t rows, cols;
    int64_t stride;
};
struct lt_wish {
    size_t workspace;
};

uint32_t fake_cublaslt_products;
/* Not 0: any number of columns is taken, and nothing is computed. From so many on that takes no
 * time, with fewer FAKE_SLOW_MS. */
uint32_t fake_cublaslt_fast_from;
uint32_t fake_cublaslt_open; /* things that were created and not destroyed */

static float number(const struct lt_layout *l, const void *data, uint64_t at)
{
    const uint16_t bits = ((const uint16_t *)data)[at];
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    if (l->type == LT_R_16F) {
        const uint32_t exponent = bits >> 10 & 31u;
        const float small = (float)(bits & 0x3ffu) * 0x1p-24f;
        if (exponent == 0)
            return bits & 0x8000u ? -small : small;
        wide = (uint32_t)(bits & 0x8000u) << 16 | (exponent + 112u) << 23 |
               (uint32_t)(bits & 0x3ffu) << 13;
    }
    memcpy(&value, &wide, sizeof(value));
    return value;
}

static void *make(size_t size)
{
    fake_cublaslt_open++;
    return calloc(1, size);
}

static int unmake(void *thing)
{
    fake_cublaslt_open--;
    free(thing);
    return LT_SUCCESS;
}

size_t cublasLtGetVersion(void);
size_t cublasLtGetVersion(void)
{
    return FAKE_VERSION;
}

int cublasLtCreate(lt_handle_t *out);
int cublasLtCreate(lt_handle_t *out)
{
    *out = make(1);
    return LT_SUCCESS;
}

int cublasLtDestroy(lt_handle_t handle);
int cublasLtDestroy(lt_handle_t handle)
{
    return unmake(handle);
}

int cublasLtMatmulDescCreate(lt_desc_t *out, int compute, int scale);
int cublasLtMatmulDescCreate(lt_desc_t *out, int compute, int scale)
{
    *out = make(sizeof(**out));
    **out = (struct lt_desc){compute, scale, 0};
    return LT_SUCCESS;
}

int cublasLtMatmulDescDestroy(lt_desc_t desc);
int cublasLtMatmulDescDestroy(lt_desc_t desc)
{
    return unmake(desc);
}

int cublasLtMatmulDescSetAttribute(lt_desc_t desc, int attribute, const void *value, size_t size);
int cublasLtMatmulDescSetAttribute(lt_desc_t desc, int attribute, const void *value, size_t size)
{
    if (attribute != LT_DESC_TRANSA || size != sizeof(int32_t))
        return INVALID;
    memcpy(&desc->turned, value, size);
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutCreate(lt_layout_t *out, int type, uint64_t rows, uint64_t cols,
                               int64_t stride);
int cublasLtMatrixLayoutCreate(lt_layout_t *out, int type, uint64_t rows, uint64_t cols,
                               int64_t stride)
{
    *out = make(sizeof(**out));
    **out = (struct lt_layout){type, rows, cols, stride};
    return stride >= (int64_t)rows ? LT_SUCCESS : INVALID;
}

int cublasLtMatrixLayoutDestroy(lt_layout_t layout);
int cublasLtMatrixLayoutDestroy(lt_layout_t layout)
{
    return unmake(layout);
}

int cublasLtMatmulPreferenceCreate(lt_wish_t *out);
int cublasLtMatmulPreferenceCreate(lt_wish_t *out)
{
    *out = make(sizeof(**out));
    return LT_SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(lt_wish_t wish);
int cublasLtMatmulPreferenceDestroy(lt_wish_t wish)
{
    return unmake(wish);
}

int cublasLtMatmulPreferenceSetAttribute(lt_wish_t wish, int attribute, const void *value,
                                         size_t size);
int cublasLtMatmulPreferenceSetAttribute(lt_wish_t wish, int attribute, const void *value,
                                         size_t size)
{
    if (attribute != LT_WISH_WORKSPACE_BYTES || size != sizeof(wish->workspace))
        return INVALID;
    memcpy(&wish->workspace, value, size);
    return LT_SUCCESS;
}

/* d [w cols][x cols] = w^T x. */
static int check(const struct lt_desc *how, const struct lt_layout *w, const struct lt_layout *x,
                 const struct lt_layout *d)
{
    const int kind = w->type;
    return how->compute == LT_COMPUTE_32F && how->scale == LT_R_32F && how->turned == LT_OP_T &&
                   (kind == LT_R_16F || kind == LT_R_16BF) && x->type == kind &&
                   d->type == LT_R_32F && w->rows == x->rows && d->rows == w->cols &&
                   d->cols == x->cols
               ? LT_SUCCESS
               : INVALID;
}

int cublasLtMatmulAlgoGetHeuristic(lt_handle_t handle, lt_desc_t how, lt_layout_t w, lt_layout_t x,
                                   lt_layout_t c, lt_layout_t d, lt_wish_t wish, int wanted,
                                   struct lt_found *found, int *count);
int cublasLtMatmulAlgoGetHeuristic(lt_handle_t handle, lt_desc_t how, lt_layout_t w, lt_layout_t x,
                                   lt_layout_t c, lt_layout_t d, lt_wish_t wish, int wanted,
                                   struct lt_found *found, int *count)
{
    *count = 0;
    if (!handle || wanted != 1 || c != d || check(how, w, x, d) != LT_SUCCESS)
        return INVALID;
    if (x->cols > FAKE_COLUMNS_MOST && !fake_cublaslt_fast_from)
        return NOT_THERE;
    *found =
        (struct lt_found){.algo = {.data = {FAKE_VERSION}}, .workspace_bytes = wish->workspace};
    *count = 1;
    return LT_SUCCESS;
}

int cublasLtMatmul(lt_handle_t handle, lt_desc_t how, const void *alpha, const void *a,
                   lt_layout_t w, const void *b, lt_layout_t x, const void *beta, const void *c,
                   lt_layout_t c_layout, void *out, lt_layout_t d, const struct lt_algo *algo,
                   void *workspace, size_t workspace_bytes, void *stream);
int cublasLtMatmul(lt_handle_t handle, lt_desc_t how, const void *alpha, const void *a,
                   lt_layout_t w, const void *b, lt_layout_t x, const void *beta, const void *c,
                   lt_layout_t c_layout, void *out, lt_layout_t d, const struct lt_algo *algo,
                   void *workspace, size_t workspace_bytes, void *stream)
{
    const float before = *(const float *)beta;
    if (!handle || !stream || !workspace || !workspace_bytes || algo->data[0] != FAKE_VERSION ||
        *(const float *)alpha != 1.0f || c != out || c_layout != d || check(how, w, x, d))
        return INVALID;
    if (fake_cublaslt_fast_from) {
        const struct timespec slow = {.tv_nsec = FAKE_SLOW_MS * 1000000L};
        if (x->cols < fake_cublaslt_fast_from)
            (void)nanosleep(&slow, NULL);
        return LT_SUCCESS;
    }
    for (uint64_t column = 0; column < x->cols; column++)
        for (uint64_t row = 0; row < w->cols; row++) {
            float *y = (float *)out + column * (uint64_t)d->stride + row;
            float sum = 0.0f;
            for (uint64_t k = w->rows; k--;) /* another order than gemm.cu's */
                sum += number(w, a, row * (uint64_t)w->stride + k) *
                       number(x, b, column * (uint64_t)x->stride + k);
            *y = before != 0.0f ? *y * before + sum : sum;
        }
    fake_cublaslt_products++;
    return LT_SUCCESS;
}
