/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime.h - the part of the CUDA runtime that the backend uses, over emu.h: memory, streams that
 * run at once, capture of a stream into a graph and its replay. include/cuda_runtime.h makes it
 * look like the toolkit's.
 *
 * A launch is an operation with a closure. On a stream that is being captured it is kept and runs
 * with every cudaGraphLaunch(), as it was, with the arguments it was given: what changes from step
 * to step must lie in memory, here as on a device.
 *
 * Errors stick to the runtime, as cudaGetLastError() expects. What goes wrong on a stream that is
 * being captured spoils the capture: all that follows fails up to its end, which gives no graph.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EMU_SUCCESS = 0,
    EMU_INVALID_VALUE = 1,
    EMU_OUT_OF_MEMORY = 2,
    EMU_LAUNCH_FAILED = 719,
    EMU_CAPTURE_FAILED = 901,
};

struct emu_stream;
struct emu_graph;

/* Something a stream does. `run` returns an error as above; `destroy` frees the closure. */
struct emu_op {
    int (*run)(void *closure);
    void (*destroy)(void *closure);
    void *closure;
};

int emu_stream_create(struct emu_stream **out);
int emu_stream_destroy(struct emu_stream *stream);

/* NULL is the default stream, which cannot be captured. Owns the closure in any case. */
int emu_enqueue(struct emu_stream *stream, const struct emu_op *op);

/* Until all is done; not while the stream is captured. */
int emu_stream_wait(struct emu_stream *stream);

int emu_copy(struct emu_stream *stream, void *to, const void *from, size_t size);
int emu_fill(struct emu_stream *stream, void *to, int value, size_t size);

int emu_capture_begin(struct emu_stream *stream);
int emu_capture_end(struct emu_stream *stream, struct emu_graph **out);
struct emu_graph *emu_graph_take(struct emu_graph *from); /* which is empty then; NULL: no memory */
int emu_graph_launch(struct emu_graph *graph);
int emu_graph_destroy(struct emu_graph *graph);
uint64_t emu_graph_launches(void); /* so far, for tests */

/* Calls that a test can have fail, as a device's do where memory or the driver says no. */
enum emu_call {
    EMU_CALL_ALLOC = 0, /* memory of the device or pinned */
    EMU_CALL_STREAM,    /* a stream or an event is created */
    EMU_CALL_PUT,       /* a launch, copy or fill; one that is captured spoils its capture */
    EMU_CALL_CAPTURE,   /* the end of a capture: no graph, but the stream is as before it */
    EMU_CALL_GRAPH,     /* a captured graph is made executable */
    EMU_CALLS,
};

/* The nth such call from now on fails, once; 0: none does. */
void emu_fail_nth(enum emu_call call, uint32_t nth);
bool emu_has_failed(enum emu_call call); /* the one that was asked for */
bool emu_is_to_fail(enum emu_call call); /* is it this one? counts it */

/* Keeps the first error until it is asked for. */
int emu_last_error(int take);
int emu_note_error(int error);

#ifdef __cplusplus
}
#endif
