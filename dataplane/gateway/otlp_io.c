/* SPDX-License-Identifier: Apache-2.0 */
/* otlp_io.c - see otlp_io.h. */
#include "dataplane/gateway/otlp_io.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dataplane/gateway/otlp.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define URL_MAX 512u

struct otlp_io {
    struct trace_record *ring;
    _Atomic uint32_t head; /* written by the caller */
    _Atomic uint32_t tail; /* written by the thread */
    _Atomic uint64_t sent, dropped;
    _Atomic uint64_t stop_ns; /* 0 = go on; else be done by then */
    int wake;                 /* eventfd: the ring is no longer empty, or stop */
    pthread_t thread;
    /* of the thread */
    CURL *easy;
    struct curl_slist *headers;
    char url[URL_MAX];
    char instance[32];
    bool failing; /* said so */
};

/* ---- the caller's side ---- */

static void wake(struct otlp_io *io)
{
    const uint64_t one = 1;
    ssize_t rc = write(io->wake, &one, sizeof(one));
    (void)rc; /* it is awake */
}

void otlp_io_push(struct otlp_io *io, const struct trace_record *record)
{
    uint32_t head = atomic_load(&io->head);
    uint32_t waiting = head - atomic_load(&io->tail);
    if (waiting == OTLP_RING) {
        struct trace_span spans[TRACE_SPANS_MAX];
        atomic_fetch_add(&io->dropped, trace_spans(record, spans));
        return;
    }
    io->ring[head % OTLP_RING] = *record;
    atomic_store(&io->head, head + 1);
    /* Read again: the thread may have come to the end meanwhile, and sleep. */
    if (head == atomic_load(&io->tail)) {
        wake(io);
    }
}

uint64_t otlp_io_sent(const struct otlp_io *io)
{
    return atomic_load(&io->sent);
}

uint64_t otlp_io_dropped(const struct otlp_io *io)
{
    return atomic_load(&io->dropped);
}

/* ---- the thread's side ---- */

/* Sleeps until there is something (timeout -1), or the time is over; at once when stopping. */
static void rest(struct otlp_io *io, int timeout_ms)
{
    struct pollfd fd = {.fd = io->wake, .events = POLLIN};
    uint64_t until_ns = clock_now_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * NS_PER_MS;
    for (int left_ms = timeout_ms; left_ms != 0 && atomic_load(&io->stop_ns) == 0;) {
        uint64_t count;
        if (poll(&fd, 1, left_ms) > 0 && read(io->wake, &count, sizeof(count)) > 0 &&
            timeout_ms < 0) {
            return;
        }
        uint64_t now_ns = clock_now_ns();
        if (timeout_ms > 0) { /* records that wake it meanwhile are waited for */
            left_ms = now_ns < until_ns ? (int)((until_ns - now_ns) / NS_PER_MS) : 0;
        }
    }
}

static size_t on_data(char *data, size_t one, size_t len, void *user)
{
    (void)data, (void)one, (void)user;
    return len; /* what the collector says is of no use */
}

/* Not 0 breaks the transfer off. */
static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct otlp_io *io = user;
    uint64_t stop_ns = atomic_load(&io->stop_ns);
    (void)a, (void)b, (void)c, (void)d;
    return stop_ns != 0 && clock_now_ns() >= stop_ns;
}

enum outcome { TAKEN, REFUSED, AGAIN };

static enum outcome post(struct otlp_io *io, const struct buf *body, char *why, size_t why_len)
{
    long status = 0;
    curl_easy_setopt(io->easy, CURLOPT_POSTFIELDS, body->data + body->at);
    curl_easy_setopt(io->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)buf_len(body));
    CURLcode code = curl_easy_perform(io->easy);
    curl_easy_getinfo(io->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK) {
        snprintf(why, why_len, "%s", curl_easy_strerror(code));
        return AGAIN;
    }
    snprintf(why, why_len, "HTTP %ld", status);
    /* OTLP/HTTP names those that are worth another try. */
    return status / 100 == 2                                                  ? TAKEN
           : status == 429 || status == 502 || status == 503 || status == 504 ? AGAIN
                                                                              : REFUSED;
}

/* Says when it begins to fail and when it is well again, not each time. */
static void outcome_log(struct otlp_io *io, enum outcome outcome, const char *why)
{
    bool failed = outcome != TAKEN;
    if (failed != io->failing) {
        io->failing = failed;
        if (failed) {
            LOG_WARN("traces are not taken url=%s: %s", io->url, why);
        } else {
            LOG_INFO("traces are taken url=%s", io->url);
        }
    }
}

static bool is_over(const struct otlp_io *io)
{
    uint64_t stop_ns = atomic_load(&io->stop_ns);
    return stop_ns != 0 && clock_now_ns() >= stop_ns;
}

/* One batch, until it is taken or lost. */
static void batch_send(struct otlp_io *io, const struct trace_record *records, uint32_t count)
{
    struct buf body = {.data = NULL};
    char why[128] = "no memory";
    uint32_t spans = otlp_write(records, count, io->instance, &body);
    enum outcome outcome = body.failed ? REFUSED : AGAIN;
    for (uint32_t i = 0; outcome == AGAIN && i < OTLP_TRIES && !is_over(io); i++) {
        if (i != 0) {
            rest(io, 1000 << (i - 1));
            if (atomic_load(&io->stop_ns) != 0) {
                break; /* it was away all the time */
            }
        }
        outcome = post(io, &body, why, sizeof(why));
    }
    outcome_log(io, outcome, why);
    atomic_fetch_add(outcome == TAKEN ? &io->sent : &io->dropped, spans);
    buf_deinit(&body);
}

static void *run(void *user)
{
    struct otlp_io *io = user;
    static _Thread_local struct trace_record batch[OTLP_BATCH];
    for (;;) {
        uint32_t tail = atomic_load(&io->tail);
        uint32_t count = atomic_load(&io->head) - tail;
        if (count == 0) {
            if (atomic_load(&io->stop_ns) != 0) {
                return NULL;
            }
            rest(io, -1);
            rest(io, OTLP_DELAY_MS);
            continue;
        }
        count = count < OTLP_BATCH ? count : OTLP_BATCH;
        for (uint32_t i = 0; i < count; i++) {
            batch[i] = io->ring[(tail + i) % OTLP_RING];
        }
        atomic_store(&io->tail, tail + count);
        batch_send(io, batch, count);
    }
}

/* ---- life ---- */

static void curl_prepare(struct otlp_io *io)
{
    CURL *easy = io->easy;
    curl_easy_setopt(easy, CURLOPT_URL, io->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "weft-gateway");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, io->headers);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)OTLP_POST_MS);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, io);
}

static int endpoint_take(struct otlp_io *io, const char *endpoint)
{
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/') {
        len--;
    }
    bool known = strncmp(endpoint, "http://", 7) == 0 || strncmp(endpoint, "https://", 8) == 0;
    int written = snprintf(io->url, sizeof(io->url), "%.*s/v1/traces", (int)len, endpoint);
    return known && len > strlen("http://") && written < (int)sizeof(io->url) ? 0 : -EINVAL;
}

static void otlp_free(struct otlp_io *io)
{
    curl_slist_free_all(io->headers);
    curl_easy_cleanup(io->easy);
    if (io->wake >= 0) {
        close(io->wake);
    }
    free(io->ring);
    free(io);
}

int otlp_io_start(struct otlp_io **out, const char *endpoint)
{
    *out = NULL;
    struct otlp_io *io = calloc(1, sizeof(*io));
    if (io == NULL) {
        return -ENOMEM;
    }
    io->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    io->ring = calloc(OTLP_RING, sizeof(*io->ring));
    io->easy = curl_easy_init();
    io->headers = curl_slist_append(NULL, "Content-Type: application/json");
    snprintf(io->instance, sizeof(io->instance), "%ld", (long)getpid());
    int rc = endpoint_take(io, endpoint);
    if (rc == 0 && (io->wake < 0 || io->ring == NULL || io->easy == NULL || io->headers == NULL)) {
        rc = -ENOMEM;
    }
    if (rc == 0) {
        curl_prepare(io);
        rc = -pthread_create(&io->thread, NULL, run, io);
    }
    if (rc != 0) {
        otlp_free(io);
        return rc;
    }
    *out = io;
    return 0;
}

void otlp_io_stop(struct otlp_io *io)
{
    if (io == NULL) {
        return;
    }
    atomic_store(&io->stop_ns, clock_now_ns() + OTLP_STOP_MS * NS_PER_MS);
    wake(io);
    pthread_join(io->thread, NULL);
    otlp_free(io);
}
