/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the CUDA backend: what it needs is found and taken at creation; a step allocates
 * nothing. */
#include "kernels/cuda/cuda.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/backend.h"

#define CUDA_BATCH_DEFAULT 64u
#define CUDA_BATCH_MAX     4096u
#define CUDA_SLOTS_MAX     4096u
#define CUDA_ALIGN         256u

size_t cuda_kv_slot_bytes(const struct model *model, uint32_t context, bool half_kv)
{
    const size_t whole = ((size_t)context + OP_PAGE - 1) / OP_PAGE * OP_PAGE;
    size_t bytes = (size_t)model->kv_head_count * model->head_width * 2 * (half_kv ? 2 : 4);
    if (__builtin_mul_overflow(bytes, (size_t)model->layer_count, &bytes) ||
        __builtin_mul_overflow(bytes, whole, &bytes))
        return SIZE_MAX;
    return bytes;
}

static int check_model(const struct model *m, char *why, size_t why_size)
{
    if (m->width % 4 || m->head_width % 4 || m->head_width > OP_HEAD_MAX ||
        m->width > OP_COLS_MAX || m->ffn_width > OP_COLS_MAX ||
        (uint64_t)m->head_count * m->head_width > OP_COLS_MAX) {
        (void)snprintf(why, why_size,
                       "a stream of %u, %u heads of %u and layers of %u run on the processor only",
                       m->width, m->head_count, m->head_width, m->ffn_width);
        return -ENOTSUP;
    }
    return 0;
}

static int allocate_kv(struct cuda *cuda, uint32_t pages)
{
    void *memory = NULL;
    const uint32_t stride = cuda->context / OP_PAGE + (cuda->context % OP_PAGE != 0);
    const uint32_t count = pages ? pages : cuda->slots * stride;
    const size_t page = cuda_kv_slot_bytes(cuda->model, OP_PAGE, cuda->half_kv);
    if (count < stride)
        return -EINVAL;
    if (__builtin_mul_overflow(page, (size_t)count, &cuda->kv_bytes))
        return -ENOMEM;
    int rc = pages_init(&cuda->pages, cuda->slots, cuda->context, OP_PAGE, count);
    if (!rc)
        rc = device_alloc(&memory, cuda->kv_bytes);
    if (rc)
        return rc;
    cuda->kv = memory;
    cuda->kv_layer_bytes = cuda->kv_bytes / cuda->model->layer_count;
    rc = device_alloc(&memory, (size_t)cuda->slots * stride * sizeof(uint32_t));
    cuda->tables = memory;
    return rc;
}

static struct cuda_inputs inputs_in(void *memory, size_t batch_max)
{
    struct op_row *rows = memory;
    struct op_tile *tiles = (struct op_tile *)(void *)(rows + batch_max);
    uint32_t *words = (uint32_t *)(void *)(tiles + batch_max);
    return (struct cuda_inputs){rows, tiles, words, words + batch_max, words + 2 * batch_max};
}

static int allocate_inputs(struct cuda *cuda)
{
    cuda->inputs_bytes =
        cuda->batch_max * (sizeof(struct op_row) + sizeof(struct op_tile) + 3 * sizeof(uint32_t));
    int rc = device_alloc_host(&cuda->inputs_memory, cuda->inputs_bytes);
    if (!rc)
        rc = device_alloc(&cuda->inputs_copy, cuda->inputs_bytes);
    if (rc)
        return rc;
    cuda->inputs = inputs_in(cuda->inputs_memory, cuda->batch_max);
    cuda->inputs_dev = inputs_in(cuda->inputs_copy, cuda->batch_max);
    if (cuda->shard) {
        void *memory = NULL;
        rc = device_alloc_host(&memory, DEVICE_MARKS * sizeof(*cuda->stops));
        cuda->stops = memory;
    }
    return rc;
}

/* Rows of the vocabulary that a rank has at most. */
static uint32_t vocab_rows_max(const struct cuda *cuda)
{
    const struct shard *s = cuda->shard;
    uint32_t most = s ? 0 : cuda->model->vocab;
    for (uint32_t r = 0; s && r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        most = rows.end - rows.begin > most ? rows.end - rows.begin : most;
    }
    return most;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static size_t aligned(size_t bytes)
{
    return (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
}

static int allocate_work(struct cuda *cuda)
{
    const struct model *m = cuda->model;
    const size_t attn = (size_t)m->head_count * m->head_width;
    const size_t kv = (size_t)m->kv_head_count * m->head_width;
    const size_t ranks = cuda->shard ? cuda->shard->place.shards : 0;
    const size_t fast = cuda->is_fast ? cuda->batch_max : 0;
    const uint32_t attends = least(cuda->batch_max, CUDA_ATTEND_COLUMNS);
    const size_t picks = least(cuda->batch_max, CUDA_LOGITS_COLUMNS);
    const struct {
        float **at;
        size_t floats; /* of all columns */
    } parts[] = {
        {&cuda->x, (size_t)m->width * cuda->batch_max + 1},
        {&cuda->q, attn * cuda->batch_max},
        {&cuda->k, kv * cuda->batch_max},
        {&cuda->v, kv * cuda->batch_max},
        {&cuda->mixed, attn * cuda->batch_max},
        {&cuda->gate, (size_t)m->ffn_width * cuda->batch_max},
        {&cuda->up, (size_t)m->ffn_width * cuda->batch_max},
        {&cuda->partial, op_partial_floats(attends, m->head_count, m->head_width)},
        {&cuda->logits, (size_t)cuda->vocab_rows * picks},
        {&cuda->all_logits, (size_t)cuda->vocab_rows * picks * ranks},
        {&cuda->states, (size_t)m->width * cuda->batch_max},
    };
    const struct {
        uint16_t **at;
        size_t numbers; /* of all columns */
    } fast_parts[] = {
        {&cuda->fast_normed, fast * cuda_number_stride(m->width)},
        {&cuda->fast_mixed, fast * cuda_number_stride((uint32_t)attn)},
        {&cuda->fast_gate, fast * cuda_number_stride(m->ffn_width)},
    };
    const size_t count = sizeof(parts) / sizeof(parts[0]);
    const size_t fast_count = sizeof(fast_parts) / sizeof(fast_parts[0]);
    void *memory = NULL;
    for (size_t i = 0; i < count; i++)
        cuda->work_bytes += aligned(parts[i].floats * sizeof(float));
    for (size_t i = 0; i < fast_count; i++)
        cuda->work_bytes += aligned(fast_parts[i].numbers * sizeof(uint16_t));
    const int rc = device_alloc(&memory, cuda->work_bytes);
    if (rc)
        return rc;
    cuda->work = memory;
    uint8_t *at = cuda->work;
    for (size_t i = 0; i < count; i++) {
        *parts[i].at = (float *)(void *)at;
        at += aligned(parts[i].floats * sizeof(float));
    }
    for (size_t i = 0; i < fast_count; i++) {
        *fast_parts[i].at = (uint16_t *)(void *)at;
        at += aligned(fast_parts[i].numbers * sizeof(uint16_t));
    }
    cuda->own_x = cuda->x;
    return 0;
}

_Static_assert(OP_PAGE == EXEC_PAGE_TOKENS, "one size of pages");

static int cuda_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                      uint32_t used)
{
    struct cuda *cuda = (struct cuda *)self;
    return pages_place(&cuda->pages, slot, pages, count, used);
}

/* A page outside: [layer][keys, values][kv head][position][width], as it lies in each layer. */
static size_t layer_page_bytes(const struct cuda *cuda)
{
    return cuda->kv_layer_bytes / cuda->pages.count;
}

static int copy_page(struct cuda *cuda, uint32_t page, uint8_t *out, const uint8_t *in)
{
    const size_t bytes = layer_page_bytes(cuda);
    int rc = page < cuda->pages.count ? device_use(&cuda->device) : -EINVAL;
    for (uint32_t i = 0; !rc && i < cuda->model->layer_count; i++) {
        uint8_t *at = cuda->kv + i * cuda->kv_layer_bytes + page * bytes;
        rc = out ? device_copy(&cuda->device, out + i * bytes, at, bytes)
                 : device_copy(&cuda->device, at, in + i * bytes, bytes);
    }
    const int waited = device_wait(&cuda->device); /* also for what was copied before a failure */
    return rc ? rc : waited;
}

static int cuda_page_out(exec_t *self, uint32_t page, void *out)
{
    return copy_page((struct cuda *)self, page, out, NULL);
}

static int cuda_page_in(exec_t *self, uint32_t page, const void *in)
{
    return copy_page((struct cuda *)self, page, NULL, in);
}

void *cuda_stream(const exec_t *exec)
{
    const struct cuda *cuda = (const struct cuda *)exec;
    return device_use(&cuda->device) ? NULL : cuda->device.stream;
}

double cuda_step_seconds(const exec_t *exec)
{
    const struct cuda *cuda = (const struct cuda *)exec;
    return cuda->has_times ? device_seconds_between(&cuda->device, 0, 1) : 0.0;
}

static void cuda_info(const exec_t *self, struct exec_info *out)
{
    const struct cuda *cuda = (const struct cuda *)self;
    size_t free_bytes;
    size_t total_bytes;
    (void)device_use(&cuda->device);
    device_memory(&free_bytes, &total_bytes);
    *out = (struct exec_info){
        .backend = "cuda",
        .detail = cuda->detail,
        .slots = cuda->slots,
        .context = cuda->context,
        .pages = cuda->pages.count,
        .batch_max = cuda->batch_max,
        .vocab = cuda->model->vocab,
        .width = cuda->model->width,
        .weight_bytes = cuda->model->weight_bytes,
        .kv_bytes = cuda->kv_bytes,
        .work_bytes = cuda->work_bytes + cuda->inputs_bytes,
        .free_bytes = free_bytes,
        .page_bytes = layer_page_bytes(cuda) * cuda->model->layer_count,
    };
}

static void cuda_destroy(exec_t *self)
{
    struct cuda *cuda = (struct cuda *)self;
    cuda_forget_graphs(cuda);
    cublaslt_close(cuda->library);
    device_free(cuda->expanded);
    device_free(cuda->weight_memory);
    device_free(cuda->kv);
    device_free(cuda->tables);
    device_free(cuda->work);
    device_free(cuda->inputs_copy);
    device_free_host(cuda->inputs_memory);
    device_free_host(cuda->stops);
    device_close(&cuda->device);
    pages_deinit(&cuda->pages);
    free(cuda->layers);
    free(cuda);
}

static const struct exec_ops cuda_ops = {
    .forward = cuda_forward,
    .place = cuda_place,
    .page_out = cuda_page_out,
    .page_in = cuda_page_in,
    .info = cuda_info,
    .destroy = cuda_destroy,
};

static int open_all(struct cuda *cuda, const struct cuda_options *options, char *why,
                    size_t why_size)
{
    int rc = check_model(cuda->model, why, why_size);
    if (rc)
        return rc;
    rc = device_open(&cuda->device, options->device);
    if (rc) {
        (void)snprintf(why, why_size, "%s CUDA device %u: %s",
                       rc == -ENODEV ? "there is no" : "nothing can be done on", options->device,
                       device_trouble());
        return rc;
    }
    /* Who computes otherwise has another name: exec.h compares them. */
    (void)snprintf(cuda->detail, sizeof(cuda->detail), "%s%s", cuda->device.name,
                   cuda->is_fast ? ", fast" : "");
    rc = cuda_load(cuda, why, why_size);
    if (rc)
        return rc;
    rc = allocate_kv(cuda, options->pages);
    if (!rc)
        rc = allocate_inputs(cuda);
    if (!rc)
        rc = allocate_work(cuda);
    if (rc)
        (void)snprintf(why, why_size,
                       "%u slots of %u tokens take %zu MiB of KV cache, and steps of %u tokens %zu "
                       "MiB: more than the device has free",
                       cuda->slots, cuda->context, cuda->kv_bytes >> 20, cuda->batch_max,
                       cuda->work_bytes >> 20);
    return rc ? rc : cuda_choose(cuda, options->gemm, why, why_size);
}

static bool is_fast_by_environment(void)
{
    const char *how = getenv("WEFT_CUDA");
    return how && strcmp(how, "fast") == 0;
}

int cuda_create(exec_t **out, const struct model *model, const struct cuda_options *options,
                char *why, size_t why_size)
{
    *out = NULL;
    if (why_size)
        why[0] = 0;
    struct cuda *cuda = calloc(1, sizeof(*cuda));
    if (!cuda)
        return -ENOMEM;
    cuda->base.ops = &cuda_ops;
    cuda->model = model;
    cuda->slots = options->slots ? options->slots : 1;
    cuda->context = options->context;
    if (cuda->context == 0 || cuda->context > model->context)
        cuda->context = model->context;
    cuda->batch_max = options->batch_max ? options->batch_max : CUDA_BATCH_DEFAULT;
    cuda->half_kv = options->half_kv;
    cuda->is_fast = options->fast || options->gemm != CUDA_GEMM_OWN || is_fast_by_environment();
    cuda->is_timed = options->timed;
    cuda->shard = options->shard;
    cuda->vocab_rows = vocab_rows_max(cuda);
    int rc = -EINVAL;
    if (cuda->slots <= CUDA_SLOTS_MAX && cuda->batch_max <= CUDA_BATCH_MAX)
        rc = open_all(cuda, options, why, why_size);
    else
        (void)snprintf(why, why_size,
                       "%u slots and steps of %u tokens: a device takes %u of either", cuda->slots,
                       cuda->batch_max, CUDA_SLOTS_MAX);
    if (rc) {
        cuda_destroy(&cuda->base);
        return rc;
    }
    *out = &cuda->base;
    return 0;
}
