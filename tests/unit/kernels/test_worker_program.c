/* SPDX-License-Identifier: Apache-2.0 */
/* The program weft-worker behind weftd's own end of a port, with a small model that takes its time
 * over a long prompt: what it answers while it computes, and to nonsense. */
#include <check.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft/status.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/port/port.h"
#include "kernels/model/gguf.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define CONTEXT    4096u
#define LONG_COUNT 3000u
#define PROBES     60u
#define PROBE_MS   2
#define WAIT_MS    30000 /* bounds a hang, measures nothing */
#define PIECE      1024u
#define ASKS       100u

static char model_path[] = "/tmp/weft-test-worker-XXXXXX";
static char other_path[sizeof(model_path) + 8]; /* the same model under another name */
static char log_path[sizeof(model_path) + 8];
static struct port *ports[2]; /* of the two */
static char port_path[sizeof(model_path) + 8];
static pid_t child;
static int listener;
static struct port *port;
static uint8_t answer[WEFT_DATAGRAM_MAX];
static uint32_t tokens[LONG_COUNT];

static void write_model(uint32_t layers)
{
    const struct tiny_shape shape = {
        .seed = 1,
        .type = GGUF_TENSOR_Q4_1,
        .embedding_type = GGUF_TENSOR_Q8_0,
        .layers = layers,
        .heads = 8,
        .kv_heads = 2,
        .head_width = 32,
        .ffn_width = 512,
        .context = CONTEXT,
    };
    size_t size;
    uint8_t *data = tiny_write(&shape, &size);
    const int fd = mkstemp(model_path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
}

static void start_worker(const char *shards)
{
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        execl(WEFT_WORKER, "weft-worker", "--port", port_path, "--model", model_path, "--threads",
              "1", "--slots", "2", "--context", "4096", "--shards", shards, (char *)NULL);
        _exit(127);
    }
}

/* Both models together do not fit. */
static void start_worker_of_two(void)
{
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (!freopen(log_path, "w", stderr))
            _exit(126);
        execl(WEFT_WORKER, "weft-worker", "--port", port_path, "--model", model_path, "--model",
              other_path, "--name", "one", "--name", "other", "--threads", "1", "--slots", "2",
              "--queue", "200", "--context", "4096", "--models-mib", "16", (char *)NULL);
        _exit(127);
    }
}

static void begin(uint32_t layers)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    write_model(layers);
    snprintf(port_path, sizeof(port_path), "%s.sock", model_path);
    memcpy(local.sun_path, port_path, sizeof(port_path));
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&local, sizeof(local)), 0);
    ck_assert_int_eq(listen(listener, 4), 0);
    for (size_t i = 0; i < LONG_COUNT; i++)
        tokens[i] = (uint32_t)(i * 7 % 256);
}

/* This node has no ways to others: who asks for them is turned away, and asks again. */
static struct port *take_port(void)
{
    const struct port_self self = {12, 4, "node"};
    struct port *taken;
    for (;;) {
        struct pollfd pfd = {.fd = listener, .events = POLLIN};
        ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
        const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pfd.fd = fd;
        ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
        if (port_kind(fd) != PORT_KIND_WAY) {
            ck_assert_int_eq(port_open(&taken, fd, &self), 0);
            return taken;
        }
        close(fd);
    }
}

static void setup(void)
{
    begin(24);
    start_worker("1");
    port = take_port();
}

static void setup_two(void)
{
    begin(2); /* quick: the clients here say nothing while they wait, and are given up in the end */
    snprintf(other_path, sizeof(other_path), "%s.2", model_path);
    snprintf(log_path, sizeof(log_path), "%s.log", model_path);
    ck_assert_int_eq(symlink(model_path, other_path), 0);
    start_worker_of_two();
    for (size_t i = 0; i < 2; i++)
        ports[i] = take_port();
    ck_assert_str_eq(ports[0]->facts.model, "one");
    ck_assert_str_eq(ports[1]->facts.model, "other");
    port = ports[0];
}

static void setup_shards(void)
{
    begin(24);
    start_worker("3");
    port = take_port();
}

static void expect_end(void)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    child = 0;
}

/* A worker told to stop ends with 0, whatever it was asked before: clients here do not acknowledge
 * what they get, but then its node goes. */
static void teardown(void)
{
    if (child)
        ck_assert_int_eq(kill(child, SIGTERM), 0);
    port_destroy(port);
    close(listener);
    if (child)
        expect_end();
    unlink(port_path);
    unlink(model_path);
}

static uint64_t conn_id = 3;
static uint32_t budget_us = WEFT_BUDGET_NONE;

static struct weft_req header_of(uint8_t type, uint32_t seq)
{
    return (struct weft_req){
        .h = {.ver_fmt = WEFT_VER_FMT,
              .type = type,
              .hdr_words = WEFT_REQ_WORDS,
              .flags = WEFT_F_RELAYED,
              .conn_id = conn_id,
              .req_seq = seq,
              .budget_us = budget_us},
    };
}

static void send_one(const struct weft_req *req, const void *payload, size_t len)
{
    uint8_t data[WEFT_DATAGRAM_MAX];
    memcpy(data, req, sizeof(*req));
    if (len)
        memcpy(data + sizeof(*req), payload, len);
    ck_assert(port_push(port, data, (uint32_t)(sizeof(*req) + len)));
}

static void send_request(uint32_t seq, const struct prompt_spec *spec)
{
    const size_t size = prompt_size(spec);
    uint8_t *body = malloc(size);
    struct weft_req req = header_of(WEFT_T_REQ, seq);
    ck_assert_ptr_nonnull(body);
    prompt_write(spec, body);
    req.h.msg_len = (uint32_t)size;
    for (size_t at = 0; at < size; at += PIECE) {
        req.h.offset = (uint32_t)at;
        send_one(&req, body + at, size - at < PIECE ? size - at : PIECE);
    }
    free(body);
    port_flush(port);
}

/* The worker's next datagram, in `answer`. */
static const struct weft_rsp *receive(void)
{
    for (;;) {
        if (port_pop(port, answer, sizeof(answer)) != 0)
            return (const struct weft_rsp *)(const void *)answer;
        if (!ring_sleep_begin(&port->to_node))
            continue;
        struct pollfd pfd = {.fd = port->wake_node_fd, .events = POLLIN};
        uint64_t wakes;
        ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
        ck_assert_int_eq(read(port->wake_node_fd, &wakes, sizeof(wakes)), sizeof(wakes));
        ring_sleep_end(&port->to_node);
    }
}

static const struct weft_rsp *receive_type(uint8_t type)
{
    const struct weft_rsp *rsp = receive();
    while (rsp->h.type != type)
        rsp = receive();
    return rsp;
}

static int refusal(uint32_t seq, const struct prompt_spec *spec)
{
    struct weft_reject why;
    send_request(seq, spec);
    const struct weft_rsp *rsp = receive_type(WEFT_T_REJECT);
    ck_assert_uint_eq(rsp->h.req_seq, seq);
    memcpy(&why, answer + sizeof(*rsp), sizeof(why));
    return -(int)why.status;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

START_TEST(test_probes_and_cancel)
{
    const struct prompt_spec spec = {
        .tokens = tokens, .token_count = LONG_COUNT, .max_tokens = 8, .top_p = 1.0f};
    const struct weft_range nothing = {0, 0};
    uint64_t took_ns[PROBES];
    uint32_t first = 0;
    uint32_t last = 0;
    send_request(1, &spec);
    (void)receive_type(WEFT_T_GRANT);
    for (size_t i = 0; i < PROBES; i++) {
        const struct weft_req probe = header_of(WEFT_T_RESEND, 1);
        const uint64_t begin_ns = clock_now_ns();
        send_one(&probe, &nothing, sizeof(nothing));
        port_flush(port);
        const struct weft_rsp *rsp = receive();
        while (rsp->h.type == WEFT_T_GRANT)
            rsp = receive();
        took_ns[i] = clock_now_ns() - begin_ns;
        ck_assert_int_eq(rsp->h.type, WEFT_T_BUSY); /* the prompt is not through yet */
        ck_assert_uint_ne(rsp->h.arg, 0);
        first = i ? first : rsp->h.arg;
        last = rsp->h.arg;
        (void)poll(NULL, 0, PROBE_MS);
    }
    ck_assert_uint_gt(last, first);
    qsort(took_ns, PROBES, sizeof(took_ns[0]), compare_u64);
    printf("probes while it computes: median %.0f us, p95 %.0f us, most %.0f us; %u steps\n",
           (double)took_ns[PROBES / 2] / 1e3, (double)took_ns[PROBES * 95 / 100] / 1e3,
           (double)took_ns[PROBES - 1] / 1e3, last - first);
    const struct weft_req cancel = header_of(WEFT_T_CANCEL, 1);
    struct weft_done done;
    send_one(&cancel, NULL, 0);
    port_flush(port);
    const struct weft_rsp *rsp = receive_type(WEFT_T_RESP);
    ck_assert(rsp->h.flags & WEFT_F_LAST);
    memcpy(&done, answer + sizeof(*rsp) + sizeof(struct weft_frame), sizeof(done));
    ck_assert_int_eq(-(int)done.status, WEFT_E_CANCELLED);
    ck_assert_uint_eq(done.new_tokens, 0);
}
END_TEST

static void teardown_two(void)
{
    port_destroy(ports[1]);
    port = ports[0];
    teardown();
    unlink(other_path);
    unlink(log_path);
}

/* How often the worker has said so. */
static uint32_t count_in_log(const char *words)
{
    char line[512];
    uint32_t count = 0;
    FILE *file = fopen(log_path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        count += strstr(line, words) != NULL;
    fclose(file);
    return count;
}

/* The end of the request of each connection. */
static void receive_ends(uint32_t count)
{
    bool ended[ASKS] = {false};
    for (uint32_t left = count; left > 0;) {
        const struct weft_rsp *rsp = receive_type(WEFT_T_RESP);
        const uint32_t i = (uint32_t)rsp->h.conn_id - 1;
        ck_assert_uint_lt(i, ASKS);
        if (!(rsp->h.flags & WEFT_F_LAST) || ended[i])
            continue;
        struct weft_done done;
        memcpy(&done, answer + rsp->h.msg_len - rsp->h.offset + sizeof(*rsp) - sizeof(done),
               sizeof(done));
        ck_assert_uint_eq(done.status, 0);
        ck_assert_uint_eq(done.new_tokens, 2);
        ended[i] = true;
        left--;
    }
}

static void ask_many(struct port *of, uint32_t count)
{
    const struct prompt_spec spec = {
        .tokens = tokens, .token_count = 10, .max_tokens = 2, .top_p = 1.0f};
    port = of;
    for (uint32_t i = 0; i < count; i++) {
        conn_id = i + 1;
        send_request(1, &spec);
    }
}

/* A hundred ask at once for the model that is not loaded: it is loaded once, all are answered; then
 * the same of the one that had to go for it, with one that is in its turn. */
START_TEST(test_loaded_once)
{
    const struct prompt_spec spec = {
        .tokens = tokens, .token_count = 10, .max_tokens = 2, .top_p = 1.0f};
    ck_assert_uint_eq(port_load_now(ports[0]).queue_us, 0);
    ck_assert_uint_gt(port_load_now(ports[1]).queue_us, 0); /* it has to be loaded first */
    ck_assert_uint_ge(port_load_now(ports[1]).room, ASKS);
    ck_assert_uint_eq(count_in_log("model=other backend="), 1); /* measured at the start */
    port = ports[1];
    budget_us = 1; /* a time in which nothing is loaded */
    conn_id = ASKS + 1;
    ck_assert_int_eq(refusal(1, &spec), WEFT_E_BUDGET_INFEASIBLE);
    budget_us = WEFT_BUDGET_NONE;
    ask_many(ports[1], ASKS);
    receive_ends(ASKS);
    ck_assert_uint_eq(count_in_log("model=other backend="), 2);
    ck_assert_uint_eq(count_in_log("model=one unloaded"), 1);
    conn_id = 0;
    ask_many(ports[1], 2);
    ask_many(ports[0], ASKS);
    receive_ends(ASKS);
    ck_assert_uint_eq(count_in_log("model=one backend="), 2);
    ck_assert_uint_eq(port_load_now(ports[0]).queue_us, 0);
}
END_TEST

START_TEST(test_nonsense)
{
    static const uint32_t outside[] = {5, TINY_VOCAB, 6};
    static const uint32_t ended[] = {5, TINY_IM_END, 6};
    static const uint32_t fine[] = {5, 6, 7};
    struct prompt_spec spec = {
        .tokens = tokens, .token_count = 10, .max_tokens = 20, .top_p = 1.0f, .resume_count = 3};
    spec.resume = outside;
    ck_assert_int_eq(refusal(1, &spec), WEFT_E_BAD_REQUEST);
    spec.resume = ended;
    ck_assert_int_eq(refusal(2, &spec), WEFT_E_BAD_REQUEST);
    spec.resume = fine;
    spec.max_tokens = CONTEXT - 9;
    ck_assert_int_eq(refusal(3, &spec), WEFT_E_TOO_LONG);
    spec.max_tokens = 2;
    ck_assert_int_eq(refusal(4, &spec), WEFT_E_BAD_REQUEST);
    spec.max_tokens = 5;
    send_request(5, &spec);
    const struct weft_rsp *rsp = receive_type(WEFT_T_RESP);
    while (!(rsp->h.flags & WEFT_F_LAST))
        rsp = receive_type(WEFT_T_RESP);
    struct weft_done done;
    memcpy(&done, answer + rsp->h.msg_len - rsp->h.offset + sizeof(*rsp) - sizeof(done),
           sizeof(done));
    ck_assert_uint_eq(done.status, 0);
    ck_assert_uint_eq(done.prompt_tokens, 10);
    ck_assert_uint_eq(done.new_tokens, 5);
}
END_TEST

/* Told to stop, it goes when the client has all of the answer, and repeats it until then. */
START_TEST(test_stops_behind_the_last_ack)
{
    const struct prompt_spec spec = {
        .tokens = tokens, .token_count = 10, .max_tokens = 5, .top_p = 1.0f};
    send_request(1, &spec);
    const struct weft_rsp *rsp = receive_type(WEFT_T_RESP);
    while (!(rsp->h.flags & WEFT_F_LAST))
        rsp = receive_type(WEFT_T_RESP);
    const struct weft_range all = {0, rsp->h.msg_len};
    ck_assert_int_eq(kill(child, SIGTERM), 0);
    while (!WEFT_DRAINS(port_load_now(port).room, port_load_now(port).queue_us))
        (void)poll(NULL, 0, PROBE_MS); /* the test's own limit bounds it */
    (void)poll(NULL, 0, PROBE_MS);
    const struct weft_req again = header_of(WEFT_T_RESEND, 1);
    send_one(&again, &all, sizeof(all));
    port_flush(port);
    rsp = receive_type(WEFT_T_RESP);
    ck_assert_uint_eq(rsp->h.offset, 0);
    ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
    const struct weft_req thanks = header_of(WEFT_T_ACK, 1);
    const struct weft_ack ack = {.cum = all.end};
    send_one(&thanks, &ack, sizeof(ack));
    port_flush(port);
    expect_end();
}
END_TEST

/* One of the worker's ranks: a child of any of its threads. */
static pid_t first_rank(void)
{
    char pattern[64];
    glob_t found;
    pid_t rank = 0;
    snprintf(pattern, sizeof(pattern), "/proc/%d/task/*/children", (int)child);
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc && rank == 0; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");
        if (file && fscanf(file, "%d", &rank) != 1)
            rank = 0;
        if (file)
            fclose(file);
    }
    globfree(&found);
    ck_assert_int_ne(rank, 0);
    return rank;
}

static struct weft_done done_of(uint32_t seq)
{
    struct weft_done done;
    const struct weft_rsp *rsp = receive_type(WEFT_T_RESP);
    while (rsp->h.req_seq != seq || !(rsp->h.flags & WEFT_F_LAST))
        rsp = receive_type(WEFT_T_RESP);
    memcpy(&done, answer + rsp->h.msg_len - rsp->h.offset + sizeof(*rsp) - sizeof(done),
           sizeof(done));
    return done;
}

/* A rank is killed under a request: that ends with a failure, by which the client goes on
 * elsewhere, and the next one is served. */
START_TEST(test_lost_rank)
{
    struct prompt_spec spec = {
        .tokens = tokens, .token_count = LONG_COUNT, .max_tokens = 8, .top_p = 1.0f};
    send_request(1, &spec);
    (void)receive_type(WEFT_T_GRANT);
    ck_assert_int_eq(kill(first_rank(), SIGKILL), 0);
    ck_assert_int_eq(-(int)done_of(1).status, WEFT_E_WORKER_FAILED);
    /* The same beginning, but nothing of it is left anywhere. */
    spec.token_count = 50;
    send_request(2, &spec);
    const struct weft_done done = done_of(2);
    ck_assert_uint_eq(done.cached_tokens, 0);
    ck_assert_uint_eq(done.status, 0);
    ck_assert_uint_eq(done.new_tokens, 8);
}
END_TEST

static int status_with(const char *option, const char *value, const char *name)
{
    int status;
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        execl(WEFT_WORKER, "weft-worker", "--port", "/nowhere", "--model", model_path, "--name",
              "one", "--context", "4096", option, value, name ? "--name" : NULL, name, "--model",
              model_path, (char *)NULL);
        _exit(127);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What was asked for cannot be: nobody need start it again. */
START_TEST(test_asked_for_too_much)
{
    write_model(2);
    ck_assert_int_eq(status_with("--memory-mib", "1", NULL), 2);
    ck_assert_int_eq(status_with("--models-mib", "1", "other"), 2);
    ck_assert_int_eq(status_with("--queue", "100000", NULL), 2);
    ck_assert_int_eq(status_with("--threads", "257", NULL), 2);
    unlink(model_path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker_program");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_probes_and_cancel);
    tcase_add_test(tcase, test_nonsense);
    tcase_add_test(tcase, test_stops_behind_the_last_ack);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("two models");
    tcase_set_timeout(tcase, 200);
    tcase_add_checked_fixture(tcase, setup_two, teardown_two);
    tcase_add_test(tcase, test_loaded_once);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("memory");
    tcase_set_timeout(tcase, 200);
    tcase_add_test(tcase, test_asked_for_too_much);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("shards");
    tcase_set_timeout(tcase, 200);
    tcase_add_checked_fixture(tcase, setup_shards, teardown);
    tcase_add_test(tcase, test_lost_rank);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
