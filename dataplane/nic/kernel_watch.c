/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_watch.c - see kernel_watch.h. One socket hears of changes, another one asks: answers and
 * news do not mix. What is heard while asking is taken afterwards; the last word is right. */
#include "dataplane/nic/kernel_watch.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "dataplane/nic/kernel_message.h"
#include "schemas/base/log.h"

#define READ_BYTES    32768u
#define ASK_TIMEOUT_S 2
#define ASK_TRIES     8u

struct kernel_watch {
    struct mnl_socket *news;
    struct mnl_socket *ask;
    uint32_t sequence;
    bool lost; /* messages: everything is to be asked for anew */
    struct kernel state;
    _Alignas(8) uint8_t buffer[READ_BYTES];
};

static int open_socket(struct mnl_socket **out, int flags, unsigned groups)
{
    struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags);
    if (socket == NULL) {
        return -errno;
    }
    if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) != 0) {
        int error = errno;
        mnl_socket_close(socket);
        return -error;
    }
    *out = socket;
    return 0;
}

/* Feeds one list of the kernel's to the state. */
static int ask_once(struct kernel_watch *w, uint16_t type, bool *torn)
{
    char request[256];
    struct nlmsghdr *head = mnl_nlmsg_put_header(request);
    struct kernel_answer answer = {.sequence = ++w->sequence};
    head->nlmsg_type = type;
    head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    head->nlmsg_seq = answer.sequence;
    /* Links are asked for with an ifinfomsg, addresses with an ifaddrmsg: all zero, any family. */
    mnl_nlmsg_put_extra_header(head, type == RTM_GETLINK ? sizeof(struct ifinfomsg)
                                                         : sizeof(struct ifaddrmsg));
    if (mnl_socket_sendto(w->ask, head, head->nlmsg_len) < 0) {
        return -errno;
    }
    int more = 1;
    while (more > 0) {
        ssize_t got = mnl_socket_recvfrom(w->ask, w->buffer, sizeof(w->buffer));
        if (got < 0) {
            return -errno;
        }
        (void)kernel_take(&w->state, w->buffer, (size_t)got);
        more = kernel_message_answer(&answer, w->buffer, (size_t)got);
    }
    *torn = answer.torn;
    return more;
}

/* Again if it changed meanwhile, or an interface that did not could be missing. What did change
 * comes as news. */
static int ask_for(struct kernel_watch *w, uint16_t type)
{
    bool torn = true;
    int rc = 0;
    for (uint32_t tries = 0; rc == 0 && torn && tries < ASK_TRIES; tries++) {
        rc = ask_once(w, type, &torn);
    }
    return rc;
}

/* Everything anew. What could not be had stays as it was. */
static uint32_t ask_again(struct kernel_watch *w)
{
    struct kernel before = w->state;
    kernel_forget(&w->state);
    int rc = ask_for(w, RTM_GETLINK);
    rc = rc != 0 ? rc : ask_for(w, RTM_GETADDR);
    if (rc != 0) {
        LOG_WARN("cannot ask the kernel for interface and addresses: %s", strerror(-rc));
        w->state = before;
    }
    return kernel_compare(&before, &w->state) | KERNEL_NEWS_PATHS;
}

int kernel_watch_create(struct kernel_watch **out, const char *interface,
                        const struct in6_addr *own, uint32_t own_count,
                        kernel_neighbour_fn neighbour, void *user)
{
    const unsigned groups = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
                            RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    const struct timeval patience = {.tv_sec = ASK_TIMEOUT_S};
    *out = NULL;
    struct kernel_watch *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return -ENOMEM;
    }
    kernel_init(&w->state, interface, own, own_count);
    int rc = open_socket(&w->news, SOCK_NONBLOCK, groups);
    rc = rc != 0 ? rc : open_socket(&w->ask, 0, 0);
    if (rc == 0 && setsockopt(mnl_socket_get_fd(w->ask), SOL_SOCKET, SO_RCVTIMEO, &patience,
                              sizeof(patience)) != 0) {
        rc = -errno;
    }
    rc = rc != 0 ? rc : ask_for(w, RTM_GETLINK);
    rc = rc != 0 ? rc : ask_for(w, RTM_GETADDR);
    if (rc != 0) {
        kernel_watch_destroy(w);
        return rc;
    }
    w->state.neighbour = neighbour;
    w->state.user = user;
    *out = w;
    return 0;
}

void kernel_watch_destroy(struct kernel_watch *w)
{
    if (w == NULL) {
        return;
    }
    if (w->news != NULL) {
        mnl_socket_close(w->news);
    }
    if (w->ask != NULL) {
        mnl_socket_close(w->ask);
    }
    free(w);
}

int kernel_watch_fd(const struct kernel_watch *w)
{
    return mnl_socket_get_fd(w->news);
}

/* Where some were lost the others are older than what is asked for afterwards: all are taken first.
 */
uint32_t kernel_watch_read(struct kernel_watch *w)
{
    uint32_t news = 0;
    for (uint32_t reads = 0; reads < KERNEL_WATCH_READS; reads++) {
        /* On this bus only the kernel and who may change it anyway can send (CAP_NET_ADMIN). */
        ssize_t got = mnl_socket_recvfrom(w->news, w->buffer, sizeof(w->buffer));
        if (got > 0) {
            news |= kernel_take(&w->state, w->buffer, (size_t)got);
        } else if (got < 0 && (errno == ENOBUFS || errno == ENOSPC)) {
            w->lost = true; /* the socket was full, or a message longer than any should be */
        } else if (got == 0 || errno != EINTR) {
            news |= w->lost ? ask_again(w) : 0;
            w->lost = false;
            break;
        }
    }
    return news;
}

const struct kernel *kernel_watch_state(const struct kernel_watch *w)
{
    return &w->state;
}
