/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_impl.h - the inside of an engine, shared by engine.c (life, requests in and out), step.c
 * (what is computed next), answer.c (logits to tokens to events) and load.c (speeds, waiting
 * times); nobody else includes it.
 */
#pragma once

#include "kernels/engine/engine.h"
#include "kernels/model/stop.h"

#define PREFILL_CHUNK_LEAST 8u

enum state { FREE, QUEUED, PREFILL, DECODE };

/* How an answer may end before the model or max_tokens ends it. */
struct ending {
    struct stop_set stops;
    struct stop_state state; /* has seen every token of the answer */
    char bytes[STOP_STRINGS_MAX * STOP_BYTES_MAX];
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
    uint32_t *seen; /* scratch of penalties: a bit for each token */
    float *raw;     /* logits before them */
    float *states;  /* of a batch; NULL: the backend has none */
    double *pooled; /* by slot: their sum so far */
    double prefill_tps;
    double decode_tps;
    double batch_cost;    /* seconds that one more decoding stream adds to a step */
    double used_fraction; /* of max_tokens that answers really use */
    uint64_t free_read_ns;
    size_t free_bytes;
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
void answer_end(struct request *r, struct engine_event *event);

/* ---- load.c ---- */
/* A step of so many rows has taken so long. */
void load_learn(struct engine *e, size_t decode_rows, size_t prefill_rows, uint64_t step_ns);
/* Takes a sample into a running average. */
void load_average(double *value, double sample);
