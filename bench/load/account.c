/* SPDX-License-Identifier: Apache-2.0 */
/* account.c - see account.h. */
#include "bench/load/account.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const double account_quantiles[ACCOUNT_QUANTILES] = {0.5, 0.9, 0.95, 0.99, 0.999, 0.9999};
const char *const account_quantile_names[ACCOUNT_QUANTILES] = {"p50", "p90",  "p95",
                                                               "p99", "p999", "p9999"};

/* A refusal says why and took nothing; everything else that is not an answer is a failure. */
bool account_is_refusal(int status)
{
    switch (status) {
    case WEFT_E_UNKNOWN_MODEL:
    case WEFT_E_NO_CAPABLE_NODE:
    case WEFT_E_BUDGET_INFEASIBLE:
    case WEFT_E_BUDGET_EXPIRED:
    case WEFT_E_MESH_FULL:
    case WEFT_E_TOO_LONG:
    case WEFT_E_DRAINING:
        return true;
    default:
        return false;
    }
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

/* ---- one quantity ---- */

/* Takes `values` (heap, in order of time) over. */
static int figure_make(struct account_figure *f, double *values, uint32_t count,
                       const struct account_plan *plan)
{
    double sum = 0;
    int rc = 0;
    f->samples = count;
    f->sorted = values;
    if (plan->intervals) {
        rc = stats_bootstrap(values, count, account_quantiles, ACCOUNT_QUANTILES, plan->seed,
                             f->interval);
    }
    qsort(values, count, sizeof(double), stats_compare);
    for (uint32_t i = 0; i < ACCOUNT_QUANTILES; i++) {
        f->q[i] = stats_quantile(values, count, account_quantiles[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        f->lost += isinf(values[i]) != 0;
        sum += isinf(values[i]) ? 0 : values[i];
    }
    f->mean = count > f->lost ? sum / (count - f->lost) : 0;
    f->max = count != 0 ? values[count - 1] : 0;
    return rc;
}

/* What a sample has of the quantity, in ms; negative if it has none. */
typedef double (*quantity_fn)(const struct drive_sample *s);

static double first_of(const struct drive_sample *s)
{
    return s->status == 0 ? ms_between(s->due_ns, s->first_ns) : (double)INFINITY;
}

static double total_of(const struct drive_sample *s)
{
    return s->status == 0 ? ms_between(s->due_ns, s->end_ns) : (double)INFINITY;
}

static double token_of(const struct drive_sample *s)
{
    return s->status == 0 && s->tokens >= 2 ? ms_between(s->first_ns, s->end_ns) / (s->tokens - 1)
                                            : -1;
}

static double outside_of(const struct drive_sample *s)
{
    if (s->status != 0 || s->worker_ns == 0 || s->failovers != 0) {
        return -1;
    }
    return ms_between(s->sent_ns + s->worker_ns, s->first_ns);
}

static double refusal_of(const struct drive_sample *s)
{
    return account_is_refusal(s->status) ? ms_between(s->due_ns, s->end_ns) : -1;
}

static double lateness_of(const struct drive_sample *s)
{
    return ms_between(s->due_ns, s->sent_ns);
}

static int figure_of(struct account_figure *f, const struct drive_sample *samples, uint32_t count,
                     quantity_fn quantity, const struct account_plan *plan)
{
    double *values = malloc((count + 1) * sizeof(*values));
    uint32_t n = 0;
    if (values == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        double value = quantity(&samples[i]);
        if (value >= 0) {
            values[n++] = value;
        }
    }
    return figure_make(f, values, n, plan);
}

static int figure_of_gaps(struct account_figure *f, const struct drive *drive,
                          const struct account_plan *plan)
{
    double *values = malloc((drive->gaps + 1) * sizeof(*values));
    if (values == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < drive->gaps; i++) {
        values[i] = (double)drive->gaps_us[i] / 1e3;
    }
    return figure_make(f, values, drive->gaps, plan);
}

/* ---- counts ---- */

static void count_status(struct account *a, int32_t status)
{
    for (uint32_t i = 0; i < ACCOUNT_STATUSES; i++) {
        if (a->statuses[i].count == 0 || a->statuses[i].status == status) {
            a->statuses[i].status = status;
            a->statuses[i].count++;
            return;
        }
    }
}

static bool is_good(const struct drive_sample *s, const struct account_plan *plan)
{
    return s->status == 0 && (plan->slo_first_ms <= 0 || first_of(s) <= plan->slo_first_ms) &&
           (plan->slo_token_ms <= 0 || token_of(s) <= plan->slo_token_ms);
}

static void count_all(struct account *a, const struct drive *drive, const struct account_plan *plan)
{
    for (uint32_t i = 0; i < drive->sent; i++) {
        const struct drive_sample *s = &drive->samples[i];
        a->answered += s->status == 0;
        a->refused += account_is_refusal(s->status);
        a->failovers += s->failovers;
        a->tokens += s->status == 0 ? s->tokens : 0;
        a->good += is_good(s, plan);
        a->late += s->sent_ns - s->due_ns > ACCOUNT_LATE_NS;
        if (s->node < DRIVE_NODES_MAX && s->status == 0) {
            a->served[s->node]++;
        }
        count_status(a, s->status);
    }
    a->requests = drive->sent;
    a->failed = a->requests - a->answered - a->refused;
    a->seconds = (double)drive->took_ns / 1e9;
}

/* ---- checks ---- */

static double exponential_of(const struct drive_sample *samples, uint32_t count, bool sent,
                             double *room)
{
    for (uint32_t i = 1; i < count; i++) {
        uint64_t from = sent ? samples[i - 1].sent_ns : samples[i - 1].due_ns;
        uint64_t to = sent ? samples[i].sent_ns : samples[i].due_ns;
        room[i - 1] = to > from ? (double)(to - from) : 0;
    }
    return count > 1 ? stats_exponential(room, count - 1) : 0;
}

static int check_all(struct account *a, const struct drive_sample *samples, uint32_t count)
{
    double *room = malloc((count + 1) * sizeof(*room));
    uint32_t n = 0;
    if (room == NULL) {
        return -ENOMEM;
    }
    a->planned_exponential = exponential_of(samples, count, false, room);
    a->sent_exponential = exponential_of(samples, count, true, room);
    for (uint32_t i = 0; i < count; i++) {
        double total = total_of(&samples[i]);
        if (!isinf(total)) {
            room[n++] = log(total + 1e-6);
        }
    }
    a->drift = stats_kpss(room, n);
    a->warmup = stats_warmup(room, n);
    if (n >= 4) {
        qsort(room, n / 2, sizeof(double), stats_compare);
        qsort(room + n / 2, n - n / 2, sizeof(double), stats_compare);
        a->half_ratio =
            exp(stats_quantile(room + n / 2, n - n / 2, 0.5) - stats_quantile(room, n / 2, 0.5));
    }
    free(room);
    return 0;
}

int account_make(struct account *a, const struct drive *drive, const struct account_plan *plan)
{
    const uint64_t warmup_ns = (uint64_t)(plan->warmup_s * 1e9);
    uint32_t from = 0;
    memset(a, 0, sizeof(*a));
    count_all(a, drive, plan);
    while (from < drive->sent && drive->samples[from].due_ns < warmup_ns) {
        from++;
    }
    const struct drive_sample *samples = drive->samples + from;
    const uint32_t count = a->measured = drive->sent - from;
    int rc = check_all(a, samples, count);
    const struct {
        struct account_figure *figure;
        quantity_fn quantity;
    } figures[] = {{&a->first, first_of},     {&a->total, total_of},
                   {&a->token, token_of},     {&a->outside, outside_of},
                   {&a->refusal, refusal_of}, {&a->lateness, lateness_of}};
    for (uint32_t i = 0; rc == 0 && i < sizeof(figures) / sizeof(figures[0]); i++) {
        rc = figure_of(figures[i].figure, samples, count, figures[i].quantity, plan);
    }
    return rc == 0 ? figure_of_gaps(&a->gap, drive, plan) : rc;
}

void account_deinit(struct account *a)
{
    struct account_figure *figures[] = {&a->first,   &a->total,   &a->token,   &a->gap,
                                        &a->outside, &a->refusal, &a->lateness};
    for (uint32_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        free(figures[i]->sorted);
        figures[i]->sorted = NULL;
    }
}
