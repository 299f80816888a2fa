/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - serves many requests with one backend: queue, slots, continuous batching, chunked
 * prefill, sampling, ends. Below it exec.h, above it worker.c, which does the talking.
 *
 * Sans-I/O: a step is engine_plan(), which chooses a batch, engine_run(), which computes it, and
 * engine_settle(), which says what happened; engine_step() is the three in a row. No thread, socket
 * or allocation after creation; time comes from the caller. Each batch holds one row for every
 * stream that is decoding, so none of them ever waits for another's prompt longer than a step, and
 * pieces of prompts in the rest.
 *
 * Order of admission: priority (15 first), raised by one level for each `aging_us` waited so that
 * none starves; within a level the tenant that has been served least, in tokens; then the earlier
 * deadline; then first come (turn.c). A request that is predicted to miss its deadline, by all that
 * goes before it, its prompt less what is cached, and the measured speeds, is refused at once; one
 * that has become hopeless while it waited is dropped. What is sampled for a request
 * does not depend on its neighbours: same prompt, parameters and seed, same tokens.
 *
 * A request may begin with tokens that an earlier attempt has given, here or elsewhere: they go
 * through the backend behind the prompt, give no events, and then all is as if they had just been
 * sampled. What follows is what the earlier attempt would have given.
 *
 * Threads: one engine belongs to one thread at a time, but while engine_run() goes on in one,
 * others may submit, cancel and read the load: each call under one lock that engine_run() alone is
 * without. runner.h does so. Errors: 0, negative errno, weft/status.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exec.h"
#include "kernels/model/grammar_mask.h"
#include "kernels/model/sampler.h"
#include "kernels/model/stop.h"
#include "kernels/model/tokenizer.h"

#define ENGINE_PRIORITY_MAX 15u
#define ENGINE_LOGPROBS_MAX 21u /* of a token: its own and 20 of the likeliest */
#define ENGINE_QUEUE_MAX    65536u
#define ENGINE_BATCHES      4u /* batch sizes whose speed is known: 1, 2, 4 and 8 streams */

typedef struct engine engine_t;

/* Monotonic nanoseconds. */
typedef uint64_t (*engine_clock_fn)(void *user);

struct engine_options {
    uint32_t queue_max;      /* requests waiting for a slot; 0 = 4 per slot */
    uint32_t step_target_us; /* length of a step while streams are decoding; 0 = 50,000 */
    uint32_t aging_us;       /* wait that is worth a level of priority; 0 = 2,000,000 */
    engine_clock_fn clock;   /* to measure steps with; NULL: `now` of the next call counts */
    void *clock_user;
    /* Of the places for requests, so many last ones are only for tenants with less than their share
     * (engine_share_admits()): nobody fills the queue alone. 0 = none. */
    uint32_t reserve;
    bool no_cache; /* every prompt is computed anew */
    uint64_t seed; /* of the cache's hashes: any number */
    const struct grammar_vocab
        *vocab; /* for requests with a grammar; outlives the engine; or NULL */
};

/* Over the states of the prompt's tokens (exec.h); the vector is made one of length 1. */
enum engine_embed { ENGINE_EMBED_NONE = 0, ENGINE_EMBED_MEAN = 1, ENGINE_EMBED_LAST = 2 };

struct engine_request {
    uint64_t id;            /* the caller's, unique among open requests */
    const uint32_t *tokens; /* the prompt; copied */
    size_t token_count;
    const uint32_t *resume; /* tokens an earlier attempt has given, if any; copied */
    size_t resume_count;
    struct sampler_params sampling; /* repetition counts prompt and answer, the others the answer */
    const struct gguf_str *stops;   /* strings that end the answer; copied */
    size_t stop_count;              /* STOP_STRINGS_MAX at most */
    enum engine_embed embed;        /* no answer: a vector of the prompt into `embedding` ... */
    float *embedding;               /* ... `width` floats of the caller's, until the DONE */
    struct grammar *grammar;     /* what the answer may be; the caller's, until the DONE; or NULL */
    uint32_t logprobs;           /* of each token: its own and so many less one; 0 = none */
    uint32_t max_tokens;         /* resumed tokens included, not fewer */
    uint64_t deadline_ns;        /* 0 = none */
    bool deadline_is_end_to_end; /* else it ends with the first token */
    uint32_t priority;           /* 0..ENGINE_PRIORITY_MAX */
    uint64_t tenant;             /* whose it is: tenants share the engine evenly; any number */
};

enum engine_event_kind { ENGINE_TOKEN = 1, ENGINE_DONE = 2 };

enum engine_finish {
    ENGINE_STOP = 1,   /* the embedding is there, or the model or a stop string ended the answer */
    ENGINE_LENGTH = 2, /* max_tokens reached */
    ENGINE_CANCELLED = 3, /* engine_cancel() */
    ENGINE_DEADLINE = 4,  /* too late */
    ENGINE_ERROR = 5,     /* the backend failed, or gave no usable logits */
};

struct engine_logprob {
    uint32_t token;
    float logprob; /* before temperature and penalties */
};

struct engine_event {
    enum engine_event_kind kind;
    uint64_t id;
    /* Text that was held back while a stop string might have begun, and is none: of a TOKEN before
     * its own bytes, of a DONE at the end of the answer. */
    char held[STOP_BYTES_MAX];
    size_t held_count;
    /* TOKEN. The token by which the model ends an answer is not reported. */
    uint32_t token;
    const char *bytes; /* valid as long as the tokenizer; may be part of a character, or cut where
                          a stop string may have begun */
    size_t byte_count;
    uint32_t logprob_count; /* the token's own first, then the likeliest, best first */
    struct engine_logprob logprobs[ENGINE_LOGPROBS_MAX];
    /* DONE */
    enum engine_finish finish;
    uint32_t prompt_tokens;
    uint32_t cached_tokens; /* of those, that needed no work */
    uint32_t new_tokens;    /* resumed ones included */
    uint64_t queue_us;      /* from submit to the first step */
    uint64_t prefill_us;    /* from there to the first token */
    uint64_t decode_us;     /* from there to the end */
    uint64_t stop_us; /* CANCELLED: from engine_cancel() to here; nothing computes for it now */
};

/* Measured, tokens per second; 0 = unknown. */
struct engine_speeds {
    double prefill;
    double decode[ENGINE_BATCHES]; /* of 1 << i streams together */
    double used_fraction;          /* of max_tokens that answers really use */
};

struct engine_load {
    uint32_t room;     /* further requests it would accept now, from who has none there yet */
    uint64_t queue_us; /* predicted wait of a new request for its first step */
    uint64_t drain_us; /* until all that it has will have ended, as predicted */
    uint32_t free_mib; /* memory, as far as the backend knows */
    uint32_t active;   /* requests in slots */
    uint32_t queued;
    uint32_t steps;              /* changes all the time while a batch is computed; never 0 */
    uint32_t pages;              /* of the KV cache; 0 = the backend has none to place */
    uint32_t pages_used;         /* that requests hold */
    uint64_t looked_tokens;      /* of prompts that had the prefix cache looked through, ever */
    uint64_t found_tokens;       /* of those, found there */
    double prefill_tps;          /* measured, tokens per second */
    double decode_tps;           /* measured, of one stream alone */
    struct engine_speeds speeds; /* all of them, kept current by what is served */
};

/* The backend must outlive the engine and belongs to it meanwhile; so does the tokenizer, which may
 * be NULL: then tokens have no bytes and only max_tokens ends an answer. */
int engine_create(engine_t **out, exec_t *exec, const tokenizer_t *tokenizer,
                  const struct engine_options *options);

/* Open requests end without an event. NULL is fine. */
void engine_destroy(engine_t *engine);

/* Measures prefill and decode for at most about `budget_us`, then decode of 2, 4 and 8 streams, as
 * many as there are slots, for half of that again (at least one step of each) with the
 * clock of the options, before anything was submitted. Returns 0, -EINVAL without a clock, -EBUSY,
 * or the backend's error. */
int engine_benchmark(engine_t *engine, uint64_t budget_us);

/* Instead: what an earlier engine for the same model on the same device has measured and learned.
 */
void engine_set_speeds(engine_t *engine, const struct engine_speeds *speeds);

/* May one more of a tenant's requests wait, where `open` of `capacity` places are taken, `own` of
 * them by this tenant, the rest by `others` other tenants, and the last `reserve` are for those
 * with less than an equal share? Shares are counted with one tenant more than there are, so that
 * whoever comes next finds room. */
bool engine_share_admits(uint32_t capacity, uint32_t reserve, uint32_t open, uint32_t others,
                         uint32_t own);

/* Takes a request. Returns 0, WEFT_E_MESH_FULL if the queue is, or all of it that the tenant may
 * have, WEFT_E_TOO_LONG if prompt and
 * answer exceed the context, WEFT_E_BUDGET_EXPIRED if the deadline has passed,
 * WEFT_E_BUDGET_INFEASIBLE if it cannot be met, -EEXIST for an open
 * id, -EINVAL for an empty prompt, no tokens asked for or fewer than are resumed, a token outside
 * the vocabulary, stop strings that do not fit or have no tokenizer, an
 * embedding that the backend cannot make or behind resumed tokens, or a resumed one that ends
 * answers: no attempt can have given that. */
int engine_submit(engine_t *engine, const struct engine_request *request, uint64_t now_ns);

/* The request ends with a DONE in the next events. If it is being computed and all others of its
 * batch have been cancelled too, the backend is stopped in the middle; else the step ends as usual,
 * so that nobody's work is lost. Returns 0 or -ENOENT. */
int engine_cancel(engine_t *engine, uint64_t id, uint64_t now_ns);
void engine_cancel_all(engine_t *engine, uint64_t now_ns);

/* Is there anything to do? If not, engine_step() returns at once. */
bool engine_busy(const engine_t *engine);

/* Events a step can give: the capacity that plan, settle and step need. */
size_t engine_events_max(const engine_t *engine);

/* Ends what is cancelled or late, fills slots, chooses the next batch. `events` has room for
 * engine_events_max(). Returns the number of events, or -ENOBUFS, or -EBUSY after another plan that
 * has not been settled. */
int engine_plan(engine_t *engine, uint64_t now_ns, struct engine_event *events, size_t capacity);

/* Computes the batch and samples: all that takes long. Nothing to do, nothing done. */
void engine_run(engine_t *engine, uint64_t now_ns);

/* What came of it. Returns as engine_plan(); 0 without a plan. */
int engine_settle(engine_t *engine, struct engine_event *events, size_t capacity);

/* Runs one batch: plan, run, settle. `events` has room for engine_events_max(). Returns the number
 * of events, or -ENOBUFS. A failing backend ends the requests of the batch with ENGINE_ERROR. */
int engine_step(engine_t *engine, uint64_t now_ns, struct engine_event *events, size_t capacity);

void engine_load(engine_t *engine, uint64_t now_ns, struct engine_load *out);

/* ---- taking the prefix cache elsewhere (move.c) ----
 * A session that has been here goes on elsewhere without its prefill: in a later engine for the
 * same model, on this node or another. Nothing else changes, in any bit. moved.h is the format. */

/* Takes `size` bytes; not 0 ends the export with that. */
typedef int (*engine_sink_fn)(void *user, const void *data, size_t size);

/* Writes all pages that stand for a known beginning. `model` says which model computes how: only
 * engines that give the same one take them. Not between plan and settle. Returns how many, -EBUSY,
 * -ENOTSUP, -ENOMEM, what the sink gave. */
int engine_export(engine_t *engine, uint64_t model, engine_sink_fn sink, void *user);

/* Takes what was exported, as far as pages are free; all of it is checked first. Returns how many
 * pages, -EBUSY, -ENOTSUP, -EPROTO for another version, -ESTALE for another model, -EINVAL if it is
 * damaged: then nothing has changed. */
int engine_import(engine_t *engine, uint64_t model, const void *data, size_t size);

/* ---- one session's pages (move.c) ----
 * The same for the beginning of one prompt, page by page, so that streams go on between two of
 * them: who has such pages holds them, reads them, lets them go; who wants them puts each behind
 * the one before it. None of it between plan and settle (runner_visit()). */

/* Bytes of a page outside; 0 = this engine cannot move any. */
size_t engine_page_bytes(const engine_t *engine);

/* Pages that a prompt of `count` tokens could reuse at most: whole ones before its last token. */
uint32_t engine_chain_most(uint32_t count);

/* How many of those are known. */
uint32_t engine_chain_known(const engine_t *engine, const uint32_t *tokens, uint32_t count);

/* The known ones into `pages`, which has room for engine_chain_most(); they stay until
 * engine_chain_drop(). Returns how many. */
uint32_t engine_chain_hold(engine_t *engine, const uint32_t *tokens, uint32_t count,
                           uint32_t *pages);

/* What a held page has, engine_page_bytes() of it. Returns 0, -ESTALE (the backend has lost it),
 * -ENOTSUP, -EBUSY, or the backend's error. */
int engine_chain_read(engine_t *engine, uint32_t page, void *out);

/* Puts page `index` of a prompt behind the held pages[0] to pages[index - 1]; it is held as
 * pages[index] then. Pages that are kept for nobody give way. Returns 0, -ENOSPC, -EINVAL for a
 * token outside of the vocabulary, or as engine_chain_read(). */
int engine_chain_put(engine_t *engine, const uint32_t *tokens, uint32_t index, uint32_t *pages,
                     const void *bytes);

void engine_chain_drop(engine_t *engine, const uint32_t *pages, uint32_t count);
