/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers_list.c - the two registries as a client sees them: what the mesh knows by itself, from the
 * node's status, then what was registered; see peers.h.
 */
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/peers.h"
#include "schemas/tags.def"

static void comma(struct buf *out, bool *first)
{
    buf_add_text(out, *first ? "" : ",");
    *first = false;
}

/* `,"name":` and a member of an object as it is, null if there is none. */
static void value_add(struct buf *out, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    buf_add_format(out, ",\"%s\":", name);
    buf_add_text(out, text != NULL ? text : "null");
    free(text);
}

/* ---- nodes ---- */

/* Who it is, where, and which weights it holds; nothing of how busy it is. */
static void member_node_write(const json_t *member, struct buf *out)
{
    static const char *const facts[] = {
        "address",      "client_address", "state",         "tier",   "tags",
        "jurisdiction", "latitude_deg",   "longitude_deg", "rtt_us", "incarnation"};
    const json_t *models = json_object_get(member, "models");
    const char *name = json_string_value(json_object_get(member, "name"));
    buf_add_format(out, "{\"id\":\"%lld\",\"source\":\"mesh\",\"node\":",
                   (long long)json_integer_value(json_object_get(member, "id")));
    buf_add_quoted(out, name != NULL ? name : "");
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
        value_add(out, facts[i], json_object_get(member, facts[i]));
    }
    value_add(out, "weights", models);
    buf_add_text(out, "}");
}

void peers_write_node(const struct peer_node *n, struct buf *out)
{
    static const char *const states[] = {
        [PEER_NEW] = "new",
        [PEER_CALLED] = "called",
        [PEER_MEMBER] = "member",
        [PEER_REFUSED] = "refused",
    };
    buf_add_format(out, "{\"id\":\"%s\",\"source\":\"registered\",\"node\":", n->id);
    buf_add_quoted(out, n->node);
    buf_add_format(out, ",\"state\":\"%s\",\"registered\":%llu,\"by\":", states[n->state],
                   (unsigned long long)n->since_s);
    buf_add_quoted(out, n->by);
    if (n->reason[0] != '\0') {
        buf_add_text(out, ",\"reason\":");
        buf_add_quoted(out, n->reason);
    }
    buf_add_text(out, "}");
}

void peers_write_nodes(const struct peers *p, const json_t *status, struct buf *out)
{
    const json_t *members = json_object_get(status, "members");
    bool first = true;
    buf_add_text(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < json_array_size(members); i++) {
        comma(out, &first);
        member_node_write(json_array_get(members, i), out);
    }
    for (uint32_t i = 0; i < p->node_count; i++) {
        comma(out, &first);
        peers_write_node(&p->nodes[i], out);
    }
    buf_add_text(out, "]}");
}

/* ---- services ---- */

/* What can be asked of a member and how busy it is; nothing of who it is but its name. */
static void member_service_write(const json_t *member, struct buf *out)
{
    static const char *const load[] = {"room",        "queue_us",   "free_vram_mib",
                                       "prefill_tps", "decode_tps", "context_tokens"};
    const char *name = json_string_value(json_object_get(member, "name"));
    const json_t *address = json_object_get(member, "client_address");
    address = json_is_string(address) ? address : json_object_get(member, "address");
    buf_add_format(out, "{\"id\":\"%lld\",\"source\":\"mesh\",\"kind\":\"weft\",\"node\":",
                   (long long)json_integer_value(json_object_get(member, "id")));
    buf_add_quoted(out, name != NULL ? name : "");
    value_add(out, "address", address);
    value_add(out, "models", json_object_get(member, "models"));
    value_add(out, "backend", json_object_get(member, "backend"));
    buf_add_text(out, ",\"load\":{\"told\":true");
    for (size_t i = 0; i < sizeof(load) / sizeof(load[0]); i++) {
        value_add(out, load[i], json_object_get(member, load[i]));
    }
    if (json_object_get(member, "speeds") != NULL) { /* a node of an older version tells of none */
        value_add(out, "speeds", json_object_get(member, "speeds"));
    }
    buf_add_text(out, "}}");
}

void peers_write_promises(const struct peer_service *s, struct buf *out)
{
    static const struct {
        const char *name;
        uint32_t mask;
    } tags[] = {
#define TAG_ROW_(name, bit, text) {#name, UINT32_C(1) << (bit)},
        WEFT_TAGS(TAG_ROW_)
#undef TAG_ROW_
    };
    bool first = true;
    buf_add_text(out, "\"tags\":[");
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        if ((s->tags & tags[i].mask) != 0) {
            comma(out, &first);
            buf_add_quoted(out, tags[i].name);
        }
    }
    buf_add_text(out, "],\"jurisdiction\":");
    buf_add_quoted(out, s->jurisdiction);
}

void peers_write_service(const struct peer_service *s, uint64_t now_s, struct buf *out)
{
    buf_add_format(out,
                   "{\"id\":\"%s\",\"source\":\"registered\",\"kind\":\"openai\",\"node\":", s->id);
    buf_add_quoted(out, s->node);
    buf_add_text(out, ",\"address\":");
    buf_add_quoted(out, s->url);
    buf_add_text(out, ",\"models\":[");
    for (uint32_t m = 0; m < s->model_count; m++) {
        buf_add_text(out, m == 0 ? "" : ",");
        buf_add_quoted(out, s->models[m]);
    }
    buf_add_text(out, "],");
    peers_write_promises(s, out);
    buf_add_format(out, ",\"realtime\":%s,\"load\":{\"told\":%s", s->realtime ? "true" : "false",
                   s->has_load ? "true" : "false");
    if (s->has_load) {
        buf_add_format(out, ",\"room\":%u,\"queue_us\":%u", s->room, s->queue_us);
    }
    buf_add_format(out, "},\"registered\":%llu,\"age_s\":%llu,\"ttl_s\":%u,\"by\":",
                   (unsigned long long)s->since_s,
                   (unsigned long long)(now_s > s->seen_s ? now_s - s->seen_s : 0), s->ttl_s);
    buf_add_quoted(out, s->by);
    buf_add_text(out, "}");
}

void peers_write_services(const struct peers *p, const json_t *status, uint64_t now_s,
                          struct buf *out)
{
    const json_t *members = json_object_get(status, "members");
    bool first = true;
    buf_add_text(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);
        if (json_is_true(json_object_get(member, "alive")) &&
            json_array_size(json_object_get(member, "models")) > 0) {
            comma(out, &first);
            member_service_write(member, out);
        }
    }
    for (uint32_t i = 0; i < p->service_count; i++) {
        comma(out, &first);
        peers_write_service(&p->services[i], now_s, out);
    }
    buf_add_text(out, "]}");
}
