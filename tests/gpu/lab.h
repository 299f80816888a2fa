/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lab.h - what the cases of cases.h are made of: seeded random inputs, device memory that begins
 * poisoned, comparison with a tolerance. Plain C without a test library, so that the same cases run
 * in the unit tests (on the emulator) and in the self-test of a GPU server.
 *
 * A failing step notes a sentence in the lab and everything after it does nothing: cases need no
 * checks of their own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/weights.h"
#include "kernels/model/model.h"

#define LAB_THINGS_MAX 64u

struct lab {
    struct device *device;
    uint64_t rng;
    char failure[256]; /* empty while all is well */
    void *device_things[LAB_THINGS_MAX];
    void *host_things[LAB_THINGS_MAX];
    uint32_t device_count;
    uint32_t host_count;
};

void lab_init(struct lab *lab, struct device *device, uint64_t seed);

/* Frees everything the case has made. */
void lab_deinit(struct lab *lab);

void lab_fail(struct lab *lab, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool lab_is_well(const struct lab *lab);

/* Fails the lab if `rc` is not 0; `what` says of what. */
void lab_check(struct lab *lab, int rc, const char *what);

uint64_t lab_random(struct lab *lab);
uint32_t lab_below(struct lab *lab, uint32_t limit); /* 0 .. limit - 1 */
float lab_float(struct lab *lab);                    /* -1 .. 1 */

/* Memory until lab_deinit(). Never NULL: without memory the process ends. */
void *lab_host(struct lab *lab, size_t size_bytes);
float *lab_floats(struct lab *lab, size_t count); /* random */

/* On the device: poisoned with bytes of 0xff; or a copy. NULL once the lab has failed. */
void *lab_device(struct lab *lab, size_t size_bytes);
void *lab_upload(struct lab *lab, const void *data, size_t size_bytes);

/* Waits for the device and brings memory back. */
void lab_download(struct lab *lab, void *to, const void *from, size_t size_bytes);

/* A matrix of random blocks with weights of about `size`; its planes on the device. False if the
 * file's reader does not know the type. */
bool lab_matrix(struct lab *lab, uint32_t type, uint32_t rows, uint32_t cols, float size,
                struct model_tensor *tensor, struct weights *on_device);

/* Fills `size_bytes` (whole blocks) with random blocks whose weights are of about `size`. */
void lab_blocks(struct lab *lab, uint32_t type, float size, uint8_t *data, size_t size_bytes);

/* Every |got - want| <= tolerance * (1 + |want|); a value that is no number fails. */
void lab_compare(struct lab *lab, const char *what, const float *got, const float *want,
                 size_t count, float tolerance);
