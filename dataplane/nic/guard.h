/* SPDX-License-Identifier: Apache-2.0 */
/* guard.h - keeps the kernel quiet about the data port. */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

/*
 * Drivers that sit on a kernel interface (af_packet) leave the kernel its own copy of each packet.
 * Without a socket on the data port it would answer them with "port unreachable". This opens one
 * whose filter lets nothing in, for an address of either family (schemas/base/addr.h). Returns the
 * descriptor or -errno. A port in use, or an address that is not there yet, is tried again for two
 * seconds: a process that was told to stop, or killed, keeps its sockets until its last thread has
 * gone, and who starts the next one cannot see that; addresses come a moment after their interface,
 * those of IPv6 once nobody else has them.
 */
int guard_open(const struct in6_addr *address, uint16_t port);
