/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts of the known families. Between two special tokens role, newline and text are one text to
 * the tokenizer, as they are in the template, because newlines join with what follows them. */
#include "kernels/model/chat.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/chat_tools.h"

#define MARK_BEGIN  "<|im_start|>"
#define MARK_END    "<|im_end|>"
#define MARK_SYSTEM MARK_BEGIN "system"
#define SYSTEM_MAX  16384u /* bytes of a default system prompt: marks alone cost no more each */

#define LLAMA_BEGIN    "<|begin_of_text|>"
#define LLAMA_HEADER   "<|start_header_id|>"
#define LLAMA_HEADED   "<|end_header_id|>"
#define LLAMA_END      "<|eot_id|>"
#define LLAMA_DATES    "Cutting Knowledge Date"
#define THINK_SWITCH   "enable_thinking"
#define THINK_END_TEXT "</think>"

/* What the templates of Llama 3.1 and later put before every system prompt. Theirs falls back to
 * this date where the program has none; a fixed one keeps prompts the same on every node and day.
 */
static const char llama_dates[] =
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

static const char llama_tools[] =
    "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

struct prompt {
    const struct chat *chat;
    uint32_t *out;
    size_t capacity;
    size_t count;
};

static const char *find(struct gguf_str text, const char *needle)
{
    return text.len ? memmem(text.data, text.len, needle, strlen(needle)) : NULL;
}

/* A default system prompt stands in the template as one literal from the begin mark to the end
 * mark, with its newline as a character or as \n. Anything else after the mark is an expression;
 * the literal may come after such. */
static bool literal_system(struct gguf_str rest, struct gguf_str *out)
{
    if (rest.len >= 1 && rest.data[0] == '\n')
        rest = (struct gguf_str){rest.data + 1, rest.len - 1};
    else if (rest.len >= 2 && memcmp(rest.data, "\\n", 2) == 0)
        rest = (struct gguf_str){rest.data + 2, rest.len - 2};
    else
        return false;
    rest.len = rest.len < SYSTEM_MAX ? rest.len : SYSTEM_MAX;
    const char *end = find(rest, MARK_END);
    if (!end)
        return false;
    *out = (struct gguf_str){rest.data, (size_t)(end - rest.data)};
    return out->len && !memchr(out->data, '\'', out->len) && !memchr(out->data, '"', out->len) &&
           !memchr(out->data, '\\', out->len);
}

static void find_system(struct chat *chat, struct gguf_str template)
{
    struct gguf_str rest = template;
    const char *begin;
    while ((begin = find(rest, MARK_SYSTEM)) != NULL) {
        begin += strlen(MARK_SYSTEM);
        rest = (struct gguf_str){begin, template.len - (size_t)(begin - template.data)};
        struct gguf_str literal;
        if (literal_system(rest, &literal)) {
            chat->system = literal;
            return;
        }
    }
}

static bool init_chatml(struct chat *chat, struct gguf_str template)
{
    const tokenizer_t *t = chat->tokenizer;
    chat->family = CHAT_CHATML;
    chat->begin = tokenizer_special(t, MARK_BEGIN);
    chat->end = tokenizer_special(t, MARK_END);
    if (!find(template, MARK_BEGIN) || !find(template, MARK_END) || chat->begin == TOKENIZER_NONE ||
        chat->end == TOKENIZER_NONE)
        return false;
    find_system(chat, template);
    chat->think = tokenizer_special(t, "<think>");
    chat->think_end = tokenizer_special(t, THINK_END_TEXT);
    chat->can_think = find(template, THINK_SWITCH) && chat->think != TOKENIZER_NONE &&
                      chat->think_end != TOKENIZER_NONE;
    return true;
}

static bool init_llama3(struct chat *chat, struct gguf_str template)
{
    const tokenizer_t *t = chat->tokenizer;
    chat->family = CHAT_LLAMA3;
    chat->first = tokenizer_special(t, LLAMA_BEGIN);
    chat->begin = tokenizer_special(t, LLAMA_HEADER);
    chat->headed = tokenizer_special(t, LLAMA_HEADED);
    chat->end = tokenizer_special(t, LLAMA_END);
    chat->has_dates = find(template, LLAMA_DATES) != NULL;
    return find(template, LLAMA_HEADER) && find(template, LLAMA_HEADED) &&
           chat->first != TOKENIZER_NONE && chat->begin != TOKENIZER_NONE &&
           chat->headed != TOKENIZER_NONE && chat->end != TOKENIZER_NONE;
}

int chat_init(struct chat *chat, const gguf_t *file, const tokenizer_t *tokenizer, char *why,
              size_t why_size)
{
    struct gguf_str template;
    *chat = (struct chat){.tokenizer = tokenizer};
    if (gguf_get_str(file, "tokenizer.chat_template", &template)) {
        if (why && why_size)
            (void)snprintf(why, why_size, "the model's file has no chat template");
        return -ENOENT;
    }
    if (!find(template, "add_generation_prompt") ||
        (!init_chatml(chat, template) && !init_llama3(chat, template))) {
        if (why && why_size)
            (void)snprintf(why, why_size, "the model's chat template is not of a known family");
        return -ENOTSUP;
    }
    return 0;
}

static int put_token(struct prompt *p, uint32_t token)
{
    if (p->count == p->capacity)
        return -ENOBUFS;
    p->out[p->count++] = token;
    return 0;
}

static int put_text(struct prompt *p, const char *text, size_t len)
{
    size_t added;
    int rc = tokenizer_encode(p->chat->tokenizer, text, len, 0, p->out + p->count,
                              p->capacity - p->count, &added);
    if (rc == 0)
        p->count += added;
    return rc;
}

/* What the template leaves of a text. */
static struct gguf_str trim(struct gguf_str text)
{
    static const char spaces[] = " \t\n\r\f\v";
    while (text.len && memchr(spaces, text.data[0], sizeof(spaces) - 1))
        text = (struct gguf_str){text.data + 1, text.len - 1};
    while (text.len && memchr(spaces, text.data[text.len - 1], sizeof(spaces) - 1))
        text.len--;
    return text;
}

/* An earlier answer goes back in without what was thought before it. */
static struct gguf_str without_thoughts(struct gguf_str text)
{
    const char *end;
    while ((end = find(text, THINK_END_TEXT)) != NULL) {
        end += strlen(THINK_END_TEXT);
        text = (struct gguf_str){end, text.len - (size_t)(end - text.data)};
        while (text.len && text.data[0] == '\n')
            text = (struct gguf_str){text.data + 1, text.len - 1};
    }
    return text;
}

/* Two texts as one to the tokenizer. */
static int put_joined(struct prompt *p, const char *first, struct gguf_str second)
{
    const size_t len = strlen(first);
    char *joined = malloc(len + second.len + 1);
    if (!joined)
        return -ENOMEM;
    memcpy(joined, first, len);
    if (second.len)
        memcpy(joined + len, second.data, second.len);
    int rc = put_text(p, joined, len + second.len);
    free(joined);
    return rc;
}

static int put_chatml(struct prompt *p, const char *role, struct gguf_str text)
{
    char head[16];
    (void)snprintf(head, sizeof(head), "%s\n", role);
    int rc = put_token(p, p->chat->begin);
    if (rc == 0)
        rc = put_joined(p, head, text);
    if (rc == 0)
        rc = put_token(p, p->chat->end);
    return rc ? rc : put_text(p, "\n", 1);
}

static int put_header(struct prompt *p, const char *role)
{
    int rc = put_token(p, p->chat->begin);
    if (rc == 0)
        rc = put_text(p, role, strlen(role));
    return rc ? rc : put_token(p, p->chat->headed);
}

static int put_llama3(struct prompt *p, const char *role, const char *before, struct gguf_str text)
{
    char head[sizeof(llama_tools) + 2];
    (void)snprintf(head, sizeof(head), "\n\n%s", before);
    int rc = put_header(p, role);
    if (rc == 0)
        rc = put_joined(p, head, trim(text));
    return rc ? rc : put_token(p, p->chat->end);
}

/* What stands before every system prompt. */
static const char *llama_preface(const struct chat *chat)
{
    return !chat->has_dates ? "" : chat->has_tools ? llama_tools : llama_dates;
}

static int begin_prompt(struct prompt *p, const struct chat_message *first)
{
    const struct chat *chat = p->chat;
    if (chat->family == CHAT_CHATML)
        return first->role != CHAT_SYSTEM && chat->system.len
                   ? put_chatml(p, "system", chat->system)
                   : 0;
    int rc = put_token(p, chat->first);
    if (rc == 0 && chat->has_dates && first->role != CHAT_SYSTEM)
        rc = put_llama3(p, "system", llama_preface(chat), (struct gguf_str){"", 0});
    return rc;
}

static int put_message(struct prompt *p, const struct chat_message *message, bool is_first)
{
    static const char *const roles[] = {NULL, "system", "user", "assistant", "ipython"};
    const struct chat *chat = p->chat;
    struct gguf_str text = {message->text, message->len};
    if (message->role < CHAT_SYSTEM || message->role > CHAT_TOOL ||
        (message->role == CHAT_TOOL && chat->family != CHAT_LLAMA3))
        return -EINVAL;
    const char *role = roles[message->role];
    if (chat->family == CHAT_LLAMA3)
        return put_llama3(
            p, role, is_first && message->role == CHAT_SYSTEM ? llama_preface(chat) : "", text);
    if (chat->can_think && message->role == CHAT_ASSISTANT)
        text = without_thoughts(text);
    return put_chatml(p, role, text);
}

/* The mark is a token of its own in models that were taught to call. */
static int begin_call(struct prompt *p)
{
    const uint32_t mark = tokenizer_special(p->chat->tokenizer, CHAT_CALL_BEGIN);
    if (mark == TOKENIZER_NONE)
        return put_text(p, CHAT_CALL_BEGIN "\n", sizeof(CHAT_CALL_BEGIN));
    const int rc = put_token(p, mark);
    return rc ? rc : put_text(p, "\n", 1);
}

/* The beginning of the answer. */
static int end_prompt(struct prompt *p)
{
    const struct chat *chat = p->chat;
    if (chat->family == CHAT_LLAMA3) {
        int rc = put_header(p, "assistant");
        return rc ? rc : put_text(p, "\n\n", 2);
    }
    int rc = put_token(p, chat->begin);
    if (rc == 0)
        rc = put_text(p, "assistant\n", 10);
    if (rc == 0 && chat->can_think && chat->no_thinking) {
        rc = put_token(p, chat->think);
        if (rc == 0)
            rc = put_text(p, "\n\n", 2);
        if (rc == 0)
            rc = put_token(p, chat->think_end);
        if (rc == 0)
            rc = put_text(p, "\n\n", 2);
    }
    return rc || !chat->must_call ? rc : begin_call(p);
}

int chat_encode(const struct chat *chat, const struct chat_message *messages, size_t message_count,
                uint32_t *out, size_t capacity, size_t *count)
{
    struct prompt p = {chat, out, capacity, 0};
    *count = 0;
    if (message_count == 0)
        return -EINVAL;
    int rc = begin_prompt(&p, &messages[0]);
    for (size_t i = 0; rc == 0 && i < message_count; i++)
        rc = put_message(&p, &messages[i], i == 0);
    if (rc == 0)
        rc = end_prompt(&p);
    if (rc == 0)
        *count = p.count;
    return rc;
}
