/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.h - the CUDA backend of exec.h: a model's weights and a paged KV cache on one device, a
 * forward pass made of ops.h. Plain C; no type of the toolkit.
 *
 * Threads: as exec.h says; a forked child cannot use it.
 * Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/collective/shard.h"
#include "kernels/exec.h"
#include "kernels/model/model.h"

/* Who makes the products of the fast way. */
enum cuda_gemm {
    CUDA_GEMM_OWN = 0,  /* gemm.cu: a prompt is the same bits however it is cut */
    CUDA_GEMM_AUTO,     /* for each shape of a matrix who is faster, measured at creation; one
                         * device, and gemm.cu without the library */
    CUDA_GEMM_CUBLASLT, /* cuBLASLt */
};

struct cuda_options {
    uint32_t device;    /* of device_count() */
    uint32_t slots;     /* sequences with a KV cache; 0 = 1 */
    uint32_t context;   /* positions of a slot; 0 or more than the model's = the model's */
    uint32_t batch_max; /* rows of one forward; 0 = 64 */
    uint32_t pages;     /* of the KV cache, one context's at least; 0 = a context for each slot */
    bool half_kv;       /* keys and values as halves: half the memory, other numbers */
    /* Rows that want no logits go through the tensor cores, as halves: several times as fast, other
     * numbers. Rows that want logits stay float32. So a prompt cut in another way is the same bits
     * still, but a token that was computed as the last of its sequence is not the one that comes
     * again in the middle of a prompt. Also by WEFT_CUDA=fast in the environment. */
    bool fast;
    enum cuda_gemm gemm;
    bool timed; /* for cuda_step_seconds(); takes a microsecond or two a step */
    /* NULL: alone. Else the model is the part at its place (kernels/model/part.h), one stage; all
     * ranks call the same functions with the same arguments, and only the first gives logits and
     * states. Its team may become another between two calls. */
    const struct shard *shard;
};

/* The model, and the shard, must outlive the backend. Weights are copied to the device. Returns 0,
 * -EINVAL, -ENOMEM, -ENODEV without a device, -ENOTSUP for a model whose shapes or types the
 * kernels do not take; `why` gets a sentence. */
int cuda_create(exec_t **out, const struct model *model, const struct cuda_options *options,
                char *why, size_t why_size);

/* The stream that everything is put on, for the ranks' calls; its device becomes the thread's. NULL
 * if that fails. */
void *cuda_stream(const exec_t *exec);

/* What the kernels of the last step took, if that was a graph and cuda_options.timed; else 0. */
double cuda_step_seconds(const exec_t *exec);

/* Bytes of KV cache that a slot of `context` positions takes; SIZE_MAX if beyond counting. */
size_t cuda_kv_slot_bytes(const struct model *model, uint32_t context, bool half_kv);
