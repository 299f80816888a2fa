/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are GPUs: NCCL's calls on the backend's stream. Sums are NCCL's, whose order depends
 * on the number of ranks and the way between them, but not on time.
 *
 * The communicator does not block (ncclConfig_t.blocking = 0): whatever waits for other ranks is
 * waited for here, with a limit, so that a rank that is gone does not hold the others for ever.
 * https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/usage/communicators.html */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/collective/collective.h"
#include "kernels/collective/nccl_api.h"

_Static_assert(sizeof(ncclUniqueId) == COLLECTIVE_NCCL_ID_BYTES, "NCCL's id has this size");

#define NS_PER_MS  UINT64_C(1000000)
#define JOIN_NS    (UINT64_C(120000) * NS_PER_MS) /* finding each other takes its time */
#define LOOK_EVERY 64u /* polls of an event between two looks at the group */

struct nccl {
    struct collective base; /* first */
    const struct nccl_api *api;
    ncclComm_t comm;
    cudaStream_t stream;
    uint64_t timeout_ns; /* 0 = none */
    struct pollfd lines[COLLECTIVE_RANKS_MAX];
    uint32_t line_count;
    int failure; /* errno: a failed group stays failed */
#if NCCL_HAS_WINDOWS
    void *memory; /* of the window: sums of few bytes are then one kernel that reads all ranks' */
    ncclWindow_t window;
#endif
};

static int to_errno(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return 0;
    case ncclInProgress:
        return -EAGAIN;
    case ncclRemoteError:
        return -EPIPE;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
        return -EINVAL;
    default:
        return -EIO;
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static bool is_late(const struct nccl *n, uint64_t begin_ns)
{
    return n->timeout_ns && now_ns() - begin_ns > n->timeout_ns;
}

/* NCCL does not notice when a process of the same machine is gone. */
static bool is_rank_gone(struct nccl *n)
{
    if (n->line_count == 0 || poll(n->lines, n->line_count, 0) <= 0)
        return false;
    for (uint32_t i = 0; i < n->line_count; i++)
        if (n->lines[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))
            return true;
    return false;
}

/* 0, -EAGAIN while something is under way, or what has broken the group. */
static int look(struct nccl *n)
{
    ncclResult_t later = ncclSuccess;
    const int rc = to_errno(n->api->ncclCommGetAsyncError(n->comm, &later));
    if (is_rank_gone(n))
        return -EPIPE;
    return rc ? rc : to_errno(later);
}

/* What a call has returned, once it is more than "in progress". */
static int settle(struct nccl *n, ncclResult_t result)
{
    const struct timespec nap = {.tv_nsec = 50000};
    const uint64_t begin_ns = now_ns();
    int rc = to_errno(result);
    while (rc == -EAGAIN) {
        rc = is_late(n, begin_ns) ? -ETIMEDOUT : look(n);
        if (rc == -EAGAIN)
            (void)nanosleep(&nap, NULL);
    }
    if (rc && rc != -EINVAL)
        n->failure = rc;
    return rc;
}

static int nccl_allreduce(struct collective *self, float *data, size_t count)
{
    struct nccl *n = (struct nccl *)self;
    if (n->failure)
        return n->failure;
    return settle(n,
                  n->api->ncclAllReduce(data, data, count, ncclFloat, ncclSum, n->comm, n->stream));
}

static int nccl_allgather(struct collective *self, const void *mine, size_t size_bytes, void *all)
{
    struct nccl *n = (struct nccl *)self;
    if (n->failure)
        return n->failure;
    return settle(n, n->api->ncclAllGather(mine, all, size_bytes, ncclChar, n->comm, n->stream));
}

static int nccl_broadcast(struct collective *self, void *data, size_t size_bytes, uint32_t root)
{
    struct nccl *n = (struct nccl *)self;
    if (n->failure || root >= self->ranks)
        return n->failure ? n->failure : -EINVAL;
    return settle(
        n, n->api->ncclBroadcast(data, data, size_bytes, ncclChar, (int)root, n->comm, n->stream));
}

static int nccl_check(struct collective *self)
{
    struct nccl *n = (struct nccl *)self;
    if (!n->failure) {
        const int rc = look(n);
        n->failure = rc == -EAGAIN ? 0 : rc;
    }
    return n->failure;
}

/* Polls: a wait of the runtime's would not end when a rank is gone. */
static int nccl_wait(struct collective *self, void *event)
{
    struct nccl *n = (struct nccl *)self;
    const uint64_t begin_ns = now_ns();
    for (uint32_t polls = 1; !n->failure; polls++) {
        const cudaError_t error = cudaEventQuery(event);
        if (error == cudaSuccess)
            return 0;
        (void)cudaGetLastError(); /* "not ready" is kept as if it were a failure */
        if (error != cudaErrorNotReady)
            n->failure = -EIO;
        else if (polls % LOOK_EVERY == 0 && nccl_check(self) == 0 && is_late(n, begin_ns))
            n->failure = -ETIMEDOUT;
    }
    return n->failure;
}

/* Once, the same size everywhere: registering is a call of all ranks. */
static void *nccl_memory(struct collective *self, size_t size_bytes)
{
#if NCCL_HAS_WINDOWS
    struct nccl *n = (struct nccl *)self;
    if (n->memory || n->failure || n->api->ncclMemAlloc(&n->memory, size_bytes) != ncclSuccess)
        return n->memory;
    const ncclResult_t result = n->api->ncclCommWindowRegister(n->comm, n->memory, size_bytes,
                                                               &n->window, NCCL_WIN_COLL_SYMMETRIC);
    if (settle(n, result) || !n->window) {
        (void)n->api->ncclMemFree(n->memory);
        n->memory = NULL;
    }
    return n->memory;
#else
    (void)self;
    (void)size_bytes;
    return NULL;
#endif
}

/* Not in NCCL's order, which would wait until all others leave, too; nothing is under way any more
 * or ever will be. */
static void nccl_destroy(struct collective *self)
{
    struct nccl *n = (struct nccl *)self;
    (void)n->api->ncclCommAbort(n->comm);
#if NCCL_HAS_WINDOWS
    if (n->memory)
        (void)n->api->ncclMemFree(n->memory);
#endif
    free(n);
}

static const struct collective_ops nccl_ops = {
    .allreduce = nccl_allreduce,
    .allgather = nccl_allgather,
    .broadcast = nccl_broadcast,
    .check = nccl_check,
    .wait = nccl_wait,
    .memory = nccl_memory,
    .destroy = nccl_destroy,
};

int collective_nccl_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES])
{
    ncclUniqueId unique;
    const struct nccl_api *api = nccl_api();
    const int rc = api ? to_errno(api->ncclGetUniqueId(&unique)) : -ENOTSUP;
    if (rc == 0)
        memcpy(id, &unique, sizeof(unique));
    return rc;
}

static struct nccl *create(const struct collective_nccl *how, const struct nccl_api *api)
{
    struct nccl *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->base = (struct collective){.ops = &nccl_ops,
                                  .rank = how->rank,
                                  .ranks = how->ranks,
                                  .is_on_stream = true,
                                  .serial = now_ns()};
    n->api = api;
    n->stream = how->stream;
    n->timeout_ns = how->timeout_ms * NS_PER_MS;
    n->line_count = how->line_count;
    for (uint32_t i = 0; i < how->line_count; i++)
        n->lines[i] = (struct pollfd){.fd = how->lines[i], .events = POLLRDHUP};
    return n;
}

int collective_nccl_join(struct collective **out, const struct collective_nccl *how)
{
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    const struct nccl_api *api = nccl_api();
    *out = NULL;
    if (how->rank >= how->ranks || how->ranks > COLLECTIVE_RANKS_MAX ||
        how->line_count > COLLECTIVE_RANKS_MAX)
        return -EINVAL;
    if (!api)
        return -ENOTSUP;
    struct nccl *n = create(how, api);
    if (!n)
        return -ENOMEM;
    const uint64_t limit_ns = n->timeout_ns;
    n->timeout_ns = limit_ns && limit_ns < JOIN_NS ? JOIN_NS : limit_ns;
    config.blocking = 0;
    memcpy(&unique, how->id, sizeof(unique));
    const int rc = settle(
        n, api->ncclCommInitRankConfig(&n->comm, (int)how->ranks, unique, (int)how->rank, &config));
    if (rc) {
        if (n->comm)
            (void)api->ncclCommAbort(n->comm);
        free(n);
        return rc;
    }
    n->timeout_ns = limit_ns;
    *out = &n->base;
    return 0;
}
