/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.h - a question to a node's admin socket and its answer. Used by `weft status`, `weft top`
 * and `weft pcap`; the other end is controlplane/admin.
 */
#pragma once

#include <jansson.h>

#define ASK_ANSWER_MAX (16u << 20)

/* Connects and sends `request` (a line; its end is added). Returns the descriptor or -errno. */
int ask_open(const char *path, const char *request);

/* Reads to the end of the stream and gives the object in it, a new reference. Returns 0 or -errno:
 * -ETIMEDOUT after `wait_ms` of silence, -EPROTO if the answer is not an object. */
int ask_read(int fd, unsigned wait_ms, json_t **answer);

/* Both, and closes. */
int ask(const char *path, const char *request, unsigned wait_ms, json_t **answer);

/* Why it failed, for people, e.g. "No such file or directory; is weftd running?". Storage of the
 * calling thread, good until its next call. */
const char *ask_error_text(int rc);
