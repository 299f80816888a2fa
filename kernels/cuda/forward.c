/* SPDX-License-Identifier: Apache-2.0 */
/* A step of the CUDA backend: inputs over, the layers (layer.c), logits and states back. Batches of
 * nothing but decoding rows run as a graph that was captured the second time; others layer by
 * layer, one layer ahead of the device, so that a stop is obeyed after two layers at most. Ranks
 * find out in the sum behind each layer that one of them is to stop, and all do so behind the same.
 */
#include <errno.h>
#include <string.h>

#include "kernels/cuda/backend.h"

static bool is_stopped(const struct exec_watch *watch)
{
    return watch && atomic_load_explicit(&watch->stop, memory_order_relaxed);
}

static void add_progress(struct exec_watch *watch, uint32_t layers)
{
    if (watch)
        atomic_fetch_add_explicit(&watch->progress, layers, memory_order_relaxed);
}

/* Ranks do not wait for the dead for ever. */
static int wait_mark(const struct cuda *cuda, uint32_t mark)
{
    if (cuda_team(cuda))
        return collective_wait(cuda_team(cuda), cuda->device.marks[mark]);
    return device_wait_mark(&cuda->device, mark);
}

static int wait_all(const struct cuda *cuda)
{
    if (!cuda_team(cuda))
        return device_wait(&cuda->device);
    const int rc = device_mark(&cuda->device, 0);
    return rc ? rc : wait_mark(cuda, 0);
}

/* ---- steps --------------------------------------------------------------------------------- */

/* Layer by layer, the host one ahead of the device. */
static int run_eager(const struct cuda *cuda, const struct cuda_step *step,
                     struct exec_watch *watch)
{
    const bool is_team = cuda_team(cuda) != NULL;
    int rc = cuda_run_embed(cuda, step);
    for (uint32_t i = 0; !rc && i < cuda->model->layer_count; i++) {
        /* Of the layer that has been waited for last. */
        struct cuda_stop *stop = is_team ? &cuda->stops[i % DEVICE_MARKS] : NULL;
        if (is_team ? i >= DEVICE_MARKS && stop->all > 0.0f : is_stopped(watch)) {
            rc = wait_all(cuda);
            return rc ? rc : -ECANCELED;
        }
        if (is_team)
            *stop = (struct cuda_stop){.mine = is_stopped(watch) ? 1.0f : 0.0f};
        rc = cuda_run_layer(cuda, i, step, stop);
        if (!rc)
            rc = device_mark(&cuda->device, i % DEVICE_MARKS);
        if (!rc && i)
            rc = wait_mark(cuda, (i - 1) % DEVICE_MARKS);
        add_progress(watch, 1);
    }
    return rc ? rc : cuda_run_states(cuda, step);
}

/* A decoding step as a graph has it. */
static int put_step(const struct cuda *cuda, const struct cuda_step *step)
{
    int rc = cuda_run_embed(cuda, step);
    for (uint32_t i = 0; !rc && i < cuda->model->layer_count; i++)
        rc = cuda_run_layer(cuda, i, step, NULL);
    return rc ? rc : cuda_run_logits(cuda, 0, step->picked);
}

/* NULL if that fails: half a step must not be launched later. */
static struct device_graph *capture(const struct cuda *cuda, const struct cuda_step *step)
{
    struct device_graph *graph = NULL;
    if (device_capture_begin(&cuda->device))
        return NULL;
    const int rc = put_step(cuda, step);
    if (device_capture_end(&cuda->device, &graph) == 0 && rc == 0)
        return graph;
    device_graph_destroy(graph);
    return NULL;
}

void cuda_forget_graphs(struct cuda *cuda)
{
    for (uint32_t i = 0; i < CUDA_GRAPH_COLUMNS; i++)
        for (uint32_t j = 0; j < CUDA_GRAPH_LENGTHS; j++)
            device_graph_destroy(cuda->graphs[i][j]);
    memset(cuda->graphs, 0, sizeof(cuda->graphs));
    memset(cuda->tries, 0, sizeof(cuda->tries));
}

/* Another group has come: its memory for what is summed, and graphs that call it. */
static void meet_team(struct cuda *cuda)
{
    struct collective *team = cuda_team(cuda);
    if (!team || team->serial == cuda->team_serial)
        return;
    const size_t floats = (size_t)cuda->model->width * cuda->batch_max + 1;
    void *memory = collective_memory(team, floats * sizeof(float));
    cuda_forget_graphs(cuda);
    cuda->x = memory ? memory : cuda->own_x;
    cuda->team_serial = team->serial;
}

/* Which length of graphs a step needs. */
static uint32_t bucket_of(const struct cuda_step *step)
{
    uint32_t bucket = 0;
    while (bucket + 1 < CUDA_GRAPH_LENGTHS && step->length > OP_SPLIT_LEAST << bucket)
        bucket++;
    return bucket;
}

/* The graph of so many columns of at most such a length. The first step like it goes layer by
 * layer: a kernel that has never run is loaded then, which a capture would not allow everywhere.
 * The second one is captured; where that fails, it and those behind it do the same without. */
static int run_graph(struct cuda *cuda, const struct cuda_step *step, struct exec_watch *watch)
{
    struct cuda_step longest = *step;
    const uint32_t bucket = bucket_of(step);
    struct device_graph **graph = &cuda->graphs[step->count - 1][bucket];
    uint8_t *tries = &cuda->tries[step->count - 1][bucket];
    longest.length = OP_SPLIT_LEAST << bucket;
    if (*tries == 0) {
        int rc = run_eager(cuda, &longest, watch);
        if (!rc)
            rc = cuda_run_logits(cuda, 0, step->picked);
        *tries = rc == 0;
        return rc;
    }
    if (*tries == 1) {
        *tries = 2;
        *graph = capture(cuda, &longest);
    }
    int rc = cuda->is_timed ? device_mark(&cuda->device, 0) : 0;
    if (!rc)
        rc = *graph ? device_graph_launch(&cuda->device, *graph) : put_step(cuda, &longest);
    if (!rc && cuda->is_timed)
        rc = device_mark(&cuda->device, 1);
    cuda->has_times = !rc && cuda->is_timed;
    add_progress(watch, cuda->model->layer_count);
    return rc;
}

/* ---- in ------------------------------------------------------------------------------------ */

/* A row goes one way or the other by what it wants, not by what is beside it: its keys and values
 * are then the same however a prompt is cut. */
static bool goes_fast(const struct cuda *cuda, const struct exec_row *row)
{
    return cuda->is_fast && !row->want_logits;
}

static void add_column(struct cuda *cuda, const struct exec_row *row, uint32_t column,
                       struct cuda_step *step)
{
    cuda->inputs.rows[column] = (struct op_row){row->slot, row->position};
    cuda->inputs.tokens[column] = row->token;
    if (row->want_logits)
        cuda->inputs.picks[step->picked++] = column;
    if (row->want_state)
        cuda->inputs.state_picks[step->states++] = column;
    if (row->position >= step->length)
        step->length = row->position + 1;
}

/* Columns of the fast way, neighbours of one slot together as far as a tile takes them. */
static void add_to_tile(struct cuda *cuda, uint32_t column, struct cuda_step *step)
{
    const struct op_row *rows = cuda->inputs.rows;
    struct op_tile *last = &cuda->inputs.tiles[step->tiles - (step->tiles ? 1 : 0)];
    if (step->tiles && last->count < op_tile_columns(cuda->model->head_group) &&
        rows[column - 1].slot == rows[column].slot &&
        rows[column - 1].position + 1 == rows[column].position)
        last->count++;
    else
        cuda->inputs.tiles[step->tiles++] = (struct op_tile){column, 1};
}

/* The batch as columns to the device, and the pages' tables if they have changed. */
static int send_inputs(struct cuda *cuda, const struct exec_row *rows, uint32_t count,
                       struct cuda_step *step)
{
    *step = (struct cuda_step){.count = count};
    for (uint32_t i = 0; i < count; i++)
        step->fast += goes_fast(cuda, &rows[i]);
    uint32_t fast = 0;
    uint32_t exact = step->fast;
    for (uint32_t i = 0; i < count; i++) {
        const bool is_fast = goes_fast(cuda, &rows[i]);
        const uint32_t column = is_fast ? fast++ : exact++;
        add_column(cuda, &rows[i], column, step);
        if (is_fast)
            add_to_tile(cuda, column, step);
    }
    int rc = device_copy(&cuda->device, cuda->inputs_copy, cuda->inputs_memory, cuda->inputs_bytes);
    if (!rc && cuda->pages.is_changed) {
        rc = device_copy(&cuda->device, cuda->tables, cuda->pages.tables,
                         (size_t)cuda->slots * cuda->pages.stride * sizeof(uint32_t));
        cuda->pages.is_changed = rc != 0;
    }
    return rc;
}

/* ---- out ----------------------------------------------------------------------------------- */

/* Row `index` of `count` of the logits, from all ranks. */
static int take_parts(const struct cuda *cuda, uint32_t count, uint32_t index, float *out)
{
    const struct shard *s = cuda->shard;
    int rc = 0;
    for (uint32_t r = 0; !rc && r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        const float *from = cuda->all_logits + ((size_t)r * count + index) * cuda->vocab_rows;
        rc = device_copy(&cuda->device, out + rows.begin, from,
                         (rows.end - rows.begin) * sizeof(*out));
    }
    return rc;
}

/* Logits of `count` columns, as cuda_run_logits() has just made them. */
static int take_logits(const struct cuda *cuda, uint32_t count, float *out)
{
    const struct model *m = cuda->model;
    int rc = 0;
    if (!cuda_gives_results(cuda))
        return 0;
    if (!cuda_team(cuda))
        return device_copy(&cuda->device, out, cuda->logits,
                           (size_t)count * m->vocab * sizeof(float));
    for (uint32_t i = 0; !rc && i < count; i++)
        rc = take_parts(cuda, count, i, out + (size_t)i * m->vocab);
    return rc;
}

/* With `are_made` the logits lie there already. */
static int take_outputs(const struct cuda *cuda, const struct cuda_step *step,
                        const struct exec_out *out, bool are_made)
{
    const struct model *m = cuda->model;
    int rc = 0;
    if (step->states && cuda_gives_results(cuda))
        rc = device_copy(&cuda->device, out->states, cuda->states,
                         (size_t)step->states * m->width * sizeof(float));
    for (uint32_t first = 0; !rc && first < step->picked; first += CUDA_LOGITS_COLUMNS) {
        const uint32_t left = step->picked - first;
        const uint32_t count = left < CUDA_LOGITS_COLUMNS ? left : CUDA_LOGITS_COLUMNS;
        if (!are_made)
            rc = cuda_run_logits(cuda, first, count);
        if (!rc)
            rc = take_logits(cuda, count,
                             out->logits ? out->logits + (size_t)first * m->vocab : NULL);
    }
    return rc;
}

/* ---- exec.h -------------------------------------------------------------------------------- */

static bool rows_are_valid(const struct cuda *cuda, const struct exec_row *rows, size_t count,
                           const struct exec_out *out)
{
    const bool gives = cuda_gives_results(cuda);
    if (count == 0 || count > cuda->batch_max)
        return false;
    for (size_t i = 0; i < count; i++)
        if (rows[i].token >= cuda->model->vocab ||
            (gives &&
             ((rows[i].want_state && !out->states) || (rows[i].want_logits && !out->logits))))
            return false;
    return true;
}

/* One row of each of its slots, all of which want logits and nothing else; and nobody who computes
 * outside of the stream. */
static bool is_decoding(const struct cuda *cuda, const struct exec_row *rows, size_t count)
{
    const struct collective *team = cuda_team(cuda);
    for (size_t i = 0; i < count; i++)
        if (!rows[i].want_logits || rows[i].want_state || (i && rows[i].slot == rows[i - 1].slot))
            return false;
    return count <= CUDA_GRAPH_COLUMNS && (!team || team->is_on_stream);
}

int cuda_forward(exec_t *self, const struct exec_row *rows, size_t count,
                 const struct exec_out *out, struct exec_watch *watch)
{
    struct cuda *cuda = (struct cuda *)self;
    struct cuda_step step;
    if (!rows_are_valid(cuda, rows, count, out))
        return -EINVAL;
    int rc = device_use(&cuda->device);
    if (!rc)
        rc = pages_take(&cuda->pages, rows, count);
    if (rc)
        return rc;
    meet_team(cuda);
    cuda->has_times = false;
    const bool is_graph = is_decoding(cuda, rows, count);
    rc = send_inputs(cuda, rows, (uint32_t)count, &step);
    if (!rc && is_stopped(watch) && !cuda_team(cuda)) {
        rc = device_wait(&cuda->device);
        rc = rc ? rc : -ECANCELED;
    } else if (!rc && is_graph) {
        rc = run_graph(cuda, &step, watch);
    } else if (!rc) {
        rc = run_eager(cuda, &step, watch);
    }
    if (!rc)
        rc = take_outputs(cuda, &step, out, is_graph);
    /* After a failure, too: what is still under way reads what the next call writes. */
    const int waited = rc && cuda_team(cuda) ? 0 : wait_all(cuda);
    rc = rc ? rc : waited;
    if (rc)
        pages_forget(&cuda->pages, rows, count);
    return rc;
}
