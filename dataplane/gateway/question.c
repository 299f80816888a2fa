/* SPDX-License-Identifier: Apache-2.0 */
/* question.c - see question.h. */
#include "dataplane/gateway/question.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void question_init(struct question *q)
{
    *q = (struct question){.fd = -1};
}

void question_deinit(struct question *q)
{
    if (q->fd >= 0) {
        close(q->fd);
    }
    q->fd = -1;
    buf_deinit(&q->answer);
}

static enum question_state fail(struct question *q, const char *text)
{
    snprintf(q->error, sizeof(q->error), "%s", text);
    question_deinit(q);
    return QUESTION_FAILED;
}

bool question_ask(struct question *q, const char *path, const char *line, uint64_t now_ns)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ssize_t len = (ssize_t)strlen(line);
    if (strlen(path) >= sizeof(address.sun_path)) {
        return fail(q, "the path of the admin socket is too long") == QUESTION_ANSWERED;
    }
    strcpy(address.sun_path, path);
    q->asked_ns = now_ns;
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        send(q->fd, line, (size_t)len, MSG_NOSIGNAL) != len) {
        return fail(q, strerror(errno)) == QUESTION_ANSWERED;
    }
    return true;
}

static enum question_state answer_take(struct question *q, json_t **answer)
{
    json_t *json = json_loadb(q->answer.data, buf_len(&q->answer), 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return fail(q, "the node's answer is not one");
    }
    *answer = json;
    q->error[0] = '\0';
    question_deinit(q);
    return QUESTION_ANSWERED;
}

enum question_state question_step(struct question *q, uint64_t now_ns, json_t **answer)
{
    char part[16384];
    while (q->fd >= 0) {
        ssize_t got = recv(q->fd, part, sizeof(part), MSG_DONTWAIT);
        if (got > 0) {
            buf_add(&q->answer, part, (size_t)got);
            if (q->answer.failed || buf_len(&q->answer) > QUESTION_BYTES_MAX) {
                return fail(q, "the node's answer is too long");
            }
        } else if (got == 0) {
            return answer_take(q, answer);
        } else if (errno == EAGAIN) {
            return now_ns - q->asked_ns >= QUESTION_TIMEOUT_NS ? fail(q, "the node did not answer")
                                                               : QUESTION_WAITS;
        } else if (errno != EINTR) {
            return fail(q, strerror(errno));
        }
    }
    return QUESTION_FAILED;
}

uint64_t question_due_ns(const struct question *q)
{
    return q->fd >= 0 ? q->asked_ns + QUESTION_TIMEOUT_NS : UINT64_MAX;
}
