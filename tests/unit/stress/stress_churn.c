/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress_churn.c - nodes are removed and added again under load: one thread is an lcore that sends
 * bursts of requests, new ones and repeated ones, through the stages; the other publishes tables
 * without some of the nodes, and with them again, as fast as it can. None may go to a node once the
 * table without it is published (publish_set() has returned) and none may be lost. The real
 * publish.c over the real rte_rcu_qsbr, the real stages. WEFT_CHURN_PACKETS: at least so many.
 */
#include <string.h>

#include "dataplane/nic/publish.h"
#include "stress.h"
#include "tests/unit/route/fixture.h"

#define NODES    32u /* candidates: 2 .. NODES + 1; this node is 1 */
#define STAYS    2u  /* this one is never removed */
#define BURST    ROUTE_BURST_MAX
#define REPEATED 8u /* of a burst: the same requests again, so that they have pins */
#define NOW_NS   10

static struct publish *tables;
static _Atomic bool stop;
static _Atomic bool ended;           /* the lcore's thread, by itself */
static _Atomic bool gone[NODES + 2]; /* by id: no table that may be in use has it */

/* ---- the lcore ---- */

static struct lcore {
    struct route_core *core;
    struct route_frame originals[BURST];
    struct route_frame frames[BURST];
    struct route_packet packets[BURST];
    uint32_t len;
    uint32_t seq;
    uint64_t sent;
    uint64_t moved; /* repeated requests that went to another node than the time before */
    uint16_t last[REPEATED];
    uint64_t to[NODES + 2];
    char failure[128];
} l;

static void make_requests(void)
{
    for (uint32_t i = 0; i < BURST; i++) {
        struct route_packet p;
        uint64_t conn = CONN + i;
        uint16_t y = weft_cell_y(42.0 + i); /* each next to another node */
        fixture_request(&p, &l.originals[i], 1, 64);
        packet_set(&l.originals[i], &l.originals[i].weft.req.h.y, &y, sizeof(y));
        packet_set(&l.originals[i], &l.originals[i].weft.req.h.conn_id, &conn, sizeof(conn));
        fixture_cookie(l.core, &p);
        l.len = p.len;
    }
}

static void next_burst(void)
{
    for (uint32_t i = 0; i < BURST; i++) {
        uint32_t seq = i < REPEATED ? 1 : ++l.seq;
        memcpy(&l.frames[i], &l.originals[i], ROUTE_START_IPV4 + l.len);
        packet_set(&l.frames[i], &l.frames[i].weft.req.h.req_seq, &seq, sizeof(seq));
        l.packets[i] =
            (struct route_packet){.frame = &l.frames[i], .start = ROUTE_START_IPV4, .len = l.len};
    }
}

/* Where each packet of the burst goes; NULL or what is wrong. */
static const char *check_burst(const bool *were_gone)
{
    for (uint32_t i = 0; i < BURST; i++) {
        const struct route_packet *p = &l.packets[i];
        uint16_t id = (uint16_t)ntohl(p->frame->ip.dst);
        if (p->action != ROUTE_SEND || p->to != ROUTE_TO_NODE || id < 2 || id > NODES + 1) {
            snprintf(l.failure, sizeof(l.failure), "a request was lost: action %u, why %u",
                     p->action, p->why);
            return l.failure;
        }
        /* Gone before the burst and after it: never in between, or its table would be older. */
        if (were_gone[id] && atomic_load_explicit(&gone[id], memory_order_acquire)) {
            snprintf(l.failure, sizeof(l.failure), "a request went to node %u, which is gone", id);
            return l.failure;
        }
        if (i < REPEATED) {
            l.moved += l.last[i] != id;
            l.last[i] = id;
        }
        l.to[id]++;
    }
    l.sent += BURST;
    return NULL;
}

static void *lcore_main(void *arg)
{
    (void)arg;
    const char *failure = NULL;
    publish_online(tables, 0);
    while (failure == NULL && !atomic_load_explicit(&stop, memory_order_relaxed)) {
        bool were_gone[NODES + 2];
        for (uint32_t id = 0; id < NODES + 2; id++) {
            were_gone[id] = atomic_load_explicit(&gone[id], memory_order_acquire);
        }
        next_burst();
        const struct route_table *table = publish_get(tables, 0);
        stage_parse(l.core, l.packets, BURST);
        stage_classify(l.core, table, l.packets, BURST, NOW_NS);
        stage_select(l.core, table, l.packets, BURST, NOW_NS);
        stage_rewrite(l.core, table, l.packets, BURST);
        failure = check_burst(were_gone);
        publish_quiescent(tables, 0);
    }
    publish_offline(tables, 0);
    atomic_store(&ended, true);
    return (void *)(uintptr_t)failure;
}

/* ---- the control thread ---- */

static void free_table(void *table)
{
    route_table_destroy(table);
}

static void publish_with(const bool *present, uint64_t generation)
{
    struct route_node nodes[NODES + 1];
    struct route_table *table = NULL;
    uint32_t used = 0;
    nodes[used++] = fixture_node(1, 35.68, 139.69, 1);
    for (uint16_t id = 2; id < NODES + 2; id++) {
        if (present[id]) {
            nodes[used] = fixture_node(id, 40.0 + id, 8.0 + id % 5, (uint8_t)(id % 8));
            nodes[used].room = UINT16_MAX;
            nodes[used++].load_ns = generation; /* fresh: all that was sent has been done */
        }
    }
    ck_assert_int_eq(route_table_create(&table, nodes, used, 1, (uint16_t)generation, false), 0);
    publish_set(tables, table);
}

/* Some go; once that is published none may be sent there. Then they come back. */
static void churn(struct rng *rng, bool *present, uint64_t *generation)
{
    bool leaving[NODES + 2] = {false};
    for (uint32_t n = 1 + rng_below(rng, 20); n > 0; n--) {
        uint32_t id = 2 + rng_below(rng, NODES);
        leaving[id] = id != STAYS;
        present[id] = present[id] && !leaving[id];
    }
    publish_with(present, ++*generation);
    for (uint32_t id = 2; id < NODES + 2; id++) {
        if (leaving[id]) {
            atomic_store_explicit(&gone[id], true, memory_order_release);
        }
    }
    for (uint32_t n = rng_below(rng, 4); n > 0; n--) { /* for a while others change */
        publish_with(present, ++*generation);
    }
    for (uint32_t id = 2; id < NODES + 2; id++) {
        if (leaving[id]) {
            atomic_store_explicit(&gone[id], false, memory_order_seq_cst);
            present[id] = true;
        }
    }
    publish_with(present, ++*generation);
}

static uint64_t packets_wanted(void)
{
    const char *text = getenv("WEFT_CHURN_PACKETS");
    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

START_TEST(nodes_come_and_go_under_load)
{
    struct rng rng = {.state = 3};
    bool present[NODES + 2];
    uint64_t generation = 65000; /* the epoch has 16 bits: it wraps on the way */
    uint64_t rounds = 0;
    pthread_t thread;
    memset(present, 1, sizeof(present));
    l.core = fixture_core(1);
    make_requests();
    ck_assert_int_eq(publish_create(&tables, 1, free_table), 0);
    publish_with(present, generation);
    ck_assert_int_eq(pthread_create(&thread, NULL, lcore_main, NULL), 0);
    uint64_t end_ns = stress_end_ns();
    uint64_t wanted = packets_wanted();
    route_counter *received = &l.core->counters.received;
    while (clock_now_ns() < end_ns || (atomic_load(received) < wanted && !atomic_load(&ended))) {
        churn(&rng, present, &generation);
        rounds++;
    }
    atomic_store(&stop, true);
    stress_join(thread);
    ck_assert_uint_ge(l.sent, wanted);
    ck_assert_uint_gt(l.moved, 0);
    for (uint32_t i = 0; i < ROUTE_DROP_COUNT; i++) {
        ck_assert_msg(l.core->counters.drops[i] == 0, "%s", route_drop_name(i));
    }
    uint32_t used = 0;
    for (uint32_t id = 2; id < NODES + 2; id++) {
        used += l.to[id] != 0;
    }
    ck_assert_uint_gt(used, 1);
    printf("churn: %lu packets to %u nodes, none lost, none to a removed one; %lu tables, %lu "
           "removals, %lu repeated requests moved\n",
           (unsigned long)l.sent, used, (unsigned long)(generation - 65000 + 1),
           (unsigned long)rounds, (unsigned long)l.moved);
    publish_destroy(tables);
    route_core_destroy(l.core);
}
END_TEST

int main(void)
{
    return stress_main("churn", nodes_come_and_go_under_load);
}
