/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gives.h - gives pages to workers of other nodes, several at a time: a caller that stands still
 * holds up nobody but itself. Between mover.h, whose node sends the calls, and talk.h.
 *
 * Threads: all calls by one thread; `done` is called by others. Errors: negative errno.
 */
#pragma once

#include <stdint.h>

#include "kernels/moves/talk.h"
#include "schemas/port.h"

#define GIVES_MAX     4u /* at a time */
#define GIVES_WAITING 8u /* further ones; who comes then is turned away, and computes */
#define GIVES_OF_ONE  2u /* to one node; as many more of its calls may wait */

struct gives;

struct gives_options {
    runner_t *runner;
    struct pull_kind kind;
    int stop_fd; /* readable: all of them end */
    void (*done)(const struct talk_account *account, void *user);
    void *user;
};

int gives_create(struct gives **out, const struct gives_options *options);
/* With `stop_fd` readable. NULL is fine. */
void gives_destroy(struct gives *gives);

/* Serves a caller when it can; takes the descriptor. */
void gives_take(struct gives *gives, const struct port_way *way, int fd);
