/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/moves/mover.h, with a node that the test is: calls that are answered, refused or
 * not answered, callers that stand still, and what jobs wait for then. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernels/moves/gives.h"
#include "kernels/moves/mover.h"
#include "schemas/base/clock.h"
#include "schemas/port.h"
#include "tests/unit/suite.h"
#include "two_engines.h"

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

static void send_way(int door, int status, uint16_t node, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct port_way way = {.magic = PORT_WAY_MAGIC,
                           .version = PORT_WAY_VERSION,
                           .size = sizeof(way),
                           .status = status,
                           .node = node};
    struct iovec iov = {&way, sizeof(way)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    memcpy(way.key, line_key, sizeof(line_key));
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

static struct mover_result next_result(void)
{
    struct mover_result result;
    while (!mover_take(mover, &result)) {
        struct pollfd fd = {.fd = runner_fd(here.runner), .events = POLLIN};
        struct engine_event event;
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        ck_assert_uint_eq(runner_take(here.runner, &event, 1), 0);
    }
    return result;
}

static struct mover_result result_of(uint64_t id)
{
    const struct mover_result result = next_result();
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
    send_way(door, 0, 9, ends[0]);
    close(ends[0]);
    struct giver giver = {.fd = ends[1], .key = line_key, .kind = there.kind};
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
        send_way(door, -ESTALE, 9, -1);
    else if (_i == 1)
        send_way(door, 0, 9, -1); /* a way without a connection is none */
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
    send_way(serve, 0, 9, ends[0]);
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
    random_prompt(24, tokens, PROMPT);
    const struct talk_wish wish = wish_of(tokens, PROMPT, &progress);
    (void)answer(&here, tokens, PROMPT, got);
    begin_mover();
    const int serve = take_door(PORT_WAY_SERVE, &hello);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    send_way(serve, 0, 9, ends[0]);
    close(ends[0]);
    ck_assert_int_eq(line_init(&line, ends[1], -1, line_key, true), 0);
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

/* A connection to whoever waits at that door, who is at node `node`; returns this end. */
static int join(int door, uint16_t node)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    send_way(door, 0, node, ends[0]);
    close(ends[0]);
    return ends[1];
}

/* A node that has taken the call and says nothing: one job waits for it, for so long and no longer;
 * who waits behind it does not, and who comes then is told at once. Another node is asked. */
START_TEST(test_silent_node)
{
    uint32_t tokens[CONTEXT];
    struct port_way_hello hello;
    random_prompt(25, tokens, PROMPT);
    begin_mover();
    const uint64_t begin_ns = clock_now_ns();
    for (uint64_t id = 1; id <= 3; id++)
        ck_assert_int_eq(mover_pull(mover, id, 9, tokens, PROMPT, 1.0, 0), 0);
    const int doors[] = {take_door(PORT_WAY_CALL, &hello), take_door(PORT_WAY_CALL, &hello)};
    const int fds[] = {join(doors[0], 9), join(doors[1], 9)};
    for (int i = 0; i < 3; i++) {
        const struct mover_result result = next_result();
        const bool was_asked = result.id <= 2;
        ck_assert(result.rc == -ETIMEDOUT || (!was_asked && result.rc == -EHOSTDOWN));
        ck_assert(!was_asked || result.took_ns >= MOVER_FIRST_NS);
    }
    ck_assert_uint_lt(clock_now_ns() - begin_ns, 2 * MOVER_FIRST_NS);
    ck_assert_int_eq(mover_pull(mover, 4, 9, tokens, PROMPT, 1.0, 0), -EHOSTDOWN);
    ck_assert_int_eq(mover_pull(mover, 5, 10, tokens, PROMPT, 1.0, 0), 0);
    const int door = take_door(PORT_WAY_CALL, &hello);
    ck_assert_uint_eq(hello.node, 10);
    send_way(door, -ESTALE, 10, -1);
    ck_assert_int_eq(result_of(5).rc, -ESTALE);
    for (int i = 0; i < 2; i++) {
        close(doors[i]);
        close(fds[i]);
    }
    close(door);
    end_mover();
}
END_TEST

/* While one node says nothing another one's pages come. */
START_TEST(test_silent_node_is_passed)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct port_way_hello hello;
    pthread_t thread;
    random_prompt(26, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    begin_mover();
    ck_assert_int_eq(mover_pull(mover, 1, 9, tokens, PROMPT, 1.0, 0), 0);
    const int silent = take_door(PORT_WAY_CALL, &hello);
    ck_assert_uint_eq(hello.node, 9);
    ck_assert_int_eq(mover_pull(mover, 2, 10, tokens, PROMPT, 1.0, 0), 0);
    const int door = take_door(PORT_WAY_CALL, &hello);
    ck_assert_uint_eq(hello.node, 10);
    struct giver giver = {.fd = join(door, 10), .key = line_key, .kind = there.kind};
    ck_assert_int_eq(pthread_create(&thread, NULL, giver_main, &giver), 0);
    const struct mover_result result = result_of(2); /* the first that is over */
    pthread_join(thread, NULL);
    ck_assert_int_eq(result.rc, 0);
    ck_assert_uint_eq(result.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    close(giver.fd);
    close(silent);
    close(door);
    end_mover();
}
END_TEST

static bool hung_up(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_PEEK) == 0;
}

static void given(const struct talk_account *account, void *user)
{
    (void)account;
    (void)user;
}

/* How many of a node's calls are taken does not hang on how soon the threads that serve them wake:
 * these come all at once. */
START_TEST(test_calls_at_once)
{
    enum { CROWD = 2 * GIVES_OF_ONE + 2 };
    const struct port_way way = {.node = 9};
    struct gives *gives;
    int ends[CROWD][2];
    int stop_fd = eventfd(0, EFD_CLOEXEC);
    const struct gives_options options = {
        .runner = here.runner, .kind = here.kind, .stop_fd = stop_fd, .done = given};
    ck_assert_int_eq(gives_create(&gives, &options), 0);
    for (uint32_t i = 0; i < CROWD; i++)
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]), 0);
    for (uint32_t i = 0; i < CROWD; i++)
        gives_take(gives, &way, ends[i][1]);
    for (uint32_t i = 0; i < CROWD; i++)
        ck_assert_int_eq(hung_up(ends[i][0]), i >= 2 * GIVES_OF_ONE);
    ck_assert_int_eq(eventfd_write(stop_fd, 1), 0);
    gives_destroy(gives);
    for (uint32_t i = 0; i < CROWD; i++)
        close(ends[i][0]);
    close(stop_fd);
}
END_TEST

/* Callers that say nothing, more than are served and may wait: the last is turned away, and another
 * node's is served while they still stand there. */
START_TEST(test_silent_callers)
{
    enum { CROWD = 2 * GIVES_OF_ONE + 1 };
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct port_way_hello hello;
    struct talk_account account;
    struct line line;
    int crowd[CROWD];
    _Atomic uint32_t progress = 0;
    random_prompt(27, tokens, PROMPT);
    const struct talk_wish wish = wish_of(tokens, PROMPT, &progress);
    (void)answer(&here, tokens, PROMPT, got);
    begin_mover();
    const int serve = take_door(PORT_WAY_SERVE, &hello);
    for (uint32_t i = 0; i < CROWD; i++)
        crowd[i] = join(serve, 9);
    struct pollfd pfd = {.fd = crowd[CROWD - 1], .events = POLLIN};
    ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
    ck_assert(hung_up(crowd[CROWD - 1]));
    const int good = join(serve, 10);
    ck_assert_int_eq(line_init(&line, good, -1, line_key, true), 0);
    ck_assert_int_eq(talk_take(there.runner, &there.kind, &line, &wish, &account), 0);
    line_deinit(&line);
    ck_assert_uint_eq(account.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    for (uint32_t i = 0; i < GIVES_OF_ONE; i++)
        ck_assert(!hung_up(crowd[i]));
    for (uint32_t i = 0; i < CROWD; i++)
        close(crowd[i]);
    close(good);
    close(serve);
    end_mover();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels/mover");
    TCase *movers = tcase_create("mover");
    tcase_add_checked_fixture(movers, engines_open, engines_close);
    tcase_set_timeout(movers, 120);
    tcase_add_test(movers, test_mover_fetches);
    tcase_add_loop_test(movers, test_mover_is_refused, 0, 4);
    tcase_add_test(movers, test_mover_ends);
    tcase_add_test(movers, test_mover_gives);
    tcase_add_test(movers, test_silent_node);
    tcase_add_test(movers, test_silent_node_is_passed);
    tcase_add_test(movers, test_calls_at_once);
    tcase_add_test(movers, test_silent_callers);
    suite_add_tcase(suite, movers);
    return suite_main(suite);
}
