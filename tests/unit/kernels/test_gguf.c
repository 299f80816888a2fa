/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/model/gguf.c and model.c: lookups, and files that lie. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/model/model.h"
#include "kernels/model/tokenizer.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define FLIPS 4000u

/* Opens a copy of exactly `size` bytes, so that a sanitizer sees any read beyond, and goes on as
 * far as the file lets it. Returns what gguf_open_memory() did. */
static int open_copy(const uint8_t *data, size_t size)
{
    char why[128];
    gguf_t *file;
    tokenizer_t *tokenizer;
    struct model *model;
    uint8_t *copy = malloc(size ? size : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, size);
    const int rc = gguf_open_memory(&file, copy, size, why, sizeof(why));
    if (rc == 0) {
        if (tokenizer_create(&tokenizer, file, why, sizeof(why)) == 0) {
            uint32_t ids[64];
            size_t count;
            (void)tokenizer_encode(tokenizer, "hello the 12 w", 14, TOKENIZER_PARSE_SPECIAL, ids,
                                   64, &count);
            tokenizer_destroy(tokenizer);
        }
        if (model_create(&model, file, why, sizeof(why)) == 0)
            model_destroy(model);
    }
    free(copy);
    return rc;
}

START_TEST(test_lookups)
{
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    gguf_t *file;
    uint32_t number = 0;
    float real = 0;
    struct gguf_str text;
    struct gguf_array array;
    size_t cursor = 0;
    ck_assert_int_eq(gguf_open_memory(&file, data, size, NULL, 0), 0);
    ck_assert_int_eq(gguf_get_u32(file, "llama.block_count", &number), 0);
    ck_assert_uint_eq(number, tiny_default.layers);
    ck_assert_int_eq(gguf_get_u32(file, "llama.nothing", &number), -ENOENT);
    ck_assert_int_eq(gguf_get_u32(file, "general.architecture", &number), -EINVAL);
    ck_assert_int_eq(gguf_get_f32(file, "llama.rope.freq_base", &real), 0);
    ck_assert_float_eq(real, 10000.0f);
    ck_assert_int_eq(gguf_get_str(file, "general.architecture", &text), 0);
    ck_assert(gguf_str_equal(text, "llama"));
    ck_assert_int_eq(gguf_get_array(file, "tokenizer.ggml.tokens", &array), 0);
    ck_assert_uint_eq(array.count, TINY_VOCAB);
    size_t seen = 0;
    while (gguf_array_str(&array, &cursor, &text))
        seen++;
    ck_assert_uint_eq(seen, TINY_VOCAB);
    ck_assert(gguf_str_equal(text, "<|im_end|>"));
    const struct gguf_tensor *tensor = gguf_tensor_find(file, "blk.1.ffn_down.weight");
    ck_assert_ptr_nonnull(tensor);
    ck_assert_uint_eq(tensor->dim[0], tiny_default.ffn_width);
    ck_assert_uint_eq(tensor->size_bytes, 160 / 32 * 20 * 96);
    ck_assert_ptr_null(gguf_tensor_find(file, "blk.2.ffn_down.weight"));
    gguf_close(file);
    free(data);
}
END_TEST

START_TEST(test_model_sizes)
{
    size_t size;
    char why[128];
    uint8_t *data = tiny_write(&tiny_default, &size);
    gguf_t *file;
    struct model *model;
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&model, file, why, sizeof(why)) == 0, "%s", why);
    ck_assert_uint_eq(model->width, 96);
    ck_assert_uint_eq(model->head_width, 16);
    ck_assert_uint_eq(model->kv_head_count, 2);
    ck_assert_uint_eq(model->vocab, TINY_VOCAB);
    ck_assert_ptr_eq(model->output.data, model->embedding.data);
    model_destroy(model);
    free(data);
}
END_TEST

START_TEST(test_truncated)
{
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    const size_t header = tiny_header_size(&tiny_default);
    ck_assert_int_eq(open_copy(data, size), 0);
    for (size_t cut = 0; cut <= header; cut++)
        ck_assert_int_ne(open_copy(data, cut), 0);
    /* The last tensor ends where the file does, but for its padding. */
    ck_assert_int_ne(open_copy(data, size - 64), 0);
    free(data);
}
END_TEST

START_TEST(test_flipped_bits)
{
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    const size_t header = tiny_header_size(&tiny_default);
    uint64_t rng = 7;
    for (unsigned i = 0; i < FLIPS; i++) {
        const size_t at = tiny_random(&rng) % header;
        const uint8_t kept = data[at];
        data[at] ^= (uint8_t)(1u << (tiny_random(&rng) & 7));
        (void)open_copy(data, size);
        data[at] = kept;
    }
    free(data);
}
END_TEST

/* Every aligned and unaligned 8-byte field in turn claims the impossible. */
START_TEST(test_huge_numbers)
{
    static const uint64_t values[] = {UINT64_MAX, UINT64_MAX / 4 + 1, (uint64_t)INT64_MAX,
                                      UINT64_C(1) << 32, 0};
    size_t size;
    uint8_t *data = tiny_write(&tiny_default, &size);
    const size_t header = tiny_header_size(&tiny_default);
    for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
        for (size_t at = 0; at + 8 <= header; at += at < 256 ? 1 : 7) {
            uint8_t kept[8];
            memcpy(kept, data + at, 8);
            memcpy(data + at, &values[v], 8);
            (void)open_copy(data, size);
            memcpy(data + at, kept, 8);
        }
    }
    for (size_t at = 8; at <= 16; at += 8) { /* the two counts */
        uint8_t kept[8];
        memcpy(kept, data + at, 8);
        memcpy(data + at, &values[0], 8);
        ck_assert_int_eq(open_copy(data, size), -EINVAL);
        memcpy(data + at, kept, 8);
    }
    free(data);
}
END_TEST

START_TEST(test_wrong_kind)
{
    size_t size;
    char why[128];
    gguf_t *file;
    uint8_t *data = tiny_write(&tiny_default, &size);
    data[4] = 9;
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(why, "version 9"));
    data[0] = 'X';
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), -EINVAL);
    ck_assert_int_eq(gguf_open(&file, "/nonexistent/m.gguf", why, sizeof(why)), -ENOENT);
    ck_assert_int_eq(gguf_open(&file, "/dev/null", why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "no regular file"));
    ck_assert_ptr_null(file);
    free(data);
}
END_TEST

/* A tensor that nobody would read must not go unnoticed. */
/* Nobody may ever write to it. */
START_TEST(test_fifo)
{
    char path[] = "/tmp/weft-test-gguf-XXXXXX";
    char name[sizeof(path) + 2];
    char why[128];
    gguf_t *file;
    ck_assert_ptr_nonnull(mkdtemp(path));
    (void)snprintf(name, sizeof(name), "%s/f", path);
    ck_assert_int_eq(mkfifo(name, 0600), 0);
    const int rc = gguf_open(&file, name, why, sizeof(why));
    unlink(name);
    rmdir(path);
    ck_assert_int_eq(rc, -EINVAL);
    ck_assert_ptr_null(file);
}
END_TEST

START_TEST(test_unknown_tensor)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    uint8_t *data = tiny_write(&tiny_default, &size);
    uint8_t *name = memmem(data, size, "blk.1.attn_q.weight", 19);
    ck_assert_ptr_nonnull(name);
    memcpy(name, "blk.1.attn_x.weight", 19);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "blk.1.attn_q.weight"));
    memcpy(name, "blk.1.attn_k.weight", 19); /* twice, then */
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), -EINVAL);
    memcpy(name, "blk.1.attn_q.weight", 19);
    uint8_t *layers = memmem(data, size, "block_count", 11);
    layers[11 + 4] = 1; /* behind the key and the type: one layer, tensors of two */
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), -ENOTSUP);
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, test_lookups);
    tcase_add_test(tcase, test_model_sizes);
    tcase_add_test(tcase, test_truncated);
    tcase_add_test(tcase, test_flipped_bits);
    tcase_add_test(tcase, test_huge_numbers);
    tcase_add_test(tcase, test_wrong_kind);
    tcase_add_test(tcase, test_unknown_tensor);
    tcase_add_test(tcase, test_fifo);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
