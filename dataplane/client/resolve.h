/* SPDX-License-Identifier: Apache-2.0 */
/* resolve.h - from the text that names a node to a socket that talks to it. Used by client_io.c. */
#pragma once

/*
 * "HOST", "HOST:PORT", "[IPv6]:PORT", "[IPv6]" or a bare IPv6 address; HOST is an IPv4 address or a
 * name, the port WEFT_PORT_DEFAULT unless given. Of a name's addresses, in the order of the
 * system's policy (RFC 6724), the first one that this machine has a way to. Blocks for a name
 * look-up. Returns a non-blocking UDP socket connected to it, which the caller closes; or -EINVAL
 * (no such name, or not of this form), or -errno.
 */
int resolve_connect(const char *node);
