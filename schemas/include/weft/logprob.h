/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft/logprob.h - a token and how likely the model took it to be: what weft/client.h delivers and
 * weft/worker.h sends.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Before temperature and penalties. */
typedef struct weft_logprob {
    uint32_t token;
    float logprob;    /* natural logarithm; -INFINITY = impossible */
    const char *text; /* the token's bytes, maybe part of a UTF-8 character; need not end in zero */
    size_t len;
} weft_logprob_t;
