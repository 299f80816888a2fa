/* SPDX-License-Identifier: Apache-2.0 */
/*
 * telemetry.c - see telemetry.h. DPDK's callbacks carry no pointer of ours and cannot be taken
 * back, so the one state of the process is here, under a lock that no lcore ever takes.
 */
#include "dataplane/nic/telemetry.h"

#include <errno.h>
#include <pthread.h>
#include <rte_telemetry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    bool registered;
    bool running;
    struct telemetry_hooks hooks;
    struct telemetry_member *members;
    uint32_t member_count;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- answers ---- */

static void emit_u64(void *out, const char *name, uint64_t value)
{
    rte_tel_data_add_dict_u64(out, name, value);
}

static void emit_stage(void *out, const struct telemetry_stage *stage)
{
    char name[2 * TELEMETRY_NAME_MAX];
    snprintf(name, sizeof(name), "%s/p50_ns", stage->name);
    rte_tel_data_add_dict_u64(out, name, stage->p50_ns);
    snprintf(name, sizeof(name), "%s/p99_ns", stage->name);
    rte_tel_data_add_dict_u64(out, name, stage->p99_ns);
    snprintf(name, sizeof(name), "%s/samples", stage->name);
    rte_tel_data_add_dict_u64(out, name, stage->samples);
}

static void answer_counters(struct rte_tel_data *d)
{
    state.hooks.counters(emit_u64, d, state.hooks.user);
}

static void answer_drops(struct rte_tel_data *d)
{
    state.hooks.drops(emit_u64, d, state.hooks.user);
}

static void answer_stages(struct rte_tel_data *d)
{
    state.hooks.stages(emit_stage, d, state.hooks.user);
}

static int answer_dict(struct rte_tel_data *d, void (*answer)(struct rte_tel_data *d))
{
    rte_tel_data_start_dict(d);
    pthread_mutex_lock(&state.lock);
    if (state.running) {
        answer(d);
    }
    pthread_mutex_unlock(&state.lock);
    return 0;
}

/* ---- commands ---- */

static int on_counters(const char *command, const char *params, struct rte_tel_data *d)
{
    (void)command;
    (void)params;
    return answer_dict(d, answer_counters);
}

static int on_drops(const char *command, const char *params, struct rte_tel_data *d)
{
    (void)command;
    (void)params;
    return answer_dict(d, answer_drops);
}

static int on_stages(const char *command, const char *params, struct rte_tel_data *d)
{
    (void)command;
    (void)params;
    return answer_dict(d, answer_stages);
}

static int on_lcores(const char *command, const char *params, struct rte_tel_data *d)
{
    (void)command;
    (void)params;
    rte_tel_data_start_array(d, RTE_TEL_U64_VAL);
    pthread_mutex_lock(&state.lock);
    for (uint32_t i = 0; state.running && i < state.hooks.lcores; i++) {
        rte_tel_data_add_array_u64(d, i);
    }
    pthread_mutex_unlock(&state.lock);
    return 0;
}

static int on_lcore(const char *command, const char *params, struct rte_tel_data *d)
{
    char *end = NULL;
    int rc = -EINVAL;
    (void)command;
    if (params == NULL || params[0] < '0' || params[0] > '9') {
        return -EINVAL;
    }
    unsigned long lcore = strtoul(params, &end, 10);
    rte_tel_data_start_dict(d);
    pthread_mutex_lock(&state.lock);
    if (*end == '\0' && state.running && lcore < state.hooks.lcores) {
        state.hooks.lcore((uint32_t)lcore, emit_u64, d, state.hooks.user);
        rc = 0;
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

static int on_members(const char *command, const char *params, struct rte_tel_data *d)
{
    (void)command;
    (void)params;
    rte_tel_data_start_array(d, RTE_TEL_STRING_VAL);
    pthread_mutex_lock(&state.lock);
    for (uint32_t i = 0; i < state.member_count; i++) { /* DPDK takes the first 512 */
        rte_tel_data_add_array_string(d, state.members[i].name);
    }
    pthread_mutex_unlock(&state.lock);
    return 0;
}

static int on_member(const char *command, const char *params, struct rte_tel_data *d)
{
    int rc = -EINVAL;
    (void)command;
    rte_tel_data_start_dict(d);
    pthread_mutex_lock(&state.lock);
    for (uint32_t i = 0; params != NULL && i < state.member_count; i++) {
        const struct telemetry_member *m = &state.members[i];
        if (strcmp(m->name, params) != 0) {
            continue;
        }
        rte_tel_data_add_dict_string(d, "name", m->name);
        rte_tel_data_add_dict_u64(d, "id", m->id);
        rte_tel_data_add_dict_u64(d, "tier", m->tier);
        rte_tel_data_add_dict_u64(d, "alive", m->alive);
        rte_tel_data_add_dict_u64(d, "rtt_us", m->rtt_us);
        rte_tel_data_add_dict_u64(d, "room", m->room);
        rte_tel_data_add_dict_u64(d, "queue_us", m->queue_us);
        rc = 0;
        break;
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

static const struct {
    const char *command;
    telemetry_cb fn;
    const char *help;
} commands[] = {
    {"/weft/counters", on_counters, "What the packet path did, all lcores together."},
    {"/weft/drops", on_drops, "Packets let go of, by reason."},
    {"/weft/stages", on_stages, "Nanoseconds per burst in each stage."},
    {"/weft/lcores", on_lcores, "Numbers of the lcores."},
    {"/weft/lcore", on_lcore, "Figures of one lcore. Parameters: number"},
    {"/weft/members", on_members, "Names of the mesh's nodes."},
    {"/weft/member", on_member, "What is known of one node. Parameters: name"},
};

/* ---- life ---- */

int telemetry_start(const struct telemetry_hooks *hooks)
{
    int rc = 0;
    pthread_mutex_lock(&state.lock);
    state.hooks = *hooks;
    state.running = true;
    bool registered = state.registered;
    state.registered = true;
    pthread_mutex_unlock(&state.lock);
    for (size_t i = 0; !registered && i < sizeof(commands) / sizeof(commands[0]); i++) {
        int one = rte_telemetry_register_cmd(commands[i].command, commands[i].fn, commands[i].help);
        rc = one != 0 ? one : rc;
    }
    return rc;
}

void telemetry_stop(void)
{
    pthread_mutex_lock(&state.lock);
    state.running = false;
    free(state.members);
    state.members = NULL;
    state.member_count = 0;
    pthread_mutex_unlock(&state.lock);
}

void telemetry_members(const struct telemetry_member *members, uint32_t count)
{
    struct telemetry_member *copy = count > 0 ? malloc(count * sizeof(*copy)) : NULL;
    if (copy != NULL) {
        memcpy(copy, members, count * sizeof(*copy));
        for (uint32_t i = 0; i < count; i++) {
            copy[i].name[TELEMETRY_NAME_MAX - 1] = '\0';
        }
    }
    pthread_mutex_lock(&state.lock);
    free(state.members);
    state.members = copy;
    state.member_count = copy != NULL ? count : 0;
    pthread_mutex_unlock(&state.lock);
}
