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
 * Errors stick to the runtime, as cudaGetLastError() expects.
 */
#pragma once

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

int emu_copy(struct emu_stream *stream, void *to, const void *from, size_t size);
int emu_fill(struct emu_stream *stream, void *to, int value, size_t size);

int emu_capture_begin(struct emu_stream *stream);
int emu_capture_end(struct emu_stream *stream, struct emu_graph **out);
int emu_graph_launch(struct emu_graph *graph);
int emu_graph_destroy(struct emu_graph *graph);
uint64_t emu_graph_launches(void); /* so far, for tests */

/* Keeps the first error until it is asked for. */
int emu_last_error(int take);
int emu_note_error(int error);

#ifdef __cplusplus
}
#endif
