/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracestate.h - W3C trace context (https://www.w3.org/TR/trace-context/, 3.3), the header
 * `tracestate`: what each tracing system on the way wants to find again, as members "key=value"
 * with commas between them, newest first. It only means something together with a traceparent.
 * Pure.
 *
 * Nothing of it is understood here; it is checked, since it goes on into headers, and kept short:
 * of more than TRACESTATE_MAX bytes members of over 128 bytes are let go of first, the last of them
 * first, then whole members from the end (3.3.1.5).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACESTATE_MAX     512u /* bytes that are carried */
#define TRACESTATE_BYTES   (TRACESTATE_MAX + 1)
#define TRACESTATE_MEMBERS 32u

/* The members of one or more header lines; they point into them. Zero-fill it first. */
struct tracestate {
    struct tracestate_member {
        const char *at;
        size_t len;
    } members[TRACESTATE_MEMBERS];
    uint32_t count;
    bool bad; /* something was not valid: then there is no tracestate at all */
};

/* Adds a header line: several are one list, in the order in which they come. */
void tracestate_add(struct tracestate *state, const char *line, size_t len);

/* Writes what is carried on, zero-terminated, without spaces between members. Returns its length;
 * 0 = none. */
size_t tracestate_write(const struct tracestate *state, char out[static TRACESTATE_BYTES]);

/* Is it what tracestate_write() writes: valid, not too long, fit for a header as it is? */
bool tracestate_is_clean(const char *text, size_t len);
