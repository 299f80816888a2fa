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

/* For those who have nothing else to do. */
#define ORDERS_FOREVER 0u
#define ORDERS_LOOK_MS 20

/* Until the other end takes or gives something. Silence is counted in looks: while the whole
 * machine stands still nobody is silent. */
static inline int orders_wait(int fd, short events, uint32_t silence_ms)
{
    for (uint32_t waited_ms = 0; waited_ms < silence_ms; waited_ms += ORDERS_LOOK_MS) {
        struct pollfd pfd = {.fd = fd, .events = events};
        if (poll(&pfd, 1, ORDERS_LOOK_MS) == 1)
            return 0;
    }
    return -ETIMEDOUT;
}

/* How a send or receive went on; 1 = once more. */
static inline int orders_went(int fd, ssize_t n, short events, uint32_t silence_ms)
{
    if (n > 0 || (n < 0 && errno == EINTR))
        return 1;
    if (n == 0)
        return -EPIPE;
    if (errno != EAGAIN)
        return -errno;
    const int rc = orders_wait(fd, events, silence_ms);
    return rc ? rc : 1;
}

/* All of it, or a negative errno: -EPIPE when the other end has gone, -ETIMEDOUT when it has taken
 * or given nothing for so long. */
static inline int orders_send(int fd, const void *data, size_t size, uint32_t silence_ms)
{
    const int flags = MSG_NOSIGNAL | (silence_ms == ORDERS_FOREVER ? 0 : MSG_DONTWAIT);
    for (size_t done = 0; done < size;) {
        const ssize_t n = send(fd, (const char *)data + done, size - done, flags);
        const int rc = orders_went(fd, n, POLLOUT, silence_ms);
        if (rc < 0)
            return rc;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static inline int orders_receive(int fd, void *data, size_t size, uint32_t silence_ms)
{
    const int flags = silence_ms == ORDERS_FOREVER ? 0 : MSG_DONTWAIT;
    for (size_t done = 0; done < size;) {
        const ssize_t n = recv(fd, (char *)data + done, size - done, flags);
        const int rc = orders_went(fd, n, POLLIN, silence_ms);
        if (rc < 0)
            return rc;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}
