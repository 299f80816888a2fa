/* SPDX-License-Identifier: Apache-2.0 */
/* steer.c - see steer.h. */
#include "dataplane/nic/steer.h"

#include <errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/nic/nic.h"

static int refused(struct steer *steer, const char *what, int rc,
                   const struct rte_flow_error *error)
{
    snprintf(steer->refused, sizeof(steer->refused), "%s: %s", what,
             error->message != NULL ? error->message : strerror(-rc));
    return rc;
}

void steer_prepare(struct steer *steer, uint16_t port)
{
    struct rte_flow_error error = {.message = NULL};
    memset(steer, 0, sizeof(*steer));
    steer->port = port;
    steer->isolated = rte_flow_isolate(port, 1, &error) == 0;
}

/* What the port can hash: both addresses and ports if possible, or the addresses alone. */
static uint64_t hash_types(uint16_t port, bool v6)
{
    struct rte_eth_dev_info info;
    uint64_t udp = v6 ? RTE_ETH_RSS_NONFRAG_IPV6_UDP : RTE_ETH_RSS_NONFRAG_IPV4_UDP;
    uint64_t ip = v6 ? RTE_ETH_RSS_IPV6 : RTE_ETH_RSS_IPV4;
    if (rte_eth_dev_info_get(port, &info) != 0) {
        return udp;
    }
    return (info.flow_type_rss_offloads & udp) != 0 ? udp : info.flow_type_rss_offloads & ip;
}

static int add_rule(struct steer *steer, uint16_t data_port, uint32_t queues, bool v6)
{
    uint16_t all[NIC_LCORES_MAX];
    for (uint16_t i = 0; i < queues; i++) {
        all[i] = i;
    }
    struct rte_flow_attr attr = {.ingress = 1};
    struct rte_flow_item_udp spec = {.hdr.dst_port = rte_cpu_to_be_16(data_port)};
    struct rte_flow_item_udp mask = {.hdr.dst_port = RTE_BE16(0xffff)};
    struct rte_flow_item pattern[] = {
        {.type = RTE_FLOW_ITEM_TYPE_ETH},
        {.type = v6 ? RTE_FLOW_ITEM_TYPE_IPV6 : RTE_FLOW_ITEM_TYPE_IPV4},
        {.type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &spec, .mask = &mask},
        {.type = RTE_FLOW_ITEM_TYPE_END},
    };
    struct rte_flow_action_queue queue = {.index = 0};
    struct rte_flow_action_rss rss = {
        .types = hash_types(steer->port, v6),
        .queue_num = queues,
        .queue = all,
    };
    struct rte_flow_action actions[] = {
        {.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &queue},
        {.type = RTE_FLOW_ACTION_TYPE_END},
    };
    if (queues > 1) {
        actions[0] = (struct rte_flow_action){.type = RTE_FLOW_ACTION_TYPE_RSS, .conf = &rss};
    }
    struct rte_flow_error error = {.message = NULL};
    struct rte_flow *rule = rte_flow_create(steer->port, &attr, pattern, actions, &error);
    if (rule == NULL) {
        return refused(steer, v6 ? "rule for IPv6" : "rule for IPv4",
                       rte_errno != 0 ? -rte_errno : -ENOTSUP, &error);
    }
    steer->rules[steer->count++] = rule;
    return 0;
}

int steer_start(struct steer *steer, uint16_t data_port, uint32_t queues)
{
    int rc = add_rule(steer, data_port, queues, false);
    if (rc == 0) {
        rc = add_rule(steer, data_port, queues, true);
    }
    if (rc != 0) {
        steer_stop(steer);
    }
    return rc;
}

int steer_give_up(struct steer *steer)
{
    struct rte_flow_error error = {.message = NULL};
    if (!steer->isolated) {
        return 0;
    }
    int rc = rte_flow_isolate(steer->port, 0, &error);
    steer->isolated = rc != 0;
    return rc != 0 ? refused(steer, "leaving isolated mode", rc, &error) : 0;
}

void steer_stop(struct steer *steer)
{
    struct rte_flow_error error;
    while (steer->count != 0) {
        rte_flow_destroy(steer->port, steer->rules[--steer->count], &error);
    }
}
