/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the gateway's registries: the first byte chooses which, then follows JSON, one body or a
 * list of them. What is taken is listed as valid JSON and is the same when saved and loaded. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/peers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

static void json_check(struct buf *out)
{
    need(!out->failed);
    json_t *json = json_loadb(out->data, buf_len(out), 0, NULL);
    need(json != NULL);
    json_decref(json);
    buf_deinit(out);
}

static void same_again(const struct peers *p, bool nodes)
{
    struct peers again = {.nodes = NULL};
    struct api_error error = {.http_status = 0};
    struct buf saved = {.data = NULL};
    struct buf twice = {.data = NULL};
    (nodes ? peers_save_nodes : peers_save_services)(p, &saved);
    json_t *file = json_loadb(saved.data, buf_len(&saved), 0, NULL);
    need((nodes ? peers_load_nodes : peers_load_services)(&again, file, &error));
    (nodes ? peers_save_nodes : peers_save_services)(&again, &twice);
    need(buf_len(&saved) == buf_len(&twice) &&
         memcmp(saved.data, twice.data, buf_len(&saved)) == 0);
    json_decref(file);
    buf_deinit(&saved);
    buf_deinit(&twice);
    gateway_peers_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct peers p = {.nodes = NULL};
    struct api_error error = {.http_status = 0};
    struct buf out = {.data = NULL};
    if (size < 2) {
        return 0;
    }
    bool nodes = (data[0] & 1) != 0;
    json_t *body = json_loadb((const char *)data + 1, size - 1, JSON_ALLOW_NUL, NULL);
    bool list = json_is_array(body);
    for (size_t i = 0; i < (list ? json_array_size(body) : 1); i++) {
        const json_t *one = list ? json_array_get(body, i) : body;
        error.http_status = 0;
        bool good = nodes ? peers_add_node(&p, one, "by", i, &error) != NULL
                          : peers_add_service(&p, one, NULL, i, &error) != NULL;
        need(good == (error.http_status == 0));
    }
    need(p.node_count <= PEERS_MAX && p.service_count <= PEERS_MAX);
    peers_write_nodes(&p, body, &out); /* any JSON for a status as well */
    json_check(&out);
    peers_write_services(&p, body, size, &out);
    json_check(&out);
    same_again(&p, nodes);
    while (p.node_count > 0) {
        peers_told(&p, p.nodes[0].id, body, size);
        need(peers_due(&p, UINT64_MAX - 1) != NULL);
        need(peers_drop_node(&p, p.nodes[0].id));
    }
    peers_expire(&p, UINT64_MAX);
    json_decref(body);
    gateway_peers_deinit(&p);
    return 0;
}
