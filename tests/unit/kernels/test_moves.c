/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/moves: two engines with a runner each, a connection between them that a third
 * party can damage, delay and cut. What is answered behind fetched pages has to be what an engine
 * answers that has computed everything. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/moves/talk.h"
#include "schemas/base/clock.h"
#include "schemas/base/crc32c.h"
#include "tests/unit/suite.h"
#include "two_engines.h"

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

struct outcome {
    int take;
    int give;
    struct talk_account account;
    struct talk_account given;
};

/* Tokens a second that the caller computes. */
static double speed = 1.0;

static struct outcome pull(const uint32_t *tokens, uint32_t count, struct between *between,
                           const struct pull_kind *giver_kind, const uint8_t *giver_key)
{
    struct outcome out;
    struct line line;
    pthread_t threads[2];
    int caller[2];
    int called[2];
    _Atomic uint32_t progress = 0;
    struct talk_wish wish = wish_of(tokens, count, &progress);
    wish.prefill_per_second = speed;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, caller), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, called), 0);
    between->a = caller[1];
    between->b = called[1];
    struct giver giver = {.fd = called[0], .key = giver_key, .kind = *giver_kind};
    ck_assert_int_eq(pthread_create(&threads[0], NULL, between_main, between), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, giver_main, &giver), 0);
    ck_assert_int_eq(line_init(&line, caller[0], -1, line_key, true), 0);
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
    const struct outcome out = pull(tokens, count, &between, &there.kind, line_key);
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
    struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
    ck_assert_int_eq(out.take, 0);
    ck_assert_uint_eq(out.account.known, 80 / EXEC_PAGE_TOKENS);
    ck_assert_uint_eq(out.account.known + out.account.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
    between = honest();
    out = pull(tokens, PROMPT, &between, &there.kind, line_key);
    ck_assert_int_eq(out.take, -ENODATA);
    ck_assert_uint_eq(out.account.pages, 0);
}
END_TEST

START_TEST(test_nothing_there)
{
    uint32_t tokens[CONTEXT];
    struct between between = honest();
    random_prompt(6, tokens, PROMPT);
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
    ck_assert_int_eq(out.take, -ENODATA);
    ck_assert_int_eq(out.give, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
}
END_TEST

/* All of it is there, but it is computed sooner than fetched: both ends go on. */
START_TEST(test_not_worth_it)
{
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    struct between between = honest();
    random_prompt(7, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    speed = 1e15;
    struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
    ck_assert_int_eq(out.take, -ENODATA);
    ck_assert_int_eq(out.give, 0);
    ck_assert_uint_eq(out.account.pages + out.given.pages, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
    speed = 1.0;
    between = honest();
    out = pull(tokens, PROMPT, &between, &there.kind, line_key);
    ck_assert_int_eq(out.take, 0);
    ck_assert_uint_eq(out.account.pages, (PROMPT - 1) / EXEC_PAGE_TOKENS);
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
    const struct outcome out =
        pull(tokens, PROMPT, &between, &kind, _i == 4 ? other_key : line_key);
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
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
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
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
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
    const struct outcome out = pull(tokens, PROMPT, &between, &there.kind, line_key);
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

/* ---- members that lie: sealed by them, and sums put right where that is the lie ---- */

enum lie {
    HEAD_MAGIC,
    HEAD_VERSION,
    HEAD_MORE,
    HEAD_GIANT,
    HEAD_STATUS,
    PAGE_INDEX,
    PAGE_CHANGED,
    PAGE_HALF,
    TAIL_SUM,
    LEAVES,
    LIES,
};

struct liar {
    int fd;
    enum lie lie;
};

static void lie_head(struct line *line, enum lie lie, uint32_t most)
{
    struct pull_head head;
    pull_head_seal(&head, 0, lie == HEAD_MORE ? most + 1 : lie == HEAD_GIANT ? UINT32_MAX : most);
    head.magic += lie == HEAD_MAGIC;
    if (lie == HEAD_VERSION)
        head.version++;
    head.status += lie == HEAD_STATUS ? 5 : 0;
    head.crc = crc32c(0, &head, offsetof(struct pull_head, crc));
    ck_assert_int_eq(line_send(line, &head, sizeof(head)), 0);
}

static void lie_pages(struct line *line, enum lie lie, const uint32_t *tokens, uint32_t most)
{
    const size_t size = here.kind.page_bytes;
    uint8_t *bytes = calloc(1, size);
    struct pull_page page;
    struct pull_tail tail;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < most; i++) {
        pull_page_seal(&page, i, tokens + (size_t)i * EXEC_PAGE_TOKENS, bytes, size);
        page.index += lie == PAGE_INDEX;
        bytes[size / 2] ^= lie == PAGE_CHANGED;
        sum = pull_sum(sum, &page);
        if (line_send(line, &page, sizeof(page)) ||
            line_send(line, bytes, lie == PAGE_HALF ? size / 2 : size) || lie == PAGE_HALF)
            break;
    }
    pull_tail_seal(&tail, most, sum + 1);
    if (lie == TAIL_SUM)
        (void)line_send(line, &tail, sizeof(tail));
    free(bytes);
}

static void *liar_main(void *arg)
{
    const struct liar *liar = arg;
    struct line line;
    struct pull_ask ask;
    struct pull_go go;
    uint32_t tokens[CONTEXT];
    ck_assert_int_eq(line_init(&line, liar->fd, -1, line_key, false), 0);
    ck_assert_int_eq(line_receive(&line, &ask, sizeof(ask)), 0);
    ck_assert_uint_le(ask.tokens, CONTEXT);
    ck_assert_int_eq(line_receive(&line, tokens, ask.tokens * sizeof(*tokens)), 0);
    const uint32_t most = ask.tokens / EXEC_PAGE_TOKENS;
    lie_head(&line, liar->lie, most);
    if (liar->lie > HEAD_STATUS) {
        ck_assert_int_eq(line_receive(&line, &go, sizeof(go)), 0);
        if (liar->lie != LEAVES)
            lie_pages(&line, liar->lie, tokens, most);
    }
    line_deinit(&line);
    shutdown(liar->fd, SHUT_RDWR);
    return NULL;
}

/* No page that is not what it says it is goes in; nothing is allocated for what is only claimed. */
START_TEST(test_lying_giver)
{
    static const int expected[LIES] = {
        [HEAD_MAGIC] = -EINVAL,   [HEAD_VERSION] = -EPROTO, [HEAD_MORE] = -EINVAL,
        [HEAD_GIANT] = -EINVAL,   [HEAD_STATUS] = -EINVAL,  [PAGE_INDEX] = -EINVAL,
        [PAGE_CHANGED] = -EINVAL, [PAGE_HALF] = -EPIPE,     [TAIL_SUM] = -EINVAL,
        [LEAVES] = -EPIPE};
    uint32_t tokens[CONTEXT];
    uint32_t answers[2][ANSWER];
    int ends[2];
    pthread_t thread;
    struct line line;
    struct talk_account account;
    _Atomic uint32_t progress = 0;
    random_prompt(60 + (uint64_t)_i, tokens, PROMPT);
    const struct talk_wish wish = wish_of(tokens, PROMPT, &progress);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct liar liar = {.fd = ends[1], .lie = (enum lie)_i};
    ck_assert_int_eq(pthread_create(&thread, NULL, liar_main, &liar), 0);
    ck_assert_int_eq(line_init(&line, ends[0], -1, line_key, true), 0);
    ck_assert_int_eq(talk_take(here.runner, &here.kind, &line, &wish, &account), expected[_i]);
    line_deinit(&line);
    close(ends[0]);
    pthread_join(thread, NULL);
    close(ends[1]);
    ck_assert_uint_eq(pages_held(&here), 0);
    if (_i == TAIL_SUM) /* pages are whole, each by itself */
        return;
    ck_assert_uint_eq(account.pages, 0);
    ck_assert_uint_eq(runner_known(here.runner, tokens, PROMPT), 0);
    (void)answer(&here, tokens, PROMPT, answers[0]);
    (void)answer(&there, tokens, PROMPT, answers[1]);
    ck_assert_mem_eq(answers[0], answers[1], sizeof(answers[0]));
}
END_TEST

enum plea {
    ASK_GIANT,
    ASK_ODD,
    ASK_FIRST,
    ASK_VERSION,
    ASK_HALF,
    OTHER_TOKENS,
    NO_TOKEN,
    GO_MORE,
    GO_SUM,
    SILENT,
    PLEAS
};

/* Says what the plea is, as long as it is listened to. Returns the status that it was given. */
static int plead(struct line *line, enum plea plea, uint32_t *tokens)
{
    const uint32_t count = PROMPT / EXEC_PAGE_TOKENS * EXEC_PAGE_TOKENS;
    struct pull_ask ask;
    struct pull_head head = {.status = 0};
    struct pull_go go;
    tokens[3] = plea == NO_TOKEN ? TINY_VOCAB : tokens[3];
    pull_ask_seal(&ask, &here.kind, tokens, count, 0);
    ask.tokens = plea == ASK_GIANT ? UINT32_MAX / 16 * 16 : ask.tokens;
    ask.tokens += plea == ASK_ODD;
    ask.first = plea == ASK_FIRST ? count / EXEC_PAGE_TOKENS : 0;
    if (plea == ASK_VERSION)
        ask.version++;
    if (plea == ASK_HALF)
        return line_send(line, &ask, sizeof(ask) / 2);
    ck_assert_int_eq(line_send(line, &ask, sizeof(ask)), 0);
    tokens[0] ^= plea == OTHER_TOKENS;
    (void)line_send(line, tokens, count * sizeof(*tokens));
    ck_assert_int_eq(line_receive(line, &head, sizeof(head)), 0);
    if (head.status || plea == SILENT)
        return head.status;
    pull_go_seal(&go, head.pages + (plea == GO_MORE));
    go.crc += plea == GO_SUM;
    return line_send(line, &go, sizeof(go));
}

/* Whatever is asked for: a status, no page, nothing held, and an end. */
START_TEST(test_lying_caller)
{
    static const int expected[PLEAS] = {
        [ASK_GIANT] = -EINVAL,   [ASK_ODD] = -EINVAL, [ASK_FIRST] = -EINVAL,
        [ASK_VERSION] = -EPROTO, [ASK_HALF] = -EPIPE, [OTHER_TOKENS] = -EINVAL,
        [NO_TOKEN] = -EINVAL,    [GO_MORE] = -EINVAL, [GO_SUM] = -EINVAL,
        [SILENT] = -ETIMEDOUT};
    uint32_t tokens[CONTEXT];
    uint32_t got[ANSWER];
    int ends[2];
    pthread_t thread;
    struct line line;
    random_prompt(80, tokens, PROMPT);
    (void)answer(&there, tokens, PROMPT, got);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct giver giver = {
        .fd = ends[1], .key = line_key, .kind = there.kind, .patience_ms = _i == SILENT ? 300 : 0};
    ck_assert_int_eq(pthread_create(&thread, NULL, giver_main, &giver), 0);
    ck_assert_int_eq(line_init(&line, ends[0], -1, line_key, true), 0);
    line.deadline_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;
    const int status = plead(&line, (enum plea)_i, tokens);
    ck_assert_int_eq(status, _i == ASK_HALF || _i >= GO_MORE ? 0 : expected[_i]);
    if (_i != SILENT)
        shutdown(ends[0], SHUT_WR);
    pthread_join(thread, NULL);
    ck_assert_int_eq(giver.rc, expected[_i]);
    ck_assert_uint_eq(giver.account.pages, 0);
    ck_assert_uint_eq(pages_held(&there), 0);
    line_deinit(&line);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

/* Pages that have given way while the caller took its time are not given. */
START_TEST(test_gone_meanwhile)
{
    uint32_t tokens[CONTEXT];
    uint32_t other[CONTEXT];
    uint32_t got[ANSWER];
    int ends[2];
    pthread_t thread;
    struct line line;
    struct pull_ask ask;
    struct pull_head head;
    struct pull_go go;
    struct pull_page page;
    const uint32_t pages = (PROMPT - 1) / EXEC_PAGE_TOKENS;
    random_prompt(81, tokens, PROMPT);
    random_prompt(82, other, CONTEXT);
    bench_close(&there);
    bench_open(&there, CONTEXT / EXEC_PAGE_TOKENS);
    (void)answer(&there, tokens, PROMPT, got);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct giver giver = {.fd = ends[1], .key = line_key, .kind = there.kind};
    ck_assert_int_eq(pthread_create(&thread, NULL, giver_main, &giver), 0);
    ck_assert_int_eq(line_init(&line, ends[0], -1, line_key, true), 0);
    line.deadline_ns = clock_now_ns() + WAIT_MS * NS_PER_MS;
    pull_ask_seal(&ask, &here.kind, tokens, pages * EXEC_PAGE_TOKENS, 0);
    ck_assert_int_eq(line_send(&line, &ask, sizeof(ask)), 0);
    ck_assert_int_eq(line_send(&line, tokens, ask.tokens * sizeof(*tokens)), 0);
    ck_assert_int_eq(line_receive(&line, &head, sizeof(head)), 0);
    ck_assert_int_eq(pull_head_check(&head, pages), 0);
    ck_assert_uint_eq(head.pages, pages);
    /* The whole cache is another's in between: the caller is in nobody's way. */
    (void)answer(&there, other, CONTEXT - ANSWER, got);
    pull_go_seal(&go, pages);
    ck_assert_int_eq(line_send(&line, &go, sizeof(go)), 0);
    ck_assert_int_eq(line_receive(&line, &page, sizeof(page)), -EPIPE);
    pthread_join(thread, NULL);
    ck_assert_int_eq(giver.rc, -ESTALE);
    line_deinit(&line);
    close(ends[0]);
    close(ends[1]);
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
    tcase_add_checked_fixture(messages, engines_open, engines_close);
    tcase_add_test(messages, test_asks);
    tcase_add_test(messages, test_heads_and_tails);
    tcase_add_test(messages, test_worth);
    suite_add_tcase(suite, messages);
    tcase_add_checked_fixture(moves, engines_open, engines_close);
    tcase_set_timeout(moves, 120);
    tcase_add_loop_test(moves, test_moves_and_goes_on, 0, 4);
    tcase_add_test(moves, test_only_what_is_missing);
    tcase_add_test(moves, test_nothing_there);
    tcase_add_test(moves, test_not_worth_it);
    tcase_add_loop_test(moves, test_refused, 0, 5);
    tcase_add_loop_test(moves, test_damaged_and_cut, 0, 12);
    tcase_add_test(moves, test_no_room);
    tcase_add_test(moves, test_streams_go_on);
    suite_add_tcase(suite, moves);
    TCase *lies = tcase_create("lies");
    tcase_add_checked_fixture(lies, engines_open, engines_close);
    tcase_set_timeout(lies, 120);
    tcase_add_loop_test(lies, test_lying_giver, 0, LIES);
    tcase_add_loop_test(lies, test_lying_caller, 0, PLEAS);
    tcase_add_test(lies, test_gone_meanwhile);
    suite_add_tcase(suite, lies);
    return suite_main(suite);
}
