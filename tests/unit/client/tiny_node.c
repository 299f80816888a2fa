/* SPDX-License-Identifier: Apache-2.0 */
/* tiny_node.c - see tiny_node.h. */
#include "tests/unit/client/tiny_node.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/base/clock.h"

#define TINY_COOKIE UINT64_C(0xfeedfacecafebeef)

/* ---- the node ---- */

/* To an address, or to the local client (NULL). */
static void node_send(struct tiny_node *n, const void *data, size_t len,
                      const struct sockaddr_in *to)
{
    if (to != NULL) {
        (void)sendto(n->udp, data, len, 0, (const struct sockaddr *)to, sizeof(*to));
    } else if (n->client != NULL) {
        (void)client_port_push(n->client, data, (uint32_t)len);
    }
}

static void node_answer(struct tiny_node *n, const struct weft_req *req, uint8_t type,
                        const void *payload, size_t len, const struct sockaddr_in *to)
{
    uint8_t out[WEFT_DATAGRAM_MAX];
    struct weft_rsp rsp = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = type,
                                 .hdr_words = WEFT_RSP_WORDS,
                                 .conn_id = req->h.conn_id,
                                 .req_seq = req->h.req_seq,
                                 .server = 9}};
    memcpy(out, &rsp, sizeof(rsp));
    if (len != 0) {
        memcpy(out + sizeof(rsp), payload, len);
    }
    node_send(n, out, sizeof(rsp) + len, to);
}

static bool node_lose(struct tiny_node *n)
{
    return rng_below(&n->rng, 1000) < atomic_load(&n->loss_permille);
}

/* A datagram of a client at `from`; NULL = the local one, which needs no cookie. */
static void node_take(struct tiny_node *n, uint8_t *data, size_t len,
                      const struct sockaddr_in *from)
{
    struct weft_req *req = (struct weft_req *)(void *)data;
    uint64_t cookie = TINY_COOKIE;
    if (atomic_load(&n->mute) || node_lose(n) || len < sizeof(struct weft_req)) {
        return;
    }
    if (from != NULL && req->first.cookie != cookie) {
        atomic_fetch_add(&n->cookies, 1);
        node_answer(n, req, WEFT_T_COOKIE, &cookie, sizeof(cookie), from);
        return;
    }
    if (n->port == NULL) {
        node_answer(n, req, WEFT_T_UNKNOWN, NULL, 0, from);
        return;
    }
    req->h.flags |= WEFT_F_RELAYED;
    req->h.origin = 9;
    memset(&req->ret, 0, sizeof(req->ret));
    if (from != NULL) {
        memcpy(req->ret.addr, &from->sin_addr, 4);
        req->ret.port = from->sin_port;
    }
    (void)port_push(n->port, data, (uint32_t)len);
}

static void node_up(struct tiny_node *n)
{
    _Alignas(8) uint8_t data[WEFT_DATAGRAM_MAX];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    ssize_t got;
    while ((got = recvfrom(n->udp, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from,
                           &from_len)) >= 0) {
        node_take(n, data, (size_t)got, &from);
    }
    uint32_t len;
    while (n->client != NULL && (len = client_port_pop(n->client, data, sizeof(data))) != 0) {
        node_take(n, data, len, NULL);
    }
}

static void node_down(struct tiny_node *n)
{
    uint8_t data[WEFT_DATAGRAM_MAX];
    uint32_t len;
    while (n->port != NULL && (len = port_pop(n->port, data, sizeof(data))) != 0) {
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)data;
        if (len < sizeof(*rsp) || node_lose(n) || atomic_load(&n->mute)) {
            continue;
        }
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = rsp->ret.port};
        memcpy(&to.sin_addr, rsp->ret.addr, 4);
        node_send(n, data, len, rsp->ret.port != 0 ? &to : NULL);
    }
    if (n->client != NULL) {
        client_port_flush(n->client);
    }
}

static void node_accept(struct tiny_node *n)
{
    int fd = accept4(n->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    (void)poll(&pfd, 1, 1000);
    struct port_self self = {9, 3, "tiny"};
    int rc = -EPROTO;
    switch (port_kind(fd)) {
    case PORT_KIND_WORKER:
        rc = n->port == NULL ? port_open(&n->port, fd, &self) : -EBUSY;
        break;
    case PORT_KIND_CLIENT:
        client_port_destroy(n->client);
        rc = client_port_open(&n->client, fd, &self);
        break;
    default:
        break;
    }
    if (rc != 0) {
        port_refuse(fd, rc);
    }
}

static void node_sleep(struct tiny_node *n)
{
    struct pollfd fds[4] = {{.fd = n->udp}, {.fd = n->listener}, {.fd = -1}, {.fd = -1}};
    bool asleep = true;
    if (n->port != NULL) {
        port_flush(n->port);
        asleep = ring_sleep_begin(&n->port->to_node);
        fds[2].fd = n->port->wake_node_fd;
    }
    if (n->client != NULL) {
        asleep = ring_sleep_begin(&n->client->to_node) && asleep;
        fds[3].fd = n->client->wake_node_fd;
    }
    for (int i = 0; i < 4; i++) {
        fds[i].events = POLLIN;
    }
    (void)poll(fds, 4, asleep ? 5 : 0);
    for (int i = 2; i < 4; i++) {
        uint64_t count;
        if ((fds[i].revents & POLLIN) != 0) {
            ck_assert_int_eq(read(fds[i].fd, &count, sizeof(count)), sizeof(count));
        }
    }
}

static void *node_main(void *arg)
{
    struct tiny_node *n = arg;
    while (!atomic_load(&n->stop)) {
        node_accept(n);
        if (n->port != NULL && atomic_exchange(&n->cut_port, false)) {
            port_destroy(n->port);
            n->port = NULL;
        }
        if (n->client != NULL && atomic_exchange(&n->cut_client, false)) {
            client_port_destroy(n->client);
            n->client = NULL;
        }
        node_up(n);
        node_down(n);
        node_sleep(n);
    }
    port_destroy(n->port);
    client_port_destroy(n->client);
    n->port = NULL;
    n->client = NULL;
    return NULL;
}

static void node_open(struct tiny_node *n)
{
    static unsigned counter;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    n->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int bytes = 4 << 20;
    (void)setsockopt(n->udp, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    ck_assert_int_eq(bind(n->udp, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(getsockname(n->udp, (struct sockaddr *)&addr, &len), 0);
    n->udp_port = ntohs(addr.sin_port);

    struct sockaddr_un local = {.sun_family = AF_UNIX};
    snprintf(n->socket_path, sizeof(n->socket_path), "/tmp/weft-tiny-%d-%u", getpid(), counter++);
    memcpy(local.sun_path, n->socket_path, sizeof(n->socket_path));
    n->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(n->socket_path);
    ck_assert_int_eq(bind(n->listener, (struct sockaddr *)&local, sizeof(local)), 0);
    ck_assert_int_eq(listen(n->listener, 4), 0);
}

/* ---- the runtime: echoes ---- */

static int runtime_on_job(weft_worker_t *worker, weft_job_t *job, const weft_job_view_t *view,
                          void *user)
{
    (void)worker;
    struct tiny_node *n = user;
    if (n->job_count == TINY_JOBS_MAX) {
        return WEFT_E_MESH_FULL;
    }
    struct tiny_job *t = &n->jobs[n->job_count++];
    memset(t, 0, sizeof(*t));
    t->job = job;
    t->len = view->parts[view->part_count - 1].len;
    t->text = malloc(t->len + 1);
    memcpy(t->text, view->parts[view->part_count - 1].text, t->len);
    weft_job_set_user(job, t);
    atomic_fetch_add(&n->started, 1);
    return 0;
}

static void runtime_on_cancel(weft_worker_t *worker, weft_job_t *job, void *user)
{
    (void)worker;
    struct tiny_node *n = user;
    for (uint32_t i = 0; i < n->job_count; i++) {
        if (n->jobs[i].job == job) {
            n->jobs[i].stop = true;
        }
    }
    atomic_fetch_add(&n->cancelled, 1);
}

static bool runtime_step(struct tiny_job *t)
{
    size_t left = t->len - t->at;
    size_t part = left < TINY_TOKEN_BYTES ? left : TINY_TOKEN_BYTES;
    if (!t->stop && part != 0) {
        ck_assert_int_eq(weft_job_emit(t->job, 1, t->text + t->at, part), 0);
        t->at += part;
        return true;
    }
    weft_job_report_t report = {.finish = WEFT_FINISH_STOP,
                                .prompt_tokens = (uint32_t)t->len,
                                .new_tokens =
                                    (uint32_t)((t->at + TINY_TOKEN_BYTES - 1) / TINY_TOKEN_BYTES)};
    weft_job_finish(t->job, &report);
    free(t->text);
    return false;
}

static void *runtime_main(void *arg)
{
    struct tiny_node *n = arg;
    while (!atomic_load(&n->runtime_stop)) {
        int rc = weft_worker_process(n->worker);
        atomic_store(&n->process_rc, rc);
        if (rc != 0) {
            break;
        }
        for (uint32_t i = 0; i < n->job_count;) {
            if (runtime_step(&n->jobs[i])) {
                i++;
            } else {
                n->jobs[i] = n->jobs[--n->job_count];
            }
        }
        uint32_t room = atomic_load(&n->room);
        weft_load_t load = {.room = room > n->job_count ? room - n->job_count : 0};
        weft_worker_set_load(n->worker, &load);
        atomic_store(&n->room_told, room);
        if (n->job_count != 0) {
            usleep(atomic_load(&n->step_us));
            continue;
        }
        struct pollfd pfd = {.fd = weft_worker_fd(n->worker), .events = POLLIN};
        int wait = weft_worker_timeout_ms(n->worker);
        (void)poll(&pfd, 1, wait < 0 || wait > 20 ? 20 : wait);
    }
    for (uint32_t i = 0; i < n->job_count; i++) {
        free(n->jobs[i].text);
    }
    weft_worker_destroy(n->worker);
    return NULL;
}

struct tiny_node *tiny_node_start(bool runtime)
{
    struct tiny_node *n = calloc(1, sizeof(*n));
    n->rng.state = 42;
    atomic_store(&n->room, 1000);
    node_open(n);
    ck_assert_int_eq(pthread_create(&n->thread, NULL, node_main, n), 0);
    if (runtime) {
        weft_worker_facts_t facts = {.model = "m",
                                     .backend = "echo",
                                     .context_tokens = 4096,
                                     .prefill_per_second = 1000,
                                     .decode_per_second = 80};
        weft_load_t load = {.room = 1000};
        weft_worker_callbacks_t callbacks = {
            .on_job = runtime_on_job, .on_cancel = runtime_on_cancel, .user = n};
        int rc = weft_worker_attach(&n->worker, n->socket_path, &facts, &load, &callbacks);
        ck_assert_msg(rc == 0, "attach: %d", rc);
        ck_assert_uint_eq(weft_worker_node(n->worker)->id, 9);
        ck_assert_str_eq(weft_worker_node(n->worker)->name, "tiny");
        ck_assert_int_eq(pthread_create(&n->runtime, NULL, runtime_main, n), 0);
        n->runtime_on = true;
    }
    return n;
}

void tiny_node_stop(struct tiny_node *n)
{
    if (n->runtime_on) {
        atomic_store(&n->runtime_stop, true);
        pthread_join(n->runtime, NULL);
    }
    atomic_store(&n->stop, true);
    pthread_join(n->thread, NULL);
    close(n->udp);
    close(n->listener);
    unlink(n->socket_path);
    free(n);
}

void tiny_node_room(struct tiny_node *n, uint32_t room)
{
    atomic_store(&n->room, room);
    while (atomic_load(&n->room_told) != room) {
        usleep(1000);
    }
}

void tiny_node_address(const struct tiny_node *n, bool local, char out[TINY_ADDRESS_MAX])
{
    if (local) {
        snprintf(out, TINY_ADDRESS_MAX, "unix:%s", n->socket_path);
    } else {
        snprintf(out, TINY_ADDRESS_MAX, "127.0.0.1:%u", n->udp_port);
    }
}
