/* SPDX-License-Identifier: Apache-2.0 */
/* realtime_io.c - see realtime_io.h. */
#include "dataplane/gateway/realtime_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/gateway/gateway.h"
#include "schemas/base/clock.h"

#define TICK_NS   NS_PER_S
#define PING_NS   (30 * NS_PER_S) /* of silence */
#define SILENT_NS (90 * NS_PER_S) /* then nobody is there */
#define CLOSE_NS  (2 * NS_PER_S)  /* so long the other side may answer a close */
#define PART      16384u
#define ROUNDS    8u

struct realtime_io {
    struct watch watch; /* first member */
    LIST_ENTRY(realtime_io) link;
    struct exchange *exchange;
    struct MHD_UpgradeResponseHandle *handle; /* NULL: not handed over yet, or given back */
    int fd;                                   /* -1: the same */
    uint32_t waits;                           /* EPOLL* that it waits for */
    bool protocol;                            /* the client speaks of "realtime" */
    char accept[WS_ACCEPT_MAX];
    char model[REALTIME_MODEL_MAX];
    struct ws ws;
    struct realtime session;
    struct buf out;
    weft_request_t *request; /* under way; NULL = none */
    struct call call;        /* its part of the trace */
    uint32_t turns;          /* asked so far */
    bool begun;              /* its first text has come */
    bool held;
    bool closing; /* a close frame is the last in `out` */
    uint64_t closing_ns;
    uint64_t heard_ns;
    uint64_t pinged_ns;
};

/* ---- the end ---- */

/* The socket and the library's connection; what asks goes with its last callback. */
static void drop(struct realtime_io *rt)
{
    struct gateway *g = rt->exchange->gateway;
    if (rt->handle == NULL) {
        return;
    }
    epoll_ctl(g->epoll, EPOLL_CTL_DEL, rt->fd, NULL);
    close(rt->fd);
    rt->fd = -1;
    LIST_REMOVE(rt, link);
    if (rt->request != NULL) {
        weft_cancel(rt->request);
    }
    MHD_upgrade_action(rt->handle, MHD_UPGRADE_ACTION_CLOSE);
    rt->handle = NULL;
    g->http_due = true;
}

const char *realtime_model(const struct realtime_io *rt)
{
    return rt->model;
}

uint32_t realtime_turns(const struct realtime_io *rt)
{
    return rt->turns;
}

void realtime_free(struct realtime_io *rt)
{
    if (rt == NULL) {
        return;
    }
    ws_deinit(&rt->ws);
    realtime_deinit(&rt->session);
    buf_deinit(&rt->out);
    free(rt);
}

/* ---- bytes out ---- */

static void hold(struct realtime_io *rt, bool wanted)
{
    if (rt->request != NULL && rt->held != wanted) {
        rt->held = wanted;
        weft_hold(rt->request, wanted);
    }
}

/* Waits for what makes sense: no reading while the client does not read. */
static void waits_set(struct realtime_io *rt)
{
    size_t left = buf_len(&rt->out);
    uint32_t waits = EPOLLRDHUP | (left > 0 ? EPOLLOUT : 0u) |
                     (left <= GATEWAY_HOLD_BYTES && !rt->ws.over ? EPOLLIN : 0u);
    if (waits != rt->waits) {
        struct epoll_event event = {.events = waits, .data.ptr = rt};
        rt->waits = waits;
        epoll_ctl(rt->exchange->gateway->epoll, EPOLL_CTL_MOD, rt->fd, &event);
    }
}

/* As much as the socket takes. False: it is over. */
static bool flush(struct realtime_io *rt)
{
    struct buf *out = &rt->out;
    while (rt->fd >= 0 && buf_len(out) > 0 && !out->failed) {
        ssize_t sent = send(rt->fd, out->data + out->at, buf_len(out), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            break;
        }
        if (sent < 0 && errno != EINTR) {
            drop(rt);
            return false;
        }
        if (sent > 0) {
            out->at += (size_t)sent;
            rt->exchange->sent_bytes += (uint64_t)sent;
        }
    }
    if (rt->fd < 0 || out->failed || (rt->closing && rt->ws.over && buf_len(out) == 0)) {
        drop(rt);
        return false;
    }
    if (buf_len(out) == 0) {
        out->at = out->end = 0;
    }
    hold(rt,
         buf_len(out) > GATEWAY_HOLD_BYTES || (rt->held && buf_len(out) > GATEWAY_UNHOLD_BYTES));
    waits_set(rt);
    return true;
}

static void close_say(struct realtime_io *rt, uint16_t code, const char *reason)
{
    if (!rt->closing) {
        rt->closing = true;
        rt->closing_ns = clock_now_ns();
        ws_frame_close(&rt->out, code, reason);
    }
}

/* ---- asking ---- */

static void on_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct realtime_io *rt = user;
    struct figures *f = &rt->exchange->gateway->figures;
    (void)req;
    if (!rt->begun) {
        rt->begun = true;
        f->waiting--;
        f->running++;
    }
    if (rt->fd >= 0 && !rt->closing) {
        realtime_text(&rt->session, text, len);
        (void)flush(rt);
    }
}

static void on_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct realtime_io *rt = user;
    struct exchange *x = rt->exchange;
    struct gateway *g = x->gateway;
    (void)req;
    rt->request = NULL;
    rt->held = false;
    g->figures.running -= rt->begun;
    g->figures.waiting -= !rt->begun;
    x->live--;
    figures_answer(&g->figures, rt->model, x->key, result);
    live_io_answer(g, rt->model, result);
    trace_io_answer(&rt->call, "chat", rt->model, result);
    if (rt->fd >= 0 && !rt->closing) {
        realtime_done(&rt->session, result, NULL);
        (void)flush(rt);
    }
    if (x->connection == NULL) {
        exchange_free(x);
    }
}

/* The conversation so far is a chat that goes on; constraints are those of the handshake. */
static void ask(struct realtime_io *rt)
{
    struct exchange *x = rt->exchange;
    size_t len;
    char *body = realtime_question(&rt->session, &len);
    memset(&x->error, 0, sizeof(x->error));
    bool good = body != NULL && exchange_read(x, API_CHAT, body, len) &&
                api_one_model(&x->request, &x->error);
    if (body == NULL) {
        error_of_status(&x->error, -ENOMEM);
    }
    free(body);
    if (good) {
        weft_query_t query = api_query(&x->request, 0);
        struct trace_told told;
        rt->call = (struct call){.exchange = x};
        trace_io_submit(x, &rt->call, &told, &query);
        rt->turns++;
        int rc = weft_submit(x->gateway->client, &query, on_text, on_done, rt, &rt->request);
        rt->begun = false;
        if (rc == 0) {
            x->live++;
            x->gateway->figures.waiting++;
        } else {
            error_of_status(&x->error, rc);
        }
    }
    api_deinit(&x->request);
    memset(&x->request, 0, sizeof(x->request));
    if (x->error.http_status != 0) {
        realtime_done(&rt->session, NULL, &x->error);
    }
}

/* ---- bytes in ---- */

static void event_take(struct realtime_io *rt, enum ws_event event)
{
    const struct ws *w = &rt->ws;
    enum realtime_action action = REALTIME_NOTHING;
    switch (event) {
    case WS_TEXT:
        action = realtime_event(&rt->session, w->message.data != NULL ? w->message.data : "",
                                buf_len(&w->message));
        break;
    case WS_BINARY:
        close_say(rt, WS_CODE_KIND, "text only");
        break;
    case WS_PING:
        ws_frame(&rt->out, WS_OP_PONG, w->control, w->control_len);
        break;
    case WS_CLOSE:
    case WS_FAIL:
        close_say(rt, w->code, "");
        break;
    default:
        break;
    }
    if (action == REALTIME_ASK) {
        ask(rt);
    } else if (action == REALTIME_CANCEL && rt->request != NULL) {
        weft_cancel(rt->request);
    }
}

static void bytes_take(struct realtime_io *rt, const uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len && !rt->closing;) {
        enum ws_event event;
        at += ws_feed(&rt->ws, data + at, len - at, &event);
        event_take(rt, event);
    }
    if (rt->closing && !rt->ws.over) {
        enum ws_event event;
        for (size_t at = 0; at < len;) { /* only its answer matters now */
            at += ws_feed(&rt->ws, data + at, len - at, &event);
        }
    }
}

void realtime_ready(struct realtime_io *rt, uint32_t events)
{
    uint8_t part[PART];
    if (rt->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        for (unsigned round = 0; round < ROUNDS; round++) {
            ssize_t got = recv(rt->fd, part, sizeof(part), MSG_DONTWAIT);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
                drop(rt);
                return;
            }
            if (got < 0) {
                break;
            }
            rt->heard_ns = clock_now_ns();
            rt->exchange->body_bytes += (uint64_t)got;
            bytes_take(rt, part, (size_t)got);
            if (buf_len(&rt->out) > GATEWAY_HOLD_BYTES) {
                break;
            }
        }
    }
    if (rt->fd >= 0) {
        (void)flush(rt);
    }
}

/* ---- the handshake ---- */

static bool page_allowed(const struct exchange *x)
{
    const char *origin = server_header(x, "origin");
    const char *host = server_header(x, MHD_HTTP_HEADER_HOST);
    const char *cors = x->gateway->options.cors;
    if (origin == NULL || (cors != NULL && (strcmp(cors, "*") == 0 || strcmp(cors, origin) == 0))) {
        return true;
    }
    const char *from = strstr(origin, "://");
    return from != NULL && host != NULL && strcasecmp(from + 3, host) == 0;
}

static bool header_has(const struct exchange *x, const char *name, const char *word)
{
    const char *value = server_header(x, name);
    return value != NULL && strcasestr(value, word) != NULL;
}

static const char *model_of(const struct exchange *x)
{
    const char *model = MHD_lookup_connection_value(x->connection, MHD_GET_ARGUMENT_KIND, "model");
    return model != NULL ? model : "";
}

void realtime_open(struct exchange *x)
{
    const char *version = server_header(x, "sec-websocket-version");
    const char *model = model_of(x);
    struct realtime_io *rt = calloc(1, sizeof(*rt));
    if (rt == NULL) {
        error_of_status(&x->error, -ENOMEM);
    } else if (!header_has(x, MHD_HTTP_HEADER_UPGRADE, "websocket") ||
               !header_has(x, MHD_HTTP_HEADER_CONNECTION, "upgrade") || version == NULL ||
               strcmp(version, "13") != 0 ||
               !ws_accept(server_header(x, "sec-websocket-key"), rt->accept)) {
        error_set(&x->error, MHD_HTTP_UPGRADE_REQUIRED, "invalid_request_error", "upgrade_required",
                  false, "This is for WebSockets, version 13.");
    } else if (!page_allowed(x)) {
        error_set(&x->error, MHD_HTTP_FORBIDDEN, "invalid_request_error", "not_allowed", false,
                  "Pages from there may not open a session (--cors).");
    } else if (model[0] == '\0' || strlen(model) >= sizeof(rt->model)) {
        error_bad(&x->error, "model", "'model' must name a model: /v1/realtime?model=NAME.");
    }
    if (x->error.http_status != 0) {
        free(rt);
        exchange_refuse(x, &x->error);
        return;
    }
    rt->watch.kind = WATCH_REALTIME;
    rt->exchange = x;
    rt->fd = -1;
    rt->ws.message_max = REALTIME_MESSAGE_MAX;
    rt->protocol = header_has(x, "sec-websocket-protocol", "realtime");
    strcpy(rt->model, model);
    x->realtime = rt;
    exchange_answer(x, MHD_HTTP_SWITCHING_PROTOCOLS, "");
}

/* The library has sent the answer and gives the socket. */
static void on_upgraded(void *user, struct MHD_Connection *connection, void *context,
                        const char *extra, size_t extra_len, MHD_socket fd,
                        struct MHD_UpgradeResponseHandle *handle)
{
    struct exchange *x = user;
    struct realtime_io *rt = x->realtime;
    struct gateway *g = x->gateway;
    (void)connection, (void)context;
    rt->handle = handle;
    rt->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* the set knows the other for its end already */
    rt->heard_ns = rt->pinged_ns = clock_now_ns();
    rt->waits = EPOLLIN | EPOLLRDHUP;
    LIST_INSERT_HEAD(&g->realtimes, rt, link);
    struct epoll_event event = {.events = rt->waits, .data.ptr = rt};
    if (rt->fd < 0 || !realtime_init(&rt->session, x->id, rt->model, &rt->out) ||
        epoll_ctl(g->epoll, EPOLL_CTL_ADD, rt->fd, &event) != 0) {
        drop(rt);
        return;
    }
    bytes_take(rt, (const uint8_t *)extra, extra_len);
    (void)flush(rt);
}

enum MHD_Result realtime_send(struct exchange *x)
{
    struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgraded, x);
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "websocket");
    MHD_add_response_header(response, "sec-websocket-accept", x->realtime->accept);
    MHD_add_response_header(response, "x-request-id", x->id);
    if (x->realtime->protocol) {
        MHD_add_response_header(response, "sec-websocket-protocol", "realtime");
    }
    enum MHD_Result rc = MHD_queue_response(x->connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
    MHD_destroy_response(response);
    return rc;
}

/* ---- time ---- */

static void session_look(struct realtime_io *rt, uint64_t now_ns)
{
    if (rt->exchange->gateway->stopping && rt->request == NULL) {
        close_say(rt, WS_CODE_GOING, "the gateway is stopping");
    }
    if ((rt->closing && now_ns >= rt->closing_ns + CLOSE_NS) ||
        now_ns >= rt->heard_ns + SILENT_NS) {
        drop(rt);
        return;
    }
    if (!rt->closing && now_ns >= rt->heard_ns + PING_NS && now_ns >= rt->pinged_ns + PING_NS) {
        rt->pinged_ns = now_ns;
        ws_frame(&rt->out, WS_OP_PING, NULL, 0);
    }
    (void)flush(rt);
}

void realtime_turn(struct gateway *g, uint64_t now_ns)
{
    if (now_ns < realtime_due_ns(g)) {
        return;
    }
    g->realtime_ns = now_ns + TICK_NS / (g->stopping ? 10 : 1);
    for (struct realtime_io *next, *rt = LIST_FIRST(&g->realtimes); rt != NULL; rt = next) {
        next = LIST_NEXT(rt, link);
        session_look(rt, now_ns);
    }
}

uint64_t realtime_due_ns(const struct gateway *g)
{
    return LIST_EMPTY(&g->realtimes) ? UINT64_MAX : g->realtime_ns;
}

void realtime_stop(struct gateway *g)
{
    while (!LIST_EMPTY(&g->realtimes)) {
        drop(LIST_FIRST(&g->realtimes));
    }
}
