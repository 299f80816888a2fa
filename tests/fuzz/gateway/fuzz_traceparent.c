/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the header `traceparent`: what is taken is written the same way again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/traceparent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trace_context read, again;
    char text[TRACEPARENT_BYTES];
    char *copy = malloc(size + 1);
    if (copy == NULL) {
        return 0;
    }
    if (size != 0) {
        memcpy(copy, data, size);
    }
    copy[size] = '\0';
    if (traceparent_parse(copy, &read)) {
        traceparent_write(&read, text);
        if (!traceparent_parse(text, &again) || memcmp(text + 3, copy + 3, 49) != 0 ||
            again.flags != read.flags) {
            abort();
        }
    } else if (traceparent_is_set(&read)) {
        abort();
    }
    free(copy);
    return 0;
}
