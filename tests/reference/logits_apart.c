/* SPDX-License-Identifier: Apache-2.0 */
/* How far each way of computing is from plain float32 (tests/unit/kernels/reference.c) with a real
 * model: a line for each, over the first tokens of a text from stdin. The same for models of every
 * type of weight, with limits, is tests/unit/kernels/test_tolerance.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apart.h"
#include "kernels/cpu/cpu.h"
#include "kernels/model/tokenizer.h"
#include "reference.h"

#define TEXT_MAX   (1u << 20)
#define TOKENS_MAX 4096u
#define BATCH      32u

static struct model *model;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "logits_apart: %s\n", what);
    exit(1);
}

static void *need(void *memory)
{
    if (!memory)
        fail("no memory");
    return memory;
}

static uint32_t *read_tokens(const tokenizer_t *tokenizer, size_t wanted)
{
    char *text = need(malloc(TEXT_MAX));
    uint32_t *tokens = need(calloc(TEXT_MAX, sizeof(*tokens)));
    const size_t size = fread(text, 1, TEXT_MAX, stdin);
    size_t count;
    if (tokenizer_encode(tokenizer, text, size, 0, tokens, TEXT_MAX, &count) || count < wanted)
        fail("the text has too few tokens");
    free(text);
    return tokens;
}

static float *reference_logits(const uint32_t *tokens, size_t count)
{
    float *out = need(malloc(count * model->vocab * sizeof(*out)));
    struct reference *r = reference_create(model, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        memcpy(out + i * model->vocab, reference_forward(r, tokens[i]),
               model->vocab * sizeof(*out));
    reference_destroy(r);
    return out;
}

static void compare(const char *name, const char *wish, bool exact, const uint32_t *tokens,
                    size_t count, const float *wanted)
{
    const struct cpu_options options = {
        .batch_max = BATCH, .context = (uint32_t)count, .exact = exact};
    struct apart a = {0};
    struct exec_row rows[BATCH];
    struct exec_info info;
    exec_t *exec;
    float *got = need(malloc((size_t)BATCH * model->vocab * sizeof(*got)));
    setenv("WEFT_CPU", wish, 1);
    if (cpu_create(&exec, model, &options))
        fail("no backend");
    exec_info(exec, &info);
    for (size_t at = 0; at < count;) {
        size_t n = 0;
        for (; n < BATCH && at + n < count; n++)
            rows[n] = (struct exec_row){
                .position = (uint32_t)(at + n), .token = tokens[at + n], .want_logits = true};
        if (exec_forward(exec, rows, n, got, NULL))
            fail("a forward failed");
        for (size_t i = 0; i < n; i++)
            apart_add(&a, wanted + (at + i) * model->vocab, got + i * model->vocab, model->vocab);
        at += n;
    }
    printf(
        "%s (%s): max abs %.3g of a deviation of %.3g, mean KL %.3g, max KL %.3g, the same token "
        "at %zu of %zu\n",
        name, info.detail, a.max_abs, apart_spread(&a), apart_kl(&a), a.kl_max, a.same,
        a.positions);
    exec_destroy(exec);
    free(got);
}

int main(int argc, char **argv)
{
    tokenizer_t *tokenizer;
    char why[256] = "";
    const size_t count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (count == 0 || count > TOKENS_MAX)
        fail("usage: logits_apart MODEL TOKENS < text");
    if (model_open(&model, argv[1], why, sizeof(why)) ||
        tokenizer_create(&tokenizer, model->file, why, sizeof(why)))
        fail(why);
    uint32_t *tokens = read_tokens(tokenizer, count);
    float *wanted = reference_logits(tokens, count);
    compare("exact", "portable", true, tokens, count, wanted);
    compare("exact", "avx2", true, tokens, count, wanted);
    compare("fast", "portable", false, tokens, count, wanted);
    compare("fast", "avx2", false, tokens, count, wanted);
    compare("fast", "", false, tokens, count, wanted);
    free(wanted);
    free(tokens);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    return 0;
}
