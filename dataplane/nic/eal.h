/* SPDX-License-Identifier: Apache-2.0 */
/* eal.h - starts DPDK's environment for nic.c: arguments, memory, log. */
#pragma once

#include "dataplane/nic/nic.h"

/* Name of the virtual device that eal_start() creates. */
#define EAL_PORT "net_af_packet0"

/* Returns 0 or -errno, logged. */
int eal_start(const struct nic_options *options);
void eal_stop(void);
