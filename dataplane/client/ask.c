/* SPDX-License-Identifier: Apache-2.0 */
/* ask.c - weft_ask(): one request, waited for; see weft/client.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/client/client_impl.h"

struct ask {
    weft_text_fn text;
    void *user;
    weft_result_t *result;
    bool done;
    float *embedding; /* place for `capacity` floats; NULL = text was asked for */
    size_t capacity;
    size_t count;
};

static void ask_text(weft_request_t *req, const char *text, size_t len, void *user)
{
    struct ask *ask = user;
    if (ask->text != NULL) {
        ask->text(req, text, len, ask->user);
    }
}

static void ask_done(weft_request_t *req, const weft_result_t *result, void *user)
{
    struct ask *ask = user;
    size_t count;
    const float *embedding = weft_embedding(req, &count);
    ask->count = count < ask->capacity ? count : ask->capacity;
    if (ask->count != 0) {
        memcpy(ask->embedding, embedding, ask->count * sizeof(*embedding));
    }
    *ask->result = *result;
    ask->done = true;
}

void client_interrupt_clear(struct weft_client *c)
{
    uint64_t count;
    atomic_store(&c->interrupted, false);
    if (read(c->wake, &count, sizeof(count)) < 0) {
        count = 0; /* nothing was there: as good */
    }
}

static int ask_wait(weft_client_t *c, const weft_query_t *query, struct ask *ask)
{
    weft_result_t *result = ask->result;
    weft_request_t *req = NULL;
    memset(result, 0, sizeof(*result));
    client_interrupt_clear(c);
    int rc = weft_submit(c, query, ask_text, ask_done, ask, &req);
    if (rc != 0) {
        result->status = rc;
        return rc;
    }
    c->asking = true;
    while (!ask->done) {
        if (atomic_load(&c->interrupted)) {
            client_interrupt_clear(c);
            weft_cancel(req);
        }
        struct pollfd pfd = {.fd = weft_client_fd(c), .events = POLLIN};
        if (poll(&pfd, 1, weft_client_timeout_ms(c)) < 0 && errno != EINTR) {
            weft_cancel(req); /* cannot wait: end by the timers */
        }
        weft_client_process(c);
    }
    c->asking = false;
    return result->status;
}

int weft_ask(weft_client_t *c, const weft_query_t *query, weft_text_fn text, void *user,
             weft_result_t *result)
{
    struct ask ask = {.text = text, .user = user, .result = result};
    return ask_wait(c, query, &ask);
}

int weft_embed(weft_client_t *c, const weft_query_t *query, float *out, size_t capacity,
               size_t *count, weft_result_t *result)
{
    struct ask ask = {.result = result, .embedding = out, .capacity = capacity};
    weft_query_t embed = *query;
    embed.embed = embed.embed != 0 ? embed.embed : WEFT_EMBED_MEAN;
    int rc = ask_wait(c, &embed, &ask);
    *count = ask.count;
    return rc;
}

void weft_ask_interrupt(weft_client_t *c)
{
    int saved = errno; /* may run in a signal handler */
    atomic_store(&c->interrupted, true);
    uint64_t one = 1;
    if (write(c->wake, &one, sizeof(one)) < 0) {
        errno = 0; /* the counter is full: it is readable anyway */
    }
    errno = saved;
}
