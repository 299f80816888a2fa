/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grammar_range.h - numbers between bounds, digit by digit: may these digits still become such a
 * number, and how many bytes are left? Pure arithmetic on whole numbers: bounds and digits count
 * units of the last place that there may be. grammar_schema.c makes ranges of schemas, grammar.c
 * goes through them.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define RANGE_INT_DIGITS  15u /* of whole numbers */
#define RANGE_REAL_DIGITS 10u /* before the point of others ... */
#define RANGE_FRACTION    5u  /* ... and behind it; they have no exponent */
#define RANGE_NEVER       UINT32_MAX

struct grammar_range {
    int64_t low; /* in units of 10^-fraction; nothing fits if it is above `high` */
    int64_t high;
    uint8_t fraction; /* 0, or RANGE_FRACTION */
    uint32_t rest;    /* bytes of the shortest number within; RANGE_NEVER = there is none */
};

/* What has been written of a number. */
struct grammar_digits {
    uint64_t value; /* all digits as one number */
    uint8_t whole;  /* so many before the point */
    uint8_t behind; /* and behind it */
    bool negative;
    bool point;
};

/* Does a schema bound its numbers? */
bool range_is_asked(const json_t *schema);
/* What minimum, maximum, exclusiveMinimum and exclusiveMaximum leave. False: one is no number. */
bool range_of(const json_t *schema, bool integer, struct grammar_range *out);

/* Bytes of the shortest way to a number within: 0 = it is one; RANGE_NEVER = there is none. */
uint32_t range_rest(const struct grammar_range *range, const struct grammar_digits *at);

/* Takes a byte. False: the number cannot go on with it, and `at` is as it was. */
bool range_step(const struct grammar_range *range, struct grammar_digits *at, uint8_t byte);
