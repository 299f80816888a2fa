/* SPDX-License-Identifier: Apache-2.0 */
/* link.c - see link.h. */
#include "dataplane/nic/link.h"

#include <errno.h>
#include <rte_ethdev.h>
#include <string.h>

#include "dataplane/nic/exception.h"
#include "schemas/base/log.h"

void link_start(struct link *link, uint16_t port, struct exception *tap, uint32_t mtu,
                uint32_t mtu_min, const uint8_t mac[6])
{
    *link = (struct link){
        .port = port,
        .tap = tap,
        .mtu = mtu,
        .mtu_min = mtu_min,
        .tap_mtu = mtu,
        .up = true,
        .carrier = true,
    };
    memcpy(link->mac, mac, sizeof(link->mac));
}

static void follow_up(struct link *link, bool up)
{
    if (link->up == up) {
        return;
    }
    int rc = up ? rte_eth_dev_set_link_up(link->port) : rte_eth_dev_set_link_down(link->port);
    link->up = up;
    LOG_INFO("interface set %s%s", up ? "up" : "down",
             rc == 0 ? ", the port with it" : "; the port's own link cannot be set");
}

/* A smaller one is the kernel's business: Weft's datagrams still need the port's. */
static void follow_mtu(struct link *link, uint32_t mtu)
{
    if (mtu == link->tap_mtu) {
        return;
    }
    uint32_t wanted = mtu > link->mtu_min ? mtu : link->mtu_min;
    int rc = wanted != link->mtu ? rte_eth_dev_set_mtu(link->port, (uint16_t)wanted) : 0;
    if (rc == 0) {
        LOG_INFO("mtu changed interface=%u port=%u", mtu, wanted);
        link->mtu = wanted;
        link->tap_mtu = mtu;
    } else if (mtu <= link->mtu) {
        link->tap_mtu = mtu; /* the port takes more than that */
    } else {
        LOG_WARN("the port cannot have an MTU of %u (%s): the interface gets %u back", mtu,
                 strerror(-rc), link->tap_mtu);
        (void)exception_set(link->tap, link->tap_mtu, link->mac);
    }
}

static void follow_mac(struct link *link, const uint8_t mac[6])
{
    struct rte_ether_addr wanted;
    if (memcmp(mac, link->mac, sizeof(link->mac)) == 0 || exception_no_mac(link->mac)) {
        return;
    }
    memcpy(wanted.addr_bytes, mac, sizeof(wanted.addr_bytes));
    int rc = rte_eth_dev_default_mac_addr_set(link->port, &wanted);
    if (rc == 0) {
        LOG_INFO("the port has the interface's new link address");
        memcpy(link->mac, mac, sizeof(link->mac));
        return;
    }
    LOG_WARN("the port cannot have another link address (%s): the interface gets its own back",
             strerror(-rc));
    (void)exception_set(link->tap, link->tap_mtu, link->mac);
}

void link_follow(struct link *link, const struct kernel_link *wish)
{
    if (link->tap == NULL || !wish->there) {
        return;
    }
    follow_up(link, wish->up);
    follow_mtu(link, wish->mtu);
    follow_mac(link, wish->mac);
}

void link_look(struct link *link)
{
    struct rte_eth_link now;
    if (link->tap == NULL) {
        return;
    }
    if (exception_gone(link->tap)) {
        if (exception_reopen(link->tap, link->tap_mtu, link->mac) != 0) {
            return;
        }
        LOG_INFO("the interface is there again");
        exception_carrier(link->tap, link->carrier);
    }
    if (rte_eth_link_get_nowait(link->port, &now) != 0) {
        return;
    }
    bool carrier = now.link_status == RTE_ETH_LINK_UP;
    /* A port that was set down has none because of that; the kernel knows. */
    if (carrier != link->carrier && link->up) {
        LOG_INFO("the port %s its carrier", carrier ? "has" : "has lost");
        link->carrier = carrier;
        exception_carrier(link->tap, carrier);
    }
}
