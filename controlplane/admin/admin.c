/* SPDX-License-Identifier: Apache-2.0 */
/* admin.c - see admin.h. */
#include "controlplane/admin/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/base/log.h"
#include "schemas/base/socket_file.h"

#define BACKLOG 16

struct client {
    struct admin *admin;
    int fd; /* -1 = free */
    uint64_t until_ns;
    size_t used; /* bytes of request */
    char request[ADMIN_REQUEST_MAX + 1];
    char *answer; /* NULL while the request is being read */
    size_t answer_len;
    size_t answer_sent;
    const struct admin_session *session; /* NULL: an ordinary question */
    uint64_t ticket;                     /* 0: not waiting for an answer that comes later */
};

struct admin {
    struct loop *loop;
    admin_answer_fn fn;
    void *user;
    int fd;
    int timer;
    bool bound;
    dev_t device; /* of the socket file, to know it again */
    ino_t inode;
    struct sockaddr_un address;
    struct client clients[ADMIN_CLIENTS_MAX];
    struct admin_session sessions[ADMIN_SESSIONS_MAX];
    unsigned session_count;
    struct admin_later laters[ADMIN_LATERS_MAX];
    unsigned later_count;
    uint64_t tickets; /* given out */
};

/* ---- clients ---- */

static void client_close(struct client *client)
{
    loop_unwatch(client->admin->loop, client->fd);
    close(client->fd);
    free(client->answer);
    client->answer = NULL;
    client->fd = -1;
    client->ticket = 0;
    if (client->session != NULL) {
        const struct admin_session *session = client->session;
        client->session = NULL;
        session->close(session->user);
    }
}

static void client_write(int fd, void *user)
{
    struct client *client = user;
    ssize_t sent = send(fd, client->answer + client->answer_sent,
                        client->answer_len - client->answer_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (sent > 0) {
        client->answer_sent += (size_t)sent;
        client->until_ns = clock_now_ns() + ADMIN_TIME_NS; /* it reads, however slowly */
    }
    if (sent <= 0 || client->answer_sent == client->answer_len) {
        client_close(client);
    }
}

/* The text of an answer with its line end, `answer` is taken over. NULL without memory. */
static char *answer_text(json_t *answer, size_t *len)
{
    char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(answer);
    if (text != NULL) {
        *len = strlen(text);
        text[(*len)++] = '\n'; /* in place of the zero: lengths from here on */
    }
    return text;
}

/* `answer` is taken over. */
static void client_answer(struct client *client, json_t *answer)
{
    struct loop *loop = client->admin->loop;
    client->ticket = 0;
    client->answer = answer_text(answer, &client->answer_len);
    if (client->answer == NULL) {
        client_close(client);
        return;
    }
    client->until_ns = clock_now_ns() + ADMIN_TIME_NS; /* what it took to answer is not its time */
    loop_unwatch(loop, client->fd);
    if (loop_watch(loop, client->fd, POLLOUT, client_write, client) < 0) {
        client_close(client);
    }
}

static void client_fail(struct client *client, const char *text)
{
    client_answer(client, json_pack("{s:s}", "error", text));
}

/* ---- sessions ---- */

/* A session's client has nothing to say; what matters is its end. */
static void session_read(int fd, void *user)
{
    char ignored[64];
    ssize_t got = recv(fd, ignored, sizeof(ignored), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        client_close(user);
    }
}

/* In one piece or not at all: it is short, and the socket's buffer empty. */
static bool session_send(int socket_fd, const char *text, size_t len, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void session_begin(struct client *client, const struct admin_session *session,
                          const json_t *request)
{
    struct loop *loop = client->admin->loop;
    int fd = -1;
    size_t len = 0;
    json_t *answer = session->open(request, &fd, session->user);
    if (fd < 0) {
        client_answer(client, answer);
        return;
    }
    client->session = session;
    client->until_ns = UINT64_MAX;
    char *text = answer_text(answer, &len);
    bool sent = text != NULL && session_send(client->fd, text, len, fd);
    free(text);
    close(fd);
    loop_unwatch(loop, client->fd);
    if (!sent || loop_watch(loop, client->fd, POLLIN, session_read, client) < 0) {
        client_close(client);
    }
}

static const struct admin_session *session_find(const struct admin *admin, const char *command)
{
    for (unsigned i = 0; i < admin->session_count; i++) {
        if (strcmp(admin->sessions[i].command, command) == 0) {
            return &admin->sessions[i];
        }
    }
    return NULL;
}

int admin_offer(struct admin *admin, const struct admin_session *session)
{
    if (admin->session_count == ADMIN_SESSIONS_MAX) {
        return -ENOSPC;
    }
    admin->sessions[admin->session_count++] = *session;
    return 0;
}

/* ---- answers that come later ---- */

int admin_offer_later(struct admin *admin, const struct admin_later *later)
{
    if (admin->later_count == ADMIN_LATERS_MAX) {
        return -ENOSPC;
    }
    admin->laters[admin->later_count++] = *later;
    return 0;
}

void admin_answer(struct admin *admin, uint64_t ticket, json_t *answer)
{
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        struct client *client = &admin->clients[i];
        if (client->fd >= 0 && ticket != 0 && client->ticket == ticket) {
            client_answer(client, answer);
            return;
        }
    }
    json_decref(answer);
}

/* What else the client says is of no interest; whether it is still there shows when it is answered.
 */
static void later_begin(struct client *client, const struct admin_later *later,
                        const json_t *request)
{
    struct admin *admin = client->admin;
    uint64_t ticket = ++admin->tickets;
    client->ticket = ticket;
    loop_unwatch(admin->loop, client->fd);
    json_t *answer = later->ask(request, ticket, later->user);
    if (answer != NULL) {
        admin_answer(admin, ticket, answer);
    }
}

static const struct admin_later *later_find(const struct admin *admin, const char *command)
{
    for (unsigned i = 0; i < admin->later_count; i++) {
        if (strcmp(admin->laters[i].command, command) == 0) {
            return &admin->laters[i];
        }
    }
    return NULL;
}

/* ---- requests ---- */

/* The line is complete and ends in zero. */
static void client_ask(struct client *client)
{
    struct admin *admin = client->admin;
    char *line = client->request;
    line[strcspn(line, "\r\n")] = '\0';
    json_t *object = line[0] == '{' ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *command = line[0] == '{' ? json_string_value(json_object_get(object, "cmd")) : line;
    const struct admin_session *session = command != NULL ? session_find(admin, command) : NULL;
    if (session != NULL) {
        session_begin(client, session, object);
        json_decref(object);
        return;
    }
    const struct admin_later *later = command != NULL ? later_find(admin, command) : NULL;
    if (later != NULL) {
        later_begin(client, later, object);
        json_decref(object);
        return;
    }
    json_t *answer = command != NULL ? admin->fn(command, admin->user) : NULL;
    json_decref(object);
    if (answer != NULL) {
        client_answer(client, answer);
    } else {
        client_fail(client, "unknown command; try: status");
    }
}

static void client_read(int fd, void *user)
{
    struct client *client = user;
    ssize_t got =
        recv(fd, client->request + client->used, ADMIN_REQUEST_MAX - client->used, MSG_DONTWAIT);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            client_close(client);
        }
        return;
    }
    client->used += (size_t)got;
    client->request[client->used] = '\0';
    bool whole = memchr(client->request, '\n', client->used) != NULL;
    if (got == 0 && client->used == 0) {
        client_close(client);
    } else if (whole || got == 0) {
        client_ask(client);
    } else if (client->used == ADMIN_REQUEST_MAX) {
        client_fail(client, "request too long");
    }
}

/* Closes clients that took too long; armed while there are any. */
static void clients_expire(uint64_t now_ns, void *user)
{
    struct admin *admin = user;
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        struct client *client = &admin->clients[i];
        if (client->fd >= 0 && client->until_ns <= now_ns) {
            client_close(client);
        }
        if (client->fd >= 0 && client->until_ns < next_ns) {
            next_ns = client->until_ns;
        }
    }
    if (next_ns != UINT64_MAX) {
        loop_timer_arm(admin->loop, admin->timer, next_ns, 0);
    }
}

static struct client *client_free_find(struct admin *admin)
{
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        if (admin->clients[i].fd < 0) {
            return &admin->clients[i];
        }
    }
    return NULL;
}

static void admin_accept(int fd, void *user)
{
    struct admin *admin = user;
    uint64_t now_ns = clock_now_ns();
    int client_fd = loop_accept(admin->loop, fd);
    if (client_fd < 0) {
        return;
    }
    struct client *client = client_free_find(admin);
    if (client == NULL || loop_watch(admin->loop, client_fd, POLLIN, client_read, client) < 0) {
        close(client_fd); /* full: turned away at once rather than left waiting */
        return;
    }
    client->fd = client_fd;
    client->until_ns = now_ns + ADMIN_TIME_NS;
    client->used = 0;
    client->answer_sent = 0;
    clients_expire(now_ns, admin);
}

/* ---- the socket ---- */

static int admin_listen(struct admin *admin)
{
    struct stat st;
    int rc = socket_file_clear(&admin->address, SOCK_STREAM);
    if (rc < 0) {
        return rc;
    }
    admin->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (admin->fd < 0) {
        return -errno;
    }
    if (bind(admin->fd, (struct sockaddr *)&admin->address, sizeof(admin->address)) < 0) {
        return -errno;
    }
    /* Nobody can connect between bind and listen, so the mode is right before anyone gets in. */
    if (lstat(admin->address.sun_path, &st) < 0) {
        return -errno;
    }
    admin->bound = true;
    admin->device = st.st_dev;
    admin->inode = st.st_ino;
    if (chmod(admin->address.sun_path, ADMIN_MODE) < 0 || listen(admin->fd, BACKLOG) < 0) {
        return -errno;
    }
    return loop_watch(admin->loop, admin->fd, POLLIN, admin_accept, admin);
}

int admin_create(struct admin **out, struct loop *loop, const char *path, admin_answer_fn fn,
                 void *user)
{
    *out = NULL;
    struct admin *admin = calloc(1, sizeof(*admin));
    if (admin == NULL) {
        return -ENOMEM;
    }
    admin->loop = loop;
    admin->fn = fn;
    admin->user = user;
    admin->fd = -1;
    admin->timer = -1;
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        admin->clients[i] = (struct client){.admin = admin, .fd = -1};
    }
    admin->address.sun_family = AF_UNIX;
    int rc = strlen(path) < sizeof(admin->address.sun_path) ? 0 : -ENAMETOOLONG;
    if (rc == 0) {
        strcpy(admin->address.sun_path, path);
        admin->timer = loop_timer_add(loop, clients_expire, admin);
        rc = admin->timer < 0 ? admin->timer : admin_listen(admin);
    }
    if (rc < 0) {
        LOG_ERROR("admin socket cannot be opened path=%s error=\"%s\"", path,
                  rc == -EADDRINUSE ? "another node listens there"
                  : rc == -EEXIST   ? "something that is not a socket is there"
                                    : strerror(-rc));
        admin_destroy(admin);
        return rc;
    }
    *out = admin;
    return 0;
}

void admin_destroy(struct admin *admin)
{
    struct stat st;
    if (admin == NULL) {
        return;
    }
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        if (admin->clients[i].fd >= 0) {
            client_close(&admin->clients[i]);
        }
    }
    if (admin->bound && lstat(admin->address.sun_path, &st) == 0 && st.st_dev == admin->device &&
        st.st_ino == admin->inode) {
        unlink(admin->address.sun_path);
    }
    if (admin->fd >= 0) {
        loop_unwatch(admin->loop, admin->fd);
        close(admin->fd);
    }
    loop_timer_remove(admin->loop, admin->timer);
    free(admin);
}
