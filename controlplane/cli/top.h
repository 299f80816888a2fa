/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top.h - what `weft top` shows, out of the status answers of one or several nodes. Pure: takes
 * answers and times, gives one JSON view with rates, and text made from it. cmd_top.c asks the
 * nodes and owns the terminal.
 *
 * A rate is the difference of two answers of one node over the time between them, so the first
 * answer gives none (null, shown as `-`). A counter that fell was started again: it counts from 0.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#define TOP_NODES_MAX 64u

struct top;

/* `sockets` name the nodes and must outlive it. Heap. NULL without memory. */
struct top *top_create(const char *const *sockets, unsigned count);
void top_destroy(struct top *top);

/* The answer of node `index` at `now_ns`; the reference is taken over. NULL: it did not answer, for
 * the reason `error` (-errno). */
void top_feed(struct top *top, unsigned index, json_t *status, int error, uint64_t now_ns);

/* The view as a new object, NULL without memory:
 *   nodes[]: socket, error or {node, uptime_s, members[], rates{}, drops{}, worker{}, lcores[],
 * ...} sum: answering, asked, rates{}, drops{}, drops_per_s, room */
json_t *top_view(const struct top *top);

/* Prints a view, at most `width` columns and `height` lines; 0 = no limit. Each line ends with
 * `end` and a line feed. */
struct top_format {
    unsigned width;
    unsigned height;
    const char *end;
};
void top_print(const json_t *view, const struct top_format *format, FILE *out);
