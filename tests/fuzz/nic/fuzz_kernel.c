/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_kernel.c - bytes as if from a netlink socket. However they are made, nothing is read beyond
 * them, the state stays within its bounds, and taking them at once is taking them message by
 * message. `corpus` has what a real kernel said (tests/unit/nic/test_kernel.c).
 */
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/kernel.h"
#include "dataplane/nic/kernel_message.h"
#include "schemas/base/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool hear(uint32_t interface, const struct in6_addr *address, const uint8_t mac[6],
                 void *user)
{
    uint8_t *sum = user;
    *sum = (uint8_t)(*sum + interface + address->s6_addr[15] + mac[5]);
    return (*sum & 1) != 0;
}

static void begin(struct kernel *kernel, uint8_t *sum)
{
    struct in6_addr own[2];
    if (!addr_parse("10.77.0.2", &own[0]) || !addr_parse("fd77::2", &own[1])) {
        abort();
    }
    kernel_init(kernel, "weft0", own, 2);
    kernel->neighbour = hear;
    kernel->user = sum;
}

/* Bytes of the first message with its padding; all of them if there is none. */
static size_t first_message(const uint8_t *at, size_t size)
{
    struct nlmsghdr head;
    if (size < sizeof(head)) {
        return size;
    }
    memcpy(&head, at, sizeof(head));
    size_t len = ((size_t)head.nlmsg_len + 3) / 4 * 4;
    return head.nlmsg_len < sizeof(head) || len > size ? size : len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kernel whole, parts;
    uint8_t sum_whole = 0, sum_parts = 0;
    uint8_t *copy = malloc(size + (size == 0)); /* aligned, and ends where the input does */
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data, size);
    begin(&whole, &sum_whole);
    begin(&parts, &sum_parts);
    (void)kernel_take(&whole, copy, size);
    for (size_t at = 0; at < size;) {
        size_t len = first_message(copy + at, size - at);
        (void)kernel_take(&parts, copy + at, len);
        at += len;
    }
    for (uint32_t i = 0; i < whole.own_count; i++) {
        if (whole.own[i].place_count > KERNEL_PLACES_MAX) {
            abort();
        }
    }
    struct kernel_answer answer = {.sequence = 0}; /* what the kernel says unasked */
    (void)kernel_message_answer(&answer, copy, size);
    parts.user = whole.user;
    if (sum_whole != sum_parts || memcmp(&whole, &parts, sizeof(whole)) != 0) {
        abort();
    }
    free(copy);
    return 0;
}
