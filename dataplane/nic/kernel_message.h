/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_message.h - the parts of rtnetlink(7) messages that kernel.c and neighbour.c both read.
 * Pure, and safe for any bytes of a message whose length, padded to a multiple of 4, is in memory.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nlmsghdr;

/* A neighbour whose link address may be used. */
struct kernel_message_neighbour {
    uint32_t interface;
    struct in6_addr address; /* schemas/base/addr.h */
    uint8_t mac[6];
};

/* Bytes of an address of AF_INET or AF_INET6; 0 of any other family. */
uint16_t kernel_address_len(int family);

/* `len` as kernel_address_len() gives it. */
struct in6_addr kernel_address(const uint8_t *bytes, uint16_t len);

/* False: it says nothing of use. */
bool kernel_message_neighbour(const struct nlmsghdr *message, struct kernel_message_neighbour *out);

/* The next of `*size` bytes of messages, NULL if there is none or its length is a lie; steps over
 * it. Not mnl_nlmsg_ok(): to it a length above 2^31 is a small one, and padding may be missing. */
const struct nlmsghdr *kernel_message_next(const uint8_t **at, size_t *size);

/* What was asked of the kernel, and what comes back. */
struct kernel_answer {
    uint32_t sequence;                                      /* of the question */
    void (*fn)(const struct nlmsghdr *message, void *user); /* gets each message; NULL: nobody */
    void *user;
    bool torn; /* the list changed while the kernel wrote it: something may be missing from it */
};

/* Takes what has come: of this answer; what answers an earlier question is passed over. A torn list
 * has an end like any other. Returns 1 (more is to come), 0 (that was all) or the kernel's -errno.
 */
int kernel_message_answer(struct kernel_answer *answer, const void *messages, size_t size);
