/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grammar.c - weft-bench grammar: what it costs to know which tokens may come next
 * (kernels/model/grammar_mask.h), along answers that a model has given (scripts/bench-formats makes
 * them). Each answer is a line {"schema": ..., "text": "..."}; its text is put into tokens again,
 * and before each of them the mask is asked for, as the engine does.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "kernels/model/grammar_mask.h"

#define ANSWER_TOKENS 4096u
#define SAMPLES_MAX   (1u << 20)

struct run {
    const char *model_path;
    const char *answers_path;
    bool json;
    gguf_t *file;
    tokenizer_t *tokenizer;
    struct grammar_vocab *vocab;
    struct grammar_masks *masks;
    uint64_t answers;
    uint64_t id; /* of the grammar, as the masks want it */
    struct series mask_us;
    struct series compile_us;
};

/* Of the processor: what others did meanwhile does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double us_since(uint64_t begin_ns)
{
    return (double)(cpu_ns() - begin_ns) / 1e3;
}

/* ---- one answer ---- */

/* False: the grammar does not let it pass. */
static bool walk(struct run *r, const struct grammar *g, const uint32_t *tokens, size_t count)
{
    static struct grammar_state state; /* large */
    grammar_begin(g, &state);
    for (size_t i = 0; i < count; i++) {
        uint64_t begin_ns = cpu_ns();
        const uint32_t *mask = grammar_mask(r->masks, g, r->id, &state, ANSWER_TOKENS);
        series_add(&r->mask_us, us_since(begin_ns));
        if ((mask[tokens[i] / 32] >> tokens[i] % 32 & 1u) == 0 ||
            !grammar_take(g, r->vocab, &state, tokens[i])) {
            return false;
        }
    }
    return grammar_may_end(g, &state);
}

/* Returns NULL or what is wrong with it. */
static const char *answer_run(struct run *r, const json_t *line)
{
    static uint32_t tokens[ANSWER_TOKENS];
    const json_t *text = json_object_get(line, "text");
    char *schema = json_dumps(json_object_get(line, "schema"), JSON_COMPACT | JSON_ENCODE_ANY);
    struct grammar *g = NULL;
    size_t count = 0;
    const char *wrong = NULL;
    if (schema == NULL || !json_is_string(text)) {
        wrong = "no line with schema and text";
    } else {
        struct grammar_spec spec = {.kind = GRAMMAR_SCHEMA, .text = schema, .len = strlen(schema)};
        uint64_t begin_ns = cpu_ns();
        int rc = grammar_compile(&g, &spec, NULL, 0);
        series_add(&r->compile_us, us_since(begin_ns));
        r->id++;
        if (rc != 0) {
            wrong = "a schema that is not supported";
        } else if (tokenizer_encode(r->tokenizer, json_string_value(text), json_string_length(text),
                                    0, tokens, ANSWER_TOKENS, &count) != 0) {
            wrong = "a text of too many tokens";
        } else if (!walk(r, g, tokens, count)) {
            wrong = "a text that does not meet its schema";
        }
    }
    grammar_destroy(g);
    free(schema);
    return wrong;
}

/* ---- the whole ---- */

static int answers_run(struct run *r)
{
    FILE *file = fopen(r->answers_path, "re");
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    if (file == NULL) {
        fprintf(stderr, "weft-bench grammar: %s cannot be read\n", r->answers_path);
        return -1;
    }
    while (rc == 0 && getline(&line, &room, file) > 0) {
        json_t *parsed = json_loads(line, 0, NULL);
        const char *wrong = answer_run(r, parsed);
        json_decref(parsed);
        r->answers++;
        if (wrong != NULL) {
            fprintf(stderr, "weft-bench grammar: answer %llu: %s\n", (unsigned long long)r->answers,
                    wrong);
            rc = -1;
        }
    }
    free(line);
    fclose(file);
    return rc;
}

static int open_all(struct run *r)
{
    char why[256] = "no memory";
    if (gguf_open(&r->file, r->model_path, why, sizeof(why)) != 0 ||
        tokenizer_create(&r->tokenizer, r->file, why, sizeof(why)) != 0 ||
        grammar_vocab_create(&r->vocab, r->tokenizer) != 0 ||
        grammar_masks_create(&r->masks, r->vocab) != 0 ||
        series_init(&r->mask_us, SAMPLES_MAX) != 0 ||
        series_init(&r->compile_us, SAMPLES_MAX) != 0) {
        fprintf(stderr, "weft-bench grammar: %s: %s\n", r->model_path, why);
        return -1;
    }
    return 0;
}

static void close_all(struct run *r)
{
    series_deinit(&r->mask_us);
    series_deinit(&r->compile_us);
    grammar_masks_destroy(r->masks);
    grammar_vocab_destroy(r->vocab);
    tokenizer_destroy(r->tokenizer);
    gguf_close(r->file);
}

static void tell(struct run *r)
{
    if (r->json) {
        json_t *out = json_pack(
            "{s:o, s:I, s:i, s:o, s:o}", "machine", machine_json(), "answers",
            (json_int_t)r->answers, "vocabulary", (int)tokenizer_vocab(r->tokenizer), "mask_us",
            series_json(&r->mask_us), "compile_us", series_json(&r->compile_us));
        json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(4));
        putchar('\n');
        json_decref(out);
        return;
    }
    machine_print();
    printf("%llu answers, %llu tokens of a vocabulary of %u\n", (unsigned long long)r->answers,
           (unsigned long long)r->mask_us.seen, tokenizer_vocab(r->tokenizer));
    printf("a mask: median %.1f us, p90 %.1f us, p99 %.1f us, longest %.1f us\n",
           series_quantile(&r->mask_us, 0.5), series_quantile(&r->mask_us, 0.9),
           series_quantile(&r->mask_us, 0.99), series_quantile(&r->mask_us, 1));
    printf("a schema compiled: median %.1f us, p99 %.1f us\n", series_quantile(&r->compile_us, 0.5),
           series_quantile(&r->compile_us, 0.99));
}

static void usage(FILE *out)
{
    fputs("weft-bench grammar - what it costs to hold an answer to a JSON Schema, a token\n\n"
          "usage: weft-bench grammar --model FILE --answers FILE [--json]\n\n"
          "  --model FILE    whose vocabulary, GGUF\n"
          "  --answers FILE  a line each, {\"schema\": ..., \"text\": \"...\"}; "
          "scripts/bench-formats "
          "makes it\n"
          "  --json          one object\n\n"
          "examples:\n"
          "  scripts/bench-formats --keep answers.jsonl\n"
          "  weft-bench grammar --model model.gguf --answers answers.jsonl\n",
          out);
}

int bench_grammar(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"answers", required_argument, NULL, 'a'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct run run = {.model_path = NULL};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'm') {
            run.model_path = optarg;
        } else if (c == 'a') {
            run.answers_path = optarg;
        } else if (c == 'j') {
            run.json = true;
        } else {
            if (c == 'h') {
                usage(stdout);
            }
            return c == 'h' ? EXIT_SUCCESS : BENCH_USAGE;
        }
    }
    if (run.model_path == NULL || run.answers_path == NULL) {
        fputs("weft-bench grammar: --model FILE and --answers FILE are needed\n", stderr);
        return BENCH_USAGE;
    }
    int rc = open_all(&run);
    rc = rc == 0 ? answers_run(&run) : rc;
    if (rc == 0) {
        tell(&run);
    }
    close_all(&run);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
