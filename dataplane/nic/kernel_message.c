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
