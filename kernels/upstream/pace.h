/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace.h - how fast a server answers, learned from its answers: what a request waits whatever its
 * length (network, queue), how long each token of the prompt takes, and how fast tokens come. The
 * router predicts with these three (dataplane/route).
 *
 * Time to the first token is taken as wait + tokens * prefill, fitted by least squares in which
 * each new answer weighs as much as PACE_MEMORY - 1 before it together fade (exponential
 * forgetting). Where the prompts seen are all of about one length, the slope cannot be told and
 * everything counts as wait.
 *
 * Whoever is not asked is not learned of either: after one slow answer, the first of a server that
 * still warms up or one of a busy moment, the router would pass it by for good. So in silence what
 * is slower than would be taken for granted fades towards that, the sooner the fewer answers it
 * stands on, and the server is tried again.
 *
 * Sans-I/O. Threads: none.
 */
#pragma once

#include <stdint.h>

#define PACE_MEMORY        16.0   /* answers */
#define PACE_PREFILL_FIRST 2000.0 /* tokens per second, until there is an answer */
#define PACE_DECODE_FIRST  30.0
#define PACE_HALF_S        2.0 /* of silence for each answer: half of what they told is left */

struct pace {
    double n, x, y, xx, xy; /* fading sums; x = prompt tokens, y = seconds to the first token */
    double decode_n;        /* fading sums of tokens behind the first ... */
    double decode_s;        /* ... and of their seconds */
    double first_s;         /* time to the first token, fading mean */
    uint64_t answers;
};

/* First token `first_s` after the request went, for a prompt of so many tokens. */
void pace_first(struct pace *pace, uint32_t prompt_tokens, double first_s);

/* `tokens` behind the first came within `seconds`. */
void pace_decoded(struct pace *pace, uint32_t tokens, double seconds);

/* `silence_s`: how long the server has had nothing to do. */
/* What a request waits before its prompt is looked at. */
double pace_wait_s(const struct pace *pace, double silence_s);
/* Tokens per second, at least 1. */
double pace_prefill(const struct pace *pace, double silence_s);
double pace_decode(const struct pace *pace, double silence_s);
