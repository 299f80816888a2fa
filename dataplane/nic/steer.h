/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steer.h - asks a port to bring only the data port's datagrams, spread over the queues by their
 * addresses and ports (rte_flow). A port that shares its NIC with the kernel can go further and
 * leave it all else (isolated mode). Ports that refuse are no error: then everything is received
 * and exception.h gives the kernel what is not Weft's. Main thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define STEER_RULES      2u /* IPv4 and IPv6 */
#define STEER_TEXT_BYTES 160u

struct rte_flow;

struct steer {
    uint16_t port;
    bool isolated; /* what no rule takes stays with the kernel */
    struct rte_flow *rules[STEER_RULES];
    uint32_t count;
    char refused[STEER_TEXT_BYTES]; /* why there are no rules */
};

/* Before the port is configured: isolated mode, if it has one. */
void steer_prepare(struct steer *steer, uint16_t port);

/* The port runs: the rules. Returns 0; or -errno, and what there was is taken back: an isolated
 * port then receives nothing until steer_give_up(). */
int steer_start(struct steer *steer, uint16_t data_port, uint32_t queues);

/* The port is stopped: out of isolated mode, so that it receives all when it starts again. Returns
 * 0 or -errno. */
int steer_give_up(struct steer *steer);

/* Before the port is stopped. */
void steer_stop(struct steer *steer);
