/* SPDX-License-Identifier: Apache-2.0 */
/* dashboard.c - see dashboard.h. */
#include "dataplane/gateway/dashboard.h"

#include <string.h>

#include "dataplane/gateway/gateway.h"

/* Nothing from elsewhere, nothing inline, in nobody's frame. */
#define POLICY                                                                                     \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "        \
    "'self'; "                                                                                     \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const struct dashboard_file *dashboard_find(const char *name)
{
    for (size_t i = 0; i < dashboard_file_count; i++) {
        if (strcmp(dashboard_files[i].name, name) == 0) {
            return &dashboard_files[i];
        }
    }
    return NULL;
}

void dashboard_send(struct exchange *x)
{
    const struct dashboard_file *file = dashboard_find(x->route->tail ? x->tail : "index.html");
    if (file == NULL) {
        error_set(&x->error, MHD_HTTP_NOT_FOUND, "invalid_request_error", "unknown_url", false,
                  "The dashboard has no such file.");
        exchange_refuse(x, &x->error);
        return;
    }
    const char *known = server_header(x, MHD_HTTP_HEADER_IF_NONE_MATCH);
    bool same = known != NULL && strstr(known, file->etag) != NULL;
    x->file = file;
    if (!same) {
        buf_add(&x->answer, file->data, file->size);
    }
    exchange_answer(x, same ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK, file->type);
}

void dashboard_headers(const struct exchange *x, struct MHD_Response *response)
{
    if (x->file == NULL) {
        return;
    }
    MHD_add_response_header(response, "etag", x->file->etag);
    MHD_add_response_header(response, "cache-control", "no-cache"); /* ask, by the tag */
    MHD_add_response_header(response, "content-security-policy", POLICY);
    MHD_add_response_header(response, "x-content-type-options", "nosniff");
    MHD_add_response_header(response, "referrer-policy", "no-referrer");
}
