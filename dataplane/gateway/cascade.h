/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cascade.h - two models are asked at once, and one answers: the better one where it is there
 * within the budget, else the draft, the smaller one. Which, and when that is known. Pure;
 * exchange.c keeps both answers back until it is settled, and cancels the other then.
 *
 * "There" is a first piece of text, or all of it where the budget is for the whole answer. Time
 * needs no look here: who is not there within the budget is refused, or given up by the SDK, and
 * that is a failure. Where both fail the better one's error is the answer.
 */
#pragma once

#include <stdbool.h>

enum cascade_side { CASCADE_BETTER, CASCADE_DRAFT, CASCADE_OPEN };

/* What has become of one of the two. */
struct cascade_answer {
    bool begun;
    bool done;
    bool failed; /* done, but without an answer */
};

struct cascade {
    struct cascade_answer answers[2]; /* by side */
    bool whole;                       /* the budget is for the whole answer */
    enum cascade_side taken;          /* CASCADE_OPEN until it is settled; set it before use */
};

/* After each change of `answers`; what was settled stays. */
enum cascade_side cascade_settle(struct cascade *c);
