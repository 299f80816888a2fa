/* SPDX-License-Identifier: Apache-2.0 */
/* serve_job.h - what serve.c, serve_job.c and serve_out.c share; nobody else includes it. */
#pragma once

#include "dataplane/flow/serve.h"

struct weft_job *serve_find(const struct serve *s, const struct weft_req *req);

/* First datagram of a request that was checked and has room. NULL: no memory. */
struct weft_job *serve_job_open(struct serve *s, const struct weft_req *req, uint64_t now_ns);
/* Remembers the way back and that the client lives. */
void serve_job_heard(struct weft_job *job, const struct weft_req *req, uint64_t now_ns);
/* The body is complete: checks it and gives it to the runtime. Frees the job if that fails. */
void serve_job_start(struct weft_job *job, uint64_t now_ns);
void serve_job_refuse(struct weft_job *job, int status);
/* Asks the runtime to stop, once. */
void serve_job_cancel(struct weft_job *job);
/* Frees; `remember` keeps it in the window of ended requests. */
void serve_job_close(struct weft_job *job, bool remember);
/* Sets timer and place in the ready queue after any change. */
void serve_job_update(struct weft_job *job);
void serve_job_tick(struct weft_job *job, uint64_t now_ns);

/* serve_ask.c */
void serve_ask_init(struct weft_job *job, uint64_t now_ns);
/* New bytes of the request have come, and it is not complete. */
void serve_ask_progress(struct weft_job *job, uint64_t now_ns);
void serve_ask_tick(struct weft_job *job, uint64_t now_ns);
uint64_t serve_ask_due_ns(const struct weft_job *job);

/* Queues a short answer to the sender of `req`. */
void serve_control(struct serve *s, const struct weft_req *req, uint8_t type, uint32_t arg,
                   const void *payload, size_t len);
/* Says how much of the request may come, and who else could have served it. */
void serve_grant(struct serve *s, const struct weft_job *job);
/* Asks for these parts of it, 1..SERVE_ASK_RANGES. */
void serve_resend_req(const struct weft_job *job, const struct weft_range *gaps, uint32_t count);
void serve_reject(struct serve *s, const struct weft_req *req, int status, unsigned constraint);
/* Fills the header of a reply. */
void serve_stamp(const struct serve *s, const struct weft_req *req, uint8_t type,
                 struct weft_rsp *rsp);
