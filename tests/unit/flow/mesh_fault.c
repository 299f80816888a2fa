/* SPDX-License-Identifier: Apache-2.0 */
/* mesh_fault.c - what goes wrong in mesh.h, when, and how long. */
#include "tests/unit/flow/mesh.h"

#define AFTERWARDS_NS (3 * NS_PER_S) /* what lasts to the end is over so much behind it */

static const char *const names[MESH_FAULT_KINDS] = {
    [MESH_HEALTHY] = "healthy",
    [MESH_DIES] = "worker dies",
    [MESH_DIES_UNTOLD] = "node and worker start anew",
    [MESH_FREEZES] = "worker frozen",
    [MESH_NAPS] = "worker frozen for a while",
    [MESH_STALLS] = "model stands still",
    [MESH_PAUSES] = "model pauses",
    [MESH_CUT_SERVER] = "link to the server cut",
    [MESH_CUT_CLIENT] = "link to the client cut",
    [MESH_GARBLES] = "malformed frames",
    [MESH_MISCOUNTS] = "wrong account",
    [MESH_INGRESS_DIES] = "node asked dies",
    [MESH_ADDRESS] = "client's address changes",
    [MESH_MTU] = "large datagrams vanish",
};

const char *mesh_fault_name(enum mesh_fault_kind kind)
{
    return names[kind];
}

/* Who serves stream 0, or the first stream that is served; and which path it goes. */
static void find_victim(const struct mesh *m, struct mesh_fault *f)
{
    f->node = 0;
    f->other = m->policy.path;
    for (uint32_t i = m->config.streams; i-- > 0;) {
        for (uint32_t k = 0; k < STREAM_ATTEMPTS; k++) {
            const struct mesh_attempt *a = m->streams[i].attempts[k];
            if (a != NULL && a->core.server < m->config.nodes) {
                f->node = a->core.server;
                f->other = a->path;
            }
        }
    }
}

/* Ways: 1 = from a to b, 2 = back, 3 = both. */
static void set_links(struct mesh *m, uint32_t a, uint32_t b, uint32_t ways, bool cut, uint32_t mtu)
{
    if ((ways & 1) != 0) {
        m->links[a][b] = (struct mesh_link){cut, mtu};
    }
    if ((ways & 2) != 0) {
        m->links[b][a] = (struct mesh_link){cut, mtu};
    }
}

static void strike_links(struct mesh *m, const struct mesh_fault *f, bool on)
{
    uint32_t ways = 1 + f->variant % 3;
    switch (f->kind) {
    case MESH_CUT_SERVER:
        if (f->node != f->other) {
            set_links(m, f->node, f->other, ways, on, 0);
        }
        break;
    case MESH_CUT_CLIENT:
        set_links(m, MESH_CLIENT, f->other, ways, on, 0);
        break;
    case MESH_MTU: {
        uint32_t a = f->variant % 2 == 0 || f->node == f->other ? MESH_CLIENT : f->node;
        set_links(m, a, f->other, 3, false, on ? 200 + f->variant % 900 : 0);
        break;
    }
    default:
        break;
    }
}

static void strike(struct mesh *m, struct mesh_fault *f)
{
    find_victim(m, f);
    struct mesh_node *n = &m->nodes[f->node];
    n->variant = f->variant;
    strike_links(m, f, true);
    switch (f->kind) {
    case MESH_DIES:
        if (n->serve != NULL) {
            mesh_worker_stop(n, true);
        }
        break;
    case MESH_DIES_UNTOLD:
        mesh_node_stop(m, f->node);
        mesh_node_start(m, f->node);
        break;
    case MESH_FREEZES:
    case MESH_NAPS:
        n->frozen = true;
        break;
    case MESH_STALLS:
    case MESH_PAUSES:
        n->stalled = true;
        break;
    case MESH_GARBLES:
        n->garbles = true;
        break;
    case MESH_MISCOUNTS:
        n->miscounts = true;
        break;
    case MESH_INGRESS_DIES:
        if (m->nodes[f->other].alive) {
            mesh_node_stop(m, f->other);
        }
        break;
    case MESH_ADDRESS:
        m->address++;
        break;
    default:
        break;
    }
}

static void heal(struct mesh *m, struct mesh_fault *f)
{
    struct mesh_node *n = &m->nodes[f->node];
    strike_links(m, f, false);
    switch (f->kind) {
    case MESH_DIES:
        if (n->serve == NULL && n->alive) {
            mesh_worker_start(n);
        }
        break;
    case MESH_FREEZES:
    case MESH_NAPS:
        mesh_worker_thaw(n);
        break;
    case MESH_STALLS:
    case MESH_PAUSES:
        n->stalled = false;
        break;
    case MESH_INGRESS_DIES:
        if (!m->nodes[f->other].alive) {
            mesh_node_start(m, f->other);
        }
        break;
    default:
        break;
    }
}

void mesh_faults_token(struct mesh *m)
{
    for (uint32_t i = 0; i < m->config.fault_count; i++) {
        struct mesh_fault *f = &m->config.faults[i];
        if (!f->armed && m->streams[0].delivered >= f->token) {
            f->armed = true;
            f->at_ns = m->now_ns + f->wait_ns;
        }
    }
}

static uint64_t heal_at_ns(const struct mesh *m, const struct mesh_fault *f)
{
    uint64_t end = m->all_ended_ns != 0 ? m->all_ended_ns + AFTERWARDS_NS : MESH_NEVER;
    return mesh_min(f->heal_at_ns, end);
}

void mesh_faults_tick(struct mesh *m)
{
    for (uint32_t i = 0; i < m->config.fault_count; i++) {
        struct mesh_fault *f = &m->config.faults[i];
        if (f->armed && !f->struck && m->now_ns >= f->at_ns) {
            f->struck = true;
            f->heal_at_ns = f->heal_ns != MESH_NEVER ? m->now_ns + f->heal_ns : MESH_NEVER;
            strike(m, f);
        }
        if (f->struck && !f->healed && m->now_ns >= heal_at_ns(m, f)) {
            f->healed = true;
            heal(m, f);
        }
    }
}

uint64_t mesh_faults_due_ns(const struct mesh *m)
{
    uint64_t due = MESH_NEVER;
    for (uint32_t i = 0; i < m->config.fault_count; i++) {
        const struct mesh_fault *f = &m->config.faults[i];
        if (f->armed && !f->struck) {
            due = mesh_min(due, f->at_ns);
        } else if (f->struck && !f->healed) {
            due = mesh_min(due, heal_at_ns(m, f));
        }
    }
    return due;
}
