/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what the gateway makes of its node's status answers, one line of the input each: the list
 * of models (models.h), the events of the live view (live.h) and the metrics (figures.h). What is
 * told of any object must be JSON, an event on one line, and each line of the metrics a comment or
 * a name with a number. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/live.h"
#include "dataplane/gateway/models.h"

#define MEMBER_NAMES "a,b,,a"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

static void json_check(const char *text, size_t len)
{
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    need(json_is_object(json));
    json_decref(json);
}

static void models(const json_t *status)
{
    struct buf out = {.data = NULL};
    models_write_list(status, MEMBER_NAMES, 1, &out);
    need(!out.failed);
    json_check(out.data, buf_len(&out));
    out.at = out.end;
    if (models_write_one(status, MEMBER_NAMES, "a", 1, &out)) {
        json_check(out.data + out.at, buf_len(&out));
    }
    buf_deinit(&out);
}

static void event_check(struct buf *out)
{
    const char *text = out->data + out->at;
    const size_t len = buf_len(out);
    need(!out->failed && len > 8 && memcmp(text, "data: {", 7) == 0);
    need(memchr(text, '\n', len) == text + len - 2 && text[len - 1] == '\n');
    json_check(text + 6, len - 8);
    out->at = out->end;
}

static void live(struct live_view *view, json_t *status)
{
    static struct live of;
    static struct figures figures;
    struct buf out = {.data = NULL};
    const struct live_sources from = {
        .live = &of, .figures = &figures, .status = status, .error = "gone", .unix_ms = 1};
    (void)live_view_step(view, &from, &out);
    event_check(&out);
    need(!live_view_step(view, &from, &out)); /* nothing has changed since */
    event_check(&out);
    live_view_whole(view, &from, &out);
    event_check(&out);
    buf_deinit(&out);
}

/* https://prometheus.io/docs/instrumenting/exposition_formats/ */
static void metrics(const json_t *status)
{
    static struct figures figures;
    struct buf out = {.data = NULL};
    figures_write(&figures, status, &out);
    need(!out.failed && buf_len(&out) > 0 && out.data[out.end - 1] == '\n');
    for (const char *at = out.data, *end = out.data + out.end; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *space = memrchr(at, ' ', (size_t)(stop - at));
        char *rest = NULL;
        need(space != NULL);
        if (at[0] != '#') {
            (void)strtod(space + 1, &rest);
            need(rest == stop && (strncmp(at, "weft_", 5) == 0 || strncmp(at, "vllm:", 5) == 0));
        }
        at = stop + 1;
    }
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct live_view view = {.seq = 0};
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        const size_t len = end != NULL ? (size_t)(end - data) - at : size - at;
        json_t *status = json_loadb((const char *)data + at, len, 0, NULL);
        if (!json_is_object(status)) { /* question.c lets no other through */
            json_decref(status);
            status = NULL;
        }
        models(status);
        live(&view, status);
        metrics(status);
        json_decref(status);
        at += len + 1;
    }
    live_view_reset(&view);
    return 0;
}
