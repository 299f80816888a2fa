/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy answers of the engine in exact mode, for check.py: each line of stdin is a question, each
 * line of stdout its prompt's token ids, a bar, and the answer's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/engine/engine.h"
#include "kernels/model/chat.h"

#define QUESTION_MAX 65536
#define SLOTS        4u

struct question {
    uint32_t *tokens;
    size_t count;
    uint32_t *answer;
    size_t answer_count;
};

static struct model *model;
static tokenizer_t *tokenizer;
static struct chat chat;
static struct question *questions;
static size_t question_count;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "greedy_tokens: %s\n", what);
    exit(1);
}

static void *need(void *memory)
{
    if (!memory)
        fail("no memory");
    return memory;
}

static void read_questions(uint32_t context, uint32_t new_max)
{
    static char line[QUESTION_MAX];
    while (fgets(line, sizeof(line), stdin)) {
        const struct chat_message message = {CHAT_USER, line, strcspn(line, "\n")};
        questions = need(realloc(questions, (question_count + 1) * sizeof(*questions)));
        struct question *q = &questions[question_count++];
        *q = (struct question){.tokens = need(calloc(context, sizeof(*q->tokens))),
                               .answer = need(calloc(new_max, sizeof(*q->answer)))};
        if (chat_encode(&chat, &message, 1, q->tokens, context - new_max, &q->count))
            fail("a question does not fit");
    }
}

static void answer_all(engine_t *engine, uint32_t new_max)
{
    const size_t capacity = engine_events_max(engine);
    struct engine_event *events = need(calloc(capacity, sizeof(*events)));
    size_t next = 0;
    uint64_t now = 1;
    while (next < question_count || engine_busy(engine)) {
        for (; next < question_count; next++) {
            const struct engine_request request = {.id = next,
                                                   .tokens = questions[next].tokens,
                                                   .token_count = questions[next].count,
                                                   .max_tokens = new_max};
            if (engine_submit(engine, &request, now))
                break; /* the queue is full */
        }
        const int count = engine_step(engine, now += 1000, events, capacity);
        if (count < 0)
            fail("a step failed");
        for (int i = 0; i < count; i++) {
            struct question *q = &questions[events[i].id];
            if (events[i].kind == ENGINE_TOKEN)
                q->answer[q->answer_count++] = events[i].token;
            else if (events[i].finish == ENGINE_ERROR)
                fail("the engine failed");
        }
    }
    free(events);
}

static void print_ids(const uint32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%u ", ids[i]);
}

int main(int argc, char **argv)
{
    char why[256] = "";
    exec_t *exec;
    engine_t *engine;
    if (argc != 4)
        fail("usage: greedy_tokens MODEL CONTEXT NEW_TOKENS < questions");
    const uint32_t context = (uint32_t)strtoul(argv[2], NULL, 10);
    const uint32_t new_max = (uint32_t)strtoul(argv[3], NULL, 10);
    if (new_max == 0 || context <= new_max)
        fail("the context is too short");
    const struct cpu_options options = {.exact = true, .slots = SLOTS, .context = context};
    if (model_open(&model, argv[1], why, sizeof(why)) ||
        tokenizer_create(&tokenizer, model->file, why, sizeof(why)) ||
        chat_init(&chat, model->file, tokenizer, why, sizeof(why)))
        fail(why);
    if (cpu_create(&exec, model, &options) || engine_create(&engine, exec, tokenizer, NULL))
        fail("no backend");
    read_questions(context, new_max);
    answer_all(engine, new_max);
    for (size_t i = 0; i < question_count; i++) {
        print_ids(questions[i].tokens, questions[i].count);
        printf("| ");
        print_ids(questions[i].answer, questions[i].answer_count);
        printf("\n");
        free(questions[i].tokens);
        free(questions[i].answer);
    }
    free(questions);
    engine_destroy(engine);
    exec_destroy(exec);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    return 0;
}
