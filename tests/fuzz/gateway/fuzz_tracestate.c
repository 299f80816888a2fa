/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the header `tracestate`, each line of the input one of them: what is carried on is fit for
 * a header, no longer than it may be, and taken as it is by the next one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/tracestate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tracestate state = {.count = 0};
    char out[TRACESTATE_BYTES];
    char *copy = malloc(size + (size == 0)); /* of that size: no byte behind it is read */
    if (copy == NULL) {
        return 0;
    }
    if (size != 0) {
        memcpy(copy, data, size);
    }
    for (size_t at = 0; at < size;) {
        const char *end = memchr(copy + at, '\n', size - at);
        size_t len = end != NULL ? (size_t)(end - copy) - at : size - at;
        tracestate_add(&state, copy + at, len);
        at += len + 1;
    }
    size_t len = tracestate_write(&state, out);
    if (len > TRACESTATE_MAX || strlen(out) != len ||
        (len != 0 && !tracestate_is_clean(out, len)) || (state.bad && len != 0)) {
        abort();
    }
    for (size_t i = 0; i < len; i++) {
        if (out[i] < ' ' || out[i] > '~') {
            abort();
        }
    }
    free(copy);
    return 0;
}
