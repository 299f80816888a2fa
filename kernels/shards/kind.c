/* SPDX-License-Identifier: Apache-2.0 */
/* See kind.h. WEFT_WITH_CUDA: the CUDA backend is part of the build. WEFT_WITH_NCCL: NCCL is, too.
 * WEFT_WITH_EMULATOR: its device is the host's memory, so that its ranks can meet there; tests. */
#include "kernels/shards/kind.h"

#include <stdio.h>

#ifdef WEFT_WITH_CUDA
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#endif

static struct cpu_options cpu_options_of(const struct hello *h, const struct shard *shard)
{
    return (struct cpu_options){
        .threads = h->threads,
        .slots = h->slots,
        .context = h->context,
        .batch_max = h->batch_max,
        .pages = h->pages,
        .force_portable = h->force_portable,
        .exact = h->exact,
        .shard = shard,
    };
}

#ifdef WEFT_WITH_NCCL

bool kind_uses_nccl(const struct hello *hello)
{
    return hello->is_cuda;
}

int kind_make_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES])
{
    return collective_nccl_id(id);
}

#else

bool kind_uses_nccl(const struct hello *hello)
{
    (void)hello;
    return false;
}

int kind_make_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES])
{
    (void)id;
    return -ENOTSUP;
}

#endif

#ifdef WEFT_WITH_CUDA

static int check_cuda(const struct hello *h, char *why, size_t why_size)
{
    const uint32_t shards = h->place.shards;
    const uint32_t devices = device_count();
    if (h->place.stages > 1) {
        (void)snprintf(why, why_size, "stages are for the cpu backend");
        return -ENOTSUP;
    }
#if !defined(WEFT_WITH_NCCL) && !defined(WEFT_WITH_EMULATOR)
    (void)snprintf(why, why_size, "this build has no NCCL for %u CUDA devices", shards);
    return -ENOTSUP;
#endif
    if (kind_uses_nccl(h) && devices < shards) {
        (void)snprintf(why, why_size, "%u shards take a CUDA device each, and there are %u", shards,
                       devices);
        return -ENODEV;
    }
    return 0;
}

static int open_cuda(exec_t **out, const struct hello *h, const struct model *part,
                     const struct shard *shard, char *why, size_t why_size)
{
    const uint32_t devices = device_count();
    const struct cuda_options options = {
        .device = devices ? shard->place.shard % devices : 0,
        .slots = h->slots,
        .context = h->context,
        .batch_max = h->batch_max,
        .pages = h->pages,
        .half_kv = h->half_kv,
        .fast = h->fast,
        .gemm = (enum cuda_gemm)h->gemm,
        .shard = shard,
    };
    return cuda_create(out, part, &options, why, why_size);
}

#else

static int check_cuda(const struct hello *h, char *why, size_t why_size)
{
    (void)h;
    (void)snprintf(why, why_size, "this build has no CUDA backend");
    return -ENOTSUP;
}

static int open_cuda(exec_t **out, const struct hello *h, const struct model *part,
                     const struct shard *shard, char *why, size_t why_size)
{
    (void)part;
    (void)shard;
    *out = NULL;
    return check_cuda(h, why, why_size);
}

#endif

int kind_check(const struct hello *hello, char *why, size_t why_size)
{
    return hello->is_cuda ? check_cuda(hello, why, why_size) : 0;
}

int kind_open(exec_t **out, const struct hello *hello, const struct model *part,
              const struct shard *shard, char *why, size_t why_size)
{
    if (hello->is_cuda)
        return open_cuda(out, hello, part, shard, why, why_size);
    const struct cpu_options cpu = cpu_options_of(hello, shard);
    return cpu_create(out, part, &cpu);
}

int kind_join(struct shard *shard, const struct hello *hello, const exec_t *exec, int fd,
              const uint8_t id[COLLECTIVE_NCCL_ID_BYTES], const int *lines, uint32_t line_count)
{
    const struct model_place *place = &shard->place;
#ifdef WEFT_WITH_NCCL
    if (kind_uses_nccl(hello)) {
        const struct collective_nccl how = {.id = id,
                                            .rank = place->shard,
                                            .ranks = place->shards,
                                            .stream = cuda_stream(exec),
                                            .timeout_ms = hello->timeout_ms,
                                            .lines = lines,
                                            .line_count = line_count};
        return collective_nccl_join(&shard->team, &how);
    }
#endif
    (void)exec;
    (void)id;
    (void)lines;
    (void)line_count;
    return collective_shm_join(&shard->team, fd, place->shard, hello->timeout_ms);
}
