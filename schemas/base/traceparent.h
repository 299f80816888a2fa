/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traceparent.h - W3C trace context (https://www.w3.org/TR/trace-context/), the header
 * `traceparent`: what ties the spans of one request together across programs. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TRACEPARENT_BYTES   56u /* "00-", 32 digits, "-", 16 digits, "-", 2 digits, and a zero */
#define TRACEPARENT_SAMPLED 1u

/* Ids as numbers, first digit highest: `high` and `low` of the trace, `span` of the parent. */
struct trace_context {
    uint64_t high, low;
    uint64_t span;
    uint8_t flags; /* TRACE_F_* */
};

/* None: a trace's or span's id of zeros is not valid. */
static inline bool traceparent_is_set(const struct trace_context *trace)
{
    return (trace->high | trace->low) != 0 && trace->span != 0;
}

/* Reads a header's value (NULL: false). Versions above 00 are read by what 00 has in common with
 * them; flags that are not known are let go of. False, and all zero, if it is not valid: the trace
 * then begins anew, as the standard says. */
bool traceparent_parse(const char *text, struct trace_context *out);

/* Writes version 00. */
void traceparent_write(const struct trace_context *trace, char out[static TRACEPARENT_BYTES]);
