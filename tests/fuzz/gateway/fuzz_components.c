/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes bodies of /v1/components/run: what is taken is played through with vectors and a text made
 * of the body's own bytes; the account must be JSON. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/components.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

static void play(struct components *c, const uint8_t *data, size_t size)
{
    const weft_result_t result = {.node = "n"};
    struct api_error error = {.http_status = 0};
    struct buf out = {.data = NULL};
    weft_query_t query;
    need(c->texts >= 2 && c->texts <= 1 + COMPONENTS_AMONG_MAX);
    for (uint32_t i = 0; i < c->texts; i++) {
        const float vector[2] = {(float)data[i % size], (float)data[(i * 7) % size]};
        query = components_encode(c, i);
        need(query.model != NULL && query.text != NULL && query.embed != 0);
        need(components_vector(c, i, vector, 2, &result));
    }
    need(components_decode(c, &query, &error) == (error.http_status == 0));
    if (error.http_status == 0) {
        need(query.message_count == 1 && c->best + 1 < c->texts);
        for (size_t at = 0; at < size; at += 3) {
            components_text(c, (const char *)data + at, size - at < 3 ? size - at : 3);
        }
        components_write(c, &result, "1", &out);
        json_t *json = json_loadb(out.data, buf_len(&out), JSON_ALLOW_NUL, NULL);
        need(json != NULL);
        json_decref(json);
    }
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct components c;
    struct api_error error = {.http_status = 0};
    memset(&c, 0, sizeof(c));
    bool good = components_read(&c, (const char *)data, size, &error);
    need(good == (error.http_status == 0));
    if (good) {
        play(&c, data, size);
    }
    components_deinit(&c);
    return 0;
}
