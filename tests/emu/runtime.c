/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that do at once what they are given, unless a graph is being captured from them. */
#include "tests/emu/runtime.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct emu_graph {
    struct emu_op *ops;
    size_t count;
    size_t capacity;
};

struct emu_stream {
    struct emu_graph *capture; /* NULL unless capturing */
    bool is_spoilt;            /* the capture */
};

struct copy {
    void *to;
    const void *from; /* NULL: fill */
    size_t size;
    int value;
};

static int last_error;
static uint64_t graph_launches;
static uint32_t until_failure[EMU_CALLS];
static bool has_failed[EMU_CALLS];

void emu_fail_nth(enum emu_call call, uint32_t nth)
{
    until_failure[call] = nth;
    has_failed[call] = false;
}

bool emu_has_failed(enum emu_call call)
{
    return has_failed[call];
}

bool emu_is_to_fail(enum emu_call call)
{
    if (!until_failure[call] || --until_failure[call])
        return false;
    has_failed[call] = true;
    return true;
}

uint64_t emu_graph_launches(void)
{
    return graph_launches;
}

int emu_note_error(int error)
{
    if (error && !last_error)
        last_error = error;
    return error;
}

int emu_last_error(int take)
{
    const int error = last_error;
    if (take)
        last_error = 0;
    return error;
}

int emu_stream_create(struct emu_stream **out)
{
    *out = emu_is_to_fail(EMU_CALL_STREAM) ? NULL : calloc(1, sizeof(**out));
    return emu_note_error(*out ? EMU_SUCCESS : EMU_OUT_OF_MEMORY);
}

int emu_graph_destroy(struct emu_graph *graph)
{
    for (size_t i = 0; graph && i < graph->count; i++)
        graph->ops[i].destroy(graph->ops[i].closure);
    if (graph)
        free(graph->ops);
    free(graph);
    return EMU_SUCCESS;
}

int emu_stream_destroy(struct emu_stream *stream)
{
    if (stream)
        (void)emu_graph_destroy(stream->capture);
    free(stream);
    return EMU_SUCCESS;
}

static int graph_add(struct emu_graph *graph, const struct emu_op *op)
{
    if (graph->count == graph->capacity) {
        const size_t capacity = graph->capacity ? graph->capacity * 2 : 64;
        struct emu_op *ops = realloc(graph->ops, capacity * sizeof(*ops));
        if (!ops) {
            op->destroy(op->closure);
            return EMU_OUT_OF_MEMORY;
        }
        graph->ops = ops;
        graph->capacity = capacity;
    }
    graph->ops[graph->count++] = *op;
    return EMU_SUCCESS;
}

int emu_enqueue(struct emu_stream *stream, const struct emu_op *op)
{
    const bool fails = emu_is_to_fail(EMU_CALL_PUT);
    if (stream && stream->capture && (fails || stream->is_spoilt)) {
        stream->is_spoilt = true;
        op->destroy(op->closure);
        return emu_note_error(EMU_CAPTURE_FAILED);
    }
    if (stream && stream->capture)
        return emu_note_error(graph_add(stream->capture, op));
    const int error = fails ? EMU_LAUNCH_FAILED : op->run(op->closure);
    op->destroy(op->closure);
    return emu_note_error(error);
}

static int copy_run(void *closure)
{
    const struct copy *c = closure;
    if (c->from)
        memmove(c->to, c->from, c->size);
    else
        memset(c->to, c->value, c->size);
    return EMU_SUCCESS;
}

static int enqueue_copy(struct emu_stream *stream, struct copy what)
{
    struct copy *c = malloc(sizeof(*c));
    if (!c)
        return emu_note_error(EMU_OUT_OF_MEMORY);
    *c = what;
    const struct emu_op op = {copy_run, free, c};
    return emu_enqueue(stream, &op);
}

int emu_copy(struct emu_stream *stream, void *to, const void *from, size_t size)
{
    if (!to || !from)
        return emu_note_error(EMU_INVALID_VALUE);
    return enqueue_copy(stream, (struct copy){to, from, size, 0});
}

int emu_fill(struct emu_stream *stream, void *to, int value, size_t size)
{
    if (!to)
        return emu_note_error(EMU_INVALID_VALUE);
    return enqueue_copy(stream, (struct copy){to, NULL, size, value});
}

int emu_stream_wait(struct emu_stream *stream)
{
    if (stream && stream->capture) {
        stream->is_spoilt = true;
        return emu_note_error(EMU_CAPTURE_FAILED);
    }
    return EMU_SUCCESS; /* what failed has said so itself */
}

int emu_capture_begin(struct emu_stream *stream)
{
    if (!stream || stream->capture)
        return emu_note_error(EMU_INVALID_VALUE);
    stream->capture = calloc(1, sizeof(*stream->capture));
    return stream->capture ? EMU_SUCCESS : emu_note_error(EMU_OUT_OF_MEMORY);
}

int emu_capture_end(struct emu_stream *stream, struct emu_graph **out)
{
    *out = NULL;
    if (!stream || !stream->capture)
        return emu_note_error(EMU_CAPTURE_FAILED);
    struct emu_graph *captured = stream->capture;
    const bool fails = emu_is_to_fail(EMU_CALL_CAPTURE) || stream->is_spoilt;
    stream->capture = NULL;
    stream->is_spoilt = false;
    if (fails) {
        (void)emu_graph_destroy(captured);
        return emu_note_error(EMU_CAPTURE_FAILED);
    }
    *out = captured;
    return EMU_SUCCESS;
}

struct emu_graph *emu_graph_take(struct emu_graph *from)
{
    struct emu_graph *taken = malloc(sizeof(*taken));
    if (taken) {
        *taken = *from;
        *from = (struct emu_graph){0};
    }
    return taken;
}

int emu_graph_launch(struct emu_graph *graph)
{
    graph_launches++;
    for (size_t i = 0; i < graph->count; i++) {
        const int error = graph->ops[i].run(graph->ops[i].closure);
        if (error)
            return emu_note_error(error);
    }
    return EMU_SUCCESS;
}
