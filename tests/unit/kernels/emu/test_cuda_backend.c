/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend, kernels and all, on the emulator: its logits are the processor's backend's, its
 * promises of exec.h hold. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "tests/emu/emu.h"
#include "tests/emu/runtime.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define SLOTS     3u
#define CONTEXT   64u
#define BATCH     12u
#define TOLERANCE 3e-5f /* of the largest logit */

struct scene {
    uint8_t *data;
    struct model *model;
    exec_t *cpu;
    exec_t *cuda;
    uint64_t rng;
    uint32_t used[SLOTS];
    float *expected;
    float *got;
    float *expected_states;
    float *got_states;
};

static struct model *open_model(const struct tiny_shape *shape, uint8_t **data)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    *data = tiny_write(shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, *data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&model, file, why, sizeof(why)) == 0, "%s", why);
    return model;
}

enum way { EXACT, HALF_KV, FAST };

static exec_t *open_cuda(const struct model *model, uint32_t batch_max, enum way way)
{
    const struct cuda_options options = {.slots = SLOTS,
                                         .context = CONTEXT,
                                         .batch_max = batch_max,
                                         .half_kv = way == HALF_KV,
                                         .fast = way == FAST};
    char why[160];
    exec_t *cuda;
    const int rc = cuda_create(&cuda, model, &options, why, sizeof(why));
    ck_assert_msg(rc == 0, "%d: %s", rc, why);
    return cuda;
}

static void scene_init(struct scene *s, const struct tiny_shape *shape, enum way way)
{
    const struct cpu_options cpu = {.exact = true,
                                    .slots = SLOTS,
                                    .context = CONTEXT,
                                    .batch_max = BATCH,
                                    .force_portable = true};
    memset(s, 0, sizeof(*s));
    s->rng = shape->seed;
    s->model = open_model(shape, &s->data);
    ck_assert_int_eq(cpu_create(&s->cpu, s->model, &cpu), 0);
    s->cuda = open_cuda(s->model, BATCH, way);
    s->expected = calloc(BATCH * s->model->vocab, sizeof(float));
    s->got = calloc(BATCH * s->model->vocab, sizeof(float));
    s->expected_states = calloc(BATCH * s->model->width, sizeof(float));
    s->got_states = calloc(BATCH * s->model->width, sizeof(float));
    ck_assert(s->expected && s->got && s->expected_states && s->got_states);
}

static void scene_deinit(struct scene *s)
{
    exec_destroy(s->cuda);
    exec_destroy(s->cpu);
    model_destroy(s->model);
    free(s->data);
    free(s->expected);
    free(s->got);
    free(s->expected_states);
    free(s->got_states);
    const char *fault = emu_fault();
    ck_assert_msg(!fault, "%s", fault);
    ck_assert_uint_eq(emu_allocated_bytes(), 0);
}

static uint32_t below(struct scene *s, uint32_t limit)
{
    return (uint32_t)(tiny_random(&s->rng) % limit);
}

/* Rows of some slots: pieces of prompts, single tokens, now and then from an earlier position. */
static size_t random_rows(struct scene *s, struct exec_row *rows)
{
    size_t count = 0;
    const uint32_t first = below(s, SLOTS);
    const bool decode = below(s, 3) == 0;
    for (uint32_t n = 0; n < SLOTS; n++) {
        const uint32_t slot = (first + n) % SLOTS;
        if (count && below(s, 3) == 0)
            continue;
        uint32_t at = s->used[slot];
        if (at && (below(s, 6) == 0 || at + 6 > CONTEXT))
            at = below(s, 2) ? 0 : below(s, at);
        const uint32_t length = decode ? 1 : 1 + below(s, 5);
        for (uint32_t i = 0; i < length && count < BATCH && at < CONTEXT; i++)
            rows[count++] =
                (struct exec_row){slot, at++, below(s, s->model->vocab),
                                  decode || i + 1 == length || below(s, 3) == 0, below(s, 4) == 0};
        s->used[slot] = at;
    }
    return count;
}

static void check_close(const char *what, const float *got, const float *expected, size_t count,
                        float tolerance)
{
    float largest = 1.0f;
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(expected[i]));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabsf(got[i] - expected[i]) <= tolerance * largest,
                      "%s %zu is %.7g, not %.7g", what, i, (double)got[i], (double)expected[i]);
}

static void run_both(struct scene *s, uint32_t steps, float tolerance)
{
    for (uint32_t step = 0; step < steps; step++) {
        struct exec_row rows[BATCH];
        const size_t count = random_rows(s, rows);
        const struct exec_out expected = {s->expected, s->expected_states};
        const struct exec_out got = {s->got, s->got_states};
        size_t wanted = 0;
        size_t states = 0;
        for (size_t i = 0; i < count; i++) {
            wanted += rows[i].want_logits;
            states += rows[i].want_state;
        }
        memset(s->got, 0xff, BATCH * s->model->vocab * sizeof(float));
        memset(s->got_states, 0xff, BATCH * s->model->width * sizeof(float));
        emu_set_order(step);
        ck_assert_int_eq(exec_forward_to(s->cpu, rows, count, &expected, NULL), 0);
        const int rc = exec_forward_to(s->cuda, rows, count, &got, NULL);
        const char *fault = emu_fault();
        ck_assert_msg(!fault, "step %u: %s", step, fault);
        ck_assert_int_eq(rc, 0);
        check_close("logit", s->got, s->expected, wanted * s->model->vocab, tolerance);
        check_close("state", s->got_states, s->expected_states, states * s->model->width,
                    tolerance);
    }
    emu_set_order(0);
}

static const struct tiny_shape shapes[] = {
    {1, GGUF_TENSOR_Q4_1, GGUF_TENSOR_Q8_0, 2, 6, 2, 16, 160, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
     NULL},
    {2, GGUF_TENSOR_Q8_0, GGUF_TENSOR_F16, 2, 4, 4, 8, 96, 128, 1, "qwen2", NULL, 0, 0, TINY_CHATML,
     NULL},
    {3, GGUF_TENSOR_F16, GGUF_TENSOR_F32, 2, 6, 3, 12, 83, 128, 0, "qwen3", NULL, 0, 48,
     TINY_CHATML, NULL},
    {4, GGUF_TENSOR_Q4_0, GGUF_TENSOR_Q4_0, 1, 9, 1, 32, 64, 128, 1, NULL, "yarn", 0, 0,
     TINY_CHATML, NULL},
    {5, GGUF_TENSOR_BF16, GGUF_TENSOR_BF16, 1, 3, 3, 20, 52, 128, 0, NULL, NULL, 1, 0, TINY_CHATML,
     NULL},
    {6, GGUF_TENSOR_Q4_K, GGUF_TENSOR_Q6_K, 1, 8, 2, 32, 256, 128, 0, NULL, "linear", 0, 0,
     TINY_CHATML, NULL},
    {7, GGUF_TENSOR_Q6_K, GGUF_TENSOR_Q4_K, 1, 4, 2, 64, 256, 128, 1, "qwen3", NULL, 0, 0,
     TINY_CHATML, NULL},
    {8, GGUF_TENSOR_Q5_1, GGUF_TENSOR_Q5_0, 1, 6, 2, 16, 160, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
     NULL},
    {9, GGUF_TENSOR_Q5_K, GGUF_TENSOR_Q5_K, 1, 8, 2, 32, 256, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
     NULL},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

START_TEST(logits_are_the_processors)
{
    struct scene s;
    scene_init(&s, &shapes[_i], EXACT);
    run_both(&s, 9, TOLERANCE);
    scene_deinit(&s);
}
END_TEST

START_TEST(half_kv_is_close)
{
    struct scene s;
    scene_init(&s, &tiny_default, HALF_KV);
    run_both(&s, 8, 4e-3f);
    scene_deinit(&s);
}
END_TEST

/* Halves carry 11 bits, and errors add up over the layers; but they are errors of rounding. */
START_TEST(fast_is_close)
{
    struct scene s;
    scene_init(&s, &shapes[_i], FAST);
    run_both(&s, 3, 3e-2f);
    scene_deinit(&s);
}
END_TEST

/* In the fast way, too: what a row wants decides, not what is beside it. */
START_TEST(a_fast_row_is_the_same_however_cut)
{
    struct scene s;
    struct exec_row rows[BATCH];
    const size_t length = 9;
    scene_init(&s, &tiny_default, FAST);
    struct exec_info info;
    exec_info(s.cuda, &info);
    ck_assert_ptr_nonnull(strstr(info.detail, "fast"));
    for (size_t cut = 0; cut < length; cut++) {
        size_t count = 0;
        for (size_t i = 0; i < length; i++) {
            if (i == cut && count) {
                ck_assert_int_eq(exec_forward(s.cuda, rows, count, s.got, NULL), 0);
                count = 0;
                if (cut % 2) /* beside others */
                    rows[count++] = (struct exec_row){2, 0, 7, cut % 4 == 1, false};
            }
            rows[count++] =
                (struct exec_row){1, (uint32_t)i, (uint32_t)i * 31 % 256, i + 1 == length, false};
        }
        float *to = cut ? s.got : s.expected;
        ck_assert_int_eq(exec_forward(s.cuda, rows, count, to, NULL), 0);
        ck_assert_mem_eq(to + (cut % 4 == 1 ? s.model->vocab : 0), s.expected,
                         s.model->vocab * sizeof(float));
    }
    scene_deinit(&s);
}
END_TEST

/* What a sequence has in its pages goes on elsewhere, in other pages, to the same bits. */
START_TEST(pages_go_elsewhere)
{
    struct scene s;
    struct exec_info info;
    struct exec_row row;
    const uint32_t from[] = {3, 0};
    const uint32_t to[] = {1, 2};
    scene_init(&s, &tiny_default, _i ? HALF_KV : EXACT);
    exec_t *other = open_cuda(s.model, BATCH, _i ? HALF_KV : EXACT);
    exec_info(s.cuda, &info);
    ck_assert_uint_gt(info.page_bytes, 0);
    uint8_t *page = malloc(info.page_bytes);
    ck_assert_ptr_nonnull(page);
    ck_assert_int_eq(exec_place(s.cuda, 0, from, 2, 0), 0);
    for (uint32_t i = 0; i < 21; i++) {
        row = (struct exec_row){0, i, i * 5 % 256, true, false};
        ck_assert_int_eq(exec_forward(s.cuda, &row, 1, s.expected, NULL), 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        memset(page, 0xff, info.page_bytes);
        ck_assert_int_eq(exec_page_out(s.cuda, from[i], page), 0);
        ck_assert_int_eq(exec_page_in(other, to[i], page), 0);
    }
    ck_assert_int_eq(exec_page_out(s.cuda, info.pages, page), -EINVAL);
    ck_assert_int_eq(exec_page_in(s.cuda, info.pages, page), -EINVAL);
    ck_assert_int_eq(exec_place(other, 2, to, 2, 20), 0);
    row.slot = 2; /* once more what came last */
    ck_assert_int_eq(exec_forward(other, &row, 1, s.got, NULL), 0);
    ck_assert_mem_eq(s.got, s.expected, s.model->vocab * sizeof(float));
    exec_destroy(other);
    free(page);
    scene_deinit(&s);
}
END_TEST

/* A prompt cut in any way, beside any others, as a graph or not: the same bits. */
START_TEST(a_row_is_the_same_however_it_comes)
{
    struct scene s;
    struct exec_row rows[BATCH];
    const size_t length = 9;
    scene_init(&s, &tiny_default, EXACT);
    uint32_t tokens[BATCH];
    for (size_t i = 0; i < length; i++)
        tokens[i] = below(&s, s.model->vocab);
    for (size_t i = 0; i < length; i++) { /* one at a time: graphs */
        rows[0] = (struct exec_row){0, (uint32_t)i, tokens[i], true, false};
        ck_assert_int_eq(exec_forward(s.cuda, rows, 1, s.expected, NULL), 0);
    }
    for (size_t cut = 1; cut < length; cut++) {
        size_t count = 0;
        for (size_t i = 0; i < cut; i++)
            rows[count++] = (struct exec_row){1, (uint32_t)i, tokens[i], false, false};
        ck_assert_int_eq(exec_forward(s.cuda, rows, count, s.got, NULL), 0);
        count = 0;
        if (cut % 2)
            rows[count++] = (struct exec_row){2, 0, 7, false, false};
        for (size_t i = cut; i < length; i++)
            rows[count++] = (struct exec_row){1, (uint32_t)i, tokens[i], i + 1 == length, false};
        ck_assert_int_eq(exec_forward(s.cuda, rows, count, s.got, NULL), 0);
        ck_assert_mem_eq(s.got, s.expected, s.model->vocab * sizeof(float));
    }
    scene_deinit(&s);
}
END_TEST

/* A graph is captured once and then only launched. */
START_TEST(decoding_steps_are_graphs)
{
    struct scene s;
    struct exec_row row = {0, 0, 5, true, false};
    scene_init(&s, &tiny_default, EXACT);
    const uint64_t none = emu_graph_launches();
    ck_assert_int_eq(exec_forward(s.cuda, &row, 1, s.got, NULL), 0);
    ck_assert_uint_eq(emu_graph_launches(), none); /* the first loads kernels */
    const size_t allocated = emu_allocated_bytes();
    for (row.position = 1; row.position < 20; row.position++) {
        const uint64_t before = emu_graph_launches();
        ck_assert_int_eq(exec_forward(s.cuda, &row, 1, s.got, NULL), 0);
        ck_assert_uint_eq(emu_graph_launches(), before + 1);
        ck_assert_uint_eq(emu_allocated_bytes(), allocated);
    }
    scene_deinit(&s);
}
END_TEST

START_TEST(a_stopped_batch_may_come_again)
{
    struct scene s;
    struct exec_watch watch = {0};
    struct exec_row rows[4];
    scene_init(&s, &tiny_default, EXACT);
    for (uint32_t i = 0; i < 4; i++)
        rows[i] = (struct exec_row){0, i, i * 3, i == 3, false};
    ck_assert_int_eq(exec_forward(s.cuda, rows, 4, s.expected, &watch), 0);
    ck_assert_uint_eq(watch.progress, s.model->layer_count);
    atomic_store(&watch.stop, true);
    ck_assert_int_eq(exec_forward(s.cuda, rows, 4, s.got, &watch), -ECANCELED);
    const struct exec_row behind = {0, 1, 1, true, false};
    ck_assert_int_eq(exec_forward(s.cuda, &behind, 1, s.got, NULL), -EINVAL);
    atomic_store(&watch.stop, false);
    ck_assert_int_eq(exec_forward(s.cuda, rows, 4, s.got, &watch), 0);
    ck_assert_mem_eq(s.got, s.expected, s.model->vocab * sizeof(float));
    scene_deinit(&s);
}
END_TEST

START_TEST(bad_rows_are_refused)
{
    struct scene s;
    scene_init(&s, &tiny_default, EXACT);
    const struct exec_row bad[] = {{SLOTS, 0, 0, true, false},
                                   {0, 1, 0, true, false},
                                   {0, CONTEXT, 0, true, false},
                                   {0, 0, TINY_VOCAB, true, false},
                                   {0, 0, 0, false, true}}; /* no place for its state */
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(exec_forward(s.cuda, &bad[i], 1, s.got, NULL), -EINVAL);
    const struct exec_row apart[] = {
        {0, 0, 0, false, false}, {1, 0, 0, false, false}, {0, 1, 0, true, false}};
    ck_assert_int_eq(exec_forward(s.cuda, apart, 3, s.got, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(s.cuda, apart, 0, s.got, NULL), -EINVAL);
    scene_deinit(&s);
}
END_TEST

START_TEST(models_without_kernels_are_refused)
{
    struct tiny_shape shape = tiny_default;
    const struct cuda_options options = {.slots = 1};
    const struct cuda_options elsewhere = {.device = 7};
    char why[160];
    uint8_t *data;
    exec_t *cuda;
    shape.head_width = 10; /* no multiple of four */
    shape.type = GGUF_TENSOR_F32;
    shape.embedding_type = GGUF_TENSOR_F32;
    struct model *model = open_model(&shape, &data);
    ck_assert_int_eq(cuda_create(&cuda, model, &options, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_null(cuda);
    ck_assert_ptr_nonnull(strstr(why, "processor"));
    model_destroy(model);
    free(data);
    model = open_model(&tiny_default, &data);
    ck_assert_int_eq(cuda_create(&cuda, model, &elsewhere, why, sizeof(why)), -ENODEV);
    ck_assert_uint_eq(emu_allocated_bytes(), 0);
    model_destroy(model);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_backend");
    TCase *tcase = tcase_create("backend");
    tcase_add_loop_test(tcase, logits_are_the_processors, 0, SHAPES);
    tcase_add_test(tcase, half_kv_is_close);
    tcase_add_loop_test(tcase, fast_is_close, 0, SHAPES);
    tcase_add_test(tcase, a_fast_row_is_the_same_however_cut);
    tcase_add_loop_test(tcase, pages_go_elsewhere, 0, 2);
    tcase_add_test(tcase, a_row_is_the_same_however_it_comes);
    tcase_add_test(tcase, decoding_steps_are_graphs);
    tcase_add_test(tcase, a_stopped_batch_may_come_again);
    tcase_add_test(tcase, bad_rows_are_refused);
    tcase_add_test(tcase, models_without_kernels_are_refused);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
