/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - see report.h. Names come from metrics.def and drops.def. */
#include "dataplane/report.h"

#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/telemetry.h"
#include "schemas/metrics.def"

/* Sum over all lcores of the counter at `offset` in struct route_counters. */
static uint64_t sum_at(const struct report *r, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const uint8_t *counters = (const uint8_t *)&r->cores[i]->route->counters;
        sum += atomic_load_explicit((const route_counter *)(const void *)(counters + offset),
                                    memory_order_relaxed);
    }
    return sum;
}

/* ---- every figure once, for either way out ---- */

static void emit_counters(telemetry_emit emit, void *out, void *user)
{
#define EMIT_COUNTER_(name, kind, unit, text)                                                      \
    emit(out, #name, sum_at(user, offsetof(struct route_counters, name)));
    WEFT_METRICS_ROUTE(EMIT_COUNTER_)
#define EMIT_LOCAL_(name, kind, unit, text)                                                        \
    emit(out, #name, atomic_load_explicit(&local->name, memory_order_relaxed));
    const struct report *r = user;
    const struct local *local = &r->cores[0]->local;
    WEFT_METRICS_LOCAL(EMIT_LOCAL_)
}

static void emit_drops(telemetry_emit emit, void *out, void *user)
{
    const struct report *r = user;
    for (unsigned i = 0; i < ROUTE_DROP_COUNT; i++) {
        uint64_t sum =
            sum_at(user, offsetof(struct route_counters, drops) + i * sizeof(route_counter));
        /* No packet is there to be counted: the port counts. */
        sum += i == ROUTE_DROP_no_mbuf ? nic_losses(r->cores[0]->nic).no_buffer : 0;
        emit(out, route_drop_name(i), sum);
    }
}

static void emit_lcore(uint32_t lcore, telemetry_emit emit, void *out, void *user)
{
    const struct report *r = user;
    const struct core *core = r->cores[lcore];
    emit(out, "received",
         atomic_load_explicit(&core->route->counters.received, memory_order_relaxed));
    emit(out, "busy_ns", atomic_load_explicit(&core->busy_ns, memory_order_relaxed));
    emit(out, "tap_lost", atomic_load_explicit(&core->tap->lost, memory_order_relaxed));
}

/* Of lcore 0 alone: the others do the same work. */
static void emit_stages(telemetry_stage_emit emit, void *out, void *user)
{
#define STAGE_NAME_(name, text) #name,
    static const char *const names[] = {CORE_STAGES(STAGE_NAME_)};
    const struct report *r = user;
    for (uint32_t i = 0; i < CORE_STAGE_COUNT; i++) {
        const struct hist *h = &r->cores[0]->stages[i];
        struct telemetry_stage stage = {
            .name = names[i],
            .p50_ns = hist_quantile(h, 0.5),
            .p99_ns = hist_quantile(h, 0.99),
            .samples = __atomic_load_n(&h->count, __ATOMIC_RELAXED),
        };
        emit(out, &stage);
    }
}

/* ---- JSON ---- */

static void to_json(void *out, const char *name, uint64_t value)
{
    json_object_set_new(out, name, json_integer((json_int_t)value));
}

static void stage_to_json(void *out, const struct telemetry_stage *stage)
{
    json_object_set_new(out, stage->name,
                        json_pack("{s:I, s:I, s:I}", "p50_ns", (json_int_t)stage->p50_ns, "p99_ns",
                                  (json_int_t)stage->p99_ns, "samples",
                                  (json_int_t)stage->samples));
}

void report_status(const struct report *report, json_t *status)
{
    void *user = (void *)(uintptr_t)report;
    json_t *counters = json_object_get(status, "counters"); /* the control plane's are there */
    json_t *drops = json_object();
    json_t *lcores = json_array();
    json_t *stages = json_object();
    emit_counters(to_json, counters, user);
    emit_drops(to_json, drops, user);
    emit_stages(stage_to_json, stages, user);
    for (uint32_t i = 0; i < report->count; i++) {
        json_t *lcore = json_object();
        emit_lcore(i, to_json, lcore, user);
        json_array_append_new(lcores, lcore);
    }
    json_object_set_new(counters, "drops", drops);
    json_object_set_new(status, "lcores", lcores);
    json_object_set_new(status, "stages", stages);
}

/* ---- telemetry ---- */

int report_start(const struct report *report)
{
    struct telemetry_hooks hooks = {
        .lcores = report->count,
        .counters = emit_counters,
        .drops = emit_drops,
        .lcore = emit_lcore,
        .stages = emit_stages,
        .user = (void *)(uintptr_t)report,
    };
    return telemetry_start(&hooks);
}

void report_stop(void)
{
    telemetry_stop();
}

void report_members(const struct members *members)
{
    uint32_t count = members_count(members);
    struct telemetry_member *list = calloc(count, sizeof(*list));
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        const struct member *m = members_at(members, i);
        list[i] = (struct telemetry_member){
            .id = m->id,
            .tier = m->tier,
            .alive = m->alive,
            .rtt_us = (uint32_t)(m->srtt_ns / NS_PER_US),
            .room = m->facts.room,
            .queue_us = m->facts.queue_us,
        };
        memcpy(list[i].name, m->name, sizeof(list[i].name));
        list[i].name[sizeof(list[i].name) - 1] = '\0';
    }
    telemetry_members(list, list != NULL ? count : 0);
    free(list);
}
