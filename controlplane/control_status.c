/* SPDX-License-Identifier: Apache-2.0 */
/* control_status.c - the answer to `status` on the admin socket. See control_impl.h. */
#include <inttypes.h>
#include <string.h>

#include "controlplane/control_impl.h"
#include "schemas/base/addr.h"
#include "schemas/tags.def"

static json_t *tags_json(uint32_t tags)
{
    json_t *list = json_array();
#define TAG_APPEND_(name, bit, text)                                                               \
    if ((tags & (UINT32_C(1) << (bit))) != 0) {                                                    \
        json_array_append_new(list, json_string(#name));                                           \
    }
    WEFT_TAGS(TAG_APPEND_)
#undef TAG_APPEND_
    return list;
}

static json_int_t number_of(uint8_t code)
{
    return (json_int_t)speeds_value(code);
}

static json_t *us_json(uint64_t ns)
{
    return json_real((double)ns / 1e3);
}

static json_t *ms_ago_json(uint64_t then_ns, uint64_t now_ns)
{
    if (then_ns == 0 || then_ns > now_ns) {
        return json_null();
    }
    return json_integer((json_int_t)((now_ns - then_ns) / NS_PER_MS));
}

/* How it stands with its life and the way to it. */
static void life_add(json_t *json, const struct members *members, const struct member *member,
                     uint64_t now_ns)
{
    json_object_set_new(json, "state",
                        json_string(member_state_name(member_state_of(members, member))));
    json_object_set_new(json, "incarnation", json_integer((json_int_t)member->incarnation));
    json_object_set_new(json, "state_ms_ago", ms_ago_json(member->changed_ns, now_ns));
    /* Not measured is null, not 0: nobody is 0 us away. */
    bool known = member->srtt_ns != 0;
    json_object_set_new(json, "rtt_us", known ? us_json(member->srtt_ns) : json_null());
    json_object_set_new(json, "rttvar_us", known ? us_json(member->rttvar_ns) : json_null());
    json_object_set_new(json, "rtt_estimated", json_boolean(known && member->rtt_estimated));
    json_object_set_new(json, "place_doubted", json_boolean(member->place_doubted));
    json_object_set_new(json, "heard_ms_ago", ms_ago_json(member->heard_ns, now_ns));
}

/* How fast it is with each model that it has told so of. */
static json_t *speeds_json(const struct members_facts *facts)
{
    static const struct speeds none;
    json_t *list = json_array();
    for (uint32_t i = 0; i < facts->model_count; i++) {
        const struct speeds *s = &facts->models[i].speeds;
        if (memcmp(s, &none, sizeof(none)) == 0) {
            continue;
        }
        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i}", "model",
                            facts->models[i].name, "prefill_tps", number_of(s->prefill),
                            "decode_tps", number_of(s->decode[0]), "decode_tps_2",
                            number_of(s->decode[1]), "decode_tps_4", number_of(s->decode[2]),
                            "decode_tps_8", number_of(s->decode[3]), "stream_tps",
                            (json_int_t)speeds_stream(s), "memory_mib", number_of(s->memory),
                            "slots", (int)s->slots, "running", (int)s->running));
    }
    return list;
}

/* How the prompts began that its workers took last, as 16 digits each: numbers of 64 bits are not
 * safe in JSON. */
static json_t *prefixes_json(const struct members_facts *facts)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < MEMBERS_PREFIXES && facts->prefixes[i] != 0; i++) {
        json_array_append_new(list, json_sprintf("%016" PRIx64, facts->prefixes[i]));
    }
    return list;
}

json_t *control_member_json(const struct members *members, const struct member *member,
                            uint64_t now_ns)
{
    const struct members_facts *facts = &member->facts;
    const bool drains = WEFT_DRAINS(facts->room, facts->queue_us);
    char address[ADDR_TEXT_MAX];
    addr_format(&member->address, address);
    json_t *models = json_array();
    for (uint32_t i = 0; i < facts->model_count; i++) {
        json_array_append_new(models, json_string(facts->models[i].name));
    }
    json_t *json = json_pack(
        "{s:s, s:i, s:s, s:i, s:o, s:s, s:b, s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I}", "name",
        member->name, "id", (int)member->id, "address", address, "tier", (int)member->tier, "tags",
        tags_json(member->tags), "jurisdiction", member->jurisdiction, "alive", (int)member->alive,
        "models", models, "backend", facts->backend, "room", (int)facts->room, "queue_us",
        drains ? (json_int_t)0 : (json_int_t)facts->queue_us, "free_vram_mib",
        (json_int_t)facts->free_vram_mib, "prefill_tps", (json_int_t)facts->prefill_tps,
        "decode_tps", (json_int_t)facts->decode_tps, "context_tokens",
        (json_int_t)facts->context_tokens);
    if (!IN6_IS_ADDR_UNSPECIFIED(&member->client_address)) {
        json_object_set_new(json, "client_address",
                            json_string(addr_format(&member->client_address, address)));
    }
    json_object_set_new(json, "latitude_deg", json_real(member->latitude_deg));
    json_object_set_new(json, "longitude_deg", json_real(member->longitude_deg));
    json_object_set_new(json, "speeds", speeds_json(facts));
    json_object_set_new(json, "prefixes", prefixes_json(facts));
    json_object_set_new(json, "barred", json_boolean(member->barred));
    json_object_set_new(json, "draining", json_boolean(drains));
    life_add(json, members, member, now_ns);
    return json;
}

static json_t *counters_json(const struct control *control)
{
    const struct members_counters *counters = members_counters(control->members);
    json_t *counts = json_object();
#define COUNTER_ADD_(name, text)                                                                   \
    json_object_set_new(counts, #name, json_integer((json_int_t)counters->name));
    MEMBERS_COUNTERS(COUNTER_ADD_)
#undef COUNTER_ADD_
    json_object_set_new(counts, "send_failures", json_integer((json_int_t)control->send_failures));
    if (control->gossip == NULL) {
        return counts;
    }
    const struct swim_counters *swim = swim_counters(gossip_swim(control->gossip));
    const struct gossip_counters *gossip = gossip_counters(control->gossip);
    json_t *told = json_object();
#define COUNTER_ADD_(name, text)                                                                   \
    json_object_set_new(told, #name, json_integer((json_int_t)swim->name));
    SWIM_COUNTERS(COUNTER_ADD_)
#undef COUNTER_ADD_
#define COUNTER_ADD_(name, text)                                                                   \
    json_object_set_new(told, #name, json_integer((json_int_t)gossip->name));
    GOSSIP_COUNTERS(COUNTER_ADD_)
#undef COUNTER_ADD_
#define COUNTER_ADD_(name, text)                                                                   \
    json_object_set_new(told, #name, json_integer((json_int_t)control->letters.counters.name));
    LETTER_COUNTERS(COUNTER_ADD_)
#undef COUNTER_ADD_
    json_object_set_new(counts, "gossip", told);
    return counts;
}

json_t *control_status(struct control *control)
{
    uint64_t now_ns = clock_now_ns();
    const struct members *members = control->members;
    json_t *list = json_array();
    for (uint32_t i = 0; i < members_count(members); i++) {
        json_array_append_new(list, control_member_json(members, members_at(members, i), now_ns));
    }
    json_t *status = json_pack(
        "{s:s, s:i, s:s, s:f, s:I, s:o, s:o}", "node", control->config->node, "id",
        (int)members_at(members, members_self(members))->id, "version", WEFT_RELEASE, "uptime_s",
        (double)(now_ns - control->started_ns) / 1e9, "members_version",
        (json_int_t)members_version(members), "members", list, "counters", counters_json(control));
    if (status == NULL) {
        return NULL;
    }
    json_object_set_new(status, "data_port", json_integer(control->config->data_port));
    json_object_set_new(status, "port_socket", json_string(control->config->sockets.port));
    json_object_set_new(status, "membership",
                        json_string(control->gossip != NULL ? "gossip" : "static"));
    json_object_set_new(status, "leaving", json_boolean(control->leaving));
    if (control->gossip != NULL) {
        json_object_set_new(status, "health",
                            json_integer(swim_health(gossip_swim(control->gossip))));
        json_object_set_new(status, "zone", zone_status(control));
        json_object_set_new(status, "policy", control_policy_status(control));
    }
    if (control->hooks.add_status != NULL) {
        control->hooks.add_status(status, control->hooks.user);
    }
    return status;
}
