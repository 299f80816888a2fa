/* SPDX-License-Identifier: Apache-2.0 */
/* http_impl.h - what a call has whoever makes it: http.c by libcurl, plain.c by sockets. */
#pragma once

#include "kernels/upstream/http.h"

struct http_call {
    bool is_plain;
    bool begun; /* head() was called */
    struct http_events events;
    void *user;
};
