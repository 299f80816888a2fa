/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - the little that nic.c has to know of a frame before the stages see it: is it the data
 * port's, and is its UDP checksum whole? As xdp_filter.bpf.c: one 802.1Q tag at most, IPv4 without
 * options and not a fragment, IPv6 without extension headers. Any bytes may be given.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A datagram to UDP port `port_be`? */
bool frame_is_ours(const uint8_t *frame, uint32_t len, uint16_t port_be);

/*
 * UDP checksums that a kernel has left to its hardware. Between network namespaces of one machine
 * there is no hardware: such a frame reaches a packet or AF_XDP socket with the sum of the pseudo
 * header in place of its checksum (Linux, Documentation/networking/checksum-offloads.rst), and
 * DPDK's drivers do not pass on the kernel's remark.
 *
 * Ends the checksum if it is such a beginning. One datagram in 65,536 has the same value as its
 * true checksum: it keeps it, and a damaged one escapes notice no more often than with any sum of
 * 16 bits. Frames not for UDP port `port_be` are left alone. Returns whether the checksum was
 * ended.
 */
bool frame_finish_sum(uint8_t *frame, uint32_t len, uint16_t port_be);
