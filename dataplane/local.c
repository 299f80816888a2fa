/* SPDX-License-Identifier: Apache-2.0 */
/* local.c - see local.h. */
#include "dataplane/local.h"

#include <arpa/inet.h>
#include <string.h>

#define LOCAL_NET        127u /* first byte of a local client's address */
#define LOCAL_GENERATION 0x00ffffffu
#define LOCAL_PORT_BASE  1u /* UDP port of slot 0 */

static bool is_local(const struct in6_addr *addr)
{
    return addr_is_v4(addr) && addr->s6_addr[12] == LOCAL_NET;
}

static struct in6_addr address_of(const struct client_port *port)
{
    return addr_of_v4(htonl(LOCAL_NET << 24 | (port->generation & LOCAL_GENERATION)));
}

static uint16_t udp_port_of(const struct client_port *port)
{
    return htons((uint16_t)(LOCAL_PORT_BASE + port->slot));
}

/* ---- coming and going ---- */

void local_attach(struct local *local, struct client_port *port)
{
    atomic_store_explicit(&local->incoming[port->slot], port, memory_order_release);
    atomic_fetch_add_explicit(&local->arrivals, 1, memory_order_release);
}

static void greet(struct local *local)
{
    uint32_t arrivals = atomic_load_explicit(&local->arrivals, memory_order_acquire);
    if (arrivals == local->arrivals_seen) {
        return;
    }
    local->arrivals_seen = arrivals;
    for (uint32_t slot = 0; slot < PORT_CLIENTS_MAX; slot++) {
        struct client_port *port =
            atomic_exchange_explicit(&local->incoming[slot], NULL, memory_order_acquire);
        if (port != NULL) {
            local->slots[slot] = port;
            local->there[local->count++] = port;
        }
    }
}

static void let_go(struct local *local, uint32_t index)
{
    struct client_port *port = local->there[index];
    local->there[index] = local->there[--local->count];
    local->slots[port->slot] = NULL;
    atomic_store_explicit(&port->released, true, memory_order_release);
}

/* ---- from the clients ---- */

/* Entries in the ring; nonsense counts as none. */
static uint32_t waiting_in(const struct client_port *port)
{
    uint32_t head = atomic_load_explicit(&port->to_node.ring->head, memory_order_acquire);
    uint32_t used = head - port->to_node.index;
    return used <= PORT_CLIENT_SLOTS ? used : 0;
}

uint32_t local_waiting(struct local *local, uint32_t max)
{
    uint32_t sum = 0;
    greet(local);
    if (local->count == 0) {
        return 0;
    }
    uint32_t share = max / local->count > 0 ? max / local->count : 1;
    for (uint32_t i = 0; i < local->count;) {
        struct client_port *port = local->there[i];
        bool lost = atomic_load_explicit(&port->lost, memory_order_acquire); /* before its ring */
        uint32_t waiting = waiting_in(port);
        if (lost) { /* its last words, no more than a ring full */
            waiting = waiting < port->last_left ? waiting : port->last_left;
            if (waiting == 0) {
                let_go(local, i);
                continue;
            }
        }
        waiting = waiting < share ? waiting : share;
        local->granted[i++] = waiting;
        sum += waiting;
    }
    return sum < max ? sum : max;
}

/* Headers as if it had come over the network from the client's own address. */
static void dress(struct route_core *core, const struct client_port *port, struct route_packet *p)
{
    struct in6_addr addr = address_of(port);
    const struct route_host *here = &core->host;
    struct route_host from = {
        .port_be = udp_port_of(port),
        .vlan_be = here->vlan_be,
        .addr = addr_v4(&addr),
        .addr6 = addr,
    };
    struct route_hop to = {
        .port_be = here->port_be,
        .addr = here->addr != 0 ? addr_of_v4(here->addr) : here->addr6,
    };
    memcpy(to.mac, here->mac, sizeof(to.mac));
    if (p->weft_len >= sizeof(struct weft_req)) {
        struct weft_req *req = &p->frame->weft.req;
        req->first.cookie = seal_cookie(&core->seal, &addr, from.port_be, req->h.conn_id);
    }
    packet_compose(p, &from, &to);
}

uint32_t local_take(struct local *local, struct route_core *core, struct route_packet *packets,
                    uint32_t count)
{
    uint32_t taken = 0;
    local->turn++;
    for (uint32_t n = 0; n < local->count && taken < count; n++) {
        uint32_t i = (local->turn + n) % local->count;
        struct client_port *port = local->there[i];
        for (; local->granted[i] > 0 && taken < count; local->granted[i]--) {
            struct route_packet *p = &packets[taken];
            uint32_t len = client_port_pop(port, p->frame->weft.bytes, WEFT_DATAGRAM_MAX);
            if (len == 0) {
                break;
            }
            port->last_left -= atomic_load_explicit(&port->lost, memory_order_relaxed) ? 1 : 0;
            p->weft_len = (uint16_t)len;
            dress(core, port, p);
            route_count(&local->local_taken);
            taken++;
        }
    }
    return taken;
}

/* ---- to the clients ---- */

/* Where a packet goes that is about to be sent to a client or back to its sender. */
static struct in6_addr receiver_of(const struct route_packet *p, uint16_t *port_be)
{
    struct in6_addr addr;
    if (p->to == ROUTE_TO_CLIENT) {
        const struct weft_return *ret = &p->frame->weft.rsp.ret;
        *port_be = htons(ret->port);
        memcpy(&addr, ret->addr, sizeof(addr));
    } else {
        *port_be = p->frame->udp.src_port;
        addr = packet_source(p);
    }
    return addr;
}

bool local_bound(const struct route_packet *p)
{
    if (p->action != ROUTE_SEND || p->to == ROUTE_TO_NODE) {
        return false;
    }
    uint16_t port_be;
    struct in6_addr addr = receiver_of(p, &port_be);
    return is_local(&addr);
}

static struct client_port *find(const struct local *local, const struct route_packet *p)
{
    uint16_t port_be;
    struct in6_addr addr = receiver_of(p, &port_be);
    uint32_t slot = (uint32_t)ntohs(port_be) - LOCAL_PORT_BASE;
    struct client_port *port = slot < PORT_CLIENTS_MAX ? local->slots[slot] : NULL;
    if (port == NULL || atomic_load_explicit(&port->lost, memory_order_relaxed)) {
        return NULL;
    }
    struct in6_addr its = address_of(port);
    return addr_equal(&addr, &its) ? port : NULL;
}

/* As if it were sent: for those who watch. */
static void show_headers(const struct route_core *core, struct route_packet *p)
{
    struct route_host from = core->host;
    struct route_hop to = {.port_be = 0};
    to.addr = receiver_of(p, &to.port_be);
    from.port_sums = false; /* no port sees it */
    packet_compose(p, &from, &to);
}

void local_deliver(struct local *local, struct route_core *core, struct route_packet *packets,
                   uint32_t count, bool watched)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (!local_bound(p)) {
            continue;
        }
        struct client_port *port = find(local, p);
        if (port == NULL) {
            route_drop(core, p, ROUTE_DROP_client_gone);
        } else if (!p->own && !packet_udp_ok(p)) {
            route_drop(core, p, ROUTE_DROP_bad_checksum);
        } else if (!client_port_push(port, p->frame->weft.bytes, p->weft_len)) {
            route_drop(core, p, ROUTE_DROP_client_full);
        } else {
            if (watched && p->own) {
                show_headers(core, p);
            }
            p->action = ROUTE_LET_GO;
            p->why = 0;
            route_count(&core->counters.returned);
            route_count(&local->local_given);
        }
    }
}

void local_flush(struct local *local)
{
    for (uint32_t i = 0; i < local->count; i++) {
        client_port_flush(local->there[i]);
    }
}

/* ---- sleeping ---- */

bool local_sleep_begin(struct local *local)
{
    for (uint32_t i = 0; i < local->count; i++) {
        if (!ring_sleep_begin(&local->there[i]->to_node)) {
            return false;
        }
    }
    return true;
}

void local_sleep_end(struct local *local)
{
    for (uint32_t i = 0; i < local->count; i++) {
        ring_sleep_end(&local->there[i]->to_node);
    }
}
