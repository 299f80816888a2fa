/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "dataplane/gateway/peers.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/addr.h"
#include "schemas/base/text.h"

void gateway_peers_deinit(struct peers *p)
{
    free(p->nodes);
    free(p->services);
    *p = (struct peers){.nodes = NULL};
}

/* 64 bits of a hash: two that clash are the same entry, which nobody meets by chance. */
static void id_of(const char *text, char id[PEERS_ID_MAX])
{
    uint8_t sum[crypto_generichash_BYTES_MIN];
    crypto_generichash(sum, sizeof(sum), (const uint8_t *)text, strlen(text), NULL, 0);
    sodium_bin2hex(id, PEERS_ID_MAX, sum, (PEERS_ID_MAX - 1) / 2);
}

/* A text of a body into `out`. False: it is there and does not fit. */
static bool text_read(const json_t *body, const char *name, char *out, size_t size)
{
    const json_t *value = json_object_get(body, name);
    const char *text = json_string_value(value);
    out[0] = '\0';
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (text == NULL || json_string_length(value) != strlen(text) || strlen(text) >= size ||
        !text_is_word(text, strlen(text))) {
        return false;
    }
    strcpy(out, text);
    return true;
}

static bool number_read(const json_t *body, const char *name, uint32_t max, uint32_t *out)
{
    const json_t *value = json_object_get(body, name);
    double number = json_number_value(value);
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (!json_is_number(value) || number < 0 || number > max || number != trunc(number)) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

/* Room for one more in an array that doubles. */
static bool room_make(void **list, uint32_t count, size_t size)
{
    if (count == 0 || (count & (count - 1)) == 0) {
        void *grown = realloc(*list, (count == 0 ? 1 : 2 * count) * size);
        if (grown == NULL) {
            return false;
        }
        *list = grown;
    }
    return true;
}

static void full(struct api_error *error)
{
    error_set(error, 429, "invalid_request_error", "registry_full", false,
              "The registry has no room; remove an entry first.");
}

/* ---- nodes ---- */

/* "10.0.0.1", "10.0.0.1:7401", "2001:db8::1", "[2001:db8::1]:7401"; no names: nothing is looked
 * up on behalf of others. */
static bool node_good(const char *text)
{
    char host[PEERS_NODE_MAX];
    struct in6_addr address;
    strcpy(host, text);
    if (addr_parse(host, &address)) {
        return true;
    }
    char *colon = strrchr(host, ':');
    char *end;
    if (colon == NULL || colon[1] < '1' || colon[1] > '9') {
        return false;
    }
    unsigned long port = strtoul(colon + 1, &end, 10);
    size_t len = (size_t)(colon - host);
    *colon = '\0';
    if (*end != '\0' || port > UINT16_MAX) {
        return false;
    }
    if (host[0] == '[' && len > 2 && host[len - 1] == ']') {
        host[len - 1] = '\0';
        return addr_parse(host + 1, &address) && !addr_is_v4(&address);
    }
    return addr_parse(host, &address) && addr_is_v4(&address);
}

static struct peer_node *node_find(const struct peers *p, const char *id)
{
    for (uint32_t i = 0; i < p->node_count; i++) {
        if (strcmp(p->nodes[i].id, id) == 0) {
            return &p->nodes[i];
        }
    }
    return NULL;
}

struct peer_node *peers_add_node(struct peers *p, const json_t *body, const char *by,
                                 uint64_t now_s, struct api_error *error)
{
    struct peer_node made = {.since_s = now_s};
    if (!text_read(body, "node", made.node, sizeof(made.node)) || !node_good(made.node)) {
        error_bad(error, "node",
                  "'node' must be an IP address; the port of its control plane may "
                  "follow, as in 10.0.0.1:7401.");
        return NULL;
    }
    id_of(made.node, made.id);
    struct peer_node *known = node_find(p, made.id);
    if (known != NULL) {
        known->tell_ns = 0;
        return known;
    }
    snprintf(made.by, sizeof(made.by), "%s", by != NULL ? by : "");
    if (p->node_count == PEERS_MAX) {
        full(error);
        return NULL;
    }
    if (!room_make((void **)&p->nodes, p->node_count, sizeof(made))) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return NULL;
    }
    p->nodes[p->node_count] = made;
    return &p->nodes[p->node_count++];
}

bool peers_drop_node(struct peers *p, const char *id)
{
    struct peer_node *node = node_find(p, id);
    if (node != NULL) {
        *node = p->nodes[--p->node_count];
    }
    return node != NULL;
}

/* ---- telling the node ---- */

struct peer_node *peers_due(struct peers *p, uint64_t now_ns)
{
    for (uint32_t i = 0; i < p->node_count; i++) {
        if (p->nodes[i].tell_ns <= now_ns) {
            return &p->nodes[i];
        }
    }
    return NULL;
}

uint64_t peers_due_ns(const struct peers *p)
{
    uint64_t due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < p->node_count; i++) {
        due_ns = p->nodes[i].tell_ns < due_ns ? p->nodes[i].tell_ns : due_ns;
    }
    return due_ns;
}

void peers_told(struct peers *p, const char *id, const json_t *answer, uint64_t now_ns)
{
    struct peer_node *node = node_find(p, id);
    if (node == NULL) {
        return; /* dropped meanwhile */
    }
    const char *join = json_string_value(json_object_get(answer, "join"));
    const char *why = json_string_value(json_object_get(answer, "error"));
    node->reason[0] = '\0';
    node->tell_ns = now_ns + PEERS_TELL_AGAIN_NS;
    if (join != NULL && strcmp(join, "member") == 0) {
        node->state = PEER_MEMBER;
    } else if (join != NULL || answer == NULL) {
        node->state = join != NULL ? PEER_CALLED : PEER_NEW;
        node->tell_ns = now_ns + PEERS_TELL_SOON_NS;
    } else {
        node->state = PEER_REFUSED;
        snprintf(node->reason, sizeof(node->reason), "%s",
                 why != NULL ? why : "the node does not know the question");
    }
}

/* ---- services ---- */

/* http(s)://HOST[:PORT][/PATH] without a user, a query or a fragment. */
static bool url_good(const char *url)
{
    const char *host = strncmp(url, "http://", 7) == 0    ? url + 7
                       : strncmp(url, "https://", 8) == 0 ? url + 8
                                                          : "";
    return host[0] != '\0' && host[0] != '/' && host[0] != ':' &&
           strpbrk(host, "@?#\"\\<>{}") == NULL;
}

static bool models_read(const json_t *body, struct peer_service *s)
{
    const json_t *list = json_object_get(body, "models");
    size_t count = json_array_size(list);
    if (count == 0 || count > PEERS_MODELS_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        const char *name = json_string_value(value);
        if (name == NULL || name[0] == '\0' || strlen(name) != json_string_length(value) ||
            strlen(name) >= PEERS_MODEL_NAME_MAX || !text_is_word(name, strlen(name))) {
            return false;
        }
        strcpy(s->models[s->model_count++], name);
    }
    return true;
}

/* Names of tags.def. */
static bool tags_read(const json_t *body, struct peer_service *s)
{
    const json_t *list = json_object_get(body, "tags");
    if (list == NULL || json_is_null(list)) {
        return true;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        const char *name = json_string_value(value);
        uint32_t mask =
            name != NULL && strlen(name) == json_string_length(value) ? weft_tag_mask(name) : 0;
        if (mask == 0) {
            return false;
        }
        s->tags |= mask;
    }
    return json_is_array(list);
}

/* Two letters (ISO 3166-1), or nothing. */
static bool jurisdiction_read(const json_t *body, struct peer_service *s)
{
    const char *at = s->jurisdiction;
    return text_read(body, "jurisdiction", s->jurisdiction, sizeof(s->jurisdiction)) &&
           (at[0] == '\0' || (at[0] >= 'A' && at[0] <= 'Z' && at[1] >= 'A' && at[1] <= 'Z'));
}

static bool load_read(const json_t *body, struct peer_service *s)
{
    const json_t *load = json_object_get(body, "load");
    if (load == NULL || json_is_null(load)) {
        return true;
    }
    s->has_load = true;
    return json_is_object(load) && number_read(load, "room", UINT32_MAX, &s->room) &&
           number_read(load, "queue_us", UINT32_MAX, &s->queue_us);
}

static bool service_read(const json_t *body, struct peer_service *s, struct api_error *error)
{
    const json_t *realtime = json_object_get(body, "realtime");
    if (!text_read(body, "url", s->url, sizeof(s->url)) || !url_good(s->url)) {
        return error_bad(error, "url",
                         "'url' must be where the service is, as in "
                         "http://10.0.0.1:8080/v1.");
    }
    if (!models_read(body, s)) {
        return error_bad(error, "models", "'models' must name what the service has, 1 to %u.",
                         PEERS_MODELS_MAX);
    }
    if (!text_read(body, "node", s->node, sizeof(s->node))) {
        return error_bad(error, "node", "'node' must be a name.");
    }
    if (realtime != NULL && !json_is_boolean(realtime)) {
        return error_bad(error, "realtime", "'realtime' must be true or false.");
    }
    s->realtime = json_is_true(realtime);
    if (!tags_read(body, s)) {
        return error_bad(error, "tags", "'tags' must be a list of policy tags.");
    }
    if (!jurisdiction_read(body, s)) {
        return error_bad(error, "jurisdiction", "'jurisdiction' must be two letters, as in DE.");
    }
    if (!load_read(body, s)) {
        return error_bad(error, "load", "'load' must have room and queue_us.");
    }
    return number_read(body, "ttl_s", PEERS_TTL_MAX, &s->ttl_s) ||
           error_bad(error, "ttl_s", "'ttl_s' must be seconds, at most %u.", PEERS_TTL_MAX);
}

static struct peer_service *service_find(const struct peers *p, const char *id)
{
    for (uint32_t i = 0; i < p->service_count; i++) {
        if (strcmp(p->services[i].id, id) == 0) {
            return &p->services[i];
        }
    }
    return NULL;
}

struct peer_service *peers_add_service(struct peers *p, const json_t *body, const char *by,
                                       uint64_t now_s, struct api_error *error)
{
    struct peer_service made = {.since_s = now_s, .seen_s = now_s};
    if (!service_read(body, &made, error)) {
        return NULL;
    }
    id_of(made.url, made.id);
    snprintf(made.by, sizeof(made.by), "%s", by != NULL ? by : "");
    struct peer_service *known = service_find(p, made.id);
    if (known != NULL) {
        made.since_s = known->since_s;
        *known = made;
        return known;
    }
    if (p->service_count == PEERS_MAX) {
        full(error);
        return NULL;
    }
    if (!room_make((void **)&p->services, p->service_count, sizeof(made))) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return NULL;
    }
    p->services[p->service_count] = made;
    return &p->services[p->service_count++];
}

bool peers_drop_service(struct peers *p, const char *id)
{
    struct peer_service *service = service_find(p, id);
    if (service != NULL) {
        *service = p->services[--p->service_count];
    }
    return service != NULL;
}

bool peers_expire(struct peers *p, uint64_t now_s)
{
    bool any = false;
    for (uint32_t i = 0; i < p->service_count;) {
        const struct peer_service *s = &p->services[i];
        if (s->ttl_s != 0 && now_s >= s->seen_s + s->ttl_s) {
            any = peers_drop_service(p, s->id);
        } else {
            i++;
        }
    }
    return any;
}

/* ---- files ---- */

void peers_save_nodes(const struct peers *p, struct buf *out)
{
    buf_add_text(out, "[");
    for (uint32_t i = 0; i < p->node_count; i++) {
        const struct peer_node *n = &p->nodes[i];
        buf_add_text(out, i == 0 ? "\n{\"node\":" : ",\n{\"node\":");
        buf_add_quoted(out, n->node);
        buf_add_text(out, ",\"by\":");
        buf_add_quoted(out, n->by);
        buf_add_format(out, ",\"since\":%llu}", (unsigned long long)n->since_s);
    }
    buf_add_text(out, "\n]\n");
}

void peers_save_services(const struct peers *p, struct buf *out)
{
    buf_add_text(out, "[");
    for (uint32_t i = 0; i < p->service_count; i++) {
        const struct peer_service *s = &p->services[i];
        buf_add_text(out, i == 0 ? "\n{\"url\":" : ",\n{\"url\":");
        buf_add_quoted(out, s->url);
        buf_add_text(out, ",\"models\":[");
        for (uint32_t m = 0; m < s->model_count; m++) {
            buf_add_text(out, m == 0 ? "" : ",");
            buf_add_quoted(out, s->models[m]);
        }
        buf_add_text(out, "],");
        peers_write_promises(s, out);
        buf_add_text(out, ",\"node\":");
        buf_add_quoted(out, s->node);
        buf_add_text(out, ",\"by\":");
        buf_add_quoted(out, s->by);
        buf_add_format(out, ",\"realtime\":%s,\"ttl_s\":%u,\"since\":%llu,\"seen\":%llu}",
                       s->realtime ? "true" : "false", s->ttl_s, (unsigned long long)s->since_s,
                       (unsigned long long)s->seen_s);
    }
    buf_add_text(out, "\n]\n");
}

static uint64_t time_read(const json_t *entry, const char *name)
{
    json_int_t time = json_integer_value(json_object_get(entry, name));
    return time > 0 ? (uint64_t)time : 0;
}

bool peers_load_nodes(struct peers *p, const json_t *file, struct api_error *error)
{
    for (size_t i = 0; i < json_array_size(file); i++) {
        const json_t *entry = json_array_get(file, i);
        if (peers_add_node(p, entry, json_string_value(json_object_get(entry, "by")),
                           time_read(entry, "since"), error) == NULL) {
            return false;
        }
    }
    return json_is_array(file) || error_bad(error, NULL, "It is no list.");
}

bool peers_load_services(struct peers *p, const json_t *file, struct api_error *error)
{
    for (size_t i = 0; i < json_array_size(file); i++) {
        const json_t *entry = json_array_get(file, i);
        struct peer_service *service =
            peers_add_service(p, entry, json_string_value(json_object_get(entry, "by")),
                              time_read(entry, "since"), error);
        if (service == NULL) {
            return false;
        }
        service->seen_s = time_read(entry, "seen");
    }
    return json_is_array(file) || error_bad(error, NULL, "It is no list.");
}
