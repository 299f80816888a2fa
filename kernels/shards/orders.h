/* SPDX-License-Identifier: Apache-2.0 */
/*
 * orders.h - what the first rank tells the others, over a socket each: once who it is and what to
 * open; when all have opened it NCCL's id, if that is how they meet; then forwards and pages. Both
 * ends are the same program on the same machine, so structs go over as they are. Used by shards.c
 * and rank.c only.
 */
#pragma once

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/model/part.h"

/* Where a rank finds what it was given. */
#define ORDERS_FD 3
#define TEAM_FD   4
#define LINE_FD   5

#define ORDERS_MAGIC UINT32_C(0x776f7264)
#define PATH_BYTES   4096u

struct hello {
    uint32_t magic;
    uint32_t timeout_ms;
    struct model_place place;
    uint32_t threads;
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;
    uint32_t pages;
    bool exact;
    bool force_portable;
    bool is_cuda;
    bool half_kv;
    bool fast;
    uint32_t gemm;       /* enum cuda_gemm */
    uint64_t file_bytes; /* of the model: another file by now is refused */
    char model_path[PATH_BYTES];
};

enum order_kind {
    ORDER_FORWARD = 1,  /* `count` struct exec_row follow */
    ORDER_PLACE = 2,    /* `count` pages follow */
    ORDER_PAGE_OUT = 3, /* page `slot`: `count` bytes of it are sent back */
    ORDER_PAGE_IN = 4,  /* `count` bytes for page `slot` follow */
};

struct order {
    uint32_t kind;
    uint32_t count;
    uint32_t slot;
    uint32_t used;
};

/* All of it, or a negative errno; -EPIPE when the other end has gone. */
static inline int orders_send(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        done += (size_t)n;
    }
    return 0;
}

static inline int orders_receive(int fd, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = recv(fd, (char *)data + done, size - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        done += (size_t)n;
    }
    return 0;
}
