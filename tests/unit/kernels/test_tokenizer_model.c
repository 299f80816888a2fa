/* SPDX-License-Identifier: Apache-2.0 */
/* The default model's tokenizer against golden_smollm2.txt, and its chat prompt. Skipped (77)
 * without the model's file. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/chat.h"
#include "kernels/model/tokenizer.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define LINE_MAX_BYTES 4096u
#define IDS_MAX        512u
#define GOLDEN         WEFT_SOURCE_DIR "/tests/unit/kernels/golden_smollm2.txt"

static gguf_t *file;
static tokenizer_t *tokenizer;

static void setup(void)
{
    char why[128];
    ck_assert_int_eq(gguf_open(&file, tiny_real_model(), why, sizeof(why)), 0);
    ck_assert_int_eq(tokenizer_create(&tokenizer, file, why, sizeof(why)), 0);
}

static void teardown(void)
{
    tokenizer_destroy(tokenizer);
    gguf_close(file);
}

static size_t hex_bytes(const char *hex, char *out)
{
    size_t len = 0;
    unsigned byte;
    while (sscanf(hex + 2 * len, "%2x", &byte) == 1 && hex[2 * len] != ' ' && hex[2 * len] != '\n')
        out[len++] = (char)byte;
    return len;
}

static void check_line(const char *line, unsigned number)
{
    char text[LINE_MAX_BYTES];
    char back[LINE_MAX_BYTES];
    uint32_t ids[IDS_MAX];
    size_t count;
    const size_t len = line[0] == ' ' ? 0 : hex_bytes(line, text);
    const char *at = strchr(line, ' ');
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, IDS_MAX, &count), 0);
    for (size_t i = 0; i < count; i++) {
        char *end;
        ck_assert_ptr_nonnull(at);
        const unsigned long wanted = strtoul(at, &end, 10);
        ck_assert_msg(end > at && ids[i] == wanted, "line %u, token %zu: %lu wanted, %u got",
                      number, i, wanted, ids[i]);
        at = end;
    }
    ck_assert_msg(!at || strspn(at, " \n") == strlen(at), "line %u: more tokens wanted", number);
    ck_assert_uint_eq(tokenizer_decode(tokenizer, ids, count, back, sizeof(back)), len);
    ck_assert_mem_eq(back, text, len);
}

START_TEST(test_golden)
{
    char line[LINE_MAX_BYTES];
    unsigned number = 0;
    unsigned checked = 0;
    FILE *golden = fopen(GOLDEN, "r");
    ck_assert_ptr_nonnull(golden);
    while (fgets(line, sizeof(line), golden)) {
        number++;
        if (line[0] == '#')
            continue;
        check_line(line, number);
        checked++;
    }
    fclose(golden);
    ck_assert_uint_gt(checked, 50);
}
END_TEST

START_TEST(test_chat_prompt)
{
    static const char wanted[] =
        "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\n"
        "user\nHi\nassistant\n";
    const struct chat_message message = {CHAT_USER, "Hi", 2};
    struct chat chat;
    uint32_t ids[IDS_MAX];
    char text[512];
    size_t count;
    ck_assert_int_eq(chat_init(&chat, file, tokenizer, NULL, 0), 0);
    ck_assert_int_eq(chat_encode(&chat, &message, 1, ids, IDS_MAX, &count), 0);
    ck_assert_uint_eq(tokenizer_decode(tokenizer, ids, count, text, sizeof(text)), strlen(wanted));
    ck_assert_mem_eq(text, wanted, strlen(wanted));
    ck_assert_uint_eq(ids[0], 1);
    ck_assert(tokenizer_is_stop(tokenizer, 2));
}
END_TEST

int main(void)
{
    if (!tiny_real_model()) {
        printf("skipped: no model file (scripts/model-fetch gets it)\n");
        return 77;
    }
    Suite *suite = suite_create("tokenizer_model");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_golden);
    tcase_add_test(tcase, test_chat_prompt);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
