/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_message.c - see kernel_message.h. */
#include "dataplane/nic/kernel_message.h"

#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "schemas/base/addr.h"

#define USABLE_STATES (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT)

uint16_t kernel_address_len(int family)
{
    return family == AF_INET    ? sizeof(struct in_addr)
           : family == AF_INET6 ? sizeof(struct in6_addr)
                                : 0;
}

struct in6_addr kernel_address(const uint8_t *bytes, uint16_t len)
{
    struct in6_addr address;
    uint32_t four;
    if (len == sizeof(four)) {
        memcpy(&four, bytes, sizeof(four));
        return addr_of_v4(four);
    }
    memcpy(&address, bytes, sizeof(address));
    return address;
}

struct words {
    uint16_t address_len;
    const uint8_t *destination;
    const uint8_t *mac; /* 6 bytes */
};

static int take_attribute(const struct nlattr *attr, void *user)
{
    struct words *words = user;
    uint16_t len = mnl_attr_get_payload_len(attr);
    if (mnl_attr_get_type(attr) == NDA_DST && len == words->address_len) {
        words->destination = mnl_attr_get_payload(attr);
    } else if (mnl_attr_get_type(attr) == NDA_LLADDR && len == 6) {
        words->mac = mnl_attr_get_payload(attr);
    }
    return MNL_CB_OK;
}

bool kernel_message_neighbour(const struct nlmsghdr *message, struct kernel_message_neighbour *out)
{
    const struct ndmsg *nd = mnl_nlmsg_get_payload(message);
    if (mnl_nlmsg_get_payload_len(message) < sizeof(*nd)) {
        return false;
    }
    struct words words = {.address_len = kernel_address_len(nd->ndm_family)};
    if (words.address_len == 0 || (nd->ndm_state & USABLE_STATES) == 0) {
        return false;
    }
    mnl_attr_parse(message, sizeof(*nd), take_attribute, &words);
    if (words.destination == NULL || words.mac == NULL) {
        return false;
    }
    out->interface = (uint32_t)nd->ndm_ifindex;
    out->address = kernel_address(words.destination, words.address_len);
    memcpy(out->mac, words.mac, sizeof(out->mac));
    return true;
}

const struct nlmsghdr *kernel_message_next(const uint8_t **at, size_t *size)
{
    const struct nlmsghdr *message = (const struct nlmsghdr *)(const void *)*at;
    if (*size < sizeof(*message) || message->nlmsg_len < sizeof(*message)) {
        return NULL;
    }
    size_t len = ((size_t)message->nlmsg_len + MNL_ALIGNTO - 1) / MNL_ALIGNTO * MNL_ALIGNTO;
    if (len > *size) {
        return NULL;
    }
    *at += len;
    *size -= len;
    return message;
}

/* The number that ends a list or an answer: 0, or the kernel's -errno. */
static int end_of(const struct nlmsghdr *message)
{
    int32_t error = 0;
    if (mnl_nlmsg_get_payload_len(message) >= sizeof(error)) {
        memcpy(&error, mnl_nlmsg_get_payload(message), sizeof(error));
    }
    return error < 0 ? error : 0;
}

int kernel_message_answer(struct kernel_answer *answer, const void *messages, size_t size)
{
    const uint8_t *at = messages;
    const struct nlmsghdr *message;
    while ((message = kernel_message_next(&at, &size)) != NULL) {
        if (message->nlmsg_seq != answer->sequence || message->nlmsg_type == NLMSG_NOOP) {
            continue;
        }
        answer->torn = answer->torn || (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR) {
            return end_of(message);
        }
        if (answer->fn != NULL) {
            answer->fn(message, answer->user);
        }
        if ((message->nlmsg_flags & NLM_F_MULTI) == 0) {
            return 0; /* the answer to a plain question has no end of its own */
        }
    }
    return 1;
}
