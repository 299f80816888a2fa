/* SPDX-License-Identifier: Apache-2.0 */
/* census.c - see census.h. */
#include "dataplane/gateway/census.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define QUESTION "status\n"

void census_init(struct census *c, const char *path)
{
    *c = (struct census){.path = path, .fd = -1};
}

static void question_end(struct census *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    buf_deinit(&c->answer);
}

void census_deinit(struct census *c)
{
    question_end(c);
    json_decref(c->status);
    c->status = NULL;
}

bool census_fresh(const struct census *c, uint64_t now_ns)
{
    return c->path == NULL || (c->known_ns != 0 && now_ns - c->known_ns < CENSUS_AGE_NS);
}

/* The question ended without an answer: what was known is not known any more. */
static bool fail(struct census *c, const char *text)
{
    snprintf(c->error, sizeof(c->error), "%s", text);
    question_end(c);
    json_decref(c->status);
    c->status = NULL;
    c->known_ns = 0;
    return true;
}

int census_ask(struct census *c, uint64_t now_ns)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (c->fd >= 0 || census_fresh(c, now_ns)) {
        return -1;
    }
    if (strlen(c->path) >= sizeof(address.sun_path)) {
        fail(c, "the path of the admin socket is too long");
        return -1;
    }
    strcpy(address.sun_path, c->path);
    c->asked_ns = now_ns;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        send(c->fd, QUESTION, sizeof(QUESTION) - 1, MSG_NOSIGNAL) != sizeof(QUESTION) - 1) {
        fail(c, strerror(errno));
        return -1;
    }
    return c->fd;
}

static bool answer_take(struct census *c)
{
    json_t *status = json_loadb(c->answer.data, buf_len(&c->answer), 0, NULL);
    if (!json_is_array(json_object_get(status, "members"))) {
        json_decref(status);
        return fail(c, "the node's answer is not one");
    }
    json_decref(c->status);
    c->status = status;
    c->known_ns = c->asked_ns;
    c->error[0] = '\0';
    question_end(c);
    return true;
}

bool census_step(struct census *c, uint64_t now_ns)
{
    char part[16384];
    while (c->fd >= 0) {
        ssize_t got = recv(c->fd, part, sizeof(part), MSG_DONTWAIT);
        if (got > 0) {
            buf_add(&c->answer, part, (size_t)got);
            if (c->answer.failed || buf_len(&c->answer) > CENSUS_BYTES_MAX) {
                return fail(c, "the node's answer is too long");
            }
        } else if (got == 0) {
            return answer_take(c);
        } else if (errno == EAGAIN) {
            return now_ns - c->asked_ns >= CENSUS_TIMEOUT_NS ? fail(c, "the node did not answer")
                                                             : false;
        } else if (errno != EINTR) {
            return fail(c, strerror(errno));
        }
    }
    return true;
}

uint64_t census_due_ns(const struct census *c)
{
    return c->fd >= 0 ? c->asked_ns + CENSUS_TIMEOUT_NS : UINT64_MAX;
}
