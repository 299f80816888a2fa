/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - see error.h. */
#include "dataplane/gateway/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/error.def"

bool error_bad(struct api_error *e, const char *param, const char *format, ...)
{
    va_list args;
    *e = (struct api_error){
        .http_status = 400, .type = "invalid_request_error", .code = "invalid_value"};
    snprintf(e->param, sizeof(e->param), "%s", param != NULL ? param : "");
    va_start(args, format);
    vsnprintf(e->message, sizeof(e->message), format, args);
    va_end(args);
    return false;
}

void error_set(struct api_error *e, int http_status, const char *type, const char *code, bool retry,
               const char *message)
{
    *e = (struct api_error){.http_status = http_status, .type = type, .code = code, .retry = retry};
    snprintf(e->message, sizeof(e->message), "%s", message);
}

enum error_retry { NO, YES, WAIT };

static const struct error_kind {
    int status;
    int http_status;
    const char *type;
    const char *code;
    enum error_retry retry;
} kinds[] = {
#define ERROR_KIND_(status, http_status, type, code, retry)                                        \
    {status, http_status, type, code, retry},
    GATEWAY_ERRORS(ERROR_KIND_)
#undef ERROR_KIND_
};

void error_of_status(struct api_error *e, int status)
{
    weft_result_t result = {.status = status};
    error_of_result(e, &result);
}

/* The best figure of the constraint that bound, as people say it. */
static void best_add(char *text, size_t size, const weft_result_t *r)
{
    size_t used = strlen(text);
    double best = r->constraint_best;
    switch (r->constraint) {
    case WEFT_C_BUDGET:
        snprintf(text + used, size - used, "; best possible: %.1f ms", best / 1e3);
        break;
    case WEFT_C_VRAM:
        snprintf(text + used, size - used, "; best possible: %.0f MiB", best * WEFT_VRAM_UNIT_MIB);
        break;
    case WEFT_C_RADIUS:
        snprintf(text + used, size - used, "; best possible: %.0f km", best);
        break;
    case WEFT_C_TIER:
        snprintf(text + used, size - used, "; best possible: tier %.0f", best);
        break;
    default:
        break;
    }
}

void error_of_result(struct api_error *e, const weft_result_t *result)
{
    static const struct error_kind own = {0, 500, "server_error", "internal_error", NO};
    const struct error_kind *kind = &own;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].status == result->status) {
            kind = &kinds[i];
        }
    }
    error_set(e, kind->http_status, kind->type, kind->code, kind->retry == YES,
              weft_status_text(result->status));
    e->retry_after_ms = result->retry_after_ms;
    if (kind->retry == WAIT && result->retry_after_ms != 0) {
        e->retry = true;
        e->http_status = 503; /* no client asks again after a 4xx */
    }
    if (result->finish == WEFT_FINISH_REFUSED && result->constraint != WEFT_C_NONE) {
        size_t used = strlen(e->message);
        snprintf(e->message + used, sizeof(e->message) - used, " Binding constraint: %s",
                 weft_constraint_text((unsigned)result->constraint));
        best_add(e->message, sizeof(e->message), result);
        used = strlen(e->message);
        snprintf(e->message + used, sizeof(e->message) - used, ".");
    }
    if (result->new_tokens > 0) {
        size_t used = strlen(e->message);
        snprintf(e->message + used, sizeof(e->message) - used, " %u tokens had come.",
                 result->new_tokens);
    }
    if (kind->status == WEFT_E_UNKNOWN_MODEL) {
        size_t used = strlen(e->message);
        snprintf(e->message + used, sizeof(e->message) - used,
                 " GET /v1/models lists what it has.");
        snprintf(e->param, sizeof(e->param), "model");
    }
}

void error_write(const struct api_error *e, struct buf *out)
{
    buf_add_text(out, "{\"error\":{\"message\":");
    buf_add_quoted(out, e->message);
    buf_add_text(out, ",\"type\":");
    buf_add_quoted(out, e->type);
    buf_add_text(out, ",\"param\":");
    if (e->param[0] != '\0') {
        buf_add_quoted(out, e->param);
    } else {
        buf_add_text(out, "null");
    }
    buf_add_text(out, ",\"code\":");
    buf_add_quoted(out, e->code);
    buf_add_text(out, "}}");
}
