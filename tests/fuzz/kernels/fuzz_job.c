/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what a job says: roles and texts of any kind become the prompt of each known family of
 * chats (kernels/model/chat.h, chat_tools.h) and the body for another server
 * (kernels/upstream/body.h). The first bytes are family and switches, room for the prompt, and how
 * many bytes of an answer are given already; then follow messages: one byte role, two bytes length,
 * text. Held: as many messages as were meant, whatever stands in them; no more tokens than there
 * is room for; a body is JSON and has every message. */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "kernels/model/chat_tools.h"
#include "kernels/upstream/body.h"
#include "tests/unit/kernels/tiny_model.h"

#define FAMILIES     3u
#define MESSAGES_MAX 16u
#define ROOM_UNIT    32u
#define HEAD_BYTES   3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct family {
    gguf_t *file;
    tokenizer_t *tokenizer;
    struct chat chat;
};

static void need(bool good)
{
    if (!good)
        abort();
}

/* They live to the end. */
static const struct family *family_at(size_t which)
{
    static struct family all[FAMILIES];
    struct family *family = &all[which];
    size_t size;
    if (family->tokenizer)
        return family;
    struct tiny_shape shape = tiny_default;
    shape.chat = (enum tiny_chat)which;
    const uint8_t *bytes = tiny_write(&shape, &size);
    need(gguf_open_memory(&family->file, bytes, size, NULL, 0) == 0);
    need(tokenizer_create(&family->tokenizer, family->file, NULL, 0) == 0);
    need(chat_init(&family->chat, family->file, family->tokenizer, NULL, 0) == 0);
    return family;
}

/* ---- a model's own prompt ---- */

static size_t count_of(const uint32_t *tokens, size_t count, uint32_t token)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += tokens[i] == token;
    return found;
}

/* A family puts at most one system prompt of its own before the others; the answer begins one
 * more, without an end. */
static void prompt_check(const struct chat *chat, const struct chat_tools *tools,
                         const uint32_t *tokens, size_t count)
{
    const size_t begun = count_of(tokens, count, chat->begin);
    const size_t ended = count_of(tokens, count, chat->end);
    need(begun == tools->count + 1 || begun == tools->count + 2);
    need(ended + 1 == begun);
    need(count_of(tokens, count, TOKENIZER_NONE) == 0);
}

static void prompt(const weft_job_view_t *view, const struct family *family, uint8_t switches,
                   size_t room)
{
    struct chat_message messages[MESSAGES_MAX];
    struct chat chat = family->chat;
    struct chat_tools tools;
    size_t count;
    uint32_t *tokens = malloc((room ? room : 1) * sizeof(*tokens));
    need(tokens != NULL);
    chat.no_thinking = (switches & 4) != 0;
    chat.must_call = (switches & 8) != 0;
    for (size_t i = 0; i < view->part_count; i++)
        messages[i] =
            (struct chat_message){view->parts[i].role, view->parts[i].text, view->parts[i].len};
    int rc = chat_tools_begin(&tools, &chat, messages, view->part_count);
    need(rc == 0 || rc == -EINVAL);
    if (rc == 0) {
        need(tools.count <= view->part_count + 1);
        rc = chat_encode(&chat, tools.messages, tools.count, tokens, room, &count);
        need(rc == 0 || rc == -EINVAL || rc == -ENOBUFS);
        need(count <= room && (rc == 0 || count == 0));
        if (rc == 0)
            prompt_check(&chat, &tools, tokens, count);
    }
    chat_tools_end(&tools);
    free(tokens);
}

/* ---- another server's ---- */

static void body(const weft_job_view_t *view, enum body_resume resume, const char *given,
                 size_t given_len)
{
    const struct body_options options = {.model = "m", .resume = resume};
    int status = 0;
    char *text = body_write(&options, view, given, given_len, 7, &status);
    if (!text) {
        need(status == WEFT_E_BAD_REQUEST || status == WEFT_E_NO_CAPABLE_NODE);
        return;
    }
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    need(json_is_object(root));
    const json_t *messages = json_object_get(root, "messages");
    if (body_is_chat(view))
        need(json_array_size(messages) ==
             view->part_count - (size_t)body_has_tools(view) + (size_t)(given_len != 0));
    else
        need(json_is_string(json_object_get(root, "prompt")));
    json_decref(root);
    free(text);
}

/* ---- the whole ---- */

/* Each text in memory of its own, so that the sanitizer sees its end. */
static size_t messages_take(weft_job_part_t *parts, const uint8_t *data, size_t size)
{
    size_t count = 0;
    while (count < MESSAGES_MAX && size >= 3) {
        const size_t told = (size_t)data[1] | (size_t)data[2] << 8;
        const size_t len = told < size - 3 ? told : size - 3;
        char *text = malloc(len ? len : 1);
        need(text != NULL);
        memcpy(text, data + 3, len);
        parts[count++] = (weft_job_part_t){data[0] % (WEFT_ROLE_TOOLS + 2), text, len};
        data += 3 + len;
        size -= 3 + len;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int formats[] = {WEFT_FORMAT_NONE, WEFT_FORMAT_JSON, WEFT_FORMAT_SCHEMA,
                                  WEFT_FORMAT_CALL};
    weft_job_part_t parts[MESSAGES_MAX];
    if (size < HEAD_BYTES + 3)
        return 0;
    const uint8_t switches = data[0];
    const size_t room = data[1] * ROOM_UNIT;
    const size_t count = messages_take(parts, data + HEAD_BYTES, size - HEAD_BYTES);
    weft_job_view_t view = {.parts = parts,
                            .part_count = count,
                            .max_tokens = 8,
                            .top_p = 1.0f,
                            .stops = parts,
                            .stop_count = switches >> 6,
                            .format = formats[switches >> 4 & 3],
                            .format_text = parts[count - 1].text,
                            .format_len = parts[count - 1].len};
    if (view.stop_count > count)
        view.stop_count = count;
    prompt(&view, family_at(switches % 4 % FAMILIES), switches, room);
    const size_t last = parts[count - 1].len;
    body(&view, (enum body_resume)(data[2] % 3), parts[count - 1].text,
         data[2] / 3u < last ? data[2] / 3u : last);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)parts[i].text);
    return 0;
}
