/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - see http.h. A connection serves one request at a time; who finds none free opens one. */
#include "bench/load/http.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft/wire.h>

#include "bench/load/http_reply.h"
#include "schemas/base/clock.h"

#define HOST_MAX      128u
#define PATH_BYTES    256u
#define HEAD_MAX      768u
#define MODEL_MAX     512u /* with its escapes */
#define EVENTS        64
#define READ_BYTES    65536u
#define SILENCE_NS    (60 * NS_PER_S)
#define LOOK_EVERY_NS NS_PER_S
#define OPEN_MAX      16384u

struct connection {
    LIST_ENTRY(connection) link;
    struct http *http;
    int fd;
    bool busy;
    bool fresh; /* has not answered yet */
    char *out;  /* request, head and body */
    size_t out_len, out_sent;
    uint64_t begin_ns, heard_ns;
    struct http_reply reply;
    weft_text_fn text;
    weft_done_fn done;
    void *user;
};

LIST_HEAD(connections, connection);

struct http {
    int epoll;
    struct sockaddr_storage address;
    socklen_t address_len;
    char host[HOST_MAX], path[PATH_BYTES];
    struct connections busy, idle;
    uint32_t open;
    uint64_t looked_ns; /* for silence */
    char *buffer;
    char *prompt; /* the last one, and as JSON: mostly the next is the same */
    size_t prompt_len;
    char *quoted;
};

/* ---- connections ---- */

static void drop(struct connection *c)
{
    LIST_REMOVE(c, link);
    close(c->fd);
    free(c->out);
    free(c);
}

static void finish(struct connection *c, int status)
{
    struct http *h = c->http;
    weft_result_t result = {.status = status,
                            .finish = status == 0 ? WEFT_FINISH_STOP : WEFT_FINISH_FAILED,
                            .node = "http",
                            .new_tokens = c->reply.pieces,
                            .total_us = (clock_now_ns() - c->begin_ns) / NS_PER_US};
    bool keep = c->reply.state == HTTP_COMPLETE && !c->reply.close;
    weft_done_fn done = c->done;
    void *user = c->user;
    free(c->out);
    c->out = NULL;
    h->open--;
    if (keep) {
        c->busy = false;
        LIST_REMOVE(c, link);
        LIST_INSERT_HEAD(&h->idle, c, link);
    } else {
        drop(c);
    }
    done(NULL, &result, user);
}

static struct connection *connect_new(struct http *h)
{
    const int one = 1;
    struct connection *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->http = h;
    c->fresh = true;
    c->fd = socket(h->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
        (connect(c->fd, (struct sockaddr *)&h->address, h->address_len) != 0 &&
         errno != EINPROGRESS) ||
        epoll_ctl(h->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) {
        int rc = errno;
        if (c->fd >= 0) {
            close(c->fd);
        }
        free(c);
        errno = rc;
        return NULL;
    }
    LIST_INSERT_HEAD(&h->idle, c, link);
    return c;
}

static int status_of(const struct http_reply *r)
{
    if (http_reply_ok(r)) {
        return 0;
    }
    switch (r->state == HTTP_COMPLETE ? r->status : 200) {
    case 200:
        return r->error ? WEFT_E_WORKER_FAILED : WEFT_E_WORKER_LOST;
    case 404:
        return WEFT_E_UNKNOWN_MODEL;
    case 429:
    case 503:
        return WEFT_E_MESH_FULL;
    default:
        return WEFT_E_WORKER_FAILED;
    }
}

/* ---- bytes ---- */

/* Returns false if the connection has failed. */
static bool send_more(struct connection *c)
{
    while (c->busy && c->out_sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN || errno == ENOTCONN || errno == EINTR;
        }
        c->out_sent += (size_t)n;
    }
    return true;
}

static void take_bytes(struct connection *c, const char *data, size_t len)
{
    uint32_t before = c->reply.pieces;
    (void)http_reply_feed(&c->reply, data, len);
    c->heard_ns = clock_now_ns();
    c->fresh = false;
    for (uint32_t i = before; i < c->reply.pieces; i++) {
        c->text(NULL, "", 0, c->user);
    }
}

/* Reads what there is; the request, or the connection, may have ended then. */
static void receive(struct connection *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, c->http->buffer, READ_BYTES, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (!c->busy) {
            drop(c); /* the server closes, or speaks without having been asked */
            return;
        }
        if (n <= 0) {
            http_reply_end(&c->reply);
            finish(c, c->fresh ? WEFT_E_UNREACHABLE : status_of(&c->reply));
            return;
        }
        take_bytes(c, c->http->buffer, (size_t)n);
        if (c->reply.state == HTTP_COMPLETE || c->reply.state == HTTP_BAD) {
            finish(c, status_of(&c->reply)); /* may be gone now; edges: no bytes can be left */
            return;
        }
    }
}

static void end_silent(struct http *h, uint64_t now_ns)
{
    struct connection *next;
    for (struct connection *c = LIST_FIRST(&h->busy); c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        if (now_ns - c->heard_ns > SILENCE_NS) {
            c->reply.state = HTTP_BAD;
            finish(c, WEFT_E_STALLED);
        }
    }
    h->looked_ns = now_ns;
}

int load_http_process(struct http *h)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(h->epoll, events, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (!send_more(c) && c->busy) {
            http_reply_end(&c->reply);
            finish(c, c->fresh ? WEFT_E_UNREACHABLE : WEFT_E_WORKER_LOST);
            continue;
        }
        if ((events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
            receive(c);
        }
    }
    uint64_t now_ns = clock_now_ns();
    if (now_ns - h->looked_ns > LOOK_EVERY_NS) {
        end_silent(h, now_ns);
    }
    return n < 0 && errno != EINTR ? -errno : (int)h->open;
}

/* ---- requests ---- */

static char *quote(const char *text, size_t len)
{
    json_t *value = json_stringn(text, len);
    char *quoted = json_dumps(value, JSON_ENCODE_ANY);
    json_decref(value);
    return quoted;
}

/* The prompt as JSON, which long ones are made only once: who asks shall cost less than who is
 * asked. NULL: no memory, or no UTF-8. */
static const char *quote_prompt(struct http *h, const weft_message_t *message)
{
    if (h->quoted != NULL && h->prompt_len == message->len &&
        memcmp(h->prompt, message->text, message->len) == 0) {
        return h->quoted;
    }
    free(h->prompt);
    free(h->quoted);
    h->prompt = malloc(message->len + 1);
    h->prompt_len = message->len;
    h->quoted = h->prompt != NULL ? quote(message->text, message->len) : NULL;
    if (h->prompt != NULL) {
        memcpy(h->prompt, message->text, message->len);
    }
    return h->quoted;
}

/* Head and body; heap. */
static char *write_request(struct http *h, const weft_query_t *query, size_t *len)
{
    char head[HEAD_MAX], start[MODEL_MAX + 64], end[128];
    char *model = quote(query->model, strlen(query->model));
    const char *prompt = quote_prompt(h, &query->messages[0]);
    size_t start_len = 0;
    if (model != NULL && strlen(model) < MODEL_MAX) {
        start_len = (size_t)sprintf(
            start, "{\"model\":%s,\"messages\":[{\"role\":\"user\",\"content\":", model);
    }
    free(model);
    if (start_len == 0 || prompt == NULL) {
        return NULL;
    }
    size_t prompt_len = strlen(prompt);
    size_t end_len =
        (size_t)sprintf(end, "}],\"max_tokens\":%u,\"temperature\":%.9g,\"stream\":true}",
                        query->max_tokens, (double)query->temperature);
    size_t head_len =
        (size_t)snprintf(head, sizeof(head),
                         "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                         "Accept: text/event-stream\r\nContent-Length: %zu\r\n\r\n",
                         h->path, h->host, start_len + prompt_len + end_len);
    *len = head_len + start_len + prompt_len + end_len;
    char *out = malloc(*len);
    if (out != NULL) {
        char *at = mempcpy(out, head, head_len);
        at = mempcpy(at, start, start_len);
        at = mempcpy(at, prompt, prompt_len);
        memcpy(at, end, end_len);
    }
    return out;
}

int load_http_submit(struct http *h, const weft_query_t *query, weft_text_fn text,
                     weft_done_fn done, void *user)
{
    if (h->open == OPEN_MAX) {
        return -EAGAIN;
    }
    size_t len = 0;
    char *out = write_request(h, query, &len);
    struct connection *c = out == NULL            ? NULL
                           : LIST_EMPTY(&h->idle) ? connect_new(h)
                                                  : LIST_FIRST(&h->idle);
    if (c == NULL) {
        int rc = out == NULL ? ENOMEM : errno;
        free(out);
        return rc == EMFILE || rc == EADDRNOTAVAIL ? -EAGAIN : -rc;
    }
    LIST_REMOVE(c, link);
    LIST_INSERT_HEAD(&h->busy, c, link);
    c->busy = true;
    c->out = out;
    c->out_len = len;
    c->out_sent = 0;
    c->begin_ns = c->heard_ns = clock_now_ns();
    c->text = text;
    c->done = done;
    c->user = user;
    http_reply_init(&c->reply);
    h->open++;
    (void)send_more(c); /* what fails here is seen by the next load_http_process() */
    return 0;
}

/* ---- life ---- */

static int look_up(struct http *h, const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return -EHOSTUNREACH;
    }
    memcpy(&h->address, found->ai_addr, found->ai_addrlen);
    h->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int take_url(struct http *h, const char *url)
{
    char host[HOST_MAX], port[8] = "80";
    if (strncmp(url, "http://", 7) != 0) {
        return -EINVAL;
    }
    url += 7;
    size_t len = strcspn(url, "/");
    const char *path = url[len] == '/' && url[len + 1] != '\0' ? url + len : "/v1/chat/completions";
    if (len == 0 || len >= sizeof(host) || strlen(path) >= sizeof(h->path)) {
        return -EINVAL;
    }
    memcpy(host, url, len);
    host[len] = '\0';
    memcpy(h->host, host, len + 1);
    strcpy(h->path, path);
    char *colon = strrchr(host, ':');
    if (colon != NULL && strchr(colon, ']') == NULL) {
        snprintf(port, sizeof(port), "%.7s", colon + 1);
        *colon = '\0';
    }
    size_t host_len = strlen(host);
    if (host[0] == '[' && host[host_len - 1] == ']') {
        host[host_len - 1] = '\0';
        return look_up(h, host + 1, port);
    }
    return look_up(h, host, port);
}

int load_http_create(struct http **http, const char *url)
{
    struct http *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return -ENOMEM;
    }
    LIST_INIT(&h->busy);
    LIST_INIT(&h->idle);
    h->looked_ns = clock_now_ns();
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    h->buffer = malloc(READ_BYTES);
    int rc = h->epoll < 0 ? -errno : h->buffer == NULL ? -ENOMEM : take_url(h, url);
    if (rc != 0) {
        load_http_destroy(h);
        return rc;
    }
    *http = h;
    return 0;
}

void load_http_destroy(struct http *h)
{
    if (h == NULL) {
        return;
    }
    while (!LIST_EMPTY(&h->busy)) {
        drop(LIST_FIRST(&h->busy));
    }
    while (!LIST_EMPTY(&h->idle)) {
        drop(LIST_FIRST(&h->idle));
    }
    if (h->epoll >= 0) {
        close(h->epoll);
    }
    free(h->buffer);
    free(h->prompt);
    free(h->quoted);
    free(h);
}

int load_http_fd(const struct http *h)
{
    return h->epoll;
}

int load_http_timeout_ms(const struct http *h)
{
    return h->open != 0 ? (int)(LOOK_EVERY_NS / NS_PER_MS) : -1;
}
