/* SPDX-License-Identifier: Apache-2.0 */
/* census.c - see census.h. */
#include "dataplane/gateway/census.h"

#include <string.h>

void census_init(struct census *c, const char *path)
{
    *c = (struct census){.path = path};
    question_init(&c->question);
}

void census_deinit(struct census *c)
{
    question_deinit(&c->question);
    json_decref(c->status);
    c->status = NULL;
}

bool census_fresh(const struct census *c, uint64_t now_ns)
{
    return c->path == NULL || (c->known_ns != 0 && now_ns - c->known_ns < CENSUS_AGE_NS);
}

const char *census_error(const struct census *c)
{
    return c->question.error;
}

/* The question ended without an answer: what was known is not known any more. */
static void forget(struct census *c)
{
    json_decref(c->status);
    c->status = NULL;
    c->known_ns = 0;
}

int census_ask(struct census *c, uint64_t now_ns)
{
    if (c->question.fd >= 0 || census_fresh(c, now_ns)) {
        return -1;
    }
    if (!question_ask(&c->question, c->path, "status\n", now_ns)) {
        forget(c);
    }
    return c->question.fd;
}

bool census_step(struct census *c, uint64_t now_ns)
{
    json_t *status = NULL;
    enum question_state state = question_step(&c->question, now_ns, &status);
    if (state == QUESTION_WAITS) {
        return false;
    }
    forget(c);
    if (json_is_array(json_object_get(status, "members"))) {
        c->status = status;
        c->known_ns = c->question.asked_ns;
    } else {
        json_decref(status);
        if (state == QUESTION_ANSWERED) {
            strcpy(c->question.error, "the node's answer is not one");
        }
    }
    return true;
}

uint64_t census_due_ns(const struct census *c)
{
    return question_due_ns(&c->question);
}
