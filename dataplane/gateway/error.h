/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.h - what a client is told when there is no answer: OpenAI's error object, the HTTP status,
 * and whether it is worth asking again (`retry-after-ms` and `x-should-retry`, which OpenAI's own
 * clients heed). Pure. error.def maps statuses of the mesh.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "dataplane/gateway/buf.h"

struct api_error {
    int http_status; /* 0 = no error */
    const char *type;
    const char *code; /* static */
    bool retry;
    uint32_t retry_after_ms; /* 0 = unknown */
    char param[64];          /* "" = none */
    char message[400];
};

/* The request cannot be what is meant: 400. `param` may be NULL. Returns false, for `return
 * error_bad(...)`. */
bool error_bad(struct api_error *e, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Any other of the gateway's own. */
void error_set(struct api_error *e, int http_status, const char *type, const char *code, bool retry,
               const char *message);

/* A request that has ended with result->status, which is not 0. */
void error_of_result(struct api_error *e, const weft_result_t *result);
/* One that could not be sent at all. */
void error_of_status(struct api_error *e, int status);

/* {"error":{...}} */
void error_write(const struct api_error *e, struct buf *out);
