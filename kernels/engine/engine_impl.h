/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_impl.h - the inside of an engine, shared by engine.c (life, requests in and out), step.c
 * (what is computed next), answer.c (logits to tokens to events) and load.c (speeds, waiting
 * times); nobody else includes it.
 */
#pragma once

#include "kernels/engine/engine.h"
#include "kernels/engine/pages.h"
#include "kernels/model/stop.h"

#define PREFILL_CHUNK_LEAST 8u

enum state { FREE, QUEUED, PREFILL, DECODE };

/* Who asks; requests of one tenant share what it may use. */
struct tenant {
    uint64_t id;
    uint32_t open;         /* its requests */
    uint64_t used;         /* tokens served, weighted */
    uint64_t served_ns;    /* when a request of its began last */
    struct request *first; /* of those that wait; scratch */
};

/* How an answer may end before the model or max_tokens ends it. */
struct ending {
    struct stop_set stops;
    struct stop_state state; /* has seen every token of the answer */
    char bytes[STOP_STRINGS_MAX * STOP_BYTES_MAX];
    const struct grammar *grammar; /* or NULL */
    struct grammar_state place;    /* in it, behind every token of the answer */
    bool ended;                    /* by a string, or where the grammar ends */
};

struct request {
    enum state state;
    bool cancelled;
    bool in_batch; /* of the step that is running */
    bool end_to_end;
    uint32_t slot;
    uint32_t priority;
    uint64_t id;
    uint64_t order; /* of submission */
    struct tenant *tenant;
    uint64_t deadline_ns;
    uint64_t submitted_ns;
    uint64_t started_ns;
    uint64_t first_token_ns;
    uint64_t cancelled_ns;
    struct sampler_params sampling;
    uint32_t max_tokens;
    uint32_t prompt_count;
    uint32_t given_count; /* prompt and resumed tokens */
    uint32_t done_count;  /* of those, how many went through the backend */
    uint32_t new_count;   /* resumed ones included */
    uint32_t logprobs;
    uint32_t *tokens; /* prompt and answer so far; context entries of the engine's one allocation */
    struct ending *ending;
    uint32_t pages;        /* of its slot's table */
    uint32_t sealed;       /* the first of them, known to the pool */
    uint32_t cached_count; /* tokens that needed no prefill */
    enum engine_embed embed;
    float *embedding; /* the caller's */
};

/* What was sampled for a row. */
struct pick {
    uint32_t token; /* UINT32_MAX: none */
    uint32_t logprob_count;
    struct engine_logprob logprobs[ENGINE_LOGPROBS_MAX];
};

/* The step in hand: planned under the caller's lock, run without it. */
struct batch {
    size_t rows; /* 0 = none */
    size_t decoding;
    size_t owners;       /* rows that end a prompt or an answer so far */
    size_t states;       /* rows that want their state */
    uint64_t forward_ns; /* length */
    uint64_t end_ns;     /* of sampling too */
    int rc;
};

struct engine {
    exec_t *exec;
    struct exec_info info;
    const tokenizer_t *tokenizer;
    struct engine_options options;
    struct request *requests;
    size_t request_count;
    uint32_t *tokens;
    struct ending *endings;
    bool *slot_taken;
    struct page_pool *pool; /* NULL: the backend has no pages to place */
    uint32_t *tables;       /* [slot][table_stride] */
    uint32_t table_stride;
    struct tenant *tenants; /* as many as requests */
    uint64_t used_floor;    /* least that a tenant who comes has used */
    uint64_t order;
    uint32_t active;
    uint32_t queued;
    struct exec_row *rows;
    struct batch batch;
    struct exec_watch watch;
    struct request **row_owner; /* of those rows, in their order */
    struct pick *picked;        /* what was sampled for them */
    float *logits;
    struct sampler_candidate *scratch;
    uint32_t *seen;              /* scratch of penalties: a bit for each token */
    float *raw;                  /* logits before them */
    struct grammar_masks *masks; /* NULL: no vocabulary for grammars */
    float *states;               /* of a batch; NULL: the backend has none */
    double *pooled;              /* by slot: their sum so far */
    double prefill_tps;
    double decode_tps;
    double batch_tps[ENGINE_BATCHES]; /* of so many streams together; [0] = decode_tps */
    double batch_cost;                /* seconds that one more decoding stream adds to a step */
    double used_fraction;             /* of max_tokens that answers really use */
    uint64_t free_read_ns;
    size_t free_bytes;
    uint64_t looked_tokens; /* of prompts, for in the prefix cache */
    uint64_t found_tokens;
};

static inline uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

/* ---- engine.c ---- */
/* Requests that the engine would take now. */
uint32_t engine_room(const struct engine *e);
/* The request is over: its DONE. */
void request_finish(struct engine *e, struct request *r, enum engine_finish how, uint64_t now_ns,
                    struct engine_event *event);

/* ---- turn.c ---- */
void turn_join(struct engine *e, struct request *r, uint64_t id);
void turn_leave(struct engine *e, struct request *r);
/* Its share of the queue allows one more. */
bool turn_may_join(const struct engine *e, uint64_t id);
/* It gets a slot, cached tokens left out; it has given a token. */
void turn_begin(struct request *r, uint64_t now_ns);
void turn_token(struct request *r);
bool turn_goes_before(const struct engine *e, const struct request *a, const struct request *b,
                      uint64_t now_ns);
/* Who gets the next slot; whose prompt goes on first. */
struct request *turn_next(struct engine *e, uint64_t now_ns);
struct request *turn_next_prompt(struct engine *e, const bool *visited, uint64_t now_ns);

/* ---- cache.c ---- */
/* Pages for a request that is about to get its slot: the beginning of its prompt from the cache, as
 * far as it is there. -ENOSPC: it has to wait. */
int cache_begin(struct engine *e, struct request *r);
/* A batch with rows of the request has run: pages that are full now can be shared. */
void cache_advance(struct engine *e, struct request *r);
/* The request leaves its slot. */
void cache_end(struct engine *e, struct request *r);
/* Tokens of the request's prompt that would need no prefill now. */
uint32_t cache_find(const struct engine *e, const uint32_t *tokens, uint32_t count);

/* ---- answer.c ---- */
/* The stop strings of a request, and what its resumed tokens mean for them. Returns 0 or -EINVAL.
 */
int answer_begin(const struct engine *e, struct request *r, const struct engine_request *request);
/* The next token of each row that wanted logits. */
void answer_sample(struct engine *e, const struct batch *b);
/* Rows of prompts whose embedding is wanted: adds up what has come of them. */
void answer_pool(struct engine *e, const struct batch *b);
/* One request's new token; writes one or two events. */
size_t answer_take(struct engine *e, struct request *r, const struct pick *pick, uint64_t now_ns,
                   struct engine_event *events);

/* With the end nothing can become a stop string any more: what was held goes into the DONE. */
void answer_last(struct request *r, struct engine_event *event);

/* ---- load.c ---- */
/* Can the request, which is queued, still be served in time? True as long as speeds are unknown. */
bool load_in_time(const struct engine *e, const struct request *r, uint64_t now_ns);
/* The same if all that goes before it is counted too. */
bool load_admits(const struct engine *e, const struct request *r, uint64_t now_ns);
/* A step of so many rows has taken so long. */
void load_learn(struct engine *e, size_t decode_rows, size_t prefill_rows, uint64_t step_ns);
/* Takes a sample into a running average. */
void load_average(double *value, double sample);
