/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - a load run for readers (lines), for programs (JSON, CSV) and for HdrHistogram's
 * tools. */
#pragma once

#include "bench/load/account.h"

struct report_context {
    const struct drive *drive;
    const struct drive_plan *drive_plan;
    const struct account_plan *plan;
    const struct account *account;
    const struct account *floor; /* NULL = not measured */
    const char *arrivals;        /* in words: "poisson, 200 a second" */
    bool exponential;            /* they should be */
    int argc;
    char **argv;
};

void report_text(const struct report_context *c);
/* A new reference. What took forever is null. */
json_t *report_as_json(const struct report_context *c);
/* Tags `first` and `total`, an interval a second. Returns 0 or a negative errno. */
int report_hlog(const struct report_context *c, const char *path);
/* One line of CSV a request, times in ns from the start. Returns 0 or a negative errno. */
int report_samples(const struct report_context *c, const char *path);
