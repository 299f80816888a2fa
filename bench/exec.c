/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - weft-bench exec: what the CPU backend makes of a model on this machine. Decoding with a
 * batch of one is held against the time that reading the same bytes takes, measured alternately in
 * the same run, and reading a prompt against decoding.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/agree.h"
#include "bench/bench.h"
#include "bench/figures.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/pool.h"
#include "schemas/base/cpu.h"

#define PROMPT_TOKENS   512u
#define BATCH_ROWS      64u
#define DECODE_TOKENS   16u /* of a round */
#define AHEAD_LINES     128u
#define WARM_TOKENS     4u
#define ROUNDS_DEFAULT  9u
#define THREADS_MAX     64u
#define MODEL_PATH_SIZE 4096u

static const char usage[] =
    "weft-bench exec - tokens a second of the CPU backend, against the memory's speed\n\n"
    "usage: weft-bench exec [OPTIONS]\n\n"
    "Decoding of one stream, against the floor of reading the weights' bytes, and prefill of\n"
    "512 tokens.\n\n"
    "  --model FILE     GGUF; default: WEFT_MODEL, else where scripts/model-fetch puts its file\n"
    "  --threads N      only with so many threads; default: 1, 2, 4 ... all that it may use\n"
    "  --rounds N       default 9\n"
    "  --exact          the float32 kernels instead of the integer ones\n"
    "  --agreement N    instead: how often fast and exact kernels choose the same token in "
    "answers\n"
    "                   of 64 tokens to N prompts\n"
    "  --json           machine-readable\n\n"
    "examples:\n"
    "  weft-bench exec --json\n"
    "  weft-bench exec --threads 1 --exact\n"
    "  weft-bench exec --agreement 200\n";

struct options {
    char model[MODEL_PATH_SIZE];
    uint32_t threads; /* 0 = several */
    uint32_t rounds;
    uint32_t agreement; /* prompts; 0 = measure speed */
    bool exact;
    bool json;
};

/* What is measured with one number of threads. */
struct figures {
    uint32_t threads;
    struct series floor;   /* reads of all weights a second */
    struct series decode;  /* tokens a second */
    struct series prefill; /* tokens a second */
    struct series ratio;   /* decode of floor, of each round */
};

struct reading {
    const uint64_t *words;
    size_t count;
    uint64_t sums[THREADS_MAX];
};

/* ---- the floor ---- */

typedef uint64_t line_t __attribute__((vector_size(64)));

static void read_share(void *arg, uint32_t index, uint32_t threads)
{
    struct reading *r = arg;
    const size_t lines = r->count / 8;
    const line_t *line = (const line_t *)(const void *)r->words;
    line_t sums[4] = {{0}};
    size_t i = lines * index / threads;
    const size_t end = lines * (index + 1) / threads;
    for (; i + 4 <= end; i += 4) {
        for (size_t j = 0; j < 4; j++) {
            __builtin_prefetch(&line[i + j + AHEAD_LINES]); /* the fastest of the ways tried */
            sums[j] ^= line[i + j];
        }
    }
    sums[0] ^= sums[1] ^ sums[2] ^ sums[3];
    r->sums[index] ^= sums[0][0] ^ sums[0][7];
}

static double read_rate(struct reading *r, struct pool *pool)
{
    const uint64_t begin_ns = figures_now_ns();
    pool_run(pool, read_share, r);
    return 1e9 / (double)(figures_now_ns() - begin_ns);
}

/* ---- the model ---- */

static double decode_rate(exec_t *exec, uint32_t vocab, float *logits, uint32_t *position)
{
    const uint64_t begin_ns = figures_now_ns();
    for (uint32_t i = 0; i < DECODE_TOKENS; i++) {
        const struct exec_row row = {
            .position = *position, .token = (*position * 7 + 11) % vocab, .want_logits = true};
        if (exec_forward(exec, &row, 1, logits, NULL))
            return 0;
        ++*position;
    }
    return DECODE_TOKENS * 1e9 / (double)(figures_now_ns() - begin_ns);
}

static double prefill_rate(exec_t *exec, uint32_t vocab, float *logits)
{
    const uint64_t begin_ns = figures_now_ns();
    for (uint32_t at = 0; at < PROMPT_TOKENS; at += BATCH_ROWS) {
        struct exec_row rows[BATCH_ROWS];
        for (uint32_t i = 0; i < BATCH_ROWS; i++)
            rows[i] = (struct exec_row){.position = at + i,
                                        .token = ((at + i) * 13 + 5) % vocab,
                                        .want_logits = at + i + 1 == PROMPT_TOKENS};
        if (exec_forward(exec, rows, BATCH_ROWS, logits, NULL))
            return 0;
    }
    return PROMPT_TOKENS * 1e9 / (double)(figures_now_ns() - begin_ns);
}

static int measure_rounds(const struct options *o, exec_t *exec, struct pool *pool,
                          struct reading *reading, float *logits, struct figures *out)
{
    struct exec_info info;
    exec_info(exec, &info);
    (void)read_rate(reading, pool);
    for (uint32_t i = 0; i < o->rounds; i++) {
        uint32_t position = 0;
        series_add(&out->prefill, prefill_rate(exec, info.vocab, logits));
        for (uint32_t j = 0; j < WARM_TOKENS; j++) {
            const double floor = read_rate(reading, pool);
            const double decode = decode_rate(exec, info.vocab, logits, &position);
            if (decode <= 0)
                return -EIO;
            series_add(&out->floor, floor);
            series_add(&out->decode, decode);
            series_add(&out->ratio, decode / floor);
        }
    }
    return 0;
}

static int measure(const struct options *o, const struct model *model, struct reading *reading,
                   struct figures *out, const char **detail)
{
    const struct cpu_options cpu = {.threads = out->threads,
                                    .context = PROMPT_TOKENS,
                                    .batch_max = BATCH_ROWS,
                                    .exact = o->exact};
    struct pool *pool = NULL;
    exec_t *exec = NULL;
    float *logits = calloc(model->vocab, sizeof(*logits));
    int rc = logits ? 0 : -ENOMEM;
    struct series *const all[] = {&out->floor, &out->decode, &out->prefill, &out->ratio};
    for (size_t i = 0; !rc && i < sizeof(all) / sizeof(all[0]); i++)
        rc = series_init(all[i], o->rounds * WARM_TOKENS);
    if (!rc)
        rc = pool_create(&pool, out->threads);
    if (!rc)
        rc = cpu_create(&exec, model, &cpu);
    if (!rc) {
        struct exec_info info;
        exec_info(exec, &info);
        *detail = info.detail;
        rc = measure_rounds(o, exec, pool, reading, logits, out);
    }
    exec_destroy(exec);
    pool_destroy(pool);
    free(logits);
    return rc;
}

/* ---- the report ---- */

static json_t *figures_json(struct figures *f, size_t bytes)
{
    const double decode = series_quantile(&f->decode, 0.5);
    const double prefill = series_quantile(&f->prefill, 0.5);
    return json_pack("{s:i, s:f, s:o, s:o, s:o, s:f, s:f, s:f}", "threads", (int)f->threads,
                     "read_gb_per_second", series_quantile(&f->floor, 0.5) * (double)bytes / 1e9,
                     "floor_tokens_per_second", series_json(&f->floor), "decode_tokens_per_second",
                     series_json(&f->decode), "prefill_tokens_per_second", series_json(&f->prefill),
                     "decode_of_floor", series_quantile(&f->ratio, 0.5), "prefill_per_thread",
                     prefill / f->threads, "prefill_of_decode", prefill / decode);
}

static void report(const struct options *o, const struct model *model, const char *detail,
                   struct figures *figures, uint32_t count)
{
    if (o->json) {
        json_t *list = json_array();
        for (uint32_t i = 0; i < count; i++)
            json_array_append_new(list, figures_json(&figures[i], model->weight_bytes));
        json_t *all = json_pack("{s:s, s:o, s:s, s:s, s:s, s:I, s:i, s:o}", "bench", "exec",
                                "machine", machine_json(), "model", o->model, "kernels", detail,
                                "mode", o->exact ? "exact" : "fast", "bytes_per_token",
                                (json_int_t)model->weight_bytes, "prompt_tokens",
                                (int)PROMPT_TOKENS, "threads", list);
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(all);
        return;
    }
    machine_print();
    printf("%s, %s kernels (%s), %.1f MB read for a token; medians of %u rounds\n\n", o->model,
           o->exact ? "exact" : "fast", detail, (double)model->weight_bytes / 1e6, o->rounds);
    printf("threads  read GB/s  floor tok/s  decode tok/s  of floor  prefill tok/s  of decode\n");
    for (uint32_t i = 0; i < count; i++) {
        struct figures *f = &figures[i];
        const double floor = series_quantile(&f->floor, 0.5);
        const double decode = series_quantile(&f->decode, 0.5);
        const double prefill = series_quantile(&f->prefill, 0.5);
        printf("%7u %10.1f %12.1f %13.1f %8.0f%% %14.1f %9.1fx\n", f->threads,
               floor * (double)model->weight_bytes / 1e9, floor, decode,
               series_quantile(&f->ratio, 0.5) * 100, prefill, prefill / decode);
    }
}

static int measure_all(const struct options *o, const struct model *model)
{
    struct figures figures[8] = {{0}};
    const char *detail = "";
    const uint32_t cpus = cpu_permitted();
    const uint32_t most = cpus > THREADS_MAX ? THREADS_MAX : cpus;
    struct reading reading = {.count = model->weight_bytes / 64 * 8};
    uint64_t *words =
        mmap(NULL, model->weight_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(words, model->weight_bytes, MADV_HUGEPAGE);
    memset(words, 1, model->weight_bytes);
    reading.words = words;
    uint32_t count = 0;
    int rc = 0;
    for (uint32_t t = o->threads ? o->threads : 1; !rc && count<8; t = t * 2> most ? most : t * 2) {
        figures[count].threads = t;
        rc = measure(o, model, &reading, &figures[count++], &detail);
        if (o->threads || t >= most)
            break;
    }
    munmap(words, model->weight_bytes);
    if (!rc)
        report(o, model, detail, figures, count);
    for (uint32_t i = 0; i < count; i++) {
        series_deinit(&figures[i].floor);
        series_deinit(&figures[i].decode);
        series_deinit(&figures[i].prefill);
        series_deinit(&figures[i].ratio);
    }
    return rc;
}

static void find_model(struct options *o)
{
    const char *given = getenv("WEFT_MODEL");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    const bool has_cache = cache && cache[0];
    if (given && given[0])
        snprintf(o->model, sizeof(o->model), "%s", given);
    else
        snprintf(o->model, sizeof(o->model), "%s%s/weft/SmolLM2-135M-Instruct.Q4_1.gguf",
                 has_cache ? cache
                 : home    ? home
                           : "",
                 has_cache ? "" : "/.cache");
}

/* 0 to go on, 1 when done, -1 after a message. */
static int parse(struct options *o, int argc, char **argv)
{
    enum { MODEL = 1, THREADS, ROUNDS, AGREEMENT, EXACT, JSON };
    static const struct option names[] = {
        {"model", required_argument, NULL, MODEL},
        {"threads", required_argument, NULL, THREADS},
        {"rounds", required_argument, NULL, ROUNDS},
        {"exact", no_argument, NULL, EXACT},
        {"agreement", required_argument, NULL, AGREEMENT},
        {"json", no_argument, NULL, JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    double number = 0;
    find_model(o);
    while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (option) {
        case MODEL:
            snprintf(o->model, sizeof(o->model), "%s", optarg);
            break;
        case THREADS:
        case ROUNDS:
            number = figures_number(optarg, 1, option == THREADS ? THREADS_MAX : 1000);
            *(option == THREADS ? &o->threads : &o->rounds) = (uint32_t)number;
            break;
        case AGREEMENT:
            number = figures_number(optarg, 1, 100000);
            o->agreement = (uint32_t)number;
            break;
        case EXACT:
            o->exact = true;
            break;
        case JSON:
            o->json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 1;
        default:
            return -1;
        }
        if (number < 0) {
            fprintf(stderr, "weft-bench exec: '%s' is not a usable number\n", optarg);
            return -1;
        }
    }
    return 0;
}

int bench_exec(int argc, char **argv)
{
    struct options o = {.rounds = ROUNDS_DEFAULT};
    struct model *model;
    char why[256];
    const int parsed = parse(&o, argc, argv);
    if (parsed)
        return parsed > 0 ? EXIT_SUCCESS : 2;
    if (model_open(&model, o.model, why, sizeof(why))) {
        fprintf(stderr, "weft-bench exec: %s: %s (scripts/model-fetch gets the default model)\n",
                o.model, why);
        return EXIT_FAILURE;
    }
    int rc = model->context < PROMPT_TOKENS ? -EINVAL : 0;
    if (!rc && o.agreement)
        rc = agree_run(model, o.agreement, o.threads, o.json);
    else if (!rc)
        rc = measure_all(&o, model);
    if (rc)
        fprintf(stderr, "weft-bench exec: %s\n", strerror(-rc));
    model_destroy(model);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
