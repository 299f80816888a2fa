/* SPDX-License-Identifier: Apache-2.0 */
/* answerer.c - see answerer.h. Plays both node (cookies, the way back in the return block) and
 * worker. */
#include "bench/load/answerer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/flow/serve.h"
#include "schemas/base/clock.h"

#define COOKIE       UINT64_C(0x5eed5eed5eed5eed) /* whoever can send is trusted */
#define NODE_ID      1u
#define ROOM         16000u
#define SOCKET_BYTES (4 << 20)
#define BATCH        64u
#define WAIT_MAX_NS  (100 * NS_PER_MS)

struct answerer {
    int udp;
    int stop_fd;
    char address[ANSWERER_ADDRESS_MAX];
    pthread_t thread;
    struct serve *serve;
    struct pace pace;
    uint32_t steps;
};

static int on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    struct answerer *a = user;
    return pace_add(&a->pace, job, view, clock_now_ns());
}

static void on_cancel(void *user, struct weft_job *job)
{
    struct answerer *a = user;
    pace_cancel(&a->pace, job);
}

static void send_cookie(const struct answerer *a, const struct weft_req *req,
                        const struct sockaddr_in *to)
{
    const uint64_t cookie = COOKIE;
    uint8_t out[sizeof(struct weft_rsp) + sizeof(cookie)];
    struct weft_rsp rsp = {.h = {.ver_fmt = WEFT_VER_FMT,
                                 .type = WEFT_T_COOKIE,
                                 .hdr_words = WEFT_RSP_WORDS,
                                 .conn_id = req->h.conn_id,
                                 .req_seq = req->h.req_seq,
                                 .server = NODE_ID}};
    memcpy(out, &rsp, sizeof(rsp));
    memcpy(out + sizeof(rsp), &cookie, sizeof(cookie));
    (void)sendto(a->udp, out, sizeof(out), 0, (const struct sockaddr *)to, sizeof(*to));
}

static void receive(struct answerer *a)
{
    _Alignas(8) uint8_t data[WEFT_DATAGRAM_MAX];
    struct sockaddr_in from;
    for (uint32_t i = 0; i < BATCH; i++) {
        socklen_t from_len = sizeof(from);
        ssize_t len =
            recvfrom(a->udp, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
        if (len < 0) {
            return;
        }
        struct weft_req *req = (struct weft_req *)(void *)data;
        if ((size_t)len < sizeof(*req)) {
            continue;
        }
        if (req->first.cookie != COOKIE) {
            send_cookie(a, req, &from);
            continue;
        }
        req->h.flags |= WEFT_F_RELAYED; /* what follows is a return block from here on */
        req->h.origin = NODE_ID;
        memset(&req->ret, 0, sizeof(req->ret));
        memcpy(req->ret.addr, &from.sin_addr, sizeof(from.sin_addr));
        req->ret.port = from.sin_port;
        serve_input(a->serve, data, (size_t)len, clock_now_ns());
    }
}

static void reply(struct answerer *a)
{
    _Alignas(8) uint8_t data[SERVE_OUT_MAX];
    size_t len;
    while ((len = serve_output(a->serve, clock_now_ns(), data)) != 0) {
        const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)data;
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = rsp->ret.port};
        memcpy(&to.sin_addr, rsp->ret.addr, sizeof(to.sin_addr));
        /* Waits where the socket is full. */
        (void)sendto(a->udp, data, len, 0, (const struct sockaddr *)&to, sizeof(to));
    }
}

static void step(struct answerer *a)
{
    a->steps += a->steps == UINT32_MAX ? 2 : 1;
    const weft_load_t load = {.room = a->pace.open < ROOM ? ROOM - a->pace.open : 0,
                              .steps = a->steps};
    serve_set_load(a->serve, &load);
    receive(a);
    if (serve_due_ns(a->serve) <= clock_now_ns()) {
        serve_tick(a->serve, clock_now_ns());
    }
    pace_step(&a->pace, clock_now_ns());
    reply(a);
}

/* Until a datagram, the next token or the next timer. False if it is to end. */
static bool wait(struct answerer *a)
{
    struct pollfd fds[] = {{.fd = a->udp, .events = POLLIN}, {.fd = a->stop_fd, .events = POLLIN}};
    uint64_t now_ns = clock_now_ns();
    uint64_t due_ns = serve_due_ns(a->serve), token_ns = pace_due_ns(&a->pace, now_ns);
    due_ns = token_ns < due_ns ? token_ns : due_ns;
    uint64_t left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    left_ns = left_ns < WAIT_MAX_NS ? left_ns : WAIT_MAX_NS;
    const struct timespec left = {.tv_nsec = (long)left_ns};
    (void)ppoll(fds, 2, &left, NULL);
    return fds[1].revents == 0;
}

static void *answerer_main(void *arg)
{
    struct answerer *a = arg;
    prctl(PR_SET_TIMERSLACK, 1);
    do {
        step(a);
    } while (wait(a));
    return NULL;
}

static int open_socket(struct answerer *a, uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(port),
                               .sin_addr.s_addr = htonl(port != 0 ? INADDR_ANY : INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    const int bytes = SOCKET_BYTES;
    a->stop_fd = eventfd(0, EFD_CLOEXEC);
    a->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (a->stop_fd < 0 || a->udp < 0 || bind(a->udp, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        getsockname(a->udp, (struct sockaddr *)&addr, &len) != 0) {
        return -errno;
    }
    (void)setsockopt(a->udp, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(a->udp, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    snprintf(a->address, sizeof(a->address), "127.0.0.1:%u", ntohs(addr.sin_port));
    return 0;
}

static void release(struct answerer *a)
{
    if (a->udp >= 0) {
        close(a->udp);
    }
    if (a->stop_fd >= 0) {
        close(a->stop_fd);
    }
    serve_destroy(a->serve);
    pace_deinit(&a->pace);
    free(a);
}

int answerer_start(struct answerer **answerer, const struct pace_plan *plan, uint16_t port)
{
    struct answerer *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return -ENOMEM;
    }
    const struct serve_config config = {.node_id = NODE_ID,
                                        .tier = 0,
                                        .node_name = "answerer",
                                        .backend = "toy",
                                        .seed = clock_now_ns()};
    const struct serve_ops ops = {.on_job = on_job, .on_cancel = on_cancel, .user = a};
    a->udp = a->stop_fd = -1;
    pace_init(&a->pace, plan);
    a->serve = serve_create(&config, &ops);
    int rc = a->serve == NULL ? -ENOMEM : open_socket(a, port);
    rc = rc == 0 ? -pthread_create(&a->thread, NULL, answerer_main, a) : rc;
    if (rc != 0) {
        release(a);
        return rc;
    }
    *answerer = a;
    return 0;
}

void answerer_stop(struct answerer *answerer)
{
    const uint64_t one = 1;
    if (answerer == NULL) {
        return;
    }
    while (write(answerer->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    pthread_join(answerer->thread, NULL);
    release(answerer);
}

const char *answerer_address(const struct answerer *answerer)
{
    return answerer->address;
}
