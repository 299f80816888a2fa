/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arrival.h - when datagrams came, by the kernel's own note, for those who measure: what a busy
 * machine takes to wake the client is not in it. Not part of libweft.so. Implemented in
 * client_io.c.
 *
 * Threads: as for the client.
 */
#pragma once

#include <stdint.h>
#include <weft/client.h>

/* From now on arrivals are noted. Returns 0 or a negative errno. */
int client_note_arrivals(weft_client_t *client);

/* Inside a callback: when the datagram that led to it reached this machine, ns of the monotonic
 * clock. 0 = not known: no datagram did, or it came through a ring, or nothing is noted. */
uint64_t client_arrived_ns(const weft_client_t *client);
