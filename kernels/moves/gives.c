/* SPDX-License-Identifier: Apache-2.0 */
/* See gives.h. */
#include "kernels/moves/gives.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define GIVE_NS (60 * NS_PER_S) /* longest that one caller may take */

struct call {
    struct port_way way;
    int fd;
};

struct gives {
    struct gives_options options;
    pthread_t threads[GIVES_MAX];
    uint32_t started;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool closing;
    struct call waiting[GIVES_MAX + GIVES_WAITING]; /* the longest first */
    uint32_t waiting_count;
    uint16_t nodes[GIVES_MAX]; /* that are being served */
    uint32_t node_count;
};

/* With the lock held: how many of that node's calls are being served. */
static uint32_t served_of(const struct gives *g, uint16_t node)
{
    uint32_t own = 0;
    for (uint32_t i = 0; i < g->node_count; i++)
        own += g->nodes[i] == node;
    return own;
}

/* With the lock held. Who is served and who waits is counted as one: whether a call is taken must
 * not hang on whether a thread that is free has woken up yet. */
static bool may_come(const struct gives *g, uint16_t node)
{
    uint32_t own = served_of(g, node);
    for (uint32_t i = 0; i < g->waiting_count; i++)
        own += g->waiting[i].way.node == node;
    return g->waiting_count + g->node_count < GIVES_MAX + GIVES_WAITING && own < 2 * GIVES_OF_ONE;
}

/* With the lock held. False: nobody may be served now. */
static bool next_call(struct gives *g, struct call *call)
{
    uint32_t i = 0;
    while (i < g->waiting_count && served_of(g, g->waiting[i].way.node) >= GIVES_OF_ONE)
        i++;
    if (i == g->waiting_count)
        return false;
    *call = g->waiting[i];
    g->waiting_count--;
    memmove(&g->waiting[i], &g->waiting[i + 1], (g->waiting_count - i) * sizeof(*call));
    sodium_memzero(&g->waiting[g->waiting_count], sizeof(*call));
    g->nodes[g->node_count++] = call->way.node;
    return true;
}

/* With the lock held. */
static void call_over(struct gives *g, uint16_t node)
{
    uint32_t i = 0;
    while (g->nodes[i] != node)
        i++;
    g->nodes[i] = g->nodes[--g->node_count];
    pthread_cond_broadcast(&g->work); /* one of that node may be next */
}

static void give(const struct gives *g, struct call *call)
{
    const struct gives_options *o = &g->options;
    struct talk_account account = {.pages = 0};
    struct line line;
    int rc = line_init(&line, call->fd, o->stop_fd, call->way.key, false);
    if (rc == 0)
        rc = talk_give(o->runner, &o->kind, &line, clock_now_ns() + GIVE_NS, &account);
    line_deinit(&line);
    close(call->fd);
    if (rc)
        LOG_INFO("pages not given node=%u pages=%u: %s", call->way.node, account.pages,
                 strerror(-rc));
    o->done(&account, o->user);
}

static void *gives_main(void *arg)
{
    struct gives *g = arg;
    struct call call;
    pthread_mutex_lock(&g->lock);
    for (;;) {
        bool any = false;
        while (!g->closing && !(any = next_call(g, &call)))
            pthread_cond_wait(&g->work, &g->lock);
        if (!any)
            break;
        pthread_mutex_unlock(&g->lock);
        give(g, &call);
        sodium_memzero(call.way.key, sizeof(call.way.key));
        pthread_mutex_lock(&g->lock);
        call_over(g, call.way.node);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

int gives_create(struct gives **out, const struct gives_options *options)
{
    struct gives *g = calloc(1, sizeof(*g));
    *out = NULL;
    if (!g)
        return -ENOMEM;
    g->options = *options;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->work, NULL);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < GIVES_MAX; i++) {
        rc = -pthread_create(&g->threads[i], NULL, gives_main, g);
        g->started += rc == 0;
    }
    if (rc) {
        gives_destroy(g);
        return rc;
    }
    *out = g;
    return 0;
}

void gives_destroy(struct gives *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->closing = true;
    pthread_cond_broadcast(&g->work);
    pthread_mutex_unlock(&g->lock);
    for (uint32_t i = 0; i < g->started; i++)
        pthread_join(g->threads[i], NULL);
    for (uint32_t i = 0; i < g->waiting_count; i++)
        close(g->waiting[i].fd);
    pthread_cond_destroy(&g->work);
    pthread_mutex_destroy(&g->lock);
    sodium_memzero(g->waiting, sizeof(g->waiting));
    free(g);
}

void gives_take(struct gives *g, const struct port_way *way, int fd)
{
    pthread_mutex_lock(&g->lock);
    const bool taken = may_come(g, way->node);
    if (taken) {
        g->waiting[g->waiting_count++] = (struct call){*way, fd};
        pthread_cond_signal(&g->work);
    }
    pthread_mutex_unlock(&g->lock);
    if (!taken)
        close(fd);
}
