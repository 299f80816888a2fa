/* SPDX-License-Identifier: Apache-2.0 */
/* See serving.h. */
#include "kernels/serving.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/moves/mover.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define EVENTS_AT_ONCE  64u
#define BYTES_PER_TOKEN 4u /* of text, as a guess: it has not been cut yet */

/* A job that waits for its model, or for its pages. */
struct parked {
    TAILQ_ENTRY(parked) link;
    weft_job_t *job;
    weft_job_view_t view; /* what it points to lives as long as the job */
    uint64_t since_ns;
    uint64_t tenant;
    bool cancelled; /* it ends with the next serving_work() */
    bool pulled;    /* its pages have come, or will not */
    uint64_t pull;  /* while they are being fetched: which of mover.h; else 0 */
};

/* What the engine uses until a job's end: an embedding it writes, a grammar it reads. */
struct kept {
    LIST_ENTRY(kept) link;
    struct grammar *grammar; /* or NULL */
    uint64_t id;
    float values[];
};

void serving_init(struct serving *s, const char *name, const struct host_options *options,
                  const char *port_path)
{
    *s = (struct serving){.name = name, .options = *options, .port_path = port_path};
    TAILQ_INIT(&s->parked);
    TAILQ_INIT(&s->pulling);
    LIST_INIT(&s->kept);
}

static void kept_drop(struct kept *e)
{
    if (!e)
        return;
    LIST_REMOVE(e, link);
    grammar_destroy(e->grammar);
    free(e);
}

void serving_deinit(struct serving *s)
{
    serving_drop_all(s);
    while (!LIST_EMPTY(&s->kept))
        kept_drop(LIST_FIRST(&s->kept));
    free(s->text);
}

/* ---- loaded or not ---- */

/* Sizes that were found by looking at the memory of the moment are kept: what the node has been
 * told stays true. */
static void fix_facts(struct serving *s)
{
    const struct exec_info *info = &s->host.info;
    s->options.slots = info->slots;
    s->options.context = info->context;
    s->options.memory_mib = (uint32_t)((info->kv_bytes + (1u << 20) - 1) >> 20);
    s->facts.context = info->context;
    s->facts.slots = info->slots;
    s->facts.bytes = host_memory_bytes(&s->host);
    s->facts.arithmetic = host_arithmetic(&s->host);
    (void)snprintf(s->facts.backend, sizeof(s->facts.backend), "%s", info->backend);
}

/* Without one sessions are computed anew where they go. */
static void begin_moving(struct serving *s)
{
    const size_t page_bytes = engine_page_bytes(s->host.engine);
    const struct mover_options options = {.socket_path = s->port_path,
                                          .model = weft_model_id(s->name),
                                          .kind = {.arithmetic = s->facts.arithmetic,
                                                   .page_tokens = EXEC_PAGE_TOKENS,
                                                   .page_bytes = page_bytes,
                                                   .vocab = s->host.info.vocab},
                                          .runner = s->runner};
    if (!s->port_path || page_bytes == 0 || page_bytes > PULL_PAGE_MAX)
        return;
    const int rc = mover_create(&s->mover, &options);
    if (rc)
        LOG_WARN("model=%s sessions cannot move: %s", s->name, strerror(-rc));
}

int serving_begin(struct serving *s)
{
    const int rc = runner_create(&s->runner, s->host.engine);
    if (rc)
        return rc;
    fix_facts(s);
    begin_moving(s);
    runner_load(s->runner, &s->now);
    s->facts.speeds = s->now.speeds;
    s->facts.capacity = s->now.room;
    s->options.speeds = &s->facts.speeds;
    s->taking = true;
    s->wait_ns = 0;
    s->load_changed = true;
    return 0;
}

void serving_end(struct serving *s)
{
    runner_load(s->runner, &s->now);
    s->facts.speeds = s->now.speeds;
    mover_destroy(s->mover);
    s->mover = NULL;
    runner_destroy(s->runner);
    s->runner = NULL;
    s->taking = false;
    s->now = (struct engine_load){.free_mib = s->now.free_mib};
    s->load_changed = true;
}

/* ---- jobs in ---- */

/* A job's address is its id: unique while the job is open. */
static uint64_t job_id(const weft_job_t *job)
{
    return (uint64_t)(uintptr_t)job;
}

static struct kept *kept_of(struct serving *s, uint64_t id)
{
    struct kept *e;
    LIST_FOREACH(e, &s->kept, link)
    if (e->id == id)
        return e;
    return NULL;
}

static int kept_add(struct serving *s, struct engine_request *request)
{
    const size_t floats = request->embed ? s->host.info.width : 0;
    if (!floats && !request->grammar)
        return 0;
    struct kept *e = malloc(sizeof(*e) + floats * sizeof(e->values[0]));
    if (!e) {
        grammar_destroy(request->grammar);
        return WEFT_E_WORKER_FAILED;
    }
    e->id = request->id;
    e->grammar = request->grammar;
    request->embedding = e->values;
    LIST_INSERT_HEAD(&s->kept, e, link);
    return 0;
}

/* Has another node served the session of this request, and may what it knows come sooner than it
 * can be computed? Then it is being fetched. */
static bool begin_pull(struct serving *s, const weft_job_view_t *view,
                       const struct engine_request *request)
{
    const uint32_t count = (uint32_t)request->token_count;
    const double prefill = s->now.speeds.prefill;
    if (!s->mover || !s->port || view->session_node == 0 ||
        view->session_node - 1 == weft_worker_node(s->port)->id ||
        request->embed == ENGINE_EMBED_MEAN || request->token_count > s->facts.context)
        return false;
    const uint32_t most = engine_chain_most(count);
    const uint32_t known = runner_known(s->runner, request->tokens, count);
    if (known >= most || !mover_pays(s->mover, most - known, prefill))
        return false;
    return mover_pull(s->mover, ++s->pulls, (uint16_t)(view->session_node - 1), request->tokens,
                      count, prefill, view->deadline_ns) == 0;
}

/* `*pulling`: not yet, for its pages are being fetched. NULL: now or never. */
static int submit(struct serving *s, weft_job_t *job, const weft_job_view_t *view, bool *pulling)
{
    struct engine_request request;
    int rc = host_request(&s->host, job_id(job), view, &request);
    if (rc == 0 && pulling && (*pulling = begin_pull(s, view, &request))) {
        grammar_destroy(request.grammar);
        return 0;
    }
    if (rc == 0)
        rc = kept_add(s, &request);
    if (rc == 0)
        rc = host_status(runner_submit(s->runner, &request));
    if (rc)
        kept_drop(kept_of(s, request.id));
    else
        s->open++;
    return rc;
}

static double seconds_of(const struct serving *s, const weft_job_view_t *view)
{
    const struct engine_speeds *speeds = &s->facts.speeds;
    double prompt = (double)(view->token_count + view->resume_count);
    double decode = speeds->decode[0];
    for (size_t i = 0; i < view->part_count; i++)
        prompt += (double)view->parts[i].len / BYTES_PER_TOKEN;
    for (uint32_t i = 1; i < ENGINE_BATCHES && 1u << i <= s->facts.slots; i++)
        decode = speeds->decode[i] > decode ? speeds->decode[i] : decode;
    return (speeds->prefill > 0.0 ? prompt / speeds->prefill : 0.0) +
           (decode > 0.0 ? (double)view->max_tokens * speeds->used_fraction / decode : 0.0);
}

/* Until a job that came now would begin. */
static double parked_seconds(const struct serving *s)
{
    double seconds = (double)s->wait_ns * 1e-9;
    const struct parked *p;
    TAILQ_FOREACH(p, &s->parked, link)
    seconds += seconds_of(s, &p->view);
    return seconds;
}

/* The same rule as the engine's own. */
static bool may_park(const struct serving *s, uint64_t tenant)
{
    const uint32_t capacity = s->facts.capacity;
    const uint32_t queue = capacity - s->facts.slots;
    const struct parked *p;
    const struct parked *q;
    uint32_t others = 0;
    uint32_t own = 0;
    TAILQ_FOREACH(p, &s->parked, link)
    {
        if (p->tenant == tenant) {
            own++;
            continue;
        }
        for (q = TAILQ_FIRST(&s->parked); q != p && q->tenant != p->tenant;)
            q = TAILQ_NEXT(q, link);
        others += q == p; /* its tenant's first */
    }
    return engine_share_admits(capacity, queue / HOST_RESERVE_PART,
                               s->open + s->parked_count + s->pulling_count, others, own);
}

static int park(struct serving *s, weft_job_t *job, const weft_job_view_t *view)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t tenant = host_tenant(view);
    if (!may_park(s, tenant))
        return WEFT_E_MESH_FULL;
    const double wait_ns = parked_seconds(s) * 1e9;
    if (view->deadline_ns &&
        (view->deadline_ns <= now_ns || (double)(view->deadline_ns - now_ns) < wait_ns))
        return WEFT_E_BUDGET_INFEASIBLE;
    struct parked *p = malloc(sizeof(*p));
    if (!p)
        return WEFT_E_WORKER_FAILED;
    *p = (struct parked){.job = job, .view = *view, .since_ns = now_ns, .tenant = tenant};
    TAILQ_INSERT_TAIL(&s->parked, p, link);
    s->parked_count++;
    return 0;
}

/* Its pull has begun: the latest one. */
static int wait_for_pages(struct serving *s, weft_job_t *job, const weft_job_view_t *view)
{
    struct parked *p = malloc(sizeof(*p));
    if (!p)
        return WEFT_E_WORKER_FAILED;
    *p = (struct parked){.job = job,
                         .view = *view,
                         .since_ns = clock_now_ns(),
                         .tenant = host_tenant(view),
                         .pull = s->pulls};
    TAILQ_INSERT_TAIL(&s->pulling, p, link);
    s->pulling_count++;
    return 0;
}

int serving_on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct serving *s = user;
    (void)port;
    if (s->draining)
        return WEFT_E_DRAINING;
    const bool now = s->taking && TAILQ_EMPTY(&s->parked);
    bool pulling = false;
    int rc = now ? submit(s, job, view, &pulling) : park(s, job, view);
    if (pulling)
        rc = wait_for_pages(s, job, view);
    if (rc)
        LOG_DEBUG("job refused status=%d", rc);
    s->used_ns = clock_now_ns();
    s->load_changed = true;
    return rc;
}

/* ---- jobs that wait ---- */

static void unpark(struct serving *s, struct parked *p)
{
    if (p->pull) {
        TAILQ_REMOVE(&s->pulling, p, link);
        s->pulling_count--;
    } else {
        TAILQ_REMOVE(&s->parked, p, link);
        s->parked_count--;
    }
    s->load_changed = true;
    free(p);
}

static void end_parked(struct serving *s, struct parked *p, int status)
{
    const weft_job_report_t report = {
        .status = status,
        .finish = status == WEFT_E_CANCELLED ? WEFT_FINISH_CANCELLED : WEFT_FINISH_FAILED,
        .queue_us = (clock_now_ns() - p->since_ns) / NS_PER_US,
    };
    weft_job_t *job = p->job;
    unpark(s, p);
    weft_job_finish(job, &report);
}

static void submit_parked(struct serving *s, uint64_t now_ns)
{
    struct parked *p;
    while (s->taking && (p = TAILQ_FIRST(&s->parked))) {
        /* What it has waited here is in its account, too. */
        const uint64_t waited_us = (now_ns - p->since_ns) / NS_PER_US;
        bool pulling = false;
        weft_job_set_user(p->job, (void *)(uintptr_t)waited_us);
        const int rc = submit(s, p->job, &p->view, p->pulled ? NULL : &pulling);
        if (pulling) {
            TAILQ_REMOVE(&s->parked, p, link);
            s->parked_count--;
            TAILQ_INSERT_TAIL(&s->pulling, p, link);
            s->pulling_count++;
            p->pull = s->pulls;
            continue;
        }
        if (rc == WEFT_E_MESH_FULL && s->open)
            return; /* until others have ended */
        if (rc)
            end_parked(s, p, rc);
        else
            unpark(s, p);
    }
}

/* Whose pages have come, or will not, begins with the others that wait. */
static void take_pulls(struct serving *s)
{
    struct mover_result result;
    while (s->mover && mover_take(s->mover, &result)) {
        struct parked *p = TAILQ_FIRST(&s->pulling);
        while (p && p->pull != result.id)
            p = TAILQ_NEXT(p, link);
        if (!p)
            continue; /* it has ended meanwhile */
        TAILQ_REMOVE(&s->pulling, p, link);
        s->pulling_count--;
        p->pull = 0;
        p->pulled = true;
        TAILQ_INSERT_TAIL(&s->parked, p, link);
        s->parked_count++;
    }
}

static void expire_list(struct serving *s, struct parked *first, uint64_t now_ns)
{
    struct parked *next;
    for (struct parked *p = first; p; p = next) {
        next = TAILQ_NEXT(p, link);
        if (p->cancelled)
            end_parked(s, p, WEFT_E_CANCELLED);
        else if (p->view.deadline_ns && now_ns >= p->view.deadline_ns)
            end_parked(s, p, WEFT_E_BUDGET_EXPIRED);
    }
}

static void expire_parked(struct serving *s, uint64_t now_ns)
{
    expire_list(s, TAILQ_FIRST(&s->parked), now_ns);
    expire_list(s, TAILQ_FIRST(&s->pulling), now_ns);
}

void serving_fail_parked(struct serving *s, int status)
{
    while (!TAILQ_EMPTY(&s->parked))
        end_parked(s, TAILQ_FIRST(&s->parked), status);
}

void serving_on_cancel(weft_worker_t *port, weft_job_t *job, void *user)
{
    struct serving *s = user;
    struct parked *p;
    (void)port;
    TAILQ_FOREACH(p, &s->parked, link)
    if (p->job == job)
        break;
    if (!p) {
        TAILQ_FOREACH(p, &s->pulling, link)
        if (p->job == job)
            break;
    }
    if (p)
        p->cancelled = true;
    else if (s->runner)
        (void)runner_cancel(s->runner, job_id(job));
}

/* ---- tokens out ---- */

/* A token's text in one piece: half a token can never be resumed behind. */
static int emit(struct serving *s, weft_job_t *job, const struct engine_event *event)
{
    if (event->held_count == 0)
        return weft_job_emit(job, event->token, event->bytes, event->byte_count);
    const size_t size = event->held_count + event->byte_count;
    char *text = realloc(s->text, size);
    if (!text)
        return -ENOMEM;
    s->text = text;
    memcpy(text, event->held, event->held_count);
    memcpy(text + event->held_count, event->bytes, event->byte_count);
    return weft_job_emit(job, event->token, text, size);
}

static void hand_out(struct serving *s, const struct engine_event *event)
{
    weft_job_t *job = (weft_job_t *)(uintptr_t)event->id;
    if (event->kind == ENGINE_TOKEN) {
        weft_logprob_t logprobs[ENGINE_LOGPROBS_MAX];
        const size_t count = host_logprobs(&s->host, event, logprobs);
        if (weft_job_logprobs(job, logprobs, count) || emit(s, job, event))
            (void)runner_cancel(s->runner, event->id);
        return;
    }
    if (event->finish == ENGINE_CANCELLED)
        LOG_INFO("cancelled stop_us=%llu prompt_tokens=%u new_tokens=%u",
                 (unsigned long long)event->stop_us, event->prompt_tokens, event->new_tokens);
    weft_job_report_t report = host_report(event);
    report.queue_us += (uintptr_t)weft_job_user(job);
    const struct kept *e = kept_of(s, event->id);
    if (e && !e->grammar && event->finish == ENGINE_STOP &&
        weft_job_embedding(job, e->values, s->host.info.width)) {
        report.status = WEFT_E_WORKER_FAILED;
        report.finish = WEFT_FINISH_FAILED;
    }
    weft_job_finish(job, &report);
}

/* Without a port (the node has gone) the events are of nobody's interest. */
static void take_events(struct serving *s)
{
    struct engine_event events[EVENTS_AT_ONCE];
    size_t count;
    if (!s->runner)
        return;
    do {
        count = runner_take(s->runner, events, EVENTS_AT_ONCE);
        for (size_t i = 0; i < count; i++) {
            if (s->port)
                hand_out(s, &events[i]);
            if (events[i].kind != ENGINE_DONE)
                continue;
            kept_drop(kept_of(s, events[i].id));
            s->open--;
            s->used_ns = clock_now_ns();
            s->load_changed = true;
        }
    } while (count == EVENTS_AT_ONCE);
}

void serving_work(struct serving *s, uint64_t now_ns)
{
    take_events(s);
    take_pulls(s);
    expire_parked(s, now_ns);
    submit_parked(s, now_ns);
}

void serving_drop_all(struct serving *s)
{
    s->port = NULL;
    while (!TAILQ_EMPTY(&s->parked))
        unpark(s, TAILQ_FIRST(&s->parked));
    while (!TAILQ_EMPTY(&s->pulling))
        unpark(s, TAILQ_FIRST(&s->pulling));
    if (!s->runner)
        return;
    runner_cancel_all(s->runner);
    while (!runner_is_idle(s->runner)) {
        struct pollfd pfd = {.fd = runner_fd(s->runner), .events = POLLIN};
        (void)poll(&pfd, 1, -1);
        take_events(s);
    }
}

/* ---- what it says of itself ---- */

uint64_t serving_waiting_ns(const struct serving *s)
{
    const struct parked *p = TAILQ_FIRST(&s->parked);
    return p ? p->since_ns : 0;
}

bool serving_is_idle(const struct serving *s)
{
    return s->parked_count == 0 && s->pulling_count == 0 &&
           (!s->runner || runner_is_idle(s->runner));
}

weft_load_t serving_load(struct serving *s)
{
    if (s->runner)
        runner_load(s->runner, &s->now);
    weft_load_t load = host_load(&s->now);
    load.room -= load.room < s->pulling_count ? load.room : s->pulling_count;
    /* Pages that come are steps, too: who waits for them sees that something happens. */
    if (s->mover && load.steps && (load.steps += mover_progress(s->mover)) == 0)
        load.steps = 1;
    if (!s->taking) {
        const double us = parked_seconds(s) * 1e6;
        const uint32_t taken = s->open + s->parked_count;
        load.room = taken < s->facts.capacity ? s->facts.capacity - taken : 0;
        load.queue_us = us < (double)UINT32_MAX ? (uint32_t)us : UINT32_MAX;
        load.prefill_per_second = (uint32_t)s->facts.speeds.prefill;
        load.decode_per_second = (uint32_t)s->facts.speeds.decode[0];
    }
    if (s->draining) {
        load.room = 0;
        load.queue_us = UINT32_MAX;
    }
    s->load_changed = false;
    return load;
}

weft_worker_figures_t serving_figures(const struct serving *s)
{
    const struct engine_load *now = &s->now;
    const double *decode = s->runner ? now->speeds.decode : s->facts.speeds.decode;
    return (weft_worker_figures_t){
        .decode_per_second_2 = (uint32_t)decode[1],
        .decode_per_second_4 = (uint32_t)decode[2],
        .decode_per_second_8 = (uint32_t)decode[3],
        .slots = s->facts.slots,
        .running = now->active,
        .waiting = now->queued + s->parked_count + s->pulling_count,
        .kv_pages = now->pages,
        .kv_pages_used = now->pages_used,
        .memory_mib = (uint32_t)(s->facts.bytes >> 20),
        .prefix_queries = (uint32_t)now->looked_tokens,
        .prefix_hits = (uint32_t)now->found_tokens,
        .loaded = s->runner ? 1 : 0,
    };
}

weft_worker_facts_t serving_port_facts(const struct serving *s)
{
    return (weft_worker_facts_t){
        .model = s->name,
        .backend = s->facts.backend,
        .context_tokens = s->facts.context,
        .prefill_per_second = (uint32_t)s->facts.speeds.prefill,
        .decode_per_second = (uint32_t)s->facts.speeds.decode[0],
        .arithmetic = s->facts.arithmetic,
        /* A file that cannot be held to the first two refuses. */
        .can = WEFT_CAN_FORMATS | WEFT_CAN_TOOLS | WEFT_CAN_REUSE,
    };
}
