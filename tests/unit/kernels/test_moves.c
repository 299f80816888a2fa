/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/moves: two engines with a runner each, a connection between them that a third
 * party can damage, delay and cut. What is answered behind fetched pages has to be what an engine
 * answers that has computed everything. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/moves/mover.h"
#include "kernels/moves/talk.h"
#include "schemas/base/clock.h"
#include "schemas/port.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define CONTEXT 400u
#define PROMPT  200u
#define ANSWER  12u
#define WAIT_MS 20000 /* bounds a hang, measures nothing */

struct bench {
    exec_t *exec;
    engine_t *engine;
    runner_t *runner;
    struct pull_kind kind;
};

static uint8_t *data;
static struct model *model;
static struct bench here;
static struct bench there;
static const uint8_t key[LINE_KEY_BYTES] = {1, 2, 3};

static void bench_open(struct bench *b, uint32_t pages)
{
    const struct cpu_options cpu = {
        .slots = 2, .context = CONTEXT, .batch_max = 32, .pages = pages, .exact = true};
    const struct engine_options options = {.queue_max = 2};
    ck_assert_int_eq(cpu_create(&b->exec, model, &cpu), 0);
    ck_assert_int_eq(engine_create(&b->engine, b->exec, NULL, &options), 0);
    ck_assert_int_eq(runner_create(&b->runner, b->engine), 0);
    b->kind = (struct pull_kind){.arithmetic = 77,
                                 .page_tokens = EXEC_PAGE_TOKENS,
                                 .page_bytes = engine_page_bytes(b->engine),
                                 .vocab = TINY_VOCAB};
}

static void bench_close(struct bench *b)
{
    runner_destroy(b->runner);
    engine_destroy(b->engine);
    exec_destroy(b->exec);
}

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct tiny_shape shape = tiny_default;
    shape.context = CONTEXT;
    data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    bench_open(&here, 2 * CONTEXT / EXEC_PAGE_TOKENS);
    bench_open(&there, 2 * CONTEXT / EXEC_PAGE_TOKENS);
}

static void teardown(void)
{
    bench_close(&here);
    bench_close(&there);
    model_destroy(model);
    free(data);
}

static void random_prompt(uint64_t seed, uint32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)(tiny_random(&seed) % 256);
}

/* A greedy answer; returns how many tokens of the prompt needed no work. */
static uint32_t answer(struct bench *b, const uint32_t *tokens, uint32_t count, uint32_t *out)
{
    struct engine_event events[8];
    const struct engine_request request = {.id = 1,
                                           .tokens = tokens,
                                           .token_count = count,
                                           .sampling = {.top_p = 1.0f},
                                           .max_tokens = ANSWER};
    uint32_t got = 0;
    ck_assert_int_eq(runner_submit(b->runner, &request), 0);
    for (;;) {
        struct pollfd fd = {.fd = runner_fd(b->runner), .events = POLLIN};
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        const size_t n = runner_take(b->runner, events, 8);
        for (size_t i = 0; i < n; i++) {
            if (events[i].kind == ENGINE_TOKEN) {
                out[got++] = events[i].token;
                continue;
            }
            ck_assert_int_eq(events[i].finish, ENGINE_LENGTH);
            ck_assert_uint_eq(got, ANSWER);
            return events[i].cached_tokens;
        }
    }
}

/* ---- a connection with somebody in between ---- */

struct between {
    int a;
    int b;
    uint64_t damage_at; /* byte towards the caller that is changed; UINT64_MAX = none */
    uint64_t cut_at;    /* so many bytes get through to the caller */
};

/* Both ways, until either end closes. */
static void *between_main(void *arg)
{
    struct between *t = arg;
    uint64_t passed = 0;
    uint8_t bytes[4096];
    for (;;) {
        struct pollfd fds[2] = {{.fd = t->a, .events = POLLIN}, {.fd = t->b, .events = POLLIN}};
        if (poll(fds, 2, WAIT_MS) <= 0)
            break;
        const int from = fds[0].revents ? 0 : 1;
        ssize_t got = read(fds[from].fd, bytes, sizeof(bytes));
        if (got <= 0)
            break;
        if (from == 1) {
            if (t->damage_at >= passed && t->damage_at < passed + (uint64_t)got)
                bytes[t->damage_at - passed] ^= 0x10;
            if (passed + (uint64_t)got > t->cut_at)
                break;
            passed += (uint64_t)got;
        }
        for (ssize_t put, at = 0; at < got; at += put) {
            put = send(fds[1 - from].fd, bytes + at, (size_t)(got - at), MSG_NOSIGNAL);
            if (put <= 0) /* has closed, and may have said why before */
                break;
        }
    }
    shutdown(t->a, SHUT_RDWR);
    shutdown(t->b, SHUT_RDWR);
    return NULL;
}

struct giver {
    struct line line;
    int fd;
    int rc;
    const uint8_t *key;
    struct pull_kind kind;
    struct talk_account account;
};

static void *giver_main(void *arg)
{
    struct giver *g = arg;
    ck_assert_int_eq(line_init(&g->line, g->fd, -1, g->key, false), 0);
    g->rc = talk_give(there.runner, &g->kind, &g->line, clock_now_ns() + WAIT_MS * NS_PER_MS,
                      &g->account);
    line_deinit(&g->line);
    shutdown(g->fd, SHUT_RDWR);
    return NULL;
}

struct outcome {
    int take;
    int give;
    struct talk_account account;
    struct talk_account given;
};

/* All that can be had of a prompt: fetching always pays. */
static struct talk_wish wish_of(const uint32_t *tokens, uint32_t count, _Atomic uint32_t *progress)
{
    static const struct pull_rates rates = {.bytes_per_second = 1e12};
    return (struct talk_wish){.tokens = tokens,
                              .count = count,
                              .prefill_per_second = 1.0,
                              .rates = &rates,
                              .deadline_ns = clock_now_ns() + WAIT_MS * NS_PER_MS,
                              .progress = progress};
}

static struct outcome pull(const uint32_t *tokens, uint32_t count, struct between *between,
                           const struct pull_kind *giver_kind, const uint8_t *giver_key)
{
    struct outcome out;
    struct line line;
    pthread_t threads[2];
    int caller[2];
    int called[2];
    _Atomic uint32_t progress = 0;
    const struct talk_wish wish = wish_of(tokens, count, &progress);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, caller), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, called), 0);
    between->a = caller[1];
    between->b = called[1];
    struct giver giver = {.fd = called[0], .key = giver_key, .kind = *giver_kind};
    ck_assert_int_eq(pthread_create(&threads[0], NULL, between_main, between), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, giver_main, &giver), 0);
    ck_assert_int_eq(line_init(&line, caller[0], -1, key, true), 0);
    out.take = talk_take(here.runner, &here.kind, &line, &wish, &out.account);
    ck_assert_uint_eq(progress, out.account.pages);
    line_deinit(&line);
    shutdown(caller[0], SHUT_RDWR);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    out.give = giver.rc;
    out.given = giver.account;
    for (int i = 0; i < 2; i++) {
        close(caller[i]);
        close(called[i]);
    }
    return out;
}

static struct between honest(void)
{
    return (struct between){.damage_at = UINT64_MAX, .cut_at = UINT64_MAX};
}

/* ---- tests ---- */

/* A session's second turn at the other engine: fetched pages give what computed ones give. */
START_TEST(test_moves_and_goes_on)
{
    uint32_t tokens[CONTEXT];
    uint32_t expected[ANSWER];
    uint32_t got[ANSWER];
    struct between between = honest();
    random_prompt((uint64_t)_i + 1, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, tokens + PROMPT);
    const uint32_t count = PROMPT + ANSWER + 9;
    random_prompt((uint64_t)_i + 100, tokens + PROMPT + ANSWER, 9);
    const struct outcome out = pull(tokens, count, &between, &there.kind, key);
    ck_assert_int_eq(out.take, 0);
    ck_assert_int_eq(out.give, 0);
    ck_assert_uint_eq(out.account.known, 0);
    /* All that the first turn has filled: its last token has gone through nothing. */
    ck_assert_uint_eq(out.account.pages, (PROMPT + ANSWER - 1) / EXEC_PAGE_TOKENS);
    ck_assert_uint_eq(out.given.pages, out.account.pages);
    ck_assert_uint_eq(runner_known(here.runner, tokens, count), out.account.pages);
    ck_assert_uint_eq(answer(&here, tokens, count, got), out.account.pages * EXEC_PAGE_TOKENS);
    struct bench alone;
    bench_open(&alone, 2 * CONTEXT / EXEC_PAGE_TOKENS);
    ck_assert_uint_eq(answer(&alone, tokens, count, expected), 0);
    bench_close(&alone);
    ck_assert_mem_eq(got, expected, sizeof(expected));
}
END_TEST

/* What is here already is not fetched again. */
START_TEST(test_only_what_is_missing)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct between between = honest();
    random_prompt(5, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    (void)answer(&here, tokens, 80, got);
    struct outcome out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, 0);
    ck_assert_uint_eq(out.account.known, 80 / EXEC_PAGE_TOKENS);
    ck_assert_uint_eq(out.account.known + out.account.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    between = honest();
    out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, -ENODATA);
    ck_assert_uint_eq(out.account.pages, 0);
}
END_TEST

START_TEST(test_nothing_there)
{
    uint32_t tokens[CONTEXT];
    struct between between = honest();
    random_prompt(6, tokens, PROMPT);
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, -ENODATA);
    ck_assert_int_eq(out.give, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
}
END_TEST

/* Another model, arithmetic, page or vocabulary; another key: refused, nothing comes. */
START_TEST(test_refused)
{
    static const uint8_t other_key[LINE_KEY_BYTES] = {9};
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct between between = honest();
    struct pull_kind kind = there.kind;
    random_prompt(7, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    kind.arithmetic += _i == 0;
    kind.page_bytes += _i == 1;
    kind.vocab += _i == 2;
    kind.page_tokens *= _i == 3 ? 2 : 1;
    const struct outcome out = pull(tokens, PROMPT, &between, &kind, _i == 4 ? other_key : key);
    ck_assert_int_eq(out.take, _i == 4 ? -EPIPE : -ESTALE);
    ck_assert_int_eq(out.give, _i == 4 ? -EBADMSG : -ESTALE);
    ck_assert_uint_eq(out.account.pages, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
}
END_TEST

/* Wherever it is damaged or cut: pages that were whole stay, the answer is the same. */
START_TEST(test_damaged_and_cut)
{
    uint32_t tokens[CONTEXT];
    uint32_t expected[ANSWER];
    uint32_t got[ANSWER];
    uint64_t rng = (uint64_t)_i + 1;
    const uint32_t most = (PROMPT - 1) / EXEC_PAGE_TOKENS;
    const uint64_t whole = most * (there.kind.page_bytes + 40);
    struct between between = honest();
    random_prompt((uint64_t)_i + 40, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, expected);
    *(_i % 2 ? &between.cut_at : &between.damage_at) = tiny_random(&rng) % whole;
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, _i % 2 ? -EPIPE : -EBADMSG);
    ck_assert_uint_lt(out.account.pages, most);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), out.account.pages);
    ck_assert_uint_eq(answer(&here, tokens, PROMPT, got), out.account.pages * EXEC_PAGE_TOKENS);
    ck_assert_mem_eq(got, expected, sizeof(expected));
}
END_TEST

struct held {
    uint32_t tokens[CONTEXT];
    uint32_t pages[CONTEXT / EXEC_PAGE_TOKENS];
    uint32_t count;
};

static int hold(engine_t *engine, void *user)
{
    struct held *h = user;
    h->count = engine_chain_hold(engine, h->tokens, 300, h->pages);
    return 0;
}

/* While requests hold nearly all pages there is no room for more, and nothing is lost by it. */
START_TEST(test_no_room)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct held held;
    struct between between = honest();
    bench_close(&here);
    bench_open(&here, CONTEXT / EXEC_PAGE_TOKENS);
    random_prompt(8, tokens, PROMPT);
    random_prompt(9, held.tokens, 300);
    (void)answer(&there, tokens, PROMPT, got);
    (void)answer(&here, held.tokens, 300, got);
    ck_assert_int_eq(runner_visit(here.runner, hold, &held), 0);
    ck_assert_uint_eq(held.count, 299 / EXEC_PAGE_TOKENS);
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, -ENOSPC);
    ck_assert_uint_eq(out.account.pages, CONTEXT / EXEC_PAGE_TOKENS - held.count);
}
END_TEST

/* A visitor is let in while a stream is decoding, between its steps, and changes nothing in it. */
START_TEST(test_streams_go_on)
{
    uint32_t tokens[CONTEXT];
    uint32_t own[EXEC_PAGE_TOKENS];
    uint32_t expected[ANSWER];
    uint32_t got[ANSWER];
    struct between between = honest();
    struct engine_event events[8];
    random_prompt(9, tokens, PROMPT);
    random_prompt(10, own, EXEC_PAGE_TOKENS);
    (void)answer(&there, own, EXEC_PAGE_TOKENS, expected);
    (void)answer(&there, tokens, PROMPT, got);
    const struct engine_request request = {.id = 2,
                                           .tokens = own,
                                           .token_count = EXEC_PAGE_TOKENS,
                                           .sampling = {.top_p = 1.0f},
                                           .max_tokens = ANSWER};
    ck_assert_int_eq(runner_submit(here.runner, &request), 0);
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, key);
    ck_assert_int_eq(out.take, 0);
    for (uint32_t count = 0; count < ANSWER;) {
        struct pollfd fd = {.fd = runner_fd(here.runner), .events = POLLIN};
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        const size_t n = runner_take(here.runner, events, 8);
        for (size_t i = 0; i < n; i++)
            if (events[i].kind == ENGINE_TOKEN)
                ck_assert_uint_eq(events[i].token, expected[count++]);
    }
}
END_TEST

/* ---- the mover, with a node that the test is ---- */

static char door_path[64];
static int listener;
static struct mover *mover;

static void begin_mover(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    snprintf(door_path, sizeof(door_path), "/tmp/weft-test-moves-%d.sock", (int)getpid());
    unlink(door_path);
    memcpy(local.sun_path, door_path, sizeof(door_path));
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&local, sizeof(local)), 0);
    ck_assert_int_eq(listen(listener, 4), 0);
    const struct mover_options options = {
        .socket_path = door_path, .model = 5, .kind = here.kind, .runner = here.runner};
    ck_assert_int_eq(mover_create(&mover, &options), 0);
}

static void end_mover(void)
{
    mover_destroy(mover);
    close(listener);
    unlink(door_path);
}

/* The next connection that says hello with this. */
static int take_door(enum port_way_op op, struct port_way_hello *hello)
{
    for (;;) {
        struct pollfd pfd = {.fd = listener, .events = POLLIN};
        ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
        const int fd = accept(listener, NULL, NULL);
        ck_assert_int_eq(recv(fd, hello, sizeof(*hello), 0), (ssize_t)sizeof(*hello));
        ck_assert_uint_eq(hello->magic, PORT_WAY_MAGIC);
        ck_assert_uint_eq(hello->model, 5);
        ck_assert_uint_eq(hello->arithmetic, here.kind.arithmetic);
        if (hello->op == op)
            return fd;
        /* The other thread's: it stays as it is. */
    }
}

static void send_way(int door, int status, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct port_way way = {.magic = PORT_WAY_MAGIC,
                           .version = PORT_WAY_VERSION,
                           .size = sizeof(way),
                           .status = status,
                           .node = 9};
    struct iovec iov = {&way, sizeof(way)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    memcpy(way.key, key, sizeof(key));
    if (fd >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    ck_assert_int_eq(sendmsg(door, &msg, 0), (ssize_t)sizeof(way));
}

static struct mover_result result_of(uint64_t id)
{
    struct mover_result result;
    while (!mover_take(mover, &result)) {
        struct pollfd fd = {.fd = runner_fd(here.runner), .events = POLLIN};
        struct engine_event event;
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        ck_assert_uint_eq(runner_take(here.runner, &event, 1), 0);
    }
    ck_assert_uint_eq(result.id, id);
    return result;
}

START_TEST(test_mover_fetches)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct port_way_hello hello;
    int ends[2];
    pthread_t thread;
    random_prompt(21, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    begin_mover();
    ck_assert_int_eq(mover_pull(mover, 1, 9, tokens, PROMPT, 1.0, 0), 0);
    const int door = take_door(PORT_WAY_CALL, &hello);
    ck_assert_uint_eq(hello.node, 9);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    send_way(door, 0, ends[0]);
    close(ends[0]);
    struct giver giver = {.fd = ends[1], .key = key, .kind = there.kind};
    ck_assert_int_eq(pthread_create(&thread, NULL, giver_main, &giver), 0);
    const struct mover_result result = result_of(1);
    pthread_join(thread, NULL);
    ck_assert_int_eq(result.rc, 0);
    ck_assert_uint_eq(result.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    ck_assert_uint_eq(mover_progress(mover), result.pages);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), result.pages);
    close(ends[1]);
    close(door);
    end_mover();
}
END_TEST

/* No way, a node that goes, one that says nothing until it is too late: told, and no pages. */
START_TEST(test_mover_is_refused)
{
    uint32_t tokens[CONTEXT];
    struct port_way_hello hello;
    random_prompt(22, tokens, PROMPT);
    begin_mover();
    /* Prefill would take 0.2 s: then a second is what it has. */
    ck_assert_int_eq(mover_pull(mover, 7, 9, tokens, PROMPT, 1000.0, 0), 0);
    const int door = take_door(PORT_WAY_CALL, &hello);
    if (_i == 0)
        send_way(door, -ESTALE, -1);
    else if (_i == 1)
        send_way(door, 0, -1); /* a way without a connection is none */
    else if (_i == 2)
        close(door);
    const struct mover_result result = result_of(7);
    const int expected[] = {-ESTALE, -EPROTO, -EPIPE, -ETIMEDOUT};
    ck_assert_int_eq(result.rc, expected[_i]);
    ck_assert_uint_eq(result.pages, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
    if (_i != 2)
        close(door);
    end_mover();
}
END_TEST

/* It ends at once while it waits for an answer, and while one is being given. */
START_TEST(test_mover_ends)
{
    uint32_t tokens[CONTEXT];
    struct port_way_hello hello;
    int ends[2];
    random_prompt(23, tokens, PROMPT);
    begin_mover();
    const int serve = take_door(PORT_WAY_SERVE, &hello);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    send_way(serve, 0, ends[0]);
    close(ends[0]);
    ck_assert_int_eq(mover_pull(mover, 1, 9, tokens, PROMPT, 1.0, 0), 0);
    const int call = take_door(PORT_WAY_CALL, &hello);
    end_mover();
    close(call);
    close(serve);
    close(ends[1]);
}
END_TEST

/* Whoever is called gives, and tells the node what it has given. */
START_TEST(test_mover_gives)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct port_way_hello hello;
    struct port_way_figures figures = {.sessions_given = 0};
    struct talk_account account;
    struct line line;
    int ends[2];
    _Atomic uint32_t progress = 0;
    const struct talk_wish wish = wish_of(tokens, PROMPT, &progress);
    random_prompt(24, tokens, PROMPT);
    (void)answer(&here, tokens, PROMPT, got);
    begin_mover();
    const int serve = take_door(PORT_WAY_SERVE, &hello);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    send_way(serve, 0, ends[0]);
    close(ends[0]);
    ck_assert_int_eq(line_init(&line, ends[1], -1, key, true), 0);
    ck_assert_int_eq(talk_take(there.runner, &there.kind, &line, &wish, &account), 0);
    line_deinit(&line);
    ck_assert_uint_eq(account.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    while (figures.sessions_given == 0) {
        struct pollfd pfd = {.fd = serve, .events = POLLIN};
        ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
        ck_assert_int_eq(recv(serve, &figures, sizeof(figures), 0), (ssize_t)sizeof(figures));
    }
    ck_assert_uint_eq(figures.pages_given, account.pages);
    ck_assert_uint_eq(figures.bytes_given, account.pages * here.kind.page_bytes);
    close(serve);
    close(ends[1]);
    end_mover();
}
END_TEST

/* ---- messages ---- */

START_TEST(test_asks)
{
    uint32_t tokens[64];
    struct pull_ask ask;
    struct pull_kind kind = here.kind;
    random_prompt(1, tokens, 64);
    pull_ask_seal(&ask, &kind, tokens, 64, 1);
    ck_assert_int_eq(pull_ask_check(&ask, &kind), 0);
    ck_assert_int_eq(pull_tokens_check(&ask, tokens), 0);
    tokens[63] ^= 1;
    ck_assert_int_eq(pull_tokens_check(&ask, tokens), -EINVAL);
    tokens[63] = TINY_VOCAB;
    pull_ask_seal(&ask, &kind, tokens, 64, 1);
    ck_assert_int_eq(pull_tokens_check(&ask, tokens), -EINVAL);
    const uint32_t bad[] = {0, 63, PULL_TOKENS_MAX + EXEC_PAGE_TOKENS, UINT32_MAX};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ask.tokens = bad[i];
        ck_assert_int_eq(pull_ask_check(&ask, &kind), -EINVAL);
    }
    pull_ask_seal(&ask, &kind, tokens, 64, 4);
    ck_assert_int_eq(pull_ask_check(&ask, &kind), -EINVAL);
    pull_ask_seal(&ask, &kind, tokens, 64, 0);
    ask.version++;
    ck_assert_int_eq(pull_ask_check(&ask, &kind), -EPROTO);
    ask.magic++;
    ck_assert_int_eq(pull_ask_check(&ask, &kind), -EINVAL);
    pull_ask_seal(&ask, &kind, tokens, 64, 0);
    kind.arithmetic = 0; /* of nobody who knows what it computes */
    ask.kind = kind;
    ck_assert_int_eq(pull_ask_check(&ask, &kind), -ESTALE);
}
END_TEST

START_TEST(test_heads_and_tails)
{
    struct pull_head head;
    struct pull_go go;
    struct pull_tail tail;
    pull_head_seal(&head, 0, 7);
    ck_assert_int_eq(pull_head_check(&head, 7), 0);
    ck_assert_int_eq(pull_head_check(&head, 6), -EINVAL);
    head.pages--;
    ck_assert_int_eq(pull_head_check(&head, 7), -EINVAL);
    pull_head_seal(&head, -ESTALE, 7);
    ck_assert_int_eq(pull_head_check(&head, 7), -ESTALE);
    ck_assert_uint_eq(head.pages, 0);
    pull_head_seal(&head, INT32_MIN, 0); /* no error's number: nobody can negate it */
    ck_assert_int_eq(pull_head_check(&head, 7), -EINVAL);
    pull_go_seal(&go, 3);
    ck_assert_int_eq(pull_go_check(&go, 3), 0);
    ck_assert_int_eq(pull_go_check(&go, 2), -EINVAL);
    go.pages = 2;
    ck_assert_int_eq(pull_go_check(&go, 3), -EINVAL);
    pull_tail_seal(&tail, 3, 42);
    ck_assert_int_eq(pull_tail_check(&tail, 3, 42), 0);
    ck_assert_int_eq(pull_tail_check(&tail, 3, 41), -EINVAL);
    ck_assert_int_eq(pull_tail_check(&tail, 2, 42), -EINVAL);
}
END_TEST

/* Worth it only if computing takes clearly longer; what was slow is believed to be. */
START_TEST(test_worth)
{
    struct pull_rates rates = {.bytes_per_second = 0.0};
    const size_t page = 1 << 20;
    ck_assert(!pull_pays(&rates, 0, page, 100.0));
    ck_assert(!pull_pays(&rates, 100, page, 0.0));
    ck_assert(pull_pays(&rates, 100, page, 100.0)); /* 1 s against 16 s */
    ck_assert(!pull_pays(&rates, 100, page, 1e4));  /* against 0.16 s */
    ck_assert(!pull_pays(&rates, 1, page, 1e3));    /* 28 ms against 16: the beginning counts */
    pull_learn(&rates, 1000, 0.1, 1.0);
    ck_assert(!(rates.bytes_per_second > 0.0)); /* too little to say anything */
    pull_learn(&rates, 100 << 20, 0.001, 100.0);
    ck_assert(!pull_pays(&rates, 100, page, 100.0)); /* a megabyte a second */
    for (int i = 0; i < 40; i++)
        pull_learn(&rates, 100 << 20, 0.001, 0.1);
    ck_assert(pull_pays(&rates, 100, page, 1e3));
    const double before = pull_seconds(&rates, 100, page);
    pull_slower(&rates);
    ck_assert(pull_seconds(&rates, 100, page) > 3.0 * before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels/moves");
    TCase *messages = tcase_create("messages");
    TCase *moves = tcase_create("moves");
    tcase_add_checked_fixture(messages, setup, teardown);
    tcase_add_test(messages, test_asks);
    tcase_add_test(messages, test_heads_and_tails);
    tcase_add_test(messages, test_worth);
    suite_add_tcase(suite, messages);
    tcase_add_checked_fixture(moves, setup, teardown);
    tcase_set_timeout(moves, 120);
    tcase_add_loop_test(moves, test_moves_and_goes_on, 0, 4);
    tcase_add_test(moves, test_only_what_is_missing);
    tcase_add_test(moves, test_nothing_there);
    tcase_add_loop_test(moves, test_refused, 0, 5);
    tcase_add_loop_test(moves, test_damaged_and_cut, 0, 12);
    tcase_add_test(moves, test_no_room);
    tcase_add_test(moves, test_streams_go_on);
    suite_add_tcase(suite, moves);
    TCase *movers = tcase_create("mover");
    tcase_add_checked_fixture(movers, setup, teardown);
    tcase_set_timeout(movers, 120);
    tcase_add_test(movers, test_mover_fetches);
    tcase_add_loop_test(movers, test_mover_is_refused, 0, 4);
    tcase_add_test(movers, test_mover_ends);
    tcase_add_test(movers, test_mover_gives);
    suite_add_tcase(suite, movers);
    return suite_main(suite);
}
