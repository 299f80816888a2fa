/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring_port.h - frames into DPDK's ring device, which gives them back as received, with what a NIC
 * would have said of them. Apart from the test, as check.h and DPDK's flags do not go together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum ring_verdict { RING_UNKNOWN, RING_GOOD, RING_BAD, RING_NONE };

/* One frame of `size` bytes into port 0, queue 0. False: no buffer, or no room. */
bool ring_port_send(const uint8_t *frame, uint16_t size, enum ring_verdict ip,
                    enum ring_verdict udp);
