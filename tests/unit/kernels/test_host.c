/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/host.c: jobs as the port brings them, over a small model in a file. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "kernels/host.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

static char path[] = "/tmp/weft-test-host-XXXXXX";
static struct host host;

static void setup(void)
{
    size_t size;
    char why[256];
    uint8_t *data = tiny_write(&tiny_default, &size);
    const int fd = mkstemp(path);
    const struct host_options options = {
        .model_path = path, .slots = 2, .queue = 2, .context = 120, .memory_mib = 64};
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    ck_assert_msg(host_open(&host, &options, why, sizeof(why)) == 0, "%s", why);
}

static void teardown(void)
{
    host_close(&host);
    unlink(path);
    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
}

static int submit(uint64_t id, const weft_job_view_t *view)
{
    struct engine_request request;
    const int rc = host_request(&host, id, view, &request);
    return rc ? rc : host_status(engine_submit(host.engine, &request, clock_now_ns()));
}

static uint32_t room(void)
{
    struct engine_load load;
    engine_load(host.engine, clock_now_ns(), &load);
    ck_assert_uint_ne(host_load(&load).steps, 0);
    return host_load(&load).room;
}

static struct engine_event finish_all(void)
{
    static struct engine_event events[64];
    struct engine_event last = {0};
    while (engine_busy(host.engine)) {
        const int count = engine_step(host.engine, clock_now_ns(), events, 64);
        ck_assert_int_ge(count, 0);
        for (int i = 0; i < count; i++)
            if (events[i].kind == ENGINE_DONE)
                last = events[i];
    }
    return last;
}

START_TEST(test_kinds)
{
    static const weft_job_part_t text = {0, "hello the", 9};
    static const weft_job_part_t talk[] = {{WEFT_ROLE_SYSTEM, "he", 2}, {WEFT_ROLE_USER, "t", 1}};
    static const uint32_t tokens[] = {1, 2, 3};
    weft_job_view_t view = {.parts = &text, .part_count = 1, .max_tokens = 4, .top_p = 1.0f};
    ck_assert_int_eq(submit(1, &view), 0);
    ck_assert_uint_eq(finish_all().prompt_tokens, 2); /* "hello", " the" */
    view.parts = talk;
    view.part_count = 2;
    ck_assert_int_eq(submit(1, &view), 0);
    ck_assert_uint_gt(finish_all().prompt_tokens, 20);
    view = (weft_job_view_t){.tokens = tokens, .token_count = 3, .max_tokens = 4};
    ck_assert_int_eq(submit(1, &view), 0);
    const struct engine_event end = finish_all();
    ck_assert_uint_eq(end.prompt_tokens, 3);
    const weft_job_report_t report = host_report(&end);
    ck_assert_int_eq(report.status, 0);
    ck_assert_uint_eq(report.new_tokens, end.new_tokens);
    static const uint32_t given[] = {9, 8};
    view.resume = given;
    view.resume_count = 2;
    ck_assert_int_eq(submit(1, &view), 0);
    const struct engine_event resumed = finish_all();
    ck_assert_uint_eq(host_report(&resumed).prompt_tokens, 3);
    ck_assert_uint_eq(host_report(&resumed).new_tokens, 4);
}
END_TEST

START_TEST(test_refusals)
{
    static const char long_text[500] = {0};
    const weft_job_part_t part = {0, long_text, sizeof(long_text)};
    static const weft_job_part_t odd = {7, "t", 1};
    static const uint32_t outside[] = {TINY_VOCAB};
    weft_job_view_t view = {.parts = &part, .part_count = 1, .max_tokens = 4};
    ck_assert_int_eq(submit(1, &view), WEFT_E_TOO_LONG);
    view.parts = &odd;
    ck_assert_int_eq(submit(1, &view), WEFT_E_BAD_REQUEST);
    view.part_count = 0;
    ck_assert_int_eq(submit(1, &view), WEFT_E_BAD_REQUEST);
    view.tokens = outside;
    view.token_count = 1;
    ck_assert_int_eq(submit(1, &view), WEFT_E_BAD_REQUEST);
    static const uint32_t fine[] = {1};
    view.tokens = fine;
    view.resume = outside;
    view.resume_count = 1;
    ck_assert_int_eq(submit(1, &view), WEFT_E_BAD_REQUEST);
    view.resume = fine;
    view.max_tokens = 120; /* one more than the context has left */
    ck_assert_int_eq(submit(1, &view), WEFT_E_TOO_LONG);
    view.max_tokens = 4;
    view.resume_count = 5; /* more than were asked for */
    ck_assert_int_eq(submit(1, &view), WEFT_E_BAD_REQUEST);
    view.resume_count = 0;
    for (uint64_t id = 0; id < 4; id++)
        ck_assert_int_eq(submit(id, &view), 0);
    ck_assert_uint_eq(room(), 0);
    ck_assert_int_eq(submit(9, &view), WEFT_E_MESH_FULL);
}
END_TEST

START_TEST(test_report)
{
    static const struct {
        enum engine_finish finish;
        int status;
        int wire;
    } wanted[] = {
        {ENGINE_STOP, 0, WEFT_FINISH_STOP},
        {ENGINE_LENGTH, 0, WEFT_FINISH_LENGTH},
        {ENGINE_CANCELLED, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED},
        {ENGINE_DEADLINE, WEFT_E_BUDGET_EXPIRED, WEFT_FINISH_FAILED},
        {ENGINE_ERROR, WEFT_E_WORKER_FAILED, WEFT_FINISH_FAILED},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        const struct engine_event event = {.kind = ENGINE_DONE, .finish = wanted[i].finish};
        const weft_job_report_t report = host_report(&event);
        ck_assert_int_eq(report.status, wanted[i].status);
        ck_assert_int_eq(report.finish, wanted[i].wire);
    }
}
END_TEST

START_TEST(test_sizes)
{
    struct host other;
    char why[256];
    struct host_options options = {.model_path = path, .slots = 64, .memory_mib = 1};
    ck_assert_int_eq(host_open(&other, &options, why, sizeof(why)), 0);
    ck_assert_uint_eq(other.info.slots, 64); /* they share what there is */
    ck_assert_uint_le(other.info.kv_bytes, 1u << 20);
    ck_assert_uint_ge(other.info.pages * EXEC_PAGE_TOKENS, other.info.context);
    host_close(&other);
    options = (struct host_options){.model_path = path, .context = 1000};
    ck_assert_int_ne(host_open(&other, &options, why, sizeof(why)), 0);
    ck_assert_ptr_nonnull(strstr(why, "context"));
    host_close(&other);
    options.model_path = "/nonexistent.gguf";
    ck_assert_int_ne(host_open(&other, &options, why, sizeof(why)), 0);
    ck_assert_uint_gt(strlen(why), 0);
    host_close(&other);
}
END_TEST

static uint32_t arithmetic_of(const char *model_path, const char *cpu)
{
    const struct host_options options = {
        .model_path = model_path, .backend = HOST_CPU, .slots = 1, .context = 64, .memory_mib = 64};
    struct host other;
    char why[256];
    setenv("WEFT_CPU", cpu, 1);
    ck_assert_msg(host_open(&other, &options, why, sizeof(why)) == 0, "%s", why);
    unsetenv("WEFT_CPU");
    const uint32_t sum = host_arithmetic(&other);
    host_close(&other);
    return sum;
}

/* Integers are the same everywhere, float32 is not; other weights are others. */
START_TEST(test_arithmetic)
{
    char other_path[] = "/tmp/weft-test-host-XXXXXX";
    struct tiny_shape shape = tiny_default;
    size_t size;
    shape.seed++;
    uint8_t *data = tiny_write(&shape, &size);
    const int fd = mkstemp(other_path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    const uint32_t fast = arithmetic_of(path, "");
    ck_assert_uint_ne(fast, 0);
    ck_assert_uint_eq(arithmetic_of(path, "portable"), fast);
    ck_assert_uint_ne(arithmetic_of(path, "exact"), fast);
    ck_assert_uint_ne(arithmetic_of(other_path, ""), fast);
    unlink(other_path);
}
END_TEST

START_TEST(test_names)
{
    static const struct {
        const char *path, *name;
    } cases[] = {
        {"/m/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"},
        {"Qwen3-8B-IQ2_XXS.gguf", "qwen3-8b"},
        {"llama-bf16.GGUF", "llama"},
        {"plain", "plain"},
        {"v1.5.gguf", "v1.5"},
        {"a/b/.gguf", ""},
        {"quick-queen.gguf", "quick-queen"},
        {"My Model (2).Q4_0.gguf", "my-model-(2)"},
        {"m\303\266we.gguf", "m--we"},
    };
    char name[64];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        host_model_name(cases[i].path, name, sizeof(name));
        ck_assert_str_eq(name, cases[i].name);
    }
    host_model_name("abcdefgh.gguf", name, 4);
    ck_assert_str_eq(name, "abc");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("host");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_kinds);
    tcase_add_test(tcase, test_refusals);
    tcase_add_test(tcase, test_report);
    tcase_add_test(tcase, test_sizes);
    tcase_add_test(tcase, test_arithmetic);
    tcase_add_test(tcase, test_names);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
