/* SPDX-License-Identifier: Apache-2.0 */
/* traceparent.c - see traceparent.h. */
#include "schemas/base/traceparent.h"

#include <inttypes.h>
#include <stdio.h>

#define TEXT_LEN (TRACEPARENT_BYTES - 1)

/* So many digits, lower case as the standard wants it. */
static bool hex_read(const char *text, unsigned digits, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9') {
            value = value << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false; /* the end of the text as well */
        }
    }
    *out = value;
    return true;
}

bool traceparent_parse(const char *text, struct trace_context *out)
{
    struct trace_context t = {0};
    uint64_t version;
    uint64_t flags;
    *out = t;
    if (text == NULL || !hex_read(text, 2, &version) || version == 0xff || text[2] != '-' ||
        !hex_read(text + 3, 16, &t.high) || !hex_read(text + 19, 16, &t.low) || text[35] != '-' ||
        !hex_read(text + 36, 16, &t.span) || text[52] != '-' || !hex_read(text + 53, 2, &flags) ||
        (text[TEXT_LEN] != '\0' && (version == 0 || text[TEXT_LEN] != '-')) ||
        !traceparent_is_set(&t)) {
        return false;
    }
    t.flags = (uint8_t)(flags & TRACEPARENT_SAMPLED);
    *out = t;
    return true;
}

void traceparent_write(const struct trace_context *trace, char out[static TRACEPARENT_BYTES])
{
    snprintf(out, TRACEPARENT_BYTES, "00-%016" PRIx64 "%016" PRIx64 "-%016" PRIx64 "-%02x",
             trace->high, trace->low, trace->span, trace->flags & TRACEPARENT_SAMPLED);
}
