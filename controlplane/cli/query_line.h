/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query_line.h - the command lines of `weft query` and `weft trace`: a request's conditions as
 * options, as one JSON object, or both; options overrule. Used by cmd_query.c and cmd_trace.c.
 */
#pragma once

#include <stdbool.h>

#include "controlplane/cli/query.h"

struct query_line {
    const char *socket; /* of the node's admin */
    bool json;
    bool local;         /* query: ask no other node */
    bool dry;           /* trace: send no request */
    const char *node;   /* trace: where to send it; NULL: to the node behind the socket */
    const char *prompt; /* trace; NULL: not given */
    struct query query;
};

/* What both commands say of a request's conditions in their usage. */
#define QUERY_LINE_USAGE                                                                           \
    "  --model NAME        needed, here or in the JSON\n"                                          \
    "  --near LAT,LON      in degrees; else the node's own place\n"                                \
    "  --radius-km N       within N km of that place\n"                                            \
    "  --tier A-B          hardware tiers, 0 to 7\n"                                               \
    "  --vram-mib N        with so much accelerator memory free\n"                                 \
    "  --tags A,B          policy tags that the node must all have\n"                              \
    "  --jurisdiction A,B  in one of these, as nodes name theirs: DE,FR. A request itself can\n"   \
    "                      name one\n"                                                             \
    "  --budget-ms N       the first token can come in time; --e2e: the whole answer\n"

enum query_line_kind { QUERY_LINE_QUERY, QUERY_LINE_TRACE };

/* Returns 0, or the exit code, said. */
int query_line_read(struct query_line *line, enum query_line_kind kind, int argc, char **argv);
