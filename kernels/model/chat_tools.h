/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat_tools.h - tools in chats, in the words that the families of chat.h were taught: a list of
 * functions, answers that call them, and what the calls gave become messages of the other roles.
 *
 * ChatML (Qwen2.5, Qwen3; others are told the same): the functions stand in the system prompt
 * between <tools> and </tools>, a call is <tool_call>\n{"name": ..., "arguments":
 * ...}\n</tool_call>, results are a user's message between <tool_response> and </tool_response>.
 * Llama 3.1: the functions stand before the first user's text, a call is {"name": ...,
 * "parameters": ...}, results have a role of their own. Wording: the templates in those models'
 * files.
 *
 * Threads: pure but for memory.
 */
#pragma once

#include "kernels/model/chat.h"

#define CHAT_CALL_BEGIN "<tool_call>"

/* Messages without tools; texts point into the original ones and `texts`. */
struct chat_tools {
    struct chat_message *messages;
    size_t count;
    char **texts;
    size_t text_count;
};

/* Returns 0, -EINVAL for messages that make no sense (tools that are no list of functions, not at
 * the beginning, ...), -ENOMEM. chat_tools_end() in either case. Sets chat->has_tools. */
int chat_tools_begin(struct chat_tools *tools, struct chat *chat,
                     const struct chat_message *messages, size_t count);
void chat_tools_end(struct chat_tools *tools);

/* What the family calls the arguments of a call. */
const char *chat_arguments_key(const struct chat *chat);
