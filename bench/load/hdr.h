/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hdr.h - histograms and logs that HdrHistogram's tools read (hdrhistogram.org): nanoseconds up to
 * an hour in three significant digits, encoding V2, log format 1.3. Only written here, for others'
 * tools; Weft's own figures come from the samples themselves (stats.h).
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#define HDR_HIGHEST UINT64_C(3600000000000) /* what is longer, or was lost, counts as this */

struct hdr {
    uint64_t *counts;
    uint64_t count;
    uint64_t max;
};

/* Heap. Returns 0 or -ENOMEM. */
int hdr_init(struct hdr *h);
void hdr_deinit(struct hdr *h);
void hdr_reset(struct hdr *h);
void hdr_add(struct hdr *h, uint64_t value_ns);

/* Base64 of the compressed encoding, zero-terminated; heap, NULL if there is no memory. */
char *hdr_encode(const struct hdr *h);

/* The heading of a log whose intervals count from `epoch_s` (seconds since 1970). */
void hdr_log_begin(FILE *log, double epoch_s, const char *remark);
/* One interval of it. Returns 0 or -ENOMEM. */
int hdr_log_interval(FILE *log, const char *tag, double start_s, double length_s,
                     const struct hdr *h);
