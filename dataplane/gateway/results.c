/* SPDX-License-Identifier: Apache-2.0 */
/* results.c - which result belongs to which call of a tool. Clients say it by ids, in any order;
 * the mesh by the order (wire.def, WEFT_ROLES): behind an answer with calls come their results, in
 * the order of the calls. See api.h; tools.c takes the calls. */
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"

#define CALLS_MAX 256u /* of one answer that are put in order */

/* What an answer called, and what follows it: references that are lent. */
struct pairs {
    json_t *calls[CALLS_MAX];
    size_t call_count;
    size_t results_at;
    size_t result_count;
    json_t *result_of[CALLS_MAX]; /* by call; NULL: none */
};

static bool is(const json_t *object, const char *key, const char *word)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL && strcmp(text, word) == 0;
}

const json_t *api_call_id(const json_t *value)
{
    size_t len = json_string_length(value);
    return len > 0 && len <= WEFT_CALL_ID_MAX && strlen(json_string_value(value)) == len ? value
                                                                                         : NULL;
}

/* One of the calls that begin at entry `at` of the list: of a chat's message, or items of a
 * response. NULL: there are no more. */
static json_t *call_at(const json_t *list, size_t at, bool chat, size_t number)
{
    if (chat) {
        return json_array_get(json_object_get(json_array_get(list, at), "tool_calls"), number);
    }
    json_t *item = json_array_get(list, at + number);
    return is(item, "type", "function_call") ? item : NULL;
}

/* The calls that begin there, with nothing in them of what is noted here, whatever the client put
 * there. Returns how many there are; only CALLS_MAX are kept. */
static size_t calls_find(const json_t *list, size_t at, bool chat, struct pairs *p)
{
    size_t count = 0;
    for (json_t *call; (call = call_at(list, at, chat, count)) != NULL; count++) {
        (void)json_object_del(call, API_RESULT_KEY);
        if (count < CALLS_MAX) {
            p->calls[count] = call;
            p->result_of[count] = NULL;
        }
    }
    p->call_count = count;
    return count;
}

/* Can they be put in order? What is no call at all is refused by who reads it. */
static bool calls_fit(const struct pairs *p)
{
    bool fit = p->call_count <= CALLS_MAX;
    for (size_t i = 0; fit && i < p->call_count; i++) {
        fit = json_is_object(p->calls[i]);
    }
    return fit;
}

/* The call of that id that has no result yet; call_count: none, or two are called so. */
static size_t call_find(const struct pairs *p, const json_t *id, bool chat)
{
    size_t found = p->call_count;
    for (size_t i = 0; i < p->call_count; i++) {
        if (json_equal(json_object_get(p->calls[i], chat ? "id" : "call_id"), id)) {
            if (found != p->call_count) {
                return p->call_count;
            }
            found = i;
        }
    }
    return found < p->call_count && p->result_of[found] == NULL ? found : p->call_count;
}

/* Each result that follows has its call. False: one has none, so that the order is all there is. */
static bool results_find(const json_t *list, bool chat, struct pairs *p)
{
    for (p->result_count = 0;; p->result_count++) {
        json_t *result = json_array_get(list, p->results_at + p->result_count);
        if (chat ? !is(result, "role", "tool") : !is(result, "type", "function_call_output")) {
            return true;
        }
        const json_t *id = api_call_id(json_object_get(result, chat ? "tool_call_id" : "call_id"));
        size_t call = id != NULL ? call_find(p, id, chat) : p->call_count;
        if (call == p->call_count) {
            return false;
        }
        p->result_of[call] = result;
    }
}

/* What follows of each call is noted with it. False: no memory. */
static bool results_put(json_t *list, const struct pairs *p)
{
    json_t *ordered[CALLS_MAX];
    size_t count = 0;
    bool good = true;
    for (size_t i = 0; i < p->call_count; i++) {
        json_t *result = p->result_of[i];
        const json_t *name = json_object_get(result, "name");
        if (result != NULL) {
            ordered[count++] = json_incref(result);
        }
        if (result == NULL || json_string_length(name) > 0) {
            good = json_object_set_new(p->calls[i], API_RESULT_KEY,
                                       result != NULL ? json_copy((json_t *)(uintptr_t)name)
                                                      : json_false()) == 0 &&
                   good;
        }
    }
    for (size_t i = 0; i < count; i++) {
        good = json_array_set_new(list, p->results_at + i, ordered[i]) == 0 && good;
    }
    return good;
}

bool api_results_order(json_t *list, bool chat)
{
    struct pairs p;
    for (size_t i = 0; i < json_array_size(list);) {
        size_t calls = calls_find(list, i, chat, &p);
        p.results_at = i + (chat || calls == 0 ? 1 : calls);
        if (calls != 0 && calls_fit(&p) && results_find(list, chat, &p) && !results_put(list, &p)) {
            return false;
        }
        i = p.results_at;
    }
    return true;
}
