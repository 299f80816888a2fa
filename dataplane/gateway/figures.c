/* SPDX-License-Identifier: Apache-2.0 */
/* figures.c - see figures.h. */
#include "dataplane/gateway/figures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <weft/status.h>

#include "schemas/metrics.def"

/* Bounds as OpenTelemetry's conventions advise; in seconds; ends at 0. */
static const double duration_bounds[] = {.01,  .02,  .04,   .08,   .16,   .32,   .64, 1.28,
                                         2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 0};
static const double first_token_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25,
                                            .5,   .75,  1,   2.5, 5,   7.5, 10,  0};
static const double per_token_bounds[] = {.01, .025, .05, .075, .1, .15, .2,
                                          .3,  .4,   .5,  .75,  1,  2.5, 0};

static void histogram_add(struct figures_histogram *h, const double *bounds, double value)
{
    uint32_t i = 0;
    while (bounds[i] != 0 && value > bounds[i]) {
        i++;
    }
    h->counts[i]++;
    h->sum += value;
    h->count++;
}

/* ---- counting ---- */

void figures_status(struct figures *f, int status)
{
    for (uint32_t i = 0; i < FIGURES_STATUSES_MAX && status != 0; i++) {
        if (f->statuses[i].status == status || f->statuses[i].status == 0) {
            f->statuses[i].status = status;
            f->statuses[i].count++;
            return;
        }
    }
}

static struct figures_model *model_of(struct figures *f, const char *name)
{
    for (uint32_t i = 0; i < f->model_count; i++) {
        if (strcmp(f->models[i].name, name) == 0) {
            return &f->models[i];
        }
    }
    if (f->model_count == FIGURES_MODELS_MAX) {
        return &f->models[FIGURES_MODELS_MAX - 1];
    }
    struct figures_model *model = &f->models[f->model_count++];
    snprintf(model->name, sizeof(model->name), "%s",
             f->model_count == FIGURES_MODELS_MAX ? "other" : name);
    return model;
}

static struct figures_key *key_of(struct figures *f, const char *name)
{
    for (uint32_t i = 0; i < f->key_count; i++) {
        if (strcmp(f->keys[i].name, name) == 0) {
            return &f->keys[i];
        }
    }
    if (f->key_count == FIGURES_KEYS_MAX) {
        return &f->keys[FIGURES_KEYS_MAX - 1];
    }
    struct figures_key *key = &f->keys[f->key_count++];
    snprintf(key->name, sizeof(key->name), "%s", f->key_count == FIGURES_KEYS_MAX ? "other" : name);
    return key;
}

/* Between tokens after the first, on average; 0 = there are no two. */
static double per_token_s(const weft_result_t *r)
{
    return r->new_tokens > 1 && r->total_us > r->first_token_us
               ? (double)(r->total_us - r->first_token_us) / 1e6 / (r->new_tokens - 1)
               : 0;
}

void figures_slo(struct figures *f, const char *model, struct figures_slo slo,
                 const weft_result_t *result)
{
    if ((slo.first_ms | slo.token_ms) == 0 || result->status == WEFT_E_CANCELLED) {
        return;
    }
    struct figures_model *m = model_of(f, result->status == WEFT_E_UNKNOWN_MODEL ? "?" : model);
    bool met = result->status == 0 &&
               (slo.first_ms == 0 || result->first_token_us <= slo.first_ms * UINT64_C(1000)) &&
               (slo.token_ms == 0 || per_token_s(result) <= slo.token_ms / 1e3);
    m->slo_met += met;
    m->slo_missed += !met;
}

void figures_answer(struct figures *f, const char *model, const char *key,
                    const weft_result_t *result)
{
    /* Names that no node has are not worth a place. */
    struct figures_model *m = model_of(f, result->status == WEFT_E_UNKNOWN_MODEL ? "?" : model);
    m->answers++;
    m->whole += result->status == 0;
    m->cancelled += result->status == WEFT_E_CANCELLED;
    m->refused += result->status != 0 && result->finish == WEFT_FINISH_REFUSED;
    m->failed += result->status != 0 && result->status != WEFT_E_CANCELLED &&
                 result->finish != WEFT_FINISH_REFUSED;
    m->prompt_tokens += result->prompt_tokens;
    m->new_tokens += result->new_tokens;
    m->failovers += result->failovers;
    m->hedged += result->hedged;
    if (result->first_token_us != 0) {
        histogram_add(&m->first_token, first_token_bounds, (double)result->first_token_us / 1e6);
    }
    if (result->status == 0) {
        histogram_add(&m->duration, duration_bounds, (double)result->total_us / 1e6);
        histogram_add(&m->queue, first_token_bounds, (double)result->queue_us / 1e6);
        histogram_add(&m->prefill, first_token_bounds, (double)result->prefill_us / 1e6);
        histogram_add(&m->decode, duration_bounds, (double)result->decode_us / 1e6);
        histogram_add(&m->network, first_token_bounds, (double)result->net_us / 1e6);
    }
    if (result->status == 0 && result->new_tokens > 1) {
        histogram_add(&m->per_token, per_token_bounds, per_token_s(result));
    }
    if (key != NULL) {
        struct figures_key *k = key_of(f, key);
        k->answers++;
        k->prompt_tokens += result->prompt_tokens;
        k->new_tokens += result->new_tokens;
    }
}

/* ---- telling ---- */

static void head_write(struct buf *out, const char *name, const char *kind, const char *text)
{
    buf_add_format(out, "# HELP %s %s\n# TYPE %s %s\n", name, text, name, kind);
}

/* A value of a label: backslash, quote and line end are escaped as in JSON. */
static void label_write(struct buf *out, const char *key, const char *value)
{
    buf_add_format(out, "%s=", key);
    buf_add_quoted(out, value);
}

static void histogram_write(struct buf *out, const char *name, const char *model,
                            const double *bounds, const struct figures_histogram *h)
{
    const char *label = strncmp(name, "vllm:", 5) == 0 ? "model_name" : "gen_ai_request_model";
    uint64_t sum = 0;
    for (uint32_t i = 0;; i++) {
        sum += h->counts[i];
        buf_add_format(out, "%s_bucket{", name);
        label_write(out, label, model);
        if (bounds[i] != 0) {
            buf_add_format(out, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)sum);
        } else {
            buf_add_format(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)sum);
            break;
        }
    }
    buf_add_format(out, "%s_sum{", name);
    label_write(out, label, model);
    buf_add_format(out, "} %.9g\n%s_count{", h->sum, name);
    label_write(out, label, model);
    buf_add_format(out, "} %llu\n", (unsigned long long)h->count);
}

static void models_write(const struct figures *f, struct buf *out)
{
#define COUNTER_(field, metric, text)                                                              \
    head_write(out, metric, "counter", text);                                                      \
    for (uint32_t i = 0; i < f->model_count; i++) {                                                \
        buf_add_text(out, metric "{");                                                             \
        label_write(out, "model_name", f->models[i].name);                                         \
        buf_add_format(out, "} %llu\n", (unsigned long long)f->models[i].field);                   \
    }
#define HISTOGRAM_(field, metric, bounds, text)                                                    \
    head_write(out, metric, "histogram", text);                                                    \
    for (uint32_t i = 0; i < f->model_count; i++) {                                                \
        if (f->models[i].field.count != 0) {                                                       \
            histogram_write(out, metric, f->models[i].name, bounds, &f->models[i].field);          \
        }                                                                                          \
    }
    FIGURES_MODEL_COUNTERS(COUNTER_)
    FIGURES_MODEL_HISTOGRAMS(HISTOGRAM_)
#undef COUNTER_
#undef HISTOGRAM_
}

/* One gauge of each member, from a number of its object; `scale` to Prometheus's base units. */
static void member_gauge(struct buf *out, const json_t *members, const char *metric,
                         const char *key, double scale, const char *text)
{
    head_write(out, metric, "gauge", text);
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);
        const json_t *value = json_object_get(member, key);
        const char *name = json_string_value(json_object_get(member, "name"));
        bool is_flag = json_is_boolean(value);
        if (name == NULL || (!json_is_number(value) && !is_flag)) {
            continue;
        }
        buf_add_format(out, "%s{", metric);
        label_write(out, "node", name);
        buf_add_format(out, "} %.9g\n",
                       is_flag ? (double)json_is_true(value) : json_number_value(value) * scale);
    }
}

/* What a counter of a node's packet path counts; NULL = it is not in the table. */
static const char *node_counter_text(const char *name)
{
#define TEXT_(metric, kind, unit, text)                                                            \
    if (strcmp(name, #metric) == 0) {                                                              \
        return text;                                                                               \
    }
    WEFT_METRICS_ROUTE(TEXT_)
    WEFT_METRICS_LOCAL(TEXT_)
    WEFT_METRICS_MOVES(TEXT_)
#undef TEXT_
    return NULL;
}

/* Those that metrics.def has. */
static void node_counters_write(json_t *counters, struct buf *out)
{
    const char *key;
    json_t *value;
    json_object_foreach(counters, key, value)
    {
        const char *text = node_counter_text(key);
        if (json_is_integer(value) && text != NULL) {
            buf_add_format(out,
                           "# HELP weft_node_%s_total %s\n# TYPE weft_node_%s_total counter\n"
                           "weft_node_%s_total %lld\n",
                           key, text, key, key, (long long)json_integer_value(value));
        }
    }
}

/* The counters of the node next to the gateway; drops by reason. */
static void node_write(const json_t *status, struct buf *out)
{
    const char *key;
    json_t *value;
    json_t *counters = json_object_get(status, "counters");
    json_t *drops = json_object_get(counters, "drops");
    node_counters_write(counters, out);
    node_counters_write(json_object_get(status, "moves"), out);
    head_write(out, "weft_node_drops_total", "counter", "frames let go of, by reason");
    json_object_foreach(drops, key, value)
    {
        if (strlen(key) < FIGURES_NAME_MAX) {
            buf_add_format(out, "weft_node_drops_total{reason=\"%s\"} %lld\n", key,
                           (long long)json_integer_value(value));
        }
    }
}

/* ---- of the workers at the node next to the gateway ---- */

double figures_of_worker(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_true(value) ? 1 : json_number_value(value);
}

double figures_kv_usage(const json_t *worker)
{
    const double pages = figures_of_worker(worker, "kv_pages");
    return pages > 0 ? figures_of_worker(worker, "kv_pages_used") / pages : 0.0;
}

/* A worker's labels, and more ones; two workers may have the same model. */
static void worker_head(struct buf *out, const char *metric, const json_t *worker)
{
    const char *model = json_string_value(json_object_get(worker, "model"));
    buf_add_format(out, "%s{", metric);
    label_write(out, "model_name", model != NULL ? model : "?");
    buf_add_format(out, ",pid=\"%.0f\"", figures_of_worker(worker, "pid"));
}

/* Of so many streams together. */
static void worker_decode(struct buf *out, const json_t *worker)
{
    static const struct {
        const char *key;
        unsigned streams;
    } batches[] = {
        {"decode_tps", 1}, {"decode_tps_2", 2}, {"decode_tps_4", 4}, {"decode_tps_8", 8}};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        double speed = figures_of_worker(worker, batches[i].key);
        if (speed > 0) { /* else it was not measured */
            worker_head(out, "weft_worker_decode_tokens_per_second", worker);
            buf_add_format(out, ",streams=\"%u\"} %.9g\n", batches[i].streams, speed);
        }
    }
}

static void workers_write(const json_t *workers, struct buf *out)
{
    const size_t count = json_array_size(workers);
#define WORKER_(key, metric, kind, scale, text)                                                    \
    head_write(out, metric, kind, text);                                                           \
    for (size_t i = 0; i < count; i++) {                                                           \
        const json_t *worker = json_array_get(workers, i);                                         \
        worker_head(out, metric, worker);                                                          \
        buf_add_format(out, "} %.9g\n", figures_of_worker(worker, key) * (scale));                 \
    }
    FIGURES_WORKERS(WORKER_)
#undef WORKER_
    head_write(out, "vllm:kv_cache_usage_perc", "gauge",
               "KV cache held by requests; 1 = all of it");
    for (size_t i = 0; i < count; i++) {
        const json_t *worker = json_array_get(workers, i);
        worker_head(out, "vllm:kv_cache_usage_perc", worker);
        buf_add_format(out, "} %.9g\n", figures_kv_usage(worker));
    }
    head_write(out, "weft_worker_decode_tokens_per_second", "gauge",
               "of so many streams together, measured");
    for (size_t i = 0; i < count; i++) {
        worker_decode(out, json_array_get(workers, i));
    }
}

void figures_write(const struct figures *f, const json_t *status, struct buf *out)
{
    head_write(out, "weft_gateway_http_responses_total", "counter", "responses, by HTTP status");
    for (uint32_t i = 0; i < FIGURES_STATUSES_MAX && f->statuses[i].status != 0; i++) {
        buf_add_format(out, "weft_gateway_http_responses_total{status=\"%d\"} %llu\n",
                       f->statuses[i].status, (unsigned long long)f->statuses[i].count);
    }
#define VALUE_(kind, field, metric, text)                                                          \
    head_write(out, metric, kind, text);                                                           \
    buf_add_format(out, metric " %llu\n", (unsigned long long)f->field);
#define GAUGE_(field, metric, text) VALUE_("gauge", field, metric, text)
#define TOTAL_(field, metric, text) VALUE_("counter", field, metric, text)
    FIGURES_GAUGES(GAUGE_)
    FIGURES_TOTALS(TOTAL_)
#undef GAUGE_
#undef TOTAL_
#undef VALUE_
    models_write(f, out);
    const json_t *members = json_object_get(status, "members");
    if (members != NULL) {
        member_gauge(out, members, "weft_member_up", "alive", 1, "heard of lately");
        member_gauge(out, members, "weft_member_draining", "draining", 1, "takes nothing new");
        member_gauge(out, members, "weft_member_room", "room", 1, "requests it would accept");
        member_gauge(out, members, "weft_member_queue_seconds", "queue_us", 1e-6, "predicted wait");
        member_gauge(out, members, "weft_member_free_vram_bytes", "free_vram_mib", 1048576,
                     "accelerator memory free");
        member_gauge(out, members, "weft_member_rtt_seconds", "rtt_us", 1e-6, "round trip");
        node_write(status, out);
        workers_write(json_object_get(status, "workers"), out);
    }
}

void figures_write_usage(const struct figures *f, uint64_t since_s, struct buf *out)
{
    buf_add_format(out, "{\"object\":\"usage\",\"since\":%llu,\"models\":[",
                   (unsigned long long)since_s);
    for (uint32_t i = 0; i < f->model_count; i++) {
        const struct figures_model *m = &f->models[i];
        buf_add_text(out, i != 0 ? ",{\"model\":" : "{\"model\":");
        buf_add_quoted(out, m->name);
        buf_add_format(out,
                       ",\"answers\":%llu,\"whole\":%llu,\"refused\":%llu,\"failed\":%llu,"
                       "\"cancelled\":%llu,\"prompt_tokens\":%llu,\"completion_tokens\":%llu}",
                       (unsigned long long)m->answers, (unsigned long long)m->whole,
                       (unsigned long long)m->refused, (unsigned long long)m->failed,
                       (unsigned long long)m->cancelled, (unsigned long long)m->prompt_tokens,
                       (unsigned long long)m->new_tokens);
    }
    buf_add_text(out, "],\"keys\":[");
    for (uint32_t i = 0; i < f->key_count; i++) {
        const struct figures_key *k = &f->keys[i];
        buf_add_text(out, i != 0 ? ",{\"key\":" : "{\"key\":");
        buf_add_quoted(out, k->name);
        buf_add_format(out, ",\"answers\":%llu,\"prompt_tokens\":%llu,\"completion_tokens\":%llu}",
                       (unsigned long long)k->answers, (unsigned long long)k->prompt_tokens,
                       (unsigned long long)k->new_tokens);
    }
    buf_add_text(out, "]}");
}
