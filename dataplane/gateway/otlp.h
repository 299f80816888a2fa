/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp.h - spans as OpenTelemetry's collectors take them by HTTP: JSON, as
 * https://opentelemetry.io/docs/specs/otlp/ says (ids in hex, 64-bit numbers as strings),
 * attributes by its semantic conventions for HTTP and generative AI where they have a name, else
 * `weft.*`. Pure.
 */
#pragma once

#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/trace.h"

/* The body of one POST to /v1/traces. Returns how many spans it has. `instance`: which gateway. */
uint32_t otlp_write(const struct trace_record *records, uint32_t count, const char *instance,
                    struct buf *out);
