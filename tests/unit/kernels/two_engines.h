/* SPDX-License-Identifier: Apache-2.0 */
/* two_engines.h - what tests of kernels/moves have in common: two engines of one small model, with
 * a runner each, and what is answered by them. Pages go from `there` to `here`. */
#pragma once

#include <stdint.h>

#include "kernels/moves/talk.h"
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

extern struct bench here;
extern struct bench there;
extern const uint8_t line_key[LINE_KEY_BYTES];

/* A checked fixture. */
void engines_open(void);
void engines_close(void);

/* One more, or one with other pages; of the same model. */
void bench_open(struct bench *bench, uint32_t pages);
void bench_close(struct bench *bench);

void random_prompt(uint64_t seed, uint32_t *tokens, uint32_t count);

/* A greedy answer of ANSWER tokens; returns how many of the prompt's needed no work. */
uint32_t answer(struct bench *bench, const uint32_t *tokens, uint32_t count, uint32_t *out);

/* Pages that somebody has, be it a request or a move. */
uint32_t pages_held(struct bench *bench);

/* All that can be had of a prompt: fetching always pays. */
struct talk_wish wish_of(const uint32_t *tokens, uint32_t count, _Atomic uint32_t *progress);

/* A thread in which `there` gives to whoever is at the other end of `fd`. */
struct giver {
    struct line line;
    int fd;
    int rc;
    uint32_t patience_ms; /* 0 = WAIT_MS */
    const uint8_t *key;
    struct pull_kind kind;
    struct talk_account account;
};
void *giver_main(void *arg);
