/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/engine/moved.c: what is whole by its sums and yet of no use is refused, too. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "kernels/engine/moved.h"
#include "tests/unit/suite.h"

#define PAGE_BYTES 24u
#define VOCAB      256u
#define PAGES      3u
#define STRIDE     (sizeof(struct moved_page) + PAGE_BYTES)
#define SIZE       (sizeof(struct moved_head) + PAGES * STRIDE)

static const struct moved_head own = {.magic = MOVED_MAGIC,
                                      .version = MOVED_VERSION,
                                      .page_tokens = EXEC_PAGE_TOKENS,
                                      .model = 7,
                                      .page_bytes = PAGE_BYTES,
                                      .vocab = VOCAB,
                                      .pages = PAGES};

static void write_head(uint8_t *data, struct moved_head head)
{
    moved_head_seal(&head);
    memcpy(data, &head, sizeof(head));
}

static void write_page(uint8_t *data, uint32_t index, uint32_t parent, uint32_t last_token)
{
    struct moved_page page = {.parent = parent};
    uint8_t *at = data + sizeof(struct moved_head) + index * STRIDE;
    memset(at + sizeof(page), (int)index, PAGE_BYTES);
    page.tokens[EXEC_PAGE_TOKENS - 1] = last_token;
    moved_page_seal(&page, at + sizeof(page), PAGE_BYTES);
    memcpy(at, &page, sizeof(page));
}

/* Two prompts: one of two pages, one of one. */
static void write_all(uint8_t *data)
{
    write_head(data, own);
    write_page(data, 0, MOVED_NONE, VOCAB - 1);
    write_page(data, 1, 0, 0);
    write_page(data, 2, MOVED_NONE, 1);
}

static int check(const uint8_t *data, size_t size)
{
    struct moved_head head;
    return moved_check(data, size, &own, &head);
}

START_TEST(test_pages)
{
    uint8_t data[SIZE + STRIDE];
    struct moved_head head;
    struct moved_page page;
    write_all(data);
    ck_assert_int_eq(moved_check(data, SIZE, &own, &head), 0);
    ck_assert_uint_eq(head.pages, PAGES);
    const uint8_t *bytes = moved_page_at(data, &head, 1, &page);
    ck_assert_uint_eq(page.parent, 0);
    ck_assert_uint_eq(bytes[PAGE_BYTES - 1], 1);
    /* Tokens that the model has, and pages behind those they continue. */
    write_page(data, 0, MOVED_NONE, VOCAB);
    ck_assert_int_eq(check(data, SIZE), -EINVAL);
    write_page(data, 0, MOVED_NONE, UINT32_MAX);
    ck_assert_int_eq(check(data, SIZE), -EINVAL);
    write_page(data, 0, 0, 1);
    ck_assert_int_eq(check(data, SIZE), -EINVAL);
    write_all(data);
    write_page(data, 1, 1, 0);
    ck_assert_int_eq(check(data, SIZE), -EINVAL);
    write_page(data, 1, PAGES, 0);
    ck_assert_int_eq(check(data, SIZE), -EINVAL);
    write_page(data, 1, 0, 0);
    ck_assert_int_eq(check(data, SIZE), 0);
}
END_TEST

START_TEST(test_head)
{
    uint8_t data[SIZE + STRIDE];
    struct moved_head head = own;
    write_all(data);
    head.version++;
    write_head(data, head);
    ck_assert_int_eq(check(data, SIZE), -EPROTO);
    const uint32_t counts[] = {0, PAGES - 1, PAGES + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        head = own;
        head.pages = counts[i];
        write_head(data, head);
        ck_assert_int_eq(check(data, SIZE), -EINVAL);
    }
    for (int field = 0; field < 4; field++) {
        head = own;
        head.model += field == 0;
        head.page_tokens += field == 1;
        head.page_bytes += field == 2;
        head.vocab += field == 3;
        write_head(data, head);
        ck_assert_int_eq(check(data, SIZE), -ESTALE);
    }
    write_head(data, own);
    for (size_t size = 0; size < sizeof(data); size++)
        ck_assert_int_eq(check(data, size), size == SIZE ? 0 : -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moved");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, test_pages);
    tcase_add_test(tcase, test_head);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
