/* SPDX-License-Identifier: Apache-2.0 */
/*
 * figures.h - what the gateway counts, and how it tells: /metrics and /v1/usage. Pure, one thread.
 * Models and API keys are counted each in a table of fixed size; whoever comes when it is full is
 * counted as `other`, so that names in requests cannot make it grow.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/figures.def"

#define FIGURES_MODELS_MAX   32u /* the last is `other` */
#define FIGURES_KEYS_MAX     256u
#define FIGURES_STATUSES_MAX 32u
#define FIGURES_BUCKETS_MAX  20u
#define FIGURES_NAME_MAX     64u

struct figures_histogram {
    uint64_t counts[FIGURES_BUCKETS_MAX]; /* by bucket, the last above all bounds */
    double sum;
    uint64_t count;
};

struct figures_model {
    char name[FIGURES_NAME_MAX];
#define FIELD_(field, ...) uint64_t field;
    FIGURES_MODEL_COUNTERS(FIELD_)
#undef FIELD_
#define FIELD_(field, ...) struct figures_histogram field;
    FIGURES_MODEL_HISTOGRAMS(FIELD_)
#undef FIELD_
};

struct figures_key {
    char name[FIGURES_NAME_MAX];
    uint64_t answers, prompt_tokens, new_tokens;
};

struct figures {
#define FIELD_(field, ...) uint64_t field;
    FIGURES_GAUGES(FIELD_) /* kept by whoever opens and ends them */
    FIGURES_TOTALS(FIELD_)
#undef FIELD_
    struct {
        int status; /* HTTP; 0 = free */
        uint64_t count;
    } statuses[FIGURES_STATUSES_MAX];
    uint32_t model_count;
    struct figures_model models[FIGURES_MODELS_MAX];
    uint32_t key_count;
    struct figures_key keys[FIGURES_KEYS_MAX];
};

/* An HTTP response has ended. */
void figures_status(struct figures *f, int status);

/* An answer of the mesh is over; `key`: whose request it was, NULL = nobody's. */
void figures_answer(struct figures *f, const char *model, const char *key,
                    const weft_result_t *result);

/* How quick the client wanted it, ms; 0 = not said. */
struct figures_slo {
    uint32_t first_ms; /* to the first token */
    uint32_t token_ms; /* between tokens after it, on average */
};

/* The same answer, after figures_answer(): has it kept what was asked for? Who asked for nothing or
 * gave up himself is not counted. */
void figures_slo(struct figures *f, const char *model, struct figures_slo slo,
                 const weft_result_t *result);

/* A number (yes = 1) of a worker in the node's status answer; 0 = it is not told. */
double figures_of_worker(const json_t *worker, const char *key);

/* How much of its KV cache requests hold, of a worker in the node's status answer; 1 = all. */
double figures_kv_usage(const json_t *worker);

/* Everything, and of the node's status answer (NULL = unknown) what the mesh is like. */
void figures_write(const struct figures *f, const json_t *status, struct buf *out);

/* {"object":"usage", "models":[...], "keys":[...]} */
void figures_write_usage(const struct figures *f, uint64_t since_s, struct buf *out);
