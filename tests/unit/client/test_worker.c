/* SPDX-License-Identifier: Apache-2.0 */
/* test_worker.c - worker.c against weftd's own end of the port, and against ends that lie. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <weft/worker.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/port/port.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

/* Two ends in one thread: attach runs in another only for the handshake. */
struct pair {
    char path[64];
    int listener;
    weft_worker_t *worker;
    int attach_rc;
    struct port *port;
    uint32_t jobs;
    uint32_t cancels;
    weft_job_t *job;
};

static int on_job(weft_worker_t *worker, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    (void)worker;
    (void)view;
    struct pair *p = user;
    p->jobs++;
    p->job = job;
    return 0;
}

static void on_cancel(weft_worker_t *worker, weft_job_t *job, void *user)
{
    (void)worker;
    (void)job;
    ((struct pair *)user)->cancels++;
}

static int attach(struct pair *p)
{
    weft_worker_facts_t facts = {.model = "m",
                                 .backend = "cpu",
                                 .context_tokens = 2048,
                                 .prefill_per_second = 500,
                                 .decode_per_second = 80};
    weft_load_t load = {.room = 3, .queue_us = 9, .free_vram_mib = 640};
    weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel, .user = p};
    return weft_worker_attach(&p->worker, p->path, &facts, &load, &callbacks);
}

static void *attach_main(void *arg)
{
    struct pair *p = arg;
    p->attach_rc = attach(p);
    return NULL;
}

static void pair_listen(struct pair *p)
{
    memset(p, 0, sizeof(*p));
    snprintf(p->path, sizeof(p->path), "/tmp/weft-pair-%d", getpid());
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    memcpy(local.sun_path, p->path, sizeof(p->path));
    p->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    unlink(p->path);
    ck_assert_int_eq(bind(p->listener, (struct sockaddr *)&local, sizeof(local)), 0);
    ck_assert_int_eq(listen(p->listener, 4), 0);
}

static void pair_open(struct pair *p)
{
    pair_listen(p);
    pthread_t thread;
    pthread_create(&thread, NULL, attach_main, p);
    int fd = accept(p->listener, NULL, NULL);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
    struct port_self self = {12, 4, "node"};
    ck_assert_int_eq(port_open(&p->port, fd, &self), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(p->attach_rc, 0);
}

static void pair_close(struct pair *p)
{
    weft_worker_destroy(p->worker);
    port_destroy(p->port);
    close(p->listener);
    unlink(p->path);
}

static uint32_t make_req(uint8_t *out, uint32_t seq)
{
    struct prompt_spec spec = {.text = "hi", .text_len = 2, .max_tokens = 3, .top_p = 1.0f};
    struct weft_req req;
    memset(&req, 0, sizeof(req));
    req.h.ver_fmt = WEFT_VER_FMT;
    req.h.type = WEFT_T_REQ;
    req.h.hdr_words = WEFT_REQ_WORDS;
    req.h.flags = WEFT_F_RELAYED;
    req.h.conn_id = 3;
    req.h.req_seq = seq;
    req.h.msg_len = (uint32_t)prompt_size(&spec);
    req.h.budget_us = WEFT_BUDGET_NONE;
    memcpy(out, &req, sizeof(req));
    prompt_write(&spec, out + sizeof(req));
    return (uint32_t)(sizeof(req) + prompt_size(&spec));
}

START_TEST(handshake_and_one_job)
{
    struct pair p;
    pair_open(&p);
    ck_assert_str_eq(p.port->facts.model, "m");
    ck_assert_str_eq(p.port->facts.backend, "cpu");
    ck_assert_uint_eq(p.port->facts.context_tokens, 2048);
    ck_assert_uint_eq(weft_worker_node(p.worker)->id, 12);
    ck_assert_uint_eq(weft_worker_node(p.worker)->tier, 4);
    ck_assert_uint_eq(port_load_now(p.port).room, 3);
    ck_assert_uint_eq(port_load_now(p.port).free_vram_64mib, 10);
    ck_assert_int_eq(weft_worker_timeout_ms(p.worker), -1);
    struct pollfd pfd = {.fd = weft_worker_fd(p.worker), .events = POLLIN};
    ck_assert_int_eq(poll(&pfd, 1, 0), 0);

    uint8_t data[WEFT_DATAGRAM_MAX];
    ck_assert(port_push(p.port, data, make_req(data, 1)));
    port_flush(p.port);
    ck_assert_int_eq(poll(&pfd, 1, 1000), 1); /* woken by the eventfd */
    ck_assert_int_eq(weft_worker_process(p.worker), 0);
    ck_assert_uint_eq(p.jobs, 1);
    ck_assert_uint_eq(port_load_now(p.port).room, 2);
    ck_assert_int_eq(poll(&pfd, 1, 0), 0); /* asleep again */
    ck_assert_uint_ge(port_pop(p.port, data, sizeof(data)), sizeof(struct weft_rsp));
    ck_assert_int_eq(data[1], WEFT_T_GRANT);

    weft_job_set_user(p.job, &p);
    ck_assert_ptr_eq(weft_job_user(p.job), &p);
    ck_assert_int_eq(weft_job_emit(p.job, 1, "tok", 3), 0);
    ck_assert_int_eq(weft_worker_timeout_ms(p.worker), 0);
    ck_assert(ring_sleep_begin(&p.port->to_node));
    ck_assert_int_eq(weft_worker_process(p.worker), 0);
    uint64_t wakes = 0;
    ck_assert_int_eq(read(p.port->wake_node_fd, &wakes, sizeof(wakes)), sizeof(wakes));
    ck_assert_uint_eq(wakes, 1);
    uint32_t len = port_pop(p.port, data, sizeof(data));
    ck_assert_uint_eq(len, sizeof(struct weft_rsp) + sizeof(struct weft_frame) + 3);
    pair_close(&p);
}
END_TEST

START_TEST(full_ring_loses_nothing)
{
    struct pair p;
    pair_open(&p);
    weft_load_t load = {.room = 65535};
    weft_worker_set_load(p.worker, &load);
    uint8_t data[WEFT_DATAGRAM_MAX];
    uint32_t grants = 0;
    for (uint32_t seq = 1; seq <= 2 * PORT_SLOTS - 100; seq++) {
        if (!port_push(p.port, data, make_req(data, seq))) {
            ck_assert_int_eq(weft_worker_process(p.worker),
                             0); /* the answers fill the other ring */
            ck_assert(port_push(p.port, data, make_req(data, seq)));
        }
    }
    ck_assert_int_eq(weft_worker_process(p.worker), 0);
    ck_assert_int_eq(weft_worker_timeout_ms(p.worker), 1); /* blocked: look again soon */
    for (int round = 0; round < 3; round++) {
        while (port_pop(p.port, data, sizeof(data)) != 0) {
            grants += data[1] == WEFT_T_GRANT;
        }
        ck_assert_int_eq(weft_worker_process(p.worker), 0);
    }
    ck_assert_uint_eq(grants, 2 * PORT_SLOTS - 100);
    ck_assert_uint_eq(p.jobs, 2 * PORT_SLOTS - 100);
    pair_close(&p);
}
END_TEST

START_TEST(hostile_node)
{
    struct pair p;
    pair_open(&p);
    struct rng rng = {8};
    weft_load_t load = {.room = 65535};
    weft_worker_set_load(p.worker, &load);
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t tail = atomic_load(&p.port->shm->to_worker.tail);
        uint32_t at = (tail + rng_below(&rng, 40)) & (PORT_SLOTS - 1);
        struct ring_slot *slot = &p.port->shm->to_worker_slots[at];
        slot->len = rng_below(&rng, 2) == 0 ? (uint32_t)rng_next(&rng) : rng_below(&rng, 1600);
        slot->data[rng_below(&rng, 200)] = (uint8_t)rng_next(&rng);
        if (rng_below(&rng, 3) == 0) {
            slot->len = make_req(slot->data, rng_below(&rng, 1000));
        }
        uint32_t head =
            rng_below(&rng, 50) == 0 ? (uint32_t)rng_next(&rng) : tail + rng_below(&rng, 40);
        atomic_store(&p.port->shm->to_worker.head, head);
        atomic_store(&p.port->shm->to_node.tail, (uint32_t)rng_next(&rng));
        ck_assert_int_eq(weft_worker_process(p.worker), 0);
        (void)weft_worker_timeout_ms(p.worker);
    }
    ck_assert_uint_gt(p.jobs, 50); /* the lies have got as far as the runtime */
    pair_close(&p);
}
END_TEST

START_TEST(node_that_goes_is_noticed)
{
    struct pair p;
    pair_open(&p);
    port_destroy(p.port);
    p.port = NULL;
    struct pollfd pfd = {.fd = weft_worker_fd(p.worker), .events = POLLIN};
    ck_assert_int_eq(poll(&pfd, 1, 1000), 1);
    ck_assert_int_eq(weft_worker_process(p.worker), -EPIPE);
    pair_close(&p);
}
END_TEST

/* What a liar may answer instead of a proper welcome. */
enum lie {
    LIE_MUTE,
    LIE_CLOSE,
    LIE_MAGIC,
    LIE_REFUSE,
    LIE_NO_FDS,
    LIE_MORE_FDS,
    LIE_UNSEALED,
    LIE_SMALL,
    LIES
};

static void lie_send(int fd, enum lie lie)
{
    struct port_welcome w = {.magic = PORT_MAGIC,
                             .version = PORT_VERSION,
                             .size = sizeof(w),
                             .shm_bytes = PORT_SHM_LEAST};
    w.magic += lie == LIE_MAGIC;
    w.status = lie == LIE_REFUSE ? WEFT_E_DRAINING : 0;
    int fds[PORT_FDS + 1] = {memfd_create("lie", MFD_ALLOW_SEALING), eventfd(0, 0), eventfd(0, 0),
                             eventfd(0, 0)};
    const size_t told = (lie == LIE_MORE_FDS ? PORT_FDS + 1 : PORT_FDS) * sizeof(int);
    off_t size = lie == LIE_SMALL ? 4096 : (off_t)sizeof(struct port_shm);
    ck_assert_int_eq(ftruncate(fds[0], size), 0);
    if (lie != LIE_UNSEALED) {
        ck_assert_int_eq(fcntl(fds[0], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    }
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(fds))];
    } control = {0};
    struct iovec iov = {&w, sizeof(w)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (lie != LIE_NO_FDS) {
        msg.msg_control = control.space;
        msg.msg_controllen = CMSG_SPACE(told);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(told);
        memcpy(CMSG_DATA(c), fds, told);
    }
    ck_assert_int_eq(sendmsg(fd, &msg, 0), sizeof(w));
    for (size_t i = 0; i < PORT_FDS + 1; i++) {
        close(fds[i]);
    }
}

static int open_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

START_TEST(lies_are_refused_and_nothing_leaks)
{
    const int want[LIES] = {-ETIMEDOUT, -EPROTO, -EPROTO, WEFT_E_DRAINING,
                            -EPROTO,    -EPROTO, -EPROTO, -EPROTO};
    for (int lie = 0; lie < LIES; lie++) {
        struct pair p;
        pair_listen(&p);
        int before = open_fds();
        pthread_t thread;
        pthread_create(&thread, NULL, attach_main, &p);
        int fd = accept(p.listener, NULL, NULL);
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
        struct port_hello hello;
        ck_assert_int_eq(recv(fd, &hello, sizeof(hello), 0), sizeof(hello));
        if (lie != LIE_MUTE && lie != LIE_CLOSE) {
            lie_send(fd, (enum lie)lie);
        }
        if (lie == LIE_CLOSE) {
            close(fd);
        }
        pthread_join(thread, NULL);
        ck_assert_msg(p.attach_rc == want[lie], "lie %d: %d", lie, p.attach_rc);
        ck_assert_ptr_null(p.worker);
        if (lie != LIE_CLOSE) {
            close(fd);
        }
        ck_assert_int_eq(open_fds(), before);
        close(p.listener);
        unlink(p.path);
    }
}
END_TEST

START_TEST(attach_without_a_node)
{
    struct pair p = {.path = "/tmp/weft-no-such-socket"};
    ck_assert_int_eq(attach(&p), -ENOENT);
    pair_listen(&p);
    close(p.listener);
    ck_assert_int_eq(attach(&p), -ECONNREFUSED);
    unlink(p.path);
    weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel};
    weft_worker_facts_t facts = {.model = NULL, .backend = "cpu"};
    weft_load_t load = {0};
    ck_assert_int_eq(weft_worker_attach(&p.worker, p.path, &facts, &load, &callbacks), -EINVAL);
    facts.model = "two words"; /* no mesh would take it: said here, not found out by silence */
    ck_assert_int_eq(weft_worker_attach(&p.worker, p.path, &facts, &load, &callbacks), -EINVAL);
    facts = (weft_worker_facts_t){.model = "tiny", .backend = "c\npu"};
    ck_assert_int_eq(weft_worker_attach(&p.worker, p.path, &facts, &load, &callbacks), -EINVAL);
    weft_worker_destroy(NULL);
}
END_TEST

/* A node that refuses does so when it likes: before the hello is sent, while it is under way,
 * behind it. Its word arrives all the same. */
START_TEST(refusals_arrive_whenever_they_come)
{
    struct pair p;
    pair_listen(&p);
    for (uint32_t i = 0; i < 300; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, attach_main, &p);
        port_refuse(accept(p.listener, NULL, NULL), -EBUSY);
        pthread_join(thread, NULL);
        ck_assert_int_eq(p.attach_rc, -EBUSY);
    }
    pair_close(&p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client/worker");
    TCase *t = tcase_create("worker");
    tcase_set_timeout(t, 150);
    tcase_add_test(t, handshake_and_one_job);
    tcase_add_test(t, full_ring_loses_nothing);
    tcase_add_test(t, hostile_node);
    tcase_add_test(t, node_that_goes_is_noticed);
    tcase_add_test(t, lies_are_refused_and_nothing_leaks);
    tcase_add_test(t, refusals_arrive_whenever_they_come);
    tcase_add_test(t, attach_without_a_node);
    suite_add_tcase(s, t);
    return suite_main(s);
}
