/* SPDX-License-Identifier: Apache-2.0 */
/* api.c - see api.h. */
#include "dataplane/gateway/api.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/json_read.h"
#include "schemas/base/text.h"

#define MESSAGES_MAX 4096u
#define N_MAX        API_CHOICES_MAX
#define LOGPROBS_MAX 20u
#define STOP_BYTES   256u

#define CHAT       (1u << API_CHAT)
#define COMPLETION (1u << API_COMPLETION)
#define RESPONSE   (1u << API_RESPONSE)
#define ANY        (CHAT | COMPLETION | RESPONSE) /* that has text as its answer */

/* ---- figures: one table ---- */

enum number_type { U32, FLOAT, SEED };

static const struct number {
    const char *name;
    unsigned kinds;
    enum number_type type;
    double min;
    double max;
    size_t at; /* in struct api_request */
} numbers[] = {
    {"max_tokens", CHAT | COMPLETION, U32, 1, UINT32_MAX,
     offsetof(struct api_request, query.max_tokens)},
    {"max_completion_tokens", CHAT, U32, 1, UINT32_MAX,
     offsetof(struct api_request, query.max_tokens)},
    {"max_output_tokens", RESPONSE, U32, 1, UINT32_MAX,
     offsetof(struct api_request, query.max_tokens)},
    {"temperature", ANY, FLOAT, 0, 2, offsetof(struct api_request, query.temperature)},
    {"top_p", ANY, FLOAT, 0, 1, offsetof(struct api_request, query.top_p)},
    {"min_p", ANY, FLOAT, 0, 1, offsetof(struct api_request, query.min_p)},
    {"top_k", ANY, U32, -1, UINT32_MAX, offsetof(struct api_request, query.top_k)},
    {"seed", ANY, SEED, -9.3e18, 9.3e18, offsetof(struct api_request, query.seed)},
    {"presence_penalty", CHAT | COMPLETION, FLOAT, -2, 2,
     offsetof(struct api_request, query.presence_penalty)},
    {"frequency_penalty", CHAT | COMPLETION, FLOAT, -2, 2,
     offsetof(struct api_request, query.frequency_penalty)},
    {"repetition_penalty", CHAT | COMPLETION, FLOAT, 0, 100,
     offsetof(struct api_request, query.repetition_penalty)},
    {"top_logprobs", CHAT, U32, 0, LOGPROBS_MAX, offsetof(struct api_request, query.logprobs)},
    {"logprobs", COMPLETION, U32, 0, LOGPROBS_MAX, offsetof(struct api_request, query.logprobs)},
    {"n", CHAT | COMPLETION, U32, 1, N_MAX, offsetof(struct api_request, n)},
};

static bool number_take(struct api_request *r, const struct number *f, const json_t *value,
                        struct api_error *error)
{
    char *at = (char *)r + f->at;
    double number = json_number_value(value);
    /* 16.0 is whole, too */
    bool whole = json_is_integer(value) || (number == trunc(number) && fabs(number) < 0x1p63);
    if (!json_is_number(value) || (f->type != FLOAT && !whole) || number < f->min ||
        number > f->max) {
        return error_bad(error, f->name, "`%s` must be %s from %.10g to %.10g.", f->name,
                         f->type != FLOAT ? "a whole number" : "a number", f->min, f->max);
    }
    if (f->type == FLOAT) {
        *(float *)(void *)at = (float)number;
    } else if (f->type == U32) {
        *(uint32_t *)(void *)at = number > 0 ? (uint32_t)number : 0; /* top_k: -1 is off, too */
    } else {
        *(uint64_t *)(void *)at =
            (uint64_t)(json_is_integer(value) ? json_integer_value(value) : (json_int_t)number);
        r->has_seed = true;
    }
    return true;
}

/* Null is as good as absent: clients send it. */
static const json_t *given(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool numbers_take(struct api_request *r, struct api_error *error)
{
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const struct number *f = &numbers[i];
        const json_t *value = given(r->root, f->name);
        if ((f->kinds >> r->kind & 1u) != 0 && value != NULL && !number_take(r, f, value, error)) {
            return false;
        }
    }
    const json_t *top_p = given(r->root, "top_p");
    if (top_p != NULL && r->query.top_p == 0.0f) {
        r->query.top_p = 1e-6f; /* the likeliest token only; 0 is `off` to the mesh */
    }
    return true;
}

static bool flag_take(const struct api_request *r, const char *name, bool *out,
                      struct api_error *error)
{
    const json_t *value = given(r->root, name);
    if (value != NULL && !json_is_boolean(value)) {
        return error_bad(error, name, "`%s` must be true or false.", name);
    }
    *out = json_is_true(value);
    return true;
}

/* `stop`: a text, or a list of texts. */
static bool stops_take(struct api_request *r, struct api_error *error)
{
    const json_t *stop = given(r->root, "stop");
    size_t count = json_is_array(stop) ? json_array_size(stop) : stop != NULL;
    if (r->kind == API_RESPONSE || stop == NULL) {
        return true;
    }
    if (count > WEFT_STOPS_MAX) {
        return error_bad(error, "stop", "`stop` may have %u texts.", WEFT_STOPS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;
        size_t len = json_string_length(text);
        if (len == 0 || len > STOP_BYTES || strlen(json_string_value(text)) != len) {
            return error_bad(error, "stop", "`stop` must be texts of 1 to %u bytes.", STOP_BYTES);
        }
        r->stops[i] = json_string_value(text);
    }
    r->query.stop = r->stops;
    r->query.stop_count = count;
    return true;
}

/* Chats say whether and how many besides; completions only how many. */
static bool logprobs_take(struct api_request *r, struct api_error *error)
{
    if (r->kind == API_CHAT && !flag_take(r, "logprobs", &r->logprobs, error)) {
        return false;
    }
    if (r->kind == API_COMPLETION) {
        r->logprobs = given(r->root, "logprobs") != NULL;
    }
    if (!r->logprobs && r->query.logprobs != 0) {
        return error_bad(error, "top_logprobs", "`top_logprobs` needs `logprobs`.");
    }
    r->query.logprobs += r->logprobs;
    return true;
}

/* Models that think before they answer may be told not to, in the words of several servers. */
static void thinking_take(struct api_request *r)
{
    const json_t *effort = given(r->root, "reasoning_effort");
    effort = effort != NULL ? effort : given(given(r->root, "reasoning"), "effort");
    const json_t *wanted = given(given(r->root, "chat_template_kwargs"), "enable_thinking");
    r->query.no_thinking =
        json_is_false(wanted) ||
        (json_is_string(effort) && strcmp(json_string_value(effort), "none") == 0);
}

/* ---- what cannot be honoured ---- */

/* Absent, null, or of no effect: empty, zero, false, or that word. */
static bool harmless(const json_t *value, const char *word)
{
    if (json_is_array(value) || json_is_object(value)) {
        return (json_is_array(value) ? json_array_size(value) : json_object_size(value)) == 0;
    }
    if (json_is_number(value)) {
        return json_number_value(value) == 0;
    }
    if (json_is_string(value)) {
        return word != NULL && strcmp(json_string_value(value), word) == 0;
    }
    return !json_is_true(value);
}

static bool unsupported_refuse(const struct api_request *r, struct api_error *error)
{
    static const struct {
        const char *name;
        const char *harmless;
    } fields[] = {
        {"tools", NULL}, /* but for chats and responses */
        {"functions", NULL},
        {"tool_choice", "none"},
        {"logit_bias", NULL},
        {"suffix", ""},
        {"audio", NULL},
        {"web_search_options", NULL},
        {"previous_response_id", NULL},
        {"background", NULL},
        {"conversation", NULL},
        {"prompt", NULL},
        {"best_of", NULL}, /* of as many as are answered is no choice */
    };
    const json_t *choice = given(r->root, "tool_choice");
    bool has_tools = r->kind == API_CHAT || r->kind == API_RESPONSE;
    bool tools_off = json_is_string(choice) && strcmp(json_string_value(choice), "none") == 0;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const char *name = fields[i].name;
        const json_t *value = given(r->root, name);
        bool fits = (strcmp(name, "prompt") == 0 && r->kind != API_RESPONSE) ||
                    (strcmp(name, "tools") == 0 && (tools_off || has_tools)) ||
                    (strcmp(name, "tool_choice") == 0 && (has_tools || harmless(value, "auto"))) ||
                    (strcmp(name, "best_of") == 0 && json_number_value(value) <= r->n);
        if (value != NULL && !fits && !harmless(value, fields[i].harmless)) {
            error_bad(error, name, "`%s` is not supported by the models of this mesh.", name);
            error->code = "unsupported_parameter";
            return false;
        }
    }
    return true;
}

/* ---- texts ---- */

/* Text that was put together, kept until api_deinit(). */
static bool text_keep(struct api_request *r, struct buf *text, struct api_text *out)
{
    size_t len;
    char *data = buf_give(text, &len);
    json_t *kept = data != NULL ? json_stringn_nocheck(data, len) : NULL;
    free(data);
    if (kept == NULL || json_array_append_new(r->kept, kept) != 0) {
        return false;
    }
    *out = (struct api_text){json_string_value(kept), len};
    return true;
}

static struct api_text text_of(const json_t *string)
{
    return (struct api_text){json_string_value(string), json_string_length(string)};
}

/* The text of a message: a string, or a list of parts that are all text. */
static bool content_take(struct api_request *r, const json_t *content, const char *param,
                         struct api_text *out, struct api_error *error)
{
    if (json_is_string(content)) {
        *out = text_of(content);
        return true;
    }
    if (content == NULL || json_is_null(content)) {
        *out = (struct api_text){"", 0};
        return true;
    }
    if (!json_is_array(content)) {
        return error_bad(error, param, "`%s` must be a text or a list of parts.", param);
    }
    struct buf joined = {.data = NULL};
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i);
        const json_t *text = json_is_string(part) ? part : given(part, "text");
        text = text != NULL ? text : given(part, "refusal"); /* what a model said, too */
        if (!json_is_string(text)) {
            buf_deinit(&joined);
            return error_bad(error, param, "The models of this mesh take text only: part %zu.", i);
        }
        buf_add(&joined, json_string_value(text), json_string_length(text));
    }
    if (!text_keep(r, &joined, out)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    return true;
}

static const char *role_of(const struct api_request *r, const json_t *message)
{
    const char *role = json_string_value(given(message, "role"));
    if (role != NULL && r->kind == API_CHAT && strcmp(role, "tool") == 0) {
        return role;
    }
    if (role != NULL && strcmp(role, "developer") == 0) {
        return "system"; /* the newer name of the same */
    }
    bool known = role != NULL && (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
                                  strcmp(role, "assistant") == 0);
    return known ? role : NULL;
}

static bool messages_room(struct api_request *r, size_t count, const char *param,
                          struct api_error *error)
{
    if (count == 0 || count > MESSAGES_MAX) {
        return error_bad(error, param, "`%s` must have 1 to %u entries.", param, MESSAGES_MAX);
    }
    r->messages = calloc(count + 1, sizeof(*r->messages)); /* tools may come first */
    if (r->messages == NULL) {
        error_of_status(error, WEFT_E_MESH_FULL);
    }
    return r->messages != NULL;
}

static bool message_take(struct api_request *r, const json_t *message, const char *param,
                         struct api_error *error)
{
    struct api_text text = {"", 0};
    const char *role = role_of(r, message);
    bool calls = !harmless(given(message, "tool_calls"), NULL);
    if (role == NULL) {
        return error_bad(error, param,
                         "`%s[%zu].role` must be system, developer, user or assistant%s.", param,
                         r->message_count, r->kind == API_CHAT ? ", or tool" : "");
    }
    if (calls && (r->kind != API_CHAT || strcmp(role, "assistant") != 0)) {
        return error_bad(error, param, "`%s[%zu].tool_calls` is not supported.", param,
                         r->message_count);
    }
    const json_t *said = given(message, "content");
    said = said != NULL ? said : given(message, "refusal");
    if (!content_take(r, said, param, &text, error)) {
        return false;
    }
    if (calls) {
        role = "calls";
        if (!api_calls(r, message, &text, error)) {
            return false;
        }
    }
    r->messages[r->message_count++] =
        (weft_message_t){.role = role, .text = text.text, .len = text.len};
    return true;
}

static bool chat_take(struct api_request *r, struct api_error *error)
{
    json_t *list = json_object_get(r->root, "messages");
    if (!json_is_array(list)) {
        return error_bad(error, "messages", "`messages` must be a list.");
    }
    if (!messages_room(r, json_array_size(list), "messages", error) || !api_tools(r, error)) {
        return false;
    }
    if (!api_results_order(list, true)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!message_take(r, json_array_get(list, i), "messages", error)) {
            return false;
        }
    }
    return true;
}

/* An item of a response's input: a message, calls of tools, or what one gave. Returns how many
 * items were taken; 0: the error is set. */
static size_t item_take(struct api_request *r, const json_t *input, size_t at,
                        struct api_error *error)
{
    const json_t *item = json_array_get(input, at);
    const char *type = json_string_value(given(item, "type"));
    if (type != NULL && strcmp(type, "function_call") == 0) {
        return api_call_items(r, input, at, error);
    }
    if (type != NULL && strcmp(type, "function_call_output") == 0) {
        struct api_text text;
        if (!content_take(r, json_object_get(item, "output"), "input", &text, error)) {
            return 0;
        }
        r->messages[r->message_count++] = (weft_message_t){"tool", text.text, text.len};
        return 1;
    }
    if (type != NULL && strcmp(type, "reasoning") == 0) {
        return 1; /* templates leave out what was thought before earlier answers */
    }
    if (type != NULL && strcmp(type, "message") != 0) {
        error_bad(error, "input", "`input[%zu]` is of a type that is not supported: %.64s.", at,
                  type);
        return 0;
    }
    return message_take(r, item, "input", error);
}

/* `instructions` and `input`: a text, or a list of items. */
static bool response_take(struct api_request *r, struct api_error *error)
{
    json_t *input = json_object_get(r->root, "input");
    const json_t *instructions = given(r->root, "instructions");
    bool list = json_is_array(input);
    if (!list && !json_is_string(input)) {
        return error_bad(error, "input", "`input` must be a text or a list of items.");
    }
    if (instructions != NULL && !json_is_string(instructions)) {
        return error_bad(error, "instructions", "`instructions` must be a text.");
    }
    size_t count = list ? json_array_size(input) : 1;
    if (!messages_room(r, count != 0 ? count + 1 : 0, "input", error) || !api_tools(r, error)) {
        return false;
    }
    if (list && !api_results_order(input, false)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    if (instructions != NULL) {
        struct api_text text = text_of(instructions);
        r->messages[r->message_count++] = (weft_message_t){"system", text.text, text.len};
    }
    if (!list) {
        struct api_text text = text_of(input);
        r->messages[r->message_count++] = (weft_message_t){"user", text.text, text.len};
    }
    size_t before = r->message_count;
    for (size_t i = 0, taken; list && i < count; i += taken) {
        taken = item_take(r, input, i, error);
        if (taken == 0) {
            return false;
        }
    }
    return !list || r->message_count > before ||
           error_bad(error, "input", "`input` has nothing that could be answered.");
}

/* A text, or a list of texts: each is a prompt of its own. */
static bool prompts_take(struct api_request *r, const char *param, uint32_t max,
                         struct api_error *error)
{
    const json_t *prompt = given(r->root, param);
    size_t count = json_is_array(prompt) ? json_array_size(prompt) : 1;
    r->prompts = count > 0 && count <= max ? calloc(count, sizeof(*r->prompts)) : NULL;
    if (r->prompts == NULL) {
        return error_bad(error, param, "`%s` must be a text, or a list of 1 to %u texts.", param,
                         max);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_is_array(prompt) ? json_array_get(prompt, i) : prompt;
        if (!json_is_string(text) || json_string_length(text) == 0) {
            return error_bad(error, param, "`%s` must be a text, or a list of texts, none empty.",
                             param);
        }
        r->prompts[i] = text_of(text);
    }
    r->prompt_count = (uint32_t)count;
    return true;
}

static bool completion_take(struct api_request *r, struct api_error *error)
{
    if (!prompts_take(r, "prompt", API_CHOICES_MAX, error) ||
        !flag_take(r, "echo", &r->echo, error)) {
        return false;
    }
    if (r->echo && r->logprobs) { /* those of the prompt would be missing */
        error_bad(error, "echo", "`echo` with `logprobs` is not supported.");
        error->code = "unsupported_parameter";
        return false;
    }
    return true;
}

/* One of two words; absent is the first. */
static bool word_take(const struct api_request *r, const char *name, const char *first,
                      const char *second, bool *is_second, struct api_error *error)
{
    const json_t *value = given(r->root, name);
    const char *word = value != NULL ? json_string_value(value) : first;
    if (word == NULL || (strcmp(word, first) != 0 && strcmp(word, second) != 0)) {
        return error_bad(error, name, "`%s` must be %s or %s.", name, first, second);
    }
    *is_second = strcmp(word, second) == 0;
    return true;
}

static bool embedding_take(struct api_request *r, struct api_error *error)
{
    bool last;
    if (given(r->root, "dimensions") != NULL) {
        error_bad(error, "dimensions", "Vectors have the length that the model gives them.");
        error->code = "unsupported_parameter";
        return false;
    }
    if (!prompts_take(r, "input", API_INPUTS_MAX, error) ||
        !word_take(r, "encoding_format", "float", "base64", &r->base64, error) ||
        !word_take(r, "pooling", "mean", "last", &last, error)) {
        return false;
    }
    r->stream = false;
    r->query.temperature = 0;
    r->query.max_tokens = 1; /* none is wanted */
    r->query.embed = last ? WEFT_EMBED_LAST : WEFT_EMBED_MEAN;
    return true;
}

/* ---- the whole ---- */

static bool root_take(struct api_request *r, const char *body, size_t len, struct api_error *error)
{
    json_error_t at;
    r->kept = json_array();
    r->root = json_read(body, len, &at);
    if (r->root == NULL) {
        return error_bad(error, NULL, "The body is no valid JSON: %.200s (byte %d).", at.text,
                         at.position);
    }
    if (!json_is_object(r->root) || r->kept == NULL) {
        return error_bad(error, NULL, "The body must be a JSON object.");
    }
    return true;
}

static bool model_take(struct api_request *r, struct api_error *error)
{
    const json_t *model = given(r->root, "model");
    size_t len = json_string_length(model);
    if (len == 0 || len >= WEFT_MODEL_NAME_MAX) {
        return error_bad(error, "model", "`model` must be a name of 1 to %u bytes.",
                         WEFT_MODEL_NAME_MAX - 1);
    }
    r->query.model = json_string_value(model);
    return text_is_word(r->query.model, len) || /* it goes into figures and headers, too */
           error_bad(error, "model", "`model` must be a word of printable ASCII.");
}

static bool usage_take(struct api_request *r, struct api_error *error)
{
    const json_t *options = given(r->root, "stream_options");
    if (!flag_take(r, "stream", &r->stream, error)) {
        return false;
    }
    if (options != NULL && !json_is_object(options)) {
        return error_bad(error, "stream_options", "`stream_options` must be an object.");
    }
    r->include_usage = json_is_true(json_object_get(options, "include_usage"));
    return true;
}

static bool session_take(struct api_request *r)
{
    const json_t *key = given(r->root, "prompt_cache_key");
    if (json_is_string(key) && r->query.session == NULL) {
        r->query.session = json_string_value(key); /* meant for the same: its cache is there */
    }
    return true;
}

bool api_read(struct api_request *r, enum api_kind kind, const char *body, size_t len,
              struct api_error *error)
{
    r->kind = kind;
    r->n = 1;
    r->prompt_count = 1;
    r->query.temperature = 1.0f; /* OpenAI's default */
    if (!root_take(r, body, len, error) || !model_take(r, error) || !numbers_take(r, error) ||
        !usage_take(r, error) || !stops_take(r, error) || !logprobs_take(r, error) ||
        !unsupported_refuse(r, error) || !api_format(r, error)) {
        return false;
    }
    thinking_take(r);
    const json_t *weft = given(r->root, "weft");
    if ((weft != NULL && !api_places(r, weft, error)) || !session_take(r)) {
        return false;
    }
    return kind == API_CHAT         ? chat_take(r, error)
           : kind == API_COMPLETION ? completion_take(r, error)
           : kind == API_EMBEDDING  ? embedding_take(r, error)
                                    : response_take(r, error);
}

bool api_one_model(const struct api_request *r, struct api_error *error)
{
    bool one = r->downgrade_count == 0 && r->cascade[0] == '\0';
    return one || error_bad(error, "weft",
                            "`downgrade` and `cascade` are for chats, completions and responses.");
}

static bool cascade_check(const struct api_request *r, struct api_error *error)
{
    if (r->cascade[0] == '\0') {
        return true;
    }
    if (!r->has_budget) {
        return error_bad(error, "weft", "`cascade` needs `budget_ms`: for how long to wait.");
    }
    if (r->n * r->prompt_count != 1) {
        return error_bad(error, "n", "`cascade` is for one answer at a time.");
    }
    if (r->downgrade_count != 0) {
        return error_bad(error, "weft", "`cascade` and `downgrade` exclude each other.");
    }
    if (strcmp(r->cascade, r->query.model) == 0) {
        return error_bad(error, "weft", "`cascade` must be another model than `model`.");
    }
    return true;
}

bool api_check(const struct api_request *r, struct api_error *error)
{
    if (r->kind == API_EMBEDDING && !api_one_model(r, error)) {
        return false; /* vectors of another model mean something else */
    }
    if (r->kind != API_EMBEDDING && r->n * r->prompt_count > API_CHOICES_MAX) {
        return error_bad(error, "n", "At most %u answers at a time.", API_CHOICES_MAX);
    }
    if (r->query.end_to_end && !r->has_budget) {
        return error_bad(error, "weft", "`e2e` needs `budget_ms`.");
    }
    return cascade_check(r, error);
}

struct api_request api_draft(const struct api_request *r)
{
    struct api_request draft = *r;
    draft.query.model = r->cascade;
    draft.query.session = NULL; /* the conversation stays with the better one */
    return draft;
}

weft_query_t api_query(const struct api_request *r, uint32_t choice)
{
    weft_query_t query = r->query;
    query.seed = r->query.seed + choice % r->n;
    if (r->prompts != NULL) {
        query.text = r->prompts[choice / r->n].text;
        query.text_len = r->prompts[choice / r->n].len;
    } else {
        query.messages = r->messages;
        query.message_count = r->message_count;
    }
    return query;
}

void api_deinit(struct api_request *r)
{
    free(r->messages);
    free(r->prompts);
    json_decref(r->root);
    json_decref(r->kept);
    memset(r, 0, sizeof(*r));
}
