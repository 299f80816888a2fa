/* SPDX-License-Identifier: Apache-2.0 */
/*
 * collective.h - what ranks that compute one model together need of each other. Implemented by
 * shm.c (processes of one machine) and nccl.c (GPUs). Plain C: no type of any toolkit.
 *
 * All ranks make the same calls in the same order with the same sizes. Sums are taken in the order
 * of the ranks in shm.c, so that all get the same bits.
 *
 * Where `data` lies and when a call is done is the kind's matter: shm: the caller's memory, done on
 * return. NCCL: the device's memory, put on the stream that was given; failures that come later are
 * reported by collective_check().
 *
 * Threads: one rank belongs to one thread at a time. Errors: 0, -EINVAL, -EPIPE when a rank has
 * died or left, -ETIMEDOUT when one stands still, -EIO for what NCCL reports. After a failure every
 * further call fails: the group has to be made anew.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COLLECTIVE_RANKS_MAX 16u

struct collective;

struct collective_ops {
    int (*allreduce)(struct collective *self, float *data, size_t count);
    int (*allgather)(struct collective *self, const void *mine, size_t size_bytes, void *all);
    int (*broadcast)(struct collective *self, void *data, size_t size_bytes, uint32_t root);
    int (*check)(struct collective *self);
    int (*wait)(struct collective *self, void *event); /* NULL: calls are done on return */
    void *(*memory)(struct collective *self, size_t size_bytes); /* NULL: there is none */
    void (*destroy)(struct collective *self);
};

struct collective {
    const struct collective_ops *ops;
    uint32_t rank;
    uint32_t ranks;
    bool is_on_stream; /* calls may be captured into a graph */
    uint64_t serial;   /* of those on a stream: another one for every group of this process */
};

/* data[i] becomes the sum of all ranks' data[i]. */
static inline int collective_allreduce(struct collective *c, float *data, size_t count)
{
    return c->ops->allreduce(c, data, count);
}

/* all[rank * size_bytes ...] becomes each rank's `mine`. */
static inline int collective_allgather(struct collective *c, const void *mine, size_t size_bytes,
                                       void *all)
{
    return c->ops->allgather(c, mine, size_bytes, all);
}

/* Everyone's data becomes the root's. */
static inline int collective_broadcast(struct collective *c, void *data, size_t size_bytes,
                                       uint32_t root)
{
    return c->ops->broadcast(c, data, size_bytes, root);
}

/* Is the group still whole, as far as is known? Does not wait. */
static inline int collective_check(struct collective *c)
{
    return c->ops->check(c);
}

/* Until the stream has come to `event`, one of struct device's marks, or the group turns out to be
 * broken: -EPIPE, -ETIMEDOUT, -EIO. */
static inline int collective_wait(struct collective *c, void *event)
{
    return c->ops->wait ? c->ops->wait(c, event) : 0;
}

/* The group's own memory, where sums of few bytes are faster than elsewhere; NULL if the kind has
 * none. Once, with the same size at all ranks; it goes with the group. */
static inline void *collective_memory(struct collective *c, size_t size_bytes)
{
    return c->ops->memory ? c->ops->memory(c, size_bytes) : NULL;
}

/* Leaves the group: calls of others that wait for this rank fail. NULL is fine. */
static inline void collective_destroy(struct collective *c)
{
    if (c)
        c->ops->destroy(c);
}

/* ---- shm.c --------------------------------------------------------------------------------- */

/* Memory for a group of `ranks` that exchange `part_bytes` a meeting (longer data takes several).
 * Returns a descriptor that children inherit unless they exec, or a negative errno. */
int collective_shm_create(uint32_t ranks, size_t part_bytes);

/* Joins as `rank`; returns when all have. `timeout_ms` limits this and every later wait; 0 = no
 * limit but death. The descriptor stays the caller's and may be closed afterwards. -EINVAL for a
 * descriptor that is no group's, -EBUSY if the rank is taken. */
int collective_shm_join(struct collective **out, int fd, uint32_t rank, uint32_t timeout_ms);

/* ---- nccl.c, in builds with NCCL ----------------------------------------------------------- */

#define COLLECTIVE_NCCL_ID_BYTES 128u

/* Made by one rank, handed to all. -ENOTSUP where there is no NCCL after all: it is found when it
 * is first wanted, not when the program starts. */
int collective_nccl_id(uint8_t id[COLLECTIVE_NCCL_ID_BYTES]);

/* How a rank joins. */
struct collective_nccl {
    const uint8_t *id; /* COLLECTIVE_NCCL_ID_BYTES */
    uint32_t rank;
    uint32_t ranks;
    void *stream;        /* struct device's */
    uint32_t timeout_ms; /* of every wait for other ranks, but longer for this one; 0 = no limit */
    const int *lines; /* sockets, open as long as the group: when another end has gone, so has a */
    uint32_t line_count; /* rank, which is known at once then; COLLECTIVE_RANKS_MAX at most */
};

/* Joins with the calling thread's device; returns when all have. */
int collective_nccl_join(struct collective **out, const struct collective_nccl *how);
