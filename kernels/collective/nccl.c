/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are GPUs: NCCL's calls on the backend's stream. Sums are NCCL's, whose order depends
 * on the number of ranks and the way between them, but not on time. */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/collective/collective.h"

_Static_assert(sizeof(ncclUniqueId) == COLLECTIVE_NCCL_ID_BYTES, "NCCL's id has this size");

struct nccl {
    struct collective base; /* first */
    ncclComm_t comm;
    cudaStream_t stream;
};

static int to_errno(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
    case ncclInProgress:
        return 0;
    case ncclRemoteError:
        return -EPIPE;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
        return -EINVAL;
    default:
        return -EIO;
    }
}

static int nccl_allreduce(struct collective *self, float *data, size_t count)
{
    struct nccl *n = (struct nccl *)self;
    return to_errno(ncclAllReduce(data, data, count, ncclFloat, ncclSum, n->comm, n->stream));
}

static int nccl_allgather(struct collective *self, const void *mine, size_t size_bytes, void *all)
{
    struct nccl *n = (struct nccl *)self;
    return to_errno(ncclAllGather(mine, all, size_bytes, ncclChar, n->comm, n->stream));
}

static int nccl_broadcast(struct collective *self, void *data, size_t size_bytes, uint32_t root)
{
    struct nccl *n = (struct nccl *)self;
    if (root >= self->ranks)
        return -EINVAL;
    return to_errno(ncclBroadcast(data, data, size_bytes, ncclChar, (int)root, n->comm, n->stream));
}

static int nccl_check(struct collective *self)
{
    struct nccl *n = (struct nccl *)self;
    ncclResult_t later = ncclSuccess;
    const int rc = to_errno(ncclCommGetAsyncError(n->comm, &later));
    return rc ? rc : to_errno(later);
}

/* A group that is not whole cannot be taken down in order: its calls would wait for the dead. */
static void nccl_destroy(struct collective *self)
{
    struct nccl *n = (struct nccl *)self;
    if (n->comm && nccl_check(self))
        (void)ncclCommAbort(n->comm);
    else if (n->comm)
        (void)ncclCommDestroy(n->comm);
    free(n);
}

static const struct collective_ops nccl_ops = {
    .allreduce = nccl_allreduce,
    .allgather = nccl_allgather,
    .broadcast = nccl_broadcast,
    .check = nccl_check,
    .destroy = nccl_destroy,
};

int collective_nccl_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES])
{
    ncclUniqueId unique;
    const int rc = to_errno(ncclGetUniqueId(&unique));
    if (!rc)
        memcpy(id, &unique, sizeof(unique));
    return rc;
}

int collective_nccl_join(struct collective **out, const uint8_t id[COLLECTIVE_NCCL_ID_BYTES],
                         uint32_t rank, uint32_t ranks, void *stream)
{
    ncclUniqueId unique;
    *out = NULL;
    if (rank >= ranks || ranks > COLLECTIVE_RANKS_MAX)
        return -EINVAL;
    struct nccl *n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->base = (struct collective){&nccl_ops, rank, ranks};
    n->stream = stream;
    memcpy(&unique, id, sizeof(unique));
    const int rc = to_errno(ncclCommInitRank(&n->comm, (int)ranks, unique, (int)rank));
    if (rc) {
        free(n);
        return rc;
    }
    *out = &n->base;
    return 0;
}
