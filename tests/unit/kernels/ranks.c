/* SPDX-License-Identifier: Apache-2.0 */
/* See ranks.h. */
#include "ranks.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NUMBERS_MAX 512u /* logits of a row, or its state */

struct model *ranks_model;
char ranks_path[] = "/tmp/weft-test-ranks-XXXXXX";

void ranks_open(const struct tiny_shape *shape)
{
    size_t size;
    char why[128];
    strcpy(ranks_path + strlen(ranks_path) - 6, "XXXXXX");
    const int fd = mkstemp(ranks_path);
    ck_assert_int_ge(fd, 0);
    uint8_t *data = tiny_write(shape, &size);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    ck_assert_msg(model_open(&ranks_model, ranks_path, why, sizeof(why)) == 0, "%s", why);
}

void ranks_close(void)
{
    model_destroy(ranks_model);
    unlink(ranks_path);
}

void ranks_compare(const char *what, const float *mine, const float *theirs, size_t count,
                   float tolerance)
{
    float largest = 1.0f;
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(theirs[i]));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabsf(mine[i] - theirs[i]) <= tolerance * largest, "%s: %zu is %g, not %g",
                      what, i, (double)mine[i], (double)theirs[i]);
}

uint32_t ranks_best(const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < ranks_model->vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* One step of all slots, some with a piece of a prompt and some with a token: how many rows. */
static size_t ragged(struct exec_row *rows, uint32_t *positions, const uint32_t *last,
                     uint64_t *rng)
{
    size_t count = 0;
    for (uint32_t s = 0; s < RANKS_SLOTS; s++) {
        const uint32_t take = tiny_random(rng) % 3 ? 1 : 1 + (uint32_t)(tiny_random(rng) % 7);
        for (uint32_t i = 0; i < take; i++) {
            const uint32_t token = i ? (uint32_t)(tiny_random(rng) % 256) : last[s];
            rows[count++] =
                (struct exec_row){s, positions[s]++, token, i + 1 == take, i + 1 == take};
        }
    }
    return count;
}

void ranks_run_both(exec_t *mine, exec_t *theirs, const struct ranks_run *run)
{
    static float logits[2][RANKS_SLOTS * NUMBERS_MAX];
    static float states[2][RANKS_SLOTS * NUMBERS_MAX];
    const size_t vocab = ranks_model->vocab;
    const size_t width = ranks_model->width;
    struct exec_row rows[RANKS_BATCH];
    uint32_t positions[RANKS_SLOTS] = {0};
    uint32_t last[RANKS_SLOTS] = {5, 6, 7};
    uint64_t rng = run->seed;
    ck_assert(vocab <= NUMBERS_MAX && width <= NUMBERS_MAX);
    for (uint32_t step = 0; step < run->steps; step++) {
        const struct exec_out out[2] = {{logits[0], states[0]}, {logits[1], states[1]}};
        const size_t count = ragged(rows, positions, last, &rng);
        memset(logits, 0xff, sizeof(logits));
        memset(states, 0xff, sizeof(states));
        ck_assert_int_eq(exec_forward_to(mine, rows, count, &out[0], NULL), 0);
        ck_assert_int_eq(exec_forward_to(theirs, rows, count, &out[1], NULL), 0);
        ranks_compare("logit", logits[0], logits[1], RANKS_SLOTS * vocab, run->tolerance);
        ranks_compare("state", states[0], states[1], RANKS_SLOTS * width, run->tolerance);
        for (uint32_t s = 0; s < RANKS_SLOTS; s++) {
            last[s] = ranks_best(logits[1] + s * vocab);
            ck_assert(!run->same_tokens || ranks_best(logits[0] + s * vocab) == last[s]);
        }
    }
}

size_t ranks_fill(struct exec_row *rows, uint32_t slot, uint32_t count)
{
    for (uint32_t p = 0; p < count; p++)
        rows[p] = (struct exec_row){slot, p, p * 7 % 256, p + 1 == count, false};
    return count;
}

void ranks_expect_right(exec_t *mine, exec_t *theirs, uint32_t count, bool may_seem_lost)
{
    static float logits[2][NUMBERS_MAX];
    struct exec_row rows[RANKS_BATCH];
    ck_assert(count <= RANKS_BATCH && ranks_model->vocab <= NUMBERS_MAX);
    (void)ranks_fill(rows, 1, count);
    int rc = exec_forward(mine, rows, count, logits[0], NULL);
    while (rc == -ESTALE && may_seem_lost)
        rc = exec_forward(mine, rows, count, logits[0], NULL);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(exec_forward(theirs, rows, count, logits[1], NULL), 0);
    ranks_compare("logit", logits[0], logits[1], ranks_model->vocab, RANKS_TOLERANCE);
}

size_t ranks_children(pid_t *out, size_t max)
{
    char name[64];
    size_t count = 0;
    snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(name, "re");
    ck_assert_ptr_nonnull(file);
    while (count < max && fscanf(file, "%d", &out[count]) == 1)
        count++;
    fclose(file);
    return count;
}
