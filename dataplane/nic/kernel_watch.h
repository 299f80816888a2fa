/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_watch.h - hears from the kernel what happens to the node's interface, its own addresses
 * and the ways to other nodes (rtnetlink groups), and keeps kernel.h's state of it. Where messages
 * were lost everything is asked for anew. Control thread only.
 */
#pragma once

#include "dataplane/nic/kernel.h"

struct kernel_watch;

/* Knows the state as it is now when it returns. `neighbour` (NULL: none) is asked with `user`
 * whether a neighbour is news. Heap. Returns 0 or -errno. */
int kernel_watch_create(struct kernel_watch **watch, const char *interface,
                        const struct in6_addr *own, uint32_t own_count,
                        kernel_neighbour_fn neighbour, void *user);
/* NULL is fine. */
void kernel_watch_destroy(struct kernel_watch *watch);

/* Readable when there may be news. */
int kernel_watch_fd(const struct kernel_watch *watch);

/* Never blocks for long: takes what is there, up to KERNEL_WATCH_READS datagrams. Returns a mask of
 * enum kernel_news. */
#define KERNEL_WATCH_READS 64u
uint32_t kernel_watch_read(struct kernel_watch *watch);

const struct kernel *kernel_watch_state(const struct kernel_watch *watch);
