/* SPDX-License-Identifier: Apache-2.0 */
/* neighbour.c - see neighbour.h. rtnetlink(7) through libmnl. */
#include "dataplane/nic/neighbour.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_MAX     8192u
#define USABLE_STATES (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT)

struct entry {
    uint32_t address;
    uint8_t mac[6];
};

struct neighbours {
    struct mnl_socket *socket;
    unsigned interface;
    uint32_t sequence;
    uint32_t count;
    struct entry table[TABLE_MAX];
};

int neighbours_create(struct neighbours **out, const char *interface)
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
static int ask(struct neighbours *n, struct nlmsghdr *request, mnl_cb_t fn, void *user)
{
    char answer[16384];
    uint32_t sequence = ++n->sequence;
    request->nlmsg_seq = sequence;
    if (mnl_socket_sendto(n->socket, request, request->nlmsg_len) < 0) {
        return -errno;
    }
    int more = MNL_CB_OK;
    while (more > MNL_CB_STOP) {
        ssize_t got = mnl_socket_recvfrom(n->socket, answer, sizeof(answer));
        if (got < 0) {
            return -errno;
        }
        more =
            mnl_cb_run(answer, (size_t)got, sequence, mnl_socket_get_portid(n->socket), fn, user);
        /* The answer to a plain request has no end marker. */
        if (more == MNL_CB_OK && (request->nlmsg_flags & NLM_F_DUMP) == 0) {
            return 0;
        }
    }
    return more < 0 ? -errno : 0;
}

/* What one message says, collected attribute by attribute. */
struct attributes {
    const uint8_t *destination; /* 4 bytes */
    const uint8_t *mac;         /* 6 bytes */
    const uint8_t *gateway;     /* 4 bytes */
};

static int take_neighbour_attribute(const struct nlattr *attr, void *user)
{
    struct attributes *a = user;
    uint16_t len = mnl_attr_get_payload_len(attr);
    if (mnl_attr_get_type(attr) == NDA_DST && len == 4) {
        a->destination = mnl_attr_get_payload(attr);
    } else if (mnl_attr_get_type(attr) == NDA_LLADDR && len == 6) {
        a->mac = mnl_attr_get_payload(attr);
    }
    return MNL_CB_OK;
}

static int take_neighbour(const struct nlmsghdr *message, void *user)
{
    struct neighbours *n = user;
    const struct ndmsg *nd = mnl_nlmsg_get_payload(message);
    struct attributes a = {.mac = NULL};
    if (nd->ndm_family != AF_INET || (unsigned)nd->ndm_ifindex != n->interface ||
        (nd->ndm_state & USABLE_STATES) == 0 || n->count == TABLE_MAX) {
        return MNL_CB_OK;
    }
    mnl_attr_parse(message, sizeof(*nd), take_neighbour_attribute, &a);
    if (a.destination != NULL && a.mac != NULL) {
        struct entry *entry = &n->table[n->count++];
        memcpy(&entry->address, a.destination, sizeof(entry->address));
        memcpy(entry->mac, a.mac, sizeof(entry->mac));
    }
    return MNL_CB_OK;
}

static int take_route_attribute(const struct nlattr *attr, void *user)
{
    struct attributes *a = user;
    if (mnl_attr_get_type(attr) == RTA_GATEWAY && mnl_attr_get_payload_len(attr) == 4) {
        a->gateway = mnl_attr_get_payload(attr);
    }
    return MNL_CB_OK;
}

static int take_gateway(const struct nlmsghdr *message, void *user)
{
    struct attributes a = {.gateway = NULL};
    mnl_attr_parse(message, sizeof(struct rtmsg), take_route_attribute, &a);
    if (a.gateway != NULL) {
        memcpy(user, a.gateway, sizeof(uint32_t));
    }
    return MNL_CB_OK;
}

/* The address to whose link address packets for `address` go: itself, or a gateway. */
static uint32_t next_hop(struct neighbours *n, uint32_t address)
{
    char buffer[256];
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = RTM_GETROUTE;
    request->nlmsg_flags = NLM_F_REQUEST;
    struct rtmsg *rt = mnl_nlmsg_put_extra_header(request, sizeof(*rt));
    rt->rtm_family = AF_INET;
    rt->rtm_dst_len = 32;
    mnl_attr_put_u32(request, RTA_DST, address);
    uint32_t hop = address;
    return ask(n, request, take_gateway, &hop) == 0 ? hop : address;
}

static int compare_entry(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

int neighbours_refresh(struct neighbours *n, struct neighbour *list, uint32_t count)
{
    char buffer[256];
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = RTM_GETNEIGH;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    struct ndmsg *nd = mnl_nlmsg_put_extra_header(request, sizeof(*nd));
    nd->ndm_family = AF_INET;
    n->count = 0;
    int rc = ask(n, request, take_neighbour, n);
    if (rc != 0) {
        return rc;
    }
    qsort(n->table, n->count, sizeof(n->table[0]), compare_entry);
    int changed = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct entry key = {.address = next_hop(n, list[i].address.s_addr)};
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
