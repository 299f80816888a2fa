/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - see report.h. */
#include "controlplane/cli/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "schemas/base/utf8.h"

bool report_is_refusal(int status)
{
    switch (status) {
    case WEFT_E_UNKNOWN_MODEL:
    case WEFT_E_NO_CAPABLE_NODE:
    case WEFT_E_BUDGET_INFEASIBLE:
    case WEFT_E_MESH_FULL:
    case WEFT_E_TOO_LONG:
    case WEFT_E_DRAINING:
        return true;
    default:
        return false;
    }
}

/* ---- figures ---- */

/* Milliseconds: a decimal where it still says something. */
static const char *ms_text(uint64_t us, char out[static 32])
{
    snprintf(out, 32, us < 9950 ? "%.1f" : "%.0f", (double)us / 1e3);
    return out;
}

static double tokens_per_second(const weft_result_t *result)
{
    if (result->failovers > 0) {
        return 0; /* the times are the last attempt's, the tokens all */
    }
    return result->decode_us > 0 ? (double)result->new_tokens * 1e6 / (double)result->decode_us : 0;
}

/* The best figure of a constraint in the unit people use; false if it has none. */
static bool best_figure(const weft_result_t *result, double *value, const char **unit)
{
    double best = result->constraint_best;
    switch (result->constraint) {
    case WEFT_C_BUDGET:
        *value = best / 1e3;
        *unit = "ms";
        return true;
    case WEFT_C_VRAM:
        *value = best * WEFT_VRAM_UNIT_MIB;
        *unit = "MiB";
        return true;
    case WEFT_C_RADIUS:
        *value = best;
        *unit = "km";
        return true;
    case WEFT_C_TIER:
        *value = best;
        *unit = "tier";
        return true;
    default:
        return false;
    }
}

static const char *constraint_name(int constraint)
{
    switch (constraint) {
#define CONSTRAINT_NAME_(name, value, unit, text)                                                  \
    case (value):                                                                                  \
        return #name;
        WEFT_CONSTRAINTS(CONSTRAINT_NAME_)
#undef CONSTRAINT_NAME_
    default:
        return "?";
    }
}

/* ---- words ---- */

static size_t append(char *out, size_t size, size_t used, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static size_t append(char *out, size_t size, size_t used, const char *format, ...)
{
    va_list args;
    if (used >= size) {
        return size;
    }
    va_start(args, format);
    int wanted = vsnprintf(out + used, size - used, format, args);
    va_end(args);
    size_t added = wanted > 0 ? (size_t)wanted : 0;
    return added < size - used ? used + added : size;
}

/* Names come from the mesh; terminals obey control characters. */
static void printable(const char *in, char *out, size_t size)
{
    size_t i = 0;
    for (; i + 1 < size && in[i] != '\0'; i++) {
        out[i] = in[i] >= ' ' && in[i] <= '~' ? in[i] : '?';
    }
    out[i] = '\0';
}

static void served_sentence(const weft_result_t *result, char *out, size_t size)
{
    char total[32];
    char queue[32];
    char prefill[32];
    char decode[32];
    char node[sizeof(result->node)];
    char backend[sizeof(result->backend)];
    printable(result->node, node, sizeof(node));
    printable(result->backend, backend, sizeof(backend));
    size_t used = append(
        out, size, 0,
        "served by %s (tier %u, %s) in %s ms: net %.1f, queue %s, prefill %s, decode %s; "
        "%u token%s",
        node, result->tier, backend, ms_text(result->total_us, total), (double)result->net_us / 1e3,
        ms_text(result->queue_us, queue), ms_text(result->prefill_us, prefill),
        ms_text(result->decode_us, decode), result->new_tokens, result->new_tokens == 1 ? "" : "s");
    if (tokens_per_second(result) > 0) {
        used = append(out, size, used, ", %.0f tok/s", tokens_per_second(result));
    }
    if (result->failovers > 0) {
        used = append(out, size, used, "; cut %u time%s and gone on elsewhere, longest gap %s ms",
                      result->failovers, result->failovers == 1 ? "" : "s",
                      ms_text(result->gap_us, total));
    }
    if (result->mixed > 0) {
        append(out, size, used,
               ", with other weights or another way of computing: the text may differ from one "
               "that nobody cut");
    }
}

static void refused_sentence(const weft_result_t *result, char *out, size_t size)
{
    double best;
    const char *unit;
    size_t used = append(out, size, 0, "refused: %s", weft_status_text(result->status));
    if (result->constraint != WEFT_C_NONE) {
        used = append(out, size, used, " Binding constraint: %s",
                      weft_constraint_text((unsigned)result->constraint));
        if (best_figure(result, &best, &unit)) {
            bool unit_first = strcmp(unit, "tier") == 0;
            used =
                append(out, size, used, "; best possible: %s%s%.*f%s%s", unit_first ? unit : "",
                       unit_first ? " " : "", best < 10 && best != (double)(uint64_t)best ? 1 : 0,
                       best, unit_first ? "" : " ", unit_first ? "" : unit);
        }
        used = append(out, size, used, ".");
    }
    if (result->retry_after_ms > 0) {
        append(out, size, used, " Try again in %u ms.", result->retry_after_ms);
    } else {
        append(out, size, used,
               " Asking again will not help until the request or the mesh changes.");
    }
}

void report_sentence(const weft_result_t *result, char *out, size_t size)
{
    out[0] = '\0';
    if (result->status == 0) {
        served_sentence(result, out, size);
    } else if (report_is_refusal(result->status)) {
        refused_sentence(result, out, size);
    } else {
        const char *what = result->status == WEFT_E_CANCELLED ? "interrupted"
                           : result->new_tokens > 0           ? "incomplete"
                                                              : "failed";
        size_t used = append(out, size, 0, "%s: %s", what, weft_status_text(result->status));
        if (result->new_tokens > 0) {
            append(out, size, used, " %u token%s came.", result->new_tokens,
                   result->new_tokens == 1 ? "" : "s");
        }
    }
}

/* ---- JSON ---- */

static json_t *text_json(const char *text, size_t len)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    if (len > SIZE_MAX / 3 - 1) {
        return NULL;
    }
    char *clean = malloc(len * 3 + 1);
    size_t used = 0;
    if (clean == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < len;) {
        size_t step = utf8_whole((const uint8_t *)text + i, len - i);
        if (step > 0) {
            memcpy(clean + used, text + i, step);
            used += step;
        } else {
            memcpy(clean + used, replacement, 3);
            used += 3;
            step = 1;
        }
        i += step;
    }
    json_t *json = json_stringn_nocheck(clean, used);
    free(clean);
    return json;
}

static json_t *ms_json(uint64_t us)
{
    return json_real((double)us / 1e3);
}

static void refusal_add(json_t *json, const weft_result_t *result)
{
    double best;
    const char *unit;
    json_t *constraint = json_null();
    if (result->constraint != WEFT_C_NONE) {
        char name[16];
        snprintf(name, sizeof(name), "%s", constraint_name(result->constraint));
        for (char *c = name; *c != '\0'; c++) {
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        }
        constraint = json_string(name);
    }
    bool has_best = best_figure(result, &best, &unit);
    json_object_set_new(json, "constraint", constraint);
    json_object_set_new(json, "best", has_best ? json_real(best) : json_null());
    json_object_set_new(json, "best_unit", has_best ? json_string(unit) : json_null());
    json_object_set_new(json, "retry_after_ms", json_integer(result->retry_after_ms));
}

json_t *report_logprob(const weft_logprob_t *logprob)
{
    json_t *json = json_object();
    double value = (double)logprob->logprob;
    json_object_set_new(json, "token", json_integer(logprob->token));
    json_object_set_new(json, "text", text_json(logprob->text, logprob->len));
    json_object_set_new(json, "logprob", isfinite(value) ? json_real(value) : json_null());
    return json;
}

json_t *report_json(const weft_result_t *result, const char *text, size_t len)
{
    json_t *json = json_object();
    json_t *text_value = text_json(text, len);
    if (json == NULL || text_value == NULL) {
        json_decref(json);
        json_decref(text_value);
        return NULL;
    }
    double rate = tokens_per_second(result);
    json_object_set_new(json, "status", json_string(weft_status_name(result->status)));
    json_object_set_new(json, "status_text", json_string(weft_status_text(result->status)));
    json_object_set_new(json, "node",
                        text_json(result->node, strnlen(result->node, sizeof(result->node))));
    json_object_set_new(json, "tier", json_integer(result->tier));
    json_object_set_new(
        json, "backend",
        text_json(result->backend, strnlen(result->backend, sizeof(result->backend))));
    json_object_set_new(json, "text", text_value);
    json_object_set_new(json, "finish",
                        result->finish != 0
                            ? json_string(weft_finish_name((unsigned)result->finish))
                            : json_null());
    json_object_set_new(json, "net_ms", ms_json(result->net_us));
    json_object_set_new(json, "queue_ms", ms_json(result->queue_us));
    json_object_set_new(json, "prefill_ms", ms_json(result->prefill_us));
    json_object_set_new(json, "decode_ms", ms_json(result->decode_us));
    json_object_set_new(json, "total_ms", ms_json(result->total_us));
    json_object_set_new(json, "first_token_ms",
                        result->first_token_us > 0 ? ms_json(result->first_token_us) : json_null());
    json_object_set_new(json, "prompt_tokens", json_integer(result->prompt_tokens));
    json_object_set_new(json, "cached_tokens", json_integer(result->cached_tokens));
    json_object_set_new(json, "tokens", json_integer(result->new_tokens));
    json_object_set_new(json, "failovers", json_integer(result->failovers));
    json_object_set_new(json, "mixed", json_integer(result->mixed));
    json_object_set_new(json, "hedged", json_boolean(result->hedged));
    json_object_set_new(json, "longest_gap_ms", ms_json(result->gap_us));
    json_object_set_new(json, "tokens_per_s", rate > 0 ? json_real(rate) : json_null());
    refusal_add(json, result);
    return json;
}
