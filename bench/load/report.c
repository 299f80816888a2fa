/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - see report.h. */
#include "bench/load/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "bench/figures.h"
#include "bench/load/hdr.h"
#include "schemas/base/clock.h"

#define CURVE_POINTS 128u
#define SERIES_MAX   600u /* points of the time series at most */

/* ---- for readers ---- */

static void print_ms(const char *name, double ms, bool enough)
{
    if (isinf(ms)) {
        printf("  %s     never ", name);
    } else {
        printf("  %s %9.3f%c", name, ms, enough ? ' ' : '*');
    }
}

static void print_figure(const char *name, const struct account_figure *f)
{
    static const uint32_t shown[] = {0, 1, 3, 4, 5};
    if (f->samples == 0) {
        return;
    }
    printf("%-20s", name);
    for (uint32_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
        print_ms(account_quantile_names[shown[i]], f->q[shown[i]],
                 stats_enough(f->samples, account_quantiles[shown[i]]));
    }
    print_ms("max", f->max, true);
    printf("  (n = %u", f->samples);
    if (f->lost != 0) {
        printf(", %u never", f->lost);
    }
    puts(")");
}

/* An end of an interval: beyond the last answer that came there is none. */
static void print_end(const char *before, double ms)
{
    if (isfinite(ms)) {
        printf("%s%.3f", before, ms);
    } else {
        printf("%snever", before);
    }
}

static void print_intervals(const char *name, const struct account_figure *f)
{
    if (f->samples == 0 || f->interval[0].high <= 0) {
        return;
    }
    printf("%-20s", name);
    for (uint32_t i = 0; i < ACCOUNT_QUANTILES; i++) {
        if (i != 2 && i != 1) {
            printf("  %s ", account_quantile_names[i]);
            print_end("", f->interval[i].low);
            print_end("..", f->interval[i].high);
        }
    }
    putchar('\n');
}

static void print_counts(const struct report_context *c)
{
    const struct account *a = c->account;
    printf("%u requests in %.2f s: %u answered, %u refused, %u failed\n", a->requests, a->seconds,
           a->answered, a->refused, a->failed);
    for (uint32_t i = 0; i < ACCOUNT_STATUSES && a->statuses[i].count != 0; i++) {
        if (a->statuses[i].status != 0) {
            printf("  %6u %s\n", a->statuses[i].count, weft_status_text(a->statuses[i].status));
        }
    }
    for (uint32_t i = 0; i < c->drive->node_count; i++) {
        if (a->served[i] != 0) {
            printf("  %6u served by %s\n", a->served[i], c->drive->nodes[i]);
        }
    }
}

static void print_checks(const struct report_context *c)
{
    const struct account *a = c->account;
    printf(
        "sends                 %u more than 1 ms late of %u; the sender used %.0f %% of a core\n",
        a->late, a->requests, 100 * c->drive->cpu_s / a->seconds);
    if (c->drive->woken_ns.count != 0) {
        const struct hist *h = &c->drive->woken_ns;
        printf(
            "wake-up               p50 %.1f  p99 %.1f us from a datagram's arrival to this thread; "
            "not in the figures above\n",
            (double)hist_quantile(h, 0.5) / 1e3, (double)hist_quantile(h, 0.99) / 1e3);
    }
    if (c->exponential) {
        printf(
            "arrivals              Anderson-Darling %.2f as drawn, %.2f as sent: %s (limit %.2f)\n",
            a->planned_exponential, a->sent_exponential,
            a->sent_exponential < STATS_AD_LIMIT ? "exponential" : "NOT exponential",
            STATS_AD_LIMIT);
    }
    printf("steady                KPSS %.2f, median of second half / first %.3f: %s (limit %.2f); "
           "MSER-5 would leave out %u\n",
           a->drift, a->half_ratio, a->drift < STATS_KPSS_LIMIT ? "steady" : "NOT steady",
           STATS_KPSS_LIMIT, a->warmup);
}

void report_text(const struct report_context *c)
{
    const struct account *a = c->account;
    machine_print();
    print_counts(c);
    printf("arrivals: %s\n\n", c->arrivals);
    puts("milliseconds from when a request was due; * = too few samples to say");
    print_figure("first token", &a->first);
    print_figure("- worker's own time", &a->outside);
    print_figure("per token", &a->token);
    print_figure("between tokens", &a->gap);
    print_figure("whole answer", &a->total);
    print_figure("refusal", &a->refusal);
    print_figure("sent too late", &a->lateness);
    if (c->floor != NULL) {
        print_figure("floor: first token", &c->floor->first);
        print_figure("floor: whole answer", &c->floor->total);
    }
    if (c->plan->intervals) {
        puts("\n95 % intervals");
        print_intervals("first token", &a->first);
        print_intervals("whole answer", &a->total);
    }
    printf("\n%llu tokens, %.1f a second; %.2f answers a second\n", (unsigned long long)a->tokens,
           (double)a->tokens / a->seconds, a->answered / a->seconds);
    if (c->plan->slo_first_ms > 0 || c->plan->slo_token_ms > 0) {
        printf("goodput               %.2f a second, %.2f %% of all that were sent\n",
               a->good / a->seconds, 100.0 * a->good / a->requests);
    }
    print_checks(c);
}

/* ---- for programs ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *figure_json(const struct account_figure *f)
{
    json_t *out = json_object();
    json_t *intervals = json_object();
    json_t *enough = json_object();
    for (uint32_t i = 0; i < ACCOUNT_QUANTILES; i++) {
        const char *name = account_quantile_names[i];
        json_object_set_new(out, name, number(f->q[i]));
        json_object_set_new(
            intervals, name,
            json_pack("[o, o]", number(f->interval[i].low), number(f->interval[i].high)));
        json_object_set_new(enough, name,
                            json_boolean(stats_enough(f->samples, account_quantiles[i])));
    }
    json_object_set_new(out, "max", number(f->max));
    json_object_set_new(out, "mean", number(f->mean));
    json_object_set_new(out, "samples", json_integer(f->samples));
    json_object_set_new(out, "never", json_integer(f->lost));
    json_object_set_new(out, "interval95", intervals);
    json_object_set_new(out, "enough_samples", enough);
    return out;
}

/* Points [fraction, ms], denser towards 1. */
static json_t *curve_json(const struct account_figure *f)
{
    json_t *out = json_array();
    for (uint32_t i = 0; f->samples != 0 && i < CURVE_POINTS; i++) {
        double above = pow(10.0, -6.0 * i / CURVE_POINTS);
        if (above * f->samples < 1) {
            break;
        }
        double ms = stats_quantile(f->sorted, f->samples, 1 - above);
        json_array_append_new(out, json_pack("[f, o]", 1 - above, number(ms)));
    }
    return out;
}

struct second {
    uint32_t due, ended;
    double sum_first_ms, max_first_ms;
    uint32_t first;
};

/* Points [s, due a second, answered a second, mean first token, longest first token]. */
static json_t *series_points(const struct drive *drive)
{
    const uint64_t end_ns = drive->took_ns + 1;
    const uint64_t width_ns =
        end_ns / SERIES_MAX > NS_PER_S ? (end_ns / SERIES_MAX / NS_PER_S + 1) * NS_PER_S : NS_PER_S;
    const uint32_t count = (uint32_t)(end_ns / width_ns) + 1;
    struct second *seconds = calloc(count, sizeof(*seconds));
    json_t *out = json_array();
    for (uint32_t i = 0; seconds != NULL && i < drive->sent; i++) {
        const struct drive_sample *s = &drive->samples[i];
        struct second *due = &seconds[s->due_ns / width_ns % count];
        due->due++;
        if (s->status == 0) {
            double first_ms = (double)(s->first_ns - s->due_ns) / 1e6;
            seconds[s->end_ns / width_ns % count].ended++;
            due->first++;
            due->sum_first_ms += first_ms;
            due->max_first_ms = first_ms > due->max_first_ms ? first_ms : due->max_first_ms;
        }
    }
    const double width_s = (double)width_ns / 1e9;
    for (uint32_t i = 0; seconds != NULL && i < count; i++) {
        const struct second *s = &seconds[i];
        json_array_append_new(
            out, json_pack("[f, f, f, f, f]", i * width_s, s->due / width_s, s->ended / width_s,
                           s->first != 0 ? s->sum_first_ms / s->first : 0.0, s->max_first_ms));
    }
    free(seconds);
    return out;
}

static json_t *checks_json(const struct report_context *c)
{
    const struct account *a = c->account;
    return json_pack("{s:b, s:f, s:f, s:f, s:f, s:f, s:f, s:i}", "should_be_exponential",
                     (int)c->exponential, "anderson_darling_drawn", a->planned_exponential,
                     "anderson_darling_sent", a->sent_exponential, "anderson_darling_limit",
                     STATS_AD_LIMIT, "kpss", a->drift, "kpss_limit", STATS_KPSS_LIMIT,
                     "second_half_to_first", a->half_ratio, "mser5_would_leave_out",
                     (int)a->warmup);
}

static json_t *counts_json(const struct report_context *c)
{
    const struct account *a = c->account;
    json_t *nodes = json_object();
    json_t *statuses = json_object();
    for (uint32_t i = 0; i < c->drive->node_count; i++) {
        json_object_set_new(nodes, c->drive->nodes[i], json_integer(a->served[i]));
    }
    for (uint32_t i = 0; i < ACCOUNT_STATUSES && a->statuses[i].count != 0; i++) {
        json_object_set_new(statuses, weft_status_name(a->statuses[i].status),
                            json_integer(a->statuses[i].count));
    }
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:o, s:o}",
                     "requests", (int)a->requests, "measured", (int)a->measured, "answered",
                     (int)a->answered, "refused", (int)a->refused, "failed", (int)a->failed,
                     "failovers", (int)a->failovers, "late_sends", (int)a->late, "tokens",
                     (json_int_t)a->tokens, "seconds", a->seconds, "tokens_per_s",
                     (double)a->tokens / a->seconds, "answers_per_s", a->answered / a->seconds,
                     "sender_cpu_s", c->drive->cpu_s, "statuses", statuses, "served_by", nodes);
}

json_t *report_as_json(const struct report_context *c)
{
    const struct account *a = c->account;
    json_t *command = json_array();
    json_t *out = counts_json(c);
    for (int i = 0; i < c->argc; i++) {
        json_array_append_new(command, json_string(c->argv[i]));
    }
    json_object_set_new(out, "bench", json_string("load"));
    json_object_set_new(out, "machine", machine_json());
    json_object_set_new(out, "started", json_real(c->drive->epoch_s));
    json_object_set_new(out, "command", command);
    json_object_set_new(out, "arrivals", json_string(c->arrivals));
    json_object_set_new(out, "first_token_ms", figure_json(&a->first));
    json_object_set_new(out, "outside_worker_ms", figure_json(&a->outside));
    json_object_set_new(out, "per_token_ms", figure_json(&a->token));
    json_object_set_new(out, "between_tokens_ms", figure_json(&a->gap));
    json_object_set_new(out, "total_ms", figure_json(&a->total));
    json_object_set_new(out, "refusal_ms", figure_json(&a->refusal));
    json_object_set_new(out, "lateness_ms", figure_json(&a->lateness));
    if (c->drive->woken_ns.count != 0) {
        const struct hist *h = &c->drive->woken_ns;
        json_object_set_new(out, "wake_up_us",
                            json_pack("{s:f, s:f}", "p50", (double)hist_quantile(h, 0.5) / 1e3,
                                      "p99", (double)hist_quantile(h, 0.99) / 1e3));
    }
    if (c->floor != NULL) {
        json_object_set_new(out, "floor",
                            json_pack("{s:o, s:o}", "first_token_ms", figure_json(&c->floor->first),
                                      "total_ms", figure_json(&c->floor->total)));
    }
    json_object_set_new(out, "goodput",
                        json_pack("{s:f, s:f, s:i, s:f, s:f}", "slo_ttft_ms", c->plan->slo_first_ms,
                                  "slo_tpot_ms", c->plan->slo_token_ms, "good", (int)a->good,
                                  "per_s", a->good / a->seconds, "share",
                                  a->requests != 0 ? (double)a->good / a->requests : 0.0));
    json_object_set_new(out, "checks", checks_json(c));
    json_object_set_new(out, "curve_first_token", curve_json(&a->first));
    json_object_set_new(out, "curve_total", curve_json(&a->total));
    json_object_set_new(out, "series", series_points(c->drive));
    return out;
}

/* ---- for HdrHistogram's tools ---- */

/* `last` of those due before `end_ns`. Returns it. */
static uint32_t fill(struct hdr *first, struct hdr *total, const struct drive *drive, uint32_t at,
                     uint64_t end_ns)
{
    hdr_reset(first);
    hdr_reset(total);
    for (; at < drive->sent && drive->samples[at].due_ns < end_ns; at++) {
        const struct drive_sample *s = &drive->samples[at];
        bool ok = s->status == 0;
        hdr_add(first, ok ? s->first_ns - s->due_ns : HDR_HIGHEST);
        hdr_add(total, ok ? s->end_ns - s->due_ns : HDR_HIGHEST);
    }
    return at;
}

int report_hlog(const struct report_context *c, const char *path)
{
    const struct drive *drive = c->drive;
    struct hdr first = {0}, total = {0};
    FILE *log = fopen(path, "we");
    int rc = log == NULL ? -errno : hdr_init(&first);
    rc = rc == 0 ? hdr_init(&total) : rc;
    if (rc == 0) {
        hdr_log_begin(log, drive->epoch_s,
                      "weft-bench load; ns from when a request was due; lost = 3600 s");
    }
    uint32_t at = 0;
    for (uint64_t begin_ns = 0; rc == 0 && at < drive->sent; begin_ns += NS_PER_S) {
        at = fill(&first, &total, drive, at, begin_ns + NS_PER_S);
        const double begin_s = (double)begin_ns / 1e9;
        if (first.count != 0) {
            rc = hdr_log_interval(log, "first", begin_s, 1.0, &first);
            rc = rc == 0 ? hdr_log_interval(log, "total", begin_s, 1.0, &total) : rc;
        }
    }
    hdr_deinit(&first);
    hdr_deinit(&total);
    return log != NULL && fclose(log) != 0 && rc == 0 ? -errno : rc;
}

/* ---- request by request ---- */

int report_samples(const struct report_context *c, const char *path)
{
    const struct drive *drive = c->drive;
    FILE *f = fopen(path, "we");
    if (f == NULL) {
        return -errno;
    }
    fputs("request,due_ns,sent_ns,first_ns,end_ns,status,tokens,failovers,node\n", f);
    for (uint32_t i = 0; i < drive->sent; i++) {
        const struct drive_sample *s = &drive->samples[i];
        fprintf(f, "%u,%llu,%llu,%llu,%llu,%s,%u,%u,%s\n", i, (unsigned long long)s->due_ns,
                (unsigned long long)s->sent_ns, (unsigned long long)s->first_ns,
                (unsigned long long)s->end_ns, weft_status_name(s->status), s->tokens, s->failovers,
                s->node < DRIVE_NODES_MAX ? drive->nodes[s->node] : "");
    }
    return fclose(f) == 0 ? 0 : -errno;
}
