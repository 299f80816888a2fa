/* SPDX-License-Identifier: Apache-2.0 */
/* Glue between jobs and the engine; decides sizes from the model and the memory there is. */
#include "kernels/host.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/wire.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/pool.h"
#include "kernels/shards/shards.h"
#ifdef WEFT_WITH_CUDA
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#endif
#include "kernels/model/chat_tools.h"
#include "schemas/base/clock.h"
#include "schemas/base/cpu.h"
#include "schemas/base/crc32c.h"
#include "schemas/base/log.h"
#include "schemas/base/text.h"

#define SLOTS_DEFAULT   4u
#define CONTEXT_DEFAULT 4096u
#define BATCH_ROWS      64u
#define BATCH_ROWS_CUDA 1024u /* a prompt's piece that fills tensor cores */
#define BENCHMARK_US    300000u
#define SUM_BYTES       4096u /* of each tensor: another model differs in all of them */

#define CHAT_MESSAGES_MAX 1024u
#define QUEUE_PER_SLOT    4u
_Static_assert(STOP_STRINGS_MAX >= WEFT_STOPS_MAX && STOP_BYTES_MAX >= WEFT_STOP_BYTES_MAX &&
                   ENGINE_LOGPROBS_MAX >= WEFT_LOGPROBS_MAX,
               "what the wire allows");

static uint64_t host_clock(void *user)
{
    (void)user;
    return clock_now_ns();
}

static size_t processor_memory(void)
{
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX;
}

struct sizes {
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;
    uint32_t pages;
};

static int find_context(const struct host *host, const struct host_options *options,
                        uint32_t *context, char *why, size_t why_size)
{
    *context = options->context ? options->context : CONTEXT_DEFAULT;
    if (*context <= host->model->context)
        return 0;
    if (options->context) {
        (void)snprintf(why, why_size, "the model's context is %u tokens, %u were asked for",
                       host->model->context, *context);
        return -EINVAL;
    }
    *context = host->model->context;
    return 0;
}

/* Slots and pages that fit the memory, or a sentence about what would; -EINVAL where it is the
 * memory that was asked for, which does not change. The cache holds at least one whole context;
 * slots beyond that share what there is, and requests wait for it. */
static int find_sizes(const struct host_options *options, uint32_t context, size_t slot_bytes,
                      size_t free_bytes, struct sizes *out, char *why, size_t why_size)
{
    const size_t memory = options->memory_mib ? (size_t)options->memory_mib << 20 : free_bytes / 2;
    const size_t fit = memory / slot_bytes;
    uint32_t slots = options->slots;
    if (slots == 0)
        slots = fit < SLOTS_DEFAULT ? (uint32_t)fit : SLOTS_DEFAULT;
    if (fit == 0) {
        (void)snprintf(why, why_size,
                       "a context of %u tokens takes %zu MiB of KV cache and %zu MiB may be used. "
                       "Use a shorter context or more memory",
                       context, (slot_bytes >> 20) + 1, memory >> 20);
        return options->memory_mib ? -EINVAL : -ENOMEM;
    }
    const uint64_t slot_pages = (context + EXEC_PAGE_TOKENS - 1) / EXEC_PAGE_TOKENS;
    const uint64_t most = (fit < slots ? fit : slots) * slot_pages;
    *out = (struct sizes){slots, context, slots < BATCH_ROWS ? BATCH_ROWS : slots * 2,
                          most < UINT32_MAX / 2 ? (uint32_t)most : UINT32_MAX / 2};
    return 0;
}

static int open_cpu(struct host *host, const struct host_options *options, uint32_t context,
                    char *why, size_t why_size)
{
    struct sizes sizes;
    const int rc = find_sizes(options, context, cpu_kv_slot_bytes(host->model, context),
                              processor_memory(), &sizes, why, why_size);
    if (rc)
        return rc;
    const uint32_t shards = options->shards ? options->shards : 1;
    const uint32_t stages = options->stages ? options->stages : 1;
    const uint32_t cpus = cpu_permitted() / shards; /* stages take turns */
    const struct cpu_options cpu = {
        .threads = options->threads              ? options->threads
                   : cpus / 2 > POOL_THREADS_MAX ? POOL_THREADS_MAX
                   : cpus > 3                    ? cpus / 2
                                                 : 1,
        .slots = sizes.slots,
        .context = sizes.context,
        .batch_max = sizes.batch_max,
        .pages = sizes.pages,
    };
    if (cpu.threads > POOL_THREADS_MAX) {
        (void)snprintf(why, why_size, "%u threads; %u at most", cpu.threads, POOL_THREADS_MAX);
        return -EINVAL;
    }
    if (shards == 1 && stages == 1)
        return cpu_create(&host->exec, host->model, &cpu);
    const struct shards_options ranks = {
        .model_path = options->model_path, .shards = shards, .stages = stages, .cpu = cpu};
    return shards_create(&host->exec, host->model, &ranks, why, why_size);
}

#ifdef WEFT_WITH_CUDA
static enum cuda_gemm gemm_of(const struct host_options *options)
{
    return options->gemm == HOST_GEMM_AUTO       ? CUDA_GEMM_AUTO
           : options->gemm == HOST_GEMM_CUBLASLT ? CUDA_GEMM_CUBLASLT
                                                 : CUDA_GEMM_OWN;
}

static int open_cuda_shards(struct host *host, const struct host_options *options,
                            const struct sizes *sizes, char *why, size_t why_size)
{
    const struct shards_options ranks = {.model_path = options->model_path,
                                         .shards = options->shards,
                                         .is_cuda = true,
                                         .fast = options->gemm != HOST_GEMM_EXACT,
                                         .gemm = gemm_of(options),
                                         .cpu = {.slots = sizes->slots,
                                                 .context = sizes->context,
                                                 .batch_max = sizes->batch_max,
                                                 .pages = sizes->pages}};
    return shards_create(&host->exec, host->model, &ranks, why, why_size);
}

/* -ENODEV without a device. */
static int open_cuda(struct host *host, const struct host_options *options, uint32_t context,
                     char *why, size_t why_size)
{
    struct sizes sizes;
    size_t free_bytes;
    size_t total_bytes;
    const uint32_t shards = options->shards ? options->shards : 1;
    if (device_count() == 0) {
        (void)snprintf(why, why_size, "there is no CUDA device: %s", device_trouble());
        return -ENODEV;
    }
    device_memory(&free_bytes, &total_bytes);
    /* The weights go there too; of either each shard has a part. */
    const size_t weights = (host->model->weight_bytes + host->model->weight_bytes / 8) / shards;
    const int rc =
        find_sizes(options, context, cuda_kv_slot_bytes(host->model, context, false) / shards,
                   free_bytes > weights ? free_bytes - weights : 0, &sizes, why, why_size);
    if (rc)
        return rc;
    if (sizes.batch_max < BATCH_ROWS_CUDA)
        sizes.batch_max = BATCH_ROWS_CUDA;
    if (shards > 1)
        return open_cuda_shards(host, options, &sizes, why, why_size);
    const struct cuda_options cuda = {.slots = sizes.slots,
                                      .context = sizes.context,
                                      .batch_max = sizes.batch_max,
                                      .pages = sizes.pages,
                                      .fast = options->gemm != HOST_GEMM_EXACT,
                                      .gemm = gemm_of(options)};
    return cuda_create(&host->exec, host->model, &cuda, why, why_size);
}
#else
static int open_cuda(struct host *host, const struct host_options *options, uint32_t context,
                     char *why, size_t why_size)
{
    (void)host;
    (void)options;
    (void)context;
    (void)snprintf(why, why_size, "this build has no CUDA backend");
    return -ENODEV;
}
#endif

static int open_backend(struct host *host, const struct host_options *options, char *why,
                        size_t why_size)
{
    uint32_t context;
    int rc = find_context(host, options, &context, why, why_size);
    if (rc == 0 && options->stages > 1 && options->backend == HOST_CUDA) {
        (void)snprintf(why, why_size, "stages are for the cpu backend");
        rc = -ENOTSUP;
    }
    if (rc || options->stages > 1 || options->backend == HOST_CPU)
        return rc ? rc : open_cpu(host, options, context, why, why_size);
    rc = open_cuda(host, options, context, why, why_size);
    if (rc == 0 || options->backend == HOST_CUDA)
        return rc;
    if (rc != -ENODEV)
        LOG_WARN("not on the CUDA device: %s", why);
    why[0] = 0;
    return open_cpu(host, options, context, why, why_size);
}

/* A model without a tokenizer or a template known here still serves what needs none. */
static int open_text(struct host *host, char *why, size_t why_size)
{
    host->chat = (struct chat){.begin = TOKENIZER_NONE};
    int rc = tokenizer_create(&host->tokenizer, host->model->file, why, why_size);
    if (rc == -ENOTSUP)
        return 0;
    if (rc)
        return rc;
    if (tokenizer_vocab(host->tokenizer) != host->model->vocab) {
        (void)snprintf(why, why_size, "the tokenizer has %u tokens, the network %u",
                       tokenizer_vocab(host->tokenizer), host->model->vocab);
        return -EINVAL;
    }
    if (chat_init(&host->chat, host->model->file, host->tokenizer, why, why_size))
        host->chat.begin = TOKENIZER_NONE;
    return 0;
}

/* Does a name's last part say how the weights are stored: q4_1, iq2_xxs, f16, bf16, f32? */
static bool is_quantisation(const char *part)
{
    if (strcmp(part, "f16") == 0 || strcmp(part, "bf16") == 0 || strcmp(part, "f32") == 0)
        return true;
    if (*part == 'i')
        part++;
    return part[0] == 'q' && part[1] >= '0' && part[1] <= '9';
}

void host_model_name(const char *path, char *name, size_t size)
{
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : path);
    for (char *c = name; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : text_is_word(c, 1) ? *c : '-');
    char *dot = strrchr(name, '.');
    if (dot && strcmp(dot, ".gguf") == 0)
        *dot = 0;
    for (char *c = name + strlen(name); c > name; c--)
        if (*c == '.' || *c == '-') {
            if (is_quantisation(c + 1))
                *c = 0;
            break;
        }
}

int host_open(struct host *host, const struct host_options *options, char *why, size_t why_size)
{
    memset(host, 0, sizeof(*host));
    why[0] = 0;
    int rc = model_open(&host->model, options->model_path, why, why_size);
    if (rc == 0)
        rc = open_text(host, why, why_size);
    if (rc)
        return rc;
    char text_why[128]; /* why there is no tokenizer, if there is none: not to be lost */
    (void)snprintf(text_why, sizeof(text_why), "%s", why);
    rc = open_backend(host, options, why, why_size);
    if (rc)
        return rc;
    (void)snprintf(why, why_size, "%s", text_why);
    exec_info(host->exec, &host->info);
    if (host->tokenizer) {
        rc = grammar_vocab_create(&host->vocab, host->tokenizer);
        if (rc && rc != -ENOTSUP)
            return rc;
    }
    const uint32_t queue = options->queue ? options->queue : QUEUE_PER_SLOT * host->info.slots;
    if (queue > ENGINE_QUEUE_MAX) {
        (void)snprintf(why, why_size, "a queue of %u requests; %u at most", queue,
                       ENGINE_QUEUE_MAX);
        return -EINVAL;
    }
    const struct engine_options engine = {.queue_max = queue,
                                          .reserve = queue / HOST_RESERVE_PART,
                                          .clock = host_clock,
                                          .vocab = host->vocab};
    rc = engine_create(&host->engine, host->exec, host->tokenizer, &engine);
    if (rc)
        return rc;
    host->prompt = calloc(host->info.context, sizeof(*host->prompt));
    if (!host->prompt)
        return -ENOMEM;
    if (options->speeds) {
        engine_set_speeds(host->engine, options->speeds);
        return 0;
    }
    const uint64_t begin_ns = clock_now_ns();
    rc = engine_benchmark(host->engine, BENCHMARK_US);
    host->measuring_ns = clock_now_ns() - begin_ns;
    return rc;
}

uint32_t host_arithmetic(const struct host *host)
{
    const gguf_t *file = host->model->file;
    const struct exec_info *info = &host->info;
    /* Without a mode only the same instructions, and as many shards, give the same bits. */
    const char *mode = info->mode ? info->mode : info->detail;
    uint32_t sum = crc32c(0, info->backend, strlen(info->backend));
    sum = crc32c(sum, mode, strlen(mode));
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(file, i);
        sum = crc32c(sum, t->name.data, t->name.len);
        sum = crc32c(sum, &t->type, sizeof(t->type));
        sum = crc32c(sum, t->dim, sizeof(t->dim));
        if (t->data)
            sum = crc32c(sum, t->data, t->size_bytes < SUM_BYTES ? t->size_bytes : SUM_BYTES);
    }
    return sum ? sum : 1;
}

size_t host_memory_bytes(const struct host *host)
{
    return host->info.weight_bytes + host->info.kv_bytes + host->info.work_bytes;
}

void host_close(struct host *host)
{
    engine_destroy(host->engine);
    exec_destroy(host->exec);
    grammar_vocab_destroy(host->vocab);
    tokenizer_destroy(host->tokenizer);
    model_destroy(host->model);
    free(host->prompt);
    memset(host, 0, sizeof(*host));
}

static int encode_text(struct host *host, const weft_job_part_t *part, size_t *count)
{
    const uint32_t bos = tokenizer_bos(host->tokenizer);
    const size_t begin = bos == TOKENIZER_NONE ? 0 : 1;
    if (begin)
        host->prompt[0] = bos;
    int rc = tokenizer_encode(host->tokenizer, part->text, part->len, 0, host->prompt + begin,
                              host->info.context - begin, count);
    *count += begin;
    return rc;
}

static int encode_chat(struct host *host, const weft_job_view_t *view, size_t *count)
{
    if (host->chat.begin == TOKENIZER_NONE || view->part_count > CHAT_MESSAGES_MAX)
        return -ENOTSUP;
    struct chat_message *messages = calloc(view->part_count, sizeof(*messages));
    if (!messages)
        return -ENOMEM;
    for (size_t i = 0; i < view->part_count; i++)
        messages[i] =
            (struct chat_message){view->parts[i].role, view->parts[i].text, view->parts[i].len};
    struct chat chat = host->chat;
    struct chat_tools tools = {.messages = NULL};
    chat.no_thinking = view->no_thinking != 0 || view->format != WEFT_FORMAT_NONE;
    chat.must_call = view->format == WEFT_FORMAT_CALL;
    int rc = chat_tools_begin(&tools, &chat, messages, view->part_count);
    if (rc == 0)
        rc = chat_encode(&chat, tools.messages, tools.count, host->prompt, host->info.context,
                         count);
    chat_tools_end(&tools);
    free(messages);
    return rc;
}

int host_status(int rc)
{
    if (rc == -ENOBUFS)
        return WEFT_E_TOO_LONG;
    if (rc == -EINVAL || rc == -ENOTSUP)
        return WEFT_E_BAD_REQUEST;
    return rc == -ENOMEM ? WEFT_E_WORKER_FAILED : rc;
}

static struct sampler_params sampling_of(const weft_job_view_t *view)
{
    return (struct sampler_params){
        .temperature = view->temperature,
        .top_p = view->top_p,
        .min_p = view->min_p,
        .top_k = view->top_k,
        .seed = view->seed,
        .repetition = view->repetition_penalty,
        .presence = view->presence_penalty,
        .frequency = view->frequency_penalty,
    };
}

/* The tools that a CALL is one of come with the chat. */
static int make_grammar(const struct host *host, const weft_job_view_t *view, struct grammar **out)
{
    char why[160];
    char tool[WEFT_TOOL_NAME_MAX] = "";
    struct grammar_spec spec = {.kind = (enum grammar_kind)view->format,
                                .text = view->format_text,
                                .len = view->format_len,
                                .arguments = chat_arguments_key(&host->chat)};
    if (view->format == WEFT_FORMAT_CALL) {
        if (view->format_len >= sizeof(tool) || view->part_count == 0 ||
            view->parts[0].role != WEFT_ROLE_TOOLS)
            return WEFT_E_BAD_REQUEST;
        memcpy(tool, view->format_text, view->format_len);
        spec.tool = tool;
        spec.text = view->parts[0].text;
        spec.len = view->parts[0].len;
    }
    if (!host->vocab)
        return WEFT_E_NO_CAPABLE_NODE;
    const int rc = grammar_compile(out, &spec, why, sizeof(why));
    if (rc)
        LOG_DEBUG("format refused: %s", why);
    return rc == -ENOMEM ? WEFT_E_WORKER_FAILED : rc ? WEFT_E_BAD_REQUEST : 0;
}

uint64_t host_tenant(const weft_job_view_t *view)
{
    return view->session ? view->session : view->conn_id;
}

int host_request(struct host *host, uint64_t id, const weft_job_view_t *view,
                 struct engine_request *out)
{
    int rc = 0;
    *out = (struct engine_request){
        .id = id,
        .tokens = host->prompt,
        .resume = view->resume,
        .resume_count = view->resume_count,
        .sampling = sampling_of(view),
        .stops = host->stops,
        .stop_count = view->stop_count,
        .logprobs = view->logprobs,
        .embed = (enum engine_embed)view->embed,
        .max_tokens = view->max_tokens,
        .deadline_ns = view->deadline_ns,
        .deadline_is_end_to_end = view->deadline_is_end_to_end != 0,
        .priority = view->priority,
        .tenant = host_tenant(view),
    };
    if (view->stop_count > STOP_STRINGS_MAX ||
        (view->embed && (host->info.width == 0 || host->info.width > WEFT_EMBEDDING_MAX)))
        return WEFT_E_BAD_REQUEST;
    for (size_t i = 0; i < view->stop_count; i++)
        host->stops[i] = (struct gguf_str){view->stops[i].text, view->stops[i].len};
    if (view->tokens) {
        out->tokens = view->tokens;
        out->token_count = view->token_count;
    } else if (!host->tokenizer || view->part_count == 0) {
        rc = -EINVAL;
    } else if (view->part_count == 1 && view->parts[0].role == 0) {
        rc = encode_text(host, &view->parts[0], &out->token_count);
    } else {
        rc = encode_chat(host, view, &out->token_count);
    }
    if (rc == 0 && view->format != WEFT_FORMAT_NONE)
        rc = make_grammar(host, view, &out->grammar);
    return host_status(rc);
}

size_t host_logprobs(const struct host *host, const struct engine_event *event, weft_logprob_t *out)
{
    for (uint32_t i = 0; i < event->logprob_count; i++) {
        const struct engine_logprob *from = &event->logprobs[i];
        struct gguf_str text = {"", 0};
        if (host->tokenizer)
            text = tokenizer_token_bytes(host->tokenizer, from->token);
        out[i] = (weft_logprob_t){from->token, from->logprob, text.data, text.len};
    }
    return event->logprob_count;
}

weft_job_report_t host_report(const struct engine_event *event)
{
    weft_job_report_t report = {
        .status = 0,
        .finish = WEFT_FINISH_STOP,
        .prompt_tokens = event->prompt_tokens,
        .new_tokens = event->new_tokens,
        .queue_us = event->queue_us,
        .prefill_us = event->prefill_us,
        .decode_us = event->decode_us,
        .cached_tokens = event->cached_tokens,
        .tail = event->held,
        .tail_len = event->held_count,
    };
    switch (event->finish) {
    case ENGINE_STOP:
        break;
    case ENGINE_LENGTH:
        report.finish = WEFT_FINISH_LENGTH;
        break;
    case ENGINE_CANCELLED:
        report.status = WEFT_E_CANCELLED;
        report.finish = WEFT_FINISH_CANCELLED;
        break;
    case ENGINE_DEADLINE:
        report.status = WEFT_E_BUDGET_EXPIRED;
        report.finish = WEFT_FINISH_FAILED;
        break;
    case ENGINE_ERROR:
        report.status = WEFT_E_WORKER_FAILED;
        report.finish = WEFT_FINISH_FAILED;
        break;
    }
    return report;
}

weft_load_t host_load(const struct engine_load *load)
{
    return (weft_load_t){
        .room = load->room,
        .queue_us = load->queue_us < UINT32_MAX ? (uint32_t)load->queue_us : UINT32_MAX,
        .free_vram_mib = load->free_mib,
        .steps = load->steps,
        .prefill_per_second = (uint32_t)load->prefill_tps,
        .decode_per_second = (uint32_t)load->decode_tps,
    };
}
