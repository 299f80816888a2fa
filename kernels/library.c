/* SPDX-License-Identifier: Apache-2.0 */
/* See library.h. */
#include "kernels/library.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernels/keep.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"
#include "schemas/base/slice.h"

#define RETRY_NS   (5 * NS_PER_S) /* after a load that has failed */
#define LOOK_MS    20             /* while somebody waits */
#define FREE_PARTS 4u             /* three of them may be taken */

/* ---- loading and unloading ---- */

/* What cannot be kept costs time, nothing else. */
static void load_cache(struct serving *s, const char *dir)
{
    if (s->facts.kept_as == 0)
        s->facts.kept_as = keep_model(&s->host);
    const int pages = keep_load(&s->host, s->facts.kept_as, dir, s->name);
    if (pages >= 0)
        LOG_INFO("model=%s kv_pages=%d loaded from %s", s->name, pages, dir);
    else if (pages != -ENOENT)
        LOG_WARN("model=%s kept cache in %s refused: %s", s->name, dir,
                 pages == -ESTALE   ? "of another model or arithmetic"
                 : pages == -EPROTO ? "of another version"
                 : pages == -EINVAL ? "damaged"
                                    : weft_status_text(pages));
}

static void save_cache(const struct serving *s, const char *dir)
{
    const int pages = keep_save(&s->host, s->facts.kept_as, dir, s->name);
    if (pages >= 0)
        LOG_INFO("model=%s kv_pages=%d kept in %s", s->name, pages, dir);
    else
        LOG_WARN("model=%s cache not kept in %s: %s", s->name, dir, weft_status_text(pages));
}

static void run_task(struct library_task *t)
{
    const uint64_t begin_ns = clock_now_ns();
    struct serving *s = t->serving;
    if (t->is_load) {
        t->rc = host_open(&s->host, &s->options, t->why, sizeof(t->why));
        if (t->rc)
            host_close(&s->host);
        else if (t->kv_dir)
            load_cache(s, t->kv_dir);
    } else {
        if (t->kv_dir)
            save_cache(s, t->kv_dir);
        host_close(&s->host);
    }
    t->took_ns = clock_now_ns() - begin_ns - s->host.measuring_ns;
}

static void *loader_main(void *arg)
{
    struct library *l = arg;
    slice_usual();
    run_task(&l->task);
    (void)eventfd_write(l->done_fd, 1);
    return NULL;
}

static void set_state(struct library *l, uint32_t index, enum shelf_state state)
{
    l->shelf.models[index].state = state;
    l->shelf.models[index].since_ns = clock_now_ns();
}

static void begin_task(struct library *l, uint32_t index, bool is_load)
{
    l->task = (struct library_task){
        .serving = &l->servings[index], .index = index, .is_load = is_load, .kv_dir = l->kv_dir};
    set_state(l, index, is_load ? SHELF_LOADING : SHELF_LEAVING);
    if (pthread_create(&l->thread, NULL, loader_main, l) == 0)
        return;
    run_task(&l->task); /* better late than never */
    l->thread = pthread_self();
    (void)eventfd_write(l->done_fd, 1);
}

static void log_loaded(const struct serving *s, uint64_t took_ns)
{
    const struct exec_info *info = &s->host.info;
    LOG_INFO("model=%s backend=%s/%s slots=%u context=%u weights_mib=%zu kv_mib=%zu "
             "prefill_tps=%.0f decode_tps=%.0f batch_tps=%.0f,%.0f,%.0f load_ms=%" PRIu64,
             s->name, info->backend, info->detail, info->slots, info->context,
             info->weight_bytes >> 20, info->kv_bytes >> 20, s->facts.speeds.prefill,
             s->facts.speeds.decode[0], s->facts.speeds.decode[1], s->facts.speeds.decode[2],
             s->facts.speeds.decode[3], took_ns / NS_PER_MS);
}

/* It is loaded. */
static int begin_serving(struct library *l, uint32_t index, uint64_t took_ns)
{
    struct serving *s = &l->servings[index];
    const int rc = serving_begin(s);
    if (rc) {
        host_close(&s->host);
        return rc;
    }
    struct shelf_model *m = &l->shelf.models[index];
    m->bytes = s->facts.bytes;
    m->load_ns = took_ns;
    set_state(l, index, SHELF_READY);
    log_loaded(s, took_ns);
    return 0;
}

static void fail_load(struct library *l, uint32_t index, const char *why)
{
    struct serving *s = &l->servings[index];
    LOG_WARN("model=%s cannot be loaded: %s", s->name, why);
    l->shelf.models[index].retry_ns = clock_now_ns() + RETRY_NS;
    set_state(l, index, SHELF_AWAY);
    serving_fail_parked(s, WEFT_E_WORKER_FAILED);
}

static void end_task(struct library *l)
{
    struct library_task *t = &l->task;
    if (!pthread_equal(l->thread, pthread_self()))
        pthread_join(l->thread, NULL);
    int rc = t->rc;
    if (!t->is_load) {
        set_state(l, t->index, SHELF_AWAY);
        LOG_INFO("model=%s unloaded", t->serving->name);
    } else {
        if (rc == 0)
            rc = begin_serving(l, t->index, t->took_ns);
        if (rc)
            fail_load(l, t->index, t->why[0] ? t->why : weft_status_text(rc));
    }
    t->serving = NULL;
}

/* ---- at the start ---- */

static void unload_now(struct library *l, uint32_t index)
{
    struct library_task t = {.serving = &l->servings[index], .kv_dir = l->kv_dir};
    serving_end(t.serving);
    run_task(&t);
    set_state(l, index, SHELF_AWAY);
}

static uint64_t loaded_bytes(const struct library *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->count; i++)
        sum += l->servings[i].runner ? l->servings[i].facts.bytes : 0;
    return sum;
}

static int load_first(struct library *l, uint32_t index)
{
    struct serving *s = &l->servings[index];
    struct library_task t = {.serving = s, .is_load = true, .kv_dir = l->kv_dir};
    run_task(&t);
    int rc = t.rc;
    if (rc) {
        fprintf(stderr, "weft-worker: cannot serve %s: %s\n", s->options.model_path,
                t.why[0] ? t.why : weft_status_text(rc));
        return rc;
    }
    if (!s->host.tokenizer)
        LOG_WARN("%s: only prompts of token ids are served", t.why);
    else if (s->host.chat.begin == TOKENIZER_NONE)
        LOG_WARN("%s: no chat, only plain text and token ids are served", t.why);
    rc = begin_serving(l, index, t.took_ns);
    if (rc)
        fprintf(stderr, "weft-worker: cannot start: %s\n", weft_status_text(rc));
    return rc;
}

/* The models named first stay loaded, as far as they fit. */
static int load_all(struct library *l, uint64_t budget_bytes)
{
    const bool is_given = budget_bytes != 0; /* another start would have no more */
    for (uint32_t i = l->count; i-- > 0;) {
        int rc = load_first(l, i);
        if (rc)
            return rc;
        const struct shelf_model *m = &l->shelf.models[i];
        if (l->count == 1)
            return 0;
        if (budget_bytes == 0) {
            const size_t free_bytes = l->servings[i].host.info.free_bytes;
            budget_bytes = (m->bytes + free_bytes) / FREE_PARTS * (FREE_PARTS - 1);
        }
        l->shelf.budget_bytes = budget_bytes;
        if (m->bytes > budget_bytes) {
            fprintf(stderr,
                    "weft-worker: %s takes %" PRIu64
                    " MiB, and all models together may take %" PRIu64
                    " MiB. Use --models-mib, or fewer slots, or a shorter context\n",
                    l->servings[i].options.model_path, m->bytes >> 20, budget_bytes >> 20);
            return is_given ? -EINVAL : -ENOMEM;
        }
        for (uint32_t j = l->count; j-- > i + 1 && loaded_bytes(l) > budget_bytes;)
            if (l->servings[j].runner)
                unload_now(l, j);
    }
    return 0;
}

static void predict(struct library *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        l->servings[i].wait_ns = shelf_wait_ns(&l->shelf, i, clock_now_ns());
}

int library_open(struct library *l, uint32_t count, const char *const *names,
                 const struct host_options *options, uint64_t budget_bytes, const char *kv_dir,
                 const char *port_path)
{
    *l = (struct library){
        .count = count, .kv_dir = kv_dir, .shelf = {.count = count, .budget_bytes = UINT64_MAX}};
    for (uint32_t i = 0; i < count; i++)
        serving_init(&l->servings[i], names[i], &options[i], port_path);
    l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const int rc = l->done_fd < 0 ? -errno : load_all(l, budget_bytes);
    predict(l);
    return rc;
}

void library_close(struct library *l)
{
    if (l->task.serving)
        end_task(l);
    for (uint32_t i = 0; i < l->count; i++) {
        struct serving *s = &l->servings[i];
        serving_drop_all(s);
        if (s->runner)
            unload_now(l, i);
        serving_deinit(s);
    }
    if (l->done_fd >= 0)
        close(l->done_fd);
}

/* ---- going on ---- */

static void tell_shelf(struct library *l)
{
    for (uint32_t i = 0; i < l->count; i++) {
        const struct serving *s = &l->servings[i];
        struct shelf_model *m = &l->shelf.models[i];
        m->open = s->open + s->pulling_count;
        m->used_ns = s->used_ns;
        m->waiting = s->parked_count;
        m->waiting_ns = serving_waiting_ns(s);
        m->drain_ns = s->now.drain_us < UINT64_MAX / NS_PER_US ? s->now.drain_us * NS_PER_US : 0;
    }
}

static void take_step(struct library *l, struct shelf_step step)
{
    struct serving *s = &l->servings[step.model];
    struct shelf_model *m = &l->shelf.models[step.model];
    switch (step.act) {
    case SHELF_NOTHING:
        break;
    case SHELF_LOAD:
        begin_task(l, step.model, true);
        break;
    case SHELF_CLOSE: /* `since_ns` stays */
        s->taking = false;
        m->state = SHELF_CLOSING;
        break;
    case SHELF_OPEN:
        s->taking = true;
        m->state = SHELF_READY;
        break;
    case SHELF_UNLOAD:
        serving_end(s);
        begin_task(l, step.model, false);
        break;
    }
}

void library_work(struct library *l)
{
    eventfd_t done;
    if (l->task.serving && eventfd_read(l->done_fd, &done) == 0)
        end_task(l);
    for (uint32_t i = 0; i < l->count; i++)
        serving_work(&l->servings[i], clock_now_ns());
    struct shelf_step step;
    do {
        tell_shelf(l);
        step = shelf_next(&l->shelf, clock_now_ns());
        take_step(l, step);
    } while (step.act == SHELF_CLOSE || step.act == SHELF_OPEN);
    predict(l);
}

int library_timeout_ms(const struct library *l)
{
    return shelf_is_wanted(&l->shelf) ? LOOK_MS : -1;
}

bool library_is_idle(const struct library *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        if (!serving_is_idle(&l->servings[i]))
            return false;
    return true;
}
