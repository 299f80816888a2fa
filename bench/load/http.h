/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.h - asks an OpenAI-compatible server, with the calls of the SDK's client (weft/client.h), so
 * that drive.c drives either: chat completions as event streams, over connections that are kept.
 * One thread, nothing blocks but load_http_create()'s look-up of the name.
 */
#pragma once

#include <weft/client.h>

struct http;

/* "http://HOST[:PORT][/PATH]"; PATH is /v1/chat/completions if there is none. Heap. Returns 0,
 * -EINVAL for another address, -EHOSTUNREACH for a name that is not known, -ENOMEM. */
int load_http_create(struct http **http, const char *url);
void load_http_destroy(struct http *http);
int load_http_fd(const struct http *http);
int load_http_timeout_ms(const struct http *http);
/* Returns open requests, or -errno. */
int load_http_process(struct http *http);

/* As weft_submit(), of the query: model, one message, max_tokens. Callbacks are given no request.
 * Ends: 0; WEFT_E_MESH_FULL (429, 503), WEFT_E_UNKNOWN_MODEL (404), WEFT_E_WORKER_FAILED (any other
 * status, an error event), WEFT_E_UNREACHABLE (no connection), WEFT_E_WORKER_LOST (cut),
 * WEFT_E_STALLED (60 s of silence). */
int load_http_submit(struct http *http, const weft_query_t *query, weft_text_fn text,
                     weft_done_fn done, void *user);
