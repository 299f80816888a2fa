/* SPDX-License-Identifier: Apache-2.0 */
/* ChatML prompts. Between two special tokens role, newline and text are one text to the tokenizer,
 * as they are in the template, because newlines join with what follows them. */
#include "kernels/model/chat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK_BEGIN  "<|im_start|>"
#define MARK_END    "<|im_end|>"
#define MARK_SYSTEM MARK_BEGIN "system"

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
 * mark, with its newline as a character or as \n. Anything else after the mark is an expression. */
static void find_system(struct chat *chat, struct gguf_str template)
{
    const char *begin = find(template, MARK_SYSTEM);
    if (!begin)
        return;
    begin += strlen(MARK_SYSTEM);
    struct gguf_str rest = {begin, template.len - (size_t)(begin - template.data)};
    if (rest.len >= 1 && rest.data[0] == '\n')
        rest = (struct gguf_str){rest.data + 1, rest.len - 1};
    else if (rest.len >= 2 && memcmp(rest.data, "\\n", 2) == 0)
        rest = (struct gguf_str){rest.data + 2, rest.len - 2};
    else
        return;
    const char *end = find(rest, MARK_END);
    if (!end)
        return;
    rest.len = (size_t)(end - rest.data);
    if (!memchr(rest.data, '\'', rest.len) && !memchr(rest.data, '"', rest.len) &&
        !memchr(rest.data, '\\', rest.len))
        chat->system = rest;
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
    chat->begin = tokenizer_special(tokenizer, MARK_BEGIN);
    chat->end = tokenizer_special(tokenizer, MARK_END);
    if (!find(template, MARK_BEGIN) || !find(template, MARK_END) ||
        !find(template, "add_generation_prompt") || chat->begin == TOKENIZER_NONE ||
        chat->end == TOKENIZER_NONE) {
        if (why && why_size)
            (void)snprintf(why, why_size, "the model's chat template is not of a known family");
        return -ENOTSUP;
    }
    find_system(chat, template);
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

static int put_message(struct prompt *p, const char *role, const char *text, size_t len)
{
    const size_t role_len = strlen(role);
    char *joined = malloc(role_len + 1 + len);
    if (!joined)
        return -ENOMEM;
    memcpy(joined, role, role_len);
    joined[role_len] = '\n';
    if (len)
        memcpy(joined + role_len + 1, text, len);
    int rc = put_token(p, p->chat->begin);
    if (rc == 0)
        rc = put_text(p, joined, role_len + 1 + len);
    if (rc == 0)
        rc = put_token(p, p->chat->end);
    if (rc == 0)
        rc = put_text(p, "\n", 1);
    free(joined);
    return rc;
}

int chat_encode(const struct chat *chat, const struct chat_message *messages, size_t message_count,
                uint32_t *out, size_t capacity, size_t *count)
{
    static const char *const roles[] = {NULL, "system", "user", "assistant"};
    struct prompt p = {chat, out, capacity, 0};
    int rc = 0;
    *count = 0;
    if (message_count == 0)
        return -EINVAL;
    if (messages[0].role != CHAT_SYSTEM && chat->system.len)
        rc = put_message(&p, "system", chat->system.data, chat->system.len);
    for (size_t i = 0; rc == 0 && i < message_count; i++) {
        if (messages[i].role < CHAT_SYSTEM || messages[i].role > CHAT_ASSISTANT)
            return -EINVAL;
        rc = put_message(&p, roles[messages[i].role], messages[i].text, messages[i].len);
    }
    if (rc == 0)
        rc = put_token(&p, chat->begin);
    if (rc == 0)
        rc = put_text(&p, "assistant\n", 10);
    if (rc == 0)
        *count = p.count;
    return rc;
}
