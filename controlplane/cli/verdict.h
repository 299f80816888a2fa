/* SPDX-License-Identifier: Apache-2.0 */
/* verdict.h - a captured frame in words: what became of it, and one line about the whole. Pure;
 * used by cmd_pcap.c. */
#pragma once

#include "controlplane/cli/capture.h"

bool verdict_goes_out(const struct tap_record *record);

/* Is the other side the local worker (else the network)? */
bool verdict_of_worker(const struct tap_record *record);

/* "dropped, bad_return: return block not made by this node, or too old"; where it was seen for
 * frames going out. */
void verdict_text(const struct tap_record *record, char *out, size_t size);

/* "12:00:00.000001 in  eth0 10.77.0.9:40000 > 10.77.0.1:7400 REQ conn=... seq=7 offset=0 len=214:
 * <verdict>". */
void verdict_line(const struct capture_frame *frame, const char *interface, char *out, size_t size);
