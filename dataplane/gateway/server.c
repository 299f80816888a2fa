/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c - HTTP, by libmicrohttpd in its external epoll mode: no thread of its own, run when its
 * descriptor is readable or a connection was resumed. See gateway.h.
 *
 * Bodies are looked at while they come in; one that is too long, too deep or for nobody is read no
 * further than the library needs. Replies are pulled by the library piece by piece; when there is
 * no piece the connection is suspended in the very callback that was asked for one.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/tls.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define CONNECTION_BYTES   (32u << 10) /* headers, and a piece of a reply */
#define IDLE_TIMEOUT_S     120u /* without a byte either way; waiting for the mesh is not idle */
#define REPLY_BLOCK        (16u << 10)
#define STATUS_CLIENT_GONE 499 /* before there was an answer; sent to nobody */
#define TLS_PRIORITIES     "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-DTLS-ALL"
#define TURNS_MAX          4
#define BODY_BELIEVED      (256u << 10)
#define DRAIN_MAX          (64u << 20) /* of a body that is refused */

static void exchange_suspend(struct exchange *x)
{
    if (!x->suspended) {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
}

void server_wake(struct exchange *x)
{
    if (x->suspended) {
        x->suspended = false;
        x->gateway->http_due = true;
        MHD_resume_connection(x->connection);
    }
}

const char *server_header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

struct header_find {
    const char *name;
    server_header_fn each;
    void *user;
};

static enum MHD_Result header_is(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    const struct header_find *find = user;
    (void)kind;
    if (value != NULL && strcasecmp(name, find->name) == 0) {
        find->each(find->user, value, strlen(value));
    }
    return MHD_YES;
}

void server_headers(const struct exchange *x, const char *name, server_header_fn each, void *user)
{
    struct header_find find = {name, each, user};
    (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, header_is, &find);
}

/* ---- replies ---- */

static void header_add(struct MHD_Response *response, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void header_add(struct MHD_Response *response, const char *name, const char *format, ...)
{
    char value[256];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof(value), format, args);
    va_end(args);
    MHD_add_response_header(response, name, value);
}

static void error_headers(struct MHD_Response *response, const struct api_error *e)
{
    if (e->http_status == 0) {
        return;
    }
    MHD_add_response_header(response, "x-should-retry", e->retry ? "true" : "false");
    if (e->retry && e->retry_after_ms != 0) {
        header_add(response, "retry-after-ms", "%u", e->retry_after_ms);
        header_add(response, "retry-after", "%u", e->retry_after_ms / 1000 + 1);
    }
}

/* Microseconds as milliseconds, in two whole numbers (see reply_served()). */
#define MS              "%" PRIu64 ".%03" PRIu64
#define THOUSANDTHS(us) (us) / 1000, (us) % 1000

/* Who served and how long each part took; known when the whole answer is. */
static void account_headers(struct MHD_Response *response, const struct exchange *x)
{
    if (!x->inference || x->reply.failed || !x->reply.ended) {
        return;
    }
    const weft_result_t *r = reply_account(&x->reply);
    char served[256];
    reply_served(r, served, sizeof(served));
    MHD_add_response_header(response, "x-weft-served", served);
    header_add(response, "x-weft-node", "%.*s", (int)strcspn(served + 10, " "), served + 10);
    header_add(response, "server-timing",
               "net;dur=" MS ", queue;dur=" MS ", prefill;dur=" MS ", decode;dur=" MS
               ", total;dur=" MS,
               THOUSANDTHS(r->net_us), THOUSANDTHS(r->queue_us), THOUSANDTHS(r->prefill_us),
               THOUSANDTHS(r->decode_us), THOUSANDTHS(r->total_us));
    header_add(response, "openai-processing-ms", "%" PRIu64, r->total_us / 1000);
}

/* Another model than the one that was asked for answers. */
static void downgrade_header(struct MHD_Response *response, const struct exchange *x)
{
    if (x->inference && x->downgraded != 0 && !x->reply.failed) {
        MHD_add_response_header(response, "x-weft-downgraded-from", x->asked_model);
    }
}

static void cors_headers(struct MHD_Response *response, const struct exchange *x)
{
    if (x->gateway->options.cors == NULL) {
        return;
    }
    MHD_add_response_header(response, "access-control-allow-origin", x->gateway->options.cors);
    MHD_add_response_header(response, "vary", "origin");
    if (x->preflight) {
        MHD_add_response_header(response, "access-control-allow-methods", "GET, POST");
        MHD_add_response_header(response, "access-control-allow-headers", "*, authorization");
        MHD_add_response_header(response, "access-control-max-age", "3600");
    } else {
        MHD_add_response_header(response, "access-control-expose-headers", "*");
    }
}

static ssize_t reply_read(void *user, uint64_t at, char *out, size_t max)
{
    struct exchange *x = user;
    (void)at;
    size_t len = buf_take(&x->reply.out, out, max);
    if (len > 0) {
        x->sent_bytes += len;
        exchange_drained(x);
        return (ssize_t)len;
    }
    if (x->reply.ended || x->peer->gone) {
        bool whole = x->reply.ended || x->viewer.watching; /* there is no end to miss */
        return x->reply.out.failed || !whole ? MHD_CONTENT_READER_END_WITH_ERROR
                                             : MHD_CONTENT_READER_END_OF_STREAM;
    }
    exchange_suspend(x);
    return 0;
}

static bool is_stream(const struct exchange *x)
{
    return x->viewer.watching || (x->inference && x->request.stream && x->status == MHD_HTTP_OK);
}

static struct MHD_Response *stream_response(struct exchange *x)
{
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, REPLY_BLOCK, reply_read, x, NULL);
}

/* All of it is there: head and body go out in one piece. */
static struct MHD_Response *whole_response(struct exchange *x)
{
    size_t len;
    char *data = buf_give(x->inference ? &x->reply.out : &x->answer, &len);
    if (data == NULL) {
        return NULL;
    }
    x->sent_bytes = len;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(data);
    }
    return response;
}

static void content_headers(struct MHD_Response *response, const struct exchange *x)
{
    if (is_stream(x)) {
        MHD_add_response_header(response, "content-type", "text/event-stream; charset=utf-8");
        MHD_add_response_header(response, "cache-control", "no-cache");
        MHD_add_response_header(response, "x-accel-buffering",
                                "no"); /* proxies shall not collect events */
    } else {
        MHD_add_response_header(response, "content-type",
                                x->inference ? "application/json" : x->content_type);
    }
}

static enum MHD_Result exchange_send(struct exchange *x)
{
    if (x->realtime != NULL) {
        return realtime_send(x);
    }
    bool more = is_stream(x) && (x->viewer.watching || !x->reply.ended || x->reply.out.failed);
    struct MHD_Response *response = more ? stream_response(x) : whole_response(x);
    if (response == NULL) {
        return MHD_NO;
    }
    content_headers(response, x);
    char traceparent[TRACEPARENT_BYTES];
    trace_io_text(x, traceparent);
    MHD_add_response_header(response, "x-request-id", x->id);
    MHD_add_response_header(response, "traceparent", traceparent);
    cors_headers(response, x);
    dashboard_headers(x, response);
    if (x->allow[0] != '\0') {
        MHD_add_response_header(response, "allow", x->allow);
    }
    if (x->peer->gone) { /* the library may have missed it, and would wait for another request */
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    }
    error_headers(response, x->inference ? &x->reply.error : &x->error);
    account_headers(response, x);
    downgrade_header(response, x);
    enum MHD_Result rc = MHD_queue_response(x->connection, (unsigned)x->status, response);
    MHD_destroy_response(response);
    return rc;
}

/* ---- requests ---- */

static struct exchange *exchange_begin(struct gateway *g, struct MHD_Connection *connection,
                                       const char *method, const char *path)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *x = calloc(1, sizeof(*x));
    if (x == NULL || info == NULL || info->socket_context == NULL) {
        free(x);
        return NULL;
    }
    x->gateway = g;
    x->connection = connection;
    x->peer = info->socket_context;
    x->peer->exchange = x;
    x->began_ns = clock_now_ns();
    snprintf(x->id, sizeof(x->id), "%08" PRIx32 "%016" PRIx64, (uint32_t)rng_next(&g->rng),
             rng_next(&g->rng));
    snprintf(x->method, sizeof(x->method), "%s", method);
    snprintf(x->path, sizeof(x->path), "%s", path);
    LIST_INSERT_HEAD(&g->exchanges, x, link);
    g->figures.open++;
    trace_io_begin(x);
    return x;
}

static void too_large(struct exchange *x)
{
    error_set(&x->error, MHD_HTTP_CONTENT_TOO_LARGE, "invalid_request_error", "request_too_large",
              false, "The body is longer than 16 MiB.");
}

static bool key_check(struct exchange *x)
{
    const struct keys *keys = &x->gateway->keys;
    if (x->route->open || keys->count == 0) {
        return true;
    }
    const struct key *key = keys_find(keys, server_header(x, MHD_HTTP_HEADER_AUTHORIZATION));
    x->key = key != NULL ? key->name : NULL;
    x->scopes = key != NULL ? key->scopes : 0;
    if (key == NULL) {
        error_set(&x->error, MHD_HTTP_UNAUTHORIZED, "invalid_request_error", "invalid_api_key",
                  false, "This needs an API key: Authorization: Bearer KEY.");
    }
    return x->key != NULL;
}

static void header_count(void *user, const char *value, size_t len)
{
    unsigned *count = user;
    (void)value, (void)len;
    ++*count;
}

/* Two lengths of a body, or one besides its chunks: somebody before us may see another end of it,
 * and so another request behind it. */
static bool body_is_unclear(const struct exchange *x)
{
    unsigned lengths = 0;
    server_headers(x, MHD_HTTP_HEADER_CONTENT_LENGTH, header_count, &lengths);
    return lengths + (server_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL) > 1;
}

/* Bodies come as they are; what is packed would look like bad JSON. */
static bool body_is_packed(const struct exchange *x)
{
    const char *encoding = server_header(x, MHD_HTTP_HEADER_CONTENT_ENCODING);
    return encoding != NULL && encoding[0] != '\0' && strcasecmp(encoding, "identity") != 0;
}

/* The head of the request is known. */
static void head_look(struct exchange *x, const char *method, const char *path)
{
    const char *length = server_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) == 0 && x->gateway->options.cors != NULL) {
        x->preflight = true;
    } else if (x->gateway->stopping) {
        error_set(&x->error, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "stopping", true,
                  "The gateway is stopping.");
    } else if (body_is_unclear(x)) {
        error_bad(&x->error, NULL, "The request says more than once how long its body is.");
    } else if (!route_find(x, method, path) || !key_check(x)) {
        return; /* the error is set */
    } else if (body_is_packed(x)) {
        error_set(&x->error, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "invalid_request_error",
                  "unsupported_content_encoding", false, "Bodies must come without an encoding.");
    } else if (length != NULL && strtoull(length, NULL, 10) > GATEWAY_BODY_MAX) {
        too_large(x);
    }
}

/* Clients that send on while they are answered may lose the answer to their broken connection: what
 * is bearable is read and forgotten first. Who waits for leave to send is told at once. */
static bool refused_at_once(const struct exchange *x)
{
    const char *length = server_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return server_header(x, MHD_HTTP_HEADER_EXPECT) != NULL || body_is_unclear(x) ||
           (length != NULL && strtoull(length, NULL, 10) > DRAIN_MAX);
}

/* What the client says of its body, as far as it may be believed before it is there. */
static void body_expect(struct exchange *x)
{
    const char *length = server_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    unsigned long long bytes = length != NULL ? strtoull(length, NULL, 10) : 0;
    if (bytes != 0) {
        buf_expect(&x->body, bytes < BODY_BELIEVED ? (size_t)bytes : BODY_BELIEVED);
    }
}

/* A piece of the body. What is refused already is let go of. */
static void body_take(struct exchange *x, const char *data, size_t len)
{
    if (x->body_bytes == 0 && x->error.http_status == 0) {
        body_expect(x);
    }
    x->body_bytes += len;
    if (x->error.http_status != 0) {
        return;
    }
    if (buf_len(&x->body) + len > GATEWAY_BODY_MAX) {
        too_large(x);
    } else if (!scan_feed(&x->scan, data, len)) {
        error_bad(&x->error, NULL, "The body is nested deeper than %u or has more than %u values.",
                  SCAN_DEPTH_MAX, SCAN_VALUES_MAX);
    } else {
        buf_add(&x->body, data, len);
        if (x->body.failed) {
            error_of_status(&x->error, WEFT_E_MESH_FULL);
        }
    }
    if (x->error.http_status != 0) {
        buf_deinit(&x->body);
    }
}

/* The request is whole. */
static void request_look(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (x->preflight) {
        exchange_answer(x, MHD_HTTP_NO_CONTENT, "text/plain");
    } else if (x->error.http_status != 0) {
        exchange_refuse(x, &x->error);
    } else if (x->route->census && !census_fresh(&g->census, clock_now_ns()) &&
               x->state == EXCHANGE_READING) {
        x->state = EXCHANGE_COUNTING; /* the loop wakes it, answered or not */
        g->counting = true;
    } else {
        x->route->handle(x);
    }
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **context)
{
    struct exchange *x = *context;
    (void)version;
    if (x == NULL) {
        x = exchange_begin(user, connection, method, path);
        *context = x;
        if (x == NULL) {
            return MHD_NO;
        }
        head_look(x, method, path);
        if (x->error.http_status == 0 || !refused_at_once(x)) {
            return MHD_YES;
        }
        /* The connection ends with this answer: the body is not read. */
        exchange_refuse(x, &x->error);
        return exchange_send(x);
    }
    if (*len != 0) {
        body_take(x, data, *len);
        *len = 0;
        return x->body_bytes <= DRAIN_MAX ? MHD_YES : MHD_NO;
    }
    if (x->state == EXCHANGE_READING || x->state == EXCHANGE_COUNTING) {
        request_look(x);
    }
    if (x->state == EXCHANGE_SENDING) {
        return exchange_send(x);
    }
    exchange_suspend(x);
    return MHD_YES;
}

/* ---- the end of requests and connections ---- */

static void exchange_log(const struct exchange *x, enum MHD_RequestTerminationCode end)
{
    const weft_result_t *r = x->inference ? reply_account(&x->reply) : NULL;
    uint64_t now_ns = clock_now_ns();
    if (x->gateway->options.quiet) {
        return;
    }
    LOG_INFO("request id=%s key=%s method=%s path=%s status=%d end=%s ms=%.1f bytes=%" PRIu64
             "%s%s%s%s%s ttft_ms=%.1f tokens=%u trace=%016" PRIx64 "%016" PRIx64,
             x->id, x->key != NULL ? x->key : "-", x->method,
             x->route != NULL ? x->route->path : "?", x->status,
             end == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "whole"
             : x->peer->gone                            ? "client_gone"
                                                        : "cut",
             (double)(now_ns - x->began_ns) / 1e6, x->sent_bytes, r != NULL ? " node=" : "",
             r != NULL ? r->node : "", r != NULL ? " outcome=" : "",
             r == NULL         ? ""
             : x->reply.failed ? x->reply.error.code
             : x->reply.ended  ? "ok"
                               : "cancelled",
             "", x->first_ns != 0 ? (double)(x->first_ns - x->asked_ns) / 1e6 : 0.0,
             r != NULL ? r->new_tokens : 0, x->trace.parent.high, x->trace.parent.low);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode end)
{
    struct exchange *x = *context;
    (void)user, (void)connection;
    if (x == NULL) {
        return;
    }
    *context = NULL;
    x->status = x->status != 0 ? x->status : STATUS_CLIENT_GONE;
    exchange_log(x, end);
    trace_io_end(x);
    figures_status(&x->gateway->figures, x->status);
    x->gateway->figures.sent_bytes += x->sent_bytes;
    x->gateway->figures.body_bytes += x->body_bytes;
    x->peer->exchange = NULL;
    x->peer = NULL;
    x->connection = NULL;
    if (x->live > 0) {
        exchange_cancel(x); /* goes with its last call */
    } else {
        exchange_free(x);
    }
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct gateway *g = user;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct peer *p = *context;
        if (p != NULL) {
            epoll_ctl(g->epoll, EPOLL_CTL_DEL, p->fd, NULL);
            free(p);
        }
        *context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct peer *p = calloc(1, sizeof(*p));
    if (p == NULL || info == NULL) {
        free(p);
        return; /* its first request is refused */
    }
    *p = (struct peer){.watch = {WATCH_PEER}, .gateway = g, .fd = info->connect_fd};
    int on = 1;
    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* Its end alone, and told once: bytes are the library's business. */
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = p};
    epoll_ctl(g->epoll, EPOLL_CTL_ADD, p->fd, &event);
    *context = p;
}

/* ---- the library ---- */

static void on_log(void *user, const char *format, va_list args)
{
    char text[256];
    (void)user;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    LOG_WARN("http: %s", text);
}

int server_start(struct gateway *g)
{
    const struct MHD_OptionItem options[] = {
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, g},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, g},
        {MHD_OPTION_LISTEN_SOCKET, g->listen_fd, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)g->options.connections_max, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, NULL},
        {MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    const struct MHD_OptionItem secure[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, tls_callback()},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL},
    };
    bool tls = g->options.tls_cert != NULL;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
                     MHD_USE_ERROR_LOG | (tls ? (unsigned)MHD_USE_TLS : 0u);
    /* The logger has to be known before an option can be complained about. */
    g->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, g, MHD_OPTION_EXTERNAL_LOGGER,
                               on_log, g, MHD_OPTION_ARRAY, options, MHD_OPTION_ARRAY,
                               tls ? secure : &secure[2], MHD_OPTION_END);
    if (g->http == NULL) {
        return -EIO;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(g->http, MHD_DAEMON_INFO_EPOLL_FD);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &g->watches[WATCH_HTTP]};
    if (info == NULL || epoll_ctl(g->epoll, EPOLL_CTL_ADD, info->epoll_fd, &event) != 0) {
        return -EIO;
    }
    return 0;
}

/* Nothing may be suspended then. */
void server_stop(struct gateway *g)
{
    struct exchange *x;
    realtime_stop(g);
    LIST_FOREACH(x, &g->exchanges, link)
    {
        if (x->connection != NULL) {
            x->peer->gone = true;
            server_wake(x);
        }
    }
    if (g->http != NULL) {
        MHD_run(g->http);
        MHD_stop_daemon(g->http);
    }
    g->http = NULL;
}

int server_timeout_ms(struct gateway *g)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (g->http_due) {
        return 0;
    }
    return MHD_get_timeout(g->http, &ms) != MHD_YES ? -1 : ms < INT32_MAX ? (int)ms : INT32_MAX;
}

/* A reply takes the library several turns, its head one of them: they need nobody else's. */
void server_run(struct gateway *g)
{
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        g->http_due = false;
        MHD_run(g->http);
        if (server_timeout_ms(g) != 0) {
            break;
        }
    }
}
