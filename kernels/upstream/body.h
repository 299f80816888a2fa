/* SPDX-License-Identifier: Apache-2.0 */
/*
 * body.h - a job as the JSON that an OpenAI-compatible server is asked with.
 *
 * Chats go to /chat/completions, plain text and token ids to /completions; streamed, with usage.
 * What a request leaves at its default is left out, so that strict servers do not refuse it: top_k,
 * min_p, repetition_penalty and chat_template_kwargs, which the API does not know but vLLM and
 * llama.cpp do, go only if they were asked for.
 *
 * Tools, calls and results (the roles of those names) become OpenAI's: calls are numbered, and
 * results belong to the calls before them in their order, which is all that a job knows of them.
 *
 * An answer that has begun elsewhere is gone on with from its text. Plain text: the text is simply
 * longer. A chat: the beginning is its last message, the assistant's; how a server is told not to
 * end that message differs (enum body_resume), and some cannot be told at all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <weft/worker.h>

#define BODY_STOPS_MAX 4u /* stop strings that the API takes */

/* How the server goes on with a message of the assistant's. */
enum body_resume {
    BODY_RESUME_NONE,    /* it cannot, or nobody knows */
    BODY_RESUME_PREFILL, /* it does so with any last message of the assistant's: llama.cpp */
    BODY_RESUME_VLLM,    /* if told by continue_final_message: vLLM, SGLang */
};

struct body_options {
    const char *model; /* the server's name for it */
    enum body_resume resume;
};

/* To which of the two places does this job go? */
bool body_is_chat(const weft_job_view_t *view);

/* May the answer call tools? */
bool body_has_tools(const weft_job_view_t *view);

/* Writes the JSON for `view`, going on behind `given_len` bytes of `given`, with `max_tokens` new
 * ones. Heap, zero-terminated; free() it. NULL sets *status: WEFT_E_BAD_REQUEST (no UTF-8, a
 * prompt without parts, tools that are no JSON), WEFT_E_NO_CAPABLE_NODE (cannot go on behind a
 * given text), or WEFT_E_WORKER_FAILED (no memory). */
char *body_write(const struct body_options *options, const weft_job_view_t *view, const char *given,
                 size_t given_len, uint32_t max_tokens, int *status);
