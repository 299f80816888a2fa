/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - the socket that clients of the gateway connect to. */
#pragma once

#include <stddef.h>

/* Listens on "[ADDRESS:]PORT"; ADDRESS: IPv4 or [IPv6], without it 127.0.0.1. Returns the socket,
 * which does not block, or -errno. */
int listen_open(const char *where);
