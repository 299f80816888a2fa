/* SPDX-License-Identifier: Apache-2.0 */
/* The host over the CUDA backend on the emulator: which backend it takes, and that the engine's
 * answers are the processor's. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/host.h"
#include "kernels/shards/shards.h"
#include "schemas/base/clock.h"
#include "tests/emu/emu.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define NEW_MAX 12u

static char path[] = "/tmp/weft-test-cuda-XXXXXX";

static void write_model(const struct tiny_shape *shape)
{
    size_t size;
    uint8_t *data = tiny_write(shape, &size);
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
}

static void remove_model(void)
{
    unlink(path);
    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
}

static void open_host(struct host *host, enum host_backend backend, uint32_t shards)
{
    char why[256];
    const struct host_options options = {.model_path = path,
                                         .backend = backend,
                                         .shards = shards,
                                         .slots = 2,
                                         .context = 60,
                                         .memory_mib = 64};
    const int rc = host_open(host, &options, why, sizeof(why));
    ck_assert_msg(rc == 0, "%d: %s", rc, why);
}

/* Two answers at once, one greedy and one drawn. Returns the number of tokens. */
static size_t answer(struct host *host, uint32_t *tokens)
{
    static const uint32_t prompt[] = {9, 200, 31, 77, 5};
    struct engine_event events[64];
    size_t count = 0;
    for (uint64_t id = 1; id <= 2; id++) {
        const struct engine_request request = {
            .id = id,
            .tokens = prompt,
            .token_count = 3 + id,
            .sampling = {.temperature = id == 2 ? 0.8f : 0.0f, .top_k = 20, .seed = 5},
            .max_tokens = NEW_MAX,
        };
        ck_assert_int_eq(engine_submit(host->engine, &request, clock_now_ns()), 0);
    }
    while (engine_busy(host->engine)) {
        const int got = engine_step(host->engine, clock_now_ns(), events, 64);
        ck_assert_int_ge(got, 0);
        for (int i = 0; i < got; i++)
            if (events[i].kind == ENGINE_TOKEN)
                tokens[count++] = (uint32_t)events[i].id << 16 | events[i].token;
    }
    return count;
}

START_TEST(answers_are_the_processors)
{
    struct host cpu;
    struct host cuda;
    uint32_t expected[2 * NEW_MAX];
    uint32_t got[2 * NEW_MAX];
    ck_assert_int_eq(setenv("WEFT_CPU", "exact", 1), 0); /* float32, as the device */
    write_model(&tiny_default);
    open_host(&cpu, HOST_CPU, 1);
    open_host(&cuda, HOST_AUTO, 1);
    ck_assert_str_eq(cpu.info.backend, "cpu");
    ck_assert_str_eq(cuda.info.backend, "cuda");
    const size_t count = answer(&cpu, expected);
    ck_assert_uint_gt(count, NEW_MAX);
    ck_assert_uint_eq(answer(&cuda, got), count);
    ck_assert_mem_eq(got, expected, count * sizeof(got[0]));
    ck_assert_ptr_null(emu_fault());
    host_close(&cpu);
    host_close(&cuda);
    ck_assert_uint_eq(emu_allocated_bytes(), 0);
    remove_model();
}
END_TEST

/* Two processes with an emulated device each. */
START_TEST(shards_answer_alike)
{
    struct host one;
    struct host two;
    uint32_t expected[2 * NEW_MAX];
    uint32_t got[2 * NEW_MAX];
    write_model(&tiny_default);
    open_host(&one, HOST_CUDA, 1);
    open_host(&two, HOST_CUDA, 2);
    ck_assert_str_eq(two.info.backend, "cuda");
    ck_assert_uint_eq(two.info.ranks, 2);
    const size_t count = answer(&one, expected);
    ck_assert_uint_eq(answer(&two, got), count);
    ck_assert_mem_eq(got, expected, count * sizeof(got[0]));
    host_close(&one);
    host_close(&two);
    remove_model();
}
END_TEST

/* An embedding is the processor's. */
START_TEST(embeddings_are_the_processors)
{
    static const uint32_t prompt[] = {9, 200, 31, 77, 5};
    struct engine_event events[64];
    struct host hosts[2];
    float *values[2] = {0};
    ck_assert_int_eq(setenv("WEFT_CPU", "exact", 1), 0);
    write_model(&tiny_default);
    open_host(&hosts[0], HOST_CPU, 1);
    open_host(&hosts[1], HOST_CUDA, 1);
    const size_t width = hosts[0].info.width;
    ck_assert_uint_gt(width, 0);
    ck_assert_uint_eq(hosts[1].info.width, width);
    for (int h = 0; h < 2; h++) {
        values[h] = calloc(width, sizeof(float));
        ck_assert_ptr_nonnull(values[h]);
        const struct engine_request request = {.id = 1,
                                               .tokens = prompt,
                                               .token_count = 5,
                                               .embed = ENGINE_EMBED_MEAN,
                                               .embedding = values[h],
                                               .max_tokens = 1};
        ck_assert_int_eq(engine_submit(hosts[h].engine, &request, clock_now_ns()), 0);
        while (engine_busy(hosts[h].engine))
            ck_assert_int_ge(engine_step(hosts[h].engine, clock_now_ns(), events, 64), 0);
    }
    float largest = 0.0f;
    for (size_t i = 0; i < width; i++) {
        ck_assert_float_eq_tol(values[1][i], values[0][i], 1e-5f);
        largest = values[0][i] > largest ? values[0][i] : largest;
    }
    ck_assert_float_gt(largest, 0.01f); /* there is one */
    for (int h = 0; h < 2; h++) {
        free(values[h]);
        host_close(&hosts[h]);
    }
    remove_model();
}
END_TEST

START_TEST(auto_falls_back_and_cuda_does_not)
{
    struct tiny_shape shape = tiny_default;
    struct host host;
    char why[256];
    shape.head_width = 10;
    shape.type = GGUF_TENSOR_F32;
    shape.embedding_type = GGUF_TENSOR_F32;
    write_model(&shape);
    open_host(&host, HOST_AUTO, 1);
    ck_assert_str_eq(host.info.backend, "cpu");
    host_close(&host);
    const struct host_options options = {
        .model_path = path, .backend = HOST_CUDA, .slots = 1, .context = 20};
    ck_assert_int_eq(host_open(&host, &options, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(why, "processor"));
    host_close(&host);
    remove_model();
}
END_TEST

int main(int argc, char **argv)
{
    if (shards_is_rank(argc, argv))
        return shards_rank_main();
    Suite *suite = suite_create("cuda_host");
    TCase *tcase = tcase_create("host");
    tcase_set_timeout(tcase, 200);
    tcase_add_test(tcase, answers_are_the_processors);
    tcase_add_test(tcase, shards_answer_alike);
    tcase_add_test(tcase, embeddings_are_the_processors);
    tcase_add_test(tcase, auto_falls_back_and_cuda_does_not);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
