/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matrix.h - the rules of all ordered pairs of ports, from lines of text: files, and single lines
 * sent to a running switch. rule.h reads the words; main.c hands the result to switch.h.
 */
#pragma once

#include "bench/impair/rule.h"
#include "bench/impair/switch.h"

#include <limits.h>

#define IMPAIR_NAME_MAX 32u

struct impair_matrix {
    uint32_t ports;
    char names[IMPAIR_PORTS_MAX][IMPAIR_NAME_MAX];
    uint64_t seed;
    struct impair_rule rules[IMPAIR_PORTS_MAX][IMPAIR_PORTS_MAX]; /* [from][to] */
};

/* Adds a port by name ([A-Za-z0-9_.-]). Returns 0, -EINVAL, -EEXIST or -ENOSPC. */
int impair_matrix_port(struct impair_matrix *m, const char *name);

/* Index of a name, or -ENOENT. */
int impair_matrix_find(const struct impair_matrix *m, const char *name);

/*
 * One line; what it does not name stays. `line` is used up. Latency files are looked for beside
 * `folder` unless their path is absolute. Returns 0 or a negative errno with a sentence in why.
 *
 *     default delay=10ms loss=1%
 *     tokyo -> frankfurt,paris delay=120ms
 *     tokyo <-> *  jitter=1ms/normal
 *     latency rtt.csv tokyo=3 frankfurt=17
 *     seed 7
 */
int impair_matrix_line(struct impair_matrix *m, char *line, const char *folder, char *why,
                       size_t why_size);

/* Forgets all rules and reads a file. Nothing changes unless the whole file is right. Returns 0 or
 * a negative errno with a sentence (file:line: ...) in why. */
int impair_matrix_load(struct impair_matrix *m, const char *path, char *why, size_t why_size);
