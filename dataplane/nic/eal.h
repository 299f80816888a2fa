/* SPDX-License-Identifier: Apache-2.0 */
/* eal.h - starts DPDK's environment for nic.c: arguments, memory, log. */
#pragma once

#include "dataplane/nic/nic.h"

/* Starts EAL with the virtual device `device` or, if `pci`, the one at that address (driver.h).
 * Returns 0 or -errno, logged. */
int eal_start(const struct nic_options *options, const char *device, bool pci);
void eal_stop(void);
