/* SPDX-License-Identifier: Apache-2.0 */
/* See talk.h. */
#include "kernels/moves/talk.h"

#include <errno.h>
#include <stdlib.h>

#include "schemas/base/clock.h"

#define SILENCE_NS  (3 * NS_PER_S)   /* so long the other end may take for one thing */
#define VISIT_BYTES (4u << 20)       /* of pages between two steps, or one page */
#define VISIT_NS    (20 * NS_PER_MS) /* whole pages wait no longer for others to go in with */

/* A prompt, and those of its pages that are held in the engine. */
struct chain {
    const uint32_t *tokens;
    uint32_t count; /* tokens; one more than those of whole pages is as if there were */
    uint32_t held;
    uint32_t *pages;
    size_t page_bytes;
    uint8_t *bytes;  /* of pages that come or go together */
    uint32_t room;   /* for so many */
    uint32_t filled; /* so many are there */
};

static int visit_hold(engine_t *engine, void *user)
{
    struct chain *c = user;
    c->held = engine_chain_hold(engine, c->tokens, c->count, c->pages);
    return 0;
}

static int visit_drop(engine_t *engine, void *user)
{
    struct chain *c = user;
    engine_chain_drop(engine, c->pages, c->held);
    c->held = 0;
    return 0;
}

/* The last `filled` pages of `count` tokens; fewer, if the last of them are not there any more.
 * Nothing stays held: whoever is slow to take pages keeps none from those who are served here. What
 * has given way meanwhile is -ESTALE. */
static int visit_read(engine_t *engine, void *user)
{
    struct chain *c = user;
    const uint32_t first = engine_chain_most(c->count) - c->filled;
    (void)visit_hold(engine, c);
    c->filled = c->held > first ? c->held - first : 0;
    int rc = c->filled ? 0 : -ESTALE;
    for (uint32_t i = 0; rc == 0 && i < c->filled; i++)
        rc = engine_chain_read(engine, c->pages[first + i], c->bytes + i * c->page_bytes);
    (void)visit_drop(engine, c);
    return rc;
}

static int visit_know(engine_t *engine, void *user)
{
    struct chain *c = user;
    c->held = 0;
    return (int)engine_chain_known(engine, c->tokens, c->count);
}

static int visit_put(engine_t *engine, void *user)
{
    struct chain *c = user;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < c->filled; i++) {
        rc = engine_chain_put(engine, c->tokens, c->held, c->pages, c->bytes + i * c->page_bytes);
        c->held += rc == 0;
    }
    return rc;
}

static int chain_begin(struct chain *c, const uint32_t *tokens, uint32_t count, size_t page_bytes)
{
    const uint32_t most = engine_chain_most(count);
    *c = (struct chain){.tokens = tokens, .count = count, .page_bytes = page_bytes};
    c->room = page_bytes < VISIT_BYTES ? (uint32_t)(VISIT_BYTES / page_bytes) : 1;
    c->room = c->room < most ? c->room : most;
    c->pages = malloc((most ? most : 1) * sizeof(*c->pages));
    c->bytes = malloc((c->room ? c->room : 1) * page_bytes);
    return c->pages && c->bytes ? 0 : -ENOMEM;
}

static void chain_end(struct chain *c, runner_t *runner)
{
    if (c->held)
        (void)runner_visit(runner, visit_drop, c);
    free(c->pages);
    free(c->bytes);
}

/* The next thing has to happen soon. */
static void hurry(struct line *line, uint64_t end_ns)
{
    const uint64_t soon_ns = clock_now_ns() + SILENCE_NS;
    line->deadline_ns = soon_ns < end_ns ? soon_ns : end_ns;
}

static int say(struct line *line, uint64_t end_ns, const void *data, size_t size)
{
    hurry(line, end_ns);
    return line_send(line, data, size);
}

static int hear(struct line *line, uint64_t end_ns, void *data, size_t size)
{
    hurry(line, end_ns);
    return line_receive(line, data, size);
}

static double seconds_since(uint64_t begin_ns)
{
    return (double)(clock_now_ns() - begin_ns) * 1e-9;
}

/* ---- the caller ---- */

static uint64_t end_of(const struct talk_wish *wish, const struct talk_account *account)
{
    const bool first = account->pages == 0 && wish->first_ns;
    return first && wish->first_ns < wish->deadline_ns ? wish->first_ns : wish->deadline_ns;
}

static int ask(struct line *line, const struct pull_kind *kind, const struct talk_wish *wish,
               const struct chain *c, uint32_t most, uint64_t end_ns, uint32_t *offered)
{
    struct pull_ask message;
    struct pull_head head;
    const uint32_t tokens = most * EXEC_PAGE_TOKENS;
    pull_ask_seal(&message, kind, wish->tokens, tokens, c->held);
    int rc = say(line, end_ns, &message, sizeof(message));
    if (rc == 0)
        rc = say(line, end_ns, wish->tokens, tokens * sizeof(*wish->tokens));
    if (rc == 0 || rc == -EPIPE) /* who refuses may not wait for the tokens */
        rc = hear(line, end_ns, &head, sizeof(head));
    if (rc == 0)
        rc = pull_head_check(&head, most - c->held);
    *offered = rc ? 0 : head.pages;
    return rc;
}

static int take_page(struct line *line, const struct talk_wish *wish, struct chain *c,
                     uint64_t end_ns, uint32_t *sum)
{
    const uint32_t index = c->held + c->filled;
    uint8_t *bytes = c->bytes + c->filled * c->page_bytes;
    struct pull_page page;
    int rc = hear(line, end_ns, &page, sizeof(page));
    if (rc == 0)
        rc = hear(line, end_ns, bytes, c->page_bytes);
    if (rc == 0)
        rc = pull_page_check(&page, index, wish->tokens + (size_t)index * EXEC_PAGE_TOKENS, bytes,
                             c->page_bytes);
    if (rc == 0) {
        *sum = pull_sum(*sum, &page);
        c->filled++;
    }
    return rc;
}

/* At most `most` pages that come one behind the other, then in with them. Returns how that ended;
 * `*put` went in. */
static int take_some(runner_t *runner, struct line *line, const struct talk_wish *wish,
                     struct chain *c, uint32_t most, uint64_t end_ns, uint32_t *sum, uint32_t *put)
{
    const uint64_t begin_ns = clock_now_ns();
    const uint32_t held = c->held;
    int rc = 0;
    c->filled = 0;
    do
        rc = take_page(line, wish, c, end_ns, sum);
    while (rc == 0 && c->filled < most && clock_now_ns() - begin_ns < VISIT_NS);
    const int went = c->filled ? runner_visit(runner, visit_put, c) : 0;
    *put = c->held - held;
    return went ? went : rc;
}

static int take_pages(runner_t *runner, struct line *line, const struct talk_wish *wish,
                      struct chain *c, uint32_t pages, struct talk_account *account,
                      uint64_t begin_ns)
{
    struct pull_tail tail;
    uint32_t sum = 0;
    int rc = 0;
    while (rc == 0 && account->pages < pages) {
        const uint32_t left = pages - account->pages;
        const uint32_t most = account->pages == 0 ? 1 : left < c->room ? left : c->room;
        uint32_t put;
        rc = take_some(runner, line, wish, c, most, end_of(wish, account), &sum, &put);
        if (account->pages == 0 && put) { /* the first is part of the beginning */
            account->begin_seconds = seconds_since(begin_ns);
            begin_ns = clock_now_ns();
        } else if (put) {
            account->bytes += put * c->page_bytes;
            account->seconds = seconds_since(begin_ns);
        }
        account->pages += put;
        atomic_fetch_add(wish->progress, put);
    }
    if (rc == 0)
        rc = hear(line, wish->deadline_ns, &tail, sizeof(tail));
    return rc ? rc : pull_tail_check(&tail, pages, sum);
}

int talk_take(runner_t *runner, const struct pull_kind *kind, struct line *line,
              const struct talk_wish *wish, struct talk_account *account)
{
    const uint64_t begin_ns = clock_now_ns();
    const uint32_t most = engine_chain_most(wish->count);
    struct chain c;
    struct pull_go go;
    uint32_t offered = 0;
    *account = (struct talk_account){.pages = 0};
    int rc = most > PULL_TOKENS_MAX / EXEC_PAGE_TOKENS ? -ENODATA : 0;
    if (rc)
        return rc;
    rc = chain_begin(&c, wish->tokens, wish->count, kind->page_bytes);
    if (rc == 0)
        rc = runner_visit(runner, visit_hold, &c);
    account->known = c.held;
    if (rc == 0 && c.held == most)
        rc = -ENODATA;
    if (rc == 0)
        rc = ask(line, kind, wish, &c, most, end_of(wish, account), &offered);
    if (rc == 0) {
        if (!pull_pays(wish->rates, offered, kind->page_bytes, wish->prefill_per_second))
            offered = 0;
        pull_go_seal(&go, offered);
        rc = say(line, end_of(wish, account), &go, sizeof(go));
    }
    if (rc == 0)
        rc = offered ? take_pages(runner, line, wish, &c, offered, account, begin_ns) : -ENODATA;
    chain_end(&c, runner);
    return rc;
}

/* ---- who is called ---- */

static int hear_ask(struct line *line, const struct pull_kind *kind, uint64_t deadline_ns,
                    struct pull_ask *message, uint32_t **tokens)
{
    *tokens = NULL;
    int rc = hear(line, deadline_ns, message, sizeof(*message));
    if (rc)
        return rc;
    rc = pull_ask_check(message, kind);
    if (rc == 0 && !(*tokens = malloc(message->tokens * sizeof(**tokens))))
        rc = -ENOMEM;
    if (rc == 0)
        rc = hear(line, deadline_ns, *tokens, message->tokens * sizeof(**tokens));
    return rc ? rc : pull_tokens_check(message, *tokens);
}

static int give_page(struct line *line, uint64_t deadline_ns, const struct chain *c, uint32_t index,
                     const uint8_t *bytes, uint32_t *sum)
{
    struct pull_page page;
    pull_page_seal(&page, index, c->tokens + (size_t)index * EXEC_PAGE_TOKENS, bytes,
                   c->page_bytes);
    *sum = pull_sum(*sum, &page);
    const int rc = say(line, deadline_ns, &page, sizeof(page));
    return rc ? rc : say(line, deadline_ns, bytes, c->page_bytes);
}

static int give_pages(runner_t *runner, struct line *line, uint64_t deadline_ns, struct chain *c,
                      uint32_t first, uint32_t pages, struct talk_account *account)
{
    struct pull_tail tail;
    uint32_t sum = 0;
    int rc = 0;
    while (rc == 0 && account->pages < pages) {
        const uint32_t at = first + account->pages;
        const uint32_t left = pages - account->pages;
        c->filled = left < c->room ? left : c->room;
        c->count = (at + c->filled) * EXEC_PAGE_TOKENS + 1;
        rc = runner_visit(runner, visit_read, c);
        for (uint32_t i = 0; rc == 0 && i < c->filled; i++) {
            rc = give_page(line, deadline_ns, c, at + i, c->bytes + i * c->page_bytes, &sum);
            account->pages += rc == 0;
        }
    }
    account->bytes = account->pages * c->page_bytes;
    pull_tail_seal(&tail, pages, sum);
    return rc ? rc : say(line, deadline_ns, &tail, sizeof(tail));
}

int talk_give(runner_t *runner, const struct pull_kind *kind, struct line *line,
              uint64_t deadline_ns, struct talk_account *account)
{
    struct pull_ask message;
    struct pull_head head;
    struct pull_go go;
    struct chain c = {.held = 0};
    uint32_t *tokens;
    uint32_t pages = 0;
    *account = (struct talk_account){.pages = 0};
    int rc = hear_ask(line, kind, deadline_ns, &message, &tokens);
    const bool asked = rc == 0 || rc == -ESTALE || rc == -EPROTO || rc == -EINVAL;
    if (rc == 0)
        rc = chain_begin(&c, tokens, message.tokens + 1, kind->page_bytes);
    if (rc == 0) {
        const int known = runner_visit(runner, visit_know, &c);
        rc = known < 0 ? known : 0;
        pages = known > (int)message.first ? (uint32_t)known - message.first : 0;
    }
    if (asked) {
        pull_head_seal(&head, rc, pages);
        const int said = say(line, deadline_ns, &head, sizeof(head));
        rc = rc ? rc : said;
    }
    if (rc == 0)
        rc = hear(line, deadline_ns, &go, sizeof(go));
    if (rc == 0)
        rc = pull_go_check(&go, pages);
    if (rc == 0 && go.pages)
        rc = give_pages(runner, line, deadline_ns, &c, message.first, go.pages, account);
    chain_end(&c, runner);
    free(tokens);
    return rc;
}
