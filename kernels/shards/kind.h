/* SPDX-License-Identifier: Apache-2.0 */
/* kind.h - what ranks differ in by where they compute: how a part is opened, and how the ranks of a
 * stage find each other. Processors meet in shared memory, GPUs through NCCL. Used by shards.c and
 * rank.c only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "kernels/exec.h"
#include "kernels/shards/orders.h"
#include "kernels/shards/shards.h"

/* Can this build, on this machine, run `hello`'s ranks? 0 or -ENOTSUP or -ENODEV with a sentence.
 */
int kind_check(const struct hello *hello, char *why, size_t why_size);

/* Does its team meet through NCCL? Else it needs collective_shm_create(). */
bool kind_uses_nccl(const struct hello *hello);

/* The backend of `part`, for the rank at shard->place. */
int kind_open(exec_t **out, const struct hello *hello, const struct model *part,
              const struct shard *shard, char *why, size_t why_size);

/* What kind_join() wants to know of NCCL, made by the first rank. */
int kind_make_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES]);

/* Joins the team of shard->place, by `fd` or by `id`; returns when all have. `lines` are the
 * sockets to other ranks, by which NCCL's ranks know of an end. */
int kind_join(struct shard *shard, const struct hello *hello, const exec_t *exec, int fd,
              const uint8_t id[COLLECTIVE_NCCL_ID_BYTES], const int *lines, uint32_t line_count);
