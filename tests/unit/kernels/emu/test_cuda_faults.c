/* SPDX-License-Identifier: Apache-2.0 */
/* What the CUDA backend does where the device says no: a step without its graph is the same step, a
 * failure is said once, and a backend that could not be created leaves nothing behind. The emulator
 * fails the calls that it is told to (tests/emu/runtime.h). */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "tests/emu/emu.h"
#include "tests/emu/runtime.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define SLOTS      2u
#define BATCH      8u
#define CALLS_MOST 200u /* that a test lets fail, one after the other */

struct scene {
    uint8_t *data;
    struct model *model;
    float *expected;
    float *got;
};

static void scene_init(struct scene *s)
{
    size_t size;
    char why[128];
    gguf_t *file;
    s->data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, s->data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&s->model, file, why, sizeof(why)) == 0, "%s", why);
    s->expected = calloc((size_t)BATCH * s->model->vocab, sizeof(float));
    s->got = calloc((size_t)BATCH * s->model->vocab, sizeof(float));
    ck_assert(s->expected && s->got);
}

static void scene_deinit(struct scene *s)
{
    model_destroy(s->model);
    free(s->data);
    free(s->expected);
    free(s->got);
    ck_assert_uint_eq(emu_allocated_bytes(), 0);
}

static int try_open(exec_t **out, const struct scene *s, enum cuda_gemm gemm, char *why,
                    size_t size)
{
    const struct cuda_options options = {.slots = SLOTS,
                                         .context = 64,
                                         .batch_max = BATCH,
                                         .fast = gemm != CUDA_GEMM_OWN,
                                         .gemm = gemm};
    return cuda_create(out, s->model, &options, why, size);
}

static exec_t *open_exec(const struct scene *s)
{
    exec_t *exec;
    char why[200];
    const int rc = try_open(&exec, s, CUDA_GEMM_OWN, why, sizeof(why));
    ck_assert_msg(rc == 0, "%d: %s", rc, why);
    return exec;
}

/* Position `at` of `count` sequences: logits of all of them. */
static int decode(exec_t *exec, uint32_t count, uint32_t at, float *logits)
{
    struct exec_row rows[SLOTS];
    for (uint32_t i = 0; i < count; i++)
        rows[i] = (struct exec_row){i, at, (at * 31 + i * 7) % 256, true, false};
    return exec_forward(exec, rows, count, logits, NULL);
}

static void check_same(const struct scene *s, uint32_t count)
{
    ck_assert_mem_eq(s->got, s->expected, (size_t)count * s->model->vocab * sizeof(float));
}

/* Calls that spoil a graph: in the middle of a capture, at its end, behind it. */
static const struct {
    enum emu_call call;
    uint32_t nth; /* copies of the inputs come first */
} spoilers[] = {{EMU_CALL_PUT, 6}, {EMU_CALL_CAPTURE, 1}, {EMU_CALL_GRAPH, 1}};

START_TEST(a_step_without_its_graph_is_the_same)
{
    struct scene s;
    scene_init(&s);
    exec_t *whole = open_exec(&s);
    exec_t *exec = open_exec(&s);
    for (uint32_t at = 0; at < 5; at++) {
        const uint64_t before = emu_graph_launches();
        ck_assert_int_eq(decode(whole, 1, at, s.expected), 0);
        const uint64_t between = emu_graph_launches();
        ck_assert_uint_eq(between - before, at > 0);
        if (at == 1) /* the step that is captured */
            emu_fail_nth(spoilers[_i].call, spoilers[_i].nth);
        ck_assert_int_eq(decode(exec, 1, at, s.got), 0);
        check_same(&s, 1);
        ck_assert_uint_eq(emu_graph_launches(), between); /* nor is it tried again */
    }
    for (uint32_t at = 0; at < 3; at++) { /* another one has its graph */
        ck_assert_int_eq(decode(whole, 2, at, s.expected), 0);
        const uint64_t before = emu_graph_launches();
        ck_assert_int_eq(decode(exec, 2, at, s.got), 0);
        ck_assert_uint_eq(emu_graph_launches() - before, at > 0);
        check_same(&s, 2);
    }
    ck_assert_ptr_null(emu_fault());
    exec_destroy(whole);
    exec_destroy(exec);
    scene_deinit(&s);
}
END_TEST

/* Whichever of a step's copies and launches fails: the step does, the next one does not. */
START_TEST(a_failure_is_said_once)
{
    struct scene s;
    struct exec_row rows[BATCH];
    uint32_t failed = 0;
    scene_init(&s);
    exec_t *whole = open_exec(&s);
    exec_t *exec = open_exec(&s);
    for (uint32_t i = 0; i < BATCH; i++)
        rows[i] = (struct exec_row){0, i, i * 37 % 256, i + 1 == BATCH, false};
    ck_assert_int_eq(exec_forward(whole, rows, BATCH, s.expected, NULL), 0);
    for (uint32_t nth = 1; nth < CALLS_MOST; nth++) {
        emu_fail_nth(EMU_CALL_PUT, nth);
        const int rc = exec_forward(exec, rows, BATCH, s.got, NULL);
        emu_fail_nth(EMU_CALL_PUT, 0);
        if (rc == 0)
            break;
        ck_assert_int_eq(rc, -EIO);
        failed++;
        memset(s.got, 0xff, s.model->vocab * sizeof(float));
        ck_assert_int_eq(exec_forward(exec, rows, BATCH, s.got, NULL), 0);
        check_same(&s, 1);
    }
    ck_assert_uint_gt(failed, 10);
    ck_assert_uint_lt(failed, CALLS_MOST - 1);
    exec_destroy(whole);
    exec_destroy(exec);
    scene_deinit(&s);
}
END_TEST

/* Every allocation and everything else of a creation fails once; with the library, too. */
START_TEST(what_cannot_be_created_leaves_nothing)
{
    static const enum emu_call calls[] = {EMU_CALL_ALLOC, EMU_CALL_STREAM, EMU_CALL_PUT};
    const enum cuda_gemm gemm = _i ? CUDA_GEMM_CUBLASLT : CUDA_GEMM_OWN;
    struct scene s;
    ck_assert_int_eq(setenv("WEFT_CUBLASLT", FAKE_PATH, 1), 0);
    scene_init(&s);
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        uint32_t failed = 0;
        for (uint32_t nth = 1; nth < CALLS_MOST; nth++) {
            exec_t *exec = NULL;
            char why[200];
            emu_fail_nth(calls[c], nth);
            const int rc = try_open(&exec, &s, gemm, why, sizeof(why));
            emu_fail_nth(calls[c], 0);
            if (rc == 0) {
                exec_destroy(exec);
                break;
            }
            failed++;
            ck_assert_int_eq(rc, calls[c] == EMU_CALL_PUT ? -EIO : -ENOMEM);
            ck_assert_ptr_null(exec);
            ck_assert_str_ne(why, "");
            ck_assert_uint_eq(emu_allocated_bytes(), 0);
        }
        ck_assert_uint_gt(failed, 2);
    }
    scene_deinit(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_faults");
    TCase *tcase = tcase_create("faults");
    tcase_add_loop_test(tcase, a_step_without_its_graph_is_the_same, 0, 3);
    tcase_add_test(tcase, a_failure_is_said_once);
    tcase_add_loop_test(tcase, what_cannot_be_created_leaves_nothing, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
