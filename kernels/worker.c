/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - weft-worker: serves models to the node on this machine. This thread has the ports, one
 * for each model, and the signals (stay.h), and the jobs (serving.h); models compute on threads of
 * their own (runner.h), so that clients' probes and cancels are answered during the longest step,
 * and are loaded and unloaded on another one (library.h).
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/library.h"
#include "kernels/shards/shards.h"
#include "kernels/stay.h"
#include "schemas/base/log.h"
#include "schemas/base/text.h"

#define NAME_MAX_BYTES 63u
_Static_assert(SHELF_MODELS_MAX <= STAY_PORTS_MAX && SHELF_MODELS_MAX < STAY_FDS_MAX,
               "a port and a descriptor for each");

static const char usage[] =
    "weft-worker - serves GGUF models to the Weft node on this machine\n"
    "\n"
    "usage: weft-worker --port SOCKET --model FILE [OPTION]...\n"
    "\n"
    "  --port SOCKET     the node's port socket\n"
    "  --model FILE      the model, GGUF; up to 8 times for as many models. What does not fit\n"
    "                    the memory is loaded when it is asked for, in place of what is not\n"
    "  --name NAME       what clients call it; default: the file's name in small letters,\n"
    "                    without its quantisation: smollm2-135m-instruct. Of several models, one "
    "each\n"
    "  --backend WHERE   auto, cpu or cuda; default: auto, a CUDA device if there is one\n"
    "  --gemm HOW        how CUDA devices read prompts: exact (default) in float32; own, on the\n"
    "                    tensor cores as 16-bit numbers, many times as fast, but a stream that\n"
    "                    another node takes over may go on otherwise; cublaslt, there by "
    "cuBLASLt;\n"
    "                    auto, for each shape of a matrix by whichever is faster, measured when\n"
    "                    the model is loaded (one device)\n"
    "  --threads N       processor threads; default: half the processors\n"
    "  --shards N        processes that compute every layer together, each its share of heads,\n"
    "                    MLP and vocabulary, on a CUDA device each or on the processor; default: "
    "1\n"
    "  --stages M        groups of such processes that have a part of the layers each, on the\n"
    "                    processor; default: 1\n"
    "  --slots N         requests answered at the same time; default: 4, fewer if memory is\n"
    "                    short; more than fit at their longest share what there is\n"
    "  --queue N         requests that may wait; default: 4 per slot\n"
    "  --context N       tokens of prompt and answer together; default: the model's, 4096 at most\n"
    "  --memory-mib N    memory for a model's KV cache; default: half of what is free\n"
    "  --models-mib N    of several models, memory for all that are loaded, weights and KV cache;\n"
    "                    default: three quarters of what is free at the start\n"
    "  --kv-dir DIR      keeps what is known of prompts' beginnings there while a model is not\n"
    "                    loaded and from one start to the next; DIR/NAME.weftkv serves the same\n"
    "                    model at another node, too\n"
    "  -h, --help        this text\n"
    "  -V, --version     version\n"
    "\n"
    "Models: llama (SmolLM2, Llama 3 to 3.2), qwen2 (Qwen2, Qwen2.5) and qwen3, dense; "
    "weights in\n"
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K; byte-level BPE; ChatML, "
    "Qwen3\n"
    "and Llama 3 chats. WEFT_CPU=exact in the environment computes in float32 throughout: slower, "
    "and\n"
    "all nodes that may take over each other's streams have to do the same. WEFT_CUDA=fast is\n"
    "--gemm own; WEFT_CUBLASLT=FILE is the cuBLASLt to use.\n"
    "\n"
    "exit: 0 stopped, 1 error, 2 wrong usage, or a model that cannot be served\n"
    "\n"
    "examples:\n"
    "  weft-worker --port /run/weft/port.sock --model SmolLM2-135M-Instruct.Q4_1.gguf\n"
    "  weft-worker --port /run/weft/port.sock --model m.gguf --name small --slots 8 --context "
    "1024\n"
    "  weft-worker --port /run/weft/port.sock --model a.gguf --model b.gguf --models-mib 8192\n";

struct worker {
    const char *socket_path;
    struct host_options options;
    uint32_t models_mib;
    const char *kv_dir;
    uint32_t count;
    const char *paths[SHELF_MODELS_MAX];
    const char *names[SHELF_MODELS_MAX];
    char own_names[SHELF_MODELS_MAX][NAME_MAX_BYTES + 2]; /* where none was given */
    struct library library;
    struct stay stay; /* a port for each model */
};

/* ---- stay.h ---- */

static int attach(void *user, uint32_t index, weft_worker_t **port)
{
    struct worker *w = user;
    struct serving *s = &w->library.servings[index];
    const weft_load_t load = serving_load(s);
    const weft_worker_facts_t facts = serving_port_facts(s);
    const weft_worker_callbacks_t callbacks = {
        .on_job = serving_on_job, .on_cancel = serving_on_cancel, .user = s};
    const int rc = weft_worker_attach(port, w->socket_path, &facts, &load, &callbacks);
    s->port = rc ? NULL : *port;
    return rc;
}

static void detach(void *user, uint32_t index)
{
    struct worker *w = user;
    serving_drop_all(&w->library.servings[index]);
}

static void work(void *user)
{
    struct worker *w = user;
    for (uint32_t i = 0; i < w->count; i++)
        w->library.servings[i].draining = w->stay.draining;
    library_work(&w->library);
    for (uint32_t i = 0; i < w->count; i++) {
        if (!w->stay.ports[i].port)
            continue;
        struct serving *s = &w->library.servings[i];
        const weft_load_t load = serving_load(s);
        const weft_worker_figures_t figures = serving_figures(s);
        weft_worker_set_load(w->stay.ports[i].port, &load);
        weft_worker_set_figures(w->stay.ports[i].port, &figures);
    }
}

static bool is_idle(void *user)
{
    const struct worker *w = user;
    return library_is_idle(&w->library);
}

static int timeout_ms(void *user)
{
    const struct worker *w = user;
    return library_timeout_ms(&w->library);
}

static size_t fds(void *user, struct pollfd *out)
{
    const struct worker *w = user;
    size_t count = 0;
    out[count++] = (struct pollfd){.fd = w->library.done_fd, .events = POLLIN};
    for (uint32_t i = 0; i < w->count; i++)
        if (w->library.servings[i].runner)
            out[count++] =
                (struct pollfd){.fd = runner_fd(w->library.servings[i].runner), .events = POLLIN};
    return count;
}

static void run(struct worker *w)
{
    const struct stay_ops ops = {attach, detach, work, is_idle, timeout_ms, fds, w};
    w->stay = (struct stay){.socket_path = w->socket_path, .ops = &ops, .count = w->count};
    for (uint32_t i = 0; i < w->count; i++)
        w->stay.ports[i].model = w->names[i];
    stay_run(&w->stay);
}

/* ---- options ---- */

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

static int parse_gemm(const char *text, enum host_gemm *out)
{
    static const char *const names[] = {[HOST_GEMM_EXACT] = "exact",
                                        [HOST_GEMM_OWN] = "own",
                                        [HOST_GEMM_AUTO] = "auto",
                                        [HOST_GEMM_CUBLASLT] = "cublaslt"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum host_gemm)i;
            return 0;
        }
    }
    fprintf(stderr, "weft-worker: --gemm is exact, own, auto or cublaslt, not '%s'\n", text);
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

enum option_id {
    PORT = 1,
    MODEL,
    NAME,
    BACKEND,
    GEMM,
    THREADS,
    SHARDS,
    STAGES,
    SLOTS,
    QUEUE,
    CONTEXT,
    MEMORY,
    MODELS_MEMORY,
    KV_DIR,
};

static int add_text(const char **list, uint32_t *count, const char *option, const char *text)
{
    if (*count == SHELF_MODELS_MAX) {
        fprintf(stderr, "weft-worker: --%s is given more than %u times\n", option,
                SHELF_MODELS_MAX);
        return -EINVAL;
    }
    list[(*count)++] = text;
    return 0;
}

/* Names that are not given come from the files; all must be different. */
static int find_names(struct worker *w, uint32_t given)
{
    if (given && given != w->count) {
        fprintf(stderr, "weft-worker: %u models and %u names; one each, or none\n", w->count,
                given);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        if (!w->names[i]) {
            host_model_name(w->paths[i], w->own_names[i], sizeof(w->own_names[i]));
            w->names[i] = w->own_names[i];
        }
        if (strlen(w->names[i]) > NAME_MAX_BYTES || w->names[i][0] == 0 ||
            !text_is_word(w->names[i], strlen(w->names[i]))) {
            fprintf(stderr,
                    "weft-worker: a name has 1 to %u printable characters, no space; use --name\n",
                    NAME_MAX_BYTES);
            return -EINVAL;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(w->names[i], w->names[j]) == 0) {
                fprintf(stderr, "weft-worker: two models called %s; use --name\n", w->names[i]);
                return -EINVAL;
            }
        }
    }
    return 0;
}

/* Returns 0 to go on, 1 when done (--help, --version), -EINVAL after a message. */
static int parse_options(struct worker *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, PORT},
        {"model", required_argument, NULL, MODEL},
        {"name", required_argument, NULL, NAME},
        {"backend", required_argument, NULL, BACKEND},
        {"gemm", required_argument, NULL, GEMM},
        {"threads", required_argument, NULL, THREADS},
        {"shards", required_argument, NULL, SHARDS},
        {"stages", required_argument, NULL, STAGES},
        {"slots", required_argument, NULL, SLOTS},
        {"queue", required_argument, NULL, QUEUE},
        {"context", required_argument, NULL, CONTEXT},
        {"memory-mib", required_argument, NULL, MEMORY},
        {"models-mib", required_argument, NULL, MODELS_MEMORY},
        {"kv-dir", required_argument, NULL, KV_DIR},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    uint32_t *const numbers[] = {
        [THREADS] = &w->options.threads,   [SHARDS] = &w->options.shards,
        [STAGES] = &w->options.stages,     [SLOTS] = &w->options.slots,
        [QUEUE] = &w->options.queue,       [CONTEXT] = &w->options.context,
        [MEMORY] = &w->options.memory_mib, [MODELS_MEMORY] = &w->models_mib};
    uint32_t names = 0;
    int rc = 0;
    int option;
    int index = 0;
    while (rc == 0 && (option = getopt_long(argc, argv, "hV", options, &index)) != -1) {
        if (option == 'h' || option == 'V') {
            fputs(option == 'h' ? usage : "weft-worker " WEFT_RELEASE "\n", stdout);
            return 1;
        }
        if (option == PORT)
            w->socket_path = optarg;
        else if (option == KV_DIR)
            w->kv_dir = optarg;
        else if (option == MODEL)
            rc = add_text(w->paths, &w->count, "model", optarg);
        else if (option == NAME)
            rc = add_text(w->names, &names, "name", optarg);
        else if (option == BACKEND)
            rc = parse_backend(optarg, &w->options.backend);
        else if (option == GEMM)
            rc = parse_gemm(optarg, &w->options.gemm);
        else if (option >= THREADS && option <= MODELS_MEMORY)
            rc = parse_number(options[index].name, optarg, numbers[option]);
        else
            rc = -EINVAL;
    }
    if (rc)
        fputs("see weft-worker --help\n", stderr);
    if (rc == 0 && (!w->socket_path || w->count == 0 || optind < argc)) {
        fprintf(stderr, "weft-worker: --port and --model are needed; see weft-worker --help\n");
        rc = -EINVAL;
    }
    return rc ? rc : find_names(w, names);
}

/* 2 where another start would end the same way: whoever starts it again need not try. */
static int status_of(int rc)
{
    const bool for_good = rc == -EINVAL || rc == -ENOENT || rc == -EACCES || rc == -ENOTSUP;
    return rc == 0 ? 0 : for_good ? 2 : 1;
}

/* Said now: the first cache may be kept hours later. */
static int make_kv_dir(const char *path)
{
    if (mkdir(path, 0700) && errno != EEXIST) {
        fprintf(stderr, "weft-worker: cannot make --kv-dir %s: %s\n", path, strerror(errno));
        return -errno;
    }
    if (access(path, R_OK | W_OK | X_OK)) {
        fprintf(stderr, "weft-worker: cannot use --kv-dir %s: %s\n", path, strerror(errno));
        return -errno;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct worker w;
    struct host_options options[SHELF_MODELS_MAX];
    if (shards_is_rank(argc, argv))
        return shards_rank_main();
    int rc = parse_options(&w, argc, argv);
    if (rc)
        return rc < 0 ? 2 : 0;
    log_init(LOG_LEVEL_INFO, "weft-worker");
    stay_catch_signals();
    for (uint32_t i = 0; i < w.count; i++) {
        options[i] = w.options;
        options[i].model_path = w.paths[i];
    }
    if (w.kv_dir && make_kv_dir(w.kv_dir))
        return 2;
    rc = library_open(&w.library, w.count, w.names, options, (uint64_t)w.models_mib << 20, w.kv_dir,
                      w.socket_path);
    if (rc == 0)
        run(&w);
    library_close(&w.library);
    return status_of(rc);
}
