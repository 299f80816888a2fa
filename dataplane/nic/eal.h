/* SPDX-License-Identifier: Apache-2.0 */
/* eal.h - starts DPDK's environment for nic.c: arguments, memory, log. */
#pragma once

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#include "dataplane/nic/nic.h"

#define EAL_RANGE_BYTES  16u   /* of one range of CPUs with what stands around it, and more */
#define EAL_LCORES_BYTES 4096u /* has room for all CPUs that a set can have, every other one */

/* Starts EAL with the virtual device `device` or, if `pci`, the one at that address (driver.h).
 * Returns 0 or -errno, logged. */
int eal_start(const struct nic_options *options, const char *device, bool pci);
void eal_stop(void);

/* "(0-1)@(0-3,6)": lcores 0 and 1, which float over those CPUs, as EAL wants to be told. Of more
 * CPUs than fit the first ones. */
void eal_lcores(char *out, size_t size, uint32_t lcores, const cpu_set_t *cpus);
