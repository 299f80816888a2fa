/* SPDX-License-Identifier: Apache-2.0 */
/* ring_port.c - see ring_port.h. */
#include "tests/unit/nic/ring_port.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <string.h>

static const uint64_t ip_flags[] = {
    [RING_UNKNOWN] = RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN,
    [RING_GOOD] = RTE_MBUF_F_RX_IP_CKSUM_GOOD,
    [RING_BAD] = RTE_MBUF_F_RX_IP_CKSUM_BAD,
    [RING_NONE] = RTE_MBUF_F_RX_IP_CKSUM_NONE,
};
static const uint64_t udp_flags[] = {
    [RING_UNKNOWN] = RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN,
    [RING_GOOD] = RTE_MBUF_F_RX_L4_CKSUM_GOOD,
    [RING_BAD] = RTE_MBUF_F_RX_L4_CKSUM_BAD,
    [RING_NONE] = RTE_MBUF_F_RX_L4_CKSUM_NONE,
};

bool ring_port_send(const uint8_t *frame, uint16_t size, enum ring_verdict ip,
                    enum ring_verdict udp)
{
    struct rte_mempool *pool = rte_mempool_lookup("weft");
    struct rte_mbuf *buf = pool != NULL ? rte_pktmbuf_alloc(pool) : NULL;
    char *data = buf != NULL ? rte_pktmbuf_append(buf, size) : NULL;
    if (data == NULL) {
        rte_pktmbuf_free(buf);
        return false;
    }
    memcpy(data, frame, size);
    buf->ol_flags = ip_flags[ip] | udp_flags[udp];
    if (rte_eth_tx_burst(0, 0, &buf, 1) != 1) {
        rte_pktmbuf_free(buf);
        return false;
    }
    return true;
}
