/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dashboard.h - the pages of controlplane/dashboard as they were when this was built: bytes in the
 * program, no file at run time. The table itself is generated (controlplane/dashboard/embed.cmake).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dashboard_file {
    const char *name; /* "index.html" */
    const char *type; /* of the content */
    const char *etag; /* in quotes */
    const uint8_t *data;
    size_t size;
};

extern const struct dashboard_file dashboard_files[]; /* generated */
extern const size_t dashboard_file_count;

/* NULL = there is none of that name. */
const struct dashboard_file *dashboard_find(const char *name);

struct exchange;
struct MHD_Response;
/* GET / and GET /dashboard/NAME. */
void dashboard_send(struct exchange *x);
/* Who may load what, and how long it may be kept; nothing if it is no page. */
void dashboard_headers(const struct exchange *x, struct MHD_Response *response);
