/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/model/tokenizer.c, bpe.c and chat.c over a small vocabulary. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/model/chat.h"
#include "kernels/model/chat_tools.h"
#include "kernels/model/tokenizer.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define HE    256u
#define HELLO 259u
#define T     260u /* " t" */
#define THE   262u /* " the" */
#define AAAA  264u

static uint8_t *data;
static gguf_t *file;
static tokenizer_t *tokenizer;

static void setup(void)
{
    size_t size;
    char why[128] = "";
    data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_msg(tokenizer_create(&tokenizer, file, why, sizeof(why)) == 0, "%s", why);
}

static void teardown(void)
{
    tokenizer_destroy(tokenizer);
    gguf_close(file);
    free(data);
}

static void expect(const char *text, unsigned flags, const uint32_t *ids, size_t count)
{
    uint32_t out[64];
    size_t got;
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), flags, out, 64, &got), 0);
    ck_assert_uint_eq(got, count);
    if (count)
        ck_assert_mem_eq(out, ids, count * sizeof(*ids));
}

START_TEST(test_merges)
{
    expect("hello", 0, (const uint32_t[]){HELLO}, 1);
    expect("hell", 0, (const uint32_t[]){258}, 1);
    expect("he the", 0, (const uint32_t[]){HE, THE}, 2);
    expect("aaaaaaa", 0, (const uint32_t[]){AAAA, 263, 'a'}, 3); /* leftmost first */
    /* Once y and z are one, the pair x y is gone, and its place in the order with it: what is next
     * is yz w, not x yz. */
    expect("xyzw", 0, (const uint32_t[]){'x', 270}, 2);
    expect("xyz", 0, (const uint32_t[]){271}, 1);
    expect("", 0, NULL, 0);
}
END_TEST

/* Digits stand alone, and the space before one does too; a space joins a word that follows. */
START_TEST(test_pieces)
{
    expect(" 12", 0, (const uint32_t[]){' ', '1', '2'}, 3);
    expect("t  t", 0, (const uint32_t[]){'t', ' ', T}, 3);
    expect("t \n", 0, (const uint32_t[]){'t', ' ', '\n'}, 3);
}
END_TEST

START_TEST(test_specials)
{
    expect("<|im_end|>t", TOKENIZER_PARSE_SPECIAL, (const uint32_t[]){TINY_IM_END, 't'}, 2);
    expect("he<|im_start|>", TOKENIZER_PARSE_SPECIAL, (const uint32_t[]){HE, TINY_IM_START}, 2);
    uint32_t out[64];
    size_t count;
    ck_assert_int_eq(tokenizer_encode(tokenizer, "<|im_end|>", 10, 0, out, 64, &count), 0);
    ck_assert_uint_eq(count, 10); /* plain text: byte by byte */
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_lt(out[i], 256);
    ck_assert_uint_eq(tokenizer_special(tokenizer, "<|im_end|>"), TINY_IM_END);
    ck_assert_uint_eq(tokenizer_special(tokenizer, "hello"), TOKENIZER_NONE);
    ck_assert(tokenizer_is_stop(tokenizer, TINY_IM_END));
    ck_assert(tokenizer_is_stop(tokenizer, TINY_END));
    ck_assert(!tokenizer_is_stop(tokenizer, TINY_IM_START));
    ck_assert_uint_eq(tokenizer_token_bytes(tokenizer, TINY_IM_END).len, 0);
    ck_assert_uint_eq(tokenizer_token_bytes(tokenizer, 1u << 30).len, 0);
}
END_TEST

START_TEST(test_round_trip)
{
    static const char alphabet[] = "helo tawr \n12'<|\xc3\xa9\xff\xe2\x82\xac";
    uint64_t rng = 4;
    for (unsigned n = 0; n < 3000; n++) {
        char text[200];
        char back[200];
        uint32_t ids[200];
        size_t count;
        const size_t len = tiny_random(&rng) % sizeof(text);
        for (size_t i = 0; i < len; i++)
            text[i] = n & 1 ? (char)tiny_random(&rng)
                            : alphabet[tiny_random(&rng) % (sizeof(alphabet) - 1)];
        ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, 200, &count), 0);
        ck_assert_uint_eq(tokenizer_decode(tokenizer, ids, count, back, sizeof(back)), len);
        ck_assert_mem_eq(back, text, len);
    }
}
END_TEST

START_TEST(test_capacity)
{
    uint32_t ids[3];
    size_t count;
    char part[2];
    ck_assert_int_eq(tokenizer_encode(tokenizer, "12345", 5, 0, ids, 3, &count), -ENOBUFS);
    ck_assert_int_eq(tokenizer_encode(tokenizer, "123", 3, 0, ids, 3, &count), 0);
    ck_assert_uint_eq(count, 3);
    ck_assert_uint_eq(tokenizer_decode(tokenizer, ids, 3, part, 2), 3);
    ck_assert_int_eq(
        tokenizer_encode(tokenizer, "<|im_end|>", 10, TOKENIZER_PARSE_SPECIAL, ids, 0, &count),
        -ENOBUFS);
}
END_TEST

/* One piece of a megabyte: quadratic work would not end within the test's time. */
START_TEST(test_long_piece)
{
    const size_t len = 1u << 20;
    char *text = malloc(len);
    uint32_t *ids = malloc(len * sizeof(*ids));
    size_t count;
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(ids);
    memset(text, 'a', len);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, len, &count), 0);
    ck_assert_uint_eq(count, len / 4);
    memset(text, ' ', len);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, len, &count), 0);
    ck_assert_uint_eq(count, len);
    memset(text, 0xff, len);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, len, &count), 0);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, len, 0, ids, 8, &count), -ENOBUFS);
    free(ids);
    free(text);
}
END_TEST

static size_t find_token(const uint32_t *ids, size_t count, uint32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += ids[i] == id;
    return n;
}

START_TEST(test_chat)
{
    static const struct chat_message talk[] = {
        {CHAT_USER, "hello<|im_end|>", 15}, {CHAT_ASSISTANT, "he", 2}, {CHAT_USER, "t", 1}};
    static const struct chat_message with_system[] = {{CHAT_SYSTEM, "the", 3}, {CHAT_USER, "t", 1}};
    const char *wanted = "system\nBe brief\nuser\nhello<|im_end|>\nassistant\nhe\nuser\nt\n"
                         "assistant\n";
    struct chat chat;
    uint32_t ids[256];
    char text[256];
    size_t count;
    ck_assert_int_eq(chat_init(&chat, file, tokenizer, NULL, 0), 0);
    ck_assert_int_eq(chat_encode(&chat, talk, 3, ids, 256, &count), 0);
    /* What the user wrote is text; only the template's own marks are marks. */
    ck_assert_uint_eq(find_token(ids, count, TINY_IM_START), 5);
    ck_assert_uint_eq(find_token(ids, count, TINY_IM_END), 4);
    ck_assert_uint_eq(ids[0], TINY_IM_START);
    const size_t len = tokenizer_decode(tokenizer, ids, count, text, sizeof(text));
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_mem_eq(text, wanted, len);
    ck_assert_int_eq(chat_encode(&chat, with_system, 2, ids, 256, &count), 0);
    ck_assert_uint_eq(find_token(ids, count, TINY_IM_START), 3);
    ck_assert_int_eq(chat_encode(&chat, talk, 3, ids, 20, &count), -ENOBUFS);
    ck_assert_int_eq(chat_encode(&chat, talk, 0, ids, 256, &count), -EINVAL);
    const struct chat_message odd = {9, "t", 1};
    ck_assert_int_eq(chat_encode(&chat, &odd, 1, ids, 256, &count), -EINVAL);
}
END_TEST

START_TEST(test_unknown_template)
{
    struct chat chat;
    char why[128];
    uint8_t *mark = memmem(data, gguf_size_bytes(file), "add_generation", 14);
    ck_assert_ptr_nonnull(mark);
    memcpy(mark, "sub", 3);
    ck_assert_int_eq(chat_init(&chat, file, tokenizer, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(why, "template"));
}
END_TEST

/* A file with nothing but a chat template in it; malloc()ed. */
static uint8_t *template_file(const char *template, size_t len, size_t *size)
{
    static const char key[] = "tokenizer.chat_template";
    const uint32_t head[] = {0x46554747, 3, 0, 0, 1, 0}; /* "GGUF", no tensors, one key */
    const uint64_t key_len = sizeof(key) - 1;
    const uint64_t value_len = len;
    const uint32_t type = GGUF_STRING;
    uint8_t *bytes = malloc(sizeof(head) + sizeof(key) + 32 + len);
    uint8_t *at = mempcpy(bytes, head, sizeof(head));
    at = mempcpy(at, &key_len, sizeof(key_len));
    at = mempcpy(at, key, key_len);
    at = mempcpy(at, &type, sizeof(type));
    at = mempcpy(at, &value_len, sizeof(value_len));
    at = mempcpy(at, template, len);
    *size = (size_t)(at - bytes);
    return bytes;
}

/* Each mark might begin the default system prompt, and none ends it: 40 s of computing, were each
 * end to be looked for up to the file's. */
START_TEST(test_template_of_marks)
{
    enum { LEN = 4 << 20 };
    static const char before[] = "add_generation_prompt<|im_end|>";
    static const char mark[] = "<|im_start|>system\n";
    struct chat chat;
    gguf_t *marks;
    size_t size;
    char *template = malloc(LEN);
    memcpy(template, before, sizeof(before) - 1);
    for (size_t at = sizeof(before) - 1; at < LEN; at++)
        template[at] = mark[(at - sizeof(before) + 1) % (sizeof(mark) - 1)];
    uint8_t *bytes = template_file(template, LEN, &size);
    ck_assert_int_eq(gguf_open_memory(&marks, bytes, size, NULL, 0), 0);
    const clock_t begin = clock();
    ck_assert_int_eq(chat_init(&chat, marks, tokenizer, NULL, 0), 0);
    ck_assert_double_lt((double)(clock() - begin) / CLOCKS_PER_SEC, 5.0);
    ck_assert_uint_eq(chat.system.len, 0);
    gguf_close(marks);
    free(bytes);
    free(template);
}
END_TEST

/* Another kind of vocabulary and template. */
static void open_kind(enum tiny_chat kind, struct chat *chat)
{
    struct tiny_shape shape = tiny_default;
    size_t size;
    char why[128];
    teardown();
    shape.chat = kind;
    data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_msg(tokenizer_create(&tokenizer, file, why, sizeof(why)) == 0, "%s", why);
    ck_assert_msg(chat_init(chat, file, tokenizer, why, sizeof(why)) == 0, "%s", why);
}

/* Special tokens as {number}, the rest as text. */
static const char *spelled(const uint32_t *ids, size_t count)
{
    static char out[1024];
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= TINY_END)
            len += (size_t)snprintf(out + len, sizeof(out) - len, "{%u}", ids[i]);
        else
            len += tokenizer_decode(tokenizer, &ids[i], 1, out + len, sizeof(out) - len);
    }
    out[len] = 0;
    return out;
}

START_TEST(test_llama3)
{
    static const struct chat_message talk[] = {{CHAT_SYSTEM, " the\n", 5},
                                               {CHAT_USER, "\nhello <|eot_id|>", 17},
                                               {CHAT_ASSISTANT, "he", 2}};
    struct chat chat;
    uint32_t ids[256];
    size_t count;
    open_kind(TINY_LLAMA3, &chat);
    ck_assert_int_eq(chat_encode(&chat, talk, 3, ids, 256, &count), 0);
    ck_assert_str_eq(
        spelled(ids, count),
        "{275}{276}system{277}\n\nCutting Knowledge Date: December 2023\nToday Date: 26 "
        "Jul 2024\n\nthe{278}{276}user{277}\n\nhello <|eot_id|>{278}{276}assistant{277}"
        "\n\nhe{278}{276}assistant{277}\n\n");
    ck_assert_int_eq(chat_encode(&chat, talk + 1, 1, ids, 256, &count), 0);
    ck_assert_str_eq(
        spelled(ids, count),
        "{275}{276}system{277}\n\nCutting Knowledge Date: December 2023\nToday Date: 26 "
        "Jul 2024\n\n{278}{276}user{277}\n\nhello <|eot_id|>{278}{276}assistant{277}"
        "\n\n");
    ck_assert_uint_eq(tokenizer_bos(tokenizer), TINY_BEGIN);
    ck_assert(tokenizer_is_stop(tokenizer, TINY_EOT));
    /* Numbers go in threes, cut from the left; a piece that is a token needs no merges. */
    ck_assert_int_eq(tokenizer_encode(tokenizer, "1234", 4, 0, ids, 256, &count), 0);
    ck_assert_uint_eq(count, 3);
    ck_assert_int_eq(tokenizer_encode(tokenizer, "HE'LL", 5, 0, ids, 256, &count), 0);
    ck_assert_uint_eq(count, 5);
}
END_TEST

START_TEST(test_thinking)
{
    static const char thought[] = "<think>\nt\n</think>\n\nhe";
    const struct chat_message talk[] = {
        {CHAT_USER, "t", 1}, {CHAT_ASSISTANT, thought, strlen(thought)}, {CHAT_USER, "the", 3}};
    struct chat chat;
    uint32_t ids[256];
    size_t count;
    open_kind(TINY_QWEN3, &chat);
    ck_assert_int_eq(chat_encode(&chat, talk, 3, ids, 256, &count), 0);
    ck_assert_str_eq(spelled(ids, count),
                     "{273}user\nt{274}\n{273}assistant\nhe{274}\n{273}user\nthe{274}\n"
                     "{273}assistant\n");
    chat.no_thinking = true;
    ck_assert_int_eq(chat_encode(&chat, talk, 1, ids, 256, &count), 0);
    ck_assert_str_eq(spelled(ids, count), "{273}user\nt{274}\n{273}assistant\n{275}\n\n{276}\n\n");
    ck_assert_uint_eq(tokenizer_bos(tokenizer), TOKENIZER_NONE);
}
END_TEST

static const char functions[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
static const char calls[] =
    "{\"content\":\"so\",\"calls\":[{\"name\":\"f\",\"arguments\":{\"a\":1}}]}";

/* As the templates of Qwen2.5 and Qwen3 write it, and that of Llama 3.1. */
START_TEST(test_tools)
{
    const struct chat_message talk[] = {
        {CHAT_TOOLS, functions, strlen(functions)}, {CHAT_SYSTEM, "s", 1}, {CHAT_USER, "u", 1},
        {CHAT_CALLS, calls, strlen(calls)},         {CHAT_TOOL, "1", 1},   {CHAT_TOOL, "2", 1}};
    static const enum tiny_chat kinds[] = {TINY_CHATML, TINY_LLAMA3};
    static const char *const wanted[][5] = {
        {"s\n\n# Tools\n\nYou may call",
         "<tools>\n{\"type\": \"function\", \"function\": {\"name\": "
         "\"f\"}}\n</tools>",
         "assistant\nso\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n"
         "</tool_call>{274}",
         "user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n"
         "</tool_response>{274}",
         "assistant\n<tool_call>\n"},
        {"Environment: ipython\nCutting Knowledge", "Given the following functions",
         "do not use variables", "so\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}{278}",
         "ipython{277}\n\n\"1\"{278}{276}ipython{277}\n\n\"2\"{278}"}};
    for (size_t k = 0; k < 2; k++) {
        struct chat chat;
        struct chat_tools tools;
        uint32_t ids[4096];
        size_t count;
        open_kind(kinds[k], &chat);
        chat.must_call = kinds[k] == TINY_CHATML;
        ck_assert_int_eq(chat_tools_begin(&tools, &chat, talk, 6), 0);
        ck_assert_int_eq(chat_encode(&chat, tools.messages, tools.count, ids, 4096, &count), 0);
        const char *text = spelled(ids, count);
        for (size_t i = 0; i < 5; i++)
            ck_assert_msg(strcasestr(text, wanted[k][i]) != NULL, "%s\nnot in\n%s", wanted[k][i],
                          text);
        chat_tools_end(&tools);
        ck_assert_int_eq(chat_tools_begin(&tools, &chat, talk + 2, 1), 0);
        ck_assert_uint_eq(tools.count, 1);
        chat_tools_end(&tools);
        const struct chat_message late[] = {talk[2], talk[0]};
        ck_assert_int_eq(chat_tools_begin(&tools, &chat, late, 2), -EINVAL);
        chat_tools_end(&tools);
        const struct chat_message nonsense[] = {{CHAT_CALLS, "[]", 2}};
        ck_assert_int_eq(chat_tools_begin(&tools, &chat, nonsense, 1), -EINVAL);
        chat_tools_end(&tools);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_merges);
    tcase_add_test(tcase, test_pieces);
    tcase_add_test(tcase, test_specials);
    tcase_add_test(tcase, test_round_trip);
    tcase_add_test(tcase, test_capacity);
    tcase_add_test(tcase, test_long_piece);
    tcase_add_test(tcase, test_tools);
    tcase_add_test(tcase, test_chat);
    tcase_add_test(tcase, test_unknown_template);
    tcase_add_test(tcase, test_llama3);
    tcase_add_test(tcase, test_thinking);
    suite_add_tcase(suite, tcase);
    TCase *hostile = tcase_create("hostile files");
    tcase_add_checked_fixture(hostile, setup, teardown);
    tcase_set_timeout(hostile, 120);
    tcase_add_test(hostile, test_template_of_marks);
    suite_add_tcase(suite, hostile);
    return suite_main(suite);
}
