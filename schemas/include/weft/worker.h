/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft/worker.h - attach a model runtime to a node. The other half of libweft; weft/client.h is
 * for those who ask.
 *
 * A worker connects to weftd's port socket, says what it can do, and gets jobs. libweft does the
 * transport (fragments, grants, retransmission, at-most-once, cancellation); the runtime produces
 * tokens. Nothing blocks: wait on weft_worker_fd(), call weft_worker_process(), get callbacks.
 *
 * Threads: one worker belongs to one thread at a time.
 * Errors: 0, a negative errno, or a code of weft/status.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <weft/api.h>
#include <weft/logprob.h>
#include <weft/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_worker weft_worker_t;
typedef struct weft_job weft_job_t; /* one request being served; valid until weft_job_finish() */

/* What a worker can do; sent when it attaches. Strings are copied. Zero-fill it first. */
typedef struct weft_worker_facts {
    const char *model;           /* the name clients ask for: 1 to 63 printable characters of
                                  * ASCII, none of them a space */
    const char *backend;         /* "cpu", "cuda", "upstream", ...: 15 such characters at most */
    uint32_t context_tokens;     /* prompt and answer together */
    uint32_t prefill_per_second; /* tokens per second, measured */
    uint32_t decode_per_second;  /* tokens per second of one stream, measured */
    uint32_t can;                /* WEFT_CAN_*: requests that need others are refused for it */
    uint32_t arithmetic; /* any sum over weights and way of computing: answers go on, if they
                          * can, at workers with the same one; 0 = not known */

    uint32_t reserved32;  /* zero */
    uint64_t reserved[3]; /* zero */
} weft_worker_facts_t;

/* Abilities of a runtime that not every one has. */
enum weft_can {
    WEFT_CAN_FORMATS = 1, /* view->format: JSON, SCHEMA */
    WEFT_CAN_TOOLS = 2,   /* the roles TOOLS, CALLS and TOOL, and the format CALL */
    WEFT_CAN_REUSE = 4,   /* no request needs it: a prompt that begins like an earlier one needs
                           * prefill for the rest only, so that a session had better come back */
};

/* Room now; kept current by the runtime with weft_worker_set_load(). */
typedef struct weft_load {
    uint32_t room;          /* further requests it would accept; 0 = full */
    uint32_t queue_us;      /* predicted wait of a new request; UINT32_MAX with no room: draining,
                             * what is open is finished and all else refused with DRAINING */
    uint32_t free_vram_mib; /* accelerator memory free (main memory for a CPU backend) */
    uint32_t steps;         /* any number that changes while the model computes: clients that see it
                             * stand still go elsewhere; 0 = unknown */
    /* Measured speeds as they are now, tokens per second; 0 = unchanged. */
    uint32_t prefill_per_second;
    uint32_t decode_per_second;

    uint64_t reserved[4]; /* zero */
} weft_load_t;

/* How the model is served: for people and graphs, nothing is decided by it. Zero = unknown. */
typedef struct weft_worker_figures {
    uint32_t decode_per_second_2; /* tokens per second of 2, 4 and 8 streams together, measured */
    uint32_t decode_per_second_4;
    uint32_t decode_per_second_8;
    uint32_t slots;          /* requests answered at the same time, at most */
    uint32_t running;        /* requests being answered */
    uint32_t waiting;        /* for a slot, or for the model to be loaded */
    uint32_t kv_pages;       /* of the KV cache */
    uint32_t kv_pages_used;  /* that requests hold */
    uint32_t memory_mib;     /* that the model takes: weights, KV cache, buffers */
    uint32_t prefix_queries; /* tokens of prompts that the prefix cache was asked for; wraps */
    uint32_t prefix_hits;    /* tokens of prompts that it knew; wraps */
    uint32_t loaded;         /* 1 = the model is in memory */

    uint64_t reserved[4]; /* zero */
} weft_worker_figures_t;

/* One message of a chat, or the whole text of a plain prompt (role 0). Points into the job. */
typedef struct weft_job_part {
    uint32_t role; /* WEFT_ROLE_* of weft/wire.h; 0 = plain text */
    const char *text;
    size_t len;
} weft_job_part_t;

/* The request as it came. Points into the job; valid until weft_job_finish(). */
typedef struct weft_job_view {
    const weft_job_part_t *parts; /* chat messages, or one plain text; none if tokens are given */
    size_t part_count;
    const uint32_t *tokens; /* prompt as token ids, or NULL */
    size_t token_count;
    const uint32_t *resume; /* tokens an earlier attempt has given: go on behind them as if they */
    size_t resume_count;    /* had just been generated, and count them in new_tokens */
    uint32_t max_tokens;    /* not below resume_count */
    float temperature;      /* 0 = greedy */
    float top_p;            /* 1 = off */
    float min_p;
    uint32_t top_k;
    uint64_t seed;
    uint32_t priority;    /* 0..15, 15 first */
    uint64_t deadline_ns; /* on CLOCK_MONOTONIC, until the first token (or the last); 0 = none */
    int deadline_is_end_to_end;
    uint64_t received_ns;         /* on CLOCK_MONOTONIC: the prompt was complete */
    const weft_job_part_t *stops; /* strings that end the answer where one begins: no byte of it may
                                   * be emitted. Resumed tokens may have begun one (role 0) */
    size_t stop_count;
    float repetition_penalty; /* of tokens of prompt and answer; 1 = off */
    float presence_penalty;   /* of tokens of the answer, resumed ones included; 0 = off */
    float frequency_penalty;
    uint32_t logprobs;    /* weft_job_logprobs() before each token, so many entries; 0 = none */
    int no_thinking;      /* of a chat: do not think first */
    int embed;            /* no tokens are wanted but weft_job_embedding(): 1 = the mean over the
                           * prompt's tokens, 2 = of the last one; 0 = text */
    uint64_t conn_id;     /* the client's connection: random, one for each weft_client_t */
    uint32_t session;     /* the same for requests that belong together; 0 = none */
    char traceparent[56]; /* W3C trace context of the client, zero-terminated; "" = none: for what
                           * is asked elsewhere on its behalf */
    int format;           /* WEFT_FORMAT_* of weft/wire.h: what the answer must be, resumed tokens
                           * included; 0 = any text */
    const char *format_text;
    size_t format_len;
    const char *tracestate; /* with traceparent: what tracing systems on the way left there. Valid,
                             * 512 bytes at most, not zero-terminated */
    size_t tracestate_len;
    uint32_t session_node; /* 1 + id of the node that has served the session last, which may know
                            * the prompt's beginning; 0 = not known */
} weft_job_view_t;

/* Account the runtime gives at the end. */
typedef struct weft_job_report {
    int status; /* 0 = complete; else a code of weft/status.h */
    int finish; /* WEFT_FINISH_* of weft/wire.h */
    uint32_t prompt_tokens;
    uint32_t new_tokens;
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
    uint32_t cached_tokens; /* of the prompt, that needed no work */
    const char *tail;       /* text that was held back because a stop string might have begun, if */
    size_t tail_len;        /* none has; 256 bytes at most. Copied */

    uint64_t reserved[1]; /* zero */
} weft_job_report_t;

/* Zero-fill it first; both functions are needed. Copied. */
typedef struct weft_worker_callbacks {
    /* A complete, valid request. Return 0 to take it (weft_job_finish() is then owed) or a status
     * to refuse it (weft_job_finish() must not be called): WEFT_E_MESH_FULL, WEFT_E_TOO_LONG, ...
     */
    int (*on_job)(weft_worker_t *worker, weft_job_t *job, const weft_job_view_t *view, void *user);
    /* The client has gone or no longer wants it: stop soon, then call weft_job_finish(). */
    void (*on_cancel)(weft_worker_t *worker, weft_job_t *job, void *user);
    void *user;

    uint64_t reserved[4]; /* zero */
} weft_worker_callbacks_t;

/* What the node told about itself. */
typedef struct weft_worker_node {
    uint16_t id;
    uint32_t tier;
    char name[32];
} weft_worker_node_t;

/* Connects to weftd at `socket_path` and attaches; waits for the answer, 2 s at most. Heap; free
 * with weft_worker_destroy(). Returns 0, -errno of connect (nobody listens: -ECONNREFUSED or
 * -ENOENT), -ETIMEDOUT, -EPROTO if the other side is not weftd or of another version. */
WEFT_API int weft_worker_attach(weft_worker_t **worker, const char *socket_path,
                                const weft_worker_facts_t *facts, const weft_load_t *load,
                                const weft_worker_callbacks_t *callbacks);

/* Detaches; jobs still open are answered as WORKER_LOST by the node. NULL is fine. */
WEFT_API void weft_worker_destroy(weft_worker_t *worker);

WEFT_API const weft_worker_node_t *weft_worker_node(const weft_worker_t *worker);

/* Descriptor to wait on for reading (an epoll set of the port's own). Owned by the worker. */
WEFT_API int weft_worker_fd(const weft_worker_t *worker);

/* Milliseconds until weft_worker_process() must be called even if nothing arrives; -1 = never. */
WEFT_API int weft_worker_timeout_ms(const weft_worker_t *worker);

/* Moves datagrams both ways and runs callbacks; never blocks. Cheap when there is nothing to do.
 * Call it whenever the descriptor is readable or the time has come, also while the model computes
 * (on another thread, that is): clients take a worker that does not answer for a dead one. Returns
 * 0, or -EPIPE when weftd has gone (destroy the worker and attach again). */
WEFT_API int weft_worker_process(weft_worker_t *worker);

/* Requests that a worker which stops had better see to their ends first: jobs, and finished ones
 * whose clients have not said yet that all of the answer has come. Who says nothing is given up
 * after 5 s. */
WEFT_API size_t weft_worker_open(const weft_worker_t *worker);

/* Publishes the load; goes out with every reply from now on. */
WEFT_API void weft_worker_set_load(weft_worker_t *worker, const weft_load_t *load);

/* Publishes the figures: the node's status, `weft status` and /metrics of its gateway have them. */
WEFT_API void weft_worker_set_figures(weft_worker_t *worker, const weft_worker_figures_t *figures);

/* Sends one token: its id and its bytes (may be part of a UTF-8 character, may be none).
 * Returns 0 or -ENOBUFS if the reply has outgrown 16 MiB (finish the job then). */
WEFT_API int weft_job_emit(weft_job_t *job, uint32_t token, const char *text, size_t len);

/* The log probabilities of the token that is emitted next: its own first, then the likeliest, best
 * first; WEFT_LOGPROBS_MAX at most. Texts are cut at 255 bytes. Returns as weft_job_emit(). */
WEFT_API int weft_job_logprobs(weft_job_t *job, const weft_logprob_t *list, size_t count);

/* The embedding that was asked for: WEFT_EMBEDDING_MAX floats at most, of length 1 as a vector.
 * Returns as weft_job_emit(), -EINVAL for more. */
WEFT_API int weft_job_embedding(weft_job_t *job, const float *values, size_t count);

/* Ends the stream with its account. The job must not be used any more. */
WEFT_API void weft_job_finish(weft_job_t *job, const weft_job_report_t *report);

/* A place for the runtime's own pointer. */
WEFT_API void weft_job_set_user(weft_job_t *job, void *user);
WEFT_API void *weft_job_user(const weft_job_t *job);

#ifdef __cplusplus
}
#endif
