/* SPDX-License-Identifier: Apache-2.0 */
/* ask.c - see ask.h. */
#include "controlplane/cli/ask.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_FIRST 65536u

int ask_open(const char *path, const char *request)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct iovec parts[2] = {{.iov_base = (void *)(uintptr_t)request, .iov_len = strlen(request)},
                             {.iov_base = "\n", .iov_len = 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (strlen(path) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)(parts[0].iov_len + 1)) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

/* Everything up to the end of the stream into `*out`, which grows. Returns 0 or -errno. */
static int stream_read(int fd, unsigned wait_ms, char **out, size_t *used)
{
    size_t room = 0;
    for (*used = 0;;) {
        if (*used == room) {
            room = room == 0 ? ANSWER_FIRST : room * 2;
            char *grown = room <= ASK_ANSWER_MAX ? realloc(*out, room) : NULL;
            if (grown == NULL) {
                return room <= ASK_ANSWER_MAX ? -ENOMEM : -EMSGSIZE;
            }
            *out = grown;
        }
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, (int)wait_ms);
        if (ready == 0) {
            return -ETIMEDOUT;
        }
        ssize_t got = ready > 0 ? recv(fd, *out + *used, room - *used, 0) : -1;
        if (got == 0) {
            return 0;
        }
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        *used += got > 0 ? (size_t)got : 0;
    }
}

int ask_read(int fd, unsigned wait_ms, json_t **answer)
{
    char *text = NULL;
    size_t len;
    *answer = NULL;
    int rc = stream_read(fd, wait_ms, &text, &len);
    if (rc == 0) {
        *answer = json_loadb(text, len, 0, NULL);
        if (!json_is_object(*answer)) {
            json_decref(*answer);
            *answer = NULL;
            rc = -EPROTO;
        }
    }
    free(text);
    return rc;
}

int ask(const char *path, const char *request, unsigned wait_ms, json_t **answer)
{
    *answer = NULL;
    int fd = ask_open(path, request);
    if (fd < 0) {
        return fd;
    }
    int rc = ask_read(fd, wait_ms, answer);
    close(fd);
    return rc;
}

const char *ask_error_text(int rc)
{
    static _Thread_local char text[128];
    snprintf(text, sizeof(text), "%s%s", rc == -EPROTO ? "the answer is no object" : strerror(-rc),
             rc == -ENOENT || rc == -ECONNREFUSED ? "; is weftd running?"
             : rc == -EACCES                      ? "; it is its owner's: ask as that user, or root"
                                                  : "");
    return text;
}
