/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - weft-worker: serves one model to the node on this machine. This thread has the port
 * (weft/worker.h), the jobs and the signals; the model computes on another one (runner.h), so that
 * clients' probes and cancels are answered during the longest step. It sleeps until the port or the
 * runner has something. If the node goes away it stops what it did for it and attaches again.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <weft/wire.h>
#include <weft/worker.h>

#include "kernels/host.h"
#include "kernels/runner.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define RETRY_FIRST_MS   100u
#define RETRY_LAST_MS    5000u
#define DRAIN_TIMEOUT_NS (30 * NS_PER_S)
#define NAME_MAX_BYTES   63u
#define EVENTS_AT_ONCE   64u

static const char usage[] =
    "Usage: weft-worker --port SOCKET --model FILE [options]\n"
    "Serves a GGUF model to the Weft node on this machine.\n"
    "\n"
    "  --port SOCKET     the node's port socket\n"
    "  --model FILE      the model, GGUF\n"
    "  --name NAME       what clients call it; default: the file's name in small letters,\n"
    "                    without its quantisation: smollm2-135m-instruct\n"
    "  --backend WHERE   auto, cpu or cuda; default: auto, a CUDA device if there is one\n"
    "  --threads N       processor threads; default: half the processors\n"
    "  --slots N         requests answered at the same time; default: 4, fewer if memory is\n"
    "                    short; more than fit at their longest share what there is\n"
    "  --queue N         requests that may wait; default: 4 per slot\n"
    "  --context N       tokens of prompt and answer together; default: the model's, 4096 at most\n"
    "  --memory-mib N    memory for the KV cache; default: half of what is free\n"
    "  --help            this text\n"
    "\n"
    "Models: llama (SmolLM2, Llama 3 to 3.2), qwen2 (Qwen2, Qwen2.5) and qwen3, dense; "
    "weights in\n"
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K; byte-level BPE; ChatML, "
    "Qwen3\n"
    "and Llama 3 chats. WEFT_CPU=exact in the environment computes in float32 throughout: slower, "
    "and\n"
    "all nodes that may take over each other's streams have to do the same.\n"
    "\n"
    "Examples:\n"
    "  weft-worker --port /run/weft/port.sock --model SmolLM2-135M-Instruct.Q4_1.gguf\n"
    "  weft-worker --port /run/weft/port.sock --model m.gguf --name small --slots 8 --context "
    "1024\n";

/* An embedding on its way; the engine writes `values` until the job's end. */
struct embedding {
    LIST_ENTRY(embedding) link;
    uint64_t id;
    float values[];
};

struct worker {
    const char *socket_path;
    const char *name;
    struct host_options options;
    struct host host;
    runner_t *runner;
    weft_worker_t *port;
    char *text; /* scratch of one token */
    LIST_HEAD(, embedding) embeddings;
    bool load_changed; /* since it was published last */
    bool draining;
    uint64_t drain_begin_ns;
};

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen = signals_seen + 1;
}

/* A job's address is its id: unique while the job is open. */
static uint64_t job_id(const weft_job_t *job)
{
    return (uint64_t)(uintptr_t)job;
}

static struct embedding *embedding_of(struct worker *w, uint64_t id)
{
    struct embedding *e;
    LIST_FOREACH(e, &w->embeddings, link)
    if (e->id == id)
        return e;
    return NULL;
}

static int embedding_add(struct worker *w, struct engine_request *request)
{
    struct embedding *e = malloc(sizeof(*e) + w->host.info.width * sizeof(e->values[0]));
    if (!e)
        return WEFT_E_WORKER_FAILED;
    e->id = request->id;
    request->embedding = e->values;
    LIST_INSERT_HEAD(&w->embeddings, e, link);
    return 0;
}

static void embedding_drop(struct embedding *e)
{
    if (!e)
        return;
    LIST_REMOVE(e, link);
    free(e);
}

static int on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user)
{
    struct worker *w = user;
    struct engine_request request;
    (void)port;
    if (w->draining)
        return WEFT_E_DRAINING;
    int rc = host_request(&w->host, job_id(job), view, &request);
    if (rc == 0 && request.embed)
        rc = embedding_add(w, &request);
    if (rc == 0)
        rc = host_status(runner_submit(w->runner, &request));
    if (rc) {
        LOG_DEBUG("job refused status=%d", rc);
        embedding_drop(embedding_of(w, request.id));
    }
    w->load_changed = true;
    return rc;
}

static void on_cancel(weft_worker_t *port, weft_job_t *job, void *user)
{
    struct worker *w = user;
    (void)port;
    (void)runner_cancel(w->runner, job_id(job));
}

/* A token's text in one piece: half a token can never be resumed behind. */
static int emit(struct worker *w, weft_job_t *job, const struct engine_event *event)
{
    if (event->held_count == 0)
        return weft_job_emit(job, event->token, event->bytes, event->byte_count);
    const size_t size = event->held_count + event->byte_count;
    char *text = realloc(w->text, size);
    if (!text)
        return -ENOMEM;
    w->text = text;
    memcpy(text, event->held, event->held_count);
    memcpy(text + event->held_count, event->bytes, event->byte_count);
    return weft_job_emit(job, event->token, text, size);
}

static void hand_out(struct worker *w, const struct engine_event *event)
{
    weft_job_t *job = (weft_job_t *)(uintptr_t)event->id;
    if (event->kind == ENGINE_TOKEN) {
        weft_logprob_t logprobs[ENGINE_LOGPROBS_MAX];
        const size_t count = host_logprobs(&w->host, event, logprobs);
        if (weft_job_logprobs(job, logprobs, count) || emit(w, job, event))
            (void)runner_cancel(w->runner, event->id);
        return;
    }
    if (event->finish == ENGINE_CANCELLED)
        LOG_INFO("cancelled stop_us=%llu prompt_tokens=%u new_tokens=%u",
                 (unsigned long long)event->stop_us, event->prompt_tokens, event->new_tokens);
    weft_job_report_t report = host_report(event);
    const struct embedding *e = embedding_of(w, event->id);
    if (e && event->finish == ENGINE_STOP &&
        weft_job_embedding(job, e->values, w->host.info.width)) {
        report.status = WEFT_E_WORKER_FAILED;
        report.finish = WEFT_FINISH_FAILED;
    }
    weft_job_finish(job, &report);
}

/* Without a port (the node has gone) the events are of nobody's interest. */
static void take_events(struct worker *w)
{
    struct engine_event events[EVENTS_AT_ONCE];
    size_t count;
    do {
        count = runner_take(w->runner, events, EVENTS_AT_ONCE);
        for (size_t i = 0; i < count; i++) {
            if (w->port)
                hand_out(w, &events[i]);
            if (events[i].kind == ENGINE_DONE)
                embedding_drop(embedding_of(w, events[i].id));
        }
    } while (count == EVENTS_AT_ONCE);
}

static weft_load_t current_load(struct worker *w)
{
    struct engine_load engine;
    runner_load(w->runner, &engine);
    weft_load_t load = host_load(&engine);
    if (w->draining)
        load.room = 0;
    w->load_changed = false;
    return load;
}

static void publish_load(struct worker *w)
{
    const weft_load_t load = current_load(w);
    weft_worker_set_load(w->port, &load);
}

static int attach(struct worker *w)
{
    const weft_load_t load = current_load(w);
    const weft_worker_facts_t facts = {
        .model = w->name,
        .backend = w->host.info.backend,
        .context_tokens = w->host.info.context,
        .prefill_per_second = load.prefill_per_second,
        .decode_per_second = load.decode_per_second,
    };
    const weft_worker_callbacks_t callbacks = {.on_job = on_job, .on_cancel = on_cancel, .user = w};
    return weft_worker_attach(&w->port, w->socket_path, &facts, &load, &callbacks);
}

/* Sleeps until a descriptor has something, the time is over, or a signal comes. The signals are
 * blocked everywhere else, so none slips in between the look and the sleep. -1 is no descriptor. */
static void wait_ms(int fd, int other_fd, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = other_fd, .events = POLLIN}};
    const struct timespec ts = {.tv_sec = timeout_ms / 1000,
                                .tv_nsec = (timeout_ms % 1000) * 1000000L};
    sigset_t none;
    sigemptyset(&none);
    (void)ppoll(fds, 2, timeout_ms < 0 ? NULL : &ts, &none);
}

/* The jobs go with the port: nothing of theirs may be left when another one comes. */
static void detach(struct worker *w)
{
    weft_worker_destroy(w->port);
    w->port = NULL;
    runner_cancel_all(w->runner);
    while (!runner_is_idle(w->runner)) {
        struct pollfd pfd = {.fd = runner_fd(w->runner), .events = POLLIN};
        (void)poll(&pfd, 1, -1);
        take_events(w);
    }
}

/* Lets a pending signal in without sleeping. */
static void check_signals(struct worker *w)
{
    sigset_t pending;
    if (sigpending(&pending) == 0 &&
        (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1))
        wait_ms(-1, -1, 0);
    if (signals_seen && !w->draining) {
        w->draining = true;
        w->drain_begin_ns = clock_now_ns();
        LOG_INFO("stopping: finishing what is open; a second signal stops at once");
    }
}

static bool is_over(const struct worker *w)
{
    if (!w->draining)
        return false;
    return signals_seen > 1 || !w->port || runner_is_idle(w->runner) ||
           clock_now_ns() - w->drain_begin_ns > DRAIN_TIMEOUT_NS;
}

static void serve_port(struct worker *w)
{
    for (;;) {
        check_signals(w);
        take_events(w);
        publish_load(w); /* fresh before the port answers with it */
        const int rc = weft_worker_process(w->port);
        if (rc) {
            LOG_WARN("the node has gone: %s", weft_status_text(rc));
            return;
        }
        if (w->load_changed)
            publish_load(w);
        if (is_over(w))
            return;
        wait_ms(weft_worker_fd(w->port), runner_fd(w->runner), weft_worker_timeout_ms(w->port));
    }
}

static void run(struct worker *w)
{
    uint32_t retry_ms = RETRY_FIRST_MS;
    int last = 0;
    for (check_signals(w); !is_over(w); check_signals(w)) {
        const int rc = attach(w);
        if (rc) {
            if (rc != last)
                LOG_WARN("cannot attach to %s: %s; trying on", w->socket_path,
                         weft_status_text(rc));
            last = rc;
            wait_ms(-1, -1, (int)retry_ms);
            retry_ms = retry_ms * 2 < RETRY_LAST_MS ? retry_ms * 2 : RETRY_LAST_MS;
            continue;
        }
        LOG_INFO("attached to node %s model=%s", weft_worker_node(w->port)->name, w->name);
        last = 0;
        retry_ms = RETRY_FIRST_MS;
        serve_port(w);
        const bool over = is_over(w);
        detach(w);
        if (over)
            return;
        wait_ms(-1, -1, (int)retry_ms); /* a node that refuses at once must not be hammered */
    }
}

static int parse_backend(const char *text, enum host_backend *out)
{
    static const char *const names[] = {
        [HOST_AUTO] = "auto", [HOST_CPU] = "cpu", [HOST_CUDA] = "cuda"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum host_backend)i;
            return 0;
        }
    }
    fprintf(stderr, "weft-worker: --backend is auto, cpu or cuda, not '%s'\n", text);
    return -EINVAL;
}

static int parse_number(const char *option, const char *text, uint32_t *out)
{
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || text[0] == '-' || value == 0 || value > 1u << 30) {
        fprintf(stderr, "weft-worker: --%s needs a number from 1, not '%s'\n", option, text);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

/* Returns 0 to go on, 1 when done (--help), -EINVAL after a message. */
static int parse_options(struct worker *w, int argc, char **argv)
{
    enum { PORT = 1, MODEL, NAME, BACKEND, THREADS, SLOTS, QUEUE, CONTEXT, MEMORY, HELP };
    static const struct option options[] = {
        {"port", required_argument, NULL, PORT},
        {"model", required_argument, NULL, MODEL},
        {"name", required_argument, NULL, NAME},
        {"backend", required_argument, NULL, BACKEND},
        {"threads", required_argument, NULL, THREADS},
        {"slots", required_argument, NULL, SLOTS},
        {"queue", required_argument, NULL, QUEUE},
        {"context", required_argument, NULL, CONTEXT},
        {"memory-mib", required_argument, NULL, MEMORY},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    uint32_t *const numbers[] = {[THREADS] = &w->options.threads,
                                 [SLOTS] = &w->options.slots,
                                 [QUEUE] = &w->options.queue,
                                 [CONTEXT] = &w->options.context,
                                 [MEMORY] = &w->options.memory_mib};
    int option;
    int index = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == HELP) {
            fputs(usage, stdout);
            return 1;
        }
        if (option == PORT)
            w->socket_path = optarg;
        else if (option == MODEL)
            w->options.model_path = optarg;
        else if (option == NAME)
            w->name = optarg;
        else if (option == BACKEND && parse_backend(optarg, &w->options.backend) == 0)
            continue;
        else if (option < THREADS || option > MEMORY ||
                 parse_number(options[index].name, optarg, numbers[option]))
            return -EINVAL;
    }
    if (!w->socket_path || !w->options.model_path || optind < argc) {
        fprintf(stderr, "weft-worker: --port and --model are needed; see weft-worker --help\n");
        return -EINVAL;
    }
    return 0;
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int open_model(struct worker *w)
{
    char why[256];
    int rc = host_open(&w->host, &w->options, why, sizeof(why));
    if (rc) {
        fprintf(stderr, "weft-worker: cannot serve %s: %s\n", w->options.model_path,
                why[0] ? why : weft_status_text(rc));
        return rc;
    }
    if (!w->host.tokenizer)
        LOG_WARN("%s: only prompts of token ids are served", why);
    else if (w->host.chat.begin == TOKENIZER_NONE)
        LOG_WARN("%s: no chat, only plain text and token ids are served", why);
    struct engine_load load;
    engine_load(w->host.engine, clock_now_ns(), &load);
    LOG_INFO("model=%s backend=%s/%s slots=%u context=%u weights_mib=%zu kv_mib=%zu "
             "prefill_tps=%.0f decode_tps=%.0f",
             w->name, w->host.info.backend, w->host.info.detail, w->host.info.slots,
             w->host.info.context, w->host.info.weight_bytes >> 20, w->host.info.kv_bytes >> 20,
             load.prefill_tps, load.decode_tps);
    return 0;
}

int main(int argc, char **argv)
{
    struct worker w = {0};
    int rc = parse_options(&w, argc, argv);
    if (rc)
        return rc < 0 ? 2 : 0;
    char name[NAME_MAX_BYTES + 2];
    if (!w.name) {
        host_model_name(w.options.model_path, name, sizeof(name));
        w.name = name;
    }
    if (strlen(w.name) > NAME_MAX_BYTES || w.name[0] == 0) {
        fprintf(stderr, "weft-worker: the name must have 1 to %u bytes; use --name\n",
                NAME_MAX_BYTES);
        return 2;
    }
    log_init(LOG_LEVEL_INFO, "weft-worker");
    catch_signals();
    rc = open_model(&w);
    if (rc == 0) {
        rc = runner_create(&w.runner, w.host.engine);
        if (rc)
            fprintf(stderr, "weft-worker: cannot start: %s\n", weft_status_text(rc));
    }
    if (rc == 0)
        run(&w);
    runner_destroy(w.runner);
    host_close(&w.host);
    while (!LIST_EMPTY(&w.embeddings))
        embedding_drop(LIST_FIRST(&w.embeddings));
    free(w.text);
    return rc ? 1 : 0;
}
