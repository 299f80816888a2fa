/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_trace.c - recorded arrivals from any bytes: parsed or refused, never falling in time. */
#include <stdlib.h>

#include "bench/load/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trace trace;
    uint32_t line;
    if (trace_parse(&trace, (const char *)data, size, &line) != 0) {
        return 0;
    }
    uint64_t before_ns = 0;
    for (uint32_t i = 0; i < trace.count; i++) {
        const struct trace_entry *e = &trace.entries[i];
        if (e->at_ns < before_ns || e->block + e->block_count > trace.block_count) {
            abort();
        }
        before_ns = e->at_ns;
    }
    trace_deinit(&trace);
    return 0;
}
