/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - one accelerator, as plain C sees it: memory, copies, one stream of work, graphs. The
 * operations are in ops.h; cuda.c makes a backend of both. Implemented by device.cu.
 *
 * Work is put on the device's one stream and done in order; device_wait() returns when all of it
 * is. While a graph is being captured work is only noted down; device_graph_launch() does it again
 * and again, with the arguments it was noted with: what changes must lie in memory.
 *
 * Threads: one thread at a time, after device_use(). A child of fork() cannot use a device its
 * parent has opened. Errors: 0, -ENODEV without a device, -ENOMEM, -EIO for what the device reports
 * later.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEVICE_NAME_BYTES 64u

#define DEVICE_MARKS 2u

struct device {
    uint32_t index;
    void *stream;
    void *marks[DEVICE_MARKS];
    uint32_t processors;   /* streaming multiprocessors */
    uint32_t shared_bytes; /* that a block may have */
    uint32_t capability;   /* 80 for sm_80 */
    char name[DEVICE_NAME_BYTES];
};

struct device_graph;

/* Devices there are; 0 without a driver. */
uint32_t device_count(void);

/* Why there are none, or what went wrong last, in the runtime's words with its version and the
 * driver's: an old driver is the usual reason. Static storage. */
const char *device_trouble(void);

int device_open(struct device *device, uint32_t index);

/* Makes it the device of the calling thread: before the first call of another thread than the one
 * that opened it. */
int device_use(const struct device *device);
void device_close(struct device *device);

/* Free and whole memory; 0 if the device does not say. */
void device_memory(size_t *free_bytes, size_t *total_bytes);

/* Memory of the device; of the host, pinned, for copies that do not wait. NULL is fine to free. */
int device_alloc(void **out, size_t size_bytes);
void device_free(void *memory);
int device_alloc_host(void **out, size_t size_bytes);
void device_free_host(void *memory);

/* Between any two of them, pageable memory of the host too, but then not beside other work. */
int device_copy(const struct device *device, void *to, const void *from, size_t size_bytes);
int device_fill(const struct device *device, void *to, int byte, size_t size_bytes);
int device_wait(const struct device *device);

/* Puts a mark behind what is on the stream, and waits until the stream has come to it. */
int device_mark(const struct device *device, uint32_t mark);
int device_wait_mark(const struct device *device, uint32_t mark);

/* Between two marks that the stream has come to; 0 if it has not. */
double device_seconds_between(const struct device *device, uint32_t first, uint32_t second);

/* What is put on the stream between begin and end becomes the graph. After a failure in between end
 * it all the same; it then fails too. */
int device_capture_begin(const struct device *device);
int device_capture_end(const struct device *device, struct device_graph **out);
int device_graph_launch(const struct device *device, struct device_graph *graph);
void device_graph_destroy(struct device_graph *graph);

#ifdef __cplusplus
}
#endif
