/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - what the kernel says of the node's interface and of the node's own addresses, and what
 * has changed since: rtnetlink(7) messages in, changes out. Pure: kernel_watch.h has the sockets.
 * Any bytes may be given; what is not understood is passed over.
 *
 * Threads: none; one user at a time.
 */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The node's own addresses: one of each family at most. */
#define KERNEL_OWN_MAX 2u
/* Interfaces that may have the same address at one time; further ones are not seen. */
#define KERNEL_PLACES_MAX 8u

/* What has changed. A mask. */
enum kernel_news {
    KERNEL_NEWS_LINK = 1,      /* the interface: there, up, carrier, MTU, link address */
    KERNEL_NEWS_ADDRESSES = 2, /* which of the own addresses the kernel has */
    KERNEL_NEWS_PATHS = 4,     /* routes or neighbours: ways to other nodes may be others */
};

struct kernel_link {
    bool there;
    bool up;      /* as the operator wants it */
    bool carrier; /* as it is */
    uint32_t mtu;
    uint8_t mac[6];
};

struct kernel_own {
    struct in6_addr address;            /* schemas/base/addr.h */
    uint32_t places[KERNEL_PLACES_MAX]; /* interfaces that have it, ready for use */
    uint32_t place_count;
};

/* A neighbour with a link address, as it is now. True: that is news to whoever asks. */
typedef bool (*kernel_neighbour_fn)(uint32_t interface, const struct in6_addr *address,
                                    const uint8_t mac[6], void *user);

struct kernel {
    char name[IF_NAMESIZE];
    uint32_t index; /* of the interface of that name; meaningful if link.there */
    struct kernel_link link;
    struct kernel_own own[KERNEL_OWN_MAX];
    uint32_t own_count;
    kernel_neighbour_fn neighbour; /* NULL: neighbours are no news */
    void *user;
};

/* Nothing is known yet. Up to KERNEL_OWN_MAX addresses; those that are all zero are left out. */
void kernel_init(struct kernel *kernel, const char *interface, const struct in6_addr *own,
                 uint32_t count);

/* Before messages that tell everything anew (a dump of links and one of addresses): what they do
 * not name is not there any more. */
void kernel_forget(struct kernel *kernel);

/* Takes whole messages, as one read of a netlink socket gives them, at a multiple of 4 in memory.
 * Returns what has changed. */
uint32_t kernel_take(struct kernel *kernel, const void *messages, size_t size);

/* What is different between two states of the same interface: for what a dump has changed. */
uint32_t kernel_compare(const struct kernel *before, const struct kernel *after);

/* Does any interface have the own address of the family, ready for use? */
bool kernel_has(const struct kernel *kernel, bool v6);
