/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - weft/worker.h over the state machine of dataplane/flow/serve.h: moves datagrams
 * between it and the rings of the port. worker_attach.c has the handshake. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "dataplane/client/worker_impl.h"
#include "schemas/base/clock.h"
#include "schemas/base/text.h"

WEFT_ASSERT(PORT_PREFIXES == SERVE_PREFIXES, "told as they are kept");

static uint32_t worker_needs(const weft_job_view_t *view)
{
    uint32_t needs = view->format == WEFT_FORMAT_CALL ? WEFT_CAN_TOOLS : 0;
    needs |= view->format != WEFT_FORMAT_NONE ? WEFT_CAN_FORMATS : 0;
    for (size_t i = 0; i < view->part_count; i++) {
        needs |= view->parts[i].role > WEFT_ROLE_ASSISTANT ? WEFT_CAN_TOOLS : 0;
    }
    return needs;
}

static int worker_on_job(void *user, struct weft_job *job, const weft_job_view_t *view)
{
    struct weft_worker *w = user;
    if ((worker_needs(view) & ~w->can) != 0) {
        return WEFT_E_NO_CAPABLE_NODE;
    }
    return w->callbacks.on_job(w, job, view, w->callbacks.user);
}

static void worker_on_cancel(void *user, struct weft_job *job)
{
    struct weft_worker *w = user;
    w->callbacks.on_cancel(w, job, w->callbacks.user);
}

static uint64_t worker_load_word(const struct port_load *load)
{
    uint64_t word;
    memcpy(&word, load, sizeof(word));
    return word;
}

/* The load as the node sees it: what serve says in its replies too. */
static void worker_publish_load(struct weft_worker *w)
{
    struct port_load load = {serve_room(w->serve), serve_free_vram(w->serve),
                             w->serve->load.queue_us};
    uint64_t word = worker_load_word(&load);
    if (word != w->load_word) {
        w->load_word = word;
        atomic_store_explicit(&w->shm->load, word, memory_order_relaxed);
    }
}

/* What the prompts begin with that it took since it told last. */
static void worker_publish_prefixes(struct weft_worker *w)
{
    const struct serve_prefixes *taken = &w->serve->prefixes;
    if (taken->count == w->prefixes || w->shm_bytes < sizeof(*w->shm)) {
        return;
    }
    for (uint32_t i = 0; i < PORT_PREFIXES; i++) {
        atomic_store_explicit(&w->shm->prefixes.at[i], taken->at[i], memory_order_relaxed);
    }
    w->prefixes = taken->count;
    atomic_store_explicit(&w->shm->prefixes.count, taken->count, memory_order_release);
}

static int worker_hello(const weft_worker_facts_t *facts, const weft_load_t *load,
                        struct port_hello *hello)
{
    uint32_t units = load->free_vram_mib / WEFT_VRAM_UNIT_MIB;
    *hello = (struct port_hello){
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(*hello),
        .context_tokens = facts->context_tokens,
        .prefill_per_second = facts->prefill_per_second,
        .decode_per_second = facts->decode_per_second,
        .pid = (uint32_t)getpid(),
        .arithmetic = facts->arithmetic,
        .load = {.room = load->room < UINT16_MAX ? (uint16_t)load->room : UINT16_MAX,
                 .free_vram_64mib = units < UINT16_MAX ? (uint16_t)units : UINT16_MAX,
                 .queue_us = load->queue_us},
    };
    if (facts->model == NULL || facts->backend == NULL || facts->model[0] == '\0' ||
        strlen(facts->model) >= sizeof(hello->model) ||
        strlen(facts->backend) >= sizeof(hello->backend) ||
        !text_is_word(facts->model, strlen(facts->model)) ||
        !text_is_word(facts->backend, strlen(facts->backend))) {
        return -EINVAL;
    }
    memcpy(hello->model, facts->model, strlen(facts->model));
    memcpy(hello->backend, facts->backend, strlen(facts->backend));
    return 0;
}

static int worker_serve_open(struct weft_worker *w, const weft_worker_facts_t *facts)
{
    struct serve_config config = {
        .node_id = w->node.id, .tier = (uint8_t)w->node.tier, .arithmetic = facts->arithmetic};
    memcpy(config.node_name, w->node.name, sizeof(config.node_name));
    memcpy(config.backend, facts->backend, strlen(facts->backend));
    if (getrandom(&config.seed, sizeof(config.seed), 0) != (ssize_t)sizeof(config.seed)) {
        return -EIO;
    }
    struct serve_ops ops = {worker_on_job, worker_on_cancel, w};
    w->serve = serve_create(&config, &ops);
    return w->serve != NULL ? 0 : -ENOMEM;
}

int weft_worker_attach(weft_worker_t **worker, const char *socket_path,
                       const weft_worker_facts_t *facts, const weft_load_t *load,
                       const weft_worker_callbacks_t *callbacks)
{
    *worker = NULL;
    struct port_hello hello;
    int rc = worker_hello(facts, load, &hello);
    if (rc != 0 || callbacks->on_job == NULL || callbacks->on_cancel == NULL) {
        return -EINVAL;
    }
    struct weft_worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return -ENOMEM;
    }
    w->epoll = w->socket = w->wake_own = w->wake_node = -1;
    w->callbacks = *callbacks;
    w->can = facts->can;
    rc = worker_port_open(w, socket_path, &hello);
    rc = rc == 0 ? worker_serve_open(w, facts) : rc;
    if (rc != 0) {
        weft_worker_destroy(w);
        return rc;
    }
    atomic_store_explicit(&w->shm->can, facts->can, memory_order_relaxed);
    w->load_word = ~worker_load_word(&hello.load);
    weft_worker_set_load(w, load);
    w->asleep = ring_sleep_begin(&w->in);
    w->more = !w->asleep;
    *worker = w;
    return 0;
}

void weft_worker_destroy(weft_worker_t *w)
{
    if (w == NULL) {
        return;
    }
    serve_destroy(w->serve);
    worker_port_close(w);
    free(w);
}

const weft_worker_node_t *weft_worker_node(const weft_worker_t *w)
{
    return &w->node;
}

int weft_worker_fd(const weft_worker_t *w)
{
    return w->epoll;
}

size_t weft_worker_open(const weft_worker_t *w)
{
    return serve_open_jobs(w->serve);
}

int weft_worker_timeout_ms(const weft_worker_t *w)
{
    if (w->more || w->lost) {
        return 0;
    }
    if (w->blocked) {
        return 1; /* the node does not tell when its ring has room */
    }
    if (serve_pending(w->serve)) {
        return 0;
    }
    uint64_t due_ns = serve_due_ns(w->serve);
    if (due_ns == TIMER_NEVER) {
        return -1;
    }
    uint64_t now_ns = clock_now_ns();
    uint64_t ms = due_ns > now_ns ? (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* Entries are copied out before they are looked at: the node could change them meanwhile. */
static uint32_t worker_receive(struct weft_worker *w, uint32_t max, uint64_t now_ns)
{
    uint32_t count = 0;
    struct ring_slot *slot;
    while (count < max && (slot = ring_peek(&w->in)) != NULL) {
        _Alignas(8) uint8_t data[WEFT_DATAGRAM_MAX];
        uint32_t len = *(volatile uint32_t *)&slot->len;
        len = len <= sizeof(data) ? len : 0;
        memcpy(data, slot->data, len);
        ring_release(&w->in);
        serve_input(w->serve, data, len, now_ns);
        count++;
    }
    return count;
}

static void worker_send(struct weft_worker *w, uint64_t now_ns)
{
    bool sent = false;
    w->blocked = false;
    for (;;) {
        if (w->held_len == 0) {
            w->held_len = (uint16_t)serve_output(w->serve, now_ns, w->held);
        }
        if (w->held_len == 0) {
            break;
        }
        struct ring_slot *slot = ring_reserve(&w->out);
        if (slot == NULL) {
            w->blocked = true;
            break;
        }
        memcpy(slot->data, w->held, w->held_len);
        slot->len = w->held_len;
        ring_commit(&w->out);
        w->held_len = 0;
        sent = true;
    }
    if ((sent || w->blocked) && ring_must_wake(&w->out)) {
        uint64_t one = 1;
        if (write(w->wake_node, &one, sizeof(one)) < 0 && errno != EAGAIN) {
            w->lost = true;
        }
    }
}

/* The wake-up, if there was one, and whether weftd still holds its end of the socket. */
static void worker_look(struct weft_worker *w)
{
    struct epoll_event events[2];
    int count = epoll_wait(w->epoll, events, 2, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == w->socket) {
            w->lost = true; /* nothing is ever sent there after the handshake */
            continue;
        }
        uint64_t wakes;
        if (read(w->wake_own, &wakes, sizeof(wakes)) < 0 && errno != EAGAIN) {
            w->lost = true;
        }
    }
}

int weft_worker_process(weft_worker_t *w)
{
    worker_look(w);
    if (w->asleep) {
        ring_sleep_end(&w->in);
        w->asleep = false;
    }
    uint32_t left = WORKER_ENTRIES_MAX;
    do {
        uint64_t now_ns = clock_now_ns();
        uint32_t got = worker_receive(w, left < WORKER_BATCH ? left : WORKER_BATCH, now_ns);
        serve_tick(w->serve, now_ns);
        worker_send(w, now_ns);
        left -= got;
        w->asleep = got < WORKER_BATCH && ring_sleep_begin(&w->in);
    } while (!w->asleep && left != 0);
    w->more = !w->asleep;
    worker_publish_load(w);
    worker_publish_prefixes(w);
    return w->lost ? -EPIPE : 0;
}

void weft_worker_set_load(weft_worker_t *w, const weft_load_t *load)
{
    serve_set_load(w->serve, load);
    worker_publish_load(w);
    struct port_rates rates = {load->prefill_per_second, load->decode_per_second};
    uint64_t word;
    memcpy(&word, &rates, sizeof(word));
    atomic_store_explicit(&w->shm->rates, word, memory_order_relaxed);
}

static uint16_t worker_u16(uint32_t value)
{
    return value < UINT16_MAX ? (uint16_t)value : UINT16_MAX;
}

void weft_worker_set_figures(weft_worker_t *w, const weft_worker_figures_t *figures)
{
    const struct port_figures told = {
        .decode_tps_2 = figures->decode_per_second_2,
        .decode_tps_4 = figures->decode_per_second_4,
        .decode_tps_8 = figures->decode_per_second_8,
        .kv_pages = figures->kv_pages,
        .kv_pages_used = figures->kv_pages_used,
        .memory_mib = figures->memory_mib,
        .prefix_queries = figures->prefix_queries,
        .prefix_hits = figures->prefix_hits,
        .slots = worker_u16(figures->slots),
        .running = worker_u16(figures->running),
        .waiting = worker_u16(figures->waiting),
        .loaded = worker_u16(figures->loaded),
    };
    uint64_t words[PORT_FIGURE_WORDS];
    memcpy(words, &told, sizeof(words));
    for (uint32_t i = 0; i < PORT_FIGURE_WORDS; i++) {
        atomic_store_explicit(&w->shm->figures[i], words[i], memory_order_relaxed);
    }
}

int weft_job_emit(weft_job_t *job, uint32_t token, const char *text, size_t len)
{
    return serve_job_emit(job, token, text, len);
}

int weft_job_embedding(weft_job_t *job, const float *values, size_t count)
{
    return serve_job_embedding(job, values, count);
}

int weft_job_logprobs(weft_job_t *job, const weft_logprob_t *list, size_t count)
{
    return serve_job_logprobs(job, list, count);
}

void weft_job_finish(weft_job_t *job, const weft_job_report_t *report)
{
    serve_job_finish(job, report);
}

void weft_job_set_user(weft_job_t *job, void *user)
{
    job->user = user;
}

void *weft_job_user(const weft_job_t *job)
{
    return job->user;
}
