/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_local.c - local clients that put anything into their rings, and write anything over the
 * indexes that they share with the node, through dataplane/local.c and the stages; replies come
 * from the worker and from another node, true and forged; clients go and others take their slots.
 *
 * An input is a row of steps, each a head and `len` bytes; an empty step is good traffic.
 * Checked: every packet is decided; none is sent to an address of local clients; what is relayed
 * goes to a member and its sum is right; a reply in a client's ring was for that client and
 * generation; a turn takes no more than a burst; a lost client is let go of after a ring full at
 * most.
 */
#include <stdio.h>

#include "tests/unit/port/local_fixture.h"

#define SELF    2u
#define CLIENTS 3u
#define KEPT    4u

enum step_op {
    STEP_SEND,   /* client `who` sends a request, bytes XORed over it */
    STEP_RAW,    /* ... an entry: 4 bytes of length, then what is in it */
    STEP_MEDDLE, /* ... writes a word (4 bytes) over index or flag `mode` */
    STEP_TURN,   /* a turn of the lcore's */
    STEP_REPLY,  /* to a request delivered before, bytes XORed over it */
    STEP_LOST,   /* client `who` is gone, and another has its slot */
    STEP_READ,   /* client `who` reads all that it was given */
    STEP_SLEEP,
    STEP_OPS,
};

struct __attribute__((packed)) step {
    uint8_t op;   /* modulo STEP_OPS */
    uint8_t who;  /* modulo CLIENTS */
    uint8_t mode; /* REPLY: bit 0 from another node, bit 1 its block is sealed after the XOR */
    uint8_t len;
};

static const uint32_t slots[CLIENTS] = {0, 5, PORT_CLIENTS_MAX - 1};
static struct local local;
static struct route_core *core;
static struct route_table *table;
static struct hand_client clients[CLIENTS];
static struct hand_turn turn;
static struct weft_req kept[KEPT];
static uint32_t kept_count, generation;
static uint64_t now_ns;

#define require(what)                                                                              \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "not so: %s\n", #what);                                                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void xor_over(uint8_t *to, size_t room, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size && i < room; i++) {
        to[i] ^= data[i];
    }
}

/* Every input finds the same world. */
static void reset(void)
{
    static const struct seal_master master = {{1, 2, 3}};
    if (core == NULL) {
        core = fixture_core(SELF);
        table = fixture_table(SELF);
    }
    memset(&local, 0, sizeof(local));
    memset(core->pins, 0, ROUTE_PINS * sizeof(*core->pins));
    memset(core->loads, 0, 8 * sizeof(*core->loads));
    memset(&core->counters, 0, sizeof(core->counters));
    seal_init(&core->seal, &master, 1);
    now_ns = 1;
    kept_count = generation = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        if (clients[i].port == NULL) {
            clients[i] = hand_client(&local, slots[i], ++generation);
        } else {
            hand_attach(&clients[i], &local, slots[i], ++generation);
        }
    }
}

/* ---- steps ---- */

static void send_request(struct hand_client *c, const uint8_t *data, size_t size)
{
    struct route_packet p;
    struct route_frame f;
    uint8_t payload[sizeof(struct weft_req) + 32];
    fixture_request(&p, &f, SELF, 32);
    memcpy(payload, &f.weft, sizeof(payload));
    xor_over(payload, sizeof(payload), data, size);
    (void)hand_send(c, payload, sizeof(payload));
}

static void send_raw(struct hand_client *c, const uint8_t *data, size_t size)
{
    struct ring_slot *slot = ring_reserve(&c->out);
    if (slot == NULL || size < sizeof(slot->len)) {
        return;
    }
    memcpy(&slot->len, data, sizeof(slot->len));
    memcpy(slot->data, data + sizeof(slot->len), size - sizeof(slot->len));
    ring_commit(&c->out);
}

static void meddle(struct hand_client *c, uint8_t mode, const uint8_t *data, size_t size)
{
    struct port_client_shm *shm = c->port->shm;
    _Atomic uint32_t *words[] = {&shm->to_node.head,   &shm->to_node.tail,
                                 &shm->to_node.asleep, &shm->to_client.head,
                                 &shm->to_client.tail, &shm->to_client.asleep};
    uint32_t word = 0;
    memcpy(&word, data, size < sizeof(word) ? size : sizeof(word));
    atomic_store(words[mode % 6], word);
}

/* What lies in a client's ring was for it. */
static void check_given(const struct hand_client *c, uint32_t from, uint32_t to)
{
    for (; from != to; from++) {
        const struct ring_slot *slot =
            &c->port->shm->to_client_slots[from & (PORT_CLIENT_SLOTS - 1)];
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)slot->data;
        require(slot->len >= sizeof(*rsp) && slot->len <= WEFT_DATAGRAM_MAX);
        if ((rsp->h.flags & WEFT_F_RELAYED) != 0) {
            struct in6_addr addr = addr_of_v4(htonl(0x7f000000u | c->port->generation));
            require(memcmp(rsp->ret.addr, &addr, sizeof(addr)) == 0);
            require(rsp->ret.port == c->port->slot + 1);
        }
    }
}

static void check_sent(const struct route_packet *p)
{
    require(packet_destination(p).s6_addr[12] != 127);
    if (p->to == ROUTE_TO_NODE) {
        require(goes_to(p, table->nodes[p->next].addr));
        require(p->frame->udp.checksum != 0 && packet_udp_ok(p));
    }
}

/* Gives local clients what is theirs, sends the rest. */
static void deliver(struct route_packet *packets, uint32_t count)
{
    uint32_t before[CLIENTS];
    uint64_t given = atomic_load(&local.local_given);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        before[i] = clients[i].port->to_client.index;
    }
    local_deliver(&local, core, packets, count, (now_ns & 1) != 0);
    local_flush(&local);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        check_given(&clients[i], before[i], clients[i].port->to_client.index);
        sum += clients[i].port->to_client.index - before[i];
    }
    require(atomic_load(&local.local_given) - given == sum);
    stage_rewrite(core, table, packets, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct route_packet *p = &packets[i];
        require(p->action == ROUTE_SEND || p->action == ROUTE_LET_GO || p->action == ROUTE_GONE);
        if (p->action == ROUTE_SEND) {
            check_sent(p);
        }
    }
}

static void take_turn(void)
{
    now_ns += 1000;
    hand_turn(&turn, &local, core, table, now_ns);
    require(turn.count <= HAND_BURST);
    for (uint32_t i = 0; i < turn.count; i++) {
        struct route_packet *p = &turn.packets[i];
        if (p->action == ROUTE_DELIVER) {
            require(packet_udp_ok(p));
            kept[kept_count++ % KEPT] = p->frame->weft.req;
            p->action = ROUTE_GONE;
        }
    }
    deliver(turn.packets, turn.count);
}

static void reply(const struct step *s, const uint8_t *data, size_t size)
{
    static struct hand_place place;
    struct route_frame *f = &place.frame;
    struct route_packet p;
    if (kept_count == 0) {
        return;
    }
    bool far = (s->mode & 1) != 0;
    fixture_reply(&p, f, &kept[(s->mode >> 2) % (kept_count < KEPT ? kept_count : KEPT)],
                  far ? 3 : SELF, WEFT_T_RESP);
    xor_over(f->weft.bytes, p.weft_len, data, size);
    if ((s->mode & 2) != 0) {
        seal_return(&core->seal, &f->weft.rsp.ret, f->weft.rsp.h.conn_id);
    }
    if (far) {
        struct route_host from = fixture_host(node_addr(3), PORT_DATA);
        struct route_hop to = {.port_be = htons(PORT_DATA), .addr = node_addr(SELF)};
        packet_compose(&p, &from, &to);
        stage_parse(core, &p, 1);
    } else {
        stage_parse_worker(core, &p, 1);
    }
    stage_classify(core, table, &p, 1, now_ns);
    stage_select(core, table, &p, 1, now_ns);
    if (p.action == ROUTE_DELIVER) {
        p.action = ROUTE_GONE;
    }
    if ((s->mode & 2) != 0 && p.action == ROUTE_SEND && p.to == ROUTE_TO_CLIENT &&
        !local_bound(&p)) {
        return; /* sealed by this target for somewhere else */
    }
    deliver(&p, 1);
}

static void replace(uint32_t who)
{
    struct hand_client *c = &clients[who];
    atomic_store(&c->port->lost, true);
    for (uint32_t i = 0; !atomic_load(&c->port->released); i++) {
        require(i <= 2 * PORT_CLIENT_SLOTS);
        take_turn();
    }
    hand_attach(c, &local, slots[who], ++generation);
}

static void run_step(const struct step *s, const uint8_t *data, size_t size)
{
    uint32_t who = s->who % CLIENTS;
    switch (s->op % STEP_OPS) {
    case STEP_SEND:
        send_request(&clients[who], data, size);
        break;
    case STEP_RAW:
        send_raw(&clients[who], data, size);
        break;
    case STEP_MEDDLE:
        meddle(&clients[who], s->mode, data, size);
        break;
    case STEP_TURN:
        take_turn();
        break;
    case STEP_REPLY:
        reply(s, data, size);
        break;
    case STEP_LOST:
        replace(who);
        break;
    case STEP_READ:
        while (ring_peek(&clients[who].in) != NULL) {
            ring_release(&clients[who].in);
        }
        break;
    default:
        (void)local_sleep_begin(&local);
        local_sleep_end(&local);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    reset();
    while (size >= sizeof(struct step)) {
        struct step s;
        memcpy(&s, data, sizeof(s));
        data += sizeof(s);
        size -= sizeof(s);
        size_t len = s.len < size ? s.len : size;
        run_step(&s, data, len);
        data += len;
        size -= len;
    }
    take_turn();
    return 0;
}
