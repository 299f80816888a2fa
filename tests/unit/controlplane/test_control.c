/* SPDX-License-Identifier: Apache-2.0 */
/* test_control.c - controlplane/control.c: two control threads on loopback addresses find each
 * other, tell each other their facts, answer `status`, and notice when the other stops; by beacons
 * and by gossip. */
#include "controlplane/control.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/keys/keys.h"
#include "controlplane/loop/loop.h"
#include "schemas/base/addr.h"
#include "tests/unit/loop_suite.h"

#define NODES     2u
#define STRANGERS 64u
#define WAIT_MS   20000u /* far more than needed: a slow machine is no failure */

struct node {
    struct config config;
    struct control *control;
    pthread_t thread;
    _Atomic unsigned room;      /* published by local_facts */
    _Atomic unsigned published; /* calls of on_members */
    _Atomic unsigned ticks;
    _Atomic unsigned peers_up; /* as of the last on_members */
    _Atomic unsigned peer_room;
    _Atomic uint64_t peer_rtt_ns;
    _Atomic uint64_t last_ns;
    _Atomic bool too_often;
    _Atomic bool peer_left;
    _Atomic bool busy; /* answered while draining */
    _Atomic bool drained, draining;
    _Atomic unsigned asked;
    _Atomic uint32_t wants; /* a way to that node; 0 = none */
    _Atomic int way_fd;     /* that has come, or stands */
    bool touch_each_tick;
};

static char folder[64];
static struct config_member members[NODES];
static struct node nodes[NODES];

static void on_members(const struct members *table, uint64_t now_ns, void *user)
{
    struct node *node = user;
    const struct member *peer = members_at(table, 1 - members_self(table));
    if (node->last_ns != 0 && now_ns - node->last_ns < CONTROL_PUBLISH_NS) {
        node->too_often = true;
    }
    node->last_ns = now_ns;
    node->peers_up = peer->alive;
    node->peer_room = peer->facts.room;
    node->peer_rtt_ns = peer->srtt_ns;
    node->published++;
}

static void local_facts(struct members_facts *facts, void *user)
{
    struct node *node = user;
    facts->room = (uint16_t)node->room;
    strcpy(facts->backend, "cpu");
    facts->model_count = 1;
    strcpy(facts->models[0].name, "smollm2-135m-instruct");
}

static void add_status(json_t *status, void *user)
{
    (void)user;
    json_object_set_new(status, "mbufs_in_use", json_integer(7));
}

static void on_tick(uint64_t now_ns, void *user)
{
    struct node *node = user;
    (void)now_ns;
    node->ticks++;
    if (node->touch_each_tick) {
        control_touch(node->control);
    }
}

static void *control_thread(void *user)
{
    struct node *node = user;
    ck_assert_int_eq(control_run(node->control), 0);
    return NULL;
}

/* Loopback has addresses for each process: nobody else's ports are in the way. */
static uint32_t host_of(uint32_t i)
{
    return INADDR_LOOPBACK + (((uint32_t)getpid() & 0xffff) << 8) + i;
}

/* A port whose successor is free too, or as good as: the kernel's choice for an odd one out. */
static uint32_t free_port(void)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host_of(0))};
    socklen_t len = sizeof(own);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&own, &len), 0);
    close(fd);
    return ntohs(own.sin_port) - 1u;
}

static void setup(void)
{
    uint32_t port = free_port();
    strcpy(folder, "/tmp/weft-control-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    memset(nodes, 0, sizeof(nodes));
    memset(members, 0, sizeof(members));
    for (uint32_t i = 0; i < NODES; i++) {
        struct config *config = &nodes[i].config;
        members[i].id = 1 + i;
        snprintf(members[i].name, sizeof(members[i].name), "node%u", i);
        members[i].address = addr_of_v4(htonl(host_of(i)));
        members[i].tier = i;
        strcpy(config->node, members[i].name);
        config->data_port = port;
        config->members = members;
        config->member_count = NODES;
        config->self = i;
        snprintf(config->sockets.admin, sizeof(config->sockets.admin), "%s/%u.sock", folder, i);
    }
}

static void teardown(void)
{
    rmdir(folder);
}

static void node_create(uint32_t i)
{
    struct control_hooks hooks = {.on_members = on_members,
                                  .local_facts = local_facts,
                                  .add_status = add_status,
                                  .on_tick = on_tick,
                                  .user = &nodes[i]};
    ck_assert_int_eq(control_create(&nodes[i].control, &nodes[i].config, NULL, &hooks), 0);
}

static void node_start(uint32_t i)
{
    node_create(i);
    ck_assert_int_eq(pthread_create(&nodes[i].thread, NULL, control_thread, &nodes[i]), 0);
}

static void node_stop(uint32_t i)
{
    control_stop(nodes[i].control);
    pthread_join(nodes[i].thread, NULL);
    control_destroy(nodes[i].control);
    nodes[i].control = NULL;
}

#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        unsigned waited_ms = 0;                                                                    \
        while (!(condition)) {                                                                     \
            ck_assert_msg(waited_ms < WAIT_MS, "waited in vain for " #condition);                  \
            usleep(1000);                                                                          \
            waited_ms++;                                                                           \
        }                                                                                          \
    } while (0)

static json_t *status_of(uint32_t i)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    static char data[65536];
    size_t used = 0;
    strcpy(address.sun_path, nodes[i].config.sockets.admin);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(send(fd, "status\n", 7, 0), 7);
    for (ssize_t got; (got = recv(fd, data + used, sizeof(data) - used, 0)) > 0;) {
        used += (size_t)got;
    }
    close(fd);
    return json_loadb(data, used, 0, NULL);
}

START_TEST(two_nodes)
{
    nodes[0].room = 5;
    nodes[1].room = 6;
    node_start(0);
    node_start(1);
    WAIT_UNTIL(nodes[0].peers_up && nodes[1].peers_up);
    WAIT_UNTIL(nodes[0].peer_room == 6 && nodes[1].peer_room == 5);
    WAIT_UNTIL(nodes[0].peer_rtt_ns > 0 && nodes[1].peer_rtt_ns > 0);
    WAIT_UNTIL(nodes[0].ticks > 2);
    struct in_addr host = {htonl(host_of(1))};
    char address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &host, address, sizeof(address));
    json_t *status = status_of(0);
    ck_assert_ptr_nonnull(status);
    ck_assert_str_eq(json_string_value(json_object_get(status, "node")), "node0");
    ck_assert_int_eq(json_integer_value(json_object_get(status, "mbufs_in_use")), 7);
    json_t *peer = json_array_get(json_object_get(status, "members"), 1);
    ck_assert_str_eq(json_string_value(json_object_get(peer, "name")), "node1");
    ck_assert_str_eq(json_string_value(json_object_get(peer, "address")), address);
    ck_assert(json_is_true(json_object_get(peer, "alive")));
    ck_assert_int_eq(json_integer_value(json_object_get(peer, "room")), 6);
    ck_assert(json_real_value(json_object_get(peer, "rtt_us")) > 0);
    json_t *models = json_object_get(peer, "models");
    ck_assert_str_eq(json_string_value(json_array_get(models, 0)), "smollm2-135m-instruct");
    json_decref(status);
    node_stop(1);
    WAIT_UNTIL(!nodes[0].peers_up);
    /* Back, with a sequence that begins anew. */
    node_start(1);
    WAIT_UNTIL(nodes[0].peers_up);
    ck_assert(!nodes[0].too_often);
    node_stop(1);
    node_stop(0);
    ck_assert_int_eq(access(nodes[0].config.sockets.admin, F_OK), -1);
}
END_TEST

struct poke {
    struct control *control;
    struct node *node;
    unsigned calls;
};

/* As the worker port does it: something readable, facts change, a touch. */
static void poked(int fd, void *user)
{
    struct poke *poke = user;
    uint64_t count;
    ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
    poke->calls++;
    poke->node->room = 9;
    control_touch(poke->control);
    control_touch(poke->control);
    control_unwatch(poke->control, fd);
    close(fd);
}

START_TEST(watch_and_touch)
{
    struct poke poke = {.node = &nodes[0]};
    int fd = eventfd(1, EFD_NONBLOCK);
    node_create(0);
    poke.control = nodes[0].control;
    ck_assert_int_eq(control_watch(poke.control, fd, poked, &poke), 0);
    ck_assert_int_eq(control_watch(poke.control, fd, poked, &poke), -EEXIST);
    node_start(1);
    ck_assert_int_eq(pthread_create(&nodes[0].thread, NULL, control_thread, &nodes[0]), 0);
    WAIT_UNTIL(nodes[1].peer_room == 9);
    node_stop(0);
    node_stop(1);
    ck_assert_uint_eq(poke.calls, 1);
}
END_TEST

/* Ticks come 2.5 times as often as beacons: only touching makes a beacon for each of them. */
START_TEST(touch_sends_early)
{
    nodes[0].touch_each_tick = true;
    node_start(0);
    WAIT_UNTIL(nodes[0].ticks >= 20);
    control_stop(nodes[0].control);
    pthread_join(nodes[0].thread, NULL);
    const struct members *table = control_members(nodes[0].control);
    ck_assert_uint_ge(members_counters(table)->beacons_sent + 2, nodes[0].ticks);
    control_destroy(nodes[0].control);
}
END_TEST

START_TEST(create_fails_cleanly)
{
    struct control *control;
    struct control_hooks hooks = {0};
    node_start(0);
    ck_assert_int_eq(control_create(&control, &nodes[0].config, NULL, &hooks), -EADDRINUSE);
    ck_assert_ptr_null(control);
    node_stop(0);
    members[0].address = addr_of_v4(htonl(0xc6336401)); /* 198.51.100.1: no machine has it */
    ck_assert_int_eq(control_create(&control, &nodes[0].config, NULL, &hooks), -EADDRNOTAVAIL);
    control_destroy(NULL);
}
END_TEST

/* ---- gossip ---- */

/* A machine that has only ever read its configuration: node 0 is the seed of both. */
static void gossip_prepare(uint32_t i)
{
    static struct config_member own[NODES];
    struct config *config = &nodes[i].config;
    own[i] = members[i];
    own[i].id = WEFT_NODE_NONE;
    config->gossip = true;
    config->members = &own[i];
    config->member_count = 1;
    config->self = 0;
    config->seed_count = 1;
    config->seeds[0] =
        (struct config_seed){.address = members[0].address, .port = config_control_port(config)};
    snprintf(config->identity, sizeof(config->identity), "%s/%u.key", folder, i);
    snprintf(config->mesh_key, sizeof(config->mesh_key), "%s/mesh.key", folder);
}

static void on_members_gossip(const struct members *table, uint64_t now_ns, void *user)
{
    struct node *node = user;
    (void)now_ns;
    unsigned up = 0;
    for (uint32_t i = 0; i < members_count(table); i++) {
        if (i != members_self(table)) {
            up += members_at(table, i)->alive ? 1 : 0;
            node->peer_room = members_at(table, i)->facts.room;
            node->peer_left = members_at(table, i)->state == MEMBER_LEFT;
        }
    }
    node->peers_up = up;
}

static bool busy(uint64_t now_ns, void *user)
{
    struct node *node = user;
    (void)now_ns;
    node->asked++;
    return node->busy;
}

static void on_drained(void *user)
{
    struct node *node = user;
    node->drained = true;
}

static void wants_tick(uint64_t now_ns, void *user)
{
    struct node *node = user;
    (void)now_ns;
    if (node->wants != 0) {
        ck_assert_int_eq(control_way_want(node->control, (uint16_t)node->wants, 3, 4, 5), 0);
        node->wants = 0;
    }
}

static int way_taken(uint32_t model, uint32_t arithmetic, void *user)
{
    (void)user;
    return model == 3 && arithmetic == 4 ? 0 : -ESTALE;
}

static void way_stands(const struct control_way *way, void *user)
{
    struct node *node = user;
    node->way_fd = way->status == 0 ? way->fd : way->status;
}

static void gossip_start(uint32_t i)
{
    struct keys keys;
    struct control_hooks hooks = {.on_members = on_members_gossip,
                                  .local_facts = local_facts,
                                  .on_tick = wants_tick,
                                  .busy = busy,
                                  .way_taken = way_taken,
                                  .on_way = way_stands,
                                  .on_way_done = way_stands,
                                  .on_drained = on_drained,
                                  .user = &nodes[i]};
    ck_assert_int_eq(control_prepare(&nodes[i].config, &keys, false), 0);
    ck_assert_int_eq(control_create(&nodes[i].control, &nodes[i].config, &keys, &hooks), 0);
    ck_assert_int_eq(pthread_create(&nodes[i].thread, NULL, control_thread, &nodes[i]), 0);
}

static void gossip_files_remove(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        unlink(nodes[i].config.identity);
    }
    unlink(nodes[0].config.mesh_key);
}

/* They find each other; one leaves: the other knows while the first still serves. */
START_TEST(gossip_and_good_bye)
{
    char why[KEYS_WHY_MAX];
    gossip_prepare(0);
    gossip_prepare(1);
    ck_assert_int_eq(keys_mesh_make(nodes[0].config.mesh_key, why), 0);
    nodes[0].room = 5;
    nodes[1].room = 6;
    gossip_start(0);
    gossip_start(1);
    ck_assert_uint_ne(nodes[0].config.members[0].id, nodes[1].config.members[0].id);
    WAIT_UNTIL(nodes[0].peers_up == 1 && nodes[1].peers_up == 1);
    WAIT_UNTIL(nodes[0].peer_room == 6 && nodes[1].peer_room == 5);
    json_t *status = status_of(1);
    ck_assert_str_eq(json_string_value(json_object_get(status, "membership")), "gossip");
    ck_assert(json_is_false(json_object_get(status, "leaving")));
    json_decref(status);
    nodes[1].busy = true;
    control_drain(nodes[1].control);
    WAIT_UNTIL(nodes[0].peer_left);
    WAIT_UNTIL(nodes[1].asked > 20); /* two seconds' worth: longer than the good-bye takes */
    ck_assert(!nodes[1].drained);
    status = status_of(1);
    ck_assert(json_is_true(json_object_get(status, "leaving")));
    json_decref(status);
    nodes[1].busy = false;
    WAIT_UNTIL(nodes[1].drained);
    node_stop(1);
    /* Nobody is left who could be told. */
    control_drain(nodes[0].control);
    WAIT_UNTIL(nodes[0].drained);
    node_stop(0);
    gossip_files_remove();
}
END_TEST

static int stranger_of(uint32_t i)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(config_control_port(&nodes[i].config)),
                             .sin_addr.s_addr = htonl(host_of(i))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* Whoever connects and says nothing is in nobody's way, neither where he calls nor where others are
 * called from. */
START_TEST(strangers_keep_nobody_out)
{
    char why[KEYS_WHY_MAX];
    int strangers[STRANGERS];
    char byte;
    gossip_prepare(0);
    gossip_prepare(1);
    ck_assert_int_eq(keys_mesh_make(nodes[0].config.mesh_key, why), 0);
    gossip_start(0);
    gossip_start(1);
    WAIT_UNTIL(nodes[0].peers_up == 1 && nodes[1].peers_up == 1);
    for (uint32_t i = 0; i < STRANGERS; i++) {
        strangers[i] = stranger_of(i % NODES);
    }
    nodes[1].wants = nodes[0].config.members[0].id;
    WAIT_UNTIL(nodes[0].way_fd != 0 && nodes[1].way_fd != 0);
    ck_assert_int_gt(nodes[0].way_fd, 0);
    ck_assert_int_gt(nodes[1].way_fd, 0);
    ck_assert_int_eq(send(nodes[1].way_fd, "x", 1, 0), 1);
    WAIT_UNTIL(recv(nodes[0].way_fd, &byte, 1, MSG_DONTWAIT) == 1);
    for (uint32_t i = 0; i < STRANGERS; i++) {
        close(strangers[i]);
    }
    for (uint32_t i = 0; i < NODES; i++) {
        close(nodes[i].way_fd);
        node_stop(i);
    }
    gossip_files_remove();
}
END_TEST

START_TEST(keys_are_needed)
{
    struct keys keys;
    gossip_prepare(0);
    ck_assert_int_eq(control_prepare(&nodes[0].config, &keys, false), -ENOENT);
    ck_assert_int_eq(control_prepare(&nodes[0].config, &keys, true), 0); /* but for --insecure */
    ck_assert_uint_eq(keys.mesh_count, 1);
    uint32_t id = nodes[0].config.members[0].id;
    ck_assert_uint_lt(id, WEFT_NODE_NONE);
    nodes[0].config.members[0].id = WEFT_NODE_NONE;
    ck_assert_int_eq(control_prepare(&nodes[0].config, &keys, true), 0);
    ck_assert_uint_eq(nodes[0].config.members[0].id, id); /* it follows from the identity */
    gossip_files_remove();
}
END_TEST

static void on_drain(uint64_t now_ns, void *user)
{
    struct node *node = user;
    (void)now_ns;
    node->draining = true;
}

/* In a static mesh there is nobody to say good-bye to; what is under way is waited for. */
START_TEST(static_drains_without_good_bye)
{
    struct control_hooks hooks = {
        .drain = on_drain, .busy = busy, .on_drained = on_drained, .user = &nodes[0]};
    nodes[0].busy = true;
    ck_assert_int_eq(control_create(&nodes[0].control, &nodes[0].config, NULL, &hooks), 0);
    ck_assert_int_eq(pthread_create(&nodes[0].thread, NULL, control_thread, &nodes[0]), 0);
    control_drain(nodes[0].control);
    WAIT_UNTIL(nodes[0].draining && nodes[0].asked > 3);
    ck_assert(!nodes[0].drained);
    json_t *status = status_of(0);
    ck_assert(json_is_true(json_object_get(status, "leaving")));
    json_decref(status);
    nodes[0].busy = false;
    WAIT_UNTIL(nodes[0].drained);
    node_stop(0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *tcase = tcase_create("control");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, two_nodes);
    tcase_add_test(tcase, watch_and_touch);
    tcase_add_test(tcase, touch_sends_early);
    tcase_add_test(tcase, create_fails_cleanly);
    tcase_set_timeout(tcase, WAIT_MS / 1000);
    tcase_add_test(tcase, gossip_and_good_bye);
    tcase_add_test(tcase, strangers_keep_nobody_out);
    tcase_add_test(tcase, keys_are_needed);
    tcase_add_test(tcase, static_drains_without_good_bye);
    suite_add_tcase(suite, tcase);
    return loop_suite_main(suite);
}
