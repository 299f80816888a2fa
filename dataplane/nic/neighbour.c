/* SPDX-License-Identifier: Apache-2.0 */
/* neighbour.c - see neighbour.h. rtnetlink(7) through libmnl. */
#include "dataplane/nic/neighbour.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/kernel_message.h"
#include "schemas/base/addr.h"

#define TABLE_MAX 8192u

struct entry {
    struct in6_addr address;
    uint8_t mac[6];
};

struct neighbours {
    struct mnl_socket *socket;
    unsigned interface;
    uint32_t sequence;
    uint32_t count;
    struct entry table[TABLE_MAX];
};

static int find_vlan(struct neighbours *n, uint32_t vlan);

int neighbours_create(struct neighbours **out, const char *interface, uint32_t vlan)
{
    *out = NULL;
    unsigned index = if_nametoindex(interface);
    if (index == 0) {
        return -errno;
    }
    struct neighbours *n = calloc(1, sizeof(*n));
    if (n == NULL) {
        return -ENOMEM;
    }
    n->interface = index;
    n->socket = mnl_socket_open(NETLINK_ROUTE);
    if (n->socket == NULL || mnl_socket_bind(n->socket, 0, MNL_SOCKET_AUTOPID) != 0) {
        int error = errno;
        neighbours_destroy(n);
        return -error;
    }
    int rc = vlan != 0 ? find_vlan(n, vlan) : 0;
    if (rc != 0) {
        neighbours_destroy(n);
        return rc;
    }
    *out = n;
    return 0;
}

void neighbours_destroy(struct neighbours *n)
{
    if (n == NULL) {
        return;
    }
    if (n->socket != NULL) {
        mnl_socket_close(n->socket);
    }
    free(n);
}

/* Sends a request and runs `fn` over what comes back. */
static int ask(struct neighbours *n, struct nlmsghdr *request,
               void (*fn)(const struct nlmsghdr *message, void *user), void *user)
{
    _Alignas(8) uint8_t answer[16384];
    struct kernel_answer all = {.sequence = ++n->sequence, .fn = fn, .user = user};
    request->nlmsg_seq = all.sequence;
    if (mnl_socket_sendto(n->socket, request, request->nlmsg_len) < 0) {
        return -errno;
    }
    int more = 1;
    while (more > 0) {
        ssize_t got = mnl_socket_recvfrom(n->socket, answer, sizeof(answer));
        if (got < 0) {
            return -errno;
        }
        more = kernel_message_answer(&all, answer, (size_t)got);
    }
    return more;
}

/* ---- the VLAN device ---- */

struct vlan_search {
    unsigned lower; /* the interface it is upon */
    uint16_t id;
    unsigned found; /* 0 = not yet */
};

/* What a link's message says of it, collected attribute by attribute. */
struct link_attributes {
    uint32_t lower;
    bool is_vlan;
    uint16_t id;
};

static int take_vlan_attribute(const struct nlattr *attr, void *user)
{
    struct link_attributes *a = user;
    if (mnl_attr_get_type(attr) == IFLA_VLAN_ID &&
        mnl_attr_get_payload_len(attr) == sizeof(uint16_t)) {
        a->id = mnl_attr_get_u16(attr);
    }
    return MNL_CB_OK;
}

static int take_info_attribute(const struct nlattr *attr, void *user)
{
    struct link_attributes *a = user;
    if (mnl_attr_get_type(attr) == IFLA_INFO_KIND) {
        a->is_vlan = mnl_attr_get_payload_len(attr) >= sizeof("vlan") - 1 &&
                     memcmp(mnl_attr_get_payload(attr), "vlan", sizeof("vlan") - 1) == 0;
    } else if (mnl_attr_get_type(attr) == IFLA_INFO_DATA && a->is_vlan) {
        mnl_attr_parse_nested(attr, take_vlan_attribute, a);
    }
    return MNL_CB_OK;
}

static int take_link_attribute(const struct nlattr *attr, void *user)
{
    struct link_attributes *a = user;
    if (mnl_attr_get_type(attr) == IFLA_LINK &&
        mnl_attr_get_payload_len(attr) == sizeof(uint32_t)) {
        a->lower = mnl_attr_get_u32(attr);
    } else if (mnl_attr_get_type(attr) == IFLA_LINKINFO) {
        mnl_attr_parse_nested(attr, take_info_attribute, a);
    }
    return MNL_CB_OK;
}

static void take_link(const struct nlmsghdr *message, void *user)
{
    struct vlan_search *search = user;
    const struct ifinfomsg *info = mnl_nlmsg_get_payload(message);
    struct link_attributes a = {.lower = 0};
    mnl_attr_parse(message, sizeof(*info), take_link_attribute, &a);
    if (a.is_vlan && a.id == search->id && a.lower == search->lower) {
        search->found = (unsigned)info->ifi_index;
    }
}

/* From here on the neighbours are those of the VLAN device. */
static int find_vlan(struct neighbours *n, uint32_t vlan)
{
    char buffer[256];
    struct vlan_search search = {.lower = n->interface, .id = (uint16_t)vlan};
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = RTM_GETLINK;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
    int rc = ask(n, request, take_link, &search);
    n->interface = search.found;
    return rc == 0 && search.found == 0 ? -ENODEV : rc;
}

/* ---- neighbours and routes ---- */

/* What a route's message says. Addresses are of `address_len` bytes. */
struct attributes {
    uint16_t address_len;
    const uint8_t *gateway;
};

static void take_neighbour(const struct nlmsghdr *message, void *user)
{
    struct neighbours *n = user;
    struct kernel_message_neighbour heard;
    if (kernel_message_neighbour(message, &heard) && heard.interface == n->interface &&
        n->count < TABLE_MAX) {
        struct entry *entry = &n->table[n->count++];
        entry->address = heard.address;
        memcpy(entry->mac, heard.mac, sizeof(entry->mac));
    }
}

static int take_route_attribute(const struct nlattr *attr, void *user)
{
    struct attributes *a = user;
    if (mnl_attr_get_type(attr) == RTA_GATEWAY &&
        mnl_attr_get_payload_len(attr) == a->address_len) {
        a->gateway = mnl_attr_get_payload(attr);
    }
    return MNL_CB_OK;
}

static void take_gateway(const struct nlmsghdr *message, void *user)
{
    const struct rtmsg *rt = mnl_nlmsg_get_payload(message);
    struct in6_addr *hop = user;
    struct attributes a = {.address_len = kernel_address_len(rt->rtm_family)};
    mnl_attr_parse(message, sizeof(*rt), take_route_attribute, &a);
    if (a.gateway != NULL) {
        *hop = kernel_address(a.gateway, a.address_len);
    }
}

/* The address to whose link address packets for `address` go: itself, or a gateway. */
static struct in6_addr next_hop(struct neighbours *n, const struct in6_addr *address)
{
    char buffer[256];
    bool four = addr_is_v4(address);
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = RTM_GETROUTE;
    request->nlmsg_flags = NLM_F_REQUEST;
    struct rtmsg *rt = mnl_nlmsg_put_extra_header(request, sizeof(*rt));
    rt->rtm_family = four ? AF_INET : AF_INET6;
    rt->rtm_dst_len = four ? 32 : 128;
    mnl_attr_put(request, RTA_DST, kernel_address_len(rt->rtm_family),
                 four ? &address->s6_addr32[3] : &address->s6_addr32[0]);
    struct in6_addr hop = *address;
    return ask(n, request, take_gateway, &hop) == 0 ? hop : *address;
}

static int compare_entry(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    return memcmp(&x->address, &y->address, sizeof(x->address));
}

bool neighbours_is_news(const struct neighbours *n, uint32_t interface,
                        const struct in6_addr *address, const uint8_t mac[6])
{
    struct entry key = {.address = *address};
    if (interface != n->interface) {
        return false;
    }
    const struct entry *found =
        bsearch(&key, n->table, n->count, sizeof(n->table[0]), compare_entry);
    return found == NULL || memcmp(found->mac, mac, sizeof(found->mac)) != 0;
}

int neighbours_refresh(struct neighbours *n, struct neighbour *list, uint32_t count)
{
    char buffer[256];
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = RTM_GETNEIGH;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    struct ndmsg *nd = mnl_nlmsg_put_extra_header(request, sizeof(*nd));
    nd->ndm_family = AF_UNSPEC;
    n->count = 0;
    int rc = ask(n, request, take_neighbour, n);
    if (rc != 0) {
        return rc;
    }
    qsort(n->table, n->count, sizeof(n->table[0]), compare_entry);
    int changed = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct entry key = {.address = next_hop(n, &list[i].address)};
        const struct entry *found =
            bsearch(&key, n->table, n->count, sizeof(n->table[0]), compare_entry);
        /* An entry that went away is kept: it was right a moment ago, and beacons renew it. */
        if (found != NULL &&
            (!list[i].known || memcmp(list[i].mac, found->mac, sizeof(found->mac)) != 0)) {
            list[i].known = true;
            memcpy(list[i].mac, found->mac, sizeof(found->mac));
            changed++;
        }
    }
    return changed;
}
