/* SPDX-License-Identifier: Apache-2.0 */
/* vector.c - see vector.h. */
#include "kernels/upstream/vector.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <weft/status.h>

char *vector_write(const char *model, const weft_job_view_t *view, int *status)
{
    json_t *input = NULL;
    if (view->tokens) {
        input = json_array();
        for (size_t i = 0; i < view->token_count; i++)
            if (json_array_append_new(input, json_integer(view->tokens[i])))
                break;
    } else if (view->part_count == 1) {
        input = json_stringn(view->parts[0].text, view->parts[0].len);
    }
    *status = input ? WEFT_E_WORKER_FAILED : WEFT_E_BAD_REQUEST;
    json_t *root =
        json_pack("{s:s, s:o, s:s}", "model", model, "input", input, "encoding_format", "float");
    char *body = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return body;
}

static int read_values(struct vector *vector, const json_t *list)
{
    double square = 0;
    vector->count = json_array_size(list);
    if (vector->count == 0)
        return -EBADMSG;
    if (vector->count > vector->max)
        return -EMSGSIZE;
    for (size_t i = 0; i < vector->count; i++) {
        const json_t *value = json_array_get(list, i);
        const double number = json_number_value(value);
        if (!json_is_number(value) || !(fabs(number) < 1e18))
            return -EBADMSG;
        square += number * number;
        vector->values[i] = (float)number;
    }
    const double length = sqrt(square);
    if (!(length > 1e-18))
        return -EBADMSG;
    for (size_t i = 0; i < vector->count; i++)
        vector->values[i] = (float)(vector->values[i] / length);
    return 0;
}

int vector_parse(struct vector *vector, const char *data, size_t len)
{
    json_t *root = json_loadb(data, len, 0, NULL);
    const json_t *first = json_array_get(json_object_get(root, "data"), 0);
    const json_t *tokens = json_object_get(json_object_get(root, "usage"), "prompt_tokens");
    const json_int_t count = json_integer_value(tokens);
    vector->count = 0;
    vector->prompt_tokens = count > 0 && count < UINT32_MAX ? (uint32_t)count : 0;
    const int rc = read_values(vector, json_object_get(first, "embedding"));
    json_decref(root);
    return rc;
}
