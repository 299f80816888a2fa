/* SPDX-License-Identifier: Apache-2.0 */
/* pace.c - see pace.h. */
#include "kernels/upstream/pace.h"

#include <math.h>
#include <stdbool.h>

#define KEEP        (1.0 - 1.0 / PACE_MEMORY)
#define PREFILL_MAX 1e6
#define DECODE_MAX  1e5
#define SPREAD_MIN  0.01 /* of the prompts' lengths, as variance over mean squared */

static double bounded(double value, double most)
{
    if (!(value >= 1.0))
        return 1.0;
    return value < most ? value : most;
}

void pace_first(struct pace *pace, uint32_t prompt_tokens, double first_s)
{
    const double x = prompt_tokens;
    if (!(first_s >= 0))
        return;
    pace->n = pace->n * KEEP + 1;
    pace->x = pace->x * KEEP + x;
    pace->y = pace->y * KEEP + first_s;
    pace->xx = pace->xx * KEEP + x * x;
    pace->xy = pace->xy * KEEP + x * first_s;
    pace->first_s = pace->answers ? pace->first_s * KEEP + first_s * (1 - KEEP) : first_s;
    pace->answers++;
}

void pace_decoded(struct pace *pace, uint32_t tokens, double seconds)
{
    if (tokens == 0 || !(seconds >= 0))
        return;
    pace->decode_n = pace->decode_n * KEEP + tokens;
    pace->decode_s = pace->decode_s * KEEP + seconds;
}

/* Seconds per token of the prompt; false if what was seen does not tell. */
static bool slope(const struct pace *pace, double *out)
{
    if (pace->n < 2)
        return false;
    const double mean = pace->x / pace->n;
    const double variance = pace->xx / pace->n - mean * mean;
    if (!(variance > SPREAD_MIN * mean * mean))
        return false;
    *out = (pace->xy / pace->n - mean * pace->y / pace->n) / variance;
    return *out > 1.0 / PREFILL_MAX;
}

/* What is left of learned seconds, where `granted` would be taken for granted. */
static double faded(const struct pace *pace, double learned, double granted, double silence_s)
{
    if (!(silence_s > 0) || !(learned > granted) || pace->n <= 0)
        return learned;
    return granted + (learned - granted) * exp2(-silence_s / (PACE_HALF_S * pace->n));
}

double pace_prefill(const struct pace *pace, double silence_s)
{
    double per_token;
    if (pace->answers == 0)
        return PACE_PREFILL_FIRST;
    if (!slope(pace, &per_token))
        return PREFILL_MAX;
    return bounded(1.0 / faded(pace, per_token, 1.0 / PACE_PREFILL_FIRST, silence_s), PREFILL_MAX);
}

double pace_wait_s(const struct pace *pace, double silence_s)
{
    double per_token;
    if (pace->answers == 0)
        return 0;
    double wait_s = pace->y / pace->n;
    if (slope(pace, &per_token))
        wait_s -= per_token * pace->x / pace->n;
    return wait_s > 0 ? faded(pace, wait_s, 0, silence_s) : 0;
}

double pace_decode(const struct pace *pace, double silence_s)
{
    if (pace->decode_n <= 0)
        return PACE_DECODE_FIRST;
    if (pace->decode_s <= 0)
        return DECODE_MAX;
    const double per_token = pace->decode_s / pace->decode_n;
    return bounded(1.0 / faded(pace, per_token, 1.0 / PACE_DECODE_FIRST, silence_s), DECODE_MAX);
}
