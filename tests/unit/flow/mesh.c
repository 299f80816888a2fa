/* SPDX-License-Identifier: Apache-2.0 */
/* mesh.c - the network and the clock of mesh.h. */
#include "tests/unit/flow/mesh.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define HOP_NS    NS_PER_MS /* the shortest way between two ends */
#define STILL_MAX 10000u    /* turns at the same time */

/* ---- packets in flight: a heap by time of arrival ---- */

static bool packet_before(const struct mesh_packet *a, const struct mesh_packet *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void packet_push(struct mesh *m, struct mesh_packet *p)
{
    if (m->packet_count == m->packet_capacity) {
        m->packet_capacity = m->packet_capacity != 0 ? 2 * m->packet_capacity : 64;
        m->packets = realloc(m->packets, m->packet_capacity * sizeof(struct mesh_packet *));
    }
    uint32_t i = m->packet_count++;
    while (i > 0 && packet_before(p, m->packets[(i - 1) / 2])) {
        m->packets[i] = m->packets[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->packets[i] = p;
}

static struct mesh_packet *packet_pop(struct mesh *m)
{
    struct mesh_packet *first = m->packets[0];
    struct mesh_packet *last = m->packets[--m->packet_count];
    uint32_t i = 0;
    for (uint32_t child = 1; child < m->packet_count; child = 2 * i + 1) {
        if (child + 1 < m->packet_count &&
            packet_before(m->packets[child + 1], m->packets[child])) {
            child++;
        }
        if (!packet_before(m->packets[child], last)) {
            break;
        }
        m->packets[i] = m->packets[child];
        i = child;
    }
    m->packets[i] = last;
    return first;
}

void mesh_packet_free(struct mesh_packet *p)
{
    free(p);
}

static bool chance(struct mesh *m, uint32_t permille)
{
    return permille != 0 && rng_below(&m->rng, 1000) < permille;
}

/* Ends lie on a line, the client beside node 0. */
static uint64_t way_ns(uint32_t from, uint32_t to)
{
    uint32_t a = from == MESH_CLIENT ? 0 : from;
    uint32_t b = to == MESH_CLIENT ? 0 : to;
    return HOP_NS * (1 + (a > b ? a - b : b - a));
}

/* One bit: of the version, which the first check sees, or of what a sum covers. */
static void damage(struct mesh *m, struct mesh_packet *p)
{
    uint8_t type = ((const struct weft_hdr *)(const void *)p->data)->type;
    uint32_t begin = type == WEFT_T_RESP ? sizeof(struct weft_rsp) : sizeof(struct weft_req);
    uint32_t at = 0;
    if ((type == WEFT_T_RESP || type == WEFT_T_REQ) && chance(m, 500)) {
        at = begin + rng_below(&m->rng, p->len - begin);
    }
    p->data[at] ^= (uint8_t)(1u << rng_below(&m->rng, 8));
}

void mesh_send(struct mesh *m, uint32_t from, uint32_t to, uint32_t address, const uint8_t *data,
               size_t len)
{
    const struct mesh_config *c = &m->config;
    const struct mesh_link *link = &m->links[from][to];
    ck_assert_uint_le(len, WEFT_DATAGRAM_MAX);
    m->sent_up += from == MESH_CLIENT;
    m->sent_down += to == MESH_CLIENT;
    uint32_t copies = chance(m, c->dup_permille) ? 2 : 1;
    for (uint32_t i = 0; i < copies; i++) {
        if (chance(m, c->loss_permille) || link->cut || (link->mtu != 0 && len > link->mtu)) {
            continue;
        }
        struct mesh_packet *p = malloc(sizeof(*p));
        uint64_t late_ns = c->jitter_ns != 0 ? rng_next(&m->rng) % c->jitter_ns : 0;
        p->at_ns = m->now_ns + way_ns(from, to) + late_ns;
        p->order = m->order++;
        p->from = from;
        p->to = to;
        p->address = address;
        p->len = (uint32_t)len;
        memcpy(p->data, data, len);
        if (chance(m, c->flip_permille)) {
            damage(m, p);
        }
        packet_push(m, p);
    }
}

void mesh_wrong(struct mesh *m, const char *what)
{
    m->wrong = m->wrong != NULL ? m->wrong : what;
}

/* ---- time ---- */

static void arrive(struct mesh *m)
{
    while (m->packet_count != 0 && m->packets[0]->at_ns <= m->now_ns) {
        struct mesh_packet *p = packet_pop(m);
        if (m->links[p->from][p->to].cut) {
            free(p);
        } else if (p->to == MESH_CLIENT) {
            if (p->address == m->address) {
                mesh_client_input(m, p);
            }
            free(p);
        } else {
            mesh_node_input(m, p->to, p);
        }
    }
}

static uint64_t next_ns(const struct mesh *m)
{
    uint64_t next = m->packet_count != 0 ? m->packets[0]->at_ns : MESH_NEVER;
    next = mesh_min(next, mesh_client_due_ns(m));
    next = mesh_min(next, mesh_faults_due_ns(m));
    for (uint32_t i = 0; i < m->config.nodes; i++) {
        next = mesh_min(next, mesh_node_due_ns(&m->nodes[i]));
    }
    if (m->config.cancel_ns > m->now_ns) {
        next = mesh_min(next, m->config.cancel_ns);
    }
    return next;
}

void mesh_play(struct mesh *m, uint64_t limit_ns)
{
    uint32_t still = 0;
    for (uint64_t next = next_ns(m); next != MESH_NEVER && next <= limit_ns && m->wrong == NULL;
         next = next_ns(m)) {
        still = next > m->now_ns ? 0 : still + 1;
        if (still > STILL_MAX) {
            mesh_wrong(m, "time stands still");
        }
        bool cancel = m->now_ns < m->config.cancel_ns && next >= m->config.cancel_ns;
        m->now_ns = next > m->now_ns ? next : m->now_ns;
        arrive(m);
        mesh_faults_tick(m);
        for (uint32_t i = 0; i < m->config.nodes; i++) {
            mesh_node_tick(&m->nodes[i]);
        }
        if (cancel) {
            mesh_client_cancel(m, 1);
        }
        mesh_client_tick(m);
    }
}

/* ---- life ---- */

struct mesh *mesh_create(const struct mesh_config *config)
{
    struct mesh *m = calloc(1, sizeof(*m));
    m->config = *config;
    m->rng.state = config->seed;
    m->now_ns = NS_PER_S;
    m->address = 1;
    for (uint32_t i = 0; i < config->nodes; i++) {
        mesh_node_start(m, i);
    }
    stream_policy_init(&m->policy, config->paths);
    if (config->hedge) {
        m->policy.hedge_purse = STREAM_HEDGE_MAX;
        for (uint32_t i = 0; i < STREAM_HEDGE_SAMPLES; i++) {
            hist_add(&m->policy.first_us, (config->prefill_steps + 1) * config->step_ns / 1000);
        }
    }
    for (uint32_t i = 0; i < config->paths; i++) {
        request_conn_init(&m->conns[i], 0xc0ffee ^ config->seed, 0, 0);
    }
    for (uint32_t i = 0; i < config->streams; i++) {
        mesh_client_open(m, i);
    }
    mesh_faults_token(m);
    return m;
}

void mesh_destroy(struct mesh *m)
{
    while (m->packet_count != 0) {
        free(packet_pop(m));
    }
    free(m->packets);
    mesh_client_close(m);
    for (uint32_t i = 0; i < m->config.nodes; i++) {
        mesh_node_stop(m, i);
    }
    free(m);
}
