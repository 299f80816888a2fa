/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft/client.h - ask a Weft mesh. The one header of the SDK for people who send requests
 * (libweft). People who serve them include weft/worker.h.
 *
 * Two layers. The core never blocks and owns no thread: give weft_client_fd() to any event loop,
 * call weft_client_process() when it is readable or weft_client_timeout_ms() has passed, and get
 * callbacks. weft_ask() on top of it sends one request and waits.
 *
 * Threads: one client belongs to one thread at a time. Any number of clients may exist.
 * Errors: 0, a negative errno, or a code of weft/status.h; weft_status_text() says it in words.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/api.h>
#include <weft/logprob.h>
#include <weft/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_client weft_client_t;   /* a connection to one node of the mesh */
typedef struct weft_request weft_request_t; /* one request on its way */

/* How to reach the mesh. Zero-fill it, then set what you need; zero means the default. */
typedef struct weft_client_opts {
    const char *node;          /* "HOST[:PORT]" of any node, needed; several with commas: the next
                                * is asked when one does not answer. HOST: IPv4,
                                * [IPv6] or a name. Port: 7400. Or "unix:PATH", the port socket
                                * of this machine's own node (sockets.port of its configuration):
                                * memory shared with it in place of UDP */
    uint64_t connect_tries;    /* datagrams without any answer before UNREACHABLE; 5 */
    uint32_t stall_timeout_ms; /* longest silence of an accepted request before it is given up; much
                                * less where the worker is known to be quicker; 5,000 */

    uint64_t reserved[8]; /* zero */
} weft_client_opts_t;

/* One message of a chat. Text is UTF-8, `len` bytes, need not end in zero. */
typedef struct weft_message {
    const char *role; /* "system", "user", "assistant"; or, for models that call tools: "tools",
                       * first of all (a JSON list of functions in OpenAI's form), "calls" (an
                       * answer with calls: {"content": "...", "calls": [{"name": ..., "arguments":
                       * {...}, "id": if it has one}]}), "tool" (the result of one, in the order
                       * of the calls; "result": false says that a call has none) */
    const char *text;
    size_t len;
} weft_message_t;

/* What a request may say besides; zero-fill it. */
typedef struct weft_query_more {
    const char *jurisdiction; /* only nodes in it, as they name theirs: two capital letters, "DE".
                               * For the European Union as a whole there is the tag `eu` */
    const char *tracestate;   /* with traceparent: the header of that name of W3C trace context.
                               * Not valid: none; of more than 512 bytes whole members are let
                               * go of, large ones first, and the last */

    uint64_t reserved[6]; /* zero */
} weft_query_more_t;

/*
 * A request. Zero-fill it, then set model and either messages or text; zero means no limit or the
 * default. Nothing is kept by reference after weft_submit() has returned.
 */
typedef struct weft_query {
    const char *model;              /* name of the model */
    const weft_message_t *messages; /* chat, put through the model's own template ... */
    size_t message_count;
    const char *text; /* ... or plain text to go on with, `text_len` bytes */
    size_t text_len;

    uint32_t max_tokens; /* new tokens at most; 256 */
    float temperature;   /* 0 = greedy */
    float top_p;         /* 0 or 1 = off */
    float min_p;         /* 0 = off */
    uint32_t top_k;      /* 0 = off */
    uint64_t seed;       /* the same seed gives the same text */

    bool has_tiers; /* if set, only hardware tiers from tier_min to tier_max, 0..7 */
    uint32_t tier_min;
    uint32_t tier_max;
    uint32_t radius_km; /* great circle around the position, at most 20,037; 0 = no limit */
    uint32_t vram_mib;  /* free accelerator memory needed */
    uint32_t budget_ms; /* time until the first token, or the last with `end_to_end`; 0 = none */
    bool end_to_end;
    const char *tags;  /* policy tags the node must all have: "eu,gdpr" */
    bool has_position; /* if set, nearest means nearest to this place, not to the node asked */
    double latitude_deg;
    double longitude_deg;
    uint32_t priority;   /* 0..15, 15 first */
    const char *session; /* requests of one session prefer one node; any text */

    /* No token by the usual p95: ask a second node as well; the first token decides. At most one in
     * twenty requests of a client, once 20 answers have shown what is usual. */
    bool hedge;
    /* One attempt only: a cut answer fails instead of going on at another node. */
    bool once;
    bool no_thinking;  /* a chat model that thinks first is told not to */
    uint32_t logprobs; /* log probabilities for each token: its own and so many less one of the
                        * likeliest, at most 21; see weft_text_logprobs(). 0 = none */
    float repetition_penalty; /* of tokens that have occurred, prompt included; 0 or 1 = off; 100 */
    float presence_penalty;   /* off the logits of tokens that have occurred in the answer; -100 to
                               * 100, 0 = off */
    float frequency_penalty;  /* the same for each time */
    const char *const *stop;  /* strings that end the answer where one of them begins; none is ever
                               * delivered. 1 to 256 bytes each, zero-terminated */
    size_t stop_count;        /* 16 at most */
    uint32_t embed;           /* WEFT_EMBED_*: not a text is wanted but a vector for the prompt */
    uint32_t format; /* WEFT_FORMAT_* (weft/wire.h): what the answer must be; 0 = any text */
    const char *traceparent; /* W3C trace context, "00-<32 hex>-<16 hex>-<2 hex>": told to the
                              * worker, so that what it asks elsewhere belongs to the same trace */
    const char *format_text; /* SCHEMA: a JSON Schema; CALL: a tool's name; 32 KiB at most */

    const weft_query_more_t *more; /* what goes beyond all that; NULL = nothing */
} weft_query_t;

/* How an embedding is made of the model's states behind its last layer; length 1 in either case. */
enum weft_embed { WEFT_EMBED_NONE = 0, WEFT_EMBED_MEAN = 1, WEFT_EMBED_LAST = 2 };

/* The account of a finished request. Text pointers live until the callback returns (async) or in
 * the struct itself. */
typedef struct weft_result {
    int status;       /* 0 = complete; else why not */
    int finish;       /* WEFT_FINISH_* (weft/wire.h): stop or length (complete), cancelled, refused
                       * (nothing was done), failed (new_tokens were delivered) */
    char node[32];    /* who served; "" if nobody did */
    char backend[16]; /* "cpu", "cuda", ... */
    uint32_t tier;
    uint32_t prompt_tokens;
    uint32_t new_tokens;     /* tokens delivered, also when incomplete */
    uint64_t total_us;       /* from weft_submit() to the end */
    uint64_t first_token_us; /* from weft_submit() to the first token; 0 = none came */
    uint64_t queue_us;       /* at the worker: wait, prompt, answer */
    uint64_t prefill_us;
    uint64_t decode_us;
    uint64_t net_us;          /* the rest: everything that was not the worker */
    int constraint;           /* refused: the constraint that bound (WEFT_C_*, weft/wire.h) */
    uint32_t constraint_best; /* refused: best achievable figure of it */
    uint32_t retry_after_ms;  /* refused: when to try again; 0 = no use */
    uint32_t resends;         /* ranges asked for again, both ways */
    uint32_t failovers;       /* attempts that were lost and followed by another */
    bool hedged;              /* a second node was asked as well */
    uint64_t gap_us;          /* longest wait between two tokens */
    uint32_t cached_tokens;   /* tokens of the prompt that the worker knew already */
    uint64_t accepted_us;     /* from weft_submit() until it was heard that the worker that served
                               * has accepted; 0 = none has */
    uint32_t mixed; /* times that it went on with other weights or another way of computing
                     * than before: the text may differ from one that nobody cut */

    uint32_t reserved32;  /* zero */
    uint64_t reserved[5]; /* zero */
} weft_result_t;

/* Called for each piece of text in order: `len` bytes of UTF-8 that may end inside a character.
 * While a stop string may have begun a token's text is held back, and `len` can be 0. May call
 * weft_cancel(), weft_hold() and weft_submit(), must not destroy the client. */
typedef void (*weft_text_fn)(weft_request_t *req, const char *text, size_t len, void *user);

/* Called exactly once per accepted weft_submit(); `req` is gone when it returns. */
typedef void (*weft_done_fn)(weft_request_t *req, const weft_result_t *result, void *user);

/* Opens a client: one connection id, and for each node a UDP socket, or a port of the own node,
 * which is waited for (2 s at most). No packet is sent yet. Heap; free it with
 * weft_client_destroy(). Returns 0, -EINVAL for a bad address, or a socket's -errno; of an own node
 * that is the only one named, why it could not be attached to: -ENOENT or -ECONNREFUSED (not
 * running), -EACCES (the socket's file is for others), -EBUSY (32 clients are attached), -EPROTO
 * (another version). */
WEFT_API int weft_client_create(weft_client_t **client, const weft_client_opts_t *opts);

/* Cancels what is still open (no callbacks) and frees. NULL is fine. */
WEFT_API void weft_client_destroy(weft_client_t *client);

/* The descriptor to wait on for reading. Owned by the client. */
WEFT_API int weft_client_fd(const weft_client_t *client);

/* Milliseconds until weft_client_process() must be called even if nothing arrives; -1 = never. */
WEFT_API int weft_client_timeout_ms(const weft_client_t *client);

/* Receives, sends, retransmits, runs callbacks; never blocks. Returns open requests, or -errno. */
WEFT_API int weft_client_process(weft_client_t *client);

/* Sends a request. `text` may be NULL. Returns 0 and sets *req (which may be NULL if the caller
 * does not need it), -EINVAL for a query that cannot be put on the wire, -E2BIG beyond 16 MiB,
 * -ENOMEM, or -EAGAIN beyond the limit of open requests (65,536). */
WEFT_API int weft_submit(weft_client_t *client, const weft_query_t *query, weft_text_fn text,
                         weft_done_fn done, void *user, weft_request_t **req);

/* Gives up on a request: the worker is told and `done` is called with WEFT_E_CANCELLED from
 * weft_client_process() as soon as that is known to it, or after a second at most. */
WEFT_API void weft_cancel(weft_request_t *req);

/* With `hold`, no text of this request is delivered until weft_hold(req, false): for readers slower
 * than the model. What may pile up meanwhile is bounded, 256 KiB here and the rest of the answer at
 * the worker; the request's budget goes on. May be called from a callback of any request of the
 * client: held from its own, a request gives no further text, not even what came in one datagram
 * with the piece just given. */
WEFT_API void weft_hold(weft_request_t *req, bool hold);

/* Inside the text callback: the log probabilities of the token whose text is being delivered, first
 * its own, then the likeliest, best first; NULL and 0 if the query asked for none or the text
 * belongs to a token that was reported before. They live until the callback returns. */
WEFT_API const weft_logprob_t *weft_text_logprobs(const weft_request_t *req, size_t *count);

/* Inside the done callback: the embedding, if the query asked for one and it is complete; else NULL
 * and 0. It lives until the callback returns. */
WEFT_API const float *weft_embedding(const weft_request_t *req, size_t *count);

/* Asks for an embedding and waits. `out` gets `*count` floats: at most `capacity`, which is not an
 * error. query->embed may be 0: the mean. Returns result->status. */
WEFT_API int weft_embed(weft_client_t *client, const weft_query_t *query, float *out,
                        size_t capacity, size_t *count, weft_result_t *result);

/* Asks and waits; `text` may be NULL. Returns result->status. weft_ask_interrupt() ends it early.
 */
WEFT_API int weft_ask(weft_client_t *client, const weft_query_t *query, weft_text_fn text,
                      void *user, weft_result_t *result);

/* Makes a running weft_ask() of this client cancel its request and return. Safe in a signal
 * handler and from any thread. */
WEFT_API void weft_ask_interrupt(weft_client_t *client);

#ifdef __cplusplus
}
#endif
