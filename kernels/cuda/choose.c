/* SPDX-License-Identifier: Apache-2.0 */
/* Who makes the products of the fast way: gemm.cu, cuBLASLt (cublaslt.h), or for each shape of a
 * matrix whoever was faster when the backend was created, the library from some number of columns
 * on: what is quantised is expanded for it each time, which short pieces of prompts do not pay
 * back. What is chosen is part of the backend's name, as other hands give other bits. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/backend.h"

#define WARM          2u
#define ROUNDS        5u
#define COLUMNS_MOST  2048u /* measured with: a long piece of a prompt, */
#define COLUMNS_STEP  4u    /* then a quarter of it, and so on */
#define COLUMNS_LEAST 32u

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static struct cuda_choice *find_choice(const struct cuda *cuda, const struct weights *w)
{
    for (uint32_t i = 0; i < cuda->choice_count; i++) {
        const struct cuda_choice *c = &cuda->choices[i];
        if (c->type == w->type && c->rows == w->rows && c->cols == w->cols)
            return (struct cuda_choice *)c;
    }
    return NULL;
}

bool cuda_is_librarys(const struct cuda *cuda, const struct matvec_part *part, uint32_t columns)
{
    const struct cuda_choice *choice = find_choice(cuda, &part->w);
    return cuda->library && choice && columns >= choice->library_from && !part->bias;
}

/* ---- the product ------------------------------------------------------------------------------
 */

/* Are the weights numbers of x's kind? Else they are expanded first, each time. */
static bool is_plain(const struct cuda *cuda, const struct weights *w)
{
    return w->type == (cuda->number == OP_BF16 ? WEIGHTS_BF16 : WEIGHTS_F16);
}

int cuda_library_product(const struct cuda *cuda, const struct gemm_args *op,
                         const struct matvec_part *part)
{
    const struct weights *w = &part->w;
    struct cublaslt_product product = {
        .w = w->data,
        .x = op->x,
        .y = part->y,
        .rows = w->rows,
        .cols = w->cols,
        .columns = op->columns,
        .w_stride = w->quants_stride / (uint32_t)sizeof(uint16_t),
        .x_stride = op->x_stride,
        .y_stride = part->y_stride,
        .number = op->number,
        .is_added = op->mode == OP_ADD,
    };
    if (!is_plain(cuda, w)) {
        product.w = cuda->expanded;
        product.w_stride = cuda_number_stride(w->cols);
        const int rc = op_expand(&cuda->device, w, cuda->expanded, product.w_stride);
        if (rc)
            return rc;
    }
    const int rc = cublaslt_run(cuda->library, &product);
    if (rc != -ENOTSUP)
        return rc;
    struct gemm_args own = *op;
    own.part_count = 1;
    own.parts[0] = *part;
    return op_gemm(&cuda->device, &own);
}

/* ---- the choice -------------------------------------------------------------------------------
 */

static void add_shape(struct cuda *cuda, const struct weights *w)
{
    if (!find_choice(cuda, w) && cuda->choice_count < CUDA_CHOICES)
        cuda->choices[cuda->choice_count++] =
            (struct cuda_choice){w->type, w->rows, w->cols, UINT32_MAX};
}

static void find_shapes(struct cuda *cuda)
{
    for (uint32_t i = 0; i < cuda->model->layer_count; i++) {
        const struct cuda_layer *l = &cuda->layers[i];
        const struct weights *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++)
            add_shape(cuda, all[n]);
    }
}

/* Place for the largest matrix that is not plain. */
static int allocate_expanded(struct cuda *cuda)
{
    size_t most = 0;
    for (uint32_t i = 0; i < cuda->choice_count; i++) {
        const struct cuda_choice *c = &cuda->choices[i];
        const struct weights shape = {.type = c->type};
        const size_t bytes = (size_t)c->rows * cuda_number_stride(c->cols) * sizeof(uint16_t);
        most = !is_plain(cuda, &shape) && bytes > most ? bytes : most;
    }
    void *memory = NULL;
    const int rc = most ? device_alloc(&memory, most) : 0;
    cuda->expanded = memory;
    cuda->work_bytes += rc ? 0 : most;
    return rc;
}

/* A matrix of this shape; the first there is. */
static const struct weights *example_of(const struct cuda *cuda, const struct cuda_choice *c)
{
    for (uint32_t i = 0; i < cuda->model->layer_count; i++) {
        const struct cuda_layer *l = &cuda->layers[i];
        const struct weights *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++)
            if (find_choice(cuda, all[n]) == c)
                return all[n];
    }
    return NULL;
}

/* Seconds of one product, or infinity. */
static double measure_once(const struct cuda *cuda, const struct gemm_args *op, bool is_library)
{
    const double begin = now_s();
    int rc =
        is_library ? cuda_library_product(cuda, op, &op->parts[0]) : op_gemm(&cuda->device, op);
    const int waited = device_wait(&cuda->device);
    rc = rc ? rc : waited;
    return rc ? INFINITY : now_s() - begin;
}

/* The best of some rounds each, in turn: clocks that rise meanwhile favour neither. */
static bool library_is_faster(const struct cuda *cuda, const struct gemm_args *op)
{
    double best[2] = {INFINITY, INFINITY};
    for (uint32_t i = 0; i < 2 * (WARM + ROUNDS); i++) {
        const double seconds = measure_once(cuda, op, i % 2);
        if (i >= 2 * WARM && seconds < best[i % 2])
            best[i % 2] = seconds;
    }
    return best[1] < best[0];
}

/* On the buffers of a step, which are free yet: numbers of about 1 in x, anything in y. */
static void measure_choice(const struct cuda *cuda, struct cuda_choice *c)
{
    const struct cuda_layer *l = &cuda->layers[0];
    const uint32_t stride = cuda_number_stride(c->cols);
    uint16_t *x = c->cols == l->down.cols ? cuda->fast_gate
                  : c->cols == l->o.cols  ? cuda->fast_mixed
                                          : cuda->fast_normed;
    float *y = c->rows == l->gate.rows ? cuda->gate : c->rows == l->q.rows ? cuda->q : cuda->x;
    const uint32_t most = cuda->batch_max < COLUMNS_MOST ? cuda->batch_max : COLUMNS_MOST;
    const struct weights *w = example_of(cuda, c);
    struct gemm_args op = {.x = x,
                           .x_stride = stride,
                           .columns = most,
                           .part_count = 1,
                           .number = cuda->number,
                           .parts = {{.w = w ? *w : l->q, .y = y, .y_stride = c->rows}}};
    const bool fits = (y != cuda->x || c->rows <= cuda->model->width) &&
                      (x != cuda->fast_normed || c->cols <= cuda->model->width);
    if (!w || !fits || device_fill(&cuda->device, x, 0x3c, (size_t)most * stride * sizeof(*x)))
        return; /* stays gemm.cu's */
    while (library_is_faster(cuda, &op)) {
        c->library_from = op.columns;
        if (op.columns / COLUMNS_STEP < COLUMNS_LEAST)
            return;
        op.columns /= COLUMNS_STEP;
    }
}

/* From how many columns on the library multiplies: 'a' from the first, 'b' from 2 on, 'c' from 4
 * ... 'l' from 2,048; '-' never. */
static char letter_of(const struct cuda_choice *c)
{
    char letter = 'a';
    for (uint32_t columns = c->library_from; columns > 1; columns /= 2)
        letter++;
    return c->library_from == UINT32_MAX ? '-' : letter;
}

/* Who computes otherwise has another name: exec.h compares them. */
static void name_choices(struct cuda *cuda)
{
    const size_t used = strlen(cuda->detail);
    char letters[CUDA_CHOICES + 1] = {0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < cuda->choice_count; i++) {
        letters[i] = letter_of(&cuda->choices[i]);
        count += letters[i] != '-';
    }
    if (count)
        (void)snprintf(cuda->detail + used, sizeof(cuda->detail) - used,
                       ", cuBLASLt %u for %u of %u shapes (%s)", cublaslt_version(cuda->library),
                       count, cuda->choice_count, letters);
}

/* The library, and memory for what is expanded for it. */
static int open_library(struct cuda *cuda, char *why, size_t why_size)
{
    int rc = cublaslt_open(&cuda->library, &cuda->device, why, why_size);
    if (rc)
        return rc;
    find_shapes(cuda);
    rc = allocate_expanded(cuda);
    if (rc) {
        (void)snprintf(why, why_size, "there is no memory for expanded weights");
        cublaslt_close(cuda->library);
        cuda->library = NULL;
    }
    return rc;
}

int cuda_choose(struct cuda *cuda, enum cuda_gemm gemm, char *why, size_t why_size)
{
    /* Ranks would have to agree on what each of them has measured. */
    const bool is_auto = gemm == CUDA_GEMM_AUTO;
    if (!cuda->is_fast || gemm == CUDA_GEMM_OWN || (is_auto && cuda_team(cuda)))
        return 0;
    const int rc = open_library(cuda, why, why_size);
    if (rc)
        return is_auto ? 0 : rc; /* gemm.cu is there */
    for (uint32_t i = 0; i < cuda->choice_count; i++) {
        if (is_auto)
            measure_choice(cuda, &cuda->choices[i]);
        else
            cuda->choices[i].library_from = 0;
    }
    name_choices(cuda);
    return 0;
}
