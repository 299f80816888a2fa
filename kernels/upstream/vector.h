/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vector.h - an embedding asked for and read: POST /embeddings, "Embeddings" of the OpenAI API
 * reference. Which of the model's vectors become one (the mean, the last one) is the server's
 * setting: the API cannot say it.
 *
 * The reply is not trusted. Threads: none.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <weft/worker.h>

struct vector {
    float *values; /* the caller's ... */
    size_t max;    /* ... and room there */
    size_t count;
    uint32_t prompt_tokens;
};

/* The JSON to ask with; heap, free() it. NULL sets *status: WEFT_E_BAD_REQUEST (a chat, no UTF-8)
 * or WEFT_E_WORKER_FAILED (no memory). */
char *vector_write(const char *model, const weft_job_view_t *view, int *status);

/* Reads a reply and makes its vector one of length 1. Returns 0, -EBADMSG (no such reply, numbers
 * that are none, a vector of zeros) or -EMSGSIZE (more than `max` values). */
int vector_parse(struct vector *vector, const char *data, size_t len);
