/* SPDX-License-Identifier: Apache-2.0 */
/* paths.c - see paths.h. */
#include "dataplane/paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/kernel_watch.h"
#include "dataplane/nic/neighbour.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"

/* The kernel tells of changes; asking is for what it may not have told (and costs a call for each
 * member), more often while some member's hop is not known. */
#define REFRESH_NS       (10 * NS_PER_S)
#define REFRESH_LEAST_NS (200 * NS_PER_MS)

struct paths {
    const struct config *config;
    struct core *const *cores;
    void (*changed)(uint64_t now_ns, void *user);
    void *user;
    struct control *control;
    struct kernel_watch *watch;
    struct neighbours *neighbours;
    struct neighbour *hops; /* in the order of the members */
    bool *wanted;           /* likewise: the member is alive, and not this node */
    uint32_t hop_count;
    uint32_t index;        /* of the interface that `neighbours` are of */
    bool have_v4, have_v6; /* own addresses that are there */
    bool news;             /* hops may have changed */
    uint64_t refreshed_ns;
};

static const struct config_member *self_of(const struct paths *p)
{
    return &p->config->members[p->config->self];
}

static bool on_neighbour(uint32_t interface, const struct in6_addr *address, const uint8_t mac[6],
                         void *user)
{
    const struct paths *p = user;
    return p->neighbours != NULL && neighbours_is_news(p->neighbours, interface, address, mac);
}

/* ---- own addresses, and the interface ---- */

static void tell_lcores(const struct paths *p)
{
    uint8_t mac[6];
    if (p->config->nic.driver == CONFIG_DRIVER_DPDK) {
        nic_mac(p->cores[0]->nic, mac);
    } else { /* the kernel's own */
        memcpy(mac, kernel_watch_state(p->watch)->link.mac, sizeof(mac));
    }
    for (uint32_t i = 0; i < p->config->nic.lcores; i++) {
        core_place(p->cores[i], p->have_v4, p->have_v6, mac);
    }
}

static void note_address(bool v6, bool have, const struct paths *p)
{
    const struct in6_addr *own[] = {&self_of(p)->address, &self_of(p)->client_address};
    char text[ADDR_TEXT_MAX];
    for (int i = 0; i < 2; i++) {
        if (IN6_IS_ADDR_UNSPECIFIED(own[i]) || addr_is_v4(own[i]) == v6) {
            continue;
        }
        if (have) {
            LOG_INFO("answering at %s again", addr_format(own[i], text));
        } else {
            LOG_WARN("not answering at %s: the kernel does not have that address, or %s is down",
                     addr_format(own[i], text), p->config->nic.interface);
        }
    }
}

/* True: another family can be used now, or cannot any more. */
static bool take_addresses(struct paths *p, const struct kernel *state)
{
    bool usable = state->link.there && state->link.up;
    bool v4 = usable && kernel_has(state, false);
    bool v6 = usable && kernel_has(state, true);
    bool changed = v4 != p->have_v4 || v6 != p->have_v6;
    if (v4 != p->have_v4) {
        note_address(false, v4, p);
    }
    if (v6 != p->have_v6) {
        note_address(true, v6, p);
    }
    p->have_v4 = v4;
    p->have_v6 = v6;
    return changed;
}

static int open_neighbours(struct paths *p)
{
    const struct config *config = p->config;
    const char *interface = config->nic.interface;
    uint32_t vlan = config->nic.vlan;
    int rc = neighbours_create(&p->neighbours, interface, vlan);
    if (rc == -ENODEV && vlan != 0) {
        LOG_ERROR("the kernel has no device for VLAN %u upon %s, whose neighbours it would know: "
                  "ip link add link %s name %s.%u type vlan id %u",
                  vlan, interface, interface, interface, vlan, vlan);
    } else if (rc < 0) {
        LOG_ERROR("cannot ask for the neighbours on %s: %s", interface, strerror(-rc));
    }
    return rc;
}

/* Made anew under its name, the interface has another index. */
static void take_interface(struct paths *p, const struct kernel *state)
{
    if (!state->link.there || state->index == p->index) {
        return;
    }
    neighbours_destroy(p->neighbours);
    p->neighbours = NULL;
    if (open_neighbours(p) == 0) {
        p->index = state->index;
        p->news = true;
    }
}

static void take_news(struct paths *p, uint32_t news, uint64_t now_ns)
{
    const struct kernel *state = kernel_watch_state(p->watch);
    p->news |= (news & KERNEL_NEWS_PATHS) != 0;
    if ((news & KERNEL_NEWS_LINK) != 0) {
        LOG_INFO("interface %s: there=%d up=%d carrier=%d mtu=%u", p->config->nic.interface,
                 state->link.there, state->link.up, state->link.carrier, state->link.mtu);
        nic_follow(p->cores[0]->nic, &state->link);
        take_interface(p, state);
    }
    if ((news & (KERNEL_NEWS_LINK | KERNEL_NEWS_ADDRESSES)) != 0) {
        bool changed = take_addresses(p, state);
        tell_lcores(p);
        if (changed) {
            p->changed(now_ns, p->user);
        }
    }
}

static void on_readable(int fd, void *user)
{
    struct paths *p = user;
    (void)fd;
    uint32_t news = kernel_watch_read(p->watch);
    if (news != 0) {
        take_news(p, news, clock_now_ns());
    }
}

/* ---- hops ---- */

static void refresh_hops(struct paths *p, uint64_t now_ns)
{
    bool all_known = true;
    for (uint32_t i = 0; i < p->hop_count; i++) {
        all_known &= p->hops[i].known || !p->wanted[i];
    }
    uint64_t wait_ns = all_known && !p->news ? REFRESH_NS : p->news ? REFRESH_LEAST_NS : 0;
    if (p->neighbours == NULL || now_ns - p->refreshed_ns < wait_ns) {
        return;
    }
    p->refreshed_ns = now_ns;
    p->news = false;
    int changed = neighbours_refresh(p->neighbours, p->hops, p->hop_count);
    if (changed < 0) {
        LOG_WARN("cannot read link addresses: %s", strerror(-changed));
    } else if (changed > 0) {
        p->changed(now_ns, p->user);
    }
}

void paths_tick(struct paths *p, uint64_t now_ns)
{
    nic_look(p->cores[0]->nic);
    refresh_hops(p, now_ns);
}

/* What is known of an address so far; by far most often it is where it was. */
static struct neighbour hop_of(const struct paths *p, const struct in6_addr *address,
                               uint32_t index)
{
    if (index < p->hop_count && addr_equal(&p->hops[index].address, address)) {
        return p->hops[index];
    }
    for (uint32_t i = 0; i < p->hop_count; i++) {
        if (addr_equal(&p->hops[i].address, address)) {
            return p->hops[i];
        }
    }
    return (struct neighbour){.address = *address};
}

int paths_follow(struct paths *p, const struct members *members)
{
    uint32_t count = members_count(members);
    struct neighbour *hops = calloc(count, sizeof(*hops));
    bool *wanted = calloc(count, sizeof(*wanted));
    if (hops == NULL || wanted == NULL) {
        free(hops);
        free(wanted);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct member *member = members_at(members, i);
        hops[i] = hop_of(p, &member->address, i);
        wanted[i] = member->alive && i != members_self(members);
    }
    free(p->hops);
    free(p->wanted);
    p->hops = hops;
    p->wanted = wanted;
    p->hop_count = count;
    return 0;
}

bool paths_hop(const struct paths *p, uint32_t index, uint8_t mac[6])
{
    const struct neighbour *hop = &p->hops[index];
    memcpy(mac, hop->mac, sizeof(hop->mac));
    return hop->known && (addr_is_v4(&hop->address) ? p->have_v4 : p->have_v6);
}

/* ---- status ---- */

void paths_status(const struct paths *p, json_t *status)
{
    const struct kernel *state = kernel_watch_state(p->watch);
    const struct in6_addr *own[] = {&self_of(p)->address, &self_of(p)->client_address};
    json_t *answers = json_array();
    char text[ADDR_TEXT_MAX];
    for (int i = 0; i < 2; i++) {
        if (!IN6_IS_ADDR_UNSPECIFIED(own[i]) && (addr_is_v4(own[i]) ? p->have_v4 : p->have_v6)) {
            json_array_append_new(answers, json_string(addr_format(own[i], text)));
        }
    }
    json_object_set_new(status, "answers", answers);
    json_object_set_new(status, "interface",
                        json_pack("{s:s, s:b, s:b, s:b, s:i}", "name", state->name, "there",
                                  state->link.there, "up", state->link.up, "carrier",
                                  state->link.carrier, "mtu", (int)state->link.mtu));
}

/* ---- life ---- */

int paths_create(struct paths **out, const struct config *config, struct core *const *cores,
                 void (*changed)(uint64_t now_ns, void *user), void *user)
{
    *out = NULL;
    struct paths *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return -ENOMEM;
    }
    p->config = config;
    p->cores = cores;
    p->changed = changed;
    p->user = user;
    p->have_v4 = p->have_v6 = true; /* as the lcores take it to be at first */
    const struct in6_addr own[] = {self_of(p)->address, self_of(p)->client_address};
    int rc = open_neighbours(p);
    if (rc == 0 && (rc = kernel_watch_create(&p->watch, config->nic.interface, own, 2, on_neighbour,
                                             p)) != 0) {
        LOG_ERROR("cannot hear from the kernel what changes on %s: %s", config->nic.interface,
                  strerror(-rc));
    }
    if (rc < 0) {
        paths_destroy(p);
        return rc;
    }
    p->index = kernel_watch_state(p->watch)->index;
    *out = p;
    return 0;
}

void paths_destroy(struct paths *p)
{
    if (p == NULL) {
        return;
    }
    kernel_watch_destroy(p->watch);
    neighbours_destroy(p->neighbours);
    free(p->hops);
    free(p->wanted);
    free(p);
}

int paths_start(struct paths *p, struct control *control)
{
    const struct kernel *state = kernel_watch_state(p->watch);
    p->control = control;
    p->have_v4 = kernel_has(state, false);
    p->have_v6 = kernel_has(state, true);
    (void)take_addresses(p, state);
    tell_lcores(p);
    nic_follow(p->cores[0]->nic, &state->link);
    return control_watch(control, kernel_watch_fd(p->watch), on_readable, p);
}
