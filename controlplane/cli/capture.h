/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capture.h - the reading end of a node's tap: asks the admin socket for it, maps the memory
 * (dataplane/tap/tap_shm.h) and gives the frames of all lcores in the order of their times.
 * Used by cmd_pcap.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/tap/tap_shm.h"

struct capture_frame {
    struct tap_record record;
    uint32_t lcore;
    uint64_t time_ns;  /* since 1970 */
    uint32_t captured; /* bytes in `data` */
    uint8_t data[TAP_SNAPLEN_MAX];
};

struct capture;

/* Begins a capture. Heap. Returns 0 or -errno; then `error` says more, if anything. */
int capture_open(struct capture **capture, const char *socket, uint32_t snaplen, uint32_t slots,
                 char *error, size_t error_size);

/* Takes over a descriptor of tap memory. Returns 0, -EPROTO if it is not sound, or -errno. */
int capture_map(struct capture **capture, int fd);

void capture_close(struct capture *capture);

/* Takes the oldest frame. False: there is none now. A worker's datagram gets Ethernet, IP and UDP
 * headers so that it can be dissected (127.0.0.1 both ways). */
bool capture_next(struct capture *capture, struct capture_frame *frame);

/* Has the node gone? What is still in the rings can be read. */
bool capture_ended(const struct capture *capture);

/* Frames that the rings could not take, so far. */
uint64_t capture_lost(const struct capture *capture);

const char *capture_node(const struct capture *capture);
const char *capture_interface(const struct capture *capture);
