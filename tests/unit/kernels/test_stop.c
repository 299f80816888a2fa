/* SPDX-License-Identifier: Apache-2.0 */
/* A forward that is stopped in the middle: it gives up, and leaves the KV cache as if it had never
 * begun. exec.h has the rules; here the CPU backend follows them. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define CONTEXT 200u
#define BATCH   64u
#define BEFORE  70u /* positions that slot 1 has when the forward begins that is stopped */
#define TRIES   2000u

static uint8_t *data;
static struct model *model;

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct tiny_shape shape = tiny_default;
    shape.layers = 8;
    shape.context = CONTEXT;
    data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
}

static void teardown(void)
{
    model_destroy(model);
    free(data);
}

static size_t fill(struct exec_row *rows, uint32_t slot, uint32_t begin, uint32_t end)
{
    for (uint32_t p = begin; p < end; p++)
        rows[p - begin] =
            (struct exec_row){slot, p, (p * 7 + slot * 31) % 256, p + 1 == end, false};
    return end - begin;
}

static void forward(exec_t *exec, uint32_t slot, uint32_t begin, uint32_t end, float *logits)
{
    struct exec_row rows[BATCH];
    while (begin < end) {
        const uint32_t next = end - begin > BATCH ? begin + BATCH : end;
        ck_assert_int_eq(exec_forward(exec, rows, fill(rows, slot, begin, next), logits, NULL), 0);
        begin = next;
    }
}

static exec_t *create(uint32_t threads)
{
    const struct cpu_options options = {
        .threads = threads, .slots = 3, .context = CONTEXT, .batch_max = BATCH};
    exec_t *exec;
    float logits[TINY_VOCAB];
    ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
    forward(exec, 0, 0, 50, logits);
    forward(exec, 1, 0, BEFORE, logits);
    forward(exec, 2, 0, 90, logits);
    return exec;
}

/* Stops the forward when its progress has come to `at`. */
struct stopper {
    struct exec_watch watch;
    uint32_t at;
    _Atomic bool over;
};

static void *stopper_main(void *arg)
{
    struct stopper *s = arg;
    while (!s->over && s->watch.progress < s->at)
        sched_yield();
    s->watch.stop = true;
    return NULL;
}

/* Returns what the forward did; `reached` the layers it had finished. */
static int stopped_forward(exec_t *exec, uint32_t at, float *logits, uint32_t *reached)
{
    struct exec_row rows[BATCH];
    struct stopper stopper = {.at = at};
    pthread_t thread;
    /* Two slots in one batch; slot 0 forgets its end on the way. */
    size_t count = fill(rows, 1, BEFORE, BEFORE + 40);
    count += fill(rows + count, 0, 45, 60);
    ck_assert_int_eq(pthread_create(&thread, NULL, stopper_main, &stopper), 0);
    const int rc = exec_forward(exec, rows, count, logits, &stopper.watch);
    stopper.over = true;
    pthread_join(thread, NULL);
    *reached = stopper.watch.progress;
    return rc;
}

/* Everything that can be asked afterwards gives what an undisturbed backend gives. */
static void compare(exec_t *exec, exec_t *other)
{
    static const struct {
        uint32_t slot, begin, end;
    } asked[] = {{2, 90, 91}, {1, BEFORE, BEFORE + 40}, {0, 45, 60}, {2, 91, 120}};
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        float mine[TINY_VOCAB];
        float theirs[TINY_VOCAB];
        forward(exec, asked[i].slot, asked[i].begin, asked[i].end, mine);
        forward(other, asked[i].slot, asked[i].begin, asked[i].end, theirs);
        ck_assert_msg(memcmp(mine, theirs, sizeof(mine)) == 0, "other logits of slot %u",
                      asked[i].slot);
    }
}

START_TEST(test_before_it_begins)
{
    struct exec_watch watch = {.stop = true};
    struct exec_row rows[BATCH];
    float logits[TINY_VOCAB];
    exec_t *exec = create(1);
    ck_assert_int_eq(exec_forward(exec, rows, fill(rows, 1, BEFORE, BEFORE + 9), logits, &watch),
                     -ECANCELED);
    ck_assert_uint_eq(watch.progress, 0);
    /* The slot ends where the batch began: the position behind it is a gap again. */
    ck_assert_int_eq(exec_forward(exec, rows, fill(rows, 1, BEFORE + 1, BEFORE + 2), logits, NULL),
                     -EINVAL);
    watch.stop = false;
    ck_assert_int_eq(exec_forward(exec, rows, fill(rows, 1, BEFORE, BEFORE + 9), logits, &watch),
                     0);
    ck_assert_uint_eq(watch.progress, model->layer_count);
    exec_destroy(exec);
}
END_TEST

START_TEST(test_in_the_middle)
{
    for (uint32_t threads = 1; threads <= 2; threads++) {
        unsigned middle = 0;
        for (unsigned i = 0; i < TRIES && middle < 6; i++) {
            float logits[2 * TINY_VOCAB];
            uint32_t reached;
            exec_t *exec = create(threads);
            exec_t *other = create(1);
            const int rc = stopped_forward(exec, i % model->layer_count, logits, &reached);
            ck_assert(rc == 0 || rc == -ECANCELED);
            ck_assert(rc == -ECANCELED || reached == model->layer_count);
            middle += rc == -ECANCELED && reached > 0;
            compare(exec, other);
            exec_destroy(other);
            exec_destroy(exec);
        }
        ck_assert_uint_gt(middle, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stop");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_before_it_begins);
    tcase_add_test(tcase, test_in_the_middle);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
