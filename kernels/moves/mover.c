/* SPDX-License-Identifier: Apache-2.0 */
/* See mover.h. */
#include "kernels/moves/mover.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/moves/door.h"
#include "kernels/moves/gives.h"
#include "kernels/moves/talk.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define FETCHERS      2u   /* one may stand at a node that says nothing */
#define SILENT_NODES  8u   /* that are remembered */
#define RETRY_MS      1000 /* to be callable again at a node that has gone */
#define RETRY_MOST_MS 64000
#define FORGET_NS     (120 * NS_PER_S) /* so long what was measured is believed */

struct pull {
    TAILQ_ENTRY(pull) link;
    struct mover_result result;
    uint64_t begin_ns;
    uint64_t first_ns; /* the first page comes until then */
    uint64_t deadline_ns;
    bool was_asked; /* the node, for long enough that it could have said something */
    double prefill_per_second;
    uint32_t count;
    uint32_t tokens[];
};
TAILQ_HEAD(pulls, pull);

struct silent {
    uint16_t node;
    uint64_t until_ns; /* 0 = none */
};

struct mover {
    struct mover_options options;
    struct gives *gives;
    int stop_fd;  /* readable once it ends */
    int count_fd; /* figures have changed */
    pthread_t threads[FETCHERS + 1];
    uint32_t started;
    _Atomic uint32_t progress;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool closing;
    uint32_t open; /* pulls in all */
    struct pulls waiting;
    struct pulls over;
    struct pull_rates rates;
    uint64_t learned_ns;
    struct silent silent[SILENT_NODES];
    struct port_way_figures figures;
};

/* ---- nodes that say nothing; with the lock held ---- */

static bool is_silent(const struct mover *m, uint16_t node)
{
    const uint64_t now_ns = clock_now_ns();
    bool is = false;
    for (uint32_t i = 0; i < SILENT_NODES; i++)
        is = is || (m->silent[i].node == node && now_ns < m->silent[i].until_ns);
    return is;
}

/* In place of who was remembered first. */
static void silent_add(struct mover *m, uint16_t node)
{
    struct silent *first = &m->silent[0];
    for (uint32_t i = 1; i < SILENT_NODES; i++)
        first = m->silent[i].until_ns < first->until_ns ? &m->silent[i] : first;
    *first = (struct silent){node, clock_now_ns() + MOVER_SILENT_NS};
}

/* ---- fetching ---- */

static struct port_way_hello hello_of(const struct mover *m, enum port_way_op op, uint16_t node)
{
    return (struct port_way_hello){
        .magic = PORT_WAY_MAGIC,
        .version = PORT_WAY_VERSION,
        .size = sizeof(struct port_way_hello),
        .op = (uint16_t)op,
        .node = node,
        .model = m->options.model,
        .arithmetic = m->options.kind.arithmetic,
    };
}

/* A connection with the worker at that node. */
static int call(const struct mover *m, const struct pull *p, struct port_way *way)
{
    const struct port_way_hello hello = hello_of(m, PORT_WAY_CALL, p->result.node);
    const int door = door_open(m->options.socket_path, &hello);
    int fd;
    if (door < 0)
        return door;
    const int rc = door_wait(door, m->stop_fd, p->first_ns, way, &fd);
    close(door);
    return rc ? rc : fd;
}

static int fetch(struct mover *m, struct pull *p, const struct pull_rates *rates,
                 struct talk_account *account)
{
    struct port_way way;
    struct line line;
    const struct talk_wish wish = {.tokens = p->tokens,
                                   .count = p->count,
                                   .prefill_per_second = p->prefill_per_second,
                                   .rates = rates,
                                   .first_ns = p->first_ns,
                                   .deadline_ns = p->deadline_ns,
                                   .progress = &m->progress};
    const int fd = call(m, p, &way);
    if (fd < 0)
        return fd;
    int rc = line_init(&line, fd, m->stop_fd, way.key, true);
    sodium_memzero(&way, sizeof(way));
    if (rc == 0)
        rc = talk_take(m->options.runner, &m->options.kind, &line, &wish, account);
    line_deinit(&line);
    close(fd);
    return rc;
}

/* With the lock held. */
static void pull_count(struct mover *m, const struct pull *p, const struct talk_account *account)
{
    m->figures.pages_moved += account->pages;
    m->figures.bytes_moved += (uint64_t)account->pages * m->options.kind.page_bytes;
    m->figures.sessions_moved += account->pages > 0;
    m->figures.move_fallbacks += p->result.rc != 0 && p->result.rc != -ENODATA;
    pull_learn(&m->rates, account->bytes, account->begin_seconds, account->seconds);
    if (p->result.rc == -ETIMEDOUT && account->pages > 0)
        pull_slower(&m->rates);
    else if (p->result.rc == -ETIMEDOUT && p->was_asked)
        silent_add(m, p->result.node);
    m->learned_ns = clock_now_ns();
}

static void log_pull(const struct pull *p)
{
    LOG_INFO("pages fetched node=%u pages=%u of=%u ms=%llu%s%s", p->result.node, p->result.pages,
             engine_chain_most(p->count), (unsigned long long)(p->result.took_ns / NS_PER_MS),
             p->result.rc ? " stopped=" : "", p->result.rc ? strerror(-p->result.rc) : "");
}

/* -EHOSTDOWN: nobody is asked. Else, for how long it has been. */
static int fetch_in_time(struct mover *m, struct pull *p, bool silent,
                         const struct pull_rates *rates, struct talk_account *account)
{
    const uint64_t now_ns = clock_now_ns();
    if (silent)
        return -EHOSTDOWN;
    if (now_ns >= p->first_ns)
        return -ETIMEDOUT;
    p->was_asked = p->first_ns - now_ns >= MOVER_LEAST_NS / 2;
    return fetch(m, p, rates, account);
}

static void *fetch_main(void *arg)
{
    struct mover *m = arg;
    pthread_mutex_lock(&m->lock);
    for (;;) {
        struct pull *p = NULL;
        while (!m->closing && !(p = TAILQ_FIRST(&m->waiting)))
            pthread_cond_wait(&m->work, &m->lock);
        if (m->closing)
            break;
        struct talk_account account = {.pages = 0};
        const struct pull_rates rates = m->rates;
        const bool silent = is_silent(m, p->result.node);
        TAILQ_REMOVE(&m->waiting, p, link);
        pthread_mutex_unlock(&m->lock);
        p->result.rc = fetch_in_time(m, p, silent, &rates, &account);
        p->result.pages = account.pages;
        p->result.took_ns = clock_now_ns() - p->begin_ns;
        log_pull(p);
        pthread_mutex_lock(&m->lock);
        pull_count(m, p, &account);
        TAILQ_INSERT_TAIL(&m->over, p, link);
        runner_wake(m->options.runner);
        (void)eventfd_write(m->count_fd, 1);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- giving ---- */

static void given(const struct talk_account *account, void *user)
{
    struct mover *m = user;
    pthread_mutex_lock(&m->lock);
    m->figures.sessions_given += account->pages > 0;
    m->figures.pages_given += account->pages;
    m->figures.bytes_given += account->bytes;
    pthread_mutex_unlock(&m->lock);
    (void)eventfd_write(m->count_fd, 1);
}

static void tell_figures(struct mover *m, int door)
{
    struct port_way_figures figures;
    eventfd_t changes;
    (void)eventfd_read(m->count_fd, &changes);
    pthread_mutex_lock(&m->lock);
    figures = m->figures;
    pthread_mutex_unlock(&m->lock);
    (void)send(door, &figures, sizeof(figures), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Serves calls until the node goes or the mover ends. */
static void answer_calls(struct mover *m, int door)
{
    int rc = 0;
    tell_figures(m, door);
    while (rc == 0 || rc == -EAGAIN) {
        struct port_way way;
        struct pollfd fds[3] = {{.fd = door, .events = POLLIN},
                                {.fd = m->stop_fd, .events = POLLIN},
                                {.fd = m->count_fd, .events = POLLIN}};
        int fd;
        if ((poll(fds, 3, -1) < 0 && errno != EINTR) || fds[1].revents)
            return;
        if (fds[2].revents)
            tell_figures(m, door);
        rc = door_take(door, &way, &fd);
        if (rc == 0)
            gives_take(m->gives, &way, fd);
        sodium_memzero(&way, sizeof(way));
    }
}

static void *give_main(void *arg)
{
    struct mover *m = arg;
    const struct port_way_hello hello = hello_of(m, PORT_WAY_SERVE, 0);
    struct pollfd stop = {.fd = m->stop_fd, .events = POLLIN};
    int retry_ms = RETRY_MS;
    do {
        const uint64_t begin_ns = clock_now_ns();
        const int door = door_open(m->options.socket_path, &hello);
        if (door >= 0) {
            answer_calls(m, door);
            close(door);
        }
        /* A node that is older turns this away, and says so in its log each time. */
        if (door < 0 || clock_now_ns() - begin_ns > NS_PER_S)
            retry_ms = RETRY_MS;
        else if (retry_ms < RETRY_MOST_MS)
            retry_ms *= 2;
    } while (poll(&stop, 1, retry_ms) == 0);
    return NULL;
}

/* ---- life ---- */

int mover_create(struct mover **out, const struct mover_options *options)
{
    void *(*const mains[FETCHERS + 1])(void *) = {give_main, fetch_main, fetch_main};
    *out = NULL;
    struct mover *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->options = *options;
    m->figures = (struct port_way_figures){
        .magic = PORT_WAY_MAGIC, .version = PORT_WAY_VERSION, .size = sizeof(m->figures)};
    TAILQ_INIT(&m->waiting);
    TAILQ_INIT(&m->over);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->work, NULL);
    m->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    m->count_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = m->stop_fd < 0 || m->count_fd < 0 ? -errno : 0;
    const struct gives_options gives = {.runner = options->runner,
                                        .kind = options->kind,
                                        .stop_fd = m->stop_fd,
                                        .done = given,
                                        .user = m};
    if (rc == 0)
        rc = gives_create(&m->gives, &gives);
    for (uint32_t i = 0; rc == 0 && i < FETCHERS + 1; i++) {
        rc = -pthread_create(&m->threads[i], NULL, mains[i], m);
        m->started += rc == 0;
    }
    if (rc) {
        mover_destroy(m);
        return rc;
    }
    *out = m;
    return 0;
}

static void free_all(struct pulls *list)
{
    struct pull *p;
    while ((p = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, p, link);
        free(p);
    }
}

void mover_destroy(struct mover *m)
{
    if (!m)
        return;
    if (m->stop_fd >= 0)
        (void)eventfd_write(m->stop_fd, 1);
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->lock);
    for (uint32_t i = 0; i < m->started; i++)
        pthread_join(m->threads[i], NULL);
    gives_destroy(m->gives);
    free_all(&m->waiting);
    free_all(&m->over);
    if (m->stop_fd >= 0)
        close(m->stop_fd);
    if (m->count_fd >= 0)
        close(m->count_fd);
    pthread_cond_destroy(&m->work);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

bool mover_pays(struct mover *m, uint32_t pages, double prefill_per_second)
{
    pthread_mutex_lock(&m->lock);
    if (clock_now_ns() - m->learned_ns > FORGET_NS)
        m->rates = (struct pull_rates){.bytes_per_second = 0.0};
    const bool pays = m->open < MOVER_PULLS_MAX &&
                      pull_pays(&m->rates, pages, m->options.kind.page_bytes, prefill_per_second);
    pthread_mutex_unlock(&m->lock);
    return pays;
}

int mover_pull(struct mover *m, uint64_t id, uint16_t node, const uint32_t *tokens, uint32_t count,
               double prefill_per_second, uint64_t deadline_ns)
{
    struct pull *p = malloc(sizeof(*p) + count * sizeof(*tokens));
    if (!p)
        return -ENOMEM;
    const uint64_t now_ns = clock_now_ns();
    const double predicted_ns = (double)count / prefill_per_second * 1e9;
    const uint64_t prefill_ns = predicted_ns < 1e18 ? (uint64_t)predicted_ns : UINT64_C(1) << 60;
    *p = (struct pull){.result = {.id = id, .node = node},
                       .begin_ns = now_ns,
                       .deadline_ns =
                           now_ns + (prefill_ns > MOVER_LEAST_NS ? prefill_ns : MOVER_LEAST_NS),
                       .prefill_per_second = prefill_per_second,
                       .count = count};
    if (deadline_ns && deadline_ns < p->deadline_ns)
        p->deadline_ns = deadline_ns;
    p->first_ns =
        now_ns + MOVER_FIRST_NS < p->deadline_ns ? now_ns + MOVER_FIRST_NS : p->deadline_ns;
    memcpy(p->tokens, tokens, count * sizeof(*tokens));
    pthread_mutex_lock(&m->lock);
    const int rc = is_silent(m, node) ? -EHOSTDOWN : m->open < MOVER_PULLS_MAX ? 0 : -EBUSY;
    m->figures.move_fallbacks += rc != 0;
    if (rc == 0) {
        m->open++;
        TAILQ_INSERT_TAIL(&m->waiting, p, link);
        pthread_cond_signal(&m->work);
    }
    pthread_mutex_unlock(&m->lock);
    if (rc) {
        free(p);
        (void)eventfd_write(m->count_fd, 1);
    }
    return rc;
}

bool mover_take(struct mover *m, struct mover_result *out)
{
    pthread_mutex_lock(&m->lock);
    struct pull *p = TAILQ_FIRST(&m->over);
    if (p) {
        TAILQ_REMOVE(&m->over, p, link);
        m->open--;
    }
    pthread_mutex_unlock(&m->lock);
    if (p)
        *out = p->result;
    free(p);
    return p != NULL;
}

uint32_t mover_progress(const struct mover *m)
{
    return atomic_load_explicit(&m->progress, memory_order_relaxed);
}
