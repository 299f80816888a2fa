/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - the CPU backend of exec.h. kernels.h is its arithmetic, pool.h its threads.
 *
 * Threads: as exec.h says. Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/collective/shard.h"
#include "kernels/exec.h"
#include "kernels/model/model.h"

struct cpu_options {
    uint32_t threads;    /* 0 = 1 */
    uint32_t slots;      /* sequences with a KV cache; 0 = 1 */
    uint32_t context;    /* positions of a slot; 0 or more than the model's = the model's */
    uint32_t batch_max;  /* rows of one forward; 0 = 64 */
    uint32_t pages;      /* of the KV cache, one context's at least; 0 = a context for each slot.
                          * With fewer, slots beyond them need exec_place() first */
    bool force_portable; /* also by WEFT_CPU=portable in the environment */
    bool exact;          /* float32 throughout; also by WEFT_CPU=exact. See kernels.h */
    /* NULL: alone. Else the model is the part at its place (model/part.h), all ranks call the same
     * functions with the same arguments, and only the first gives logits and states. Its groups may
     * become others between two calls. */
    const struct shard *shard;
};

/* The model, and the shard, must outlive the backend. The KV cache is reserved here and takes
 * memory only as positions are first used. Returns 0, -EINVAL, -ENOMEM. */
int cpu_create(exec_t **out, const struct model *model, const struct cpu_options *options);

/* Bytes of KV cache that one slot of `context` positions takes; SIZE_MAX if beyond counting. */
size_t cpu_kv_slot_bytes(const struct model *model, uint32_t context);
