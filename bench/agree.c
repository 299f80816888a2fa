/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agree.c - weft-bench exec --agreement: how often the fast kernels choose the token that the exact
 * ones choose. The exact ones answer a few hundred prompts greedily; the fast ones then see the
 * same tokens and say at each place what they would have chosen. Both go through many prompts at
 * once.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/agree.h"
#include "bench/figures.h"
#include "kernels/cpu/cpu.h"
#include "kernels/model/chat.h"
#include "kernels/model/tokenizer.h"

#define ANSWER_TOKENS 64u
#define PROMPT_MAX    64u
#define CONTEXT       (PROMPT_MAX + ANSWER_TOKENS)
#define SLOTS         32u

static const char *const forms[] = {
    "What is %s?",
    "Explain %s to a child.",
    "Write a short story about %s.",
    "Give three facts about %s.",
    "Why is %s important?",
    "Write a poem about %s.",
    "Who first wrote about %s?",
    "List five words that go with %s.",
    "How would you draw %s?",
    "Translate '%s' into French and Spanish.",
};
static const char *const topics[] = {
    "the moon",  "a bicycle",  "photosynthesis", "the number seven", "an old clock",
    "gravity",   "bread",      "a lighthouse",   "recursion in C",   "the river Nile",
    "an orchid", "volcanoes",  "chess",          "a quiet winter",   "electricity",
    "honesty",   "the violin", "salt",           "a black cat",      "the year 1969",
};
#define FORMS  (sizeof(forms) / sizeof(forms[0]))
#define TOPICS (sizeof(topics) / sizeof(topics[0]))

struct stream {
    uint32_t tokens[CONTEXT];
    uint32_t prompt; /* tokens of it */
    uint32_t count;  /* all */
    uint32_t at;     /* given to the backend */
    bool ended;
};

struct tally {
    uint64_t tokens;
    uint64_t same;
    uint64_t answers;
    uint64_t whole;    /* answers with every token the same */
    double difference; /* sums of squares */
    double size;
};

static uint32_t best_of(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* The next row of every stream that still has one; prompts go one token a step too. */
static size_t fill_rows(const struct stream *streams, uint32_t count, struct exec_row *rows)
{
    size_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!streams[i].ended)
            rows[n++] = (struct exec_row){.slot = i,
                                          .position = streams[i].at,
                                          .token = streams[i].tokens[streams[i].at],
                                          .want_logits = true};
    return n;
}

static void compare(const float *exact, const float *fast, uint32_t vocab, struct tally *t,
                    bool *same)
{
    *same = best_of(exact, vocab) == best_of(fast, vocab);
    t->tokens++;
    t->same += *same;
    for (uint32_t i = 0; i < vocab; i++) {
        const double d = (double)exact[i] - (double)fast[i];
        t->difference += d * d;
        t->size += (double)exact[i] * (double)exact[i];
    }
}

static int run_streams(exec_t *const sides[2], float *const logits[2], uint32_t vocab,
                       const tokenizer_t *tokenizer, struct stream *streams, uint32_t count,
                       struct tally *tally)
{
    struct exec_row rows[SLOTS];
    bool whole[SLOTS];
    size_t n;
    memset(whole, 1, sizeof(whole));
    while ((n = fill_rows(streams, count, rows)) > 0) {
        for (size_t s = 0; s < 2; s++) {
            const int rc = exec_forward(sides[s], rows, n, logits[s], NULL);
            if (rc)
                return rc;
        }
        for (size_t i = 0; i < n; i++) {
            struct stream *stream = &streams[rows[i].slot];
            const float *exact = logits[0] + i * vocab;
            bool same;
            if (++stream->at < stream->prompt)
                continue;
            compare(exact, logits[1] + i * vocab, vocab, tally, &same);
            whole[rows[i].slot] = whole[rows[i].slot] && same;
            const uint32_t next = best_of(exact, vocab);
            stream->ended = tokenizer_is_stop(tokenizer, next) ||
                            stream->count == stream->prompt + ANSWER_TOKENS - 1;
            if (!stream->ended)
                stream->tokens[stream->count++] = next;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        tally->answers++;
        tally->whole += whole[i];
    }
    return 0;
}

static int ask(const struct chat *chat, uint32_t number, struct stream *out)
{
    char text[128];
    size_t count;
    const int len =
        snprintf(text, sizeof(text), forms[number % FORMS], topics[number / FORMS % TOPICS]);
    const struct chat_message message = {CHAT_USER, text, (size_t)len};
    const int rc = chat_encode(chat, &message, 1, out->tokens, PROMPT_MAX, &count);
    out->prompt = out->count = (uint32_t)count;
    out->at = 0;
    out->ended = false;
    return rc;
}

static int run_prompts(const struct model *model, uint32_t prompts, uint32_t threads,
                       struct tally *tally)
{
    struct cpu_options options = {
        .threads = threads, .slots = SLOTS, .context = CONTEXT, .batch_max = SLOTS};
    tokenizer_t *tokenizer = NULL;
    struct chat chat;
    exec_t *sides[2] = {NULL, NULL};
    float *logits[2];
    struct stream *streams = calloc(SLOTS, sizeof(*streams));
    int rc = tokenizer_create(&tokenizer, model->file, NULL, 0);
    if (!rc)
        rc = chat_init(&chat, model->file, tokenizer, NULL, 0);
    for (size_t s = 0; s < 2; s++) {
        logits[s] = malloc((size_t)SLOTS * model->vocab * sizeof(*logits[s]));
        options.exact = s == 0;
        if (!rc)
            rc = logits[s] && streams ? cpu_create(&sides[s], model, &options) : -ENOMEM;
    }
    for (uint32_t at = 0; !rc && at < prompts; at += SLOTS) {
        const uint32_t count = prompts - at < SLOTS ? prompts - at : SLOTS;
        for (uint32_t i = 0; !rc && i < count; i++)
            rc = ask(&chat, at + i, &streams[i]);
        if (!rc)
            rc = run_streams(sides, logits, model->vocab, tokenizer, streams, count, tally);
    }
    for (size_t s = 0; s < 2; s++) {
        exec_destroy(sides[s]);
        free(logits[s]);
    }
    free(streams);
    tokenizer_destroy(tokenizer);
    return rc;
}

int agree_run(const struct model *model, uint32_t prompts, uint32_t threads, bool json)
{
    struct tally t = {0};
    const int rc = run_prompts(model, prompts, threads, &t);
    if (rc)
        return rc;
    const double same = (double)t.same / (double)t.tokens;
    const double distance = sqrt(t.difference / t.size);
    if (json) {
        json_t *all =
            json_pack("{s:s, s:o, s:I, s:I, s:I, s:f, s:I, s:f}", "bench", "exec agreement",
                      "machine", machine_json(), "prompts", (json_int_t)t.answers, "tokens",
                      (json_int_t)t.tokens, "same_tokens", (json_int_t)t.same, "same", same,
                      "same_answers", (json_int_t)t.whole, "logits_distance", distance);
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(all);
        return 0;
    }
    printf(
        "fast and exact kernels choose the same token at %llu of %llu places (%.2f %%); at every "
        "place of %llu of %llu answers; logits differ by %.4f of their size (root mean square)\n",
        (unsigned long long)t.same, (unsigned long long)t.tokens, same * 100,
        (unsigned long long)t.whole, (unsigned long long)t.answers, distance);
    return 0;
}
