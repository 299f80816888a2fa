/* SPDX-License-Identifier: Apache-2.0 */
/* sockets.h - finds the sockets that a DPDK driver has opened and does not tell (driver.h). */
#pragma once

#include <stdint.h>

#define SOCKETS_MAX 64u

/* This process's sockets of an address family, lowest descriptor first: drivers open one after the
 * other, by queue. Returns how many there are (SOCKETS_MAX at most), of which up to `max` are
 * stored. They stay the driver's. */
uint32_t sockets_find(int family, int *fds, uint32_t max);
