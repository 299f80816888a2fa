/* SPDX-License-Identifier: Apache-2.0 */
/*
 * partial.h - UDP checksums that a kernel has left to its hardware. Between network namespaces of
 * one machine there is no hardware: such a frame reaches a packet or AF_XDP socket with the sum of
 * the pseudo header in place of its checksum (Linux, Documentation/networking/
 * checksum-offloads.rst), and DPDK's drivers do not pass on the kernel's remark.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Ends the checksum if it is such a beginning; any frame may be given. One datagram in 65,536 has
 * the same value as its true checksum: it keeps it, and a damaged one escapes notice no more often
 * than with any sum of 16 bits. Frames not for UDP port `port_be` are left alone. Returns whether
 * the checksum was ended. */
bool partial_finish(uint8_t *frame, uint32_t len, uint16_t port_be);
