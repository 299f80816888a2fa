/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line.h - sealed records over a connection that two nodes have agreed on (schemas/port.h, ways):
 * ChaCha20-Poly1305 under the key of this one connection, each direction with nonces of its own
 * that count records, so that none can be changed, left out, repeated or put in another place.
 * Both ends know from what came before how long a record is: no length is ever believed.
 *
 * Threads: one at a time; another may end it by `stop_fd`. Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_KEY_BYTES  32u
#define LINE_RECORD_MAX (256u << 10) /* longer things are several records */

struct line {
    int fd;               /* non-blocking; the caller's */
    int stop_fd;          /* readable: give up; -1 = nobody says so */
    uint64_t deadline_ns; /* of clock_now_ns() */
    uint64_t sent;        /* records */
    uint64_t received;
    bool caller; /* else it was called: says whose nonces are whose */
    uint8_t key[LINE_KEY_BYTES];
    uint8_t *sealed; /* one record with its tag */
};

/* Returns 0 or -ENOMEM. */
int line_init(struct line *line, int fd, int stop_fd, const uint8_t key[LINE_KEY_BYTES],
              bool caller);
/* Wipes the key. */
void line_deinit(struct line *line);

/* Both return 0, -ETIMEDOUT, -ECANCELED (stop_fd), -EPIPE (the other end has gone), -EBADMSG (not
 * sealed by the other end), -errno. What is longer than a record goes as several. */
int line_send(struct line *line, const void *data, size_t size);
int line_receive(struct line *line, void *data, size_t size);
