/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_message.h - the parts of rtnetlink(7) messages that kernel.c and neighbour.c both read.
 * Pure, and safe for any bytes of a message whose length, padded to a multiple of 4, is in memory.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
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
