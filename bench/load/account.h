/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account.h - what a load run comes to: notes of drive.h in, figures out. Latencies count from when
 * a request was due, over all that were sent; whatever was refused or failed took forever. Pure but
 * for the two that print.
 *
 * Definitions: first token = due to first piece of text; total = due to end; per token = (end -
 * first) / (tokens - 1), of answers with two tokens or more; between tokens = every single wait
 * between two pieces of text. Goodput: answers whose first token and whose time per token keep to
 * the objectives, a second (as AIPerf and vLLM's bench count it).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/load/drive.h"
#include "bench/load/stats.h"

#define ACCOUNT_QUANTILES 6u
#define ACCOUNT_STATUSES  32u
#define ACCOUNT_LATE_NS   UINT64_C(1000000)

struct account_plan {
    double warmup_s;     /* what was due before is left out of the latencies */
    double slo_first_ms; /* 0 = no objective */
    double slo_token_ms;
    bool intervals; /* bootstrap: takes a while with many samples */
    uint64_t seed;
};

/* One quantity in ms. */
struct account_figure {
    double q[ACCOUNT_QUANTILES]; /* see account_quantiles[] */
    struct stats_interval interval[ACCOUNT_QUANTILES];
    double mean; /* of those that came */
    double max;
    double *sorted; /* all, losses last */
    uint32_t samples;
    uint32_t lost;
};

struct account {
    uint32_t requests, answered, refused, failed, failovers;
    uint64_t tokens;
    double seconds;
    uint32_t good;     /* answers that keep to all objectives */
    uint32_t measured; /* requests behind the warm-up */
    struct {
        int32_t status;
        uint32_t count;
    } statuses[ACCOUNT_STATUSES];
    uint32_t served[DRIVE_NODES_MAX];

    struct account_figure first, total, token, gap, refusal;
    struct account_figure outside;  /* from sending to the first token, less the worker's time */
    struct account_figure lateness; /* sent - due */
    uint32_t late;                  /* by more than ACCOUNT_LATE_NS */

    /* Checks; see stats.h. 0 = too few. */
    double planned_exponential; /* of the schedule's gaps */
    double sent_exponential;    /* of the gaps between sends */
    double drift;               /* KPSS of the logarithm of totals, in order of due */
    double half_ratio;          /* median total of the second half over the first's */
    uint32_t warmup;            /* requests MSER-5 would leave out */
};

extern const double account_quantiles[ACCOUNT_QUANTILES];
extern const char *const account_quantile_names[ACCOUNT_QUANTILES];

/* Heap inside. Returns 0 or -ENOMEM. */
int account_make(struct account *a, const struct drive *drive, const struct account_plan *plan);
void account_deinit(struct account *a);

/* An honest refusal, as opposed to a failure? */
bool account_is_refusal(int status);
