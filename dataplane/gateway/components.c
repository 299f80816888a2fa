/* SPDX-License-Identifier: Apache-2.0 */
/* components.c - see components.h. */
#include "dataplane/gateway/components.h"

#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/json_write.h"

void components_deinit(struct components *c)
{
    for (uint32_t i = 0; i < c->texts; i++) {
        free(c->vectors[i]);
    }
    api_deinit(&c->encode);
    api_deinit(&c->decode);
    buf_deinit(&c->text);
    json_decref(c->root);
}

static const json_t *stage(const struct components *c, size_t at)
{
    return json_array_get(json_object_get(c->root, "stages"), at);
}

static bool is_component(const json_t *value, const char *name)
{
    const char *text = json_string_value(json_object_get(value, "component"));
    return text != NULL && strcmp(text, name) == 0;
}

/* A stage as the API has it whose own reader then checks it; takes `body`. */
static bool stage_read(struct api_request *r, enum api_kind kind, json_t *body,
                       struct api_error *error)
{
    char *text = json_write(body);
    json_decref(body);
    if (text == NULL) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    bool good = api_read(r, kind, text, strlen(text), error) && api_check(r, error) &&
                api_one_model(r, error);
    free(text);
    return good;
}

/* Those fields of a stage that the API knows by the same names. */
static json_t *body_begin(const json_t *from)
{
    static const char *const fields[] = {"model",       "weft",  "max_tokens",
                                         "temperature", "top_p", "seed"};
    json_t *body = json_object();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_t *value = json_object_get(from, fields[i]);
        if (value != NULL) {
            json_object_set(body, fields[i], value);
        }
    }
    return body;
}

bool components_read(struct components *c, const char *body, size_t len, struct api_error *error)
{
    c->root = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *first = stage(c, 0);
    json_t *input = json_object_get(first, "input");
    json_t *among = json_object_get(first, "among");
    size_t count = json_array_size(among);
    if (json_array_size(json_object_get(c->root, "stages")) != 2 ||
        !is_component(first, "encode") || !is_component(stage(c, 1), "decode")) {
        return error_bad(error, "stages", "'stages' must be encode and then decode.");
    }
    if (!json_is_string(input) || count == 0 || count > COMPONENTS_AMONG_MAX) {
        return error_bad(error, "stages", "Encode needs 'input', a text, and 'among', 1 to %u.",
                         COMPONENTS_AMONG_MAX);
    }
    json_t *texts = json_array();
    json_array_append(texts, input);
    json_array_extend(texts, among);
    json_t *encode = body_begin(first);
    json_object_set_new(encode, "input", texts);
    if (!stage_read(&c->encode, API_EMBEDDING, encode, error)) {
        return false;
    }
    c->texts = c->encode.prompt_count;
    /* Decode is tried now, so that no work is done for what cannot be asked. */
    json_t *decode = body_begin(stage(c, 1));
    json_object_set_new(decode, "messages",
                        json_pack("[{s:s, s:O}]", "role", "user", "content", input));
    bool good = stage_read(&c->decode, API_CHAT, decode, error);
    api_deinit(&c->decode);
    memset(&c->decode, 0, sizeof(c->decode));
    return good;
}

weft_query_t components_encode(const struct components *c, uint32_t i)
{
    return api_query(&c->encode, i);
}

bool components_vector(struct components *c, uint32_t i, const float *vector, size_t count,
                       const weft_result_t *result)
{
    if (vector == NULL || count == 0 || count > COMPONENTS_DIM_MAX ||
        (c->dimensions != 0 && count != c->dimensions)) {
        return false;
    }
    c->vectors[i] = malloc(count * sizeof(*vector));
    if (c->vectors[i] == NULL) {
        return false;
    }
    memcpy(c->vectors[i], vector, count * sizeof(*vector));
    c->dimensions = count;
    c->results[i] = *result;
    return true;
}

static void choose(struct components *c)
{
    for (uint32_t i = 1; i < c->texts; i++) {
        double sum = 0;
        for (size_t d = 0; d < c->dimensions; d++) {
            sum += (double)c->vectors[0][d] * (double)c->vectors[i][d];
        }
        c->similarity[i - 1] = sum;
        c->best = sum > c->similarity[c->best] ? i - 1 : c->best;
    }
}

bool components_decode(struct components *c, weft_query_t *query, struct api_error *error)
{
    struct buf text = {.data = NULL};
    const json_t *first = stage(c, 0);
    const json_t *input = json_object_get(first, "input");
    choose(c);
    const json_t *best = json_array_get(json_object_get(first, "among"), c->best);
    buf_add(&text, json_string_value(best), json_string_length(best));
    buf_add_text(&text, "\n\n");
    buf_add(&text, json_string_value(input), json_string_length(input));
    json_t *body = body_begin(stage(c, 1));
    json_object_set_new(body, "messages",
                        json_pack("[{s:s, s:s%}]", "role", "user", "content",
                                  text.data != NULL ? text.data : "", buf_len(&text)));
    buf_deinit(&text);
    if (!stage_read(&c->decode, API_CHAT, body, error)) {
        return false;
    }
    *query = api_query(&c->decode, 0);
    return true;
}

void components_text(struct components *c, const char *text, size_t len)
{
    buf_add_held(&c->text, &c->hold, text, len);
}

/* ---- the account ---- */

static void stage_begin(struct buf *out, const char *component, const char *model,
                        const weft_result_t *r)
{
    buf_add_format(out, "{\"component\":\"%s\",\"model\":", component);
    buf_add_quoted(out, model);
    buf_add_text(out, ",\"node\":");
    buf_add_quoted(out, r->node);
    buf_add_format(out, ",\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_us\":%llu",
                   r->prompt_tokens, r->new_tokens, (unsigned long long)r->total_us);
}

void components_write(struct components *c, const weft_result_t *decoded, const char *id,
                      struct buf *out)
{
    buf_add_rest(&c->text, &c->hold);
    buf_add_format(out, "{\"object\":\"component.run\",\"id\":\"run-%s\",\"stages\":[", id);
    stage_begin(out, "encode", c->encode.query.model, &c->results[0]);
    buf_add_format(out, ",\"dimensions\":%zu,\"nodes\":[", c->dimensions);
    for (uint32_t i = 0; i < c->texts; i++) {
        buf_add_text(out, i != 0 ? "," : "");
        buf_add_quoted(out, c->results[i].node);
    }
    buf_add_text(out, "],\"similarity\":[");
    for (uint32_t i = 0; i + 1 < c->texts; i++) {
        buf_add_format(out, "%s%.6g", i != 0 ? "," : "", c->similarity[i]);
    }
    buf_add_format(out, "],\"best\":%u},", c->best);
    stage_begin(out, "decode", c->decode.query.model, decoded);
    buf_add_format(out, ",\"finish_reason\":\"%s\",\"text\":\"",
                   decoded->finish == WEFT_FINISH_LENGTH ? "length" : "stop");
    buf_add(out, c->text.data, buf_len(&c->text));
    out->failed = out->failed || c->text.failed;
    buf_add_text(out, "\"}]}");
}
