/* SPDX-License-Identifier: Apache-2.0 */
/*
 * question.h - one line to the admin socket of the node next to the gateway, one JSON object back;
 * never waits: it is under way while the loop goes on. census.c asks for the node's status,
 * peers_io.c tells it of nodes to call.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "dataplane/gateway/buf.h"

#define QUESTION_TIMEOUT_NS 2000000000ull
#define QUESTION_BYTES_MAX  (64u << 20)

struct question {
    int fd; /* -1 = none is under way; else to be waited on for reading */
    uint64_t asked_ns;
    struct buf answer;
    char error[160]; /* why the latest got no answer; "" = it got one, or none was asked */
};

enum question_state { QUESTION_WAITS, QUESTION_ANSWERED, QUESTION_FAILED };

void question_init(struct question *q);
void question_deinit(struct question *q);

/* Asks; none may be under way. False: nobody can be asked, `error` says why. */
bool question_ask(struct question *q, const char *path, const char *line, uint64_t now_ns);

/* After readability or time. ANSWERED sets `*answer`, a new reference to an object; then, and with
 * FAILED, the question is over. */
enum question_state question_step(struct question *q, uint64_t now_ns, json_t **answer);

/* When question_step() has to be called at the latest; UINT64_MAX = no question is under way. */
uint64_t question_due_ns(const struct question *q);
