/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shards.h - one model on several processes of this machine, as one backend of exec.h. The caller's
 * process is the first rank; it starts the others (its own program once more), tells them each
 * forward, and computes its part of it. What a rank computes: model/part.h; how they add it up:
 * collective/shard.h.
 *
 * A rank that dies or stands still makes the forward fail with -ESTALE; by then the others have
 * been ended and new ones are on their way. The next forward waits for them.
 *
 * Threads: as exec.h. Starting processes does not disturb other threads. Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/cpu.h"
#include "kernels/exec.h"
#include "kernels/model/model.h"

#define SHARDS_RANKS_MAX COLLECTIVE_RANKS_MAX

struct shards_options {
    const char *model_path; /* the model's file: the ranks open it by themselves */
    uint32_t shards;        /* ranks of a stage; 0 = 1 */
    uint32_t stages;        /* 0 = 1 */
    uint32_t timeout_ms;    /* a rank that is waited for so long stands still; 0 = 10,000 */
    struct cpu_options cpu; /* of each rank */
    bool is_cuda;           /* a CUDA device each, with the sizes of `cpu`; no stages */
    bool half_kv;           /* as in cuda_options */
    bool fast;
    uint32_t gemm; /* enum cuda_gemm */
};

/* `model` is the whole one and must outlive the backend. Returns when all ranks are there. `why`
 * gets a sentence when it fails. */
int shards_create(exec_t **out, const struct model *model, const struct shards_options *options,
                  char *why, size_t why_size);

/* Has this process been started as a rank? Then main() does nothing but return
 * shards_rank_main(). */
bool shards_is_rank(int argc, char **argv);
int shards_rank_main(void);
