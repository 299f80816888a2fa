/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtt.h - round-trip estimate and retransmission timeout, RFC 6298: SRTT + 4 RTTVAR with gains 1/8
 * and 1/4, floor 20 ms, cap 2 s. The caller follows Karn: no sample from what was sent twice.
 * Used by request.c and serve.c.
 */
#pragma once

#include <stdint.h>

#include "schemas/base/clock.h"

#define RTT_RTO_FLOOR_NS   (20 * NS_PER_MS)
#define RTT_RTO_CAP_NS     (2 * NS_PER_S)
#define RTT_RTO_INITIAL_NS (100 * NS_PER_MS) /* before the first sample */

/* Zero-filled = no sample yet. */
struct rtt {
    uint64_t srtt_ns;
    uint64_t var_ns;
};

static inline void rtt_sample(struct rtt *r, uint64_t sample_ns)
{
    if (sample_ns > RTT_RTO_CAP_NS) {
        sample_ns = RTT_RTO_CAP_NS;
    }
    if (r->srtt_ns == 0) {
        r->srtt_ns = sample_ns != 0 ? sample_ns : 1;
        r->var_ns = sample_ns / 2;
        return;
    }
    uint64_t err = sample_ns > r->srtt_ns ? sample_ns - r->srtt_ns : r->srtt_ns - sample_ns;
    r->var_ns = r->var_ns - r->var_ns / 4 + err / 4;
    r->srtt_ns = r->srtt_ns - r->srtt_ns / 8 + sample_ns / 8;
}

/* Timeout after `tries` earlier expiries: doubles each time up to the cap. */
static inline uint64_t rtt_rto_ns(const struct rtt *r, uint32_t tries)
{
    uint64_t rto = r->srtt_ns == 0 ? RTT_RTO_INITIAL_NS : r->srtt_ns + 4 * r->var_ns;
    rto = rto < RTT_RTO_FLOOR_NS ? RTT_RTO_FLOOR_NS : rto;
    rto <<= tries < 8 ? tries : 8;
    return rto < RTT_RTO_CAP_NS ? rto : RTT_RTO_CAP_NS;
}
