/* SPDX-License-Identifier: Apache-2.0 */
/* live_view.c - events of what has changed, see live.h. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/live.h"

static const char *const section_names[LIVE_SECTIONS] = {
    [LIVE_MESH] = "mesh",     [LIVE_GATEWAY] = "gateway", [LIVE_MODELS] = "models",
    [LIVE_RECENT] = "recent", [LIVE_WORKERS] = "workers", [LIVE_COUNTERS] = "counters",
    [LIVE_DROPS] = "drops",
};

/* Of a member; others change without telling anything, or nobody looks at them. */
static const char *const member_keys[] = {
    "name",          "state",        "alive",         "tier",          "tags",
    "jurisdiction",  "models",       "backend",       "room",          "queue_us",
    "free_vram_mib", "rtt_us",       "prefill_tps",   "decode_tps",    "context_tokens",
    "rtt_estimated", "latitude_deg", "longitude_deg", "place_doubted", "draining",
    "speeds",
};

void live_view_reset(struct live_view *view)
{
    for (uint32_t i = 0; i < LIVE_SECTIONS; i++) {
        buf_deinit(&view->sections[i]);
    }
    json_decref(view->status);
    json_decref(view->members);
    *view = (struct live_view){.seq = 0};
}

/* ---- sections, each one JSON value ---- */

static void mesh_write(const struct live_sources *from, struct buf *out)
{
    static const char *const keys[] = {"node", "version", "membership"};
    buf_add_text(out, "{\"error\":");
    buf_add_quoted(out, from->status == NULL ? from->error : "");
    buf_add_format(out, ",\"known\":%s", from->status != NULL ? "true" : "false");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *text = json_string_value(json_object_get(from->status, keys[i]));
        buf_add_format(out, ",\"%s\":", keys[i]);
        buf_add_quoted(out, text != NULL ? text : "");
    }
    buf_add_text(out, "}");
}

/* Numbers by name. `first` stands before the next. */
#define NUMBER_(field, ...)                                                                        \
    buf_add_format(out, "%s\"" #field "\":%llu", first, (unsigned long long)of->field);            \
    first = ",";

static void gateway_write(const struct figures *of, struct buf *out)
{
    const char *first = "{";
    FIGURES_GAUGES(NUMBER_)
    FIGURES_TOTALS(NUMBER_)
    buf_add_text(out, ",\"responses\":");
    first = "{";
    for (uint32_t i = 0; i < FIGURES_STATUSES_MAX && of->statuses[i].status != 0; i++) {
        buf_add_format(out, "%s\"%d\":%llu", first, of->statuses[i].status,
                       (unsigned long long)of->statuses[i].count);
        first = ",";
    }
    buf_add_text(out, *first == '{' ? "{}}" : "}}");
}

static void models_write(const struct figures *figures, struct buf *out)
{
    buf_add_text(out, "[");
    for (uint32_t i = 0; i < figures->model_count; i++) {
        const struct figures_model *of = &figures->models[i];
        const char *first = ",";
        buf_add_text(out, i != 0 ? ",{\"name\":" : "{\"name\":");
        buf_add_quoted(out, of->name);
        FIGURES_MODEL_COUNTERS(NUMBER_)
        (void)first;
        buf_add_text(out, "}");
    }
    buf_add_text(out, "]");
}

static void recent_write(const struct live *live, struct buf *out)
{
    struct live_recent recent[LIVE_RECENTS];
    live_recent(live, recent);
    for (uint32_t i = 0; i < LIVE_RECENTS; i++) {
        buf_add_format(out, "%s\"%s\":{\"count\":%u", i != 0 ? "," : "{", recent[i].name,
                       recent[i].count);
        for (uint32_t q = 0; q < LIVE_QUANTILES && recent[i].count != 0; q++) {
            buf_add_format(out, ",\"%g\":%.9g", live_quantiles[q], (double)recent[i].us[q] * 1e-6);
        }
        buf_add_text(out, "}");
    }
    buf_add_text(out, "}");
}

/* The whole numbers among an object's members. */
static void integers_write(json_t *object, struct buf *out)
{
    const char *first = "{";
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (json_is_integer(value)) {
            buf_add_text(out, first);
            buf_add_quoted(out, key);
            buf_add_format(out, ":%lld", (long long)json_integer_value(value));
            first = ",";
        }
    }
    buf_add_text(out, *first == '{' ? "{}" : "}");
}

/* The workers at the node next to the gateway, by the keys of the status answer. */
static void workers_write(const json_t *workers, struct buf *out)
{
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *of = json_array_get(workers, i);
        const char *model = json_string_value(json_object_get(of, "model"));
        buf_add_text(out, i != 0 ? ",{\"model\":" : "[{\"model\":");
        buf_add_quoted(out, model != NULL ? model : "?");
        buf_add_format(out, ",\"pid\":%.0f,\"kv_usage\":%.9g", figures_of_worker(of, "pid"),
                       figures_kv_usage(of));
#define WORKER_(key, ...) buf_add_format(out, ",\"" key "\":%.9g", figures_of_worker(of, key));
        FIGURES_WORKERS(WORKER_)
#undef WORKER_
        buf_add_format(out, ",\"decode_tps\":%.9g}", figures_of_worker(of, "decode_tps"));
    }
    buf_add_text(out, json_array_size(workers) != 0 ? "]" : "[]");
}

static void section_write(enum live_section section, const struct live_sources *from,
                          struct buf *out)
{
    switch (section) {
    case LIVE_MESH:
        mesh_write(from, out);
        break;
    case LIVE_GATEWAY:
        gateway_write(from->figures, out);
        break;
    case LIVE_MODELS:
        models_write(from->figures, out);
        break;
    case LIVE_RECENT:
        recent_write(from->live, out);
        break;
    case LIVE_WORKERS:
        workers_write(json_object_get(from->status, "workers"), out);
        break;
    case LIVE_COUNTERS:
        integers_write(json_object_get(from->status, "counters"), out);
        break;
    default:
        integers_write(json_object_get(json_object_get(from->status, "counters"), "drops"), out);
        break;
    }
}

static void section_add(struct buf *out, enum live_section section, const struct buf *text)
{
    buf_add_format(out, ",\"%s\":", section_names[section]);
    buf_add(out, text->data + text->at, buf_len(text));
}

static bool sections_step(struct live_view *view, const struct live_sources *from, struct buf *out)
{
    bool changed = false;
    for (uint32_t i = 0; i < LIVE_SECTIONS; i++) {
        struct buf now = {.data = NULL};
        struct buf *told = &view->sections[i];
        section_write((enum live_section)i, from, &now);
        if (!now.failed && (buf_len(told) != buf_len(&now) ||
                            memcmp(told->data + told->at, now.data, buf_len(&now)) != 0)) {
            section_add(out, (enum live_section)i, &now);
            buf_deinit(told);
            *told = now;
            changed = true;
        } else {
            buf_deinit(&now);
        }
    }
    return changed;
}

/* ---- who served ---- */

static bool served_write(const struct live *live, const uint64_t *told, struct buf *out)
{
    bool any = false;
    for (uint32_t i = 0; i < live->node_count; i++) {
        const struct live_node *of = &live->nodes[i];
        const char *first = ",";
        if (told != NULL && told[i] == of->answers) {
            continue;
        }
        buf_add_text(out, any ? ",{\"node\":" : ",\"served\":[{\"node\":");
        buf_add_quoted(out, of->name);
        LIVE_NODE_COUNTERS(NUMBER_)
        (void)first;
        buf_add_text(out, "}");
        any = true;
    }
    buf_add_text(out, any ? "]" : "");
    return any;
}

/* ---- members ---- */

/* What is told of a member, a new object. */
static json_t *member_told(const json_t *member)
{
    json_t *told = json_object();
    for (size_t i = 0; i < sizeof(member_keys) / sizeof(member_keys[0]); i++) {
        json_t *value = json_object_get(member, member_keys[i]);
        if (value != NULL) {
            json_object_set(told, member_keys[i], value);
        }
    }
    return told;
}

static void json_add(struct buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9));
    buf_add_text(out, text != NULL ? text : "null");
    free(text);
}

/* Those of `before` that `now` has not. */
static bool gone_write(json_t *before, const json_t *now, struct buf *out)
{
    bool any = false;
    const char *name;
    json_t *value;
    json_object_foreach(before, name, value)
    {
        if (json_object_get(now, name) == NULL) {
            buf_add_text(out, any ? "," : ",\"gone\":[");
            buf_add_quoted(out, name);
            any = true;
        }
    }
    buf_add_text(out, any ? "]" : "");
    return any;
}

static bool members_step(struct live_view *view, const struct live_sources *from, struct buf *out)
{
    const json_t *list = json_object_get(from->status, "members");
    if (from->status == NULL || from->status == view->status) {
        return false; /* the node was not asked anew, or is silent: those last heard of stay */
    }
    json_t *now = json_object();
    bool any = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *member = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(member, "name"));
        json_t *told = name != NULL ? member_told(member) : NULL;
        if (told != NULL && !json_equal(told, json_object_get(view->members, name))) {
            buf_add_text(out, any ? "," : ",\"members\":[");
            json_add(out, told);
            any = true;
        }
        if (told != NULL) {
            json_object_set_new(now, name, told);
        }
    }
    buf_add_text(out, any ? "]" : "");
    any |= gone_write(view->members, now, out);
    json_decref(view->members);
    json_decref(view->status);
    view->members = now;
    view->status = json_incref(from->status);
    return any;
}

static void members_whole(const struct live_view *view, struct buf *out)
{
    const char *name;
    json_t *told;
    const char *first = "";
    buf_add_text(out, ",\"members\":[");
    json_object_foreach(view->members, name, told)
    {
        buf_add_text(out, first);
        json_add(out, told);
        first = ",";
    }
    buf_add_text(out, "]");
}

/* ---- the last answers ---- */

static void line_write(const struct live_line *line, uint64_t number, struct buf *out)
{
    const weft_result_t *r = &line->result;
    buf_add_format(out, "{\"n\":%llu,\"at_ms\":%llu,\"model\":", (unsigned long long)number,
                   (unsigned long long)line->at_ms);
    buf_add_quoted(out, line->model);
    buf_add_text(out, ",\"node\":");
    buf_add_quoted(out, r->node);
    buf_add_text(out, ",\"backend\":");
    buf_add_quoted(out, r->backend);
    buf_add_text(out, ",\"status\":");
    buf_add_quoted(out, r->status == 0 ? "" : weft_status_text(r->status));
    buf_add_format(out,
                   ",\"prompt\":%u,\"cached\":%u,\"tokens\":%u,\"ms\":%.3f,\"ttft_ms\":%.3f,"
                   "\"net_ms\":%.3f,\"queue_ms\":%.3f,\"failovers\":%u,\"hedged\":%s}",
                   r->prompt_tokens, r->cached_tokens, r->new_tokens, (double)r->total_us / 1e3,
                   (double)r->first_token_us / 1e3, (double)r->net_us / 1e3,
                   (double)r->queue_us / 1e3, r->failovers, r->hedged ? "true" : "false");
}

static bool log_write(const struct live *live, uint64_t since, struct buf *out)
{
    if (live->lines_count - since > LIVE_LOG_MAX) {
        since = live->lines_count - LIVE_LOG_MAX;
    }
    bool any = since < live->lines_count;
    const char *first = ",\"log\":[";
    for (; since < live->lines_count; since++) {
        buf_add_text(out, first);
        line_write(&live->lines[since % LIVE_LINES_MAX], since + 1, out);
        first = ",";
    }
    buf_add_text(out, any ? "]" : "");
    return any;
}

/* ---- events ---- */

static void head_write(const struct live_view *view, const struct live_sources *from, bool full,
                       struct buf *out)
{
    buf_add_format(out, "data: {\"seq\":%llu,\"at_ms\":%llu,\"full\":%s",
                   (unsigned long long)view->seq, (unsigned long long)from->unix_ms,
                   full ? "true" : "false");
    if (from->status != NULL) {
        buf_add_format(out, ",\"age_ms\":%llu", (unsigned long long)from->status_age_ms);
    } else {
        buf_add_text(out, ",\"age_ms\":null");
    }
}

bool live_view_step(struct live_view *view, const struct live_sources *from, struct buf *out)
{
    view->seq++;
    head_write(view, from, false, out);
    bool changed = sections_step(view, from, out);
    changed |= served_write(from->live, view->answers_told, out);
    changed |= members_step(view, from, out);
    changed |= log_write(from->live, view->lines_told, out);
    buf_add_text(out, "}\n\n");
    for (uint32_t i = 0; i < from->live->node_count; i++) {
        view->answers_told[i] = from->live->nodes[i].answers;
    }
    view->lines_told = from->live->lines_count;
    return changed;
}

void live_view_whole(const struct live_view *view, const struct live_sources *from, struct buf *out)
{
    head_write(view, from, true, out);
    for (uint32_t i = 0; i < LIVE_SECTIONS; i++) {
        section_add(out, (enum live_section)i, &view->sections[i]);
    }
    (void)served_write(from->live, NULL, out);
    members_whole(view, out);
    (void)log_write(from->live, 0, out);
    buf_add_text(out, "}\n\n");
}
