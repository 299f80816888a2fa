/* SPDX-License-Identifier: Apache-2.0 */
/* nccl_api.h - NCCL's calls, found when they are first wanted: a worker that was built with NCCL
 * starts where there is none. Used by nccl.c. */
#pragma once

#include <nccl.h>

/* Memory of every rank at the same place of a window. */
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
#define NCCL_HAS_WINDOWS 1
#else
#define NCCL_HAS_WINDOWS 0
#endif

#define NCCL_BASE_CALLS(X)                                                                         \
    X(ncclGetUniqueId)                                                                             \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommAbort)                                                                               \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclAllReduce)                                                                               \
    X(ncclAllGather)                                                                               \
    X(ncclBroadcast)

#if NCCL_HAS_WINDOWS
#define NCCL_CALLS(X)                                                                              \
    NCCL_BASE_CALLS(X)                                                                             \
    X(ncclMemAlloc)                                                                                \
    X(ncclMemFree)                                                                                 \
    X(ncclCommWindowRegister)
#else
#define NCCL_CALLS(X) NCCL_BASE_CALLS(X)
#endif

/* By NCCL's own names. */
struct nccl_api {
#define NCCL_MEMBER(name) __typeof__(&name) name;
    NCCL_CALLS(NCCL_MEMBER)
#undef NCCL_MEMBER
};

/* NULL if this machine has no NCCL, or one that lacks a call. Any thread; stays valid. */
const struct nccl_api *nccl_api(void);
