/* SPDX-License-Identifier: Apache-2.0 */
/* test_client.c - client.c over real sockets and rings against the node of tiny_node.h. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "schemas/base/clock.h"
#include "tests/unit/client/tiny_node.h"
#include "tests/unit/suite.h"

#define FLOOD 2000u

struct gather {
    char *text;
    size_t len;
    size_t size;
    uint32_t pieces;
    int done;
    weft_result_t result;
    weft_client_t *interrupt; /* after the first piece */
    bool cancel;
    bool hold; /* behind each piece */
    bool held;
    uint32_t nap_ms; /* once, in the first piece */
};

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct gather *g = user;
    ck_assert(!g->held);
    if (g->len + len > g->size) {
        g->size = 2 * (g->len + len);
        g->text = realloc(g->text, g->size);
    }
    memcpy(g->text + g->len, text, len);
    g->len += len;
    if (g->pieces++ == 0 && g->nap_ms != 0) {
        usleep(g->nap_ms * 1000);
    }
    if (g->interrupt != NULL) {
        weft_ask_interrupt(g->interrupt);
    }
    if (g->cancel) {
        weft_cancel(req);
    }
    if (g->hold) {
        weft_hold(req, true);
        g->held = true;
    }
}

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    (void)req;
    struct gather *g = user;
    g->done++;
    g->result = *result;
}

/* Most cases run once over each transport: loop tests, `_i` is one of these. */
enum { OVER_UDP, OVER_PORT, TRANSPORTS };

static weft_client_t *connect_with(const struct tiny_node *n, int transport,
                                   weft_client_opts_t opts)
{
    char address[TINY_ADDRESS_MAX];
    tiny_node_address(n, transport == OVER_PORT, address);
    opts.node = address;
    weft_client_t *c;
    ck_assert_int_eq(weft_client_create(&c, &opts), 0);
    return c;
}

static weft_client_t *connect_to(const struct tiny_node *n, int transport)
{
    return connect_with(n, transport, (weft_client_opts_t){0});
}

static void run_until(weft_client_t *c, int open)
{
    int left;
    do {
        struct pollfd pfd = {.fd = weft_client_fd(c), .events = POLLIN};
        (void)poll(&pfd, 1, weft_client_timeout_ms(c));
        left = weft_client_process(c);
        ck_assert_int_ge(left, 0);
    } while (left > open);
}

static weft_query_t text_query(const char *text)
{
    return (weft_query_t){.model = "m", .text = text, .text_len = strlen(text)};
}

START_TEST(ask_streams)
{
    struct tiny_node *n = tiny_node_start(true);
    weft_client_t *c = connect_to(n, _i);
    for (int i = 0; i < 3; i++) {
        struct gather g = {0};
        weft_query_t q = text_query("what goes in comes out again");
        weft_result_t r;
        ck_assert_int_eq(weft_ask(c, &q, on_text, &g, &r), 0);
        ck_assert_uint_eq(g.len, q.text_len);
        ck_assert_int_eq(memcmp(g.text, q.text, g.len), 0);
        ck_assert_uint_eq(g.pieces, 4);
        ck_assert_uint_eq(r.new_tokens, 4);
        ck_assert_str_eq(r.node, "tiny");
        ck_assert_str_eq(r.backend, "echo");
        ck_assert_uint_eq(r.tier, 3);
        ck_assert_uint_ne(r.first_token_us, 0);
        ck_assert_uint_le(r.net_us, r.total_us);
        free(g.text);
    }
    /* Proven once, remembered; a local client is proven by its socket. */
    ck_assert_uint_eq(atomic_load(&n->cookies), _i == OVER_UDP ? 1 : 0);
    ck_assert_uint_eq(atomic_load(&n->started), 3);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

START_TEST(chat_and_long_prompt_with_loss)
{
    struct tiny_node *n = tiny_node_start(true);
    weft_client_t *c = connect_to(n, _i);
    atomic_store(&n->loss_permille, 30);
    size_t len = 60000;
    char *text = malloc(len);
    for (size_t i = 0; i < len; i++) {
        text[i] = (char)('a' + i % 23);
    }
    weft_message_t messages[2] = {{"system", "be brief", 8}, {"user", text, len}};
    weft_query_t q = {.model = "m", .messages = messages, .message_count = 2};
    struct gather g = {0};
    weft_result_t r;
    ck_assert_int_eq(weft_ask(c, &q, on_text, &g, &r), 0);
    ck_assert_uint_eq(g.len, len);
    ck_assert_int_eq(memcmp(g.text, text, len), 0);
    ck_assert_uint_eq(atomic_load(&n->started), 1);
    free(g.text);
    free(text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

START_TEST(thousands_at_once)
{
    struct tiny_node *n = tiny_node_start(true);
    tiny_node_room(n, TINY_JOBS_MAX);
    weft_client_t *c = connect_to(n, _i);
    struct gather *all = calloc(FLOOD, sizeof(*all));
    char(*text)[48] = calloc(FLOOD, sizeof(*text));
    for (uint32_t i = 0; i < FLOOD; i++) {
        snprintf(text[i], sizeof(text[i]), "request number %u of many, with its own text", i);
        weft_query_t q = text_query(text[i]);
        ck_assert_int_eq(weft_submit(c, &q, on_text, on_done, &all[i], NULL), 0);
    }
    run_until(c, 0);
    for (uint32_t i = 0; i < FLOOD; i++) {
        ck_assert_int_eq(all[i].done, 1);
        ck_assert_msg(all[i].result.status == 0, "%u: %d", i, all[i].result.status);
        ck_assert_uint_eq(all[i].len, strlen(text[i]));
        ck_assert_int_eq(memcmp(all[i].text, text[i], all[i].len), 0);
        free(all[i].text);
    }
    ck_assert_uint_eq(atomic_load(&n->started), FLOOD);
    free(all);
    free(text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

START_TEST(cancel_and_interrupt)
{
    struct tiny_node *n = tiny_node_start(true);
    atomic_store(&n->step_us, 2000);
    weft_client_t *c = connect_to(n, _i);
    char text[6000];
    memset(text, 'x', sizeof(text));
    weft_query_t q = {.model = "m", .text = text, .text_len = sizeof(text)};
    struct gather g = {.interrupt = c};
    weft_result_t r;
    ck_assert_int_eq(weft_ask(c, &q, on_text, &g, &r), WEFT_E_CANCELLED);
    ck_assert_uint_lt(g.len, sizeof(text));
    ck_assert_int_eq(r.finish, WEFT_FINISH_CANCELLED);
    ck_assert_uint_eq(atomic_load(&n->cancelled), 1);
    free(g.text);

    struct gather h = {.cancel = true}; /* from inside the callback */
    ck_assert_int_eq(weft_ask(c, &q, on_text, &h, &r), WEFT_E_CANCELLED);
    ck_assert_uint_eq(atomic_load(&n->cancelled), 2);
    free(h.text);

    weft_ask_interrupt(c); /* with nothing to interrupt: does not hit the next one */
    struct gather k = {0};
    weft_query_t small = text_query("small");
    ck_assert_int_eq(weft_ask(c, &small, on_text, &k, &r), 0);
    free(k.text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

/* A reader that pauses for longer than any bound on silence gets the whole text all the same. */
START_TEST(slow_reader_loses_nothing)
{
    struct tiny_node *n = tiny_node_start(true);
    weft_client_t *c = connect_with(n, _i, (weft_client_opts_t){.stall_timeout_ms = 1000});
    enum { LEN = 150000 }; /* more than the window, with its frames */
    char *text = malloc(LEN);
    for (int i = 0; i < LEN; i++) {
        text[i] = (char)('a' + i % 23);
    }
    struct gather g = {0};
    weft_query_t q = {.model = "m", .text = text, .text_len = LEN, .max_tokens = LEN};
    weft_request_t *req;
    ck_assert_int_eq(weft_submit(c, &q, on_text, on_done, &g, &req), 0);
    while (g.pieces < 10) {
        struct pollfd pfd = {.fd = weft_client_fd(c), .events = POLLIN};
        (void)poll(&pfd, 1, weft_client_timeout_ms(c));
        weft_client_process(c);
    }
    weft_hold(req, true);
    size_t before = g.len;
    for (uint64_t end_ns = clock_now_ns() + 1500 * NS_PER_MS; clock_now_ns() < end_ns;) {
        struct pollfd pfd = {.fd = weft_client_fd(c), .events = POLLIN};
        (void)poll(&pfd, 1, 100);
        weft_client_process(c);
        ck_assert_uint_eq(g.len, before);
    }
    weft_hold(req, false);
    run_until(c, 0);
    ck_assert_int_eq(g.result.status, 0);
    ck_assert_uint_eq(g.len, LEN);
    ck_assert_mem_eq(g.text, text, LEN);
    ck_assert_uint_eq(g.result.failovers, 0);
    free(g.text);
    free(text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

/* A callback that takes longer than any bound on silence, while the answer has come to a stop: the
 * client was away, not the worker. */
START_TEST(slow_callback_loses_nothing)
{
    struct tiny_node *n = tiny_node_start(true);
    atomic_store(&n->step_us, 100000); /* the answer goes on, but is not there yet */
    weft_client_t *c = connect_with(n, _i, (weft_client_opts_t){.stall_timeout_ms = 1000});
    static const char text[] = "A loom waits for its weaver.";
    struct gather g = {.nap_ms = 1500};
    weft_query_t q = text_query(text);
    weft_result_t r;
    ck_assert_int_eq(weft_ask(c, &q, on_text, &g, &r), 0);
    ck_assert_uint_eq(g.len, strlen(text));
    ck_assert_mem_eq(g.text, text, g.len);
    free(g.text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

/* Held from within its callback: nothing more comes, though it lies there already; all of it comes
 * when the reader lets it. */
START_TEST(hold_within_a_callback)
{
    struct tiny_node *n = tiny_node_start(true);
    weft_client_t *c = connect_to(n, _i);
    static const char text[] = "What a loom gives in one piece is read thread by thread.";
    weft_query_t q = text_query(text);
    struct gather g = {.hold = true};
    weft_request_t *req;
    ck_assert_int_eq(weft_submit(c, &q, on_text, on_done, &g, &req), 0);
    while (g.done == 0) {
        struct pollfd pfd = {.fd = weft_client_fd(c), .events = POLLIN};
        (void)poll(&pfd, 1, weft_client_timeout_ms(c));
        weft_client_process(c);
        if (g.held) {
            uint32_t pieces = g.pieces;
            usleep(2000); /* more arrives */
            weft_client_process(c);
            ck_assert_uint_eq(g.pieces, pieces);
            g.held = false;
            weft_hold(req, false);
        }
    }
    ck_assert_int_eq(g.result.status, 0);
    ck_assert_uint_gt(g.pieces, 5);
    ck_assert_uint_eq(g.len, strlen(text));
    ck_assert_mem_eq(g.text, text, g.len);
    free(g.text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

/* ---- requests out of callbacks ---- */

#define CHAIN 30u

struct chain {
    weft_client_t *client;
    uint32_t text_seen, done_seen, texts_asked, wrong;
};

static void chain_ask(struct chain *ch);

static void chain_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    (void)req;
    (void)text;
    (void)len;
    struct chain *ch = user;
    if (ch->text_seen++ < CHAIN) { /* from the middle of an answer */
        chain_ask(ch);
        ch->texts_asked++;
    }
}

static void chain_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    (void)req;
    struct chain *ch = user;
    ch->wrong += result->status != 0;
    if (ch->done_seen++ < CHAIN) { /* from the end of one, which is freed behind this call */
        chain_ask(ch);
    }
}

static void chain_ask(struct chain *ch)
{
    weft_query_t q = text_query("one asks, and then the next");
    ck_assert_int_eq(weft_submit(ch->client, &q, chain_text, chain_done, ch, NULL), 0);
}

START_TEST(callbacks_ask_on)
{
    struct tiny_node *n = tiny_node_start(true);
    struct chain ch = {.client = connect_to(n, _i)};
    chain_ask(&ch);
    run_until(ch.client, 0);
    ck_assert_uint_eq(ch.wrong, 0);
    ck_assert_uint_eq(ch.texts_asked, CHAIN);
    ck_assert_uint_eq(ch.done_seen, 1 + 2 * CHAIN);
    ck_assert_uint_eq(atomic_load(&n->started), 1 + 2 * CHAIN);
    weft_client_destroy(ch.client);
    tiny_node_stop(n);
}
END_TEST

START_TEST(closed_port_is_unreachable_at_once)
{
    struct tiny_node *n = tiny_node_start(false);
    weft_client_t *c = connect_with(n, _i, (weft_client_opts_t){.connect_tries = 1000000});
    tiny_node_stop(n);
    weft_query_t q = text_query("anybody?");
    weft_result_t r;
    /* Not by the tries, which need days. */
    ck_assert_int_eq(weft_ask(c, &q, NULL, NULL, &r), WEFT_E_UNREACHABLE);
    weft_client_destroy(c);
}
END_TEST

START_TEST(silent_node_is_unreachable)
{
    struct tiny_node *n = tiny_node_start(false);
    atomic_store(&n->mute, true);
    weft_client_t *c = connect_with(n, _i, (weft_client_opts_t){.connect_tries = 2});
    weft_query_t q = text_query("anybody?");
    weft_result_t r;
    ck_assert_int_eq(weft_ask(c, &q, NULL, NULL, &r), WEFT_E_UNREACHABLE);
    q.budget_ms = 50;
    ck_assert_int_eq(weft_ask(c, &q, NULL, NULL, &r), WEFT_E_BUDGET_EXPIRED);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

START_TEST(loss_of_worker_and_silence_are_told)
{
    struct tiny_node *n = tiny_node_start(true);
    atomic_store(&n->step_us, 2000);
    weft_client_t *c = connect_with(n, _i, (weft_client_opts_t){.stall_timeout_ms = 400});
    char text[60000];
    memset(text, 'x', sizeof(text));
    weft_query_t q = {.model = "m", .text = text, .text_len = sizeof(text)};
    struct gather g = {0};
    ck_assert_int_eq(weft_submit(c, &q, on_text, on_done, &g, NULL), 0);
    while (g.len == 0) {
        weft_client_process(c);
    }
    atomic_store(&n->mute, true);
    run_until(c, 0);
    ck_assert_int_eq(g.done, 1);
    ck_assert_int_eq(g.result.status, WEFT_E_STALLED);
    ck_assert_uint_eq(g.result.new_tokens, g.pieces);
    free(g.text);

    atomic_store(&n->mute, false);
    weft_client_destroy(c);
    c = connect_to(n, _i); /* one that bears a node which is slow to say so */
    struct gather h = {0};
    ck_assert_int_eq(weft_submit(c, &q, on_text, on_done, &h, NULL), 0);
    while (h.len == 0) {
        weft_client_process(c);
    }
    atomic_store(&n->cut_port, true);
    run_until(c, 0);
    ck_assert_int_eq(h.result.status, WEFT_E_WORKER_LOST);
    free(h.text);
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

START_TEST(limits_and_destroy_with_open_requests)
{
    struct tiny_node *n = tiny_node_start(false);
    atomic_store(&n->mute, true);
    weft_client_t *c = connect_to(n, _i);
    weft_query_t q = text_query("one of many");
    struct gather g = {0};
    for (uint32_t i = 0; i < 65536; i++) {
        ck_assert_int_eq(weft_submit(c, &q, NULL, on_done, &g, NULL), 0);
    }
    ck_assert_int_eq(weft_submit(c, &q, NULL, on_done, &g, NULL), -EAGAIN);
    ck_assert_int_eq(weft_submit(c, &q, NULL, NULL, &g, NULL), -EINVAL);
    weft_client_destroy(c);
    ck_assert_int_eq(g.done, 0);
    weft_client_destroy(NULL);
    tiny_node_stop(n);
}
END_TEST

static void ask_echo(weft_client_t *c, const char *text, int status)
{
    struct gather g = {0};
    weft_query_t q = text_query(text);
    weft_result_t r;
    ck_assert_int_eq(weft_ask(c, &q, on_text, &g, &r), status);
    ck_assert_uint_eq(g.len, status == 0 ? q.text_len : 0);
    free(g.text);
}

/* The node closes the port, as when it is started again: the next request attaches anew. */
START_TEST(attaches_again)
{
    struct tiny_node *n = tiny_node_start(true);
    weft_client_t *c = connect_to(n, OVER_PORT);
    for (int i = 0; i < 5; i++) {
        ask_echo(c, "here and there again", 0);
        atomic_store(&n->cut_client, true);
        while (atomic_load(&n->cut_client)) {
            usleep(1000);
        }
        if (i % 2 == 0) {
            (void)weft_client_process(c); /* it may have heard of it or not */
        }
    }
    weft_client_destroy(c);
    tiny_node_stop(n);
}
END_TEST

/* Without its own node a client asks the next of its list; alone it says so at once. */
START_TEST(own_node_that_is_not_there)
{
    struct tiny_node *n = tiny_node_start(true);
    char address[TINY_ADDRESS_MAX], list[2 * TINY_ADDRESS_MAX];
    tiny_node_address(n, false, address);
    snprintf(list, sizeof(list), "unix:/nowhere/at/all,%s", address);
    weft_client_opts_t opts = {.node = list};
    weft_client_t *c;
    ck_assert_int_eq(weft_client_create(&c, &opts), 0);
    for (int i = 0; i < 3; i++) {
        ask_echo(c, "is anybody at home", 0);
    }
    weft_client_destroy(c);
    opts.node = "unix:/nowhere/at/all";
    ck_assert_int_eq(weft_client_create(&c, &opts), -ENOENT);
    tiny_node_stop(n);
}
END_TEST

START_TEST(addresses)
{
    char too_long[160] = "unix:/"; /* for the address of a socket */
    memset(too_long + 6, 'x', sizeof(too_long) - 7);
    const char *bad[] = {"",
                         "unix:",
                         too_long,
                         ":7400",
                         "127.0.0.1:",
                         "127.0.0.1:0",
                         "127.0.0.1:http",
                         "1.2.3.4:x",
                         "127.0.0.1:123456789"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        weft_client_opts_t opts = {.node = bad[i]};
        weft_client_t *c = NULL;
        ck_assert_msg(weft_client_create(&c, &opts) == -EINVAL, "%s", bad[i]);
        ck_assert_ptr_null(c);
    }
    weft_client_opts_t opts = {.node = "127.0.0.1"};
    weft_client_t *c = NULL;
    ck_assert_int_eq(weft_client_create(&c, &opts), 0);
    ck_assert_int_eq(weft_client_timeout_ms(c), -1);
    weft_client_destroy(c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client/ask");
    TCase *t = tcase_create("ask");
    tcase_set_timeout(t, 150);
    tcase_add_loop_test(t, ask_streams, 0, TRANSPORTS);
    tcase_add_loop_test(t, chat_and_long_prompt_with_loss, 0, TRANSPORTS);
    tcase_add_loop_test(t, thousands_at_once, 0, TRANSPORTS);
    tcase_add_loop_test(t, cancel_and_interrupt, 0, TRANSPORTS);
    tcase_add_loop_test(t, slow_reader_loses_nothing, 0, TRANSPORTS);
    tcase_add_loop_test(t, slow_callback_loses_nothing, 0, TRANSPORTS);
    tcase_add_loop_test(t, hold_within_a_callback, 0, TRANSPORTS);
    tcase_add_loop_test(t, callbacks_ask_on, 0, TRANSPORTS);
    tcase_add_loop_test(t, closed_port_is_unreachable_at_once, 0, TRANSPORTS);
    tcase_add_loop_test(t, silent_node_is_unreachable, 0, TRANSPORTS);
    tcase_add_loop_test(t, loss_of_worker_and_silence_are_told, 0, TRANSPORTS);
    tcase_add_loop_test(t, limits_and_destroy_with_open_requests, 0, TRANSPORTS);
    tcase_add_test(t, attaches_again);
    tcase_add_test(t, own_node_that_is_not_there);
    tcase_add_test(t, addresses);
    suite_add_tcase(s, t);
    return suite_main(s);
}
