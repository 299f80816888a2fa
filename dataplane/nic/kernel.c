/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - see kernel.h. Messages are walked by libmnl; lengths are checked before each use. */
#include "dataplane/nic/kernel.h"

#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/nic/kernel_message.h"
#include "schemas/base/addr.h"

void kernel_init(struct kernel *kernel, const char *interface, const struct in6_addr *own,
                 uint32_t count)
{
    memset(kernel, 0, sizeof(*kernel));
    snprintf(kernel->name, sizeof(kernel->name), "%s", interface);
    for (uint32_t i = 0; i < count && kernel->own_count < KERNEL_OWN_MAX; i++) {
        if (!IN6_IS_ADDR_UNSPECIFIED(&own[i])) {
            kernel->own[kernel->own_count++].address = own[i];
        }
    }
}

void kernel_forget(struct kernel *kernel)
{
    kernel->link = (struct kernel_link){.there = false};
    kernel->index = 0;
    for (uint32_t i = 0; i < kernel->own_count; i++) {
        kernel->own[i].place_count = 0;
    }
}

uint32_t kernel_compare(const struct kernel *before, const struct kernel *after)
{
    const struct kernel_link *a = &before->link;
    const struct kernel_link *b = &after->link;
    uint32_t news = 0;
    if (a->there != b->there || a->up != b->up || a->carrier != b->carrier || a->mtu != b->mtu ||
        before->index != after->index || memcmp(a->mac, b->mac, sizeof(a->mac)) != 0) {
        news |= KERNEL_NEWS_LINK;
    }
    if (kernel_has(before, false) != kernel_has(after, false) ||
        kernel_has(before, true) != kernel_has(after, true)) {
        news |= KERNEL_NEWS_ADDRESSES;
    }
    return news;
}

bool kernel_has(const struct kernel *kernel, bool v6)
{
    for (uint32_t i = 0; i < kernel->own_count; i++) {
        if (addr_is_v4(&kernel->own[i].address) != v6 && kernel->own[i].place_count != 0) {
            return true;
        }
    }
    return false;
}

/* ---- links ---- */

struct link_words {
    const char *name; /* ends with a zero */
    uint32_t mtu;
    const uint8_t *mac;
};

static int take_link_attribute(const struct nlattr *attr, void *user)
{
    struct link_words *words = user;
    switch (mnl_attr_get_type(attr)) {
    case IFLA_IFNAME:
        words->name = mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0 ? mnl_attr_get_str(attr)
                                                                        : words->name;
        break;
    case IFLA_MTU:
        words->mtu = mnl_attr_validate(attr, MNL_TYPE_U32) >= 0 ? mnl_attr_get_u32(attr) : 0;
        break;
    case IFLA_ADDRESS:
        words->mac = mnl_attr_get_payload_len(attr) == 6 ? mnl_attr_get_payload(attr) : NULL;
        break;
    default:
        break;
    }
    return MNL_CB_OK;
}

/* The interface is found by its name: one that is made anew under it has another index. */
static void take_link(struct kernel *kernel, const struct nlmsghdr *message)
{
    const struct ifinfomsg *info = mnl_nlmsg_get_payload(message);
    struct link_words words = {.name = ""};
    mnl_attr_parse(message, sizeof(*info), take_link_attribute, &words);
    bool named = strcmp(words.name, kernel->name) == 0;
    bool known = kernel->link.there && (uint32_t)info->ifi_index == kernel->index;
    if (known && (message->nlmsg_type == RTM_DELLINK || !named)) {
        kernel->link = (struct kernel_link){.there = false};
        kernel->index = 0;
    } else if (named && message->nlmsg_type == RTM_NEWLINK) {
        kernel->index = (uint32_t)info->ifi_index;
        kernel->link.there = true;
        kernel->link.up = (info->ifi_flags & IFF_UP) != 0;
        kernel->link.carrier = (info->ifi_flags & IFF_RUNNING) != 0;
        kernel->link.mtu = words.mtu;
        if (words.mac != NULL) {
            memcpy(kernel->link.mac, words.mac, sizeof(kernel->link.mac));
        }
    }
}

/* ---- addresses ---- */

struct address_words {
    uint16_t len; /* of an address of the message's family */
    const uint8_t *address;
    const uint8_t *local; /* of a point-to-point link; else the same */
    uint32_t flags;
};

static int take_address_attribute(const struct nlattr *attr, void *user)
{
    struct address_words *words = user;
    uint16_t type = mnl_attr_get_type(attr);
    bool whole = mnl_attr_get_payload_len(attr) == words->len;
    if (type == IFA_ADDRESS && whole) {
        words->address = mnl_attr_get_payload(attr);
    } else if (type == IFA_LOCAL && whole) {
        words->local = mnl_attr_get_payload(attr);
    } else if (type == IFA_FLAGS && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0) {
        words->flags = mnl_attr_get_u32(attr);
    }
    return MNL_CB_OK;
}

static void remove_place(struct kernel_own *own, uint32_t interface)
{
    for (uint32_t i = 0; i < own->place_count; i++) {
        if (own->places[i] == interface) {
            own->places[i] = own->places[--own->place_count];
            return;
        }
    }
}

static void take_address(struct kernel *kernel, const struct nlmsghdr *message)
{
    const struct ifaddrmsg *info = mnl_nlmsg_get_payload(message);
    struct address_words words = {
        .len = kernel_address_len(info->ifa_family),
        .flags = info->ifa_flags,
    };
    if (words.len == 0) {
        return;
    }
    mnl_attr_parse(message, sizeof(*info), take_address_attribute, &words);
    const uint8_t *bytes = words.local != NULL ? words.local : words.address;
    if (bytes == NULL) {
        return;
    }
    struct in6_addr address = kernel_address(bytes, words.len);
    /* An address whose uniqueness is not settled (RFC 4862, 5.4) is not for use yet, or never. */
    bool tentative = (words.flags & IFA_F_TENTATIVE) != 0 && (words.flags & IFA_F_OPTIMISTIC) == 0;
    bool there =
        message->nlmsg_type == RTM_NEWADDR && !tentative && (words.flags & IFA_F_DADFAILED) == 0;
    for (uint32_t i = 0; i < kernel->own_count; i++) {
        struct kernel_own *own = &kernel->own[i];
        if (!addr_equal(&own->address, &address)) {
            continue;
        }
        remove_place(own, info->ifa_index);
        if (there && own->place_count < KERNEL_PLACES_MAX) {
            own->places[own->place_count++] = info->ifa_index;
        }
    }
}

/* ---- ways to others ---- */

static uint32_t take_neighbour(const struct kernel *kernel, const struct nlmsghdr *message)
{
    struct kernel_message_neighbour heard;
    bool news = kernel->neighbour != NULL && kernel_message_neighbour(message, &heard) &&
                kernel->neighbour(heard.interface, &heard.address, heard.mac, kernel->user);
    return news ? KERNEL_NEWS_PATHS : 0;
}

/* Not those of the own addresses (the local table) and not what is only remembered (clones). */
static uint32_t take_route(const struct nlmsghdr *message)
{
    const struct rtmsg *rt = mnl_nlmsg_get_payload(message);
    bool ours = rt->rtm_table != RT_TABLE_LOCAL && (rt->rtm_flags & RTM_F_CLONED) == 0 &&
                kernel_address_len(rt->rtm_family) != 0;
    return ours ? KERNEL_NEWS_PATHS : 0;
}

/* ---- */

static uint32_t take_message(struct kernel *kernel, const struct nlmsghdr *message)
{
    size_t payload = mnl_nlmsg_get_payload_len(message);
    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        if (payload >= sizeof(struct ifinfomsg)) {
            take_link(kernel, message);
        }
        return 0;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        if (payload >= sizeof(struct ifaddrmsg)) {
            take_address(kernel, message);
        }
        return 0;
    case RTM_NEWNEIGH:
        return take_neighbour(kernel, message);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return payload >= sizeof(struct rtmsg) ? take_route(message) : 0;
    default:
        return 0;
    }
}

uint32_t kernel_take(struct kernel *kernel, const void *messages, size_t size)
{
    const uint8_t *at = messages;
    const struct nlmsghdr *message;
    struct kernel before = *kernel;
    uint32_t news = 0;
    while ((message = kernel_message_next(&at, &size)) != NULL) {
        news |= take_message(kernel, message);
    }
    return news | kernel_compare(&before, kernel);
}
